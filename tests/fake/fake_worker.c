/* SPDX-License-Identifier: Apache-2.0 */
/* A worker that does what its script says: lies, hangs, dies, or behaves.
 *
 * A supervisor gives a worker no environment, no file system to rely on and fixed
 * arguments, so the script is the last line of the executable itself:
 *
 *	cp fake_worker DIR/9.1.0/pager-worker
 *	printf '\nfake: bad=short on=open\n' >>DIR/9.1.0/pager-worker
 *
 * Words of the script (all optional, in any order):
 *	version=V	what HELLO says; default: the name of the executable's directory
 *	protocol=N	what HELLO says
 *	sessions=N	what HELLO says
 *	error=N		the errno in every SESSION_OPENED
 *	outcome=N	enum ipc_completion in every SESSION_COMPLETED
 *	mute=MESSAGE	never answers it: ping, open, close, complete or drain
 *	bad=DEED	does it when on= says; see deeds[] for the list
 *	on=MOMENT	start (before HELLO), hello (after it, the default), ping, open,
 *			close, complete or drain: when that message arrives
 *
 * Without a script it behaves: HELLO, SESSION_OPENED with 0, SESSION_CLOSED,
 * SESSION_COMPLETED with detached, PONG; after DRAIN it exits when no session is left,
 * and when the link ends it exits if it has none.  It never accepts a VMM. */
#include <errno.h>
#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/fd.h"
#include "common/num.h"
#include "ipc/message.h"

#define LINK	     3
#define SCRIPT_BYTES 512
#define FLOOD_FRAMES 20000
#define BOMB_BYTES   5
#define MAX_SESSIONS 4096

static struct {
	char text[SCRIPT_BYTES];
	char version[32];
	uint32_t protocol;
	uint32_t hello_sessions;
	uint32_t error;
	uint32_t outcome;
	char mute[16];
	char bad[24];
	char on[16];
} script;

static uint64_t sessions[MAX_SESSIONS]; /* 0: a free place */
static uint32_t nr_sessions;
static bool draining;

static void __attribute__((noreturn, format(printf, 2, 3))) die(int code, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	vfprintf(stderr, fmt, ap);
	va_end(ap);
	fputc('\n', stderr);
	_exit(code);
}

/* --- The script ------------------------------------------------------------------ */

static void
read_script(void)
{
	FILE *file = fopen("/proc/self/exe", "re");
	char *line;
	size_t n;

	if (file == NULL || fseek(file, -(long)(sizeof(script.text) - 1), SEEK_END) < 0)
		die(70, "fake: cannot read my script: %s", strerror(errno));
	n = fread(script.text, 1, sizeof(script.text) - 1, file);
	fclose(file);
	/* Bytes of the program come before it. */
	for (size_t i = 0; i < n; i++) {
		if (script.text[i] == '\0')
			script.text[i] = '\n';
	}
	line = strstr(script.text, "\nfake: ");
	memmove(script.text, line != NULL ? line + 7 : "", line != NULL ? strlen(line + 7) + 1 : 1);
	script.text[strcspn(script.text, "\n")] = '\0';
}

static void
directory_name(char *ret, size_t bytes)
{
	char path[PATH_MAX] = "";
	char *slash;

	if (readlink("/proc/self/exe", path, sizeof(path) - 1) < 0)
		die(70, "fake: cannot find my version: %s", strerror(errno));
	slash = strrchr(path, '/');
	if (slash != NULL)
		*slash = '\0';
	slash = strrchr(path, '/');
	snprintf(ret, bytes, "%.*s", (int)bytes - 1, slash != NULL ? slash + 1 : path);
}

static uint32_t
number(const char *value)
{
	uint64_t n;

	if (num_parse_u64(value, 0, UINT32_MAX, &n) < 0)
		die(2, "fake: \"%s\" is not a number", value);
	return (uint32_t)n;
}

static void
parse_word(const char *word, const char *value)
{
	if (strcmp(word, "version") == 0)
		snprintf(script.version, sizeof(script.version), "%s", value);
	else if (strcmp(word, "protocol") == 0)
		script.protocol = number(value);
	else if (strcmp(word, "sessions") == 0)
		script.hello_sessions = number(value);
	else if (strcmp(word, "error") == 0)
		script.error = number(value);
	else if (strcmp(word, "outcome") == 0)
		script.outcome = number(value);
	else if (strcmp(word, "mute") == 0)
		snprintf(script.mute, sizeof(script.mute), "%s", value);
	else if (strcmp(word, "bad") == 0)
		snprintf(script.bad, sizeof(script.bad), "%s", value);
	else if (strcmp(word, "on") == 0)
		snprintf(script.on, sizeof(script.on), "%s", value);
	else
		die(2, "fake: there is no word \"%s\"", word);
}

