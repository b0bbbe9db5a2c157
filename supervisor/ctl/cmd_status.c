/* SPDX-License-Identifier: Apache-2.0 */
/* status: a screen that is understood at once.  What is out of order comes last, where the eye
 * is, with what to do about it. */
#include <fcntl.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/scope.h"
#include "common/xalloc.h"
#include "supervisor/ctl/ctl.h"
#include "supervisor/ctl/text.h"

#define MAX_ATTENTION 10 /* lines; the rest is counted */
#define BAR_WIDTH     20
#define PRESSURE      "/proc/pressure/memory"

/* Sessions in each state, as they come up in a life. */
static const char *const states[] = {
    "created", "serving", "completing", "moving", "adopting", "held", "closed"};

#define NR_STATES (sizeof(states) / sizeof(states[0]))

struct version {
	const char *name; /* borrowed from the JSON */
	uint64_t done, total;
};

struct screen {
	const struct ctl *ctl;
	json_t *all;		    /* owned: health, versions, controller, sessions by state */
	json_t *sessions;	    /* owned; NULL when none of them is of interest */
	uint64_t states[NR_STATES]; /* live sessions */
	struct version *versions;   /* owned */
	size_t nr_versions;
	size_t nr_attention;
};

static const char *
colour(const struct screen *s, enum table_colour which)
{
	return !s->ctl->colour	  ? ""
	    : which == TABLE_BAD  ? "\033[31m"
	    : which == TABLE_BUSY ? "\033[33m"
				  : "\033[0m";
}

/* --- What there is ----------------------------------------------------------------- */

static struct version *
find_version(struct screen *s, const char *name)
{
	for (size_t i = 0; i < s->nr_versions; i++)
		if (strcmp(s->versions[i].name, name) == 0)
			return &s->versions[i];
	return NULL;
}

static void
count_pages(struct screen *s)
{
	const json_t *session;
	size_t i;

	json_array_foreach(json_object_get(s->sessions, "sessions"), i, session)
	{
		const json_t *pages = json_object_get(session, "pages");
		struct version *version = find_version(s, ctl_text(session, "version"));

		if (!version || *ctl_text(session, "outcome"))
			continue;
		version->done += ctl_u64(pages, "present") + ctl_u64(pages, "removed");
		version->total += ctl_u64(pages, "total");
	}
}

/* Returns whether the sessions themselves must be looked at: a version is to be emptied, or
 * one of them needs somebody. */
static bool
count_states(struct screen *s)
{
	const json_t *list = json_object_get(json_object_get(s->all, "versions"), "versions"), *v;
	json_t *counts = json_object();
	bool needed = false;
	size_t n;

	s->versions = xcalloc(json_array_size(list) + 1, sizeof(*s->versions));
	json_array_foreach(list, n, v)
	{
		s->versions[s->nr_versions++].name = ctl_text(v, "version");
		needed |=
		    (!ctl_flag(v, "current") && ctl_u64(v, "sessions")) || ctl_u64(v, "alarmed");
		for (size_t i = 0; i < NR_STATES; i++)
			s->states[i] += ctl_u64(json_object_get(v, "states"), states[i]);
	}
	for (size_t i = 0; i < NR_STATES; i++) {
		if (s->states[i])
			json_object_set_new(
			    counts, states[i], json_integer((json_int_t)s->states[i]));
		needed |= s->states[i] && strcmp(states[i], "held") == 0;
	}
	json_object_set_new(s->all, "states", counts);
	return needed;
}

static enum exitcode
ask(struct screen *s, const char *target, const char *member)
{
	json_t *json;
	enum exitcode code = ctl_get(s->ctl, target, &json);

	if (code == EXITCODE_OK)
		json_object_set_new(s->all, member, json);
	return code;
}

static enum exitcode
ask_all(struct screen *s)
{
	enum exitcode code = ask(s, "/health", "health");
	json_t *stats;

	if (code == EXITCODE_OK)
		code = ask(s, "/versions", "versions");
	if (code == EXITCODE_OK)
		code = ctl_get(s->ctl, "/stats", &stats);
	if (code != EXITCODE_OK)
		return code;
	json_object_set(s->all, "controller", json_object_get(stats, "controller"));
	json_decref(stats);
	if (count_states(s))
		code = ctl_get(s->ctl, "/sessions", &s->sessions);
	count_pages(s);
	return code;
}

