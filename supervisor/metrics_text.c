/* SPDX-License-Identifier: Apache-2.0 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/clock.h"
#include "supervisor/child.h"
#include "supervisor/fdstore.h"
#include "supervisor/metrics.h"
#include "supervisor/opener.h"
#include "supervisor/supervisor.h"
#include "version_gen.h"

#define MAX_VERSIONS 64
/* For pages that are counted anew, of one answer. */
#define RECOUNT_NS (4 * NS_PER_MS)

struct writer {
	FILE *out;
	struct supervisor *sup;
	const char *name; /* of the family */
};

/* --- Rows --------------------------------------------------------------------------- */

static void
put(const struct writer *w, const char *labels, uint64_t value)
{
	fprintf(w->out, "%s%s%s%s %" PRIu64 "\n", w->name, *labels ? "{" : "", labels,
	    *labels ? "}" : "", value);
}

static void
put_for(const struct writer *w, const char *key, const char *word, uint64_t value)
{
	fprintf(w->out, "%s{%s=\"%s\"} %" PRIu64 "\n", w->name, key, word, value);
}

static double
seconds(uint64_t nanos)
{
	return (double)nanos / (double)NS_PER_S;
}

/* labels: none, or some with a comma at the end. */
static void
put_time(const struct writer *w, const char *labels, const struct metrics_time *time)
{
	size_t n = strlen(labels);
	uint64_t sum = 0;

	for (unsigned i = 0; i < PAGEMAP_BUCKETS; i++) {
		uint64_t bound = UINT64_C(1) << (PAGEMAP_BUCKET_SHIFT + i);

		sum += time->buckets[i];
		if (i < PAGEMAP_BUCKETS - 1)
			fprintf(w->out, "%s_bucket{%sle=\"%.9g\"} %" PRIu64 "\n", w->name, labels,
			    seconds(bound), sum);
	}
	fprintf(w->out, "%s_bucket{%sle=\"+Inf\"} %" PRIu64 "\n", w->name, labels, sum);
	fprintf(w->out, "%s_sum%s%.*s%s %.9f\n", w->name, n > 0 ? "{" : "", n > 0 ? (int)n - 1 : 0,
	    labels, n > 0 ? "}" : "", seconds(time->nanos));
	fprintf(w->out, "%s_count%s%.*s%s %" PRIu64 "\n", w->name, n > 0 ? "{" : "",
	    n > 0 ? (int)n - 1 : 0, labels, n > 0 ? "}" : "", sum);
}

/* --- Families of the supervisor ------------------------------------------------------- */

static void
write_build(const struct writer *w)
{
	put_for(w, "version", PROJECT_VERSION, 1);
}

static void
write_uptime(const struct writer *w)
{
	fprintf(w->out, "%s %.3f\n", w->name, seconds(clock_now_ns() - w->sup->started_ns));
}

static void
write_versions(const struct writer *w)
{
	struct version_info infos[MAX_VERSIONS];
	size_t n = fleet_versions(&w->sup->fleet, infos, MAX_VERSIONS);

	for (size_t i = 0; i < n; i++)
		fprintf(w->out,
		    "%s{version=\"%s\",current=\"%s\",installed=\"%s\",worker=\"%s\"} 1\n", w->name,
		    infos[i].version, infos[i].current ? "yes" : "no",
		    infos[i].installed ? "yes" : "no",
		    infos[i].child ? child_state_word(infos[i].child->state) : "not-running");
}

/* One line for each version that serves some, and for each state, also those that nobody is in:
 * a series that comes and goes cannot be alarmed on. */
static void
write_sessions(const struct writer *w)
{
	struct version_info infos[MAX_VERSIONS];
	size_t n = fleet_versions(&w->sup->fleet, infos, MAX_VERSIONS);
	uint64_t counts[MAX_VERSIONS + 1][SESSION_STATE_COUNT] = {{0}};
	struct list *pos;

	list_for_each(pos, &w->sup->sessions.all) {
		const struct session *session = list_entry(pos, struct session, link);
		size_t i = 0;

		while (i < n && strcmp(infos[i].version, session->version) != 0)
			i++;
		counts[i][session->state]++;
	}
	for (unsigned s = 0; s < SESSION_STATE_COUNT; s++) {
		if (!session_state_is_live((enum session_state)s))
			continue;
		for (size_t i = 0; i <= n; i++)
			if (i < n || counts[i][s] > 0)
				fprintf(w->out, "%s{state=\"%s\",version=\"%s\"} %" PRIu64 "\n",
				    w->name, session_state_name((enum session_state)s),
				    i < n ? infos[i].version : "other", counts[i][s]);
	}
}

