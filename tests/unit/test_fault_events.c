/* SPDX-License-Identifier: Apache-2.0 */
/* What removals do to the page map.  Addresses are made up: nothing is mapped there. */
#include "worker/fault.h"

#include <fcntl.h>
#include <unistd.h>

#include "tests/unit/tap.h"
#include "tests/unit/worker_rig.h"

#define HUGE  (UINT64_C(2) << 20)
#define BASE  UINT64_C(0x7f0000000000)
#define PAGES 2048U

static struct rig rig;

static void
set_up(const struct region *rows, uint32_t nr)
{
	rig_open(&rig, PAGES);
	region_table_init(&rig.session.regions, rows, nr);
}

static struct uffd_msg
removal(uint64_t start, uint64_t end)
{
	struct uffd_msg msg = {.event = UFFD_EVENT_REMOVE};

	msg.arg.remove.start = start;
	msg.arg.remove.end = end;
	return msg;
}

static size_t
apply(uint64_t start, uint64_t end)
{
	struct uffd_msg msg = removal(start, end);

	return fault_apply_removals(&rig.session, &msg, 1);
}

/* True when exactly the cells [first, first + nr) of the map say removed. */
static bool
only_removed(uint64_t first, uint64_t nr)
{
	for (uint64_t p = 0; p < PAGES; p++)
		if ((rig_state(&rig, p) == PAGE_REMOVED) != (p >= first && p < first + nr))
			return false;
	return true;
}

static void
test_pages(void)
{
	const struct region rows[] = {{BASE, 100 * RIG_PAGE, 10 * RIG_PAGE, RIG_PAGE}};

	set_up(rows, 1);
	is_int(apply(BASE + 5 * RIG_PAGE, BASE + 8 * RIG_PAGE), 0, "a removal is no fault");
	ok(only_removed(15, 3), "three pages, where the region's offset puts them");
	is_int(rig_counter(&rig, COUNTER_PAGES_REMOVED), 3, "counted");
	rig_close(&rig);
}

static void
test_parts_of_pages(void)
{
	const struct region rows[] = {{BASE, 100 * RIG_PAGE, 0, RIG_PAGE}};

	set_up(rows, 1);
	apply(BASE + 1, BASE + RIG_PAGE);
	apply(BASE + 100, BASE + 200);
	apply(BASE + RIG_PAGE - 1, BASE + RIG_PAGE + 1);
	apply(BASE + 50, BASE + 50);
	ok(only_removed(0, 0), "parts of pages are not removed");
	apply(BASE + 3 * RIG_PAGE - 1, BASE + 5 * RIG_PAGE + 1);
	ok(only_removed(3, 2), "the whole ones among them are");
	is_int(rig_counter(&rig, COUNTER_PAGES_REMOVED), 2, "counted");
	rig_close(&rig);
}

static void
test_regions(void)
{
	const struct region rows[] = {
	    {BASE, 10 * RIG_PAGE, 0, RIG_PAGE},
	    {BASE + 10 * RIG_PAGE, 10 * RIG_PAGE, 10 * RIG_PAGE, RIG_PAGE},
	    {BASE + 40 * RIG_PAGE, 10 * RIG_PAGE, 20 * RIG_PAGE, RIG_PAGE},
	};

	set_up(rows, 3);
	apply(BASE + 8 * RIG_PAGE, BASE + 42 * RIG_PAGE);
	ok(only_removed(8, 14), "a range over two borders and a gap");
	apply(BASE + 20 * RIG_PAGE, BASE + 40 * RIG_PAGE);
	ok(only_removed(8, 14), "a range in the gap");
	apply(0, BASE);
	apply(BASE + 50 * RIG_PAGE, UINT64_MAX);
	ok(only_removed(8, 14), "ranges that end where memory begins, and the other way round");
	apply(0, UINT64_MAX);
	ok(only_removed(0, 30), "the whole address space");
	rig_close(&rig);
}

/* What a dead worker left in the page map. */
static void
test_left_behind(void)
{
	const struct region rows[] = {{BASE, 100 * RIG_PAGE, 0, RIG_PAGE}};
	struct uffd_msg *events;

	set_up(rows, 1);
	events = fault_events(&rig.session);
	is_int((long long)fault_recover_removals(&rig.session), 0, "nothing is left");
	for (unsigned i = 0; i < PAGEMAP_EVENTS; i++)
		events[i] = (struct uffd_msg){.event = UFFD_EVENT_PAGEFAULT};
	events[3] = removal(BASE + 5 * RIG_PAGE, BASE + 8 * RIG_PAGE);
	events[4] = (struct uffd_msg){.event = UFFD_EVENT_FORK};
	events[4].arg.fork.ufd = (uint32_t)rig.map_fd;
	events[PAGEMAP_EVENTS - 1] = removal(BASE + 8 * RIG_PAGE, UINT64_MAX);
	is_int((long long)fault_recover_removals(&rig.session), 2, "two removals are");
	ok(only_removed(5, 95), "applied, cut to the region");
	ok(fcntl(rig.map_fd, F_GETFD) >= 0, "a descriptor named there is not closed");
	is_int((long long)fault_recover_removals(&rig.session), 0, "and forgotten");
	rig_close(&rig);
}

