/* SPDX-License-Identifier: Apache-2.0 */
/* Lists that were read lately: which file is read again, and what is let go of. */
#include <errno.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include "common/fd.h"
#include "supervisor/hotcache.h"
#include "tests/unit/hotlist_file.h"
#include "tests/unit/tap.h"

#define IMAGE_BYTES (UINT64_C(1) << 40)
#define MOST	    16U

/* A file with so many runs, of which the first is at the page first. */
static int
make(uint32_t first, size_t nr)
{
	int fd = memfd_create("list", MFD_CLOEXEC);
	struct hotlist list;

	hotlist_init(&list);
	list.image.bytes = IMAGE_BYTES;
	for (size_t i = 0; i < nr; i++)
		if (hotlist_add(&list, first + i * 2, 1) < 0)
			abort();
	if (hotlist_to_file(&list, fd) < 0)
		abort();
	hotlist_fini(&list);
	return fd;
}

static bool
gives(struct hotcache **cache, int fd, uint32_t first)
{
	const struct hotlist *list = NULL;
	const char *why = NULL;

	return hotcache_get(cache, fd, MOST, &list, &why) == 0 && list->runs[0].first == first;
}

static void
test_known(void)
{
	struct hotcache *cache = NULL;
	int file = make(7, 3), same = make(7, 3), other = make(9, 3), longer = make(7, 4);

	ok(gives(&cache, file, 7) && gives(&cache, file, 7), "a list, and once more");
	is_int(hotcache_misses(cache), 1, "it is known then");
	ok(gives(&cache, same, 7), "another file with its bytes");
	is_int(hotcache_misses(cache), 1, "is known, too");
	ok(gives(&cache, other, 9) && gives(&cache, longer, 7),
	    "one of its size, one that is longer");
	is_int(hotcache_misses(cache), 3, "are not");
	ok(gives(&cache, file, 7) && gives(&cache, other, 9), "all of them are now");
	is_int(hotcache_misses(cache), 3, "and stay so");
	fd_closep(&file);
	fd_closep(&same);
	fd_closep(&other);
	fd_closep(&longer);
	hotcache_free(cache);
}

static void
test_full(void)
{
	struct hotcache *cache = NULL;
	int files[HOTCACHE_LISTS + 1];
	bool right = true;

	for (uint32_t i = 0; i < HOTCACHE_LISTS + 1; i++)
		files[i] = make(i, 2);
	for (uint32_t i = 0; i < HOTCACHE_LISTS + 1; i++)
		right = right && gives(&cache, files[i], i) && gives(&cache, files[1], 1);
	ok(right, "more lists than are kept");
	is_int(hotcache_misses(cache), HOTCACHE_LISTS + 1, "one was asked for in between");
	ok(gives(&cache, files[2], 2), "what was asked for lately");
	is_int(hotcache_misses(cache), HOTCACHE_LISTS + 1, "is known");
	ok(gives(&cache, files[0], 0), "what was not");
	is_int(hotcache_misses(cache), HOTCACHE_LISTS + 2, "is so no more");
	for (size_t i = 0; i < HOTCACHE_LISTS + 1; i++)
		fd_closep(&files[i]);
	hotcache_free(cache);
}

/* Four of the longest are more than is kept. */
static void
test_large(void)
{
	struct hotcache *cache = NULL;
	int files[4];

	for (uint32_t i = 0; i < 4; i++) {
		files[i] = make(i, HOTLIST_MAX_RUNS - 1);
		ok(gives(&cache, files[i], i), "a long list");
	}
	ok(gives(&cache, files[3], 3) && gives(&cache, files[2], 2), "the last ones");
	is_int(hotcache_misses(cache), 4, "are known");
	ok(gives(&cache, files[0], 0), "the first");
	is_int(hotcache_misses(cache), 5, "is so no more");
	for (size_t i = 0; i < 4; i++)
		fd_closep(&files[i]);
	hotcache_free(cache);
}

static void
test_damaged(void)
{
	struct hotcache *cache = NULL;
	const struct hotlist *list = NULL;
	const char *why = NULL;
	int file = make(7, 3);

	ok(gives(&cache, file, 7), "a list");
	if (pwrite(file, "x", 1, 60) != 1)
		abort();
	for (int i = 0; i < 2; i++)
		is_int(hotcache_get(&cache, file, MOST, &list, &why), -EINVAL, "damaged: %s", why);
	is_int(hotcache_misses(cache), 3, "what is wrong is not kept");
	if (ftruncate(file, (off_t)HOTLIST_MAX_BYTES + 1) < 0)
		abort();
	is_int(hotcache_get(&cache, file, MOST, &list, &why), -EINVAL, "too large: %s", why);
	fd_closep(&file);
	is_int(hotcache_get(&cache, -1, MOST, &list, &why), -EBADF, "no file");
	hotcache_free(cache);
	hotcache_free(NULL);
	is_int(hotcache_misses(NULL), 0, "nothing was read by none");
}

int
main(void)
{
	test_known();
	test_full();
	test_large();
	test_damaged();
	return done();
}
