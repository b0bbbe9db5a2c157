/* SPDX-License-Identifier: Apache-2.0 */
/* Hot lists: what is put in comes out, in order; what is damaged, stale or not one is refused
 * with the reason; other programs' lists; merging. */
#include "common/hotlist.h"

#include <errno.h>
#include <sys/mman.h>
#include <unistd.h>

#include "common/hotlist_foreign.h"
#include "common/scope.h"
#include "tests/unit/hotlist_file.h"
#include "tests/unit/tap.h"

#define MIB	  (UINT64_C(1) << 20)
#define IMAGE	  (64 * MIB)
#define NR_PAGES  (IMAGE / HOTLIST_PAGE_BYTES)
#define LENGTH(a) (sizeof(a) / sizeof((a)[0]))

static const struct hotlist_run some[] = {
    {100, 3}, {7, 1}, {9, 2}, {NR_PAGES - 1, 1}, {0, 1}, {101, 1}};

static void
make(struct hotlist *list, const struct hotlist_run *runs, size_t nr)
{
	hotlist_init(list);
	list->image = (struct hotlist_image){IMAGE, -5, "key"};
	for (size_t i = 0; i < nr; i++)
		if (hotlist_add(list, runs[i].first, runs[i].nr) < 0)
			abort();
}

static bool
is_runs(const struct hotlist *list, const struct hotlist_run *runs, size_t nr)
{
	return list->nr_runs == nr && memcmp(list->runs, runs, nr * sizeof(runs[0])) == 0;
}

static void
test_add(void)
{
	struct hotlist list;

	make(&list, some, LENGTH(some));
	ok(is_runs(&list, some, LENGTH(some)) && list.nr_pages == 9, "runs are kept in order");
	is_int(hotlist_add(&list, 102, 4), 0, "what continues the last run");
	ok(list.nr_runs == LENGTH(some) && list.runs[5].nr == 5, "becomes part of it");
	is_int(hotlist_add(&list, NR_PAGES, 1), -EINVAL, "a page behind the image");
	is_int(hotlist_add(&list, NR_PAGES - 1, 2), -EINVAL, "a run that leaves the image");
	is_int(hotlist_add(&list, 0, NR_PAGES), -EINVAL, "more pages than the image has");
	is_int(hotlist_add(&list, 0, 0), -EINVAL, "no page");
	hotlist_fini(&list);
	ok(list.runs == NULL && list.nr_runs == 0, "nothing is left of it");
}

static void
test_pages(void)
{
	static const uint32_t pages[] = {5, 6, 5, 9, UINT32_MAX, NR_PAGES, 7, 6, 10, 0, 8};
	static const struct hotlist_run want[] = {{5, 2}, {9, 1}, {7, 1}, {10, 1}, {0, 1}, {8, 1}};
	struct hotlist list;

	make(&list, NULL, 0);
	is_int(hotlist_add_pages(&list, pages, LENGTH(pages)), 0, "single pages");
	ok(is_runs(&list, want, LENGTH(want)), "each once, in order, none behind the image");
	hotlist_fini(&list);
}

static int
from_file(struct hotlist *ret, int fd, const char **ret_why)
{
	scoped_free unsigned char *bytes = NULL;
	size_t nr = 0;
	int r = hotlist_read(fd, &bytes, &nr, ret_why);

	return r < 0 ? r : hotlist_decode(ret, bytes, nr, ret_why);
}

static void
test_file(void)
{
	struct hotlist list, again;
	const char *why = NULL;
	scoped_fd int fd = memfd_create("list", MFD_CLOEXEC);

	make(&list, some, LENGTH(some));
	is_int(hotlist_to_file(&list, fd), 0, "written");
	is_int(from_file(&again, fd, &why), 0, "read again");
	ok(is_runs(&again, some, LENGTH(some)) && again.nr_pages == list.nr_pages,
	    "the same runs in the same order");
	ok(again.image.bytes == IMAGE && again.image.mtime_ns == -5 &&
		strcmp(again.image.key, "key") == 0,
	    "of the same image");
	hotlist_fini(&again);
	if (ftruncate(fd, (off_t)HOTLIST_MAX_BYTES + 1) < 0)
		abort();
	is_int(from_file(&again, fd, &why), -EINVAL, "a file that is too large");
	hotlist_fini(&list);
	make(&list, NULL, 0);
	if (ftruncate(fd, 0) < 0 || lseek(fd, 0, SEEK_SET) < 0)
		abort();
	is_int(from_file(&again, fd, &why), -EINVAL, "an empty file: %s", why);
	is_int(hotlist_to_file(&list, fd), 0, "a list without pages is written");
	is_int(from_file(&again, fd, &why), 0, "and read");
	hotlist_fini(&again);
	hotlist_fini(&list);
}

