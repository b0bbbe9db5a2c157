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

struct api_wait {
	struct list link; /* api.waits, then api.dead */
	struct session_wait wait;
	const struct api_wait_kind *kind;
	struct api *api;
	struct http_request *req;
	struct session *session;
	ev_timer timer;
	int target;			/* of ?wait= */
	bool aborted;			/* of a completion: its deadline passed */
	uint64_t since_ns, since_bytes; /* of a completion: where it began */
};

/* Answers by kind->check() now or later.  timeout_ms 0: no deadline. */
void api_wait_start(const struct api_call *call, struct session *session,
    const struct api_wait_kind *kind, int target, uint64_t timeout_ms);

/* The deadline was not the end: there is a new one. */
void api_wait_extend(struct api_wait *wait, uint64_t timeout_ms);

/* The completion of a session that a client waits for, or NULL. */
const struct api_wait *api_find_completion(const struct api *api, const struct session *session);

/* Answers 409 "ended", with the session's own reason. */
void api_error_ended(struct http_request *req, const struct session *session);

extern const struct api_wait_kind api_wait_state, api_wait_opened, api_wait_ended,
    api_wait_completion;

/* The target of ?wait=, or -EINVAL. */
int api_wait_target(const char *word);

/* Bytes of guest memory that need no pager any more, and all of them. */
void api_session_bytes(const struct session *session, uint64_t *ret_done, uint64_t *ret_total);

#endif
