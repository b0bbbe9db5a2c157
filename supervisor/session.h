/* SPDX-License-Identifier: Apache-2.0 */
/* A session as the supervisor sees it: one restored VM's binding to a worker.
 *
 * The supervisor holds, from the moment each exists and until the session has ended:
 * the image, the page map, the VMM's connection and a duplicate of the userfaultfd;
 * and the listening socket until the handshake.  A live userfaultfd therefore never
 * loses its last holder when a worker dies.  A session that has ended is a tombstone:
 * it keeps id, outcome and counters for a while and holds no descriptor.
 *
 * session_step() (session_fsm.c) is the only writer of state.  Sessions are freed by
 * sessions_sweep() only, at the end of a loop turn, and waits are told there. */
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
#include "supervisor/image_policy.h"
#include "supervisor/metrics.h"
#include "supervisor/overlay.h"
#include "supervisor/prefetch.h"
#include "supervisor/session_fsm.h"

struct child;
struct picture;
struct recording;
struct supervisor;

#define SESSION_ID_BYTES    128 /* with the terminator */
#define TEMPLATE_NAME_BYTES 65

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

/* What a client asks for.  Strings are borrowed. */
struct session_request {
	const char *id;		/* NULL: instance, else generated */
	const char *instance;	/* the VM's name; may be NULL */
	const char *template;	/* that it is a fork of; NULL: none */
	const char *image_path; /* the template's when there is one, as is the key */
	const char *cache_key;	/* NULL: the image's identity */
	const char *version;	/* whose worker is to have it; NULL: the current one */
	uid_t vmm_uid;		/* who may connect: owner of the socket */
	gid_t vmm_gid;
	bool memfd;
	bool track_writes;	       /* also of a VMM that does not ask the kernel for it */
	uint64_t handshake_timeout_ms; /* 0: the configured default */
	uint64_t cluster_min_bytes;    /* 0: the configured default */
	uint64_t cluster_max_bytes;
	const char *on_image_error; /* a word of image_policy.h; NULL: the configured default */
	const struct overlay_request *overlays;
	size_t nr_overlays;
	bool record;		 /* the order in which its guest touches its pages */
	const char *record_path; /* where to; NULL: beside the image */
	const char *hot_list;	 /* path of the list to replay; NULL: the one beside the image */
	enum prefetch_mode prefetch;
};

/* One party that waits for something of a session; embedded in the waiter. */
struct session_wait {
	struct list link; /* session.waits */
	/* Called by sessions_sweep() after each change; returns true when it is satisfied
	 * and has been removed.  The session is valid during the call.  It may end its own
	 * or any other wait.  Once the session has ended it must be satisfied. */
	bool (*check)(struct session_wait *wait);
	struct session *session;
};

