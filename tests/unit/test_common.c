/* SPDX-License-Identifier: Apache-2.0 */
/* Numbers, versions, the log, fault points, descriptors. */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/exitcode.h"
#include "common/fault.h"
#include "common/fd.h"
#include "common/log.h"
#include "common/num.h"
#include "common/scope.h"
#include "common/version.h"
#include "common/xalloc.h"
#include "tests/unit/tap.h"

#define ARRAY_SIZE(a) (sizeof(a) / sizeof(*(a)))

typedef int parser(const char *, uint64_t, uint64_t, uint64_t *);

static void
test_num(void)
{
	static const struct {
		parser *parse;
		const char *text;
		int error;
		uint64_t value;
	} cases[] = {
	    {num_parse_u64, "0", 0, 0},
	    {num_parse_u64, "007", 0, 7},
	    {num_parse_u64, "18446744073709551615", 0, UINT64_MAX},
	    {num_parse_u64, "18446744073709551616", -ERANGE, 0},
	    {num_parse_u64, "99999999999999999999999999", -ERANGE, 0},
	    {num_parse_u64, "99999999999999999999999999x", -EINVAL, 0},
	    {num_parse_u64, "", -EINVAL, 0},
	    {num_parse_u64, "-1", -EINVAL, 0},
	    {num_parse_u64, "+1", -EINVAL, 0},
	    {num_parse_u64, " 1", -EINVAL, 0},
	    {num_parse_u64, "1 ", -EINVAL, 0},
	    {num_parse_u64, "1K", -EINVAL, 0},
	    {num_parse_u64, "0x10", -EINVAL, 0},
	    {num_parse_u64, "1.5", -EINVAL, 0},
	    {num_parse_bytes, "4096", 0, 4096},
	    {num_parse_bytes, "4K", 0, 4096},
	    {num_parse_bytes, "3M", 0, 3 << 20},
	    {num_parse_bytes, "5G", 0, UINT64_C(5) << 30},
	    {num_parse_bytes, "17179869183G", 0, UINT64_C(17179869183) << 30},
	    {num_parse_bytes, "17179869184G", -ERANGE, 0},
	    {num_parse_bytes, "K", -EINVAL, 0},
	    {num_parse_bytes, "4KB", -EINVAL, 0},
	    {num_parse_bytes, "4 K", -EINVAL, 0},
	    {num_parse_bytes, "4T", -EINVAL, 0},
	    {num_parse_ms, "5", 0, 5000},
	    {num_parse_ms, "500ms", 0, 500},
	    {num_parse_ms, "5s", 0, 5000},
	    {num_parse_ms, "2m", 0, 120000},
	    {num_parse_ms, "1h", 0, 3600000},
	    {num_parse_ms, "0", 0, 0},
	    {num_parse_ms, "5d", -EINVAL, 0},
	    {num_parse_ms, "ms", -EINVAL, 0},
	    {num_parse_ms, "1h30m", -EINVAL, 0},
	    {num_parse_ms, "18446744073709551615h", -ERANGE, 0},
	};

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		uint64_t value = 42;
		int r = cases[i].parse(cases[i].text, 0, UINT64_MAX, &value);

		is_int(r, cases[i].error, "case %zu \"%s\"", i, cases[i].text);
		ok(value == (r ? 42 : cases[i].value), "case %zu: the value", i);
	}
	uint64_t value;
	is_int(num_parse_u64("10", 10, 20, &value), 0, "the least");
	is_int(num_parse_u64("20", 10, 20, &value), 0, "the most");
	is_int(num_parse_u64("9", 10, 20, &value), -ERANGE, "too small");
	is_int(num_parse_u64("21", 10, 20, &value), -ERANGE, "too big");
	is_int(num_parse_ms("21s", 0, 20000, &value), -ERANGE, "the range is in milliseconds");
}

