/* SPDX-License-Identifier: Apache-2.0 */
/* Whoever reads here must expect that the other side writes at the same time and lies:
 * every value is loaded once, atomically, then checked, then used. */
#include "common/pagemap.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/scope.h"

#define SEALS	   (F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL)
#define HUGE_BYTES UINT64_C(2097152)

#define EACH_BYTE(value) (UINT64_C(0x0101010101010101) * (value))

typedef uint64_t __attribute__((may_alias)) map_word;

static const struct {
	const char *name;
	const char *doc;
} counters[] = {
#define COUNTER(NAME, ident, doc) [COUNTER_##NAME] = {#ident, doc},
#include "common/fd.h"
#include "common/counters.def"
#undef COUNTER
};

static const char *const state_names[] = {
#define PAGE(NAME, value, doc) [PAGE_##NAME] = #NAME,
#include "common/page.def"
};

const char *
counter_name(enum counter counter)
{
	return counters[counter].name;
}

const char *
counter_doc(enum counter counter)
{
	return counters[counter].doc;
}

bool
counter_is_max(enum counter counter)
{
	return strstr(counters[counter].name, "max") != NULL;
}

const char *
page_state_name(enum page_state state)
{
	return state_names[state & PAGE_STATE_MASK];
}

int
pagemap_create(uint64_t image_bytes, int *ret_fd)
{
	uint64_t nr_pages = image_bytes / PAGE_BYTES + (image_bytes % PAGE_BYTES != 0);
	struct pagemap_header header = {
	    .magic = PAGEMAP_MAGIC,
	    .layout = PAGEMAP_LAYOUT,
	    .nr_pages = nr_pages,
	};
	const size_t head = offsetof(struct pagemap_header, regions);

	if (nr_pages == 0)
		return -EINVAL;
	if (nr_pages > PAGEMAP_MAX_PAGES)
		return -EFBIG;
	scoped_fd int fd = fd_memfd("pagemap");
	if (fd < 0)
		return fd;
	if (ftruncate(fd, (off_t)(PAGEMAP_HEADER_BYTES + nr_pages)) < 0)
		return -errno;
	ssize_t n = pwrite(fd, &header, head, 0);
	if (n != (ssize_t)head)
		return n < 0 ? -errno : -EIO;
	if (fcntl(fd, F_ADD_SEALS, SEALS) < 0)
		return -errno;
	*ret_fd = fd_take(&fd);
	return 0;
}

/* How many pages the file of a page map has room for, or 0 when it is none. */
static uint64_t
pages_of_file(int fd)
{
	struct stat st;
	int seals = fcntl(fd, F_GET_SEALS);

	if (seals < 0 || (seals & SEALS) != SEALS || fstat(fd, &st) < 0)
		return 0;
	uint64_t bytes = (uint64_t)st.st_size;
	if (bytes <= PAGEMAP_HEADER_BYTES || bytes - PAGEMAP_HEADER_BYTES > PAGEMAP_MAX_PAGES)
		return 0;
	return bytes - PAGEMAP_HEADER_BYTES;
}

int
pagemap_map(struct pagemap *map, int fd, bool writable)
{
	uint64_t nr_pages = pages_of_file(fd);

	if (nr_pages == 0)
		return -EPROTO;
	size_t bytes = (size_t)(PAGEMAP_HEADER_BYTES + nr_pages);
	int prot = writable ? PROT_READ | PROT_WRITE : PROT_READ;
	void *p = mmap(NULL, bytes, prot, MAP_SHARED, fd, 0);
	if (p == MAP_FAILED)
		return -errno;
	struct pagemap_header *header = p;
	if (__atomic_load_n(&header->magic, __ATOMIC_RELAXED) != PAGEMAP_MAGIC ||
	    __atomic_load_n(&header->layout, __ATOMIC_RELAXED) != PAGEMAP_LAYOUT ||
	    __atomic_load_n(&header->nr_pages, __ATOMIC_RELAXED) != nr_pages) {
		munmap(p, bytes);
		return -EPROTO;
	}
	map->header = header;
	map->pages = (_Atomic uint8_t *)p + PAGEMAP_HEADER_BYTES;
	map->nr_pages = nr_pages;
	map->mapped_bytes = bytes;
	return 0;
}

void
pagemap_unmap(struct pagemap *map)
{
	if (map->header)
		munmap(map->header, map->mapped_bytes);
	*map = (struct pagemap){0};
}

static uint64_t
min_u64(uint64_t a, uint64_t b)
{
	return a < b ? a : b;
}

/* One region, copied out and cut to the image and to the bytes that are left; false
 * when nothing sensible remains. */
static bool
load_region(
    const struct region *shared, uint64_t image_bytes, uint64_t left_bytes, struct region *ret)
{
	struct region r = {
	    .host_addr = __atomic_load_n(&shared->host_addr, __ATOMIC_RELAXED),
	    .size_bytes = __atomic_load_n(&shared->size_bytes, __ATOMIC_RELAXED),
	    .offset = __atomic_load_n(&shared->offset, __ATOMIC_RELAXED),
	    .page_bytes = __atomic_load_n(&shared->page_bytes, __ATOMIC_RELAXED),
	};

	if (r.page_bytes != PAGE_BYTES && r.page_bytes != HUGE_BYTES)
		return false;
	if ((r.host_addr | r.size_bytes | r.offset) & (r.page_bytes - 1))
		return false;
	if (r.host_addr > UINT64_MAX - r.size_bytes || r.offset >= image_bytes)
		return false;
	r.size_bytes = min_u64(r.size_bytes, min_u64(image_bytes - r.offset, left_bytes));
	r.size_bytes &= ~(r.page_bytes - 1);
	*ret = r;
	return r.size_bytes != 0;
}

