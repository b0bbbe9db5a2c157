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

struct options {
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

/* Parses again what made old, and takes over the values that may change while pagerd
 * runs; a changed value that may not is logged with its consequence.  On failure
 * nothing changed and why gets a sentence. */
int options_reload(
    struct options *options, int argc, char *const argv[], char *why, size_t why_bytes);

/* Moves the contents: *from is left as after options_fini(). */
void options_move(struct options *to, struct options *from);

void options_print_help(FILE *out);
/* A configuration file that gives the same options. */
void options_dump(const struct options *options, FILE *out);
/* The option section of the manual page. */
void options_print_mdoc(FILE *out);

#endif
