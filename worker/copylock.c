/* SPDX-License-Identifier: Apache-2.0 */
#include "worker/copylock.h"

#include <sched.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

/* Set once by a thread that gives up its priority. */
static _Thread_local bool is_idle;

static bool may_lend = true;

static int
thread_id(void)
{
	static _Thread_local int tid;

	if (tid == 0)
		tid = (int)syscall(SYS_gettid);
	return tid;
}

/* Going from idle back to normal needs RLIMIT_NICE, which the supervisor sets if it may. */
static void
set_policy(int tid, int policy)
{
	struct sched_param param = {.sched_priority = 0};

	(void)sched_setscheduler(tid, policy, &param);
}

void
copylock_idle_priority(void)
{
	is_idle = may_lend;
	set_policy(0, is_idle ? SCHED_IDLE : SCHED_BATCH);
}

void
copylock_idle_begin(struct copylock *lock)
{
	/* First: once it is idle a thread may do nothing more for long. */
	for (size_t i = 0; i < COPYLOCK_IDLE_MAX; i++) {
		int nobody = 0;

		if (atomic_compare_exchange_strong(&lock->idle[i], &nobody, thread_id()))
			break;
	}
	if (!atomic_load(&lock->hurry))
		copylock_idle_priority();
}

void
copylock_idle_end(struct copylock *lock)
{
	for (size_t i = 0; i < COPYLOCK_IDLE_MAX; i++) {
		int self = thread_id();

		if (atomic_compare_exchange_strong(&lock->idle[i], &self, 0))
			break;
	}
}

void
copylock_hurry(struct copylock *lock)
{
	atomic_store(&lock->hurry, true);
	for (size_t i = 0; i < COPYLOCK_IDLE_MAX; i++) {
		int tid = atomic_load(&lock->idle[i]);

		if (tid != 0)
			set_policy(tid, SCHED_OTHER);
	}
}

void
copylock_calm(struct copylock *lock)
{
	atomic_store(&lock->hurry, false);
}

void
copylock_normal_priority(void)
{
	is_idle = false;
	set_policy(0, SCHED_BATCH);
}

void
copylock_find_limits(void)
{
	struct rlimit nice;

	/* The kernel's unit: 20 is nice 0. */
	may_lend = getrlimit(RLIMIT_NICE, &nice) == 0 && nice.rlim_cur >= 20;
}

void
copylock_init(struct copylock *lock)
{
	memset(lock, 0, sizeof(*lock));
	pthread_mutex_init(&lock->mutex, NULL);
}

void
copylock_fini(struct copylock *lock)
{
	pthread_mutex_destroy(&lock->mutex);
}

void
copylock_demand(struct copylock *lock)
{
	int holder;

	if (pthread_mutex_trylock(&lock->mutex) == 0)
		return;
	atomic_fetch_add(&lock->demand, 1);
	holder = atomic_load(&lock->holder);
	if (holder != 0) {
		set_policy(holder, SCHED_OTHER);
		/* After the call: if the holder let go in between, it finds this at its
		 * next release. */
		atomic_store(&lock->lent, true);
	}
	pthread_mutex_lock(&lock->mutex);
	atomic_fetch_sub(&lock->demand, 1);
}

void
copylock_demand_done(struct copylock *lock)
{
	pthread_mutex_unlock(&lock->mutex);
}

void
copylock_background(struct copylock *lock)
{
	int nobody = 0;

	/* A mutex is not fair: without this the thread that just let go would take it
	 * again before the one it woke has run. */
	while (atomic_load(&lock->demand) > 0)
		sched_yield();
	/* Known as the holder before it is: between taking the mutex and the next
	 * instruction an idle thread may have to wait for long. */
	if (is_idle)
		atomic_compare_exchange_strong(&lock->holder, &nobody, thread_id());
	pthread_mutex_lock(&lock->mutex);
	if (is_idle)
		atomic_store(&lock->holder, thread_id());
}

void
copylock_background_done(struct copylock *lock)
{
	atomic_store(&lock->holder, 0);
	pthread_mutex_unlock(&lock->mutex);
	if (is_idle && atomic_exchange(&lock->lent, false) && !atomic_load(&lock->hurry))
		set_policy(0, SCHED_IDLE);
}
