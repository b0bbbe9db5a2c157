/* SPDX-License-Identifier: Apache-2.0 */
/* How sessions that are suspected of killing workers are spread over workers. */
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>

#include "supervisor/child.h"
#include "supervisor/drain.h"
#include "supervisor/supervisor.h"
#include "tests/unit/tap.h"

#define MAX_CHILDREN 100
#define AT_ONCE	     8
#define MAX_TRIALS   64

static struct supervisor sup;
static struct child children[MAX_CHILDREN];
static uint64_t nr_sessions[MAX_CHILDREN];
static unsigned nr_children, nr_drained;
static const char *broken; /* the version that cannot be started; NULL: none */

static struct child *
add(const char *version, enum child_state state)
{
	struct child *child = &children[nr_children];

	*child = (struct child){.number = nr_children++, .sup = &sup, .state = state};
	nr_sessions[child->number] = 0;
	snprintf(child->version, sizeof(child->version), "%s", version);
	list_add(&sup.fleet.children, &child->link);
	return child;
}

/* What the rest of the fleet does. */

int
fleet_start_to_adopt(
    struct fleet *fleet, const char *version, struct child **ret, char *why, size_t why_bytes)
{
	(void)fleet;
	if (broken != NULL && strcmp(version, broken) == 0) {
		snprintf(why, why_bytes, "version %s is broken", version);
		return -ENOENT;
	}
	*ret = add(version, CHILD_STARTING);
	return 0;
}

bool
fleet_can_adopt(const struct child *child)
{
	return child->state != CHILD_KILLING && child->state != CHILD_GONE;
}

uint64_t
child_nr_sessions(const struct child *child)
{
	return nr_sessions[child->number];
}

bool
child_is_ready(const struct child *child)
{
	return child->state == CHILD_READY;
}

void
drain_child(struct child *child, const char *why)
{
	(void)why;
	child->state = CHILD_DRAINING;
	nr_drained++;
}

static void
set_up(void)
{
	memset(&sup, 0, sizeof(sup));
	sup.loop = ev_loop_new(EVFLAG_AUTO);
	sup.fleet.sup = &sup;
	list_init(&sup.fleet.children);
	snprintf(sup.fleet.current, sizeof(sup.fleet.current), "2.0");
	nr_children = nr_drained = 0;
	broken = NULL;
}

static void
turn(void)
{
	ev_run(sup.loop, EVRUN_NOWAIT);
}

/* Another suspect.  Returns whose worker it shares or gets; NULL: none. */
static struct child *
place(const char *version)
{
	struct child *child = NULL;
	char why[128] = "";
	int r = fleet_child_for_trial(&sup.fleet, version, &child, why, sizeof(why));

	if (r < 0) {
		ok(why[0] != '\0', "why not: %s", why);
		return NULL;
	}
	nr_sessions[child->number]++;
	return child;
}

/* Whose number it is, or none's. */
static unsigned
place_number(const char *version)
{
	const struct child *child = place(version);

	return child != NULL ? child->number : UINT_MAX;
}

static bool
is_placed_with(const char *version)
{
	const struct child *child = place(version);

	return child != NULL && strcmp(child->version, version) == 0;
}

static void
test_spread(void)
{
	unsigned fewest = 100, most = 0;

	set_up();
	add("1.0", CHILD_READY);
	for (unsigned i = 0; i < 21; i++)
		place("1.0");
	is_int(nr_children, 1 + AT_ONCE, "of 21 that lose their worker together eight get one");
	for (unsigned i = 1; i < nr_children; i++) {
		ok(children[i].is_trial, "which is for trials");
		fewest = nr_sessions[i] < fewest ? (unsigned)nr_sessions[i] : fewest;
		most = nr_sessions[i] > most ? (unsigned)nr_sessions[i] : most;
	}
	ok(fewest == 2 && most == 3, "and the others share them evenly");
	is_int((intmax_t)nr_sessions[0], 0, "the version's own worker gets none");
	turn();
	/* Three that were together lose theirs. */
	children[4].state = CHILD_GONE;
	for (unsigned i = 0; i < 3; i++) {
		unsigned at = place_number("1.0");

		ok(at < nr_children && nr_sessions[at] == 1, "later ones are apart");
	}
	ev_loop_destroy(sup.loop);
}

static void
test_other_version(void)
{
	set_up();
	ok(is_placed_with("1.0"), "its own version tries it");
	ok(is_placed_with("2.0"), "not another's worker");
	broken = "1.0";
	is_int(place_number("1.0"), 0, "without a new worker it shares an old one");
	children[0].state = CHILD_KILLING;
	is_int(place_number("1.0"), 2, "or is tried by the current version");
	broken = "2.0";
	children[1].state = children[2].state = CHILD_GONE;
	ok(place("2.0") == NULL, "or by none");
	ev_loop_destroy(sup.loop);
}

static void
test_limit(void)
{
	set_up();
	for (unsigned i = 0; i < MAX_TRIALS; i++) {
		place("1.0");
		turn();
	}
	is_int(nr_children, MAX_TRIALS, "one after the other they get a worker each");
	nr_sessions[17] = 0;
	is_int(place("1.0")->number, 17, "up to a limit: then the one that has least is shared");
	ok(place("3.0") == NULL, "and other versions wait");
	children[5].state = CHILD_GONE;
	is_int(place("3.0")->number, MAX_TRIALS, "until one ends");
	ev_loop_destroy(sup.loop);
}

static void
test_surplus(void)
{
	set_up();
	for (unsigned i = 0; i < 4; i++)
		nr_sessions[add("1.0", CHILD_READY)->number] = i == 2 ? 5 : i;
	add("1.0", CHILD_DRAINING);
	add("2.0", CHILD_READY);
	fleet_drain_surplus(&sup.fleet, "1.0");
	ok(children[2].state == CHILD_READY, "of several the one with most sessions stays");
	is_int(nr_drained, 3, "the others drain");
	fleet_drain_surplus(&sup.fleet, "1.0");
	fleet_drain_surplus(&sup.fleet, "2.0");
	is_int(nr_drained, 3, "one alone does not");
	ev_loop_destroy(sup.loop);
}

int
main(void)
{
	test_spread();
	test_other_version();
	test_limit();
	test_surplus();
	return done();
}
