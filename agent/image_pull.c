/* Pulling an image from a registry: the callers.
 *
 * Callers that ask for the same reference with the same credentials while a pull runs share it (struct
 * image_op is one caller's part); image_fetch.c does the work. A caller that cancels is told so; the last one
 * takes the transfer with it. Whatever goes wrong, the pull's directory goes, layers that nothing else has
 * go, and every caller hears the same error. */
#include <stdio.h>
#include <string.h>

#include "agent/image_pull.h"
#include "base/log.h"
#include "base/mem.h"

/* --- telling the callers */

static json_t *first_line(const struct pull *p)
{
	json_t *line = json_pack("{s:o,s:s}", "status", json_sprintf("Pulling from %s", p->repository), "id",
	    p->ref.digest ? p->ref.digest : p->ref.tag);
	ASSERT(line);
	return line;
}

/* What a caller that came later has missed. */
static void replay(struct image_op *op)
{
	const struct pull *p = op->pull;
	if (!op->progress || !p->announced)
		return;
	json_t *line = first_line(p);
	op->progress(op->data, line);
	json_decref(line);
	for (size_t k = 0; k < p->n_layers; k++)
		if (p->layers[k].last)
			op->progress(op->data, p->layers[k].last);
}

void pull_send(struct pull *p, json_t *line)
{
	for (struct image_op *op = p->ops, *next; op; op = next) {
		next = op->next; /* it may cancel itself, or others */
		if (op->pull != p)
			continue;
		if (op->behind)
			replay(op);
		op->behind = false;
		if (op->progress)
			op->progress(op->data, line);
	}
	json_decref(line);
}

void pull_send_layer(struct pull *p, size_t k, const char *status, int64_t done, int64_t total)
{
	char id[13];
	snprintf(id, sizeof(id), "%.12s", p->layers[k].digest + 7);
	json_t *line = image_progress_line(status, id, done, total);
	json_decref(p->layers[k].last);
	p->layers[k].last = json_incref(line);
	pull_send(p, line);
}

static void send_status(struct pull *p, const char *fmt, const char *what)
{
	CLEANUP_FREE char *text = xasprintf("%s%s", fmt, what);
	json_t *line = json_pack("{s:s}", "status", text);
	ASSERT(line);
	pull_send(p, line);
}

static void op_finish(void *data)
{
	struct image_op *op = data;
	struct images *im = op->im;
	op->done(op->data, op->err.code ? NULL : op->id, &op->err);
	free(op->id);
	free(op->asked);
	free(op);
	images_release(im);
}

static void pull_free(struct pull *p)
{
	struct images *im = p->im;
	timer_free(p->watch);
	skopeo_close(p->sk);
	for (size_t k = 0; k < p->n_layers; k++) {
		if (p->layers[k].here)
			layers_release(im->layers, p->layers[k].chain_id);
		json_decref(p->layers[k].last);
	}
	free(p->layers);
	image_parts_done(&p->parts);
	image_ref_done(&p->ref);
	free(p->familiar);
	free(p->repository);
	free(p->source);
	free(p->key);
	free(p);
	images_sweep(im);
	images_release(im);
}

/* The end, one way or the other. */
static void pull_end(struct pull *p, const char *id, const struct err *e)
{
	if (strmap_get(&p->im->pulls, p->key) == p)
		strmap_remove(&p->im->pulls, p->key);
	struct image_op *ops = p->ops;
	p->ops = NULL;
	CLEANUP_FREE char *copy = xstrdup(id);
	struct err why = ERR_INIT;
	if (e)
		err_copy(&why, e);
	pull_free(p);
	/* A callback may cancel any of the others: by now that is too late for all. */
	for (struct image_op *op = ops; op; op = op->next)
		op->pull = NULL;
	while (ops) {
		struct image_op *op = ops;
		ops = op->next;
		op->id = xstrdup(copy);
		op->err = why;
		op_finish(op);
	}
}

