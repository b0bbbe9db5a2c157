/* SPDX-License-Identifier: Apache-2.0 */
#include "supervisor/drain.h"

#include <string.h>

#include "supervisor/child.h"
#include "supervisor/supervisor.h"

void
drain_child(struct child *child, const char *why)
{
	if (!child_fsm_has(child->state, CHILD_EV_DRAIN))
		return;
	child_step(child, CHILD_EV_DRAIN, why);
	controller_kick(&child->sup->controller); /* its sessions come first now */
}

void
drain_tell(struct child *child)
{
	struct ipc_msg msg = {.type = IPC_DRAIN};
	int r;

	if (child->drain_sent)
		return;
	r = child_send(child, &msg, NULL, 0);
	if (r == 0)
		child->drain_sent = true;
	else
		/* It would wait for sessions for ever: without its link it exits. */
		endpoint_fail(&child->ep, r);
}

uint32_t
drain_others(struct supervisor *sup, const char *keep, const char *why)
{
	struct list *link, *next;
	uint32_t n = 0;

	list_for_each_safe(link, next, &sup->fleet.children) {
		struct child *child = list_entry(link, struct child, link);

		if ((keep != NULL && strcmp(child->version, keep) == 0) ||
		    !child_fsm_has(child->state, CHILD_EV_DRAIN))
			continue;
		drain_child(child, why);
		n++;
	}
	return n;
}
