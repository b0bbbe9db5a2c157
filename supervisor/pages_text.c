/* SPDX-License-Identifier: Apache-2.0 */
#include "supervisor/pages_text.h"

#include <endian.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

/* What is written besides the runs, at once: the head, or what is between two regions. */
#define SPARE_BYTES 1024U
#define BITMAPS	    3U

static const char *const words[] = {
    [PAGES_ABSENT] = "absent",
    [PAGES_CLEAN] = "clean",
    [PAGES_DIRTY] = "dirty",
    [PAGES_PRESENT] = "present",
    [PAGES_REMOVED] = "removed",
};

const char *
pages_word_name(enum pages_word word)
{
	return words[word];
}

/* A worker's byte: a value that is none means a page that must be looked at. */
static enum pages_word
word_of(const struct pages_text *t, uint8_t byte)
{
	enum pages_word written = t->knows_writes ? PAGES_DIRTY : PAGES_PRESENT;

	switch (byte) {
	case PICTURE_ABSENT:
		return PAGES_ABSENT;
	case PICTURE_CLEAN:
		return t->knows_writes ? PAGES_CLEAN : PAGES_PRESENT;
	case PICTURE_REMOVED:
		return t->knows_removals ? PAGES_REMOVED : written;
	default:
		return written;
	}
}

static uint8_t
load(const uint8_t *at)
{
	return __atomic_load_n(at, __ATOMIC_RELAXED);
}

struct out {
	char *buf;
	size_t used;
};

static void __attribute__((format(printf, 2, 3))) put(struct out *out, const char *fmt, ...)
{
	size_t room = PAGES_PIECE_BYTES - out->used;
	va_list ap;
	int n;

	va_start(ap, fmt);
	n = vsnprintf(out->buf + out->used, room, fmt, ap);
	va_end(ap);
	out->used += n < 0 ? 0 : (size_t)n < room ? (size_t)n : room - 1;
}

/* --- JSON ------------------------------------------------------------------------- */

static void
put_head(struct pages_text *t, struct out *out)
{
	put(out, "{\"id\":%s,\"tracking\":\"%s\",\"since\":%" PRIu64 ",\"picture\":", t->id,
	    t->tracking, t->since);
	if (t->number != 0)
		put(out, "%" PRIu64, t->number);
	else
		put(out, "null");
	put(out, ",\"regions\":[");
}

static void
put_region(struct pages_text *t, struct out *out)
{
	const struct region *r = &t->regions[t->region];

	put(out,
	    "%s\n{\"host_addr\":%" PRIu64 ",\"size\":%" PRIu64 ",\"offset\":%" PRIu64
	    ",\"page_size\":%" PRIu64 ",\"runs\":[",
	    t->region == 0 ? "" : ",", r->host_addr, r->size_bytes, r->offset, r->page_bytes);
	t->page = 0;
	t->run_pages = 0;
	t->has_run = false;
}

static void
put_run(struct pages_text *t, struct out *out)
{
	put(out, "%s[\"%s\",%" PRIu64 "]", t->has_run ? "," : "", words[t->run], t->run_pages);
	t->has_run = true;
	t->run_pages = 0;
}

static void
put_end(struct pages_text *t, struct out *out)
{
	uint64_t total = 0;

	put(out, "],\n\"pages\":{");
	for (unsigned i = 0; i < PAGES_WORDS; i++) {
		put(out, "\"%s\":%" PRIu64 ",", words[i], t->counts[i]);
		total += t->counts[i];
	}
	put(out, "\"total\":%" PRIu64 "}}\n", total);
}

/* How many pages from at on, at most max, have the same byte as the first. */
static uint64_t
same_bytes(const uint8_t *at, uint64_t max)
{
	uint8_t first = load(at);
	uint64_t want, word, n = 1;

	memset(&want, first, sizeof(want));
	while (n < max) {
		if (max - n >= sizeof(word)) {
			memcpy(&word, at + n, sizeof(word));
			if (word == want) {
				n += sizeof(word);
				continue;
			}
		}
		if (load(at + n) != first)
			break;
		n++;
	}
	return n;
}

/* Takes in pages of one word.  False when there is no room to say what was before them. */
static bool
take_run(struct pages_text *t, struct out *out, uint64_t max)
{
	const uint8_t *at = t->pages + t->base + t->page;
	enum pages_word word = word_of(t, load(at));
	uint64_t n;

	if (t->run_pages != 0 && t->run != word) {
		if (out->used + SPARE_BYTES > PAGES_PIECE_BYTES)
			return false;
		put_run(t, out);
	}
	n = same_bytes(at, max);
	t->run = word;
	t->run_pages += n;
	t->counts[word] += n;
	t->page += n;
	return true;
}

/* Up to the end of the region, of the room, or of what one piece may look at. */
static bool
put_runs(struct pages_text *t, struct out *out, uint64_t *left)
{
	uint64_t nr = region_nr_pages(&t->regions[t->region]);

	while (t->page < nr) {
		uint64_t from = t->page, max = nr - t->page < *left ? nr - t->page : *left;

		if (max == 0 || !take_run(t, out, max))
			return false;
		*left -= t->page - from;
	}
	if (out->used + SPARE_BYTES > PAGES_PIECE_BYTES)
		return false;
	if (t->run_pages != 0)
		put_run(t, out);
	put(out, "]}");
	t->base += nr;
	t->region++;
	return true;
}

