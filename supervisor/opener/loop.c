/* SPDX-License-Identifier: Apache-2.0 */
/* The opener: a process that waits for work and gives each piece of it a process of its own,
 * so that storage which does not answer keeps nobody but who asked for it.  It touches no
 * path itself, so it is always there and small.  Its end of the link is shared by all. */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "common/exitcode.h"
#include "common/fd.h"
#include "common/log.h"
#include "supervisor/opener/job.h"
#include "supervisor/privs.h"
#include "supervisor/process.h"

#define LINK 3

/* Nothing of pagerd's but standard error and the link. */
static int
keep_only(int link)
{
	if (link != LINK && dup3(link, LINK, O_CLOEXEC) < 0)
		return -errno;
	return syscall(SYS_close_range, LINK + 1, ~0U, 0) < 0 ? -errno : 0;
}

static int
settle(int link)
{
	static const enum priv needs[] = {PRIV_CLIENT_FILES, PRIV_ROOT_FILES};
	int r = process_reset_signals();

	/* The processes that are made here are reaped by the kernel. */
	if (r == 0 && signal(SIGCHLD, SIG_IGN) == SIG_ERR)
		r = -errno;
	signal(SIGPIPE, SIG_IGN);
	if (r == 0)
		r = keep_only(link);
	/* Out of reach of a terminal's ^C: it is pagerd's to say when it is not needed. */
	if (r == 0 && (setpgid(0, 0) < 0 || chdir("/") < 0))
		r = -errno;
	if (r == 0)
		r = privs_keep(needs, sizeof(needs) / sizeof(needs[0]));
	if (r == 0 && prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
		r = -errno;
	prctl(PR_SET_NAME, "pagerd-opener", 0, 0, 0);
	return r;
}

static void
serve(uint64_t number, const int *fds, size_t nr_fds)
{
	struct opener_word word = {.number = number, .kind = OPENER_FAILED};
	pid_t pid = -1;
	int r = nr_fds > 0 ? process_fork(&pid) : -EMFILE;

	/* What writes goes on when we end: it may have begun. */
	if (r == 0 && nr_fds > 1)
		(void)setpgid(pid, pid);
	if (r == 0)
		return;
	if (r == 1) {
		process_reset_signals();
		signal(SIGPIPE, SIG_IGN);
		opener_do(LINK, number, fds[0], nr_fds > 1 ? fds[1] : -1);
		_exit(EXITCODE_OK);
	}
	word.error = r;
	(void)opener_send(LINK, &word, OPENER_SHORT_BYTES, NULL, 0, 0);
}

void
opener_loop(int link)
{
	int r = settle(link);

	if (r < 0)
		log_err("opener: cannot be confined: %d", -r);
	while (r == 0) {
		int fds[OPENER_MAX_FDS];
		size_t nr_fds = 2;
		struct opener_call call;
		int n = opener_receive(LINK, &call, sizeof(call), fds, &nr_fds, 0);

		if (n == 0 || (n < 0 && n != -ENOMEM && n != -ENOBUFS))
			break;
		if (n == (int)sizeof(call))
			serve(call.number, fds, nr_fds);
		fd_close_all(fds, nr_fds);
	}
	/* pagerd may have died: nobody else knows of those that wait for storage. */
	if (r == 0)
		(void)kill(0, SIGKILL);
	_exit(r == 0 ? EXITCODE_OK : EXITCODE_FATAL);
}
