/* SPDX-License-Identifier: Apache-2.0 */
#include "supervisor/http_conn.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "common/fd.h"
#include "common/xalloc.h"

#define CONTINUE	 "HTTP/1.1 100 Continue\r\n\r\n"
#define HEAD_BYTES	 (256 + HTTP_EXTRA_BYTES)
#define GONE_CHECK_S	 1.0
#define MAX_READS_A_TURN 16 /* so that one client cannot keep the loop */

static void
arm_timer(struct http_conn *conn, double after, double repeat)
{
	struct ev_loop *loop = conn->server->loop;

	ev_timer_stop(loop, &conn->timer);
	ev_timer_set(&conn->timer, after, repeat);
	ev_timer_start(loop, &conn->timer);
}

static void
arm_deadline(struct http_conn *conn)
{
	/* The loop's idea of the time is as old as this turn. */
	ev_now_update(conn->server->loop);
	arm_timer(conn, (double)conn->server->limits.timeout_ms / 1000.0, 0.0);
}

/* The request has not been answered to its end. */
static bool
is_at_handler(const struct http_conn *conn)
{
	return conn->state == CONN_HANDLING || conn->state == CONN_STREAMING;
}

/* Which events matter follows from the state alone. */
static void
update_watch(struct http_conn *conn)
{
	struct ev_loop *loop = conn->server->loop;
	int events = 0;

	if (conn->state == CONN_DEAD)
		return;
	if (!conn->eof &&
	    (conn->state == CONN_LINGERING || conn->in_end - conn->in_start < sizeof(conn->in)))
		events |= EV_READ;
	if (conn->out_sent < conn->out_bytes)
		events |= EV_WRITE;
	/* Without interest in the socket nobody tells us that the client has gone. */
	if (is_at_handler(conn)) {
		if (events & EV_READ)
			ev_timer_stop(loop, &conn->timer);
		else if (!ev_is_active(&conn->timer))
			arm_timer(conn, GONE_CHECK_S, GONE_CHECK_S);
	}
	if (events == (conn->io.events & (EV_READ | EV_WRITE)) && ev_is_active(&conn->io))
		return;
	ev_io_stop(loop, &conn->io);
	if (events) {
		ev_io_modify(&conn->io, events);
		ev_io_start(loop, &conn->io);
	}
}

/* Appends two pieces to what is to be sent. */
static int
append(struct http_conn *conn, const char *head, size_t head_bytes, const char *body,
    size_t body_bytes)
{
	char *out = realloc(conn->out, conn->out_bytes + head_bytes + body_bytes);

	if (!out)
		return -ENOMEM;
	memcpy(out + conn->out_bytes, head, head_bytes);
	if (body_bytes)
		memcpy(out + conn->out_bytes + head_bytes, body, body_bytes);
	conn->out = out;
	conn->out_bytes += head_bytes + body_bytes;
	return 0;
}

static void
queue(struct http_conn *conn, const char *head, size_t head_bytes, const char *body,
    size_t body_bytes)
{
	if (append(conn, head, head_bytes, body, body_bytes) < 0)
		http_conn_kill(conn);
}

static bool
is_head(const struct http_conn *conn)
{
	return strcmp(conn->req.method, "HEAD") == 0;
}

/* The line that says how the body ends.  204 has none; nor has a HEAD that nobody has made the
 * whole body for. */
static const char *
length_line(const struct http_conn *conn, char *buf, size_t bytes, int status, size_t body_bytes)
{
	buf[0] = '\0';
	if (status != 204 && (body_bytes > 0 || !is_head(conn)))
		snprintf(buf, bytes, "Content-Length: %zu\r\n", body_bytes);
	return buf;
}

/* The head of an answer, or 0 when a header of ours is too long. */
static size_t
write_head(const struct http_conn *conn, int status, const char *type, const char *length,
    char buf[HEAD_BYTES])
{
	int n = snprintf(buf, HEAD_BYTES, "HTTP/1.1 %d %s\r\n%s%s%s%s%s%s\r\n", status,
	    http_status_text(status), type ? "Content-Type: " : "", type ? type : "",
	    type ? "\r\n" : "", length, conn->extra,
	    conn->close_after			    ? "Connection: close\r\n"
		: http_parse_is_http10(conn->parse) ? "Connection: keep-alive\r\n"
						    : "");

	return n < 0 || (size_t)n >= HEAD_BYTES ? 0 : (size_t)n;
}

