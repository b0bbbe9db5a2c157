/* SPDX-License-Identifier: Apache-2.0 */
/* pagerd: options, logging, then the supervisor.  No policy. */
#include <fcntl.h>
#include <stdio.h>
#include <string.h>

#include "common/exitcode.h"
#include "common/fault.h"
#include "common/fd.h"
#include "common/log.h"
#include "supervisor/config_check.h"
#include "supervisor/options.h"
#include "supervisor/supervisor.h"
#include "version_gen.h"

static int
act(enum options_action action, struct options *options)
{
	bool is_right = true;

	switch (action) {
	case OPTIONS_HELP:
		options_print_help(stdout);
		break;
	case OPTIONS_VERSION:
		puts("pagerd " PROJECT_VERSION);
		break;
	case OPTIONS_DUMP_CONFIG:
		options_dump(options, stdout);
		break;
	case OPTIONS_CHECK_CONFIG:
		is_right = config_check(options);
		break;
	case OPTIONS_RUN:
		break;
	}
	options_fini(options);
	if (!is_right)
		return EXITCODE_USAGE;
	return fflush(stdout) == 0 ? EXITCODE_OK : EXITCODE_FAILED;
}

int
main(int argc, char *argv[])
{
	struct options options;
	struct supervisor sup;
	enum options_action action;
	char why[512];
	int r;

	fd_fill_standard(O_RDWR);
	log_init("pagerd", LOG_LEVEL_NOTICE);
	if (fault_init() < 0)
		fatal("PAGER_FAULT names no fault point; not started");
	r = options_parse(&options, &action, argc, argv, why, sizeof(why));
	if (r < 0) {
		log_err("%s", why);
		return EXITCODE_USAGE;
	}
	if (action != OPTIONS_RUN)
		return act(action, &options);
	log_set_level(options.log_level);
	r = supervisor_init(&sup, &options, argc, argv);
	if (r < 0) {
		supervisor_fini(&sup);
		return EXITCODE_FATAL;
	}
	log_drop_when_full();
	/* From here on the supervisor must not exit except through supervisor_fini(). */
	supervisor_run(&sup);
	supervisor_fini(&sup);
	return EXITCODE_OK;
}
