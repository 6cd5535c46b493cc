/* See config.h. One table says which settings there are; flags and file keys are read by it. */
#include "node/config.h"

#include <jansson.h>
#include <stdio.h>
#include <string.h>

#include "base/buf.h"
#include "base/fs.h"
#include "base/mem.h"

enum kind { TEXT, LIST, LEVEL, DEBUG };
struct setting {
	const char *flag, *key; /* --flag; key in the file */
	char letter;
	enum kind kind;
	size_t offset;
	const char *help;
};
#define AT(f) offsetof(struct config, f)
static const struct setting settings[] = {
    {"host", "hosts", 'H', LIST, AT(hosts),
	"socket to serve the Engine API on, repeatable (default unix:///run/shoal.sock)"},
    {"data-root", "data-root", 0, TEXT, AT(data_root), "state that lasts (default /var/lib/shoal)"},
    {"exec-root", "exec-root", 0, TEXT, AT(exec_root), "state that ends with a reboot (default /run/shoal)"},
    {"pidfile", "pidfile", 'p', TEXT, AT(pidfile), "file for the process id"},
    {"runtime", "default-runtime", 0, TEXT, AT(runtime),
	"OCI runtime: crun, runc or a path (default: what works here)"},
    {"log-level", "log-level", 'l', LEVEL, AT(log_level), "debug, info, warn, error or fatal (default info)"},
    {"debug", "debug", 'D', DEBUG, AT(log_level), "the same as --log-level debug"},
    {"label", "labels", 0, LIST, AT(labels), "label KEY=VALUE of this node's engine, repeatable"},
    {"node-generic-resource", "node-generic-resources", 0, LIST, AT(generic_resources),
	"resource KIND=NUMBER or KIND=NAME that tasks can reserve, repeatable"},
    {"insecure-registry", "insecure-registries", 0, LIST, AT(insecure_registries),
	"registry HOST[:PORT] or CIDR to talk to without verified TLS, repeatable"},
    {"registry-mirror", "registry-mirrors", 0, LIST, AT(registry_mirrors),
	"mirror of Docker Hub, repeatable"},
};

const char *config_usage(void)
{
	return "Usage: shoald [OPTIONS]\n"
	       "\n"
	       "The daemon of a Shoal node: serves the Docker Engine API, runs containers, and on managers "
	       "keeps the\n"
	       "cluster's state.\n"
	       "\n"
	       "Options:\n"
	       "  -H, --host URL                    socket to serve the Engine API on, repeatable\n"
	       "                                    (default unix:///run/shoal.sock)\n"
	       "      --data-root DIR               state that lasts (default /var/lib/shoal)\n"
	       "      --exec-root DIR               state that ends with a reboot (default /run/shoal)\n"
	       "  -p, --pidfile FILE                file for the process id\n"
	       "      --config-file FILE            JSON file with the same settings\n"
	       "      --runtime NAME                OCI runtime: crun, runc or a path (default: what works "
	       "here)\n"
	       "  -l, --log-level LEVEL             debug, info, warn, error or fatal (default info)\n"
	       "  -D, --debug                       the same as --log-level debug\n"
	       "      --label KEY=VALUE             label of this node's engine, repeatable\n"
	       "      --node-generic-resource K=V   resource that tasks can reserve, repeatable\n"
	       "      --insecure-registry HOST      registry without verified TLS, repeatable\n"
	       "      --registry-mirror URL         mirror of Docker Hub, repeatable\n"
	       "  -v, --version                     print the version\n"
	       "      --help                        print this\n"
	       "\n"
	       "Example:\n"
	       "  shoald --data-root /srv/shoal -H unix:///run/shoal.sock\n";
}

static const struct setting *find_flag(const char *name, size_t n, char letter)
{
	for (size_t i = 0; i < ARRAY_LEN(settings); i++) {
		const struct setting *s = &settings[i];
		if (letter ? s->letter == letter : strlen(s->flag) == n && strncmp(s->flag, name, n) == 0)
			return s;
	}
	return NULL;
}

static int set_value(struct config *c, const struct setting *s, const char *value, struct err *e)
{
	void *field = (char *)c + s->offset;
	switch (s->kind) {
	case LIST:
		strlist_add(field, value);
		return 0;
	case LEVEL:
		return log_level_parse(value, field, e);
	case DEBUG:
		*(enum log_level *)field = LOG_LEVEL_DEBUG;
		return 0;
	case TEXT:
		break;
	}
	if (str_empty(value))
		return err_set(e, ERR_INVALID, "--%s needs a value", s->flag);
	free(*(char **)field);
	*(char **)field = xstrdup(value);
	return 0;
}

