/* SPDX-License-Identifier: Apache-2.0 */
/* Pictures as text and as bitmaps, against a plain reading of the same bytes, whatever they are
 * and wherever a piece ends. */
#include "supervisor/pages_text.h"

#include <endian.h>
#include <jansson.h>

#include "common/xalloc.h"
#include "tests/unit/tap.h"

#define HUGE_BYTES (UINT64_C(2) << 20)

struct answer {
	char *bytes;
	size_t used, pieces;
	bool is_bounded;
};

static struct region regions[] = {
    {.host_addr = UINT64_C(0x7f0000000000), .page_bytes = 4096},
    {.host_addr = UINT64_C(0x7f8000000000), .page_bytes = 4096},
};

static struct pages_text
text_of(const uint8_t *pages, uint64_t first, uint64_t second)
{
	regions[0].size_bytes = first * 4096;
	regions[1].offset = first * 4096;
	regions[1].size_bytes = second * 4096;
	return (struct pages_text){
	    .pages = pages,
	    .regions = regions,
	    .nr_regions = second != 0 ? 2 : 1,
	    .id = "\"a \\\" b\"",
	    .tracking = "write-protect",
	    .knows_writes = true,
	    .knows_removals = true,
	    .since = 3,
	    .number = 4,
	};
}

static struct answer
run(struct pages_text *text, size_t (*next)(struct pages_text *, char *))
{
	struct answer a = {.is_bounded = true};
	char piece[PAGES_PIECE_BYTES];
	size_t n;

	while ((n = next(text, piece)) > 0) {
		a.is_bounded = a.is_bounded && n <= sizeof(piece);
		char *grown = realloc(a.bytes, a.used + n);

		if (!grown)
			abort();
		a.bytes = grown;
		memcpy(a.bytes + a.used, piece, n);
		a.used += n;
		a.pieces++;
	}
	return a;
}

static const char *
word(const struct pages_text *t, uint8_t byte)
{
	if (byte == PICTURE_ABSENT)
		return "absent";
	if (byte == PICTURE_REMOVED && t->knows_removals)
		return "removed";
	if (!t->knows_writes)
		return "present";
	return byte == PICTURE_CLEAN ? "clean" : "dirty";
}

/* Every page of every region, run by run; and no two runs that should be one. */
static bool
says(const struct pages_text *t, const json_t *json, const uint8_t *pages)
{
	const json_t *list = json_object_get(json, "regions"), *r, *run_of;
	uint64_t at = 0;
	size_t i, j;

	if (json_array_size(list) != t->nr_regions)
		return false;
	json_array_foreach(list, i, r)
	{
		uint64_t end = at + region_nr_pages(&t->regions[i]);
		const char *before = "";

		json_array_foreach(json_object_get(r, "runs"), j, run_of)
		{
			const char *state = json_string_value(json_array_get(run_of, 0));
			json_int_t n = json_integer_value(json_array_get(run_of, 1));

			if (!state || n <= 0 || strcmp(state, before) == 0)
				return false;
			before = state;
			for (; n > 0; n--, at++)
				if (at >= end || strcmp(word(t, pages[at]), state) != 0)
					return false;
		}
		if (at != end)
			return false;
	}
	return true;
}

static bool
counts_right(const struct pages_text *t, const json_t *json, const uint8_t *pages, uint64_t nr)
{
	const json_t *counts = json_object_get(json, "pages"), *count;
	const char *name;
	json_int_t total = 0;

	json_object_foreach((json_t *)(uintptr_t)counts, name, count)
	{
		json_int_t want = 0;

		for (uint64_t i = 0; i < nr; i++)
			want += strcmp(word(t, pages[i]), name) == 0;
		if (strcmp(name, "total") != 0) {
			total += want;
			if (json_integer_value(count) != want)
				return false;
		}
	}
	return total == (json_int_t)nr &&
	    json_integer_value(json_object_get(counts, "total")) == total;
}

static void
check_json(struct pages_text t, const uint8_t *pages, uint64_t nr, const char *what)
{
	struct pages_text walking = t;
	struct answer a = run(&walking, pages_text_json);
	json_t *json = json_loadb(a.bytes, a.used, 0, NULL);

	ok(json != NULL && a.is_bounded, "%s: JSON, in %zu pieces", what, a.pieces);
	ok(says(&t, json, pages), "%s: each page", what);
	ok(counts_right(&t, json, pages, nr), "%s: counted", what);
	json_decref(json);
	free(a.bytes);
}

static uint64_t
u64_at(const struct answer *a, uint64_t at)
{
	uint64_t value = UINT64_MAX;

	if (at + sizeof(value) <= a->used)
		memcpy(&value, a->bytes + at, sizeof(value));
	return le64toh(value);
}

static bool
bit(const struct answer *a, uint64_t at, uint64_t n)
{
	return at + n / 8 < a->used && (a->bytes[at + n / 8] >> n % 8 & 1) != 0;
}

