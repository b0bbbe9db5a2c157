/* SPDX-License-Identifier: Apache-2.0 */
/* The command line, expanded from command.def. */
#include <errno.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include "supervisor/ctl/ctl.h"
#include "supervisor/ctl/text.h"

#define HELP_COLUMN 28

const struct ctl_command ctl_commands[] = {
#define COMMAND(handler, args, min, max, doc) {#handler, args, doc, min, max, ctl_##handler},
#include "supervisor/ctl/command.def"
#undef COMMAND
};

const size_t ctl_nr_commands = sizeof(ctl_commands) / sizeof(ctl_commands[0]);

struct flag {
	const char *name, *metavar, *commands, *doc;
	size_t offset; /* in struct ctl_flags */
};

static const struct flag flags[] = {
#define FLAG(member, name, metavar, commands, doc) \
	{name, metavar, commands, doc, offsetof(struct ctl_flags, member)},
#include "supervisor/ctl/command.def"
#undef FLAG
};

#define NR_FLAGS (sizeof(flags) / sizeof(flags[0]))

/* Options of every command. */
enum { GLOBAL_SOCKET, GLOBAL_JSON, GLOBAL_HELP, GLOBAL_VERSION };
static const struct flag globals[] = {
    [GLOBAL_SOCKET] = {"socket", "PATH", "",
	"pagerd's admin socket (default: $PAGERD_SOCKET, else " CTL_DEFAULT_SOCKET ")", 0},
    [GLOBAL_JSON] = {"json", "", "", "the answer as pagerd gave it, for programs", 0},
    [GLOBAL_HELP] = {"help", "", "", "this text, or that of a command", 0},
    [GLOBAL_VERSION] = {"version", "", "", "the version of pagerctl", 0},
};

#define NR_GLOBALS (sizeof(globals) / sizeof(globals[0]))

static bool
has_word(const char *list, const char *word)
{
	size_t bytes = strlen(word);

	for (const char *p = list; (p = strstr(p, word)); p += bytes)
		if ((p == list || p[-1] == ' ') && (p[bytes] == '\0' || p[bytes] == ' '))
			return true;
	return false;
}

static bool
is_near(const char *word, const char *name)
{
	size_t bytes = strlen(word);

	/* A start of it, or a typing error or two for a word that is long enough. */
	return (bytes >= 2 && strncmp(word, name, bytes) == 0) ||
	    text_distance(word, name) <= (strlen(name) > 4 ? 2U : 1U);
}

static int
no_such_command(const char *word)
{
	const char *best = NULL;

	for (size_t i = 0; i < ctl_nr_commands; i++)
		if (is_near(word, ctl_commands[i].name) &&
		    (!best ||
			text_distance(word, ctl_commands[i].name) < text_distance(word, best)))
			best = ctl_commands[i].name;
	if (best)
		ctl_complain("there is no command %s; did you mean %s?", word, best);
	else
		ctl_complain("there is no command %s; pagerctl --help lists them", word);
	return -EINVAL;
}

static const struct ctl_command *
find_command(const char *word)
{
	for (size_t i = 0; i < ctl_nr_commands; i++)
		if (strcmp(ctl_commands[i].name, word) == 0)
			return &ctl_commands[i];
	return NULL;
}

struct parser {
	struct ctl *ctl;
	const struct ctl_command *command;
	enum ctl_action action;
	char *const *argv;
	int argc, at, nr_args;
};

static int
no_such_flag(const struct parser *p, const char *name)
{
	for (size_t i = 0; i < NR_GLOBALS; i++)
		if (is_near(name, globals[i].name)) {
			ctl_complain(
			    "there is no option --%s; did you mean --%s?", name, globals[i].name);
			return -EINVAL;
		}
	for (size_t i = 0; p->command && i < NR_FLAGS; i++)
		if (has_word(flags[i].commands, p->command->name) && is_near(name, flags[i].name)) {
			ctl_complain("%s has no option --%s; did you mean --%s?", p->command->name,
			    name, flags[i].name);
			return -EINVAL;
		}
	ctl_complain("%s%s no option --%s; pagerctl %s%s--help lists them",
	    p->command ? p->command->name : "there is", p->command ? " has" : "", name,
	    p->command ? p->command->name : "", p->command ? " " : "");
	return -EINVAL;
}

static const struct flag *
find_flag(const struct parser *p, const char *name)
{
	for (size_t i = 0; i < NR_GLOBALS; i++)
		if (strcmp(globals[i].name, name) == 0)
			return &globals[i];
	for (size_t i = 0; p->command && i < NR_FLAGS; i++)
		if (strcmp(flags[i].name, name) == 0 &&
		    has_word(flags[i].commands, p->command->name))
			return &flags[i];
	return NULL;
}

/* The metavar says so. */
static bool
is_repeatable(const struct flag *flag)
{
	return strstr(flag->metavar, "...") != NULL;
}

static int
repeat(struct ctl *ctl, const struct flag *flag, const char *value)
{
	if (ctl->nr_repeats == CTL_MAX_REPEATS) {
		ctl_complain("--%s is given more than %d times", flag->name, CTL_MAX_REPEATS);
		return -EINVAL;
	}
	ctl->repeats[ctl->nr_repeats++] = value;
	return 0;
}

