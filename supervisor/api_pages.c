/* SPDX-License-Identifier: Apache-2.0 */
/* GET and POST /sessions/{id}/pages.  The worker is asked for a picture of the pages; when it
 * has come, the client gets it piece by piece, as fast as it reads. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "common/num.h"
#include "common/scope.h"
#include "common/xalloc.h"
#include "supervisor/api_route.h"
#include "supervisor/pages_text.h"
#include "supervisor/picture.h"
#include "supervisor/supervisor.h"

/* A worker holds the guest's faults for a picture: it takes milliseconds. */
#define ANSWER_S 30.0
/* A client that does not read for so long keeps no memory of ours. */
#define READ_S 30.0

struct pages {
	struct list link; /* none, then api.dead */
	struct api *api;
	struct http_request *req;
	struct session_wait wait;
	struct picture picture;
	struct pages_text text;
	char *id; /* owned; as JSON */
	const uint8_t *map;
	ev_timer timer;
	bool is_raw, is_finished;
};

static void
finish(struct pages *pages)
{
	if (pages->is_finished)
		return;
	pages->is_finished = true;
	ev_timer_stop(pages->api->sup->loop, &pages->timer);
	session_wait_remove(&pages->wait);
	if (pages->map != NULL)
		munmap((void *)(uintptr_t)pages->map, pages->picture.bytes);
	picture_drop(&pages->picture);
	free(pages->id);
	api_bury(pages->api, &pages->link);
}

static void
refuse(struct http_request *req, int error, const char *why)
{
	static const struct api_refusal table[] = {
	    {EINVAL, 409, "state"},
	    {ENOTCONN, 503, "worker"},
	    {EPROTONOSUPPORT, 409, "version"},
	    {EOPNOTSUPP, 409, "untracked"},
	    {ESTALE, 409, "stale"},
	    {EBUSY, 409, "busy"},
	    {EAGAIN, 503, "busy"},
	    {E2BIG, 409, "too-large"},
	    {ENOSPC, 503, "resources"},
	    {ENOMEM, 503, "resources"},
	    {EMFILE, 503, "resources"},
	    {ENFILE, 503, "resources"},
	    {EPIPE, 503, "worker"},
	    {0, 500, "failed"},
	};

	api_refuse(req, table, error, why);
}

/* What the worker says instead of a picture, in words. */
static void
refuse_answer(struct pages *pages)
{
	const struct picture *picture = &pages->picture;
	int error = picture->is_answered ? picture->error : ENOTCONN;
	const char *why = strerror(error);

	switch (error) {
	case ENOTCONN:
		why = "its worker went away before it could tell; ask again";
		break;
	case ESTALE:
		why = "\"since\" is not the number of the last new picture, nor of the one before "
		      "that was confirmed; ask without it for everything since that one";
		break;
	case EOPNOTSUPP:
		why = "writes of this session are not tracked: its VMM has not registered its "
		      "memory for write protection, or a completion has ended that";
		break;
	case EAGAIN:
		why = "the VMM discards memory without end, and nothing can be protected "
		      "meanwhile; ask again";
		break;
	case EBUSY:
		why = "the worker is busy with another picture of the session; ask again";
		break;
	case EINVAL:
		why = "the session is ending";
		break;
	default:
		break;
	}
	refuse(pages->req, -error, why);
}

static void
on_room(struct http_request *req)
{
	struct pages *pages = req->state;
	char piece[PAGES_PIECE_BYTES];
	size_t n = pages->is_raw ? pages_text_raw(&pages->text, piece)
				 : pages_text_json(&pages->text, piece);

	ev_timer_again(pages->api->sup->loop, &pages->timer);
	if (n > 0 && http_stream_send(req, piece, n) == 0)
		return;
	if (n > 0)
		http_stream_abort(req);
	else
		http_stream_end(req, NULL, 0);
	finish(pages);
}

static const char *
tracking_word(const struct picture *picture)
{
	if (picture->tracking == PAGEMAP_LOST)
		return "lost";
	return picture->tracking == PAGEMAP_TRACKED && picture->knows_writes ? "write-protect"
									     : "none";
}

static int
map_picture(struct pages *pages)
{
	void *map = mmap(NULL, pages->picture.bytes, PROT_READ, MAP_SHARED, pages->picture.fd, 0);

	if (map == MAP_FAILED)
		return -errno;
	pages->map = map;
	return 0;
}