/* --- The head ---------------------------------------------------------------------- */

static void
print_sessions(const struct screen *s)
{
	char number[TEXT_BYTES];
	const char *separator = ": ";

	printf("  sessions    %s",
	    text_count(number, ctl_u64(json_object_get(s->all, "health"), "sessions")));
	for (size_t i = 0; i < NR_STATES; i++) {
		if (s->states[i] == 0)
			continue;
		printf("%s%s %s", separator, text_count(number, s->states[i]), states[i]);
		separator = ", ";
	}
	putchar('\n');
}

static void
print_controller(const json_t *controller)
{
	char running[TEXT_BYTES], waiting[TEXT_BYTES], done[TEXT_BYTES], failed[TEXT_BYTES];

	if (!ctl_u64(controller, "enabled")) {
		puts("  controller  off");
		return;
	}
	printf("  controller  on%s: %s under way, %s waiting; %s graduated, %s failed\n",
	    ctl_u64(controller, "paused") ? ", paused by memory pressure" : "",
	    text_count(running, ctl_u64(controller, "in_flight")),
	    text_count(waiting, ctl_u64(controller, "waiting")),
	    text_count(done, ctl_u64(controller, "graduated")),
	    text_count(failed, ctl_u64(controller, "failed")));
}

/* How much of the last ten seconds tasks of this host waited for memory. */
static void
print_pressure(void)
{
	scoped_fd int fd = open(PRESSURE, O_RDONLY | O_CLOEXEC);
	char text[256];
	double some;
	ssize_t n = fd < 0 ? -1 : read(fd, text, sizeof(text) - 1);

	if (n <= 0)
		return;
	text[n] = '\0';
	if (sscanf(text, "some avg10=%lf", &some) == 1)
		printf("  pressure    %.1f %% of the time some task waited for memory\n", some);
}

static void
print_head(const struct screen *s)
{
	const json_t *health = json_object_get(s->all, "health");
	const char *current = ctl_text(json_object_get(s->all, "versions"), "current");
	char up[TEXT_BYTES], workers[TEXT_BYTES];

	printf("pagerd %s is %s on %s\n", ctl_text(health, "version"), ctl_text(health, "status"),
	    s->ctl->socket_path);
	printf("  up          %s\n", text_nanos(up, ctl_u64(health, "uptime_ms") * NS_PER_MS));
	printf("  current     %s\n", *current ? current : "none: no version is installed");
	if (strcmp(ctl_text(health, "backend"), "file") == 0)
		printf("  backend     %sfile: no sessions are made; VMMs map their images%s\n",
		    colour(s, TABLE_BUSY), colour(s, TABLE_PLAIN));
	printf("  workers     %s\n", text_count(workers, ctl_u64(health, "workers")));
	print_sessions(s);
	print_controller(json_object_get(s->all, "controller"));
	print_pressure();
}

/* --- Versions ---------------------------------------------------------------------- */

static void
add_version(struct table *table, const struct version *known, const json_t *v)
{
	const char *state = ctl_text(v, "state");
	uint64_t pid = ctl_u64(v, "pid");
	char buf[TEXT_BYTES], bar[BAR_WIDTH + 3];

	table_add(table, TABLE_PLAIN, "%s", ctl_text(v, "version"));
	table_add(
	    table, ctl_u64(v, "retry_in_ms") ? TABLE_BAD : ctl_version_colour(state), "%s", state);
	if (pid)
		table_add(table, TABLE_PLAIN, "%" PRIu64, pid);
	else
		table_add(table, TABLE_DIM, "-");
	table_add(table, TABLE_PLAIN, "%s", text_count(buf, ctl_u64(v, "sessions")));
	table_add(table, TABLE_PLAIN, "%s",
	    ctl_flag(v, "current")	   ? "current"
		: ctl_flag(v, "draining")  ? "draining"
		: ctl_flag(v, "installed") ? "installed"
					   : "removed");
	if (known->total == 0) {
		table_add(table, TABLE_DIM, "-");
		return;
	}
	/* One that is to be emptied: how near it is. */
	text_bar(bar, BAR_WIDTH, known->done, known->total);
	table_add(table, TABLE_PLAIN, "%s %s", ctl_flag(v, "current") ? "" : bar,
	    text_percent(buf, known->done, known->total));
}

