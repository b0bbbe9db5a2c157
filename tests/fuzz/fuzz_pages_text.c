/* SPDX-License-Identifier: Apache-2.0 */
/* A picture whose bytes a worker may have chosen: what the client gets is JSON that says
 * something of each page, once, and bitmaps of the size that they say. */
#include "supervisor/pages_text.h"

#include <endian.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define MAX_REGIONS 4U

static struct region regions[MAX_REGIONS];

/* All of it, in one piece; the caller frees. */
static char *
run(struct pages_text text, size_t (*next)(struct pages_text *, char *), size_t *ret_bytes)
{
	char piece[PAGES_PIECE_BYTES], *all = NULL;
	size_t n, used = 0;

	while ((n = next(&text, piece)) > 0) {
		if (n > sizeof(piece))
			abort();
		char *grown = realloc(all, used + n);

		if (grown == NULL)
			abort();
		all = grown;
		memcpy(all + used, piece, n);
		used += n;
	}
	*ret_bytes = used;
	return all;
}

static void
check_json(const struct pages_text *text)
{
	size_t bytes, i, j;
	char *all = run(*text, pages_text_json, &bytes);
	json_t *json = json_loadb(all, bytes, 0, NULL), *region, *runs;

	if (json_array_size(json_object_get(json, "regions")) != text->nr_regions)
		abort();
	json_array_foreach(json_object_get(json, "regions"), i, region)
	{
		json_int_t pages = 0;

		json_array_foreach(json_object_get(region, "runs"), j, runs)
		{
			if (json_integer_value(json_array_get(runs, 1)) <= 0 ||
			    !json_is_string(json_array_get(runs, 0)))
				abort();
			pages += json_integer_value(json_array_get(runs, 1));
		}
		if ((uint64_t)pages != region_nr_pages(&regions[i]))
			abort();
	}
	json_decref(json);
	free(all);
}

static void
check_raw(const struct pages_text *text)
{
	size_t bytes;
	char *all = run(*text, pages_text_raw, &bytes);
	uint64_t total;

	if (bytes < PAGES_RAW_HEADER_BYTES)
		abort();
	memcpy(&total, all + 32, sizeof(total));
	if (le64toh(total) != bytes)
		abort();
	free(all);
}

/* Three bytes say how it is cut into regions, one what is known; each other is a page. */
int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct pages_text text = {.regions = regions, .id = "\"x\"", .tracking = "none"};
	uint64_t left, at = 0;

	if (size < 5)
		return 0;
	left = size - 4;
	for (uint32_t i = 0; i < MAX_REGIONS && left > 0; i++) {
		uint64_t nr = i < 3 ? left * data[i] / 256 + 1 : left;

		regions[i] = (struct region){at, nr * PAGE_BYTES, at, PAGE_BYTES};
		at += nr * PAGE_BYTES;
		left -= nr;
		text.nr_regions++;
	}
	text.pages = data + 4;
	text.knows_writes = data[3] & 1;
	text.knows_removals = data[3] & 2;
	text.number = data[3] >> 2;
	check_json(&text);
	check_raw(&text);
	return 0;
}
