/* SPDX-License-Identifier: Apache-2.0 */
/* What is accepted as a hot list has at most as many pages as its image, none beyond it, and
 * is written again byte for byte.  The checksum is put right first: nothing would come by it. */
#include <stdlib.h>
#include <string.h>

#include "common/hotlist.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void
expect(bool held)
{
	if (!held)
		abort();
}

static void
check_accepted(const struct hotlist *list, const unsigned char *bytes, size_t nr_bytes)
{
	uint64_t pages = 0, nr_image = hotlist_image_pages(&list->image);
	unsigned char *again;
	size_t nr_again;

	for (size_t i = 0; i < list->nr_runs; i++) {
		const struct hotlist_run *run = &list->runs[i];

		expect(run->nr != 0 && run->first < nr_image && run->nr <= nr_image - run->first);
		pages += run->nr;
	}
	expect(pages == list->nr_pages && pages <= nr_image);
	expect(list->nr_runs <= HOTLIST_MAX_RUNS);
	expect(memchr(list->image.key, 0, sizeof(list->image.key)) != NULL);
	expect(hotlist_encode(list, &again, &nr_again) == 0);
	expect(nr_again == nr_bytes && memcmp(again, bytes, nr_bytes) == 0);
	free(again);
}

static void
run(const unsigned char *bytes, size_t nr_bytes)
{
	const char *why = NULL;
	struct hotlist list;
	int r = hotlist_decode(&list, bytes, nr_bytes, &why);

	if (r == 0) {
		check_accepted(&list, bytes, nr_bytes);
		hotlist_fini(&list);
	} else {
		expect(why != NULL && list.runs == NULL);
	}
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	unsigned char *copy = calloc(1, size + 1);
	uint64_t sum;

	if (copy == NULL)
		return 0;
	if (size > 0)
		memcpy(copy, data, size);
	run(copy, size);
	if (size >= sizeof(sum)) {
		sum = hotlist_checksum(copy, size - sizeof(sum));
		for (size_t i = 0; i < sizeof(sum); i++)
			copy[size - sizeof(sum) + i] = (unsigned char)(sum >> (8 * i));
		run(copy, size);
	}
	free(copy);
	return 0;
}
