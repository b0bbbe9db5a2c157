/* SPDX-License-Identifier: Apache-2.0 */
#include "worker/cluster.h"

#include <string.h>

#include "worker/page.h"

#define Q16	    65536U
#define NEAR_WEIGHT 256U /* the average follows the last 256 faults or so */

/* Share of near faults from which the window has 2, 4, 8 and 16 pages; larger ones, where
 * the bound allows them, need what is left in even steps. */
static const uint32_t steps_q16[] = {
    Q16 * 73 / 100,
    Q16 * 73 / 100,
    Q16 * 74 / 100,
    Q16 * 74 / 100,
    Q16 * 82 / 100,
    Q16 * 86 / 100,
    Q16 * 90 / 100,
    Q16 * 93 / 100,
    Q16 * 96 / 100,
};

void
cluster_init(struct cluster *c, uint32_t min_pages, uint32_t max_pages)
{
	memset(c, 0, sizeof(*c));
	c->min_pages = min_pages;
	c->max_pages = max_pages < min_pages ? min_pages : max_pages;
	for (unsigned i = 0; i < CLUSTER_STREAMS; i++)
		c->streams[i].next = UINT64_MAX;
}

/* Eight cells at once: is one of them settled or under way, and not in the background? */
static bool
has_demanded(uint64_t word)
{
	const uint64_t ones = UINT64_C(0x0101010101010101);

	return ((word | word >> 1) & ~(word >> 2) & ones) != 0;
}

static bool
was_demanded(const struct pagemap *map, uint64_t page)
{
	uint8_t cell = atomic_load_explicit(&map->pages[page], memory_order_relaxed);

	return (cell & PAGE_STATE_MASK) != PAGE_ABSENT && !(cell & PAGE_F_BACKGROUND);
}

static bool
is_near(const struct pagemap *map, const struct run *at)
{
	uint64_t nr = region_nr_pages(at->region), base = region_map_first(at->region);
	uint64_t low = at->first & ~(uint64_t)(CLUSTER_NEAR_PAGES - 1);
	uint64_t high = low + CLUSTER_NEAR_PAGES;

	if (at->first > 0 && was_demanded(map, base + at->first - 1))
		return true;
	if (high <= nr && base % 8 == 0)
		return has_demanded(page_word(map, base + low)) ||
		    has_demanded(page_word(map, base + low + 8));
	for (uint64_t p = low; p < high && p < nr; p++) {
		if (p != at->first && was_demanded(map, base + p))
			return true;
	}
	return false;
}

_Static_assert(CLUSTER_NEAR_PAGES == 16, "two words");
_Static_assert(PAGE_F_BACKGROUND == 4 && PAGE_STATE_MASK == 3, "bits that has_demanded() shifts");

static void
note(struct cluster *c, bool near)
{
	uint32_t target = near ? Q16 : 0;

	/* Signed on purpose: the step goes both ways. */
	c->near_q16 = (uint32_t)((int32_t)c->near_q16 +
	    ((int32_t)target - (int32_t)c->near_q16) / (int32_t)NEAR_WEIGHT);
}

static uint32_t
by_locality(const struct cluster *c)
{
	uint32_t pages = 1;

	for (unsigned i = 0; i < sizeof(steps_q16) / sizeof(steps_q16[0]); i++) {
		if (c->near_q16 >= steps_q16[i])
			pages = 2U << i;
	}
	return pages;
}

static struct cluster_stream *
find_stream(struct cluster *c, uint64_t page)
{
	for (unsigned i = 0; i < CLUSTER_STREAMS; i++) {
		if (c->streams[i].next == page)
			return &c->streams[i];
	}
	return NULL;
}

static struct run
aligned_window(const struct run *at, uint64_t pages)
{
	uint64_t nr = region_nr_pages(at->region);
	struct run window = {.region = at->region, .first = at->first & ~(pages - 1)};

	window.nr = window.first + pages <= nr ? pages : nr - window.first;
	return window;
}

struct run
cluster_window(
    struct cluster *c, const struct pagemap *map, const struct run *at, bool *ret_is_stream)
{
	uint64_t page = run_map(at);
	uint64_t most = c->max_pages * PAGE_BYTES / at->region->page_bytes;
	struct cluster_stream *stream = find_stream(c, page);
	struct run window;
	uint32_t pages;

	*ret_is_stream = stream != NULL;
	if (most <= 1)
		return *at;
	note(c, is_near(map, at));
	pages = by_locality(c);
	if (stream != NULL && stream->pages * 2 > pages)
		pages = stream->pages * 2;
	if (pages < c->min_pages)
		pages = c->min_pages;
	if (pages > most)
		pages = (uint32_t)most;
	window = aligned_window(at, pages);
	if (stream == NULL) {
		stream = &c->streams[c->oldest];
		c->oldest = (c->oldest + 1) % CLUSTER_STREAMS;
	}
	stream->next = region_map_first(at->region) + window.first + window.nr;
	stream->pages = pages;
	return window;
}
