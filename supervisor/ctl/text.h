/* SPDX-License-Identifier: Apache-2.0 */
/* Text for people: units, tables, bars, suggestions.  Pure but for the printing. */
#ifndef SUPERVISOR_CTL_TEXT_H
#define SUPERVISOR_CTL_TEXT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#define TEXT_BYTES 64

/* "512 MiB", "1.5 GiB", "0 B"; into a buffer of TEXT_BYTES, which is returned. */
const char *text_bytes(char *buf, uint64_t bytes);
/* "12 us", "3.4 ms", "2.5 s", "4 min 5 s", "3 h 2 min", "2 d 1 h". */
const char *text_nanos(char *buf, uint64_t nanos);
/* "1 234 567". */
const char *text_count(char *buf, uint64_t count);
/* "37 %": never 100 before all is done, nor 0 once something is. */
const char *text_percent(char *buf, uint64_t done, uint64_t total);
/* width characters and brackets: "[####....]".  buf has room for width + 3. */
void text_bar(char *buf, size_t width, uint64_t done, uint64_t total);

/* What a terminal would obey becomes '?', in place. */
void text_make_printable(char *text);
bool text_is_unreserved(char c);
/* Columns that it takes on a terminal, one for each character. */
size_t text_width(const char *text);
/* Steps from one word to the other: insertion, removal, exchange, swap of neighbours. */
unsigned text_distance(const char *a, const char *b);
/* A word may have been meant for a name: a start of it, or a typing error or two. */
bool text_is_near(const char *word, const char *name);
/* A space at which no line is broken. */
#define TEXT_SPACE "\037"
/* Prints text in lines of at most that many columns, each after indent spaces, the first of
 * which begins at column at. */
void text_wrap(FILE *out, const char *text, size_t at, size_t indent, size_t columns);

/* A table: cells are copied, columns are as wide as their widest cell. */
#define TABLE_MAX_COLUMNS 12

enum table_colour { TABLE_PLAIN, TABLE_GOOD, TABLE_BUSY, TABLE_BAD, TABLE_DIM };

struct table_cell {
	char *text;
	enum table_colour colour;
};

struct table {
	size_t nr_columns, nr_cells;
	const char *headers[TABLE_MAX_COLUMNS];
	bool right[TABLE_MAX_COLUMNS]; /* numbers */
	struct table_cell *cells;      /* row by row */
};

/* headers end with NULL; one that begins with '>' is set to the right. */
void table_init(struct table *table, const char *const *headers);
void table_fini(struct table *table);
void table_add(struct table *table, enum table_colour colour, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));
/* One word, painted or not. */
void text_paint(FILE *out, bool colour, enum table_colour which, const char *word);
void table_print(const struct table *table, FILE *out, bool colour);

#endif
