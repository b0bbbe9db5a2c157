/* SPDX-License-Identifier: Apache-2.0 */
#include "supervisor/ctl/map.h"

#include <stdlib.h>
#include <string.h>

#include "common/xalloc.h"
#include "supervisor/ctl/ctl.h"

#define MAX_PAGES (UINT64_C(1) << 40)

static const char *const names[MAP_STATES] = {
    [MAP_ABSENT] = "absent",
    [MAP_CLEAN] = "clean",
    [MAP_DIRTY] = "dirty",
    [MAP_PRESENT] = "present",
    [MAP_REMOVED] = "removed",
};

const char *
map_state_name(enum map_state state)
{
	return names[state];
}

static bool
read_run(struct map_run *ret, const json_t *json)
{
	const char *word = json_string_value(json_array_get(json, 0));
	json_int_t n = json_integer_value(json_array_get(json, 1));

	if (word == NULL || n <= 0 || (uint64_t)n > MAX_PAGES)
		return false;
	ret->nr_pages = (uint64_t)n;
	for (unsigned s = 0; s < MAP_STATES; s++) {
		if (strcmp(names[s], word) == 0) {
			ret->state = (enum map_state)s;
			return true;
		}
	}
	return false;
}

static bool
read_region(struct map *map, struct map_region *region, const json_t *json)
{
	const json_t *runs = json_object_get(json, "runs"), *run;
	size_t i;

	region->offset = ctl_u64(json, "offset");
	region->page_bytes = ctl_u64(json, "page_size");
	if (!json_is_array(runs) || region->page_bytes == 0)
		return false;
	region->runs = xcalloc(json_array_size(runs) + 1, sizeof(*region->runs));
	json_array_foreach(runs, i, run)
	{
		struct map_run *to = &region->runs[i];

		if (!read_run(to, run) || region->nr_pages > MAX_PAGES)
			return false;
		region->nr_runs++;
		region->nr_pages += to->nr_pages;
		map->totals[to->state] += to->nr_pages;
	}
	return true;
}

bool
map_read(struct map *ret, const json_t *json)
{
	const json_t *regions = json_object_get(json, "regions"), *region;
	size_t i;

	*ret = (struct map){0};
	if (!json_is_array(regions))
		return false;
	ret->regions = xcalloc(json_array_size(regions) + 1, sizeof(*ret->regions));
	json_array_foreach(regions, i, region)
	{
		ret->nr_regions++;
		if (!read_region(ret, &ret->regions[i], region))
			return false;
	}
	return true;
}

void
map_fini(struct map *map)
{
	for (size_t i = 0; i < map->nr_regions; i++)
		free(map->regions[i].runs);
	free(map->regions);
	*map = (struct map){0};
}

enum map_state
map_dominant(const struct map_region *region, struct map_cursor *at, uint64_t n)
{
	uint64_t counts[MAP_STATES] = {0};
	unsigned best = 0;

	while (n > 0 && at->run < region->nr_runs) {
		const struct map_run *run = &region->runs[at->run];
		uint64_t left = run->nr_pages - at->page, part = n < left ? n : left;

		counts[run->state] += part;
		n -= part;
		at->page += part;
		if (at->page == run->nr_pages)
			*at = (struct map_cursor){.run = at->run + 1};
	}
	for (unsigned s = 1; s < MAP_STATES; s++)
		if (counts[s] > counts[best])
			best = s;
	return (enum map_state)best;
}
