/* SPDX-License-Identifier: Apache-2.0 */
#include "supervisor/ctl/top.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/clock.h"
#include "common/pagemap.h"
#include "common/xalloc.h"
#include "supervisor/ctl/ctl.h"
#include "supervisor/ctl/text.h"

static const struct top_row *
find(const struct top *top, const char *id)
{
	for (size_t i = 0; i < top->nr; i++)
		if (strcmp(top->rows[i].id, id) == 0)
			return &top->rows[i];
	return NULL;
}

static void
copy(char *to, size_t bytes, const json_t *json, const char *name)
{
	snprintf(to, bytes, "%s", ctl_text(json, name));
	text_make_printable(to);
}

static void
read_row(struct top_row *row, const json_t *json)
{
	const json_t *pages = json_object_get(json, "pages");
	const json_t *counters = json_object_get(json, "counters");

	copy(row->id, sizeof(row->id), json, "id");
	copy(row->version, sizeof(row->version), json, "version");
	copy(row->state, sizeof(row->state), json, "state");
	row->guest_bytes = ctl_u64(json, "guest_bytes");
	row->pages = ctl_u64(pages, "total");
	row->present = ctl_u64(pages, "present") + ctl_u64(pages, "removed");
	row->faults = ctl_u64(counters, "faults");
	row->fault_nanos = ctl_u64(counters, "fault_nanos");
}

/* Another session of the same name has counted less: its rate is not known yet. */
static uint64_t
rise(uint64_t now, uint64_t before)
{
	return now > before ? now - before : 0;
}

static void
add_up(struct top *top, const struct top *before)
{
	double seconds = (double)(top->taken_ns - before->taken_ns) / (double)NS_PER_S;
	uint64_t faults = 0, nanos = 0;

	for (size_t i = 0; i < top->nr; i++) {
		struct top_row *row = &top->rows[i];
		const struct top_row *was = find(before, row->id);
		uint64_t n = was != NULL ? rise(row->faults, was->faults) : 0;
		uint64_t ns = was != NULL ? rise(row->fault_nanos, was->fault_nanos) : 0;

		row->faults_s = seconds > 0 ? (double)n / seconds : 0;
		row->mean_ns = n > 0 ? ns / n : 0;
		faults += n;
		nanos += ns;
		top->guest_bytes += row->guest_bytes;
		if (row->pages > 0)
			top->present_bytes += (uint64_t)((double)row->guest_bytes *
			    (double)row->present / (double)row->pages);
	}
	top->faults_s = seconds > 0 ? (double)faults / seconds : 0;
	top->mean_ns = faults > 0 ? nanos / faults : 0;
}

bool
top_read(struct top *ret, const struct top *before, const json_t *json, uint64_t now_ns)
{
	const json_t *list = json_object_get(json, "sessions"), *session;
	size_t i;

	*ret = (struct top){.taken_ns = now_ns};
	if (!json_is_array(list))
		return false;
	ret->rows = xcalloc(json_array_size(list) + 1, sizeof(*ret->rows));
	json_array_foreach(list, i, session)
	{
		if (*ctl_text(session, "outcome") == '\0')
			read_row(&ret->rows[ret->nr++], session);
	}
	add_up(ret, before);
	return true;
}

void
top_fini(struct top *top)
{
	free(top->rows);
	*top = (struct top){0};
}

static int
descending(double a, double b)
{
	return a < b ? 1 : a > b ? -1 : 0;
}

static double
share(const struct top_row *row)
{
	return row->pages > 0 ? (double)row->present / (double)row->pages : 0;
}

#define COMPARE(name, value)                                                \
	static int by_##name(const void *left, const void *right)           \
	{                                                                   \
		const struct top_row *a = left, *b = right;                 \
		int r = descending((double)(value(a)), (double)(value(b))); \
                                                                            \
		return r != 0 ? r : strcmp(a->id, b->id);                   \
	}
#define FAULTS(row)  ((row)->faults_s)
#define LATENCY(row) ((row)->mean_ns)
#define MEMORY(row)  ((row)->guest_bytes)

COMPARE(faults, FAULTS)
COMPARE(latency, LATENCY)
COMPARE(memory, MEMORY)
COMPARE(present, share)

static int
by_id(const void *left, const void *right)
{
	const struct top_row *a = left, *b = right;

	return strcmp(a->id, b->id);
}

void
top_sort(struct top *top, enum top_sort by)
{
	static int (*const compare[TOP_SORTS])(const void *, const void *) = {
	    [TOP_BY_FAULTS] = by_faults,
	    [TOP_BY_LATENCY] = by_latency,
	    [TOP_BY_MEMORY] = by_memory,
	    [TOP_BY_PRESENT] = by_present,
	    [TOP_BY_ID] = by_id,
	};

	qsort(top->rows, top->nr, sizeof(*top->rows), compare[by]);
}
