/* SPDX-License-Identifier: Apache-2.0 */
/* The copy lock: one at a time, the demand side first, and priority that is lent and
 * given back. */
#include "worker/copylock.h"

#include <sched.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "tests/unit/tap.h"
#include "tests/unit/worker_rig.h"

#define ROUNDS 20000

static struct copylock lock;

static int
policy_of(int tid)
{
	return sched_getscheduler(tid);
}

/* --- One at a time --------------------------------------------------------------- */

static unsigned shared; /* no atomic: the lock protects it */

static void *
count_in_background(void *arg)
{
	(void)arg;
	for (unsigned i = 0; i < ROUNDS; i++) {
		copylock_background(&lock);
		shared++;
		copylock_background_done(&lock);
	}
	return NULL;
}

static void
test_exclusion(void)
{
	pthread_t threads[2];

	copylock_init(&lock);
	for (size_t i = 0; i < 2; i++)
		pthread_create(&threads[i], NULL, count_in_background, NULL);
	for (unsigned i = 0; i < ROUNDS; i++) {
		copylock_demand(&lock);
		shared++;
		copylock_demand_done(&lock);
	}
	for (size_t i = 0; i < 2; i++)
		pthread_join(threads[i], NULL);
	is_int(shared, 3 * ROUNDS, "three threads, one at a time");
	is_int(atomic_load(&lock.demand), 0, "nobody is left waiting");
	copylock_fini(&lock);
}

/* --- The demand side first ------------------------------------------------------- */

static _Atomic bool may_release;
static _Atomic unsigned background_turns; /* times that the background had the lock */
static unsigned turns_at_demand;
static _Atomic int background_tid;

static void *
hold_twice(void *arg)
{
	if (arg != NULL)
		copylock_idle_priority();
	atomic_store(&background_tid, (int)syscall(SYS_gettid));
	copylock_background(&lock);
	atomic_store(&background_turns, 1);
	rig_until(atomic_load(&may_release));
	copylock_background_done(&lock);
	copylock_background(&lock);
	atomic_fetch_add(&background_turns, 1);
	copylock_background_done(&lock);
	return NULL;
}

static void *
demand_once(void *arg)
{
	(void)arg;
	copylock_demand(&lock);
	turns_at_demand = atomic_load(&background_turns);
	copylock_demand_done(&lock);
	return NULL;
}

static void
start(pthread_t *background, bool idle)
{
	copylock_init(&lock);
	atomic_store(&may_release, false);
	atomic_store(&background_turns, 0);
	pthread_create(background, NULL, hold_twice, idle ? &lock : NULL);
	rig_until(atomic_load(&background_turns) == 1);
}

static void
test_demand_first(void)
{
	unsigned overtaken = 0;

	for (unsigned i = 0; i < 200; i++) {
		pthread_t background, demand;

		start(&background, false);
		pthread_create(&demand, NULL, demand_once, NULL);
		rig_until(atomic_load(&lock.demand) == 1);
		atomic_store(&may_release, true);
		pthread_join(demand, NULL);
		pthread_join(background, NULL);
		overtaken += turns_at_demand != 1;
		copylock_fini(&lock);
	}
	is_int(overtaken, 0, "who waits for a guest is not overtaken by the background");
}

/* --- Lent priority ---------------------------------------------------------------- */

static bool
can_leave_idle(void)
{
	struct sched_param param = {0};
	bool can = sched_setscheduler(0, SCHED_IDLE, &param) == 0 &&
	    sched_setscheduler(0, SCHED_OTHER, &param) == 0;

	return can;
}

static void *
probe_idle(void *arg)
{
	*(bool *)arg = can_leave_idle();
	return NULL;
}

static _Atomic bool may_end;
static int policy_after;

static void *
hold_idle(void *arg)
{
	(void)arg;
	copylock_idle_priority();
	atomic_store(&background_tid, (int)syscall(SYS_gettid));
	copylock_background(&lock);
	atomic_store(&background_turns, 1);
	rig_until(atomic_load(&may_release));
	copylock_background_done(&lock);
	policy_after = policy_of(0);
	rig_until(atomic_load(&may_end));
	return NULL;
}

static void
start_idle(pthread_t *background)
{
	atomic_store(&may_release, false);
	atomic_store(&may_end, false);
	atomic_store(&background_turns, 0);
	atomic_store(&background_tid, 0);
	pthread_create(background, NULL, hold_idle, NULL);
}