static void
print_versions(struct screen *s)
{
	static const char *const headers[] = {
	    "VERSION", "STATE", ">PID", ">SESSIONS", "ROLE", "MEMORY PRESENT", NULL};
	const json_t *list = json_object_get(json_object_get(s->all, "versions"), "versions"), *v;
	struct table table;
	size_t i;

	table_init(&table, headers);
	json_array_foreach(list, i, v) add_version(&table, &s->versions[i], v);
	putchar('\n');
	if (table.nr_cells)
		table_print(&table, stdout, s->ctl->colour);
	else
		puts("no version is installed; pagerd needs a pager-worker in its --worker-dir");
	table_fini(&table);
}

/* --- What needs somebody ----------------------------------------------------------- */

static void __attribute__((format(printf, 3, 4)))
attention(struct screen *s, const char *who, const char *fmt, ...)
{
	char text[1024];
	va_list ap;
	int n;

	if (s->nr_attention++ == 0)
		printf("\n%sneeds attention%s\n", colour(s, TABLE_BAD), colour(s, TABLE_PLAIN));
	if (s->nr_attention > MAX_ATTENTION)
		return;
	n = snprintf(text, sizeof(text), "%s: ", who);
	va_start(ap, fmt);
	if (n >= 0 && (size_t)n < sizeof(text))
		vsnprintf(text + n, sizeof(text) - (size_t)n, fmt, ap);
	va_end(ap);
	text_make_printable(text);
	printf("  %s\n", text);
}

static void
attend_session(struct screen *s, const json_t *session)
{
	const char *id = ctl_text(session, "id"), *state = ctl_text(session, "state");
	char buf[TEXT_BYTES];

	if (strcmp(state, "held") == 0)
		attention(
		    s, id, "held, its VM frozen: workers died with it; pagerctl retry %s", id);
	else if (*ctl_text(session, "image_changed"))
		attention(s, id, "its image was modified in place: %s; pagerctl show %s",
		    ctl_text(session, "image_changed"), id);
	else if (ctl_u64(session, "alarms"))
		attention(s, id, "%s alarms: %s; pagerctl show %s",
		    text_count(buf, ctl_u64(session, "alarms")),
		    *ctl_text(session, "reason") ? ctl_text(session, "reason")
						 : "its image could not be read for a while",
		    id);
}

static void
print_attention(struct screen *s)
{
	const json_t *versions = json_object_get(s->all, "versions"), *one;
	char buf[TEXT_BYTES];
	size_t i;

	json_array_foreach(json_object_get(versions, "versions"), i, one)
	{
		const char *name = ctl_text(one, "version");

		if (ctl_u64(one, "retry_in_ms"))
			attention(s, name, "its worker keeps dying; it is started again in %s",
			    text_nanos(buf, ctl_u64(one, "retry_in_ms") * NS_PER_MS));
		if (!ctl_flag(one, "installed") && ctl_u64(one, "sessions"))
			attention(s, name, "it is not installed any more and has sessions");
	}
	json_array_foreach(json_object_get(s->sessions, "sessions"), i, one)
	{
		if (!*ctl_text(one, "outcome"))
			attend_session(s, one);
	}
	if (s->nr_attention > MAX_ATTENTION)
		printf("  and %zu more; pagerctl sessions shows them\n",
		    s->nr_attention - MAX_ATTENTION);
}

enum exitcode
ctl_status(const struct ctl *ctl)
{
	struct screen s = {.ctl = ctl, .all = json_object()};
	enum exitcode code = ask_all(&s);

	if (code == EXITCODE_OK) {
		if (ctl->json)
			ctl_print_json(s.all);
		else {
			print_head(&s);
			print_versions(&s);
			print_attention(&s);
		}
	}
	free(s.versions);
	json_decref(s.sessions);
	json_decref(s.all);
	return code;
}
