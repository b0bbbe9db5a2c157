/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/xalloc.h"
#include "supervisor/api_route.h"
#include "supervisor/child.h"
#include "supervisor/fdstore.h"
#include "supervisor/handoff.h"
#include "supervisor/stop.h"
#include "supervisor/supervisor.h"
#include "supervisor/upgrade.h"
#include "version_gen.h"

#define MAX_VERSIONS 64

static uint64_t
count_children(const struct fleet *fleet)
{
	struct list *pos;
	uint64_t n = 0;

	list_for_each(pos, &fleet->children)
		n += list_entry(pos, struct child, link)->state != CHILD_GONE;
	return n;
}

void
api_health(struct api_call *call)
{
	json_t *json = json_object();

	json_put_text(json, "status", "ok");
	json_put_text(json, "version", PROJECT_VERSION);
	json_put_u64(json, "pid", (uint64_t)getpid());
	json_put_u64(json, "uptime_ms", (clock_now_ns() - call->sup->started_ns) / NS_PER_MS);
	json_put_text(json, "backend", call->sup->options.backend);
	json_put_u64(json, "sessions", call->sup->sessions.live);
	json_put_u64(json, "workers", count_children(&call->sup->fleet));
	api_reply(call->req, 200, json);
}

static json_t *
controller_json(const struct controller *controller)
{
	uint64_t counts[CONTROLLER_COUNTS];
	json_t *json = json_object();

	controller_counts(controller, counts);
	for (unsigned int i = 0; i < CONTROLLER_COUNTS; i++)
		json_put_u64(json, controller_count_name((enum controller_count)i), counts[i]);
	return json;
}

static json_t *
fd_store_json(const struct supervisor *sup)
{
	struct fdstore_numbers numbers;
	json_t *json;

	if (!fdstore_numbers(sup, &numbers))
		return json_null();
	json = json_object();
	json_put_u64(json, "limit", numbers.limit);
	json_put_u64(json, "used", numbers.used);
	json_put_u64(json, "not_stored", numbers.nr_not_stored);
	return json;
}

void
api_stats(struct api_call *call)
{
	const struct sessions *sessions = &call->sup->sessions;
	struct version_info infos[MAX_VERSIONS];
	size_t n = fleet_versions(&call->sup->fleet, infos, MAX_VERSIONS);
	json_t *json = json_object(), *versions = json_object();
	uint64_t counters[COUNTER_COUNT];

	sessions_counters(sessions, NULL, counters);
	json_put(json, "counters", api_counters_json(counters));
	for (size_t i = 0; i < n; i++) {
		sessions_counters(sessions, infos[i].version, counters);
		json_put(versions, infos[i].version, api_counters_json(counters));
	}
	json_put(json, "versions", versions);
	json_put_u64(json, "sessions", sessions->live);
	json_put(json, "prefetch", prefetch_totals_json(call->sup));
	json_put(json, "controller", controller_json(&call->sup->controller));
	json_put(json, "fd_store", fd_store_json(call->sup));
	api_reply(call->req, 200, json);
}

static json_t *
sandbox_json(uint32_t bits)
{
	static const struct {
		uint32_t bit;
		const char *word;
	} words[] = {
	    {IPC_SANDBOX_NO_NEW_PRIVS, "no-new-privs"},
	    {IPC_SANDBOX_NO_CAPS, "no-caps"},
	    {IPC_SANDBOX_SECCOMP, "seccomp"},
	    {IPC_SANDBOX_LANDLOCK, "landlock"},
	    {IPC_SANDBOX_OWN_UID, "own-uid"},
	};
	json_t *list = json_array();

	for (size_t i = 0; i < sizeof(words) / sizeof(words[0]); i++)
		if (bits & words[i].bit)
			json_array_append_new(list, json_string(words[i].word));
	return list;
}

/* What a version's live sessions do: how many are in each state, and how many raise alarms. */
static void
put_states(json_t *json, const struct sessions *sessions, const char *version)
{
	json_t *states = json_object();
	uint64_t alarmed = 0;
	struct list *pos;

	list_for_each(pos, &sessions->all) {
		const struct session *session = list_entry(pos, struct session, link);
		const char *word = session_state_word(session->state);
		const json_t *old = json_object_get(states, word);

		if (!session_is_live(session) || strcmp(session->version, version) != 0)
			continue;
		json_put_u64(states, word, (uint64_t)json_integer_value(old) + 1);
		alarmed += session->alarms != 0;
	}
	json_put(json, "states", states);
	json_put_u64(json, "alarmed", alarmed);
}

