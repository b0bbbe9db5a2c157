/* SPDX-License-Identifier: Apache-2.0 */
/* sessions, create, show, close. */
#include <inttypes.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>

#include "common/clock.h"
#include "common/num.h"
#include "common/scope.h"
#include "common/xalloc.h"
#include "supervisor/ctl/ctl.h"
#include "supervisor/ctl/text.h"

#define CREATE_MS	UINT64_C(60000)
#define CLOSE_MS	UINT64_C(60000)
#define DEFAULT_WAIT_MS UINT64_C(30000) /* the server's */
#define BAR_WIDTH	40

static bool
has_ended(const json_t *session)
{
	return *ctl_text(session, "outcome") != '\0';
}

static enum table_colour
session_colour(const json_t *session)
{
	const char *state = ctl_text(session, "state");

	if (strcmp(state, "graduated") == 0 || strcmp(state, "serving") == 0)
		return ctl_u64(session, "alarms") ? TABLE_BAD : TABLE_GOOD;
	if (has_ended(session))
		return TABLE_DIM;
	return strcmp(state, "adopting") == 0 || strcmp(state, "held") == 0 ? TABLE_BAD
									    : TABLE_BUSY;
}

static uint64_t
pages_done(const json_t *session)
{
	const json_t *pages = json_object_get(session, "pages");

	return ctl_u64(pages, "present") + ctl_u64(pages, "removed");
}

static void
add_session(struct table *table, const json_t *s)
{
	const char *outcome = ctl_text(s, "outcome");
	uint64_t total = ctl_u64(json_object_get(s, "pages"), "total");
	uint64_t alarms = ctl_u64(s, "alarms");
	char buf[TEXT_BYTES];

	table_add(table, TABLE_PLAIN, "%s", ctl_text(s, "id"));
	table_add(table, session_colour(s), "%s",
	    *outcome && strcmp(outcome, "closed") != 0 ? outcome : ctl_text(s, "state"));
	table_add(table, TABLE_PLAIN, "%s", ctl_text(s, "version"));
	table_add(table, TABLE_PLAIN, "%s", text_bytes(buf, ctl_u64(s, "guest_bytes")));
	table_add(table, TABLE_PLAIN, "%s", total ? text_percent(buf, pages_done(s), total) : "");
	table_add(table, TABLE_PLAIN, "%s",
	    text_count(buf, ctl_u64(json_object_get(s, "counters"), "faults")));
	table_add(table, alarms ? TABLE_BAD : TABLE_PLAIN, "%s", text_count(buf, alarms));
	table_add(table, TABLE_PLAIN, "%s", text_nanos(buf, ctl_u64(s, "age_ms") * NS_PER_MS));
	table_add(table, TABLE_PLAIN, "%s", ctl_text(s, "image"));
}

static void
print_sessions(const struct ctl *ctl, const json_t *list)
{
	static const char *const headers[] = {"ID", "STATE", "VERSION", ">MEMORY", ">PRESENT",
	    ">FAULTS", ">ALARMS", ">AGE", "IMAGE", NULL};
	struct table table;
	size_t i, hidden = 0;
	const json_t *s;

	table_init(&table, headers);
	json_array_foreach(list, i, s) if (ctl->flags.all || !has_ended(s)) add_session(&table, s);
	else hidden++;
	if (table.nr_cells)
		table_print(&table, stdout, ctl->colour);
	else
		puts("no sessions");
	if (hidden)
		printf("%zu ended lately; --all shows them\n", hidden);
	table_fini(&table);
}

enum exitcode
ctl_sessions(const struct ctl *ctl)
{
	json_t *json;
	enum exitcode code = ctl_get(ctl, "/sessions", &json);

	if (code != EXITCODE_OK)
		return code;
	if (ctl->json)
		ctl_print_json(json);
	else
		print_sessions(ctl, json_object_get(json, "sessions"));
	json_decref(json);
	return EXITCODE_OK;
}

