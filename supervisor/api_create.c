/* SPDX-License-Identifier: Apache-2.0 */
/* The body of POST /sessions: pure. */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "supervisor/api_route.h"

#define MAX_CLUSTER_BYTES (UINT64_C(2) << 20)
#define MAX_TIMEOUT_MS	  (UINT64_C(3600) * 1000)
#define MAX_UID		  (UINT64_C(0xffffffff) - 1)

/* clang-format off */
#define MEMBER(name, kind, required, member, min, max) \
	{ name, JSON_KIND_##kind, required, offsetof(struct api_create, member), min, max }
static const struct json_member members[] = {
	MEMBER("image", TEXT, false, session.image_path, 1, 4095),
	MEMBER("template", TEXT, false, session.template, 1, TEMPLATE_NAME_BYTES - 1),
	MEMBER("id", TEXT, false, session.id, 1, SESSION_ID_BYTES - 1),
	MEMBER("instance", TEXT, false, session.instance, 1, SESSION_ID_BYTES - 1),
	MEMBER("cache_key", TEXT, false, session.cache_key, 1, SESSION_ID_BYTES - 1),
	MEMBER("vmm_uid", U64, false, vmm_uid, 0, MAX_UID),
	MEMBER("vmm_gid", U64, false, vmm_gid, 0, MAX_UID),
	MEMBER("memfd", FLAG, false, session.memfd, 0, 0),
	MEMBER("track_writes", FLAG, false, session.track_writes, 0, 0),
	MEMBER("handshake_timeout_ms", U64, false, session.handshake_timeout_ms, 1, MAX_TIMEOUT_MS),
	MEMBER("cluster_min_bytes", U64, false, session.cluster_min_bytes, PAGE_BYTES, MAX_CLUSTER_BYTES),
	MEMBER("cluster_max_bytes", U64, false, session.cluster_max_bytes, PAGE_BYTES, MAX_CLUSTER_BYTES),
	MEMBER("on_image_error", TEXT, false, session.on_image_error, 1, 16),
	MEMBER("record", ANY, false, record, 0, 0),
	MEMBER("hot_list", TEXT, false, session.hot_list, 1, 4095),
	MEMBER("prefetch", TEXT, false, prefetch, 1, 16),
	MEMBER("overlays", LIST, false, list, 0, OVERLAY_MAX),
};
/* clang-format on */

static int
check_cluster(const char *name, uint64_t bytes, char *why, size_t why_bytes)
{
	if ((bytes & (bytes - 1)) == 0) /* 0: not given */
		return 0;
	snprintf(why, why_bytes, "\"%s\" must be a power of two", name);
	return -EINVAL;
}

static int
read_overlays(struct api_create *create, char *why, size_t why_bytes)
{
	int r = create->list
	    ? overlays_read(create->list, "offset", create->overlays, why, why_bytes)
	    : 0;

	create->session.overlays = create->overlays;
	create->session.nr_overlays = create->list ? json_array_size(create->list) : 0;
	return r;
}

/* What the image is and what it is like is said by one of the two. */
static int
check_source(const struct session_request *req, char *why, size_t why_bytes)
{
	if (!req->template && !req->image_path)
		snprintf(why, why_bytes, "the member \"image\" is missing, or \"template\"");
	else if (req->template && req->image_path)
		snprintf(why, why_bytes, "\"image\" and \"template\" exclude each other");
	else if (req->template && (req->cache_key || req->hot_list))
		snprintf(why, why_bytes, "\"%s\" is the template's; leave it out",
		    req->cache_key ? "cache_key" : "hot_list");
	else
		return 0;
	return -EINVAL;
}

int
api_record_read(const json_t *json, bool *ret, const char **ret_path, char *why, size_t why_bytes)
{
	static const struct json_member path_member = {"path", JSON_KIND_TEXT, true, 0, 1, 4095};

	*ret = json_is_true(json) || json_is_object(json);
	*ret_path = NULL;
	if (json_is_object(json))
		return json_read_members(json, &path_member, 1, ret_path, why, why_bytes);
	if (json_is_boolean(json))
		return 0;
	snprintf(why, why_bytes, "\"record\" must be true, false or an object with a \"path\"");
	return -EINVAL;
}

static int
read_traces(struct api_create *create, char *why, size_t why_bytes)
{
	struct session_request *req = &create->session;

	if (create->prefetch != NULL && !prefetch_mode_read(create->prefetch, &req->prefetch)) {
		snprintf(why, why_bytes, "\"prefetch\" must be on, off or sequential");
		return -EINVAL;
	}
	if (create->record == NULL)
		return 0;
	return api_record_read(create->record, &req->record, &req->record_path, why, why_bytes);
}

int
api_create_read(const json_t *json, struct api_create *ret, char *why, size_t why_bytes)
{
	int r;

	memset(ret, 0, sizeof(*ret));
	ret->vmm_uid = ret->vmm_gid = UINT64_MAX;
	r = json_read_members(
	    json, members, sizeof(members) / sizeof(members[0]), ret, why, why_bytes);
	if (r == 0)
		r = check_source(&ret->session, why, why_bytes);
	if (r == 0)
		r = check_cluster(
		    "cluster_min_bytes", ret->session.cluster_min_bytes, why, why_bytes);
	if (r == 0)
		r = check_cluster(
		    "cluster_max_bytes", ret->session.cluster_max_bytes, why, why_bytes);
	if (r == 0)
		r = read_overlays(ret, why, why_bytes);
	if (r == 0)
		r = read_traces(ret, why, why_bytes);
	if (r == 0 && ret->session.cluster_max_bytes &&
	    ret->session.cluster_min_bytes > ret->session.cluster_max_bytes) {
		snprintf(why, why_bytes, "\"cluster_min_bytes\" is above \"cluster_max_bytes\"");
		r = -EINVAL;
	}
	return r;
}
