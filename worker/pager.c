/* SPDX-License-Identifier: Apache-2.0 */
#include "worker/pager.h"

#include <sched.h>
#include <string.h>

#include "common/exitcode.h"
#include "common/fault.h"
#include "common/fd.h"
#include "common/log.h"
#include "worker/session.h"

/* Fault threads are many: their stacks are small.  A sanitizer's frames are not. */
#define STACK_BYTES (256U * 1024U)

static void
on_posted(struct ev_loop *loop, ev_async *w, int revents)
{
	struct pager *pager = w->data;
	struct list *pos, *tmp;

	(void)loop;
	(void)revents;
	list_for_each_safe(pos, tmp, &pager->sessions)
		session_attend(list_entry(pos, struct session, link));
}

/* "Empty" is a condition looked at on every turn, not an event that could be missed. */
static void
on_turn(struct ev_loop *loop, ev_prepare *w, int revents)
{
	struct pager *pager = w->data;
	bool linked = endpoint_is_open(&pager->link);

	(void)loop;
	(void)revents;
	sessions_serve_adopted(pager);
	rejoin_continue(pager);
	if (pager->nr_sessions != 0 || (linked && pager->link.queued != 0))
		return;
	if (linked ? pager->draining : rejoin_may_exit(pager))
		pager_stop(pager, EXITCODE_OK);
}

void
pager_init(struct pager *pager)
{
	memset(pager, 0, sizeof(*pager));
	list_init(&pager->sessions);
	list_init(&pager->images);
	pager->rendezvous = -1;
	pager->overlays_fd = -1;
	pager->loop = ev_loop_new(EVBACKEND_EPOLL | EVFLAG_NOENV);
	if (pager->loop == NULL)
		fatal("no event loop can be made");
	pthread_attr_init(&pager->thread_attr);
	pthread_attr_setstacksize(&pager->thread_attr, STACK_BYTES);
	ev_async_init(&pager->posted, on_posted);
	pager->posted.data = pager;
	ev_async_start(pager->loop, &pager->posted);
	ev_prepare_init(&pager->sweep, on_turn);
	pager->sweep.data = pager;
	rejoin_init(pager);
}

void
pager_run(struct pager *pager, int link_fd, int rendezvous_fd)
{
	pager->rendezvous = rendezvous_fd;
	endpoint_init(&pager->link, pager->loop, link_fd, IPC_SUPERVISOR, &pager_link_ops, pager);
	ev_prepare_start(pager->loop, &pager->sweep);
	rejoin_start(pager, link_fd);
	if (!fault(FAULT_WORKER_HELLO))
		pager_say_hello(pager);
	ev_run(pager->loop, 0);
}

void
pager_fini(struct pager *pager)
{
	/* Their sessions are gone, but they are about to wake the loop. */
	while (atomic_load(&pager->leaving) > 0)
		sched_yield();
	endpoint_close(&pager->link);
	rejoin_fini(pager);
	ev_prepare_stop(pager->loop, &pager->sweep);
	ev_async_stop(pager->loop, &pager->posted);
	fd_closep(&pager->rendezvous);
	fd_closep(&pager->overlays_fd);
	pthread_attr_destroy(&pager->thread_attr);
	ev_loop_destroy(pager->loop);
}

void
pager_send(struct pager *pager, const struct ipc_msg *msg, const int *fds, size_t nr_fds)
{
	int r = endpoint_send(&pager->link, msg, fds, nr_fds);

	/* Without a link the next supervisor asks for everything. */
	if (r < 0)
		log_warning("%s is not sent: %s", ipc_type_name(msg->type), strerror(-r));
}

void
pager_keep_overlays(struct pager *pager, uint64_t session, int fd)
{
	fd_closep(&pager->overlays_fd);
	pager->overlays_fd = fd;
	pager->overlays_of = session;
}

int
pager_claim_overlays(struct pager *pager, uint64_t session)
{
	return pager->overlays_of == session ? fd_take(&pager->overlays_fd) : -1;
}

void
pager_wake(struct pager *pager)
{
	ev_async_send(pager->loop, &pager->posted);
}

void
pager_stop(struct pager *pager, int exit_code)
{
	pager->exit_code = exit_code;
	ev_break(pager->loop, EVBREAK_ALL);
}
