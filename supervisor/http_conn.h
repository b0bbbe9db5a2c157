/* SPDX-License-Identifier: Apache-2.0 */
/* One connection of the HTTP server.  Private to http*.c.
 *
 * A connection that ends is marked, its descriptor closed, and put on the server's
 * list of dead ones; the memory goes at the end of the loop turn, since the code that
 * ended it is usually a callback of its own. */
#ifndef SUPERVISOR_HTTP_CONN_H
#define SUPERVISOR_HTTP_CONN_H

#include <ev.h>

#include "common/list.h"
#include "common/log.h"
#include "supervisor/http.h"
#include "supervisor/http_parse.h"

#define HTTP_IN_BYTES	  8192
#define HTTP_EXTRA_BYTES  256
#define HTTP_STREAM_BYTES 16384 /* of a stream that its client has not read */

/*	state	    | request	     | timer
 *	READING	    | being read     | must be complete; or silence between requests
 *	HANDLING    | at the handler | is the client still there?
 *	STREAMING   | half answered  | is the client still there?
 *	WRITING	    | answered	     | the client must read on
 *	LINGERING   | none	     | the client must hang up
 *	DEAD	    | none	     | none */
enum http_conn_state {
	CONN_READING,
	CONN_HANDLING,
	CONN_STREAMING,
	CONN_WRITING,
	CONN_LINGERING,
	CONN_DEAD
};

struct http_conn {
	struct list link; /* server.conns or server.dead */
	struct http_server *server;
	int fd; /* owned */
	enum http_conn_state state;
	bool in_handler;  /* the handler is on the stack */
	bool eof;	  /* the client will send no more */
	bool close_after; /* hang up once the answer is written */
	struct http_request req;
	struct http_parse *parse; /* owned */
	ev_io io;
	ev_timer timer;
	char in[HTTP_IN_BYTES];
	size_t in_start, in_end;
	bool chunked; /* the stream is */
	char *out;    /* owned: one answer, never more; of a stream what is unsent */
	size_t out_bytes, out_sent;
	char extra[HTTP_EXTRA_BYTES]; /* header lines for the next answer */
};

struct http_server {
	struct ev_loop *loop;
	int fd; /* owned; listens; -1 once retired */
	http_handler_fn handler;
	void *arg;
	struct http_limits limits;
	bool retired, plain;
	struct list conns;	/* of struct http_conn.link */
	struct list dead;	/* the same; freed by sweep */
	uint32_t nr_conns;	/* on conns */
	struct list shares;	/* http_pool.servers */
	struct http_pool *pool; /* whose connections count; NULL: its own */
	ev_io accept;
	ev_timer backoff; /* accept() failed: when to try again */
	ev_prepare sweep;
	struct log_limit log;
};

/* Serves fd, which is non-blocking and owned by the connection from now on. */
void http_conn_new(struct http_server *server, int fd, const struct peer *peer);
/* Ends it: on_gone for a request that waits, then on the list of dead ones. */
void http_conn_kill(struct http_conn *conn);
/* The server takes no new client: this is the last request of this one. */
void http_conn_retire(struct http_conn *conn);
/* Of a dead one: its memory. */
void http_conn_free(struct http_conn *conn);

/* A connection was made, or has died: there is room for another. */
void http_server_count(struct http_server *server);
void http_server_uncount(struct http_server *server);

#endif
