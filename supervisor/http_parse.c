/* SPDX-License-Identifier: Apache-2.0 */
#include "supervisor/http_parse.h"

#include <errno.h>
#include <http_parser.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "common/xalloc.h"

#define NAME_BYTES	 32
#define VALUE_BYTES	 64
#define URL_BYTES	 (2 * HTTP_MAX_PATH_BYTES + 256) /* and scheme and host, which are ignored */
#define FIRST_BODY_BYTES 512U

struct http_parse {
	http_parser parser;
	struct http_request *req;
	int status; /* 0: nothing wrong */
	const char *why;
	bool started, done, keeps_alive, wants_continue;
	char url[URL_BYTES];
	size_t url_bytes;
	/* The header at hand, cut to fit: only "Expect" is looked at. */
	char name[NAME_BYTES], value[VALUE_BYTES];
	size_t name_bytes, value_bytes;
	bool in_value;
	char *body; /* owned, grown as bytes arrive and never as a header claims */
	size_t body_bytes, body_room;
};

static int
refuse(struct http_parse *parse, int status, const char *why)
{
	if (!parse->status) {
		parse->status = status;
		parse->why = why;
	}
	return -1;
}

static int
on_url(http_parser *parser, const char *at, size_t bytes)
{
	struct http_parse *parse = parser->data;

	if (bytes >= sizeof(parse->url) - parse->url_bytes)
		return refuse(parse, 414, "the request target is too long");
	memcpy(parse->url + parse->url_bytes, at, bytes);
	parse->url_bytes += bytes;
	parse->url[parse->url_bytes] = '\0';
	return 0;
}

/* Appends what fits. */
static void
append(char *buf, size_t room, size_t *used, const char *at, size_t bytes)
{
	size_t left = room - 1 - *used;

	if (bytes > left)
		bytes = left;
	memcpy(buf + *used, at, bytes);
	*used += bytes;
	buf[*used] = '\0';
}

static int
finish_header(struct http_parse *parse)
{
	int r = 0;

	if (strcasecmp(parse->name, "expect") == 0) {
		if (strcasecmp(parse->value, "100-continue") == 0)
			parse->wants_continue = true;
		else
			r = refuse(parse, 417, "the only expectation that is met is 100-continue");
	}
	parse->name_bytes = parse->value_bytes = 0;
	parse->name[0] = parse->value[0] = '\0';
	parse->in_value = false;
	return r;
}

static int
on_header_field(http_parser *parser, const char *at, size_t bytes)
{
	struct http_parse *parse = parser->data;

	if (parse->in_value && finish_header(parse) < 0)
		return -1;
	append(parse->name, sizeof(parse->name), &parse->name_bytes, at, bytes);
	return 0;
}

static int
on_header_value(http_parser *parser, const char *at, size_t bytes)
{
	struct http_parse *parse = parser->data;

	parse->in_value = true;
	append(parse->value, sizeof(parse->value), &parse->value_bytes, at, bytes);
	return 0;
}

static int
copy_part(struct http_parse *parse, const struct http_parser_url *url, int field, char *buf)
{
	size_t bytes;

	buf[0] = '\0';
	if (!(url->field_set & (1U << field)))
		return 0;
	bytes = url->field_data[field].len;
	if (bytes >= HTTP_MAX_PATH_BYTES)
		return refuse(parse, 414, "the path or the query is too long");
	memcpy(buf, parse->url + url->field_data[field].off, bytes);
	buf[bytes] = '\0';
	return 0;
}

static int
split_url(struct http_parse *parse)
{
	struct http_parser_url url;

	http_parser_url_init(&url);
	if (parse->parser.method == HTTP_CONNECT ||
	    http_parser_parse_url(parse->url, parse->url_bytes, 0, &url) != 0)
		return refuse(parse, 400, "the request target is not a path");
	if (copy_part(parse, &url, UF_PATH, parse->req->path) < 0 ||
	    copy_part(parse, &url, UF_QUERY, parse->req->query) < 0)
		return -1;
	return parse->req->path[0] == '/' ? 0
					  : refuse(parse, 400, "the request target is not a path");
}

static int
on_headers_complete(http_parser *parser)
{
	struct http_parse *parse = parser->data;

	if (parse->in_value && finish_header(parse) < 0)
		return -1;
	if (parser->http_major != 1)
		return refuse(parse, 505, "this server speaks HTTP/1.1");
	if (parser->http_minor == 0)
		parse->wants_continue = false;
	if ((parser->flags & F_CONTENTLENGTH) && parser->content_length > HTTP_MAX_BODY_BYTES)
		return refuse(parse, 413, "the body is too large");
	return split_url(parse);
}

