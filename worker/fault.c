/* SPDX-License-Identifier: Apache-2.0 */
#include "worker/fault.h"

#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/fault.h"
#include "worker/fill.h"
#include "worker/image.h"
#include "worker/page.h"
#include "worker/session.h"
#include "worker/uffd.h"

#define DEFERRED_MAX 64U

/* Waits between tries of a fault that could not be answered.  A removal blocks fills for
 * some 5 to 60 us after its event was read; memory may be short for long. */
#define AGAIN_FIRST_NS	(20 * NS_PER_US)
#define AGAIN_LAST_NS	NS_PER_MS
#define MEMORY_FIRST_NS NS_PER_MS
#define MEMORY_LAST_NS	(100 * NS_PER_MS)

/* A spin that found nothing is followed by waits without one, twice as many each time. */
#define SPIN_SKIP_MAX 256U

/* A second descriptor in the poll would cost each fault 0.2 us. */
#define STOP_SIGNAL SIGUSR1

struct fault_thread {
	struct session *s;
	struct uffd_msg *msgs; /* PAGEMAP_EVENTS in the page map, which outlives us */
	size_t nr_msgs;
	uint64_t deferred[DEFERRED_MAX]; /* addresses whose fault waits for another try */
	size_t nr_deferred;
	bool forgotten;	  /* a fault did not fit there: wake everybody when it is empty */
	uint64_t wait_ns; /* until the next try; 0: nothing is deferred */
	uint64_t wait_last_ns;
	uint64_t buf_bytes;
	void *buf; /* where page-cache bytes are put before the copy */
	uint32_t spin_skip;
	uint32_t spin_left;
	sigset_t unblocked; /* while it waits: nothing, so that STOP_SIGNAL ends the wait */
};

static void
defer(struct fault_thread *t, uint64_t addr, uint64_t first_ns, uint64_t last_ns)
{
	if (t->nr_deferred < DEFERRED_MAX)
		t->deferred[t->nr_deferred++] = addr;
	else
		t->forgotten = true;
	if (t->wait_last_ns < last_ns)
		t->wait_last_ns = last_ns;
	if (t->wait_ns < first_ns)
		t->wait_ns = first_ns;
}

static void
alarm_fill(struct session *s, int error)
{
	session_fault_count(s, COUNTER_COPY_ERRORS, 1);
	atomic_store(&s->alarm_error, error);
	session_post(s, SESSION_POST_FILL_ALARM);
}

/* What remains to be done when the first page of a fill was not settled by it. */
static void
not_filled(struct fault_thread *t, const struct run *page, enum fill_result result, int error)
{
	struct session *s = t->s;

	switch (result) {
	case FILL_DONE:
		break;
	case FILL_AGAIN:
		session_fault_count(s, COUNTER_FILL_AGAIN, 1);
		defer(t, run_host(page), AGAIN_FIRST_NS, AGAIN_LAST_NS);
		break;
	case FILL_STALE:
	case FILL_NO_RANGE:
		/* Another fill won, or the VMM took the page away: let it fault again, or
		 * go on without us. */
		uffd_wake(s->uffd, run_host(page), page->region->page_bytes);
		break;
	case FILL_GONE:
		session_post(s, SESSION_POST_GONE);
		break;
	case FILL_NO_MEMORY:
		session_fault_count(s, COUNTER_COPY_ERRORS, 1);
		defer(t, run_host(page), MEMORY_FIRST_NS, MEMORY_LAST_NS);
		break;
	case FILL_BAD_SOURCE:
		iolane_add(s, page);
		break;
	case FILL_FAILED:
		alarm_fill(s, error);
		defer(t, run_host(page), MEMORY_LAST_NS, MEMORY_LAST_NS);
		break;
	}
}

/* Shortens run to pages that are all hole or all data, and all in memory.  Returns where
 * their bytes are, NULL for a hole; run->nr is 0 when its first page must be waited for. */
static const void *
clip_to_source(struct fault_thread *t, struct run *run)
{
	struct image *image = t->s->image;
	uint64_t page_bytes = run->region->page_bytes;
	uint64_t bytes = run_bytes(run), n;
	const void *src = NULL;

	if (bytes > t->buf_bytes)
		bytes = t->buf_bytes;
	if (image_is_hole(image, run_offset(run), bytes, &n) && n >= page_bytes) {
		run->nr = n / page_bytes;
		return NULL;
	}
	bytes = n >= page_bytes ? n : page_bytes;
	bytes = image_peek(image, run_offset(run), bytes, t->buf, &src);
	run->nr = bytes / page_bytes;
	return src;
}