/* Every single byte counts, and so does every byte that is missing. */
static void
test_damage(void)
{
	struct hotlist list, again;
	unsigned char *bytes;
	const char *why;
	size_t nr, accepted = 0;

	make(&list, some, LENGTH(some));
	if (hotlist_encode(&list, &bytes, &nr) < 0)
		abort();
	for (size_t i = 0; i < nr; i++) {
		bytes[i] ^= 0x10;
		accepted += hotlist_decode(&again, bytes, nr, &why) == 0;
		bytes[i] ^= 0x10;
		accepted += hotlist_decode(&again, bytes, i, &why) == 0;
	}
	is_int(accepted, 0, "no list with a changed byte or cut short is accepted");
	is_int(hotlist_decode(&again, bytes, nr, &why), 0, "the whole one is");
	hotlist_fini(&again);
	bytes[60] ^= 1;
	is_int(hotlist_decode(&again, bytes, nr, &why), -EINVAL, "a changed byte");
	ok(strstr(why, "damaged") != NULL, "is called damage: %s", why);
	free(bytes);
	hotlist_fini(&list);
}

static void
test_stale(void)
{
	const struct hotlist_image image = {IMAGE, 1, ""}, keyed = {IMAGE, 1, "a"};
	struct hotlist_image other = image;

	ok(hotlist_stale(&image, &image) == NULL, "the image itself");
	other.mtime_ns = 2;
	ok(hotlist_stale(&image, &other) != NULL, "it was changed");
	ok(hotlist_stale(&keyed, &other) != NULL && hotlist_stale(&image, &keyed) == NULL,
	    "one key alone says nothing");
	other.key[0] = 'a';
	ok(hotlist_stale(&keyed, &other) == NULL, "a copy with the same key");
	other.key[0] = 'b';
	ok(hotlist_stale(&keyed, &other) != NULL, "another key");
	other = keyed;
	other.bytes++;
	ok(hotlist_stale(&keyed, &other) != NULL, "another size, the same key");
}

static void
test_merge(void)
{
	static const struct hotlist_run a[] = {{1, 4}, {50, 1}}, b[] = {{50, 1}, {3, 2}, {9, 1}},
					c[] = {{9, 1}, {4, 1}, {70, 1}};
	/* Mean places in two or more: 50: 2, 3: 1.5, 4: 2, 9: 1.5.  Whole numbers, then pages. */
	static const struct hotlist_run two[] = {{3, 1}, {9, 1}, {4, 1}, {50, 1}};
	static const struct hotlist_run all[] = {{4, 1}};
	struct hotlist lists[3], merged;
	const char *why = NULL;

	make(&lists[0], a, LENGTH(a));
	make(&lists[1], b, LENGTH(b));
	make(&lists[2], c, LENGTH(c));
	is_int(hotlist_merge(&merged, lists, 3, 2, &why), 0, "pages of two of three");
	ok(is_runs(&merged, two, LENGTH(two)), "by their mean place");
	hotlist_fini(&merged);
	is_int(hotlist_merge(&merged, lists, 3, 3, &why), 0, "pages of all three");
	ok(is_runs(&merged, all, LENGTH(all)), "are few");
	hotlist_fini(&merged);
	is_int(hotlist_merge(&merged, lists, 1, 1, &why), 0, "one list alone");
	ok(is_runs(&merged, a, LENGTH(a)), "stays as it is");
	hotlist_fini(&merged);
	is_int(hotlist_merge(&merged, lists, 3, 4, &why), -EINVAL, "of four of three");
	lists[2].image.bytes--;
	is_int(hotlist_merge(&merged, lists, 3, 1, &why), -EINVAL, "of different images: %s", why);
	for (size_t i = 0; i < 3; i++)
		hotlist_fini(&lists[i]);
}

