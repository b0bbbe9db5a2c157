/* SPDX-License-Identifier: Apache-2.0 */
/* The values of options by type: set from text, compared, copied, shown. */
#include <ctype.h>
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "common/num.h"
#include "common/xalloc.h"
#include "supervisor/options_impl.h"
#include "version_gen.h"

#define DEFAULT_WORKER_DIR PROJECT_LIBEXECDIR "/pagerd/workers"

/* clang-format off */
const struct option_desc option_descs[OPTIONS_COUNT] = {
#define OPTION(member, name, type, def, min, max, when, metavar, doc)			\
	[OPTIONS_AT_##member] = { name, TYPE_##type, offsetof(struct options, member), def,	\
	    min, max, WHEN_##when, metavar, doc },
#define ACTION(NAME, name, doc)
#include "supervisor/options.def"
#undef OPTION
#undef ACTION
};
/* clang-format on */

static const char *const level_words[] = {
    [LOG_LEVEL_ERR] = "err",
    [LOG_LEVEL_WARNING] = "warning",
    [LOG_LEVEL_NOTICE] = "notice",
    [LOG_LEVEL_INFO] = "info",
    [LOG_LEVEL_DEBUG] = "debug",
};

const struct option_desc *
option_find(const char *name, size_t bytes)
{
	for (size_t i = 0; i < OPTIONS_COUNT; i++) {
		if (strlen(option_descs[i].name) == bytes &&
		    memcmp(option_descs[i].name, name, bytes) == 0)
			return &option_descs[i];
	}
	return NULL;
}

size_t
option_index(const struct option_desc *desc)
{
	return (size_t)(desc - option_descs);
}

void *
option_member(struct options *options, const struct option_desc *desc)
{
	return (char *)options + desc->offset;
}

const void *
option_member_const(const struct options *options, const struct option_desc *desc)
{
	return (const char *)options + desc->offset;
}

static size_t
member_bytes(const struct option_desc *desc)
{
	switch (desc->type) {
	case TYPE_STRING:
		return sizeof(char *);
	case TYPE_LIST:
		return sizeof(struct options_list);
	case TYPE_LEVEL:
		return sizeof(enum log_level);
	case TYPE_SWITCH:
		return sizeof(bool);
	case TYPE_MS:
	case TYPE_BYTES:
	case TYPE_COUNT:
		break;
	}
	return sizeof(uint64_t);
}

static void
list_clear(struct options_list *list)
{
	for (size_t i = 0; i < list->nr; i++)
		free(list->items[i]);
	free(list->items);
	*list = (struct options_list){0};
}

static void
list_append(struct options_list *list, const char *value)
{
	char **items = xcalloc(list->nr + 1, sizeof(*items));

	if (list->nr > 0)
		memcpy(items, list->items, list->nr * sizeof(*items));
	items[list->nr++] = xstrdup(value);
	free(list->items);
	list->items = items;
}

/* "a number from 1 to 10": what a value should have been. */
static int
refuse_number(const struct option_desc *desc, int r, const char *value, char *why, size_t bytes)
{
	static const char *const kinds[] = {
	    [TYPE_MS] = "a duration such as 500ms, 30s, 5m or 2h",
	    [TYPE_BYTES] = "a size such as 4096, 64K, 2M or 1G",
	    [TYPE_COUNT] = "a decimal number",
	};
	const char *unit = desc->type == TYPE_MS ? "ms" : desc->type == TYPE_BYTES ? " bytes" : "";

	if (r == -ERANGE)
		snprintf(why, bytes, "\"%s\" is out of range: %" PRIu64 "%s to %" PRIu64 "%s",
		    value, desc->min, unit, desc->max, unit);
	else
		snprintf(why, bytes, "\"%s\" is not %s", value, kinds[desc->type]);
	return r;
}

static int
check_text(const char *value, char *why, size_t bytes)
{
	for (const char *p = value; *p != '\0'; p++) {
		if (iscntrl((unsigned char)*p) == 0 &&
		    (*p != '#' || p == value || isblank((unsigned char)p[-1]) == 0))
			continue;
		snprintf(why, bytes, "a value cannot hold a control character or \" #\"");
		return -EINVAL;
	}
	return 0;
}

static int
set_number(void *ret, const struct option_desc *desc, const char *value, char *why, size_t bytes)
{
	uint64_t n = 0;
	int r;

	if (desc->type == TYPE_MS)
		r = num_parse_ms(value, desc->min, desc->max, &n);
	else if (desc->type == TYPE_BYTES)
		r = num_parse_bytes(value, desc->min, desc->max, &n);
	else
		r = num_parse_u64(value, desc->min, desc->max, &n);
	if (r < 0)
		return refuse_number(desc, r, value, why, bytes);
	*(uint64_t *)ret = n;
	return 0;
}

static int
set_level(void *at, const char *value, char *why, size_t bytes)
{
	enum log_level level;
	int r = log_level_parse(value);

	if (r < 0) {
		snprintf(why, bytes, "\"%s\" is not a level: err, warning, notice, info or debug",
		    value);
		return r;
	}
	level = (enum log_level)r;
	memcpy(at, &level, sizeof(level));
	return 0;
}

static int
set_switch(bool *at, const char *value, char *why, size_t bytes)
{
	if (strcmp(value, "on") != 0 && strcmp(value, "off") != 0) {
		snprintf(why, bytes, "\"%s\" is neither on nor off", value);
		return -EINVAL;
	}
	*at = strcmp(value, "on") == 0;
	return 0;
}

int
option_set(struct options *options, const struct option_desc *desc, const char *value, char *why,
    size_t bytes)
{
	void *at = option_member(options, desc);
	int r = check_text(value, why, bytes);

	if (r < 0)
		return r;
	switch (desc->type) {
	case TYPE_STRING:
		free(*(char **)at);
		*(char **)at = xstrdup(value);
		return 0;
	case TYPE_LIST:
		if (value[0] != '\0')
			list_append(at, value);
		return 0;
	case TYPE_LEVEL:
		return set_level(at, value, why, bytes);
	case TYPE_SWITCH:
		return set_switch(at, value, why, bytes);
	case TYPE_MS:
	case TYPE_BYTES:
	case TYPE_COUNT:
		return set_number(at, desc, value, why, bytes);
	}
	return -EINVAL;
}

/* What it owns is freed; numbers stay. */
void
option_clear(struct options *options, const struct option_desc *desc)
{
	void *at = option_member(options, desc);

	if (desc->type == TYPE_LIST) {
		list_clear(at);
	} else if (desc->type == TYPE_STRING) {
		free(*(char **)at);
		*(char **)at = NULL;
	}
}

void
option_copy(struct options *to, const struct options *from, const struct option_desc *desc)
{
	void *at = option_member(to, desc);
	const void *value = option_member_const(from, desc);

	option_clear(to, desc);
	to->sources[option_index(desc)] = from->sources[option_index(desc)];
	if (desc->type == TYPE_STRING) {
		*(char **)at = xstrdup(*(char *const *)value);
	} else if (desc->type == TYPE_LIST) {
		for (size_t i = 0; i < ((const struct options_list *)value)->nr; i++)
			list_append(at, ((const struct options_list *)value)->items[i]);
	} else {
		memcpy(at, value, member_bytes(desc));
	}
}

static bool
list_is_equal(const struct options_list *a, const struct options_list *b)
{
	for (size_t i = 0; a->nr == b->nr && i < a->nr; i++) {
		if (strcmp(a->items[i], b->items[i]) != 0)
			return false;
	}
	return a->nr == b->nr;
}

bool
option_is_equal(const struct options *a, const struct options *b, const struct option_desc *desc)
{
	const void *x = option_member_const(a, desc);
	const void *y = option_member_const(b, desc);

	if (desc->type == TYPE_STRING)
		return strcmp(*(char *const *)x, *(char *const *)y) == 0;
	if (desc->type == TYPE_LIST)
		return list_is_equal(x, y);
	return memcmp(x, y, member_bytes(desc)) == 0;
}

void
option_swap(struct options *a, struct options *b, const struct option_desc *desc)
{
	_Alignas(max_align_t) char tmp[sizeof(struct options_list)];
	size_t bytes = member_bytes(desc), i = option_index(desc);
	enum options_source source = a->sources[i];

	memcpy(tmp, option_member(a, desc), bytes);
	memcpy(option_member(a, desc), option_member(b, desc), bytes);
	memcpy(option_member(b, desc), tmp, bytes);
	a->sources[i] = b->sources[i];
	b->sources[i] = source;
}

/* --- For people and programs ------------------------------------------------------ */

static char *
list_text(const struct options_list *list)
{
	char *text = xstrdup("");

	for (size_t i = 0; i < list->nr; i++) {
		char *longer = xasprintf("%s%s%s", text, i > 0 ? ", " : "", list->items[i]);

		free(text);
		text = longer;
	}
	return text;
}

/* In the largest unit that loses nothing. */
static char *
ms_text(uint64_t ms)
{
	if (ms == 0 || ms % 1000 != 0)
		return xasprintf("%" PRIu64 "ms", ms);
	if (ms % 60000 != 0)
		return xasprintf("%" PRIu64 "s", ms / 1000);
	return xasprintf("%" PRIu64 "m", ms / 60000);
}

static char *
bytes_text(uint64_t bytes)
{
	static const char *const units[] = {"", "K", "M", "G"};
	size_t unit = 0;

	while (bytes != 0 && bytes % 1024 == 0 && unit + 1 < sizeof(units) / sizeof(units[0])) {
		bytes /= 1024;
		unit++;
	}
	return xasprintf("%" PRIu64 "%s", bytes, units[unit]);
}

char *
options_text(const struct options *options, size_t index)
{
	const struct option_desc *desc = &option_descs[index];
	const void *at = option_member_const(options, desc);

	switch (desc->type) {
	case TYPE_STRING:
		return xstrdup(*(char *const *)at);
	case TYPE_LIST:
		return list_text(at);
	case TYPE_LEVEL:
		return xstrdup(level_words[*(const enum log_level *)at]);
	case TYPE_SWITCH:
		return xstrdup(*(const bool *)at ? "on" : "off");
	case TYPE_MS:
		return ms_text(*(const uint64_t *)at);
	case TYPE_BYTES:
		return bytes_text(*(const uint64_t *)at);
	case TYPE_COUNT:
		break;
	}
	return xasprintf("%" PRIu64, *(const uint64_t *)at);
}

const struct options_list *
options_list(const struct options *options, size_t index)
{
	const struct option_desc *desc = &option_descs[index];

	return desc->type == TYPE_LIST ? option_member_const(options, desc) : NULL;
}
