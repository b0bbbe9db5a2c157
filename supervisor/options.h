/* SPDX-License-Identifier: Apache-2.0 */
/* The options of pagerd: one table, options.def.  A key of the configuration file is
 * the name of the flag without the dashes; `key = value`, # starts a comment. */
#ifndef SUPERVISOR_OPTIONS_H
#define SUPERVISOR_OPTIONS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "common/log.h"

struct options_list {
	char **items; /* owned, as is each; NULL when there are none */
	size_t nr;
};

#define OPTIONS_MEMBER_STRING char * /* owned; never NULL, "" when not set */
#define OPTIONS_MEMBER_LIST   struct options_list
#define OPTIONS_MEMBER_MS     uint64_t
#define OPTIONS_MEMBER_BYTES  uint64_t
#define OPTIONS_MEMBER_COUNT  uint64_t
#define OPTIONS_MEMBER_LEVEL  enum log_level
#define OPTIONS_MEMBER_SWITCH bool

enum options_index {
#define OPTION(member, name, type, def, min, max, when, metavar, doc) OPTIONS_AT_##member,
#define ACTION(NAME, name, doc)
#include "supervisor/options.def"
#undef OPTION
#undef ACTION
	OPTIONS_COUNT
};

/* Where a value comes from.  Each overrides those before it. */
enum options_source {
	OPTIONS_FROM_DEFAULT,
	OPTIONS_FROM_FILE,
	OPTIONS_FROM_FLAG,
	OPTIONS_FROM_API
};

struct options {
	enum options_source sources[OPTIONS_COUNT];
#define OPTION(member, name, type, def, min, max, when, metavar, doc) OPTIONS_MEMBER_##type member;
#define ACTION(NAME, name, doc)
#include "supervisor/options.def"
#undef OPTION
#undef ACTION
};

/* What the command line asks for besides running. */
enum options_action {
	OPTIONS_RUN,
#define OPTION(member, name, type, def, min, max, when, metavar, doc)
#define ACTION(NAME, name, doc) OPTIONS_##NAME,
#include "supervisor/options.def"
#undef OPTION
#undef ACTION
};

/* Defaults. */
void options_init(struct options *options);
void options_fini(struct options *options);

/* Defaults, then the file that --config names, then the command line.  0 and options
 * that the caller owns; a negative errno and a sentence in why, nothing owned. */
int options_parse(struct options *ret, enum options_action *ret_action, int argc,
    char *const argv[], char *why, size_t why_bytes);

/* Parses again what made options, and takes over the values that may change while
 * pagerd runs, those that options_change() has set included; a changed value that may
 * not is logged with its consequence, as is what changed.  On failure nothing changed
 * and why gets a sentence. */
int options_reload(
    struct options *options, int argc, char *const argv[], char *why, size_t why_bytes);

/* A value as in the configuration file. */
struct options_change {
	const char *name;
	const char *value;
};

/* All of the changes, until the next reload, or none.  0, each change logged; -ENOENT no
 * such option, -EPERM it may not change like this, -EINVAL or -ERANGE a wrong
 * value, with a sentence that names it. */
int options_change(struct options *options, const struct options_change *changes, size_t n,
    char *why, size_t why_bytes);

struct options_row {
	const char *name;
	const char *doc;
	bool is_reloadable; /* by options_reload() */
	bool is_settable;   /* by options_change(), too */
};

/* index is below OPTIONS_COUNT, here and below. */
void options_row(size_t index, struct options_row *ret);
/* The value as in the configuration file, the items of a list with ", " between.  The
 * caller frees. */
char *options_text(const struct options *options, size_t index);
/* The list that the option is, or NULL. */
const struct options_list *options_list(const struct options *options, size_t index);
/* "default", "file", "flag", "api". */
const char *options_source_word(enum options_source source);

/* Moves the contents: *from is left as after options_fini(). */
void options_move(struct options *to, struct options *from);

void options_print_help(FILE *out);
/* A configuration file that gives the same options. */
void options_dump(const struct options *options, FILE *out);
/* The section of the manual page: flags, or keys of the configuration file. */
void options_print_mdoc(FILE *out, bool keys);

#endif
