/* SPDX-License-Identifier: Apache-2.0 */
/* The handshake over a real connection, with real descriptors. */
#include <errno.h>
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "common/scope.h"
#include "tests/unit/tap.h"
#include "worker/handshake.h"
#include "worker/uffd_probe.h"

#define IMAGE_BYTES 8192
#define MANY_FDS    6

static char text[128]; /* of one page, which is registered */

/* What a VMM may put into its message. */
enum thing {
	UFFD,	       /* as Firecracker makes it */
	UFFD_BLOCKING, /* forgot O_NONBLOCK */
	UFFD_FRESH,    /* forgot UFFDIO_API */
	MEMFD,
	NULL_DEVICE,
	SOCKET,
	PATH_ONLY,
};

static int
make_uffd(int flags, bool enable)
{
	struct uffdio_api api = {.api = UFFD_API, .features = UFFD_FEATURE_EVENT_REMOVE};
	int fd = (int)syscall(SYS_userfaultfd, O_CLOEXEC | flags | UFFD_USER_MODE_ONLY);

	if (fd >= 0 && enable && ioctl(fd, UFFDIO_API, &api) < 0)
		fd_closep(&fd);
	return fd;
}

static int
make(enum thing thing)
{
	switch (thing) {
	case UFFD:
		return make_uffd(O_NONBLOCK, true);
	case UFFD_BLOCKING:
		return make_uffd(0, true);
	case UFFD_FRESH:
		return make_uffd(O_NONBLOCK, false);
	case MEMFD:
		return memfd_create("guest", MFD_CLOEXEC);
	case NULL_DEVICE:
		return open("/dev/null", O_RDWR | O_CLOEXEC | O_NONBLOCK);
	case SOCKET:
		return socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	case PATH_ONLY:
		return open("/", O_PATH | O_CLOEXEC);
	}
	return -1;
}

/* Sends n bytes with the descriptors, which stay the caller's. */
static bool
send_message(int fd, const char *bytes, size_t n, const int *fds, size_t nr_fds)
{
	union {
		struct cmsghdr align;
		char bytes[CMSG_SPACE(MANY_FDS * sizeof(int))];
	} control = {0};
	char copy[4096];
	struct iovec iov = {copy, n};
	struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1};
	struct cmsghdr *c;

	memcpy(copy, bytes, n);
	if (nr_fds > 0) {
		msg.msg_control = control.bytes;
		msg.msg_controllen = CMSG_SPACE(nr_fds * sizeof(int));
		c = CMSG_FIRSTHDR(&msg);
		if (c == NULL)
			abort();
		c->cmsg_level = SOL_SOCKET;
		c->cmsg_type = SCM_RIGHTS;
		c->cmsg_len = CMSG_LEN(nr_fds * sizeof(int));
		memcpy(CMSG_DATA(c), fds, nr_fds * sizeof(int));
	}
	return sendmsg(fd, &msg, MSG_NOSIGNAL) == (ssize_t)n;
}

