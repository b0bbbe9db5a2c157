/* SPDX-License-Identifier: Apache-2.0 */
/* The page map: what the seals hold, what a lying writer cannot do, and counts up to
 * guests of terabytes (in a sparse file). */
#include "common/pagemap.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/scope.h"
#include "tests/unit/tap.h"

#define ARRAY_SIZE(a) (sizeof(a) / sizeof(*(a)))
#define MIB	      (UINT64_C(1) << 20)
#define GIB	      (UINT64_C(1) << 30)
#define HUGE_BYTES    (2 * MIB)
#define SEALS	      (F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL)

/* A map as the worker has it and as the supervisor sees it. */
struct both {
	int fd;
	struct pagemap worker;
	struct pagemap supervisor;
};

static void
both_make(struct both *b, uint64_t image_bytes)
{
	*b = (struct both){.fd = -1};
	if (pagemap_create(image_bytes, &b->fd) < 0 || pagemap_map(&b->worker, b->fd, true) < 0 ||
	    pagemap_map(&b->supervisor, b->fd, false) < 0)
		abort();
}

static void
both_drop(struct both *b)
{
	pagemap_unmap(&b->worker);
	pagemap_unmap(&b->supervisor);
	fd_closep(&b->fd);
}

static void
publish(struct both *b, const struct region *regions, uint32_t n, uint32_t claimed)
{
	memcpy(b->worker.header->regions, regions, n * sizeof(*regions));
	atomic_store_explicit(&b->worker.header->nr_regions, claimed, memory_order_release);
}

static void
put(struct both *b, uint64_t page, unsigned value)
{
	atomic_store_explicit(&b->worker.pages[page], (uint8_t)value, memory_order_relaxed);
}

static void
is_counts(const struct both *b, struct pagemap_counts want, const char *what)
{
	struct pagemap_counts got;

	pagemap_count(&b->supervisor, &got);
	is_int(got.absent, want.absent, "%s: absent", what);
	is_int(got.filling, want.filling, "%s: filling", what);
	is_int(got.present, want.present, "%s: present", what);
	is_int(got.removed, want.removed, "%s: removed", what);
}

static void
test_create(void)
{
	struct both b;
	struct stat st;
	int fd = -1;

	is_int(pagemap_create(0, &fd), -EINVAL, "no image, no map");
	is_int(pagemap_create(PAGEMAP_MAX_PAGES * PAGE_BYTES + 1, &fd), -EFBIG, "16 TiB at most");
	is_int(pagemap_create(UINT64_MAX, &fd), -EFBIG, "not more than there is");
	is_int(fd, -1, "nothing is handed out on failure");

	both_make(&b, 10 * PAGE_BYTES + 1);
	is_int(b.supervisor.nr_pages, 11, "a part of a page counts as one");
	is_int(fcntl(b.fd, F_GET_SEALS) & SEALS, SEALS, "sealed");
	ok(fcntl(b.fd, F_GETFD) & FD_CLOEXEC, "closes on exec");
	is_int(ftruncate(b.fd, 0), -1, "does not shrink");
	is_int(ftruncate(b.fd, GIB), -1, "does not grow");
	ok(fstat(b.fd, &st) == 0 && st.st_size == PAGEMAP_HEADER_BYTES + 11, "keeps its size");
	is_int(pagemap_counter(&b.supervisor, COUNTER_FAULTS), 0, "counters start at 0");
	is_counts(&b, (struct pagemap_counts){0}, "before the handshake");
	put(&b, 3, PAGE_PRESENT);
	atomic_fetch_add(&b.worker.header->counters[COUNTER_LANE_FAULTS][COUNTER_FAULTS], 3);
	atomic_fetch_add(&b.worker.header->counters[COUNTER_LANE_OTHERS][COUNTER_FAULTS], 4);
	is_int(
	    pagemap_counter(&b.supervisor, COUNTER_FAULTS), 7, "both lanes of one the other sees");
	atomic_store(&b.worker.header->counters[COUNTER_LANE_FAULTS][COUNTER_FAULT_MAX_NANOS], 5);
	atomic_store(&b.worker.header->counters[COUNTER_LANE_OTHERS][COUNTER_FAULT_MAX_NANOS], 3);
	is_int(
	    pagemap_counter(&b.supervisor, COUNTER_FAULT_MAX_NANOS), 5, "the larger of two maxima");
	is_int(atomic_load(&b.supervisor.pages[3]), PAGE_PRESENT, "in the pages too");
	both_drop(&b);
	ok(!b.worker.header && b.worker.nr_pages == 0, "unmapped");
	pagemap_unmap(&b.worker);
	struct region regions[PAGEMAP_MAX_REGIONS];
	is_int(pagemap_regions(&b.worker, regions), 0, "nothing mapped has no regions");
	is_int(pagemap_counter(&b.worker, COUNTER_FAULTS), 0, "nor counters");
}

