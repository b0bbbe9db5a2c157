/* SPDX-License-Identifier: Apache-2.0 */
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "common/xalloc.h"
#include "supervisor/ctl/text.h"

static const char *const escapes[] = {
    [TABLE_PLAIN] = "",
    [TABLE_GOOD] = "\033[32m",
    [TABLE_BUSY] = "\033[33m",
    [TABLE_BAD] = "\033[31m",
    [TABLE_DIM] = "\033[2m",
};

void
table_init(struct table *table, const char *const *headers)
{
	memset(table, 0, sizeof(*table));
	for (; *headers && table->nr_columns < TABLE_MAX_COLUMNS; headers++) {
		bool right = **headers == '>';

		table->right[table->nr_columns] = right;
		table->headers[table->nr_columns++] = *headers + right;
	}
}

void
table_fini(struct table *table)
{
	for (size_t i = 0; i < table->nr_cells; i++)
		free(table->cells[i].text);
	free(table->cells);
}

void
table_add(struct table *table, enum table_colour colour, const char *fmt, ...)
{
	struct table_cell *cells;
	char text[512];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	text_make_printable(text);
	cells = realloc(table->cells, (table->nr_cells + 1) * sizeof(*cells));
	if (!cells)
		return;
	table->cells = cells;
	cells[table->nr_cells].text = xstrdup(text[0] ? text : "-");
	cells[table->nr_cells++].colour = colour;
}

static void
print_cell(FILE *out, const char *text, size_t width, bool right, bool last)
{
	int pad = (int)(width - text_width(text));

	if (right)
		fprintf(out, "%*s%s", pad, "", text);
	else
		fprintf(out, "%s%*s", text, last ? 0 : pad, "");
}

void
text_paint(FILE *out, bool colour, enum table_colour which, const char *word)
{
	bool painted = colour && which != TABLE_PLAIN;

	fprintf(out, "%s%s%s", painted ? escapes[which] : "", word, painted ? "\033[0m" : "");
}

void
table_print(const struct table *table, FILE *out, bool colour)
{
	size_t widths[TABLE_MAX_COLUMNS], n = table->nr_columns;

	for (size_t c = 0; c < n; c++)
		widths[c] = text_width(table->headers[c]);
	for (size_t i = 0; i < table->nr_cells; i++) {
		size_t width = text_width(table->cells[i].text);

		if (width > widths[i % n])
			widths[i % n] = width;
	}
	for (size_t c = 0; c < n; c++) {
		fputs(c ? "  " : "", out);
		print_cell(out, table->headers[c], widths[c], table->right[c], c + 1 == n);
	}
	putc('\n', out);
	for (size_t i = 0; i < table->nr_cells; i++) {
		const struct table_cell *cell = &table->cells[i];
		bool painted = colour && cell->colour != TABLE_PLAIN;
		size_t c = i % n;

		fputs(c ? "  " : "", out);
		fputs(painted ? escapes[cell->colour] : "", out);
		print_cell(out, cell->text, widths[c], table->right[c], c + 1 == n);
		fputs(painted ? "\033[0m" : "", out);
		if (c + 1 == n)
			putc('\n', out);
	}
}