/* A page that a list names twice counts once. */
static void
test_merge_repeats(void)
{
	static const struct hotlist_run twice[] = {{5, 1}, {8, 1}, {5, 1}}, other[] = {{8, 1}};
	static const struct hotlist_run want[] = {{8, 1}};
	struct hotlist lists[2], merged;
	const char *why;

	make(&lists[0], twice, LENGTH(twice));
	make(&lists[1], other, LENGTH(other));
	is_int(hotlist_merge(&merged, lists, 2, 2, &why), 0, "a list with a repeat");
	ok(is_runs(&merged, want, LENGTH(want)), "does not outvote another");
	hotlist_fini(&merged);
	hotlist_fini(&lists[0]);
	hotlist_fini(&lists[1]);
}

static void
test_coalesce(void)
{
	static const struct hotlist_run jumbled[] = {
	    {10, 1}, {50, 2}, {9, 1}, {3, 1}, {12, 2}, {52, 1}, {11, 1}, {2, 1}, {60, 30}};
	static const struct hotlist_run together[] = {{9, 5}, {50, 3}, {2, 2}, {60, 30}};
	static const struct hotlist_run by_two[] = {
	    {10, 2}, {50, 2}, {9, 1}, {2, 2}, {12, 2}, {52, 1}, {60, 30}};
	struct hotlist list;

	make(&list, jumbled, LENGTH(jumbled));
	is_int(hotlist_coalesce(&list, 16), 0, "neighbours in no order");
	ok(is_runs(&list, together, LENGTH(together)) && list.nr_pages == 40,
	    "come with the first of them");
	hotlist_fini(&list);
	make(&list, jumbled, LENGTH(jumbled));
	is_int(hotlist_coalesce(&list, 2), 0, "two at most");
	ok(is_runs(&list, by_two, LENGTH(by_two)), "larger runs stay as they are");
	hotlist_fini(&list);
	make(&list, NULL, 0);
	is_int(hotlist_coalesce(&list, 16), 0, "none");
	hotlist_fini(&list);
}

/* Whatever the order, no page is lost and none comes later. */
static void
test_coalesce_all(void)
{
	struct hotlist list;
	uint64_t at = 1, pages = 0;
	bool sorted = true;

	make(&list, NULL, 0);
	for (unsigned i = 0; i < 4096; i++) {
		at = (at * 1229 + 3) % 4096; /* each once */
		if (hotlist_add(&list, at, 1) < 0)
			abort();
	}
	is_int(hotlist_coalesce(&list, 4096), 0, "all pages of a range, in disorder");
	for (size_t i = 0; i < list.nr_runs; i++) {
		sorted = sorted && list.runs[i].nr == 4096;
		pages += list.runs[i].nr;
	}
	ok(list.nr_runs == 1 && sorted && pages == 4096, "are one run");
	hotlist_fini(&list);
}

static const struct hotlist_region regions[] = {{0, 8 * MIB}, {32 * MIB, 32 * MIB}};

static void
test_hpl1(void)
{
	/* Two pages of region 0, one of region 1: offsets 4096, 0x3000 and 0. */
	static const unsigned char good[] = {
	    'H', 'P', 'L', '1', 3, 0, 0x80, 0x20, 0, 0x80, 0x60, 1, 0};
	static const struct hotlist_run want[] = {{1, 1}, {3, 1}, {8192, 1}};
	static const unsigned char bad[][8] = {{'H', 'P', 'L', '2', 0}, {'H', 'P', 'L', '1'},
	    {'H', 'P', 'L', '1', 1, 0}, {'H', 'P', 'L', '1', 0, 9}, {'H', 'P', 'L', '1', 1, 2, 0},
	    {'H', 'P', 'L', '1', 1, 0, 5}, {'H', 'P', 'L', '1', 0x80, 0x00}};
	static const size_t lengths[] = {5, 4, 6, 6, 7, 7, 6};
	struct hotlist list;
	unsigned char *bytes;
	const char *why;
	size_t nr;

	make(&list, NULL, 0);
	is_int(hotlist_read_hpl1(&list, good, sizeof(good), regions, 2, &why), 0, "an HPL1 list");
	ok(is_runs(&list, want, LENGTH(want)), "has its pages by region");
	is_int(hotlist_write_hpl1(&list, regions, 2, &bytes, &nr, &why), 0, "written again");
	ok(nr == sizeof(good) && memcmp(bytes, good, nr) == 0, "it is the same");
	free(bytes);
	is_int(hotlist_add(&list, 4096, 1), 0, "a page between the regions");
	is_int(hotlist_write_hpl1(&list, regions, 2, &bytes, &nr, &why), -EINVAL,
	    "has no place in it: %s", why);
	for (size_t i = 0; i < LENGTH(bad); i++)
		is_int(hotlist_read_hpl1(&list, bad[i], lengths[i], regions, 2, &why), -EINVAL,
		    "bad list %zu: %s", i, why);
	is_int(hotlist_read_hpl1(&list, good, sizeof(good) - 1, regions, 2, &why), -EINVAL,
	    "one cut short");
	hotlist_fini(&list);
	make(&list, some, LENGTH(some));
	is_int(hotlist_write_hpl1(&list, &(struct hotlist_region){0, IMAGE}, 1, &bytes, &nr, &why),
	    0, "any order is sorted, a repeat left out");
	hotlist_fini(&list);
	make(&list, NULL, 0);
	is_int(hotlist_read_hpl1(&list, bytes, nr, &(struct hotlist_region){0, IMAGE}, 1, &why), 0,
	    "and can be read");
	ok(list.nr_pages == 8 && list.runs[0].first == 0, "from the lowest page on");
	free(bytes);
	hotlist_fini(&list);
}

