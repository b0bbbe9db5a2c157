/* SPDX-License-Identifier: Apache-2.0 */
/* The command line, expanded from command.def. */
#include <errno.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include "supervisor/ctl/ctl.h"
#include "supervisor/ctl/text.h"

const struct ctl_command ctl_commands[] = {
#define COMMAND(handler, args, min, max, doc) {#handler, args, doc, min, max, ctl_##handler},
#include "supervisor/ctl/command.def"
#undef COMMAND
};

const size_t ctl_nr_commands = sizeof(ctl_commands) / sizeof(ctl_commands[0]);

const struct ctl_flag ctl_flag_list[] = {
#define FLAG(member, name, metavar, commands, doc) \
	{name, metavar, commands, doc, offsetof(struct ctl_flags, member)},
#include "supervisor/ctl/command.def"
#undef FLAG
};

#define NR_FLAGS (sizeof(ctl_flag_list) / sizeof(ctl_flag_list[0]))
const size_t ctl_nr_flags = NR_FLAGS;

/* Options of every command. */
enum { GLOBAL_SOCKET, GLOBAL_JSON, GLOBAL_HELP, GLOBAL_VERSION };
const struct ctl_flag ctl_globals[] = {
    [GLOBAL_SOCKET] = {"socket", "PATH", "",
	"pagerd's admin socket (default: $PAGERD_SOCKET, else " CTL_DEFAULT_SOCKET ")", 0},
    [GLOBAL_JSON] = {"json", "", "", "the answer as pagerd gave it, for programs", 0},
    [GLOBAL_HELP] = {"help", "", "", "this text, or that of a command", 0},
    [GLOBAL_VERSION] = {"version", "", "", "the version of pagerctl", 0},
};

#define NR_GLOBALS (sizeof(ctl_globals) / sizeof(ctl_globals[0]))
const size_t ctl_nr_globals = NR_GLOBALS;

bool
ctl_takes_flag(const struct ctl_command *command, const struct ctl_flag *flag)
{
	size_t bytes = strlen(command->name);

	for (const char *p = flag->commands; (p = strstr(p, command->name)); p += bytes)
		if ((p == flag->commands || p[-1] == ' ') && (p[bytes] == '\0' || p[bytes] == ' '))
			return true;
	return false;
}

int
ctl_no_such_command(const char *word)
{
	const char *best = NULL;

	for (size_t i = 0; i < ctl_nr_commands; i++)
		if (text_is_near(word, ctl_commands[i].name) &&
		    (!best ||
			text_distance(word, ctl_commands[i].name) < text_distance(word, best)))
			best = ctl_commands[i].name;
	if (best)
		ctl_complain("there is no command %s; did you mean %s?", word, best);
	else
		ctl_complain("there is no command %s; pagerctl --help lists them", word);
	return -EINVAL;
}

const struct ctl_command *
ctl_find_command(const char *word)
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
		if (text_is_near(name, ctl_globals[i].name)) {
			ctl_complain("there is no option --%s; did you mean --%s?", name,
			    ctl_globals[i].name);
			return -EINVAL;
		}
	for (size_t i = 0; p->command && i < NR_FLAGS; i++)
		if (ctl_takes_flag(p->command, &ctl_flag_list[i]) &&
		    text_is_near(name, ctl_flag_list[i].name)) {
			ctl_complain("%s has no option --%s; did you mean --%s?", p->command->name,
			    name, ctl_flag_list[i].name);
			return -EINVAL;
		}
	ctl_complain("%s%s no option --%s; pagerctl %s%s--help lists them",
	    p->command ? p->command->name : "there is", p->command ? " has" : "", name,
	    p->command ? p->command->name : "", p->command ? " " : "");
	return -EINVAL;
}

static const struct ctl_flag *
find_flag(const struct parser *p, const char *name)
{
	for (size_t i = 0; i < NR_GLOBALS; i++)
		if (strcmp(ctl_globals[i].name, name) == 0)
			return &ctl_globals[i];
	for (size_t i = 0; p->command && i < NR_FLAGS; i++)
		if (strcmp(ctl_flag_list[i].name, name) == 0 &&
		    ctl_takes_flag(p->command, &ctl_flag_list[i]))
			return &ctl_flag_list[i];
	return NULL;
}

/* The metavar says so. */
static bool
is_repeatable(const struct ctl_flag *flag)
{
	return strstr(flag->metavar, "...") != NULL;
}

static int
repeat(struct ctl *ctl, const struct ctl_flag *flag, const char *value)
{
	if (ctl->nr_repeats == CTL_MAX_REPEATS) {
		ctl_complain("--%s is given more than %d times", flag->name, CTL_MAX_REPEATS);
		return -EINVAL;
	}
	ctl->repeats[ctl->nr_repeats++] = value;
	return 0;
}

static void
set_flag(struct parser *p, const struct ctl_flag *flag, const char *value)
{
	if (flag == &ctl_globals[GLOBAL_SOCKET])
		p->ctl->socket_path = value;
	else if (flag == &ctl_globals[GLOBAL_JSON])
		p->ctl->json = true;
	else if (flag == &ctl_globals[GLOBAL_HELP])
		p->action = CTL_HELP;
	else if (flag == &ctl_globals[GLOBAL_VERSION])
		p->action = CTL_VERSION;
	else
		memcpy((char *)&p->ctl->flags + flag->offset, &value, sizeof(value));
}

static int
parse_flag(struct parser *p, const char *arg)
{
	const struct ctl_flag *flag;
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
		p->command = ctl_find_command(word);
		return p->command ? 0 : ctl_no_such_command(word);
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
