/* SPDX-License-Identifier: Apache-2.0 */
/* Bytes to requests, routes, ids and queries.  However the bytes are cut into reads,
 * the same requests must come out; the first byte of an input is the size of a cut. */
#include <stdlib.h>
#include <string.h>

#include "supervisor/api_route.h"
#include "supervisor/http_parse.h"

#define MAX_REQUESTS 64U

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void
expect(int held)
{
	if (!held)
		abort();
}

static uint64_t
mix(uint64_t hash, const void *bytes, size_t n)
{
	const uint8_t *p = bytes;

	while (n--)
		hash = (hash ^ *p++) * UINT64_C(0x100000001b3);
	return hash;
}

static void
route(const struct http_request *req)
{
	const struct api_table table = {api_routes, api_nr_routes};
	struct api_found found;
	char why[API_WHY_BYTES];
	uint64_t ms = 0;

	if (api_table_find(&table, req->method, req->path, &found) != API_MATCHED)
		return;
	expect(memchr(found.id, 0, sizeof(found.id)) != NULL);
	if (api_query_check(req->query, found.route->keys, why, sizeof(why)) < 0)
		expect(why[0] != '\0');
	else if (api_query_ms(req, "timeout", &ms, why, sizeof(why)) == 0)
		expect(ms <= 3600000);
}

/* A hash of every request and of what came at the end. */
static uint64_t
parse(const char *data, size_t size, size_t cut)
{
	static struct http_request req;
	struct http_parse *parse = http_parse_new(&req);
	enum http_parse_result result = HTTP_PARSE_MORE;
	uint64_t hash = 0;
	unsigned requests = 0;
	const char *why;
	int status;

	while (size && result != HTTP_PARSE_BAD && requests < MAX_REQUESTS) {
		size_t bytes = size < cut ? size : cut;
		size_t used = http_parse_feed(parse, data, bytes, &result);

		http_parse_take_continue(parse);
		expect(used <= bytes && (result != HTTP_PARSE_MORE || used == bytes));
		data += used;
		size -= used;
		if (result == HTTP_PARSE_BAD) {
			status = http_parse_status(parse, &why);
			expect(status >= 400 && status < 600 && why && !strchr(why, '"'));
		} else if (result == HTTP_PARSE_REQUEST) {
			expect(req.path[0] == '/' && req.body[req.body_bytes] == '\0');
			hash = mix(hash, req.method, strlen(req.method));
			hash = mix(hash, req.path, strlen(req.path));
			hash = mix(hash, req.query, strlen(req.query) + 1);
			hash = mix(hash, req.body, req.body_bytes);
			hash = mix(hash, &(bool){http_parse_keeps_alive(parse)}, sizeof(bool));
			route(&req);
			requests++;
			http_parse_reset(parse);
		}
	}
	http_parse_free(parse);
	return mix(hash, &result, sizeof(result));
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	const char *text = (const char *)data + 1;

	if (size < 2)
		return 0;
	expect(parse(text, size - 1, size) == parse(text, size - 1, (size_t)data[0] + 1));
	return 0;
}
