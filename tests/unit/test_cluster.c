/* SPDX-License-Identifier: Apache-2.0 */
/* The size of fault clusters against guests that touch their memory in known ways. */
#include "worker/cluster.h"

#include "common/xalloc.h"
#include "tests/unit/tap.h"
#include "worker/page.h"

#define HUGE_BYTES (UINT64_C(2) << 20)

/* A guest whose every fault is answered with its whole window. */
struct guest {
	struct cluster cluster;
	struct pagemap map;
	struct region region;
	uint64_t touched;
	uint64_t filled;
	uint64_t faults;
	uint64_t largest;  /* window, in pages */
	uint64_t smallest; /* that the end of the region did not cut */
	uint64_t streams;  /* faults that continued one */
	bool outside;	   /* a window left the region or missed the fault */
};

static uint64_t random_state;

static uint64_t
random_below(uint64_t n)
{
	random_state = random_state * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
	return (random_state >> 33) % n;
}

static void
guest_init(struct guest *g, uint64_t nr_pages, uint32_t min_pages, uint32_t max_pages)
{
	memset(g, 0, sizeof(*g));
	g->region = (struct region){0x7f0000000000, nr_pages * PAGE_BYTES, 0, PAGE_BYTES};
	g->map.pages = calloc(nr_pages, 1);
	g->map.nr_pages = nr_pages;
	g->smallest = UINT64_MAX;
	cluster_init(&g->cluster, min_pages, max_pages);
}

static void
guest_fini(struct guest *g)
{
	free((void *)g->map.pages);
}

static void
check_window(struct guest *g, const struct run *at, const struct run *window)
{
	uint64_t nr = region_nr_pages(&g->region);

	if (window->region != &g->region || window->nr == 0 || window->first > at->first ||
	    window->first + window->nr <= at->first || window->first + window->nr > nr)
		g->outside = true;
	if (window->nr > g->largest)
		g->largest = window->nr;
	if (window->nr < g->smallest && window->first + window->nr < nr)
		g->smallest = window->nr;
}

/* Returns the size of the window, 0 when the page was there. */
static uint64_t
touch(struct guest *g, uint64_t page)
{
	uint64_t base = region_map_first(&g->region);
	struct run at = {&g->region, page, 1}, window;
	bool is_stream;

	g->touched++;
	if (page_get(&g->map, base + page) != PAGE_ABSENT)
		return 0;
	g->faults++;
	window = cluster_window(&g->cluster, &g->map, &at, &is_stream);
	g->streams += is_stream;
	check_window(g, &at, &window);
	for (uint64_t p = window.first; p < window.first + window.nr; p++) {
		if (page_get(&g->map, base + p) != PAGE_ABSENT)
			continue;
		page_step(&g->map, base + p, PAGE_EV_FILLED);
		g->filled++;
	}
	return window.nr;
}

/* count distinct pages in random order. */
static void
touch_random(struct guest *g, uint64_t count)
{
	uint64_t nr = region_nr_pages(&g->region);
	uint32_t *order = xcalloc(nr, sizeof(*order));

	for (uint64_t i = 0; i < nr; i++)
		order[i] = (uint32_t)i;
	for (uint64_t i = 0; i < count; i++) {
		uint64_t j = i + random_below(nr - i);
		uint32_t page = order[j];

		order[j] = order[i];
		order[i] = page;
		touch(g, page);
	}
	free(order);
}

static void
test_sparse(uint64_t nr_pages, uint64_t seed)
{
	struct guest g;

	random_state = seed;
	guest_init(&g, nr_pages, 1, 16);
	touch_random(&g, nr_pages * 8 / 100);
	ok((double)g.filled <= 1.15 * (double)g.touched,
	    "8 %% of %llu pages at random, seed %llu: %.3f pages filled for each touched",
	    (unsigned long long)nr_pages, (unsigned long long)seed,
	    (double)g.filled / (double)g.touched);
	ok(!g.outside, "no window left the region");
	guest_fini(&g);
}

static void
test_dense(uint32_t max_pages)
{
	struct guest g;

	random_state = 5;
	guest_init(&g, 262144, 1, max_pages);
	touch_random(&g, 262144);
	is_int(g.largest, max_pages, "random but dense grows to its bound of %u", max_pages);
	ok(g.streams * 50 < g.faults, "%llu of its %llu faults pass for a stream",
	    (unsigned long long)g.streams, (unsigned long long)g.faults);
	ok(g.faults * 2 < g.touched || max_pages < 16, "it takes %llu faults for %llu pages",
	    (unsigned long long)g.faults, (unsigned long long)g.touched);
	ok(!g.outside, "no window left the region");
	guest_fini(&g);
}

static void
test_sequential(void)
{
	static const uint64_t want[] = {1, 2, 4, 8, 16, 16, 16};
	struct guest g;
	uint64_t page = 0;
	bool doubled = true;

	guest_init(&g, 4096, 1, 16);
	for (size_t i = 0; i < sizeof(want) / sizeof(want[0]); i++) {
		uint64_t window = touch(&g, page);

		doubled = doubled && window == want[i];
		while (page_get(&g.map, page) != PAGE_ABSENT)
			page++;
	}
	ok(doubled, "a sequential reader doubles its window up to the bound");
	is_int(g.streams, g.faults - 1, "all of its faults but the first continue a stream");
	guest_fini(&g);
}

