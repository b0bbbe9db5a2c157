/* SPDX-License-Identifier: Apache-2.0 */
/* Bodies of the control API of a version: pure. */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "supervisor/compat_api.h"

static bool
is_blank(const char *text)
{
	return !text || text[strspn(text, " \t\n\v\f\r")] == '\0';
}

/* NULL when it is not there. */
static int
read_text(const json_t *json, const char *name, const char **ret, char *why, size_t why_bytes)
{
	const json_t *value = json_object_get(json, name);

	*ret = NULL;
	if (!value || json_is_null(value))
		return 0;
	*ret = json_string_value(value);
	if (!*ret || !json_text_is_printable(*ret)) {
		snprintf(why, why_bytes, "%s must be a string without control characters", name);
		return -EINVAL;
	}
	return 0;
}

static int
read_overlays(const json_t *json, struct compat_create *ret, char *why, size_t why_bytes)
{
	const json_t *overlays = json_object_get(json, "overlays");

	ret->nr_overlays = 0;
	if (!overlays || json_is_null(overlays))
		return 0;
	if (!json_is_array(overlays)) {
		snprintf(why, why_bytes, "overlays must be a list");
		return -EINVAL;
	}
	ret->nr_overlays = json_array_size(overlays);
	return overlays_read(overlays, "guest_memory_offset", ret->overlays, why, why_bytes);
}

static int
missing(const char *what, char *why, size_t why_bytes)
{
	snprintf(why, why_bytes, "%s is required", what);
	return -EINVAL;
}

int
compat_create_read(const json_t *json, struct compat_create *ret, char *why, size_t why_bytes)
{
	int r = read_text(json, "session_id", &ret->id, why, why_bytes);

	if (r == 0)
		r = read_text(json, "instance_id", &ret->instance, why, why_bytes);
	if (r == 0)
		r = read_text(json, "backing_memory_path", &ret->image_path, why, why_bytes);
	if (r == 0)
		r = read_text(json, "cache_key", &ret->cache_key, why, why_bytes);
	if (r < 0)
		return r;
	if (is_blank(ret->instance))
		ret->instance = NULL;
	if (is_blank(ret->id))
		ret->id = ret->instance;
	if (!ret->id)
		return missing("session_id or instance_id", why, why_bytes);
	if (is_blank(ret->image_path))
		return missing("backing_memory_path", why, why_bytes);
	if (is_blank(ret->cache_key))
		return missing("cache_key", why, why_bytes);
	return read_overlays(json, ret, why, why_bytes);
}

/* The kernel's page cache is the cache: what would be told of one in user space is 0.  So
 * are times that nobody measures. */
#define NONE COUNTER_COUNT

static const struct {
	const char *name;
	enum counter counter;
} stats[] = {
    {"cache_bytes", NONE},
    {"cache_max", NONE},
    {"cache_items", NONE},
    {"cache_hits", NONE},
    {"cache_misses", NONE},
    {"cache_shards", NONE},
    {"cache_lookup_nanos", NONE},
    {"cache_lookup_max_nanos", NONE},
    {"cache_add_nanos", NONE},
    {"cache_add_max_nanos", NONE},
    {"faults", COUNTER_FAULTS},
    {"backing_bytes_read", COUNTER_IMAGE_BYTES_READ},
    {"copies", COUNTER_COPIES},
    {"copy_errors", COUNTER_COPY_ERRORS},
    {"active_faults", COUNTER_FAULTS_ACTIVE},
    {"max_concurrent_faults", COUNTER_FAULTS_ACTIVE_MAX},
    {"fault_nanos", COUNTER_FAULT_NANOS},
    {"fault_max_nanos", COUNTER_FAULT_MAX_NANOS},
    {"read_page_nanos", NONE},
    {"read_page_max_nanos", NONE},
    {"backing_read_nanos", COUNTER_IMAGE_READ_NANOS},
    {"backing_read_max_nanos", COUNTER_IMAGE_READ_MAX_NANOS},
    {"copy_nanos", NONE},
    {"copy_max_nanos", NONE},
};

json_t *
compat_stats_json(const char *version, bool draining, uint64_t active_sessions,
    const uint64_t counters[COUNTER_COUNT])
{
	json_t *json = json_object();

	json_put_text(json, "version", version);
	json_put_flag(json, "draining", draining);
	json_put_u64(json, "active_sessions", active_sessions);
	for (size_t i = 0; i < sizeof(stats) / sizeof(stats[0]); i++)
		json_put_u64(
		    json, stats[i].name, stats[i].counter == NONE ? 0 : counters[stats[i].counter]);
	return json;
}
