/* SPDX-License-Identifier: Apache-2.0 */
/* The VMM of a session, seen through the connection that it made: who it is and when
 * it is gone.  A userfaultfd tells neither. */
#ifndef SUPERVISOR_VMM_H
#define SUPERVISOR_VMM_H

#include <stdbool.h>
#include <sys/types.h>

struct session;

struct vmm_peer {
	pid_t pid; /* for the log and for people; 0 when it is outside our pid namespace */
	uid_t uid;
};

/* Who connected, as the kernel noted it then.  0 or a negative errno. */
int vmm_peer(int connection, struct vmm_peer *ret);

/* A descriptor of that process, which the caller owns.  0, or a negative errno:
 * -ESRCH it has exited already, -ENODATA the kernel cannot name it from here. */
int vmm_pidfd(int connection, int *ret_pidfd);

/* The process behind a pidfd has exited. */
bool vmm_has_exited(int pidfd);

/* SIGKILL, by pidfd.  0; -ESRCH when it has exited already or is not known by a pidfd; -EPERM
 * when this pagerd may not. */
int vmm_kill(const struct session *session);

/* Reports its exit to the session, once, from the loop. */
void vmm_watch_start(struct session *session);
void vmm_watch_stop(struct session *session);

#endif
