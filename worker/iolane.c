/* SPDX-License-Identifier: Apache-2.0 */
#include "worker/iolane.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

#include "common/clock.h"
#include "worker/fault.h"
#include "worker/fill.h"
#include "worker/image.h"
#include "worker/overlay.h"
#include "worker/page.h"
#include "worker/pause.h"
#include "worker/session.h"
#include "worker/uffd.h"
#include "worker/unreadable.h"

#define RETRY_FIRST_NS (50 * NS_PER_MS)
#define RETRY_LAST_NS  (5 * NS_PER_S)
#define BUFFER_NS      (500 * NS_PER_MS)
#define AGAIN_NS       (50 * NS_PER_US)

/* What became of a slot after one try. */
enum served { SERVED, SERVE_LATER };

void
iolane_init(struct iolane *lane)
{
	pthread_condattr_t attr;

	memset(lane, 0, sizeof(*lane));
	pthread_mutex_init(&lane->mutex, NULL);
	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	pthread_cond_init(&lane->work, &attr);
	pthread_condattr_destroy(&attr);
}

void
iolane_fini(struct iolane *lane)
{
	pthread_cond_destroy(&lane->work);
	pthread_mutex_destroy(&lane->mutex);
}

void
iolane_stop(struct iolane *lane)
{
	pthread_mutex_lock(&lane->mutex);
	lane->stop = true;
	pthread_cond_broadcast(&lane->work);
	pthread_mutex_unlock(&lane->mutex);
}

static uint64_t
largest_page(const struct session *s)
{
	uint64_t bytes = PAGE_BYTES;

	for (uint32_t i = 0; i < s->regions.nr; i++) {
		if (s->regions.rows[i].page_bytes > bytes)
			bytes = s->regions.rows[i].page_bytes;
	}
	return bytes;
}

static int
read_page(struct session *s, const struct run *page, void *buf)
{
	uint64_t begin = clock_now_ns(), took, bytes = page->region->page_bytes;
	int r = s->overlays != NULL
	    ? overlay_read(s->overlays, s->image, run_offset(page), bytes, buf)
	    : image_read(s->image, run_offset(page), bytes, buf);

	took = clock_now_ns() - begin;
	session_count(s, COUNTER_IMAGE_READ_NANOS, took);
	session_count_max(s, COUNTER_IMAGE_READ_MAX_NANOS, took);
	session_time(s, PAGEMAP_TIME_READ, took);
	return r;
}

static enum fill_result
fill_locked(struct session *s, const struct run *page, const void *buf, struct fill *fill)
{
	enum fill_result result;

	for (;;) {
		copylock_background(&s->copylock);
		result = fill_run(s, page, buf, FILL_FOR_READ, fill);
		copylock_background_done(&s->copylock);
		if (result != FILL_AGAIN || atomic_load(&s->stop))
			return result;
		/* The fault thread reads the removal meanwhile. */
		session_count(s, COUNTER_FILL_AGAIN, 1);
		pause_ns(AGAIN_NS);
	}
}

static void
raise_alarm(struct session *s, enum session_post what, int error)
{
	atomic_store(&s->alarm_error, error);
	session_post(s, what);
}

/* Nobody else has slot, of which page is a copy. */
static enum served
serve(struct session *s, struct iolane_slot *slot, const struct run *page, void *buf)
{
	enum fill_result result;
	struct fill fill;
	int r;

	if (!page_is_fillable(page_get(&s->map, run_map(page)))) {
		/* Removed or filled meanwhile: the fault thread answers the next fault. */
		uffd_wake(s->uffd, run_host(page), page->region->page_bytes);
		return SERVED;
	}
	r = read_page(s, page, buf);
	if (r < 0)
		return unreadable_page(s, slot, page, -r) ? SERVE_LATER : SERVED;
	slot->failed = 0;
	result = fill_locked(s, page, buf, &fill);
	/* Behind the fill: it may ask the storage something, which need not answer. */
	image_note_answer(s->image);
	switch (result) {
	case FILL_DONE:
	case FILL_MAYBE: /* who waited faults again if it is not there */
		break;
	case FILL_GONE:
		session_post(s, SESSION_POST_GONE);
		break;
	case FILL_STALE:
	case FILL_NO_RANGE:
	case FILL_AGAIN: /* only when the session stops */
		uffd_wake(s->uffd, run_host(page), page->region->page_bytes);
		break;
	case FILL_NO_MEMORY:
	case FILL_BAD_SOURCE:
	case FILL_FAILED:
		session_count(s, COUNTER_COPY_ERRORS, 1);
		raise_alarm(s, SESSION_POST_FILL_ALARM, fill.error);
		return SERVE_LATER;
	}
	return SERVED;
}

/* The slot to serve next, or NULL and in *ret_due_ns when to look again (0: when told). */
static struct iolane_slot *
next_slot(struct iolane *lane, uint64_t now_ns, uint64_t *ret_due_ns)
{
	*ret_due_ns = 0;
	for (unsigned i = 0; i < IOLANE_SLOTS; i++) {
		struct iolane_slot *slot = &lane->slots[i];

		if (slot->page.nr == 0 || slot->busy)
			continue;
		if (slot->due_ns <= now_ns)
			return slot;
		if (*ret_due_ns == 0 || slot->due_ns < *ret_due_ns)
			*ret_due_ns = slot->due_ns;
	}
	return NULL;
}

