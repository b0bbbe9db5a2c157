/* SPDX-License-Identifier: Apache-2.0 */
/* Messages from the supervisor: one handler each. */
#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "common/exitcode.h"
#include "common/fd.h"
#include "common/log.h"
#include "ipc/dispatch.h"
#include "version_gen.h"
#include "worker/pager.h"
#include "worker/prefetch.h"
#include "worker/recorder.h"
#include "worker/session.h"

#define IPC_IF_WORKER	  IPC_DROP
#define IPC_IF_SUPERVISOR IPC_KEEP

/* clang-format off */
#define MSG(E, id, code, from, nr, doc) \
	IPC_IF_##from(static void on_##id(struct pager *, const struct ipc_##id *, int *);)
#define FIELD(id, type, name, max, doc)
#define END(E, id)
#include "ipc/messages.def"
#undef MSG
/* clang-format on */

static void
on_session_image_name(struct pager *pager, const struct ipc_session_image_name *msg, int *fds)
{
	(void)fds;
	pager->image_name = *msg;
}

static void
on_session_overlays(struct pager *pager, const struct ipc_session_overlays *msg, int *fds)
{
	pager_keep_overlays(pager, msg->session, fd_take(&fds[0]));
}

static void
on_session_open(struct pager *pager, const struct ipc_session_open *msg, int *fds)
{
	struct ipc_msg answer = {.type = IPC_SESSION_OPENED};
	int r = pager->draining ? -ESHUTDOWN : session_open(pager, msg, fds);

	answer.session_opened.seq = msg->seq;
	answer.session_opened.session = msg->session;
	answer.session_opened.error = (uint32_t)-r;
	pager_send(pager, &answer, NULL, 0);
}

static void
on_session_connect(struct pager *pager, const struct ipc_session_connect *msg, int *fds)
{
	struct session *s = session_find(pager, msg->session);

	if (s == NULL || session_connect(s, fd_take(&fds[0])) < 0)
		log_warning("session %llu: a connection comes at the wrong time: ignored",
		    (unsigned long long)msg->session);
}

static void
on_session_adopt(struct pager *pager, const struct ipc_session_adopt *msg, int *fds)
{
	struct ipc_msg answer = {.type = IPC_SESSION_ADOPTED};
	int r = session_adopt(pager, msg, fds);

	if (r == 0)
		return;
	answer.session_adopted.seq = msg->seq;
	answer.session_adopted.session = msg->session;
	answer.session_adopted.error = (uint32_t)-r;
	pager_send(pager, &answer, NULL, 0);
}

static void
on_session_close(struct pager *pager, const struct ipc_session_close *msg, int *fds)
{
	struct session *s = session_find(pager, msg->session);
	struct ipc_msg answer = {.type = IPC_SESSION_CLOSED};

	(void)fds;
	if (s != NULL) {
		session_close(s, msg->seq);
		return;
	}
	answer.session_closed.seq = msg->seq;
	answer.session_closed.session = msg->session;
	pager_send(pager, &answer, NULL, 0);
}

static void
on_session_complete(struct pager *pager, const struct ipc_session_complete *msg, int *fds)
{
	struct session *s = session_find(pager, msg->session);
	struct ipc_msg answer = {.type = IPC_SESSION_COMPLETED};
	int r = s != NULL ? session_complete(s, msg) : -ENOENT;

	(void)fds;
	if (r == 0)
		return;
	answer.session_completed.seq = msg->seq;
	answer.session_completed.session = msg->session;
	answer.session_completed.outcome = IPC_COMPLETION_REFUSED;
	answer.session_completed.error = (uint32_t)-r;
	ipc_text(answer.session_completed.reason, strerror(-r));
	pager_send(pager, &answer, NULL, 0);
}

static void
on_session_abort(struct pager *pager, const struct ipc_session_abort *msg, int *fds)
{
	struct session *s = session_find(pager, msg->session);

	(void)fds;
	if (s != NULL)
		session_abort(s);
}

