/* SPDX-License-Identifier: Apache-2.0 */
#include "supervisor/ctl/cmd_warm.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/scope.h"
#include "common/xalloc.h"
#include "supervisor/ctl/interrupt.h"
#include "supervisor/ctl/progress.h"
#include "supervisor/ctl/text.h"

#define CHUNK_BYTES  (UINT64_C(1) << 20)
#define AHEAD_BYTES  (UINT64_C(8) << 20) /* of what is read: so that the storage has a queue */
#define PAGE_BYTES   UINT64_C(4096)
#define DRAW_MS	     UINT64_C(100)
#define LINE_TICK_MS UINT64_C(2000) /* without a terminal: a line so often */

#ifndef SYS_cachestat
#define SYS_cachestat 451 /* Linux 6.5 */
#endif

struct warm {
	const struct ctl *ctl;
	const char *name, *image;
	int fd;
	uint64_t bytes;		/* of the file */
	uint64_t data;		/* of them, without holes */
	uint64_t done;		/* of data */
	uint64_t before, after; /* of data, in memory at first and at the end */
	bool is_known;		/* what was in memory at first */
	uint64_t started_ns, drawn_ns;
	bool terminal;
	char *buffer;
};

static void
draw(struct warm *w)
{
	uint64_t now_ns = clock_now_ns(), tick_ms = w->terminal ? DRAW_MS : LINE_TICK_MS;
	uint64_t ms = (now_ns - w->started_ns) / NS_PER_MS;
	char text[PROGRESS_BYTES];
	json_t *json;

	if (w->ctl->json || now_ns - w->drawn_ns < tick_ms * NS_PER_MS || ms == 0)
		return;
	w->drawn_ns = now_ns;
	json = json_pack("{sIsIsI}", "pages_done", (json_int_t)w->done, "pages_total",
	    (json_int_t)w->data, "bytes_per_second", (json_int_t)(w->done * 1000 / ms));
	if (json && w->done > 0)
		json_object_set_new(json, "eta_ms",
		    json_integer(
			(json_int_t)((double)(w->data - w->done) * (double)ms / (double)w->done)));
	progress_text(
	    text, json, w->data, w->terminal ? progress_bar_width(text_width(w->name)) : 0);
	json_decref(json);
	if (!*text)
		return;
	fprintf(stderr, w->terminal ? "\r%s %s\033[K" : "%s: %s\n", w->name, text);
	fflush(stderr);
}

/* What of a run is in memory, as the kernel says; it says it to the file's owner alone. */
static int
ask_kernel(const struct warm *w, uint64_t from, uint64_t to, uint64_t *ret)
{
	const struct {
		uint64_t off, len;
	} range = {from, to - from};
	struct {
		uint64_t cached, dirty, writeback, evicted, recently_evicted;
	} stat = {0};

	if (syscall(SYS_cachestat, w->fd, &range, &stat, 0U) < 0)
		return -errno;
	*ret += stat.cached * PAGE_BYTES < to - from ? stat.cached * PAGE_BYTES : to - from;
	return 0;
}

static int
count_run(struct warm *w, uint64_t from, uint64_t to, void *arg)
{
	uint64_t *sum = arg;
	struct iovec iov = {w->buffer, 1};

	if (ask_kernel(w, from, to, sum) == 0)
		return 0;
	for (uint64_t at = from; at < to && !interrupt_caught(); at += PAGE_BYTES) {
		ssize_t n = preadv2(w->fd, &iov, 1, (off_t)at, RWF_NOWAIT);

		if (n < 0 && errno != EAGAIN && errno != EINTR)
			return -errno;
		*sum += n <= 0 ? 0 : to - at < PAGE_BYTES ? to - at : PAGE_BYTES;
	}
	return 0;
}

static int
add_run(struct warm *w, uint64_t from, uint64_t to, void *arg)
{
	(void)arg;
	w->data += to - from;
	return 0;
}

static int
read_run(struct warm *w, uint64_t from, uint64_t to, void *arg)
{
	(void)arg;
	for (uint64_t at = from; at < to && !interrupt_caught();) {
		uint64_t left = to - at;
		uint64_t ahead = left < AHEAD_BYTES ? left : AHEAD_BYTES;

		posix_fadvise(w->fd, (off_t)at, (off_t)ahead, POSIX_FADV_WILLNEED);
		ssize_t n =
		    pread(w->fd, w->buffer, left < CHUNK_BYTES ? left : CHUNK_BYTES, (off_t)at);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		if (n == 0)
			return -ENODATA; /* it has become shorter */
		at += (uint64_t)n;
		w->done += (uint64_t)n;
		draw(w);
	}
	return 0;
}