/* A file that looks like a page map but for one thing. */
static int
forge(uint64_t file_bytes, int seals, const struct pagemap_header *header)
{
	int fd = memfd_create("forged", MFD_CLOEXEC | MFD_ALLOW_SEALING);

	if (fd < 0 || ftruncate(fd, (off_t)file_bytes) < 0 ||
	    pwrite(fd, header, offsetof(struct pagemap_header, regions), 0) < 0 ||
	    fcntl(fd, F_ADD_SEALS, seals) < 0)
		abort();
	return fd;
}

static void
test_forged(void)
{
	static const struct {
		const char *what;
		uint64_t file_bytes;
		int seals;
		uint64_t magic;
		uint32_t layout;
		uint64_t nr_pages;
		int error;
	} cases[] = {
	    {"in order", PAGEMAP_HEADER_BYTES + 8, SEALS, PAGEMAP_MAGIC, PAGEMAP_LAYOUT, 8, 0},
	    {"no shrink seal", PAGEMAP_HEADER_BYTES + 8, F_SEAL_GROW | F_SEAL_SEAL, PAGEMAP_MAGIC,
		PAGEMAP_LAYOUT, 8, -EPROTO},
	    {"no grow seal", PAGEMAP_HEADER_BYTES + 8, F_SEAL_SHRINK | F_SEAL_SEAL, PAGEMAP_MAGIC,
		PAGEMAP_LAYOUT, 8, -EPROTO},
	    {"no seals", PAGEMAP_HEADER_BYTES + 8, 0, PAGEMAP_MAGIC, PAGEMAP_LAYOUT, 8, -EPROTO},
	    {"wrong magic", PAGEMAP_HEADER_BYTES + 8, SEALS, 1, PAGEMAP_LAYOUT, 8, -EPROTO},
	    {"wrong layout", PAGEMAP_HEADER_BYTES + 8, SEALS, PAGEMAP_MAGIC, 99, 8, -EPROTO},
	    {"more pages than bytes", PAGEMAP_HEADER_BYTES + 8, SEALS, PAGEMAP_MAGIC,
		PAGEMAP_LAYOUT, 9, -EPROTO},
	    {"fewer pages", PAGEMAP_HEADER_BYTES + 8, SEALS, PAGEMAP_MAGIC, PAGEMAP_LAYOUT, 7,
		-EPROTO},
	    {"2^64 pages", PAGEMAP_HEADER_BYTES + 8, SEALS, PAGEMAP_MAGIC, PAGEMAP_LAYOUT,
		UINT64_MAX, -EPROTO},
	    {"a header alone", PAGEMAP_HEADER_BYTES, SEALS, PAGEMAP_MAGIC, PAGEMAP_LAYOUT, 0,
		-EPROTO},
	    {"half a header", 64, SEALS, PAGEMAP_MAGIC, PAGEMAP_LAYOUT, 8, -EPROTO},
	    {"larger than any guest", PAGEMAP_HEADER_BYTES + PAGEMAP_MAX_PAGES + 1, SEALS,
		PAGEMAP_MAGIC, PAGEMAP_LAYOUT, PAGEMAP_MAX_PAGES + 1, -EPROTO},
	};

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		const struct pagemap_header header = {.magic = cases[i].magic,
		    .layout = cases[i].layout,
		    .nr_pages = cases[i].nr_pages};
		scoped_fd int fd = forge(cases[i].file_bytes, cases[i].seals, &header);
		struct pagemap map = {0};

		is_int(pagemap_map(&map, fd, false), cases[i].error, "%s", cases[i].what);
		ok(cases[i].error ? !map.header : map.nr_pages == 8, "%s: mapped or not",
		    cases[i].what);
		pagemap_unmap(&map);
	}
	struct pagemap map = {0};
	scoped_fd int null = open("/dev/null", O_RDWR | O_CLOEXEC);
	is_int(pagemap_map(&map, null, false), -EPROTO, "a device");
	is_int(pagemap_map(&map, -1, false), -EPROTO, "no descriptor");
}

