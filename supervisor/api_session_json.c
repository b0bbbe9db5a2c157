/* SPDX-License-Identifier: Apache-2.0 */
/* The session object of the API. */
#include "common/clock.h"
#include "supervisor/api_route.h"
#include "supervisor/recording.h"

json_t *
api_counters_json(const uint64_t counters[COUNTER_COUNT])
{
	json_t *json = json_object();

	for (int i = 0; i < COUNTER_COUNT; i++)
		json_put_u64(json, counter_name((enum counter)i), counters[i]);
	return json;
}

static json_t *
regions_json(const struct session *session)
{
	struct region regions[PAGEMAP_MAX_REGIONS];
	uint32_t n = session->map.header ? pagemap_regions(&session->map, regions) : 0;
	json_t *list = json_array();

	for (uint32_t i = 0; i < n; i++) {
		json_t *json = json_object();

		json_put_u64(json, "host_addr", regions[i].host_addr);
		json_put_u64(json, "size", regions[i].size_bytes);
		json_put_u64(json, "offset", regions[i].offset);
		json_put_u64(json, "page_size", regions[i].page_bytes);
		json_array_append_new(list, json);
	}
	return list;
}

static uint64_t
total_pages(const struct pagemap_counts *counts)
{
	return counts->absent + counts->filling + counts->present + counts->removed;
}

static json_t *
pages_json(const struct pagemap_counts *counts)
{
	json_t *json = json_object();

	json_put_u64(json, "absent", counts->absent);
	json_put_u64(json, "filling", counts->filling);
	json_put_u64(json, "present", counts->present);
	json_put_u64(json, "removed", counts->removed);
	json_put_u64(json, "total", total_pages(counts));
	return json;
}

/* The rate is that of the completion so far; 0 and no eta before the first chunk, and
 * when there is none. */
void
api_progress_put(json_t *json, const struct session *session, const struct pagemap_counts *counts)
{
	struct session_progress progress;

	if (!session_progress(session, counts, &progress))
		progress = (struct session_progress){0};
	json_put_u64(json, "pages_done", counts->present + counts->removed);
	json_put_u64(json, "pages_total", total_pages(counts));
	json_put_u64(json, "bytes_per_second", progress.bytes_per_second);
	if (progress.bytes_per_second > 0)
		json_put_u64(json, "eta_ms", progress.eta_ms);
	else
		json_put_null(json, "eta_ms");
}

static json_t *
progress_json(const struct session *session, const struct pagemap_counts *counts)
{
	json_t *json = json_object();

	api_progress_put(json, session, counts);
	return json;
}

static void
put_text_or_null(json_t *json, const char *name, const char *value)
{
	if (value && *value)
		json_put_text(json, name, value);
	else
		json_put_null(json, name);
}

static uint64_t
unserved_ms(const struct session *session)
{
	return session->unserved_ns == 0 || session_is_over(session)
	    ? 0
	    : (clock_now_ns() - session->unserved_ns) / NS_PER_MS;
}

static json_t *
session_json(const struct session *session, const struct pagemap_counts *counts)
{
	uint64_t counters[COUNTER_COUNT];
	json_t *json = json_object();

	session_counters(session, counters);
	json_put_text(json, "id", session->id);
	put_text_or_null(json, "instance", session->instance);
	json_put_text(json, "state", session_state_word(session->state));
	put_text_or_null(json, "outcome",
	    session->outcome == SESSION_OUTCOME_NONE ? NULL
						     : session_outcome_name(session->outcome));
	put_text_or_null(json, "reason", session->reason);
	put_text_or_null(json, "version", session->version);
	json_put_text(json, "backend", "uffd");
	put_text_or_null(json, "template", session->template);
	json_put_text(json, "socket_path", session->socket_path);
	json_put_text(json, "image", session->image_path);
	json_put_u64(json, "image_bytes", session->image.bytes);
	json_put(json, "overlays", overlays_json(&session->overlays));
	json_put_text(json, "cache_key", session->cache_key);
	json_put_u64(json, "guest_bytes", session->guest_bytes);
	json_put(json, "regions", regions_json(session));
	if (session->vmm_pid > 0)
		json_put_u64(json, "vmm_pid", (uint64_t)session->vmm_pid);
	else
		json_put_null(json, "vmm_pid");
	json_put_u64(json, "age_ms", (clock_now_ns() - session->created_ns) / NS_PER_MS);
	json_put(json, "pages", pages_json(counts));
	json_put_u64(json, "adoptions", session->adoptions);
	json_put_u64(json, "unserved_ms", unserved_ms(session));
	json_put_u64(json, "alarms", session->alarms);
	json_put_text(json, "on_image_error", image_policy_word(image_policy_of(session->flags)));
	put_text_or_null(json, "image_alarm", session->image_alarm);
	put_text_or_null(json, "image_changed", session->image_changed);
	json_put(json, "recording", recording_json(session));
	json_put(json, "prefetch", prefetch_json(session));
	json_put(json, "counters", api_counters_json(counters));
	if (session->state == SESSION_COMPLETING)
		json_put(json, "progress", progress_json(session, counts));
	return json;
}

json_t *
api_session_json(const struct session *session)
{
	struct pagemap_counts counts;

	session_counts(session, &counts);
	return session_json(session, &counts);
}

json_t *
api_session_json_listed(const struct session *session)
{
	return session_json(session, &session->last_counts);
}
