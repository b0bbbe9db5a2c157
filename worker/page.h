/* SPDX-License-Identifier: Apache-2.0 */
/* The one writer of the page map: a compare-and-swap driven by common/page.def.
 * Safe from every thread of the worker. */
#ifndef WORKER_PAGE_H
#define WORKER_PAGE_H

#include <stdbool.h>
#include <stdint.h>

#include "common/pagemap.h"

enum page_event {
#define PAGE_EVENT(EVENT, doc) \
	PAGE_EV_##EVENT        \
	,
#include "common/page.def"
	PAGE_EV_COUNT
};

static inline enum page_state
page_get(const struct pagemap *map, uint64_t page)
{
	return (enum page_state)(
	    atomic_load_explicit(&map->pages[page], memory_order_acquire) & PAGE_STATE_MASK);
}

typedef uint64_t __attribute__((may_alias)) page_word_type;

/* Eight cells at once; page is a multiple of 8 of the map. */
static inline uint64_t
page_word(const struct pagemap *map, uint64_t page)
{
	return __atomic_load_n(
	    (const page_word_type *)(const void *)&map->pages[page], __ATOMIC_RELAXED);
}

/* The image's bytes belong there, and may be on their way. */
static inline bool
page_is_fillable(enum page_state state)
{
	return state == PAGE_ABSENT || state == PAGE_FILLING;
}

/* Applies the event.  False when the table has no row for it: nothing changed. */
bool page_step(const struct pagemap *map, uint64_t page, enum page_event event);

/* As page_step() for FILLED by a completion or a prefetch: also remembers that. */
bool page_step_background(const struct pagemap *map, uint64_t page);

/* As page_step(); the same store says that the page is dirty. */
bool page_step_dirty(const struct pagemap *map, uint64_t page, enum page_event event);

/* PAGE_F_…: true when it was not set. */
bool page_set_flag(const struct pagemap *map, uint64_t page, unsigned flag);
void page_clear_flag(const struct pagemap *map, uint64_t page, unsigned flag);
/* From dirty to taken, in one store, so that a death in between loses neither. */
void page_take(const struct pagemap *map, uint64_t page);

/* The state that the table gives, or -1. */
int page_next(enum page_state state, enum page_event event);

#endif