static void
wait_for_work(struct iolane *lane, uint64_t due_ns)
{
	struct timespec until = {
	    .tv_sec = (time_t)(due_ns / NS_PER_S),
	    .tv_nsec = (long)(due_ns % NS_PER_S),
	};

	if (due_ns == 0)
		pthread_cond_wait(&lane->work, &lane->mutex);
	else
		pthread_cond_timedwait(&lane->work, &lane->mutex, &until);
}

static void
back_off(struct iolane_slot *slot)
{
	uint64_t wait_ns = RETRY_FIRST_NS << (slot->tries < 7 ? slot->tries : 7);

	slot->tries++;
	slot->due_ns = clock_now_ns() + (wait_ns < RETRY_LAST_NS ? wait_ns : RETRY_LAST_NS);
}

static bool
is_any_failing(const struct iolane *lane)
{
	for (unsigned i = 0; i < IOLANE_SLOTS; i++) {
		if (lane->slots[i].page.nr != 0 && lane->slots[i].failed > 0)
			return true;
	}
	return false;
}

static void
finish_slot(struct session *s, struct iolane_slot *slot, enum served served)
{
	struct iolane *lane = &s->iolane;
	bool again = slot->again;

	slot->busy = false;
	slot->again = false;
	if (served == SERVE_LATER && !lane->overflow) {
		back_off(slot);
		return;
	}
	if (served == SERVED && again)
		return;
	memset(slot, 0, sizeof(*slot));
	lane->used--;
	if (lane->overflow && lane->used < IOLANE_SLOTS / 2) {
		lane->overflow = false;
		fault_wake_all(s);
	}
	if (served == SERVED && !lane->overflow && atomic_load(&s->unreadable.is_failing) &&
	    !is_any_failing(lane))
		unreadable_over(s);
}

static void
serve_until_stopped(struct session *s, void *buf)
{
	struct iolane *lane = &s->iolane;
	struct iolane_slot *slot;
	struct run page;
	enum served served;
	uint64_t due_ns;

	pthread_mutex_lock(&lane->mutex);
	while (!lane->stop) {
		slot = next_slot(lane, clock_now_ns(), &due_ns);
		if (slot == NULL) {
			wait_for_work(lane, due_ns);
			continue;
		}
		slot->busy = true;
		page = slot->page;
		pthread_mutex_unlock(&lane->mutex);
		served = serve(s, slot, &page, buf);
		pthread_mutex_lock(&lane->mutex);
		finish_slot(s, slot, served);
	}
	lane->threads--;
	pthread_mutex_unlock(&lane->mutex);
}

/* Memory to read a page into; NULL only when the session stops first. */
static void *
get_buffer(struct session *s, uint64_t bytes)
{
	struct iolane *lane = &s->iolane;
	void *buf;

	for (;;) {
		buf = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
		if (buf != MAP_FAILED)
			return buf;
		raise_alarm(s, SESSION_POST_FILL_ALARM, ENOMEM);
		pthread_mutex_lock(&lane->mutex);
		if (!lane->stop)
			wait_for_work(lane, clock_now_ns() + BUFFER_NS);
		if (lane->stop) {
			lane->threads--;
			pthread_mutex_unlock(&lane->mutex);
			return NULL;
		}
		pthread_mutex_unlock(&lane->mutex);
	}
}

static void *
iolane_main(void *arg)
{
	struct session *s = arg;
	uint64_t bytes = largest_page(s);
	void *buf = get_buffer(s, bytes);

	if (buf != NULL) {
		serve_until_stopped(s, buf);
		munmap(buf, bytes);
	}
	session_thread_done(s);
	return NULL;
}

static struct iolane_slot *
find_slot(struct iolane *lane, const struct run *page)
{
	for (unsigned i = 0; i < IOLANE_SLOTS; i++) {
		struct iolane_slot *slot = &lane->slots[i];

		if (slot->page.nr != 0 && slot->page.first == page->first &&
		    slot->page.region == page->region)
			return slot;
	}
	return NULL;
}

static void
put_in_slot(struct iolane *lane, const struct run *page)
{
	struct iolane_slot *slot = find_slot(lane, page);
	unsigned i = 0;

	if (slot != NULL) {
		/* Its thread may have woken the guest already. */
		slot->again = slot->busy;
		return;
	}
	if (lane->used == IOLANE_SLOTS) {
		lane->overflow = true;
		return;
	}
	while (lane->slots[i].page.nr != 0)
		i++;
	lane->slots[i] = (struct iolane_slot){.page = *page};
	lane->used++;
}

/* A thread for each page, up to the bound: one that waits for its storage serves no other. */
static bool
needs_thread(const struct session *s)
{
	const struct iolane *lane = &s->iolane;
	unsigned most = largest_page(s) > PAGE_BYTES ? IOLANE_THREADS_HUGE : IOLANE_THREADS;

	return !lane->stop && lane->threads < most && lane->threads < lane->used;
}

bool
iolane_add(struct session *s, const struct run *page)
{
	struct iolane *lane = &s->iolane;
	bool taken = true;

	pthread_mutex_lock(&lane->mutex);
	put_in_slot(lane, page);
	if (needs_thread(s)) {
		lane->threads++;
		if (session_thread_start(s, iolane_main) < 0) {
			lane->threads--;
			taken = lane->threads > 0;
		}
	}
	/* Not one of them: it might be one that waits for memory. */
	pthread_cond_broadcast(&lane->work);
	pthread_mutex_unlock(&lane->mutex);
	if (taken)
		session_fault_count(s, COUNTER_IO_FAULTS, 1);
	else
		raise_alarm(s, SESSION_POST_FILL_ALARM, EAGAIN);
	return taken;
}
