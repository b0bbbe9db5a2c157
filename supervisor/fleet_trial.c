/* SPDX-License-Identifier: Apache-2.0 */
/* Workers for sessions that are suspected of killing workers.
 *
 * Nobody waits for another's trial: those that lost a worker together are spread over several
 * new ones at once.  Where the guilty one is, the worker dies again and its few are spread once
 * more, until it is alone; the others are served meanwhile and stay where they are.  Such a
 * worker gets no other sessions and exits with the last one. */
#include <errno.h>
#include <ev.h>
#include <string.h>

#include "supervisor/child.h"
#include "supervisor/drain.h"
#include "supervisor/fleet.h"
#include "supervisor/supervisor.h"

/* Workers that are started at once.  All their sessions wait until all have started, at about
 * 5 ms of a CPU for each. */
#define MAX_AT_ONCE 8U
/* Of all versions.  Then sessions share what there is. */
#define MAX_TRIALS 64U

struct survey {
	unsigned nr_all;	/* for trials, of any version */
	unsigned nr_of_turn;	/* of the version, started in this turn of the loop */
	struct child *of_turn;	/* that of them with the fewest sessions; NULL: there is none */
	struct child *emptiest; /* the same of all of the version */
};

static void
keep_emptier(struct child **best, struct child *child)
{
	if (*best == NULL || child_nr_sessions(child) < child_nr_sessions(*best))
		*best = child;
}

static void
look(struct fleet *fleet, const char *version, unsigned turn, struct survey *ret)
{
	struct list *pos;

	*ret = (struct survey){0};
	list_for_each(pos, &fleet->children) {
		struct child *child = list_entry(pos, struct child, link);

		if (!child->is_trial || child->state == CHILD_GONE)
			continue;
		ret->nr_all++;
		if (strcmp(child->version, version) != 0 || !fleet_can_adopt(child))
			continue;
		keep_emptier(&ret->emptiest, child);
		if (child->turn != turn)
			continue;
		ret->nr_of_turn++;
		keep_emptier(&ret->of_turn, child);
	}
}

static int
find_of_version(
    struct fleet *fleet, const char *version, struct child **ret, char *why, size_t why_bytes)
{
	unsigned turn = ev_iteration(fleet->sup->loop);
	struct survey survey;
	int r = -EAGAIN;

	look(fleet, version, turn, &survey);
	if (survey.nr_of_turn < MAX_AT_ONCE && survey.nr_all < MAX_TRIALS) {
		r = fleet_start_to_adopt(fleet, version, ret, why, why_bytes);
		if (r == 0) {
			(*ret)->is_trial = true;
			(*ret)->turn = turn;
			return 0;
		}
	}
	*ret = survey.of_turn != NULL ? survey.of_turn : survey.emptiest;
	return *ret != NULL ? 0 : r;
}

int
fleet_child_for_trial(
    struct fleet *fleet, const char *version, struct child **ret, char *why, size_t why_bytes)
{
	int r;

	snprintf(why, why_bytes, "too many sessions are on trial");
	r = find_of_version(fleet, version, ret, why, why_bytes);
	if (r < 0 && fleet->current[0] != '\0' && strcmp(version, fleet->current) != 0)
		r = find_of_version(fleet, fleet->current, ret, why, why_bytes);
	return r;
}

void
fleet_drain_surplus(struct fleet *fleet, const char *version)
{
	struct child *kept = NULL;
	struct list *pos, *tmp;

	list_for_each_safe(pos, tmp, &fleet->children) {
		struct child *child = list_entry(pos, struct child, link);
		struct child *surplus = child;

		if (!child_is_ready(child) || strcmp(child->version, version) != 0)
			continue;
		if (kept == NULL || child_nr_sessions(child) > child_nr_sessions(kept)) {
			surplus = kept;
			kept = child;
		}
		if (surplus != NULL)
			drain_child(surplus, "another worker takes its version's sessions");
	}
}
