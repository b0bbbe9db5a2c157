/* SPDX-License-Identifier: Apache-2.0 */
/* complete: one connection holds the request, a second asks how far it is. */
#include <errno.h>
#include <inttypes.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/scope.h"
#include "common/xalloc.h"
#include "supervisor/ctl/ctl.h"
#include "supervisor/ctl/text.h"

#define TICK_MS	      UINT64_C(100)
#define LINE_TICK_MS  UINT64_C(2000) /* without a terminal: a line so often */
#define MAX_BAR	      50
#define TEXT_ROOM     60 /* of a progress line beside the bar and the id */
#define SIGNAL_STATUS 128

static volatile sig_atomic_t caught;

static void
on_signal(int number)
{
	caught = number;
}

struct progress {
	const struct ctl *ctl;
	const char *id;
	bool terminal;
	bool drawn; /* a bar is on the line */
	uint64_t started_ns;
};

static size_t
bar_width(const char *id)
{
	struct winsize size;
	size_t columns = 80, used = strlen(id) + TEXT_ROOM;

	if (ioctl(STDERR_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col)
		columns = size.ws_col;
	if (columns < used + 4)
		return 4;
	return columns - used > MAX_BAR ? MAX_BAR : columns - used;
}

/* How far the session is: "[####....] 37 %  190 MiB of 512 MiB  1.2 GiB/s  0.3 s left" */
static void
draw(struct progress *p, const json_t *session)
{
	const json_t *progress = json_object_get(session, "progress");
	uint64_t done = ctl_u64(progress, "pages_done"), total = ctl_u64(progress, "pages_total");
	uint64_t bytes = ctl_u64(session, "guest_bytes"),
		 rate = ctl_u64(progress, "bytes_per_second");
	char bar[MAX_BAR + 3], percent[TEXT_BYTES], a[TEXT_BYTES], b[TEXT_BYTES], c[TEXT_BYTES];
	char left[TEXT_BYTES + 16] = "";

	if (!progress || total == 0)
		return;
	if (json_is_integer(json_object_get(progress, "eta_ms")))
		snprintf(left, sizeof(left), "  %s left",
		    text_nanos(c, ctl_u64(progress, "eta_ms") * NS_PER_MS));
	text_percent(percent, done, total);
	text_bytes(a, (uint64_t)((double)done / (double)total * (double)bytes));
	text_bytes(b, bytes);
	text_bytes(c, rate);
	if (p->terminal) {
		text_bar(bar, bar_width(p->id), done, total);
		fprintf(stderr, "\r%s %s %5s  %s of %s  %s/s%s\033[K", p->id, bar, percent, a, b, c,
		    left);
		p->drawn = true;
	} else
		fprintf(stderr, "%s: %s, %s of %s, %s/s%s\n", p->id, percent, a, b, c, left);
	fflush(stderr);
}

static void
wipe(struct progress *p)
{
	if (p->drawn)
		fputs("\r\033[K", stderr);
	p->drawn = false;
}

/* An answer about the progress that cannot be used is no reason to stop. */
static void
look(struct progress *p, struct client **asking)
{
	const char *body;
	size_t bytes;
	json_t *json = NULL;

	if (client_result(*asking, &body, &bytes) == 200)
		json = json_loadb(body, bytes, 0, NULL);
	if (json && *ctl_text(json, "state"))
		draw(p, json);
	json_decref(json);
	client_free(*asking);
	*asking = NULL;
}

/* Until the completion is answered or a signal came. */
static int
watch(struct progress *p, struct client *completing, const char *target)
{
	uint64_t tick_ms = p->terminal ? TICK_MS : LINE_TICK_MS;
	scoped_client struct client *asking = NULL;

	while (!client_is_done(completing)) {
		struct client *both[] = {completing, asking};
		int r = client_run(both, 2, tick_ms);

		if (caught)
			return -EINTR;
		if (asking && client_is_done(asking)) {
			look(p, &asking);
			continue;
		}
		if (r != -ETIMEDOUT || asking || p->ctl->json)
			continue;
		if (client_start(p->ctl->socket_path, "GET", target, NULL, TICK_MS, &asking) < 0)
			asking = NULL;
	}
	return 0;
}

static void
catch_signals(void)
{
	struct sigaction action = {.sa_handler = on_signal};

	sigemptyset(&action.sa_mask);
	sigaction(SIGINT, &action, NULL);
	sigaction(SIGTERM, &action, NULL);
}

static enum exitcode
report(const struct progress *p, const struct client *completing)
{
	uint64_t nanos = clock_now_ns() - p->started_ns;
	char bytes[TEXT_BYTES], time[TEXT_BYTES];
	json_t *json;
	enum exitcode code = ctl_finish(p->ctl, completing, &json);

	if (code != EXITCODE_OK)
		return code;
	text_bytes(bytes, ctl_u64(json, "guest_bytes"));
	if (p->ctl->json)
		ctl_print_json(json);
	else if (nanos < NS_PER_MS) /* it had before */
		printf("%s has graduated: %s\n", p->id, bytes);
	else
		printf("%s has graduated: %s in %s\n", p->id, bytes, text_nanos(time, nanos));
	json_decref(json);
	return EXITCODE_OK;
}

enum exitcode
ctl_complete(const struct ctl *ctl)
{
	uint64_t timeout_ms = 0;
	scoped_free char *printable = xstrdup(ctl->args[0]), *query = NULL, *target = NULL;
	scoped_free char *session = ctl_session_target(ctl->args[0], "");
	scoped_client struct client *completing = NULL;
	struct progress p = {.ctl = ctl, .id = printable, .terminal = isatty(STDERR_FILENO)};
	enum exitcode code;

	text_make_printable(printable);
	if (ctl_parse_time("timeout", ctl->flags.timeout, &timeout_ms) < 0)
		return EXITCODE_USAGE;
	query = ctl->flags.timeout ? xasprintf("/complete?timeout=%" PRIu64 "ms", timeout_ms)
				   : xstrdup("/complete");
	target = ctl_session_target(ctl->args[0], query);
	code = ctl_start(ctl, "POST", target, NULL, &completing);
	if (code != EXITCODE_OK)
		return code;
	p.started_ns = clock_now_ns();
	catch_signals();
	if (watch(&p, completing, session) < 0) {
		wipe(&p);
		ctl_complain("interrupted: %s goes on being served", p.id);
		return (enum exitcode)(SIGNAL_STATUS + caught);
	}
	wipe(&p);
	return report(&p, completing);
}