static void
test_version(void)
{
	static const char *const ascending[] = {"0", "0.1", "0.1.0", "0.1.1", "0.1.9", "0.1.10",
	    "0.2~rc1", "0.2", "0.2-1", "0.2-2", "0.2-10", "0.2a", "0.2+git1", "0.2.0~1-1", "0.2.0",
	    "1.0~~", "1.0~", "1.0~1", "1.0", "1.0-0", "1.0-1", "1.0.1", "2", "10",
	    "99999999999999999999998", "99999999999999999999999"};
	static const char *const valid[] = {
	    "0", "0.1.0", "1.2.3-rc1", "1.0~beta+b2", "1234567890123456789012345678901"};
	static const char *const invalid[] = {"", ".", "..", "v1", "-1", "1/2", "1 2", "1\n", "1_0",
	    "1.\xc3\xa4", "12345678901234567890123456789012", "../1"};

	for (size_t i = 0; i < ARRAY_SIZE(ascending); i++)
		for (size_t k = 0; k < ARRAY_SIZE(ascending); k++) {
			int r = version_compare(ascending[i], ascending[k]);

			is_int((r > 0) - (r < 0), (i > k) - (i < k), "%s against %s", ascending[i],
			    ascending[k]);
		}
	is_int(version_compare("1.01", "1.1"), 0, "leading zeros do not count");
	for (size_t i = 0; i < ARRAY_SIZE(valid); i++)
		ok(version_is_valid(valid[i]), "%s is a version", valid[i]);
	for (size_t i = 0; i < ARRAY_SIZE(invalid); i++)
		ok(!version_is_valid(invalid[i]), "invalid version %zu", i);
}

/* --- The log ---------------------------------------------------------------------- */

static char logged[16384];

/* What fn wrote on stderr. */
static const char *
capture(void (*fn)(void))
{
	scoped_fd int saved = fd_dup(2), file = -1;
	FILE *tmp = tmpfile();

	if (saved < 0 || !tmp)
		abort();
	file = fd_dup(fileno(tmp));
	fclose(tmp);
	dup2(file, 2);
	log_init("test_common", LOG_LEVEL_NOTICE);
	fn();
	dup2(saved, 2);
	ssize_t n = pread(file, logged, sizeof(logged) - 1, 0);
	logged[n > 0 ? n : 0] = '\0';
	return logged;
}

static void
say_levels(void)
{
	log_set_level(LOG_LEVEL_NOTICE);
	log_err("disk gone, pages=%d", 3);
	log_notice("started");
	log_info("not seen");
	log_set_level(LOG_LEVEL_DEBUG);
	log_debug("seen");
	log_set_level(LOG_LEVEL_NOTICE);
}

static void
say_hostile(void)
{
	log_notice("said: %s", "a\n<0>forged: \x1b[2J\x7f \xc3\xa4");
}

static void
say_long(void)
{
	char text[5000];

	memset(text, 'x', sizeof(text));
	log_notice("%.*s", (int)sizeof(text), text);
}

static int errno_after;
static void
say_errno(void)
{
	errno = ENOTTY;
	log_notice("lost");
	errno_after = errno;
}

static struct log_limit limit;
static void
say_limited(void)
{
	log_limited(&limit, LOG_LEVEL_NOTICE, "line");
	log_limited(&limit, LOG_LEVEL_INFO, "not enabled");
}

static int
take(int lines, uint64_t now_ns)
{
	int passed = 0;

	while (lines--)
		passed += log_limit_take(&limit, now_ns);
	return passed;
}

static void
test_log_limit(void)
{
	limit = (struct log_limit){.burst = 3};
	is_int(take(10, NS_PER_S), 3, "three of ten lines");
	is_int(limit.dropped, 7, "seven are counted");
	is_int(take(10, 2 * NS_PER_S - 1), 0, "silence for the rest of the second");
	is_int(take(10, 2 * NS_PER_S), 3, "three in the next");
	is_int(limit.dropped, 24, "the count goes on until a line is logged");
	is_int(take(10, 9 * NS_PER_S), 3, "seconds of silence save nothing up");
	limit = (struct log_limit){0};
	is_int(take(20, NS_PER_S), 10, "ten a second by default");
	limit = (struct log_limit){.dropped = 17};
	is_str(capture(say_limited),
	    "<5>test_common: swallowed 17 lines like the next one\n<5>test_common: line\n",
	    "the line that gets through says how many were swallowed");
	is_int(limit.dropped, 0, "once");
	is_int(limit.used, 1, "a line below the level takes nothing");
	limit = (struct log_limit){
	    .burst = 1, .used = 1, .window_ns = clock_now_ns() + 3600 * NS_PER_S};
	is_str(capture(say_limited), "", "a line beyond the budget is not written");
}

