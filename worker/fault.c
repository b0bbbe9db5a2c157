/* SPDX-License-Identifier: Apache-2.0 */
#include "worker/fault.h"

#include <errno.h>
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
#include "common/probe.h"
#include "worker/fill.h"
#include "worker/image.h"
#include "worker/overlay.h"
#include "worker/page.h"
#include "worker/recorder.h"
#include "worker/session.h"
#include "worker/uffd.h"

#define DEFERRED_MAX 64U

/* Waits between tries of a fault that could not be answered.  A removal blocks fills for
 * some 5 to 60 us after its event was read; memory may be short for long. */
#define AGAIN_FIRST_NS	(20 * NS_PER_US)
#define AGAIN_LAST_NS	NS_PER_MS
#define MEMORY_FIRST_NS NS_PER_MS
#define MEMORY_LAST_NS	(100 * NS_PER_MS)

/* While some faults had no place among the deferred ones, everybody is woken this often. */
#define FORGOTTEN_NS (100 * NS_PER_MS)
/* A userfaultfd that cannot be waited for is looked at this often. */
#define BLIND_NS NS_PER_MS

/* A spin that found nothing is followed by waits without one, twice as many each time. */
#define SPIN_SKIP_MAX 256U

/* A second descriptor in the poll would cost each fault 0.2 us. */
#define STOP_SIGNAL SIGUSR1

/* A fault that waits for another try. */
struct deferred {
	uint64_t addr;
	uint64_t flags; /* UFFD_PAGEFAULT_FLAG_… */
	uint64_t due_ns;
	uint64_t wait_ns; /* that ends then */
	bool is_woken;	  /* who waited: no other try unless it faults again */
	bool has_faulted; /* it has */
};

struct fault_thread {
	struct session *s;
	struct uffd_msg *msgs; /* PAGEMAP_EVENTS in the page map, which outlives us */
	size_t nr_msgs;
	size_t nr_faults; /* among them */
	struct deferred deferred[DEFERRED_MAX];
	size_t nr_deferred;
	uint64_t flags;	    /* UFFD_PAGEFAULT_FLAG_… of the fault that is answered now */
	uint64_t waited_ns; /* by the fault that is tried again now; 0: it is a new one */
	uint64_t wake_ns;   /* when everybody is woken at the latest; 0: none was forgotten */
	uint64_t buf_bytes;
	void *buf; /* where page-cache bytes are put before the copy */
	uint32_t spin_skip;
	uint32_t spin_left;
	sigset_t unblocked; /* while it waits: nothing, so that STOP_SIGNAL ends the wait */
};

static bool
is_deferred(struct fault_thread *t, uint64_t addr)
{
	for (size_t i = 0; i < t->nr_deferred; i++) {
		struct deferred *d = &t->deferred[i];

		if (d->addr != addr)
			continue;
		/* A write to it: it was there after all. */
		if (d->is_woken && (t->flags & UFFD_PAGEFAULT_FLAG_WP) != 0) {
			*d = t->deferred[--t->nr_deferred];
			return false;
		}
		d->has_faulted = true;
		return true;
	}
	return false;
}

/* Tries again after first_ns, then after twice as long each time, up to last_ns; NULL when it
 * is forgotten instead. */
static struct deferred *
defer(struct fault_thread *t, uint64_t addr, uint64_t first_ns, uint64_t last_ns)
{
	uint64_t now_ns = clock_now_ns(), wait_ns = t->waited_ns * 2;

	if (wait_ns < first_ns)
		wait_ns = first_ns;
	if (wait_ns > last_ns)
		wait_ns = last_ns;
	if (t->nr_deferred < DEFERRED_MAX) {
		struct deferred *d = &t->deferred[t->nr_deferred++];

		*d = (struct deferred){
		    .addr = addr,
		    .flags = t->flags,
		    .due_ns = now_ns + wait_ns,
		    .wait_ns = wait_ns,
		};
		return d;
	}
	if (t->wake_ns == 0)
		t->wake_ns = now_ns + FORGOTTEN_NS;
	return NULL;
}

/* Its waiters were woken and may fault at once: they wait for the pause, and without them there
 * is no other try. */
static void
defer_woken(struct fault_thread *t, uint64_t addr)
{
	struct deferred *d = defer(t, addr, MEMORY_FIRST_NS, MEMORY_LAST_NS);

	if (d != NULL)
		d->is_woken = true;
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
		/* Short of memory for a moment is nobody's business. */
		if (t->waited_ns >= MEMORY_LAST_NS)
			alarm_fill(s, error);
		else
			session_fault_count(s, COUNTER_COPY_ERRORS, 1);
		defer(t, run_host(page), MEMORY_FIRST_NS, MEMORY_LAST_NS);
		break;
	case FILL_MAYBE:
		if (t->waited_ns >= MEMORY_LAST_NS)
			alarm_fill(s, ENOMEM);
		defer_woken(t, run_host(page));
		break;
	case FILL_BAD_SOURCE:
		if (!iolane_add(s, page))
			defer(t, run_host(page), MEMORY_FIRST_NS, MEMORY_LAST_NS);
		break;
	case FILL_FAILED:
		alarm_fill(s, error);
		defer(t, run_host(page), MEMORY_LAST_NS, MEMORY_LAST_NS);
		break;
	}
}

