/* SPDX-License-Identifier: Apache-2.0 */
/* Answers in pieces: to clients that read, that do not, and that leave; and a server that
 * takes no more clients. */
#include <poll.h>

#include "supervisor/http_conn.h"
#include "tests/unit/http_rig.h"

#define GET_STREAM "GET /stream HTTP/1.1\r\n\r\n"

static char text[REPLY_ROOM];

static void
put(int fd, const char *out)
{
	if (send(fd, out, strlen(out), MSG_NOSIGNAL) != (ssize_t)strlen(out))
		perror("send");
}

static void
turns(void)
{
	for (int i = 0; i < 10; i++)
		ev_run(loop, EVRUN_NOWAIT);
}

/* What has come by now. */
static const char *
come(int fd)
{
	size_t used = 0;
	ssize_t n;

	turns();
	while ((n = recv(fd, text + used, sizeof(text) - 1 - used, MSG_DONTWAIT)) > 0) {
		used += (size_t)n;
		turns();
	}
	text[used] = '\0';
	return text;
}

static int
begin(const char *request)
{
	int fd = dial();

	put(fd, request);
	wait_deferred(true);
	return fd;
}

static bool
is_end(int fd)
{
	struct pollfd p = {.fd = fd, .events = POLLIN};
	char c;

	turns();
	return poll(&p, 1, 0) == 1 && recv(fd, &c, 1, MSG_DONTWAIT) == 0;
}

static void
end_stream(const char *last)
{
	http_stream_end(deferred, last, strlen(last));
	deferred = NULL;
}

static void
test_pieces(void)
{
	const char *in;
	int fd;

	start_server(10000, 16);
	fd = begin(GET_STREAM);
	in = come(fd);
	is_str(in,
	    "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nTransfer-Encoding: chunked\r\n\r\n",
	    "the head comes at once");
	is_int(http_stream_send(deferred, "one\n", 4), 0, "a piece");
	is_str(come(fd), "4\r\none\n\r\n", "comes when it is sent");
	is_int(http_stream_send(deferred, "two\n", 4), 0, "another");
	is_int(http_stream_send(deferred, "0123456789abcdef", 16), 0, "and one behind it");
	is_str(come(fd), "4\r\ntwo\n\r\n10\r\n0123456789abcdef\r\n", "come in order");
	http_reply(deferred, 500, NULL, NULL, 0);
	is_str(come(fd), "", "a reply in the middle of a stream is nothing");
	end_stream("last\n");
	is_str(come(fd), "5\r\nlast\n\r\n0\r\n\r\n", "the last one ends it");
	in = talk_on(fd, "GET /x HTTP/1.1\r\n\r\n", 1);
	ok(starts_with(in, "HTTP/1.1 200 OK") && strstr(in, "GET /x"),
	    "the connection goes on with the next request");
	put(fd, GET_STREAM);
	wait_deferred(true);
	come(fd);
	end_stream("");
	is_str(come(fd), "0\r\n\r\n", "a stream may end without a last piece");
	close(fd);

	fd = begin("GET /stream HTTP/1.0\r\n\r\n");
	in = come(fd);
	ok(strstr(in, "Connection: close\r\n") && !strstr(in, "chunked"),
	    "HTTP/1.0 knows no chunks");
	http_stream_send(deferred, "one\n", 4);
	end_stream("two\n");
	is_str(come(fd), "one\ntwo\n", "the pieces are bare");
	ok(is_end(fd), "and the connection's end is theirs");
	close(fd);

	in = talk("GET /leak HTTP/1.1\r\n\r\n", 0);
	ok(!strstr(in, "0\r\n\r\n"), "a handler that would never end: hung up on");
	is_int(nr_gone, 0, "nobody was gone");
	stop_server();
}

