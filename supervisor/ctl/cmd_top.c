/* SPDX-License-Identifier: Apache-2.0 */
/* top: versions and sessions, live, on the whole terminal. */
#include "common/exitcode.h"
#include "supervisor/ctl/ctl.h"

#if HAVE_CURSES
#include <curses.h>
#include <locale.h>
#include <stdarg.h>
#include <string.h>
#include <unistd.h>

#include "common/clock.h"
#include "supervisor/ctl/text.h"
#include "supervisor/ctl/top.h"

#define REFRESH_MS 1000
#define BAR_WIDTH  10
/* Columns of a session's line: all but the id, the share that is present and its bar. */
#define REST_WIDTH    49
#define PRESENT_WIDTH 7
#define MIN_ID_WIDTH  8
#define MAX_ID_WIDTH  40
#define LINE_BYTES    512

static const char keys[TOP_SORTS] = {'f', 'l', 'm', 'p', 'i'};
static const char *const sorts[TOP_SORTS] = {"faults", "latency", "memory", "presence", "id"};

struct screen {
	const struct ctl *ctl;
	struct top top;
	json_t *health, *versions;
	enum top_sort sort;
	size_t first; /* row of the list at its top */
};

static enum exitcode
look(struct screen *s)
{
	struct top now;
	json_t *sessions = NULL;
	enum exitcode code;

	json_decref(s->health);
	json_decref(s->versions);
	s->health = s->versions = NULL;
	code = ctl_get(s->ctl, "/health", &s->health);
	if (code == EXITCODE_OK)
		code = ctl_get(s->ctl, "/versions", &s->versions);
	if (code == EXITCODE_OK)
		code = ctl_get(s->ctl, "/sessions", &sessions);
	if (code != EXITCODE_OK)
		return code;
	if (!top_read(&now, &s->top, sessions, clock_now_ns()))
		code = EXITCODE_FAILED;
	json_decref(sessions);
	top_fini(&s->top);
	s->top = now;
	top_sort(&s->top, s->sort);
	return code;
}

/* What does not fit is cut off: a line that wrapped would be another's. */
static void __attribute__((format(printf, 2, 3))) put(int line, const char *fmt, ...)
{
	char text[LINE_BYTES];
	va_list args;

	va_start(args, fmt);
	vsnprintf(text, sizeof(text), fmt, args);
	va_end(args);
	mvaddnstr(line, 0, text, COLS);
}

struct widths {
	int id, present;
	bool has_bar;
};

/* The bar goes before the id becomes too short. */
static struct widths
choose_widths(void)
{
	struct widths w = {.present = BAR_WIDTH + PRESENT_WIDTH + 1, .has_bar = true};

	if (COLS - REST_WIDTH - w.present < MIN_ID_WIDTH)
		w = (struct widths){.present = PRESENT_WIDTH};
	w.id = COLS - REST_WIDTH - w.present;
	if (w.id < MIN_ID_WIDTH)
		w.id = MIN_ID_WIDTH;
	if (w.id > MAX_ID_WIDTH)
		w.id = MAX_ID_WIDTH;
	return w;
}

static void
draw_head(const struct screen *s)
{
	char up[TEXT_BYTES], all[TEXT_BYTES], present[TEXT_BYTES], mean[TEXT_BYTES];
	char bar[BAR_WIDTH + 3];

	put(0, "pagerd %s  up %s  %zu sessions  %.0f faults/s  %s each",
	    ctl_text(s->health, "version"),
	    text_nanos(up, ctl_u64(s->health, "uptime_ms") * NS_PER_MS), s->top.nr, s->top.faults_s,
	    s->top.mean_ns > 0 ? text_nanos(mean, s->top.mean_ns) : "-");
	text_bar(bar, BAR_WIDTH, s->top.present_bytes, s->top.guest_bytes);
	put(1, "memory %s %s of %s", bar, text_bytes(present, s->top.present_bytes),
	    text_bytes(all, s->top.guest_bytes));
}

static int
draw_versions(const struct screen *s, int line)
{
	const json_t *row;
	size_t i;

	json_array_foreach(json_object_get(s->versions, "versions"), i, row)
	{
		bool current = ctl_flag(row, "current");

		if (strcmp(ctl_text(row, "state"), "not-running") == 0 && !current)
			continue;
		if (current)
			attron(A_BOLD);
		put(line++, "version %-12s %-12s %4llu sessions%s", ctl_text(row, "version"),
		    ctl_text(row, "state"), (unsigned long long)ctl_u64(row, "sessions"),
		    current			    ? "  current"
			: ctl_flag(row, "draining") ? "  drains"
						    : "");
		attroff(A_BOLD);
	}
	return line;
}

