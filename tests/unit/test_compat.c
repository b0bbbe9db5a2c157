/* SPDX-License-Identifier: Apache-2.0 */
/* The control API of a version, as far as it is pure: routes, bodies, counters. */
#include <errno.h>

#include "supervisor/compat_api.h"
#include "tests/unit/tap.h"

static char why[API_WHY_BYTES];

static const char *
find(const char *method, const char *path)
{
	static struct api_found found;

	switch (api_table_find(&compat_table, method, path, &found)) {
	case API_MATCHED:
		return found.route->pattern;
	case API_NO_METHOD:
		return found.allow;
	case API_NO_ROUTE:
		return "no route";
	case API_BAD_ID:
		return "bad id";
	}
	return "?";
}

static void
test_routes(void)
{
	static const struct {
		const char *method, *path, *want;
	} cases[] = {
	    {"GET", "/health", "/health"},
	    {"HEAD", "/health", "/health"},
	    {"GET", "/stats", "/stats"},
	    {"POST", "/sessions", "/sessions"},
	    {"POST", "/sessions/a%2fb/close", "/sessions/{id}/close"},
	    {"POST", "/sessions/a/complete", "/sessions/{id}/complete"},
	    {"POST", "/drain", "/drain"},
	    {"GET", "/drain", "POST"},
	    {"GET", "/sessions", "POST"},
	    {"GET", "/sessions/a", "no route"},
	    {"GET", "/versions", "no route"},
	    {"POST", "/upgrade", "no route"},
	    {"POST", "/sessions/%00/close", "bad id"},
	};

	is_int((long long)compat_table.nr, 6, "six routes");
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
		is_str(find(cases[i].method, cases[i].path), cases[i].want, "%s %s",
		    cases[i].method, cases[i].path);
	for (size_t i = 0; i < compat_table.nr; i++)
		ok(compat_table.routes[i].permission == API_CONTROL ||
			strcmp(compat_table.routes[i].method, "GET") == 0,
		    "%s %s: what changes something takes CONTROL", compat_table.routes[i].method,
		    compat_table.routes[i].pattern);
}

static int
read_create(const char *body, struct compat_create *ret, json_t **ret_json)
{
	int r;

	why[0] = '\0';
	*ret_json = NULL;
	r = json_parse_object(body, strlen(body), ret_json, why, sizeof(why));
	return r == 0 ? compat_create_read(*ret_json, ret, why, sizeof(why)) : r;
}

#define REST "\"backing_memory_path\":\"/a\",\"cache_key\":\"k\""

static void
test_create_bad(void)
{
	static const struct {
		const char *body;
		int want;
		const char *says;
	} cases[] = {
	    {"", -EINVAL, "session_id or instance_id is required"},
	    {"{" REST "}", -EINVAL, "session_id or instance_id is required"},
	    {"{\"session_id\":\" \",\"instance_id\":\"\"," REST "}", -EINVAL, "is required"},
	    {"{\"session_id\":null," REST "}", -EINVAL, "is required"},
	    {"{\"session_id\":1," REST "}", -EINVAL, "session_id must be a string"},
	    {"{\"instance_id\":[\"x\"]," REST "}", -EINVAL, "instance_id must be a string"},
	    {"{\"session_id\":\"a\\u0007\"," REST "}", -EINVAL, "control characters"},
	    {"{\"session_id\":\"a\",\"cache_key\":\"k\"}", -EINVAL,
		"backing_memory_path is required"},
	    {"{\"session_id\":\"a\",\"backing_memory_path\":\"  \",\"cache_key\":\"k\"}", -EINVAL,
		"backing_memory_path is required"},
	    {"{\"session_id\":\"a\",\"backing_memory_path\":\"/a\"}", -EINVAL,
		"cache_key is required"},
	    {"{\"session_id\":\"a\",\"backing_memory_path\":\"/a\",\"cache_key\":\" \"}", -EINVAL,
		"cache_key is required"},
	    {"{\"session_id\":\"a\",\"backing_memory_path\":\"/a\",\"cache_key\":{}}", -EINVAL,
		"cache_key must be a string"},
	    {"{\"session_id\":\"a\",\"overlays\":7," REST "}", -EINVAL, "overlays must be a list"},
	    {"{\"session_id\":\"a\",\"overlays\":[{\"offset\":0,\"path\":\"/x\"}]," REST "}",
		-EINVAL, "overlay 1: there is no member \"offset\""},
	    {"{\"session_id\":\"a\",\"overlays\":[{\"path\":\"/x\"}]," REST "}", -EINVAL,
		"overlay 1: the member \"guest_memory_offset\" is missing"},
	    {"{\"session_id\":\"a\",\"overlays\":[{\"guest_memory_offset\":0,\"path\":\"\"}]," REST
	     "}",
		-EINVAL, "overlay 1: \"path\" must have 1 to 4095 bytes"},
	    {"{\"session_id\":\"a\",\"overlays\":[\"/x\"]," REST "}", -EINVAL,
		"overlay 1: it must be an object"},
	    {"[]", -EINVAL, "must be a JSON object"},
	    {"{", -EINVAL, "not JSON"},
	};
	struct compat_create create;
	json_t *json;

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		is_int(
		    read_create(cases[i].body, &create, &json), cases[i].want, "%s", cases[i].body);
		ok(strstr(why, cases[i].says), "because %s", why);
		json_decref(json);
	}
}