/* What a hostile header says about an image of 64 MiB, and what is left of it. */
static void
test_hostile_regions(void)
{
	static const struct {
		const char *what;
		struct region region;
		uint64_t size_bytes; /* 0: left out */
	} cases[] = {
	    {"whole", {GIB, 64 * MIB, 0, 4096}, 64 * MIB},
	    {"one page at the end", {GIB, 4096, 64 * MIB - 4096, 4096}, 4096},
	    {"hanging over", {GIB, 4 * MIB, 62 * MIB, 4096}, 2 * MIB},
	    {"beginning after the end", {GIB, 4096, 64 * MIB, 4096}, 0},
	    {"far behind", {GIB, 4096, UINT64_MAX - 4095, 4096}, 0},
	    {"of 2^64 - 4096 bytes", {0, UINT64_MAX - 4095, 0, 4096}, 64 * MIB},
	    {"wrapping in the VMM", {UINT64_MAX - 4095, 8192, 0, 4096}, 0},
	    {"of no bytes", {GIB, 0, 0, 4096}, 0},
	    {"of half pages", {GIB, 6144, 0, 4096}, 0},
	    {"at half a page", {GIB + 2048, 8192, 0, 4096}, 0},
	    {"from half a page", {GIB, 8192, 2048, 4096}, 0},
	    {"of pages of 0", {GIB, 8192, 0, 0}, 0},
	    {"of pages of 8192", {GIB, 8192, 0, 8192}, 0},
	    {"of pages of 1 GiB", {GIB, GIB, 0, GIB}, 0},
	    {"of pages of 2^64 - 1", {GIB, 8192, 0, UINT64_MAX}, 0},
	    {"of large pages", {GIB, 64 * MIB, 0, HUGE_BYTES}, 64 * MIB},
	    {"of large pages, hanging over", {GIB, 8 * MIB, 60 * MIB, HUGE_BYTES}, 4 * MIB},
	    {"of large pages, misaligned", {GIB + MIB, 2 * MIB, 0, HUGE_BYTES}, 0},
	    {"of large pages, from between", {GIB, 2 * MIB, MIB, HUGE_BYTES}, 0},
	    {"of large pages, size between", {GIB, 3 * MIB, 0, HUGE_BYTES}, 0},
	};
	struct region got[PAGEMAP_MAX_REGIONS];
	struct pagemap_counts counts;
	struct both b;

	both_make(&b, 64 * MIB);
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		publish(&b, &cases[i].region, 1, 1);
		uint32_t n = pagemap_regions(&b.supervisor, got);

		is_int(n, cases[i].size_bytes != 0, "a region %s", cases[i].what);
		if (n == 1)
			is_int(
			    got[0].size_bytes, cases[i].size_bytes, "%s: clipped", cases[i].what);
		pagemap_count(&b.supervisor, &counts);
		is_int(
		    counts.absent, n ? region_nr_pages(&got[0]) : 0, "%s: counted", cases[i].what);
	}
	both_drop(&b);

	/* A large page that the image covers in part only. */
	both_make(&b, 3 * MIB);
	publish(&b, &(struct region){GIB, 4 * MIB, 0, HUGE_BYTES}, 1, 1);
	is_int(pagemap_regions(&b.supervisor, got), 1, "an image that ends within a large page");
	is_int(got[0].size_bytes, 2 * MIB, "counts whole ones only");
	both_drop(&b);
}

