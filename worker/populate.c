/* SPDX-License-Identifier: Apache-2.0 */
#include "worker/populate.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>

#include "common/clock.h"
#include "common/fault.h"
#include "worker/fill.h"
#include "worker/image.h"
#include "worker/overlay.h"
#include "worker/page.h"
#include "worker/pause.h"
#include "worker/session.h"

#ifndef MADV_POPULATE_WRITE
#define MADV_POPULATE_WRITE 23
#endif

#define AGAIN_NS      (50 * NS_PER_US)
#define MEMORY_NS     (10 * NS_PER_MS)
#define READ_RETRY_NS (20 * NS_PER_MS)
#define READ_TRIES    5U
#define PACE_STEP_NS  (20 * NS_PER_MS)
#define BUFFER_BYTES  (UINT64_C(2) << 20)
#define HUGE_BYTES    (UINT64_C(2) << 20)
#define MAP_HUGE_2M   (21 << 26)
/* A hole is settled in the map alone. */
#define HOLE_BYTES (UINT64_C(32) << 20)
/* Below this a copy by way of a buffer is cheaper than page tables of ours for the source. */
#define READ_BYTES (UINT64_C(64) * 1024)

/* True when none of the eight cells is absent or filling: bit 1 of the state says so, and
 * once set it stays. */
static bool
is_settled_word(uint64_t word)
{
	return (word & UINT64_C(0x0202020202020202)) == UINT64_C(0x0202020202020202);
}

_Static_assert((PAGE_PRESENT & PAGE_REMOVED & 2) != 0, "bit 1: nothing of the image may go there");
_Static_assert(((PAGE_ABSENT | PAGE_FILLING) & 2) == 0, "bit 1: the image belongs there");

/* The next fillable page at or after first; nr is 0 at the end. */
static struct run
next_page(const struct session *s, const struct region *r, uint64_t first)
{
	uint64_t nr = region_nr_pages(r), base = region_map_first(r), p = first;
	struct run run = {.region = r};

	while (p < nr) {
		if ((base + p) % 8 == 0 && p + 8 <= nr &&
		    is_settled_word(page_word(&s->map, base + p)))
			p += 8;
		else if (page_is_fillable(page_get(&s->map, base + p)))
			break;
		else
			p++;
	}
	run.first = p;
	run.nr = p < nr;
	return run;
}

/* Adds the fillable pages that follow, as far as the image is of one kind there: an image can
 * have a hole at every other page. */
static void
extend(const struct session *s, struct run *run)
{
	uint64_t end = region_nr_pages(run->region), base = region_map_first(run->region);
	uint64_t bytes = POPULATE_CHUNK_BYTES, n;

	if (image_is_hole(s->image, run_offset(run), HOLE_BYTES, &n) || n < bytes)
		bytes = n;
	if ((s->overlays != NULL || s->is_tracked) && bytes > POPULATE_CHUNK_BYTES)
		bytes = POPULATE_CHUNK_BYTES; /* an overlay may lie in the hole; or it is filled */
	n = bytes / run->region->page_bytes;
	while (run->nr < n && run->first + run->nr < end &&
	    page_is_fillable(page_get(&s->map, base + run->first + run->nr)))
		run->nr++;
}

bool
populate_is_needed(const struct session *s)
{
	for (uint32_t i = 0; i < s->regions.nr; i++) {
		if (next_page(s, &s->regions.rows[i], 0).nr != 0)
			return true;
	}
	return false;
}

