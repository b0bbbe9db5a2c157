/* SPDX-License-Identifier: Apache-2.0 */
/* The order in which a guest visits its pages, generated instead of stored: the
 * i-th page of an order, for i of 0 to nr_pages - 1, each page once.  Freestanding,
 * like pattern.h. */
#ifndef TESTS_VMM_ORDER_H
#define TESTS_VMM_ORDER_H

#include "tests/vmm/pattern.h"

enum order_kind {
	ORDER_SEQ,
	ORDER_RAND,
	ORDER_STRIDE, /* 0, stride, 2 * stride ..., then 1, 1 + stride ... */
};

struct order {
	uint64_t kind; /* enum order_kind, at a fixed width */
	uint64_t nr_pages;
	uint64_t seed;
	uint64_t stride;
};

/* A bijection on 0 .. 2^bits - 1: each step is one. */
pattern_inline uint64_t
order_scramble(uint64_t i, uint64_t bits, uint64_t seed)
{
	uint64_t mask = (UINT64_C(1) << bits) - 1;
	uint64_t half = (bits + 1) / 2;
	uint64_t round;

	for (round = 0; round < 3; round++) {
		uint64_t key = pattern_mix(seed + round);

		i = (i + key) & mask;
		i = (i * (key | 1)) & mask;
		i ^= i >> half;
	}
	return i;
}

pattern_inline uint64_t
order_stride(const struct order *o, uint64_t i)
{
	uint64_t rows = o->nr_pages / o->stride;
	uint64_t longer = o->nr_pages % o->stride; /* columns that have one row more */
	uint64_t rest;

	if (i < longer * (rows + 1))
		return i % (rows + 1) * o->stride + i / (rows + 1);
	rest = i - longer * (rows + 1);
	return rest % rows * o->stride + longer + rest / rows;
}

pattern_inline uint64_t
order_page(const struct order *o, uint64_t i)
{
	uint64_t bits;

	if (i >= o->nr_pages)
		i %= o->nr_pages;
	if (o->nr_pages == 1 || o->kind == ORDER_SEQ)
		return i;
	if (o->kind == ORDER_STRIDE)
		return order_stride(o, i);
	/* Walk the cycle until it is back inside: at most two steps on average. */
	bits = 64 - (uint64_t)__builtin_clzll(o->nr_pages - 1);
	do
		i = order_scramble(i, bits, o->seed);
	while (i >= o->nr_pages);
	return i;
}

#endif
