/* SPDX-License-Identifier: Apache-2.0 */
/* Images: what is a hole, what is in memory, and that a file which became shorter is an
 * error and never zeros. */
#include "worker/image.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/vfs.h>
#include <unistd.h>

#include <linux/magic.h>

#include "common/clock.h"
#include "common/fd.h"
#include "tests/unit/tap.h"
#include "tests/unit/worker_rig.h"
#include "worker/pager.h"

#define DISK "/var/tmp" /* a real file system, where /tmp may be none */

static struct pager pager;
static unsigned char buf[64 * RIG_PAGE];

static struct image *
open_image(int fd, uint64_t bytes)
{
	struct image *image = NULL;

	if (image_get(&pager, fd, bytes, NULL, &image) < 0) {
		ok(false, "an image");
		exit(done());
	}
	return image;
}

static struct image *
open_indexed(int fd, uint64_t bytes)
{
	struct image *image = open_image(fd, bytes);

	ok(image_wait_index(image, 30 * NS_PER_S), "its holes are looked for");
	return image;
}

/* A hole of exactly nr pages at page, looked at from there with max pages ahead. */
static bool
hole_is(const struct image *image, uint64_t page, uint64_t max, uint64_t nr)
{
	uint64_t n = 0;

	return image_is_hole(image, page * RIG_PAGE, max * RIG_PAGE, &n) && n == nr * RIG_PAGE;
}

static bool
data_is(const struct image *image, uint64_t page, uint64_t max, uint64_t nr)
{
	uint64_t n = 0;

	return !image_is_hole(image, page * RIG_PAGE, max * RIG_PAGE, &n) && n == nr * RIG_PAGE;
}

static void
put_page(int fd, uint64_t page)
{
	unsigned char bytes[RIG_PAGE];

	memset(bytes, rig_byte(page), sizeof(bytes));
	if (pwrite(fd, bytes, sizeof(bytes), (off_t)(page * RIG_PAGE)) != (ssize_t)sizeof(bytes))
		ok(false, "write page %llu: %s", (unsigned long long)page, strerror(errno));
}

/* Data, hole, data, hole; a block of the file system is a page here and on tmpfs. */
static void
test_holes(const char *directory, const char *name)
{
	int fd = rig_file(directory, 4);
	struct image *image;

	put_page(fd, 10);
	put_page(fd, 11);
	rig_cut(fd, 20 * RIG_PAGE);
	image = open_indexed(fd, 20 * RIG_PAGE);
	ok(data_is(image, 0, 64, 4) && data_is(image, 3, 1, 1), "%s: data at the front", name);
	ok(hole_is(image, 4, 64, 6) && hole_is(image, 9, 64, 1) && hole_is(image, 5, 2, 2),
	    "%s: a hole in the middle, one piece of six pages", name);
	ok(data_is(image, 10, 64, 2), "%s: data behind it", name);
	ok(hole_is(image, 12, 64, 8) && hole_is(image, 19, 64, 1), "%s: a hole at the end", name);
	image_put(image);
}

static void
test_all_hole(void)
{
	int fd = rig_file(NULL, 0);
	struct image *image;

	rig_cut(fd, 5 * RIG_PAGE + 100);
	image = open_indexed(fd, 5 * RIG_PAGE + 100);
	ok(hole_is(image, 0, 64, 6), "a file that is all hole, with the rest of its last page");
	image_put(image);
}

static void
test_no_hole(void)
{
	struct image *image = open_indexed(rig_file(NULL, 8), 8 * RIG_PAGE);

	ok(data_is(image, 0, 8, 8) && data_is(image, 7, 1, 1), "a file without a hole");
	image_put(image);
}