static void
set_flag(struct parser *p, const struct flag *flag, const char *value)
{
	if (flag == &globals[GLOBAL_SOCKET])
		p->ctl->socket_path = value;
	else if (flag == &globals[GLOBAL_JSON])
		p->ctl->json = true;
	else if (flag == &globals[GLOBAL_HELP])
		p->action = CTL_HELP;
	else if (flag == &globals[GLOBAL_VERSION])
		p->action = CTL_VERSION;
	else
		memcpy((char *)&p->ctl->flags + flag->offset, &value, sizeof(value));
}

static int
parse_flag(struct parser *p, const char *arg)
{
	const struct flag *flag;
	const char *value = strchr(arg, '=');
	char name[64];

	snprintf(
	    name, sizeof(name), "%.*s", (int)(value ? (size_t)(value - arg) : strlen(arg)), arg);
	flag = find_flag(p, name);
	if (!flag)
		return no_such_flag(p, name);
	if (!*flag->metavar && value) {
		ctl_complain("--%s takes no value", name);
		return -EINVAL;
	}
	if (*flag->metavar) {
		if (value)
			value++;
		else if (p->at < p->argc)
			value = p->argv[p->at++];
		if (!value || !*value) {
			ctl_complain("--%s needs a value: --%s %s", name, name, flag->metavar);
			return -EINVAL;
		}
	}
	set_flag(p, flag, value ? value : "");
	return is_repeatable(flag) ? repeat(p->ctl, flag, value) : 0;
}

static int
parse_word(struct parser *p, const char *word)
{
	if (!p->command) {
		p->command = find_command(word);
		return p->command ? 0 : no_such_command(word);
	}
	if (p->nr_args >= p->command->max) {
		ctl_complain("%s takes %s%s; there is no place for %s", p->command->name,
		    p->command->max ? "only " : "no arguments", p->command->args, word);
		return -EINVAL;
	}
	p->ctl->args[p->nr_args++] = word;
	return 0;
}

static int
parse_all(struct parser *p)
{
	bool only_words = false;
	int r = 0;

	while (r == 0 && p->at < p->argc) {
		const char *arg = p->argv[p->at++];

		if (only_words || arg[0] != '-' || arg[1] == '\0')
			r = parse_word(p, arg);
		else if (strcmp(arg, "--") == 0)
			only_words = true;
		else if (strcmp(arg, "-h") == 0)
			p->action = CTL_HELP;
		else if (arg[1] == '-')
			r = parse_flag(p, arg + 2);
		else {
			ctl_complain(
			    "there is no option %s; options are long, such as --json", arg);
			r = -EINVAL;
		}
	}
	return r;
}

int
ctl_parse(struct ctl *ret, enum ctl_action *ret_action, const struct ctl_command **ret_command,
    int argc, char *const argv[])
{
	const char *path = getenv("PAGERD_SOCKET");
	struct parser p = {.ctl = ret, .argv = argv, .argc = argc, .at = 1, .action = CTL_RUN};
	int r;

	memset(ret, 0, sizeof(*ret));
	ret->socket_path = path && *path ? path : CTL_DEFAULT_SOCKET;
	r = parse_all(&p);
	*ret_action = p.action;
	*ret_command = p.command;
	if (r < 0 || p.action != CTL_RUN)
		return r;
	if (!p.command) {
		ctl_complain("say what to do; pagerctl --help lists the commands");
		return -EINVAL;
	}
	if (p.nr_args < p.command->min) {
		ctl_complain("%s needs an argument: pagerctl %s %s", p.command->name,
		    p.command->name, p.command->args);
		return -EINVAL;
	}
	return 0;
}

static void
help_flag(FILE *out, const struct flag *flag)
{
	int n = fprintf(out, "  --%s%s%s", flag->name, *flag->metavar ? " " : "", flag->metavar);

	fprintf(out, "%*s%s\n", n < HELP_COLUMN ? HELP_COLUMN - n : 1, "", flag->doc);
}

static void
help_command(FILE *out, const struct ctl_command *command)
{
	int n = fprintf(out, "  %s %s", command->name, command->args);

	fprintf(out, "%*s%s\n", n < HELP_COLUMN ? HELP_COLUMN - n : 1, "", command->doc);
	for (size_t i = 0; i < NR_FLAGS; i++)
		if (has_word(flags[i].commands, command->name)) {
			fputs("  ", out);
			help_flag(out, &flags[i]);
		}
}

void
ctl_help(FILE *out, const struct ctl_command *command)
{
	fprintf(out, "usage: pagerctl [options] %s\n\n",
	    command ? command->name : "COMMAND [arguments]");
	if (command)
		help_command(out, command);
	else
		for (size_t i = 0; i < ctl_nr_commands; i++)
			help_command(out, &ctl_commands[i]);
	fputs("\noptions\n", out);
	for (size_t i = 0; i < NR_GLOBALS; i++)
		help_flag(out, &globals[i]);
	fprintf(out,
	    "\nexit status\n"
	    "  %d done, %d refused or failed, %d bad command line, %d pagerd does not answer,\n"
	    "  %d no such session or version, %d out of time, %d in the wrong state\n",
	    EXITCODE_OK, EXITCODE_FAILED, EXITCODE_USAGE, EXITCODE_UNREACHABLE, EXITCODE_NOT_FOUND,
	    EXITCODE_TIMEOUT, EXITCODE_CONFLICT);
}
