/* SPDX-License-Identifier: Apache-2.0 */
#include "supervisor/compat_api.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/clock.h"
#include "common/scope.h"
#include "common/xalloc.h"
#include "supervisor/api_wait.h"
#include "supervisor/control_sock.h"
#include "supervisor/supervisor.h"

#define TEXT "text/plain; charset=utf-8"
/* Their clients give up all but a completion after 10 s: the answer comes before. */
#define ANSWER_MS UINT64_C(9000)
/* Of these, for the storage of the image. */
#define OPEN_MS UINT64_C(8000)

static const struct api_route routes[] = {
#define ROUTE(method, pattern, permission, handler, keys, doc) \
	{#method, pattern, API_##permission, compat_##handler, keys, doc},
#include "supervisor/compat.def"
#undef ROUTE
};

const struct api_table compat_table = {routes, sizeof(routes) / sizeof(routes[0])};

/* --- Answers --------------------------------------------------------------------- */

static void __attribute__((format(printf, 3, 4)))
say(struct http_request *req, int status, const char *fmt, ...)
{
	char text[API_WHY_BYTES];
	size_t n;
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof(text) - 1, fmt, ap);
	va_end(ap);
	n = strlen(text);
	text[n] = '\n';
	http_reply(req, status, TEXT, text, n + 1);
}

static void
say_done(struct http_request *req)
{
	http_reply(req, 204, NULL, NULL, 0);
}

static void
answer_done(struct api_wait *wait, int status)
{
	(void)status;
	say_done(wait->req);
}

static void
answer_error(struct api_wait *wait, int status, const char *code, const char *text)
{
	(void)code;
	say(wait->req, status, "%s", text);
}

static void
answer_created(struct api_wait *wait, int status)
{
	const struct session *session = wait->session;
	json_t *json = json_object();

	(void)status;
	json_put_text(json, "session_id", session->id);
	json_put_text(json, "uffd_socket_path", session->socket_path);
	json_put_text(json, "pager_version", session->version);
	api_reply(wait->req, 200, json);
}

/* A close never fails: whatever its worker still holds, the session is over. */
static void
answer_closed(struct api_wait *wait, int status, const char *code, const char *text)
{
	(void)status;
	(void)code;
	(void)text;
	say_done(wait->req);
}

static const struct api_answer created_answer = {.done = answer_created, .error = answer_error};
static const struct api_answer completed_answer = {.done = answer_done, .error = answer_error};
static const struct api_answer closed_answer = {.done = answer_done, .error = answer_closed};

/* --- The version ----------------------------------------------------------------- */

static uint64_t
count_sessions(const struct api_call *call)
{
	const struct list *pos;
	uint64_t n = 0;

	list_for_each(pos, &call->sup->sessions.all) {
		const struct session *session = list_entry(pos, const struct session, link);

		n += session_is_live(session) &&
		    strcmp(session->version, call->control->version) == 0;
	}
	return n;
}

void
compat_health(struct api_call *call)
{
	json_t *json = json_object();

	json_put_text(json, "version", call->control->version);
	json_put_flag(json, "draining", call->control->draining);
	json_put_u64(json, "active_sessions", count_sessions(call));
	api_reply(call->req, 200, json);
}

void
compat_stats(struct api_call *call)
{
	const struct control *control = call->control;
	uint64_t counters[COUNTER_COUNT];

	sessions_counters(&call->sup->sessions, control->version, counters);
	api_reply(call->req, 200,
	    compat_stats_json(control->version, control->draining, count_sessions(call), counters));
}

void
compat_drain(struct api_call *call)
{
	control_drain(call->control);
	say_done(call->req);
}

/* --- Sessions -------------------------------------------------------------------- */

static bool
opened_expire(struct api_wait *wait)
{
	say(wait->req, 503, "no worker has taken session %s in time", wait->session->id);
	session_close(wait->session, SESSION_OUTCOME_FAILED, "no worker has taken it in time");
	return true;
}

/* Nobody knows its socket, and its id is wanted for the next try. */
static void
opened_gone(struct api_wait *wait)
{
	if (wait->session->state == SESSION_CREATED)
		session_close(wait->session, SESSION_OUTCOME_CLOSED,
		    "its client left before it was told of the socket");
}

static const struct api_wait_kind wait_opened = {api_opened_check, opened_expire, opened_gone};

/* 404 stays for sessions: a client takes it for the end of one. */
static int
status_of(int error)
{
	switch (-error) {
	case EEXIST:
		return 409;
	case EINVAL:
	case EISDIR:
	case ENAMETOOLONG:
	case EFBIG:
	case ENOENT:
	case ENOTDIR:
		return 400;
	case EACCES:
	case EPERM:
	case EXDEV:
	case ELOOP:
		return 403;
	case ENOSPC:
	case EBUSY:
	case EMFILE:
	case ENFILE:
	case ENOMEM:
	case EAGAIN:
	case ETIMEDOUT:
		return 503;
	default:
		return 500;
	}
}

/* A request for a session whose image is being opened. */
struct creating {
	struct api_call call;
	struct creation *creation;
	uint64_t begun_ns;
};

