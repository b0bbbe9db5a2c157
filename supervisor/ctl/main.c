/* SPDX-License-Identifier: Apache-2.0 */
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/fd.h"
#include "supervisor/ctl/ctl.h"
#include "version_gen.h"

static bool
wants_colour(void)
{
	const char *no = getenv("NO_COLOR");
	const char *term = getenv("TERM");

	return isatty(STDOUT_FILENO) && !(no && *no) && term && strcmp(term, "dumb") != 0;
}

/* A full disk behind a redirection must not pass for success. */
static enum exitcode
finish_output(enum exitcode code)
{
	if (fflush(stdout) == 0 && !ferror(stdout))
		return code;
	ctl_complain("the output could not be written");
	return code == EXITCODE_OK ? EXITCODE_FAILED : code;
}

int
main(int argc, char *argv[])
{
	const struct ctl_command *command = NULL;
	enum ctl_action action;
	struct ctl ctl;

	/* Output to what is closed fails. */
	fd_fill_standard(O_RDONLY);
	if (ctl_parse(&ctl, &action, &command, argc, argv) < 0)
		return EXITCODE_USAGE;
	ctl.colour = wants_colour();
	if (action == CTL_HELP) {
		ctl_print_help(stdout, command, ctl_help_columns());
		return (int)finish_output(EXITCODE_OK);
	}
	if (action == CTL_VERSION) {
		puts("pagerctl " PROJECT_VERSION);
		return (int)finish_output(EXITCODE_OK);
	}
	return (int)finish_output(command->run(&ctl));
}