static void
on_session_picture(struct pager *pager, const struct ipc_session_picture *msg, int *fds)
{
	struct session *s = session_find(pager, msg->session);
	struct ipc_msg answer = {.type = IPC_SESSION_PICTURED};
	int r = s != NULL ? picture_begin(s, msg, &fds[0]) : -ENOENT;

	if (r == 0)
		return;
	answer.session_pictured.seq = msg->seq;
	answer.session_pictured.session = msg->session;
	answer.session_pictured.error = (uint32_t)-r;
	pager_send(pager, &answer, NULL, 0);
}

static void
on_session_trace(struct pager *pager, const struct ipc_session_trace *msg, int *fds)
{
	struct session *s = session_find(pager, msg->session);
	int r = -EINVAL;

	if (s == NULL)
		return; /* it could not be opened */
	if (msg->kind == TRACE_RECORDING)
		r = recorder_start(s, &fds[0]);
	else if (msg->kind == TRACE_PLAN)
		r = prefetch_set(s, msg, &fds[0]);
	if (r < 0)
		session_log(s, LOG_LEVEL_WARNING, "trace of kind %u: %s; it does without",
		    (unsigned)msg->kind, strerror(-r));
}

static void
on_session_trace_stop(struct pager *pager, const struct ipc_session_trace_stop *msg, int *fds)
{
	struct session *s = session_find(pager, msg->session);

	(void)fds;
	if (s != NULL && msg->kind == TRACE_RECORDING)
		recorder_stop(s);
	else if (s != NULL)
		prefetch_abort(s);
}

static void
on_inventory(struct pager *pager, const struct ipc_inventory *msg, int *fds)
{
	rejoin_answer(pager, msg, fd_take(&fds[0]));
}

static void
on_drain(struct pager *pager, const struct ipc_drain *msg, int *fds)
{
	(void)msg;
	(void)fds;
	log_notice("draining, sessions=%u", pager->nr_sessions);
	pager->draining = true;
}

static void
on_ping(struct pager *pager, const struct ipc_ping *msg, int *fds)
{
	struct ipc_msg answer = {.type = IPC_PONG};

	(void)fds;
	answer.pong.seq = msg->seq;
	answer.pong.sessions = pager->nr_sessions;
	pager_send(pager, &answer, NULL, 0);
}

static void
on_message(struct endpoint *ep, const struct ipc_msg *msg, int *fds)
{
	struct pager *pager = ep->owner;

	/* clang-format off */
	switch (msg->type) {
#define MSG(E, id, code, from, nr, doc) \
	IPC_IF_##from(case IPC_##E: on_##id(pager, &msg->id, fds); break;)
#include "ipc/messages.def"
#undef MSG
#undef FIELD
#undef END
	default: /* the decoder refuses what the supervisor must not send */
		break;
	}
	/* clang-format on */
}

/* Without a supervisor a worker goes on serving what it has. */
static void
on_down(struct endpoint *ep, int error, enum ipc_error fault)
{
	struct pager *pager = ep->owner;

	if (fault != IPC_OK) {
		log_err(
		    "the supervisor sent a bad message: %s; link closed, sessions=%u are served on",
		    ipc_error_text(fault), pager->nr_sessions);
	} else {
		log_notice("the supervisor is gone (%s), sessions=%u are served on",
		    error == 0 ? "end of file" : strerror(-error), pager->nr_sessions);
	}
	rejoin_lost(pager);
}

const struct endpoint_ops pager_link_ops = {
    .on_message = on_message,
    .on_down = on_down,
};

void
pager_say_hello(struct pager *pager)
{
	struct ipc_msg msg = {.type = IPC_HELLO};

	msg.hello.protocol = IPC_PROTOCOL;
	ipc_text(msg.hello.version, PROJECT_VERSION);
	msg.hello.pid = (uint32_t)getpid();
	msg.hello.sandbox =
	    pager->sandbox | IPC_CAN_PICTURE | IPC_CAN_TRACE | IPC_CAN_BE_CONNECTED | IPC_CAN_NAME;
	msg.hello.sessions = pager->nr_sessions;
	pager_send(pager, &msg, NULL, 0);
}
