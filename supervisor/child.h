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

struct fleet;
struct supervisor;

struct child {
	struct list link; /* fleet.children */
	struct supervisor *sup;
	uint32_t number; /* for the log, counts up */
	char version[VERSION_BYTES];
	enum child_state state;
	pid_t pid;	/* for the log; -1 without a process */
	int pidfd;	/* owned; -1 without a process */
	int rendezvous; /* owned; the listening socket that a later supervisor connects to */
	uint32_t inventory_seq; /* of the INVENTORY that it answers or has answered; 0: none */
	uint32_t nr_held;	/* sessions that it has named in it */
	bool is_late;		/* with its inventory */
	uint64_t overlays_of;	/* the session in it that overlays_fd is of */
	int overlays_fd;	/* owned; of the session that it names next; -1: none */
	uint32_t sandbox;	/* enum ipc_sandbox bits from HELLO */
	uint64_t started_ns;
	struct endpoint ep;
	struct list sessions; /* of struct session.on_child: sent or about to be sent to it */
	ev_io exit_watch;     /* pidfd */
	ev_io words;	      /* its stderr */
	ev_timer deadline;    /* one for each state that has one */
	ev_timer heartbeat;
	uint64_t ready_ns;    /* when HELLO came; 0: it has not */
	uint32_t ping_seq;    /* of the PING in flight; 0: none */
	uint32_t stray_pongs; /* answers since the last PING that nobody asked for */
	uint32_t missed;      /* heartbeats in a row without an answer */
	uint64_t heard_ns;    /* when it answered last, by HELLO or PONG */
	uint64_t hung_ns;     /* heard_ns of one that was killed as hung; else 0 */
	int words_fd;	      /* owned; the read end of its stderr */
	int words_end;	      /* owned; its write end, until INVENTORY takes it along; else -1 */
	int report_fd;	      /* owned; says why it could not be executed, see child_spawn.c */
	char rendezvous_path[108]; /* removed with the child */
	bool drain_sent;
	bool is_behind;	      /* some of its sessions are not sent, until its queue is shorter */
	char last_words[256]; /* the last line it wrote, for the obituary */
	char partial[256];    /* the line that it is writing */
	size_t partial_bytes;
	bool is_trial;	    /* of sessions that are suspected of killing workers, for no others */
	unsigned turn;	    /* of the loop, in which it was started for them */
	char obituary[512]; /* how it ended, in words; empty while it lives */
	char cause[160];    /* why we lost patience with it, in words; empty when we did not */
	bool failed;	    /* it ended otherwise than it was told to */
	bool crashed;	    /* and by its own doing, as far as the kernel tells */
	bool was_killed;    /* by somebody who is neither we nor a kernel that is short of memory */
	struct log_limit said;
};

void child_log(const struct child *child, enum log_level level, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));

/* HELLO was accepted and no DRAIN was sent. */
bool child_is_ready(const struct child *child);
bool child_is_draining(const struct child *child);
/* HELLO was accepted: what it is told reaches it, also while it drains. */
bool child_listens(const struct child *child);

/* Has sessions that it was to adopt or to let go of, and that nobody serves meanwhile. */
bool child_has_unserved(const struct child *child);

/* Sends to its worker.  0; -EMFILE, -ENFILE or -ENOMEM: nothing was sent and the link is
 * intact (we lack descriptors, which is not the worker's fault); any other negative
 * errno: the link is down or going down and LINK_LOST follows from the loop, or has
 * come already. */
int child_send(struct child *child, const struct ipc_msg *msg, const int *fds, size_t nr_fds);

/* Call after anything that can have removed its last session. */
void child_check_empty(struct child *child);

/* The rest is for the fleet and the files of the child. */

/* A child without a process, on no list. */
struct child *child_new(struct supervisor *sup, const char *version, uint32_t number);
/* Kills and forgets nothing: what still runs goes on, without us. */
void child_free(struct child *child);
/* Still has, or will have, a link that new sessions can go over, and is there for them. */
bool child_takes_sessions(const struct child *child);
uint64_t child_nr_sessions(const struct child *child);
/* Those whose VM would freeze without it; the others wait for a VMM and can move. */
uint64_t child_nr_serving(const struct child *child);

/* Starts the clock of the first state; call it once the child is on the fleet's list. */
void child_fsm_start(struct child *child);

/* Starts the process in state STARTING.  worker is a descriptor of its executable and
 * stays the caller's.  0, or a negative errno and a sentence; then child is as before. */
int child_spawn(struct child *child, int worker, char *why, size_t why_bytes);
/* What stopped it between fork and exec, as a sentence; false when nothing did. */
bool child_spawn_report(struct child *child, char *why, size_t why_bytes);

/* Puts the supervisor's end of the link on the loop. */
void child_link_open(struct child *child, int fd);

/* Watches the process and what it says. */
void child_reap_start(struct child *child);
void child_reap_stop(struct child *child);
/* Reaps a child of ours, killed before it became a worker, that no descriptor tells the end of. */
void child_reap_unwatched(struct fleet *fleet, pid_t pid);
void child_reap_unwatched_init(struct fleet *fleet);
void child_reap_unwatched_fini(struct fleet *fleet);
/* SIGKILL, by pidfd: a process id could have been given to another process. */
void child_kill(struct child *child);

/* Actions of the state machine that reach beyond the child. */
void child_on_ready(struct child *child);
void child_on_unlinked(struct child *child);
void child_on_gone(struct child *child);

#endif