static void
write_alarms(const struct writer *w)
{
	uint64_t n = 0;
	struct list *pos;

	list_for_each(pos, &w->sup->sessions.all) {
		const struct session *session = list_entry(pos, struct session, link);

		n += session_is_live(session) && session->image_alarm[0] != '\0';
	}
	put(w, "", n);
}

static void
write_pages(const struct writer *w)
{
	struct pagemap_counts sum = {0};
	struct list *pos;

	list_for_each(pos, &w->sup->sessions.all) {
		const struct session *session = list_entry(pos, struct session, link);

		if (!session_is_live(session))
			continue;
		sum.absent += session->last_counts.absent;
		sum.filling += session->last_counts.filling;
		sum.present += session->last_counts.present;
		sum.removed += session->last_counts.removed;
	}
	put_for(w, "state", "absent", sum.absent);
	put_for(w, "state", "filling", sum.filling);
	put_for(w, "state", "present", sum.present);
	put_for(w, "state", "removed", sum.removed);
}

static void
write_active(const struct writer *w)
{
	uint64_t counters[COUNTER_COUNT], sum = 0;
	struct list *pos;

	list_for_each(pos, &w->sup->sessions.all) {
		session_counters(list_entry(pos, struct session, link), counters);
		if (counters[COUNTER_FAULTS_ACTIVE] <= PAGEMAP_EVENTS)
			sum += counters[COUNTER_FAULTS_ACTIVE];
	}
	put(w, "", sum);
}

static void
write_held_bytes(const struct writer *w)
{
	uint64_t sum = 0;
	struct list *pos;

	list_for_each(pos, &w->sup->sessions.all) {
		const struct session *session = list_entry(pos, struct session, link);

		sum += session_is_live(session) ? session->guest_bytes : 0;
	}
	put(w, "", sum);
}

static void
write_opens(const struct writer *w)
{
	uint64_t running, stuck;

	opener_count(w->sup, &running, &stuck);
	put_for(w, "state", "running", running - stuck);
	put_for(w, "state", "stuck", stuck);
}

static void
write_backend(const struct writer *w)
{
	put_for(w, "backend", w->sup->options.backend, 1);
}

static void
write_fd_store(const struct writer *w)
{
	struct fdstore_numbers numbers;

	if (!fdstore_numbers(w->sup, &numbers))
		return;
	put_for(w, "what", "limit", numbers.limit);
	put_for(w, "what", "used", numbers.used);
}

static void
write_not_stored(const struct writer *w)
{
	struct fdstore_numbers numbers;

	if (fdstore_numbers(w->sup, &numbers))
		put(w, "", numbers.nr_not_stored);
}

static void
write_session_events(const struct writer *w)
{
	for (unsigned e = 0; e < SESSION_EVENT_COUNT; e++)
		put_for(w, "event", session_event_name((enum session_event)e),
		    w->sup->metrics.session_events[e]);
}

static void
write_outcomes(const struct writer *w)
{
	for (unsigned o = SESSION_OUTCOME_NONE + 1; o <= SESSION_OUTCOME_FAILED; o++)
		put_for(w, "outcome", session_outcome_name((enum session_outcome)o),
		    w->sup->metrics.outcomes[o]);
}

static void
write_worker_events(const struct writer *w)
{
	for (unsigned e = 0; e < CHILD_EV_COUNT; e++)
		put_for(w, "event", child_event_name((enum child_event)e),
		    w->sup->metrics.worker_events[e]);
}

