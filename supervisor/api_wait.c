/* SPDX-License-Identifier: Apache-2.0 */
#include "supervisor/api_wait.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "common/xalloc.h"
#include "supervisor/recording.h"
#include "supervisor/supervisor.h"

/* How long an aborted completion may take to stop before its client is told so. */
#define ABORT_GRACE_MS UINT64_C(10000)
/* A worker learns that a VMM has exited when its memory begins to be freed, its pidfd when
 * that is done. */
#define EXIT_GRACE_MS UINT64_C(60000)

enum target { TARGET_OPENED, TARGET_SERVING, TARGET_GRADUATED, TARGET_CLOSED, TARGET_ENDED };

static const char *const target_words[] = {
    [TARGET_OPENED] = "opened",
    [TARGET_SERVING] = "serving",
    [TARGET_GRADUATED] = "graduated",
    [TARGET_CLOSED] = "closed",
    [TARGET_ENDED] = "ended",
};

int
api_wait_target(const char *word)
{
	for (int i = 0; i < TARGET_ENDED; i++)
		if (strcmp(target_words[i], word) == 0)
			return i;
	return -EINVAL;
}

int
api_wait_target_end(void)
{
	return TARGET_ENDED;
}

/* Both of these answer the request. */
static void
done(struct api_wait *wait, int status)
{
	wait->answer->done(wait, status);
}

static void __attribute__((format(printf, 4, 5)))
error(struct api_wait *wait, int status, const char *code, const char *fmt, ...)
{
	char text[API_WHY_BYTES];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	wait->answer->error(wait, status, code, text);
}

static void
json_done(struct api_wait *wait, int status)
{
	api_reply(wait->req, status, api_session_json(wait->session));
}

static void
json_error(struct api_wait *wait, int status, const char *code, const char *text)
{
	api_error(wait->req, status, code, "%s", text);
}

const struct api_answer api_answer_json = {.done = json_done, .error = json_error};

static void
finish(struct api_wait *wait)
{
	if (wait->finished)
		return;
	wait->finished = true;
	if (wait->answer->finish)
		wait->answer->finish(wait);
	ev_timer_stop(wait->api->sup->loop, &wait->timer);
	session_wait_remove(&wait->wait);
	api_bury(wait->api, &wait->link);
}

/* Called by the session after each change. */
static bool
on_check(struct session_wait *session_wait)
{
	struct api_wait *wait = list_entry(session_wait, struct api_wait, wait);

	if (!wait->kind->check(wait))
		return false;
	finish(wait);
	return true;
}

static void
on_timer(struct ev_loop *loop, ev_timer *timer, int revents)
{
	struct api_wait *wait = timer->data;

	(void)loop;
	(void)revents;
	if (wait->kind->expire(wait))
		finish(wait);
}

static void
on_gone(struct http_request *req)
{
	struct api_wait *wait = req->state;

	if (wait->kind->gone)
		wait->kind->gone(wait);
	finish(wait);
}

void
api_wait_extend(struct api_wait *wait, uint64_t timeout_ms)
{
	struct ev_loop *loop = wait->api->sup->loop;

	ev_timer_stop(loop, &wait->timer);
	ev_now_update(loop);
	ev_timer_set(&wait->timer, (double)timeout_ms / 1000.0, 0.0);
	ev_timer_start(loop, &wait->timer);
}

void
api_wait_start(const struct api_call *call, struct session *session,
    const struct api_wait_kind *kind, int target, uint64_t timeout_ms)
{
	api_wait_start_as(call, session, kind, target, timeout_ms, &api_answer_json);
}

void
api_wait_start_as(const struct api_call *call, struct session *session,
    const struct api_wait_kind *kind, int target, uint64_t timeout_ms,
    const struct api_answer *answer)
{
	struct api_wait *wait = xcalloc(1, sizeof(*wait));

	wait->kind = kind;
	wait->answer = answer;
	wait->api = call->api;
	wait->req = call->req;
	wait->session = session;
	wait->target = target;
	wait->wait.check = on_check;
	list_init(&wait->link);
	list_init(&wait->wait.link);
	ev_timer_init(&wait->timer, on_timer, 0.0, 0.0);
	wait->timer.data = wait;
	/* Complete before anything is said: the client may be found gone. */
	call->req->state = wait;
	call->req->on_gone = on_gone;
	list_add(&call->api->waits, &wait->link);
	session_wait_add(session, &wait->wait);
	if (answer->begin)
		answer->begin(wait);
	if (!wait->finished && kind->check(wait))
		finish(wait);
	if (!wait->finished && timeout_ms)
		api_wait_extend(wait, timeout_ms);
}

static void
error_ended(struct api_wait *wait)
{
	const struct session *session = wait->session;
	const char *outcome = session->outcome == SESSION_OUTCOME_NONE
	    ? "closed"
	    : session_outcome_name(session->outcome);

	error(wait, 409, "ended", "session %s has ended: %s%s%s", session->id, outcome,
	    session->reason[0] ? ": " : "", session->reason);
}

