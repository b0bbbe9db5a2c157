/* SPDX-License-Identifier: Apache-2.0 */
#include "worker/fill.h"

#include <errno.h>

#include "common/fault.h"
#include "worker/page.h"
#include "worker/session.h"
#include "worker/uffd.h"

#define HUGE_BYTES (UINT64_C(2) << 20)

/* The kernel cannot map a huge zero page for us: zeros are copied.  Never written, so it
 * costs no memory; not const, or it would be 2 MiB of the executable. */
static unsigned char huge_zeros[HUGE_BYTES];

static enum fill_result
result_of(enum uffd_result result)
{
	static const enum fill_result results[] = {
	    [UFFD_DONE] = FILL_DONE,
	    [UFFD_EXISTS] = FILL_DONE,
	    [UFFD_AGAIN] = FILL_AGAIN,
	    [UFFD_GONE] = FILL_GONE,
	    [UFFD_NO_RANGE] = FILL_NO_RANGE,
	    [UFFD_NO_MEMORY] = FILL_NO_MEMORY,
	    [UFFD_BAD_SOURCE] = FILL_BAD_SOURCE,
	    [UFFD_FAILED] = FILL_FAILED,
	};

	return results[result];
}

/* Whether the guest may write to what is filled without being noticed: then it counts as
 * written.  The kernel does not protect its zero page in one step with putting it in place, and
 * a page of zeros for each hole would make a completion need all of the memory. */
static bool
is_writable(const struct session *s, const struct run *run, const void *src, enum fill_why why)
{
	return s->is_tracked &&
	    (why == FILL_FOR_WRITE ||
		(why == FILL_FOR_BACKGROUND && src == NULL &&
		    run->region->page_bytes == PAGE_BYTES));
}

static bool
mark_page(struct session *s, uint64_t page, bool dirty)
{
	return dirty ? page_step_dirty(&s->map, page, PAGE_EV_MARK)
		     : page_step(&s->map, page, PAGE_EV_MARK);
}

/* Ends where pages that are "filling" already meet others: see unmark(). */
static uint64_t
mark(struct session *s, const struct run *run, bool was_filling, bool dirty)
{
	uint64_t first = run_map(run), n = 0;

	while (n < run->nr && (page_get(&s->map, first + n) == PAGE_FILLING) == was_filling &&
	    mark_page(s, first + n, dirty))
		n++;
	return n;
}

static void
settle(struct session *s, uint64_t first, uint64_t nr, enum fill_why why)
{
	for (uint64_t i = 0; i < nr; i++) {
		if (why == FILL_FOR_BACKGROUND)
			page_step_background(&s->map, first + i);
		else
			page_step(&s->map, first + i, PAGE_EV_FILLED);
	}
}

/* Not of what was "filling" before: a worker that died may have filled it, and the guest may have
 * written to it since.  Nobody but the kernel knows, and nobody may call it absent. */
static void
unmark(struct session *s, uint64_t first, uint64_t nr)
{
	for (uint64_t i = 0; i < nr; i++)
		page_step(&s->map, first + i, PAGE_EV_UNMARK);
}

static void
count(struct session *s, enum fill_why why, enum counter counter, uint64_t n)
{
	if (why == FILL_FOR_FAULT || why == FILL_FOR_WRITE)
		session_fault_count(s, counter, n);
	else
		session_count(s, counter, n);
}

static void
count_filled(struct session *s, uint64_t nr, uint64_t bytes, bool zeros, enum fill_why why)
{
	if (zeros) {
		count(s, why, COUNTER_PAGES_ZEROED, nr);
		return;
	}
	count(s, why, why == FILL_FOR_BACKGROUND ? COUNTER_PAGES_BACKGROUND : COUNTER_PAGES_DEMAND,
	    nr);
	count(s, why, COUNTER_IMAGE_BYTES_READ, bytes);
}

/* One ioctl for the pages [first, first + nr) of a region, all of them marked; of zeros not
 * always for all of them.  writable matters only where writes are tracked. */
static enum uffd_result
fill_once(
    struct session *s, const struct run *run, const void *src, bool writable, struct uffd_fill *f)
{
	uint64_t bytes = run_bytes(run);

	if (src == NULL && run->region->page_bytes == HUGE_BYTES)
		bytes = HUGE_BYTES;
	if (src == NULL &&
	    (run->region->page_bytes == HUGE_BYTES || (s->is_tracked && !writable))) {
		src = huge_zeros;
		bytes = bytes < HUGE_BYTES ? bytes : HUGE_BYTES;
	}
	if (s->is_tracked && !writable)
		return uffd_fill_protected(s->uffd, run_host(run), src, bytes, f);
	return uffd_fill(s->uffd, run_host(run), src, bytes, f);
}

/* The kernel found the page in place and woke nobody.  Who put it there, and whether writes to
 * it are noticed, is not known: the other filler of a race, a worker that died, the VMM. */
