/* SPDX-License-Identifier: Apache-2.0 */
#include "worker/image.h"

#include <errno.h>
#include <fcntl.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/fault.h"
#include "common/fd.h"
#include "common/pagemap.h"
#include "common/xalloc.h"
#include "worker/image_index.h"
#include "worker/pager.h"
#include "worker/session.h"

#ifndef MADV_POPULATE_READ
#define MADV_POPULATE_READ 22
#endif

/* What the kernel maps around a page, aligned; only speed depends on it. */
#define FAULT_AROUND_BYTES (UINT64_C(64) << 10)

/* How often the file is looked at, to see whether somebody modifies it in place. */
#define LOOK_NS (2 * NS_PER_S)

static uint64_t
round_up(uint64_t bytes)
{
	return (bytes + PAGE_BYTES - 1) & ~(PAGE_BYTES - 1);
}

/* Never waits, unlike a question to the file system: image_index.c asks that. */
static enum image_kind
find_kind(int fd)
{
	unsigned char byte;
	struct iovec one = {.iov_base = &byte, .iov_len = 1};

	if (preadv2(fd, &one, 1, 0, RWF_NOWAIT) >= 0 || errno == EAGAIN)
		return IMAGE_CACHED;
	return IMAGE_SLOW;
}

static uint64_t
nanos(struct timespec t)
{
	return t.tv_sec < 0 ? 0 : (uint64_t)t.tv_sec * NS_PER_S + (uint64_t)t.tv_nsec;
}

/* Where the answer does not wait for storage; 0 otherwise. */
static uint64_t
ctime_of(int fd, bool is_patient)
{
	struct stat st;

	return !is_patient && fstat(fd, &st) == 0 ? nanos(st.st_ctim) : 0;
}

/* Not one that was rewritten since, whose holes are known no more: a time of modification can be
 * set, and is where images are made reproducible. */
static struct image *
find_open(struct pager *pager, int fd, const struct image_name *name, uint64_t bytes)
{
	struct list *pos;

	list_for_each(pos, &pager->images) {
		struct image *image = list_entry(pos, struct image, link);

		if (image->name.dev == name->dev && image->name.ino == name->ino &&
		    image->bytes == bytes && image->name.mtime_ns == name->mtime_ns &&
		    image->ctime_ns == ctime_of(fd, image->is_patient))
			return image;
	}
	return NULL;
}

/* All but the mapping and the descriptor. */
static void
destroy(struct image *image)
{
	pthread_cond_destroy(&image->watch_cond);
	pthread_mutex_destroy(&image->watch_lock);
	sem_destroy(&image->may_warm);
	pthread_cond_destroy(&image->cond);
	pthread_mutex_destroy(&image->lock);
	image_index_free(atomic_load(&image->index));
	free(image);
}

static void
init_locks(struct image *image)
{
	pthread_condattr_t attr;

	pthread_mutex_init(&image->lock, NULL);
	pthread_mutex_init(&image->watch_lock, NULL);
	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	pthread_cond_init(&image->cond, &attr);
	pthread_cond_init(&image->watch_cond, &attr);
	pthread_condattr_destroy(&attr);
}

/* NULL and a negative errno, or the image. */
static struct image *
open_new(struct pager *pager, int fd, const struct image_name *name, uint64_t bytes, int *ret_error)
{
	size_t mapped = round_up(bytes);
	void *map = mmap(NULL, mapped, PROT_READ, MAP_SHARED, fd, 0);
	struct image *image;
	pthread_t indexer;

	if (map == MAP_FAILED) {
		*ret_error = -errno;
		return NULL;
	}
	image = xcalloc(1, sizeof(*image));
	list_init(&image->link);
	image->name = *name;
	image->bytes = bytes;
	image->pager = pager;
	image->map = map;
	image->mapped_bytes = mapped;
	atomic_init(&image->kind, find_kind(fd));
	/* Only what lives in memory has seals. */
	image->is_patient = atomic_load(&image->kind) == IMAGE_SLOW && fcntl(fd, F_GET_SEALS) < 0;
	image->ctime_ns = ctime_of(fd, image->is_patient);
	atomic_init(&image->has_answered, name->is_new);
	init_locks(image);
	image->fd = fd;
	sem_init(&image->may_warm, 0, pager->is_adopting ? 0 : 1);
	atomic_init(&image->holders, 2);
	if (pthread_create(&indexer, &pager->thread_attr, image_index_main, image) != 0) {
		munmap(map, mapped);
		destroy(image);
		*ret_error = -EAGAIN;
		return NULL;
	}
	pthread_detach(indexer);
	list_add(&pager->images, &image->link);
	return image;
}

int
image_get(
    struct pager *pager, int fd, uint64_t bytes, const struct image_name *name, struct image **ret)
{
	struct image_name found = {.is_new = true};
	struct stat st;
	struct image *image;
	int error = 0;

