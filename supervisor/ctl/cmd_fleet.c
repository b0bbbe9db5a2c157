/* SPDX-License-Identifier: Apache-2.0 */
/* versions, upgrade, stats. */
#include <inttypes.h>
#include <string.h>

#include "common/clock.h"
#include "supervisor/ctl/ctl.h"
#include "supervisor/ctl/text.h"

#define UPGRADE_MS UINT64_C(120000)
/* With thousands of sessions to be moved. */
#define UPGRADE_HANDOFF_MS UINT64_C(3600000)
#define NANOS_SUFFIX	   "_nanos"

enum table_colour
ctl_version_colour(const char *state)
{
	if (strcmp(state, "ready") == 0)
		return TABLE_GOOD;
	if (strcmp(state, "not-running") == 0 || strcmp(state, "gone") == 0)
		return TABLE_DIM;
	return TABLE_BUSY;
}

static void
add_sandbox(struct table *table, const json_t *list)
{
	char words[256] = "";
	const json_t *word;
	size_t i, used = 0;

	json_array_foreach(list, i, word)
	{
		const char *text = json_string_value(word);

		if (text && used < sizeof(words))
			used += (size_t)snprintf(
			    words + used, sizeof(words) - used, "%s%s", used ? "," : "", text);
	}
	table_add(table, TABLE_PLAIN, "%s", words);
}

static void
add_pid(struct table *table, const json_t *version)
{
	uint64_t pid = ctl_u64(version, "pid");

	if (pid)
		table_add(table, TABLE_PLAIN, "%" PRIu64, pid);
	else
		table_add(table, TABLE_DIM, "-");
}

/* Below its version, in whose row their sessions are counted too. */
static void
add_trials(struct table *table, const json_t *version)
{
	const json_t *list = json_object_get(version, "workers"), *worker;
	char buf[TEXT_BYTES];
	size_t i;

	json_array_foreach(list, i, worker)
	{
		if (!ctl_flag(worker, "trial"))
			continue;
		table_add(table, TABLE_DIM, "%s", ctl_text(version, "version"));
		table_add(table, TABLE_DIM, "%s", ctl_text(worker, "state"));
		add_pid(table, worker);
		table_add(table, TABLE_DIM, "%s", text_count(buf, ctl_u64(worker, "sessions")));
		table_add(table, TABLE_DIM, "trial");
		add_sandbox(table, NULL);
	}
}

static void
print_versions(const struct ctl *ctl, const json_t *json)
{
	static const char *const headers[] = {
	    "VERSION", "STATE", ">PID", ">SESSIONS", "ROLE", "SANDBOX", NULL};
	const json_t *list = json_object_get(json, "versions"), *v;
	char buf[TEXT_BYTES];
	struct table table;
	size_t i;

	table_init(&table, headers);
	json_array_foreach(list, i, v)
	{
		const char *state = ctl_text(v, "state");
		uint64_t retry_ms = ctl_u64(v, "retry_in_ms");

		table_add(&table, TABLE_PLAIN, "%s", ctl_text(v, "version"));
		if (retry_ms)
			table_add(&table, TABLE_BAD, "%s, retry in %s", state,
			    text_nanos(buf, retry_ms * NS_PER_MS));
		else
			table_add(&table, ctl_version_colour(state), "%s", state);
		add_pid(&table, v);
		table_add(&table, TABLE_PLAIN, "%s", text_count(buf, ctl_u64(v, "sessions")));
		table_add(&table, TABLE_PLAIN, "%s",
		    ctl_flag(v, "current")	   ? "current"
			: ctl_flag(v, "draining")  ? "draining"
			: ctl_flag(v, "installed") ? "installed"
						   : "removed");
		add_sandbox(&table, json_object_get(v, "sandbox"));
		add_trials(&table, v);
	}
	table_print(&table, stdout, ctl->colour);
	table_fini(&table);
}

enum exitcode
ctl_versions(const struct ctl *ctl)
{
	json_t *json;
	enum exitcode code = ctl_get(ctl, "/versions", &json);

	if (code != EXITCODE_OK)
		return code;
	if (ctl->json)
		ctl_print_json(json);
	else if (json_array_size(json_object_get(json, "versions")) == 0)
		puts("no version is installed; pagerd needs a pager-worker in its --worker-dir");
	else
		print_versions(ctl, json);
	json_decref(json);
	return EXITCODE_OK;
}