/* The end of a file that is not whole pages: zeros from there to the end of the page. */
static void
test_tail(const char *directory, const char *name)
{
	int fd = rig_file(directory, 3);
	struct image *image;
	const void *src = NULL;
	const unsigned char *page;
	uint64_t bytes = 2 * RIG_PAGE + 100;

	rig_cut(fd, bytes);
	image = open_indexed(fd, bytes);
	memset(buf, 0xff, sizeof(buf));
	is_int(image_read(image, RIG_PAGE, 2 * RIG_PAGE, buf), 0, "%s: read over the tail", name);
	page = buf + RIG_PAGE;
	ok(rig_page_is(buf, rig_byte(1)) && page[0] == rig_byte(2) && page[99] == rig_byte(2) &&
		page[100] == 0 && page[RIG_PAGE - 1] == 0,
	    "%s: bytes, then zeros", name);
	memset(buf, 0xff, sizeof(buf));
	is_int(image_peek(image, 2 * RIG_PAGE, RIG_PAGE, buf, &src), RIG_PAGE, "%s: peek", name);
	page = src;
	ok(page != NULL && page[99] == rig_byte(2) && page[100] == 0 && page[RIG_PAGE - 1] == 0,
	    "%s: the same", name);
	is_int(image_warm(image, 0, 3 * RIG_PAGE, &src), 0, "%s: warm", name);
	page = (const unsigned char *)src + 2 * RIG_PAGE;
	ok(page[99] == rig_byte(2) && page[100] == 0 && page[RIG_PAGE - 1] == 0, "%s: the same",
	    name);
	image_put(image);
}

/* In turn: to whole pages, into the middle of a page, to nothing. */
static void
test_truncated(const char *directory, const char *name)
{
	static const uint64_t ends[] = {4 * RIG_PAGE, 3 * RIG_PAGE + 100, 2 * RIG_PAGE - 1, 0};
	int fd = rig_file(directory, 8), keep = fd_dup(fd);
	struct image *image = open_indexed(fd, 8 * RIG_PAGE);
	const void *src;

	for (size_t i = 0; i < sizeof(ends) / sizeof(ends[0]); i++) {
		uint64_t whole = ends[i] / RIG_PAGE;
		unsigned long long end = ends[i];

		rig_cut(keep, ends[i]);
		for (uint64_t p = 0; p < 8; p++) {
			uint64_t at = p * RIG_PAGE, n = 0;

			memset(buf, 0xff, RIG_PAGE);
			if (p < whole &&
			    (image_read(image, at, RIG_PAGE, buf) != 0 ||
				!rig_page_is(buf, rig_byte(p))))
				ok(false, "%s cut to %llu: page %llu", name, end,
				    (unsigned long long)p);
			if (p >= whole && image_read(image, at, RIG_PAGE, buf) != -EIO)
				ok(false, "%s cut to %llu: page %llu is read", name, end,
				    (unsigned long long)p);
			if (p >= whole && image_is_hole(image, at, RIG_PAGE, &n))
				ok(false, "%s cut to %llu: page %llu is a hole", name, end,
				    (unsigned long long)p);
			if (p >= whole && image_warm(image, at, RIG_PAGE, &src) != -EIO)
				ok(false, "%s cut to %llu: page %llu is warmed", name, end,
				    (unsigned long long)p);
		}
		is_int(image_read(image, 0, 8 * RIG_PAGE, buf), -EIO, "%s cut to %llu: read", name,
		    end);
		is_int(image_warm(image, 0, 8 * RIG_PAGE, &src), -EIO, "%s cut to %llu: warm", name,
		    end);
	}
	close(keep);
	image_put(image);
}

/* A peek must not hand out the zeros that are behind the new end in its page.  Whole pages
 * behind it may be pointed at: the kernel refuses to copy them. */
static void
test_peek_truncated(const char *directory, const char *name)
{
	int fd = rig_file(directory, 8), keep = fd_dup(fd);
	struct image *image = open_indexed(fd, 8 * RIG_PAGE);
	const void *src = buf;

	is_int(image_peek(image, 3 * RIG_PAGE, RIG_PAGE, buf, &src), RIG_PAGE, "%s: a peek", name);
	rig_cut(keep, 3 * RIG_PAGE + 100);
	rig_until(image_peek(image, 3 * RIG_PAGE, RIG_PAGE, buf, &src) == 0);
	ok(true, "%s: none at a page that was cut, one tick later", name);
	ok(image_peek(image, 2 * RIG_PAGE, 4 * RIG_PAGE, buf, &src) <= RIG_PAGE,
	    "%s: nor at a range with one", name);
	close(keep);
	image_put(image);
}

