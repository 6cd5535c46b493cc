/* Filters of list requests, in both encodings: {"key":{"value":true}} and {"key":["value"]}. */
#include <string.h>

#include "base/mem.h"
#include "node/api/api.h"

#define VALUES_MAX 1000

static int add_values(const char *key, json_t *v, struct strlist *out, struct err *e)
{
	const char *k;
	size_t i;
	json_t *item;
	if (json_is_object(v)) {
		json_object_foreach(v, k, item) strlist_add(out, k);
	} else if (json_is_array(v)) {
		json_array_foreach(v, i, item)
		{
			if (!json_is_string(item))
				return err_set(
				    e, ERR_INVALID, "invalid filter '%s': its values must be strings", key);
			strlist_add(out, json_string_value(item));
		}
	} else {
		return err_set(
		    e, ERR_INVALID, "invalid filter '%s': its values must be a list or an object", key);
	}
	if (out->n > VALUES_MAX)
		return err_set(e, ERR_TOO_LARGE, "filter '%s' has over %d values", key, VALUES_MAX);
	return 0;
}

static bool is_allowed(const char *const *allowed, const char *key)
{
	if (!allowed)
		return true;
	for (; *allowed; allowed++)
		if (strcmp(*allowed, key) == 0)
			return true;
	return false;
}

int api_filters_parse(
    const struct http_req *r, const char *const *allowed, struct api_filters *ret, struct err *e)
{
	const char *text = http_query(r, "filters"), *key;
	json_t *j, *v;
	struct api_filters f = API_FILTERS_INIT;
	*ret = f;
	if (str_empty(text))
		return 0;
	int rc = json_parse(text, strlen(text), &j, NULL);
	if (rc != 0 || !json_is_object(j)) {
		if (rc == 0)
			json_decref(j);
		return err_set(e, ERR_INVALID, "invalid filter: \"%.200s\" is no JSON object", text);
	}
	f.values = xcalloc(json_object_size(j) + 1, sizeof(*f.values));
	json_object_foreach(j, key, v)
	{
		if (!is_allowed(allowed, key))
			rc = err_set(e, ERR_INVALID, "invalid filter '%s'", key);
		else
			rc = add_values(key, v, &f.values[f.keys.n], e);
		strlist_add(&f.keys, key);
		if (rc != 0)
			break;
	}
	json_decref(j);
	if (rc != 0)
		api_filters_done(&f);
	else
		*ret = f;
	return rc;
}

void api_filters_done(struct api_filters *f)
{
	for (size_t i = 0; i < f->keys.n; i++)
		strlist_done(&f->values[i]);
	free(f->values);
	f->values = NULL;
	strlist_done(&f->keys);
}

const struct strlist *api_filters_get(const struct api_filters *f, const char *key)
{
	for (size_t i = 0; i < f->keys.n; i++)
		if (strcmp(f->keys.v[i], key) == 0)
			return &f->values[i];
	return NULL;
}

bool api_filters_has(const struct api_filters *f, const char *key)
{
	return api_filters_get(f, key) != NULL;
}

static bool match_any(const struct api_filters *f, const char *key, const char *v,
    bool (*fits)(const char *v, const char *wanted))
{
	const struct strlist *l = api_filters_get(f, key);
	if (!l || l->n == 0)
		return true;
	for (size_t i = 0; i < l->n; i++)
		if (v && fits(v, l->v[i]))
			return true;
	return false;
}

static bool contains(const char *v, const char *wanted)
{
	return strstr(v, wanted) != NULL;
}

bool api_filters_match(const struct api_filters *f, const char *key, const char *v)
{
	return match_any(f, key, v, str_eq);
}

bool api_filters_match_prefix(const struct api_filters *f, const char *key, const char *v)
{
	return match_any(f, key, v, str_has_prefix);
}

bool api_filters_match_substr(const struct api_filters *f, const char *key, const char *v)
{
	return match_any(f, key, v, contains);
}

static bool has_label(Pb__KV *const *labels, size_t n, const char *wanted)
{
	size_t k = strcspn(wanted, "=");
	for (size_t i = 0; i < n; i++)
		if (strlen(labels[i]->key) == k && strncmp(labels[i]->key, wanted, k) == 0 &&
		    (!wanted[k] || strcmp(labels[i]->value, wanted + k + 1) == 0))
			return true;
	return false;
}

bool api_filters_match_labels(
    const struct api_filters *f, const char *key, Pb__KV *const *labels, size_t n_labels)
{
	const struct strlist *l = api_filters_get(f, key);
	for (size_t i = 0; l && i < l->n; i++)
		if (!has_label(labels, n_labels, l->v[i]))
			return false;
	return true;
}

int api_filters_bool(const struct api_filters *f, const char *key, struct err *e)
{
	static const char *const yes[] = {"1", "t", "T", "true", "True", "TRUE"}, *const no[] = {"0", "f",
										      "F", "false", "False",
										      "FALSE"};
	const struct strlist *l = api_filters_get(f, key);
	if (!l)
		return -1;
	for (size_t i = 0; l->n == 1 && i < ARRAY_LEN(yes); i++) {
		if (strcmp(l->v[0], yes[i]) == 0)
			return 1;
		if (strcmp(l->v[0], no[i]) == 0)
			return 0;
	}
	return err_set(
	    e, ERR_INVALID, "invalid filter '%s=%s': true or false is wanted", key, l->n ? l->v[0] : "");
}
