/* SPDX-License-Identifier: Apache-2.0 */
/* template: list, show, add, remove, promote, demote; warm is a file of its own. */
#include <inttypes.h>
#include <string.h>

#include "common/scope.h"
#include "supervisor/ctl/cmd_warm.h"
#include "supervisor/ctl/ctl.h"
#include "supervisor/ctl/text.h"

#define PREFIX "/templates/"

static enum table_colour
state_colour(const char *state)
{
	if (strcmp(state, "promoted") == 0)
		return TABLE_GOOD;
	return strcmp(state, "damaged") == 0 ? TABLE_BAD : TABLE_PLAIN;
}

static void
print_list(const struct ctl *ctl, const json_t *list)
{
	static const char *const headers[] = {"NAME", "STATE", ">FORKS", ">SIZE", "IMAGE", NULL};
	char buf[TEXT_BYTES];
	struct table table;
	const json_t *t;
	size_t i;

	if (json_array_size(list) == 0) {
		puts("no templates");
		return;
	}
	table_init(&table, headers);
	json_array_foreach(list, i, t)
	{
		const char *state = ctl_text(t, "state");

		table_add(&table, TABLE_PLAIN, "%s", ctl_text(t, "name"));
		table_add(&table, state_colour(state), "%s", state);
		table_add(&table, TABLE_PLAIN, "%s", text_count(buf, ctl_u64(t, "forks")));
		table_add(&table, TABLE_PLAIN, "%s", text_bytes(buf, ctl_u64(t, "image_bytes")));
		table_add(&table, TABLE_PLAIN, "%s", ctl_text(t, "image"));
	}
	table_print(&table, stdout, ctl->colour);
	table_fini(&table);
}

static void
print_forks(const json_t *json)
{
	const json_t *list = json_object_get(json, "sessions"), *id;
	size_t i;

	json_array_foreach(list, i, id) ctl_print_row(i ? "" : "forks", json_string_value(id));
}

static void
print_template(const json_t *json)
{
	char buf[TEXT_BYTES];

	ctl_print_row("name", ctl_text(json, "name"));
	ctl_print_row("state", ctl_text(json, "state"));
	ctl_print_row("reason", ctl_text(json, "reason"));
	ctl_print_row("image", ctl_text(json, "image"));
	if (ctl_u64(json, "image_bytes"))
		ctl_print_row("size", text_bytes(buf, ctl_u64(json, "image_bytes")));
	ctl_print_row("cache key", ctl_text(json, "cache_key"));
	ctl_print_row("hot list", ctl_text(json, "hot_list"));
	ctl_print_row("prefetch", ctl_text(json, "prefetch"));
	print_forks(json);
}

static enum exitcode
list(const struct ctl *ctl)
{
	json_t *json;
	enum exitcode code = ctl_get(ctl, "/templates", &json);

	if (code != EXITCODE_OK)
		return code;
	if (ctl->json)
		ctl_print_json(json);
	else
		print_list(ctl, json_object_get(json, "templates"));
	json_decref(json);
	return EXITCODE_OK;
}

/* said: what is printed for people behind its name; NULL for all of it. */
static enum exitcode
call(
    const struct ctl *ctl, const char *method, const char *rest, const char *body, const char *said)
{
	scoped_free char *target = ctl_target(PREFIX, ctl->args[1], rest);
	json_t *json;
	enum exitcode code = ctl_call(ctl, method, target, body, 0, &json);

	if (code != EXITCODE_OK)
		return code;
	if (ctl->json)
		ctl_print_json(json);
	else if (said)
		printf("%s %s\n", ctl_text(json, "name"), said);
	else
		print_template(json);
	json_decref(json);
	return EXITCODE_OK;
}

static enum exitcode
show(const struct ctl *ctl)
{
	return call(ctl, "GET", "", NULL, NULL);
}

static enum exitcode
add(const struct ctl *ctl)
{
	json_t *body = json_object();
	scoped_free char *text = NULL;

	if (ctl_add_path(body, "image", "IMAGE", ctl->args[2]) &&
	    ctl_add_member(body, "cache_key", "--cache-key", ctl->flags.cache_key, VALUE_TEXT) &&
	    ctl_add_path(body, "hot_list", "--hot-list", ctl->flags.hot_list) &&
	    ctl_add_member(body, "prefetch", "--prefetch", ctl->flags.prefetch, VALUE_TEXT))
		text = json_dumps(body, JSON_COMPACT);
	json_decref(body);
	return text ? call(ctl, "PUT", "", text, "is registered; promote it to make sessions of it")
		    : EXITCODE_USAGE;
}

static enum exitcode
remove_one(const struct ctl *ctl)
{
	return call(ctl, "DELETE", "", NULL, "is removed");
}

static enum exitcode
promote(const struct ctl *ctl)
{
	return call(ctl, "POST", "/promote", NULL, "is promoted");
}

static enum exitcode
demote(const struct ctl *ctl)
{
	return call(ctl, "POST", "/demote", NULL, "is demoted");
}

static enum exitcode
warm(const struct ctl *ctl)
{
	scoped_free char *target = ctl_target(PREFIX, ctl->args[1], "");
	json_t *json;
	enum exitcode code = ctl_get(ctl, target, &json);

	if (code != EXITCODE_OK)
		return code;
	if (*ctl_text(json, "image") == '\0') {
		ctl_complain("%s is damaged: %s", ctl->args[1], ctl_text(json, "reason"));
		json_decref(json);
		return EXITCODE_CONFLICT;
	}
	code = ctl_warm(ctl, ctl->args[1], ctl_text(json, "image"), ctl_u64(json, "image_bytes"));
	json_decref(json);
	return code;
}

static const struct {
	const char *name, *args;
	int nr_args; /* with the name of the command */
	enum exitcode (*run)(const struct ctl *ctl);
} commands[] = {
    {"list", "", 1, list},
    {"show", " NAME", 2, show},
    {"add", " NAME IMAGE", 3, add},
    {"remove", " NAME", 2, remove_one},
    {"promote", " NAME", 2, promote},
    {"demote", " NAME", 2, demote},
    {"warm", " NAME", 2, warm},
};

enum exitcode
ctl_template(const struct ctl *ctl)
{
	int n = 0;

	while (n < CTL_MAX_ARGS && ctl->args[n])
		n++;
	for (size_t i = 0; i < sizeof(commands) / sizeof(commands[0]); i++) {
		if (strcmp(ctl->args[0], commands[i].name) != 0)
			continue;
		if (n == commands[i].nr_args)
			return commands[i].run(ctl);
		ctl_complain("it is pagerctl template %s%s", commands[i].name, commands[i].args);
		return EXITCODE_USAGE;
	}
	ctl_complain(
	    "there is no template %s; it is list, show, add, remove, promote, demote or warm",
	    ctl->args[0]);
	return EXITCODE_USAGE;
}
