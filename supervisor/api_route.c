/* SPDX-License-Identifier: Apache-2.0 */
#include "supervisor/api_route.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "common/num.h"

#define MAX_QUERY_KEYS 8

const struct api_route api_routes[] = {
#define ROUTE(method, pattern, permission, handler, keys, doc) \
	{#method, pattern, API_##permission, api_##handler, keys, doc},
#include "supervisor/api.def"
#undef ROUTE
};

const size_t api_nr_routes = sizeof(api_routes) / sizeof(api_routes[0]);

/* Compares segment by segment; the one that {…} stands for is handed out raw. */
static bool
pattern_matches(const char *pattern, const char *path, const char **ret_id, size_t *ret_bytes)
{
	*ret_id = NULL;
	*ret_bytes = 0;
	while (*pattern == '/' && *path == '/') {
		size_t pattern_bytes = strcspn(++pattern, "/");
		size_t bytes = strcspn(++path, "/");

		if (*pattern == '{') {
			if (bytes == 0)
				return false;
			*ret_id = path;
			*ret_bytes = bytes;
		} else if (bytes != pattern_bytes || strncmp(pattern, path, bytes) != 0)
			return false;
		pattern += pattern_bytes;
		path += bytes;
	}
	return *pattern == '\0' && *path == '\0';
}

static void
allow_add(char *allow, size_t bytes, const char *method)
{
	size_t used = strlen(allow);

	snprintf(allow + used, bytes - used, "%s%s%s", used ? ", " : "", method,
	    strcmp(method, "GET") == 0 ? ", HEAD" : "");
}

enum api_match
api_table_find(
    const struct api_table *table, const char *method, const char *path, struct api_found *ret)
{
	const char *wanted = strcmp(method, "HEAD") == 0 ? "GET" : method;
	const char *raw;
	size_t raw_bytes;

	ret->id[0] = ret->allow[0] = '\0';
	for (size_t i = 0; i < table->nr; i++) {
		const struct api_route *route = &table->routes[i];

		if (!pattern_matches(route->pattern, path, &raw, &raw_bytes))
			continue;
		if (strcmp(route->method, wanted) != 0) {
			allow_add(ret->allow, sizeof(ret->allow), route->method);
			continue;
		}
		ret->route = route;
		if (raw && http_percent_decode(raw, raw_bytes, ret->id, SESSION_ID_BYTES) < 0)
			return API_BAD_ID;
		return API_MATCHED;
	}
	return ret->allow[0] ? API_NO_METHOD : API_NO_ROUTE;
}

/* The index of a word in a list with spaces between, or -1. */
static int
word_index(const char *list, const char *word, size_t bytes)
{
	for (int i = 0; *list; i++) {
		size_t n = strcspn(list, " ");

		if (n == bytes && strncmp(list, word, n) == 0)
			return i;
		list += n + (list[n] == ' ');
	}
	return -1;
}

int
api_query_check(const char *query, const char *keys, char *why, size_t why_bytes)
{
	bool seen[MAX_QUERY_KEYS] = {false};

	while (*query) {
		size_t pair_bytes = strcspn(query, "&");
		size_t key_bytes = strcspn(query, "=&");
		int index = word_index(keys, query, key_bytes);

		if (index < 0 || index >= MAX_QUERY_KEYS) {
			snprintf(why, why_bytes, "there is no query key \"%.*s\"; %s%s",
			    key_bytes > 64 ? 64 : (int)key_bytes, query,
			    *keys ? "there are: " : "there are none here", keys);
			return -EINVAL;
		}
		if (seen[index]) {
			snprintf(why, why_bytes, "the query key \"%.*s\" is there twice",
			    (int)key_bytes, query);
			return -EINVAL;
		}
		seen[index] = true;
		query += pair_bytes + (query[pair_bytes] == '&');
	}
	return 0;
}

int
api_query_ms(
    const struct http_request *req, const char *key, uint64_t *ret, char *why, size_t why_bytes)
{
	char text[32];
	int r = http_query(req, key, text, sizeof(text));

	if (r == 0)
		return 0;
	if (r < 0 || num_parse_ms(text, 0, UINT64_C(3600) * 1000, ret) < 0) {
		snprintf(why, why_bytes,
		    "\"%s\" must be a duration up to 1h, such as 500ms, 5s or 2m", key);
		return -EINVAL;
	}
	return 0;
}

int
api_query_flag(
    const struct http_request *req, const char *key, bool *ret, char *why, size_t why_bytes)
{
	char text[4];
	int r = http_query(req, key, text, sizeof(text));

	if (r == 0)
		return 0;
	if (r < 0 || (strcmp(text, "0") != 0 && strcmp(text, "1") != 0)) {
		snprintf(why, why_bytes, "\"%s\" must be 0 or 1", key);
		return -EINVAL;
	}
	*ret = text[0] == '1';
	return 0;
}

bool
api_peer_in_group(const struct peer *peer, gid_t gid)
{
	if (peer->gid == gid)
		return true;
	for (size_t i = 0; i < peer->nr_groups; i++)
		if (peer->groups[i] == gid)
			return true;
	return false;
}

bool
api_is_permitted(const struct api *api, const struct peer *peer, enum api_permission permission)
{
	if (permission == API_OBSERVE)
		return true;
	return peer->uid == 0 || peer->uid == geteuid() ||
	    (api->has_admin_gid && api_peer_in_group(peer, api->admin_gid));
}