static void
test_loan(void)
{
	pthread_t background, demand;

	copylock_init(&lock);
	start_idle(&background);
	rig_until(atomic_load(&background_turns) == 1);
	is_int(policy_of(atomic_load(&background_tid)), SCHED_IDLE, "the holder is idle class");
	pthread_create(&demand, NULL, demand_once, NULL);
	rig_until(atomic_load(&lock.lent));
	is_int(policy_of(atomic_load(&background_tid)), SCHED_OTHER,
	    "it is raised while a guest waits behind it");
	atomic_store(&may_release, true);
	pthread_join(demand, NULL);
	atomic_store(&may_end, true);
	pthread_join(background, NULL);
	is_int(policy_after, SCHED_IDLE, "and goes back when it lets go");
	ok(!atomic_load(&lock.lent) && atomic_load(&lock.holder) == 0, "nothing is owed");
	copylock_fini(&lock);
}

static void
test_no_loan(void)
{
	pthread_t background;

	copylock_init(&lock);
	start_idle(&background);
	rig_until(atomic_load(&background_turns) == 1);
	atomic_store(&may_release, true);
	atomic_store(&may_end, true);
	pthread_join(background, NULL);
	is_int(policy_after, SCHED_IDLE, "undisturbed, it stays idle class");
	copylock_fini(&lock);
}

/* Whoever waits for the lock at idle priority may get it at any moment and then be
 * preempted before another instruction: it must be known as the holder by then. */
static void
test_loan_to_the_next(void)
{
	pthread_t background, demand;

	copylock_init(&lock);
	copylock_background(&lock);
	start_idle(&background);
	rig_until(atomic_load(&lock.holder) != 0);
	pthread_create(&demand, NULL, demand_once, NULL);
	rig_until(atomic_load(&lock.lent));
	is_int(policy_of(atomic_load(&background_tid)), SCHED_OTHER,
	    "also while it is about to take the lock");
	copylock_background_done(&lock);
	atomic_store(&may_release, true);
	pthread_join(demand, NULL);
	atomic_store(&may_end, true);
	pthread_join(background, NULL);
	is_int(policy_after, SCHED_IDLE, "and goes back");
	copylock_fini(&lock);
}

/* --- Hurry ------------------------------------------------------------------------ */

static void *
hold_until_the_end(void *arg)
{
	(void)arg;
	copylock_idle_begin(&lock);
	atomic_store(&background_tid, (int)syscall(SYS_gettid));
	copylock_background(&lock);
	atomic_store(&background_turns, 1);
	rig_until(atomic_load(&may_release));
	copylock_background_done(&lock);
	policy_after = policy_of(0);
	copylock_idle_end(&lock);
	return NULL;
}

static void
start_ending(pthread_t *background)
{
	atomic_store(&may_release, false);
	atomic_store(&background_turns, 0);
	pthread_create(background, NULL, hold_until_the_end, NULL);
	rig_until(atomic_load(&background_turns) == 1);
}

static bool
is_anybody_idle(void)
{
	for (size_t i = 0; i < COPYLOCK_IDLE_MAX; i++)
		if (atomic_load(&lock.idle[i]) != 0)
			return true;
	return false;
}

static void
test_hurry(void)
{
	pthread_t background, demand;

	copylock_init(&lock);
	start_ending(&background);
	is_int(policy_of(atomic_load(&background_tid)), SCHED_IDLE,
	    "a thread that copies is idle class");
	copylock_hurry(&lock);
	is_int(policy_of(atomic_load(&background_tid)), SCHED_OTHER, "it is to end: it is raised");
	pthread_create(&demand, NULL, demand_once, NULL);
	rig_until(atomic_load(&lock.lent));
	atomic_store(&may_release, true);
	pthread_join(demand, NULL);
	pthread_join(background, NULL);
	is_int(policy_after, SCHED_OTHER, "and does not go back, whatever was lent to it");
	ok(!is_anybody_idle(), "nobody is left to be raised");
	start_ending(&background);
	is_int(policy_of(atomic_load(&background_tid)), SCHED_OTHER, "who begins late is not idle");
	atomic_store(&may_release, true);
	pthread_join(background, NULL);
	copylock_calm(&lock);
	start_ending(&background);
	is_int(policy_of(atomic_load(&background_tid)), SCHED_IDLE, "but the next is");
	atomic_store(&may_release, true);
	pthread_join(background, NULL);
	copylock_fini(&lock);
}

int
main(void)
{
	pthread_t probe;
	bool can = false;

	test_exclusion();
	test_demand_first();
	pthread_create(&probe, NULL, probe_idle, &can);
	pthread_join(probe, NULL);
	if (can) {
		test_loan();
		test_no_loan();
		test_loan_to_the_next();
		test_hurry();
	} else {
		skip(13, "RLIMIT_NICE keeps a thread from leaving the idle class");
	}
	return done();
}
