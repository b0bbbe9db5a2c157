/* SPDX-License-Identifier: Apache-2.0 */
/* A session as its worker sees it.
 *
 * Threads: the control thread (libev) owns the struct.  A serving session has one fault
 * thread; threads for reads that wait, and one for a completion, come and go.  They touch
 * what is marked "threads" and post events; the control thread frees the session when its
 * state is STOPPING and no thread is left.  session_step() is the only writer of state. */
#ifndef WORKER_SESSION_H
#define WORKER_SESSION_H

#include <ev.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "common/list.h"
#include "common/log.h"
#include "common/pagemap.h"
#include "ipc/message.h"
#include "worker/acceptor.h"
#include "worker/cluster.h"
#include "worker/copylock.h"
#include "worker/iolane.h"
#include "worker/picture.h"
#include "worker/region.h"
#include "worker/unreadable.h"

struct handshake;
struct image;
struct overlay_table;
struct pager;
struct prefetch;
struct recorder;

enum session_state {
#define STATE(NAME, doc) SESSION_##NAME,
#include "worker/session_fsm.def"
};

enum session_event {
#define EVENT(NAME, doc) SESSION_EV_##NAME,
#include "worker/session_fsm.def"
	SESSION_EV_COUNT
};

/* What threads tell the control thread: a bit set in session.posted. */
enum session_post {
	SESSION_POST_GONE = 1U << 0,	  /* the VMM's address space is gone */
	SESSION_POST_COMPLETED = 1U << 1, /* session.completion holds the result */
	SESSION_POST_IMAGE_ALARM = 1U << 2,
	SESSION_POST_FILL_ALARM = 1U << 3,
	SESSION_POST_IMAGE_HEALED = 1U << 8, /* these four: see session.unreadable */
	SESSION_POST_IMAGE_POISONED = 1U << 9,
	SESSION_POST_IMAGE_HOLDING = 1U << 10,
	SESSION_POST_IMAGE_HOPELESS = 1U << 11,
	SESSION_POST_PICTURE = 1U << 16,    /* session.picture holds the result */
	SESSION_POST_PREFETCHED = 1U << 17, /* session.prefetch has ended */
};

struct completion {
	uint32_t seq; /* of SESSION_COMPLETE; 0: none runs */
	uint64_t rate_bytes;
	_Atomic bool abort; /* threads: stop at the next chunk */
	bool is_stale;	    /* who asked for it is gone */
	enum ipc_completion outcome;
	int error; /* positive errno */
	char reason[256];
};

struct session {
	struct list link; /* pager.sessions */
	struct pager *pager;
	uint64_t number;
	char name[128];
	enum session_state state;
	int listener;	       /* owned until it serves no more; -1 */
	int connection;	       /* owned; -1 */
	int uffd;	       /* owned; -1 */
	int map_fd;	       /* owned; of the page map, for a supervisor that asks; -1 */
	_Atomic int fault_tid; /* the fault thread, for the signal that ends its wait; 0: none */
	struct acceptor accepting;
	ev_io reading;
	struct handshake *handshake;	/* owned while it runs */
	int arrivals;			/* owned, while the connection is looked at; -1 */
	ev_timer patience;		/* with that */
	struct image *image;		/* a reference */
	int overlays_fd;		/* owned; for a supervisor that asks; -1: there are none */
	struct overlay_table *overlays; /* owned; threads; NULL: there are none */
	struct pagemap map;		/* threads */
	struct region_table regions;	/* threads; fixed once serving */
	struct cluster cluster;		/* the fault thread's */
	uint64_t image_bytes;
	uint32_t spin_us;
	uint32_t flags;		      /* enum ipc_session_flag */
	struct copylock copylock;     /* threads */
	struct iolane iolane;	      /* threads */
	struct unreadable unreadable; /* threads */
	unsigned image_told;	      /* image_changes() that the supervisor was told of */
	struct completion completion;
	struct picture picture;
	bool is_tracked;		   /* threads; fixed once serving: fills are protected */
	_Atomic bool answering;		   /* the fault thread fills outside the copy lock */
	struct recorder *_Atomic recorder; /* owned; threads, under the copy lock; NULL: none */
	struct prefetch *prefetch;	   /* owned; NULL: it has no plan */
	_Atomic unsigned threads;	   /* running */
	_Atomic unsigned posted;	   /* enum session_post bits */
	_Atomic bool stop;		   /* threads: end */
	_Atomic int alarm_error;	   /* threads: errno of the last alarm */
	bool gone_sent;
	uint32_t adopt_seq;	 /* of the SESSION_ADOPT that is not answered yet; 0: none */
	bool is_known;		 /* the supervisor at the link has been told of it */
	enum ipc_ended ended_as; /* once it is STOPPING */
	bool refused;		 /* report the refusal when it has stopped */
	bool answer_close;	 /* SESSION_CLOSE waits for its answer */
	bool is_silent;		 /* who waits for last words is gone */
	uint32_t close_seq;
	char reason[256]; /* of a refusal */
	struct log_limit second_limit;
};

