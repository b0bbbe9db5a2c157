/* SPDX-License-Identifier: Apache-2.0 */
/* What is accepted of another program's list lies in the image, each page once, and comes
 * back the same from what is written of it.  The first byte chooses the format. */
#include <stdlib.h>
#include <string.h>

#include "common/hotlist_foreign.h"

#define IMAGE_BYTES (UINT64_C(64) << 20)

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const struct hotlist_region regions[] = {
    {0, UINT64_C(8) << 20}, {UINT64_C(16) << 20, UINT64_C(40) << 20}};

static void
expect(bool held)
{
	if (!held)
		abort();
}

static void
start(struct hotlist *list)
{
	hotlist_init(list);
	list->image.bytes = IMAGE_BYTES;
}

static bool
is_same(const struct hotlist *a, const struct hotlist *b)
{
	return a->nr_runs == b->nr_runs && a->nr_pages == b->nr_pages &&
	    (a->nr_runs == 0 || memcmp(a->runs, b->runs, a->nr_runs * sizeof(a->runs[0])) == 0);
}

static void
check_pages(const struct hotlist *list)
{
	static unsigned char seen[IMAGE_BYTES / HOTLIST_PAGE_BYTES];

	memset(seen, 0, sizeof(seen));
	for (size_t i = 0; i < list->nr_runs; i++)
		for (uint64_t k = 0; k < list->runs[i].nr; k++) {
			uint64_t page = list->runs[i].first + k;

			expect(page < sizeof(seen) && seen[page]++ == 0);
		}
}

static void
run_hpl1(const uint8_t *data, size_t size)
{
	struct hotlist list;
	const char *why = NULL;
	unsigned char *bytes;
	size_t nr_bytes;
	int r;

	start(&list);
	r = hotlist_read_hpl1(&list, data, size, regions, 2, &why);
	if (r == 0) {
		check_pages(&list);
		expect(hotlist_write_hpl1(&list, regions, 2, &bytes, &nr_bytes, &why) == 0);
		expect(nr_bytes == size && memcmp(bytes, data, size) == 0);
		free(bytes);
	} else {
		expect(why != NULL);
	}
	hotlist_fini(&list);
}

static void
run_log(const char *text, size_t bytes)
{
	struct hotlist list, again;
	const char *why = NULL;
	uint64_t dropped = 0, line = 0;
	char *written;
	size_t nr_written;
	int r;

	start(&list);
	start(&again);
	r = hotlist_read_log(&list, text, bytes, &dropped, &line, &why);
	if (r == 0) {
		check_pages(&list);
		expect(hotlist_write_log(&list, &written, &nr_written) == 0);
		expect(hotlist_read_log(&again, written, nr_written, &dropped, &line, &why) == 0);
		expect(dropped == 0 && is_same(&list, &again));
		free(written);
	} else {
		expect(why != NULL && line > 0 && line <= bytes);
	}
	hotlist_fini(&list);
	hotlist_fini(&again);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	if (size == 0)
		return 0;
	if (data[0] == 'H')
		run_hpl1(data, size);
	else
		run_log((const char *)data + 1, size - 1);
	return 0;
}
