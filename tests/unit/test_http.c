/* SPDX-License-Identifier: Apache-2.0 */
/* What clients send, good and bad, and what they get for it. */
#include "tests/unit/http_rig.h"

/* A request of one header that is filled up to bytes. */
static char *
make_header(size_t bytes)
{
	char *text = xcalloc(1, bytes + 64);
	int n = snprintf(text, 64, "GET /x HTTP/1.1\r\nX-Fill: ");

	memset(text + n, 'f', bytes);
	memcpy(text + (size_t)n + bytes, "\r\n\r\n", 5);
	return text;
}

static void
test_good(void)
{
	static const char three[] =
	    "GET /1 HTTP/1.1\r\n\r\nPOST /echo HTTP/1.1\r\nContent-Length: 3\r\n"
	    "\r\nabcGET /3?q=1&w HTTP/1.1\r\nConnection: close\r\n\r\n";
	const char *in;
	int fd;

	start_server(10000, 16);
	in = talk("GET /a%20b?c=d HTTP/1.1\r\nHost: x\r\n\r\n", 1);
	ok(starts_with(in, "HTTP/1.1 200 OK\r\n") && strstr(in, "\r\n\r\nGET /a%20b?c=d"),
	    "an ordinary request is answered");
	ok(!strstr(in, "Connection: close"), "and the connection stays");
	in = talk(three, 0);
	ok(strstr(in, "GET /1?") && strstr(in, "\r\n\r\nabcHTTP/1.1 200") &&
		strstr(in, "GET /3?q=1&w") && nr_handled == 4,
	    "pipelined requests are answered in order");
	fd = dial();
	in = exchange_on(fd, three, sizeof(three) - 1, 1, 0);
	ok(strstr(in, "GET /1?") && strstr(in, "abcHTTP") && strstr(in, "GET /3?"),
	    "byte by byte too");
	close(fd);
	in = talk("POST /echo HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n"
		  "3;x=y\r\nabc\r\n4\r\ndefg\r\n0\r\nTrailer: t\r\n\r\n",
	    1);
	ok(strstr(in, "\r\n\r\nabcdefg"), "a chunked body is put together");
	in = talk("HEAD /h HTTP/1.1\r\nConnection: close\r\n\r\n", 0);
	ok(strstr(in, "Content-Length: 8") && strstr(in, "\r\n\r\n")[4] == '\0',
	    "HEAD gets the length and no body");
	in = talk("HEAD /unmade HTTP/1.1\r\nConnection: close\r\n\r\n", 0);
	ok(starts_with(in, "HTTP/1.1 200") && !strstr(in, "Content-Length"),
	    "or says nothing of a length that nobody has found out");
	in = talk("GET /x HTTP/1.0\r\n\r\n", 0);
	ok(strstr(in, "Connection: close") && strstr(in, "GET /x?"), "HTTP/1.0 closes");
	in = talk("GET /x HTTP/1.0\r\nConnection: keep-alive\r\n\r\n", 1);
	ok(strstr(in, "Connection: keep-alive"), "unless it is asked not to");
	in = talk("GET http://host/x?y HTTP/1.1\r\n\r\n", 1);
	ok(strstr(in, "GET /x?y"), "the absolute form of a target");
	in = talk("GET /allow HTTP/1.1\r\n\r\n", 1);
	ok(starts_with(in, "HTTP/1.1 405 Method Not Allowed\r\n") &&
		strstr(in, "\r\nAllow: GET, HEAD\r\n") && !strstr(in, "Content-Type"),
	    "a handler's header and an empty answer");
	in = talk("GET /x HTTP/1.1\r\nConnection: Upgrade\r\nUpgrade: y\r\n\r\nzz", 0);
	ok(starts_with(in, "HTTP/1.1 200") && strstr(in, "Connection: close"),
	    "an upgrade is not taken up");
	ok(wait_clients(0), "nobody is left");
	stop_server();
}

