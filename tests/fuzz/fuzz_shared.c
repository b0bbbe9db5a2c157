/* SPDX-License-Identifier: Apache-2.0 */
/* Files that a worker hands back to a supervisor that does not know it: overlays, traces and page
 * maps.  What is accepted can be read from one end to the other, and says nothing that does not
 * fit into it.
 *
 * The first byte chooses the kind, the second how many pages of nothing follow the rest, which is
 * the beginning of the file. */
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "common/fd.h"
#include "common/overlay.h"
#include "common/pagemap.h"
#include "common/trace.h"

#define IMAGE_BYTES UINT64_C(67108000) /* ends within a page */

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void
expect(bool held)
{
	if (!held)
		abort();
}

static int
make_file(const uint8_t *data, size_t size, uint64_t more_pages, int seals)
{
	int fd = memfd_create("fuzz", MFD_CLOEXEC | MFD_ALLOW_SEALING);

	expect(fd >= 0 && write(fd, data, size) == (ssize_t)size);
	expect(ftruncate(fd, (off_t)(size + more_pages * PAGE_BYTES)) == 0);
	expect(fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL | seals) == 0);
	return fd;
}

static unsigned
sum(const volatile unsigned char *at, uint64_t bytes)
{
	unsigned total = 0;

	for (uint64_t i = 0; i < bytes; i++)
		total += at[i];
	return total;
}

static void
check_overlays(int fd)
{
	struct overlay_table table = {0};
	uint64_t end = 0;

	if (overlay_map(&table, fd, IMAGE_BYTES) < 0) {
		expect(table.base == NULL);
		return;
	}
	expect(table.nr > 0 && table.nr <= OVERLAY_MAX);
	for (uint32_t i = 0; i < table.nr; i++) {
		const struct overlay_row *row = &table.rows[i];

		expect(row->bytes > 0 && row->offset % PAGE_BYTES == 0 && row->offset >= end);
		end = row->offset + row->bytes;
		expect(end > row->offset && end <= IMAGE_BYTES);
		expect(row->data_at >= OVERLAY_HEADER_BYTES &&
		    row->data_at + row->bytes <= table.mapped_bytes);
		(void)sum(table.base + row->data_at, row->bytes);
	}
	overlay_unmap(&table);
	expect(table.base == NULL);
}

static void
check_trace(int fd, enum trace_kind kind)
{
	struct trace trace = {0};
	uint64_t nr, total = 0;

	if (trace_map(&trace, fd, kind, false) < 0) {
		expect(trace.header == NULL);
		return;
	}
	nr = trace_nr(&trace);
	expect(trace.room <= TRACE_MAX_WORDS && nr <= trace.room);
	for (uint64_t i = 0; i < nr; i++)
		total += trace_word(&trace, i);
	expect(total <= nr * UINT32_MAX);
	trace_unmap(&trace);
}

/* The same count in parts and at once. */
static void
check_counts(const struct pagemap *map, uint64_t pages)
{
	struct pagemap_counts counts, parts = {0};
	uint64_t at = 0;

	pagemap_count(map, &counts);
	while (!pagemap_count_part(map, &at, 7, &parts))
		;
	expect(memcmp(&counts, &parts, sizeof(counts)) == 0);
	expect(counts.absent + counts.filling + counts.present + counts.removed == pages);
}

static void
check_pagemap(int fd)
{
	struct pagemap map = {0};
	struct region regions[PAGEMAP_MAX_REGIONS];
	uint64_t pages = 0, bytes = 0;
	uint32_t n;

	if (pagemap_map(&map, fd, false) < 0) {
		expect(map.header == NULL);
		return;
	}
	n = pagemap_regions(&map, regions);
	expect(n <= PAGEMAP_MAX_REGIONS);
	for (uint32_t i = 0; i < n; i++) {
		const struct region *r = &regions[i];

		expect(r->size_bytes > 0 && r->host_addr + r->size_bytes > r->host_addr);
		expect(region_map_first(r) + r->size_bytes / PAGE_BYTES <= map.nr_pages);
		pages += region_nr_pages(r);
		bytes += r->size_bytes;
	}
	expect(bytes <= map.nr_pages * PAGE_BYTES);
	check_counts(&map, pages);
	for (int i = 0; i < COUNTER_COUNT; i++)
		(void)pagemap_counter(&map, (enum counter)i);
	pagemap_unmap(&map);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	unsigned kind;
	int fd;

	if (size < 2)
		return 0;
	kind = data[0] % 4;
	fd = make_file(data + 2, size - 2, data[1], kind == 0 ? F_SEAL_WRITE : 0);
	if (kind == 0)
		check_overlays(fd);
	else if (kind == 1)
		check_trace(fd, TRACE_RECORDING);
	else if (kind == 2)
		check_trace(fd, TRACE_PLAN);
	else
		check_pagemap(fd);
	fd_closep(&fd);
	return 0;
}