static const struct {
	const char *name;
	enum thing things[MANY_FDS];
	size_t nr_things;
	bool wants_memfd;
	const char *reason; /* NULL: accepted */
} messages[] = {
    {"a userfaultfd", {UFFD}, 1, false, NULL},
    {"a userfaultfd and its memfd", {UFFD, MEMFD}, 2, true, NULL},
    {"no descriptor", {UFFD}, 0, false, "no descriptor came with the regions"},
    {"no descriptor, memfd wanted", {UFFD}, 0, true, "no descriptor came"},
    {"two descriptors", {UFFD, UFFD}, 2, false, "2 descriptors; exactly 1 is wanted"},
    {"a memfd that is not wanted", {UFFD, MEMFD}, 2, false, "\"memfd\": true"},
    {"three descriptors", {UFFD, MEMFD, MEMFD}, 3, false, "3 descriptors; exactly 1"},
    {"three descriptors, memfd wanted", {UFFD, MEMFD, MEMFD}, 3, true, "3 descriptors; exactly 2"},
    {"six descriptors", {UFFD, UFFD, UFFD, UFFD, UFFD, UFFD}, 6, false, "more than 3 descriptors"},
    {"memfd wanted, not there", {UFFD}, 1, true, "1 descriptor; exactly 2 are wanted"},
    {"memfd wanted, another sent", {UFFD, NULL_DEVICE}, 2, true,
	"the second descriptor is not a memfd"},
    {"memfd first", {MEMFD, UFFD}, 2, true, "not a userfaultfd"},
    {"a blocking userfaultfd", {UFFD_BLOCKING}, 1, false, "create it with O_NONBLOCK"},
    {"a userfaultfd without its API", {UFFD_FRESH}, 1, false, "call UFFDIO_API"},
    {"a memfd instead", {MEMFD}, 1, false, "not a userfaultfd"},
    {"a device instead", {NULL_DEVICE}, 1, false, "not a userfaultfd"},
    {"a socket instead", {SOCKET}, 1, false, "not a userfaultfd"},
    {"a path instead", {PATH_ONLY}, 1, false, "not a userfaultfd"},
};

static void
test_message(size_t i, int stride)
{
	enum handshake_status want =
	    messages[i].reason == NULL ? HANDSHAKE_DONE : HANDSHAKE_REFUSED;
	int pair[2];
	int fds[MANY_FDS];
	struct handshake h;
	size_t bytes = strlen(text);

	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) < 0)
		abort();
	for (size_t k = 0; k < messages[i].nr_things; k++)
		fds[k] = make(messages[i].things[k]);
	handshake_init(&h, IMAGE_BYTES, messages[i].wants_memfd);
	is_int(handshake_read(&h, pair[1]), HANDSHAKE_NEED_MORE, "%s: waits", messages[i].name);
	for (size_t at = 0; at < bytes; at += (size_t)stride) {
		size_t n = bytes - at < (size_t)stride ? bytes - at : (size_t)stride;

		if (!send_message(pair[0], text + at, n, fds, at == 0 ? messages[i].nr_things : 0))
			abort();
		handshake_read(&h, pair[1]);
	}
	is_int(h.status, want, "%s, %d bytes a message", messages[i].name, stride);
	if (messages[i].reason != NULL)
		ok(strstr(h.reason, messages[i].reason) != NULL, "%s: %s", messages[i].name,
		    h.reason);
	ok((h.fds[0] >= 0) == (want == HANDSHAKE_DONE), "%s: the descriptor", messages[i].name);
	if (want == HANDSHAKE_DONE && h.fds[0] >= 0)
		is_int(fcntl(h.fds[0], F_GETFD), FD_CLOEXEC, "%s: close-on-exec", messages[i].name);
	handshake_fini(&h);
	fd_close_all(fds, messages[i].nr_things);
	fd_close_all(pair, 2);
}

/* The probe leaves everything as it was. */
static void
test_probe(void)
{
	struct uffdio_api api = {.api = UFFD_API};
	char reason[HANDSHAKE_REASON_BYTES] = "";
	scoped_fd int fresh = make(UFFD_FRESH);
	scoped_fd int good = make(UFFD);
	struct uffdio_register reg = {.mode = UFFDIO_REGISTER_MODE_MISSING};
	void *p = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	ok(uffd_probe(fresh, reason, sizeof(reason)) < 0, "one that is not enabled is refused");
	ok(uffd_probe(fresh, reason, sizeof(reason)) < 0, "and again");
	is_int(ioctl(fresh, UFFDIO_API, &api), 0, "the probe did not enable it");
	is_int(uffd_probe(fresh, reason, sizeof(reason)), 0, "enabled, it is accepted");
	is_int(uffd_probe(good, reason, sizeof(reason)), 0, "a good one is accepted");
	reg.range.start = (uintptr_t)p;
	reg.range.len = 4096;
	is_int(ioctl(good, UFFDIO_REGISTER, &reg), 0, "and still works");
	ok(uffd_probe(-1, reason, sizeof(reason)) < 0, "no descriptor: %s", reason);
	munmap(p, 4096);
}

