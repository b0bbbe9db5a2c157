/* SPDX-License-Identifier: Apache-2.0 */
/* drain: and, with --wait, a line for each session that keeps the version from its end. */
#include <inttypes.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/scope.h"
#include "common/xalloc.h"
#include "supervisor/ctl/ctl.h"
#include "supervisor/ctl/progress.h"
#include "supervisor/ctl/text.h"

#define LOOK_MS	     250
#define LINE_TICK_MS UINT64_C(2000) /* without a terminal: a session's progress so often */

/* A line that is too long must stay one line, or wiping would not find its beginning. */
#define WRAP_OFF "\033[?7l"
#define WRAP_ON	 "\033[?7h"

/* What was said of a session. */
struct seen {
	char *id;    /* owned */
	char *state; /* owned */
	uint64_t ns; /* when */
};

struct waiter {
	const struct ctl *ctl;
	const char *version;
	bool terminal;
	size_t drawn;	   /* lines on the terminal */
	struct seen *seen; /* owned: without a terminal */
	size_t nr_seen;
	uint64_t sessions;
	bool runs, draining, known;
};

static void
waiter_fini(struct waiter *w)
{
	for (size_t i = 0; i < w->nr_seen; i++) {
		free(w->seen[i].id);
		free(w->seen[i].state);
	}
	free(w->seen);
}

static void
wipe(struct waiter *w)
{
	if (w->drawn)
		fprintf(stderr, "\033[%zuA\r\033[J", w->drawn);
	w->drawn = 0;
}

/* --- What there is --------------------------------------------------------------- */

/* Whether a version's worker still runs, and with how many sessions. */
static enum exitcode
look_at_version(struct waiter *w)
{
	json_t *json;
	const json_t *v;
	size_t i;
	enum exitcode code = ctl_get(w->ctl, "/versions", &json);

	if (code != EXITCODE_OK)
		return code;
	w->known = w->runs = w->draining = false;
	w->sessions = 0;
	json_array_foreach(json_object_get(json, "versions"), i, v)
	{
		if (strcmp(ctl_text(v, "version"), w->version) != 0)
			continue;
		w->known = true;
		w->runs = json_is_integer(json_object_get(v, "pid"));
		w->draining = ctl_flag(v, "draining") ||
		    strcmp(ctl_text(v, "state"), "stopping") == 0 ||
		    strcmp(ctl_text(v, "state"), "gone") == 0;
		w->sessions = ctl_u64(v, "sessions");
	}
	json_decref(json);
	return EXITCODE_OK;
}

static bool
is_of(const struct waiter *w, const json_t *session)
{
	return strcmp(ctl_text(session, "version"), w->version) == 0;
}

static bool
is_live(const json_t *session)
{
	return json_is_null(json_object_get(session, "outcome"));
}

/* "serving", or how far it is; a session that has ended: how. */
static void
describe(const json_t *session, size_t bar, char text[PROGRESS_BYTES])
{
	const json_t *progress = json_object_get(session, "progress");

	text[0] = '\0';
	if (progress)
		progress_text(text, progress, ctl_u64(session, "guest_bytes"), bar);
	if (!*text)
		snprintf(text, PROGRESS_BYTES, "%s",
		    is_live(session) ? ctl_text(session, "state") : ctl_text(session, "outcome"));
}

static char *
printable_id(const json_t *session)
{
	char *id = xstrdup(ctl_text(session, "id"));

	text_make_printable(id);
	return id;
}

/* --- On a terminal --------------------------------------------------------------- */

static void
draw(struct waiter *w, const json_t *sessions)
{
	size_t room = progress_terminal_lines(), more = 0, i;
	const json_t *session;

	wipe(w);
	fputs(WRAP_OFF, stderr);
	room = room > 4 ? room - 3 : 1;
	json_array_foreach(sessions, i, session)
	{
		scoped_free char *id = NULL;
		char text[PROGRESS_BYTES];

		if (!is_of(w, session) || !is_live(session))
			continue;
		if (w->drawn >= room) {
			more++;
			continue;
		}
		id = printable_id(session);
		describe(session, progress_bar_width(text_width(id)), text);
		fprintf(stderr, "%s  %s\n", id, text);
		w->drawn++;
	}
	if (more) {
		fprintf(stderr, "and %zu more\n", more);
		w->drawn++;
	}
	fputs(WRAP_ON, stderr);
	fflush(stderr);
}

/* --- Without one ----------------------------------------------------------------- */

static struct seen *
find_seen(struct waiter *w, const char *id)
{
	for (size_t i = 0; i < w->nr_seen; i++)
		if (strcmp(w->seen[i].id, id) == 0)
			return &w->seen[i];
	return NULL;
}