static void
test_create_good(void)
{
	struct compat_create c;
	json_t *json;

	is_int(read_create("{\"session_id\":\"s\",\"instance_id\":\"i\"," REST "}", &c, &json), 0,
	    "everything");
	is_str(c.id, "s", "its id");
	is_str(c.instance, "i", "its instance");
	is_str(c.image_path, "/a", "its image");
	is_str(c.cache_key, "k", "its key");
	json_decref(json);
	is_int(read_create("{\"instance_id\":\"i\"," REST "}", &c, &json), 0, "no session_id");
	is_str(c.id, "i", "is the instance's");
	json_decref(json);
	is_int(read_create("{\"session_id\":\"\\t \",\"instance_id\":\"i\"," REST "}", &c, &json),
	    -EINVAL, "a tab is a control character");
	json_decref(json);
	is_int(read_create("{\"session_id\":\"s\",\"instance_id\":\" \"," REST "}", &c, &json), 0,
	    "a blank instance");
	ok(c.instance == NULL, "is none");
	json_decref(json);
	is_int(read_create("{\"session_id\":\"s\",\"overlays\":[],\"new\":{\"x\":[1]}," REST "}",
		   &c, &json),
	    0, "no overlays, and a member that nobody knows");
	json_decref(json);
	is_int(read_create("{\"session_id\":\"s\",\"overlays\":null," REST "}", &c, &json), 0,
	    "null for no overlays");
	json_decref(json);
	is_int(
	    read_create("{\"session_id\":\"s\",\"overlays\":[{\"guest_memory_offset\":8192,"
			"\"path\":\"/o\"},{\"path\":\"/p\",\"guest_memory_offset\":0}]," REST "}",
		&c, &json),
	    0, "two overlays");
	ok(c.nr_overlays == 2 && c.overlays[0].offset == 8192 && c.overlays[1].offset == 0,
	    "their offsets");
	is_str(c.overlays[1].path, "/p", "their paths");
	json_decref(json);
}

static void
test_stats(void)
{
	uint64_t counters[COUNTER_COUNT];
	const json_t *value;
	const char *name;
	size_t numbers = 0;
	json_t *json;

	for (int i = 0; i < COUNTER_COUNT; i++)
		counters[i] = 100U + (unsigned)i;
	json = compat_stats_json("1.2.3", true, 7, counters);
	is_str(json_string_value(json_object_get(json, "version")), "1.2.3", "its version");
	ok(json_is_true(json_object_get(json, "draining")), "whether it drains");
	json_object_foreach(json, name, value) numbers += json_is_integer(value);
	is_int((long long)numbers, 25, "the rest are whole numbers");
	is_int((long long)json_object_size(json), 27, "of all the fields");
	is_int(json_integer_value(json_object_get(json, "active_sessions")), 7, "its sessions");
	is_int(json_integer_value(json_object_get(json, "faults")), 100 + COUNTER_FAULTS, "faults");
	is_int(json_integer_value(json_object_get(json, "backing_bytes_read")),
	    100 + COUNTER_IMAGE_BYTES_READ, "bytes of the image");
	is_int(json_integer_value(json_object_get(json, "backing_read_max_nanos")),
	    100 + COUNTER_IMAGE_READ_MAX_NANOS, "the longest read");
	is_int(json_integer_value(json_object_get(json, "copy_nanos")), 0, "what nobody measures");
	is_int(json_integer_value(json_object_get(json, "cache_hits")), 0, "a cache there is not");
	json_decref(json);
}

int
main(void)
{
	test_routes();
	test_create_bad();
	test_create_good();
	test_stats();
	return done();
}
