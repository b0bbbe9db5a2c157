/* SPDX-License-Identifier: Apache-2.0 */
/* The fault thread and its lane for slow reads, serving threads of this process. */
#include "worker/fault.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/uio.h>
#include <unistd.h>

#include "common/fd.h"
#include "tests/unit/tap.h"
#include "tests/unit/worker_rig.h"
#include "worker/image.h"
#include "worker/iolane.h"

static struct rig rig;

static unsigned char *
guest_page(uint64_t page)
{
	return rig.memory + page * RIG_PAGE;
}

/* An image whose pages are all cold: only a thread that may wait gets at them. */
static int
set_up(uint64_t nr_pages, bool cold)
{
	int fd = rig_file(NULL, nr_pages), keep = fd_dup(fd);

	rig_open(&rig, nr_pages);
	rig_image(&rig, fd, nr_pages * RIG_PAGE);
	if (cold)
		atomic_store(&rig.session.image->kind, IMAGE_SLOW);
	return keep;
}

static void
tear_down(int keep)
{
	rig_close(&rig);
	close(keep);
}

static bool
touch_is(uint64_t page, unsigned char byte)
{
	struct guest guest;

	guest_touch(&guest, guest_page(page));
	return guest_join(&guest) == byte;
}

static void
test_serve(void)
{
	int keep = set_up(64, false);
	unsigned right = 0;

	rig_serve(&rig);
	for (uint64_t p = 0; p < 64; p++)
		right += touch_is((p * 37) % 64, rig_byte((p * 37) % 64));
	is_int(right, 64, "every page is the image's");
	/* The guest is woken before its page is counted. */
	rig_until(rig_counter(&rig, COUNTER_PAGES_DEMAND) == 64 &&
	    rig_counter(&rig, COUNTER_FAULTS_ACTIVE) == 0);
	ok(rig_counter(&rig, COUNTER_FAULTS) > 0, "and is counted");
	ok(madvise(guest_page(8), 8 * RIG_PAGE, MADV_DONTNEED) == 0, "some are discarded");
	right = 0;
	for (uint64_t p = 8; p < 16; p++)
		right += touch_is(p, 0);
	is_int(right, 8, "they are zeros");
	rig_until(rig_counter(&rig, COUNTER_PAGES_REMOVED) == 8);
	tear_down(keep);
}

/* Registered by the VMM, but never announced. */
static void
test_stray(void)
{
	struct uffdio_range range;
	struct guest guest;
	int keep = set_up(64, false);

	rig_region(&rig, 0, 32);
	rig_serve(&rig);
	guest_touch(&guest, guest_page(40));
	rig_until(rig_counter(&rig, COUNTER_STRAY_FAULTS) == 1);
	ok(touch_is(3, rig_byte(3)), "a stray fault holds up no other");
	range.start = (uintptr_t)guest_page(40);
	range.len = RIG_PAGE;
	ok(ioctl(rig.session.uffd, UFFDIO_UNREGISTER, &range) == 0, "the VMM gives it up");
	is_int(guest_join(&guest), 0, "and goes on");
	ok(rig_all(&rig, 32, 32, PAGE_ABSENT), "the map is not touched");
	tear_down(keep);
}

/* The VMM splits its mapping: what is registered on both sides of a gap is served. */
static void
test_split(void)
{
	struct uffdio_range range;
	unsigned right = 0;
	int keep = set_up(64, false);

	rig.session.cluster.min_pages = 16;
	range.start = (uintptr_t)guest_page(5);
	range.len = RIG_PAGE;
	ok(ioctl(rig.session.uffd, UFFDIO_UNREGISTER, &range) == 0, "a gap in the registration");
	rig_serve(&rig);
	for (uint64_t p = 0; p < 64; p++)
		right += touch_is(p, p == 5 ? 0 : rig_byte(p));
	is_int(right, 64, "a cluster across it is filled page by page");
	tear_down(keep);
}

/* poll() on a blocking userfaultfd says error, and read() would wait for ever. */
static void
test_blocking(void)
{
	struct uffd_msg msg;
	struct iovec iov = {.iov_base = &msg, .iov_len = sizeof(msg)};
	int keep = set_up(64, false), flags = fcntl(rig.session.uffd, F_GETFL);

	if (preadv2(rig.session.uffd, &iov, 1, -1, RWF_NOWAIT) < 0 && errno == EOPNOTSUPP) {
		skip(3, "this kernel reads a userfaultfd as its flags say");
		tear_down(keep);
		return;
	}
	rig_serve(&rig);
	ok(touch_is(1, rig_byte(1)), "a fault");
	fcntl(rig.session.uffd, F_SETFL, flags & ~O_NONBLOCK);
	ok(touch_is(2, rig_byte(2)), "a VMM that makes its userfaultfd blocking is served");
	rig_stop(&rig);
	ok(true, "and can be closed");
	tear_down(keep);
}

/* --- The lane of slow reads ---------------------------------------------------------- */

