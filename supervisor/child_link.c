/* SPDX-License-Identifier: Apache-2.0 */
/* The link to a worker: one handler for each message that a worker may send.  What
 * makes no sense costs the worker its life, never us ours. */
#include "supervisor/child.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "ipc/dispatch.h"
#include "supervisor/heartbeat.h"
#include "supervisor/supervisor.h"

#define IPC_IF_WORKER	  IPC_KEEP
#define IPC_IF_SUPERVISOR IPC_DROP

/* Handlers return 0, or -EPROTO when the worker must not have sent it. */
/* clang-format off */
#define MSG(E, id, code, from, fds, doc) \
	IPC_IF_##from(static int on_##id(struct child *, const struct ipc_##id *, int *);)
#define FIELD(id, type, name, max, doc)
#define END(E, id)
#include "ipc/messages.def"
#undef MSG

static int
dispatch(struct child *child, const struct ipc_msg *msg, int *fds)
{
	switch (msg->type) {
#define MSG(E, id, code, from, nr, doc) \
	IPC_IF_##from(case IPC_##E : return on_##id(child, &msg->id, fds);)
#include "ipc/messages.def"
#undef MSG
#undef FIELD
#undef END
	default: /* the decoder refuses what a worker must not send */
		return -EPROTO;
	}
}
/* clang-format on */

static int
on_hello(struct child *child, const struct ipc_hello *msg, int *fds)
{
	char consequence[128];

	(void)fds;
	if (!child_fsm_has(child->state, CHILD_EV_HELLO))
		return -EPROTO;
	if (msg->protocol != IPC_PROTOCOL) {
		snprintf(consequence, sizeof(consequence), "speaks protocol %" PRIu32 ", not %u",
		    msg->protocol, IPC_PROTOCOL);
		child_step(child, CHILD_EV_LIED, consequence);
		return 0;
	}
	if (strcmp(msg->version, child->version) != 0) {
		snprintf(consequence, sizeof(consequence),
		    "its file is installed as %s but is version %s", child->version,
		    version_is_valid(msg->version) ? msg->version : "(invalid)");
		child_step(child, CHILD_EV_LIED, consequence);
		return 0;
	}
	if (child->state == CHILD_FOUND ? child->inventory_seq != 0 : msg->sessions != 0)
		return -EPROTO;
	child->sandbox = msg->sandbox;
	snprintf(consequence, sizeof(consequence), "sandbox=0x%" PRIx32, msg->sandbox);
	child_step(child, CHILD_EV_HELLO, consequence);
	return 0;
}

static int
on_session_opened(struct child *child, const struct ipc_session_opened *msg, int *fds)
{
	(void)fds;
	return session_on_opened(child, msg);
}

static int
on_session_connected(struct child *child, const struct ipc_session_connected *msg, int *fds)
{
	return session_on_connected(child, msg, fds);
}

static int
on_session_adopted(struct child *child, const struct ipc_session_adopted *msg, int *fds)
{
	(void)fds;
	return session_on_adopted(child, msg);
}

static int
on_session_serving(struct child *child, const struct ipc_session_serving *msg, int *fds)
{
	return session_on_serving(child, msg, fds);
}

static int
on_session_refused(struct child *child, const struct ipc_session_refused *msg, int *fds)
{
	(void)fds;
	return session_on_refused(child, msg);
}

static int
on_session_closed(struct child *child, const struct ipc_session_closed *msg, int *fds)
{
	(void)fds;
	return session_on_closed(child, msg);
}

static int
on_session_completed(struct child *child, const struct ipc_session_completed *msg, int *fds)
{
	(void)fds;
	return session_on_completed(child, msg);
}

static int
on_session_gone(struct child *child, const struct ipc_session_gone *msg, int *fds)
{
	(void)fds;
	return session_on_gone(child, msg);
}

static int
on_session_alarm(struct child *child, const struct ipc_session_alarm *msg, int *fds)
{
	(void)fds;
	return session_on_alarm(child, msg);
}

static int
on_session_image(struct child *child, const struct ipc_session_image *msg, int *fds)
{
	(void)fds;
	return session_on_image(child, msg);
}

static int
on_session_image_file(struct child *child, const struct ipc_session_image_file *msg, int *fds)
{
	(void)fds;
	return session_on_image_file(child, msg);
}

static int
on_session_pictured(struct child *child, const struct ipc_session_pictured *msg, int *fds)
{
	(void)fds;
	return session_on_pictured(child, msg);
}

static int
on_pong(struct child *child, const struct ipc_pong *msg, int *fds)
{
	(void)fds;
	return heartbeat_on_pong(child, msg->seq);
}

static int
on_session_held_overlays(struct child *child, const struct ipc_session_held_overlays *msg, int *fds)
{
	return recover_on_overlays(child, msg->seq, msg->session, fds);
}

static int
on_session_held_trace(struct child *child, const struct ipc_session_held_trace *msg, int *fds)
{
	return recover_on_trace(child, msg, fds);
}

static int
on_session_held_waiting(struct child *child, const struct ipc_session_held_waiting *msg, int *fds)
{
	return recover_on_waiting(child, msg->seq, msg->session, fds);
}

static int
on_session_held_connected(
    struct child *child, const struct ipc_session_held_connected *msg, int *fds)
{
	return recover_on_connected(child, msg->seq, msg->session, fds);
}

static int
on_session_held_serving(struct child *child, const struct ipc_session_held_serving *msg, int *fds)
{
	return recover_on_serving(child, msg->seq, msg->session, fds);
}

static int
on_session_ended(struct child *child, const struct ipc_session_ended *msg, int *fds)
{
	(void)fds;
	return recover_on_ended(child, msg);
}

static int
on_inventory_end(struct child *child, const struct ipc_inventory_end *msg, int *fds)
{
	(void)fds;
	return recover_on_end(child, msg);
}

static void
on_message(struct endpoint *ep, const struct ipc_msg *msg, int *fds)
{
	struct child *child = ep->owner;
	bool is_heard = child->ready_ns != 0 || child->inventory_seq != 0;
	bool early = !is_heard && msg->type != IPC_HELLO;
	char consequence[96];

	child_log(child, LOG_LEVEL_DEBUG, "%s", ipc_type_name(msg->type));
	if (early || dispatch(child, msg, fds) < 0) {
		snprintf(consequence, sizeof(consequence), "%s %s", ipc_type_name(msg->type),
		    early ? "before HELLO" : "that makes no sense");
		child_step(child, CHILD_EV_LIED, consequence);
	}
	child_check_empty(child);
}

static void
on_down(struct endpoint *ep, int error, enum ipc_error fault)
{
	struct child *child = ep->owner;
	char consequence[128];

	if (fault != IPC_OK) {
		snprintf(
		    consequence, sizeof(consequence), "malformed frame: %s", ipc_error_text(fault));
		child_step(child, CHILD_EV_LIED, consequence);
		return;
	}
	if (error == 0)
		snprintf(consequence, sizeof(consequence), "it closed the link");
	else
		snprintf(consequence, sizeof(consequence), "%s", strerror(-error));
	if (child_fsm_has(child->state, CHILD_EV_LINK_LOST))
		child_step(child, CHILD_EV_LINK_LOST, consequence);
}

void
child_link_open(struct child *child, int fd)
{
	static const struct endpoint_ops ops = {
	    .on_message = on_message,
	    .on_down = on_down,
	};

	endpoint_init(&child->ep, child->sup->loop, fd, IPC_WORKER, &ops, child);
}
