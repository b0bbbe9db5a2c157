/* SPDX-License-Identifier: Apache-2.0 */
/* The parts of the API that need no supervisor: routes, queries, ids, permissions,
 * bodies; and that packaging/openapi.yaml describes exactly the routes there are. */
#include <errno.h>
#include <unistd.h>

#include "supervisor/api_route.h"
#include "tests/unit/tap.h"

#define OPENAPI "packaging/openapi.yaml"

static char id[SESSION_ID_BYTES], allow[128], why[API_WHY_BYTES];

/* The handler's pattern, or a word for what else came of it. */
static const char *
find(const char *method, const char *path)
{
	const struct api_table table = {api_routes, api_nr_routes};
	struct api_found found;
	enum api_match match = api_table_find(&table, method, path, &found);

	memcpy(id, found.id, sizeof(id));
	memcpy(allow, found.allow, sizeof(allow));
	switch (match) {
	case API_MATCHED:
		return found.route->pattern;
	case API_NO_ROUTE:
		return "no route";
	case API_NO_METHOD:
		return "no method";
	case API_BAD_ID:
		return "bad id";
	}
	return "?";
}

static void
test_routes(void)
{
	static const struct {
		const char *method, *path, *want, *id;
	} cases[] = {
	    {"GET", "/health", "/health", ""},
	    {"HEAD", "/health", "/health", ""},
	    {"GET", "/health/", "no route", ""},
	    {"GET", "//health", "no route", ""},
	    {"GET", "/healthy", "no route", ""},
	    {"GET", "/healt", "no route", ""},
	    {"GET", "/", "no route", ""},
	    {"GET", "", "no route", ""},
	    {"GET", "/%68ealth", "no route", ""},
	    {"GET", "/sessions", "/sessions", ""},
	    {"POST", "/sessions", "/sessions", ""},
	    {"GET", "/sessions/", "no route", ""},
	    {"GET", "/sessions/a", "/sessions/{id}", "a"},
	    {"GET", "/sessions/a/", "no route", ""},
	    {"GET", "/sessions/a%2Fb", "/sessions/{id}", "a/b"},
	    {"GET", "/sessions/..", "/sessions/{id}", ".."},
	    {"GET", "/sessions/%2e%2E%2f..", "/sessions/{id}", "../.."},
	    {"GET", "/sessions/a%20b%C3%A4", "/sessions/{id}", "a b\xc3\xa4"},
	    {"GET", "/sessions/a+b", "/sessions/{id}", "a+b"},
	    {"GET", "/sessions/close", "/sessions/{id}", "close"},
	    {"GET", "/sessions/a%00", "bad id", ""},
	    {"GET", "/sessions/a%2", "bad id", ""},
	    {"GET", "/sessions/a%", "bad id", ""},
	    {"GET", "/sessions/a%zz", "bad id", ""},
	    {"POST", "/sessions/close/close", "/sessions/{id}/close", "close"},
	    {"POST", "/sessions/a/complete", "/sessions/{id}/complete", "a"},
	    {"POST", "/sessions/a/complete/b", "no route", ""},
	    {"POST", "/sessions//close", "no route", ""},
	    {"POST", "/sessions/a/burn", "no route", ""},
	    {"get", "/health", "no method", ""},
	    {"PUT", "/health", "no method", ""},
	};

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		const char *got = find(cases[i].method, cases[i].path);

		is_str(got, cases[i].want, "%s %s", cases[i].method, cases[i].path);
		if (cases[i].want[0] == '/')
			is_str(id, cases[i].id, "its id");
	}
	find("DELETE", "/sessions");
	is_str(allow, "POST, GET, HEAD", "what /sessions allows");
	find("GET", "/sessions/a/close");
	is_str(allow, "POST", "what a close allows");
}

static void
test_id_length(void)
{
	char path[600] = "/sessions/";

	memset(path + 10, 'a', SESSION_ID_BYTES - 1);
	is_str(find("GET", path), "/sessions/{id}", "the longest id");
	path[10 + SESSION_ID_BYTES - 1] = 'a';
	is_str(find("GET", path), "bad id", "one byte more");
	path[10] = '\0';
	for (int i = 0; i < SESSION_ID_BYTES - 1; i++)
		memcpy(path + 10 + i * 3, "%61", 4);
	is_str(find("GET", path), "/sessions/{id}", "the longest id, percent-encoded");
	is_int(strlen(id), SESSION_ID_BYTES - 1, "its length");
}

