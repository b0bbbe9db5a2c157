/* SPDX-License-Identifier: Apache-2.0 */
/* A real server and its clients on one loop: every wait is for an event of that loop,
 * and a guard timer ends a test whose event never comes. */
#ifndef TESTS_UNIT_HTTP_RIG_H
#define TESTS_UNIT_HTTP_RIG_H

#include <errno.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/fd.h"
#include "common/log.h"
#include "common/xalloc.h"
#include "supervisor/http.h"
#include "tests/unit/tap.h"

#define GUARD_S	   100.0
#define BIG_BYTES  (8U << 20)
#define REPLY_ROOM (BIG_BYTES + 4096)

static struct ev_loop *loop;
static struct http_server *server;
static struct sockaddr_un address;
static socklen_t address_bytes;
static struct http_request *deferred; /* by "/defer" or "/stream", or NULL */
static unsigned nr_handled, nr_gone;
static struct peer last_peer;

static inline void
on_gone(struct http_request *req)
{
	if (deferred == req)
		deferred = NULL;
	nr_gone++;
	http_reply(req, 200, "text/plain", "late", 4); /* must be harmless */
}

static inline void
handle(void *arg, struct http_request *req)
{
	static char big[BIG_BYTES];
	char text[3 * HTTP_MAX_PATH_BYTES];
	int n;

	(void)arg;
	nr_handled++;
	last_peer = req->peer;
	if (strcmp(req->path, "/echo") == 0)
		http_reply(req, 200, "text/plain", req->body, req->body_bytes);
	else if (strcmp(req->path, "/unmade") == 0)
		http_reply(req, 200, "text/plain", NULL, 0);
	else if (strcmp(req->path, "/defer") == 0) {
		deferred = req;
		req->on_gone = on_gone;
	} else if (strcmp(req->path, "/stream") == 0) {
		deferred = req;
		req->on_gone = on_gone;
		http_stream_begin(req, 200, "text/plain");
	} else if (strcmp(req->path, "/leak") == 0) {
		http_stream_begin(req, 200, "text/plain");
	} else if (strcmp(req->path, "/big") == 0) {
		memset(big, 'b', sizeof(big));
		http_reply(req, 200, "text/plain", big, sizeof(big));
	} else if (strcmp(req->path, "/allow") == 0) {
		http_header_add(req, "Allow", "GET, HEAD");
		http_reply(req, 405, NULL, NULL, 0);
	} else if (strcmp(req->path, "/none") != 0) {
		n = snprintf(text, sizeof(text), "%s %s?%s", req->method, req->path, req->query);
		http_reply(req, 200, "text/plain", text, (size_t)n);
	}
}

/* At address, from now on. */
static inline int
listen_anywhere(void)
{
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

	/* An abstract name that the kernel chooses: nothing to remove. */
	address = (struct sockaddr_un){.sun_family = AF_UNIX};
	address_bytes = sizeof(address);
	if (fd < 0 || bind(fd, (struct sockaddr *)&address, sizeof(sa_family_t)) < 0 ||
	    listen(fd, 2000) < 0 ||
	    getsockname(fd, (struct sockaddr *)&address, &address_bytes) < 0) {
		perror("socket");
		exit(1);
	}
	return fd;
}

static inline void
start_server(uint64_t timeout_ms, uint32_t max_clients)
{
	struct http_limits limits = {timeout_ms, max_clients};
	int fd = listen_anywhere();

	deferred = NULL;
	nr_handled = nr_gone = 0;
	loop = ev_loop_new(EVFLAG_AUTO);
	server = http_server_new(loop, fd, handle, NULL, &limits);
}

static inline void
stop_server(void)
{
	http_server_free(server);
	ev_loop_destroy(loop);
}

static inline int
dial(void)
{
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

	if (fd < 0 || connect(fd, (struct sockaddr *)&address, address_bytes) < 0) {
		perror("connect");
		exit(1);
	}
	return fd;
}

static inline void
on_guard(struct ev_loop *l, ev_timer *timer, int revents)
{
	(void)revents;
	*(bool *)timer->data = true;
	ev_break(l, EVBREAK_ALL);
}

