/* SPDX-License-Identifier: Apache-2.0 */
/* map: a picture of a session's memory, on the terminal or as a file. */
#include <inttypes.h>
#include <langinfo.h>
#include <locale.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "common/num.h"
#include "common/scope.h"
#include "common/xalloc.h"
#include "supervisor/ctl/ctl.h"
#include "supervisor/ctl/map.h"
#include "supervisor/ctl/text.h"

#define PAGES_MS   UINT64_C(60000)
#define MARGIN	   14 /* columns: an offset and two spaces */
#define MIN_COLS   16
#define OTHER_ROWS 8 /* of the screen: the legend and the prompt */
#define MIN_ROWS   4

static const char glyphs[MAP_STATES] = {'.', '=', '#', '#', 'x'};

static const enum table_colour colours[MAP_STATES] = {
    [MAP_ABSENT] = TABLE_DIM,
    [MAP_CLEAN] = TABLE_GOOD,
    [MAP_DIRTY] = TABLE_BUSY,
    [MAP_PRESENT] = TABLE_GOOD,
    [MAP_REMOVED] = TABLE_BAD,
};

static void
screen_size(size_t *ret_columns, size_t *ret_rows)
{
	struct winsize size = {0};

	if (ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) < 0 || size.ws_col == 0 || size.ws_row == 0)
		size = (struct winsize){.ws_col = 80, .ws_row = 24};
	*ret_columns = size.ws_col > MARGIN + MIN_COLS ? size.ws_col - MARGIN : MIN_COLS;
	*ret_rows = size.ws_row > OTHER_ROWS + MIN_ROWS ? size.ws_row - OTHER_ROWS : MIN_ROWS;
}

/* A power of two, so that offsets at the margin are round. */
static uint64_t
pages_of_a_cell(const struct map *map, size_t columns, size_t rows)
{
	uint64_t pages = 0, n = 1;

	for (size_t i = 0; i < map->nr_regions; i++)
		pages += map->regions[i].nr_pages;
	while (pages / n > (uint64_t)columns * rows)
		n *= 2;
	return n;
}

static void
print_cell(const struct ctl *ctl, enum map_state state, bool blocks)
{
	char word[4] = {glyphs[state], '\0'};

	if (blocks)
		memcpy(word, state == MAP_ABSENT ? "\u2591" : "\u2588", sizeof("\u2588"));
	text_paint(stdout, ctl->colour, colours[state], word);
}

static void
print_region(const struct ctl *ctl, const struct map_region *region, uint64_t cell, size_t columns)
{
	bool blocks = ctl->colour && strcmp(nl_langinfo(CODESET), "UTF-8") == 0;
	struct map_cursor at = {0};

	for (uint64_t page = 0; page < region->nr_pages; page += cell) {
		if (page / cell % columns == 0)
			printf("%s%12" PRIx64 "  ", page > 0 ? "\n" : "",
			    region->offset + page * region->page_bytes);
		print_cell(ctl, map_dominant(region, &at, cell), blocks);
	}
	putchar('\n');
}

static void
print_legend(const struct ctl *ctl, const struct map *map, uint64_t cell)
{
	bool blocks = ctl->colour && strcmp(nl_langinfo(CODESET), "UTF-8") == 0;
	uint64_t page_bytes = map->nr_regions > 0 ? map->regions[0].page_bytes : 0;
	char text[TEXT_BYTES];

	printf(
	    "each is %s; offsets in the image, hexadecimal\n", text_bytes(text, cell * page_bytes));
	for (unsigned s = 0; s < MAP_STATES; s++) {
		if (map->totals[s] == 0)
			continue;
		print_cell(ctl, (enum map_state)s, blocks);
		printf(" %s %s  ", map_state_name((enum map_state)s),
		    text_bytes(text, map->totals[s] * page_bytes));
	}
	putchar('\n');
}

static void
print_map(const struct ctl *ctl, const struct map *map)
{
	size_t columns, rows;
	uint64_t cell;

	setlocale(LC_CTYPE, "");
	screen_size(&columns, &rows);
	/* Whole powers of two to a row, too. */
	while ((columns & (columns - 1)) != 0)
		columns &= columns - 1;
	cell = pages_of_a_cell(map, columns, rows);
	for (size_t i = 0; i < map->nr_regions; i++)
		print_region(ctl, &map->regions[i], cell, columns);
	print_legend(ctl, map, cell);
}

enum exitcode
ctl_map(const struct ctl *ctl)
{
	scoped_free char *target = ctl_session_target(ctl->args[0], "/pages?format=json");
	struct map map;
	json_t *json;
	enum exitcode code = ctl_call(ctl, "GET", target, NULL, PAGES_MS, &json);
	char why[256];

	if (code != EXITCODE_OK)
		return code;
	if (ctl->json) {
		ctl_print_json(json);
		json_decref(json);
		return code;
	}
	if (!map_read(&map, json)) {
		ctl_complain("pagerd's answer is no map of pages");
		code = EXITCODE_FAILED;
	} else if (ctl->flags.picture == NULL) {
		print_map(ctl, &map);
	} else if (map_draw(&map, ctl->flags.picture, why, sizeof(why)) < 0) {
		ctl_complain("%s", why);
		code = EXITCODE_FAILED;
	}
	map_fini(&map);
	json_decref(json);
	return code;
}