static void
write_worker_deaths(const struct writer *w)
{
	const struct list *pos;

	list_for_each(pos, &w->sup->metrics.versions) {
		const struct metrics_version *v =
		    list_entry(pos, const struct metrics_version, link);

		put_for(w, "version", v->version, v->deaths);
	}
}

static void
write_adoption(const struct writer *w)
{
	put_time(w, "", &w->sup->metrics.adoption);
}

static void
write_handover(const struct writer *w)
{
	put_time(w, "", &w->sup->metrics.handover);
}

static void
write_controller(const struct writer *w)
{
	static const enum controller_count totals[] = {CONTROLLER_COUNT_ATTEMPTS,
	    CONTROLLER_COUNT_GRADUATED, CONTROLLER_COUNT_ABORTED, CONTROLLER_COUNT_FAILED,
	    CONTROLLER_COUNT_GONE};
	uint64_t counts[CONTROLLER_COUNTS];

	controller_counts(&w->sup->controller, counts);
	for (size_t i = 0; i < sizeof(totals) / sizeof(totals[0]); i++)
		put_for(w, "what", controller_count_name(totals[i]), counts[totals[i]]);
}

static void
write_prefetch(const struct writer *w)
{
	struct prefetch_totals totals = w->sup->sessions.prefetched;
	const struct list *pos;

	list_for_each(pos, &w->sup->sessions.all)
		prefetch_add(&totals, list_entry(pos, const struct session, link));
	put_for(w, "what", "filled", totals.filled);
	put_for(w, "what", "present", totals.present);
	put_for(w, "what", "outside", totals.outside);
	put_for(w, "what", "left_out", totals.left_out);
	put_for(w, "what", "asked_for", totals.asked_for);
}

/* --- Families of the workers ---------------------------------------------------------- */

static void
put_counter(const struct writer *w, enum counter counter, const char *labels)
{
	const struct list *pos;

	list_for_each(pos, &w->sup->metrics.versions) {
		const struct metrics_version *v =
		    list_entry(pos, const struct metrics_version, link);

		fprintf(w->out, "%s{version=\"%s\"%s%s} %" PRIu64 "\n", w->name, v->version,
		    *labels ? "," : "", labels, v->counts.counters[counter]);
	}
}

static void
put_timing(const struct writer *w, enum pagemap_timing timing)
{
	char labels[VERSION_BYTES + 16];
	const struct list *pos;

	list_for_each(pos, &w->sup->metrics.versions) {
		const struct metrics_version *v =
		    list_entry(pos, const struct metrics_version, link);

		snprintf(labels, sizeof(labels), "version=\"%s\",", v->version);
		put_time(w, labels, &v->counts.times[timing]);
	}
}

/* --- The table ---------------------------------------------------------------------- */

enum family {
#define FAMILY(ident, name, type, help) FAMILY_##ident,
#define FROM(ident, counter, labels)
#define TIMED(ident, timing)
#include "supervisor/metrics.def"
#undef FAMILY
#undef FROM
#undef TIMED
	FAMILIES
};

/* clang-format off */
static const struct {
	const char *name, *type, *help;
} families[FAMILIES] = {
#define FAMILY(ident, name, type, help) [FAMILY_##ident] = { name, #type, help },
#define FROM(ident, counter, labels)
#define TIMED(ident, timing)
#include "supervisor/metrics.def"
#undef FAMILY
#undef FROM
#undef TIMED
};

static void (*const writers[FAMILIES])(const struct writer *w) = {
	[FAMILY_build] = write_build,
	[FAMILY_uptime] = write_uptime,
	[FAMILY_versions] = write_versions,
	[FAMILY_sessions] = write_sessions,
	[FAMILY_alarms] = write_alarms,
	[FAMILY_pages] = write_pages,
	[FAMILY_active] = write_active,
	[FAMILY_held_bytes] = write_held_bytes,
	[FAMILY_opens] = write_opens,
	[FAMILY_backend] = write_backend,
	[FAMILY_fd_store] = write_fd_store,
	[FAMILY_not_stored] = write_not_stored,
	[FAMILY_session_events] = write_session_events,
	[FAMILY_outcomes] = write_outcomes,
	[FAMILY_worker_events] = write_worker_events,
	[FAMILY_worker_deaths] = write_worker_deaths,
	[FAMILY_adoption] = write_adoption,
	[FAMILY_handover] = write_handover,
	[FAMILY_controller] = write_controller,
	[FAMILY_prefetch] = write_prefetch,
};

