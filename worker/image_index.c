/* SPDX-License-Identifier: Apache-2.0 */
#include "worker/image_index.h"

#include <errno.h>
#include <linux/magic.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "common/pagemap.h"
#include "worker/copylock.h"
#include "worker/image.h"

#ifndef MADV_POPULATE_READ
#define MADV_POPULATE_READ 22
#endif

/* More holes than this are not worth the memory (1 MiB): the rest counts as data, which
 * is correct and only costs a copy. */
#define MAX_HOLES  65536U
#define FIRST_ROOM 64U

/* Page tables for a mapping take 0.2 % of it.  Beyond this the first touch of each page
 * of an image in memory pays for its own entry (some 2 us). */
#define WARM_MAX_BYTES (UINT64_C(4) << 30)
#define WARM_STEP      (UINT64_C(2) << 20)

struct hole {
	uint64_t start;
	uint64_t end;
};

struct image_index {
	uint64_t nr;
	struct hole holes[]; /* sorted, whole pages */
};

static struct image_index *
grow(struct image_index *index, uint64_t room)
{
	return realloc(index, sizeof(*index) + room * sizeof(index->holes[0]));
}

/* Adds the whole pages of [start, end).  False when there is no more room. */
static bool
add_hole(struct image_index **index, uint64_t *room, uint64_t start, uint64_t end)
{
	struct image_index *larger;

	start = (start + PAGE_BYTES - 1) & ~(PAGE_BYTES - 1);
	end &= ~(PAGE_BYTES - 1);
	if (start >= end)
		return true;
	if ((*index)->nr == *room) {
		if (*room >= MAX_HOLES)
			return false;
		larger = grow(*index, *room * 2);
		if (larger == NULL)
			return false;
		*index = larger;
		*room *= 2;
	}
	(*index)->holes[(*index)->nr++] = (struct hole){start, end};
	return true;
}

/* A hole that ends with the file also covers the rest of the last page. */
static uint64_t
hole_end(const struct image *image, off_t data)
{
	if (data < 0 || (uint64_t)data >= image->bytes)
		return (image->bytes + PAGE_BYTES - 1) & ~(PAGE_BYTES - 1);
	return (uint64_t)data;
}

static void
find_holes(struct image *image, struct image_index **index)
{
	uint64_t room = FIRST_ROOM, at = 0;

	while (at < image->bytes && !atomic_load(&image->stop)) {
		off_t hole = lseek(image->fd, (off_t)at, SEEK_HOLE);
		off_t data;

		if (hole < 0 || (uint64_t)hole >= image->bytes)
			return;
		data = lseek(image->fd, hole, SEEK_DATA);
		if (data < 0 && errno != ENXIO)
			return;
		at = hole_end(image, data);
		if (!add_hole(index, &room, (uint64_t)hole, at))
			return;
	}
}

static void
warm_data(struct image *image)
{
	uint64_t at = 0, bytes, n;

	while (at < image->mapped_bytes && at < WARM_MAX_BYTES && !atomic_load(&image->stop)) {
		bytes = image->mapped_bytes - at < WARM_STEP ? image->mapped_bytes - at : WARM_STEP;
		/* Reading a hole of a tmpfs file would allocate its pages. */
		if (!image_is_hole(image, at, bytes, &n) &&
		    madvise((void *)(uintptr_t)(image->map + at), n, MADV_POPULATE_READ) != 0)
			return;
		at += n;
	}
}

/* May wait for the file system, which is why it is done here. */
static void
find_memory_kind(struct image *image)
{
	struct statfs fs;

	if (fstatfs(image->fd, &fs) == 0 &&
	    (fs.f_type == TMPFS_MAGIC || fs.f_type == HUGETLBFS_MAGIC))
		atomic_store(&image->kind, IMAGE_IN_MEMORY);
}

static void
publish(struct image *image, struct image_index *index)
{
	atomic_store_explicit(&image->index, index, memory_order_release);
	pthread_mutex_lock(&image->lock);
	image->indexed = true;
	pthread_cond_broadcast(&image->cond);
	pthread_mutex_unlock(&image->lock);
}

/* False when there is nobody left to warm it for. */
static bool
wait_to_warm(struct image *image)
{
	while (sem_wait(&image->may_warm) < 0)
		; /* EINTR */
	return !atomic_load(&image->stop);
}

void *
image_index_main(void *arg)
{
	struct image *image = arg;
	struct image_index *index = grow(NULL, FIRST_ROOM);

	image_wait_answer(image);
	if (atomic_load(&image->kind) == IMAGE_SLOW)
		find_memory_kind(image);
	copylock_idle_priority();
	if (index != NULL) {
		index->nr = 0;
		find_holes(image, &index);
		/* What was cut off meanwhile looks like a hole. */
		if (!image_is_whole(image))
			index->nr = 0;
	}
	publish(image, index);
	if (atomic_load(&image->kind) == IMAGE_IN_MEMORY && wait_to_warm(image))
		warm_data(image);
	copylock_normal_priority();
	image_watch(image);
	image_release(image);
	return NULL;
}

bool
image_index_is_hole(
    const struct image_index *index, uint64_t offset, uint64_t max, uint64_t *ret_bytes)
{
	uint64_t low = 0, high = index->nr, left;

	/* The first hole that ends behind offset. */
	while (low < high) {
		uint64_t mid = low + (high - low) / 2;

		if (index->holes[mid].end <= offset)
			low = mid + 1;
		else
			high = mid;
	}
	*ret_bytes = max;
	if (low == index->nr)
		return false;
	if (index->holes[low].start <= offset) {
		left = index->holes[low].end - offset;
		*ret_bytes = left < max ? left : max;
		return true;
	}
	left = index->holes[low].start - offset;
	*ret_bytes = left < max ? left : max;
	return false;
}

void
image_index_free(struct image_index *index)
{
	free(index);
}
