/* SPDX-License-Identifier: Apache-2.0 */
/* The options: what they are, and changing those that may change while pagerd runs. */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "supervisor/api_config.h"
#include "supervisor/supervisor.h"
#include "supervisor/why.h"

static json_t *
value_json(const struct options *options, size_t index)
{
	const struct options_list *list = options_list(options, index);
	char *text;
	json_t *json;

	if (!list) {
		text = options_text(options, index);
		json = json_clean_text(text);
		free(text);
		return json;
	}
	json = json_array();
	for (size_t i = 0; i < list->nr; i++)
		json_array_append_new(json, json_clean_text(list->items[i]));
	return json;
}

static json_t *
option_json(const struct options *options, size_t index, const struct options_row *row)
{
	json_t *json = json_object();

	json_put(json, "value", value_json(options, index));
	json_put_text(json, "source", options_source_word(options->sources[index]));
	json_put_flag(json, "reloadable", row->is_reloadable);
	json_put_flag(json, "settable", row->is_settable);
	return json;
}

void
api_config(struct api_call *call)
{
	const struct options *options = &call->sup->options;
	json_t *json = json_object(), *list = json_object();
	struct options_row row;

	for (size_t i = 0; i < OPTIONS_COUNT; i++) {
		options_row(i, &row);
		json_put(list, row.name, option_json(options, i, &row));
	}
	json_put(json, "options", list);
	api_reply(call->req, 200, json);
}

/* A number needs memory for its text. */
static int
read_value(
    struct api_config *config, const char *name, const json_t *value, char *why, size_t why_bytes)
{
	const char *text = json_string_value(value);

	if (config->nr == OPTIONS_COUNT)
		return why_set(
		    why, why_bytes, -EINVAL, "there are no more than %d options", OPTIONS_COUNT);
	if (json_is_boolean(value))
		text = json_is_true(value) ? "on" : "off";
	if (json_is_integer(value)) {
		snprintf(config->numbers[config->nr], sizeof(config->numbers[0]),
		    "%" JSON_INTEGER_FORMAT, json_integer_value(value));
		text = config->numbers[config->nr];
	}
	if (!text)
		return why_set(why, why_bytes, -EINVAL,
		    "\"%.64s\" must be a string, a whole number, true or false", name);
	config->changes[config->nr++] = (struct options_change){name, text};
	return 0;
}

int
api_config_read(json_t *json, struct api_config *ret, char *why, size_t why_bytes)
{
	const char *name;
	json_t *value;
	int r = 0;

	ret->nr = 0;
	json_object_foreach(json, name, value)
	{
		r = read_value(ret, name, value, why, why_bytes);
		if (r < 0)
			break;
	}
	return r;
}

/* What is another now. */
static json_t *
changed_json(const struct options *options, char *const before[OPTIONS_COUNT])
{
	json_t *json = json_object(), *one;
	struct options_row row;

	for (size_t i = 0; i < OPTIONS_COUNT; i++) {
		char *text = options_text(options, i);

		if (strcmp(text, before[i]) != 0) {
			options_row(i, &row);
			one = json_object();
			json_put_text(one, "old", before[i]);
			json_put_text(one, "new", text);
			json_put(json, row.name, one);
		}
		free(text);
	}
	return json;
}

static void
change(struct api_call *call, const struct api_config *config)
{
	struct options *options = &call->sup->options;
	char why[API_WHY_BYTES], *before[OPTIONS_COUNT];
	json_t *json, *changed;

	for (size_t i = 0; i < OPTIONS_COUNT; i++)
		before[i] = options_text(options, i);
	if (options_change(options, config->changes, config->nr, why, sizeof(why)) < 0) {
		api_error(call->req, 400, "bad-request", "%s; nothing has changed", why);
	} else {
		changed = changed_json(options, before);
		log_notice("config: uid=%u pid=%d changed options=%zu; until the next reload",
		    (unsigned int)call->req->peer.uid, (int)call->req->peer.pid,
		    json_object_size(changed));
		supervisor_options_changed(call->sup);
		json = json_object();
		json_put(json, "changed", changed);
		api_reply(call->req, 200, json);
	}
	for (size_t i = 0; i < OPTIONS_COUNT; i++)
		free(before[i]);
}

void
api_config_change(struct api_call *call)
{
	struct api_config config;
	char why[API_WHY_BYTES];
	json_t *json;

	if (json_parse_object(call->req->body, call->req->body_bytes, &json, why, sizeof(why)) <
	    0) {
		api_error(call->req, 400, "bad-request", "%s", why);
		return;
	}
	if (api_config_read(json, &config, why, sizeof(why)) < 0)
		api_error(call->req, 400, "bad-request", "%s", why);
	else
		change(call, &config);
	json_decref(json);
}
