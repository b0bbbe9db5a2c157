/* SPDX-License-Identifier: Apache-2.0 */
/* events: what happens to sessions and workers, as it does. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "common/scope.h"
#include "common/xalloc.h"
#include "supervisor/ctl/ctl.h"
#include "supervisor/ctl/text.h"

#define WAIT_S	UINT64_C(30)
#define WAIT_MS (WAIT_S * 1000)

static enum table_colour
colour_of(const json_t *event)
{
	static const char *const bad[] = {"HELD", "KILLING", "UNLINKED"};
	static const char *const busy[] = {
	    "ADOPTING", "MOVING", "COMPLETING", "RECOVERING", "STARTING", "DRAINING", "UNWANTED"};
	const char *to = ctl_text(event, "to");

	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
		if (strcmp(to, bad[i]) == 0)
			return TABLE_BAD;
	for (size_t i = 0; i < sizeof(busy) / sizeof(busy[0]); i++)
		if (strcmp(to, busy[i]) == 0)
			return TABLE_BUSY;
	return strcmp(to, "CLOSED") == 0 || strcmp(to, "GONE") == 0 ? TABLE_DIM : TABLE_GOOD;
}

static void
print_event(const struct ctl *ctl, const json_t *event)
{
	uint64_t ms = ctl_u64(event, "time_ms");
	time_t seconds = (time_t)(ms / 1000);
	const char *reason = ctl_text(event, "reason");
	bool is_worker = strcmp(ctl_text(event, "kind"), "worker") == 0;
	char when[32] = "";
	struct tm tm;

	if (ctl->json) {
		json_dumpf(event, stdout, JSON_COMPACT);
		putchar('\n');
		return;
	}
	if (localtime_r(&seconds, &tm) != NULL)
		strftime(when, sizeof(when), "%H:%M:%S", &tm);
	printf("%s.%03u  %-8s%-24s %s -> ", when, (unsigned)(ms % 1000), ctl_text(event, "kind"),
	    is_worker ? ctl_text(event, "version") : ctl_text(event, "id"),
	    ctl_text(event, "from"));
	text_paint(stdout, ctl->colour, colour_of(event), ctl_text(event, "to"));
	printf(" on %s%s%s\n", ctl_text(event, "event"), *reason ? "; " : "", reason);
}

static enum exitcode
print_all(const struct ctl *ctl, const json_t *json, bool is_first)
{
	const json_t *event;
	size_t i;

	if (json_is_true(json_object_get(json, "gap")) && !is_first)
		ctl_complain("some events were lost: they came faster than they were read, or "
			     "pagerd was restarted");
	json_array_foreach(json_object_get(json, "events"), i, event) print_event(ctl, event);
	return fflush(stdout) == 0 ? EXITCODE_OK : EXITCODE_FAILED;
}

/* Until a signal ends it, or pagerd is gone. */
enum exitcode
ctl_events(const struct ctl *ctl)
{
	uint64_t since = 0;
	bool is_first = true;
	enum exitcode code;

	if (!ctl->flags.recent)
		since = INT64_MAX; /* nobody has come to that: tells the last number */
	do {
		scoped_free char *target = xasprintf(
		    "/events?since=%" PRIu64 "&wait=%" PRIu64 "s", since, is_first ? 0 : WAIT_S);
		json_t *json;

		code = ctl_call(ctl, "GET", target, NULL, WAIT_MS, &json);
		if (code != EXITCODE_OK)
			break;
		code = print_all(ctl, json, is_first);
		since = ctl_u64(json, "last");
		is_first = json_is_true(json_object_get(json, "more"));
		json_decref(json);
	} while (code == EXITCODE_OK);
	return code;
}
