/* SPDX-License-Identifier: Apache-2.0 */
/* ● The only place that reads exit statuses.  A worker is watched by its pidfd, so
 * one that is not our child is watched in the same way; what it writes on stderr is
 * republished in our log. */
#include "supervisor/child.h"

#include <errno.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/exitcode.h"
#include "common/fd.h"
#include "common/xalloc.h"
#include "supervisor/privs.h"
#include "supervisor/supervisor.h"

/* Reads in one turn of the loop: a worker that talks without end gets its share. */
#define WORDS_TURN 8

static const char *
exit_text(int code)
{
	switch (code) {
	case EXITCODE_OK:
		return "";
	case EXITCODE_USAGE:
		return " (bad command line)";
	case EXITCODE_FATAL:
		return " (fatal error)";
	case EXITCODE_SANDBOX:
		return " (a confinement step failed)";
	case EXITCODE_PROTOCOL:
		return " (it refused what we sent)";
	case EXITCODE_SELFTEST:
		return " (its self-test failed)";
	case EXITCODE_EXEC:
		return " (could not be executed)";
	default:
		return "";
	}
}

static void
describe_exit(const siginfo_t *info, char *text, size_t bytes)
{
	switch (info->si_code) {
	case CLD_EXITED:
		snprintf(text, bytes, "exited with code %d%s", info->si_status,
		    exit_text(info->si_status));
		return;
	case CLD_KILLED:
	case CLD_DUMPED:
		snprintf(text, bytes, "killed by SIG%s%s",
		    sigabbrev_np(info->si_status) != NULL ? sigabbrev_np(info->si_status) : "?",
		    info->si_code == CLD_DUMPED ? " (core)" : "");
		return;
	default:
		/* Another process reaped it, or it never was our child. */
		snprintf(text, bytes, "ended, nobody knows how");
		return;
	}
}

/* Whether it went the way it was told to. */
static bool
was_told(const struct child *child, const siginfo_t *info)
{
	if (child->failed)
		return false;
	switch (child->state) {
	case CHILD_KILLING: /* because it was not wanted any more */
		return true;
	case CHILD_STOPPING:
	case CHILD_UNLINKED:
	case CHILD_DRAINING:
		return child->drain_sent && list_is_empty(&child->sessions) &&
		    (info->si_code != CLD_EXITED || info->si_status == EXITCODE_OK) &&
		    info->si_code != CLD_KILLED && info->si_code != CLD_DUMPED;
	default:
		return false;
	}
}

/* By somebody else, for reasons that lie outside of it: the kernel sends SIGKILL only where
 * memory is short, and the others never. */
static bool
was_killed(const struct child *child, const siginfo_t *info)
{
	if (info->si_code != CLD_KILLED || child->cause[0] != '\0')
		return false;
	switch (info->si_status) {
	case SIGKILL:
		return !oom_has_killed(&child->sup->oom);
	case SIGTERM:
	case SIGINT:
	case SIGHUP:
		return true;
	default:
		return false;
	}
}

static void
compose_obituary(struct child *child, const siginfo_t *info)
{
	char how[96];
	char report[128];
	size_t n;

	describe_exit(info, how, sizeof(how));
	child->was_killed = was_killed(child, info);
	child->crashed |= (info->si_code == CLD_EXITED && info->si_status != EXITCODE_OK) ||
	    info->si_code == CLD_DUMPED ||
	    (info->si_code == CLD_KILLED && info->si_status != SIGKILL && !child->was_killed);
	if (child_spawn_report(child, report, sizeof(report)))
		snprintf(child->obituary, sizeof(child->obituary), "%s: %s", how, report);
	else
		snprintf(child->obituary, sizeof(child->obituary), "%s%s%s", how,
		    child->cause[0] != '\0' ? ": " : "", child->cause);
	n = strlen(child->obituary);
	if (child->failed && child->last_words[0] != '\0')
		snprintf(child->obituary + n, sizeof(child->obituary) - n, ", last words: \"%s\"",
		    child->last_words);
}

/* --- What it says ---------------------------------------------------------------- */

/* A worker marks the level of a line as we do; what it calls an error is at most a
 * warning to us, because nobody has checked it. */
static void
republish(struct child *child)
{
	enum log_level level = LOG_LEVEL_NOTICE;
	char *line = child->partial;

	child->partial[child->partial_bytes] = '\0';
	child->partial_bytes = 0;
	if (line[0] == '<' && line[1] >= '0' && line[1] <= '7' && line[2] == '>') {
		level = (enum log_level)(line[1] - '0');
		if (level < LOG_LEVEL_WARNING)
			level = LOG_LEVEL_WARNING;
		line += 3;
	}
	if (line[0] == '\0')
		return;
	for (char *p = line; *p != '\0'; p++) {
		if ((unsigned char)*p < ' ' || *p == 127)
			*p = '?';
	}
	snprintf(child->last_words, sizeof(child->last_words), "%s", line);
	log_limited(&child->said, level, "child %" PRIu32 " v%s pid=%d: said: %s", child->number,
	    child->version, (int)child->pid, line);
}

