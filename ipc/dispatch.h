/* SPDX-License-Identifier: Apache-2.0 */
/* Makes the compiler demand a handler for each message that this side receives.
 *
 * A link file (supervisor/child_link.c, worker/link.c) says which sender it listens
 * to, then expands ipc/messages.def twice.  For the supervisor, whose peer is a worker:
 *
 *	#define IPC_IF_WORKER	  IPC_KEEP
 *	#define IPC_IF_SUPERVISOR IPC_DROP
 *
 *	#define MSG(E, id, code, from, fds, doc) \
 *		IPC_IF_##from(static void on_##id(struct child *, const struct ipc_##id *, int *);)
 *	#define FIELD(id, type, name, max, doc)
 *	#define END(E, id)
 *	#include "ipc/messages.def"
 *	#undef MSG
 *
 *	static void
 *	on_message(struct endpoint *ep, const struct ipc_msg *msg, int *fds)
 *	{
 *		struct child *child = ep->owner;
 *
 *		switch (msg->type) {
 *	#define MSG(E, id, code, from, nr, doc) \
 *		IPC_IF_##from(case IPC_##E : on_##id(child, &msg->id, fds); break;)
 *	#include "ipc/messages.def"
 *	#undef MSG
 *	#undef FIELD
 *	#undef END
 *		default: // the decoder refuses what the peer must not send
 *			break;
 *		}
 *	}
 *
 * A message without a handler is then "used but never defined", and a handler whose
 * message is gone is an unused function: both stop the build.  The worker's file
 * swaps KEEP and DROP.  Name the MSG parameter "nr" where the body uses "fds": a
 * parameter would replace it.  Bracket the expansions with clang-format off and on. */
#ifndef IPC_DISPATCH_H
#define IPC_DISPATCH_H

#define IPC_KEEP(...) __VA_ARGS__
#define IPC_DROP(...)

#endif