static void
parse_script(void)
{
	char *rest = script.text;
	char *word;

	script.protocol = IPC_PROTOCOL;
	snprintf(script.on, sizeof(script.on), "hello");
	directory_name(script.version, sizeof(script.version));
	read_script();
	while ((word = strsep(&rest, " ")) != NULL) {
		char *equals = strchr(word, '=');

		if (word[0] == '\0')
			continue;
		if (equals == NULL)
			die(2, "fake: \"%s\" is not of the form word=value", word);
		*equals = '\0';
		parse_word(word, equals + 1);
	}
}

/* --- Frames ---------------------------------------------------------------------- */

static void
send_raw(const void *data, size_t bytes, const int *fds, size_t nr_fds)
{
	union {
		struct cmsghdr align;
		char bytes[CMSG_SPACE(IPC_MAX_FDS * sizeof(int))];
	} control = {0};
	struct iovec iov = {.iov_base = (void *)(uintptr_t)data, .iov_len = bytes};
	struct msghdr mh = {.msg_iov = &iov, .msg_iovlen = 1};

	if (nr_fds > 0) {
		struct cmsghdr *c;

		mh.msg_control = control.bytes;
		mh.msg_controllen = CMSG_SPACE(nr_fds * sizeof(int));
		c = CMSG_FIRSTHDR(&mh);
		c->cmsg_level = SOL_SOCKET;
		c->cmsg_type = SCM_RIGHTS;
		c->cmsg_len = CMSG_LEN(nr_fds * sizeof(int));
		memcpy(CMSG_DATA(c), fds, nr_fds * sizeof(int));
	}
	/* The supervisor may have hung up: what happens next is up to it. */
	if (sendmsg(LINK, &mh, MSG_NOSIGNAL) < 0 && errno != EPIPE && errno != ECONNRESET)
		die(1, "fake: cannot send: %s", strerror(errno));
}

static size_t
encode(const struct ipc_msg *msg, unsigned char *frame)
{
	int n = ipc_encode(msg, frame, IPC_MAX_FRAME_BYTES);

	if (n < 0)
		die(1, "fake: cannot encode %s: %s", ipc_type_name(msg->type), strerror(-n));
	return (size_t)n;
}

static void
send_msg(const struct ipc_msg *msg, const int *fds, size_t nr_fds)
{
	unsigned char frame[IPC_MAX_FRAME_BYTES];

	send_raw(frame, encode(msg, frame), fds, nr_fds);
}

static void
hello(void)
{
	struct ipc_msg msg = {.type = IPC_HELLO};

	msg.hello.protocol = script.protocol;
	ipc_text(msg.hello.version, script.version);
	msg.hello.pid = (uint32_t)getpid();
	msg.hello.sessions = script.hello_sessions;
	send_msg(&msg, NULL, 0);
}

/* --- Deeds ----------------------------------------------------------------------- */

/* A PONG, which is valid, to be spoiled. */
static size_t
pong(unsigned char *frame)
{
	struct ipc_msg msg = {.type = IPC_PONG};

	return encode(&msg, frame);
}

static void
deed_short(void)
{
	unsigned char frame[IPC_MAX_FRAME_BYTES];

	send_raw(frame, pong(frame) - 1, NULL, 0);
}

static void
deed_long(void)
{
	unsigned char frame[IPC_MAX_FRAME_BYTES];
	size_t n = pong(frame);

	frame[n] = 0;
	send_raw(frame, n + 1, NULL, 0);
}

/* [15, 0, "x"]: the number of sessions as a string. */
static void
deed_type(void)
{
	static const unsigned char frame[] = {0x93, IPC_PONG, 0, 0xa1, 'x'};

	send_raw(frame, sizeof(frame), NULL, 0);
}

static void
deed_count(void)
{
	static const unsigned char frame[] = {0x92, IPC_PONG, 0};

	send_raw(frame, sizeof(frame), NULL, 0);
}

static void
deed_code(void)
{
	static const unsigned char frame[] = {0x92, 0x7f, 0};

	send_raw(frame, sizeof(frame), NULL, 0);
}

