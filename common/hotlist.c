/* SPDX-License-Identifier: Apache-2.0 */
#include "common/hotlist.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "common/scope.h"

#define FIRST_ROOM 64U
#define NO_PAGE	   UINT32_MAX

void
hotlist_init(struct hotlist *list)
{
	memset(list, 0, sizeof(*list));
}

void
hotlist_fini(struct hotlist *list)
{
	free(list->runs);
	hotlist_init(list);
}

static int
make_room(struct hotlist *list)
{
	size_t room = list->room == 0 ? FIRST_ROOM : list->room * 2;
	struct hotlist_run *runs;

	if (list->nr_runs < list->room)
		return 0;
	if (list->nr_runs >= HOTLIST_MAX_RUNS)
		return -E2BIG;
	runs = realloc(list->runs, room * sizeof(*runs));
	if (runs == NULL)
		return -ENOMEM;
	list->runs = runs;
	list->room = room;
	return 0;
}

int
hotlist_add(struct hotlist *list, uint64_t first, uint64_t nr)
{
	struct hotlist_run *last = list->nr_runs > 0 ? &list->runs[list->nr_runs - 1] : NULL;
	uint64_t pages = hotlist_image_pages(&list->image);
	int r;

	if (nr == 0 || nr > UINT32_MAX || pages > HOTLIST_MAX_PAGES || first >= pages ||
	    nr > pages - first || nr > pages - list->nr_pages)
		return -EINVAL;
	if (last != NULL && (uint64_t)last->first + last->nr == first &&
	    nr <= UINT32_MAX - last->nr) {
		last->nr += (uint32_t)nr;
		list->nr_pages += nr;
		return 0;
	}
	r = make_room(list);
	if (r < 0)
		return r;
	list->runs[list->nr_runs++] = (struct hotlist_run){(uint32_t)first, (uint32_t)nr};
	list->nr_pages += nr;
	return 0;
}

/* --- Single pages ---------------------------------------------------------------- */

/* Pages that were seen: open addressing, at most half full. */
struct seen {
	uint32_t *slots; /* owned; page + 1, 0: free */
	size_t mask;
};

static int
seen_init(struct seen *seen, size_t nr)
{
	size_t slots = 16;

	while (slots < nr * 2)
		slots *= 2;
	seen->mask = slots - 1;
	seen->slots = calloc(slots, sizeof(*seen->slots));
	return seen->slots == NULL ? -ENOMEM : 0;
}

/* False when it was there.  The page NO_PAGE has no place: it is always new. */
static bool
seen_add(struct seen *seen, uint32_t page)
{
	size_t at = (page * UINT64_C(0x9e3779b97f4a7c15)) >> 32;

	if (page == NO_PAGE)
		return true;
	for (at &= seen->mask; seen->slots[at] != 0; at = (at + 1) & seen->mask) {
		if (seen->slots[at] == page + 1)
			return false;
	}
	seen->slots[at] = page + 1;
	return true;
}

int
hotlist_add_pages(struct hotlist *list, const uint32_t *pages, size_t nr)
{
	uint64_t nr_image = hotlist_image_pages(&list->image);
	struct seen seen;
	int r = seen_init(&seen, nr);

	for (size_t i = 0; i < nr && r == 0; i++) {
		if (pages[i] < nr_image && seen_add(&seen, pages[i]))
			r = hotlist_add(list, pages[i], 1);
	}
	free(seen.slots);
	return r;
}

/* --- Identity --------------------------------------------------------------------- */

const char *
hotlist_stale(const struct hotlist_image *of, const struct hotlist_image *want)
{
	bool has_keys = of->key[0] != '\0' && want->key[0] != '\0';

	if (of->bytes != want->bytes)
		return "it is of an image of another size";
	if (has_keys && strcmp(of->key, want->key) != 0)
		return "it is of an image with another cache key";
	if (!has_keys && of->mtime_ns != want->mtime_ns)
		return "the image was changed since";
	return NULL;
}

/* --- Merging ---------------------------------------------------------------------- */

/* A merge takes 16 bytes for each page of each list. */
#define MAX_MERGED_PAGES (UINT64_C(32) << 20)

