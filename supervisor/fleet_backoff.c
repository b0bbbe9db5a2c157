/* SPDX-License-Identifier: Apache-2.0 */
#include "supervisor/fleet_backoff.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/clock.h"
#include "common/xalloc.h"
#include "supervisor/fleet.h"
#include "supervisor/supervisor.h"

#define BACKOFF_FIRST_MS 100

struct fleet_backoff *
backoff_find(struct fleet *fleet, const char *version)
{
	struct list *link;

	list_for_each(link, &fleet->backoffs) {
		struct fleet_backoff *backoff = list_entry(link, struct fleet_backoff, link);

		if (strcmp(backoff->version, version) == 0)
			return backoff;
	}
	return NULL;
}

void
backoff_drop(struct fleet_backoff *backoff)
{
	if (backoff == NULL)
		return;
	list_remove(&backoff->link);
	free(backoff);
}

/* One death of a worker that had been ready is no pattern: the next may start at once,
 * because VMs may wait for it. */
uint64_t
backoff_add(struct fleet *fleet, const char *version, bool was_ready)
{
	uint64_t max_ms = fleet->sup->options.spawn_backoff_max_ms;
	struct fleet_backoff *backoff = backoff_find(fleet, version);

	if (backoff == NULL) {
		backoff = xcalloc(1, sizeof(*backoff));
		snprintf(backoff->version, sizeof(backoff->version), "%s", version);
		list_add(&fleet->backoffs, &backoff->link);
	}
	backoff->deaths++;
	backoff->was_ready = was_ready;
	if (backoff->deaths == 1 && was_ready)
		return 0;
	backoff->delay_ms = backoff->delay_ms == 0 ? BACKOFF_FIRST_MS : backoff->delay_ms * 2;
	if (backoff->delay_ms > max_ms)
		backoff->delay_ms = max_ms;
	backoff->until_ns = clock_now_ns() + backoff->delay_ms * NS_PER_MS;
	return backoff->delay_ms;
}

uint64_t
backoff_left_ms(struct fleet *fleet, const char *version)
{
	const struct fleet_backoff *backoff = backoff_find(fleet, version);
	uint64_t now = clock_now_ns();

	if (backoff == NULL || backoff->until_ns <= now)
		return 0;
	return (backoff->until_ns - now + NS_PER_MS - 1) / NS_PER_MS;
}

uint64_t
backoff_since_ns(const struct fleet_backoff *backoff)
{
	return backoff->until_ns - backoff->delay_ms * NS_PER_MS;
}

uint64_t
fleet_pause_ms(const struct fleet *fleet, uint64_t max_ms)
{
	uint64_t now = clock_now_ns();
	const struct list *link;

	list_for_each(link, &fleet->backoffs) {
		const struct fleet_backoff *backoff =
		    list_entry(link, const struct fleet_backoff, link);
		uint64_t left_ns = backoff->until_ns > now ? backoff->until_ns - now : 0;

		if (left_ns > 0 && left_ns < max_ms * NS_PER_MS)
			max_ms = left_ns / NS_PER_MS + 1;
	}
	return max_ms;
}
