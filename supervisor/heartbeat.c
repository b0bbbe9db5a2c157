/* SPDX-License-Identifier: Apache-2.0 */
#include "supervisor/heartbeat.h"

#include <errno.h>
#include <inttypes.h>

#include "common/clock.h"
#include "supervisor/child.h"
#include "supervisor/supervisor.h"

/* How often to look whether a reload has turned heartbeats on. */
#define OFF_INTERVAL_MS 10000
/* A late answer is harmless; a stream of them is not. */
#define MAX_STRAY_PONGS 16

static void arm(struct child *child);

static void
ping(struct child *child)
{
	struct ipc_msg msg = {.type = IPC_PING};

	msg.seq = endpoint_next_seq(&child->ep);
	if (child_send(child, &msg, NULL, 0) == 0)
		child->ping_seq = msg.seq;
	child->stray_pongs = 0;
}

static void
miss(struct child *child)
{
	if (++child->missed < child->sup->options.heartbeat_misses ||
	    !child_fsm_has(child->state, CHILD_EV_HUNG))
		return;
	child_log(child, LOG_LEVEL_ERR,
	    "hung: heartbeats_missed=%" PRIu32 ", serving=%" PRIu64
	    "; killed, another worker takes over",
	    child->missed, child_nr_serving(child));
	child->hung_ns = child->heard_ns;
	child_step(child, CHILD_EV_HUNG, "it does not answer heartbeats");
}

static void
on_beat(struct ev_loop *loop, ev_timer *w, int events)
{
	struct child *child = w->data;

	(void)loop;
	(void)events;
	if (child->sup->options.heartbeat_interval_ms > 0) {
		if (child->ping_seq != 0)
			miss(child);
		else
			ping(child);
	}
	if (endpoint_is_open(&child->ep))
		arm(child);
}

static void
arm(struct child *child)
{
	uint64_t ms = child->sup->options.heartbeat_interval_ms;

	ev_timer_stop(child->sup->loop, &child->heartbeat);
	ev_timer_init(
	    &child->heartbeat, on_beat, (double)(ms > 0 ? ms : OFF_INTERVAL_MS) / 1000., 0.);
	child->heartbeat.data = child;
	ev_timer_start(child->sup->loop, &child->heartbeat);
}

void
heartbeat_start(struct child *child)
{
	child->heard_ns = clock_now_ns();
	arm(child);
}

void
heartbeat_stop(struct child *child)
{
	ev_timer_stop(child->sup->loop, &child->heartbeat);
	child->ping_seq = 0;
}

int
heartbeat_on_pong(struct child *child, uint32_t seq)
{
	if (child->ping_seq == 0 || seq != child->ping_seq)
		return ++child->stray_pongs > MAX_STRAY_PONGS ? -EPROTO : 0;
	child->ping_seq = 0;
	child->missed = 0;
	child->heard_ns = clock_now_ns();
	return 0;
}
