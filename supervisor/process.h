/* SPDX-License-Identifier: Apache-2.0 */
/* ● The only fork: of a worker, which goes on to be executed (child_spawn.c), and of the
 * opener and its processes (opener/). */
#ifndef SUPERVISOR_PROCESS_H
#define SUPERVISOR_PROCESS_H

#include <sys/types.h>

/* 1 in the new process, where every signal is blocked and none of our handlers can run; 0 in
 * this one, or a negative errno.  ret_pid may be NULL. */
int process_fork(pid_t *ret_pid);

/* In the new process: no handler, nothing ignored, nothing blocked.  0 or a negative errno. */
int process_reset_signals(void);

/* As process_fork(), of one that stays ours, with a pidfd in *ret_pidfd that the caller owns.
 * *spare (owned) is closed before that is opened: it has kept a place for it. */
int process_fork_watched(int *spare, int *ret_pidfd);

/* One that has ended, of which nobody wants to know how. */
void process_reap(int pidfd);

/* Kills it, if it lives; one that waits for storage ends when that has answered. */
void process_kill(int pidfd);

#endif