static json_t *
version_json(const struct version_info *info)
{
	const struct child *child = info->child;
	json_t *json = json_object();

	json_put_text(json, "version", info->version);
	json_put_flag(json, "installed", info->installed);
	json_put_flag(json, "current", info->current);
	json_put_text(json, "state", child ? child_state_word(child->state) : "not-running");
	if (child && child->pid > 0)
		json_put_u64(json, "pid", (uint64_t)child->pid);
	else
		json_put_null(json, "pid");
	json_put_u64(json, "sessions", info->sessions);
	json_put_flag(json, "draining", child && child_is_draining(child));
	json_put(json, "sandbox", sandbox_json(child ? child->sandbox : 0));
	json_put_u64(json, "retry_in_ms", info->retry_in_ms);
	return json;
}

/* Every process of the version: it has more than one while another drains, and for trials. */
static void
put_workers(json_t *json, const struct fleet *fleet, const char *version)
{
	json_t *list = json_array();
	const struct list *pos;

	list_for_each(pos, &fleet->children) {
		const struct child *child = list_entry(pos, const struct child, link);
		json_t *row;

		if (child->state == CHILD_GONE || strcmp(child->version, version) != 0)
			continue;
		row = json_object();
		if (child->pid > 0)
			json_put_u64(row, "pid", (uint64_t)child->pid);
		else
			json_put_null(row, "pid");
		json_put_text(row, "state", child_state_word(child->state));
		json_put_u64(row, "sessions", child_nr_sessions(child));
		json_put_flag(row, "trial", child->is_trial);
		json_array_append_new(list, row);
	}
	json_put(json, "workers", list);
}

void
api_versions(struct api_call *call)
{
	struct version_info infos[MAX_VERSIONS];
	size_t n = fleet_versions(&call->sup->fleet, infos, MAX_VERSIONS);
	json_t *json = json_object(), *list = json_array();

	for (size_t i = 0; i < n; i++) {
		json_t *row = version_json(&infos[i]);

		put_states(row, &call->sup->sessions, infos[i].version);
		put_workers(row, &call->sup->fleet, infos[i].version);
		json_array_append_new(list, row);
	}
	if (call->sup->fleet.current[0])
		json_put_text(json, "current", call->sup->fleet.current);
	else
		json_put_null(json, "current");
	json_put(json, "versions", list);
	api_reply(call->req, 200, json);
}

struct version_body {
	const char *version;
	bool handoff;
};

/* The body {"version": "…"}; with ret_handoff, "handoff" too.  False: the error has been
 * answered. */
static bool
read_version(struct api_call *call, char *ret, bool *ret_handoff)
{
	struct version_body body = {NULL, false};
	static const struct json_member members[] = {
	    {"version", JSON_KIND_TEXT, true, offsetof(struct version_body, version), 1,
		VERSION_BYTES - 1},
	    {"handoff", JSON_KIND_FLAG, false, offsetof(struct version_body, handoff), 0, 0},
	};
	json_t *json = api_read_body(call, members, ret_handoff ? 2 : 1, &body);

	if (!json)
		return false;
	snprintf(ret, VERSION_BYTES, "%s", body.version);
	if (ret_handoff)
		*ret_handoff = body.handoff;
	json_decref(json);
	if (version_is_valid(ret))
		return true;
	api_error(call->req, 400, "bad-request",
	    "\"%s\" is not a version; it looks like 1.2.3 or 1.2.3-rc1", ret);
	return false;
}

static uint64_t
sessions_of(const struct fleet *fleet, const char *version)
{
	const struct list *pos;
	uint64_t n = 0;

	list_for_each(pos, &fleet->children) {
		const struct child *child = list_entry(pos, const struct child, link);

		if (strcmp(child->version, version) == 0)
			n += child_nr_sessions(child);
	}
	return n;
}