static void
page_exists(struct session *s, const struct run *page, enum fill_why why)
{
	if (s->is_tracked)
		page_set_flag(&s->map, run_map(page), PAGE_F_DIRTY);
	settle(s, run_map(page), 1, why);
	uffd_wake(s->uffd, run_host(page), page->region->page_bytes);
	count(s, why, COUNTER_FILL_EXISTS, 1);
}

/* It wakes: a page that is there after all is not waited for, and one that is not faults again. */
static void
maybe_exists(struct session *s, const struct run *page, enum fill_why why)
{
	uffd_wake(s->uffd, run_host(page), page->region->page_bytes);
	count(s, why, COUNTER_FILL_EXISTS, 1);
}

/*
 * The heart of the program.  For each page, in this order:
 *
 *	absent -> filling	before the kernel is asked
 *	the ioctl
 *	filling -> present	once the kernel has the page
 *
 * Dying before the ioctl leaves "filling": whoever comes next asks the kernel, which
 * copies the image.  Dying after it leaves "filling" too: the kernel says that the
 * page exists.  With the mark for "present" first, a death in between would turn the
 * page into zeros for ever.  "Dirty" is the opposite: it is said before the guest can write, and
 * a death in between makes us write a page more than need be.  A removal cannot slip in between the ioctl and the last
 * mark: it is read by the fault thread, which is either the one in here or waits for
 * the copy lock that a background copy holds.
 */
static enum fill_result
fill_alike(
    struct session *s, const struct run *run, const void *src, enum fill_why why, struct fill *ret)
{
	uint64_t page_bytes = run->region->page_bytes;
	bool writable = is_writable(s, run, src, why);
	bool was_filling = page_get(&s->map, run_map(run)) == PAGE_FILLING;
	uint64_t marked = mark(s, run, was_filling, writable);
	enum uffd_result result = UFFD_DONE;
	struct uffd_fill f = {0};

	*ret = (struct fill){0};
	(void)fault(FAULT_FILL_AFTER_MARK);
	while (ret->nr_done < marked && (result == UFFD_DONE || result == UFFD_EXISTS)) {
		struct run rest = {run->region, run->first + ret->nr_done, marked - ret->nr_done};
		uint64_t done;

		result = fill_once(s, &rest,
		    src == NULL ? NULL : (const char *)src + ret->nr_done * page_bytes, writable,
		    &f);
		(void)fault(FAULT_FILL_AFTER_IOCTL);
		count(s, why, COUNTER_COPIES, 1);
		done = f.done_bytes / page_bytes;
		settle(s, run_map(&rest), done, why);
		count_filled(s, done, f.done_bytes, src == NULL, why);
		ret->nr_done += done;
		if (result == UFFD_EXISTS) {
			rest.first += done;
			rest.nr = 1;
			if (page_bytes == HUGE_BYTES) {
				maybe_exists(s, &rest, why);
				break;
			}
			page_exists(s, &rest, why);
			ret->nr_done++;
		}
	}
	if (!was_filling)
		unmark(s, run_map(run) + ret->nr_done, marked - ret->nr_done);
	if (ret->nr_done < marked) {
		ret->error = f.error;
		return result == UFFD_EXISTS ? FILL_MAYBE : result_of(result);
	}
	return marked < run->nr ? FILL_STALE : FILL_DONE;
}

enum fill_result
fill_run(
    struct session *s, const struct run *run, const void *src, enum fill_why why, struct fill *ret)
{
	uint64_t page_bytes = run->region->page_bytes;
	enum fill_result result;
	struct fill part;

	*ret = (struct fill){0};
	do {
		struct run rest = {run->region, run->first + ret->nr_done, run->nr - ret->nr_done};
		const void *at = src == NULL ? NULL : (const char *)src + ret->nr_done * page_bytes;

		result = fill_alike(s, &rest, at, why, &part);
		ret->nr_done += part.nr_done;
		ret->error = part.error;
	} while (result == FILL_STALE && part.nr_done > 0);
	return result;
}

/* The one place where present is said of what the kernel may not have: zeros belong there, and a
 * death turns them into zeros. */
void
fill_hole(struct session *s, const struct run *run)
{
	settle(s, run_map(run), run->nr, FILL_FOR_BACKGROUND);
	session_count(s, COUNTER_PAGES_ZEROED, run->nr);
}

/* Zeros where the map says removed or present: the guest may write to them unnoticed, and what is
 * there is not the image's any more.  A removed page that is back must not be taken for empty by
 * who looks at the map after our death. */
static bool
mark_again(struct session *s, uint64_t page)
{
	if (!s->is_tracked && page_get(&s->map, page) != PAGE_REMOVED)
		return false;
	return page_set_flag(&s->map, page, PAGE_F_DIRTY);
}

