/* SPDX-License-Identifier: Apache-2.0 */
/* The VMM's side of a session: its connection and its handshake. */
#ifndef WORKER_SESSION_VMM_H
#define WORKER_SESSION_VMM_H

struct session;

/* Starts to wait for the VMM on session.listener. */
void session_vmm_listen(struct session *s);

/* Accepts whom it may accept in its state. */
void session_vmm_accept(struct session *s);

/* Starts a handshake on fd, which it takes over. */
void session_vmm_begin(struct session *s, int fd);

/* Goes on with a session whose handshake is long over: takes its regions from the page map.
 * Takes uffd and connection over when it succeeds; otherwise a negative errno.  It is served
 * from session_vmm_serve() on. */
int session_vmm_resume(struct session *s, int *uffd, int *connection);

/* Starts its fault thread.  0 or a negative errno. */
int session_vmm_serve(struct session *s);
/* After that: wakes every thread of the VMM that waits, because a fault that a dead reader
 * had read is never delivered again. */
void session_vmm_wake(struct session *s);

/* Between two supervisors: a VMM that is not served yet has to wait. */
void session_vmm_pause(struct session *s);
void session_vmm_go_on(struct session *s);

/* Stops every watcher and forgets a handshake under way.  Safe to repeat. */
void session_vmm_stop(struct session *s);

#endif
