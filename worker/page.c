/* SPDX-License-Identifier: Apache-2.0 */
#include "worker/page.h"

/* The state plus one; 0 is no row. */
/* clang-format off */
static const uint8_t rows[PAGE_STATE_MASK + 1][PAGE_EV_COUNT] = {
#define PAGE_T(state, event, next) [PAGE_##state][PAGE_EV_##event] = PAGE_##next + 1,
#include "common/page.def"
};
/* clang-format on */

int
page_next(enum page_state state, enum page_event event)
{
	return (int)rows[state][event] - 1;
}

/* Two fill a page, one of them in vain: the other's may be there and written to, and a death before
 * its mark must not leave it absent.  So then it stays filling. */
static bool
is_shared(uint8_t seen, enum page_event event)
{
	return (seen & PAGE_STATE_MASK) == PAGE_FILLING &&
	    (event == PAGE_EV_MARK || (event == PAGE_EV_UNMARK && (seen & PAGE_F_SHARED) != 0));
}

static bool
step(const struct pagemap *map, uint64_t page, enum page_event event, unsigned set)
{
	_Atomic uint8_t *cell = &map->pages[page];
	uint8_t seen = atomic_load_explicit(cell, memory_order_relaxed);
	unsigned keep = ~(PAGE_STATE_MASK | PAGE_F_SHARED);
	uint8_t row, want;

	/* What was written there is gone. */
	if (event == PAGE_EV_REMOVE)
		keep &= ~(PAGE_F_DIRTY | PAGE_F_TAKEN);
	do {
		row = rows[seen & PAGE_STATE_MASK][event];
		if (row == 0)
			return false;
		want = (uint8_t)((seen & keep) | (row - 1U) | set);
		if (is_shared(seen, event))
			want = (uint8_t)(seen | PAGE_F_SHARED | set);
		/* A VMM may discard all of its memory in a loop: let that be a read. */
		if (want == seen)
			return true;
	} while (!atomic_compare_exchange_weak(cell, &seen, want));
	return true;
}

bool
page_step(const struct pagemap *map, uint64_t page, enum page_event event)
{
	return step(map, page, event, 0);
}

bool
page_step_background(const struct pagemap *map, uint64_t page)
{
	return step(map, page, PAGE_EV_FILLED, PAGE_F_BACKGROUND);
}

bool
page_step_dirty(const struct pagemap *map, uint64_t page, enum page_event event)
{
	return step(map, page, event, PAGE_F_DIRTY);
}

bool
page_set_flag(const struct pagemap *map, uint64_t page, unsigned flag)
{
	return (atomic_fetch_or(&map->pages[page], (uint8_t)flag) & flag) == 0;
}

void
page_clear_flag(const struct pagemap *map, uint64_t page, unsigned flag)
{
	atomic_fetch_and(&map->pages[page], (uint8_t)~flag);
}

/* A removed page that is dirty may be back, and written, since a worker died before it could
 * say so: it is not called empty by the next picture. */
static uint8_t
taken(uint8_t seen)
{
	unsigned state = seen & PAGE_STATE_MASK;

	if (state == PAGE_REMOVED)
		state = PAGE_PRESENT;
	return (uint8_t)((seen & ~(PAGE_STATE_MASK | PAGE_F_DIRTY)) | state | PAGE_F_TAKEN);
}

void
page_take(const struct pagemap *map, uint64_t page)
{
	_Atomic uint8_t *cell = &map->pages[page];
	uint8_t seen = atomic_load_explicit(cell, memory_order_relaxed);

	while (
	    (seen & PAGE_F_DIRTY) != 0 && !atomic_compare_exchange_weak(cell, &seen, taken(seen)))
		;
}