static void
on_created(void *arg, int error, struct session *session, const char *why)
{
	struct creating *creating = arg;
	uint64_t spent_ms = (clock_now_ns() - creating->begun_ns) / NS_PER_MS;

	if (!session)
		say(creating->call.req, status_of(error), "%s", why);
	else
		api_wait_start_as(&creating->call, session, &wait_opened, 0,
		    spent_ms < ANSWER_MS ? ANSWER_MS - spent_ms : 1, &created_answer);
	free(creating);
}

static void
on_creator_gone(struct http_request *req)
{
	struct creating *creating = req->state;

	session_create_cancel(creating->creation);
	free(creating);
}

static void
create(struct api_call *call, const struct compat_create *body)
{
	const struct peer *peer = &call->req->peer;
	const struct session_request request = {
	    .id = body->id,
	    .instance = body->instance,
	    .image_path = body->image_path,
	    .cache_key = body->cache_key,
	    .overlays = body->overlays,
	    .nr_overlays = body->nr_overlays,
	    .version = call->control->version,
	    .vmm_uid = peer->uid,
	    .vmm_gid = peer->gid,
	};
	uint64_t timeout_ms = call->sup->options.open_timeout_ms;
	struct creating *creating = xcalloc(1, sizeof(*creating));
	const struct session_order order = {.peer = peer,
	    .request = &request,
	    .open_timeout_ms = timeout_ms < OPEN_MS ? timeout_ms : OPEN_MS,
	    .done = on_created,
	    .arg = creating};
	char why[API_WHY_BYTES] = "the session could not be created; see pagerd's log";
	int r;

	creating->call = *call;
	creating->begun_ns = clock_now_ns();
	r = session_create(&call->sup->sessions, &order, &creating->creation, why, sizeof(why));
	if (r < 0) {
		free(creating);
		say(call->req, status_of(r), "%s", why);
		return;
	}
	call->req->state = creating;
	call->req->on_gone = on_creator_gone;
}

void
compat_session_create(struct api_call *call)
{
	struct compat_create body;
	char why[API_WHY_BYTES];
	json_t *json;
	int r;

	if (call->control->draining) {
		say(call->req, 503, "version %s is draining; create the session on another one",
		    call->control->version);
		return;
	}
	if (supervisor_maps_files(call->sup)) {
		say(call->req, 503, "the backend is switched to file: map the image instead");
		return;
	}
	r = json_parse_object(call->req->body, call->req->body_bytes, &json, why, sizeof(why));
	if (r < 0) {
		say(call->req, 400, "%s", why);
		return;
	}
	r = compat_create_read(json, &body, why, sizeof(why));
	if (r < 0)
		say(call->req, status_of(r), "%s", why);
	else
		create(call, &body);
	json_decref(json);
}

void
compat_session_close(struct api_call *call)
{
	struct session *session = session_find(&call->sup->sessions, call->id);

	if (!session) {
		say_done(call->req);
		return;
	}
	session_close(session, SESSION_OUTCOME_CLOSED, "closed by request");
	api_wait_start_as(call, session, &api_wait_ended, 0, ANSWER_MS, &closed_answer);
}

void
compat_session_complete(struct api_call *call)
{
	struct session *session = session_find(&call->sup->sessions, call->id);
	char why[API_WHY_BYTES] = "";
	uint64_t timeout_ms = 0;
	int r;

	if (!session) {
		say(call->req, 404, "there is no session %s", call->id);
		return;
	}
	if (api_query_ms(call->req, "timeout", &timeout_ms, why, sizeof(why)) < 0) {
		say(call->req, 400, "%s", why);
		return;
	}
	r = session_complete(session, why, sizeof(why));
	if (r == 0 || r == -EALREADY)
		api_wait_start_as(
		    call, session, &api_wait_completion, 0, timeout_ms, &completed_answer);
	else
		say(call->req, r == -EBUSY || r == -EINVAL ? 409 : 500, "%s", why);
}

/* --- Requests -------------------------------------------------------------------- */

static void
dispatch(struct api_call *call)
{
	struct http_request *req = call->req;
	struct api_found found;

	switch (api_table_find(&compat_table, req->method, req->path, &found)) {
	case API_NO_ROUTE:
		say(req, 404, "there is no %s on the socket of a version; see pagerd-api(7)",
		    req->path);
		return;
	case API_NO_METHOD:
		http_header_add(req, "Allow", found.allow);
		say(req, 405, "%s is not for %s; it takes %s", req->path, req->method, found.allow);
		return;
	case API_BAD_ID:
		say(req, 400, "%s holds no id: percent-encoded, of 1 to %d bytes", req->path,
		    SESSION_ID_BYTES - 1);
		return;
	case API_MATCHED:
		break;
	}
	memcpy(call->id, found.id, sizeof(call->id));
	if (api_is_permitted(call->api, &req->peer, found.route->permission))
		found.route->handler(call);
	else
		say(req, 403,
		    "uid %u may not do this; it takes root, pagerd's own user or a member "
		    "of the admin group",
		    req->peer.uid);
}

void
compat_request(void *arg, struct http_request *req)
{
	struct control *control = arg;
	struct api *api = control->api;
	struct api_call call = {.api = api, .control = control, .sup = api->sup, .req = req};
	const struct options *options = &api->sup->options;
	struct http_limits limits = {options->http_timeout_ms, (uint32_t)options->http_max_clients};

	/* They may have been read again from the configuration. */
	http_server_set_limits(control->server, &limits);
	dispatch(&call);
}