/* Shortens run to pages that are all overlay, all hole or all data, and all in memory.
 * Returns where their bytes are, NULL for a hole; run->nr is 0 when its first page must be
 * waited for. */
static const void *
clip_to_source(struct fault_thread *t, struct run *run)
{
	struct image *image = t->s->image;
	uint64_t page_bytes = run->region->page_bytes, bytes, n;
	const void *src = NULL;

	if (t->s->overlays != NULL) {
		enum overlay_kind kind = overlay_clip(t->s->overlays, run, &src);

		if (kind == OVERLAY_PART)
			run->nr = 0;
		if (kind != OVERLAY_NONE)
			return src;
	}
	bytes = run_bytes(run);
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
fill_at_once(struct fault_thread *t, struct run *run, enum fill_why why, struct fill *ret)
{
	const void *src = clip_to_source(t, run);

	*ret = (struct fill){0};
	if (run->nr == 0)
		return FILL_BAD_SOURCE;
	return fill_run(t->s, run, src, why, ret);
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
		if (fill_at_once(t, &run, FILL_FOR_FAULT, &fill) != FILL_DONE)
			return;
		p += fill.nr_done;
	}
}

static struct run
window_of(struct session *s, const struct run *page, bool *ret_is_stream)
{
	*ret_is_stream = false;
	if (atomic_load_explicit(&s->recorder, memory_order_relaxed) != NULL)
		return *page;
	return cluster_window(&s->cluster, &s->map, page, ret_is_stream);
}

/* What is filled before the guest goes on.  One that reads on would be back for the next page
 * before that is there; any other one goes on beside the filling of the neighbours. */
static void
fill_first(struct fault_thread *t, struct run *run, const struct run *window, bool is_stream)
{
	if (is_stream)
		run->nr += absent_from(
		    &t->s->map, run->region, run->first + 1, window->first + window->nr);
}

