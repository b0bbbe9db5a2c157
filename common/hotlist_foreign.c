/* SPDX-License-Identifier: Apache-2.0 */
#include "common/hotlist_foreign.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/leb128.h"
#include "common/scope.h"

#define HPL1	   "HPL1"
#define HPL1_BYTES 4U

/* Of a line of access.log. */
#define MAX_LINE_BYTES 24U

/* What a file of pages may expand to here. */
#define MAX_WRITTEN_PAGES (UINT64_C(32) << 20)

static int
wrong(const char **ret_why, const char *why)
{
	*ret_why = why;
	return -EINVAL;
}

/* --- HPL1 ------------------------------------------------------------------------- */

/* What was read last: the next one must be behind it. */
struct place {
	uint64_t region, offset;
};

static bool
is_behind(const struct place *last, const struct place *next)
{
	return next->region > last->region ||
	    (next->region == last->region && next->offset > last->offset);
}

static int
read_page(struct hotlist *list, const struct place *place, const struct hotlist_region *regions,
    size_t nr_regions, const char **ret_why)
{
	const struct hotlist_region *region;
	int r;

	if (place->region >= nr_regions)
		return wrong(ret_why, "a page is in a region that is not named");
	region = &regions[place->region];
	if (place->offset % HOTLIST_PAGE_BYTES != 0 || place->offset >= region->bytes)
		return wrong(ret_why, "a page is beyond its region, or not aligned");
	r = hotlist_add(list, (region->offset + place->offset) / HOTLIST_PAGE_BYTES, 1);
	return r == -EINVAL ? wrong(ret_why, "a page is beyond the image") : r;
}

int
hotlist_read_hpl1(struct hotlist *list, const unsigned char *bytes, size_t nr_bytes,
    const struct hotlist_region *regions, size_t nr_regions, const char **ret_why)
{
	const unsigned char *at = bytes + HPL1_BYTES, *end = bytes + nr_bytes;
	struct place last = {0}, next;
	uint64_t nr;
	int r = 0;

	if (nr_bytes < HPL1_BYTES || memcmp(bytes, HPL1, HPL1_BYTES) != 0)
		return wrong(ret_why, "it is no HPL1 list");
	if (!leb128_get(&at, end, &nr))
		return wrong(ret_why, "it is cut short");
	for (uint64_t i = 0; i < nr && r == 0; i++) {
		if (!leb128_get(&at, end, &next.region) || !leb128_get(&at, end, &next.offset))
			return wrong(ret_why, "it is cut short");
		if (i > 0 && !is_behind(&last, &next))
			return wrong(ret_why, "its pages are not sorted, or one is repeated");
		r = read_page(list, &next, regions, nr_regions, ret_why);
		last = next;
	}
	if (r == 0 && at != end)
		return wrong(ret_why, "there is something behind its last page");
	return r;
}

/* region << 32 | page in it: in the order of the file. */
static int
place_of(uint64_t page, const struct hotlist_region *regions, size_t nr_regions, uint64_t *ret)
{
	uint64_t offset = page * HOTLIST_PAGE_BYTES;

	for (size_t i = 0; i < nr_regions; i++) {
		if (offset >= regions[i].offset && offset - regions[i].offset < regions[i].bytes) {
			*ret =
			    (uint64_t)i << 32 | (offset - regions[i].offset) / HOTLIST_PAGE_BYTES;
			return 0;
		}
	}
	return -EINVAL;
}

static int
find_places(const struct hotlist *list, const struct hotlist_region *regions, size_t nr_regions,
    uint64_t *places)
{
	size_t n = 0;
	int r = 0;

	for (size_t i = 0; i < list->nr_runs; i++) {
		const struct hotlist_run *run = &list->runs[i];

		for (uint64_t k = 0; k < run->nr && r == 0; k++)
			r = place_of(run->first + k, regions, nr_regions, &places[n++]);
	}
	return r;
}

static void
sift(uint64_t *words, size_t at, size_t nr)
{
	for (size_t child; (child = at * 2 + 1) < nr; at = child) {
		uint64_t word = words[at];

		if (child + 1 < nr && words[child + 1] > words[child])
			child++;
		if (words[child] <= word)
			return;
		words[at] = words[child];
		words[child] = word;
	}
}

static void
sort(uint64_t *words, size_t nr)
{
	for (size_t i = nr / 2; i > 0; i--)
		sift(words, i - 1, nr);
	for (size_t end = nr; end > 1; end--) {
		uint64_t word = words[0];

		words[0] = words[end - 1];
		words[end - 1] = word;
		sift(words, 0, end - 1);
	}
}

