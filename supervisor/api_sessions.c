/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "common/clock.h"
#include "common/xalloc.h"
#include "supervisor/api_wait.h"
#include "supervisor/supervisor.h"

#define COUNTS_AGE_NS	NS_PER_S
#define DEFAULT_WAIT_MS UINT64_C(30000)
/* Beyond the deadlines of the states that these two wait in: those decide first. */
#define CREATE_WAIT_MS UINT64_C(60000)
#define CLOSE_WAIT_MS  UINT64_C(60000)

/* Routes that take no member refuse the ones that are there. */
static bool
has_empty_body(struct api_call *call)
{
	json_t *json = api_read_body(call, NULL, 0, NULL);

	json_decref(json);
	return json != NULL;
}

void
api_refuse_create(struct api_call *call, int error, const char *why)
{
	static const struct api_refusal table[] = {
	    {EEXIST, 409, "exists"},
	    {EOPNOTSUPP, 409, "state"},
	    {EBADMSG, 409, "damaged"},
	    {ESTALE, 409, "changed"},
	    {ENODEV, 503, "resources"},
	    {EINVAL, 400, "bad-request"},
	    {EISDIR, 400, "bad-request"},
	    {ENAMETOOLONG, 400, "bad-request"},
	    {EFBIG, 400, "bad-request"},
	    {EACCES, 403, "forbidden"},
	    {EPERM, 403, "forbidden"},
	    {EXDEV, 403, "forbidden"},
	    {ELOOP, 403, "forbidden"},
	    {ETIMEDOUT, 504, "timeout"},
	    {ENOENT, 404, "not-found"},
	    {ENOTDIR, 404, "not-found"},
	    {ENOSPC, 503, "full"},
	    {EBUSY, 503, "resources"},
	    {EMFILE, 503, "resources"},
	    {ENFILE, 503, "resources"},
	    {ENOMEM, 503, "resources"},
	    {EAGAIN, 503, "worker"},
	    {0, 500, "failed"},
	};

	/* Not the image but the worker does not exist. */
	if (error == -ENOENT && !call->sup->fleet.current[0])
		error = -EAGAIN;
	api_refuse(call->req, table, error, why);
}

/* Whose process may connect: the client's own, unless the client is root. */
static bool
fill_owner(struct api_call *call, struct api_create *create)
{
	const struct peer *peer = &call->req->peer;
	bool is_root = peer->uid == 0;

	create->session.vmm_uid =
	    create->vmm_uid == UINT64_MAX ? peer->uid : (uid_t)create->vmm_uid;
	create->session.vmm_gid =
	    create->vmm_gid == UINT64_MAX ? peer->gid : (gid_t)create->vmm_gid;
	if (is_root ||
	    (create->session.vmm_uid == peer->uid &&
		api_peer_in_group(peer, create->session.vmm_gid)))
		return true;
	api_error(call->req, 403, "forbidden",
	    "only root may name a \"vmm_uid\" or \"vmm_gid\" that is not its own; leave it out");
	return false;
}

/* A request for a session whose image is being opened. */
struct creating {
	struct api_call call;
	struct creation *creation;
};

