/* SPDX-License-Identifier: Apache-2.0 */
#include "supervisor/opener/job.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "common/fd.h"
#include "common/hotlist.h"
#include "common/scope.h"
#include "common/xalloc.h"
#include "supervisor/opener/image.h"
#include "supervisor/why.h"

/* Nobody may be there any more: then there is nobody to tell. */
static void
say_short(struct opener_job *job, enum opener_kind kind, const int *fds, size_t nr_fds)
{
	job->word.kind = kind;
	(void)opener_send(job->link, &job->word, OPENER_SHORT_BYTES, fds, nr_fds, 0);
}

void
opener_tell_at(struct opener_job *job, enum opener_part part, uint32_t nth)
{
	job->word.part = part;
	job->word.nth = nth;
	say_short(job, OPENER_AT, NULL, 0);
}

static void
say_begun(struct opener_job *job)
{
	scoped_fd int self = (int)syscall(SYS_pidfd_open, getpid(), 0);

	say_short(job, OPENER_BEGUN, &self, self >= 0 ? 1 : 0);
}

/* What was handed over is not handed over again. */
static void
say_long(struct opener_job *job, enum opener_kind kind)
{
	int fds[OPENER_PARTS];
	size_t nr = 0;

	for (unsigned part = 0; part < OPENER_PARTS; part++) {
		job->word.outcomes[part].has_fd = job->fds[part] >= 0;
		if (job->fds[part] >= 0)
			fds[nr++] = job->fds[part];
	}
	job->word.kind = kind;
	(void)opener_send(job->link, &job->word, sizeof(job->word), fds, nr, 0);
	fd_close_all(job->fds, OPENER_PARTS);
}

static const char *
path_of(const struct opener_job *job, enum opener_part part)
{
	return opener_text(job->order, job->order->paths_at[part]);
}

static int
open_image(struct opener_job *job, char *why)
{
	int r = image_open(&job->roots, &job->order->peer, path_of(job, OPENER_IMAGE),
	    &job->word.image, why, OPENER_WHY_BYTES);

	if (r == 0 && job->order->looks)
		fd_closep(&job->word.image.fd);
	else if (r == 0)
		job->fds[OPENER_IMAGE] = job->word.image.fd;
	return r;
}

/* What is too long to be a list is not copied: by its length the reader sees that. */
static int
copy_list(int from, uint64_t bytes, int *ret)
{
	scoped_fd int fd = memfd_create("hot-list", MFD_CLOEXEC);
	off_t at = 0;

	if (fd < 0)
		return -errno;
	if (bytes > HOTLIST_MAX_BYTES && ftruncate(fd, (off_t)bytes) < 0)
		return -errno;
	while (bytes <= HOTLIST_MAX_BYTES && (uint64_t)at < bytes) {
		ssize_t n = sendfile(fd, from, &at, (size_t)(bytes - (uint64_t)at));

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		if (n == 0)
			break;
	}
	*ret = fd_take(&fd);
	return 0;
}

static int
copy_hot_list(struct opener_job *job, char *why)
{
	const char *path = path_of(job, OPENER_HOT_LIST);
	struct image file = {.fd = -1};
	int r;

	opener_tell_at(job, OPENER_HOT_LIST, 0);
	r = image_open(&job->roots, &job->order->peer, path, &file, why, OPENER_WHY_BYTES);
	if (r < 0)
		return r;
	r = copy_list(file.fd, file.bytes, &job->fds[OPENER_HOT_LIST]);
	fd_closep(&file.fd);
	return r < 0 ? why_set(why, OPENER_WHY_BYTES, r, "%s: %s", path, strerror(-r)) : 0;
}

static int
write_list(struct opener_job *job, int bytes_fd, char *why)
{
	const char *path = path_of(job, OPENER_RECORD);
	const struct peer *peer = &job->order->peer;
	struct image_bytes bytes = {0};
	struct stat st;

	opener_tell_at(job, OPENER_RECORD, 0);
	if (!job->order->writes)
		return image_replace(&job->roots, peer, path, NULL, why, OPENER_WHY_BYTES);
	if (fstat(bytes_fd, &st) < 0)
		return why_set(why, OPENER_WHY_BYTES, -errno, "%s: %s", path, strerror(errno));
	bytes.nr = (size_t)st.st_size;
	bytes.bytes = mmap(NULL, bytes.nr, PROT_READ, MAP_PRIVATE, bytes_fd, 0);
	if (bytes.bytes == MAP_FAILED)
		return why_set(why, OPENER_WHY_BYTES, -errno, "%s: %s", path, strerror(errno));
	return image_replace(&job->roots, peer, path, &bytes, why, OPENER_WHY_BYTES);
}

static int
do_part(struct opener_job *job, enum opener_part part, int bytes_fd)
{
	struct opener_outcome *outcome = &job->word.outcomes[part];

	if (job->order->paths_at[part] == 0)
		return 0;
	switch (part) {
	case OPENER_IMAGE:
		outcome->error = open_image(job, outcome->why);
		break;
	case OPENER_OVERLAYS:
		outcome->error = opener_copy_overlays(job, outcome->why, sizeof(outcome->why));
		break;
	case OPENER_RECORD:
		outcome->error = write_list(job, bytes_fd, outcome->why);
		break;
	case OPENER_HOT_LIST:
		outcome->error = copy_hot_list(job, outcome->why);
		break;
	case OPENER_PARTS:
		break;
	}
	return outcome->error;
}

static void
find_roots(struct opener_job *job)
{
	const char *root = opener_text(job->order, job->order->roots_at);

	job->roots.nr = job->order->nr_roots;
	job->roots.items = xcalloc(job->roots.nr + 1, sizeof(job->roots.items[0]));
	for (size_t i = 0; i < job->roots.nr; i++) {
		job->roots.items[i] = (char *)(uintptr_t)root;
		root += strlen(root) + 1;
	}
}

/* In a socket, so that nobody but this process had it among its own: each of those that have is
 * told to the storage when it is closed. */
static void
close_file(int box)
{
	int fds[OPENER_MAX_FDS] = {-1, -1, -1, -1};
	size_t nr = 1;
	char byte;

	(void)opener_receive(box, &byte, sizeof(byte), fds, &nr, MSG_DONTWAIT);
	fd_close_all(fds, OPENER_MAX_FDS);
}

void
opener_do(int link, uint64_t number, int order_fd, int bytes_fd)
{
	struct opener_job job = {.link = link, .word.number = number, .fds = {-1, -1, -1, -1}};
	struct stat st;

	/* First: from now on our end is seen, whatever it is. */
	say_begun(&job);
	if (fstat(order_fd, &st) < 0)
		return;
	job.order = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_PRIVATE, order_fd, 0);
	if (job.order == MAP_FAILED)
		return;
	find_roots(&job);
	if (job.order->closes)
		close_file(bytes_fd);
	for (enum opener_part part = 0; part < OPENER_PARTS && !job.order->closes; part++) {
		/* A session does without its list, but not when that has come first. */
		if (part == OPENER_HOT_LIST && job.order->paths_at[part] != 0)
			say_long(&job, OPENER_SO_FAR);
		if (do_part(&job, part, bytes_fd) < 0)
			break;
	}
	say_long(&job, OPENER_DONE);
}