/* A person at a terminal needs no levels. */
static void
test_log_terminal(void)
{
	scoped_fd int saved = fd_dup(2), master = posix_openpt(O_RDWR | O_NOCTTY), slave = -1;
	char text[64] = "";

	if (saved < 0 || master < 0 || grantpt(master) < 0 || unlockpt(master) < 0) {
		skip(1, "no terminal can be made");
		return;
	}
	slave = open(ptsname(master), O_RDWR | O_NOCTTY);
	dup2(slave, 2);
	log_init("test_common", LOG_LEVEL_NOTICE);
	log_err("disk gone");
	dup2(saved, 2);
	log_init("test_common", LOG_LEVEL_NOTICE);
	ok(read(master, text, sizeof(text) - 1) > 0 &&
		strcmp(text, "test_common: disk gone\r\n") == 0,
	    "no level on a terminal");
}

static void
test_log(void)
{
	is_str(capture(say_levels),
	    "<3>test_common: disk gone, pages=3\n<5>test_common: started\n<7>test_common: seen\n",
	    "levels");
	is_str(capture(say_hostile), "<5>test_common: said: a?<0>forged: ?[2J? \xc3\xa4\n",
	    "control characters forge nothing");
	size_t n = strlen(capture(say_long));
	ok(n > 1000 && n < 4096 && logged[n - 1] == '\n', "a long line is cut to %zu bytes", n);
	is_str(capture(say_errno), "<5>test_common: lost\n", "a line");
	is_int(errno_after, ENOTTY, "errno is preserved");
	is_int(log_level_parse("warning"), LOG_LEVEL_WARNING, "a level's word");
	is_int(log_level_parse("loud"), -EINVAL, "no level's word");
	test_log_terminal();
	test_log_limit();
}

/* --- Processes that end ------------------------------------------------------------- */

/* The status of a child that ran fn; stopped counts as an end. */
static int
status_of(void (*fn)(void))
{
	int status;
	pid_t pid = fork();

	if (pid == 0) {
		fn();
		_exit(0);
	}
	if (pid < 0 || waitpid(pid, &status, WUNTRACED) != pid)
		abort();
	if (WIFSTOPPED(status)) {
		kill(pid, SIGKILL);
		waitpid(pid, NULL, 0);
	}
	return status;
}

static void
die_fatally(void)
{
	close(2);
	fatal("broken");
}

static void
set_fault(const char *text)
{
	setenv("PAGER_FAULT", text, 1);
}

static void
strike_kill(void)
{
	set_fault("WORKER_HELLO!kill");
	fault_init();
	fault(FAULT_WORKER_HELLO);
}

static void
strike_crash(void)
{
	set_fault("WORKER_HELLO!crash");
	fault_init();
	fault(FAULT_WORKER_HELLO);
}

static void
strike_pause(void)
{
	set_fault("WORKER_HELLO:2!pause");
	fault_init();
	fault(FAULT_WORKER_HELLO);
	fault(FAULT_WORKER_HELLO);
}

static void *
held(void *arg)
{
	atomic_store((atomic_bool *)arg, fault(FAULT_WORKER_HELLO));
	return NULL;
}

/* One thread waits for its own signal; another passes, and is not ended by that signal. */
static void
test_hold(void)
{
	atomic_bool struck = true;
	pthread_t thread;

	set_fault("WORKER_HELLO:1!hold");
	is_int(fault_init(), 0, "a fault that holds a thread");
	pthread_create(&thread, NULL, held, &struck);
	pthread_kill(thread, SIGUSR2);
	pthread_join(thread, NULL);
	ok(!atomic_load(&struck), "it goes on with a signal of its own, as if nothing had been");
	unsetenv("PAGER_FAULT");
	fault_init();
}

