/* SPDX-License-Identifier: Apache-2.0 */
/* Requests that wait for something of a session.  Private to api*.c. */
#ifndef SUPERVISOR_API_WAIT_H
#define SUPERVISOR_API_WAIT_H

#include <stdbool.h>

#include "supervisor/api_route.h"

struct api_wait;

/* What is waited for, and what each of the three ends means. */
struct api_wait_kind {
	/* Looks at the session: answers the request and returns true, or false when it is
	 * too early to say. */
	bool (*check)(struct api_wait *wait);
	/* The deadline passed.  True: the request was answered. */
	bool (*expire)(struct api_wait *wait);
	/* The client hung up; NULL: nothing follows from it. */
	void (*gone)(struct api_wait *wait);
};

/* How a client is told.  The request is answered by done() or error(), once. */
struct api_answer {
	void (*begin)(struct api_wait *wait);  /* before anything else; may be NULL */
	void (*finish)(struct api_wait *wait); /* the wait is over; may be NULL */
	void (*done)(struct api_wait *wait, int status);
	void (*error)(struct api_wait *wait, int status, const char *code, const char *text);
};

/* What a stream of progress has said last. */
struct api_seen {
	enum session_state state;
	uint64_t pages_done, pages_total;
};

struct api_wait {
	struct list link; /* api.waits, then api.dead */
	struct session_wait wait;
	const struct api_wait_kind *kind;
	const struct api_answer *answer;
	struct api *api;
	struct http_request *req;
	struct session *session;
	ev_timer timer;
	ev_timer tick; /* of a stream */
	struct api_seen seen;
	int target;    /* of ?wait= */
	bool aborted;  /* of a completion: its deadline passed */
	bool exiting;  /* of a completion: the worker says that the VMM has exited */
	bool finished; /* in no list but api.dead */
};

/* Answers by kind->check() now or later.  timeout_ms 0: no deadline. */
void api_wait_start(const struct api_call *call, struct session *session,
    const struct api_wait_kind *kind, int target, uint64_t timeout_ms);
/* The same, told in another way than by one JSON object. */
void api_wait_start_as(const struct api_call *call, struct session *session,
    const struct api_wait_kind *kind, int target, uint64_t timeout_ms,
    const struct api_answer *answer);

/* The deadline was not the end: there is a new one. */
void api_wait_extend(struct api_wait *wait, uint64_t timeout_ms);

/* For kinds of their own: how a wait for the worker's acknowledgement looks at it. */
bool api_opened_check(struct api_wait *wait);

/* One JSON object: the session, or an error. */
extern const struct api_answer api_answer_json;
/* One JSON object a line while it waits, the last of which is the answer (api_watch.c). */
extern const struct api_answer api_answer_lines;

/* join is a completion that somebody else has asked for. */
extern const struct api_wait_kind api_wait_state, api_wait_opened, api_wait_ended,
    api_wait_completion, api_wait_join;

/* The target of ?wait=, or -EINVAL. */
int api_wait_target(const char *word);
/* The target of a stream that names none: ended, however. */
int api_wait_target_end(void);

#endif
