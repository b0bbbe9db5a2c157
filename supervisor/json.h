/* SPDX-License-Identifier: Apache-2.0 */
/* JSON in and out, on jansson.
 *
 * In: one table says which members an object may have, of which type and range; a
 * member that is not in it is refused by name.  Out: text from peers may hold any
 * byte, and a JSON text may not. */
#ifndef SUPERVISOR_JSON_H
#define SUPERVISOR_JSON_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum json_kind {
	JSON_KIND_TEXT, /* const char *, borrowed from the object; min..max are bytes */
	JSON_KIND_U64,	/* uint64_t */
	JSON_KIND_FLAG, /* bool */
	JSON_KIND_LIST, /* const json_t *, borrowed; min..max are elements */
	JSON_KIND_ANY,	/* const json_t *, borrowed, of any type */
};

struct json_member {
	const char *name;
	enum json_kind kind;
	bool required;
	size_t offset; /* in the struct that is filled */
	uint64_t min, max;
};

/* One JSON object and nothing after it; an empty text is an empty object.  The caller
 * owns *ret.  0, or -EINVAL and a sentence in why. */
int json_parse_object(const char *text, size_t bytes, json_t **ret, char *why, size_t why_bytes);

/* Fills what is there and leaves the rest of *ret alone.  Texts hold no control
 * character.  0, or -EINVAL and a sentence in why that names the member. */
int json_read_members(const json_t *object, const struct json_member *members, size_t nr_members,
    void *ret, char *why, size_t why_bytes);

/* No byte of it is a control character (C0, DEL, or C1 in UTF-8). */
bool json_text_is_printable(const char *s);

/* A string in which what is not UTF-8 became '?'; NULL without memory. */
json_t *json_clean_text(const char *value);

/* Each sets one member.  What is not UTF-8 becomes '?'.  Without memory the member is
 * left out. */
void json_put_text(json_t *object, const char *name, const char *value);
void json_put_u64(json_t *object, const char *name, uint64_t value);
void json_put_flag(json_t *object, const char *name, bool value);
void json_put_null(json_t *object, const char *name);
/* Takes value, which may be NULL. */
void json_put(json_t *object, const char *name, json_t *value);

/* Compact text that grows.  text is owned by whoever holds the struct; it has no terminator. */
struct json_text {
	char *text;
	size_t used, room;
	bool
	    failed; /* no memory, a cycle, or a number with a fraction: nothing of it is any good */
};

void json_text_add(struct json_text *out, const char *bytes, size_t n);
/* Takes json, which may be NULL: that fails. */
void json_text_put(struct json_text *out, json_t *json);

#endif