void pull_fail(struct pull *p, const struct err *e)
{
	struct err why = ERR_INIT;
	err_copy(&why, e);
	if (p->stalled)
		err_set(&why, ERR_TIMEOUT, "the registry sent nothing for %d s while pulling %s",
		    PULL_STALL_MS / 1000, p->familiar);
	else
		skopeo_explain(p->familiar, p->repository, &why);
	pull_end(p, NULL, &why);
}

/* Names the image, says so, ends. */
static void pull_succeed(struct pull *p, const char *id, bool changed)
{
	CLEANUP_FREE char *copy = xstrdup(id);
	json_t *line = json_pack("{s:o}", "status", json_sprintf("Digest: %s", p->digest));
	ASSERT(line);
	pull_send(p, line);
	send_status(p, changed ? "Status: Downloaded newer image for " : "Status: Image is up to date for ",
	    p->familiar);
	images_announce(p->im, "pull", copy, p->familiar);
	pull_end(p, copy, NULL);
}

/* The full names: by digest always, by tag when no digest was asked for. */
char *pull_digest_name(const struct pull *p)
{
	return xasprintf("%s@%s", p->source, p->digest);
}

void pull_commit(struct pull *p)
{
	struct err e = ERR_INIT;
	CLEANUP_FREE char *by_digest = pull_digest_name(p);
	if (!p->ref.digest)
		strlist_take(&p->parts.names, image_ref_full(&p->ref));
	int rc = images_commit(p->im, &p->parts, by_digest, &e);
	if (rc < 0)
		pull_fail(p, &e);
	else
		pull_succeed(p, p->parts.id, true);
}

/* The image is here under its id: it only needs names. */
void pull_name_existing(struct pull *p, const char *id)
{
	struct err e = ERR_INIT;
	CLEANUP_FREE char *by_digest = pull_digest_name(p);
	CLEANUP_FREE char *copy = xstrdup(id);
	bool changed = !strmap_has(&p->im->names, by_digest);
	int rc = images_name(p->im, by_digest, copy, &e);
	if (rc == 0 && !p->ref.digest) {
		CLEANUP_FREE char *by_tag = image_ref_full(&p->ref);
		changed = !str_eq(strmap_get(&p->im->names, by_tag), copy);
		rc = images_name(p->im, by_tag, copy, &e);
	}
	if (rc < 0)
		pull_fail(p, &e);
	else
		pull_succeed(p, copy, changed);
}

void pull_announce(struct pull *p)
{
	if (p->announced)
		return;
	p->announced = true;
	pull_send(p, first_line(p));
}

/* Common to all answers: ends the pull when it was cancelled or failed. */
bool pull_goes_on(struct pull *p, int rc, const struct err *e)
{
	if (p->cancelled) {
		struct err why = ERR_INIT;
		err_set(&why, ERR_CANCELLED, "cancelled");
		pull_end(p, NULL, &why);
		return false;
	}
	if (rc < 0)
		pull_fail(p, e);
	return rc == 0;
}

/* --- callers */

static void pull_cancel(struct pull *p)
{
	if (p->cancelled)
		return;
	p->cancelled = true;
	/* A new pull of the reference starts afresh. */
	if (strmap_get(&p->im->pulls, p->key) == p)
		strmap_remove(&p->im->pulls, p->key);
	if (p->job)
		image_job_cancel(p->job);
	else
		skopeo_kill(p->sk);
}

void image_op_cancel(struct image_op *op)
{
	struct pull *p = op->pull;
	if (!p)
		return;
	for (struct image_op **at = &p->ops; *at; at = &(*at)->next) {
		if (*at == op) {
			*at = op->next;
			break;
		}
	}
	op->pull = NULL;
	err_set(&op->err, ERR_CANCELLED, "cancelled");
	loop_defer(op->im->loop, op_finish, op);
	if (!p->ops)
		pull_cancel(p);
}

void images_pull_cancel_all(struct images *im)
{
	size_t it = 0;
	void *value;
	while (strmap_next(&im->pulls, &it, NULL, &value)) {
		struct pull *p = value;
		while (p->ops)
			image_op_cancel(p->ops);
	}
}