/* Queues an answer and leaves for WRITING. */
static void
answer(struct http_conn *conn, int status, const char *type, const char *body, size_t body_bytes)
{
	char head[HEAD_BYTES], length[48];
	size_t n = write_head(conn, status, type,
	    length_line(conn, length, sizeof(length), status, body_bytes), head);

	if (is_head(conn))
		body_bytes = 0;
	conn->state = CONN_WRITING;
	conn->req.on_gone = NULL;
	arm_deadline(conn);
	if (n == 0)
		http_conn_kill(conn);
	else
		queue(conn, head, n, body, body_bytes);
}

/* The word for programs that goes with it. */
static const char *
code_of(int status)
{
	switch (status) {
	case 408:
		return "timeout";
	case 413:
	case 414:
	case 431:
		return "too-large";
	case 500:
		return "internal";
	default:
		return "bad-request";
	}
}

/* A request that cannot be read: the answer is the last thing on this connection. */
static void
fail(struct http_conn *conn, int status, const char *why)
{
	bool plain = conn->server->plain;
	char body[256];
	int n;

	if (plain)
		n = snprintf(body, sizeof(body), "%s\n", why);
	else
		n = snprintf(body, sizeof(body), "{\"error\": \"%s\", \"code\": \"%s\"}\n", why,
		    code_of(status));
	conn->close_after = true;
	conn->extra[0] = '\0';
	answer(conn, status, plain ? "text/plain; charset=utf-8" : "application/json", body,
	    (size_t)n);
}

/* What it says is not sent at once: others have their turn. */
static void
ask_for_more(struct http_conn *conn)
{
	conn->in_handler = true;
	conn->req.on_room(&conn->req);
	conn->in_handler = false;
}

/* The answer is written. */
static void
next_request(struct http_conn *conn)
{
	free(conn->out);
	conn->out = NULL;
	conn->out_bytes = conn->out_sent = 0;
	if (conn->state == CONN_STREAMING && conn->req.on_room)
		ask_for_more(conn);
	/* That was only "100 Continue", or a piece of a stream. */
	if (conn->state != CONN_WRITING || conn->out)
		return;
	arm_deadline(conn);
	if (!conn->close_after) {
		http_parse_reset(conn->parse);
		conn->extra[0] = '\0';
		conn->state = CONN_READING;
		return;
	}
	/* Closing with unread input would cut off a client that is still sending, before
	 * it has read why. */
	conn->in_start = conn->in_end = 0;
	conn->state = CONN_LINGERING;
	if (conn->eof || shutdown(conn->fd, SHUT_WR) < 0)
		http_conn_kill(conn);
}

static void
flush(struct http_conn *conn)
{
	ssize_t n;

	while (conn->out_sent < conn->out_bytes) {
		n = send(conn->fd, conn->out + conn->out_sent, conn->out_bytes - conn->out_sent,
		    MSG_NOSIGNAL | MSG_DONTWAIT);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0 && errno == EAGAIN)
			return;
		if (n < 0) {
			http_conn_kill(conn);
			return;
		}
		conn->out_sent += (size_t)n;
		if (conn->state == CONN_WRITING)
			arm_deadline(conn);
	}
	if (conn->out)
		next_request(conn);
}

static void
dispatch(struct http_conn *conn)
{
	conn->close_after = conn->server->retired || !http_parse_keeps_alive(conn->parse);
	conn->state = CONN_HANDLING;
	ev_timer_stop(conn->server->loop, &conn->timer);
	conn->in_handler = true;
	conn->server->handler(conn->server->arg, &conn->req);
	conn->in_handler = false;
	if (conn->state == CONN_HANDLING && !conn->req.on_gone) {
		log_err("http: %s %s has no handler that answers; answered 500", conn->req.method,
		    conn->req.path);
		fail(conn, 500, "the request was not answered; this is a bug");
	}
	if (conn->state == CONN_STREAMING && !conn->req.on_gone) {
		log_err("http: %s %s has a handler that streams for ever; hung up",
		    conn->req.method, conn->req.path);
		http_conn_kill(conn);
	}
}

