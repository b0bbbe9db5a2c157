/* SPDX-License-Identifier: Apache-2.0 */
/* Recording a session that is there already. */
#include <errno.h>

#include "supervisor/api_route.h"
#include "supervisor/recording.h"
#include "supervisor/supervisor.h"
#include "supervisor/template.h"

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
	case -EEXIST:
	case -EISDIR:
		api_error(call->req, 409, "exists", "%s", why);
		break;
	default:
		api_error(call->req, 500, "failed", "%s", why);
	}
}

/* Where it goes that its client does not say: NULL is beside the image. */
static const char *
list_of_template(struct session *session)
{
	const struct template *template;
	char why[API_WHY_BYTES];

	if (session->template[0] == '\0' ||
	    template_find(session->sup, session->template, &template, why, sizeof(why)) < 0)
		return NULL;
	return template->spec.hot_list;
}

static void
start(struct api_call *call, struct session *session, const char *path)
{
	char why[API_WHY_BYTES] = "";
	int r = recording_start(session, &call->req->peer,
	    path != NULL ? path : list_of_template(session), why, sizeof(why));

	if (r < 0)
		refuse(call, r, why);
	else
		api_reply(call->req, 200, api_session_json(session));
}

static void
stop(struct api_call *call, struct session *session)
{
	if (session->recording == NULL) {
		api_error(call->req, 409, "state", "session %s is not recorded", session->id);
		return;
	}
	/* One that has ended by itself is what the client wants, too. */
	recording_stop(session, "by request");
	if (session->recording->state == RECORDING_FAILED)
		api_error(call->req, 500, "failed", "no hot list is saved to %s: %s",
		    session->recording->path, session->recording->reason);
	else
		api_reply(call->req, 200, api_session_json(session));
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
