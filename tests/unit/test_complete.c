/* SPDX-License-Identifier: Apache-2.0 */
/* Populating a session and taking it off its userfaultfd, alone and under fire. */
#include "worker/complete.h"

#include <errno.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/fd.h"
#include "tests/unit/tap.h"
#include "tests/unit/worker_rig.h"
#include "worker/fault.h"
#include "worker/fill.h"
#include "worker/image.h"
#include "worker/populate.h"
#include "worker/uffd.h"

#define NR_PAGES 300U /* more than one chunk, and no multiple of eight */

static struct rig rig;
static char why[256];

static unsigned char *
guest_page(uint64_t page)
{
	return rig.memory + page * RIG_PAGE;
}

/* Every page the image's, but for [first, first + nr), which is zeros. */
static bool
memory_is(uint64_t first, uint64_t nr)
{
	for (uint64_t p = 0; p < rig.nr_pages; p++) {
		bool zero = p >= first && p < first + nr;

		if (!rig_page_is(guest_page(p), zero ? 0 : rig_byte(p))) {
			printf("# page %llu begins with %d\n", (unsigned long long)p,
			    guest_page(p)[0]);
			return false;
		}
	}
	return true;
}

static void
set_up(void)
{
	rig_open(&rig, NR_PAGES);
	rig_image(&rig, rig_file(NULL, NR_PAGES), NR_PAGES * RIG_PAGE);
}

/* --- Populating -------------------------------------------------------------------- */

static void
test_populate(void)
{
	set_up();
	ok(populate_is_needed(&rig.session), "there is something to do");
	is_int(populate(&rig.session, 0, why, sizeof(why)), 0, "everything absent");
	ok(!populate_is_needed(&rig.session), "and then no more");
	ok(rig_all(&rig, 0, NR_PAGES, PAGE_PRESENT) && memory_is(0, 0), "all is there");
	is_int(rig_counter(&rig, COUNTER_PAGES_BACKGROUND), NR_PAGES, "counted as background");
	is_int(populate(&rig.session, 0, why, sizeof(why)), 0, "once more");
	is_int(rig_counter(&rig, COUNTER_IMAGE_BYTES_READ), NR_PAGES * RIG_PAGE,
	    "what is present is not read again");
	rig_close(&rig);
}

static void
test_populate_states(void)
{
	struct session *s = &rig.session;

	set_up();
	page_step(&s->map, 3, PAGE_EV_REMOVE);
	page_step(&s->map, NR_PAGES - 1, PAGE_EV_REMOVE);
	page_step(&s->map, 5, PAGE_EV_MARK); /* by a worker that died before the ioctl */
	page_step(&s->map, 6, PAGE_EV_MARK); /* by one that died after it */
	rig_put(s->uffd, guest_page(6), 0xee);
	page_step(&s->map, 7, PAGE_EV_FILLED);
	rig_put(s->uffd, guest_page(7), 0xef);
	is_int(populate(s, 0, why, sizeof(why)), 0, "pages in every state");
	ok(rig_page_is(guest_page(5), rig_byte(5)) && rig_page_is(guest_page(6), 0xee) &&
		rig_page_is(guest_page(7), 0xef),
	    "what was under way is asked for, what is there is kept");
	ok(!rig_has(guest_page(3)) && rig_state(&rig, 3) == PAGE_REMOVED &&
		!rig_has(guest_page(NR_PAGES - 1)),
	    "what was removed stays so");
	is_int(rig_counter(&rig, COUNTER_PAGES_BACKGROUND), NR_PAGES - 4, "the others are filled");
	rig_close(&rig);
}