static void
deed_direction(void)
{
	struct ipc_msg msg = {.type = IPC_PING};

	send_msg(&msg, NULL, 0);
}

static void
deed_fds(void)
{
	static const int fds[2] = {0, 1};
	struct ipc_msg msg = {.type = IPC_PONG};

	send_msg(&msg, fds, 2);
}

static void
deed_no_fds(void)
{
	struct ipc_msg msg = {.type = IPC_SESSION_SERVING};

	msg.session_serving.session = nr_sessions > 0 ? sessions[0] : 1;
	send_msg(&msg, NULL, 0);
}

static void
deed_truncated(void)
{
	static const unsigned char frame[IPC_MAX_FRAME_BYTES + 1] = {0x93, IPC_PONG};

	send_raw(frame, sizeof(frame), NULL, 0);
}

/* Claims 2^28 elements: what a careless decoder allocates for. */
static void
deed_bomb(void)
{
	static const unsigned char frame[BOMB_BYTES] = {0xdd, 0x0f, 0xff, 0xff, 0xff};

	send_raw(frame, sizeof(frame), NULL, 0);
}

static void
deed_garbage(void)
{
	send_raw("GET / HTTP/1.1\r\n\r\n", 18, NULL, 0);
}

static void
deed_flood(void)
{
	unsigned char frame[IPC_MAX_FRAME_BYTES];
	size_t n = pong(frame);

	for (int i = 0; i < FLOOD_FRAMES; i++)
		send_raw(frame, n, NULL, 0);
}

static void
deed_hello(void)
{
	hello();
}

/* About a session that nobody has opened. */
static void
deed_stranger(void)
{
	struct ipc_msg msg = {.type = IPC_SESSION_COMPLETED};

	msg.session_completed.session = UINT64_MAX;
	send_msg(&msg, NULL, 0);
}

/* Serving, with descriptors that are neither a userfaultfd nor a connection. */
static void
deed_serving(void)
{
	static const int fds[2] = {0, 1};
	struct ipc_msg msg = {.type = IPC_SESSION_SERVING};

	msg.session_serving.session = nr_sessions > 0 ? sessions[0] : 1;
	msg.session_serving.regions = 1;
	msg.session_serving.bytes = 4096;
	send_msg(&msg, fds, 2);
}

static void
deed_alarms(void)
{
	struct ipc_msg msg = {.type = IPC_SESSION_ALARM};

	msg.session_alarm.session = nr_sessions > 0 ? sessions[0] : 1;
	msg.session_alarm.kind = IPC_ALARM_IMAGE_READ;
	ipc_text(msg.session_alarm.reason, "the fake worker cries wolf");
	for (int i = 0; i < FLOOD_FRAMES; i++)
		send_msg(&msg, NULL, 0);
}

static void
deed_talk(void)
{
	for (int i = 0; i < FLOOD_FRAMES; i++)
		fprintf(stderr, "<1>fake: line %d \033[31mof nonsense\n", i);
}

static void
deed_hang_up(void)
{
	close(LINK);
	for (;;)
		pause();
}

static void
deed_hang(void)
{
	for (;;)
		pause();
}

static void
deed_die(void)
{
	die(3, "<3>fake: dying as my script says");
}

static void
deed_exit(void)
{
	_exit(0);
}

static void
deed_crash(void)
{
	signal(SIGSEGV, SIG_DFL);
	raise(SIGSEGV);
}

static const struct {
	const char *name;
	void (*fn)(void);
} deeds[] = {
    /* Frames that no worker may send. */
    {"short", deed_short},
    {"long", deed_long},
    {"type", deed_type},
    {"count", deed_count},
    {"code", deed_code},
    {"direction", deed_direction},
    {"fds", deed_fds},
    {"no-fds", deed_no_fds},
    {"truncated", deed_truncated},
    {"bomb", deed_bomb},
    {"garbage", deed_garbage},
    /* Valid frames that make no sense, or too many of them. */
    {"flood", deed_flood},
    {"hello", deed_hello},
    {"stranger", deed_stranger},
    {"serving", deed_serving},
    {"alarms", deed_alarms},
    /* What a process can do. */
    {"talk", deed_talk},
    {"hang-up", deed_hang_up},
    {"hang", deed_hang},
    {"die", deed_die},
    {"exit", deed_exit},
    {"crash", deed_crash},
};

