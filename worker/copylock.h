/* SPDX-License-Identifier: Apache-2.0 */
/* The copy lock of a session: whoever copies in the background holds it for one
 * bounded chunk; the fault thread holds it while it reads events and applies
 * removals, so a removal is never read while a background copy of that page is
 * under way.
 *
 * A background thread runs at idle priority and could keep the lock for as long as
 * the machine is busy, with a guest waiting behind it.  So the demand side lends it
 * a normal priority while it waits, and the background side does not take the lock
 * again while somebody of the demand side wants it. */
#ifndef WORKER_COPYLOCK_H
#define WORKER_COPYLOCK_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>

#define COPYLOCK_IDLE_MAX 4U

struct copylock {
	pthread_mutex_t mutex;
	_Atomic int demand; /* demand threads that want it */
	_Atomic int holder; /* thread id of who holds it at idle priority, or will next; 0: none */
	_Atomic bool lent;  /* the holder was raised and must go back by itself */
	_Atomic bool hurry; /* nobody goes back */
	_Atomic int idle[COPYLOCK_IDLE_MAX]; /* thread ids between begin and end; 0: none */
};

void copylock_init(struct copylock *lock);
void copylock_fini(struct copylock *lock);

void copylock_demand(struct copylock *lock);
void copylock_demand_done(struct copylock *lock);

void copylock_background(struct copylock *lock);
void copylock_background_done(struct copylock *lock);

/* Once, before the first thread and the sandbox: finds out whether this process may take a thread
 * back from idle priority (RLIMIT_NICE).  Without it background threads stay at normal priority. */
void copylock_find_limits(void);

/* Makes the calling thread one that runs only when nothing else wants the CPU.  Where nobody
 * could lend it a priority it only becomes one that never preempts. */
void copylock_idle_priority(void);

/* The same for a thread that copies behind this lock, from its first to its last moment. */
void copylock_idle_begin(struct copylock *lock);
void copylock_idle_end(struct copylock *lock);

/* They are to end, and somebody waits for it: they run at normal priority from now on, until
 * calm.  Otherwise it would be for as long as the machine is busy. */
void copylock_hurry(struct copylock *lock);
void copylock_calm(struct copylock *lock);

/* The end of that, where the thread only waits from now on.  A process that is killed is over when
 * its last thread has run once more, and its sessions wait for that: on a busy machine an idle one
 * keeps them waiting. */
void copylock_normal_priority(void);

#endif
