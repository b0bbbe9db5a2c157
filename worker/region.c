/* SPDX-License-Identifier: Apache-2.0 */
#include "worker/region.h"

#include <stddef.h>
#include <stdlib.h>
#include <string.h>

static int
by_address(const void *a, const void *b)
{
	const struct region *x = a, *y = b;

	return (x->host_addr > y->host_addr) - (x->host_addr < y->host_addr);
}

void
region_table_init(struct region_table *table, const struct region *rows, uint32_t nr)
{
	table->nr = nr;
	memcpy(table->rows, rows, nr * sizeof(*rows));
	qsort(table->rows, nr, sizeof(*rows), by_address);
}

const struct region *
region_find(const struct region_table *table, uint64_t addr)
{
	uint32_t low = 0, high = table->nr;

	while (low < high) {
		uint32_t mid = low + (high - low) / 2;
		const struct region *r = &table->rows[mid];

		if (addr < r->host_addr)
			high = mid;
		else if (addr - r->host_addr >= r->size_bytes)
			low = mid + 1;
		else
			return r;
	}
	return NULL;
}
