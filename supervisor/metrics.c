/* SPDX-License-Identifier: Apache-2.0 */
#include "supervisor/metrics.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/xalloc.h"
#include "supervisor/session.h"
#include "supervisor/supervisor.h"

void
metrics_init(struct metrics *metrics)
{
	*metrics = (struct metrics){0};
}

void
metrics_fini(struct metrics *metrics)
{
	while (metrics->versions.next != NULL && !list_is_empty(&metrics->versions)) {
		struct metrics_version *v =
		    list_entry(metrics->versions.next, struct metrics_version, link);

		list_remove(&v->link);
		free(v);
	}
}

/* As many as the administrator installs. */
static struct metrics_version *
account(struct metrics *metrics, const char *version)
{
	struct metrics_version *v;
	struct list *pos;

	if (metrics->versions.next == NULL)
		list_init(&metrics->versions);
	list_for_each(pos, &metrics->versions) {
		v = list_entry(pos, struct metrics_version, link);
		if (strcmp(v->version, version) == 0)
			return v;
	}
	v = xcalloc(1, sizeof(*v));
	snprintf(v->version, sizeof(v->version), "%s", version);
	list_add(&metrics->versions, &v->link);
	return v;
}

void
metrics_know(struct metrics *metrics, const char *version)
{
	account(metrics, version);
}

/* The page map is a worker's to write: no value is believed that goes back, and no sum wraps. */
static void
advance(uint64_t *seen, uint64_t now, uint64_t *sum)
{
	uint64_t more = now > *seen ? now - *seen : 0;

	*seen = now;
	*sum = more < INT64_MAX - *sum ? *sum + more : INT64_MAX;
}

static uint64_t
bucket_of(const struct pagemap *map, unsigned timing, unsigned bucket)
{
	return atomic_load_explicit(
	    &pagemap_timings(map)->times[timing].buckets[bucket], memory_order_relaxed);
}

static uint64_t
nanos_of(const struct pagemap *map, unsigned timing)
{
	return atomic_load_explicit(
	    &pagemap_timings(map)->times[timing].nanos, memory_order_relaxed);
}

static void
collect(const struct pagemap *map, struct metrics_counts *seen, struct metrics_counts *sum)
{
	for (unsigned i = 0; i < COUNTER_COUNT; i++)
		advance(
		    &seen->counters[i], pagemap_counter(map, (enum counter)i), &sum->counters[i]);
	for (unsigned i = 0; i < PAGEMAP_TIMES; i++) {
		struct metrics_time *was = &seen->times[i], *to = &sum->times[i];

		advance(&was->nanos, nanos_of(map, i), &to->nanos);
		for (unsigned b = 0; b < PAGEMAP_BUCKETS; b++)
			advance(&was->buckets[b], bucket_of(map, i, b), &to->buckets[b]);
	}
}

void
metrics_collect(struct session *session)
{
	struct metrics *metrics = &session->sup->metrics;

	if (session->map.header != NULL && session->version[0] != '\0')
		collect(
		    &session->map, &session->metered, &account(metrics, session->version)->counts);
}

void
metrics_begin(struct session *session)
{
	struct metrics_counts nobody = {0};

	if (session->map.header != NULL)
		collect(&session->map, &session->metered, &nobody);
}

static void
note_time(struct metrics_time *time, uint64_t nanos)
{
	time->nanos += nanos;
	time->buckets[pagemap_bucket(nanos)]++;
}

void
metrics_session_event(struct session *session, enum session_event event)
{
	session->sup->metrics.session_events[event]++;
	if (event == SESSION_EV_MOVE)
		session->is_moving = true;
	else if (event == SESSION_EV_WORKER_LOST)
		session->is_moving = false;
}

void
metrics_resumed(struct session *session, uint64_t nanos)
{
	struct metrics *metrics = &session->sup->metrics;

	note_time(session->is_moving ? &metrics->handover : &metrics->adoption, nanos);
	session->is_moving = false;
}

void
metrics_worker_died(struct supervisor *sup, const char *version)
{
	account(&sup->metrics, version)->deaths++;
}
