/* SPDX-License-Identifier: Apache-2.0 */
#include "supervisor/controller_plan.h"

#include <stdlib.h>

static int
compare_u64(uint64_t a, uint64_t b)
{
	return a < b ? -1 : a > b;
}

static int
compare_facts(const void *a, const void *b)
{
	const struct controller_fact *x = a;
	const struct controller_fact *y = b;
	int r = (int)y->is_outdated - (int)x->is_outdated;

	if (r == 0)
		r = compare_u64(x->serving_ns, y->serving_ns);
	return r != 0 ? r : compare_u64(x->number, y->number);
}

/* How long ago; a time that is still to come is now. */
static uint64_t
elapsed(uint64_t now_ns, uint64_t since_ns)
{
	return now_ns > since_ns ? now_ns - since_ns : 0;
}

/* What a session is due, places aside. */
static enum controller_verdict
judge(const struct controller_config *config, uint64_t now_ns, const struct controller_fact *fact)
{
	if (fact->started_ns != 0) {
		bool is_late = elapsed(now_ns, fact->started_ns) >= config->timeout_ns;

		return !fact->is_stopping && (is_late || !config->enabled) ? CONTROLLER_ABORT
									   : CONTROLLER_RUN;
	}
	if (!config->enabled || !fact->is_serving)
		return CONTROLLER_LEAVE;
	if (elapsed(now_ns, fact->serving_ns) < config->min_age_ns)
		return CONTROLLER_YOUNG;
	if (fact->stayed_ns != 0 && elapsed(now_ns, fact->stayed_ns) < config->backoff_ns)
		return CONTROLLER_BACKING_OFF;
	return CONTROLLER_WAIT;
}

static void
note_deadline(struct controller_plan *plan, uint64_t due_ns)
{
	if (plan->abort_ns == 0 || due_ns < plan->abort_ns)
		plan->abort_ns = due_ns;
}

void
controller_plan(const struct controller_config *config, uint64_t now_ns,
    struct controller_fact *facts, size_t nr_facts, struct controller_plan *ret)
{
	uint64_t taken;

	*ret = (struct controller_plan){0};
	if (nr_facts > 1)
		qsort(facts, nr_facts, sizeof(*facts), compare_facts);
	for (size_t i = 0; i < nr_facts; i++) {
		facts[i].verdict = judge(config, now_ns, &facts[i]);
		if (facts[i].verdict == CONTROLLER_RUN && !facts[i].is_stopping)
			note_deadline(ret, facts[i].started_ns + config->timeout_ns);
		ret->nr[facts[i].verdict]++;
	}
	taken = ret->nr[CONTROLLER_RUN] + ret->nr[CONTROLLER_ABORT];
	for (size_t i = 0; i < nr_facts && !config->paused && taken < config->max_concurrent; i++) {
		if (facts[i].verdict != CONTROLLER_WAIT)
			continue;
		facts[i].verdict = CONTROLLER_START;
		note_deadline(ret, now_ns + config->timeout_ns);
		ret->nr[CONTROLLER_WAIT]--;
		ret->nr[CONTROLLER_START]++;
		taken++;
	}
}