static int load_file(struct config *c, const char *path, const bool *given, struct err *e)
{
	CLEANUP_BUF struct buf b = BUF_INIT;
	int rc = fs_read(path, 1024 * 1024, &b, e);
	if (rc != 0)
		return rc;
	json_error_t je;
	json_t *j = json_loadb(b.data ? b.data : "", b.len, JSON_REJECT_DUPLICATES, &je), *v;
	if (!json_is_object(j)) {
		json_decref(j);
		return err_set(e, ERR_INVALID, "%s is no JSON object: %s (line %d)", path, je.text, je.line);
	}
	const char *key;
	json_object_foreach(j, key, v)
	{
		const struct setting *s = NULL;
		for (size_t i = 0; i < ARRAY_LEN(settings); i++)
			if (strcmp(settings[i].key, key) == 0)
				s = &settings[i];
		if (!s)
			rc = err_set(e, ERR_INVALID, "%s: unknown setting \"%s\"", path, key);
		else if (given[s - settings])
			rc = err_set(e, ERR_INVALID,
			    "%s: \"%s\" is set here and by the flag --%s; use one of them", path, key,
			    s->flag);
		else if (s->kind == DEBUG && json_is_boolean(v))
			rc = json_is_true(v) ? set_value(c, s, "", e) : 0;
		else if (s->kind == LIST && json_is_array(v)) {
			size_t i;
			json_t *item;
			json_array_foreach(v, i, item) if (rc == 0) rc =
			    json_is_string(item)
				? set_value(c, s, json_string_value(item), e)
				: err_set(e, ERR_INVALID, "%s: \"%s\" holds something that is no string",
				      path, key);
		} else if ((s->kind == TEXT || s->kind == LEVEL) && json_is_string(v))
			rc = set_value(c, s, json_string_value(v), e);
		else
			rc = err_set(e, ERR_INVALID, "%s: \"%s\" has the wrong type", path, key);
		if (rc != 0)
			break;
	}
	json_decref(j);
	return rc;
}

static int check(struct config *c, struct err *e)
{
	if (!c->hosts.n)
		strlist_add(&c->hosts, "unix:///run/shoal.sock");
	for (size_t i = 0; i < c->hosts.n; i++) {
		const char *h = c->hosts.v[i];
		if (str_has_prefix(h, "tcp://"))
			return err_set(
			    e, ERR_INVALID, "%s: the Engine API is not served over TCP; use unix:///path", h);
		if (!str_has_prefix(h, "unix:///") || strlen(h) - 7 > 100)
			return err_set(e, ERR_INVALID,
			    "%s is no socket to serve on; use unix:///path (at most 100 characters)", h);
	}
	for (size_t i = 0; i < c->labels.n; i++)
		if (!strchr(c->labels.v[i], '=') || c->labels.v[i][0] == '=')
			return err_set(e, ERR_INVALID, "label \"%s\" is not KEY=VALUE", c->labels.v[i]);
	for (size_t i = 0; i < c->generic_resources.n; i++)
		if (!strchr(c->generic_resources.v[i], '=') || c->generic_resources.v[i][0] == '=')
			return err_set(e, ERR_INVALID,
			    "generic resource \"%s\" is not KIND=NUMBER or KIND=NAME",
			    c->generic_resources.v[i]);
	if (c->data_root[0] != '/' || c->exec_root[0] != '/')
		return err_set(e, ERR_INVALID, "--data-root and --exec-root must be absolute paths");
	return 0;
}

static int parse_flags(
    int argc, char **argv, struct config *c, bool *given, const char **ret_file, struct err *e)
{
	for (int i = 1; i < argc; i++) {
		const char *a = argv[i], *value = NULL, *eq = NULL;
		const struct setting *s = NULL;
		size_t n = 0;
		if (strcmp(a, "--help") == 0 || strcmp(a, "-h") == 0)
			return CONFIG_HELP;
		if (strcmp(a, "--version") == 0 || strcmp(a, "-v") == 0)
			return CONFIG_VERSION;
		bool file = false;
		if (a[0] == '-' && a[1] == '-' && a[2]) {
			eq = strchr(a, '=');
			n = eq ? (size_t)(eq - a) - 2 : strlen(a) - 2;
			value = eq ? eq + 1 : NULL;
			file = n == 11 && strncmp(a + 2, "config-file", n) == 0;
			s = find_flag(a + 2, n, 0);
		} else if (a[0] == '-' && a[1]) {
			s = find_flag(NULL, 0, a[1]);
			value = a[2] == '=' ? a + 3 : a[2] ? a + 2 : NULL;
		}
		if (!s && !file)
			return err_set(e, ERR_INVALID, "unknown argument \"%s\" (see shoald --help)", a);
		if (s && s->kind == DEBUG) {
			if (value)
				return err_set(e, ERR_INVALID, "%s takes no value", a);
			value = "";
		} else if (!value) {
			if (++i >= argc)
				return err_set(e, ERR_INVALID, "%s needs a value", a);
			value = argv[i];
		}
		if (file) {
			*ret_file = value;
			continue;
		}
		int rc = set_value(c, s, value, e);
		if (rc != 0)
			return rc;
		given[s - settings] = true;
	}
	return 0;
}

int config_parse(int argc, char **argv, struct config *ret, struct err *e)
{
	struct config c = {.log_level = LOG_LEVEL_INFO};
	bool given[ARRAY_LEN(settings)] = {false};
	const char *file = NULL;
	int rc = parse_flags(argc, argv, &c, given, &file, e);
	if (rc == 0 && file)
		rc = load_file(&c, file, given, e);
	if (!c.data_root)
		c.data_root = xstrdup("/var/lib/shoal");
	if (!c.exec_root)
		c.exec_root = xstrdup("/run/shoal");
	if (rc == 0)
		rc = check(&c, e);
	if (rc != 0) {
		config_done(&c);
		return rc;
	}
	*ret = c;
	return 0;
}

void config_done(struct config *c)
{
	strlist_done(&c->hosts);
	strlist_done(&c->labels);
	strlist_done(&c->generic_resources);
	strlist_done(&c->insecure_registries);
	strlist_done(&c->registry_mirrors);
	free(c->data_root);
	free(c->exec_root);
	free(c->pidfile);
	free(c->runtime);
}