/* Room for bytes more and a NUL. */
static int
reserve(struct http_parse *parse, size_t bytes)
{
	size_t room = parse->body_room ? parse->body_room : FIRST_BODY_BYTES;
	char *body;

	while (room < parse->body_bytes + bytes + 1)
		room *= 2;
	if (room == parse->body_room)
		return 0;
	body = realloc(parse->body, room);
	if (!body)
		return -ENOMEM;
	parse->body = body;
	parse->body_room = room;
	return 0;
}

static int
on_body(http_parser *parser, const char *at, size_t bytes)
{
	struct http_parse *parse = parser->data;

	if (bytes > HTTP_MAX_BODY_BYTES - parse->body_bytes)
		return refuse(parse, 413, "the body is too large");
	if (reserve(parse, bytes) < 0)
		return refuse(parse, 503, "no memory for the body; try again later");
	memcpy(parse->body + parse->body_bytes, at, bytes);
	parse->body_bytes += bytes;
	parse->body[parse->body_bytes] = '\0';
	return 0;
}

static int
on_message_complete(http_parser *parser)
{
	struct http_parse *parse = parser->data;
	struct http_request *req = parse->req;

	req->method = http_method_str((enum http_method)parser->method);
	req->body = parse->body ? parse->body : "";
	req->body_bytes = parse->body_bytes;
	parse->done = true;
	/* Behind a request to upgrade the bytes may be anything. */
	parse->keeps_alive = http_should_keep_alive(parser) && !parser->upgrade;
	http_parser_pause(parser, 1);
	return 0;
}

static const http_parser_settings settings = {
    .on_url = on_url,
    .on_header_field = on_header_field,
    .on_header_value = on_header_value,
    .on_headers_complete = on_headers_complete,
    .on_body = on_body,
    .on_message_complete = on_message_complete,
};

struct http_parse *
http_parse_new(struct http_request *req)
{
	struct http_parse *parse = xcalloc(1, sizeof(*parse));

	parse->req = req;
	http_parser_set_max_header_size(HTTP_MAX_HEADER_BYTES);
	http_parse_reset(parse);
	return parse;
}

void
http_parse_free(struct http_parse *parse)
{
	if (!parse)
		return;
	free(parse->body);
	free(parse);
}

void
http_parse_reset(struct http_parse *parse)
{
	struct http_request *req = parse->req;

	free(parse->body);
	memset(parse, 0, sizeof(*parse));
	parse->req = req;
	http_parser_init(&parse->parser, HTTP_REQUEST);
	parse->parser.data = parse;
	req->method = "";
	req->path[0] = req->query[0] = '\0';
	req->body = "";
	req->body_bytes = 0;
	req->state = NULL;
	req->on_gone = NULL;
	req->on_room = NULL;
}

/* The parser's own complaint, as a status. */
static void
refuse_by_errno(struct http_parse *parse, enum http_errno error)
{
	if (error == HPE_HEADER_OVERFLOW)
		refuse(parse, 431, "the header is too large");
	else
		refuse(parse, 400, http_errno_description(error));
}

size_t
http_parse_feed(
    struct http_parse *parse, const char *data, size_t bytes, enum http_parse_result *ret)
{
	size_t used;

	*ret = HTTP_PARSE_MORE;
	if (bytes == 0) /* would mean the end of the stream to the parser */
		return 0;
	used = http_parser_execute(&parse->parser, &settings, data, bytes);
	parse->started = true;
	if (parse->done)
		*ret = HTTP_PARSE_REQUEST;
	else if (HTTP_PARSER_ERRNO(&parse->parser) != HPE_OK) {
		refuse_by_errno(parse, HTTP_PARSER_ERRNO(&parse->parser));
		*ret = HTTP_PARSE_BAD;
	}
	return used;
}

bool
http_parse_is_started(const struct http_parse *parse)
{
	return parse->started;
}

bool
http_parse_take_continue(struct http_parse *parse)
{
	bool wanted = parse->wants_continue && !parse->done && parse->body_bytes == 0 &&
	    parse->req->path[0] == '/';

	if (wanted)
		parse->wants_continue = false;
	return wanted;
}

bool
http_parse_keeps_alive(const struct http_parse *parse)
{
	return parse->keeps_alive;
}

bool
http_parse_is_http10(const struct http_parse *parse)
{
	return parse->parser.http_major == 1 && parse->parser.http_minor == 0;
}

int
http_parse_status(const struct http_parse *parse, const char **ret_why)
{
	*ret_why = parse->why;
	return parse->status;
}

const char *
http_status_text(int status)
{
	switch (status) {
#define STATUS(number, name, text) \
	case number:               \
		return #text;
		HTTP_STATUS_MAP(STATUS)
#undef STATUS
	default:
		return "Unknown";
	}
}