static bool
is_reached(const struct session *session, enum target target)
{
	switch (target) {
	case TARGET_OPENED:
		return session_is_live(session) && session->state != SESSION_CLOSING &&
		    session_is_opened(session);
	case TARGET_SERVING:
		return session->state == SESSION_SERVING || session->state == SESSION_COMPLETING;
	case TARGET_GRADUATED:
		return session->state == SESSION_GRADUATED;
	case TARGET_CLOSED:
		return session->state == SESSION_CLOSED;
	case TARGET_ENDED:
		return !session_is_live(session);
	}
	return false;
}

/* Whether it still can be. */
static bool
is_possible(const struct session *session, enum target target)
{
	if (!session_is_live(session))
		return false;
	/* A completion can be faster than a close. */
	return session->state != SESSION_CLOSING || target == TARGET_CLOSED ||
	    target == TARGET_GRADUATED || target == TARGET_ENDED;
}

/* Its list is still being written: who is told of the end finds the list. */
static bool
is_saving(const struct session *session)
{
	return !session_is_live(session) && session->recording != NULL &&
	    session->recording->state == RECORDING_SAVING;
}

static bool
state_check(struct api_wait *wait)
{
	enum target target = (enum target)wait->target;

	if (is_saving(wait->session))
		return false;
	if (is_reached(wait->session, target)) {
		done(wait, 200);
		return true;
	}
	if (is_possible(wait->session, target))
		return false;
	error_ended(wait);
	return true;
}

static bool
state_expire(struct api_wait *wait)
{
	error(wait, 504, "timeout", "session %s is %s, not %s, when the time was over",
	    wait->session->id, session_state_word(wait->session->state),
	    target_words[wait->target]);
	return true;
}

const struct api_wait_kind api_wait_state = {state_check, state_expire, NULL};

/* A new session: until its worker has it. */
bool
api_opened_check(struct api_wait *wait)
{
	const struct session *session = wait->session;

	if (session->state == SESSION_GRADUATED || is_reached(session, TARGET_SERVING) ||
	    is_reached(session, TARGET_OPENED)) {
		done(wait, 201);
		return true;
	}
	if (is_possible(session, TARGET_OPENED))
		return false;
	if (session->outcome == SESSION_OUTCOME_FAILED)
		error(wait, 503, "worker", "session %s could not be created: %s", session->id,
		    session->reason[0] ? session->reason : "its worker is gone");
	else
		error_ended(wait);
	return true;
}

static bool
opened_expire(struct api_wait *wait)
{
	error(wait, 504, "timeout",
	    "no worker has taken session %s in time; it stays and can be asked for",
	    wait->session->id);
	return true;
}

const struct api_wait_kind api_wait_opened = {api_opened_check, opened_expire, NULL};

/* A close: until nothing of it is left in a worker. */
static bool
ended_check(struct api_wait *wait)
{
	if (session_is_live(wait->session) || is_saving(wait->session))
		return false;
	done(wait, 200);
	return true;
}

static bool
ended_expire(struct api_wait *wait)
{
	error(wait, 504, "timeout", "session %s is ending, but its worker has not let go of it yet",
	    wait->session->id);
	return true;
}

const struct api_wait_kind api_wait_ended = {ended_check, ended_expire, NULL};

/* The VMM's exit is what the caller must be told, not that the completion ended. */
static bool
awaits_exit(struct api_wait *wait)
{
	const struct session *session = wait->session;

	if (session->state != SESSION_SERVING || session->completion != IPC_COMPLETION_GONE)
		return false;
	if (!wait->exiting)
		api_wait_extend(wait, EXIT_GRACE_MS);
	wait->exiting = true;
	return ev_is_active(&wait->timer); /* not when it has expired */
}

static bool
completion_check(struct api_wait *wait)
{
	const struct session *session = wait->session;

	if (session->state == SESSION_COMPLETING || session->state == SESSION_CLOSING ||
	    is_saving(session) || awaits_exit(wait))
		return false;
	if (session->state == SESSION_GRADUATED)
		done(wait, 200);
	else if (!session_is_live(session))
		error_ended(wait);
	else if (wait->aborted)
		error(wait, 504, "timeout",
		    "session %s was not complete in time; it is still served", session->id);
	else
		error(wait, 500, "failed",
		    "the completion of session %s failed: %s; the session is %s", session->id,
		    session->completion_reason[0] ? session->completion_reason
						  : "its worker stopped it",
		    session_state_word(session->state));
	return true;
}

static bool
completion_expire(struct api_wait *wait)
{
	if (wait->exiting)
		return completion_check(wait);
	if (!wait->aborted) {
		wait->aborted = true;
		session_abort(wait->session);
		api_wait_extend(wait, ABORT_GRACE_MS);
		return false;
	}
	error(wait, 504, "timeout",
	    "session %s was not complete in time and its worker has not stopped yet",
	    wait->session->id);
	return true;
}

static void
completion_gone(struct api_wait *wait)
{
	session_abort(wait->session);
}

const struct api_wait_kind api_wait_completion = {
    completion_check, completion_expire, completion_gone};

static bool
join_expire(struct api_wait *wait)
{
	if (wait->exiting)
		return completion_check(wait);
	error(wait, 504, "timeout", "session %s was not complete in time; its completion goes on",
	    wait->session->id);
	return true;
}

/* Whoever asked for the completion decides how long it may take. */
const struct api_wait_kind api_wait_join = {completion_check, join_expire, NULL};
