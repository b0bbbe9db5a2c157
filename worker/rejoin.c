/* SPDX-License-Identifier: Apache-2.0 */
#include "worker/rejoin.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/fd.h"
#include "common/xalloc.h"
#include "worker/image.h"
#include "worker/pager.h"
#include "worker/prefetch.h"
#include "worker/recorder.h"
#include "worker/session.h"
#include "worker/session_vmm.h"
#include "worker/uffd.h"

/* How often VMMs are looked at that nobody else watches, in seconds. */
#define LOOK_ROUND_S 5.

/* How long a worker without sessions keeps what it could not tell. */
#define LINGER_NS (60 * NS_PER_S)

/* Endings that were told are kept too: the supervisor may have died before it read them.
 * That is likely enough of what was told this shortly before, to wait so long for the next. */
#define MAX_ENDINGS	256U
#define DOUBT_NS	NS_PER_S
#define LINGER_DOUBT_NS (5 * NS_PER_S)

/* Frames on their way at a time, below what an endpoint queues. */
#define TELL_AHEAD 64U

struct ending {
	struct list link; /* rejoin.endings */
	uint64_t number;
	enum ipc_ended outcome;
	uint64_t ended_ns;
	bool was_told;
	bool is_listed; /* in the inventory under way */
	char reason[256];
};

static void
drop(struct rejoin *rejoin, struct ending *ending)
{
	rejoin->nr_endings--;
	rejoin->nr_untold -= !ending->was_told;
	list_remove(&ending->link);
	free(ending);
}

/* What was not told is bounded by the sessions that there were. */
static void
drop_excess(struct rejoin *rejoin)
{
	struct list *pos, *tmp;

	list_for_each_safe(pos, tmp, &rejoin->endings) {
		struct ending *ending = list_entry(pos, struct ending, link);

		if (rejoin->nr_endings <= MAX_ENDINGS)
			return;
		if (ending->was_told)
			drop(rejoin, ending);
	}
}

void
rejoin_remember(const struct session *s)
{
	struct rejoin *rejoin = &s->pager->rejoin;
	struct ending *ending = xcalloc(1, sizeof(*ending));

	list_init(&ending->link);
	ending->number = s->number;
	ending->outcome = s->ended_as;
	ending->ended_ns = clock_now_ns();
	ending->was_told = s->is_known && endpoint_is_open(&s->pager->link);
	ending->is_listed = ending->was_told;
	if (s->ended_as == IPC_ENDED_REFUSED)
		ipc_text_copy(ending->reason, sizeof(ending->reason), s->reason);
	list_add(&rejoin->endings, &ending->link);
	rejoin->nr_endings++;
	rejoin->nr_untold += !ending->was_told;
	drop_excess(rejoin);
}

void
rejoin_forget(struct pager *pager, uint64_t number)
{
	struct list *pos, *tmp;

	list_for_each_safe(pos, tmp, &pager->rejoin.endings) {
		struct ending *ending = list_entry(pos, struct ending, link);

		if (ending->number == number)
			drop(&pager->rejoin, ending);
	}
}

bool
rejoin_may_exit(const struct pager *pager)
{
	const struct rejoin *rejoin = &pager->rejoin;
	uint64_t alone_ns = clock_now_ns() - rejoin->lost_ns;
	const struct list *pos;

	if (rejoin->lost_ns == 0)
		return false; /* the end of the link is not known yet */
	list_for_each(pos, &rejoin->endings) {
		const struct ending *ending = list_entry(pos, const struct ending, link);
		bool in_doubt = ending->ended_ns + DOUBT_NS > rejoin->lost_ns;

		if (alone_ns < (!ending->was_told ? LINGER_NS : in_doubt ? LINGER_DOUBT_NS : 0))
			return false;
	}
	return true;
}

/* --- The inventory --------------------------------------------------------------- */

static void
tell_ended(
    struct pager *pager, uint32_t seq, uint64_t number, enum ipc_ended outcome, const char *reason)
{
	struct ipc_msg msg = {.type = IPC_SESSION_ENDED};

	msg.session_ended.seq = seq;
	msg.session_ended.session = number;
	msg.session_ended.outcome = (uint32_t)outcome;
	ipc_text(msg.session_ended.reason, reason);
	pager_send(pager, &msg, NULL, 0);
}

static void
tell_ending(struct pager *pager, uint32_t seq, struct ending *ending)
{
	tell_ended(pager, seq, ending->number, ending->outcome, ending->reason);
	pager->rejoin.nr_untold -= !ending->was_told;
	ending->was_told = true;
	ending->is_listed = true;
}

static void
tell_overlays(struct session *s, uint32_t seq)
{
	struct ipc_msg msg = {.type = IPC_SESSION_HELD_OVERLAYS};

	msg.session_held_overlays.seq = seq;
	msg.session_held_overlays.session = s->number;
	if (s->overlays_fd >= 0)
		pager_send(s->pager, &msg, &s->overlays_fd, 1);
}