void
api_drain(struct api_call *call)
{
	char version[VERSION_BYTES];
	uint64_t sessions;
	json_t *json;

	if (!read_version(call, version, NULL))
		return;
	sessions = sessions_of(&call->sup->fleet, version);
	if (fleet_drain(&call->sup->fleet, version) < 0) {
		api_error(call->req, 404, "not-found",
		    "no worker of version %s runs; the list of versions says which do", version);
		return;
	}
	json = json_object();
	json_put_text(json, "version", version);
	json_put_u64(json, "sessions", sessions);
	api_reply(call->req, 200, json);
}

struct api_upgrade {
	struct list link; /* none, then api.dead */
	struct api *api;
	struct http_request *req;
	char version[VERSION_BYTES];
	char previous[VERSION_BYTES];
	bool handoff;
};

/* moved is what became of the sessions of other versions; NULL when they stay. */
static void
answer_upgrade(struct api_upgrade *upgrade, const struct handoff_result *moved)
{
	json_t *json = json_object();

	json_put_text(json, "version", upgrade->version);
	if (upgrade->previous[0])
		json_put_text(json, "previous", upgrade->previous);
	else
		json_put_null(json, "previous");
	if (moved)
		api_handoff_put(json, moved);
	api_reply(upgrade->req, 200, json);
	api_bury(upgrade->api, &upgrade->link);
}

static void
on_moved(void *arg, const struct handoff_result *result)
{
	answer_upgrade(arg, result);
}

static void
on_upgrade_done(void *arg, int error, const char *why)
{
	struct api_upgrade *upgrade = arg;
	struct handoff_result none = {0};

	if (error) {
		api_error(upgrade->req, 500, "failed",
		    "version %s did not start: %s; nothing has changed", upgrade->version, why);
		api_bury(upgrade->api, &upgrade->link);
	} else if (!upgrade->handoff) {
		answer_upgrade(upgrade, NULL);
	} else if (handoff_version(upgrade->api->sup, NULL, upgrade->version, on_moved, upgrade,
		       none.why, sizeof(none.why)) < 0) {
		answer_upgrade(upgrade, &none);
	}
}

static void
on_upgrade_gone(struct http_request *req)
{
	struct api_upgrade *upgrade = req->state;

	upgrade_forget(upgrade->api->sup, upgrade, upgrade->handoff);
	handoff_forget(upgrade->api->sup, upgrade);
	api_bury(upgrade->api, &upgrade->link);
}

void
api_upgrade(struct api_call *call)
{
	struct api_upgrade *upgrade;
	char version[VERSION_BYTES], why[API_WHY_BYTES] = "";
	bool handoff;
	int r;

	if (!read_version(call, version, &handoff))
		return;
	upgrade = xcalloc(1, sizeof(*upgrade));
	upgrade->handoff = handoff;
	list_init(&upgrade->link);
	upgrade->api = call->api;
	upgrade->req = call->req;
	memcpy(upgrade->version, version, sizeof(version));
	memcpy(upgrade->previous, call->sup->fleet.current, sizeof(upgrade->previous));
	call->req->state = upgrade;
	call->req->on_gone = on_upgrade_gone;
	r = upgrade_start(call->sup, version, on_upgrade_done, upgrade, why, sizeof(why));
	if (r == 0)
		return;
	if (r == -EBUSY)
		api_error(call->req, 409, "busy", "%s", why);
	else if (r == -ENOENT)
		api_error(call->req, 404, "not-found", "%s", why);
	else
		api_error(call->req, r == -EINVAL ? 400 : 500,
		    r == -EINVAL ? "bad-request" : "failed", "%s", why);
	api_bury(call->api, &upgrade->link);
}

/* An empty body, or {"force": true}. */
void
api_shutdown(struct api_call *call)
{
	static const struct json_member members[] = {
	    {"force", JSON_KIND_FLAG, false, 0, 0, 0},
	};
	char ids[API_WHY_BYTES / 2];
	bool force = false;
	uint64_t sessions;
	json_t *json = api_read_body(call, members, 1, &force);

	if (!json)
		return;
	json_decref(json);
	if (stop_for_good(call->sup, force, &sessions, ids, sizeof(ids)) < 0) {
		api_error(call->req, 409, "busy",
		    "%" PRIu64 " sessions live and would be ended: %s; complete or close them, or "
		    "force it; to restart pagerd stop it with a signal",
		    sessions, ids);
		return;
	}
	json = json_object();
	json_put_u64(json, "sessions", sessions);
	api_reply(call->req, 200, json);
}