struct wire {
	int pair[2];
	int uffd;
	struct handshake h;
};

static void
wire_open(struct wire *w)
{
	w->uffd = make(UFFD);
	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, w->pair) < 0 || w->uffd < 0)
		abort();
	handshake_init(&w->h, IMAGE_BYTES, false);
}

static void
wire_close(struct wire *w)
{
	handshake_fini(&w->h);
	fd_close_all(w->pair, 2);
	fd_closep(&w->uffd);
}

static void
test_order(void)
{
	size_t n = strlen(text);
	struct wire w;

	wire_open(&w);
	send_message(w.pair[0], text, 10, NULL, 0);
	send_message(w.pair[0], text + 10, n - 10, &w.uffd, 1);
	is_int(handshake_read(&w.h, w.pair[1]), HANDSHAKE_DONE, "the descriptor comes later");
	wire_close(&w);

	wire_open(&w);
	send_message(w.pair[0], text, 10, &w.uffd, 1);
	send_message(w.pair[0], text + 10, n - 10, &w.uffd, 1);
	is_int(handshake_read(&w.h, w.pair[1]), HANDSHAKE_REFUSED, "one with each piece");
	wire_close(&w);

	wire_open(&w);
	send_message(w.pair[0], text, n, &w.uffd, 1);
	send_message(w.pair[0], text, n, &w.uffd, 1);
	is_int(handshake_read(&w.h, w.pair[1]), HANDSHAKE_REFUSED, "a second message");
	ok(strstr(w.h.reason, "after a complete handshake") != NULL, "it is named: %s", w.h.reason);
	wire_close(&w);

	wire_open(&w);
	send_message(w.pair[0], text, n, NULL, 0);
	handshake_read(&w.h, w.pair[1]); /* or the kernel could merge the two */
	send_message(w.pair[0], " ", 1, &w.uffd, 1);
	is_int(handshake_read(&w.h, w.pair[1]), HANDSHAKE_REFUSED, "a descriptor that is too late");
	wire_close(&w);
}

static void
test_end(void)
{
	char want[128];
	size_t n = strlen(text);
	char byte = 'x';
	struct wire w;

	wire_open(&w);
	send_message(w.pair[0], text, n, &w.uffd, 1);
	fd_closep(&w.pair[0]);
	is_int(handshake_read(&w.h, w.pair[1]), HANDSHAKE_DONE,
	    "sent and closed, as Firecracker 1.11");
	wire_close(&w);

	wire_open(&w);
	send_message(w.pair[0], text, n - 1, &w.uffd, 1);
	fd_closep(&w.pair[0]);
	is_int(handshake_read(&w.h, w.pair[1]), HANDSHAKE_REFUSED, "closed too early");
	snprintf(want, sizeof(want),
	    "the VMM closed the connection after %zu bytes, before the JSON value was complete",
	    n - 1);
	is_str(w.h.reason, want, "its reason");
	wire_close(&w);

	wire_open(&w);
	fd_closep(&w.pair[0]);
	is_int(handshake_read(&w.h, w.pair[1]), HANDSHAKE_REFUSED, "closed at once");
	wire_close(&w);

	wire_open(&w);
	if (send(w.pair[1], &byte, 1, MSG_NOSIGNAL) != 1) /* unread by the VMM: a reset follows */
		abort();
	fd_closep(&w.pair[0]);
	is_int(handshake_read(&w.h, w.pair[1]), HANDSHAKE_REFUSED, "a reset");
	ok(strstr(w.h.reason, "reading the connection failed") != NULL, "it is named: %s",
	    w.h.reason);
	wire_close(&w);
}