struct session {
	struct list link;     /* sessions.all */
	struct list on_child; /* child.sessions, or sessions.homeless, or none */
	struct list changed;  /* sessions.changed: its waits are to be told */
	struct list grave;    /* sessions.graves, once it has ended */
	struct supervisor *sup;
	uint64_t number; /* the wire's name for it */
	char id[SESSION_ID_BYTES];
	char instance[SESSION_ID_BYTES];
	char cache_key[SESSION_ID_BYTES];
	char template[TEMPLATE_NAME_BYTES]; /* that it is a fork of; empty: of none */
	bool is_unrecorded; /* its record was lost: nobody knows whether it is a fork */
	char *image_path;   /* owned */
	char socket_path[108];
	enum session_state state;
	enum session_outcome outcome;
	char reason[256];	     /* why it ended or what alarms, for people */
	char version[VERSION_BYTES]; /* of the worker that serves it, or served it last */
	char wanted[VERSION_BYTES];  /* that its client asked for; empty: the current one */
	struct child *child;	     /* NULL: none */
	bool sent;		     /* child has, or will read, its SESSION_OPEN */
	bool opened;		     /* a worker has acknowledged it */
	bool unwanted;		     /* somebody wants its end, whatever else ends it */
	uint32_t open_seq;	     /* of SESSION_OPEN in flight; 0: none */
	uint32_t complete_seq;
	uint32_t close_seq;
	uint32_t workers_lost;			   /* while it waited for its handshake */
	uint64_t created_ns, serving_ns, ended_ns; /* CLOCK_MONOTONIC; 0: not yet */
	uint64_t unserved_ns;	 /* since when nobody answers its faults; 0: somebody does */
	uint64_t adopted_ns;	 /* when it was taken over last; 0: never */
	uint32_t adoptions;	 /* how often it was taken over */
	uint32_t denials;	 /* how often in a row a worker would not take it over */
	uint64_t not_before_ns;	 /* when it is tried again after that; 0: at once */
	uint64_t tried_ns;	 /* the same since a death that it was blamed for; 0: not yet */
	uint32_t blame;		 /* deaths of workers shortly after they had taken it over */
	enum ipc_ended ended_as; /* as its worker says, while it is RECOVERING */
	uint32_t nr_stored;	 /* descriptors of it that the service manager keeps; 0: none */
	struct list unstored;	 /* fdstore.unstored, until it does */
	bool image_is_shared;	 /* image.fd may be one open file with that of another session */
	bool has_ended;		 /* ended_as is meant */
	bool is_on_trial;	 /* its worker is there to see whether it survives */
	/* The last completion: when it started and how much was present then; how it
	 * went.  completion_reason is empty when none has failed. */
	uint64_t completing_ns, completing_absent;
	enum ipc_completion completion;
	int completion_error; /* positive errno behind a failure, or 0 */
	char completion_reason[256];
	uint64_t stayed_ns; /* when the last one failed or was aborted; 0: none has */
	uint32_t nr_regions;
	uint64_t guest_bytes;
	uid_t vmm_uid;
	gid_t vmm_gid;
	pid_t vmm_pid;					   /* -1 before the handshake */
	struct image image;				   /* .fd -1 once ended */
	int listener, uffd, connection, vmm_pidfd, map_fd; /* owned; -1: none */
	struct pagemap map;				   /* read-only */
	struct overlays overlays;
	ev_io vmm_watch;	     /* vmm_pidfd */
	ev_io accepting;	     /* listener */
	ev_timer accept_again;	     /* when that could not be done */
	bool accept_failed;	     /* and that was said */
	ev_timer deadline;	     /* one for each state that has one */
	ev_timer trial;		     /* while it is on trial and served */
	struct list waits;	     /* of struct session_wait.link */
	struct picture *picture;     /* that its worker was asked for, by a waiter; NULL: none */
	struct recording *recording; /* owned; the one that runs or the last; NULL: none */
	struct prefetch *prefetch;   /* owned; NULL: none */
	uint32_t alarms;
	struct log_limit alarm_limit;
	char image_alarm[256];	/* pages cannot be read, for people; empty: all could */
	char image_changed[96]; /* how its file was modified in place; empty: it was not */
	char killed[160];	/* why we have killed its VMM; empty: we have not */
	bool inode_noted;
	bool socket_bound; /* socket_path is ours to unlink */
	uint64_t cluster_min_bytes, cluster_max_bytes, handshake_timeout_ms;
	uint32_t flags;			       /* enum ipc_session_flag */
	struct metrics_counts metered;	       /* what is in the metrics already */
	bool is_moving;			       /* to another worker: a hand-over, not an adoption */
	uint64_t last_counters[COUNTER_COUNT]; /* when it ended */
	struct pagemap_counts last_counts;     /* when it was counted last, or ended */
	uint64_t counted_ns;		       /* when that was; 0: never */
	struct pagemap_counts part_counts;     /* of a count that is not complete, */
	uint64_t part_pages;		       /* which has come so far */
};

