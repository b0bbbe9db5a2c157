/* SPDX-License-Identifier: Apache-2.0 */
/* Children that give up their user, for the tests of the sandbox. */
#ifndef TESTS_UNIT_CONFINED_H
#define TESTS_UNIT_CONFINED_H

#include <errno.h>
#include <grp.h>
#include <sys/wait.h>
#include <unistd.h>

#define UNPRIVILEGED 64321

/* Exit codes of a child that was not killed. */
#define WORKED 0
#define FAILED 100 /* a needed call; or a forbidden one, but with another error */
#define PASSED 101 /* a forbidden call succeeded */

/* As the supervisor does before it executes a worker. */
static inline void
drop_user(void)
{
	if (geteuid() != 0)
		return;
	if (setgroups(0, NULL) < 0 || setresgid(UNPRIVILEGED, UNPRIVILEGED, UNPRIVILEGED) < 0 ||
	    setresuid(UNPRIVILEGED, UNPRIVILEGED, UNPRIVILEGED) < 0)
		_exit(FAILED);
}

/* The exit status of a child. */
static inline int
status_of(pid_t pid)
{
	int status = -1;

	while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
		;
	return status;
}

#endif