static struct seen *
add_seen(struct waiter *w, const char *id)
{
	struct seen *seen = reallocarray(w->seen, w->nr_seen + 1, sizeof(*seen));

	if (!seen)
		abort();
	w->seen = seen;
	seen = &seen[w->nr_seen++];
	*seen = (struct seen){.id = xstrdup(id), .state = xstrdup("")};
	return seen;
}

/* A line when its state has changed, and now and then while it completes. */
static void
say(struct waiter *w, const json_t *session)
{
	scoped_free char *id = printable_id(session);
	struct seen *seen = find_seen(w, id);
	const char *state = is_live(session) ? ctl_text(session, "state") : "ended";
	char text[PROGRESS_BYTES];
	uint64_t now_ns = clock_now_ns();

	/* One that had ended before we looked is nobody's concern. */
	if (!seen && !is_live(session))
		return;
	if (!seen)
		seen = add_seen(w, id);
	if (strcmp(seen->state, state) == 0 &&
	    (strcmp(state, "completing") != 0 || now_ns - seen->ns < LINE_TICK_MS * NS_PER_MS))
		return;
	free(seen->state);
	seen->state = xstrdup(state);
	seen->ns = now_ns;
	describe(session, 0, text);
	fprintf(stderr, "%s: %s\n", id, text);
}

static void
say_all(struct waiter *w, const json_t *sessions)
{
	const json_t *session;
	size_t i;

	json_array_foreach(sessions, i, session)
	{
		if (is_of(w, session))
			say(w, session);
	}
	fflush(stderr);
}

/* --- The command ----------------------------------------------------------------- */

static enum exitcode
show_sessions(struct waiter *w)
{
	enum exitcode code;
	json_t *json;

	if (w->ctl->json)
		return EXITCODE_OK;
	code = ctl_get(w->ctl, "/sessions", &json);
	if (code != EXITCODE_OK)
		return code;
	if (w->terminal)
		draw(w, json_object_get(json, "sessions"));
	else
		say_all(w, json_object_get(json, "sessions"));
	json_decref(json);
	return code;
}

static enum exitcode
wait_drained(struct waiter *w, uint64_t timeout_ms)
{
	uint64_t end_ns = clock_now_ns() + timeout_ms * NS_PER_MS;

	for (;;) {
		enum exitcode code = look_at_version(w);

		if (code == EXITCODE_OK)
			code = show_sessions(w);
		if (code != EXITCODE_OK || !w->runs)
			return code;
		if (timeout_ms && clock_now_ns() >= end_ns) {
			wipe(w);
			ctl_complain("%s still has %" PRIu64 " session%s; it goes on draining",
			    w->version, w->sessions, w->sessions == 1 ? "" : "s");
			return EXITCODE_TIMEOUT;
		}
		poll(NULL, 0, LOOK_MS);
	}
}

static void
print_drained(const struct ctl *ctl, json_t *json)
{
	if (ctl->json)
		ctl_print_json(json);
	else if (ctl->flags.wait)
		printf("%s is drained; its worker has exited\n", ctl->args[0]);
	else
		printf("%s drains; it exits with the last of its sessions, which are %" PRIu64 "\n",
		    ctl->args[0], ctl_u64(json, "sessions"));
	json_decref(json);
}

static enum exitcode
drain(struct waiter *w, uint64_t timeout_ms)
{
	const struct ctl *ctl = w->ctl;
	enum exitcode code = EXITCODE_OK;
	json_t *json;

	if (ctl->flags.wait)
		code = look_at_version(w);
	if (code != EXITCODE_OK)
		return code;
	/* What is waited for may have come true before we asked. */
	if (w->known && !w->runs) {
		print_drained(ctl, json_pack("{sssi}", "version", w->version, "sessions", 0));
		return EXITCODE_OK;
	}
	/* One that drains by itself may have exited before it is told. */
	if (w->draining)
		json =
		    json_pack("{sssI}", "version", w->version, "sessions", (json_int_t)w->sessions);
	else
		code = ctl_post_version(ctl, "/drain", 0, &json);
	if (code != EXITCODE_OK)
		return code;
	if (ctl->flags.wait)
		code = wait_drained(w, timeout_ms);
	wipe(w);
	if (code == EXITCODE_OK)
		print_drained(ctl, json);
	else
		json_decref(json);
	return code;
}

enum exitcode
ctl_drain(const struct ctl *ctl)
{
	struct waiter w = {.ctl = ctl, .version = ctl->args[0], .terminal = isatty(STDERR_FILENO)};
	uint64_t timeout_ms = 0;
	enum exitcode code;

	if (ctl_parse_time("timeout", ctl->flags.timeout, &timeout_ms) < 0)
		return EXITCODE_USAGE;
	if (ctl->flags.timeout && !ctl->flags.wait) {
		ctl_complain("--timeout needs --wait");
		return EXITCODE_USAGE;
	}
	code = drain(&w, timeout_ms);
	waiter_fini(&w);
	return code;
}
