/* SPDX-License-Identifier: Apache-2.0 */
#include "supervisor/events.h"

#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "common/clock.h"

static uint64_t
unix_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_REALTIME, &now);
	return (uint64_t)now.tv_sec * NS_PER_S + (uint64_t)now.tv_nsec;
}

static void
start(struct events *events)
{
	if (events->next == 0)
		events->first = events->next = unix_ns() / NS_PER_US;
}

void
events_fini(struct events *events)
{
	free(events->ring);
	*events = (struct events){0};
}

/* NULL without memory: then nobody is told. */
static struct event *
add(struct events *events)
{
	struct event *event;

	start(events);
	if (events->ring == NULL)
		events->ring = calloc(EVENTS_KEPT, sizeof(*events->ring));
	if (events->ring == NULL)
		return NULL;
	event = &events->ring[events->next % EVENTS_KEPT];
	*event = (struct event){.number = events->next++, .time_ms = unix_ns() / NS_PER_MS};
	if (events->next - events->first > EVENTS_KEPT)
		events->first = events->next - EVENTS_KEPT;
	return event;
}

void
events_note(struct events *events, const struct event *noted)
{
	struct event *event = add(events);

	if (event == NULL)
		return;
	*event = (struct event){.number = event->number,
	    .time_ms = event->time_ms,
	    .is_worker = noted->is_worker,
	    .from = noted->from,
	    .to = noted->to,
	    .what = noted->what};
	snprintf(event->object, sizeof(event->object), "%s", noted->object);
	snprintf(event->version, sizeof(event->version), "%s", noted->version);
	snprintf(event->reason, sizeof(event->reason), "%s", noted->reason);
}

uint64_t
events_last(struct events *events)
{
	start(events);
	return events->next - 1;
}

const struct event *
events_after(struct events *events, uint64_t number, bool *ret_gap)
{
	start(events);
	*ret_gap = number + 1 < events->first;
	if (*ret_gap)
		number = events->first - 1;
	if (number + 1 >= events->next)
		return NULL;
	return &events->ring[(number + 1) % EVENTS_KEPT];
}
