/* SPDX-License-Identifier: Apache-2.0 */
/* The thread that discards guest memory.  madvise() sleeps until the pager has read
 * the removal, so the main thread must not do it. */
#include "tests/vmm/vmm.h"

#include <errno.h>

#include "common/clock.h"

static struct {
	struct vmm *vmm;
	pthread_t thread;
	pthread_mutex_t lock;
	pthread_cond_t posted;
	struct balloon_order order;
	struct balloon_outcome outcome; /* the thread's alone while it is busy */
	bool is_busy;
	bool has_outcome;
} balloon = {.lock = PTHREAD_MUTEX_INITIALIZER, .posted = PTHREAD_COND_INITIALIZER};

/* False when a vCPU is writing the page. */
static bool
claim_page(uint32_t *model)
{
	uint32_t old = __atomic_load_n(model, __ATOMIC_ACQUIRE);

	return (old & MODEL_WRITING) == 0 &&
	    __atomic_compare_exchange_n(
		model, &old, old | MODEL_DISCARDING, false, __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE);
}

static void
unclaim_pages(uint32_t *model, uint64_t count)
{
	uint64_t i;

	for (i = 0; i < count; i++)
		__atomic_fetch_and(&model[i], ~MODEL_DISCARDING, __ATOMIC_RELEASE);
}

static void
touch(const struct vmm *vmm, uint64_t page)
{
	const struct vmm_region *r = memory_region(&vmm->memory, page);
	uint64_t start = clock_now_ns();
	uint64_t took;

	(void)*(volatile uint8_t *)(r->host + (page * VMM_PAGE_BYTES - r->offset));
	took = clock_now_ns() - start;
	if (took > balloon.outcome.touch_max_ns)
		balloon.outcome.touch_max_ns = took;
}

/* Pages that are claimed already, of one region. */
static int
discard_claimed(struct vmm *vmm, uint64_t page, uint64_t count)
{
	uint32_t *model = model_words(vmm) + page;
	uint64_t start = clock_now_ns();
	int err = memory_discard(&vmm->memory, &vmm->options, page, count);
	uint64_t took = clock_now_ns() - start;
	uint64_t i;

	if (err < 0) {
		unclaim_pages(model, count);
		return err;
	}
	for (i = 0; i < count; i++)
		__atomic_store_n(&model[i], MODEL_ZERO, __ATOMIC_RELEASE);
	balloon.outcome.discarded += count;
	balloon.outcome.calls++;
	if (took > balloon.outcome.max_ns)
		balloon.outcome.max_ns = took;
	if (balloon.order.is_touched)
		touch(vmm, page);
	return 0;
}

/* How many of the pages from here on can be discarded by one call: up to one that is
 * being written, in one region, whole pages of the mapping. */
static uint64_t
claim_run(const struct vmm *vmm, uint64_t page, uint64_t count)
{
	const struct vmm_region *r = memory_region(&vmm->memory, page);
	uint64_t unit = vmm->memory.page_bytes / VMM_PAGE_BYTES;
	uint64_t end = (r->offset + r->bytes) / VMM_PAGE_BYTES;
	uint32_t *model = model_words(vmm);
	uint64_t claimed = 0;

	if (page + count < end)
		end = page + count;
	while (page + claimed < end && claim_page(&model[page + claimed]))
		claimed++;
	unclaim_pages(&model[page + claimed / unit * unit], claimed % unit);
	return claimed / unit * unit;
}

static int
discard_range(struct vmm *vmm, uint64_t page, uint64_t count)
{
	uint64_t unit = vmm->memory.page_bytes / VMM_PAGE_BYTES;

	while (count > 0) {
		uint64_t n = claim_run(vmm, page, count);
		int err = n > 0 ? discard_claimed(vmm, page, n) : 0;

		if (err < 0)
			return err;
		if (n == 0) {
			n = unit;
			balloon.outcome.skipped += n;
		}
		page += n;
		count -= n;
	}
	return 0;
}

static int
discard_random(struct vmm *vmm, uint64_t seed, uint64_t count)
{
	uint64_t unit = vmm->memory.page_bytes / VMM_PAGE_BYTES;
	struct order order = {
	    .kind = ORDER_RAND,
	    .nr_pages = vmm->memory.nr_pages / unit,
	    .seed = seed,
	};
	uint64_t i;
	int err = 0;

	for (i = 0; i < count / unit && err == 0; i++)
		err = discard_range(vmm, order_page(&order, i) * unit, unit);
	return err;
}

static void *
balloon_main(void *arg)
{
	struct vmm *vmm = arg;

	for (;;) {
		struct balloon_order order;
		uint64_t start;

		pthread_mutex_lock(&balloon.lock);
		while (!balloon.is_busy)
			pthread_cond_wait(&balloon.posted, &balloon.lock);
		order = balloon.order;
		balloon.outcome = (struct balloon_outcome){0};
		pthread_mutex_unlock(&balloon.lock);

		start = clock_now_ns();
		balloon.outcome.error = order.is_random
		    ? discard_random(vmm, order.start, order.count)
		    : discard_range(vmm, order.start, order.count);
		balloon.outcome.wall_ns = clock_now_ns() - start;

		pthread_mutex_lock(&balloon.lock);
		balloon.is_busy = false;
		balloon.has_outcome = true;
		pthread_mutex_unlock(&balloon.lock);
		vmm_signal_done(vmm);
	}
	return NULL;
}

int
balloon_start(struct vmm *vmm)
{
	balloon.vmm = vmm;
	return -pthread_create(&balloon.thread, NULL, balloon_main, vmm);
}

void
balloon_post(const struct balloon_order *order)
{
	pthread_mutex_lock(&balloon.lock);
	balloon.order = *order;
	balloon.is_busy = true;
	pthread_cond_signal(&balloon.posted);
	pthread_mutex_unlock(&balloon.lock);
}

bool
balloon_take(struct balloon_outcome *ret)
{
	bool has_outcome;

	pthread_mutex_lock(&balloon.lock);
	has_outcome = balloon.has_outcome;
	balloon.has_outcome = false;
	*ret = balloon.outcome;
	pthread_mutex_unlock(&balloon.lock);
	return has_outcome;
}