size_t
pages_text_json(struct pages_text *t, char *buf)
{
	struct out out = {.buf = buf};
	uint64_t left = PAGES_PIECE_PAGES;

	if (t->at == PAGES_AT_END)
		return 0;
	if (t->at == PAGES_AT_HEAD) {
		put_head(t, &out);
		t->at = PAGES_AT_RUNS;
		if (t->nr_regions != 0)
			put_region(t, &out);
	}
	while (t->region < t->nr_regions && put_runs(t, &out, &left)) {
		if (t->region < t->nr_regions)
			put_region(t, &out);
	}
	if (t->region == t->nr_regions && out.used + SPARE_BYTES <= PAGES_PIECE_BYTES) {
		put_end(t, &out);
		t->at = PAGES_AT_END;
	}
	/* A piece is never empty, however long its run. */
	if (out.used == 0)
		put(&out, "\n");
	return out.used;
}

/* --- Bitmaps ---------------------------------------------------------------------- */

static uint64_t
bitmap_bytes(const struct region *r)
{
	return (region_nr_pages(r) + 63) / 64 * 8;
}

static void
put_u64(char *at, uint64_t value)
{
	uint64_t le = htole64(value);

	memcpy(at, &le, sizeof(le));
}

static void
put_u32(char *at, uint32_t value)
{
	uint32_t le = htole32(value);

	memcpy(at, &le, sizeof(le));
}

static uint64_t
bitmaps_at(const struct pages_text *t, uint32_t region)
{
	uint64_t at = PAGES_RAW_HEADER_BYTES + (uint64_t)t->nr_regions * PAGES_RAW_REGION_BYTES;

	for (uint32_t i = 0; i < region; i++)
		at += BITMAPS * bitmap_bytes(&t->regions[i]);
	return at;
}

static size_t
raw_head(const struct pages_text *t, char *buf)
{
	uint32_t flags = (t->knows_writes ? PAGES_RAW_KNOWS_WRITES : 0) |
	    (t->number != 0 ? PAGES_RAW_IS_NEW : 0);

	memset(buf, 0, PAGES_RAW_HEADER_BYTES);
	memcpy(buf, PAGES_RAW_MAGIC, 8);
	put_u32(buf + 8, flags);
	put_u32(buf + 12, t->nr_regions);
	put_u64(buf + 16, t->number);
	put_u64(buf + 24, t->since);
	put_u64(buf + 32, bitmaps_at(t, t->nr_regions));
	return PAGES_RAW_HEADER_BYTES;
}

/* As many rows of the table of regions as fit. */
static size_t
raw_regions(struct pages_text *t, char *buf, size_t used)
{
	while (t->region < t->nr_regions && used + PAGES_RAW_REGION_BYTES <= PAGES_PIECE_BYTES) {
		const struct region *r = &t->regions[t->region];
		char *row = buf + used;

		memset(row, 0, PAGES_RAW_REGION_BYTES);
		put_u64(row, r->host_addr);
		put_u64(row + 8, r->size_bytes);
		put_u64(row + 16, r->offset);
		put_u64(row + 24, r->page_bytes);
		put_u64(row + 32, region_nr_pages(r));
		put_u64(row + 40, bitmaps_at(t, t->region));
		put_u64(row + 48, bitmap_bytes(r));
		used += PAGES_RAW_REGION_BYTES;
		t->region++;
	}
	if (t->region == t->nr_regions) {
		t->region = 0;
		t->at = PAGES_AT_BITS;
	}
	return used;
}

static bool
has_bit(enum pages_word word, unsigned bitmap)
{
	switch (bitmap) {
	case 0: /* present */
		return word != PAGES_ABSENT && word != PAGES_REMOVED;
	case 1: /* dirty */
		return word == PAGES_DIRTY || word == PAGES_PRESENT;
	default: /* empty */
		return word == PAGES_REMOVED;
	}
}

static void
next_bitmap(struct pages_text *t)
{
	t->page = 0;
	if (++t->bitmap < BITMAPS)
		return;
	t->bitmap = 0;
	t->base += region_nr_pages(&t->regions[t->region]);
	t->region++;
}

/* Eight bytes: the lowest bit of the first byte is the first page. */
static void
put_64_pages(struct pages_text *t, char *at)
{
	uint64_t nr = region_nr_pages(&t->regions[t->region]), bits = 0;

	for (unsigned i = 0; i < 64 && t->page < nr; i++, t->page++) {
		enum pages_word word = word_of(t, load(t->pages + t->base + t->page));

		bits |= (uint64_t)has_bit(word, t->bitmap) << i;
	}
	put_u64(at, bits);
	if (t->page == nr)
		next_bitmap(t);
}

size_t
pages_text_raw(struct pages_text *t, char *buf)
{
	size_t used = 0;

	if (t->at == PAGES_AT_HEAD) {
		used = raw_head(t, buf);
		t->at = PAGES_AT_RUNS;
	}
	if (t->at == PAGES_AT_RUNS)
		return raw_regions(t, buf, used);
	while (t->region < t->nr_regions && used + 8 <= PAGES_PIECE_BYTES) {
		put_64_pages(t, buf + used);
		used += 8;
	}
	return used;
}