static const struct {
	enum family family;
	enum counter counter;
	const char *labels;
} from[] = {
#define FAMILY(ident, name, type, help)
#define FROM(ident, counter, labels) { FAMILY_##ident, COUNTER_##counter, labels },
#define TIMED(ident, timing)
#include "supervisor/metrics.def"
#undef FAMILY
#undef FROM
#undef TIMED
};

static const struct {
	enum family family;
	enum pagemap_timing timing;
} timed[] = {
#define FAMILY(ident, name, type, help)
#define FROM(ident, counter, labels)
#define TIMED(ident, timing) { FAMILY_##ident, PAGEMAP_TIME_##timing },
#include "supervisor/metrics.def"
#undef FAMILY
#undef FROM
#undef TIMED
};
/* clang-format on */

static void
write_family(struct writer *w, enum family family)
{
	w->name = families[family].name;
	fprintf(w->out, "# HELP %s %s\n# TYPE %s %s\n", w->name, families[family].help, w->name,
	    families[family].type);
	if (writers[family] != NULL)
		writers[family](w);
	for (size_t i = 0; i < sizeof(from) / sizeof(from[0]); i++)
		if (from[i].family == family)
			put_counter(w, from[i].counter, from[i].labels);
	for (size_t i = 0; i < sizeof(timed) / sizeof(timed[0]); i++)
		if (timed[i].family == family)
			put_timing(w, timed[i].timing);
}

/* Goes on behind the one that the last answer ended with. */
static void
recount(struct supervisor *sup)
{
	const struct list *head = &sup->sessions.all;
	uint64_t now_ns = clock_now_ns();
	struct list *pos = head->next;
	uint64_t left = sup->sessions.live + sup->sessions.dead;

	while (pos != head && list_entry(pos, struct session, link)->number <= sup->metrics.counted)
		pos = pos->next;
	for (; left > 0 && clock_now_ns() - now_ns < RECOUNT_NS; left--) {
		struct session *session;

		pos = pos == head ? head->next : pos;
		session = list_entry(pos, struct session, link);
		session_refresh_counts(session, 0);
		sup->metrics.counted = session->number;
		pos = pos->next;
	}
}

/* Every version has its rows from the start, and not from its first session on. */
static void
collect_all(struct supervisor *sup)
{
	struct version_info infos[MAX_VERSIONS];
	size_t n = fleet_versions(&sup->fleet, infos, MAX_VERSIONS);
	struct list *pos;

	for (size_t i = 0; i < n; i++)
		metrics_know(&sup->metrics, infos[i].version);
	list_for_each(pos, &sup->sessions.all)
		metrics_collect(list_entry(pos, struct session, link));
	recount(sup);
}

char *
metrics_text(struct supervisor *sup, size_t *ret_bytes)
{
	struct writer w = {.sup = sup};
	char *text = NULL;
	bool failed;

	w.out = open_memstream(&text, ret_bytes);
	if (w.out == NULL)
		return NULL;
	collect_all(sup);
	for (unsigned i = 0; i < FAMILIES; i++)
		write_family(&w, (enum family)i);
	failed = ferror(w.out) != 0;
	if (fclose(w.out) == 0 && !failed)
		return text;
	free(text);
	return NULL;
}

void
metrics_write_docs(FILE *out)
{
	fputs("# Metrics\n\n"
	      "`GET /metrics` on the admin socket answers in the text format of Prometheus.  What "
	      "workers count has a\nlabel `version`; the total is the sum over it.  No label "
	      "holds what a client chooses.\nCounters start at 0 with the supervisor.\n\n"
	      "This page is generated: `make docs`.\n\n"
	      "| name | type | meaning |\n|---|---|---|\n",
	    out);
	for (unsigned i = 0; i < FAMILIES; i++)
		fprintf(out, "| `%s` | %s | %s |\n", families[i].name, families[i].type,
		    families[i].help);
}
