/* SPDX-License-Identifier: Apache-2.0 */
/* What GET /sessions/{id}/pages answers, for pictures of it. */
#ifndef SUPERVISOR_CTL_MAP_H
#define SUPERVISOR_CTL_MAP_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum map_state { MAP_ABSENT, MAP_CLEAN, MAP_DIRTY, MAP_PRESENT, MAP_REMOVED, MAP_STATES };

struct map_run {
	enum map_state state;
	uint64_t nr_pages;
};

struct map_region {
	uint64_t offset, page_bytes, nr_pages;
	struct map_run *runs; /* owned */
	size_t nr_runs;
};

struct map {
	struct map_region *regions; /* owned */
	size_t nr_regions;
	uint64_t totals[MAP_STATES]; /* pages */
};

/* Where one is in a region; all zero at its start. */
struct map_cursor {
	size_t run;
	uint64_t page; /* in that run */
};

/* False when it is no such answer; the map needs map_fini() in either case. */
bool map_read(struct map *ret, const json_t *json);
void map_fini(struct map *map);
const char *map_state_name(enum map_state state);

/* The state of most of the next n pages, which the cursor passes. */
enum map_state map_dominant(const struct map_region *region, struct map_cursor *at, uint64_t n);

/* Draws into a file, by its name an SVG or a PNG.  0, or a negative errno and why. */
int map_draw(const struct map *map, const char *path, char *why, size_t why_bytes);

#endif