#define NR_DEEDS (sizeof(deeds) / sizeof(deeds[0]))

static void
moment(const char *name)
{
	if (script.bad[0] == '\0' || strcmp(script.on, name) != 0)
		return;
	for (size_t i = 0; i < NR_DEEDS; i++) {
		if (strcmp(deeds[i].name, script.bad) == 0) {
			deeds[i].fn();
			return;
		}
	}
	die(2, "fake: there is no deed \"%s\"", script.bad);
}

/* --- Answers --------------------------------------------------------------------- */

static void
forget(uint64_t session)
{
	for (uint32_t i = 0; i < MAX_SESSIONS; i++) {
		if (sessions[i] == session && session != 0) {
			sessions[i] = 0;
			nr_sessions--;
		}
	}
}

static void
remember(uint64_t session)
{
	for (uint32_t i = 0; i < MAX_SESSIONS; i++) {
		if (sessions[i] == 0) {
			sessions[i] = session;
			nr_sessions++;
			return;
		}
	}
	die(1, "fake: too many sessions");
}

/* The moment of a message, and whether it is answered. */
static bool
meet(const char *name)
{
	moment(name);
	return strcmp(script.mute, name) != 0;
}

static void
answer(const struct ipc_msg *msg)
{
	struct ipc_msg reply = {0};

	switch (msg->type) {
	case IPC_SESSION_OPEN:
		remember(msg->session_open.session);
		if (!meet("open"))
			return;
		reply.type = IPC_SESSION_OPENED;
		reply.session_opened.session = msg->session_open.session;
		reply.session_opened.error = script.error;
		if (script.error != 0)
			forget(msg->session_open.session);
		break;
	case IPC_SESSION_CLOSE:
		if (!meet("close"))
			return;
		forget(msg->session_close.session);
		reply.type = IPC_SESSION_CLOSED;
		reply.session_closed.session = msg->session_close.session;
		break;
	case IPC_SESSION_COMPLETE:
		if (!meet("complete"))
			return;
		reply.type = IPC_SESSION_COMPLETED;
		reply.session_completed.session = msg->session_complete.session;
		reply.session_completed.outcome = script.outcome;
		if (script.outcome == IPC_COMPLETION_DETACHED)
			forget(msg->session_complete.session);
		break;
	case IPC_PING:
		if (!meet("ping"))
			return;
		reply.type = IPC_PONG;
		reply.pong.sessions = nr_sessions;
		break;
	case IPC_DRAIN:
		if (meet("drain"))
			draining = true;
		return;
	default:
		return;
	}
	reply.seq = msg->seq;
	send_msg(&reply, NULL, 0);
}

/* True until the link ends.  Descriptors that come with a session are not kept. */
static bool
receive(void)
{
	unsigned char frame[IPC_MAX_FRAME_BYTES];
	union {
		struct cmsghdr align;
		char bytes[CMSG_SPACE(IPC_MAX_FDS * sizeof(int))];
	} control;
	struct iovec iov = {.iov_base = frame, .iov_len = sizeof(frame)};
	struct msghdr mh = {.msg_iov = &iov,
	    .msg_iovlen = 1,
	    .msg_control = control.bytes,
	    .msg_controllen = sizeof(control.bytes)};
	ssize_t n = recvmsg(LINK, &mh, MSG_CMSG_CLOEXEC);
	struct ipc_msg msg;
	size_t nr_fds = 0;

	if (n <= 0)
		return false;
	for (struct cmsghdr *c = CMSG_FIRSTHDR(&mh); c != NULL; c = CMSG_NXTHDR(&mh, c)) {
		int fds[IPC_MAX_FDS];

		if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS)
			continue;
		nr_fds = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);
		memcpy(fds, CMSG_DATA(c), nr_fds * sizeof(int));
		fd_close_all(fds, nr_fds);
	}
	if (ipc_decode(&msg, frame, (size_t)n, IPC_SUPERVISOR, nr_fds) != IPC_OK)
		die(72, "fake: the supervisor sent what it must not");
	answer(&msg);
	return true;
}

int
main(void)
{
	parse_script();
	moment("start");
	hello();
	moment("hello");
	while (!draining || nr_sessions > 0) {
		if (receive())
			continue;
		/* As a real one does: with sessions it waits for another supervisor. */
		if (nr_sessions == 0)
			return 0;
		deed_hang();
	}
	return 0;
}