static void
draw_row(const struct top_row *row, const struct widths *w, int line)
{
	char bar[BAR_WIDTH + 3] = "", memory[TEXT_BYTES], mean[TEXT_BYTES], percent[TEXT_BYTES];
	bool ill = strcmp(row->state, "held") == 0 || strcmp(row->state, "adopting") == 0;

	if (w->has_bar)
		text_bar(bar, BAR_WIDTH, row->present, row->pages);
	if (ill)
		attron(A_REVERSE);
	put(line, "%-*.*s %-8.8s %-10.10s %8.0f %8s %s%*s %9s", w->id, w->id, row->id, row->version,
	    row->state, row->faults_s, row->mean_ns > 0 ? text_nanos(mean, row->mean_ns) : "-", bar,
	    w->present - (int)strlen(bar), text_percent(percent, row->present, row->pages),
	    text_bytes(memory, row->guest_bytes));
	attroff(A_REVERSE);
}

static void
draw(struct screen *s)
{
	const struct widths w = choose_widths();
	int line;

	erase();
	draw_head(s);
	line = draw_versions(s, 2) + 1;
	attron(A_UNDERLINE);
	put(line++, "%-*s %-8s %-10s %8s %8s %-*s %9s", w.id, "SESSION", "VERSION", "STATE",
	    "FAULTS/s", "LATENCY", w.present, "PRESENT", "MEMORY");
	attroff(A_UNDERLINE);
	if (s->first >= s->top.nr)
		s->first = s->top.nr > 0 ? s->top.nr - 1 : 0;
	for (size_t i = s->first; i < s->top.nr && line < LINES - 1; i++)
		draw_row(&s->top.rows[i], &w, line++);
	put(LINES - 1, "q quit  sorted by %s: f faults  l latency  m memory  p presence  i id",
	    sorts[s->sort]);
	refresh();
}

/* False: it is over. */
static bool
obey(struct screen *s, int key)
{
	for (unsigned i = 0; i < TOP_SORTS; i++)
		if (key == keys[i]) {
			s->sort = (enum top_sort)i;
			top_sort(&s->top, s->sort);
		}
	if (key == KEY_DOWN && s->first + 1 < s->top.nr)
		s->first++;
	else if (key == KEY_UP && s->first > 0)
		s->first--;
	else if (key == KEY_NPAGE)
		s->first += 10;
	else if (key == KEY_PPAGE)
		s->first -= s->first < 10 ? s->first : 10;
	return key != 'q' && key != 'Q';
}

/* Keys are obeyed at once; the numbers are a second apart. */
static enum exitcode
run(struct screen *s)
{
	enum exitcode code = look(s);

	while (code == EXITCODE_OK) {
		uint64_t now = clock_now_ns(), due = s->top.taken_ns + REFRESH_MS * NS_PER_MS;
		int key;

		draw(s);
		timeout(now < due ? (int)((due - now) / NS_PER_MS) + 1 : 1);
		key = getch();
		if (key == ERR)
			code = look(s);
		else if (!obey(s, key))
			break;
	}
	return code;
}

static void
finish(struct screen *s)
{
	top_fini(&s->top);
	json_decref(s->health);
	json_decref(s->versions);
}

enum exitcode
ctl_top(const struct ctl *ctl)
{
	struct screen s = {.ctl = ctl};
	enum exitcode code;

	if (!isatty(STDIN_FILENO) || !isatty(STDOUT_FILENO)) {
		ctl_complain("top needs a terminal; pagerctl status and sessions do not");
		return EXITCODE_USAGE;
	}
	/* What is wrong from the start is said before the screen is taken. */
	code = look(&s);
	if (code != EXITCODE_OK) {
		finish(&s);
		return code;
	}
	setlocale(LC_CTYPE, "");
	if (newterm(NULL, stdout, stdin) == NULL) {
		finish(&s);
		ctl_complain("top: the terminal is unknown; set TERM");
		return EXITCODE_FAILED;
	}
	cbreak();
	noecho();
	curs_set(0);
	keypad(stdscr, TRUE);
	code = run(&s);
	endwin();
	if (code != EXITCODE_OK)
		ctl_complain("top: pagerd does not answer any more");
	finish(&s);
	return code;
}

#else

enum exitcode
ctl_top(const struct ctl *ctl)
{
	(void)ctl;
	ctl_complain("this pagerctl was built without curses and has no top");
	return EXITCODE_FAILED;
}

#endif
