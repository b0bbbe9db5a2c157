/* SPDX-License-Identifier: Apache-2.0 */
/* The picture as a file: by cairo, where that was there at the build. */
#include "supervisor/ctl/map.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "common/scope.h"

#if HAVE_CAIRO
#include <cairo-svg.h>
#include <cairo.h>

#define COLUMNS	  128U
#define MAX_ROWS  256U
#define CELL	  6.0
#define GAP	  12.0 /* between regions, and around */
#define LEGEND	  28.0
#define FONT_SIZE 11.0

static const double paints[MAP_STATES][3] = {
    [MAP_ABSENT] = {0.88, 0.89, 0.91},
    [MAP_CLEAN] = {0.30, 0.62, 0.47},
    [MAP_DIRTY] = {0.90, 0.60, 0.15},
    [MAP_PRESENT] = {0.22, 0.50, 0.72},
    [MAP_REMOVED] = {0.75, 0.25, 0.27},
};

static void
set_paint(cairo_t *to, enum map_state state)
{
	cairo_set_source_rgb(to, paints[state][0], paints[state][1], paints[state][2]);
}

static uint64_t
rows_of(const struct map_region *region, uint64_t cell)
{
	uint64_t cells = (region->nr_pages + cell - 1) / cell;

	return (cells + COLUMNS - 1) / COLUMNS;
}

/* Pages to a cell, and the height of it all in rows. */
static uint64_t
choose_cell(const struct map *map, uint64_t *ret_rows)
{
	uint64_t cell = 1;

	for (;; cell *= 2) {
		*ret_rows = 0;
		for (size_t i = 0; i < map->nr_regions; i++)
			*ret_rows += rows_of(&map->regions[i], cell);
		if (*ret_rows <= MAX_ROWS + map->nr_regions)
			return cell;
	}
}

static void
draw_region(cairo_t *to, const struct map_region *region, uint64_t cell, double top)
{
	struct map_cursor at = {0};
	uint64_t n = 0;

	for (uint64_t page = 0; page < region->nr_pages; page += cell, n++) {
		set_paint(to, map_dominant(region, &at, cell));
		cairo_rectangle(to, GAP + (double)(n % COLUMNS) * CELL,
		    top + (double)(n / COLUMNS) * CELL, CELL - 0.5, CELL - 0.5);
		cairo_fill(to);
	}
}

static void
draw_legend(cairo_t *to, const struct map *map, double top)
{
	double x = GAP;

	cairo_select_font_face(to, "sans-serif", CAIRO_FONT_SLANT_NORMAL, CAIRO_FONT_WEIGHT_NORMAL);
	cairo_set_font_size(to, FONT_SIZE);
	for (unsigned s = 0; s < MAP_STATES; s++) {
		char text[96];
		cairo_text_extents_t size;

		if (map->totals[s] == 0)
			continue;
		snprintf(text, sizeof(text), "%s: %llu pages", map_state_name((enum map_state)s),
		    (unsigned long long)map->totals[s]);
		set_paint(to, (enum map_state)s);
		cairo_rectangle(to, x, top, FONT_SIZE, FONT_SIZE);
		cairo_fill(to);
		cairo_set_source_rgb(to, 0.2, 0.2, 0.2);
		cairo_move_to(to, x + FONT_SIZE + 5, top + FONT_SIZE - 1);
		cairo_show_text(to, text);
		cairo_text_extents(to, text, &size);
		x += FONT_SIZE + size.x_advance + 22;
	}
}

static void
draw(cairo_surface_t *surface, const struct map *map, uint64_t cell)
{
	cairo_t *to = cairo_create(surface);
	double top = GAP;

	cairo_set_source_rgb(to, 1, 1, 1);
	cairo_paint(to);
	for (size_t i = 0; i < map->nr_regions; i++) {
		draw_region(to, &map->regions[i], cell, top);
		top += (double)rows_of(&map->regions[i], cell) * CELL + GAP;
	}
	draw_legend(to, map, top);
	cairo_destroy(to);
}

static bool
ends_in(const char *text, const char *tail)
{
	size_t n = strlen(text), m = strlen(tail);

	return n > m && strcmp(text + n - m, tail) == 0;
}

int
map_draw(const struct map *map, const char *path, char *why, size_t why_bytes)
{
	bool is_svg = ends_in(path, ".svg");
	uint64_t rows, cell = choose_cell(map, &rows);
	double width = COLUMNS * CELL + 2 * GAP;
	double height = (double)rows * CELL + (double)(map->nr_regions + 1) * GAP + LEGEND;
	cairo_surface_t *surface;
	cairo_status_t status;

	if (!is_svg && !ends_in(path, ".png")) {
		snprintf(why, why_bytes, "%s: the name must end in .svg or .png", path);
		return -EINVAL;
	}
	surface = is_svg ? cairo_svg_surface_create(path, width, height)
			 : cairo_image_surface_create(CAIRO_FORMAT_RGB24, (int)width, (int)height);
	draw(surface, map, cell);
	status = cairo_surface_status(surface);
	if (!is_svg && status == CAIRO_STATUS_SUCCESS)
		status = cairo_surface_write_to_png(surface, path);
	/* The SVG is written now. */
	cairo_surface_finish(surface);
	if (status == CAIRO_STATUS_SUCCESS)
		status = cairo_surface_status(surface);
	cairo_surface_destroy(surface);
	if (status == CAIRO_STATUS_SUCCESS)
		return 0;
	snprintf(why, why_bytes, "%s: %s", path, cairo_status_to_string(status));
	return -EIO;
}

#else

int
map_draw(const struct map *map, const char *path, char *why, size_t why_bytes)
{
	(void)map;
	snprintf(
	    why, why_bytes, "%s: this pagerctl was built without cairo and draws no files", path);
	return -ENOTSUP;
}

#endif