static void
test_huge_pages(void)
{
	const struct region rows[] = {
	    {BASE, 2 * HUGE, HUGE, HUGE},
	    {BASE + 2 * HUGE, 4 * RIG_PAGE, 0, RIG_PAGE},
	};

	set_up(rows, 2);
	apply(BASE, BASE + HUGE - RIG_PAGE);
	apply(BASE + RIG_PAGE, BASE + 2 * HUGE - RIG_PAGE);
	ok(only_removed(0, 0), "less than a huge page removes none");
	apply(BASE + RIG_PAGE, BASE + 2 * HUGE);
	ok(only_removed(HUGE / RIG_PAGE + 1, 1), "the one that lies wholly in the range");
	is_int(rig_counter(&rig, COUNTER_PAGES_REMOVED), 1, "counted once");
	apply(BASE + HUGE, BASE + 2 * HUGE + 2 * RIG_PAGE);
	ok(rig_state(&rig, HUGE / RIG_PAGE + 1) == PAGE_REMOVED &&
		rig_all(&rig, 0, 2, PAGE_REMOVED) && rig_state(&rig, 2) == PAGE_ABSENT &&
		rig_state(&rig, HUGE / RIG_PAGE) == PAGE_ABSENT,
	    "a range over huge and small pages");
	rig_close(&rig);
}

static void
test_states(void)
{
	const struct region rows[] = {{BASE, 4 * RIG_PAGE, 0, RIG_PAGE}};

	set_up(rows, 1);
	atomic_store(&rig.session.map.pages[1], PAGE_FILLING);
	atomic_store(&rig.session.map.pages[2], PAGE_PRESENT | PAGE_F_BACKGROUND);
	atomic_store(&rig.session.map.pages[3], PAGE_REMOVED);
	apply(BASE, BASE + 4 * RIG_PAGE);
	ok(only_removed(0, 4), "pages in every state are removed");
	is_int(atomic_load(&rig.session.map.pages[2]), PAGE_REMOVED | PAGE_F_BACKGROUND,
	    "the flag stays");
	rig_close(&rig);
}

static void
test_batch(void)
{
	const struct region rows[] = {{BASE, 10 * RIG_PAGE, 0, RIG_PAGE}};
	struct uffd_msg msgs[6] = {
	    {.event = UFFD_EVENT_PAGEFAULT},
	    removal(BASE, BASE + RIG_PAGE),
	    {.event = UFFD_EVENT_PAGEFAULT},
	    {.event = UFFD_EVENT_REMAP},
	    removal(BASE + RIG_PAGE, BASE + 2 * RIG_PAGE),
	    {.event = UFFD_EVENT_UNMAP},
	};
	int fork_fd = open("/dev/null", O_RDONLY | O_CLOEXEC);

	set_up(rows, 1);
	msgs[0].arg.pagefault.address = BASE;
	msgs[2].arg.pagefault.address = BASE + RIG_PAGE;
	msgs[3].arg.remap.from = BASE;
	msgs[3].arg.remap.to = BASE + 5 * RIG_PAGE;
	msgs[3].arg.remap.len = RIG_PAGE;
	msgs[5].arg.remove.start = BASE + 2 * RIG_PAGE;
	msgs[5].arg.remove.end = BASE + 3 * RIG_PAGE;
	is_int(fault_apply_removals(&rig.session, msgs, 6), 2, "two faults among six events");
	ok(only_removed(0, 3), "removals and an unmapping are applied");
	msgs[0] = (struct uffd_msg){.event = UFFD_EVENT_FORK};
	msgs[0].arg.fork.ufd = (uint32_t)fork_fd;
	is_int(fault_apply_removals(&rig.session, msgs, 1), 0, "a fork is no fault");
	ok(fcntl(fork_fd, F_GETFD) < 0, "the child's userfaultfd is closed");
	rig_close(&rig);
}

int
main(void)
{
	test_pages();
	test_parts_of_pages();
	test_regions();
	test_left_behind();
	test_huge_pages();
	test_states();
	test_batch();
	return done();
}