/* Cut after the supervisor looked at its size and before the holes are looked for: what is
 * missing is not a hole. */
static void
test_truncated_before_the_index(const char *directory, const char *name)
{
	int fd = rig_file(directory, 8);
	struct image *image;
	uint64_t n;
	unsigned holes = 0;

	rig_cut(fd, 5 * RIG_PAGE);
	image = open_indexed(fd, 8 * RIG_PAGE);
	for (uint64_t p = 0; p < 8; p++)
		holes += image_is_hole(image, p * RIG_PAGE, RIG_PAGE, &n);
	is_int(holes, 0, "%s: what was cut off before the index is no hole", name);
	is_int(image_read(image, 4 * RIG_PAGE, 4 * RIG_PAGE, buf), -EIO, "%s: but an error", name);
	image_put(image);
}

static void
test_memory_kind(void)
{
	struct image *image = open_indexed(rig_file(NULL, 8), 8 * RIG_PAGE);
	const void *src = NULL;

	is_int(image_peek(image, 2 * RIG_PAGE, 3 * RIG_PAGE, buf, &src), 3 * RIG_PAGE,
	    "a file in memory can always be peeked at");
	ok(src != NULL && rig_page_is(src, rig_byte(2)) &&
		rig_page_is((const char *)src + 2 * RIG_PAGE, rig_byte(4)),
	    "and has the right bytes");
	image_put(image);
}

/* True when the page cache has been made to forget fd. */
static bool
make_cold(struct image *image, int fd)
{
	const void *src;

	for (unsigned tries = 0; tries < 100; tries++) {
		fsync(fd);
		posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);
		if (image_peek(image, 0, RIG_PAGE, buf, &src) == 0)
			return true;
	}
	return false;
}

static void
test_cold(void)
{
	int fd = rig_file(DISK, 16), keep = fd_dup(fd);
	struct image *image = open_indexed(fd, 16 * RIG_PAGE);
	const void *src = NULL;

	is_int(image_peek(image, 2 * RIG_PAGE, 3 * RIG_PAGE, buf, &src), 3 * RIG_PAGE,
	    "on disk and just written: in memory");
	ok(src == buf && rig_page_is(buf, rig_byte(2)), "with the right bytes");
	if (!make_cold(image, keep)) {
		skip(4, "this file system keeps its pages");
	} else {
		is_int(image_peek(image, 4 * RIG_PAGE, RIG_PAGE, buf, &src), 0, "cold: nothing");
		memset(buf, 0, sizeof(buf));
		is_int(image_read(image, 0, 16 * RIG_PAGE, buf), 0, "a read waits for it");
		ok(rig_page_is(buf + 4 * RIG_PAGE, rig_byte(4)) &&
			rig_page_is(buf + 15 * RIG_PAGE, rig_byte(15)),
		    "and has the right bytes");
		is_int(image_peek(image, 4 * RIG_PAGE, RIG_PAGE, buf, &src), RIG_PAGE,
		    "after which it is in memory");
	}
	close(keep);
	image_put(image);
}

static void
test_shared(void)
{
	int fd = rig_file(NULL, 4), again = fd_dup(fd), other = fd_dup(fd), changed = fd_dup(fd);
	struct image *a = open_indexed(fd, 4 * RIG_PAGE);
	struct image *b = open_indexed(again, 4 * RIG_PAGE);
	struct image *c = open_indexed(other, 3 * RIG_PAGE);
	struct image *d;
	struct timespec times[2] = {{.tv_nsec = UTIME_OMIT}, {.tv_sec = 1}};

	ok(a == b && a->refs == 2, "the same file is one image");
	ok(fcntl(again, F_GETFD) < 0, "of which one descriptor is enough");
	ok(a != c, "with another size it is another");
	futimens(changed, times);
	d = open_indexed(changed, 4 * RIG_PAGE);
	ok(d != a, "written to meanwhile it is another");
	image_put(b);
	ok(rig_page_is(a->map, rig_byte(0)), "one user fewer does not end it");
	image_put(a);
	image_put(c);
	image_put(d);
	ok(list_is_empty(&pager.images), "the last one does");
}

