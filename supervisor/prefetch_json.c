/* SPDX-License-Identifier: Apache-2.0 */
/* What came of a prefetch, in words and numbers. */
#include <string.h>

#include "common/xalloc.h"
#include "supervisor/json.h"
#include "supervisor/prefetch.h"
#include "supervisor/session_impl.h"
#include "supervisor/supervisor.h"

static const char *const state_words[] = {
    [TRACE_WAITING] = "waiting",
    [TRACE_RUNNING] = "running",
    [TRACE_DONE] = "done",
    [TRACE_STOPPED] = "stopped",
    [TRACE_FAILED] = "failed",
};

/* What share of the pages left out the guest asked for is the share of the others that it
 * uses, as far as anybody can tell.  Until something was left out, nobody can. */
static void
put_estimates(json_t *json, uint64_t filled, uint64_t left_out, uint64_t asked_for)
{
	uint64_t used;

	if (left_out == 0) {
		json_put_null(json, "used");
		json_put_null(json, "wasted");
		json_put_null(json, "faults_avoided");
		return;
	}
	if (asked_for > left_out)
		asked_for = left_out;
	used = (uint64_t)((double)filled * (double)asked_for / (double)left_out);
	json_put_u64(json, "used", used);
	json_put_u64(json, "wasted", filled - used);
	json_put_u64(json, "faults_avoided", used);
}

static void
put_numbers(json_t *json, const struct prefetch_numbers *n)
{
	json_put_u64(json, "pages", n->pages);
	json_put_u64(json, "filled", n->filled);
	json_put_u64(json, "present", n->present);
	json_put_u64(json, "outside", n->outside);
	json_put_u64(json, "left_out", n->left_out);
	json_put_u64(json, "asked_for", n->asked_for);
	put_estimates(json, n->filled, n->left_out, n->asked_for);
	json_put_u64(json, "ms", n->ms);
}

json_t *
prefetch_json(const struct session *session)
{
	static const struct prefetch no_prefetch = {.mode = PREFETCH_OFF, .fd = -1};
	const struct prefetch *prefetch =
	    session->prefetch != NULL ? session->prefetch : &no_prefetch;
	struct prefetch_numbers n = {0};
	bool has_plan = prefetch_numbers(session, &n);
	json_t *json = json_object();
	const char *reason = prefetch->reason;

	if (n.state == TRACE_FAILED)
		reason = n.error != 0 ? strerror(n.error) : "its worker says so";
	json_put_text(json, "mode",
	    prefetch->mode == PREFETCH_OFF		? "off"
		: prefetch->mode == PREFETCH_SEQUENTIAL ? "sequential"
							: "on");
	json_put_text(json, "state", has_plan ? state_words[n.state] : "none");
	if (*reason != '\0')
		json_put_text(json, "reason", reason);
	else
		json_put_null(json, "reason");
	if (prefetch->path != NULL)
		json_put_text(json, "hot_list", prefetch->path);
	else
		json_put_null(json, "hot_list");
	put_numbers(json, &n);
	return json;
}

json_t *
prefetch_totals_json(const struct supervisor *sup)
{
	struct prefetch_totals totals = sup->sessions.prefetched;
	const struct list *pos;
	json_t *json = json_object();

	list_for_each(pos, &sup->sessions.all)
		prefetch_add(&totals, list_entry(pos, const struct session, link));
	json_put_u64(json, "sessions", totals.sessions);
	json_put_u64(json, "filled", totals.filled);
	json_put_u64(json, "present", totals.present);
	json_put_u64(json, "outside", totals.outside);
	json_put_u64(json, "left_out", totals.left_out);
	json_put_u64(json, "asked_for", totals.asked_for);
	put_estimates(json, totals.filled, totals.left_out, totals.asked_for);
	return json;
}

void
prefetch_put(json_t *json, const struct session *session)
{
	const struct prefetch *prefetch = session->prefetch;

	if (prefetch == NULL || prefetch->fd < 0)
		return;
	json_put_u64(json, "prefetch_mode", prefetch->mode);
	json_put_u64(json, "prefetch_pages", prefetch->pages);
	json_put_u64(json, "prefetch_sample", prefetch->sample);
	if (prefetch->path != NULL)
		json_put_text(json, "prefetch_list", prefetch->path);
}

void
prefetch_load(struct session *session, const struct prefetch *found)
{
	struct prefetch *prefetch = session->prefetch = xcalloc(1, sizeof(*prefetch));

	*prefetch = *found;
	prefetch->fd = -1;
}