/* Fills from the first page of run on, as far as it is absent and can be had at once. */
static enum fill_result
fill_at_once(struct fault_thread *t, struct run *run, struct fill *ret)
{
	const void *src = clip_to_source(t, run);

	*ret = (struct fill){0};
	if (run->nr == 0)
		return FILL_BAD_SOURCE;
	return fill_run(t->s, run, src, FILL_FOR_FAULT, ret);
}

/* How many pages from first on, below end, are absent. */
static uint64_t
absent_from(const struct pagemap *map, const struct region *r, uint64_t first, uint64_t end)
{
	uint64_t base = region_map_first(r), p = first;

	while (p < end && page_get(map, base + p) == PAGE_ABSENT)
		p++;
	return p - first;
}

/* The rest of a window, once the faulting page is there: nobody waits for it. */
static void
fill_neighbours(struct fault_thread *t, const struct run *window)
{
	uint64_t p = window->first, end = window->first + window->nr;
	const struct region *r = window->region;
	struct fill fill;

	while (p < end) {
		struct run run = {r, p, absent_from(&t->s->map, r, p, end)};

		if (run.nr == 0) {
			p++;
			continue;
		}
		if (fill_at_once(t, &run, &fill) != FILL_DONE)
			return;
		p += fill.nr_done;
	}
}

static void
answer_from_image(struct fault_thread *t, const struct run *page)
{
	struct session *s = t->s;
	struct run window = cluster_window(&s->cluster, &s->map, page);
	struct run run = *page;
	struct fill fill;
	enum fill_result result;

	run.nr = 1 + absent_from(&s->map, page->region, page->first + 1, window.first + window.nr);
	result = fill_at_once(t, &run, &fill);
	if (result == FILL_NO_RANGE && fill.nr_done == 0 && run.nr > 1) {
		/* The VMM split its mapping somewhere in the cluster. */
		run = *page;
		result = fill_at_once(t, &run, &fill);
	}
	if (fill.nr_done == 0)
		not_filled(t, page, result, fill.error);
	else if (window.nr > 1 && result == FILL_DONE)
		fill_neighbours(t, &window);
}

static void
answer(struct fault_thread *t, uint64_t addr)
{
	struct session *s = t->s;
	struct run page = {.region = region_find(&s->regions, addr), .nr = 1};

	if (page.region == NULL) {
		session_fault_count(s, COUNTER_STRAY_FAULTS, 1);
		return;
	}
	page.first = (addr - page.region->host_addr) / page.region->page_bytes;
	if (page_is_fillable(page_get(&s->map, run_map(&page))))
		answer_from_image(t, &page);
	else
		not_filled(t, &page, fill_again(s, &page), 0);
}

/* They are in the page map now.  A death before this only applies them twice. */
static void
forget_removals(struct fault_thread *t)
{
	for (size_t i = 0; i < t->nr_msgs; i++) {
		if (t->msgs[i].event != UFFD_EVENT_PAGEFAULT)
			t->msgs[i].event = 0;
	}
}

/* Reads what is there and applies its removals.  Returns the number of events. */
static size_t
read_batch(struct fault_thread *t)
{
	struct session *s = t->s;
	int n;

	copylock_demand(&s->copylock);
	n = uffd_read(s->uffd, t->msgs, PAGEMAP_EVENTS);
	t->nr_msgs = n > 0 ? (size_t)n : 0;
	if (n > 0) {
		(void)fault(FAULT_EVENTS_AFTER_READ);
		session_fault_count(
		    s, COUNTER_FAULTS, fault_apply_removals(s, t->msgs, t->nr_msgs));
		forget_removals(t);
	}
	copylock_demand_done(&s->copylock);
	return t->nr_msgs;
}

static void
answer_batch(struct fault_thread *t)
{
	struct session *s = t->s;
	uint64_t begin = clock_now_ns(), took;

	session_fault_set(s, COUNTER_FAULTS_ACTIVE, t->nr_msgs);
	session_fault_max(s, COUNTER_FAULTS_ACTIVE_MAX, t->nr_msgs);
	(void)fault(FAULT_FILL_AFTER_READ);
	for (size_t i = 0; i < t->nr_msgs; i++) {
		if (t->msgs[i].event != UFFD_EVENT_PAGEFAULT)
			continue;
		answer(t, t->msgs[i].arg.pagefault.address);
		took = clock_now_ns() - begin;
		session_fault_count(s, COUNTER_FAULT_NANOS, took);
		session_fault_max(s, COUNTER_FAULT_MAX_NANOS, took);
	}
	session_fault_set(s, COUNTER_FAULTS_ACTIVE, 0);
}

