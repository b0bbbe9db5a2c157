/* SPDX-License-Identifier: Apache-2.0 */
/* config: the options of the pagerd that runs, and changing them. */
#include <errno.h>
#include <string.h>

#include "common/scope.h"
#include "supervisor/ctl/ctl.h"
#include "supervisor/ctl/text.h"

/* The items of a list with commas between. */
static void
add_value(struct table *table, const json_t *value)
{
	char words[512] = "";
	const json_t *item;
	size_t i, used = 0;

	if (!json_is_array(value)) {
		table_add(table, TABLE_PLAIN, "%s",
		    json_string_value(value) ? json_string_value(value) : "");
		return;
	}
	json_array_foreach(value, i, item)
	{
		const char *text = json_string_value(item);

		if (text && used < sizeof(words))
			used += (size_t)snprintf(
			    words + used, sizeof(words) - used, "%s%s", used ? ", " : "", text);
	}
	table_add(table, TABLE_PLAIN, "%s", words);
}

static void
print_options(const struct ctl *ctl, const json_t *json)
{
	static const char *const headers[] = {"OPTION", "VALUE", "SOURCE", "CHANGES", NULL};
	json_t *options = json_object_get(json, "options"), *option;
	struct table table;
	const char *name;

	table_init(&table, headers);
	json_object_foreach(options, name, option)
	{
		const char *source = ctl_text(option, "source");
		bool is_default = strcmp(source, "default") == 0;

		table_add(&table, TABLE_PLAIN, "%s", name);
		add_value(&table, json_object_get(option, "value"));
		table_add(&table, is_default ? TABLE_DIM : TABLE_BUSY, "%s", source);
		table_add(&table, TABLE_PLAIN, "%s",
		    ctl_flag(option, "settable")	 ? "now"
			: ctl_flag(option, "reloadable") ? "by reload"
							 : "by restart");
	}
	table_print(&table, stdout, ctl->colour);
	table_fini(&table);
}

static void
print_changed(json_t *json)
{
	json_t *changed = json_object_get(json, "changed"), *one;
	const char *name;

	json_object_foreach(changed, name, one)
	    printf("%s: %s -> %s\n", name, ctl_text(one, "old"), ctl_text(one, "new"));
	if (json_object_size(changed) == 0)
		puts("nothing changed: the options are like that already");
}

/* Adds NAME=VALUE.  0, or -EINVAL and a complaint. */
static int
add_change(json_t *json, const char *arg)
{
	const char *value = strchr(arg, '=');
	char name[64];

	if (!value || value == arg || (size_t)(value - arg) >= sizeof(name)) {
		ctl_complain("%s is not of the form NAME=VALUE", arg);
		return -EINVAL;
	}
	snprintf(name, sizeof(name), "%.*s", (int)(value - arg), arg);
	if (json_object_get(json, name)) {
		ctl_complain("%s is given twice", name);
		return -EINVAL;
	}
	if (json_object_set_new(json, name, json_string(value + 1)) < 0) {
		ctl_complain("%s is not UTF-8", arg);
		return -EINVAL;
	}
	return 0;
}

/* {"NAME": "VALUE", …}, which the caller owns, or NULL and a complaint. */
static json_t *
read_changes(const struct ctl *ctl)
{
	json_t *json = json_object();

	for (size_t i = 0; i < CTL_MAX_ARGS && ctl->args[i]; i++) {
		if (add_change(json, ctl->args[i]) < 0) {
			json_decref(json);
			return NULL;
		}
	}
	return json;
}

static enum exitcode
change(const struct ctl *ctl, json_t **ret)
{
	json_t *changes = read_changes(ctl);
	scoped_free char *body = changes ? json_dumps(changes, JSON_COMPACT) : NULL;

	json_decref(changes);
	if (!body)
		return EXITCODE_USAGE;
	return ctl_call(ctl, "PATCH", "/config", body, 0, ret);
}

enum exitcode
ctl_config(const struct ctl *ctl)
{
	json_t *json;
	enum exitcode code = ctl->args[0] ? change(ctl, &json) : ctl_get(ctl, "/config", &json);

	if (code != EXITCODE_OK)
		return code;
	if (ctl->json)
		ctl_print_json(json);
	else if (ctl->args[0])
		print_changed(json);
	else
		print_options(ctl, json);
	json_decref(json);
	return EXITCODE_OK;
}
