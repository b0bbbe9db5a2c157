/* SPDX-License-Identifier: Apache-2.0 */
/* complete: one request, whose answer says line by line how far it is. */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/scope.h"
#include "common/xalloc.h"
#include "supervisor/ctl/ctl.h"
#include "supervisor/ctl/interrupt.h"
#include "supervisor/ctl/progress.h"
#include "supervisor/ctl/text.h"

#define LINE_TICK_MS UINT64_C(2000) /* without a terminal: a line so often */
#define LOOK_MS	     UINT64_C(1000)

struct progress {
	const struct ctl *ctl;
	const char *id;
	bool terminal;
	bool drawn; /* a bar is on the line */
	bool begun; /* there was progress: it had not graduated before */
	uint64_t started_ns, said_ns;
	json_t *final; /* owned: the last line, which has "status" */
};

static void
draw(struct progress *p, const json_t *line)
{
	size_t bar = p->terminal ? progress_bar_width(text_width(p->id)) : 0;
	uint64_t now_ns = clock_now_ns();
	char text[PROGRESS_BYTES];

	if (p->ctl->json || (!p->terminal && now_ns - p->said_ns < LINE_TICK_MS * NS_PER_MS))
		return;
	p->said_ns = now_ns;
	progress_text(text, line, ctl_u64(line, "guest_bytes"), bar);
	if (!*text)
		return;
	if (p->terminal)
		fprintf(stderr, "\r%s %s\033[K", p->id, text);
	else
		fprintf(stderr, "%s: %s\n", p->id, text);
	p->drawn = p->terminal;
	fflush(stderr);
}

static void
wipe(struct progress *p)
{
	if (p->drawn)
		fputs("\r\033[K", stderr);
	p->drawn = false;
}

/* A line about the progress that cannot be read is no reason to stop. */
static void
read_lines(struct progress *p, struct client *client)
{
	char *text;

	while ((text = client_take_line(client))) {
		json_t *line = json_loads(text, 0, NULL);

		free(text);
		if (json_is_integer(json_object_get(line, "status"))) {
			json_decref(p->final);
			p->final = line;
		} else {
			p->begun = true;
			draw(p, line);
			json_decref(line);
		}
	}
}

/* Until the completion is answered or a signal came. */
static int
watch(struct progress *p, struct client *client)
{
	while (!client_is_done(client)) {
		client_run(&client, 1, LOOK_MS);
		read_lines(p, client);
		if (interrupt_caught())
			return -EINTR;
	}
	read_lines(p, client);
	return 0;
}

/* The answer: of a request that was refused the body, else the last line. */
static enum exitcode
conclude(struct progress *p, const struct client *client, json_t **ret)
{
	const char *body;
	size_t bytes;
	int status = client_result(client, &body, &bytes);
	json_t *final = p->final;
	enum exitcode code;

	p->final = NULL;
	if (!final && status != 200)
		return ctl_finish(p->ctl, client, ret);
	if (!final)
		return ctl_complain_unreachable(p->ctl, -ECONNRESET);
	code = ctl_conclude(p->ctl, (int)ctl_u64(final, "status"), final, ret);
	if (code == EXITCODE_OK) {
		*ret = json_incref(json_object_get(final, "session"));
		json_decref(final);
	}
	return code;
}

static enum exitcode
report(struct progress *p, const struct client *client)
{
	uint64_t nanos = clock_now_ns() - p->started_ns;
	char bytes[TEXT_BYTES], time[TEXT_BYTES];
	json_t *json = NULL;
	enum exitcode code = conclude(p, client, &json);

	if (code == EXITCODE_NOT_FOUND)
		ctl_suggest(p->ctl, "/sessions/", p->ctl->args[0]);
	if (code != EXITCODE_OK)
		return code;
	text_bytes(bytes, ctl_u64(json, "guest_bytes"));
	if (p->ctl->json)
		ctl_print_json(json);
	else if (!p->begun)
		printf("%s has graduated: %s\n", p->id, bytes);
	else
		printf("%s has graduated: %s in %s\n", p->id, bytes, text_nanos(time, nanos));
	json_decref(json);
	return EXITCODE_OK;
}

static enum exitcode
interrupted(struct progress *p)
{
	wipe(p);
	json_decref(p->final);
	if (p->ctl->flags.join)
		ctl_complain(
		    "interrupted: %s goes on being served, or completes for who began it", p->id);
	else
		ctl_complain("interrupted: %s goes on being served", p->id);
	return interrupt_exitcode();
}

static char *
target_of(const struct ctl *ctl, uint64_t timeout_ms)
{
	scoped_free char *timeout =
	    ctl->flags.timeout ? xasprintf("&timeout=%" PRIu64 "ms", timeout_ms) : xstrdup("");
	scoped_free char *rest =
	    xasprintf("/complete?watch=1%s%s", ctl->flags.join ? "&join=1" : "", timeout);

	return ctl_session_target(ctl->args[0], rest);
}

enum exitcode
ctl_complete(const struct ctl *ctl)
{
	uint64_t timeout_ms = 0;
	scoped_free char *printable = xstrdup(ctl->args[0]), *target = NULL;
	scoped_client struct client *client = NULL;
	struct progress p = {.ctl = ctl, .id = printable, .terminal = isatty(STDERR_FILENO)};
	enum exitcode code;

	text_make_printable(printable);
	if (ctl_parse_time("timeout", ctl->flags.timeout, &timeout_ms) < 0)
		return EXITCODE_USAGE;
	target = target_of(ctl, timeout_ms);
	code = ctl_start(ctl, "POST", target, NULL, &client);
	if (code != EXITCODE_OK)
		return code;
	client_want_lines(client);
	p.started_ns = p.said_ns = clock_now_ns();
	interrupt_catch();
	if (watch(&p, client) < 0)
		return interrupted(&p);
	wipe(&p);
	return report(&p, client);
}