/* Calls run for each part of the file that has bytes.  A file system that knows no holes
 * says that all has. */
static int
each_run(
    struct warm *w, int (*run)(struct warm *w, uint64_t from, uint64_t to, void *arg), void *arg)
{
	off_t from, to = 0;
	int r = 0;

	while (r == 0 && !interrupt_caught() && (uint64_t)to < w->bytes) {
		from = lseek(w->fd, to, SEEK_DATA);
		if (from < 0)
			return errno == ENXIO ? 0 : -errno;
		to = lseek(w->fd, from, SEEK_HOLE);
		if (to < 0)
			return -errno;
		r = run(w, (uint64_t)from, (uint64_t)to, arg);
	}
	return r;
}

static int
work(struct warm *w)
{
	int r = each_run(w, add_run, NULL);

	w->is_known = r == 0 && each_run(w, count_run, &w->before) == 0;
	w->started_ns = w->drawn_ns = clock_now_ns();
	if (r == 0)
		r = each_run(w, read_run, NULL);
	if (w->terminal && !w->ctl->json)
		fputs("\r\033[K", stderr);
	if (r == 0 && each_run(w, count_run, &w->after) < 0)
		w->after = w->data; /* it has been read, and nobody says that it is gone again */
	return r;
}

static enum exitcode
report(const struct warm *w)
{
	uint64_t nanos = clock_now_ns() - w->started_ns;
	/* A page or two may go again at any time. */
	bool is_warm = w->after >= w->data - w->data / 100;
	char a[TEXT_BYTES], b[TEXT_BYTES], c[TEXT_BYTES];

	if (w->ctl->json) {
		json_t *json = json_pack("{sssssIsIsIsIsb}", "name", w->name, "image", w->image,
		    "image_bytes", (json_int_t)w->bytes, "data_bytes", (json_int_t)w->data,
		    "resident_before", (json_int_t)w->before, "resident_after",
		    (json_int_t)w->after, "warm", is_warm);

		if (!w->is_known)
			json_object_set_new(json, "resident_before", json_null());
		ctl_print_json(json);
		json_decref(json);
	} else if (is_warm) {
		printf(
		    "%s is warm: %s in %s", w->name, text_bytes(a, w->data), text_nanos(b, nanos));
		if (w->is_known)
			printf(", of which %s had been in memory", text_bytes(c, w->before));
		putchar('\n');
	}
	if (is_warm)
		return EXITCODE_OK;
	ctl_complain("%s does not stay warm: %s of %s are in memory, which is short", w->name,
	    text_bytes(a, w->after), text_bytes(b, w->data));
	return EXITCODE_FAILED;
}

static enum exitcode
fail(const struct warm *w, int error)
{
	if (error == -EACCES || error == -EPERM)
		ctl_complain("you may not read %s; run this as a user who may", w->image);
	else
		ctl_complain("%s: %s", w->image,
		    error == -ENODATA ? "it became shorter while it was read" : strerror(-error));
	return EXITCODE_FAILED;
}

/* A descriptor that the caller owns, or a negative errno. */
static int
open_image(struct warm *w)
{
	scoped_fd int fd = open(w->image, O_RDONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
	struct stat st;

	if (fd < 0 || fstat(fd, &st) < 0)
		return -errno;
	if (!S_ISREG(st.st_mode))
		return -EINVAL;
	w->bytes = (uint64_t)st.st_size;
	return fd_take(&fd);
}

enum exitcode
ctl_warm(const struct ctl *ctl, const char *name, const char *image, uint64_t image_bytes)
{
	scoped_free char *printable = xstrdup(name), *buffer = xcalloc(1, CHUNK_BYTES);
	struct warm w = {.ctl = ctl,
	    .name = printable,
	    .image = image,
	    .fd = -1,
	    .terminal = isatty(STDERR_FILENO),
	    .buffer = buffer};
	char percent[TEXT_BYTES];

	text_make_printable(printable);
	scoped_fd int fd = open_image(&w);
	if (fd < 0)
		return fail(&w, fd);
	w.fd = fd;
	if (w.bytes != image_bytes) {
		ctl_complain(
		    "%s has changed since it was registered: no session can be made of it", image);
		return EXITCODE_CONFLICT;
	}
	interrupt_catch();
	int r = work(&w);
	if (r < 0)
		return fail(&w, r);
	if (!interrupt_caught())
		return report(&w);
	ctl_complain("interrupted: %s of %s has been read", text_percent(percent, w.done, w.data),
	    printable);
	return interrupt_exitcode();
}
