/* SPDX-License-Identifier: Apache-2.0 */
/* pagerctl: what its commands share. */
#ifndef SUPERVISOR_CTL_CTL_H
#define SUPERVISOR_CTL_CTL_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include "common/exitcode.h"
#include "supervisor/ctl/client.h"
#include "supervisor/ctl/text.h"

#define CTL_DEFAULT_SOCKET "/run/pagerd/admin.sock"
#define CTL_MAX_ARGS	   32
#define CTL_MAX_REPEATS	   64

/* The command line after parsing.  A flag without a value is "" when given. */
struct ctl_flags {
#define FLAG(member, name, metavar, commands, doc) const char *member;
#include "supervisor/ctl/command.def"
#undef FLAG
};

struct ctl {
	const char *socket_path;
	bool json;   /* answers as they are, for programs */
	bool colour; /* of stdout */
	struct ctl_flags flags;
	const char *args[CTL_MAX_ARGS];
	/* The values of the one option that may be given again; its flag is the last. */
	const char *repeats[CTL_MAX_REPEATS];
	size_t nr_repeats;
};

struct ctl_command {
	const char *name, *args, *doc;
	int min, max;
	enum exitcode (*run)(const struct ctl *ctl);
};

#define COMMAND(handler, args, min, max, doc) enum exitcode ctl_##handler(const struct ctl *ctl);
#include "supervisor/ctl/command.def"
#undef COMMAND

extern const struct ctl_command ctl_commands[];
extern const size_t ctl_nr_commands;

struct ctl_flag {
	const char *name, *metavar, *commands, *doc;
	size_t offset; /* in struct ctl_flags */
};

/* Options of some commands, and of all. */
extern const struct ctl_flag ctl_flag_list[], ctl_globals[];
extern const size_t ctl_nr_flags, ctl_nr_globals;

bool ctl_takes_flag(const struct ctl_command *command, const struct ctl_flag *flag);
/* NULL when there is none. */
const struct ctl_command *ctl_find_command(const char *word);
/* Complains, with what may have been meant.  -EINVAL. */
int ctl_no_such_command(const char *word);

enum ctl_action { CTL_RUN, CTL_HELP, CTL_VERSION };

/* 0; -EINVAL and a complaint on stderr. */
int ctl_parse(struct ctl *ret, enum ctl_action *ret_action, const struct ctl_command **ret_command,
    int argc, char *const argv[]);
/* command NULL: of all, in short.  For a terminal of so many columns. */
void ctl_print_help(FILE *out, const struct ctl_command *command, size_t columns);
/* Of stdout, as far as text is nice to read. */
size_t ctl_help_columns(void);

/* "pagerctl: …" on stderr. */
void ctl_complain(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

/* Begins a request; complains when pagerd cannot be reached. */
enum exitcode ctl_start(const struct ctl *ctl, const char *method, const char *target,
    const char *body, struct client **ret);
/* What an answer's status means for ours. */
enum exitcode ctl_exitcode(int status);
/* What came of one that is done: the answer's JSON, which the caller owns, or a complaint. */
enum exitcode ctl_finish(const struct ctl *ctl, const struct client *client, json_t **ret);
/* The same of a status and a JSON that is taken. */
enum exitcode ctl_conclude(const struct ctl *ctl, int status, json_t *json, json_t **ret);
/* Complains of an answer that is none, or of no answer: a negative errno. */
enum exitcode ctl_complain_unreachable(const struct ctl *ctl, int error);
/* Both, with the waiting between.  wait_ms is how long the server may take by itself. */
enum exitcode ctl_call(const struct ctl *ctl, const char *method, const char *target,
    const char *body, uint64_t wait_ms, json_t **ret);
enum exitcode ctl_get(const struct ctl *ctl, const char *target, json_t **ret);

/* After a 404 of a session, template or version: names one that is spelt nearly like the word
 * (NULL for none), if there is. */
void ctl_suggest(const struct ctl *ctl, const char *target, const char *word);

/* A POST of {"version": …} with the first argument. */
enum exitcode ctl_post_version(
    const struct ctl *ctl, const char *target, uint64_t wait_ms, json_t **ret);

/* Of a worker's state. */
enum table_colour ctl_version_colour(const char *state);
/* What came of a hand-over, and its exit code. */
enum exitcode ctl_print_moved(const struct ctl *ctl, const json_t *json);

/* Adds the members of POST /sessions that the flags and the image's path say.  false after a
 * complaint. */
bool ctl_create_members(const struct ctl *ctl, const char *image, json_t *body);
/* Why a new session does without the hot list that it was to replay, in words that the caller
 * frees; NULL when nothing is amiss. */
char *ctl_no_hot_list(const json_t *session);
/* Members of a body from the command line.  Adds nothing and returns true when text is NULL;
 * false after a complaint, which names the flag. */
enum value_kind { VALUE_TEXT, VALUE_NUMBER, VALUE_BYTES, VALUE_TIME };
bool ctl_add_member(
    json_t *body, const char *member, const char *flag, const char *text, enum value_kind kind);
/* The same of a path, made absolute: pagerd knows nothing of our working directory. */
bool ctl_add_path(json_t *body, const char *member, const char *flag, const char *path);

/* "name   value", printable, or nothing when value is empty. */
void ctl_print_row(const char *name, const char *value);

/* prefix and the name percent-encoded and what follows; the caller frees. */
char *ctl_target(const char *prefix, const char *name, const char *rest);
/* The same with "/sessions/". */
char *ctl_session_target(const char *id, const char *rest);
/* A duration of the command line, or -EINVAL and a complaint.  *ret stays when text is NULL. */
int ctl_parse_time(const char *flag, const char *text, uint64_t *ret_ms);

/* Prints it for a program. */
void ctl_print_json(const json_t *json);

/* Members, without fuss: "" and 0 when not there or of another type. */
const char *ctl_text(const json_t *object, const char *name);
uint64_t ctl_u64(const json_t *object, const char *name);
bool ctl_flag(const json_t *object, const char *name);

#endif