static void
retry_deferred(struct fault_thread *t)
{
	uint64_t again[DEFERRED_MAX];
	size_t nr = t->nr_deferred;
	uint64_t waited_ns = t->wait_ns;

	if (nr == 0)
		return;
	memcpy(again, t->deferred, nr * sizeof(again[0]));
	t->nr_deferred = 0;
	t->wait_ns = 0;
	for (size_t i = 0; i < nr; i++)
		answer(t, again[i]);
	if (t->nr_deferred > 0 && waited_ns * 2 > t->wait_ns)
		t->wait_ns = waited_ns * 2 < t->wait_last_ns ? waited_ns * 2 : t->wait_last_ns;
	if (t->nr_deferred > 0)
		return;
	t->wait_last_ns = 0;
	if (t->forgotten) {
		t->forgotten = false;
		fault_wake_all(t->s);
	}
}

/* Looks for events without sleeping.  Gives up for a growing number of waits when that
 * does not pay: the guest is idle, or it needs the CPU that the spin burns. */
static bool
spin(struct fault_thread *t)
{
	uint64_t until;

	if (t->s->spin_us == 0 || t->nr_deferred > 0)
		return false;
	if (t->spin_left > 0) {
		t->spin_left--;
		return false;
	}
	until = clock_now_ns() + t->s->spin_us * NS_PER_US;
	do {
		if (read_batch(t) > 0) {
			t->spin_skip = 0;
			return true;
		}
	} while (clock_now_ns() < until);
	t->spin_skip = t->spin_skip == 0 ? 1 : t->spin_skip * 2;
	if (t->spin_skip > SPIN_SKIP_MAX)
		t->spin_skip = SPIN_SKIP_MAX;
	t->spin_left = t->spin_skip;
	return false;
}

/* Waits for events, for the next try of a deferred fault, or for the end. */
static void
wait_for_events(struct fault_thread *t)
{
	struct pollfd fd = {.fd = t->s->uffd, .events = POLLIN};
	struct timespec timeout = {
	    .tv_sec = (time_t)(t->wait_ns / NS_PER_S),
	    .tv_nsec = (long)(t->wait_ns % NS_PER_S),
	};

	t->nr_msgs = 0;
	if (spin(t))
		return;
	if (ppoll(&fd, 1, t->nr_deferred > 0 ? &timeout : NULL, &t->unblocked) > 0)
		read_batch(t);
}

static void
on_stop_signal(int sig)
{
	(void)sig;
}

void
fault_init_signal(void)
{
	struct sigaction action = {.sa_handler = on_stop_signal};
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, STOP_SIGNAL);
	sigaction(STOP_SIGNAL, &action, NULL);
	pthread_sigmask(SIG_BLOCK, &set, NULL);
}

void
fault_interrupt(struct session *s)
{
	int tid = atomic_load(&s->fault_tid);

	/* Blocked until the thread waits, so it cannot come too early; a thread that has not
	 * said its number yet looks at the flag first. */
	if (tid != 0)
		(void)syscall(SYS_tgkill, getpid(), tid, STOP_SIGNAL);
}

static uint64_t
largest_fill(const struct session *s)
{
	uint64_t bytes = (uint64_t)s->cluster.max_pages * PAGE_BYTES;

	for (uint32_t i = 0; i < s->regions.nr; i++) {
		if (s->regions.rows[i].page_bytes > bytes)
			bytes = s->regions.rows[i].page_bytes;
	}
	return bytes;
}

void *
fault_main(void *arg)
{
	struct session *s = arg;
	struct fault_thread t = {
	    .s = s,
	    .msgs = fault_events(s),
	    .buf_bytes = largest_fill(s),
	};

	sigemptyset(&t.unblocked);
	atomic_store(&s->fault_tid, (int)syscall(SYS_gettid));
	t.buf = mmap(NULL, t.buf_bytes, PROT_READ | PROT_WRITE,
	    MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
	if (t.buf == MAP_FAILED) {
		/* The image can still be served, by the threads that may wait. */
		t.buf = NULL;
		t.buf_bytes = 0;
	}
	while (!atomic_load(&s->stop)) {
		wait_for_events(&t);
		answer_batch(&t);
		retry_deferred(&t);
	}
	if (t.buf != NULL)
		munmap(t.buf, t.buf_bytes);
	session_thread_done(s);
	return NULL;
}
