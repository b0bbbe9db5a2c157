/* SPDX-License-Identifier: Apache-2.0 */
/* What the service manager passes: which descriptors are taken, and what is refused. */
#include "supervisor/passed.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "common/fd.h"
#include "common/log.h"
#include "tests/unit/tap.h"

#define FIRST 3

static bool
is_open(int fd)
{
	return fcntl(fd, F_GETFD) >= 0;
}

/* An unnamed socket that listens: the kernel gives it an abstract name. */
static int
listener(int type)
{
	struct sockaddr_un addr = {.sun_family = AF_UNIX};
	int fd = socket(AF_UNIX, type, 0);

	if (bind(fd, (struct sockaddr *)&addr, sizeof(addr.sun_family)) < 0 || listen(fd, 1) < 0)
		ok(false, "a socket listens: %s", strerror(errno));
	return fd;
}

static void
place(int fd, int at)
{
	if (fd == at)
		return;
	dup2(fd, at);
	close(fd);
}

static void
say(const char *count, const char *names)
{
	char pid[16];

	snprintf(pid, sizeof(pid), "%d", (int)getpid());
	setenv("LISTEN_PID", pid, 1);
	setenv("LISTEN_FDS", count, 1);
	setenv("LISTEN_FDNAMES", names, 1);
}

static void
test_take(void)
{
	struct passed passed;
	char name[64];
	size_t cursor = 0;
	int fd;

	place(listener(SOCK_STREAM), FIRST);
	for (int at = FIRST + 1; at < FIRST + 5; at++)
		place(open("/dev/null", O_RDONLY), at);
	say("5", "admin:session-7:other:session-7:session-12");
	passed_open(&passed);
	ok(getenv("LISTEN_FDS") == NULL && getenv("LISTEN_PID") == NULL &&
		getenv("LISTEN_FDNAMES") == NULL,
	    "no child is told of them");
	ok((fcntl(FIRST, F_GETFD) & FD_CLOEXEC) != 0, "nor inherits them");
	fd = passed_take(&passed, &cursor, "session-", name, sizeof(name));
	ok(fd == FIRST + 1 && strcmp(name, "session-7") == 0, "the first of a kind");
	fd = passed_take(&passed, &cursor, "session-", name, sizeof(name));
	ok(fd == FIRST + 3 && strcmp(name, "session-7") == 0, "the next");
	fd = passed_take(&passed, &cursor, "session-", name, sizeof(name));
	ok(fd == FIRST + 4 && strcmp(name, "session-12") == 0, "and the last");
	fd = passed_take(&passed, &cursor, "session-", name, sizeof(name));
	ok(fd == -1, "then there is none");
	fd = passed_take_admin(&passed);
	ok(fd == FIRST && (fcntl(fd, F_GETFL) & O_NONBLOCK) != 0, "the admin socket never blocks");
	ok(passed_take_admin(&passed) == -1, "and is given once");
	passed_close(&passed);
	ok(is_open(FIRST) && is_open(FIRST + 1) && !is_open(FIRST + 2) && is_open(FIRST + 3),
	    "what nobody took is closed, what was taken is not");
	for (int at = FIRST; at < FIRST + 5; at++)
		close(at);
}

static void
test_none(void)
{
	static const struct {
		const char *count, *names, *what;
	} cases[] = {
	    {"0", "", "none"},
	    {"-1", "admin", "a count that is negative"},
	    {"99999999999", "admin", "a count beyond every table"},
	    {"x", "admin", "a count that is no number"},
	};
	struct passed passed;

	place(listener(SOCK_STREAM), FIRST);
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		say(cases[i].count, cases[i].names);
		passed_open(&passed);
		ok(passed_take_admin(&passed) == -1, "%s", cases[i].what);
		passed_close(&passed);
	}
	say("1", "admin");
	setenv("LISTEN_PID", "1", 1);
	passed_open(&passed);
	ok(passed_take_admin(&passed) == -1, "those of another process");
	passed_close(&passed);
	ok(is_open(FIRST), "are left alone");
	say("1000", "admin");
	passed_open(&passed);
	ok(passed_take_admin(&passed) == FIRST, "fewer names than the count says");
	passed_close(&passed);
	say("3", "session-1:session-2:admin");
	passed_open(&passed);
	ok(passed_take_admin(&passed) == -1, "a name whose descriptor is not open");
	passed_close(&passed);
	ok(!is_open(FIRST), "the others go");
}

static void
test_no_admin(void)
{
	static const char *const what[] = {"a file", "a socket of another type",
	    "a socket that does not listen", "a name that only starts alike"};
	int fds[] = {open("/dev/null", O_RDONLY), listener(SOCK_SEQPACKET),
	    socket(AF_UNIX, SOCK_STREAM, 0), listener(SOCK_STREAM)};

	/* Out of the way, all open before the first is taken. */
	for (size_t i = 0; i < 4; i++) {
		int high = fcntl(fds[i], F_DUPFD, 100);

		close(fds[i]);
		fds[i] = high;
	}
	for (size_t i = 0; i < 4; i++) {
		struct passed passed;

		place(fds[i], FIRST);
		say("1", i == 3 ? "admin2" : "admin");
		passed_open(&passed);
		ok(passed_take_admin(&passed) == -1 && !is_open(FIRST), "refused: %s", what[i]);
		passed_close(&passed);
	}
}

int
main(void)
{
	log_init("test_passed", LOG_LEVEL_ERR);
	test_take();
	test_none();
	test_no_admin();
	return done();
}