static void
tell_held(struct session *s, uint32_t seq)
{
	const int waiting[3] = {s->listener, s->image->fd, s->map_fd};
	const int connected[4] = {s->listener, s->image->fd, s->map_fd, s->connection};
	const int serving[4] = {s->image->fd, s->map_fd, s->uffd, s->connection};
	struct ipc_msg msg = {0};

	/* All three have the same fields. */
	msg.session_held_waiting.seq = seq;
	msg.session_held_waiting.session = s->number;
	if (s->state == SESSION_LISTENING) {
		msg.type = IPC_SESSION_HELD_WAITING;
		pager_send(s->pager, &msg, waiting, 3);
	} else if (s->state == SESSION_HANDSHAKE) {
		msg.type = IPC_SESSION_HELD_CONNECTED;
		pager_send(s->pager, &msg, connected, 4);
	} else {
		msg.type = IPC_SESSION_HELD_SERVING;
		pager_send(s->pager, &msg, serving, 4);
	}
}

static void
tell_trace(struct session *s, uint32_t seq, enum trace_kind kind, int fd)
{
	struct ipc_msg msg = {.type = IPC_SESSION_HELD_TRACE};

	msg.session_held_trace.seq = seq;
	msg.session_held_trace.session = s->number;
	msg.session_held_trace.kind = kind;
	pager_send(s->pager, &msg, &fd, 1);
}

static void
tell_traces(struct session *s, uint32_t seq)
{
	const struct recorder *recorder = atomic_load(&s->recorder);

	if (recorder != NULL)
		tell_trace(s, seq, TRACE_RECORDING, recorder->fd);
	if (s->prefetch != NULL)
		tell_trace(s, seq, TRACE_PLAN, s->prefetch->fd);
}

static void
tell_session(struct session *s)
{
	struct rejoin *rejoin = &s->pager->rejoin;

	s->is_known = true;
	/* What is ending has decided how: nothing of it is left in a moment. */
	if (s->state == SESSION_STOPPING) {
		tell_ended(s->pager, rejoin->telling_seq, s->number, s->ended_as, s->reason);
		return;
	}
	tell_overlays(s, rejoin->telling_seq);
	tell_held(s, rejoin->telling_seq);
	s->image_told = 0;
	pager_wake(s->pager);
	tell_traces(s, rejoin->telling_seq);
	rejoin->told++;
	session_vmm_go_on(s);
}

/* One that the supervisor does not know yet.  False when there is none. */
static bool
tell_one(struct pager *pager)
{
	struct list *pos;

	list_for_each(pos, &pager->sessions) {
		struct session *s = list_entry(pos, struct session, link);

		if (s->is_known)
			continue;
		tell_session(s);
		return true;
	}
	list_for_each(pos, &pager->rejoin.endings) {
		struct ending *ending = list_entry(pos, struct ending, link);

		if (ending->is_listed)
			continue;
		tell_ending(pager, pager->rejoin.telling_seq, ending);
		return true;
	}
	return false;
}

static void
tell_end(struct pager *pager)
{
	struct rejoin *rejoin = &pager->rejoin;
	struct ipc_msg msg = {.type = IPC_INVENTORY_END};

	rejoin->is_telling = false;
	rejoin->lost_ns = 0;
	ev_timer_stop(pager->loop, &rejoin->look_round);
	msg.inventory_end.seq = rejoin->telling_seq;
	msg.inventory_end.sessions = rejoin->told;
	pager_send(pager, &msg, NULL, 0);
	log_info("inventory told, sessions=%u", rejoin->told);
}

void
rejoin_continue(struct pager *pager)
{
	struct rejoin *rejoin = &pager->rejoin;

	while (rejoin->is_telling && endpoint_is_open(&pager->link) &&
	    pager->link.queued < TELL_AHEAD) {
		if (!tell_one(pager))
			tell_end(pager);
	}
}

/* The pipe's reader died with the supervisor that made it.  No thread but this one opens
 * descriptors, so the lowest free one is the one that was just closed. */
static void
replace_stderr(int fd)
{
	close(STDERR_FILENO);
	if (fcntl(fd, F_DUPFD_CLOEXEC, STDERR_FILENO) == STDERR_FILENO)
		fcntl(STDERR_FILENO, F_SETFD, 0);
	fd_closep(&fd);
}

void
rejoin_answer(struct pager *pager, const struct ipc_inventory *msg, int words_fd)
{
	struct rejoin *rejoin = &pager->rejoin;
	struct list *pos;

	replace_stderr(words_fd);
	list_for_each(pos, &rejoin->endings)
		list_entry(pos, struct ending, link)->is_listed = false;
	rejoin->is_telling = true;
	rejoin->telling_seq = msg->seq;
	rejoin->told = 0;
}