/* Its size and its time of modification as before: what was a hole holds data now. */
static void
test_rewritten(const char *directory, const char *name)
{
	int fd = rig_file(directory, 2), again = fd_dup(fd);
	struct image *image, *rewritten;
	struct timespec times[2];

	rig_cut(fd, 4 * RIG_PAGE);
	image = open_indexed(fd, 4 * RIG_PAGE);
	ok(hole_is(image, 2, 2, 2), "%s: a hole", name);
	put_page(fd, 3);
	times[0] = times[1] = (struct timespec){
	    .tv_sec = (time_t)(image->name.mtime_ns / NS_PER_S),
	    .tv_nsec = (long)(image->name.mtime_ns % NS_PER_S),
	};
	futimens(fd, times);
	rewritten = open_indexed(again, 4 * RIG_PAGE);
	ok(image->name.mtime_ns == rewritten->name.mtime_ns &&
		image->name.ino == rewritten->name.ino,
	    "%s: rewritten under its old time", name);
	ok(hole_is(rewritten, 2, 1, 1) && data_is(rewritten, 3, 1, 1), "%s: its holes are new",
	    name);
	image_put(rewritten);
	image_put(image);
}

/* The control thread must not wait for an indexer that waits for storage; here it waits
 * for this test. */
static void
test_slow_index(void)
{
	int fd = rig_file(NULL, 0);
	struct image *image;

	for (uint64_t p = 0; p < 20000; p++)
		put_page(fd, 2 * p);
	image = open_image(fd, 40000 * RIG_PAGE);
	pthread_mutex_lock(&image->lock);
	ok(!image->indexed, "an index that is not there yet");
	image_put(image);
	ok(list_is_empty(&pager.images), "its image is let go at once");
	ok(fcntl(fd, F_GETFD) >= 0, "but not pulled away from under the indexer");
	pthread_mutex_unlock(&image->lock);
	rig_until(fcntl(fd, F_GETFD) < 0);
	ok(true, "which frees it in the end");
}

static void
test_refused(void)
{
	int pipe_fds[2];
	struct image *image = NULL;

	if (pipe(pipe_fds) < 0)
		return;
	ok(image_get(&pager, pipe_fds[0], RIG_PAGE, NULL, &image) < 0 && image == NULL,
	    "what cannot be mapped is refused");
	ok(fcntl(pipe_fds[0], F_GETFD) >= 0, "and stays the caller's");
	close(pipe_fds[0]);
	close(pipe_fds[1]);
}

int
main(void)
{
	struct statfs fs;
	bool disk = statfs(DISK, &fs) == 0 && fs.f_type != TMPFS_MAGIC;

	pager_init(&pager);
	test_holes(NULL, "in memory");
	test_all_hole();
	test_no_hole();
	test_tail(NULL, "in memory");
	test_truncated(NULL, "in memory");
	test_peek_truncated(NULL, "in memory");
	test_truncated_before_the_index(NULL, "in memory");
	test_memory_kind();
	test_shared();
	test_rewritten(NULL, "in memory");
	test_slow_index();
	test_refused();
	if (disk) {
		test_holes(DISK, "on disk");
		test_tail(DISK, "on disk");
		test_truncated(DISK, "on disk");
		test_peek_truncated(DISK, "on disk");
		test_truncated_before_the_index(DISK, "on disk");
		test_rewritten(DISK, "on disk");
		test_cold();
	} else {
		skip(1, "%s is not on a disk", DISK);
	}
	pager_fini(&pager);
	return done();
}