enum fill_result
fill_again(struct session *s, const struct run *page, struct fill *ret)
{
	bool marked = mark_again(s, run_map(page));
	/* Not the kernel's zero page, which refuses a place where it remembers a protection. */
	const void *zeros = s->is_tracked ? huge_zeros : NULL;
	enum uffd_result result;
	struct uffd_fill f;

	result = fill_once(s, page, zeros, true, &f);
	*ret = (struct fill){.error = f.error};
	if (result == UFFD_EXISTS) {
		/* Another fill was faster than this event: nobody was woken by ours. */
		if (marked && page_get(&s->map, run_map(page)) == PAGE_PRESENT)
			page_clear_flag(&s->map, run_map(page), PAGE_F_DIRTY);
		maybe_exists(s, page, FILL_FOR_FAULT);
		if (page->region->page_bytes == HUGE_BYTES)
			return FILL_MAYBE;
	}
	if (result == UFFD_DONE) {
		page_step(&s->map, run_map(page), PAGE_EV_ZEROED);
		session_fault_count(s, COUNTER_PAGES_ZEROED, 1);
	}
	if (result_of(result) == FILL_DONE)
		*ret = (struct fill){.nr_done = 1};
	return result_of(result);
}

/* The file may have been written to by others: nobody knows what is there, and a death before the
 * last mark leaves it filling.  A removed page is back as one that was filled with zeros is. */
enum fill_result
fill_map(struct session *s, const struct run *page, struct fill *ret)
{
	uint64_t page_bytes = page->region->page_bytes;
	enum uffd_result result;
	int error;

	if (s->is_tracked || page_get(&s->map, run_map(page)) == PAGE_REMOVED)
		page_set_flag(&s->map, run_map(page), PAGE_F_DIRTY);
	page_step(&s->map, run_map(page), PAGE_EV_MARK);
	result = uffd_map(s->uffd, run_host(page), page_bytes, &error);
	*ret = (struct fill){.error = error};
	if (result == UFFD_BAD_SOURCE)
		return FILL_STALE;
	if (result_of(result) != FILL_DONE)
		return result_of(result);
	settle(s, run_map(page), 1, FILL_FOR_FAULT);
	page_step(&s->map, run_map(page), PAGE_EV_ZEROED);
	if (result == UFFD_EXISTS)
		maybe_exists(s, page, FILL_FOR_FAULT);
	ret->nr_done = 1;
	return FILL_DONE;
}

/* Under the copy lock as a fill is, for the same reason: a removal that has been read is in the
 * map, and one that has not been read makes the kernel refuse.  So no page is poisoned whose
 * bytes the guest has thrown away. */
enum fill_result
fill_poison(struct session *s, const struct run *page, struct fill *ret)
{
	uint64_t page_bytes = page->region->page_bytes;
	enum uffd_result result = UFFD_EXISTS;
	struct uffd_fill f = {0};

	if (page_is_fillable(page_get(&s->map, run_map(page))))
		result = uffd_poison(s->uffd, run_host(page), page_bytes, true, &f);
	*ret = (struct fill){.nr_done = result == UFFD_DONE, .error = f.error};
	if (result == UFFD_EXISTS) {
		uffd_wake(s->uffd, run_host(page), page_bytes);
		return FILL_STALE;
	}
	return result_of(result);
}

enum fill_result
fill_allow_write(struct session *s, const struct run *page, struct fill *ret)
{
	enum uffd_result result;
	int error;

	page_set_flag(&s->map, run_map(page), PAGE_F_DIRTY);
	(void)fault(FAULT_WRITE_AFTER_MARK);
	result = uffd_protect(s->uffd, run_host(page), page->region->page_bytes, false, &error);
	*ret = (struct fill){.nr_done = result == UFFD_DONE, .error = error};
	return result_of(result);
}

/* Poison takes no memory, so what the kernel says of it is true: a page that is there stays as it
 * is.  One that is not would be poison now, until the next fill heals it: the VMM would stop,
 * not go wrong.  For that it must be one that a fill may have reached, by a worker that
 * died, and memory must have run out since the caller looked. */
enum fill_result
fill_verify(struct session *s, const struct run *page, struct fill *ret)
{
	enum uffd_result result;
	struct uffd_fill f = {0};

	*ret = (struct fill){0};
	if (page_get(&s->map, run_map(page)) != PAGE_FILLING)
		return FILL_NO_MEMORY;
	result = uffd_poison(s->uffd, run_host(page), page->region->page_bytes, false, &f);
	ret->error = f.error;
	if (result == UFFD_DONE)
		return FILL_NO_MEMORY;
	if (result == UFFD_EXISTS) {
		if (s->is_tracked)
			page_set_flag(&s->map, run_map(page), PAGE_F_DIRTY);
		settle(s, run_map(page), 1, FILL_FOR_BACKGROUND);
	}
	return result_of(result);
}
