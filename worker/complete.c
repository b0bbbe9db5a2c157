/* SPDX-License-Identifier: Apache-2.0 */
#include "worker/complete.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "common/clock.h"
#include "common/fault.h"
#include "worker/fault.h"
#include "worker/image.h"
#include "worker/pause.h"
#include "worker/populate.h"
#include "worker/session.h"
#include "worker/track.h"
#include "worker/uffd.h"

#define BATCH	 32U
#define QUIET_NS (20 * NS_PER_US)
/* The index waits for the file system; an abort is seen in between. */
#define INDEX_STEP_NS (20 * NS_PER_MS)
/* A removal under way ends within microseconds of its event being read.  Only a VMM that
 * discards without end, outside its regions, can make this many tries fail. */
#define QUIET_TRIES 10000U

/* The one try at the end: either the session needs no pager any more, or nothing changed. */
enum detached {
	DETACHED,
	DETACH_LATER, /* something is absent again, or a removal is under way */
	DETACH_FAILED,
};

/* A removal that began while its range was registered still posts its event, and its
 * thread sleeps until somebody reads it: the VMM's API thread would hang for ever. */
static void
drain_until_quiet(struct session *s)
{
	struct uffd_msg msgs[BATCH];
	int n;

	for (unsigned i = 0; i < QUIET_TRIES; i++) {
		while ((n = uffd_read(s->uffd, msgs, BATCH)) > 0)
			(void)fault_apply_removals(s, msgs, (size_t)n);
		if (uffd_is_quiet(s->uffd))
			return;
		pause_ns(QUIET_NS);
	}
}

static int
unregister_all(struct session *s)
{
	struct completion *c = &s->completion;

	for (uint32_t i = 0; i < s->regions.nr; i++) {
		const struct region *r = &s->regions.rows[i];
		int error = uffd_unregister(s->uffd, r->host_addr, r->size_bytes);

		if (error < 0) {
			snprintf(c->reason, sizeof(c->reason),
			    "region %u of %u could not be unregistered: %s; every page is filled "
			    "and faults are still answered",
			    i, s->regions.nr, strerror(-error));
			return error;
		}
	}
	return 0;
}

/* The copy lock is held: nobody reads a removal, or fills but the fault thread.  That one
 * may be about to copy a page that it found absent long ago.  So it alone reads removals
 * while a copy can succeed: read here, the removal of that very page would be over, and the
 * copy would bring back what the guest threw away. */
static enum detached
detach_locked(struct session *s)
{
	int r;

	if (populate_is_needed(s) || !uffd_is_quiet(s->uffd))
		return DETACH_LATER;
	(void)fault(FAULT_COMPLETE_DETACH);
	track_lose(s);
	r = unregister_all(s);
	/* The kernel wakes who waits before it locks the mapping: a thread that was about to
	 * wait then would never be woken (seen on Linux 6.18).  Nobody begins to wait now. */
	fault_wake_all(s);
	if (r < 0) {
		s->completion.error = -r;
		return DETACH_FAILED;
	}
	(void)fault(FAULT_COMPLETE_ANSWER);
	drain_until_quiet(s);
	return DETACHED;
}

static enum detached
detach(struct session *s)
{
	enum detached result;

	copylock_background(&s->copylock);
	result = detach_locked(s);
	copylock_background_done(&s->copylock);
	return result;
}

static enum ipc_completion
failed(struct session *s, int error)
{
	struct completion *c = &s->completion;

	if (error == -ECANCELED)
		return IPC_COMPLETION_ABORTED;
	if (error == -ESRCH || !uffd_is_alive(s->uffd)) {
		session_post(s, SESSION_POST_GONE);
		return IPC_COMPLETION_GONE;
	}
	c->error = -error;
	return IPC_COMPLETION_FAILED;
}

static enum ipc_completion
complete(struct session *s)
{
	struct completion *c = &s->completion;

	for (;;) {
		int r = populate(s, c->rate_bytes, c->reason, sizeof(c->reason));

		if (r < 0)
			return failed(s, r);
		if (session_is_aborted(s))
			return IPC_COMPLETION_ABORTED;
		switch (detach(s)) {
		case DETACHED:
			return IPC_COMPLETION_DETACHED;
		case DETACH_FAILED:
			return failed(s, -c->error);
		case DETACH_LATER:
			pause_ns(QUIET_NS);
			break;
		}
	}
}

void *
complete_main(void *arg)
{
	struct session *s = arg;
	struct completion *c = &s->completion;

	copylock_idle_begin(&s->copylock);
	while (!image_wait_index(s->image, INDEX_STEP_NS) && !session_is_aborted(s))
		;
	c->error = 0;
	c->reason[0] = '\0';
	c->outcome = complete(s);
	session_post(s, SESSION_POST_COMPLETED);
	copylock_idle_end(&s->copylock);
	session_thread_done(s);
	return NULL;
}
