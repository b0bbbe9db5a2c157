/* SPDX-License-Identifier: Apache-2.0 */
/* Privileges leave with the scope, whatever way out it takes. */
#include "supervisor/privs.h"

#include <errno.h>
#include <sys/capability.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/unit/tap.h"

static bool
has(cap_value_t cap, cap_flag_t set)
{
	cap_t caps = cap_get_proc();
	cap_flag_value_t value = CAP_CLEAR;

	cap_get_flag(caps, cap, set, &value);
	cap_free(caps);
	return value == CAP_SET;
}

static bool
is_effective(cap_value_t cap)
{
	return has(cap, CAP_EFFECTIVE);
}

static int
raise_and_leave(int way)
{
	scoped_priv enum priv held = priv_raise(PRIV_KILL);

	if (held != PRIV_KILL || !is_effective(CAP_KILL))
		return -1;
	if (way == 0)
		return 0;
	for (int i = 0; i < 3; i++) {
		scoped_priv enum priv inner = priv_raise(PRIV_CHOWN);

		if (inner != PRIV_CHOWN || !is_effective(CAP_CHOWN) || !is_effective(CAP_KILL))
			return -1;
		if (i == way)
			return way;
	}
	return 9;
}

static void
test_reduction(void)
{
	is_int(privs_init(), 0, "reduced");
	ok(!is_effective(CAP_KILL) && !is_effective(CAP_SETUID) && !is_effective(CAP_CHOWN),
	    "nothing is in force");
	ok(has(CAP_KILL, CAP_PERMITTED) && has(CAP_SETUID, CAP_PERMITTED),
	    "the needs are permitted");
	ok(!has(CAP_SYS_ADMIN, CAP_PERMITTED) && !has(CAP_DAC_OVERRIDE, CAP_PERMITTED) &&
		!has(CAP_SYS_PTRACE, CAP_PERMITTED) && !has(CAP_NET_ADMIN, CAP_PERMITTED),
	    "and nothing else");
	ok(!has(CAP_KILL, CAP_INHERITABLE), "nothing is inherited");
}

static void
test_scopes(void)
{
	for (int way = 0; way < 4; way++) {
		is_int(raise_and_leave(way), way == 3 ? 9 : way, "one way out of a scope");
		ok(!is_effective(CAP_KILL) && !is_effective(CAP_CHOWN), "nothing stays");
	}
	{
		scoped_priv enum priv outer = priv_raise(PRIV_SPAWN);
		{
			/* Shares CAP_SETUID with the other. */
			scoped_priv enum priv inner = priv_raise(PRIV_CLIENT_FILES);

			ok(inner == PRIV_CLIENT_FILES && is_effective(CAP_SETUID), "both hold it");
		}
		ok(outer == PRIV_SPAWN && is_effective(CAP_SETUID), "one holds it still");
	}
	ok(!is_effective(CAP_SETUID), "nobody does");
}

static void
test_lower_by_hand(void)
{
	enum priv held = priv_raise(PRIV_KILL);

	priv_lower(&held);
	ok(held == PRIV_NONE && !is_effective(CAP_KILL), "lowered by hand");
	priv_lower(&held);
	ok(!is_effective(CAP_KILL), "twice is harmless");
}

/* As a forked worker does it.  The exit code is the number of the first failure. */
static int
drop_in_child(void)
{
	scoped_priv enum priv user = priv_raise(PRIV_SPAWN);
	scoped_priv enum priv confine = priv_raise(PRIV_CONFINE);

	if (user != PRIV_SPAWN || confine != PRIV_CONFINE)
		return 1;
	if (privs_drop_bounding() < 0)
		return 2;
	if (prctl(PR_CAPBSET_READ, CAP_SYS_ADMIN) != 0 || prctl(PR_CAPBSET_READ, CAP_KILL) != 0)
		return 3;
	if (privs_drop_all() < 0 || has(CAP_SETUID, CAP_PERMITTED) || is_effective(CAP_SETUID))
		return 4;
	return 0;
}

static void
test_drop(void)
{
	siginfo_t info = {0};
	pid_t pid = fork();

	if (pid == 0)
		_exit(drop_in_child());
	ok(pid > 0 && waitid(P_PID, (id_t)pid, &info, WEXITED) == 0, "a child ends");
	is_int(info.si_status, 0, "without any capability, and none to be had");
}

/* What is not permitted is not raised, and raising it harms nobody. */
static void
test_without(void)
{
	privs_drop_all();
	is_int(privs_init(), 0, "starts without privileges");
	ok(!priv_is_available(PRIV_KILL), "knows that it has none");
	{
		scoped_priv enum priv held = priv_raise(PRIV_KILL);

		ok(held == PRIV_KILL && !is_effective(CAP_KILL), "raises nothing");
	}
	for (enum priv need = PRIV_NONE + 1; need < PRIV_COUNT; need++)
		ok(priv_doc(need)[0] != '\0', "a need says what it is for: %s", priv_doc(need));
}

int
main(void)
{
	if (geteuid() == 0 && is_effective(CAP_SETPCAP) && is_effective(CAP_KILL)) {
		test_reduction();
		test_scopes();
		test_lower_by_hand();
		test_drop();
	} else {
		skip(1, "not root, or root without capabilities");
	}
	test_without();
	return done();
}