static void
test_populate_holes(void)
{
	int fd = rig_file(NULL, 10);

	rig_open(&rig, NR_PAGES);
	rig_cut(fd, NR_PAGES * RIG_PAGE);
	rig_image(&rig, fd, NR_PAGES * RIG_PAGE);
	is_int(populate(&rig.session, 0, why, sizeof(why)), 0, "an image with a large hole");
	ok(rig_all(&rig, 0, NR_PAGES, PAGE_PRESENT) && !rig_has(guest_page(10)) &&
		!rig_has(guest_page(NR_PAGES - 1)),
	    "is settled, and the kernel has no page of it");
	ok(rig_counter(&rig, COUNTER_PAGES_ZEROED) == NR_PAGES - 10 &&
		rig_counter(&rig, COUNTER_IMAGE_BYTES_READ) == 10 * RIG_PAGE,
	    "of which the hole is not read");
	rig_serve(&rig);
	ok(memory_is(10, NR_PAGES - 10), "data and zeros");
	rig_close(&rig);
}

static void
test_populate_ends(void)
{
	struct uffdio_range range;
	int fd, keep;

	set_up();
	atomic_store(&rig.session.completion.abort, true);
	is_int(populate(&rig.session, 0, why, sizeof(why)), -ECANCELED, "aborted");
	ok(rig_all(&rig, 0, NR_PAGES, PAGE_ABSENT), "before anything was done");
	atomic_store(&rig.session.completion.abort, false);
	range.start = (uintptr_t)guest_page(100);
	range.len = RIG_PAGE;
	ok(ioctl(rig.session.uffd, UFFDIO_UNREGISTER, &range) == 0, "the VMM takes a page away");
	is_int(populate(&rig.session, 0, why, sizeof(why)), -ENOENT, "which cannot be filled");
	ok(strstr(why, "not registered") != NULL, "it says so: %s", why);
	ok(rig_all(&rig, 0, 100, PAGE_PRESENT) && rig_state(&rig, 100) == PAGE_ABSENT,
	    "all before it is there");
	rig_close(&rig);

	rig_open(&rig, NR_PAGES);
	fd = rig_file(NULL, NR_PAGES);
	keep = fd_dup(fd);
	rig_image(&rig, fd, NR_PAGES * RIG_PAGE);
	rig_cut(keep, 10 * RIG_PAGE + 5);
	is_int(populate(&rig.session, 0, why, sizeof(why)), -EIO, "an image that was cut");
	ok(strstr(why, "cannot be read") != NULL, "it says so: %s", why);
	ok(rig_state(&rig, 10) == PAGE_ABSENT && !rig_has(guest_page(10)), "no page of zeros");
	close(keep);
	rig_close(&rig);
}

/* --- Completing -------------------------------------------------------------------- */

static void
begin(void)
{
	rig.session.completion.seq = 1;
	if (session_thread_start(&rig.session, complete_main) < 0)
		ok(false, "a thread");
}

static enum ipc_completion
end(void)
{
	rig_posted(&rig, SESSION_POST_COMPLETED);
	atomic_fetch_and(&rig.session.posted, ~(unsigned)SESSION_POST_COMPLETED);
	return rig.session.completion.outcome;
}

static void
test_complete(void)
{
	struct run run;
	struct fill fill;

	set_up();
	page_step(&rig.session.map, 9, PAGE_EV_REMOVE);
	begin();
	is_int(end(), IPC_COMPLETION_DETACHED, "a session with nobody around");
	ok(memory_is(9, 1), "its memory needs no pager: the image, and zeros where removed");
	atomic_store(&rig.session.map.pages[9], PAGE_ABSENT);
	run = rig_run(&rig, 9, 1);
	is_int(fill_run(&rig.session, &run, rig.memory, FILL_FOR_FAULT, &fill), FILL_NO_RANGE,
	    "and is registered no more");
	is_int(rig.session.completion.error, 0, "no error");
	rig_close(&rig);
}

