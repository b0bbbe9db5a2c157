/* SPDX-License-Identifier: Apache-2.0 */
/* GET /events: what has happened since a number, at once or as soon as something does. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "common/clock.h"
#include "common/num.h"
#include "common/xalloc.h"
#include "supervisor/api.h"
#include "supervisor/api_route.h"
#include "supervisor/events.h"
#include "supervisor/supervisor.h"

#define MAX_EVENTS 256 /* of one answer */

/* Whoever waits for the next one. */
struct events_wait {
	struct list link; /* api.event_waits, then api.dead */
	struct api *api;
	struct http_request *req;
	uint64_t since;
	ev_timer timer;
};

static json_t *
event_json(const struct event *event)
{
	json_t *json = json_object();

	json_put_u64(json, "number", event->number);
	json_put_u64(json, "time_ms", event->time_ms);
	json_put_text(json, "kind", event->is_worker ? "worker" : "session");
	if (event->is_worker)
		json_put_null(json, "id");
	else
		json_put_text(json, "id", event->object);
	json_put_text(json, "version", event->version);
	json_put_text(json, "from", event->from);
	json_put_text(json, "to", event->to);
	json_put_text(json, "event", event->what);
	if (event->reason[0] != '\0')
		json_put_text(json, "reason", event->reason);
	else
		json_put_null(json, "reason");
	return json;
}

static void
answer(struct api *api, struct http_request *req, uint64_t since)
{
	struct events *events = &api->sup->events;
	json_t *json = json_object(), *list = json_array();
	const struct event *event;
	bool gap, later;

	event = events_after(events, since, &gap);
	for (unsigned n = 0; event != NULL && n < MAX_EVENTS; n++) {
		json_array_append_new(list, event_json(event));
		since = event->number;
		event = events_after(events, since, &later);
	}
	json_put_flag(json, "gap", gap);
	json_put_flag(json, "more", event != NULL);
	/* Of a number that no supervisor has come to yet there is nothing to wait for. */
	if (since > events_last(events))
		since = events_last(events);
	json_put_u64(json, "last", since);
	json_put(json, "events", list);
	api_reply(req, 200, json);
}

static void
end(struct events_wait *wait)
{
	ev_timer_stop(wait->api->sup->loop, &wait->timer);
	api_bury(wait->api, &wait->link);
}

static void
on_gone(struct http_request *req)
{
	end(req->state);
}

static void
on_time(struct ev_loop *loop, ev_timer *timer, int revents)
{
	struct events_wait *wait = timer->data;

	(void)loop;
	(void)revents;
	answer(wait->api, wait->req, wait->since);
	end(wait);
}

void
api_events_tell(struct supervisor *sup)
{
	struct list *pos, *tmp;
	struct api *api;
	bool gap;

	if (sup->admin == NULL)
		return;
	api = http_server_arg(sup->admin);
	list_for_each_safe(pos, tmp, &api->event_waits) {
		struct events_wait *wait = list_entry(pos, struct events_wait, link);

		if (events_after(&sup->events, wait->since, &gap) == NULL)
			continue;
		answer(api, wait->req, wait->since);
		end(wait);
	}
}

static void
wait_for_more(struct api_call *call, uint64_t since, uint64_t wait_ms)
{
	struct events_wait *wait = xcalloc(1, sizeof(*wait));

	*wait = (struct events_wait){.api = call->api, .req = call->req, .since = since};
	list_add(&call->api->event_waits, &wait->link);
	ev_timer_init(&wait->timer, on_time, (double)wait_ms / 1000.0, 0.0);
	wait->timer.data = wait;
	ev_timer_start(call->sup->loop, &wait->timer);
	call->req->state = wait;
	call->req->on_gone = on_gone;
}

void
api_events(struct api_call *call)
{
	struct events *events = &call->sup->events;
	char why[API_WHY_BYTES], text[32];
	uint64_t since = events_last(events), wait_ms = 0;
	int r = http_query(call->req, "since", text, sizeof(text));
	bool gap;

	if (r != 0 && (r < 0 || num_parse_u64(text, 0, INT64_MAX, &since) < 0)) {
		api_error(call->req, 400, "bad-request", "since is no number of an event");
		return;
	}
	if (api_query_ms(call->req, "wait", &wait_ms, why, sizeof(why)) < 0) {
		api_error(call->req, 400, "bad-request", "%s", why);
		return;
	}
	if (wait_ms == 0 || since > events_last(events) ||
	    events_after(events, since, &gap) != NULL)
		answer(call->api, call->req, since);
	else
		wait_for_more(call, since, wait_ms);
}