static void
parse(struct http_conn *conn)
{
	bool was_started = http_parse_is_started(conn->parse);
	enum http_parse_result result;
	const char *why;
	int status;

	conn->in_start += http_parse_feed(
	    conn->parse, conn->in + conn->in_start, conn->in_end - conn->in_start, &result);
	if (result == HTTP_PARSE_REQUEST)
		dispatch(conn);
	else if (result == HTTP_PARSE_BAD) {
		status = http_parse_status(conn->parse, &why);
		fail(conn, status, why);
	} else {
		conn->in_start = conn->in_end = 0;
		if (!was_started)
			arm_deadline(conn);
		if (http_parse_take_continue(conn->parse))
			queue(conn, CONTINUE, sizeof(CONTINUE) - 1, NULL, 0);
	}
}

/* Takes the connection as far as it goes without waiting. */
static void
advance(struct http_conn *conn)
{
	for (;;) {
		if (conn->state != CONN_DEAD)
			flush(conn);
		if (conn->state != CONN_READING || conn->in_start == conn->in_end)
			break;
		parse(conn);
	}
	/* A request that the client will never complete. */
	if (conn->state == CONN_READING && conn->eof)
		http_conn_kill(conn);
	update_watch(conn);
}

/* Both directions are closed.  A client that only shut down its sending half still
 * wants its answer. */
static bool
is_hung_up(const struct http_conn *conn)
{
	struct pollfd p = {.fd = conn->fd, .events = 0};

	return poll(&p, 1, 0) > 0 && (p.revents & (POLLHUP | POLLERR));
}

static void
on_eof(struct http_conn *conn)
{
	conn->eof = true;
	if (conn->state == CONN_LINGERING || is_hung_up(conn))
		http_conn_kill(conn);
}

/* False: there is nothing more to read now. */
static bool
receive(struct http_conn *conn)
{
	ssize_t n;

	if (conn->state == CONN_LINGERING) /* read and thrown away */
		conn->in_start = conn->in_end = 0;
	if (conn->in_start > 0) {
		memmove(conn->in, conn->in + conn->in_start, conn->in_end - conn->in_start);
		conn->in_end -= conn->in_start;
		conn->in_start = 0;
	}
	if (conn->in_end == sizeof(conn->in))
		return false;
	n = recv(conn->fd, conn->in + conn->in_end, sizeof(conn->in) - conn->in_end, MSG_DONTWAIT);
	if (n > 0) {
		conn->in_end += (size_t)n;
		return true;
	}
	if (n == 0)
		on_eof(conn);
	else if (errno == EINTR)
		return true;
	else if (errno != EAGAIN)
		http_conn_kill(conn);
	return false;
}

static void
on_io(struct ev_loop *loop, ev_io *watcher, int revents)
{
	struct http_conn *conn = watcher->data;

	(void)loop;
	if (revents & EV_READ)
		for (int i = 0; i < MAX_READS_A_TURN && conn->state != CONN_DEAD && !conn->eof;
		     i++) {
			bool more = receive(conn);

			if (conn->state == CONN_READING)
				advance(conn);
			if (!more)
				break;
		}
	advance(conn);
}

static void
on_timer(struct ev_loop *loop, ev_timer *watcher, int revents)
{
	struct http_conn *conn = watcher->data;

	(void)loop;
	(void)revents;
	if (is_at_handler(conn)) {
		if (is_hung_up(conn))
			http_conn_kill(conn);
		return;
	}
	if (conn->state == CONN_READING && http_parse_is_started(conn->parse)) {
		fail(conn, 408, "the request was not complete in time; see http-timeout");
		advance(conn);
	} else
		http_conn_kill(conn);
}

void
http_conn_new(struct http_server *server, int fd, const struct peer *peer)
{
	struct http_conn *conn = xcalloc(1, sizeof(*conn));

	conn->server = server;
	conn->fd = fd;
	conn->state = CONN_READING;
	conn->req.peer = *peer;
	conn->parse = http_parse_new(&conn->req);
	ev_io_init(&conn->io, on_io, fd, EV_READ);
	ev_timer_init(&conn->timer, on_timer, 0.0, 0.0);
	conn->io.data = conn->timer.data = conn;
	list_add(&server->conns, &conn->link);
	http_server_count(server);
	arm_deadline(conn);
	update_watch(conn);
}

void
http_conn_kill(struct http_conn *conn)
{
	struct http_server *server = conn->server;
	bool waits = is_at_handler(conn);

	if (conn->state == CONN_DEAD)
		return;
	conn->state = CONN_DEAD;
	ev_io_stop(server->loop, &conn->io);
	ev_timer_stop(server->loop, &conn->timer);
	fd_closep(&conn->fd);
	list_remove(&conn->link);
	list_add(&server->dead, &conn->link);
	if (waits && conn->req.on_gone)
		conn->req.on_gone(&conn->req);
	http_server_uncount(server);
}