static void
print_memory(const json_t *s)
{
	const json_t *pages = json_object_get(s, "pages");
	uint64_t total = ctl_u64(pages, "total"), done = pages_done(s);
	char bar[BAR_WIDTH + 3], a[TEXT_BYTES], b[TEXT_BYTES], c[TEXT_BYTES];

	if (total == 0)
		return;
	text_bar(bar, BAR_WIDTH, done, total);
	printf("%-12s %s in %s pages\n", "memory", text_bytes(a, ctl_u64(s, "guest_bytes")),
	    text_count(b, total));
	printf("%-12s %s %s\n", "present", bar, text_percent(a, done, total));
	printf("%-12s %s absent, %s present, %s removed\n", "",
	    text_count(a, ctl_u64(pages, "absent")), text_count(b, ctl_u64(pages, "present")),
	    text_count(c, ctl_u64(pages, "removed")));
}

static void
print_regions(const json_t *list)
{
	const json_t *r;
	size_t i;
	char a[TEXT_BYTES], b[TEXT_BYTES];

	json_array_foreach(list, i, r)
	    printf("%-12s 0x%" PRIx64 ", %s from image offset 0x%" PRIx64 ", pages of %s\n",
		i ? "" : "regions", ctl_u64(r, "host_addr"), text_bytes(a, ctl_u64(r, "size")),
		ctl_u64(r, "offset"), text_bytes(b, ctl_u64(r, "page_size")));
}

static void
print_overlays(const json_t *list)
{
	const json_t *o;
	size_t i;
	char text[4200];

	json_array_foreach(list, i, o)
	{
		snprintf(text, sizeof(text), "%s", ctl_text(o, "path"));
		text_make_printable(text);
		printf("%-12s %" PRIu64 " bytes at image offset 0x%" PRIx64 "  %s\n",
		    i ? "" : "overlays", ctl_u64(o, "bytes"), ctl_u64(o, "offset"), text);
	}
}

static void
print_faults(const json_t *counters)
{
	uint64_t faults = ctl_u64(counters, "faults"), nanos = ctl_u64(counters, "fault_nanos");
	char a[TEXT_BYTES], b[TEXT_BYTES], c[TEXT_BYTES];

	if (faults)
		printf("%-12s %s, mean %s, longest %s\n", "faults", text_count(a, faults),
		    text_nanos(b, nanos / faults),
		    text_nanos(c, ctl_u64(counters, "fault_max_nanos")));
}

static void
print_traces(const json_t *s)
{
	const json_t *recording = json_object_get(s, "recording");
	const json_t *prefetch = json_object_get(s, "prefetch");
	char a[TEXT_BYTES], b[TEXT_BYTES];

	if (json_is_object(recording))
		printf("%-12s %s, %s pages, %s%s%s\n", "recording", ctl_text(recording, "state"),
		    text_count(a, ctl_u64(recording, "pages")), ctl_text(recording, "path"),
		    *ctl_text(recording, "reason") ? ": " : "", ctl_text(recording, "reason"));
	if (ctl_u64(prefetch, "pages") || *ctl_text(prefetch, "reason"))
		printf("%-12s %s, %s of %s pages filled%s%s\n", "prefetch",
		    ctl_text(prefetch, "state"), text_count(a, ctl_u64(prefetch, "filled")),
		    text_count(b, ctl_u64(prefetch, "pages")),
		    *ctl_text(prefetch, "reason") ? ": " : "", ctl_text(prefetch, "reason"));
}

