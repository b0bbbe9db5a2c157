/* SPDX-License-Identifier: Apache-2.0 */
#include "supervisor/ctl/balloon.h"

#include <stdio.h>

#include "common/clock.h"
#include "common/exitcode.h"
#include "supervisor/ctl/ctl.h"
#include "supervisor/ctl/interrupt.h"

#define CMD_STOP      0
#define CMD_DONE      1
#define BECAUSE_BYTES 512
#define POLL_FIRST_MS UINT64_C(5)
#define POLL_MOST_MS  UINT64_C(50)
#define STOP_MS	      UINT64_C(5000) /* beyond the deadline */

enum balloon_progress
balloon_look(struct balloon_run *run, int64_t host_cmd, int64_t guest_cmd)
{
	if (host_cmd == CMD_DONE)
		return BALLOON_OVER;
	if (host_cmd > CMD_DONE && guest_cmd == host_cmd) {
		run->seen = (uint32_t)host_cmd;
		return BALLOON_RUNS;
	}
	if (guest_cmd == CMD_STOP && run->seen && run->seen == (uint32_t)host_cmd)
		return BALLOON_OVER;
	return BALLOON_WAITS;
}

/* Whether there is a balloon that can. */
static bool
is_installed(struct fc *fc, uint64_t deadline_ns, char *why, size_t why_bytes)
{
	json_t *json = NULL;
	const struct exchange get = {fc->socket_path, "GET", "/balloon", NULL, deadline_ns};
	enum exitcode code = fc_call(fc, &get, &json);
	bool hints = ctl_flag(json, "free_page_hinting");

	if (code != EXITCODE_OK)
		snprintf(why, why_bytes, "skipped: %s", fc->why);
	else if (!hints)
		snprintf(why, why_bytes, "skipped: the balloon has no free_page_hinting");
	json_decref(json);
	return code == EXITCODE_OK && hints;
}

static enum exitcode
command(struct fc *fc, const char *target, uint64_t deadline_ns)
{
	json_t *body = json_pack("{sb}", "acknowledge_on_stop", true);
	const struct exchange patch = {fc->socket_path, "PATCH", target, body, deadline_ns};
	enum exitcode code = fc_call(fc, &patch, NULL);

	json_decref(body);
	return code;
}

static enum exitcode
look(struct fc *fc, struct balloon_run *run, uint64_t deadline_ns, enum balloon_progress *ret)
{
	json_t *json = NULL;
	const struct exchange get = {
	    fc->socket_path, "GET", "/balloon/hinting/status", NULL, deadline_ns};
	enum exitcode code = fc_call(fc, &get, &json);
	const json_t *host = json_object_get(json, "host_cmd");
	const json_t *guest = json_object_get(json, "guest_cmd");

	*ret = BALLOON_WAITS;
	if (code == EXITCODE_OK && json_is_integer(host))
		*ret = balloon_look(run, json_integer_value(host),
		    json_is_integer(guest) ? json_integer_value(guest) : -1);
	json_decref(json);
	return code;
}

/* A run that nobody waits for any more would give back pages while the VM is saved. */
static void
stop(struct fc *fc, const char *because, char *why, size_t why_bytes)
{
	uint64_t deadline_ns = clock_now_ns() + STOP_MS * NS_PER_MS;
	int interrupt = interrupt_forget();

	if (command(fc, "/balloon/hinting/stop", deadline_ns) == EXITCODE_OK)
		snprintf(why, why_bytes, "stopped: %s", because);
	else
		snprintf(why, why_bytes, "%s, and it could not be stopped: %s", because, fc->why);
	interrupt_again(interrupt);
}

/* Polls until the run is over; else why it is not. */
static bool
await_end(struct fc *fc, uint64_t deadline_ns, char why[BECAUSE_BYTES])
{
	struct balloon_run run = {0};
	enum balloon_progress progress = BALLOON_WAITS;
	uint64_t pause_ms = POLL_FIRST_MS;

	for (;;) {
		if (look(fc, &run, deadline_ns, &progress) != EXITCODE_OK) {
			snprintf(why, BECAUSE_BYTES, "%.500s", fc->why);
			return false;
		}
		if (progress == BALLOON_OVER)
			return true;
		if (exchange_pause(pause_ms, deadline_ns) < 0)
			break;
		pause_ms = pause_ms * 2 < POLL_MOST_MS ? pause_ms * 2 : POLL_MOST_MS;
	}
	snprintf(why, BECAUSE_BYTES, "%s",
	    interrupt_caught()		   ? "it was interrupted"
		: progress == BALLOON_RUNS ? "the guest had not finished in time"
					   : "the guest had not answered in time");
	return false;
}

bool
balloon_drain(struct fc *fc, uint64_t deadline_ns, char *why, size_t why_bytes)
{
	char because[BECAUSE_BYTES];
	enum exitcode code;

	if (!is_installed(fc, deadline_ns, why, why_bytes))
		return false;
	code = command(fc, "/balloon/hinting/start", deadline_ns);
	if (code == EXITCODE_OK && await_end(fc, deadline_ns, because))
		return true;
	if (code == EXITCODE_FAILED && !interrupt_caught()) {
		snprintf(why, why_bytes, "skipped: %s", fc->why);
		return false;
	}
	/* A start that was not answered may have begun it. */
	if (code != EXITCODE_OK)
		snprintf(because, sizeof(because), "%.500s", fc->why);
	stop(fc, because, why, why_bytes);
	return false;
}
