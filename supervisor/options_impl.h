/* SPDX-License-Identifier: Apache-2.0 */
/* Between the files of the options; for nobody else. */
#ifndef SUPERVISOR_OPTIONS_IMPL_H
#define SUPERVISOR_OPTIONS_IMPL_H

#include "supervisor/options.h"

enum option_type {
	TYPE_STRING,
	TYPE_LIST,
	TYPE_MS,
	TYPE_BYTES,
	TYPE_COUNT,
	TYPE_LEVEL,
	TYPE_SWITCH,
};
enum option_when { WHEN_START, WHEN_FILE, WHEN_RELOAD, WHEN_FLAG };

struct option_desc {
	const char *name;
	enum option_type type;
	size_t offset; /* of the member in struct options */
	const char *def;
	uint64_t min, max;
	enum option_when when;
	const char *metavar, *doc;
};

extern const struct option_desc option_descs[OPTIONS_COUNT];

/* Where values come from, while they are read. */
struct option_reader {
	enum options_source source;
	const char *file; /* of OPTIONS_FROM_FILE */
	unsigned int line;
	bool given[OPTIONS_COUNT]; /* by this source */
};

/* options_value.c */

const struct option_desc *option_find(const char *name, size_t bytes);
size_t option_index(const struct option_desc *desc);
void *option_member(struct options *options, const struct option_desc *desc);
const void *option_member_const(const struct options *options, const struct option_desc *desc);
/* Sets one member from its text; an item is added to a list.  0, or a negative errno and
 * what the value should have been. */
int option_set(struct options *options, const struct option_desc *desc, const char *value,
    char *why, size_t bytes);
void option_clear(struct options *options, const struct option_desc *desc);
void option_copy(struct options *to, const struct options *from, const struct option_desc *desc);
bool option_is_equal(
    const struct options *a, const struct options *b, const struct option_desc *desc);
/* Exchanges the member and where it came from. */
void option_swap(struct options *a, struct options *b, const struct option_desc *desc);

/* options.c */

/* Sets desc from a source: the first item of a list replaces what other sources said. */
int option_apply(struct options *options, const struct option_desc *desc, const char *value,
    struct option_reader *reader, char *why, size_t bytes);
/* What no single row can say: 0, or -EINVAL and a sentence. */
int options_check(const struct options *options, char *why, size_t bytes);

#endif
