/* SPDX-License-Identifier: Apache-2.0 */
#include "supervisor/ctl/client.h"

#include <errno.h>
#include <fcntl.h>
#include <http_parser.h>
#include <limits.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/fd.h"
#include "common/scope.h"
#include "common/xalloc.h"

#define MAX_BODY_BYTES (256U << 20)
#define MAX_CLIENTS    4U

struct client {
	int fd;	   /* owned */
	char *out; /* owned */
	size_t out_bytes, out_sent;
	http_parser parser;
	char *body; /* owned, with a NUL behind it */
	size_t body_bytes, body_room, max_body_bytes;
	bool wants_lines;
	bool done;
	int result; /* status or negative errno, once done */
};

static int
on_body(http_parser *parser, const char *at, size_t bytes)
{
	struct client *client = parser->data;
	size_t room = client->body_room ? client->body_room : 4096;
	char *body;

	if (bytes > client->max_body_bytes - client->body_bytes)
		return -1;
	while (room < client->body_bytes + bytes + 1)
		room *= 2;
	if (room != client->body_room) {
		body = realloc(client->body, room);
		if (!body)
			return -1;
		client->body = body;
		client->body_room = room;
	}
	memcpy(client->body + client->body_bytes, at, bytes);
	client->body_bytes += bytes;
	client->body[client->body_bytes] = '\0';
	return 0;
}

static int
on_complete(http_parser *parser)
{
	struct client *client = parser->data;

	if (parser->status_code < 200) /* 100 Continue: the answer is to come */
		return 0;
	client->done = true;
	client->result = (int)parser->status_code;
	return 0;
}

static void
fail(struct client *client, int error)
{
	if (!client->done) {
		client->done = true;
		client->result = error;
	}
}

static int
dial(const char *path, uint64_t connect_ms, int *ret_fd)
{
	struct sockaddr_un addr = {.sun_family = AF_UNIX};
	struct timeval limit = {
	    (time_t)(connect_ms / 1000), (suseconds_t)(connect_ms % 1000 * 1000)};
	scoped_fd int fd = -1;
	int r;

	if (strlen(path) >= sizeof(addr.sun_path))
		return -ENAMETOOLONG;
	memcpy(addr.sun_path, path, strlen(path) + 1);
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return -errno;
	/* A full backlog makes connect() wait, and poll() knows nothing of it. */
	if (setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof(limit)) < 0)
		return -errno;
	if (connect(fd, (const struct sockaddr *)&addr, sizeof(addr)) < 0)
		return errno == EAGAIN ? -ETIMEDOUT : -errno;
	r = fd_set_nonblock(fd, true);
	if (r < 0)
		return r;
	*ret_fd = fd_take(&fd);
	return 0;
}

int
client_start(const char *socket_path, const char *method, const char *target, const char *body,
    uint64_t connect_ms, struct client **ret)
{
	struct client *client;
	int fd = -1, r = dial(socket_path, connect_ms, &fd);

	if (r < 0)
		return r;
	client = xcalloc(1, sizeof(*client));
	client->fd = fd;
	client->max_body_bytes = MAX_BODY_BYTES;
	client->out = xasprintf("%s %s HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
				"%sContent-Length: %zu\r\n\r\n%s",
	    method, target, body ? "Content-Type: application/json\r\n" : "",
	    body ? strlen(body) : 0, body ? body : "");
	client->out_bytes = strlen(client->out);
	http_parser_init(&client->parser, HTTP_RESPONSE);
	client->parser.data = client;
	*ret = client;
	return 0;
}

void
client_free(struct client *client)
{
	if (!client)
		return;
	fd_closep(&client->fd);
	free(client->out);
	free(client->body);
	free(client);
}

void
client_freep(struct client **client)
{
	client_free(*client);
	*client = NULL;
}

void
client_limit_body(struct client *client, size_t max_bytes)
{
	client->max_body_bytes = max_bytes;
}

int
client_peer(const struct client *client, struct ucred *ret)
{
	socklen_t bytes = sizeof(*ret);

	return getsockopt(client->fd, SOL_SOCKET, SO_PEERCRED, ret, &bytes) < 0 ? -errno : 0;
}