	if (name == NULL) {
		if (fstat(fd, &st) < 0)
			return -errno;
		found.dev = st.st_dev;
		found.ino = st.st_ino;
		found.mtime_ns = nanos(st.st_mtim);
		name = &found;
	}
	image = find_open(pager, fd, name, bytes);
	if (image == NULL) {
		image = open_new(pager, fd, name, bytes, &error);
		if (image == NULL)
			return error;
	} else {
		fd_closep(&fd);
	}
	image->refs++;
	*ret = image;
	return 0;
}

void
image_put(struct image *image)
{
	if (image == NULL || --image->refs > 0)
		return;
	list_remove(&image->link);
	pthread_mutex_lock(&image->watch_lock);
	atomic_store(&image->stop, true);
	pthread_cond_broadcast(&image->watch_cond);
	pthread_mutex_unlock(&image->watch_lock);
	sem_post(&image->may_warm);
	image_release(image);
}

void
images_warm(struct pager *pager)
{
	struct list *pos;

	list_for_each(pos, &pager->images)
		sem_post(&list_entry(pos, struct image, link)->may_warm);
}

void
image_release(struct image *image)
{
	if (atomic_fetch_sub(&image->holders, 1) > 1)
		return;
	munmap((void *)(uintptr_t)image->map, image->mapped_bytes);
	fd_closep(&image->fd);
	destroy(image);
}

/* Or until somebody says something. */
static int
wait_until(pthread_cond_t *cond, pthread_mutex_t *lock, uint64_t until_ns)
{
	const struct timespec until = {
	    .tv_sec = (time_t)(until_ns / NS_PER_S),
	    .tv_nsec = (long)(until_ns % NS_PER_S),
	};

	return pthread_cond_timedwait(cond, lock, &until);
}

static void let_ask(struct image *image);

bool
image_wait_index(struct image *image, uint64_t max_ns)
{
	uint64_t until_ns = clock_now_ns() + max_ns;
	bool indexed;
	int r = 0;

	let_ask(image);
	pthread_mutex_lock(&image->lock);
	while (!image->indexed && r == 0)
		r = wait_until(&image->cond, &image->lock, until_ns);
	indexed = image->indexed;
	pthread_mutex_unlock(&image->lock);
	return indexed;
}

static void
look_at_file(struct image *image)
{
	struct image_file now, *seen = &image->file;
	struct stat st;

	atomic_store(&image->watched_ns, clock_now_ns());
	if (fstat(image->fd, &st) < 0)
		return;
	now = (struct image_file){(uint64_t)st.st_size, nanos(st.st_mtim), nanos(st.st_ctim)};
	pthread_mutex_lock(&image->watch_lock);
	if (!atomic_load(&image->stop) &&
	    (atomic_load(&image->changes) == 0 || now.bytes != seen->bytes ||
		now.mtime_ns != seen->mtime_ns || now.ctime_ns != seen->ctime_ns)) {
		*seen = now;
		atomic_fetch_add(&image->changes, 1);
		pager_wake(image->pager);
	}
	pthread_mutex_unlock(&image->watch_lock);
}

void
image_watch(struct image *image)
{
	while (!atomic_load(&image->stop)) {
		uint64_t until_ns = clock_now_ns() + LOOK_NS;

		if (!image->is_patient || atomic_load(&image->changes) == 0)
			look_at_file(image);
		pthread_mutex_lock(&image->watch_lock);
		while (!atomic_load(&image->stop) && clock_now_ns() < until_ns)
			wait_until(&image->watch_cond, &image->watch_lock, until_ns);
		pthread_mutex_unlock(&image->watch_lock);
	}
}

void
image_wait_answer(struct image *image)
{
	pthread_mutex_lock(&image->watch_lock);
	while (
	    image->is_patient && !atomic_load(&image->has_answered) && !atomic_load(&image->stop))
		pthread_cond_wait(&image->watch_cond, &image->watch_lock);
	pthread_mutex_unlock(&image->watch_lock);
}

static void
let_ask(struct image *image)
{
	if (atomic_load(&image->has_answered))
		return;
	pthread_mutex_lock(&image->watch_lock);
	atomic_store(&image->has_answered, true);
	pthread_cond_broadcast(&image->watch_cond);
	pthread_mutex_unlock(&image->watch_lock);
}

void
image_note_answer(struct image *image)
{
	let_ask(image);
	if (image->is_patient && clock_now_ns() >= atomic_load(&image->watched_ns) + LOOK_NS)
		look_at_file(image);
}

void
image_tell(struct session *s)
{
	struct ipc_msg msg = {.type = IPC_SESSION_IMAGE_FILE};
	struct image *image = s->image;

	if (!s->is_known || (s->flags & IPC_SESSION_TELL_IMAGE) == 0 ||
	    atomic_load(&image->changes) == s->image_told)
		return;
	pthread_mutex_lock(&image->watch_lock);
	s->image_told = atomic_load(&image->changes);
	msg.session_image_file.session = s->number;
	msg.session_image_file.bytes = image->file.bytes;
	msg.session_image_file.mtime_ns = image->file.mtime_ns;
	msg.session_image_file.ctime_ns = image->file.ctime_ns;
	pthread_mutex_unlock(&image->watch_lock);
	pager_send(s->pager, &msg, NULL, 0);
}

