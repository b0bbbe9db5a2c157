/* SPDX-License-Identifier: Apache-2.0 */
/* A worker process as the supervisor sees it.
 *
 * Lifetime: child_new() by the fleet, on the fleet's list until state GONE, freed by
 * fleet_sweep() at the end of a loop turn and never inside a callback.  A child that
 * is GONE has no process, no link and no session.
 *
 * child_step() (child_fsm.c) is the only writer of state. */
#ifndef SUPERVISOR_CHILD_H
#define SUPERVISOR_CHILD_H

#include <ev.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "common/list.h"
#include "common/log.h"
#include "common/version.h"
#include "ipc/endpoint.h"
#include "supervisor/child_fsm.h"

struct supervisor;

struct child {
	struct list link; /* fleet.children */
	struct supervisor *sup;
	uint32_t number; /* for the log, counts up */
	char version[VERSION_BYTES];
	enum child_state state;
	pid_t pid;   /* for the log; -1 without a process */
	int pidfd;   /* owned; -1 without a process */
	int rendezvous; /* owned; the listening socket that a later supervisor connects to */
	uint32_t sandbox; /* enum ipc_sandbox bits from HELLO */
	uint64_t started_ns;
	struct endpoint ep;
	struct list sessions; /* of struct session.on_child: sent or about to be sent to it */
	ev_io exit_watch;     /* pidfd */
	ev_io words;	      /* its stderr */
	ev_timer deadline;    /* one for each state that has one */
	bool drain_sent;
	char last_words[256]; /* the last line it wrote, for the obituary */
	struct log_limit said;
};

void child_log(const struct child *child, enum log_level level, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));

/* HELLO was accepted and no DRAIN was sent. */
bool child_is_ready(const struct child *child);
bool child_is_draining(const struct child *child);

/* Sends to its worker.  0, or a negative errno after which the link is going down
 * and LINK_LOST follows from the loop. */
int child_send(struct child *child, const struct ipc_msg *msg, const int *fds, size_t nr_fds);

/* Call after anything that can have removed its last session. */
void child_check_empty(struct child *child);

#endif