static void
test_hostile_numbers(void)
{
	struct region many[PAGEMAP_MAX_REGIONS], got[PAGEMAP_MAX_REGIONS];
	struct both b;

	both_make(&b, 64 * MIB);
	for (uint32_t i = 0; i < PAGEMAP_MAX_REGIONS; i++)
		many[i] = (struct region){GIB + i * MIB, MIB / 4, i * (MIB / 4), 4096};
	publish(&b, many, PAGEMAP_MAX_REGIONS, UINT32_MAX);
	is_int(
	    pagemap_regions(&b.supervisor, got), PAGEMAP_MAX_REGIONS, "2^32 - 1 regions are 256");
	ok(memcmp(got, many, sizeof(many)) == 0, "as they are");

	for (uint32_t i = 0; i < PAGEMAP_MAX_REGIONS; i++)
		many[i] = (struct region){GIB, 64 * MIB, 0, 4096};
	publish(&b, many, PAGEMAP_MAX_REGIONS, PAGEMAP_MAX_REGIONS);
	is_int(pagemap_regions(&b.supervisor, got), 1, "the same region 256 times is counted once");
	is_counts(&b, (struct pagemap_counts){.absent = 16384}, "and costs one pass");

	b.worker.header->magic = 0;
	b.worker.header->nr_pages = UINT64_MAX;
	is_counts(&b, (struct pagemap_counts){.absent = 16384}, "a header changed under us");
	for (uint64_t page = 0; page < 16384; page++)
		put(&b, page, 0xff);
	is_counts(&b, (struct pagemap_counts){.removed = 16384}, "bits that mean nothing");
	both_drop(&b);
}

/* Every alignment of first and last page against the words that the pass reads. */
static void
test_count_edges(void)
{
	struct both b;
	unsigned wrong = 0;

	both_make(&b, 1024 * PAGE_BYTES);
	for (uint64_t page = 0; page < 1024; page++)
		put(&b, page,
		    (unsigned)(page * 7 + page / 5) & (PAGE_STATE_MASK | PAGE_F_BACKGROUND));
	for (uint64_t first = 0; first < 24; first++)
		for (uint64_t n = 1; n < 40; n++) {
			struct pagemap_counts got, want = {0};
			uint64_t *by_state[] = {
			    &want.absent, &want.filling, &want.present, &want.removed};

			for (uint64_t page = first; page < first + n; page++)
				++*by_state[atomic_load(&b.worker.pages[page]) & PAGE_STATE_MASK];
			publish(&b, &(struct region){GIB, n * 4096, first * 4096, 4096}, 1, 1);
			pagemap_count(&b.supervisor, &got);
			wrong += memcmp(&got, &want, sizeof(got)) != 0;
		}
	is_int(wrong, 0, "counts at every alignment");
	both_drop(&b);
}

/* In parts of every size the same comes out, and none is larger than was asked for. */
static void
test_count_parts(void)
{
	static const struct region three[] = {
	    {GIB, 37 * 4096, 5 * 4096, 4096}, {2 * GIB, 4096, 0, 4096}, {3 * GIB, MIB, MIB, 4096}};
	struct pagemap_counts whole;
	struct both b;
	unsigned wrong = 0;

	both_make(&b, 2 * MIB);
	for (uint64_t page = 0; page < 512; page++)
		put(&b, page, (unsigned)(page * 7 + page / 5) & PAGE_STATE_MASK);
	publish(&b, three, 3, 3);
	pagemap_count(&b.supervisor, &whole);
	for (uint64_t part = 1; part < 300; part++) {
		struct pagemap_counts got = {0};
		uint64_t at = 0, before, parts = 0;
		bool is_whole;

		do {
			before = at;
			is_whole = pagemap_count_part(&b.supervisor, &at, part, &got);
			wrong += at - before > part || (!is_whole && at - before != part);
			parts++;
		} while (!is_whole);
		wrong += memcmp(&got, &whole, sizeof(got)) != 0 || at != 37 + 1 + 256;
		wrong += parts != (at + part - 1) / part;
	}
	is_int(wrong, 0, "counts in parts");
	both_drop(&b);
}

