/* SPDX-License-Identifier: Apache-2.0 */
/* What is spoken on RUN/uffd/VERSION/control.sock: the control API of a pager that is one
 * process for each version.  Answers are JSON or nothing, errors plain text.
 *
 * Sessions are created on the version of the socket.  They are found by id whatever
 * version serves them by now, since clients take 404 for "needs no pager any more". */
#ifndef SUPERVISOR_COMPAT_API_H
#define SUPERVISOR_COMPAT_API_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "supervisor/api_route.h"

#define ROUTE(method, pattern, permission, handler, keys, doc) \
	void compat_##handler(struct api_call *call);
#include "supervisor/compat.def"
#undef ROUTE

extern const struct api_table compat_table;

/* The handler of a control's server; arg is the struct control. */
void compat_request(void *arg, struct http_request *req);

/* The body of POST /sessions.  Texts are borrowed from the JSON, and none is blank but
 * instance, which may be NULL. */
struct compat_create {
	const char *id, *instance, *image_path, *cache_key;
	size_t nr_overlays;
	struct overlay_request overlays[OVERLAY_MAX];
};

/* 0, or -EINVAL and why.  Members that it does not know are ignored, but in an overlay. */
int compat_create_read(const json_t *json, struct compat_create *ret, char *why, size_t why_bytes);

/* The answer to GET /stats. */
json_t *compat_stats_json(const char *version, bool draining, uint64_t active_sessions,
    const uint64_t counters[COUNTER_COUNT]);

#endif