void
http_conn_retire(struct http_conn *conn)
{
	conn->close_after = true;
	if (conn->state == CONN_READING && !http_parse_is_started(conn->parse) &&
	    conn->in_start == conn->in_end)
		http_conn_kill(conn);
}

void
http_conn_free(struct http_conn *conn)
{
	list_remove(&conn->link);
	http_parse_free(conn->parse);
	free(conn->out);
	free(conn);
}

void
http_header_add(struct http_request *req, const char *name, const char *value)
{
	struct http_conn *conn = list_entry(req, struct http_conn, req);
	size_t used = strlen(conn->extra);
	int n = snprintf(conn->extra + used, sizeof(conn->extra) - used, "%s: %s\r\n", name, value);

	if (n < 0 || (size_t)n >= sizeof(conn->extra) - used) {
		conn->extra[used] = '\0'; /* half a header is worse than none */
		log_err("http: no room for the header %s; left out", name);
	}
}

/* The caller is somebody else's callback: what follows, follows from the loop. */
static void
write_soon(struct http_conn *conn)
{
	if (!conn->in_handler && conn->state != CONN_DEAD)
		ev_feed_event(conn->server->loop, &conn->io, EV_WRITE);
}

void
http_reply(struct http_request *req, int status, const char *content_type, const char *body,
    size_t body_bytes)
{
	struct http_conn *conn = list_entry(req, struct http_conn, req);

	if (conn->state != CONN_HANDLING)
		return;
	answer(conn, status, content_type, body, body_bytes);
	write_soon(conn);
}

void
http_stream_begin(struct http_request *req, int status, const char *content_type)
{
	struct http_conn *conn = list_entry(req, struct http_conn, req);
	char head[HEAD_BYTES];
	size_t n;

	if (conn->state != CONN_HANDLING)
		return;
	/* Without chunks the end of the connection is the end of the answer. */
	conn->chunked = !http_parse_is_http10(conn->parse);
	conn->close_after |= !conn->chunked;
	n = write_head(conn, status, content_type,
	    conn->chunked ? "Transfer-Encoding: chunked\r\n" : "", head);
	conn->state = CONN_STREAMING;
	if (n == 0)
		http_conn_kill(conn);
	else
		queue(conn, head, n, NULL, 0);
	write_soon(conn);
}

static int
append_piece(struct http_conn *conn, const char *data, size_t bytes)
{
	char size[24];
	int n, r;

	if (!conn->chunked)
		return append(conn, data, bytes, NULL, 0);
	n = snprintf(size, sizeof(size), "%zx\r\n", bytes);
	r = append(conn, size, (size_t)n, data, bytes);
	return r < 0 ? r : append(conn, "\r\n", 2, NULL, 0);
}

int
http_stream_send(struct http_request *req, const char *data, size_t bytes)
{
	struct http_conn *conn = list_entry(req, struct http_conn, req);
	size_t before;
	int r;

	if (conn->state != CONN_STREAMING)
		return -EPIPE;
	/* What is sent goes first: a stream without end must not grow without end. */
	conn->out_bytes -= conn->out_sent;
	if (conn->out_sent > 0)
		memmove(conn->out, conn->out + conn->out_sent, conn->out_bytes);
	conn->out_sent = 0;
	before = conn->out_bytes;
	if (before > 0 && before + bytes > HTTP_STREAM_BYTES)
		return -EAGAIN;
	r = append_piece(conn, data, bytes);
	if (r < 0)
		conn->out_bytes = before; /* half a piece would be worse than none */
	write_soon(conn);
	return r;
}

void
http_stream_end(struct http_request *req, const char *data, size_t bytes)
{
	struct http_conn *conn = list_entry(req, struct http_conn, req);

	if (conn->state != CONN_STREAMING)
		return;
	conn->state = CONN_WRITING;
	conn->req.on_gone = conn->req.on_room = NULL;
	arm_deadline(conn);
	if ((bytes > 0 && append_piece(conn, data, bytes) < 0) ||
	    (conn->chunked && append(conn, "0\r\n\r\n", 5, NULL, 0) < 0))
		http_conn_kill(conn);
	write_soon(conn);
}

void
http_stream_abort(struct http_request *req)
{
	struct http_conn *conn = list_entry(req, struct http_conn, req);

	conn->req.on_gone = conn->req.on_room = NULL;
	http_conn_kill(conn);
}