enum exitcode
ctl_post_version(const struct ctl *ctl, const char *target, uint64_t wait_ms, json_t **ret)
{
	json_t *json = json_pack("{ss}", "version", ctl->args[0]);
	char *body;
	enum exitcode code = EXITCODE_USAGE;

	if (json && ctl->flags.handoff)
		json_object_set_new(json, "handoff", json_true());
	body = json ? json_dumps(json, JSON_COMPACT) : NULL;
	if (body)
		code = ctl_call(ctl, "POST", target, body, wait_ms, ret);
	else
		ctl_complain("the version is not UTF-8");
	free(body);
	json_decref(json);
	return code;
}

enum exitcode
ctl_upgrade(const struct ctl *ctl)
{
	json_t *json;
	uint64_t wait_ms = ctl->flags.handoff ? UPGRADE_HANDOFF_MS : UPGRADE_MS;
	enum exitcode code = ctl_post_version(ctl, "/upgrade", wait_ms, &json);

	if (code != EXITCODE_OK)
		return code;
	if (ctl->json)
		ctl_print_json(json);
	else if (*ctl_text(json, "previous"))
		printf("new sessions go to %s; they went to %s\n", ctl_text(json, "version"),
		    ctl_text(json, "previous"));
	else
		printf("new sessions go to %s\n", ctl_text(json, "version"));
	if (ctl->flags.handoff)
		code = ctl_print_moved(ctl, json);
	json_decref(json);
	return code;
}

enum exitcode
ctl_shutdown(const struct ctl *ctl)
{
	const char *body = ctl->flags.force ? "{\"force\":true}" : NULL;
	json_t *json;
	char buf[TEXT_BYTES];
	enum exitcode code = ctl_call(ctl, "POST", "/shutdown", body, 0, &json);

	if (code != EXITCODE_OK)
		return code;
	if (ctl->json)
		ctl_print_json(json);
	else
		printf("pagerd shuts down; sessions ended: %s\n",
		    text_count(buf, ctl_u64(json, "sessions")));
	json_decref(json);
	return EXITCODE_OK;
}

static const char *
counter_text(char *buf, const char *name, uint64_t value)
{
	size_t n = strlen(name), suffix = strlen(NANOS_SUFFIX);

	if (n > suffix && strcmp(name + n - suffix, NANOS_SUFFIX) == 0)
		return value ? text_nanos(buf, value) : "0";
	if (strstr(name, "bytes"))
		return value ? text_bytes(buf, value) : "0";
	return text_count(buf, value);
}

static void
print_controller_counts(const struct ctl *ctl, json_t *controller)
{
	static const char *const headers[] = {"CONTROLLER", ">COUNT", NULL};
	char buf[TEXT_BYTES];
	struct table table;
	const char *name;
	json_t *value;

	table_init(&table, headers);
	json_object_foreach(controller, name, value)
	{
		table_add(&table, TABLE_PLAIN, "%s", name);
		table_add(&table, TABLE_PLAIN, "%s",
		    text_count(buf, (uint64_t)json_integer_value(value)));
	}
	putchar('\n');
	table_print(&table, stdout, ctl->colour);
	table_fini(&table);
}

static void
print_stats(const struct ctl *ctl, json_t *json)
{
	const char *headers[TABLE_MAX_COLUMNS + 1] = {"COUNTER", ">TOTAL"};
	char titles[TABLE_MAX_COLUMNS][TEXT_BYTES], buf[TEXT_BYTES];
	json_t *versions = json_object_get(json, "versions"), *v, *value;
	const char *name, *version;
	struct table table;
	size_t n = 2;

	json_object_foreach(versions, version, v) if (n < TABLE_MAX_COLUMNS)
	{
		snprintf(titles[n], TEXT_BYTES, ">%s", version);
		headers[n] = titles[n];
		n++;
	}
	table_init(&table, headers);
	json_object_foreach(json_object_get(json, "counters"), name, value)
	{
		size_t column = 2;

		table_add(&table, TABLE_PLAIN, "%s", name);
		table_add(&table, TABLE_PLAIN, "%s",
		    counter_text(buf, name, (uint64_t)json_integer_value(value)));
		json_object_foreach(versions, version, v) if (column++ < n)
		    table_add(&table, TABLE_PLAIN, "%s", counter_text(buf, name, ctl_u64(v, name)));
	}
	table_print(&table, stdout, ctl->colour);
	table_fini(&table);
	print_controller_counts(ctl, json_object_get(json, "controller"));
	printf("\n%s live session%s\n", text_count(buf, ctl_u64(json, "sessions")),
	    ctl_u64(json, "sessions") == 1 ? "" : "s");
}

enum exitcode
ctl_stats(const struct ctl *ctl)
{
	json_t *json;
	enum exitcode code = ctl_get(ctl, "/stats", &json);

	if (code != EXITCODE_OK)
		return code;
	if (ctl->json)
		ctl_print_json(json);
	else
		print_stats(ctl, json);
	json_decref(json);
	return EXITCODE_OK;
}
