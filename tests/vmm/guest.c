/* SPDX-License-Identifier: Apache-2.0 */
/* Everything here is copied into the guest: no library, no global, no constant in
 * memory, no vector register (GNUmakefile has the flags), every helper inlined into
 * the two functions of the section.  The guest has no interrupt table, so any
 * exception stops the vCPU. */
#include "tests/vmm/guest.h"

#include <stdbool.h>
#include <stdint.h>

#ifndef __x86_64__
#error "the guest is written for x86-64"
#endif

#define guest_text __attribute__((section("guest_text"), noinline))

/* A page that changes while it is checked is checked again, at most so often. */
#define CHECK_TRIES 8

#define OWNER_REWRITES UINT64_C(4)

pattern_inline uint64_t
cycles_before(void)
{
	uint32_t lo;
	uint32_t hi;

	__asm__ volatile("lfence\n\trdtsc\n\tlfence" : "=a"(lo), "=d"(hi) : : "memory");
	return (uint64_t)hi << 32 | lo;
}

/* The load or store before it has completed when the counter is read. */
pattern_inline uint64_t
cycles_after(void)
{
	uint32_t lo;
	uint32_t hi;

	__asm__ volatile("mfence\n\tlfence\n\trdtsc\n\tlfence" : "=a"(lo), "=d"(hi) : : "memory");
	return (uint64_t)hi << 32 | lo;
}

pattern_inline volatile uint64_t *
page_address(const struct guest_params *p, uint64_t page)
{
	uint64_t r = p->nr_regions > 1 && page >= p->regions[1].first_page ? 1 : 0;
	uint64_t addr = p->regions[r].addr + (page - p->regions[r].first_page) * PATTERN_PAGE_BYTES;

	return (volatile uint64_t *)(uintptr_t)addr;
}

pattern_inline uint32_t *
model_word(const struct guest_params *p, uint64_t page)
{
	return (uint32_t *)(uintptr_t)p->model + page;
}

pattern_inline void
record_stall(struct guest_params *p, uint64_t end, uint64_t cycles)
{
	struct guest_stall *stall = &p->stalls[p->nr_stalls % GUEST_MAX_STALLS];

	stall->end = end;
	stall->cycles = cycles;
	p->nr_stalls++;
}

pattern_inline void
record_latency(struct guest_params *p, uint64_t visit, uint64_t start, uint64_t end)
{
	uint64_t cycles = end - start;

	if (p->latencies != 0)
		((volatile uint64_t *)(uintptr_t)p->latencies)[visit] = cycles;
	else
		p->hist[guest_hist_bucket(cycles)]++;
	if (cycles > p->max_cycles)
		p->max_cycles = cycles;
	if (cycles >= p->stall_cycles)
		record_stall(p, end, cycles);
}

pattern_inline void
report(struct guest_params *p, const struct guest_report *wrong)
{
	struct guest_report *r;

	__atomic_store_n(&p->wrong, p->wrong + wrong->wrong_words, __ATOMIC_RELAXED);
	if (p->nr_reports >= GUEST_MAX_REPORTS)
		return;
	r = &p->reports[p->nr_reports];
	r->page = wrong->page;
	r->word = wrong->word;
	r->expected = wrong->expected;
	r->found = wrong->found;
	r->wrong_words = wrong->wrong_words;
	p->nr_reports++;
}

/* Counts the wrong words of first .. last - 1 into ret, leaving out skip.  Each word
 * may be zero instead when the page is being discarded. */
pattern_inline void
scan_page(struct guest_report *ret, struct pattern_words w, const volatile uint64_t *addr,
    uint64_t first, uint64_t last, uint64_t skip, bool or_zero)
{
	uint64_t i;

	ret->wrong_words = 0;
	for (i = first; i < last; i++) {
		uint64_t found = addr[i];
		uint64_t expected = pattern_word(w, i);

		if (found == expected || i == skip || (or_zero && found == 0))
			continue;
		if (ret->wrong_words == 0) {
			ret->word = i;
			ret->expected = expected;
			ret->found = found;
		}
		ret->wrong_words++;
	}
}

/* Checks a page against the model, and again when the model changed meanwhile: then
 * what was found proves nothing. */
pattern_inline void
check_page(struct guest_params *p, uint64_t page, uint64_t word)
{
	const volatile uint64_t *addr = page_address(p, page);
	uint32_t *model = model_word(p, page);
	bool one = (p->flags & GUEST_F_FIRST_ONLY) != 0;
	uint64_t first = one ? word : 0;
	uint64_t last = one ? word + 1 : PATTERN_PAGE_WORDS;
	struct guest_report wrong;
	int try;

	for (try = 0; try < CHECK_TRIES; try++) {
		uint32_t m = __atomic_load_n(model, __ATOMIC_ACQUIRE);
		struct pattern_words w = guest_expected(&p->pattern, page, m);

		if ((m & MODEL_WRITING) != 0)
			continue;
		if (!one && pattern_differs(w, addr) == 0)
			return;
		wrong.page = page;
		scan_page(
		    &wrong, w, addr, first, last, PATTERN_PAGE_WORDS, (m & MODEL_DISCARDING) != 0);
		if (wrong.wrong_words == 0)
			return;
		if (__atomic_load_n(model, __ATOMIC_ACQUIRE) == m) {
			report(p, &wrong);
			return;
		}
	}
	p->raced++;
}

/* The word that a visit touches: not always the first, so that the cache sets vary. */
pattern_inline uint64_t
touched_word(uint64_t page)
{
	return (page * UINT64_C(0x9e3779b97f4a7c15)) >> 55;
}

