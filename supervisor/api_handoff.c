/* SPDX-License-Identifier: Apache-2.0 */
/* Requests that move sessions to another version, and the one that frees a held session. */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "common/xalloc.h"
#include "supervisor/api_wait.h"
#include "supervisor/child.h"
#include "supervisor/handoff.h"
#include "supervisor/supervisor.h"

#define DEFAULT_MS UINT64_C(30000)

struct api_handoff {
	struct list link; /* none, then api.dead */
	struct api *api;
	struct http_request *req;
	ev_timer timer;
	char id[SESSION_ID_BYTES]; /* empty: all of a version */
	char from[VERSION_BYTES];  /* empty: every other */
	char to[VERSION_BYTES];
};

struct body {
	const char *version, *from;
};

static const struct json_member members[] = {
    {"version", JSON_KIND_TEXT, false, offsetof(struct body, version), 1, VERSION_BYTES - 1},
    {"from", JSON_KIND_TEXT, false, offsetof(struct body, from), 1, VERSION_BYTES - 1},
};

/* --- What is asked for ----------------------------------------------------------- */

static bool
is_version(struct api_call *call, const char *version)
{
	if (version == NULL || version_is_valid(version))
		return true;
	api_error(call->req, 400, "bad-request",
	    "\"%s\" is not a version; it looks like 1.2.3 or 1.2.3-rc1", version);
	return false;
}

/* version and from get VERSION_BYTES, empty when not given; with from NULL it must not be.
 * False: the error has been answered. */
static bool
read_body(struct api_call *call, bool required, char *version, char *from)
{
	struct body body = {NULL, NULL};
	json_t *json = api_read_body(call, members, from != NULL ? 2 : 1, &body);
	bool valid = false;

	if (json == NULL)
		return false;
	if (required && body.version == NULL)
		api_error(call->req, 400, "bad-request", "\"version\" is missing");
	else
		valid = is_version(call, body.version) && is_version(call, body.from);
	snprintf(version, VERSION_BYTES, "%s", body.version != NULL ? body.version : "");
	if (from != NULL)
		snprintf(from, VERSION_BYTES, "%s", body.from != NULL ? body.from : "");
	json_decref(json);
	return valid;
}

static bool
read_timeout(struct api_call *call, uint64_t *ret_ms)
{
	char why[API_WHY_BYTES];

	if (api_query_ms(call->req, "timeout", ret_ms, why, sizeof(why)) == 0)
		return true;
	api_error(call->req, 400, "bad-request", "%s", why);
	return false;
}

/* --- Moving ---------------------------------------------------------------------- */

static void
end(struct api_handoff *handoff)
{
	ev_timer_stop(handoff->api->sup->loop, &handoff->timer);
	api_bury(handoff->api, &handoff->link);
}

static void
answer_one(struct api_handoff *handoff, const struct handoff_result *result)
{
	const struct session *session = session_find(&handoff->api->sup->sessions, handoff->id);

	if (session == NULL || (result->moved == 0 && session_is_over(session)))
		api_error(handoff->req, 409, "ended", "session %s has ended%s%s", handoff->id,
		    session != NULL ? ": " : "", session != NULL ? session->reason : "");
	else if (result->moved > 0)
		api_reply(handoff->req, 200, api_session_json(session));
	else if (result->failed > 0)
		api_error(handoff->req, 500, "failed", "%s; session %s is %s on version %s",
		    result->why, session->id, session_state_word(session->state), session->version);
	else
		api_error(handoff->req, 409, "state",
		    "session %s is %s; only one that is serving can be moved", session->id,
		    session_state_word(session->state));
}

void
api_handoff_put(json_t *json, const struct handoff_result *result)
{
	json_put_u64(json, "moved", result->moved);
	json_put_u64(json, "failed", result->failed);
	json_put_u64(json, "left", result->left);
	if (result->why[0] != '\0')
		json_put_text(json, "reason", result->why);
	else
		json_put_null(json, "reason");
}

static void
answer_all(struct api_handoff *handoff, const struct handoff_result *result)
{
	json_t *json;

	if (result->error < 0 && result->moved == 0) {
		api_error(
		    handoff->req, 500, "failed", "%s; no session has been moved", result->why);
		return;
	}
	json = json_object();
	json_put_text(json, "version", handoff->to);
	if (handoff->from[0] != '\0')
		json_put_text(json, "from", handoff->from);
	else
		json_put_null(json, "from");
	api_handoff_put(json, result);
	api_reply(handoff->req, 200, json);
}

static void
on_done(void *arg, const struct handoff_result *result)
{
	struct api_handoff *handoff = arg;

	if (handoff->id[0] != '\0')
		answer_one(handoff, result);
	else
		answer_all(handoff, result);
	end(handoff);
}

