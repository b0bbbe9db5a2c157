/* SPDX-License-Identifier: Apache-2.0 */
/* The list of sessions: a few of them in each turn of the loop, so that nobody waits for a
 * thousand, and never more in memory than a piece.  What is created meanwhile is not in it,
 * what is forgotten meanwhile may be. */
#include <stdlib.h>
#include <string.h>

#include "common/clock.h"
#include "common/xalloc.h"
#include "supervisor/api_route.h"
#include "supervisor/supervisor.h"

#define COUNTS_AGE_NS (500 * NS_PER_MS)
/* Of one turn, whichever comes first. */
#define PIECE_BYTES 32768U
#define PIECE_NS    (2 * NS_PER_MS)
#define READ_S	    30.0 /* for a client to read a piece */

struct api_list {
	struct list link; /* none, then api.dead */
	struct api *api;
	struct http_request *req;
	ev_timer timer;
	uint64_t at;		/* number of the last one that was told */
	uint64_t end;		/* of the one that none is told of, nor of any after it */
	struct json_text first; /* owned: a piece that waits for room */
	bool is_finished;
};

static void
finish(struct api_list *list)
{
	if (list->is_finished)
		return;
	list->is_finished = true;
	ev_timer_stop(list->api->sup->loop, &list->timer);
	free(list->first.text);
	api_bury(list->api, &list->link);
}

static struct session *
next_of(const struct api_list *list)
{
	const struct sessions *sessions = &list->api->sup->sessions;
	struct list *pos;

	list_for_each(pos, &sessions->all) {
		struct session *session = list_entry(pos, struct session, link);

		if (session->number > list->at)
			return session->number < list->end ? session : NULL;
	}
	return NULL;
}

/* The next ones, and what is before and behind the list.  True when nothing is left. */
static bool
say(struct api_list *list, struct json_text *text)
{
	const struct list *head = &list->api->sup->sessions.all;
	struct session *session = next_of(list);
	uint64_t until_ns = clock_now_ns() + PIECE_NS;

	if (list->at == 0)
		json_text_add(text, "{\"sessions\":[", 13);
	while (session && session->number < list->end) {
		if (list->at != 0)
			json_text_add(text, ",", 1);
		session_refresh_counts(session, COUNTS_AGE_NS);
		json_text_put(text, api_session_json_listed(session));
		list->at = session->number;
		session = session->link.next == head
		    ? NULL
		    : list_entry(session->link.next, struct session, link);
		if (text->used >= PIECE_BYTES || clock_now_ns() >= until_ns)
			break;
	}
	if (session && session->number < list->end)
		return false;
	json_text_add(text, "]}\n", 3);
	return true;
}

static void
on_room(struct http_request *req)
{
	struct api_list *list = req->state;
	struct json_text text = list->first;
	bool is_whole = !text.text && say(list, &text);

	list->first = (struct json_text){0};
	ev_timer_again(list->api->sup->loop, &list->timer);
	if (text.failed) {
		http_stream_abort(req);
		finish(list);
	} else if (is_whole) {
		http_stream_end(req, text.text, text.used);
		finish(list);
	} else if (http_stream_send(req, text.text, text.used) < 0) {
		http_stream_abort(req);
		finish(list);
	}
	free(text.text);
}

static void
on_gone(struct http_request *req)
{
	finish(req->state);
}

/* It does not read. */
static void
on_timer(struct ev_loop *loop, ev_timer *timer, int revents)
{
	struct api_list *list = timer->data;

	(void)loop;
	(void)revents;
	http_stream_abort(list->req);
	finish(list);
}

/* The rest follows piece by piece. */
static void
stream(const struct api_list *begun)
{
	struct api_list *list = xcalloc(1, sizeof(*list));
	struct http_request *req = begun->req;

	*list = *begun;
	list_init(&list->link);
	ev_timer_init(&list->timer, on_timer, READ_S, READ_S);
	list->timer.data = list;
	ev_now_update(list->api->sup->loop);
	ev_timer_start(list->api->sup->loop, &list->timer);
	req->state = list;
	req->on_gone = on_gone;
	req->on_room = on_room;
	http_stream_begin(req, 200, "application/json");
}

void
api_session_list(struct api_call *call)
{
	struct api_list list = {
	    .api = call->api, .req = call->req, .end = call->sup->sessions.next_number};
	bool is_whole;

	/* To say the length would be to make all of it in one turn. */
	if (strcmp(call->req->method, "HEAD") == 0) {
		http_reply(call->req, 200, "application/json", NULL, 0);
		return;
	}
	is_whole = say(&list, &list.first);
	if (!list.first.failed && !is_whole) {
		stream(&list);
		return;
	}
	if (list.first.failed)
		api_reply(call->req, 503, NULL);
	else
		http_reply(call->req, 200, "application/json", list.first.text, list.first.used);
	free(list.first.text);
}
