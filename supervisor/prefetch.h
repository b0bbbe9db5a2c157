/* SPDX-License-Identifier: Apache-2.0 */
/* Prefetch: a session's hot list becomes a plan (common/trace.h) that its worker replays behind
 * the guest's faults.  Nothing about it makes a restore fail: what is wrong with a list is said
 * in the log and in the session object, and the session does without. */
#ifndef SUPERVISOR_PREFETCH_H
#define SUPERVISOR_PREFETCH_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#include "common/hotlist.h"
#include "common/trace.h"

struct opener_outcome;
struct session;
struct session_request;
struct supervisor;

/* What stands behind an image's name in that of the list that belongs to it. */
#define PREFETCH_SUFFIX ".hot"

/* Neighbours of a list that are copied together, as far as they are in it. */
#define PREFETCH_GATHER_PAGES 16U

/* One page in so many is left to faults, of a list that is long enough for that to say
 * anything: see trace_is_left_out(). */
#define PREFETCH_SAMPLE	   128U
#define PREFETCH_SAMPLE_OF (UINT64_C(8) * PREFETCH_SAMPLE)

enum prefetch_mode {
	PREFETCH_UNSET, /* as PREFETCH_ON */
	PREFETCH_OFF,
	PREFETCH_ON,	     /* the hot list, if there is one */
	PREFETCH_SEQUENTIAL, /* the hot list; without one, all of the image in its order */
};

/* What came of a plan.  The worker says so: no number is more than the plan has pages. */
struct prefetch_numbers {
	enum trace_state state;
	int error;	/* errno behind TRACE_FAILED */
	uint64_t pages; /* of the plan */
	uint64_t filled, present, outside, left_out;
	uint64_t asked_for; /* of those left out, those that the guest faulted on */
	uint64_t ms;	    /* that it took, or has taken so far */
};

/* Of a session. */
struct prefetch {
	enum prefetch_mode mode;
	char *path; /* owned; of the list; NULL: there is none */
	int fd;	    /* owned; of the plan; -1: there is none, or it has ended */
	struct trace plan;
	uint64_t pages;
	uint64_t sample;
	uint32_t *left; /* owned; the pages that are left out, or some of them; NULL: none */
	size_t nr_left;
	uint64_t left_weight;	      /* each of them stands for so many */
	char reason[256];	      /* why there is no plan; empty: see mode */
	struct prefetch_numbers last; /* once the session has ended */
};

/* Sums over sessions. */
struct prefetch_totals {
	uint64_t sessions; /* with a plan */
	uint64_t filled, present, outside, left_out, asked_for;
};

/* PREFETCH_UNSET is "on". */
const char *prefetch_mode_word(enum prefetch_mode mode);
/* "off", "on", "sequential"; false for another word. */
bool prefetch_mode_read(const char *word, enum prefetch_mode *ret);

/* The list that a session is to have opened for it, which the caller frees; NULL: none. */
char *prefetch_list_path(const struct supervisor *sup, const struct session_request *req);
/* Makes a plan of a copy of that list, fd, or of what else it is to be; outcome is that of having
 * it opened.  fd is borrowed; -1: there is none.  The session has its image. */
void prefetch_prepare(struct session *session, const struct session_request *req,
    const struct opener_outcome *outcome, int fd);
/* Tells the worker, which was told of the session right before. */
void prefetch_send(struct session *session);
/* The session ends: keeps the numbers and lets go of the rest. */
void prefetch_end(struct session *session);
void prefetch_free(struct session *session);

/* The host's switch may have been turned off: every session stops. */
void prefetch_options_changed(struct supervisor *sup);

/* What a worker of an earlier supervisor hands over.  0, or -EPROTO. */
int prefetch_take(struct session *session, int *fd);

/* What a hot list of the session's image says of it. */
void prefetch_identify(const struct session *session, struct hotlist_image *ret);

/* False when the session has no plan. */
bool prefetch_numbers(const struct session *session, struct prefetch_numbers *ret);
void prefetch_add(struct prefetch_totals *totals, const struct session *session);

/* The session object's member. */
json_t *prefetch_json(const struct session *session);
json_t *prefetch_totals_json(const struct supervisor *sup);

/* Members of the record, and back. */
void prefetch_put(json_t *json, const struct session *session);
/* Takes mode, path, pages and sample over. */
void prefetch_load(struct session *session, const struct prefetch *found);

#endif