static void
test_table(void)
{
	for (size_t i = 0; i < api_nr_routes; i++) {
		const struct api_route *r = &api_routes[i];

		ok(find(r->method, r->pattern) == r->pattern, "%s %s is found", r->method,
		    r->pattern);
		ok(r->permission == API_CONTROL || strcmp(r->method, "GET") == 0,
		    "%s %s: what changes something takes CONTROL", r->method, r->pattern);
		ok(*r->doc && r->doc[strlen(r->doc) - 1] == '.', "and has a sentence");
	}
}

static void
test_query(void)
{
	static const struct {
		const char *query;
		int want;
	} checks[] = {
	    {"", 0},
	    {"wait=serving", 0},
	    {"timeout=5s&wait=x", 0},
	    {"wait", 0},
	    {"wait=a=b", 0},
	    {"&&wait=x&", -EINVAL},
	    {"wiat=x", -EINVAL},
	    {"wait=x&wait=y", -EINVAL},
	    {"wait%3d=x", -EINVAL},
	    {"=x", -EINVAL},
	    {"wai=x", -EINVAL},
	    {"waits=x", -EINVAL},
	};
	struct http_request req = {.query = "a=1&wait=se%72ving&b&c=%zz&d=&waiting=no"};
	char buf[8];

	for (size_t i = 0; i < sizeof(checks) / sizeof(checks[0]); i++)
		is_int(api_query_check(checks[i].query, "wait timeout", why, sizeof(why)),
		    checks[i].want, "query \"%s\"", checks[i].query);
	is_int(api_query_check("x=1", "", why, sizeof(why)), -EINVAL, "a key where there is none");
	ok(strstr(why, "\"x\""), "is named: %s", why);
	ok(http_query(&req, "wait", buf, sizeof(buf)) == 1 && strcmp(buf, "serving") == 0,
	    "a value is decoded");
	ok(http_query(&req, "b", buf, sizeof(buf)) == 1 && buf[0] == '\0', "a key without a value");
	ok(http_query(&req, "d", buf, sizeof(buf)) == 1 && buf[0] == '\0', "an empty value");
	is_int(http_query(&req, "c", buf, sizeof(buf)), -EINVAL, "a broken value");
	is_int(http_query(&req, "e", buf, sizeof(buf)), 0, "a key that is not there");
	is_int(http_query(&req, "wait", buf, 7), -ENAMETOOLONG, "a value that does not fit");
}

static void
test_durations(void)
{
	static const struct {
		const char *query;
		int want;
		uint64_t ms;
	} cases[] = {
	    {"", 0, 77},
	    {"timeout=5", 0, 5000},
	    {"timeout=500ms", 0, 500},
	    {"timeout=2m", 0, 120000},
	    {"timeout=1h", 0, 3600000},
	    {"timeout=0", 0, 0},
	    {"timeout=3601", -EINVAL, 77},
	    {"timeout=-1", -EINVAL, 77},
	    {"timeout=1.5s", -EINVAL, 77},
	    {"timeout=", -EINVAL, 77},
	    {"timeout", -EINVAL, 77},
	    {"timeout=5 s", -EINVAL, 77},
	    {"timeout=5%73", 0, 5000},
	    {"timeout=99999999999999999999999", -EINVAL, 77},
	    {"timeout=00000000000000000000000000000000000005s", -EINVAL, 77},
	};
	struct http_request req = {.method = "GET"};

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		uint64_t ms = 77;

		snprintf(req.query, sizeof(req.query), "%s", cases[i].query);
		is_int(api_query_ms(&req, "timeout", &ms, why, sizeof(why)), cases[i].want,
		    "\"%s\"", cases[i].query);
		is_int(ms, cases[i].ms, "its milliseconds");
	}
}