bool
image_is_whole(const struct image *image)
{
	/* Nobody uses the file's position. */
	off_t end = lseek(image->fd, 0, SEEK_END);

	return end >= 0 && (uint64_t)end >= image->bytes;
}

bool
image_is_hole(const struct image *image, uint64_t offset, uint64_t max, uint64_t *ret_bytes)
{
	const struct image_index *index = atomic_load_explicit(&image->index, memory_order_acquire);

	*ret_bytes = max;
	return index != NULL && image_index_is_hole(index, offset, max, ret_bytes);
}

/* What pread returned, as whole pages: the part of the last page behind the end of the
 * file is zeros, and nothing else ever is. */
static uint64_t
whole_pages(const struct image *image, uint64_t offset, ssize_t got, void *buf)
{
	uint64_t n = got > 0 ? (uint64_t)got : 0;

	if (offset + n == image->bytes && n % PAGE_BYTES != 0) {
		memset((char *)buf + n, 0, round_up(n) - n);
		return round_up(n);
	}
	return n & ~(PAGE_BYTES - 1);
}

/* A system call for each fault would be dear; this clock is not. */
static bool
was_cut(struct image *image)
{
	struct timespec now;
	uint64_t now_ns;

	clock_gettime(CLOCK_MONOTONIC_COARSE, &now);
	now_ns = (uint64_t)now.tv_sec * NS_PER_S + (uint64_t)now.tv_nsec;
	if (atomic_load_explicit(&image->looked_ns, memory_order_relaxed) == now_ns)
		return false;
	atomic_store_explicit(&image->looked_ns, now_ns, memory_order_relaxed);
	if (image_is_whole(image))
		return false;
	atomic_store(&image->kind, IMAGE_SLOW);
	return true;
}

uint64_t
image_peek(struct image *image, uint64_t offset, uint64_t bytes, void *buf, const void **ret_src)
{
	struct iovec all = {.iov_base = buf, .iov_len = bytes};
	enum image_kind kind =
	    (enum image_kind)atomic_load_explicit(&image->kind, memory_order_relaxed);

	if (fault(FAULT_IMAGE_READ))
		return 0;

	if (kind == IMAGE_IN_MEMORY) {
		if (was_cut(image))
			return 0;
		*ret_src = image->map + offset;
		return bytes;
	}
	if (kind == IMAGE_SLOW)
		return 0;
	*ret_src = buf;
	return whole_pages(
	    image, offset, preadv2(image->fd, &all, 1, (off_t)offset, RWF_NOWAIT), buf);
}

int
image_read(const struct image *image, uint64_t offset, uint64_t bytes, void *buf)
{
	uint64_t done = 0;

	if (fault(FAULT_IMAGE_READ))
		return -EIO;
	while (done < bytes) {
		ssize_t n =
		    pread(image->fd, (char *)buf + done, bytes - done, (off_t)(offset + done));

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		if (n == 0)
			break;
		done += (uint64_t)n;
	}
	return whole_pages(image, offset, (ssize_t)done, buf) == bytes ? 0 : -EIO;
}

/* What is in memory anyway is mapped by the kernel around each page that is asked for: to ask
 * for every page would take a tenth of a completion's time.  A copy faults in what is left. */
static int
populate_map(const struct image *image, char *start, uint64_t bytes)
{
	uint64_t step = bytes;

	if (atomic_load_explicit(&image->kind, memory_order_relaxed) == IMAGE_IN_MEMORY)
		step = FAULT_AROUND_BYTES;
	for (uint64_t at = 0; at < bytes; at += step) {
		uint64_t part = step < bytes ? PAGE_BYTES : bytes;

		if (madvise(start + at, part, MADV_POPULATE_READ) < 0)
			return -1;
	}
	return 0;
}

bool
image_is_near(const struct image *image, uint64_t offset)
{
	unsigned char byte;
	struct iovec one = {.iov_base = &byte, .iov_len = 1};
	int kind = atomic_load_explicit(&image->kind, memory_order_relaxed);

	if (kind == IMAGE_IN_MEMORY)
		return true;
	return kind == IMAGE_CACHED && preadv2(image->fd, &one, 1, (off_t)offset, RWF_NOWAIT) >= 0;
}

void
image_read_ahead(const struct image *image, uint64_t offset, uint64_t bytes)
{
	(void)posix_fadvise(image->fd, (off_t)offset, (off_t)bytes, POSIX_FADV_WILLNEED);
}

int
image_warm(const struct image *image, uint64_t offset, uint64_t bytes, const void **ret_src)
{
	char *start = (char *)(uintptr_t)(image->map + offset);

	if (fault(FAULT_IMAGE_READ))
		return -EIO;
	*ret_src = start;
	if (populate_map(image, start, bytes) == 0)
		return image_is_whole(image) ? 0 : -EIO;
	/* EFAULT is a SIGBUS that was avoided: the file is shorter now, or its storage failed. */
	return errno == EFAULT ? -EIO : -errno;
}