/* A client that does not read gets what there is room for, and the last piece. */
static void
test_slow(void)
{
	static char piece[1000], large[4 * HTTP_STREAM_BYTES];
	unsigned sent = 0, dropped = 0;
	const struct http_conn *conn;
	const char *in;
	size_t most = 0;
	int fd;

	memset(piece, 'p', sizeof(piece));
	start_server(10000, 16);
	fd = begin(GET_STREAM);
	conn = list_entry(deferred, struct http_conn, req);
	for (int i = 0; i < 20000; i++) {
		int r = http_stream_send(deferred, piece, sizeof(piece));

		sent += r == 0;
		dropped += r == -EAGAIN;
		if (i % 100 == 0)
			ev_run(loop, EVRUN_NOWAIT);
		if (conn->out_bytes > most)
			most = conn->out_bytes;
	}
	ok(sent > 10 && dropped > 1000 && sent + dropped == 20000,
	    "sent=%u, the other %u are dropped", sent, dropped);
	ok(most <= HTTP_STREAM_BYTES + sizeof(piece) + 32, "it holds %zu bytes at most", most);
	in = come(fd);
	ok(strlen(in) > sent * sizeof(piece), "what was sent comes once it reads");
	is_int(http_stream_send(deferred, piece, sizeof(piece)), 0, "then there is room again");
	while (http_stream_send(deferred, piece, sizeof(piece)) == 0)
		ev_run(loop, EVRUN_NOWAIT);
	end_stream("the end\n");
	in = come(fd);
	ok(strstr(in, "the end\n\r\n0\r\n\r\n"), "the last piece is never dropped");
	close(fd);
	ok(wait_clients(0), "nobody is left");

	fd = begin(GET_STREAM);
	come(fd);
	memset(large, 'l', sizeof(large));
	is_int(http_stream_send(deferred, large, sizeof(large)), 0,
	    "a piece larger than the room, alone");
	is_int(http_stream_send(deferred, "x", 1), -EAGAIN, "is room enough for one");
	in = come(fd);
	ok(strlen(in) == sizeof(large) + 9, "and comes whole");
	close(fd);
	stop_server();
}

/* --- A stream that is asked for more ---------------------------------------------------- */

#define MORE_BYTES  8000U
#define MORE_PIECES 400U

static unsigned asked;
static size_t most_held;
static bool aborts;

static void
say_more(struct http_request *req)
{
	static char piece[MORE_BYTES];
	const struct http_conn *conn = list_entry(req, const struct http_conn, req);

	memset(piece, 'm', sizeof(piece));
	if (asked == MORE_PIECES) {
		deferred = NULL;
		if (aborts)
			http_stream_abort(req);
		else
			http_stream_end(req, "the end", 7);
		return;
	}
	asked++;
	http_stream_send(req, piece, sizeof(piece));
	if (conn->out_bytes > most_held)
		most_held = conn->out_bytes;
}

static int
begin_asked(void)
{
	int fd = begin(GET_STREAM);

	asked = 0;
	most_held = 0;
	deferred->on_room = say_more;
	http_stream_send(deferred, "first", 5);
	return fd;
}

/* All that comes until the connection is closed or the stream has ended. */
static size_t
count_until_end(int fd, bool *ret_ended)
{
	static char bytes[65536], tail[16];
	struct pollfd p = {.fd = fd, .events = POLLIN};
	size_t total = 0, kept = 0;
	ssize_t n = 1;

	*ret_ended = false;
	while (n != 0 && !*ret_ended) {
		ev_run(loop, EVRUN_NOWAIT);
		if (poll(&p, 1, 0) == 0)
			continue;
		n = recv(fd, bytes, sizeof(bytes), MSG_DONTWAIT);
		if (n <= 0)
			break;
		total += (size_t)n;
		for (ssize_t i = n > 8 ? n - 8 : 0; i < n; i++) {
			if (kept == 8)
				memmove(tail, tail + 1, --kept);
			tail[kept++] = bytes[i];
		}
		*ret_ended = kept >= 5 && memcmp(tail + kept - 5, "0\r\n\r\n", 5) == 0;
	}
	return total;
}

