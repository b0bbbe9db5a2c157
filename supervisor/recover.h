/* SPDX-License-Identifier: Apache-2.0 */
/* Finding what an earlier supervisor has left running: its workers, by their rendezvous
 * sockets, and their sessions, by the records and by what each worker tells.
 *
 * A worker that answers late, or what makes no sense to us, is not killed: it may hold the
 * only reference to a VM's memory.  It is no longer waited for, and welcome whenever it
 * answers. */
#ifndef SUPERVISOR_RECOVER_H
#define SUPERVISOR_RECOVER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct child;
struct ipc_inventory_end;
struct ipc_session_held_trace;
struct ipc_session_ended;
struct supervisor;

struct recovery {
	bool is_running; /* records are left that no worker has answered for */
	uint64_t begun_ns;
	uint64_t workers, sessions, ended, lost; /* for the log */
};

/* Reads the records and knocks at every worker that runs.  Needs fleet and sessions. */
void recover_start(struct supervisor *sup);
/* At the end of each turn of the loop: once every worker has answered or died, sessions
 * that none of them has are lost. */
void recover_check(struct supervisor *sup);
/* No worker is worth waiting for any longer. */
bool recover_is_settled(const struct supervisor *sup);

/* What the service manager has kept of a session whose record is lost, and which no worker has:
 * its VM lives, and nobody knows what belongs into its memory.  It is held. */
void recover_unrecorded(struct supervisor *sup, uint64_t number);

/* Actions of the child's state machine: asks for the inventory; is late, knocks again if
 * the link was lost. */
void recover_ask(struct child *child);
void recover_ask_again(struct child *child);
/* Hangs up on it: child->cause says why. */
void recover_disown(struct child *child);

/* Parts of the inventory; fds are moved out when kept.  0, or -EPROTO: the worker lied. */
int recover_on_overlays(struct child *child, uint32_t seq, uint64_t number, int *fds);
int recover_on_waiting(struct child *child, uint32_t seq, uint64_t number, int *fds);
int recover_on_connected(struct child *child, uint32_t seq, uint64_t number, int *fds);
int recover_on_serving(struct child *child, uint32_t seq, uint64_t number, int *fds);
int recover_on_trace(struct child *child, const struct ipc_session_held_trace *msg, int *fds);
int recover_on_ended(struct child *child, const struct ipc_session_ended *msg);
int recover_on_end(struct child *child, const struct ipc_inventory_end *msg);

#endif
