/* SPDX-License-Identifier: Apache-2.0 */
/* Recording a session that is there already. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "common/xalloc.h"
#include "supervisor/api_open.h"
#include "supervisor/api_route.h"
#include "supervisor/api_wait.h"
#include "supervisor/recording.h"
#include "supervisor/supervisor.h"
#include "supervisor/why.h"

struct body {
	const char *path;
	bool stop;
};

static const struct json_member members[] = {
    {"path", JSON_KIND_TEXT, false, offsetof(struct body, path), 1, 4095},
    {"stop", JSON_KIND_FLAG, false, offsetof(struct body, stop), 0, 0},
};

static void
refuse(struct api_call *call, int error, const char *why)
{
	switch (error) {
	case -EBUSY:
	case -EINVAL:
	case -ENOTSUP:
		api_error(call->req, 409, "state", "%s", why);
		break;
	case -EACCES:
	case -EPERM:
	case -EXDEV:
	case -ELOOP:
		api_error(call->req, 403, "forbidden", "%s", why);
		break;
	case -ENOENT:
	case -ENOTDIR:
		api_error(call->req, 404, "not-found", "%s", why);
		break;
	case -ETIMEDOUT:
		api_error(call->req, 504, "timeout", "%s", why);
		break;
	case -EEXIST:
	case -EISDIR:
		api_error(call->req, 409, "exists", "%s", why);
		break;
	default:
		api_error(call->req, 500, "failed", "%s", why);
	}
}

/* One that is asked for, while somebody looks whether its list could be written. */
struct starting {
	uint64_t number; /* of the session */
	char *path;	 /* owned */
};

static void
starting_free(void *arg)
{
	struct starting *starting = arg;

	free(starting->path);
	free(starting);
}

static void
start_checked(struct api_call *call, void *arg, struct opener_answer *answer)
{
	const struct starting *starting = arg;
	const struct opener_outcome *outcome = &answer->outcomes[OPENER_RECORD];
	struct session *session = session_by_number(&call->sup->sessions, starting->number);
	char why[API_WHY_BYTES] = "";
	int r = answer->error;

	if (r < 0)
		snprintf(why, sizeof(why), "%s", answer->why);
	else if (outcome->error < 0)
		r = recording_refuse(outcome, why, sizeof(why));
	else if (session == NULL)
		r = why_set(why, sizeof(why), -EINVAL, "session %s has ended", call->id);
	else
		r = recording_start(session, &call->req->peer, starting->path, why, sizeof(why));
	if (r < 0)
		refuse(call, r, why);
	else
		api_reply(call->req, 200, api_session_json(session));
}

static void
start(struct api_call *call, struct session *session, const char *path)
{
	static const struct api_open_ops ops = {start_checked, starting_free};
	struct opener_request request = {.peer = &call->req->peer};
	struct starting *starting;
	char why[API_WHY_BYTES] = "";
	int r = recording_check(session, why, sizeof(why));

	if (r == 0) {
		starting = xcalloc(1, sizeof(*starting));
		starting->number = session->number;
		starting->path = path != NULL ? xstrdup(path) : recording_default_path(session);
		request.record = starting->path;
		r = api_open(call, &request, &ops, starting, why, sizeof(why));
	}
	if (r < 0)
		refuse(call, r, why);
}

/* --- Its end ---------------------------------------------------------------------- */

static bool
saved_check(struct api_wait *wait)
{
	const struct recording *recording = wait->session->recording;

	if (recording->state == RECORDING_SAVING)
		return false;
	if (recording->state != RECORDING_FAILED) {
		wait->answer->done(wait, 200);
		return true;
	}
	char text[API_WHY_BYTES];
	snprintf(text, sizeof(text), "no hot list is saved to %s: %s", recording->path,
	    recording->reason);
	wait->answer->error(wait, 500, "failed", text);
	return true;
}

/* The opener's time is over before this one's. */
static bool
saved_expire(struct api_wait *wait)
{
	wait->answer->error(wait, 504, "timeout", "the hot list is still being written");
	return true;
}

static void
stop(struct api_call *call, struct session *session)
{
	static const struct api_wait_kind kind = {saved_check, saved_expire, NULL};

	if (session->recording == NULL) {
		api_error(call->req, 409, "state", "session %s is not recorded", session->id);
		return;
	}
	/* One that has ended by itself is what the client wants, too. */
	recording_stop(session, "by request");
	api_wait_start(call, session, &kind, 0, 2 * call->sup->options.open_timeout_ms);
}

void
api_session_record(struct api_call *call)
{
	struct session *session = session_find(&call->sup->sessions, call->id);
	struct body body = {0};
	json_t *json;

	if (session == NULL) {
		api_error(call->req, 404, "not-found",
		    "there is no session %s; the list of sessions has those that there are",
		    call->id);
		return;
	}
	json = api_read_body(call, members, sizeof(members) / sizeof(members[0]), &body);
	if (json == NULL)
		return;
	if (body.stop && body.path != NULL)
		api_error(call->req, 400, "bad-request",
		    "\"path\" is where a recording goes that begins; with \"stop\" leave it out");
	else if (body.stop)
		stop(call, session);
	else
		start(call, session, body.path);
	json_decref(json);
}