/* page << 32 | list << 26 | place, so that sorting brings together what belongs together. */
#define PLACE_BITS 26U
#define PLACE_MASK ((UINT64_C(1) << PLACE_BITS) - 1)

_Static_assert(HOTLIST_MAX_MERGED <= 1U << (32 - PLACE_BITS), "a list's number has its bits");
_Static_assert(MAX_MERGED_PAGES <= PLACE_MASK, "a place has its bits");

/* By the upper half of each; those that are the same there stay in their order, which is that
 * of the lower half already.  Both arrays have nr. */
static void
sort_words(uint64_t *words, uint64_t *scratch, size_t nr)
{
	uint64_t *from = words, *to = scratch;

	for (unsigned shift = 32; shift < 64; shift += 8) {
		size_t starts[257] = {0};
		uint64_t *sorted = to;

		for (size_t i = 0; i < nr; i++)
			starts[(from[i] >> shift & 0xff) + 1]++;
		/* One byte for all: mostly the upper ones. */
		if (nr == 0 || starts[(from[0] >> shift & 0xff) + 1] == nr)
			continue;
		for (unsigned i = 0; i < 256; i++)
			starts[i + 1] += starts[i];
		for (size_t i = 0; i < nr; i++)
			to[starts[from[i] >> shift & 0xff]++] = from[i];
		to = from;
		from = sorted;
	}
	if (from != words)
		memcpy(words, from, nr * sizeof(*words));
}

static size_t
collect(uint64_t *words, const struct hotlist *lists, size_t nr)
{
	size_t n = 0;

	for (uint64_t k = 0; k < nr; k++) {
		uint64_t place = 0;

		for (size_t i = 0; i < lists[k].nr_runs; i++) {
			const struct hotlist_run *run = &lists[k].runs[i];

			for (uint64_t p = run->first; p < (uint64_t)run->first + run->nr; p++)
				words[n++] = p << 32 | k << PLACE_BITS | place++;
		}
	}
	return n;
}

/* Of one page: in how many lists it is, and its mean place; moves *at behind it. */
static size_t
look_at_page(const uint64_t *words, size_t nr, size_t *at, uint64_t *ret_place)
{
	uint64_t page = words[*at] >> 32, list = UINT64_MAX, sum = 0;
	size_t n = 0;

	for (; *at < nr && words[*at] >> 32 == page; (*at)++) {
		uint64_t of = (words[*at] & UINT32_MAX) >> PLACE_BITS;

		if (of == list)
			continue;
		list = of;
		sum += words[*at] & PLACE_MASK;
		n++;
	}
	*ret_place = sum / n;
	return n;
}

/* Leaves place << 32 | page of what is common, and returns how many. */
static size_t
reduce(uint64_t *words, size_t nr, size_t least)
{
	size_t at = 0, kept = 0;

	while (at < nr) {
		uint64_t page = words[at] >> 32, place;

		if (look_at_page(words, nr, &at, &place) >= least)
			words[kept++] = place << 32 | page;
	}
	return kept;
}

static int
check_merge(const struct hotlist *lists, size_t nr, size_t least, const char **ret_why)
{
	uint64_t pages = 0;

	*ret_why = "a merge takes 1 to 64 lists, and pages common to no more than those";
	if (nr == 0 || nr > HOTLIST_MAX_MERGED || least == 0 || least > nr)
		return -EINVAL;
	for (size_t i = 0; i < nr; i++) {
		pages += lists[i].nr_pages;
		*ret_why = hotlist_stale(&lists[i].image, &lists[0].image);
		if (*ret_why != NULL)
			return -EINVAL;
	}
	return pages > MAX_MERGED_PAGES ? -E2BIG : 0;
}

int
hotlist_merge(
    struct hotlist *ret, const struct hotlist *lists, size_t nr, size_t least, const char **ret_why)
{
	uint64_t pages = 1; /* nothing to allocate would look like no memory */
	size_t n;
	int r = check_merge(lists, nr, least, ret_why);

