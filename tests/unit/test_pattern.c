/* SPDX-License-Identifier: Apache-2.0 */
/* The content of test images, the order of visits and the image writer: what every
 * other test relies on when it says that no byte was wrong. */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/scope.h"
#include "tests/unit/tap.h"
#include "tests/vmm/guest.h"
#include "tests/vmm/image.h"
#include "tests/vmm/order.h"
#include "tests/vmm/pattern.h"

#define GIB (UINT64_C(1) << 30)

static uint64_t page[PATTERN_PAGE_WORDS];

static int
compare_u64(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a;
	uint64_t y = *(const uint64_t *)b;

	return (x > y) - (x < y);
}

static void
test_kinds(void)
{
	static const struct {
		uint64_t holes;
		uint64_t zeros;
	} cases[] = {{0, 0}, {1000, 0}, {0, 1000}, {100, 200}, {990, 0}, {500, 500}};
	const uint64_t n = 1000000;
	size_t c;

	for (c = 0; c < sizeof(cases) / sizeof(cases[0]); c++) {
		struct pattern p = {.seed = 41 + c,
		    .holes_permille = cases[c].holes,
		    .zeros_permille = cases[c].zeros};
		uint64_t count[3] = {0, 0, 0};
		uint64_t i;
		int64_t holes_off;
		int64_t zeros_off;

		for (i = 0; i < n; i++)
			count[pattern_kind(&p, i)]++;
		holes_off = (int64_t)(count[PATTERN_HOLE] * 1000 / n) - (int64_t)cases[c].holes;
		zeros_off = (int64_t)(count[PATTERN_ZERO] * 1000 / n) - (int64_t)cases[c].zeros;
		ok(llabs(holes_off) <= 10, "case %zu: holes are within 10 permille", c);
		ok(llabs(zeros_off) <= 10, "case %zu: zero pages are within 10 permille", c);
		if (cases[c].holes == 0)
			ok(count[PATTERN_HOLE] == 0, "case %zu: none wanted, no hole", c);
		if (cases[c].holes + cases[c].zeros == 1000)
			ok(count[PATTERN_DATA] == 0, "case %zu: no data", c);
	}
}

/* Holes alone and holes in runs: both must occur, pagers treat them differently. */
static void
test_runs(void)
{
	struct pattern p = {.seed = 5, .holes_permille = 300};
	uint64_t single = 0;
	uint64_t whole = 0;
	uint64_t block;

	for (block = 0; block < 1000; block++) {
		uint64_t holes = 0;
		uint64_t i;

		for (i = 0; i < PATTERN_BLOCK_PAGES; i++)
			holes += pattern_kind(&p, block * PATTERN_BLOCK_PAGES + i) == PATTERN_HOLE;
		whole += holes == PATTERN_BLOCK_PAGES;
		single += holes > 0 && holes < PATTERN_BLOCK_PAGES;
	}
	ok(whole > 50, "some blocks are one hole");
	ok(single > 300, "others have pages of every kind");
}

static void
test_distinct(void)
{
	const uint64_t n = 100000;
	struct pattern p = {.seed = 9};
	struct pattern other = {.seed = 10};
	scoped_free uint64_t *words = calloc(n * 3, sizeof(uint64_t));
	uint64_t same = 0;
	uint64_t i;

	for (i = 0; i < n; i++) {
		/* Beyond 4 GiB too: page numbers and byte offsets of more than 32 bits. */
		words[3 * i] = pattern_data(&p, i * 1000003, 0).first;
		words[3 * i + 1] = pattern_data(&p, i * 1000003, 1).first;
		words[3 * i + 2] = pattern_data(&other, i * 1000003, 0).first;
	}
	qsort(words, n * 3, sizeof(uint64_t), compare_u64);
	for (i = 1; i < n * 3; i++)
		same += words[i] == words[i - 1];
	ok(same == 0, "pages, versions and seeds all differ");
	ok(words[0] != 0, "and none begins like a zero page");
}

/* A single flipped bit anywhere must be seen. */
static void
test_check(void)
{
	struct pattern p = {.seed = 77, .zeros_permille = 500};
	uint64_t missed = 0;
	uint64_t number;

	for (number = 0; number < 8; number++) {
		struct pattern_words w = pattern_image(&p, number * 1315423911);
		uint64_t bit;

		pattern_fill(w, page);
		missed += pattern_differs(w, page) != 0;
		for (bit = 0; bit < PATTERN_PAGE_WORDS * 64; bit += 7) {
			page[bit / 64] ^= UINT64_C(1) << (bit % 64);
			missed += pattern_differs(w, page) == 0;
			page[bit / 64] ^= UINT64_C(1) << (bit % 64);
		}
	}
	ok(missed == 0, "a page is equal to itself and to nothing one bit away");
}