static void
test_count_states(void)
{
	struct both b;
	/* Two regions around a gap in the image that belongs to neither. */
	const struct region two[] = {{GIB, 3 * MIB, 0, 4096}, {5 * GIB, 2 * MIB, 4 * MIB, 4096}};

	both_make(&b, 6 * MIB);
	publish(&b, two, 2, 2);
	is_counts(&b, (struct pagemap_counts){.absent = 1280}, "two regions");
	for (int state = 0; state < 4; state++) {
		struct pagemap_counts want = {0};
		uint64_t *by_state[] = {&want.absent, &want.filling, &want.present, &want.removed};

		for (uint64_t page = 0; page < 1536; page++)
			put(&b, page, (unsigned)state | PAGE_F_BACKGROUND);
		*by_state[state] = 1280;
		is_counts(&b, want, page_state_name((enum page_state)state));
	}
	both_drop(&b);

	/* 256 words overflow a byte of an accumulator that is not emptied. */
	both_make(&b, 8 * MIB);
	publish(&b, &(struct region){GIB, 4 * MIB, 0, HUGE_BYTES}, 1, 1);
	for (uint64_t page = 0; page < 2048; page++)
		put(&b, page, PAGE_PRESENT);
	put(&b, 1, PAGE_REMOVED);
	is_counts(&b, (struct pagemap_counts){.present = 1, .removed = 1},
	    "two large pages have two bytes");
	publish(&b, &(struct region){GIB, 8 * MIB, 0, 4096}, 1, 1);
	is_counts(&b, (struct pagemap_counts){.present = 2047, .removed = 1}, "8 MiB");
	both_drop(&b);
}

/* Where 31, 32 and 33 bits end. */
static void
test_sizes(void)
{
	static const uint64_t sizes[] = {4096, 2 * GIB - 4096, 2 * GIB, 2 * GIB + 4096,
	    4 * GIB - 4096, 4 * GIB, 4 * GIB + 4096, 9 * GIB};
	struct both b;

	for (size_t i = 0; i < ARRAY_SIZE(sizes); i++) {
		uint64_t pages = sizes[i] / 4096;
		char name[64];

		snprintf(name, sizeof(name), "%ju bytes", (uintmax_t)sizes[i]);
		both_make(&b, sizes[i]);
		publish(&b, &(struct region){GIB, sizes[i], 0, 4096}, 1, 1);
		put(&b, 0, PAGE_PRESENT);
		put(&b, pages - 1, PAGE_REMOVED);
		is_counts(&b,
		    (struct pagemap_counts){
			.absent = pages > 1 ? pages - 2 : 0, .present = pages > 1, .removed = 1},
		    name);
		both_drop(&b);
	}

	/* 16 TiB: the map alone is 4 GiB, sparse; only its end is looked at. */
	uint64_t most = PAGEMAP_MAX_PAGES * PAGE_BYTES;
	both_make(&b, most);
	is_int(b.supervisor.nr_pages, PAGEMAP_MAX_PAGES, "16 TiB");
	publish(&b, &(struct region){0, 8 * MIB, most - 8 * MIB, 4096}, 1, 1);
	put(&b, PAGEMAP_MAX_PAGES - 1, PAGE_PRESENT);
	is_counts(&b, (struct pagemap_counts){.absent = 2047, .present = 1}, "its end");
	both_drop(&b);
}

static void
test_names(void)
{
	is_str(counter_name(COUNTER_FAULTS), "faults", "a counter's name");
	ok(counter_doc(COUNTER_FAULTS)[0] != '\0', "and meaning");
	ok(!counter_is_max(COUNTER_FAULTS), "a sum");
	ok(counter_is_max(COUNTER_FAULT_MAX_NANOS), "a maximum");
	ok(counter_is_max(COUNTER_FAULTS_ACTIVE_MAX), "another");
	for (int i = 0; i < COUNTER_COUNT; i++)
		for (int k = 0; k < i; k++)
			if (strcmp(counter_name((enum counter)i), counter_name((enum counter)k)) ==
			    0)
				ok(false, "two counters are called %s",
				    counter_name((enum counter)i));
	is_str(page_state_name(PAGE_FILLING), "FILLING", "a state's name");
	is_str(page_state_name((enum page_state)0xff), "REMOVED", "no state beyond the four");
}

int
main(void)
{
	test_create();
	test_forged();
	test_hostile_regions();
	test_hostile_numbers();
	test_count_edges();
	test_count_parts();
	test_count_states();
	test_sizes();
	test_names();
	return done();
}