/* --- The link -------------------------------------------------------------------- */

static void
leave(struct session *s)
{
	s->is_known = false;
	s->is_silent = s->state == SESSION_STOPPING;
	s->completion.is_stale = true;
	s->picture.is_stale = true;
	session_abort(s);
	if (s->state == SESSION_LISTENING || s->state == SESSION_HANDSHAKE)
		session_vmm_pause(s);
	if (s->gone_sent)
		session_give_up(s);
	s->gone_sent = false;
}

void
rejoin_lost(struct pager *pager)
{
	struct rejoin *rejoin = &pager->rejoin;
	struct list *pos;

	fd_closep(&pager->overlays_fd);
	rejoin->is_telling = false;
	rejoin->lost_ns = clock_now_ns();
	list_for_each(pos, &pager->sessions)
		leave(list_entry(pos, struct session, link));
	ev_timer_again(pager->loop, &rejoin->look_round);
}

/* A VMM that closed its connection long ago gives no sign when it exits. */
static void
on_look_round(struct ev_loop *loop, ev_timer *w, int revents)
{
	struct pager *pager = w->data;
	struct list *pos;

	(void)loop;
	(void)revents;
	list_for_each(pos, &pager->sessions) {
		struct session *s = list_entry(pos, struct session, link);

		if ((s->state == SESSION_SERVING || s->state == SESSION_COMPLETING) &&
		    !uffd_is_alive(s->uffd))
			session_post(s, SESSION_POST_GONE);
	}
}

static bool
is_supervisor(struct pager *pager, int fd)
{
	struct rejoin *rejoin = &pager->rejoin;
	struct ucred cred = {.uid = (uid_t)-1};
	socklen_t bytes = sizeof(cred);

	if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &cred, &bytes) == 0 &&
	    cred.uid == rejoin->supervisor_uid)
		return true;
	log_limited(&rejoin->knock_limit, LOG_LEVEL_WARNING,
	    "user %u connected to the rendezvous socket and is not the supervisor's %u: refused",
	    (unsigned)cred.uid, (unsigned)rejoin->supervisor_uid);
	return false;
}

static void
on_knock(struct ev_loop *loop, ev_io *w, int revents)
{
	struct pager *pager = w->data;
	int fd = acceptor_take(&pager->rejoin.knocking, loop);

	(void)revents;
	if (fd < 0) {
		if (fd != -EAGAIN)
			log_warning("a supervisor cannot be let in now: %s; tried again until it "
				    "can, sessions=%u are served on",
			    strerror(-fd), pager->nr_sessions);
		return;
	}
	if (!is_supervisor(pager, fd)) {
		close(fd);
		return;
	}
	/* The one before may have died with words on their way: they still count. */
	endpoint_drain(&pager->link);
	if (pager->link.fd >= 0) {
		endpoint_close(&pager->link);
		rejoin_lost(pager);
	}
	pager->draining = false; /* it tells again whom it wants to drain */
	endpoint_init(&pager->link, loop, fd, IPC_SUPERVISOR, &pager_link_ops, pager);
	log_notice("a supervisor has come, sessions=%u", pager->nr_sessions);
	pager_say_hello(pager);
}

/* --- Life ------------------------------------------------------------------------ */

void
rejoin_init(struct pager *pager)
{
	struct rejoin *rejoin = &pager->rejoin;

	list_init(&rejoin->endings);
	ev_timer_init(&rejoin->look_round, on_look_round, 0., LOOK_ROUND_S);
	rejoin->look_round.data = pager;
}

void
rejoin_start(struct pager *pager, int link_fd)
{
	struct rejoin *rejoin = &pager->rejoin;
	struct ucred cred;
	socklen_t bytes = sizeof(cred);

	if (pager->rendezvous < 0)
		return;
	if (getsockopt(link_fd, SOL_SOCKET, SO_PEERCRED, &cred, &bytes) < 0) {
		log_warning("who the supervisor is cannot be told: %s; no other is let in",
		    strerror(errno));
		return;
	}
	rejoin->supervisor_uid = cred.uid;
	fd_set_nonblock(pager->rendezvous, true);
	acceptor_init(&rejoin->knocking, pager->rendezvous, on_knock, pager);
	acceptor_start(&rejoin->knocking, pager->loop);
}

void
rejoin_fini(struct pager *pager)
{
	struct rejoin *rejoin = &pager->rejoin;

	acceptor_stop(&rejoin->knocking, pager->loop);
	ev_timer_stop(pager->loop, &rejoin->look_round);
	while (!list_is_empty(&rejoin->endings))
		drop(rejoin, list_entry(rejoin->endings.next, struct ending, link));
}