struct sessions {
	struct supervisor *sup;
	struct list all;       /* of struct session.link, in order of creation, with tombstones */
	struct list changed;   /* of struct session.changed */
	struct list graves;    /* of struct session.grave, in order of their end */
	struct list homeless;  /* of struct session.on_child: wait for a worker to be started */
	struct list creations; /* of struct creation.link: not sessions yet */
	uint64_t nr_creations;
	ev_timer place_timer;		   /* while homeless is not empty: tries again */
	uint64_t live;			   /* without tombstones */
	uint64_t dead;			   /* tombstones */
	uint64_t next_number;		   /* counts up from 1, never reused */
	uint64_t picture_bytes;		   /* memory of pictures now: see PICTURE_MAX_BYTES */
	uint64_t retired[COUNTER_COUNT];   /* counters of sessions whose tombstones are gone */
	struct prefetch_totals prefetched; /* of those */
};

void sessions_init(struct sessions *sessions, struct supervisor *sup);
void sessions_fini(struct sessions *sessions);
/* trial-time has changed, perhaps: trials that are under way last as long as it says. */
void sessions_trials_changed(struct sessions *sessions);
/* Drops tombstones whose time is over.  At the end of a loop turn. */
void sessions_sweep(struct sessions *sessions);

/* Newest of that id (a live one before any tombstone), or NULL. */
struct session *session_find(struct sessions *sessions, const char *id);
struct session *session_by_number(struct sessions *sessions, uint64_t number);

struct creation;

/* session: borrowed, in state CREATED: SESSION_OPEN is sent or will be once the worker is ready;
 * wait for session_is_opened() or the end of session_is_live().  NULL: there is none, for a
 * negative errno and a sentence. */
typedef void (*session_created_fn)(void *arg, int error, struct session *session, const char *why);

/* Borrowed for the call. */
struct session_order {
	const struct peer *peer;
	const struct session_request *request;
	uint64_t open_timeout_ms; /* 0: the configured one */
	session_created_fn done;  /* called once, from the loop */
	void *arg;
};

/* Has the image opened as peer; then binds the socket and hands the session to the current
 * worker (started if needed).  0, and done will be called unless session_create_cancel() is.
 * Otherwise, here or to done, a negative errno and a sentence: -EEXIST a live session, or one
 * that is being created, has the id, -EINVAL, -EPERM another user's VMM, -ENOSPC too many,
 * -EAGAIN no worker can take it, -ETIMEDOUT its storage does not answer, -EMFILE, -ENFILE or
 * -ENOMEM, -ENAMETOOLONG the run directory leaves no room for a socket, or image_open()'s,
 * opener_copy_overlays()'s, template_fork()'s or template_check_image()'s. */
int session_create(struct sessions *sessions, const struct session_order *order,
    struct creation **ret, char *why, size_t why_bytes);
/* Nobody wants it any more: nothing is left of it.  NULL is none. */
void session_create_cancel(struct creation *creation);

/* The cache key of an image whose client names none. */
void session_image_key(const struct image *image, char ret[SESSION_ID_BYTES]);

/* The worker has acknowledged it. */
bool session_is_opened(const struct session *session);
/* Not a tombstone.  One that the worker is letting go of is still live. */
bool session_is_live(const struct session *session);
/* Ended as far as a client can tell: the outcome is decided (it may be CLOSING). */
bool session_is_over(const struct session *session);

/* Ends it: the worker is told, descriptors go once it has answered (or has died).
 * Without effect on one that is over. */
void session_close(struct session *session, enum session_outcome outcome, const char *reason);

/* Tells its waits what has happened to it, if they have not been told.  Whatever begins
 * something that they could take for what they wait for calls it first. */
void session_settle(struct session *session);

/* Starts a completion.  0; -EALREADY when it graduated; -EBUSY when one runs;
 * -EINVAL in a state that cannot, or the errno of sending it (why says which).  Wait for
 * the state to leave COMPLETING: GRADUATED, or see completion and completion_reason. */