uint32_t
pagemap_regions(const struct pagemap *map, struct region *regions)
{
	uint64_t image_bytes = map->nr_pages * PAGE_BYTES;
	uint64_t left = image_bytes; /* regions share no page, so together they fit */
	uint32_t n = 0;

	if (!map->header)
		return 0;
	uint64_t claimed = atomic_load_explicit(&map->header->nr_regions, memory_order_acquire);
	for (uint64_t i = 0; i < min_u64(claimed, PAGEMAP_MAX_REGIONS); i++) {
		struct region r;

		if (!load_region(&map->header->regions[i], image_bytes, left, &r))
			continue;
		left -= r.size_bytes;
		regions[n++] = r;
	}
	return n;
}

static uint64_t
sum_of_bytes(uint64_t word)
{
	const uint64_t even = UINT64_C(0x00ff00ff00ff00ff);

	return (((word & even) + ((word >> 8) & even)) * UINT64_C(0x0001000100010001)) >> 48;
}

/* Adds up the states of eight pages at a time: each byte of an accumulator counts one
 * column, so it must be emptied after 255 words at the latest. */
static void
count_words(const map_word *words, size_t n, uint64_t by_state[4])
{
	uint64_t low = 0, high = 0, both = 0;

	for (size_t i = 0; i < n; i++) {
		uint64_t word = __atomic_load_n(&words[i], __ATOMIC_RELAXED);
		uint64_t bit0 = word & EACH_BYTE(1);
		uint64_t bit1 = (word >> 1) & EACH_BYTE(1);

		low += bit0;
		high += bit1;
		both += bit0 & bit1;
	}
	uint64_t removed = sum_of_bytes(both);
	by_state[PAGE_REMOVED] += removed;
	by_state[PAGE_FILLING] += sum_of_bytes(low) - removed;
	by_state[PAGE_PRESENT] += sum_of_bytes(high) - removed;
	by_state[PAGE_ABSENT] += n * 8 + removed - sum_of_bytes(low) - sum_of_bytes(high);
}

/* n pages from first: whole words in the middle, what is left at the ends by byte. */
static void
count_run(const struct pagemap *map, uint64_t first, uint64_t n, uint64_t by_state[4])
{
	const _Atomic uint8_t *page = map->pages + first;

	for (; n && (uintptr_t)page % sizeof(map_word); n--, page++)
		by_state[atomic_load_explicit(page, memory_order_relaxed) & PAGE_STATE_MASK]++;
	while (n >= sizeof(map_word)) {
		size_t words = (size_t)min_u64(n / sizeof(map_word), 255);

		count_words((const map_word *)(const void *)page, words, by_state);
		page += words * sizeof(map_word);
		n -= words * sizeof(map_word);
	}
	for (; n; n--, page++)
		by_state[atomic_load_explicit(page, memory_order_relaxed) & PAGE_STATE_MASK]++;
}

bool
pagemap_count_part(
    const struct pagemap *map, uint64_t *at, uint64_t max_pages, struct pagemap_counts *ret)
{
	struct region regions[PAGEMAP_MAX_REGIONS];
	uint32_t n = pagemap_regions(map, regions);
	uint64_t by_state[4] = {0}, before = 0; /* pages of the regions before */
	bool is_whole = true;

	for (uint32_t i = 0; i < n; i++) {
		uint64_t pages = region_nr_pages(&regions[i]);
		uint64_t skip = min_u64(*at - before, pages);
		uint64_t part = min_u64(pages - skip, max_pages);

		count_run(map, region_map_first(&regions[i]) + skip, part, by_state);
		*at += part;
		max_pages -= part;
		is_whole = is_whole && skip + part == pages;
		before += pages;
		if (!is_whole)
			break;
	}
	ret->absent += by_state[PAGE_ABSENT];
	ret->filling += by_state[PAGE_FILLING];
	ret->present += by_state[PAGE_PRESENT];
	ret->removed += by_state[PAGE_REMOVED];
	return is_whole;
}

void
pagemap_count(const struct pagemap *map, struct pagemap_counts *ret)
{
	uint64_t at = 0;

	*ret = (struct pagemap_counts){0};
	pagemap_count_part(map, &at, UINT64_MAX, ret);
}

uint64_t
pagemap_counter(const struct pagemap *map, enum counter counter)
{
	uint64_t value = 0;

	for (unsigned lane = 0; map->header && lane < COUNTER_LANES; lane++) {
		uint64_t n = atomic_load_explicit(
		    &map->header->counters[lane][counter], memory_order_relaxed);

		if (!counter_is_max(counter))
			value += n;
		else if (n > value)
			value = n;
	}
	return value;
}
