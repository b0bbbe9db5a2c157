/* SPDX-License-Identifier: Apache-2.0 */
#include "worker/overlay.h"

#include <stdlib.h>
#include <string.h>

#include "common/xalloc.h"
#include "worker/image.h"

int
overlay_open(int fd, uint64_t image_bytes, struct overlay_table **ret)
{
	struct overlay_table *table = xcalloc(1, sizeof(*table));
	int r = overlay_map(table, fd, image_bytes);

	if (r < 0) {
		free(table);
		return r;
	}
	*ret = table;
	return 0;
}

void
overlay_close(struct overlay_table *table)
{
	if (table == NULL)
		return;
	overlay_unmap(table);
	free(table);
}

static uint64_t
end_of(const struct overlay_row *row)
{
	return row->offset + row->bytes;
}

/* The first row that ends behind offset; nr when there is none. */
static uint32_t
first_behind(const struct overlay_table *table, uint64_t offset)
{
	uint32_t low = 0, high = table->nr;

	while (low < high) {
		uint32_t middle = low + (high - low) / 2;

		if (end_of(&table->rows[middle]) > offset)
			high = middle;
		else
			low = middle + 1;
	}
	return low;
}

static const unsigned char *
bytes_at(const struct overlay_table *table, const struct overlay_row *row, uint64_t offset)
{
	return table->base + row->data_at + (offset - row->offset);
}

enum overlay_kind
overlay_clip(const struct overlay_table *table, struct run *run, const void **ret_src)
{
	uint64_t page_bytes = run->region->page_bytes, start = run_offset(run), whole = 0;
	uint32_t i = first_behind(table, start);
	const struct overlay_row *row = &table->rows[i];

	if (i == table->nr || row->offset >= start + run_bytes(run))
		return OVERLAY_NONE;
	if (row->offset >= start + page_bytes) {
		run->nr = (row->offset - start) / page_bytes;
		return OVERLAY_NONE;
	}
	if (row->offset <= start)
		whole = (end_of(row) - start) / page_bytes;
	if (whole == 0) {
		run->nr = 1;
		return OVERLAY_PART;
	}
	if (run->nr > whole)
		run->nr = whole;
	*ret_src = bytes_at(table, row, start);
	return OVERLAY_HERE;
}

/* The part of [offset, offset + bytes) that row has. */
static void
put(const struct overlay_table *table, const struct overlay_row *row, uint64_t offset,
    uint64_t bytes, void *buf)
{
	uint64_t from = row->offset > offset ? row->offset : offset;
	uint64_t to = end_of(row) < offset + bytes ? end_of(row) : offset + bytes;

	memcpy((char *)buf + (from - offset), bytes_at(table, row, from), to - from);
}

int
overlay_read(const struct overlay_table *table, const struct image *image, uint64_t offset,
    uint64_t bytes, void *buf)
{
	uint32_t i = first_behind(table, offset);
	const struct overlay_row *row = &table->rows[i];
	int r = 0;

	if (i == table->nr || row->offset > offset || end_of(row) < offset + bytes)
		r = image_read(image, offset, bytes, buf);
	for (; r == 0 && i < table->nr && table->rows[i].offset < offset + bytes; i++)
		put(table, &table->rows[i], offset, bytes, buf);
	return r;
}
