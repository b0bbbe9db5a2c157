/* SPDX-License-Identifier: Apache-2.0 */
/* Clients that are slow, leave, wait, or are too many. */
#include <fcntl.h>
#include <sys/resource.h>

#include "tests/unit/http_rig.h"

#define SHORT_MS 300
#define LONG_MS	 60000
/* A loop that spins turns thousands of times in the window. */
#define WINDOW_S  0.05
#define MAX_TURNS 50U

static bool
never(void *arg)
{
	(void)arg;
	return false;
}

/* Loop turns while nothing is to be done. */
static unsigned
count_turns(void)
{
	unsigned before = ev_iteration(loop);

	run_until(never, NULL, WINDOW_S);
	return ev_iteration(loop) - before;
}

static void
put(int fd, const char *text)
{
	if (send(fd, text, strlen(text), MSG_NOSIGNAL) != (ssize_t)strlen(text))
		perror("send");
}

static bool
has_gone(void *arg)
{
	return nr_gone == *(unsigned *)arg;
}

static bool
wait_gone(unsigned n)
{
	return run_until(has_gone, &n, GUARD_S);
}

static void
test_deadlines(void)
{
	const char *in;
	int fd;

	start_server(SHORT_MS, 16);
	in = talk("GET /x HTTP/1.1\r\nHos", 0);
	ok(starts_with(in, "HTTP/1.1 408 ") && strstr(in, "\"code\": \"timeout\""),
	    "half a request: 408");
	in = talk("POST /x HTTP/1.1\r\nContent-Length: 5\r\n\r\nab", 0);
	ok(starts_with(in, "HTTP/1.1 408 "), "half a body: 408");
	is_str(talk("", 0), "", "silence: hung up without a word");
	fd = dial();
	in = talk_on(fd, "GET /x HTTP/1.1\r\n\r\n", 0);
	ok(starts_with(in, "HTTP/1.1 200") && !strstr(in + 1, "HTTP/1.1"),
	    "silence after an answer: the same");
	close(fd);
	/* The client of a 408 that never closes its end is not waited for. */
	fd = dial();
	put(fd, "GET /x HTTP/1.1\r\nHos");
	ok(run_until(has_clients, &(uint32_t){1}, GUARD_S) && wait_clients(0),
	    "one that will not hang up is forgotten");
	close(fd);
	stop_server();
}

static void
test_gone(void)
{
	int fd;

	start_server(LONG_MS, 16);
	fd = dial();
	put(fd, "GET /x HTTP/1.1\r\nHos");
	wait_clients(1);
	close(fd);
	ok(wait_clients(0) && nr_handled == 0, "a client that leaves in the middle of a request");
	fd = dial();
	put(fd, "GET /x HTTP/1.1\r\n\r\n");
	close(fd);
	wait_clients(1);
	ok(wait_clients(0), "one that leaves before its answer");
	fd = dial();
	put(fd, "GET /defer HTTP/1.1\r\n\r\n");
	ok(wait_deferred(true), "a request that waits");
	close(fd);
	ok(wait_gone(1) && wait_clients(0), "whose client leaves: on_gone");
	fd = dial();
	put(fd, "GET /defer HTTP/1.1\r\n\r\nGET /never HTTP/1.1\r\n\r\n");
	wait_deferred(true);
	nr_handled = 0;
	close(fd);
	ok(wait_gone(2) && wait_clients(0) && nr_handled == 0, "with another request behind it");
	fd = dial();
	put(fd, "GET /defer HTTP/1.1\r\n\r\n");
	wait_deferred(true);
	stop_server();
	is_int(nr_gone, 3, "the server stops: on_gone");
	close(fd);
}

static void
on_answer(struct ev_loop *l, ev_timer *timer, int revents)
{
	(void)l;
	(void)timer;
	(void)revents;
	http_reply(deferred, 200, "text/plain", "later", 5);
	deferred = NULL;
}

static void
test_deferred(void)
{
	char flood[20000];
	const char *in;
	ev_timer answer;
	int fd;

	start_server(LONG_MS, 16);
	fd = dial();
	put(fd, "GET /defer HTTP/1.1\r\n\r\nGET /after HTTP/1.1\r\n\r\n");
	wait_deferred(true);
	is_int(nr_handled, 1, "the next request waits for the answer to this one");
	ev_timer_init(&answer, on_answer, 0.01, 0.0);
	ev_timer_start(loop, &answer);
	in = talk_on(fd, "", 2);
	ok(strstr(in, "\r\n\r\nlaterHTTP/1.1 200") && strstr(in, "GET /after?"),
	    "and comes after it");
	close(fd);
	/* A client that has said all it will say still wants the answer. */
	fd = dial();
	put(fd, "GET /defer HTTP/1.1\r\n\r\n");
	shutdown(fd, SHUT_WR);
	wait_deferred(true);
	ok(count_turns() < MAX_TURNS, "half a hang-up does not make the loop spin");
	ev_timer_set(&answer, 0.01, 0.0);
	ev_timer_start(loop, &answer);
	in = talk_on(fd, "", 0);
	ok(strstr(in, "\r\n\r\nlater"), "half a hang-up gets the whole answer");
	close(fd);
	/* More pipelined bytes than are kept: the loop must not spin on them. */
	memset(flood, '\n', sizeof(flood));
	fd = dial();
	put(fd, "GET /defer HTTP/1.1\r\n\r\n");
	wait_deferred(true);
	if (send(fd, flood, sizeof(flood), MSG_NOSIGNAL | MSG_DONTWAIT) < 0)
		perror("send");
	ok(count_turns() < MAX_TURNS, "a flood behind a request that waits");
	close(fd);
	ok(wait_gone(1) && wait_clients(0), "its end is noticed all the same");
	stop_server();
}