static void
answer_from_image(struct fault_thread *t, const struct run *page)
{
	struct session *s = t->s;
	bool is_stream;
	struct run window = window_of(s, page, &is_stream);
	struct run run = *page;
	enum fill_why why = FILL_FOR_FAULT;
	struct fill fill;
	enum fill_result result;

	/* Known to be written: to protect it first would only make it fault again. */
	if (s->is_tracked && (t->flags & UFFD_PAGEFAULT_FLAG_WRITE) != 0)
		why = FILL_FOR_WRITE;
	else
		fill_first(t, &run, &window, is_stream);
	result = fill_at_once(t, &run, why, &fill);
	if (result == FILL_NO_RANGE && fill.nr_done == 0 && run.nr > 1) {
		/* The VMM split its mapping somewhere in the cluster. */
		run = *page;
		result = fill_at_once(t, &run, why, &fill);
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
	enum fill_result result;
	struct fill fill;

	if (page.region == NULL) {
		session_fault_count(s, COUNTER_STRAY_FAULTS, 1);
		return;
	}
	page.first = (addr - page.region->host_addr) / page.region->page_bytes;
	/* A thread that a signal interrupts in the kernel faults thousands of times. */
	if (is_deferred(t, run_host(&page)))
		return;
	if ((t->flags & UFFD_PAGEFAULT_FLAG_WP) != 0) {
		result = fill_allow_write(s, &page, &fill);
		not_filled(t, &page, result, fill.error);
		return;
	}
	if ((t->flags & UFFD_PAGEFAULT_FLAG_MINOR) != 0) {
		result = fill_map(s, &page, &fill);
		not_filled(t, &page, result, fill.error);
		return;
	}
	if (page_is_fillable(page_get(&s->map, run_map(&page)))) {
		answer_from_image(t, &page);
		return;
	}
	result = fill_again(s, &page, &fill);
	not_filled(t, &page, result, fill.error);
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

/* Reads what is there and applies its removals.  Returns the number of events or a negative
 * errno. */
static int
read_batch(struct fault_thread *t)
{
	struct session *s = t->s;
	int n;

	copylock_demand(&s->copylock);
	n = uffd_read(s->uffd, t->msgs, PAGEMAP_EVENTS);
	t->nr_msgs = n > 0 ? (size_t)n : 0;
	if (n > 0) {
		atomic_store_explicit(&s->answering, true, memory_order_relaxed);
		(void)fault(FAULT_EVENTS_AFTER_READ);
		t->nr_faults = fault_apply_removals(s, t->msgs, t->nr_msgs);
		session_fault_count(s, COUNTER_FAULTS, t->nr_faults);
		forget_removals(t);
		recorder_note(s, t->msgs, t->nr_msgs);
	}
	copylock_demand_done(&s->copylock);
	return n;
}

/* From here on the page map changes outside the copy lock: begun only under it, so that who
 * holds it can wait for the end (see picture.c). */
static void
begin_answering(struct fault_thread *t)
{
	struct session *s = t->s;

	if (atomic_load_explicit(&s->answering, memory_order_relaxed))
		return;
	copylock_demand(&s->copylock);
	atomic_store_explicit(&s->answering, true, memory_order_relaxed);
	copylock_demand_done(&s->copylock);
}

static void
end_answering(struct fault_thread *t)
{
	atomic_store_explicit(&t->s->answering, false, memory_order_release);
}

static void
answer_batch(struct fault_thread *t)
{
	struct session *s = t->s;
	uint64_t begin, took;

	if (t->nr_msgs == 0)
		return;
	session_fault_set(s, COUNTER_FAULTS_ACTIVE, t->nr_faults);
	session_fault_max(s, COUNTER_FAULTS_ACTIVE_MAX, t->nr_faults);
	(void)fault(FAULT_FILL_AFTER_READ);
	begin = clock_now_ns();
	for (size_t i = 0; i < t->nr_msgs; i++) {
		if (t->msgs[i].event != UFFD_EVENT_PAGEFAULT)
			continue;
		t->flags = t->msgs[i].arg.pagefault.flags;
		PROBE2(fault_begin, s->number, t->msgs[i].arg.pagefault.address);
		answer(t, t->msgs[i].arg.pagefault.address);
		PROBE2(fault_end, s->number, t->msgs[i].arg.pagefault.address);
		took = clock_now_ns() - begin;
		session_fault_count(s, COUNTER_FAULT_NANOS, took);
		session_fault_max(s, COUNTER_FAULT_MAX_NANOS, took);
		session_fault_time(s, took);
	}
	session_fault_set(s, COUNTER_FAULTS_ACTIVE, 0);
}

/* Who was forgotten gets a try of its own, even when no place ever becomes free. */
static void
wake_forgotten(struct fault_thread *t, uint64_t now_ns)
{
	if (t->wake_ns == 0 || (t->nr_deferred >= DEFERRED_MAX / 2 && now_ns < t->wake_ns))
		return;
	t->wake_ns = 0;
	fault_wake_all(t->s);
}

static void
retry_deferred(struct fault_thread *t)
{
	uint64_t now_ns;
	size_t i = 0;

	if (t->nr_deferred == 0 && t->wake_ns == 0)
		return;
	begin_answering(t);
	now_ns = clock_now_ns();
	while (i < t->nr_deferred) {
		struct deferred d = t->deferred[i];

		if (d.due_ns > now_ns) {
			i++;
			continue;
		}
		/* What is deferred again is due later than now. */
		t->deferred[i] = t->deferred[--t->nr_deferred];
		if (d.is_woken && !d.has_faulted)
			continue;
		t->waited_ns = d.wait_ns;
		t->flags = d.flags;
		answer(t, d.addr);
	}
	t->waited_ns = 0;
	wake_forgotten(t, now_ns);
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

/* How long until a fault is due for another try. */
static struct timespec
until_due(const struct fault_thread *t)
{
	uint64_t due_ns = t->wake_ns != 0 ? t->wake_ns : UINT64_MAX, now_ns = clock_now_ns(), ns;

	for (size_t i = 0; i < t->nr_deferred; i++) {
		if (t->deferred[i].due_ns < due_ns)
			due_ns = t->deferred[i].due_ns;
	}
	ns = due_ns > now_ns ? due_ns - now_ns : 0;
	return (struct timespec){
	    .tv_sec = (time_t)(ns / NS_PER_S),
	    .tv_nsec = (long)(ns % NS_PER_S),
	};
}

/* Waits for events, for the next try of a deferred fault, or for the end. */
static void
wait_for_events(struct fault_thread *t)
{
	const struct timespec blind = {.tv_nsec = BLIND_NS};
	struct pollfd fd = {.fd = t->s->uffd, .events = POLLIN};
	struct timespec timeout, *wait = NULL;

	t->nr_msgs = 0;
	if (spin(t))
		return;
	if (t->nr_deferred > 0 || t->wake_ns != 0) {
		timeout = until_due(t);
		wait = &timeout;
	}
	if (ppoll(&fd, 1, wait, &t->unblocked) <= 0)
		return;
	/* The VMM shares the flags of its userfaultfd and may make it blocking: then poll()
	 * calls it an error at once and for ever. */
	if (read_batch(t) < 0 || (fd.revents & POLLIN) == 0)
		(void)ppoll(NULL, 0, &blind, &t->unblocked);
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
		end_answering(&t);
	}
	if (t.buf != NULL)
		munmap(t.buf, t.buf_bytes);
	session_thread_done(s);
	return NULL;
}
