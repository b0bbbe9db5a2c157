/* SPDX-License-Identifier: Apache-2.0 */
/* The states of a page: every pair of state and event against what is expected here, and
 * the compare-and-swap under two writers. */
#include "worker/page.h"

#include <pthread.h>

#include "tests/unit/tap.h"

#define NO     (-1)
#define ROUNDS 200
#define PAGES  1024U

#define A PAGE_ABSENT
#define F PAGE_FILLING
#define P PAGE_PRESENT
#define R PAGE_REMOVED

/* Written from the rules of a page's life, not from the table. */
static const int expected[4][PAGE_EV_COUNT] = {
    [A] = {[PAGE_EV_MARK] = F,
	[PAGE_EV_FILLED] = P,
	[PAGE_EV_UNMARK] = A,
	[PAGE_EV_REMOVE] = R,
	[PAGE_EV_ZEROED] = NO},
    [F] = {[PAGE_EV_MARK] = F,
	[PAGE_EV_FILLED] = P,
	[PAGE_EV_UNMARK] = A,
	[PAGE_EV_REMOVE] = R,
	[PAGE_EV_ZEROED] = NO},
    [P] = {[PAGE_EV_MARK] = NO,
	[PAGE_EV_FILLED] = P,
	[PAGE_EV_UNMARK] = P,
	[PAGE_EV_REMOVE] = R,
	[PAGE_EV_ZEROED] = P},
    [R] = {[PAGE_EV_MARK] = NO,
	[PAGE_EV_FILLED] = R,
	[PAGE_EV_UNMARK] = R,
	[PAGE_EV_REMOVE] = R,
	[PAGE_EV_ZEROED] = P},
};

static _Atomic uint8_t cells[PAGES];
static const struct pagemap map = {.pages = cells, .nr_pages = PAGES};
static pthread_barrier_t barrier;

static void
test_pair(int state, int event, uint8_t flags)
{
	int want = expected[state][event];
	uint8_t kept = flags;
	bool applied;

	/* What was written to a removed page is gone. */
	if (event == PAGE_EV_REMOVE)
		kept &= (uint8_t) ~(PAGE_F_DIRTY | PAGE_F_TAKEN);
	/* Two that fill it: see test_shared(). */
	if (state == F && event == PAGE_EV_MARK)
		kept |= PAGE_F_SHARED;
	else if (state == F && event == PAGE_EV_UNMARK && (flags & PAGE_F_SHARED) != 0)
		want = F;
	else if (want != NO)
		kept &= (uint8_t)~PAGE_F_SHARED;
	atomic_store(&cells[7], (uint8_t)state | flags);
	atomic_store(&cells[6], 0);
	atomic_store(&cells[8], 0);
	applied = page_step(&map, 7, (enum page_event)event);
	ok(page_next((enum page_state)state, (enum page_event)event) == expected[state][event] &&
		applied == (want != NO) &&
		atomic_load(&cells[7]) == ((uint8_t)(want == NO ? state : want) | kept) &&
		atomic_load(&cells[6]) == 0 && atomic_load(&cells[8]) == 0,
	    "%s, event %d, flags %#x", page_state_name((enum page_state)state), event, flags);
}

static void
test_pairs(void)
{
	for (int state = 0; state < 4; state++)
		for (int event = 0; event < PAGE_EV_COUNT; event++) {
			test_pair(state, event, 0);
			test_pair(state, event, PAGE_F_BACKGROUND);
			test_pair(state, event, 0xf8);
		}
}

static void
test_background(void)
{
	for (int state = 0; state < 4; state++) {
		int want = expected[state][PAGE_EV_FILLED];

		atomic_store(&cells[0], (uint8_t)state);
		ok(page_step_background(&map, 0) &&
			atomic_load(&cells[0]) == ((uint8_t)want | PAGE_F_BACKGROUND),
		    "%s filled in the background", page_state_name((enum page_state)state));
	}
}