static void
test_fault(void)
{
	static const char *const bad[] = {"NO_SUCH", "LINK_SEND:", "LINK_SEND:x", "LINK_SEND!boom",
	    "LINK_SEND!", "LINK_SEND,", ",", "LINK_SEND:1:2", "link_send",
	    "LINK_SEND=", "LINK_SEND=:1", "LINK_SEND:1=a",
	    "LINK_SEND=0123456789012345678901234567890123456789012345678901234567890123"};

	unsetenv("PAGER_FAULT");
	is_int(fault_init(), 0, "no faults");
	ok(!fault_armed && !fault(FAULT_LINK_SEND), "none strikes");
	set_fault("");
	is_int(fault_init(), 0, "an empty list");
	ok(!fault_armed, "arms nothing");
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		set_fault(bad[i]);
		is_int(fault_init(), -EINVAL, "\"%s\" is refused", bad[i]);
	}
	set_fault("LINK_SEND,IMAGE_READ:3!err,SPAWN_FORK:0");
	is_int(fault_init(), 0, "three faults");
	ok(fault(FAULT_LINK_SEND), "the first pass by default");
	ok(!fault(FAULT_LINK_SEND), "and only that");
	ok(!fault(FAULT_IMAGE_READ) && !fault(FAULT_IMAGE_READ), "not the first two");
	ok(fault(FAULT_IMAGE_READ), "but the third");
	ok(!fault(FAULT_IMAGE_READ), "not the fourth");
	ok(fault(FAULT_SPAWN_FORK) && fault(FAULT_SPAWN_FORK), "each pass with 0");
	ok(!fault(FAULT_WORKER_START), "a point that nobody named");
	set_fault("ADOPT_SESSION=vm 7:2,LINK_SEND");
	is_int(fault_init(), 0, "a fault for one of many");
	ok(!fault_named(FAULT_ADOPT_SESSION, "vm 7"), "its first pass");
	ok(!fault_named(FAULT_ADOPT_SESSION, "vm 8") && !fault(FAULT_ADOPT_SESSION),
	    "others do not count");
	ok(fault_named(FAULT_ADOPT_SESSION, "vm 7"), "its second");
	ok(fault_named(FAULT_LINK_SEND, "vm 8"), "without a name everybody is meant");
	unsetenv("PAGER_FAULT");
	fault_init();
	ok(!fault(FAULT_SPAWN_FORK), "gone after the next start");

	int status = status_of(strike_kill);
	ok(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL, "!kill kills");
	status = status_of(strike_crash);
	ok(WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT, "!crash aborts");
	status = status_of(strike_pause);
	ok(WIFSTOPPED(status) && WSTOPSIG(status) == SIGSTOP, "!pause stops at the second pass");
	status = status_of(die_fatally);
	ok(WIFEXITED(status) && WEXITSTATUS(status) == EXITCODE_FATAL, "fatal() has its exit code");
}

static void
scoped_close(int *seen)
{
	scoped_fd int fd = fd_dup(0);

	*seen = fd;
}

static void
test_fd(void)
{
	int before = fd_count(), fds[3], fd = open("/dev/null", O_RDWR), seen;

	ok(before > 0, "%d descriptors", before);
	is_int(fd_count(), before + 1, "one more");
	int copy = fd_dup(fd);
	ok(copy >= 3 && (fcntl(copy, F_GETFD) & FD_CLOEXEC), "a duplicate closes on exec");
	int moved = fd_take(&copy);
	ok(moved >= 3 && copy == -1, "a move leaves -1");
	is_int(fd_set_nonblock(moved, true), 0, "non-blocking");
	ok(fcntl(moved, F_GETFL) & O_NONBLOCK, "is set");
	is_int(fd_set_nonblock(moved, false), 0, "blocking");
	ok(!(fcntl(moved, F_GETFL) & O_NONBLOCK), "is cleared");
	errno = ENOTTY;
	fd_closep(&moved);
	is_int(errno, ENOTTY, "errno survives a close");
	is_int(moved, -1, "a close leaves -1");
	fd_closep(&moved);
	is_int(fd_dup(-1), -EBADF, "no duplicate of nothing");
	is_int(fd_set_nonblock(-1, true), -EBADF, "no flags of nothing");
	for (int i = 0; i < 3; i++)
		fds[i] = i == 1 ? -1 : fd_dup(fd);
	fd_close_all(fds, 3);
	ok(fds[0] == -1 && fds[1] == -1 && fds[2] == -1, "all closed");
	scoped_close(&seen);
	ok(seen >= 3 && fcntl(seen, F_GETFD) < 0, "a scope closes");
	fd_closep(&fd);
	is_int(fd_count(), before, "none is left");
}

static void
test_xalloc(void)
{
	scoped_free char *text = xasprintf("%s-%d", "a", 7), *copy = xstrdup(text);
	scoped_free unsigned char *zeros = xcalloc(3, 5), *none = xcalloc(0, 0);

	is_str(text, "a-7", "formatted");
	is_str(copy, "a-7", "copied");
	ok(zeros[0] == 0 && zeros[14] == 0, "zeroed");
	ok(none != NULL, "nothing is something");
}

int
main(void)
{
	test_num();
	test_version();
	test_log();
	test_fault();
	test_hold();
	test_fd();
	test_xalloc();
	return done();
}