static void
test_permissions(void)
{
	const struct api with = {.has_admin_gid = true, .admin_gid = 500};
	const struct api without = {.admin_gid = 0};
	const struct peer root = {.uid = 0, .gid = 9};
	const struct peer self = {.uid = geteuid(), .gid = 9};
	const struct peer primary = {.uid = 1234, .gid = 500};
	const struct peer member = {.uid = 1234, .gid = 9, .nr_groups = 2, .groups = {7, 500}};
	const struct peer other = {.uid = 1234, .gid = 0, .nr_groups = 1, .groups = {0}};

	ok(api_is_permitted(&with, &other, API_OBSERVE), "anybody observes");
	ok(api_is_permitted(&without, &root, API_CONTROL), "root controls");
	ok(api_is_permitted(&without, &self, API_CONTROL), "pagerd's own user controls");
	ok(api_is_permitted(&with, &primary, API_CONTROL), "the admin group controls");
	ok(api_is_permitted(&with, &member, API_CONTROL), "a further group counts too");
	ok(!api_is_permitted(&with, &other, API_CONTROL), "others do not");
	ok(!api_is_permitted(&without, &other, API_CONTROL), "no admin-group is not group 0");
}

static int
read_create(const char *body, struct api_create *ret, json_t **ret_json)
{
	int r;

	why[0] = '\0';
	*ret_json = NULL;
	r = json_parse_object(body, strlen(body), ret_json, why, sizeof(why));
	if (r == 0)
		r = api_create_read(*ret_json, ret, why, sizeof(why));
	return r;
}

static void
test_create_bad(void)
{
	static const struct {
		const char *body, *says;
	} cases[] = {
	    {"", "\"image\" is missing"},
	    {"{}", "\"image\" is missing"},
	    {"[]", "must be a JSON object"},
	    {"1", "not JSON"},
	    {"{", "not JSON"},
	    {"{\"image\":\"/a\"} x", "not JSON"},
	    {"{\"image\":\"/a\",\"image\":\"/b\"}", "not JSON"},
	    {"{\"image\":\"/a\\u0000b\"}", "not JSON"},
	    {"{\"image\":\"\xff\"}", "not JSON"},
	    {"{\"image\":null}", "\"image\" must be a string"},
	    {"{\"image\":1}", "\"image\" must be a string"},
	    {"{\"image\":[\"/a\"]}", "\"image\" must be a string"},
	    {"{\"image\":\"\"}", "\"image\" must have 1 to 4095 bytes"},
	    {"{\"image\":\"/a\\nb\"}", "control characters"},
	    {"{\"image\":\"/a\",\"imgae\":1}", "no member \"imgae\""},
	    {"{\"image\":\"/a\",\"id\":\"\"}", "\"id\" must have 1 to 127"},
	    {"{\"image\":\"/a\",\"id\":7}", "\"id\" must be a string"},
	    {"{\"image\":\"/a\",\"id\":\"\\u001b[2J\"}", "control characters"},
	    {"{\"image\":\"/a\",\"id\":\"\\u009b2J\"}", "control characters"},
	    {"{\"image\":\"/a\",\"memfd\":1}", "\"memfd\" must be true or false"},
	    {"{\"image\":\"/a\",\"vmm_uid\":-1}", "\"vmm_uid\" must be from 0"},
	    {"{\"image\":\"/a\",\"vmm_uid\":4294967295}", "\"vmm_uid\" must be from 0"},
	    {"{\"image\":\"/a\",\"vmm_uid\":1.0}", "\"vmm_uid\" must be a whole number"},
	    {"{\"image\":\"/a\",\"vmm_uid\":\"1\"}", "\"vmm_uid\" must be a whole number"},
	    {"{\"image\":\"/a\",\"vmm_uid\":99999999999999999999}", "not JSON"},
	    {"{\"image\":\"/a\",\"handshake_timeout_ms\":0}", "\"handshake_timeout_ms\""},
	    {"{\"image\":\"/a\",\"cluster_min_bytes\":5000}", "power of two"},
	    {"{\"image\":\"/a\",\"cluster_min_bytes\":2048}", "must be from 4096 to 2097152"},
	    {"{\"image\":\"/a\",\"cluster_min_bytes\":8192,\"cluster_max_bytes\":4096}", "above"},
	};
	struct api_create create;
	json_t *json;

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		ok(read_create(cases[i].body, &create, &json) == -EINVAL &&
			strstr(why, cases[i].says),
		    "%s: %s", cases[i].body, why);
		json_decref(json);
	}
}

