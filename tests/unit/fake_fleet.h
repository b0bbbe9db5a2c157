/* SPDX-License-Identifier: Apache-2.0 */
/* The fleet as a test of the sessions wants it: it hands out one child after another,
 * without a process.  Defines what supervisor/child.c and fleet.c define. */
#ifndef TESTS_UNIT_FAKE_FLEET_H
#define TESTS_UNIT_FAKE_FLEET_H

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "supervisor/child.h"
#include "supervisor/supervisor.h"

static struct child *fleet_next_child; /* NULL: fleet_next_error */
static int fleet_next_error = -ENOENT;
static int fleet_named_error; /* for a version that is named; 0: it is had */
static char fleet_asked_for[VERSION_BYTES];
static bool fleet_child_ready = true;

int
fleet_child_for_new(
    struct fleet *fleet, const char *version, struct child **ret, char *why, size_t why_bytes)
{
	(void)fleet;
	snprintf(fleet_asked_for, sizeof(fleet_asked_for), "%s", version ? version : "current");
	if (version && fleet_named_error) {
		snprintf(why, why_bytes, "version %s is not to be had", version);
		return fleet_named_error;
	}
	if (!fleet_next_child) {
		snprintf(why, why_bytes, "no worker of any version is installed");
		return fleet_next_error;
	}
	*ret = fleet_next_child;
	return 0;
}

#ifndef FAKE_FLEET_OWN_FIND
int
fleet_child_to_adopt(
    struct fleet *fleet, const char *version, struct child **ret, char *why, size_t why_bytes)
{
	(void)version;
	return fleet_child_for_new(fleet, NULL, ret, why, why_bytes);
}

#ifndef FAKE_FLEET_OWN_TRIAL
int
fleet_child_for_trial(
    struct fleet *fleet, const char *version, struct child **ret, char *why, size_t why_bytes)
{
	return fleet_child_to_adopt(fleet, version, ret, why, why_bytes);
}
#endif

void
fleet_drain_outdated(struct fleet *fleet, struct child *child)
{
	(void)fleet;
	(void)child;
}

struct child *
fleet_find(struct fleet *fleet, const char *version)
{
	(void)fleet;
	return fleet_next_child && strcmp(fleet_next_child->version, version) == 0
	    ? fleet_next_child
	    : NULL;
}
#endif

void
fleet_drain_surplus(struct fleet *fleet, const char *version)
{
	(void)fleet;
	(void)version;
}

uint64_t
fleet_pause_ms(const struct fleet *fleet, uint64_t max_ms)
{
	(void)fleet;
	return max_ms;
}

bool
child_listens(const struct child *child)
{
	(void)child;
	return fleet_child_ready;
}

/* Steps of a child that a session asked for. */
static unsigned int child_steps;

bool
child_fsm_has(enum child_state state, enum child_event event)
{
	(void)state;
	return event == CHILD_EV_HUNG;
}

void
child_step(struct child *child, enum child_event event, const char *why)
{
	(void)child;
	(void)event;
	(void)why;
	child_steps++;
}

bool
child_is_ready(const struct child *child)
{
	(void)child;
	return fleet_child_ready;
}

int
child_send(struct child *child, const struct ipc_msg *msg, const int *fds, size_t nr_fds)
{
	return endpoint_send(&child->ep, msg, fds, nr_fds);
}

void
child_check_empty(struct child *child)
{
	(void)child;
}

void
child_log(const struct child *child, enum log_level level, const char *fmt, ...)
{
	char text[512];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	log_at(level, "child %u v%s: %s", (unsigned int)child->number, child->version, text);
}

const char *
child_event_name(enum child_event event)
{
	(void)event;
	return "EVENT";
}

#endif