static void
on_timer(struct ev_loop *loop, ev_timer *timer, int revents)
{
	struct api_handoff *handoff = timer->data;

	(void)loop;
	(void)revents;
	handoff_forget(handoff->api->sup, handoff);
	api_error(handoff->req, 504, "timeout",
	    "not everything was moved to version %s in time; it goes on", handoff->to);
	end(handoff);
}

/* What was begun goes on without its client. */
static void
on_gone(struct http_request *req)
{
	struct api_handoff *handoff = req->state;

	handoff_forget(handoff->api->sup, handoff);
	end(handoff);
}

static struct api_handoff *
handoff_new(const struct api_call *call, uint64_t timeout_ms)
{
	struct api_handoff *handoff = xcalloc(1, sizeof(*handoff));

	handoff->api = call->api;
	handoff->req = call->req;
	list_init(&handoff->link);
	ev_timer_init(&handoff->timer, on_timer, (double)timeout_ms / 1000., 0.);
	handoff->timer.data = handoff;
	if (timeout_ms > 0) {
		ev_now_update(call->sup->loop);
		ev_timer_start(call->sup->loop, &handoff->timer);
	}
	call->req->state = handoff;
	call->req->on_gone = on_gone;
	return handoff;
}

/* It was not begun. */
static void
refuse(struct api_handoff *handoff, int error, const char *why)
{
	if (error == -ENOENT)
		api_error(handoff->req, 404, "not-found", "%s", why);
	else if (error == -EINVAL || error == -ESHUTDOWN)
		api_error(handoff->req, 409, "state", "%s", why);
	else
		api_error(handoff->req, 500, "failed", "%s", why);
	end(handoff);
}

void
api_session_handoff(struct api_call *call)
{
	char version[VERSION_BYTES], why[API_WHY_BYTES] = "";
	uint64_t timeout_ms = DEFAULT_MS;
	struct session *session = api_find_session(call);
	struct api_handoff *handoff;
	int r;

	if (session == NULL || !read_timeout(call, &timeout_ms) ||
	    !read_body(call, true, version, NULL))
		return;
	handoff = handoff_new(call, timeout_ms);
	memcpy(handoff->id, session->id, sizeof(handoff->id));
	memcpy(handoff->to, version, sizeof(handoff->to));
	r = handoff_session(session, version, on_done, handoff, why, sizeof(why));
	if (r == -EALREADY) {
		api_reply(call->req, 200, api_session_json(session));
		end(handoff);
	} else if (r < 0) {
		refuse(handoff, r, why);
	}
}

void
api_handoff(struct api_call *call)
{
	char version[VERSION_BYTES], from[VERSION_BYTES], why[API_WHY_BYTES] = "";
	struct api_handoff *handoff;
	uint64_t timeout_ms = 0;
	int r;

	if (!read_timeout(call, &timeout_ms) || !read_body(call, true, version, from))
		return;
	if (strcmp(version, from) == 0) {
		api_error(call->req, 400, "bad-request",
		    "\"from\" and \"version\" are both %s; sessions move between two versions",
		    version);
		return;
	}
	handoff = handoff_new(call, timeout_ms);
	memcpy(handoff->to, version, sizeof(handoff->to));
	memcpy(handoff->from, from, sizeof(handoff->from));
	r = handoff_version(
	    call->sup, from[0] != '\0' ? from : NULL, version, on_done, handoff, why, sizeof(why));
	if (r < 0)
		refuse(handoff, r, why);
}

/* --- A held session -------------------------------------------------------------- */

static bool
retry_check(struct api_wait *wait)
{
	const struct session *session = wait->session;

	if (session_is_over(session))
		wait->answer->error(wait, 409, "ended", session->reason);
	else if (session->state == SESSION_HELD)
		wait->answer->error(wait, 500, "failed", session->reason);
	else if (session->state == SESSION_ADOPTING)
		return false;
	else
		wait->answer->done(wait, 200);
	return true;
}

static bool
retry_expire(struct api_wait *wait)
{
	wait->answer->error(
	    wait, 504, "timeout", "no worker has adopted it in time; they go on trying");
	return true;
}

static const struct api_wait_kind retry_kind = {retry_check, retry_expire, NULL};

void
api_session_retry(struct api_call *call)
{
	char version[VERSION_BYTES], why[API_WHY_BYTES];
	uint64_t timeout_ms = DEFAULT_MS;
	struct session *session = api_find_session(call);

	if (session == NULL || !read_timeout(call, &timeout_ms) ||
	    !read_body(call, false, version, NULL))
		return;
	if (version[0] != '\0' &&
	    fleet_check_installed(&call->sup->fleet, version, why, sizeof(why)) < 0)
		api_error(call->req, 404, "not-found", "%s", why);
	else if (session_retry(session, version[0] != '\0' ? version : NULL, why, sizeof(why)) < 0)
		api_error(call->req, 409, "state", "%s", why);
	else
		api_wait_start(call, session, &retry_kind, 0, timeout_ms);
}