static void
test_create_good(void)
{
	struct api_create c;
	json_t *json;

	ok(read_create("{\"image\":\"/a\"}", &c, &json) == 0 &&
		strcmp(c.session.image_path, "/a") == 0 && !c.session.id && !c.session.memfd &&
		c.vmm_uid == UINT64_MAX && c.vmm_gid == UINT64_MAX,
	    "the least that is needed");
	json_decref(json);
	ok(read_create("{\"image\":\"/a\",\"id\":\"x/../y \xc3\xa4\",\"instance\":\"i\","
		       "\"cache_key\":\"k\",\"vmm_uid\":0,\"vmm_gid\":4294967294,\"memfd\":true,"
		       "\"track_writes\":true,"
		       "\"handshake_timeout_ms\":1,\"cluster_min_bytes\":4096,"
		       "\"cluster_max_bytes\":2097152}",
	       &c, &json) == 0,
	    "everything: %s", why);
	is_str(c.session.id, "x/../y \xc3\xa4", "id");
	is_str(c.session.instance, "i", "instance");
	is_str(c.session.cache_key, "k", "cache_key");
	ok(c.vmm_uid == 0 && c.vmm_gid == 4294967294 && c.session.memfd && c.session.track_writes &&
		c.session.handshake_timeout_ms == 1 && c.session.cluster_min_bytes == 4096 &&
		c.session.cluster_max_bytes == 2097152,
	    "numbers and flags");
	json_decref(json);
}

static void
test_json_out(void)
{
	json_t *json = json_object();
	char *text;

	json_put_text(json, "a", "x\xffy\xc3");
	json_put_text(json, "b", "\xc3\xa4\xe2\x82\xac\xf0\x9f\x90\xa7\xed\xa0\x80");
	json_put_u64(json, "c", UINT64_MAX);
	json_put_null(json, "d");
	json_put_flag(json, "e", true);
	text = json_dumps(json, JSON_COMPACT);
	is_str(text,
	    "{\"a\":\"x?y?\",\"b\":\"\xc3\xa4\xe2\x82\xac\xf0\x9f\x90\xa7???\","
	    "\"c\":9223372036854775807,\"d\":null,\"e\":true}",
	    "what is written is always JSON");
	struct json_text out = {0};
	json_object_set_new(json, "f",
	    json_pack("[[],{},i,I,s,{s:[b]}]", -1, INT64_MIN, "\"\\/\b\f\n\r\t\x01\x1f\x7f\xc2\x80",
		"x", 0));
	free(text);
	text = json_dumps(json, JSON_COMPACT);
	json_text_put(&out, json);
	json_text_add(&out, "", 1);
	ok(!out.failed, "the quick way fails at none of it");
	is_str(out.text, text, "and writes the same");
	free(out.text);
	free(text);
	out = (struct json_text){0};
	json_text_put(&out, NULL);
	ok(out.failed, "what is not there fails");
	json = json_array();
	for (int i = 0; i < 100; i++) {
		json_t *outer = json_array();

		json_array_append_new(outer, json);
		json = outer;
	}
	json_text_put(&out, json);
	ok(out.failed, "so does what is deep");
	free(out.text);
}

/* The document's paths and methods, by their indentation, against the table. */
static void
test_openapi(void)
{
	FILE *file = fopen(OPENAPI, "re");
	char line[512], path[256] = "", method[16];
	size_t found = 0;
	bool in_paths = false;

	ok(file != NULL, OPENAPI " is there (run from the top of the tree)");
	if (file == NULL)
		return;
	while (fgets(line, sizeof(line), file)) {
		if (line[0] != ' ' && line[0] != '\n')
			in_paths = strncmp(line, "paths:", 6) == 0;
		if (!in_paths)
			continue;
		if (strncmp(line, "  /", 3) == 0)
			sscanf(line, " %255[^:\n]", path);
		if (strncmp(line, "    ", 4) != 0 || sscanf(line + 4, "%15[a-z]:", method) != 1 ||
		    line[4] == ' ' || strcmp(method, "parameters") == 0)
			continue;
		for (char *p = method; *p; p++)
			*p = (char)(*p - 'a' + 'A');
		ok(strcmp(find(method, path), path) == 0, OPENAPI ": %s %s is a route", method,
		    path);
		found++;
	}
	is_int(found, api_nr_routes, OPENAPI " has every route");
	fclose(file);
}

int
main(void)
{
	log_init("test_api", LOG_LEVEL_ERR);
	test_routes();
	test_id_length();
	test_table();
	test_query();
	test_durations();
	test_permissions();
	test_create_bad();
	test_create_good();
	test_json_out();
	test_openapi();
	return done();
}