static void
on_created(void *arg, int error, struct session *session, const char *why)
{
	struct creating *creating = arg;

	if (session)
		api_wait_start(&creating->call, session, &api_wait_opened, 0, CREATE_WAIT_MS);
	else
		api_refuse_create(&creating->call, error, why);
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
create(struct api_call *call, const struct session_request *request)
{
	struct creating *creating = xcalloc(1, sizeof(*creating));
	const struct session_order order = {
	    .peer = &call->req->peer, .request = request, .done = on_created, .arg = creating};
	char why[API_WHY_BYTES] = "the session could not be created; see pagerd's log";
	int r;

	creating->call = *call;
	r = session_create(&call->sup->sessions, &order, &creating->creation, why, sizeof(why));
	if (r < 0) {
		free(creating);
		api_refuse_create(call, r, why);
		return;
	}
	call->req->state = creating;
	call->req->on_gone = on_creator_gone;
}

static void
create_from(struct api_call *call, const json_t *json)
{
	struct api_create body;
	char why[API_WHY_BYTES] = "the session could not be created; see pagerd's log";
	int r;

	if (api_create_read(json, &body, why, sizeof(why)) < 0) {
		api_error(call->req, 400, "bad-request", "%s", why);
		return;
	}
	if (!fill_owner(call, &body))
		return;
	if (!supervisor_maps_files(call->sup)) {
		create(call, &body.session);
		return;
	}
	r = api_backend_file(call, &body.session, why, sizeof(why));
	if (r < 0)
		api_refuse_create(call, r, why);
}

void
api_session_create(struct api_call *call)
{
	char why[API_WHY_BYTES];
	json_t *json;

	if (json_parse_object(call->req->body, call->req->body_bytes, &json, why, sizeof(why)) <
	    0) {
		api_error(call->req, 400, "bad-request", "%s", why);
		return;
	}
	create_from(call, json);
	json_decref(json);
}

/* HEAD has no lines to watch. */
static int
read_watch(struct api_call *call, bool *ret, char *why, size_t why_bytes)
{
	int r = api_query_flag(call->req, "watch", ret, why, why_bytes);

	if (strcmp(call->req->method, "HEAD") == 0)
		*ret = false;
	return r;
}

static void
wait_for(struct api_call *call, struct session *session, int target, bool watch)
{
	uint64_t timeout_ms = watch ? UINT64_MAX : DEFAULT_WAIT_MS;
	char why[API_WHY_BYTES];

	if (api_query_ms(call->req, "timeout", &timeout_ms, why, sizeof(why)) < 0) {
		api_error(call->req, 400, "bad-request", "%s", why);
		return;
	}
	/* To api_wait_start() 0 means for ever; to the client it means not at all. */
	if (timeout_ms == UINT64_MAX)
		timeout_ms = 0;
	else if (timeout_ms == 0)
		timeout_ms = 1;
	api_wait_start_as(call, session, &api_wait_state, target, timeout_ms,
	    watch ? &api_answer_lines : &api_answer_json);
}

void
api_session_show(struct api_call *call)
{
	char word[16], why[API_WHY_BYTES];
	struct session *session = api_find_session(call);
	int waits, target = api_wait_target_end();
	bool watch = false;

	if (!session)
		return;
	waits = http_query(call->req, "wait", word, sizeof(word));
	if (waits)
		target = waits < 0 ? waits : api_wait_target(word);
	if (target < 0)
		api_error(call->req, 400, "bad-request",
		    "\"wait\" must be opened, serving, graduated or closed");
	else if (read_watch(call, &watch, why, sizeof(why)) < 0)
		api_error(call->req, 400, "bad-request", "%s", why);
	else if (waits || watch)
		wait_for(call, session, target, watch);
	else {
		/* A large guest is counted part by part, each time that it is asked for. */
		session_refresh_counts(session, COUNTS_AGE_NS);
		api_reply(call->req, 200, api_session_json(session));
	}
}

void
api_session_close(struct api_call *call)
{
	struct session *session = api_find_session(call);

	if (!session || !has_empty_body(call))
		return;
	session_close(session, SESSION_OUTCOME_CLOSED, "closed by request");
	api_wait_start(call, session, &api_wait_ended, 0, CLOSE_WAIT_MS);
}

struct complete_query {
	uint64_t timeout_ms;
	bool join, watch;
};

static int
read_complete(struct api_call *call, struct complete_query *ret, char *why, size_t why_bytes)
{
	int r = api_query_ms(call->req, "timeout", &ret->timeout_ms, why, why_bytes);

	if (r == 0)
		r = api_query_flag(call->req, "join", &ret->join, why, why_bytes);
	return r == 0 ? api_query_flag(call->req, "watch", &ret->watch, why, why_bytes) : r;
}

static void
complete(struct api_call *call, struct session *session, const struct complete_query *query)
{
	const struct api_answer *answer = query->watch ? &api_answer_lines : &api_answer_json;
	char why[API_WHY_BYTES] = "";
	int r = session_complete(session, why, sizeof(why));

	if (r == 0 || r == -EALREADY)
		api_wait_start_as(
		    call, session, &api_wait_completion, 0, query->timeout_ms, answer);
	else if (r == -EBUSY && query->join)
		api_wait_start_as(call, session, &api_wait_join, 0, query->timeout_ms, answer);
	else if (r == -EBUSY)
		api_error(call->req, 409, "busy",
		    "a completion of session %s runs already; join it by ?join=1", session->id);
	else if (r == -EINVAL)
		api_error(call->req, 409, "state", "session %s cannot complete: %s", session->id,
		    why[0] ? why : session_state_word(session->state));
	else /* its worker cannot be told: another one takes it over, or its link recovers */
		api_error(call->req, 503, "worker", "session %s cannot complete now: %s",
		    session->id, why);
}

void
api_session_complete(struct api_call *call)
{
	struct complete_query query = {0};
	char why[API_WHY_BYTES];
	struct session *session = api_find_session(call);

	if (!session || !has_empty_body(call))
		return;
	if (read_complete(call, &query, why, sizeof(why)) < 0)
		api_error(call->req, 400, "bad-request", "%s", why);
	else
		complete(call, session, &query);
}