static void
print_session(const json_t *s)
{
	uint64_t pid = ctl_u64(s, "vmm_pid");
	char buf[TEXT_BYTES];

	ctl_print_row("id", ctl_text(s, "id"));
	ctl_print_row("instance", ctl_text(s, "instance"));
	ctl_print_row("state", ctl_text(s, "state"));
	ctl_print_row("outcome", ctl_text(s, "outcome"));
	ctl_print_row("reason", ctl_text(s, "reason"));
	ctl_print_row("version", ctl_text(s, "version"));
	ctl_print_row("socket", ctl_text(s, "socket_path"));
	ctl_print_row("image", ctl_text(s, "image"));
	ctl_print_row("template", ctl_text(s, "template"));
	ctl_print_row("cache key", ctl_text(s, "cache_key"));
	if (pid)
		printf("%-12s %" PRIu64 "\n", "vmm pid", pid);
	ctl_print_row("age", text_nanos(buf, ctl_u64(s, "age_ms") * NS_PER_MS));
	print_memory(s);
	print_regions(json_object_get(s, "regions"));
	print_overlays(json_object_get(s, "overlays"));
	print_faults(json_object_get(s, "counters"));
	print_traces(s);
	if (ctl_u64(s, "adoptions"))
		ctl_print_row("adoptions", text_count(buf, ctl_u64(s, "adoptions")));
	if (ctl_u64(s, "unserved_ms"))
		ctl_print_row("unserved", text_nanos(buf, ctl_u64(s, "unserved_ms") * NS_PER_MS));
	if (ctl_u64(s, "alarms"))
		ctl_print_row("alarms", text_count(buf, ctl_u64(s, "alarms")));
	if (strcmp(ctl_text(s, "on_image_error"), "hold") != 0)
		ctl_print_row("image error", ctl_text(s, "on_image_error"));
	if (strcmp(ctl_text(s, "image_alarm"), ctl_text(s, "reason")) != 0)
		ctl_print_row("image alarm", ctl_text(s, "image_alarm"));
	ctl_print_row("image file", ctl_text(s, "image_changed"));
}

static void
print_either(const struct ctl *ctl, const json_t *session)
{
	if (ctl->json)
		ctl_print_json(session);
	else
		print_session(session);
}

enum exitcode
ctl_show(const struct ctl *ctl)
{
	uint64_t wait_ms = DEFAULT_WAIT_MS;
	scoped_free char *query = NULL, *target = NULL;
	enum exitcode code;
	json_t *json;

	if (ctl_parse_time("timeout", ctl->flags.timeout, &wait_ms) < 0)
		return EXITCODE_USAGE;
	if (ctl->flags.timeout && !ctl->flags.state) {
		ctl_complain("--timeout needs --wait STATE");
		return EXITCODE_USAGE;
	}
	for (const char *p = ctl->flags.state; p && *p; p++)
		if (!text_is_unreserved(*p)) {
			ctl_complain("--wait is opened, serving, graduated or closed");
			return EXITCODE_USAGE;
		}
	query = ctl->flags.state
	    ? xasprintf("?wait=%s&timeout=%" PRIu64 "ms", ctl->flags.state, wait_ms)
	    : xstrdup("");
	target = ctl_session_target(ctl->args[0], query);
	code = ctl_call(ctl, "GET", target, NULL, ctl->flags.state ? wait_ms : 0, &json);
	if (code != EXITCODE_OK)
		return code;
	print_either(ctl, json);
	json_decref(json);
	return EXITCODE_OK;
}

enum exitcode
ctl_close(const struct ctl *ctl)
{
	scoped_free char *target = ctl_session_target(ctl->args[0], "/close");
	json_t *json;
	enum exitcode code = ctl_call(ctl, "POST", target, NULL, CLOSE_MS, &json);

	if (code != EXITCODE_OK)
		return code;
	if (ctl->json)
		ctl_print_json(json);
	else
		printf("%s has ended: %s\n", ctl->args[0], ctl_text(json, "outcome"));
	json_decref(json);
	return EXITCODE_OK;
}

/* OFFSET:PATH */
static bool
add_overlay(json_t *list, const char *text)
{
	const char *colon = strchr(text, ':');
	scoped_free char *offset = xstrdup(text);
	uint64_t number;
	json_t *json;

	if (colon)
		offset[colon - text] = '\0';
	if (!colon || colon[1] == '\0' || num_parse_bytes(offset, 0, INT64_MAX, &number) < 0) {
		ctl_complain("--overlay: %s is no OFFSET:PATH, such as 64K:/images/net.page", text);
		return false;
	}
	json = json_object();
	json_array_append_new(list, json);
	json_object_set_new(json, "offset", json_integer((json_int_t)number));
	return ctl_add_path(json, "path", "--overlay", colon + 1);
}

