/* SPDX-License-Identifier: Apache-2.0 */
/* A picture of pages as a client gets it, piece by piece: run-length JSON, or bitmaps.
 * pagerd-api(7) describes both.  Pure; the bytes of the picture may change while they are read
 * and may be anything. */
#ifndef SUPERVISOR_PAGES_TEXT_H
#define SUPERVISOR_PAGES_TEXT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/pagemap.h"
#include "common/picture.h"

#define PAGES_RAW_MAGIC	       "PAGEMAP1"
#define PAGES_RAW_HEADER_BYTES 64U
#define PAGES_RAW_REGION_BYTES 64U
#define PAGES_RAW_KNOWS_WRITES 1U /* flags */
#define PAGES_RAW_IS_NEW       2U

/* A piece has at most so many bytes, and looks at most at so many pages. */
#define PAGES_PIECE_BYTES 8192U
#define PAGES_PIECE_PAGES (UINT64_C(1) << 20)

enum pages_word {
	PAGES_ABSENT,
	PAGES_CLEAN,
	PAGES_DIRTY,
	PAGES_PRESENT, /* written or not */
	PAGES_REMOVED,
	PAGES_WORDS
};

struct pages_text {
	const uint8_t *pages; /* of struct picture: one for each page of each region */
	const struct region *regions;
	uint32_t nr_regions;
	const char *id;	      /* of the session, as JSON, with its quotes */
	const char *tracking; /* a word */
	bool knows_writes, knows_removals;
	uint64_t since, number; /* number 0: not a new picture */

	/* Where it is; all zero at the start. */
	enum { PAGES_AT_HEAD, PAGES_AT_RUNS, PAGES_AT_BITS, PAGES_AT_END } at;
	uint32_t region;
	unsigned bitmap;
	uint64_t base; /* of the region in pages[] */
	uint64_t page; /* in the region: what comes next */
	enum pages_word run;
	uint64_t run_pages; /* so far, not written yet */
	bool has_run;	    /* one of this region is written */
	uint64_t counts[PAGES_WORDS];
};

/* The next piece, or 0 at the end.  buf has PAGES_PIECE_BYTES. */
size_t pages_text_json(struct pages_text *text, char *buf);
size_t pages_text_raw(struct pages_text *text, char *buf);

const char *pages_word_name(enum pages_word word);

#endif