static void
test_slow_reader(void)
{
	const char *in;
	int slow, fd;

	start_server(4000, 16);
	slow = dial();
	put(slow, "GET /big HTTP/1.1\r\n\r\nGET /after HTTP/1.1\r\n\r\n");
	wait_clients(1);
	in = talk("GET /quick HTTP/1.1\r\n\r\n", 1);
	ok(strstr(in, "GET /quick?"), "a client that does not read delays nobody");
	ok(nr_handled == 2, "and its next request waits until it has read");
	ok(count_turns() < MAX_TURNS, "the loop does not spin");
	in = talk_on(slow, "", 2);
	ok(strlen(in) > BIG_BYTES && strstr(in + BIG_BYTES, "GET /after?"),
	    "once it reads it gets everything");
	close(slow);
	fd = dial();
	put(fd, "GET /big HTTP/1.1\r\n\r\n");
	wait_clients(1);
	ok(wait_clients(0), "one that never reads is hung up on");
	close(fd);
	stop_server();
}

static void
test_max_clients(void)
{
	const char *in;
	int a, b, c;

	start_server(LONG_MS, 2);
	a = dial();
	b = dial();
	c = dial();
	put(c, "GET /c HTTP/1.1\r\n\r\n");
	wait_clients(2);
	ok(count_turns() < MAX_TURNS, "one too many does not make the loop spin");
	ok(http_server_clients(server) == 2 && nr_handled == 0, "it waits");
	close(a);
	in = talk_on(c, "", 1);
	ok(strstr(in, "GET /c?"), "until another leaves");
	close(b);
	close(c);
	ok(wait_clients(0), "nobody is left");
	stop_server();
}

/* Two servers, of which one has taken all that both may have. */
static void
test_pool(void)
{
	struct http_limits limits = {LONG_MS, 2};
	struct http_server *first;
	struct http_pool pool;
	int a, b, c, fd;

	start_server(LONG_MS, 2);
	first = server;
	http_pool_init(&pool);
	http_server_share(first, &pool);
	a = dial();
	b = dial();
	wait_clients(2);
	fd = listen_anywhere();
	server = http_server_new(loop, fd, handle, NULL, &limits);
	http_server_share(server, &pool);
	c = dial();
	put(c, "GET /c HTTP/1.1\r\n\r\n");
	ok(count_turns() < MAX_TURNS, "the other does not spin");
	ok(http_server_clients(server) == 0 && pool.nr_conns == 2, "its client waits");
	close(a);
	ok(strstr(talk_on(c, "", 1), "GET /c?"), "until one leaves the first");
	close(c);
	close(b);
	ok(wait_clients(0), "nobody is left");
	http_server_free(server);
	server = first;
	ok(wait_clients(0) && pool.nr_conns == 0, "at either");
	stop_server();
	ok(list_is_empty(&pool.servers), "and the pool is empty");
}

static void
test_no_descriptors(void)
{
	struct rlimit old, none;
	const char *in;
	int fd, probe;

	start_server(LONG_MS, 16);
	fd = dial();
	put(fd, "GET /x HTTP/1.1\r\n\r\n");
	getrlimit(RLIMIT_NOFILE, &old);
	none = old;
	probe = fcntl(0, F_DUPFD_CLOEXEC, 0); /* the lowest free number */
	close(probe);
	none.rlim_cur = (rlim_t)probe;
	setrlimit(RLIMIT_NOFILE, &none);
	ok(count_turns() < MAX_TURNS, "out of descriptors: the loop does not spin");
	is_int(http_server_clients(server), 0, "the client waits");
	setrlimit(RLIMIT_NOFILE, &old);
	in = talk_on(fd, "", 1);
	ok(strstr(in, "GET /x?"), "until there are some again");
	close(fd);
	stop_server();
}

static void
test_peer(void)
{
	gid_t groups[PEER_MAX_GROUPS];
	int n = getgroups(PEER_MAX_GROUPS, groups);

	start_server(LONG_MS, 16);
	talk("GET /x HTTP/1.1\r\n\r\n", 1);
	ok(last_peer.uid == geteuid() && last_peer.gid == getegid() && last_peer.pid == getpid(),
	    "who has connected");
	ok(n >= 0 && last_peer.nr_groups == (size_t)n &&
		memcmp(groups, last_peer.groups, (size_t)n * sizeof(gid_t)) == 0,
	    "and in which groups");
	stop_server();
}

static void
test_leaks(void)
{
	static const char *const requests[] = {
	    "GET /x HTTP/1.1\r\n\r\n",
	    "garbage\r\n\r\n",
	    "GET /x HTTP/1.1\r\nHos",
	    "GET /defer HTTP/1.1\r\n\r\n",
	    "GET /big HTTP/1.1\r\n\r\n",
	};
	int before, fd;

	start_server(LONG_MS, 1000);
	talk(requests[0], 1);
	wait_clients(0);
	before = fd_count();
	for (unsigned i = 0; i < 1000; i++) {
		fd = dial();
		put(fd, requests[i % (sizeof(requests) / sizeof(requests[0]))]);
		for (unsigned turns = i % 4; turns; turns--)
			ev_run(loop, EVRUN_NOWAIT);
		close(fd);
	}
	ok(wait_clients(0), "1000 connections come and go");
	is_int(fd_count(), before, "and leave no descriptor");
	stop_server();
}

int
main(void)
{
	log_init("test_http_time", LOG_LEVEL_ERR);
	test_deadlines();
	test_gone();
	test_deferred();
	test_slow_reader();
	test_max_clients();
	test_pool();
	test_no_descriptors();
	test_peer();
	test_leaks();
	return done();
}
