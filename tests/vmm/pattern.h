/* SPDX-License-Identifier: Apache-2.0 */
/* What every page of a test image holds, as a pure function of a seed, so that any
 * page can be made and checked without the file.  Freestanding: this is compiled
 * into the guest's machine code too, hence always_inline and no tables.
 *
 * A page is an arithmetic progression of 8-byte words, first + i * step.  A zero
 * page is the progression (0, 0), so that a check is one loop without a branch. */
#ifndef TESTS_VMM_PATTERN_H
#define TESTS_VMM_PATTERN_H

#include <stdint.h>

#define PATTERN_PAGE_BYTES UINT64_C(4096)
#define PATTERN_PAGE_WORDS UINT64_C(512)
/* Kinds are drawn for blocks of so many pages; half of the blocks are of one kind
 * throughout, in the others each page has its own. */
#define PATTERN_BLOCK_PAGES UINT64_C(32)

#define pattern_inline static inline __attribute__((always_inline, unused))

enum pattern_kind {
	PATTERN_DATA,
	PATTERN_ZERO, /* zero bytes that are stored */
	PATTERN_HOLE, /* zero bytes that are not */
};

struct pattern {
	uint64_t seed;
	uint64_t holes_permille;
	uint64_t zeros_permille;
};

struct pattern_words {
	uint64_t first;
	uint64_t step;
};

/* The finaliser of splitmix64: a bijection. */
pattern_inline uint64_t
pattern_mix(uint64_t x)
{
	x ^= x >> 30;
	x *= UINT64_C(0xbf58476d1ce4e5b9);
	x ^= x >> 27;
	x *= UINT64_C(0x94d049bb133111eb);
	return x ^ (x >> 31);
}

pattern_inline uint64_t
pattern_draw(const struct pattern *p, uint64_t what, uint64_t n)
{
	return pattern_mix(pattern_mix(p->seed + what) ^ (n * UINT64_C(0x9e3779b97f4a7c15)));
}

pattern_inline enum pattern_kind
pattern_kind(const struct pattern *p, uint64_t page)
{
	uint64_t block = pattern_draw(p, UINT64_C(0xb10c), page / PATTERN_BLOCK_PAGES);
	uint64_t draw;

	if (block >> 63 != 0)
		draw = block % 1000;
	else
		draw = pattern_draw(p, UINT64_C(0x5eed), page) % 1000;
	if (draw < p->holes_permille)
		return PATTERN_HOLE;
	if (draw < p->holes_permille + p->zeros_permille)
		return PATTERN_ZERO;
	return PATTERN_DATA;
}

/* Content of a page whose kind is data, or that the guest has written: version 0
 * is the image's, a greater one is the guest's.  For one seed and version two
 * pages never begin with the same word: every step of the mixing is a bijection. */
pattern_inline struct pattern_words
pattern_data(const struct pattern *p, uint64_t page, uint64_t version)
{
	struct pattern_words w;
	uint64_t key = pattern_mix(p->seed ^ pattern_mix(version + UINT64_C(0xda7a)));

	w.first = pattern_mix(page + key);
	w.step = pattern_mix(key) | 1;
	return w;
}

/* Content of a page of the image. */
pattern_inline struct pattern_words
pattern_image(const struct pattern *p, uint64_t page)
{
	struct pattern_words zero = {0, 0};

	return pattern_kind(p, page) == PATTERN_DATA ? pattern_data(p, page, 0) : zero;
}

pattern_inline uint64_t
pattern_word(struct pattern_words w, uint64_t i)
{
	return w.first + i * w.step;
}

/* 0 when every word of the page is as expected. */
pattern_inline uint64_t
pattern_differs(struct pattern_words w, const volatile uint64_t *page)
{
	uint64_t differs = 0;
	uint64_t i;

	for (i = 0; i < PATTERN_PAGE_WORDS; i += 4) {
		differs |= page[i] ^ w.first;
		differs |= page[i + 1] ^ (w.first + w.step);
		differs |= page[i + 2] ^ (w.first + 2 * w.step);
		differs |= page[i + 3] ^ (w.first + 3 * w.step);
		w.first += 4 * w.step;
	}
	return differs;
}

pattern_inline void
pattern_fill(struct pattern_words w, volatile uint64_t *page)
{
	uint64_t i;

	for (i = 0; i < PATTERN_PAGE_WORDS; i++) {
		page[i] = w.first;
		w.first += w.step;
	}
}

#endif
