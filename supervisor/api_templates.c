/* SPDX-License-Identifier: Apache-2.0 */
/* The templates of the API. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "common/xalloc.h"
#include "supervisor/api_open.h"
#include "supervisor/api_route.h"
#include "supervisor/supervisor.h"
#include "supervisor/template.h"

/* Forks that an answer names. */
#define LISTED_FORKS 1000U

struct body {
	const char *image, *cache_key, *hot_list, *prefetch;
};

/* clang-format off */
#define MEMBER(name, kind, required, member, min, max) \
	{ name, JSON_KIND_##kind, required, offsetof(struct body, member), min, max }
static const struct json_member members[] = {
	MEMBER("image", TEXT, true, image, 1, TEMPLATE_MAX_PATH_BYTES - 1),
	MEMBER("cache_key", TEXT, false, cache_key, 1, SESSION_ID_BYTES - 1),
	MEMBER("hot_list", TEXT, false, hot_list, 1, TEMPLATE_MAX_PATH_BYTES - 1),
	MEMBER("prefetch", TEXT, false, prefetch, 1, 16),
};
/* clang-format on */

static void
put_text_or_null(json_t *json, const char *name, const char *value)
{
	if (value)
		json_put_text(json, name, value);
	else
		json_put_null(json, name);
}

static json_t *
template_json(const struct template *template, size_t forks)
{
	const struct template_spec *spec = &template->spec;
	bool is_known = template->state != TEMPLATE_DAMAGED;
	json_t *json = json_object();

	json_put_text(json, "name", template->name);
	json_put_text(json, "state", template_state_word(template->state));
	put_text_or_null(json, "reason", is_known ? NULL : template->reason);
	put_text_or_null(json, "image", spec->image_path);
	json_put_u64(json, "image_bytes", template->image.bytes);
	put_text_or_null(json, "cache_key", spec->cache_key);
	put_text_or_null(json, "hot_list", spec->hot_list);
	json_put_text(json, "prefetch", prefetch_mode_word(spec->prefetch));
	json_put_u64(json, "forks", forks);
	return json;
}

static json_t *
template_and_forks_json(const struct supervisor *sup, const struct template *template)
{
	const struct session *forks[LISTED_FORKS];
	size_t n = template_forks(sup, template, forks, LISTED_FORKS);
	json_t *json = template_json(template, n), *list = json_array();

	for (size_t i = 0; i < n && i < LISTED_FORKS; i++)
		json_array_append_new(list, json_clean_text(forks[i]->id));
	json_put(json, "sessions", list);
	return json;
}

static void
refuse(struct api_call *call, int error, const char *why)
{
	static const struct api_refusal table[] = {
	    {EINVAL, 400, "bad-request"},
	    {EISDIR, 400, "bad-request"},
	    {ENAMETOOLONG, 400, "bad-request"},
	    {EFBIG, 400, "bad-request"},
	    {EACCES, 403, "forbidden"},
	    {EPERM, 403, "forbidden"},
	    {EXDEV, 403, "forbidden"},
	    {ELOOP, 403, "forbidden"},
	    {ENOENT, 404, "not-found"},
	    {ENOTDIR, 404, "not-found"},
	    {EOPNOTSUPP, 409, "state"},
	    {EBUSY, 409, "busy"},
	    {EBADMSG, 409, "damaged"},
	    {ESTALE, 409, "changed"},
	    {ENOSPC, 503, "full"},
	    {ENODEV, 503, "resources"},
	    {EAGAIN, 503, "resources"},
	    {ETIMEDOUT, 504, "timeout"},
	    {0, 500, "failed"},
	};

	api_refuse(call->req, table, error, why);
}

/* As it is now, with its forks. */
static void
answer(struct api_call *call, int status)
{
	char why[API_WHY_BYTES];
	const struct template *template;
	int r = template_find(call->sup, call->id, &template, why, sizeof(why));

	if (r < 0)
		refuse(call, r, why);
	else
		api_reply(call->req, status, template_and_forks_json(call->sup, template));
}

void
api_template_list(struct api_call *call)
{
	char why[API_WHY_BYTES];
	size_t nr, forks[TEMPLATE_MAX];
	struct template *const *all = templates_all(call->sup, &nr, why, sizeof(why));
	json_t *json, *list;

	if (!all) {
		refuse(call, -ENODEV, why);
		return;
	}
	templates_count_forks(call->sup, forks);
	json = json_object();
	list = json_array();
	for (size_t i = 0; i < nr; i++)
		json_array_append_new(list, template_json(all[i], forks[i]));
	json_put(json, "templates", list);
	api_reply(call->req, 200, json);
}

void
api_template_show(struct api_call *call)
{
	answer(call, 200);
}

/* One that is asked for, while its image is opened. */
struct putting {
	json_t *json; /* owned; the request's texts are in it */
	struct template_request req;
};

static void
putting_free(void *arg)
{
	struct putting *putting = arg;

	json_decref(putting->json);
	free(putting);
}

static void
put_opened(struct api_call *call, void *arg, struct opener_answer *opened)
{
	const struct putting *putting = arg;
	char text[API_WHY_BYTES];
	const char *why;
	bool is_new = false;
	int r = opener_result(opened, &why);

	if (r == 0) {
		r = template_put(call->sup, call->id, &putting->req, &opened->image, &is_new, text,
		    sizeof(text));
		why = text;
	}
	if (r < 0)
		refuse(call, r, why);
	else
		answer(call, is_new ? 201 : 200);
}

/* Owns the JSON. */
static void
put(struct api_call *call, const struct body *body, json_t *json)
{
	static const struct api_open_ops ops = {put_opened, putting_free};
	struct putting *putting = xcalloc(1, sizeof(*putting));
	struct opener_request request = {
	    .peer = &call->req->peer, .image = body->image, .looks = true};
	char why[API_WHY_BYTES] = "\"prefetch\" must be on, off or sequential";
	int r = -EINVAL;

	putting->json = json;
	putting->req =
	    (struct template_request){body->image, body->cache_key, body->hot_list, PREFETCH_ON};
	if (!body->prefetch || prefetch_mode_read(body->prefetch, &putting->req.prefetch))
		r = template_check(call->sup, call->id, &putting->req, why, sizeof(why));
	if (r < 0)
		putting_free(putting);
	else
		r = api_open(call, &request, &ops, putting, why, sizeof(why));
	if (r < 0)
		refuse(call, r, why);
}

void
api_template_put(struct api_call *call)
{
	struct body body = {0};
	json_t *json = api_read_body(call, members, sizeof(members) / sizeof(members[0]), &body);

	if (json)
		put(call, &body, json);
}

/* Of the event's name and an empty body. */
static void
act(struct api_call *call, enum template_event event)
{
	json_t *json = api_read_body(call, NULL, 0, NULL);
	char why[API_WHY_BYTES];
	enum template_state state;
	int r;

	if (!json)
		return;
	json_decref(json);
	r = template_do(call->sup, call->id, event, &state, why, sizeof(why));
	if (r < 0) {
		refuse(call, r, why);
	} else if (state == TEMPLATE_REMOVED) {
		json = json_object();
		json_put_text(json, "name", call->id);
		json_put_text(json, "state", template_state_word(state));
		api_reply(call->req, 200, json);
	} else {
		answer(call, 200);
	}
}

void
api_template_delete(struct api_call *call)
{
	act(call, TEMPLATE_EV_DELETE);
}

void
api_template_promote(struct api_call *call)
{
	act(call, TEMPLATE_EV_PROMOTE);
}

void
api_template_demote(struct api_call *call)
{
	act(call, TEMPLATE_EV_DEMOTE);
}