static void
test_asked(void)
{
	unsigned before;
	bool ended;
	int fd;

	start_server(10000, 16);
	aborts = false;
	fd = begin_asked();
	do {
		before = asked;
		turns();
	} while (asked != before);
	ok(asked > 1 && asked < MORE_PIECES, "who does not read is not told more than fits: %u",
	    asked);
	ok(count_until_end(fd, &ended) > MORE_PIECES * MORE_BYTES && ended,
	    "who reads gets all of it, to its end");
	ok(most_held < MORE_BYTES + 64, "of which %zu bytes are held at a time", most_held);
	put(fd, "GET / HTTP/1.1\r\n\r\n");
	ok(starts_with(come(fd), "HTTP/1.1 "), "and can ask for something else");
	close(fd);
	ok(wait_clients(0), "nobody is left");
	aborts = true;
	fd = begin_asked();
	ok(count_until_end(fd, &ended) > MORE_BYTES && !ended, "one that is given up has no end");
	close(fd);
	ok(wait_clients(0), "nobody is left");
	stop_server();
}

static bool
has_gone(void *arg)
{
	return nr_gone == *(unsigned *)arg;
}

static void
test_leaving(void)
{
	unsigned one = 1, two = 2;
	struct http_request *req;
	int fd;

	start_server(10000, 16);
	fd = begin(GET_STREAM);
	come(fd);
	req = deferred;
	close(fd);
	ok(run_until(has_gone, &one, GUARD_S), "a client that leaves is noticed");
	is_int(http_stream_send(req, "x", 1), -EPIPE, "and nothing is sent to it any more");
	http_stream_end(req, "x", 1);

	fd = begin(GET_STREAM);
	shutdown(fd, SHUT_WR);
	is_int(http_stream_send(deferred, "one\n", 4), 0, "who only stopped sending reads on");
	ok(strstr(come(fd), "one\n"), "what comes");
	is_int(nr_gone, 1, "and is not gone");
	close(fd);
	ok(run_until(has_gone, &two, GUARD_S), "until it is, within seconds");
	stop_server();

	start_server(300, 16);
	fd = begin(GET_STREAM);
	come(fd);
	ok(!run_until(has_gone, &one, 0.8), "a stream may be silent for longer than a request");
	end_stream("x");
	ok(strstr(come(fd), "x"), "and end then");
	ok(wait_clients(0), "after which the ordinary deadline holds");
	close(fd);

	fd = begin(GET_STREAM);
	http_server_free(server);
	is_int(nr_gone, 1, "a server that stops says so");
	ev_loop_destroy(loop);
	close(fd);
}

static void
test_retire(void)
{
	int idle, waiting, streaming, half, late;
	struct http_request *first;
	const char *in;

	start_server(10000, 16);
	idle = dial();
	is_str(come(idle), "", "a client that says nothing");
	half = dial();
	put(half, "GET /x HTTP/1.1\r\n");
	waiting = begin("GET /defer HTTP/1.1\r\n\r\n");
	first = deferred;
	deferred = NULL;
	streaming = begin(GET_STREAM);
	come(streaming);
	http_server_retire(server);
	ok(is_end(idle), "a retired server hangs up on it");
	late = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	ok(connect(late, (struct sockaddr *)&address, address_bytes) < 0 && errno == ECONNREFUSED,
	    "nobody can connect");
	close(late);
	http_reply(first, 200, "text/plain", "answer", 6);
	in = come(waiting);
	ok(strstr(in, "answer") && strstr(in, "Connection: close"), "who waited is answered");
	put(half, "\r\n");
	in = come(half);
	ok(strstr(in, "GET /x") && strstr(in, "Connection: close"), "who was asking, too");
	end_stream("last");
	ok(strstr(come(streaming), "last\r\n0\r\n\r\n"), "and a stream ends");
	close(waiting);
	close(half);
	close(streaming);
	close(idle);
	ok(wait_clients(0), "then nobody is left");
	stop_server();
}

static void
test_plain(void)
{
	const char *in;

	start_server(10000, 16);
	http_server_set_plain(server);
	in = talk("nonsense\r\n\r\n", 0);
	ok(starts_with(in, "HTTP/1.1 400 ") && strstr(in, "Content-Type: text/plain") &&
		!strstr(in, "{"),
	    "errors as plain text");
	stop_server();
}

int
main(void)
{
	log_init("test_http_stream", LOG_LEVEL_ERR);
	test_pieces();
	test_slow();
	test_asked();
	test_leaving();
	test_retire();
	test_plain();
	return done();
}
