/* SPDX-License-Identifier: Apache-2.0 */
/* A session as the supervisor sees it: one restored VM's binding to a worker.
 *
 * The supervisor holds, from the moment each exists and until the session has ended:
 * the listening socket, the image, the page map, the VMM's connection and a duplicate
 * of the userfaultfd.  A live userfaultfd therefore never loses its last holder when
 * a worker dies.  A session that has ended is a tombstone: it keeps id, outcome and
 * counters for a while and holds no descriptor.
 *
 * session_step() (session_fsm.c) is the only writer of state. */
#ifndef SUPERVISOR_SESSION_H
#define SUPERVISOR_SESSION_H

#include <ev.h>
#include <stdbool.h>
#include <stdint.h>

#include "common/list.h"
#include "common/log.h"
#include "common/pagemap.h"
#include "common/version.h"
#include "ipc/message.h"
#include "supervisor/image.h"
#include "supervisor/session_fsm.h"

struct child;
struct supervisor;

#define SESSION_ID_BYTES 128 /* with the terminator */

/* How a session ended.  The words are the API's. */
enum session_outcome {
	SESSION_OUTCOME_NONE,	   /* it has not */
	SESSION_OUTCOME_GRADUATED, /* the VM needs no pager any more */
	SESSION_OUTCOME_CLOSED,	   /* by request */
	SESSION_OUTCOME_VMM_EXITED,
	SESSION_OUTCOME_REFUSED,   /* the handshake was invalid: see reason */
	SESSION_OUTCOME_TIMED_OUT, /* the VMM never came */
	SESSION_OUTCOME_FAILED,	   /* could not be created: see reason */
};

/* What a client asks for.  Strings are borrowed for the call. */
struct session_request {
	const char *id;	       /* NULL: instance, else generated */
	const char *instance;  /* the VM's name; may be NULL */
	const char *image_path;
	const char *cache_key; /* NULL: the image's identity */
	uid_t vmm_uid;	       /* who may connect: owner of the socket */
	gid_t vmm_gid;
	bool memfd;
	uint64_t handshake_timeout_ms; /* 0: the configured default */
	uint64_t cluster_min_bytes;    /* 0: the configured default */
	uint64_t cluster_max_bytes;
};

/* One party that waits for something of a session; embedded in the waiter. */
struct session_wait {
	struct list link; /* session.waits */
	/* Called from the loop after each change; returns true when it is satisfied and
	 * has been removed.  The session is valid during the call. */
	bool (*check)(struct session_wait *wait);
	struct session *session;
};

struct session {
	struct list link;     /* sessions.all */
	struct list on_child; /* child.sessions */
	struct supervisor *sup;
	uint64_t number; /* the wire's name for it */
	char id[SESSION_ID_BYTES];
	char instance[SESSION_ID_BYTES];
	char cache_key[SESSION_ID_BYTES];
	char image_path[4096];
	char socket_path[108];
	enum session_state state;
	enum session_outcome outcome;
	char reason[256];   /* why it ended or what alarms, for people */
	char version[VERSION_BYTES]; /* of the worker that serves it, or served it last */
	struct child *child; /* NULL: none */
	uint32_t open_seq;   /* of SESSION_OPEN in flight; 0: none */
	uint32_t complete_seq;
	uint64_t created_ns, serving_ns, ended_ns; /* CLOCK_MONOTONIC; 0: not yet */
	uint32_t nr_regions;
	uint64_t guest_bytes;
	pid_t vmm_pid; /* -1 before the handshake */
	struct image image; /* .fd -1 once ended */
	int listener, uffd, connection, vmm_pidfd, map_fd; /* owned; -1: none */
	struct pagemap map;  /* read-only */
	ev_io vmm_watch;     /* vmm_pidfd */
	ev_timer deadline;   /* one for each state that has one */
	struct list waits;   /* of struct session_wait.link */
	uint32_t alarms;
	struct log_limit alarm_limit;
	uint64_t cluster_min_bytes, cluster_max_bytes, handshake_timeout_ms;
	uint32_t flags;	     /* enum ipc_session_flag */
	uint64_t last_counters[COUNTER_COUNT]; /* when it ended */
	struct pagemap_counts last_counts;
};

struct sessions {
	struct supervisor *sup;
	struct list all; /* of struct session.link, in order of creation, with tombstones */
	uint64_t live;	 /* without tombstones */
	uint64_t next_number;
	uint64_t retired[COUNTER_COUNT]; /* counters of sessions whose tombstones are gone */
};

void sessions_init(struct sessions *sessions, struct supervisor *sup);
void sessions_fini(struct sessions *sessions);
/* Drops tombstones whose time is over.  At the end of a loop turn. */
void sessions_sweep(struct sessions *sessions);

/* Newest of that id, tombstones included, or NULL. */
struct session *session_find(struct sessions *sessions, const char *id);

/* Opens the image as peer, binds the socket, hands the session to the current worker
 * (started if needed).  0 and a borrowed session in state CREATED: SESSION_OPEN is sent
 * or will be once the worker is ready; wait for session_is_opened().  Otherwise a
 * negative errno (-EEXIST a live session has the id, -EINVAL, -ENOSPC too many, -EAGAIN
 * or -ENOENT no worker, or image_open()'s) and a sentence in why. */
int session_create(struct sessions *sessions, const struct peer *peer,
    const struct session_request *req, struct session **ret, char *why, size_t why_bytes);

/* The worker has acknowledged it. */
bool session_is_opened(const struct session *session);
bool session_is_live(const struct session *session);

/* Ends it: the worker is told, descriptors go once it has answered (or has died). */
void session_close(struct session *session, enum session_outcome outcome, const char *reason);

/* Starts a completion.  0; -EALREADY when it graduated; -EBUSY when one runs;
 * -EINVAL (with why) in a state that cannot.  Wait for the state to leave COMPLETING. */
int session_complete(struct session *session, char *why, size_t why_bytes);
/* Asks for the completion to stop at the next chunk. */
void session_abort(struct session *session);

void session_wait_add(struct session *session, struct session_wait *wait);
/* Safe on a wait that is on no list (list_init was called on its link). */
void session_wait_remove(struct session_wait *wait);

/* Events from the worker and the fleet. */
void sessions_on_child_ready(struct sessions *sessions, struct child *child);
/* The worker process is gone (reason in words): after it no session points at child. */
void sessions_on_child_gone(struct sessions *sessions, struct child *child, const char *reason);
/* Messages: fds are moved out when kept.  0; -EPROTO when the worker lied, the child pays. */
int session_on_opened(struct child *child, const struct ipc_session_opened *msg);
int session_on_serving(struct child *child, const struct ipc_session_serving *msg, int *fds);
int session_on_refused(struct child *child, const struct ipc_session_refused *msg);
int session_on_closed(struct child *child, const struct ipc_session_closed *msg);
int session_on_completed(struct child *child, const struct ipc_session_completed *msg);
int session_on_gone(struct child *child, const struct ipc_session_gone *msg);
int session_on_alarm(struct child *child, const struct ipc_session_alarm *msg);

/* "graduated", "vmm-exited", … */
const char *session_outcome_name(enum session_outcome outcome);
/* Counters and page counts now, or as they were when it ended. */
void session_counters(const struct session *session, uint64_t ret[COUNTER_COUNT]);
void session_counts(const struct session *session, struct pagemap_counts *ret);
/* Sums over all sessions, ended ones included; version NULL for every version. */
void sessions_counters(
    const struct sessions *sessions, const char *version, uint64_t ret[COUNTER_COUNT]);

void session_log(const struct session *session, enum log_level level, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));

#endif