/* Prepares a session from SESSION_OPEN and its three descriptors, which it takes over when
 * it succeeds.  0 or a negative errno. */
int session_open(struct pager *pager, const struct ipc_session_open *msg, int *fds);

/* Takes over a session in the middle of its life from SESSION_ADOPT and its four descriptors,
 * which it takes over when it succeeds: sessions_serve_adopted() serves it and answers.
 * Otherwise a negative errno, and nothing is held. */
int session_adopt(struct pager *pager, const struct ipc_session_adopt *msg, int *fds);

/* At the end of a loop turn: begins to serve what was adopted in it.  All of it at once: the
 * threads and guests of the first would keep the CPU from the adoption of the others. */
void sessions_serve_adopted(struct pager *pager);

/* Goes on with a VMM that had connected to another worker; takes fd over.  0 or -EINVAL. */
int session_connect(struct session *s, int fd);

struct session *session_find(struct pager *pager, uint64_t number);

/* 0, or a negative errno with nothing changed. */
int session_complete(struct session *s, const struct ipc_session_complete *msg);
void session_abort(struct session *s);
void session_close(struct session *s, uint32_t seq);
/* Its VMM has exited and nobody is there to say so to: closes it. */
void session_give_up(struct session *s);

/* From the control loop, after threads posted something. */
void session_attend(struct session *s);

/* From any thread: posts and wakes the control thread.  Nothing of s may be touched after
 * session_thread_done(). */
void session_post(struct session *s, enum session_post what);
void session_thread_done(struct session *s);
/* Starts a thread that counts as the session's.  0 or a negative errno. */
int session_thread_start(struct session *s, void *(*main)(void *));

/* Applies an event by the table and logs it.  False when there is no row. */
bool session_step(struct session *s, enum session_event event);
const char *session_state_name(enum session_state state);

void session_log(const struct session *s, enum log_level level, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));

/* A completion is to stop at the next chunk. */
static inline bool
session_is_aborted(const struct session *s)
{
	return atomic_load(&s->completion.abort) || atomic_load(&s->stop);
}

/* Any thread but a fault thread. */
static inline void
session_count(const struct session *s, enum counter counter, uint64_t n)
{
	_Atomic uint64_t *cell = &s->map.header->counters[COUNTER_LANE_OTHERS][counter];

	if (n != 0)
		atomic_fetch_add_explicit(cell, n, memory_order_relaxed);
}

static inline void
session_count_max(const struct session *s, enum counter counter, uint64_t value)
{
	_Atomic uint64_t *cell = &s->map.header->counters[COUNTER_LANE_OTHERS][counter];
	uint64_t seen = atomic_load_explicit(cell, memory_order_relaxed);

	while (seen < value &&
	    !atomic_compare_exchange_weak_explicit(
		cell, &seen, value, memory_order_relaxed, memory_order_relaxed))
		;
}

/* The fault thread, or who acts in its place under the copy lock: the lane's one writer. */
static inline void
session_fault_set(const struct session *s, enum counter counter, uint64_t value)
{
	atomic_store_explicit(
	    &s->map.header->counters[COUNTER_LANE_FAULTS][counter], value, memory_order_relaxed);
}

static inline uint64_t
session_fault_get(const struct session *s, enum counter counter)
{
	return atomic_load_explicit(
	    &s->map.header->counters[COUNTER_LANE_FAULTS][counter], memory_order_relaxed);
}

static inline void
session_fault_count(const struct session *s, enum counter counter, uint64_t n)
{
	session_fault_set(s, counter, session_fault_get(s, counter) + n);
}

static inline void
session_fault_time(const struct session *s, uint64_t nanos)
{
	struct pagemap_time *time = &pagemap_timings(&s->map)->times[PAGEMAP_TIME_FAULT];
	_Atomic uint64_t *bucket = &time->buckets[pagemap_bucket(nanos)];

	atomic_store_explicit(
	    bucket, atomic_load_explicit(bucket, memory_order_relaxed) + 1, memory_order_relaxed);
	atomic_store_explicit(&time->nanos,
	    atomic_load_explicit(&time->nanos, memory_order_relaxed) + nanos, memory_order_relaxed);
}

/* Any thread; not PAGEMAP_TIME_FAULT. */
static inline void
session_time(const struct session *s, enum pagemap_timing timing, uint64_t nanos)
{
	struct pagemap_time *time = &pagemap_timings(&s->map)->times[timing];

	atomic_fetch_add_explicit(&time->buckets[pagemap_bucket(nanos)], 1, memory_order_relaxed);
	atomic_fetch_add_explicit(&time->nanos, nanos, memory_order_relaxed);
}

static inline void
session_fault_max(const struct session *s, enum counter counter, uint64_t value)
{
	if (session_fault_get(s, counter) < value)
		session_fault_set(s, counter, value);
}

#endif