static bool
add_overlays(json_t *body, const struct ctl *ctl)
{
	json_t *list;

	if (ctl->nr_repeats == 0)
		return true;
	list = json_array();
	json_object_set_new(body, "overlays", list);
	for (size_t i = 0; i < ctl->nr_repeats; i++)
		if (!add_overlay(list, ctl->repeats[i]))
			return false;
	return true;
}

bool
ctl_create_members(const struct ctl *ctl, const char *image, json_t *body)
{
	const struct ctl_flags *f = &ctl->flags;

	if (f->record)
		json_object_set_new(body, "record", json_true());
	if (f->memfd)
		json_object_set_new(body, "memfd", json_true());
	if (f->track_writes)
		json_object_set_new(body, "track_writes", json_true());
	return ctl_add_path(body, "image", "the image", image) &&
	    ctl_add_member(body, "template", "--template", f->template, VALUE_TEXT) &&
	    ctl_add_member(body, "id", "--id", f->id, VALUE_TEXT) &&
	    ctl_add_member(body, "instance", "--instance", f->instance, VALUE_TEXT) &&
	    ctl_add_member(body, "cache_key", "--cache-key", f->cache_key, VALUE_TEXT) &&
	    ctl_add_path(body, "hot_list", "--hot-list", f->hot_list) &&
	    ctl_add_member(body, "prefetch", "--prefetch", f->prefetch, VALUE_TEXT) &&
	    ctl_add_member(body, "vmm_uid", "--vmm-uid", f->vmm_uid, VALUE_NUMBER) &&
	    ctl_add_member(body, "vmm_gid", "--vmm-gid", f->vmm_gid, VALUE_NUMBER) &&
	    ctl_add_member(body, "handshake_timeout_ms", "--handshake-timeout",
		f->handshake_timeout, VALUE_TIME) &&
	    ctl_add_member(
		body, "cluster_min_bytes", "--cluster-min", f->cluster_min, VALUE_BYTES) &&
	    ctl_add_member(
		body, "cluster_max_bytes", "--cluster-max", f->cluster_max, VALUE_BYTES) &&
	    ctl_add_member(
		body, "on_image_error", "--on-image-error", f->on_image_error, VALUE_TEXT) &&
	    add_overlays(body, ctl);
}

/* Whoever asked for no prefetch, or for a recording in its place, misses nothing. */
char *
ctl_no_hot_list(const json_t *session)
{
	const json_t *prefetch = json_object_get(session, "prefetch");
	const char *reason = ctl_text(prefetch, "reason");

	if (!*reason || strcmp(ctl_text(prefetch, "mode"), "off") == 0)
		return NULL;
	return xasprintf("no hot list is replayed: %s", reason);
}

/* A session, or what the VM is to map because there is none. */
static void
print_created(const json_t *json)
{
	scoped_free char *no_hot_list = ctl_no_hot_list(json);

	if (strcmp(ctl_text(json, "backend"), "file") == 0) {
		ctl_print_row("backend", "file: no session; have the VMM map the image");
		ctl_print_row("image", ctl_text(json, "image"));
		return;
	}
	ctl_print_row("id", ctl_text(json, "id"));
	ctl_print_row("version", ctl_text(json, "version"));
	ctl_print_row("socket", ctl_text(json, "socket_path"));
	if (no_hot_list)
		ctl_complain("%s", no_hot_list);
}

enum exitcode
ctl_create(const struct ctl *ctl)
{
	json_t *body = json_object(), *json;
	scoped_free char *text = NULL;
	enum exitcode code;

	if (!ctl->args[0] == !ctl->flags.template) {
		ctl_complain("create needs an IMAGE or a --template, and not both");
		json_decref(body);
		return EXITCODE_USAGE;
	}
	if (!ctl_create_members(ctl, ctl->args[0], body)) {
		json_decref(body);
		return EXITCODE_USAGE;
	}
	text = json_dumps(body, JSON_COMPACT);
	json_decref(body);
	code = ctl_call(ctl, "POST", "/sessions", text, CREATE_MS, &json);
	if (code != EXITCODE_OK)
		return code;
	if (ctl->json)
		ctl_print_json(json);
	else
		print_created(json);
	json_decref(json);
	return EXITCODE_OK;
}
