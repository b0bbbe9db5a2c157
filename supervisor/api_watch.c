/* SPDX-License-Identifier: Apache-2.0 */
/* A wait whose client wants to see it happen: one JSON object a line, at most one each
 * TICK_S and only when something has changed.  The last one has "status", which is the
 * status that the answer would have had by itself. */
#include <stdlib.h>
#include <string.h>

#include "common/clock.h"
#include "common/scope.h"
#include "supervisor/api_wait.h"
#include "supervisor/supervisor.h"

#define TICK_S	      0.1
#define COUNTS_AGE_NS (90 * NS_PER_MS)
#define LINES_TYPE    "application/x-ndjson"

/* Takes the JSON.  The text ends its line; NULL without memory. */
static char *
to_line(json_t *json, size_t *ret_bytes)
{
	char *text = json ? json_dumps(json, JSON_COMPACT) : NULL;

	json_decref(json);
	*ret_bytes = 0;
	if (!text)
		return NULL;
	*ret_bytes = strlen(text) + 1;
	text[*ret_bytes - 1] = '\n'; /* in the terminator's place: it is counted */
	return text;
}

static bool
is_news(const struct api_seen *seen, const struct api_seen *now)
{
	return seen->state != now->state || seen->pages_done != now->pages_done ||
	    seen->pages_total != now->pages_total;
}

static void
say_progress(struct api_wait *wait)
{
	struct session *session = wait->session;
	const struct pagemap_counts *counts = &session->last_counts;
	struct api_seen now = {.state = session->state};
	scoped_free char *line = NULL;
	json_t *json;
	size_t bytes;

	/* Whoever watches it too has the same. */
	session_refresh_counts(session, COUNTS_AGE_NS);
	now.pages_done = counts->present + counts->removed;
	now.pages_total = now.pages_done + counts->absent + counts->filling;
	if (!is_news(&wait->seen, &now))
		return;
	json = json_object();
	json_put_text(json, "state", session_state_word(session->state));
	json_put_u64(json, "guest_bytes", session->guest_bytes);
	api_progress_put(json, session, counts);
	line = to_line(json, &bytes);
	/* One that is dropped is as good as not seen: the next tick says what is true then. */
	if (line && http_stream_send(wait->req, line, bytes) == 0)
		wait->seen = now;
}

static void
on_tick(struct ev_loop *loop, ev_timer *timer, int revents)
{
	(void)loop;
	(void)revents;
	say_progress(timer->data);
}

static void
lines_begin(struct api_wait *wait)
{
	/* The first line comes with the next turn: what is over by then has none. */
	ev_timer_init(&wait->tick, on_tick, 0.0, TICK_S);
	wait->tick.data = wait;
	/* No state: so the first line is news. */
	wait->seen.state = SESSION_STATE_COUNT;
	http_stream_begin(wait->req, 200, LINES_TYPE);
	if (!wait->finished)
		ev_timer_start(wait->api->sup->loop, &wait->tick);
}

static void
lines_finish(struct api_wait *wait)
{
	ev_timer_stop(wait->api->sup->loop, &wait->tick);
}

static void
end(struct api_wait *wait, int status, json_t *json)
{
	scoped_free char *line = NULL;
	size_t bytes;

	json_put_u64(json, "status", (uint64_t)status);
	json_put_text(json, "state", session_state_word(wait->session->state));
	line = to_line(json, &bytes);
	http_stream_end(wait->req, line, bytes);
}

static void
lines_done(struct api_wait *wait, int status)
{
	json_t *json = json_object();

	json_put(json, "session", api_session_json(wait->session));
	end(wait, status, json);
}

static void
lines_error(struct api_wait *wait, int status, const char *code, const char *text)
{
	json_t *json = json_object();

	json_put_text(json, "error", text);
	json_put_text(json, "code", code);
	end(wait, status, json);
}

const struct api_answer api_answer_lines = {lines_begin, lines_finish, lines_done, lines_error};