static int start(struct pull *p, const char *auth, struct err *e)
{
	int rc = skopeo_open(p->im, p->ref.domain, auth, &p->sk, e);
	return rc == 0 ? pull_fetch(p, e) : rc;
}

static struct pull *pull_new(struct images *im, struct image_ref *ref, const char *key)
{
	struct pull *p = NEW(struct pull);
	p->im = im;
	images_hold(im);
	p->key = xstrdup(key);
	p->ref = *ref;
	*ref = (struct image_ref){NULL, NULL, NULL, NULL};
	if (p->ref.digest) { /* the tag says nothing then */
		free(p->ref.tag);
		p->ref.tag = NULL;
	}
	p->familiar = image_ref_familiar(&p->ref);
	p->repository = xstrdup(p->ref.path);
	p->source = xasprintf("%s/%s", p->ref.domain, p->ref.path);
	return p;
}

static struct image_op *op_new(struct images *im, image_progress_cb progress, image_done_cb done, void *data)
{
	struct image_op *op = NEW(struct image_op);
	op->im = im;
	images_hold(im);
	op->progress = progress;
	op->done = done;
	op->data = data;
	return op;
}

static void op_join(struct image_op *op, struct pull *p)
{
	struct image_op **end = &p->ops;
	while (*end)
		end = &(*end)->next;
	*end = op;
	op->pull = p;
}

static void say(struct image_op *op, const char *fmt, const char *what)
{
	if (!op->progress)
		return;
	json_t *line = json_pack("{s:o}", "status", json_sprintf("%s%s", fmt, what));
	ASSERT(line);
	op->progress(op->data, line);
	json_decref(line);
}

/* An image that is here by the very digest needs no registry. */
static void finish_at_once(void *data)
{
	struct image_op *op = data;
	struct image *i;
	struct image_ref ref;
	if (images_lookup(op->im, op->asked, &i, NULL, NULL) < 0)
		err_set(&op->err, ERR_CONFLICT, "image %s was removed meanwhile", op->asked);
	else if (image_ref_parse(op->asked, &ref, &op->err) == 0) {
		CLEANUP_FREE char *familiar = image_ref_familiar(&ref);
		op->id = xstrdup(i->id);
		say(op, "Digest: ", ref.digest);
		say(op, "Status: Image is up to date for ", familiar);
		image_ref_done(&ref);
	}
	op_finish(op);
}

int images_pull(struct images *im, const char *ref_text, const char *auth, image_progress_cb progress,
    image_done_cb done, void *data, struct image_op **ret, struct err *e)
{
	if (im->closing)
		return err_set(e, ERR_UNAVAILABLE, "the daemon is stopping");
	struct image_ref ref;
	int rc = image_ref_parse(ref_text, &ref, e);
	if (rc < 0)
		return rc;
	struct image *here;
	if (ref.digest && images_lookup(im, ref_text, &here, NULL, NULL) == 0) {
		struct image_op *op = op_new(im, progress, done, data);
		op->asked = xstrdup(ref_text);
		image_ref_done(&ref);
		if (ret)
			*ret = op;
		loop_defer(im->loop, finish_at_once, op);
		return 0;
	}
	CLEANUP_FREE char *full = image_ref_full(&ref);
	char who[IMAGE_DIGEST_LEN + 1];
	image_digest(str_or(auth, ""), strlen(str_or(auth, "")), who);
	CLEANUP_FREE char *key = xasprintf("%s %s", full, who);
	struct pull *p = strmap_get(&im->pulls, key);
	struct image_op *op;
	if (p) {
		op = op_new(im, progress, done, data);
		op_join(op, p);
		image_ref_done(&ref);
		op->behind = true;
	} else {
		p = pull_new(im, &ref, key);
		rc = start(p, auth, e);
		if (rc < 0) {
			pull_free(p);
			return rc;
		}
		strmap_put(&im->pulls, key, p);
		op = op_new(im, progress, done, data);
		op_join(op, p);
	}
	if (ret)
		*ret = op;
	return 0;
}