static int
need_buffer(struct sweep *w)
{
	void *buf;

	if (w->buf != NULL)
		return 0;
	buf = mmap(NULL, BUFFER_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (buf == MAP_FAILED)
		return -errno;
	w->buf = buf;
	return 0;
}

/* A page that is part overlay, part image. */
static int
put_together(struct sweep *w, const struct run *page, const void **ret_src)
{
	const struct session *s = w->s;
	int r = need_buffer(w);

	*ret_src = w->buf;
	return r < 0
	    ? r
	    : overlay_read(s->overlays, s->image, run_offset(page), run_bytes(page), w->buf);
}

static int
read_image(struct sweep *w, const struct run *run, const void **ret_src)
{
	const struct image *image = w->s->image;
	int r;

	if (run_bytes(run) >= READ_BYTES)
		return image_warm(image, run_offset(run), run_bytes(run), ret_src);
	r = need_buffer(w);
	*ret_src = w->buf;
	return r < 0 ? r : image_read(image, run_offset(run), run_bytes(run), w->buf);
}

/* Clips run to one kind of source and gets that ready; may wait for storage. */
static int
prepare(struct sweep *w, struct run *run, const void **ret_src)
{
	const struct session *s = w->s;
	uint64_t page_bytes = run->region->page_bytes, n;

	*ret_src = NULL;
	if (s->overlays != NULL) {
		enum overlay_kind kind = overlay_clip(s->overlays, run, ret_src);

		if (kind != OVERLAY_NONE)
			return kind == OVERLAY_PART ? put_together(w, run, ret_src) : 0;
	}
	if (image_is_hole(s->image, run_offset(run), run_bytes(run), &n) && n >= page_bytes) {
		run->nr = n / page_bytes;
		return 0;
	}
	run->nr = n >= page_bytes ? n / page_bytes : 1;
	return read_image(w, run, ret_src);
}

static int
read_failed(struct sweep *w, const struct run *run, int error)
{
	session_count(w->s, COUNTER_IMAGE_ERRORS, 1);
	if (++w->failures < READ_TRIES) {
		pause_ns(READ_RETRY_NS);
		return 0;
	}
	snprintf(w->why, w->why_bytes, "the image cannot be read at offset %llu: %s",
	    (unsigned long long)run_offset(run), strerror(-error));
	return error;
}

/* Whether this process could have a huge page.  The kernel takes one for the VMM on the same
 * terms: ours. */
static bool
can_have_huge_page(void)
{
	void *page = mmap(NULL, HUGE_BYTES, PROT_READ | PROT_WRITE,
	    MAP_PRIVATE | MAP_ANONYMOUS | MAP_HUGETLB | MAP_HUGE_2M, -1, 0);
	bool can;

	if (page == MAP_FAILED)
		return false;
	can = madvise(page, HUGE_BYTES, MADV_POPULATE_WRITE) == 0;
	munmap(page, HUGE_BYTES);
	return can;
}

/* Of a huge page that may be there, or not for want of memory. */
static enum fill_result
verify(struct sweep *w, const struct run *run, struct fill *fill)
{
	struct session *s = w->s;
	struct run page = {run->region, run->first, 1};
	enum fill_result result;

	/* It is filled once more first: with memory, what is missing comes. */
	if (!w->has_memory) {
		w->has_memory = can_have_huge_page();
		return FILL_NO_MEMORY;
	}
	w->has_memory = false;
	copylock_background(&s->copylock);
	result = fill_verify(s, &page, fill);
	copylock_background_done(&s->copylock);
	return result;
}

/* What to do when a chunk was not filled entirely: 0 goes on where it stopped. */
static int
not_filled(struct sweep *w, const struct run *run, enum fill_result result, int error)
{
	switch (result) {
	case FILL_DONE:
	case FILL_STALE:
		return 0;
	case FILL_AGAIN:
		session_count(w->s, COUNTER_FILL_AGAIN, 1);
		pause_ns(AGAIN_NS);
		return 0;
	case FILL_GONE:
		return -ESRCH;
	case FILL_NO_MEMORY:
	case FILL_MAYBE:
		session_count(w->s, COUNTER_COPY_ERRORS, 1);
		pause_ns(MEMORY_NS);
		return 0;
	case FILL_BAD_SOURCE:
		return read_failed(w, run, -EIO);
	case FILL_NO_RANGE:
		snprintf(w->why, w->why_bytes,
		    "guest memory at 0x%llx is not registered with the userfaultfd any more",
		    (unsigned long long)run_host(run));
		return -ENOENT;
	case FILL_FAILED:
		break;
	}
	snprintf(w->why, w->why_bytes, "the kernel refuses to fill guest memory at 0x%llx: %s",
	    (unsigned long long)run_host(run), strerror(error));
	return error != 0 ? -error : -EIO;
}

int
populate_run(struct sweep *w, struct run run, uint64_t *ret_done)
{
	struct session *s = w->s;
	enum fill_result result;
	struct fill fill;
	const void *src;
	uint64_t begin;
	int r = prepare(w, &run, &src);

	*ret_done = 0;
	if (r < 0)
		return read_failed(w, &run, r);
	/* Where writes are tracked a page must come with its protection. */
	if (src == NULL && w->is_last && !s->is_tracked) {
		fill_hole(s, &run);
		*ret_done = run.nr;
		return 0;
	}
	(void)fault(FAULT_POPULATE_CHOSEN);
	copylock_background(&s->copylock);
	begin = clock_now_ns();
	(void)fault(FAULT_POPULATE_CHUNK);
	result = fill_run(s, &run, src, FILL_FOR_BACKGROUND, &fill);
	if (result == FILL_NO_RANGE && fill.nr_done == 0 && run.nr > 1) {
		/* The VMM split its mapping inside the chunk: page by page across the split. */
		run.nr = 1;
		result = fill_run(s, &run, src, FILL_FOR_BACKGROUND, &fill);
	}
	copylock_background_done(&s->copylock);
	session_time(s, PAGEMAP_TIME_FILL, clock_now_ns() - begin);
	*ret_done = fill.nr_done;
	if (fill.nr_done > 0) {
		w->failures = 0;
		w->bytes += fill.nr_done * run.region->page_bytes;
		return 0;
	}
	if (result == FILL_MAYBE)
		result = verify(w, &run, &fill);
	return not_filled(w, &run, result, fill.error);
}

bool
populate_is_over(const struct sweep *w)
{
	return atomic_load(w->abort) || atomic_load(&w->s->stop);
}

void
populate_end(struct sweep *w)
{
	if (w->buf != NULL)
		munmap(w->buf, BUFFER_BYTES);
	w->buf = NULL;
}

/* A little at a time so that an abort is seen. */
void
populate_keep_pace(const struct sweep *w)
{
	uint64_t due_ns, now_ns;

	if (w->rate_bytes == 0)
		return;
	due_ns =
	    w->begin_ns + (uint64_t)((double)w->bytes * (double)NS_PER_S / (double)w->rate_bytes);
	while (!populate_is_over(w) && (now_ns = clock_now_ns()) < due_ns)
		pause_ns(due_ns - now_ns < PACE_STEP_NS ? due_ns - now_ns : PACE_STEP_NS);
}

static int
populate_region(struct sweep *w, const struct region *r)
{
	uint64_t first = 0, done;
	int error;

	for (;;) {
		struct run run = next_page(w->s, r, first);

		if (run.nr == 0)
			return 0;
		extend(w->s, &run);
		if (populate_is_over(w))
			return -ECANCELED;
		error = populate_run(w, run, &done);
		if (error < 0)
			return error;
		first = run.first + done;
		populate_keep_pace(w);
	}
}

int
populate(struct session *s, uint64_t rate_bytes, char *why, size_t why_bytes)
{
	struct sweep w = {
	    .s = s,
	    .abort = &s->completion.abort,
	    .is_last = true,
	    .rate_bytes = rate_bytes,
	    .begin_ns = clock_now_ns(),
	    .why = why,
	    .why_bytes = why_bytes,
	};
	int r = 0;

	for (uint32_t i = 0; i < s->regions.nr && r == 0; i++)
		r = populate_region(&w, &s->regions.rows[i]);
	populate_end(&w);
	return r;
}