int
hotlist_write_hpl1(const struct hotlist *list, const struct hotlist_region *regions,
    size_t nr_regions, unsigned char **ret, size_t *ret_bytes, const char **ret_why)
{
	size_t n = (size_t)list->nr_pages, unique = 0, used;

	if (list->nr_pages > MAX_WRITTEN_PAGES)
		return wrong(ret_why, "it has too many pages for HPL1");
	scoped_free uint64_t *places = calloc(n + 1, sizeof(*places));
	scoped_free unsigned char *bytes = malloc(HPL1_BYTES + (n * 2 + 1) * LEB128_MAX_BYTES);
	if (places == NULL || bytes == NULL)
		return -ENOMEM;
	if (find_places(list, regions, nr_regions, places) < 0)
		return wrong(ret_why, "a page of it is in none of the regions");
	sort(places, n);
	for (size_t i = 0; i < n; i++) {
		if (i == 0 || places[i] != places[i - 1])
			places[unique++] = places[i];
	}
	memcpy(bytes, HPL1, HPL1_BYTES);
	used = HPL1_BYTES + leb128_put(bytes + HPL1_BYTES, unique);
	for (size_t i = 0; i < unique; i++) {
		used += leb128_put(bytes + used, places[i] >> 32);
		used += leb128_put(bytes + used, (places[i] & UINT32_MAX) * HOTLIST_PAGE_BYTES);
	}
	*ret = bytes;
	*ret_bytes = used;
	bytes = NULL;
	return 0;
}

/* --- access.log ------------------------------------------------------------------- */

/* One line without its end.  0 and the page, 1 for one that means nothing, -EINVAL. */
static int
read_line(const char *line, size_t bytes, uint64_t *ret_offset)
{
	uint64_t offset = 0;

	while (bytes > 0 && (line[bytes - 1] == '\r' || line[bytes - 1] == ' '))
		bytes--;
	if (bytes == 0 || line[0] == '#')
		return 1;
	if (bytes > MAX_LINE_BYTES)
		return -EINVAL;
	for (size_t i = 0; i < bytes; i++) {
		uint64_t digit = (uint64_t)(unsigned char)line[i] - '0';

		if (digit > 9 || offset > (UINT64_MAX - digit) / 10)
			return -EINVAL;
		offset = offset * 10 + digit;
	}
	*ret_offset = offset;
	return 0;
}

/* What was read of the lines. */
struct lines {
	uint32_t *pages;	/* those that are not left out; room for one of each line */
	size_t nr, named, kept; /* lines, those with an offset, and pages */
};

static int
read_lines(const struct hotlist *list, const char *text, size_t bytes, struct lines *ret)
{
	uint64_t nr_image = hotlist_image_pages(&list->image);

	for (const char *end = text + bytes; text < end;) {
		const char *eol = memchr(text, '\n', (size_t)(end - text));
		size_t length = (size_t)((eol != NULL ? eol : end) - text);
		uint64_t offset;
		int r = read_line(text, length, &offset);

		ret->nr++;
		if (r < 0)
			return r;
		text += length + 1;
		if (r > 0)
			continue;
		ret->named++;
		if (offset % HOTLIST_PAGE_BYTES == 0 && offset / HOTLIST_PAGE_BYTES < nr_image)
			ret->pages[ret->kept++] = (uint32_t)(offset / HOTLIST_PAGE_BYTES);
	}
	return 0;
}

int
hotlist_read_log(struct hotlist *list, const char *text, size_t bytes, uint64_t *ret_dropped,
    uint64_t *ret_line, const char **ret_why)
{
	/* A line has two bytes at least but for the last. */
	scoped_free uint32_t *pages = calloc(bytes / 2 + 1, sizeof(*pages));
	struct lines lines = {.pages = pages};
	uint64_t before = list->nr_pages;
	int r;

	*ret_dropped = *ret_line = 0;
	if (pages == NULL)
		return -ENOMEM;
	if (read_lines(list, text, bytes, &lines) < 0) {
		*ret_line = lines.nr;
		return wrong(ret_why, "a line is no offset in the image");
	}
	r = hotlist_add_pages(list, pages, lines.kept);
	*ret_dropped = lines.named - (list->nr_pages - before);
	return r;
}

int
hotlist_write_log(const struct hotlist *list, char **ret, size_t *ret_bytes)
{
	size_t room = (size_t)list->nr_pages * MAX_LINE_BYTES + 1, used = 0;
	char *text;

	if (list->nr_pages > MAX_WRITTEN_PAGES)
		return -E2BIG;
	text = malloc(room);
	if (text == NULL)
		return -ENOMEM;
	for (size_t i = 0; i < list->nr_runs; i++) {
		const struct hotlist_run *run = &list->runs[i];

		for (uint64_t k = 0; k < run->nr; k++)
			used += (size_t)snprintf(text + used, room - used, "%" PRIu64 "\n",
			    (run->first + k) * HOTLIST_PAGE_BYTES);
	}
	*ret = text;
	*ret_bytes = used;
	return 0;
}