static void
step_out(struct client *client)
{
	ssize_t n = send(client->fd, client->out + client->out_sent,
	    client->out_bytes - client->out_sent, MSG_NOSIGNAL | MSG_DONTWAIT);

	if (n >= 0)
		client->out_sent += (size_t)n;
	else if (errno != EAGAIN && errno != EINTR)
		/* It hung up; what it said before is still to be read. */
		client->out_sent = client->out_bytes;
}

static void
step_in(struct client *client)
{
	static const http_parser_settings settings = {
	    .on_body = on_body, .on_message_complete = on_complete};
	char buf[16384];
	ssize_t n = recv(client->fd, buf, sizeof(buf), MSG_DONTWAIT);

	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (n < 0) {
		fail(client, -errno);
		return;
	}
	http_parser_execute(&client->parser, &settings, buf, (size_t)n);
	if (HTTP_PARSER_ERRNO(&client->parser) == HPE_INVALID_EOF_STATE)
		fail(client, -ECONNRESET);
	else if (HTTP_PARSER_ERRNO(&client->parser) != HPE_OK)
		fail(client, -EPROTO);
	else if (n == 0)
		fail(client, -ECONNRESET);
}

/* Where the first line ends, or NULL. */
static char *
line_end(const struct client *client)
{
	if (!client->wants_lines || client->parser.status_code != 200 || !client->body_bytes)
		return NULL;
	return memchr(client->body, '\n', client->body_bytes);
}

/* One round of poll().  True when a request is done or a line has come. */
static int
run_once(struct client *const *clients, size_t n, int timeout_ms)
{
	struct pollfd fds[MAX_CLIENTS];
	int done = 0;

	for (size_t i = 0; i < n; i++) {
		struct client *c = clients[i];

		if (c && line_end(c))
			return 1;
		fds[i] = (struct pollfd){.fd = -1};
		if (!c || c->done)
			continue;
		fds[i].fd = c->fd;
		fds[i].events = (short)(POLLIN | (c->out_sent < c->out_bytes ? POLLOUT : 0));
	}
	if (poll(fds, n, timeout_ms) < 0)
		return -errno;
	for (size_t i = 0; i < n; i++) {
		if (fds[i].fd < 0)
			continue;
		if (fds[i].revents & POLLOUT)
			step_out(clients[i]);
		if (fds[i].revents & (POLLIN | POLLHUP | POLLERR))
			step_in(clients[i]);
		done |= clients[i]->done || line_end(clients[i]);
	}
	return done;
}

int
client_run(struct client *const *clients, size_t n, uint64_t timeout_ms)
{
	uint64_t end_ns = clock_now_ns() + timeout_ms * NS_PER_MS;

	for (;;) {
		uint64_t now_ns = clock_now_ns();
		uint64_t left_ms =
		    now_ns < end_ns ? (end_ns - now_ns + NS_PER_MS - 1) / NS_PER_MS : 0;
		int r = run_once(clients, n, left_ms > INT_MAX ? INT_MAX : (int)left_ms);

		if (r)
			return r < 0 ? r : 0;
		if (left_ms == 0)
			return -ETIMEDOUT;
	}
}

void
client_want_lines(struct client *client)
{
	client->wants_lines = true;
}

char *
client_take_line(struct client *client)
{
	const char *end = line_end(client);
	size_t bytes = end ? (size_t)(end - client->body) : 0;
	char *line;

	if (!end)
		return NULL;
	line = xasprintf("%.*s", (int)bytes, client->body);
	client->body_bytes -= bytes + 1;
	memmove(client->body, client->body + bytes + 1, client->body_bytes + 1);
	return line;
}

bool
client_is_done(const struct client *client)
{
	return client->done;
}

int
client_result(const struct client *client, const char **ret_body, size_t *ret_bytes)
{
	*ret_body = client->body ? client->body : "";
	*ret_bytes = client->body_bytes;
	return client->result;
}
