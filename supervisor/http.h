/* SPDX-License-Identifier: Apache-2.0 */
/* An HTTP/1.1 server on a Unix socket and the libev loop.  Sends no byte that would
 * block, holds at most one request of a connection at a time, and lets a request be
 * answered later.  Parsing is the distribution's http-parser. */
#ifndef SUPERVISOR_HTTP_H
#define SUPERVISOR_HTTP_H

#include <ev.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/list.h"
#include "supervisor/image.h"

#define HTTP_MAX_HEADER_BYTES 16384U
#define HTTP_MAX_BODY_BYTES   (1024U * 1024U)
#define HTTP_MAX_PATH_BYTES   1024U

struct http_server;

struct http_limits {
	uint64_t timeout_ms;  /* for a request to be complete, and for an answer to be read */
	uint32_t max_clients; /* connections at one time; more wait in the backlog */
};

/* Servers whose connections are counted together. */
struct http_pool {
	struct list servers; /* of struct http_server.shares */
	uint32_t nr_conns;
};

struct http_request {
	const char *method;		 /* "GET" */
	char path[HTTP_MAX_PATH_BYTES];	 /* without the query, still percent-encoded */
	char query[HTTP_MAX_PATH_BYTES]; /* without the '?' */
	const char *body;		 /* body_bytes of them and a NUL */
	size_t body_bytes;
	struct peer peer;
	void *state; /* the handler's, while the answer is due */
	/* Set by a handler that answers later: the client went away, or the server stops.
	 * The request is freed when it returns, unanswered. */
	void (*on_gone)(struct http_request *req);
	/* Set by a handler that streams more than has room: everything is sent, say more.
	 * Once a turn of the loop. */
	void (*on_room)(struct http_request *req);
};

/* Answers now, or keeps req and answers later by http_reply(). */
typedef void (*http_handler_fn)(void *arg, struct http_request *req);

/* Accepts from fd, which listens (owned by the server from now on).  NULL limits
 * are 10 s and 256 clients. */
struct http_server *http_server_new(struct ev_loop *loop, int fd, http_handler_fn handler,
    void *arg, const struct http_limits *limits);
/* on_gone is called for every request that still waits.  Not from a handler. */
void http_server_free(struct http_server *server);
/* Takes no new client, hangs up on those that ask for nothing, and answers what has been
 * asked: http_server_clients() comes down to 0.  It can be freed before. */
void http_server_retire(struct http_server *server);
/* The errors that the server itself answers with are plain text from now on, not JSON. */
void http_server_set_plain(struct http_server *server);
/* From now on max_clients is for all servers of the pool, which outlives them.  Before the
 * loop's next turn. */
void http_pool_init(struct http_pool *pool);
void http_server_share(struct http_server *server, struct http_pool *pool);
/* The arg of http_server_new(). */
void *http_server_arg(const struct http_server *server);
/* For what begins from now on. */
void http_server_set_limits(struct http_server *server, const struct http_limits *limits);
/* Connections now. */
uint32_t http_server_clients(const struct http_server *server);

/* Adds a header to the answer that is due.  Name and value are ours: no client's
 * byte may be in them. */
void http_header_add(struct http_request *req, const char *name, const char *value);

/* Ends the request, which must not be used afterwards.  body is copied; NULL for none.  For a
 * HEAD it says the length; without a body the answer says none, which is allowed. */
void http_reply(struct http_request *req, int status, const char *content_type, const char *body,
    size_t body_bytes);

/* An answer in pieces, for a request whose handler has set on_gone, which stays in force
 * until http_stream_end().  Nothing is sent before the loop's next turn. */
void http_stream_begin(struct http_request *req, int status, const char *content_type);
/* One piece of at least a byte.  0; -EAGAIN: the client reads so slowly that there is no
 * room for it, and it is dropped; -ENOMEM: it is dropped; -EPIPE: the client is gone. */
int http_stream_send(struct http_request *req, const char *data, size_t bytes);
/* The last piece, which is not dropped.  Ends the request as http_reply() does. */
void http_stream_end(struct http_request *req, const char *data, size_t bytes);

/* Hangs up in the middle of a stream, so that the client sees that it is not whole.  Ends the
 * request; on_gone is not called. */
void http_stream_abort(struct http_request *req);

/* The value of a query key, percent-decoded into buf.  1 when the key is there, 0 when
 * it is not, or http_percent_decode()'s error. */
int http_query(const struct http_request *req, const char *key, char *buf, size_t bytes);

/* Decodes n bytes of %XX text into buf with a terminator.  The length, or -EINVAL for
 * a broken escape or a NUL, -ENAMETOOLONG when it does not fit. */
int http_percent_decode(const char *text, size_t n, char *buf, size_t bytes);

#endif