pattern_inline void
touch_page(struct guest_params *p, uint64_t page, uint64_t visit)
{
	volatile uint64_t *addr = page_address(p, page);
	uint64_t word = touched_word(page);
	uint32_t before = __atomic_load_n(model_word(p, page), __ATOMIC_ACQUIRE);
	uint64_t start = cycles_before();
	uint64_t found = addr[word];
	uint64_t end = cycles_after();
	struct pattern_words w = guest_expected(&p->pattern, page, before);

	record_latency(p, visit, start, end);
	/* The first value that was seen counts, even if a second look is right.  Both
	 * loads of the model agree and neither is busy: nobody changed the page. */
	if (found != pattern_word(w, word) && (before & MODEL_BUSY) == 0 &&
	    __atomic_load_n(model_word(p, page), __ATOMIC_ACQUIRE) == before &&
	    addr[word] == pattern_word(w, word)) {
		struct guest_report wrong;

		wrong.page = page;
		wrong.word = word;
		wrong.expected = pattern_word(w, word);
		wrong.found = found;
		wrong.wrong_words = 1;
		report(p, &wrong);
	}
	check_page(p, page, word);
}

/* Claims the page in the model, so that neither a reader nor a discard takes what is
 * half written for an error. */
pattern_inline void
write_page(struct guest_params *p, uint64_t page, uint64_t visit, uint32_t version)
{
	volatile uint64_t *addr = page_address(p, page);
	uint64_t word = touched_word(page);
	uint32_t *model = model_word(p, page);
	uint32_t old = __atomic_load_n(model, __ATOMIC_ACQUIRE);
	struct pattern_words w = pattern_data(&p->pattern, page, version);
	struct guest_report wrong;
	uint64_t start;

	if ((old & MODEL_BUSY) != 0 ||
	    !__atomic_compare_exchange_n(
		model, &old, old | MODEL_WRITING, false, __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE)) {
		if (p->latencies != 0)
			((volatile uint64_t *)(uintptr_t)p->latencies)[visit] = GUEST_NO_LATENCY;
		p->skipped++;
		return;
	}
	start = cycles_before();
	addr[word] = pattern_word(w, word);
	record_latency(p, visit, start, cycles_after());
	wrong.page = page;
	scan_page(&wrong, guest_expected(&p->pattern, page, old), addr, 0, PATTERN_PAGE_WORDS, word,
	    false);
	if (wrong.wrong_words != 0)
		report(p, &wrong);
	pattern_fill(w, addr);
	p->written++;
	__atomic_store_n(model, version, __ATOMIC_RELEASE);
}

/* Endless jobs are for background load: every vCPU visits every page, each in an
 * order of its own. */
pattern_inline void
run_endless(struct guest_params *p)
{
	uint64_t last = p->burst == 0 ? UINT64_MAX : p->progress + p->burst;
	uint64_t i = p->cursor;

	while (__atomic_load_n(&p->stop, __ATOMIC_ACQUIRE) == 0 && p->progress < last) {
		uint64_t page = order_page(&p->order, i);

		if ((p->flags & GUEST_F_WRITE_SOME) != 0 && page % p->nr_ranks == p->rank &&
		    (page / p->nr_ranks + p->passes) % OWNER_REWRITES == 0)
			write_page(p, page, 0, (uint32_t)(p->version + p->passes));
		else
			touch_page(p, page, 0);
		__atomic_store_n(&p->progress, p->progress + 1, __ATOMIC_RELAXED);
		if (++i == p->order.nr_pages) {
			i = 0;
			p->passes++;
			p->order.seed += p->nr_ranks;
		}
	}
	p->cursor = i;
}

pattern_inline void
run_counted(struct guest_params *p)
{
	bool shared_out = (p->flags & GUEST_F_ALL_TOUCH) == 0;
	uint64_t i = shared_out ? p->rank : 0;
	uint64_t step = shared_out ? p->nr_ranks : 1;

	for (; i < p->count && __atomic_load_n(&p->stop, __ATOMIC_ACQUIRE) == 0; i += step) {
		uint64_t page = order_page(&p->order, i);
		uint64_t visit = shared_out ? i : i * p->nr_ranks + p->rank;

		if (p->command == GUEST_WRITE)
			write_page(p, page, visit, (uint32_t)p->version);
		else
			touch_page(p, page, visit);
		__atomic_store_n(&p->progress, p->progress + 1, __ATOMIC_RELAXED);
	}
}

/* Under shadow paging the first touch of the guest's own arrays costs an exit too;
 * it must not be counted against the pages under test. */
pattern_inline void
run_warm(struct guest_params *p)
{
	uint64_t at;

	for (at = 0; at < p->warm_bytes; at += PATTERN_PAGE_BYTES)
		__atomic_fetch_or((uint32_t *)(uintptr_t)(p->warm_start + at), 0, __ATOMIC_RELAXED);
}

guest_text void
guest_execute(struct guest_params *params)
{
	params->epoch = cycles_before();
	switch (params->command) {
	case GUEST_WARM:
		run_warm(params);
		break;
	case GUEST_TOUCH:
	case GUEST_WRITE:
		if ((params->flags & GUEST_F_ENDLESS) != 0)
			run_endless(params);
		else
			run_counted(params);
		break;
	default:
		break;
	}
}

guest_text void
guest_start(struct guest_params *params)
{
	for (;;) {
		guest_execute(params);
		/* One plain store: KVM has to emulate it to tell the host about it. */
		__asm__ volatile("movl %0, (%1)" : : "r"(1), "r"(GUEST_DOORBELL_ADDR) : "memory");
	}
}
