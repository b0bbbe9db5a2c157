/* SPDX-License-Identifier: Apache-2.0 */
/* help: of all commands in short, of one in whole. */
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "supervisor/ctl/ctl.h"
#include "supervisor/ctl/text.h"

#define NAME_COLUMN   28
#define OPTION_COLUMN 30
#define MIN_COLUMNS   60
#define MAX_COLUMNS   96 /* longer lines are hard to read */

static const struct {
	const char *command, *text, *examples;
} helps[] = {
#define HELP(command, text, examples) {#command, text, examples},
#include "supervisor/ctl/help.def"
#undef HELP
};

size_t
ctl_help_columns(void)
{
	struct winsize size = {0};

	if (ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) < 0 || size.ws_col == 0)
		return 80;
	return size.ws_col < MIN_COLUMNS ? MIN_COLUMNS
	    : size.ws_col > MAX_COLUMNS	 ? MAX_COLUMNS
					 : size.ws_col;
}

static void
print_flag(FILE *out, const struct ctl_flag *flag, size_t columns)
{
	int n = fprintf(out, "  --%s%s%s", flag->name, *flag->metavar ? " " : "", flag->metavar);

	if (n >= OPTION_COLUMN) {
		putc('\n', out);
		n = 0;
	}
	text_wrap(out, flag->doc, (size_t)n, OPTION_COLUMN, columns);
}

static void
print_globals(FILE *out, size_t columns)
{
	fputs("\noptions of every command\n", out);
	for (size_t i = 0; i < ctl_nr_globals; i++)
		print_flag(out, &ctl_globals[i], columns);
}

static void
print_exit_status(FILE *out)
{
	fprintf(out,
	    "\nexit status\n"
	    "  %d done, %d refused or failed, %d bad command line, %d pagerd does not answer,\n"
	    "  %d no such session or version, %d out of time, %d in the wrong state;\n"
	    "  128 + n interrupted by signal n\n",
	    EXITCODE_OK, EXITCODE_FAILED, EXITCODE_USAGE, EXITCODE_UNREACHABLE, EXITCODE_NOT_FOUND,
	    EXITCODE_TIMEOUT, EXITCODE_CONFLICT);
}

static void
print_all(FILE *out, size_t columns)
{
	fputs("usage: pagerctl [options] COMMAND [arguments]\n\ncommands\n", out);
	for (size_t i = 0; i < ctl_nr_commands; i++) {
		const struct ctl_command *c = &ctl_commands[i];
		int n = fprintf(out, "  %s %s", c->name, c->args);

		if (n >= NAME_COLUMN) {
			putc('\n', out);
			n = 0;
		}
		text_wrap(out, c->doc, (size_t)n, NAME_COLUMN, columns);
	}
	fputs("\npagerctl help COMMAND says more of one; pagerctl(1) says all.\n", out);
	print_globals(out, columns);
	print_exit_status(out);
}

static void
print_usage(FILE *out, const struct ctl_command *command, size_t columns)
{
	char text[2048];
	size_t n = 0;

	n += (size_t)snprintf(
	    text, sizeof(text), "%s%s%s", command->name, *command->args ? " " : "", command->args);
	for (size_t i = 0; i < ctl_nr_flags && n < sizeof(text); i++) {
		const struct ctl_flag *flag = &ctl_flag_list[i];

		if (ctl_takes_flag(command, flag))
			n += (size_t)snprintf(text + n, sizeof(text) - n, " [--%s%s%s]", flag->name,
			    *flag->metavar ? TEXT_SPACE : "", flag->metavar);
	}
	fputs("usage: pagerctl ", out);
	text_wrap(out, text, strlen("usage: pagerctl "), strlen("usage: pagerctl "), columns);
}

static void
print_examples(FILE *out, const char *examples)
{
	fputs("\nexamples\n", out);
	while (*examples) {
		size_t bytes = strcspn(examples, "\n");

		fprintf(out, "  $ %.*s\n", (int)bytes, examples);
		examples += bytes;
		examples += *examples == '\n';
	}
}

static void
print_one(FILE *out, const struct ctl_command *command, size_t columns)
{
	bool titled = false;
	size_t help = 0, nr_helps = sizeof(helps) / sizeof(helps[0]);

	while (help < nr_helps && strcmp(helps[help].command, command->name) != 0)
		help++;
	fprintf(out, "pagerctl %s: ", command->name);
	text_wrap(out, command->doc, strlen("pagerctl : ") + strlen(command->name), 2, columns);
	putc('\n', out);
	print_usage(out, command, columns);
	if (help < nr_helps) {
		putc('\n', out);
		text_wrap(out, helps[help].text, 0, 2, columns);
	}
	for (size_t i = 0; i < ctl_nr_flags; i++) {
		if (!ctl_takes_flag(command, &ctl_flag_list[i]))
			continue;
		if (!titled)
			fputs("\noptions\n", out);
		titled = true;
		print_flag(out, &ctl_flag_list[i], columns);
	}
	print_globals(out, columns);
	if (help < nr_helps)
		print_examples(out, helps[help].examples);
	print_exit_status(out);
}

void
ctl_print_help(FILE *out, const struct ctl_command *command, size_t columns)
{
	if (command)
		print_one(out, command, columns);
	else
		print_all(out, columns);
}

enum exitcode
ctl_help(const struct ctl *ctl)
{
	const struct ctl_command *command = ctl->args[0] ? ctl_find_command(ctl->args[0]) : NULL;

	if (ctl->args[0] && !command) {
		ctl_no_such_command(ctl->args[0]);
		return EXITCODE_USAGE;
	}
	ctl_print_help(stdout, command, ctl_help_columns());
	return EXITCODE_OK;
}
