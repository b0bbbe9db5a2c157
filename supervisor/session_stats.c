/* SPDX-License-Identifier: Apache-2.0 */
/* Numbers about sessions.  They come from memory that a worker can write at any time,
 * so any value is possible; what a client's JSON can hold is the limit. */
#include <string.h>

#include "common/clock.h"
#include "supervisor/session_impl.h"

#define MAX_VALUE ((uint64_t)INT64_MAX)

/* Counted in one turn of the loop: of 64 GiB of memory, which takes less than 2 ms. */
#define TURN_PAGES (UINT64_C(1) << 24)

static uint64_t
clip(uint64_t value)
{
	return value < MAX_VALUE ? value : MAX_VALUE;
}

static void
counter_add(uint64_t sum[COUNTER_COUNT], enum counter counter, uint64_t value)
{
	if (!counter_is_max(counter))
		sum[counter] = clip(sum[counter] + clip(value)); /* cannot wrap: both are clipped */
	else if (sum[counter] < value)
		sum[counter] = clip(value);
}

void
session_counters(const struct session *session, uint64_t ret[COUNTER_COUNT])
{
	for (unsigned int i = 0; i < COUNTER_COUNT; i++)
		ret[i] = session->map.header ? clip(pagemap_counter(&session->map, (enum counter)i))
					     : session->last_counters[i];
}

static bool
is_large(const struct session *session)
{
	return session->guest_bytes / PAGE_BYTES > TURN_PAGES;
}

void
session_counts(const struct session *session, struct pagemap_counts *ret)
{
	if (session->map.header && !is_large(session))
		pagemap_count(&session->map, ret);
	else
		*ret = session->last_counts;
}

void
session_refresh_counts(struct session *session, uint64_t max_age_ns)
{
	if (!session->map.header ||
	    (session->counted_ns != 0 && clock_now_ns() - session->counted_ns < max_age_ns))
		return;
	if (session->part_pages == 0)
		session->part_counts = (struct pagemap_counts){0};
	if (!pagemap_count_part(
		&session->map, &session->part_pages, TURN_PAGES, &session->part_counts))
		return;
	session->last_counts = session->part_counts;
	session->part_pages = 0;
	session->counted_ns = clock_now_ns();
}

void
session_reset_counts(struct session *session)
{
	struct region regions[PAGEMAP_MAX_REGIONS];
	uint32_t n = pagemap_regions(&session->map, regions);

	session->last_counts = (struct pagemap_counts){0};
	for (uint32_t i = 0; i < n; i++)
		session->last_counts.absent += region_nr_pages(&regions[i]);
}

void
session_keep_numbers(struct session *session)
{
	session_counters(session, session->last_counters);
	session->last_counters[COUNTER_FAULTS_ACTIVE] = 0;
	session_counts(session, &session->last_counts);
	/* What was counted of a large guest is older than its graduation. */
	if (session->state == SESSION_GRADUATED) {
		session->last_counts.present +=
		    session->last_counts.absent + session->last_counts.filling;
		session->last_counts.absent = session->last_counts.filling = 0;
	}
}

void
session_retire(struct sessions *sessions, const struct session *session)
{
	prefetch_add(&sessions->prefetched, session);
	for (unsigned int i = 0; i < COUNTER_COUNT; i++)
		counter_add(sessions->retired, (enum counter)i, session->last_counters[i]);
}

void
sessions_counters(const struct sessions *sessions, const char *version, uint64_t ret[COUNTER_COUNT])
{
	struct list *pos;

	if (version)
		memset(ret, 0, COUNTER_COUNT * sizeof(*ret));
	else
		memcpy(ret, sessions->retired, COUNTER_COUNT * sizeof(*ret));
	list_for_each(pos, &sessions->all) {
		const struct session *session = list_entry(pos, struct session, link);
		uint64_t counters[COUNTER_COUNT];

		if (version && strcmp(session->version, version) != 0)
			continue;
		session_counters(session, counters);
		for (unsigned int i = 0; i < COUNTER_COUNT; i++)
			counter_add(ret, (enum counter)i, counters[i]);
	}
}

bool
session_progress(const struct session *session, const struct pagemap_counts *counts,
    struct session_progress *ret)
{
	uint64_t page_bytes = PAGE_BYTES;

	if (session->state != SESSION_COMPLETING)
		return false;
	uint64_t total = session->completing_absent;
	uint64_t left = counts->absent < total ? counts->absent : total;
	uint64_t ms = (clock_now_ns() - session->completing_ns) / NS_PER_MS;
	uint64_t pages = counts->absent + counts->filling + counts->present + counts->removed;
	if (pages)
		page_bytes = session->guest_bytes / pages;
	*ret = (struct session_progress){.pages_done = total - left, .pages_total = total};
	if (ms == 0 || ret->pages_done == 0)
		return true;
	ret->bytes_per_second =
	    (uint64_t)((double)ret->pages_done * (double)page_bytes * 1000.0 / (double)ms);
	ret->eta_ms = (uint64_t)((double)left * (double)ms / (double)ret->pages_done);
	return true;
}