/* Runs the loop until is_done says so; false when it never did. */
static inline bool
run_until(bool (*is_done)(void *arg), void *arg, double guard_s)
{
	bool over = false;
	ev_timer guard;

	ev_now_update(loop);
	ev_timer_init(&guard, on_guard, guard_s, 0.0);
	guard.data = &over;
	ev_timer_start(loop, &guard);
	while (!over && !is_done(arg))
		ev_run(loop, EVRUN_ONCE);
	ev_timer_stop(loop, &guard);
	return !over;
}

struct exchange {
	int fd;
	const char *out;
	size_t out_bytes, step; /* step 0: as much as goes */
	size_t want_replies;	/* 0: until the end of the stream */
	char *in;
	size_t in_bytes;
	bool eof;
	ev_io io;
};

static inline void
on_client(struct ev_loop *l, ev_io *io, int revents)
{
	struct exchange *x = io->data;
	ssize_t n;

	(void)revents;
	if (x->out_bytes) {
		size_t bytes = x->step && x->step < x->out_bytes ? x->step : x->out_bytes;

		n = send(x->fd, x->out, bytes, MSG_NOSIGNAL | MSG_DONTWAIT);
		if (n > 0) {
			x->out += n;
			x->out_bytes -= (size_t)n;
		} else if (n < 0 && errno != EAGAIN)
			x->out_bytes = 0; /* it hung up: see what it said */
	}
	n = recv(x->fd, x->in + x->in_bytes, REPLY_ROOM - 1 - x->in_bytes, MSG_DONTWAIT);
	if (n > 0)
		x->in_bytes += (size_t)n;
	else if (n == 0 || errno != EAGAIN)
		x->eof = true;
	x->in[x->in_bytes] = '\0';
	if (x->out_bytes == 0 && (io->events & EV_WRITE)) {
		ev_io_stop(l, io);
		ev_io_set(io, x->fd, EV_READ);
		ev_io_start(l, io);
	}
}

/* Complete answers in what came. */
static inline size_t
count_replies(const struct exchange *x)
{
	const char *p = x->in;
	size_t n = 0;

	for (;;) {
		const char *end = strstr(p, "\r\n\r\n");
		const char *length = strstr(p, "Content-Length: ");
		size_t bytes = 0;

		if (!end)
			return n;
		if (length && length < end)
			bytes = strtoul(length + 16, NULL, 10);
		if ((size_t)(x->in + x->in_bytes - (end + 4)) < bytes)
			return n;
		p = end + 4 + bytes;
		n++;
	}
}

static inline bool
is_answered(void *arg)
{
	const struct exchange *x = arg;

	return x->eof || (x->want_replies && count_replies(x) >= x->want_replies);
}

/* Sends, then reads so many answers, or to the end.  The text stays until the next call. */
static inline const char *
exchange_on(int fd, const char *out, size_t out_bytes, size_t step, size_t want_replies)
{
	static char in[REPLY_ROOM];
	struct exchange x = {fd, out, out_bytes, step, want_replies, in, 0, false, {0}};

	in[0] = '\0';
	ev_io_init(&x.io, on_client, fd, EV_READ | EV_WRITE);
	x.io.data = &x;
	ev_io_start(loop, &x.io);
	if (!run_until(is_answered, &x, GUARD_S))
		printf("# no answer within %g s to: %.60s\n", GUARD_S, out);
	ev_io_stop(loop, &x.io);
	return in;
}

static inline const char *
talk_on(int fd, const char *out, size_t want_replies)
{
	return exchange_on(fd, out, strlen(out), 0, want_replies);
}

static inline const char *
talk(const char *out, size_t want_replies)
{
	int fd = dial();
	const char *in = talk_on(fd, out, want_replies);

	close(fd);
	return in;
}

static inline bool
has_clients(void *arg)
{
	return http_server_clients(server) == *(uint32_t *)arg;
}

static inline bool
wait_clients(uint32_t n)
{
	return run_until(has_clients, &n, GUARD_S);
}

static inline bool
is_deferred(void *arg)
{
	return (deferred != NULL) == *(bool *)arg;
}

static inline bool
wait_deferred(bool wanted)
{
	return run_until(is_deferred, &wanted, GUARD_S);
}

static inline bool
starts_with(const char *text, const char *head)
{
	return strncmp(text, head, strlen(head)) == 0;
}

#endif
