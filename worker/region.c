/* SPDX-License-Identifier: Apache-2.0 */
#include "worker/region.h"

#include <stddef.h>
#include <string.h>

/* By insertion: there are few, and qsort() allocates and asks sysinfo(), which the sandbox
 * does not forgive. */
static void
sort_by_address(struct region *rows, uint32_t nr)
{
	for (uint32_t i = 1; i < nr; i++) {
		struct region row = rows[i];
		uint32_t at = i;

		for (; at > 0 && rows[at - 1].host_addr > row.host_addr; at--)
			rows[at] = rows[at - 1];
		rows[at] = row;
	}
}

void
region_table_init(struct region_table *table, const struct region *rows, uint32_t nr)
{
	table->nr = nr;
	memcpy(table->rows, rows, nr * sizeof(*rows));
	sort_by_address(table->rows, nr);
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
