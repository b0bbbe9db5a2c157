/* SPDX-License-Identifier: Apache-2.0 */
#include "supervisor/json.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/scope.h"

int
json_parse_object(const char *text, size_t bytes, json_t **ret, char *why, size_t why_bytes)
{
	json_error_t error;
	json_t *root;

	if (bytes == 0)
		root = json_object();
	else
		root = json_loadb(text, bytes, JSON_REJECT_DUPLICATES, &error);
	if (!root) {
		snprintf(why, why_bytes, "the body is not JSON: %s (line %d, column %d)",
		    bytes ? error.text : "no memory", bytes ? error.line : 0,
		    bytes ? error.column : 0);
		return -EINVAL;
	}
	if (!json_is_object(root)) {
		snprintf(why, why_bytes, "the body must be a JSON object");
		json_decref(root);
		return -EINVAL;
	}
	*ret = root;
	return 0;
}

bool
json_text_is_printable(const char *s)
{
	for (const unsigned char *p = (const unsigned char *)s; *p; p++)
		if (*p < 0x20 || *p == 0x7f || (*p == 0xc2 && p[1] >= 0x80 && p[1] < 0xa0))
			return false;
	return true;
}

static int
read_text(const struct json_member *m, const json_t *value, char *at, char *why, size_t why_bytes)
{
	const char *text = json_string_value(value);
	size_t bytes;

	if (!text) {
		snprintf(why, why_bytes, "\"%s\" must be a string", m->name);
		return -EINVAL;
	}
	bytes = strlen(text);
	if (bytes < m->min || bytes > m->max) {
		snprintf(why, why_bytes, "\"%s\" must have %" PRIu64 " to %" PRIu64 " bytes",
		    m->name, m->min, m->max);
		return -EINVAL;
	}
	if (!json_text_is_printable(text)) {
		snprintf(why, why_bytes, "\"%s\" must not hold control characters", m->name);
		return -EINVAL;
	}
	memcpy(at, &text, sizeof(text));
	return 0;
}

static int
read_u64(const struct json_member *m, const json_t *value, char *at, char *why, size_t why_bytes)
{
	json_int_t signed_number = json_integer_value(value);
	uint64_t number = (uint64_t)signed_number;

	if (!json_is_integer(value)) {
		snprintf(why, why_bytes, "\"%s\" must be a whole number", m->name);
		return -EINVAL;
	}
	if (signed_number < 0 || number < m->min || number > m->max) {
		snprintf(why, why_bytes, "\"%s\" must be from %" PRIu64 " to %" PRIu64, m->name,
		    m->min, m->max);
		return -EINVAL;
	}
	memcpy(at, &number, sizeof(number));
	return 0;
}

static int
read_flag(const struct json_member *m, const json_t *value, char *at, char *why, size_t why_bytes)
{
	bool flag = json_is_true(value);

	if (!json_is_boolean(value)) {
		snprintf(why, why_bytes, "\"%s\" must be true or false", m->name);
		return -EINVAL;
	}
	memcpy(at, &flag, sizeof(flag));
	return 0;
}

static int
read_list(const struct json_member *m, const json_t *value, char *at, char *why, size_t why_bytes)
{
	size_t n = json_array_size(value);

	if (!json_is_array(value)) {
		snprintf(why, why_bytes, "\"%s\" must be a list", m->name);
		return -EINVAL;
	}
	if (n < m->min || n > m->max) {
		snprintf(why, why_bytes, "\"%s\" must have %" PRIu64 " to %" PRIu64 " elements",
		    m->name, m->min, m->max);
		return -EINVAL;
	}
	memcpy(at, &value, sizeof(value));
	return 0;
}

static int
read_value(const struct json_member *m, const json_t *value, char *at, char *why, size_t why_bytes)
{
	switch (m->kind) {
	case JSON_KIND_TEXT:
		return read_text(m, value, at, why, why_bytes);
	case JSON_KIND_U64:
		return read_u64(m, value, at, why, why_bytes);
	case JSON_KIND_FLAG:
		return read_flag(m, value, at, why, why_bytes);
	case JSON_KIND_ANY:
		memcpy(at, &value, sizeof(value));
		return 0;
	case JSON_KIND_LIST:
		break;
	}
	return read_list(m, value, at, why, why_bytes);
}

static const struct json_member *
find_member(const struct json_member *members, size_t nr_members, const char *name)
{
	for (size_t i = 0; i < nr_members; i++)
		if (strcmp(members[i].name, name) == 0)
			return &members[i];
	return NULL;
}

int
json_read_members(const json_t *object, const struct json_member *members, size_t nr_members,
    void *ret, char *why, size_t why_bytes)
{
	/* jansson's iteration takes no const, though it writes nothing. */
	union {
		const json_t *in;
		json_t *out;
	} u = {.in = object};
	const char *name;
	json_t *value;

	json_object_foreach(u.out, name, value)
	{
		const struct json_member *m = find_member(members, nr_members, name);
		char *at;
		int r;

		if (!m) {
			snprintf(why, why_bytes, "there is no member \"%.64s\"", name);
			return -EINVAL;
		}
		at = (char *)ret + m->offset;
		r = read_value(m, value, at, why, why_bytes);
		if (r < 0)
			return r;
	}
	for (size_t i = 0; i < nr_members; i++)
		if (members[i].required && !json_object_get(object, members[i].name)) {
			snprintf(why, why_bytes, "the member \"%s\" is missing", members[i].name);
			return -EINVAL;
		}
	return 0;
}

void
json_put(json_t *object, const char *name, json_t *value)
{
	json_object_set_new(object, name, value);
}

/* Bytes of the UTF-8 character at s as jansson accepts it, 0 for none. */
static size_t
utf8_length(const unsigned char *s)
{
	static const struct {
		unsigned char mask, lead;
		uint32_t least;
	} forms[] = {
	    {0x80, 0x00, 0}, {0xe0, 0xc0, 0x80}, {0xf0, 0xe0, 0x800}, {0xf8, 0xf0, 0x10000}};

	for (size_t n = 1; n <= 4; n++) {
		uint32_t c = s[0] & (unsigned char)~forms[n - 1].mask;

		if ((s[0] & forms[n - 1].mask) != forms[n - 1].lead)
			continue;
		for (size_t i = 1; i < n; i++) {
			if ((s[i] & 0xc0) != 0x80)
				return 0;
			c = c << 6 | (s[i] & 0x3f);
		}
		return c < forms[n - 1].least || c > 0x10ffff || (c >= 0xd800 && c < 0xe000) ? 0
											     : n;
	}
	return 0;
}

json_t *
json_clean_text(const char *value)
{
	scoped_free char *copy = strdup(value);

	for (char *p = copy; p && *p;) {
		size_t n = utf8_length((const unsigned char *)p);

		if (n == 0) {
			*p = '?';
			n = 1;
		}
		p += n;
	}
	return copy ? json_string(copy) : NULL;
}

void
json_put_text(json_t *object, const char *name, const char *value)
{
	json_put(object, name, json_clean_text(value));
}

void
json_put_u64(json_t *object, const char *name, uint64_t value)
{
	/* JSON's integers end at 2^63 - 1 here; no true count does not fit. */
	json_put(object, name, json_integer(value > INT64_MAX ? INT64_MAX : (json_int_t)value));
}

void
json_put_flag(json_t *object, const char *name, bool value)
{
	json_put(object, name, json_boolean(value));
}

void
json_put_null(json_t *object, const char *name)
{
	json_put(object, name, json_null());
}