static void
test_complete_aborted(void)
{
	set_up();
	rig_serve(&rig);
	rig.session.completion.rate_bytes = 1; /* years for the first chunk */
	begin();
	rig_until(rig_counter(&rig, COUNTER_PAGES_BACKGROUND) > 0);
	session_abort(&rig.session);
	is_int(end(), IPC_COMPLETION_ABORTED, "aborted at the next chunk");
	ok(memory_is(0, 0), "still served");
	rig_close(&rig);
}

/* Who reads a removal must not be in the middle of a fill of that page, and only the fault
 * thread knows that of itself: with the image's bytes in a page that was discarded the
 * guest would read what it threw away.  Here the test is the fault thread. */
static void
test_only_reader(void)
{
	struct guest guests[2]; /* the removal that is read, and the one after it */
	struct uffd_msg msg;
	unsigned stolen = 0;

	set_up();
	is_int(populate(&rig.session, 0, why, sizeof(why)), 0, "a session that is populated");
	guest_discard(&guests[0], guest_page(0), RIG_PAGE);
	rig_wait_event(rig.session.uffd);
	begin();
	for (uint64_t p = 0; p < 30; p++) {
		for (unsigned i = 0; i < 10; i++)
			sched_yield();
		copylock_demand(&rig.session.copylock);
		if (uffd_read(rig.session.uffd, &msg, 1) == 1)
			fault_apply_removals(&rig.session, &msg, 1);
		else
			stolen++;
		/* The next one begins before the lock is free, so that it is never quiet. */
		if (p < 29) {
			guest_discard(&guests[(p + 1) % 2], guest_page(p + 1), RIG_PAGE);
			rig_wait_event(rig.session.uffd);
		}
		copylock_demand_done(&rig.session.copylock);
		guest_join(&guests[p % 2]);
	}
	is_int(stolen, 0, "a completion reads no removal while pages can be filled");
	is_int(end(), IPC_COMPLETION_DETACHED, "it completes when all is quiet");
	ok(memory_is(0, 30), "what was discarded is zeros");
	rig_close(&rig);
}

/* --- Under fire -------------------------------------------------------------------- */

static uint64_t discarded; /* pages, from the first on */

static void *
discard_all(void *arg)
{
	(void)arg;
	for (uint64_t p = 0; p < discarded; p += 3)
		if (madvise(guest_page(p), 3 * RIG_PAGE, MADV_DONTNEED) < 0)
			break;
	return NULL;
}

static void *
touch_all(void *arg)
{
	uint64_t step = (uintptr_t)arg, wrong = 0;

	for (uint64_t i = 0, p = 0; i < NR_PAGES; i++, p = (p + step) % NR_PAGES) {
		unsigned char byte = *(volatile unsigned char *)guest_page(p);

		wrong += byte != rig_byte(p) && (byte != 0 || p >= discarded);
	}
	return (void *)(uintptr_t)wrong;
}

static bool
under_fire(void)
{
	pthread_t threads[3];
	uintptr_t wrong = 0;
	bool right;

	set_up();
	discarded = 150;
	rig_serve(&rig);
	pthread_create(&threads[0], NULL, touch_all, (void *)(uintptr_t)7);
	pthread_create(&threads[1], NULL, touch_all, (void *)(uintptr_t)149);
	pthread_create(&threads[2], NULL, discard_all, NULL);
	begin();
	for (size_t i = 0; i < 3; i++) {
		wrong += (uintptr_t)rig_join(threads[i]);
	}
	right = end() == IPC_COMPLETION_DETACHED && wrong == 0 && memory_is(0, discarded);
	rig_close(&rig);
	return right;
}

static void
test_under_fire(void)
{
	unsigned right = 0;

	for (unsigned i = 0; i < 10; i++)
		right += under_fire();
	is_int(right, 10, "guests touch and discard while they are completed: no wrong byte");
}

int
main(void)
{
	test_populate();
	test_populate_states();
	test_populate_holes();
	test_populate_ends();
	test_complete();
	test_complete_aborted();
	test_only_reader();
	test_under_fire();
	return done();
}
