/* SPDX-License-Identifier: Apache-2.0 */
/* Bytes to one request at a time, without a socket and without a clock. */
#ifndef SUPERVISOR_HTTP_PARSE_H
#define SUPERVISOR_HTTP_PARSE_H

#include <stdbool.h>
#include <stddef.h>

#include "supervisor/http.h"

struct http_parse;

enum http_parse_result {
	HTTP_PARSE_MORE,    /* everything was taken, the request is not complete */
	HTTP_PARSE_REQUEST, /* req is complete; the rest was not looked at */
	HTTP_PARSE_BAD,	    /* the connection cannot go on: see http_parse_status() */
};

/* Fills req (borrowed), whose strings live until the next http_parse_reset(). */
struct http_parse *http_parse_new(struct http_request *req);
void http_parse_free(struct http_parse *parse);

/* Ready for the next request. */
void http_parse_reset(struct http_parse *parse);

/* Returns how many bytes were taken. */
size_t http_parse_feed(
    struct http_parse *parse, const char *data, size_t bytes, enum http_parse_result *ret);

/* A byte of a request was taken. */
bool http_parse_is_started(const struct http_parse *parse);
/* True once for a request whose sender waits for "100 Continue" before the body. */
bool http_parse_take_continue(struct http_parse *parse);
/* Of a complete request: the connection may carry another. */
bool http_parse_keeps_alive(const struct http_parse *parse);
bool http_parse_is_http10(const struct http_parse *parse);
/* After HTTP_PARSE_BAD: the status to answer with and a sentence without quotes. */
int http_parse_status(const struct http_parse *parse, const char **ret_why);

/* "Not Found"; "Unknown" for a status that has no name. */
const char *http_status_text(int status);

#endif