static void
test_log(void)
{
	static const char text[] =
	    "# first touches\n\n4096\n0\r\n4096\n8\n8192\n67108864\n 40960\n";
	static const char good[] = "# first touches\n\n4096\n0\r\n4096\n8\n8192\n67108864\n40960";
	static const struct hotlist_run want[] = {{1, 1}, {0, 1}, {2, 1}, {10, 1}};
	struct hotlist list;
	uint64_t dropped = 0, line = 0;
	const char *why = NULL;
	char *written;
	size_t bytes;

	make(&list, NULL, 0);
	is_int(hotlist_read_log(&list, text, strlen(text), &dropped, &line, &why), -EINVAL,
	    "a line with a space before it: %s", why);
	is_int(line, 9, "and which it is");
	is_int(
	    hotlist_read_log(&list, good, strlen(good), &dropped, &line, &why), 0, "an access.log");
	is_int(line, 0, "no line of it is wrong");
	ok(is_runs(&list, want, LENGTH(want)), "in its order");
	is_int(dropped, 3, "without the misaligned, the repeated, the one behind the image");
	is_int(hotlist_write_log(&list, &written, &bytes), 0, "written");
	ok(bytes == strlen(written) && strcmp(written, "4096\n0\n8192\n40960\n") == 0, "as lines");
	free(written);
	is_int(hotlist_read_log(&list, "99999999999999999999999\n", 24, &dropped, &line, &why),
	    -EINVAL, "a number that no offset can be");
	hotlist_fini(&list);
}

/* A long list is looked at in parts: what is due much later is left for then, and what a
 * list has is still there. */
static void
test_coalesce_long(void)
{
	const uint32_t nr = 100000;
	struct hotlist list;
	uint64_t pages = 0;

	make(&list, NULL, 0);
	list.image.bytes = UINT64_C(1) << 32;
	for (uint32_t i = 0; i < nr; i++)
		if (hotlist_add(&list, 4 + i * 2, 1) < 0)
			abort();
	/* Between the first two, and between the last two. */
	if (hotlist_add(&list, 5, 1) < 0 || hotlist_add(&list, 4 + nr * 2 - 3, 1) < 0)
		abort();
	is_int(hotlist_coalesce(&list, 16), 0, "a hundred thousand runs");
	is_int(list.nr_runs, nr, "of which three are one");
	ok(list.runs[0].first == 4 && list.runs[0].nr == 1, "the first is not among them");
	ok(list.runs[nr - 2].first == 4 + nr * 2 - 4 && list.runs[nr - 2].nr == 3,
	    "the last two are, with what is between");
	ok(list.runs[nr - 1].first == 5 && list.runs[nr - 1].nr == 1,
	    "what is due last comes last");
	for (size_t i = 0; i < list.nr_runs; i++)
		pages += list.runs[i].nr;
	is_int((long)pages, (long)nr + 2, "no page is lost");
	hotlist_fini(&list);
}

int
main(void)
{
	test_add();
	test_pages();
	test_file();
	test_damage();
	test_stale();
	test_merge();
	test_merge_repeats();
	test_coalesce();
	test_coalesce_all();
	test_coalesce_long();
	test_hpl1();
	test_log();
	return done();
}