static void
test_dirty(void)
{
	for (int state = 0; state < 4; state++) {
		int want = expected[state][PAGE_EV_MARK];

		atomic_store(&cells[0], (uint8_t)state);
		ok(page_step_dirty(&map, 0, PAGE_EV_MARK) == (want != NO) &&
			atomic_load(&cells[0]) ==
			    (want == NO		 ? (uint8_t)state
				    : state == F ? (F | PAGE_F_DIRTY | PAGE_F_SHARED)
						 : ((uint8_t)want | PAGE_F_DIRTY)),
		    "%s marked to be filled and written", page_state_name((enum page_state)state));
	}
	atomic_store(&cells[0], PAGE_PRESENT | PAGE_F_BACKGROUND);
	ok(page_set_flag(&map, 0, PAGE_F_DIRTY) && !page_set_flag(&map, 0, PAGE_F_DIRTY),
	    "dirty is news once");
	page_take(&map, 0);
	is_int(atomic_load(&cells[0]), PAGE_PRESENT | PAGE_F_BACKGROUND | PAGE_F_TAKEN,
	    "taken, and dirty no more");
	page_take(&map, 0);
	is_int(atomic_load(&cells[0]), PAGE_PRESENT | PAGE_F_BACKGROUND | PAGE_F_TAKEN,
	    "what is not dirty is not taken");
	page_clear_flag(&map, 0, PAGE_F_TAKEN);
	is_int(atomic_load(&cells[0]), PAGE_PRESENT | PAGE_F_BACKGROUND, "confirmed");
}

/* Nobody who fills in vain may call absent what another is filling: when that one dies after its
 * ioctl, the guest has the page and may have written to it. */
static void
test_shared(void)
{
	atomic_store(&cells[0], PAGE_ABSENT);
	page_step(&map, 0, PAGE_EV_MARK);
	page_step(&map, 0, PAGE_EV_UNMARK);
	is_int(atomic_load(&cells[0]), A, "one fills in vain: absent");
	page_step(&map, 0, PAGE_EV_MARK);
	page_step(&map, 0, PAGE_EV_MARK);
	ok(page_step(&map, 0, PAGE_EV_UNMARK), "two fill, one of them in vain");
	is_int(page_get(&map, 0), F, "still filling");
	ok(page_step(&map, 0, PAGE_EV_UNMARK), "the other too");
	is_int(page_get(&map, 0), F, "filling: the kernel knows");
	page_step(&map, 0, PAGE_EV_FILLED);
	is_int(atomic_load(&cells[0]), P, "filled: nothing of that is left");
}

static void
test_fillable(void)
{
	ok(page_is_fillable(A) && page_is_fillable(F) && !page_is_fillable(P) &&
		!page_is_fillable(R),
	    "absent and filling pages, and no others, may get the image's bytes");
}

static void *
remove_all(void *arg)
{
	(void)arg;
	for (unsigned round = 0; round < ROUNDS; round++) {
		pthread_barrier_wait(&barrier);
		for (unsigned p = 0; p < PAGES; p++)
			page_step(&map, p, PAGE_EV_REMOVE);
		pthread_barrier_wait(&barrier);
	}
	return NULL;
}

/* One thread fills in the background while another removes: whatever the order, both the
 * removal and the flag must be there in the end. */
static void
test_two_writers(void)
{
	pthread_t thread;
	unsigned lost = 0;

	pthread_barrier_init(&barrier, NULL, 2);
	pthread_create(&thread, NULL, remove_all, NULL);
	for (unsigned round = 0; round < ROUNDS; round++) {
		for (unsigned p = 0; p < PAGES; p++)
			atomic_store(&cells[p], PAGE_ABSENT);
		pthread_barrier_wait(&barrier);
		for (unsigned p = 0; p < PAGES; p++) {
			page_step(&map, p, PAGE_EV_MARK);
			page_step_background(&map, p);
		}
		pthread_barrier_wait(&barrier);
		for (unsigned p = 0; p < PAGES; p++)
			lost += atomic_load(&cells[p]) != (PAGE_REMOVED | PAGE_F_BACKGROUND);
	}
	pthread_join(thread, NULL);
	pthread_barrier_destroy(&barrier);
	is_int(lost, 0, "nothing lost between two writers of %u pages", ROUNDS * PAGES);
}

int
main(void)
{
	test_pairs();
	test_background();
	test_dirty();
	test_shared();
	test_fillable();
	test_two_writers();
	return done();
}