static void
check_raw(struct pages_text t, const uint8_t *pages, const char *what)
{
	struct pages_text walking = t;
	struct answer a = run(&walking, pages_text_raw);
	uint64_t wrong = 0, page = 0;

	ok(a.is_bounded && a.used >= 64 && memcmp(a.bytes, PAGES_RAW_MAGIC, 8) == 0 &&
		u64_at(&a, 32) == a.used,
	    "%s: bitmaps, in %zu pieces", what, a.pieces);
	for (uint32_t i = 0; i < t.nr_regions; i++) {
		uint64_t row = 64 + 64 * i, nr = u64_at(&a, row + 32), at = u64_at(&a, row + 40),
			 bytes = u64_at(&a, row + 48);

		wrong += nr != region_nr_pages(&t.regions[i]);
		for (uint64_t n = 0; n < bytes * 8; n++) {
			const char *state = n < nr ? word(&t, pages[page + n]) : "absent";

			wrong += bit(&a, at, n) !=
			    (strcmp(state, "absent") != 0 && strcmp(state, "removed") != 0);
			wrong += bit(&a, at + bytes, n) !=
			    (strcmp(state, "dirty") == 0 || strcmp(state, "present") == 0);
			wrong += bit(&a, at + 2 * bytes, n) != (strcmp(state, "removed") == 0);
		}
		page += nr;
	}
	is_int(wrong, 0, "%s: each bit", what);
	free(a.bytes);
}

static void
check(struct pages_text t, uint64_t nr, const char *what)
{
	check_json(t, t.pages, nr, what);
	check_raw(t, t.pages, what);
}

static void
test_head(void)
{
	static const uint8_t one = PICTURE_DIRTY;
	struct pages_text t = text_of(&one, 1, 0);
	struct answer a = run(&t, pages_text_json);
	json_t *json = json_loadb(a.bytes, a.used, 0, NULL);
	const json_t *r = json_array_get(json_object_get(json, "regions"), 0);

	is_str(json_string_value(json_object_get(json, "id")), "a \" b", "the id");
	is_str(json_string_value(json_object_get(json, "tracking")), "write-protect", "tracking");
	is_int(json_integer_value(json_object_get(json, "since")), 3, "since");
	is_int(json_integer_value(json_object_get(json, "picture")), 4, "its number");
	is_int(json_integer_value(json_object_get(r, "host_addr")), regions[0].host_addr,
	    "the region's address");
	is_int(json_integer_value(json_object_get(r, "page_size")), 4096, "and page size");
	json_decref(json);
	free(a.bytes);
	t = text_of(&one, 1, 0);
	t.number = 0;
	a = run(&t, pages_text_json);
	json = json_loadb(a.bytes, a.used, 0, NULL);
	ok(json_is_null(json_object_get(json, "picture")), "one that is not new has no number");
	json_decref(json);
	free(a.bytes);
}

/* Each page its own run: as much text as there can be. */
static void
test_worst(void)
{
	const uint64_t nr = 20011;
	uint8_t *pages = xcalloc(nr, 1);

	for (uint64_t i = 0; i < nr; i++)
		pages[i] = i % 2 ? PICTURE_REMOVED : PICTURE_ABSENT;
	check(text_of(pages, 10003, nr - 10003), nr, "a run for each page");
	free(pages);
}

/* Longer than one piece may look at. */
static void
test_long(void)
{
	const uint64_t nr = 2 * PAGES_PIECE_PAGES + 77;
	uint8_t *pages = xcalloc(nr, 1);
	struct pages_text t = text_of(pages, nr, 0);
	struct answer a = run(&t, pages_text_json);

	ok(a.pieces > 2, "a long run takes pieces: %zu", a.pieces);
	free(a.bytes);
	check(text_of(pages, nr, 0), nr, "one long run");
	memset(pages + PAGES_PIECE_PAGES - 3, PICTURE_CLEAN, 7);
	check(text_of(pages, nr, 0), nr, "another across the end of a piece");
	free(pages);
}

static void
test_small(void)
{
	uint8_t pages[200];

	for (unsigned nr = 1; nr < sizeof(pages); nr += 13) {
		for (unsigned i = 0; i < nr; i++)
			pages[i] = (uint8_t)(i * 7 / 5 % 6); /* not all of them mean something */
		check(text_of(pages, nr, 0), nr, "few pages");
	}
	check(text_of(pages, 130, 70), 200, "two regions");
}

static void
test_unknown(void)
{
	static const uint8_t pages[] = {0, 1, 2, 3, 3, 2, 1, 0, 255, 4};
	struct pages_text t = text_of(pages, sizeof(pages), 0);

	t.knows_writes = false;
	check(t, sizeof(pages), "writes are not tracked");
	t.knows_removals = false;
	check(t, sizeof(pages), "nor removals");
	t.knows_writes = true;
	check(t, sizeof(pages), "removals are not, writes are");
}

static void
test_huge(void)
{
	static const uint8_t pages[] = {0, 2, 2, 3};
	struct pages_text t = text_of(pages, 1, 0);

	regions[0].page_bytes = HUGE_BYTES;
	regions[0].size_bytes = sizeof(pages) * HUGE_BYTES;
	check(t, sizeof(pages), "huge pages");
	regions[0].page_bytes = 4096;
}

int
main(void)
{
	test_head();
	test_small();
	test_unknown();
	test_huge();
	test_worst();
	test_long();
	return done();
}