static void
begin(struct pages *pages)
{
	const struct picture *picture = &pages->picture;
	struct ev_loop *loop = pages->api->sup->loop;

	pages->text = (struct pages_text){
	    .pages = pages->map,
	    .regions = picture->regions,
	    .nr_regions = picture->nr_regions,
	    .id = pages->id,
	    .tracking = tracking_word(picture),
	    .knows_writes = picture->knows_writes && picture->tracking == PAGEMAP_TRACKED,
	    .knows_removals = picture->knows_removals,
	    .since = picture->base,
	    .number = picture->number,
	};
	ev_timer_stop(loop, &pages->timer);
	ev_now_update(loop);
	ev_timer_set(&pages->timer, READ_S, READ_S);
	ev_timer_start(loop, &pages->timer);
	pages->req->on_room = on_room;
	http_stream_begin(
	    pages->req, 200, pages->is_raw ? "application/octet-stream" : "application/json");
}

static bool
on_check(struct session_wait *wait)
{
	struct pages *pages = list_entry(wait, struct pages, wait);
	int r = 0;

	if (!pages->picture.is_answered && !picture_is_over(&pages->picture))
		return false;
	session_wait_remove(&pages->wait);
	if (!pages->picture.is_answered || pages->picture.error != 0) {
		refuse_answer(pages);
		finish(pages);
		return true;
	}
	r = map_picture(pages);
	if (r < 0) {
		refuse(pages->req, r, strerror(-r));
		finish(pages);
	} else {
		begin(pages);
	}
	return true;
}

static void
on_timer(struct ev_loop *loop, ev_timer *timer, int revents)
{
	struct pages *pages = timer->data;

	(void)loop;
	(void)revents;
	if (pages->map != NULL)
		http_stream_abort(pages->req);
	else
		api_error(pages->req, 504, "timeout", "the worker did not tell in time; ask again");
	finish(pages);
}

static void
on_gone(struct http_request *req)
{
	finish(req->state);
}

static char *
json_id(const char *id)
{
	json_t *json = json_clean_text(id);
	char *text = json ? json_dumps(json, JSON_ENCODE_ANY) : NULL;

	json_decref(json);
	return text ? text : xstrdup("null");
}

static void
ask(struct api_call *call, struct session *session, const struct picture_wish *wish, bool is_raw)
{
	struct pages *pages = xcalloc(1, sizeof(*pages));
	char why[API_WHY_BYTES];
	int r = picture_ask(&pages->picture, session, wish, why, sizeof(why));

	if (r < 0) {
		refuse(call->req, r, why);
		free(pages);
		return;
	}
	pages->api = call->api;
	pages->req = call->req;
	pages->is_raw = is_raw;
	pages->id = json_id(session->id);
	list_init(&pages->link);
	list_init(&pages->wait.link);
	pages->wait.check = on_check;
	ev_timer_init(&pages->timer, on_timer, ANSWER_S, 0.0);
	pages->timer.data = pages;
	ev_now_update(call->sup->loop);
	ev_timer_start(call->sup->loop, &pages->timer);
	call->req->state = pages;
	call->req->on_gone = on_gone;
	session_wait_add(session, &pages->wait);
}

static int
read_query(const struct http_request *req, struct picture_wish *wish, bool *ret_raw, char *why)
{
	char text[32];
	int r = http_query(req, "format", text, sizeof(text));

	if (r != 0 && (r < 0 || (strcmp(text, "json") != 0 && strcmp(text, "raw") != 0))) {
		snprintf(why, API_WHY_BYTES, "\"format\" must be json or raw");
		return -EINVAL;
	}
	*ret_raw = r != 0 && text[0] == 'r';
	r = http_query(req, "since", text, sizeof(text));
	wish->has_since = r != 0;
	if (r != 0 && (r < 0 || num_parse_u64(text, 0, INT64_MAX, &wish->since) < 0)) {
		snprintf(why, API_WHY_BYTES,
		    "\"since\" must be the number of a picture, or 0 for the image");
		return -EINVAL;
	}
	return 0;
}

static void
tell_pages(struct api_call *call, bool is_new)
{
	struct picture_wish wish = {.is_new = is_new};
	struct session *session = session_find(&call->sup->sessions, call->id);
	char why[API_WHY_BYTES];
	bool is_raw;

	if (session == NULL)
		api_error(call->req, 404, "not-found",
		    "there is no session %s; the list of sessions has those that there are",
		    call->id);
	else if (read_query(call->req, &wish, &is_raw, why) < 0)
		api_error(call->req, 400, "bad-request", "%s", why);
	else if (session_is_over(session))
		api_error(call->req, 409, "ended",
		    "session %s has ended: nothing is known of its pages any more", session->id);
	else if (strcmp(call->req->method, "HEAD") == 0)
		http_reply(call->req, 200, is_raw ? "application/octet-stream" : "application/json",
		    NULL, 0);
	else
		ask(call, session, &wish, is_raw);
}

void
api_session_pages(struct api_call *call)
{
	tell_pages(call, false);
}

void
api_session_pages_new(struct api_call *call)
{
	json_t *json = api_read_body(call, NULL, 0, NULL);

	if (json != NULL)
		tell_pages(call, true);
	json_decref(json);
}