static void
test_cold(void)
{
	int keep = set_up(64, true);
	unsigned right = 0;

	rig_serve(&rig);
	for (uint64_t p = 0; p < 64; p++)
		right += touch_is(p, rig_byte(p));
	is_int(right, 64, "cold pages");
	rig_until(rig_counter(&rig, COUNTER_PAGES_DEMAND) == 64);
	rig_until(rig_counter(&rig, COUNTER_IO_FAULTS) == 64);
	is_int(atomic_load(&rig.session.map.pages[9]), PAGE_PRESENT, "are no background copies");
	tear_down(keep);
}

static void
put_back(int fd, uint64_t page)
{
	unsigned char bytes[RIG_PAGE];

	memset(bytes, rig_byte(page), sizeof(bytes));
	if (pwrite(fd, bytes, sizeof(bytes), (off_t)(page * RIG_PAGE)) != (ssize_t)sizeof(bytes))
		ok(false, "put a page back");
}

static void
test_unreadable(bool cold)
{
	struct guest guests[8];
	unsigned right = 0;
	int keep = set_up(64, cold);

	rig_cut(keep, 32 * RIG_PAGE);
	rig_serve(&rig);
	for (uint64_t i = 0; i < 8; i++)
		guest_touch(&guests[i], guest_page(40 + i));
	rig_posted(&rig, SESSION_POST_IMAGE_ALARM);
	is_int(
	    atomic_load(&rig.session.unreadable.error), EIO, "an image that cannot be read: alarm");
	for (uint64_t p = 0; p < 8; p++)
		right += touch_is(p, rig_byte(p));
	is_int(right, 8, "pages that can be read are served meanwhile");
	ok(rig_all(&rig, 40, 8, PAGE_ABSENT) && !rig_has(guest_page(40)),
	    "no zeros for the others");
	for (uint64_t p = 32; p < 64; p++)
		put_back(keep, p);
	right = 0;
	for (uint64_t i = 0; i < 8; i++)
		right += guest_join(&guests[i]) == rig_byte(40 + i);
	is_int(right, 8, "once the image is whole again, they go on with the right bytes");
	tear_down(keep);
}

static bool
add(uint64_t page)
{
	struct run run = rig_run(&rig, page, 1);

	return iolane_add(&rig.session, &run);
}

static bool
lane_is_empty(void)
{
	struct iolane *lane = &rig.session.iolane;
	bool empty;

	pthread_mutex_lock(&lane->mutex);
	empty = lane->used == 0;
	pthread_mutex_unlock(&lane->mutex);
	return empty;
}

/* The thread that has nothing to do takes one page, not two: its storage may be stuck. */
static void
test_a_thread_each(void)
{
	struct iolane *lane = &rig.session.iolane;
	const unsigned nr = IOLANE_THREADS + 1; /* pages, one more than it has threads for */
	unsigned threads[2];
	bool added = true;
	int keep = set_up(64, true);

	ok(add(0), "a page");
	rig_until(lane_is_empty());
	copylock_demand(&rig.session.copylock); /* keeps the pages from being finished */
	ok(add(1) && add(2), "then two at once");
	pthread_mutex_lock(&lane->mutex);
	threads[0] = lane->threads;
	pthread_mutex_unlock(&lane->mutex);
	for (unsigned p = 3; p <= nr; p++)
		added = add(p) && added;
	ok(added && add(nr), "and more");
	pthread_mutex_lock(&lane->mutex);
	threads[1] = lane->threads;
	is_int(lane->used, nr, "a page waits once");
	pthread_mutex_unlock(&lane->mutex);
	copylock_demand_done(&rig.session.copylock);
	is_int(threads[0], 2, "have a thread each");
	is_int(threads[1], IOLANE_THREADS, "up to the bound");
	rig_until(lane_is_empty());
	ok(rig_all(&rig, 0, nr + 1, PAGE_PRESENT), "all are filled");
	tear_down(keep);
}

/* More pages that cannot be read than the lane has room for. */
static void
test_overflow(void)
{
	int keep = set_up(2 * IOLANE_SLOTS, true);

	rig_cut(keep, 16 * RIG_PAGE);
	for (uint64_t p = 16; p < 16 + IOLANE_SLOTS; p++)
		add(p);
	rig_serve(&rig);
	ok(touch_is(5, rig_byte(5)), "a page that can be read is not locked out for ever");
	tear_down(keep);
}

static void
test_no_thread(void)
{
	size_t stack;
	struct guest guest;
	int keep = set_up(64, true);

	rig_serve(&rig);
	pthread_attr_getstacksize(&rig.pager.thread_attr, &stack);
	pthread_attr_setstacksize(&rig.pager.thread_attr, (size_t)1 << 46);
	guest_touch(&guest, guest_page(7));
	rig_posted(&rig, SESSION_POST_FILL_ALARM);
	ok(true, "no thread can be had for a slow read: alarm");
	pthread_attr_setstacksize(&rig.pager.thread_attr, stack);
	is_int(guest_join(&guest), rig_byte(7), "the fault is tried again");
	tear_down(keep);
}

int
main(void)
{
	test_serve();
	test_stray();
	test_split();
	test_blocking();
	test_cold();
	test_unreadable(true);
	test_unreadable(false);
	test_a_thread_each();
	test_overflow();
	test_no_thread();
	return done();
}