/* Four readers at once are four streams; what they leave behind is no random access. */
static void
test_interleaved(void)
{
	struct guest g;

	guest_init(&g, 65536, 1, 16);
	for (uint64_t i = 0; i < 1024; i++)
		for (uint64_t reader = 0; reader < 4; reader++)
			touch(&g, reader * 16384 + i);
	ok(g.faults < 4096 / 8, "four sequential readers side by side: %llu faults for 4096 pages",
	    (unsigned long long)g.faults);
	guest_fini(&g);
}

static void
test_bounds(void)
{
	struct guest g;

	guest_init(&g, 65536, 4, 8);
	for (uint64_t i = 0; i < 1000; i++)
		touch(&g, random_below(65536));
	for (uint64_t i = 0; i < 65536; i++)
		touch(&g, i);
	ok(g.smallest == 4 && g.largest == 8, "windows of at least 4 and at most 8 pages");
	guest_fini(&g);
	guest_init(&g, 4096, 16, 4);
	touch(&g, 100);
	is_int(g.largest, 16, "a maximum below the minimum is the minimum");
	guest_fini(&g);
	guest_init(&g, 4096, 1, 1);
	for (uint64_t i = 0; i < 4096; i++)
		touch(&g, i);
	ok(g.largest == 1 && g.faults == 4096, "a bound of one page is one page always");
	guest_fini(&g);
}

/* Region sizes that are no power of two, and one that is smaller than a window. */
static void
test_edges(void)
{
	static const uint64_t sizes[] = {1, 2, 3, 10, 15, 17, 33, 1023};

	for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
		struct guest g;

		guest_init(&g, sizes[i], 16, 512);
		for (uint64_t p = sizes[i]; p-- > 0;)
			touch(&g, p);
		ok(!g.outside && g.filled == sizes[i],
		    "a region of %llu pages is filled and not left", (unsigned long long)sizes[i]);
		guest_fini(&g);
	}
}

/* A region in the middle of the image must not look at its neighbours in the map. */
static void
test_offset(void)
{
	struct guest g;

	guest_init(&g, 64, 1, 16);
	g.region.offset = 24 * PAGE_BYTES;
	g.region.size_bytes = 20 * PAGE_BYTES;
	for (uint64_t p = 0; p < 20; p++)
		touch(&g, p);
	ok(!g.outside && g.filled == 20, "a region with an offset");
	ok(page_get(&g.map, 23) == PAGE_ABSENT && page_get(&g.map, 44) == PAGE_ABSENT,
	    "its neighbours in the map are left alone");
	guest_fini(&g);
}

static void
test_far(void)
{
	struct guest g;
	uint64_t before, after = 0;

	random_state = 11;
	guest_init(&g, 1048576, 1, 16);
	/* Dense and at random in a small part of it, then lonely pages elsewhere. */
	for (unsigned i = 0; i < 20000; i++)
		touch(&g, random_below(16384));
	before = g.largest;
	for (uint64_t i = 0; i < 400; i++)
		after = touch(&g, 32768 + i * 512 + 7);
	ok(before == 16 && after == 1, "far faults bring the window from %llu pages down to %llu",
	    (unsigned long long)before, (unsigned long long)after);
	guest_fini(&g);
}

/* The bounds are bytes: a huge page is larger than a window of small ones may be. */
static void
test_huge(uint32_t max_pages)
{
	struct guest g;

	guest_init(&g, 65536, 1, max_pages);
	g.region.page_bytes = HUGE_BYTES;
	for (uint64_t p = 0; p < 128; p++)
		touch(&g, p);
	ok(!g.outside && g.largest == 1, "a bound of %u small pages is one huge page: %llu",
	    max_pages, (unsigned long long)g.largest);
	guest_fini(&g);
}

/* Discarded pages are touched memory too; what a completion filled is not. */
static void
test_background(void)
{
	struct guest g;
	unsigned single = 0;

	guest_init(&g, 65536, 1, 16);
	for (uint64_t p = 0; p < 65536; p++)
		if (p % 16 != 5)
			page_step_background(&g.map, p);
	for (uint64_t block = 0; block < 1024; block++)
		single += touch(&g, block * 16 + 5) == 1;
	is_int(single, 1024, "pages of a completion are no evidence of locality");
	guest_fini(&g);
}

int
main(void)
{
	for (uint64_t seed = 1; seed <= 5; seed++) {
		test_sparse(65536, seed);
		test_sparse(262144, seed);
	}
	test_dense(1);
	test_dense(4);
	test_dense(16);
	test_dense(64);
	test_sequential();
	test_interleaved();
	test_bounds();
	test_edges();
	test_offset();
	test_far();
	test_huge(16);
	test_huge(512);
	test_background();
	return done();
}
