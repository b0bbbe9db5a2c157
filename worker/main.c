/* SPDX-License-Identifier: Apache-2.0 */
/* pager-worker: serves the sessions of one pager version.  Started by the supervisor
 * alone, with the link on descriptor 3 and the rendezvous socket on 4. */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/exitcode.h"
#include "common/fault.h"
#include "common/log.h"
#include "version_gen.h"
#include "worker/copylock.h"
#include "worker/fault.h"
#include "worker/pager.h"
#include "worker/sandbox.h"
#include "worker/selftest.h"

#define LINK_FD	      3
#define RENDEZVOUS_FD 4

/* Supervisors that come and die while this worker is stopped wait here too. */
#define RENDEZVOUS_BACKLOG 128

static int
usage(FILE *out, int code)
{
	fprintf(out,
	    "usage: pager-worker [--log-level=LEVEL] | --version\n"
	    "pager-worker is started by pagerd(8), which gives it its descriptors.\n");
	return code;
}

static int
parse_arguments(int argc, char **argv, enum log_level *ret_level)
{
	for (int i = 1; i < argc; i++) {
		int level = strncmp(argv[i], "--log-level=", 12) == 0
		    ? log_level_parse(argv[i] + 12)
		    : -EINVAL;

		if (level < 0)
			return level;
		*ret_level = (enum log_level)level;
	}
	return 0;
}

static void
require_descriptors(void)
{
	if (fcntl(LINK_FD, F_GETFD) < 0 || fcntl(RENDEZVOUS_FD, F_GETFD) < 0)
		fatal("descriptors %d and %d are not open: pager-worker is started by pagerd",
		    LINK_FD, RENDEZVOUS_FD);
	/* The supervisor did so before: now who connects here is told our name, not its. */
	if (listen(RENDEZVOUS_FD, RENDEZVOUS_BACKLOG) < 0)
		fatal("descriptor %d cannot be listened to: %s", RENDEZVOUS_FD, strerror(errno));
}

/* Confinement is the last step; the test of it comes right after. */
static void
confine(struct pager *pager)
{
	struct selftest test;
	char why[256];
	int r = selftest_open(&test);

	if (r < 0) {
		log_err("no userfaultfd for the self-test: %s", strerror(-r));
		_exit(EXITCODE_SELFTEST);
	}
	pager->sandbox = sandbox_enter();
	r = selftest_run(&test, why, sizeof(why));
	if (r < 0) {
		log_err("self-test failed: %s", why);
		_exit(EXITCODE_SELFTEST);
	}
}

int
main(int argc, char **argv)
{
	enum log_level level = LOG_LEVEL_NOTICE;
	struct pager pager;

	if (argc == 2 && strcmp(argv[1], "--version") == 0)
		return printf("pager-worker %s\n", PROJECT_VERSION) < 0;
	if (argc == 2 && strcmp(argv[1], "--help") == 0)
		return usage(stdout, EXITCODE_OK);
	if (parse_arguments(argc, argv, &level) < 0)
		return usage(stderr, EXITCODE_USAGE);
	log_init("pager-worker", level);
	if (fault_init() < 0)
		fatal("PAGER_FAULT names a fault point that does not exist");
	require_descriptors();
	signal(SIGPIPE, SIG_IGN);
	fault_init_signal();
	copylock_find_limits();
	if (fault(FAULT_WORKER_START))
		_exit(EXITCODE_FATAL);
	pager_init(&pager);
	confine(&pager);
	pager_run(&pager, LINK_FD, RENDEZVOUS_FD);
	pager_fini(&pager);
	return pager.exit_code;
}