	if (r < 0)
		return r;
	for (size_t i = 0; i < nr; i++)
		pages += lists[i].nr_pages;
	scoped_free uint64_t *words = calloc(pages, sizeof(*words));
	scoped_free uint64_t *scratch = calloc(pages, sizeof(*scratch));
	if (words == NULL || scratch == NULL)
		return -ENOMEM;
	n = collect(words, lists, nr);
	sort_words(words, scratch, n);
	n = reduce(words, n, least);
	sort_words(words, scratch, n);
	hotlist_init(ret);
	ret->image = lists[0].image;
	for (size_t i = 0; i < n && r == 0; i++)
		r = hotlist_add(ret, words[i] & UINT32_MAX, 1);
	if (r < 0)
		hotlist_fini(ret);
	return r;
}

/* --- Neighbours ------------------------------------------------------------------- */

/* So many runs are looked at together: what a cache holds.  A neighbour that is due later than
 * that comes when it is due. */
#define WINDOW_RUNS 32768U

/* Runs by their pages: where each is in that order, and which is there. */
struct by_page {
	struct hotlist_run *runs; /* of the list */
	size_t nr;
	uint64_t *words;   /* WINDOW_RUNS; first page << 32 | run, sorted */
	uint64_t *scratch; /* WINDOW_RUNS; then the place of each run */
};

static void
sort_runs(struct by_page *order)
{
	for (size_t i = 0; i < order->nr; i++)
		order->words[i] = (uint64_t)order->runs[i].first << 32 | i;
	sort_words(order->words, order->scratch, order->nr);
	for (size_t i = 0; i < order->nr; i++)
		order->scratch[order->words[i] & UINT32_MAX] = i;
}

/* The run at that place, if it was not taken (nr 0) and there are no more than left pages. */
static struct hotlist_run *
neighbour(const struct by_page *order, size_t at, uint32_t left)
{
	struct hotlist_run *run;

	if (at >= order->nr)
		return NULL;
	run = &order->runs[order->words[at] & UINT32_MAX];
	return run->nr != 0 && run->nr <= left ? run : NULL;
}

/* All that is next to the run and was not taken, with it. */
static struct hotlist_run
gather(const struct by_page *order, size_t i, uint32_t most)
{
	struct hotlist_run all = order->runs[i], *next;
	size_t low = order->scratch[i], high = low;

	order->runs[i].nr = 0;
	while (all.nr < most && (next = neighbour(order, high + 1, most - all.nr)) != NULL &&
	    next->first == (uint64_t)all.first + all.nr) {
		all.nr += next->nr;
		next->nr = 0;
		high++;
	}
	while (all.nr < most && low > 0 &&
	    (next = neighbour(order, low - 1, most - all.nr)) != NULL &&
	    (uint64_t)next->first + next->nr == all.first) {
		all.first = next->first;
		all.nr += next->nr;
		next->nr = 0;
		low--;
	}
	return all;
}

/* Leaves what it has brought together at the start of the window, and returns how many. */
static size_t
coalesce_window(struct by_page *order, uint32_t most)
{
	size_t kept = 0;

	sort_runs(order);
	for (size_t i = 0; i < order->nr; i++) {
		/* The places up to this one are needed no more. */
		if (order->runs[i].nr != 0) {
			struct hotlist_run all = gather(order, i, most);

			order->scratch[kept] = (uint64_t)all.first << 32 | all.nr;
			kept++;
		}
	}
	for (size_t i = 0; i < kept; i++)
		order->runs[i] = (struct hotlist_run){
		    (uint32_t)(order->scratch[i] >> 32), (uint32_t)order->scratch[i]};
	return kept;
}

int
hotlist_coalesce(struct hotlist *list, uint32_t most)
{
	scoped_free uint64_t *words = calloc(WINDOW_RUNS, sizeof(*words));
	scoped_free uint64_t *scratch = calloc(WINDOW_RUNS, sizeof(*scratch));
	size_t kept = 0;

	if (words == NULL || scratch == NULL)
		return -ENOMEM;
	for (size_t at = 0; at < list->nr_runs; at += WINDOW_RUNS) {
		size_t left = list->nr_runs - at;
		struct by_page order = {.runs = &list->runs[at],
		    .nr = left < WINDOW_RUNS ? left : WINDOW_RUNS,
		    .words = words,
		    .scratch = scratch};
		size_t nr = coalesce_window(&order, most);

		memmove(&list->runs[kept], order.runs, nr * sizeof(*list->runs));
		kept += nr;
	}
	list->nr_runs = kept;
	return 0;
}
