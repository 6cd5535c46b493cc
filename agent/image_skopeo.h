/* Running skopeo for one registry: a private directory with the credentials, the options, the errors in
 * words. For the image store's own use. */
#ifndef AGENT_IMAGE_SKOPEO_H
#define AGENT_IMAGE_SKOPEO_H

#include "agent/image_store.h"
#include "base/proc.h"

struct skopeo;

/* Makes the directory (0700). `auth` is the text of X-Registry-Auth or NULL; what does not decode counts as
 * none. */
int skopeo_open(struct images *im, const char *domain, const char *auth, struct skopeo **ret, struct err *e);
/* Removes the directory with all that is in it (in the background). NULL is fine. Nothing may be running. */
void skopeo_close(struct skopeo *s);
const char *skopeo_dir(const struct skopeo *s);

struct skopeo_opts {
	const char *command;        /* "inspect" ... */
	const struct strlist *args; /* after the options that every command gets */
	const char *tls_option;     /* "--tls-verify" or "--src-tls-verify" */
	const char *stdin_data;     /* may be NULL */
	size_t max_output;
	uint64_t timeout_ms;
	proc_line_cb on_line; /* may be NULL */
	/* rc 0: it exited with 0 and `out` is what it printed. Else e has its words. */
	void (*done)(void *data, int rc, const struct buf *out, const struct err *e);
	void *data;
};
int skopeo_run(struct skopeo *s, const struct skopeo_opts *o, struct err *e);
void skopeo_kill(struct skopeo *s); /* what runs ends; its callback still comes */

/* Errors of a transfer in docker's words: `familiar` is the reference as the user knows it. */
void skopeo_explain(const char *familiar, const char *repository, struct err *e);

#endif