static void
hear(struct child *child, const char *text, size_t bytes)
{
	for (size_t i = 0; i < bytes; i++) {
		if (text[i] == '\n')
			republish(child);
		else if (child->partial_bytes < sizeof(child->partial) - 1)
			child->partial[child->partial_bytes++] = text[i];
	}
}

static void
on_words(struct ev_loop *loop, ev_io *w, int events)
{
	struct child *child = w->data;
	char text[4096];
	ssize_t n = 1;

	(void)events;
	for (int i = 0; i < WORDS_TURN && n > 0; i++) {
		n = read(child->words_fd, text, sizeof(text));
		if (n > 0)
			hear(child, text, (size_t)n);
	}
	if (n == 0 || (n < 0 && errno != EAGAIN && errno != EINTR))
		ev_io_stop(loop, w);
}

/* --- Its end --------------------------------------------------------------------- */

static void
on_exit_watch(struct ev_loop *loop, ev_io *w, int events)
{
	struct child *child = w->data;
	siginfo_t info = {0};

	(void)events;
	if (waitid(P_PIDFD, (id_t)child->pidfd, &info, WEXITED | WNOHANG) < 0) {
		/* ECHILD: adopted from an earlier supervisor.  The pidfd has said that it
		 * ended, and that is all there is to know. */
		if (errno == EINTR)
			return;
		info = (siginfo_t){0};
	} else if (info.si_pid == 0) {
		return; /* not yet */
	}
	ev_io_stop(loop, w);
	/* Its last messages and words are still on their way to us. */
	endpoint_drain(&child->ep);
	on_words(loop, &child->words, EV_READ);
	if (child->partial_bytes > 0)
		republish(child);
	if (!was_told(child, &info))
		child->failed = true;
	compose_obituary(child, &info);
	child_step(child, CHILD_EV_EXITED, NULL);
}

void
child_reap_start(struct child *child)
{
	struct ev_loop *loop = child->sup->loop;

	ev_io_init(&child->exit_watch, on_exit_watch, child->pidfd, EV_READ);
	child->exit_watch.data = child;
	ev_io_start(loop, &child->exit_watch);
	ev_io_init(&child->words, on_words, child->words_fd, EV_READ);
	child->words.data = child;
	ev_io_start(loop, &child->words);
}

void
child_reap_stop(struct child *child)
{
	struct ev_loop *loop = child->sup->loop;

	if (child->pidfd >= 0)
		ev_io_stop(loop, &child->exit_watch);
	if (child->words_fd >= 0)
		ev_io_stop(loop, &child->words);
	fd_closep(&child->pidfd);
	fd_closep(&child->words_fd);
}

/* --- Those without a descriptor --------------------------------------------------- */

/* How often they are looked at: nothing else tells. */
#define UNWATCHED_S 0.05

struct unwatched {
	struct list link; /* fleet.unwatched */
	pid_t pid;
};

static void
drop_unwatched(struct unwatched *process)
{
	list_remove(&process->link);
	free(process);
}

static void
reap_unwatched(struct fleet *fleet)
{
	struct list *pos, *tmp;

	list_for_each_safe(pos, tmp, &fleet->unwatched) {
		struct unwatched *process = list_entry(pos, struct unwatched, link);
		siginfo_t info = {0};
		int r = waitid(P_PID, (id_t)process->pid, &info, WEXITED | WNOHANG);

		if ((r < 0 && errno != EINTR) || (r == 0 && info.si_pid != 0))
			drop_unwatched(process);
	}
	if (list_is_empty(&fleet->unwatched))
		ev_timer_stop(fleet->sup->loop, &fleet->reap_again);
}

static void
on_reap_again(struct ev_loop *loop, ev_timer *w, int events)
{
	(void)loop;
	(void)events;
	reap_unwatched(w->data);
}

void
child_reap_unwatched(struct fleet *fleet, pid_t pid)
{
	struct unwatched *process = xcalloc(1, sizeof(*process));

	process->pid = pid;
	list_add(&fleet->unwatched, &process->link);
	ev_timer_again(fleet->sup->loop, &fleet->reap_again);
}

void
child_reap_unwatched_init(struct fleet *fleet)
{
	list_init(&fleet->unwatched);
	ev_timer_init(&fleet->reap_again, on_reap_again, 0., UNWATCHED_S);
	fleet->reap_again.data = fleet;
}

void
child_reap_unwatched_fini(struct fleet *fleet)
{
	ev_timer_stop(fleet->sup->loop, &fleet->reap_again);
	while (!list_is_empty(&fleet->unwatched))
		drop_unwatched(list_entry(fleet->unwatched.next, struct unwatched, link));
}

void
child_kill(struct child *child)
{
	scoped_priv enum priv held = priv_raise(PRIV_KILL);

	(void)held;
	/* What it says from now on is not wanted. */
	endpoint_close(&child->ep);
	if (child->pidfd >= 0 &&
	    syscall(SYS_pidfd_send_signal, child->pidfd, SIGKILL, NULL, 0) < 0 && errno != ESRCH)
		child_log(child, LOG_LEVEL_ERR, "cannot be killed: %s; waiting for its own end",
		    strerror(errno));
}
