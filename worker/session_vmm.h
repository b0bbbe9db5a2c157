/* SPDX-License-Identifier: Apache-2.0 */
/* The VMM's side of a session: its connection and its handshake. */
#ifndef WORKER_SESSION_VMM_H
#define WORKER_SESSION_VMM_H

struct session;

/* Starts to wait for the VMM on session.listener. */
void session_vmm_listen(struct session *s);

/* Stops every watcher and forgets a handshake under way.  Safe to repeat. */
void session_vmm_stop(struct session *s);

#endif