static void
test_bad(void)
{
	char *just = make_header(HTTP_MAX_HEADER_BYTES - 100);
	char *over = make_header(HTTP_MAX_HEADER_BYTES + 100);
	char *path = xcalloc(1, 4096);
	const struct {
		const char *name, *request;
		int status;
	} cases[] = {
	    {"garbage", "\x01\x02\xff\xfe garbage\r\n\r\n", 400},
	    {"an unknown method", "FROB /x HTTP/1.1\r\n\r\n", 400},
	    {"a TLS hello", "\x16\x03\x01\x02", 400},
	    {"HTTP/0.9", "GET /x\r\n\r\n", 505},
	    {"HTTP/2", "GET /x HTTP/2.0\r\n\r\n", 505},
	    {"no path", "OPTIONS * HTTP/1.1\r\n\r\n", 400},
	    {"CONNECT", "CONNECT host:1 HTTP/1.1\r\n\r\n", 400},
	    {"a NUL in a header", "GET /x HTTP/1.1\r\nA: b\001c\r\n\r\n", 400},
	    {"a header without a colon", "GET /x HTTP/1.1\r\nabc\r\n\r\n", 400},
	    {"a length that is no number", "POST /x HTTP/1.1\r\nContent-Length: -1\r\n\r\n", 400},
	    {"two lengths", "POST /x HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
		400},
	    {"length and chunks",
		"POST /x HTTP/1.1\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n", 400},
	    {"an unknown encoding", "POST /x HTTP/1.1\r\nTransfer-Encoding: gzip\r\n\r\n", 400},
	    {"a bad chunk size", "POST /x HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
		400},
	    {"a chunk longer than it says",
		"POST /x HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nabc\r\n", 400},
	    {"a huge length", "POST /x HTTP/1.1\r\nContent-Length: 1048577\r\n\r\n", 413},
	    {"an absurd length", "POST /x HTTP/1.1\r\nContent-Length: 99999999999999999999\r\n\r\n",
		400},
	    {"another expectation", "POST /x HTTP/1.1\r\nExpect: miracles\r\n\r\n", 417},
	    {"a huge header", over, 431},
	    {"a long path", path, 414},
	};

	memset(path, 'p', 3000);
	memcpy(path, "GET /", 5);
	memcpy(path + 3000, " HTTP/1.1\r\n\r\n", 14);
	start_server(10000, 16);
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		const char *in = talk(cases[i].request, 0);
		char head[32];

		snprintf(head, sizeof(head), "HTTP/1.1 %d ", cases[i].status);
		ok(starts_with(in, head) && strstr(in, "Connection: close") &&
			strstr(in, "\r\n\r\n{\"error\": \"") && strstr(in, "\"code\": \""),
		    "%s: %d with a reason, and hung up", cases[i].name, cases[i].status);
	}
	ok(nr_handled == 0, "no handler saw any of it");
	ok(starts_with(talk(just, 1), "HTTP/1.1 200"), "a header just below the limit");
	ok(starts_with(talk("GET /none HTTP/1.1\r\n\r\n", 0), "HTTP/1.1 500"),
	    "a handler that forgets to answer");
	ok(wait_clients(0), "nobody is left");
	stop_server();
	free(just);
	free(over);
	free(path);
}

static void
test_bodies(void)
{
	size_t bytes = HTTP_MAX_BODY_BYTES, head;
	char *text = xcalloc(1, 2 * bytes);
	const char *in;
	int fd;

	start_server(10000, 16);
	head = (size_t)snprintf(
	    text, 128, "POST /echo HTTP/1.1\r\nContent-Length: %zu\r\n\r\n", bytes);
	memset(text + head, 'x', bytes);
	fd = dial();
	in = exchange_on(fd, text, head + bytes, 0, 1);
	ok(starts_with(in, "HTTP/1.1 200") && strlen(in) > bytes, "a body of the largest size");
	close(fd);
	/* Chunks without end: refused in the middle, and the sender still reads why. */
	head = (size_t)snprintf(
	    text, 128, "POST /echo HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n110000\r\n");
	memset(text + head, 'x', bytes + 65536);
	fd = dial();
	in = exchange_on(fd, text, head + bytes + 65536, 0, 0);
	ok(starts_with(in, "HTTP/1.1 413"), "chunks beyond the limit");
	close(fd);
	fd = dial();
	in = talk_on(
	    fd, "POST /echo HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n", 1);
	is_str(in, "HTTP/1.1 100 Continue\r\n\r\n", "100 Continue before the body");
	in = talk_on(fd, "ok", 1);
	ok(starts_with(in, "HTTP/1.1 200") && strstr(in, "\r\n\r\nok"), "and the answer after it");
	close(fd);
	in = talk("POST /x HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 9999999\r\n\r\n", 0);
	ok(starts_with(in, "HTTP/1.1 413"), "no 100 Continue for a body that is too large");
	ok(wait_clients(0), "nobody is left");
	stop_server();
	free(text);
}

int
main(void)
{
	log_init("test_http", LOG_LEVEL_ERR);
	test_good();
	test_bad();
	test_bodies();
	return done();
}