static void
test_order(void)
{
	static const uint64_t sizes[] = {1, 2, 3, 7, 64, 1000, 4096, 100003};
	size_t s;
	uint64_t kind;

	for (s = 0; s < sizeof(sizes) / sizeof(sizes[0]); s++) {
		for (kind = ORDER_SEQ; kind <= ORDER_STRIDE; kind++) {
			struct order o = {
			    .kind = kind, .nr_pages = sizes[s], .seed = s, .stride = 10};
			scoped_free uint8_t *seen = calloc(sizes[s], 1);
			uint64_t bad = 0;
			uint64_t i;

			for (i = 0; i < sizes[s]; i++) {
				uint64_t at = order_page(&o, i);

				bad += at >= sizes[s] || seen[at]++ != 0;
			}
			ok(bad == 0, "order %d visits each of %d pages once", (int)kind,
			    (int)sizes[s]);
		}
	}
}

/* Neighbours in a random order must not be neighbours in memory, nor share low bits. */
static void
test_order_is_random(void)
{
	struct order o = {.kind = ORDER_RAND, .nr_pages = 65536, .seed = 3};
	uint64_t near = 0;
	uint64_t parity = 0;
	uint64_t i;

	for (i = 1; i < o.nr_pages; i++) {
		int64_t step = (int64_t)order_page(&o, i) - (int64_t)order_page(&o, i - 1);

		near += llabs(step) <= 16;
		parity += (step & 1) != 0;
	}
	ok(near < 200, "few steps are short");
	ok(parity > 30000 && parity < 35000, "odd and even pages are mixed");
}

static void
test_hist(void)
{
	uint64_t bad = 0;
	uint64_t last = 0;
	uint64_t c;

	for (c = 1; c < UINT64_C(1) << 62; c += c / 7 + 1) {
		uint64_t b = guest_hist_bucket(c);
		uint64_t upper;

		if (b >= GUEST_HIST_BUCKETS) {
			bad++;
			break;
		}
		upper = guest_hist_upper(b);
		bad += b < last || c > upper || upper - c > c / 16 + 1;
		last = b;
	}
	ok(bad == 0, "histogram buckets hold their cycles to 1/16");
	ok(guest_hist_bucket(UINT64_MAX) < GUEST_HIST_BUCKETS, "even the longest");
}

static uint64_t
wrong_pages(const uint8_t *image, const struct pattern *p, uint64_t first, uint64_t end)
{
	uint64_t wrong = 0;

	for (; first < end; first++)
		wrong +=
		    pattern_differs(pattern_image(p, first),
			(const uint64_t *)(const void *)(image + first * PATTERN_PAGE_BYTES)) != 0;
	return wrong;
}

static void
test_image(uint64_t size_bytes, uint64_t holes, uint64_t zeros)
{
	struct pattern p = {.seed = size_bytes, .holes_permille = holes, .zeros_permille = zeros};
	char path[] = "/tmp/test_pattern.XXXXXX";
	scoped_fd int fd = mkstemp(path);
	uint64_t pages = size_bytes / PATTERN_PAGE_BYTES;
	uint64_t data = 0;
	uint8_t *image;
	struct stat st;
	uint64_t i;

	if (!ok(fd >= 0, "a temporary file"))
		return;
	unlink(path);
	ok(image_write(fd, &p, size_bytes) == 0, "%ju MiB: written", (uintmax_t)(size_bytes >> 20));
	fstat(fd, &st);
	ok((uint64_t)st.st_size == size_bytes, "has its size");
	for (i = 0; i < pages; i++)
		data += pattern_kind(&p, i) != PATTERN_HOLE;
	/* The file system's own blocks come on top. */
	ok((uint64_t)st.st_blocks * 512 <= data * PATTERN_PAGE_BYTES + size_bytes / 64 + 65536,
	    "stores no hole: %ju KiB for %ju data pages", (uintmax_t)st.st_blocks / 2,
	    (uintmax_t)data);
	image = mmap(NULL, size_bytes, PROT_READ, MAP_SHARED, fd, 0);
	if (!ok(image != MAP_FAILED, "maps"))
		return;
	if (size_bytes <= GIB) {
		ok(wrong_pages(image, &p, 0, pages) == 0, "every page is the pattern's");
	} else {
		ok(wrong_pages(image, &p, 0, 4096) == 0, "the first pages are the pattern's");
		ok(wrong_pages(image, &p, pages - 20000, pages) == 0, "and the last");
		i = 4 * GIB / PATTERN_PAGE_BYTES;
		ok(wrong_pages(image, &p, i - 4096, i + 4096) == 0, "and around 4 GiB");
	}
	munmap(image, size_bytes);
}

int
main(void)
{
	test_kinds();
	test_runs();
	test_distinct();
	test_check();
	test_order();
	test_order_is_random();
	test_hist();
	test_image(PATTERN_PAGE_BYTES, 0, 0);
	test_image(PATTERN_PAGE_BYTES, 1000, 0);
	test_image(64 * UINT64_C(1048576), 300, 100);
	test_image(5 * GIB, 995, 0);
	return done();
}