int session_complete(struct session *session, char *why, size_t why_bytes);
/* The same with so many bytes a second at most; 0: no limit. */
int session_complete_paced(
    struct session *session, uint64_t rate_bytes, char *why, size_t why_bytes);
/* Asks for the completion to stop at the next chunk. */
void session_abort(struct session *session);

void session_wait_add(struct session *session, struct session_wait *wait);
/* Safe on a wait that is on no list (list_init was called on its link). */
void session_wait_remove(struct session_wait *wait);

/* Moves a served session to the running worker of a version: the same way as after a crash,
 * with both alive.  0; -EALREADY when it is there; -EINVAL, -ENOENT or -EAGAIN and why.  Wait
 * until it is serving again and has that version. */
int session_move(struct session *session, const char *version, char *why, size_t why_bytes);
/* For a session that is held: tries once more, with a worker of version (NULL: of the one
 * that it was on).  0 or -EINVAL and why. */
int session_retry(struct session *session, const char *version, char *why, size_t why_bytes);

/* Events from the worker and the fleet. */
void sessions_on_child_ready(struct sessions *sessions, struct child *child);
/* At the end of each turn of the loop: sends what had to wait because much was on its way. */
void sessions_on_child_room(struct child *child);
/* Its link is lost; the process may live on and serve what it serves. */
void sessions_on_child_unlinked(struct sessions *sessions, struct child *child);
/* The worker process is gone (reason in words): after it no session points at child. */
void sessions_on_child_gone(struct sessions *sessions, struct child *child, const char *reason);
/* Messages: fds are moved out when kept.  0; -EPROTO when the worker lied, the child pays. */
int session_on_opened(struct child *child, const struct ipc_session_opened *msg);
int session_on_connected(struct child *child, const struct ipc_session_connected *msg, int *fds);
int session_on_adopted(struct child *child, const struct ipc_session_adopted *msg);
int session_on_serving(struct child *child, const struct ipc_session_serving *msg, int *fds);
int session_on_refused(struct child *child, const struct ipc_session_refused *msg);
int session_on_closed(struct child *child, const struct ipc_session_closed *msg);
int session_on_completed(struct child *child, const struct ipc_session_completed *msg);
int session_on_gone(struct child *child, const struct ipc_session_gone *msg);
int session_on_alarm(struct child *child, const struct ipc_session_alarm *msg);
int session_on_image(struct child *child, const struct ipc_session_image *msg);
int session_on_image_file(struct child *child, const struct ipc_session_image_file *msg);
int session_on_pictured(struct child *child, const struct ipc_session_pictured *msg);

/* How far a completion is. */
struct session_progress {
	uint64_t pages_done, pages_total; /* of the pages absent at its start */
	uint64_t bytes_per_second;
	uint64_t eta_ms; /* 0 while nothing is known */
};

/* By the pages that are counted now.  False unless it is COMPLETING. */
bool session_progress(const struct session *session, const struct pagemap_counts *counts,
    struct session_progress *ret);

/* "graduated", "vmm-exited", …; NULL for SESSION_OUTCOME_NONE. */
const char *session_outcome_name(enum session_outcome outcome);
/* Counters and page counts now, or as they were when it ended.  The values come from a
 * worker that is not trusted: each is clipped to INT64_MAX, sums saturate there. */
void session_counters(const struct session *session, uint64_t ret[COUNTER_COUNT]);
/* Of a guest that is too large to be counted in a turn of the loop they are last_counts. */
void session_counts(const struct session *session, struct pagemap_counts *ret);
/* Brings last_counts up to date if they are older than that.  A guest that is too large is
 * counted in parts, one at each call. */
void session_refresh_counts(struct session *session, uint64_t max_age_ns);
/* Sums over all sessions; version NULL for every version.  Ended sessions count for
 * ever with version NULL, and as long as their tombstones stand with a version. */
void sessions_counters(
    const struct sessions *sessions, const char *version, uint64_t ret[COUNTER_COUNT]);

void session_log(const struct session *session, enum log_level level, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));

#endif