/* No number is free for the descriptor: the kernel drops it and says so. */
static void
test_no_fd_free(void)
{
	struct rlimit saved;
	struct rlimit none;
	struct wire w;

	wire_open(&w);
	send_message(w.pair[0], text, strlen(text), &w.uffd, 1);
	getrlimit(RLIMIT_NOFILE, &saved);
	none = saved;
	none.rlim_cur = 3;
	setrlimit(RLIMIT_NOFILE, &none);
	handshake_read(&w.h, w.pair[1]);
	setrlimit(RLIMIT_NOFILE, &saved);
	is_int(w.h.status, HANDSHAKE_REFUSED, "no descriptor is free");
	ok(strstr(w.h.reason, "the worker has none free") != NULL, "it is named: %s", w.h.reason);
	wire_close(&w);
}

/* A session of any outcome, for the count of descriptors at the end. */
static void
quiet_session(size_t i)
{
	int fds[MANY_FDS];
	struct wire w;

	wire_open(&w);
	w.h.wants_memfd = messages[i].wants_memfd;
	for (size_t k = 0; k < messages[i].nr_things; k++)
		fds[k] = make(messages[i].things[k]);
	send_message(w.pair[0], text, strlen(text), fds, messages[i].nr_things);
	handshake_read(&w.h, w.pair[1]);
	fd_close_all(fds, messages[i].nr_things);
	wire_close(&w);
}

/* The kernel looks at whether anybody watches the memory, and not at who. */
static void *
make_memory(int uffd)
{
	void *page = mmap(NULL, PAGE_BYTES, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	struct uffdio_register reg = {
	    .range = {(uint64_t)(uintptr_t)page, PAGE_BYTES},
	    .mode = UFFDIO_REGISTER_MODE_MISSING,
	};

	if (page == MAP_FAILED || ioctl(uffd, UFFDIO_REGISTER, &reg) < 0)
		abort();
	snprintf(text, sizeof(text), "[{\"base_host_virt_addr\":%llu,\"size\":4096,\"offset\":0}]",
	    (unsigned long long)reg.range.start);
	return page;
}

static void
test_pages(int uffd, void *page)
{
	struct region r = {(uint64_t)(uintptr_t)page, PAGE_BYTES, 0, PAGE_BYTES};
	char reason[HANDSHAKE_REASON_BYTES] = "";
	unsigned char there = 0;

	is_int(uffd_probe_pages(uffd, &r, 1, reason, sizeof(reason)), 0, "registered memory");
	ok(mincore(page, PAGE_BYTES, &there) == 0 && (there & 1) == 0, "nothing is filled by that");
	r.page_bytes = r.size_bytes = UINT64_C(2) << 20;
	is_int(
	    uffd_probe_pages(uffd, &r, 1, reason, sizeof(reason)), -EINVAL, "of another page size");
	ok(strstr(reason, "region 0: its memory has pages of 4096 bytes") != NULL, "%s", reason);
	r = (struct region){65536, PAGE_BYTES, 0, PAGE_BYTES};
	is_int(uffd_probe_pages(uffd, &r, 1, reason, sizeof(reason)), -EINVAL, "of nobody");
	ok(strstr(reason, "at 0x10000 is not registered") != NULL, "%s", reason);
}

int
main(void)
{
	int before = fd_count();
	size_t nr_messages = sizeof(messages) / sizeof(messages[0]);
	int uffd = make(UFFD);
	void *page;

	if (uffd < 0) {
		skip(1, "this kernel gives no userfaultfd to an ordinary process");
		return done();
	}
	page = make_memory(uffd);
	test_pages(uffd, page);
	for (size_t i = 0; i < nr_messages; i++) {
		test_message(i, 4096);
		test_message(i, 1);
	}
	test_probe();
	test_order();
	test_end();
	test_no_fd_free();
	for (size_t i = 0; i < 1000; i++)
		quiet_session(i % nr_messages);
	fd_closep(&uffd);
	munmap(page, PAGE_BYTES);
	is_int(fd_count(), before, "no descriptor is left over");
	return done();
}
