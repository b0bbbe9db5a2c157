/* SPDX-License-Identifier: Apache-2.0 */
#include "worker/session.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/fault.h"
#include "common/fd.h"
#include "common/xalloc.h"
#include "worker/complete.h"
#include "worker/fault.h"
#include "worker/image.h"
#include "worker/overlay.h"
#include "worker/pager.h"
#include "worker/prefetch.h"
#include "worker/recorder.h"
#include "worker/session_vmm.h"

/* The next state plus one; 0 is no row. */
/* clang-format off */
static const uint8_t rows[SESSION_STOPPING + 1][SESSION_EV_COUNT] = {
#define T(state, event, next) [SESSION_##state][SESSION_EV_##event] = SESSION_##next + 1,
#include "worker/session_fsm.def"
};

static const char *const state_names[] = {
#define STATE(NAME, doc) [SESSION_##NAME] = #NAME,
#include "worker/session_fsm.def"
};

static const char *const event_names[] = {
#define EVENT(NAME, doc) [SESSION_EV_##NAME] = #NAME,
#include "worker/session_fsm.def"
};
/* clang-format on */

const char *
session_state_name(enum session_state state)
{
	return state_names[state];
}

void
session_log(const struct session *s, enum log_level level, const char *fmt, ...)
{
	char text[512];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	log_at(level, "session %llu %s: %s", (unsigned long long)s->number, s->name, text);
}

bool
session_step(struct session *s, enum session_event event)
{
	uint8_t row = rows[s->state][event];

	if (row == 0) {
		session_log(s, LOG_LEVEL_WARNING, "%s has no place in %s: ignored",
		    event_names[event], state_names[s->state]);
		return false;
	}
	if (s->state != row - 1U)
		session_log(s, LOG_LEVEL_DEBUG, "%s -> %s on %s", state_names[s->state],
		    state_names[row - 1U], event_names[event]);
	s->state = (enum session_state)(row - 1U);
	return true;
}

void
session_post(struct session *s, enum session_post what)
{
	atomic_fetch_or(&s->posted, (unsigned)what);
	pager_wake(s->pager);
}

void
session_thread_done(struct session *s)
{
	struct pager *pager = s->pager;

	/* The control thread may free the session as soon as it sees the zero, and then
	 * leave its loop. */
	atomic_fetch_add(&pager->leaving, 1);
	atomic_fetch_sub(&s->threads, 1);
	pager_wake(pager);
	atomic_fetch_sub(&pager->leaving, 1);
}

int
session_thread_start(struct session *s, void *(*thread_main)(void *))
{
	pthread_t thread;
	int r;

	atomic_fetch_add(&s->threads, 1);
	r = pthread_create(&thread, &s->pager->thread_attr, thread_main, s);
	if (r != 0) {
		atomic_fetch_sub(&s->threads, 1);
		return -r;
	}
	pthread_detach(thread);
	return 0;
}

struct session *
session_find(struct pager *pager, uint64_t number)
{
	struct list *pos;

	list_for_each(pos, &pager->sessions) {
		struct session *s = list_entry(pos, struct session, link);

		if (s->number == number)
			return s;
	}
	return NULL;
}

static bool
is_cluster(uint32_t bytes)
{
	return bytes >= PAGE_BYTES && bytes <= (2U << 20) && (bytes & (bytes - 1)) == 0;
}

static void
destroy(struct session *s)
{
	session_vmm_stop(s);
	recorder_stop(s);
	prefetch_free(s);
	image_put(s->image);
	overlay_close(s->overlays);
	pagemap_unmap(&s->map);
	fd_closep(&s->listener);
	fd_closep(&s->uffd);
	fd_closep(&s->connection);
	fd_closep(&s->map_fd);
	fd_closep(&s->overlays_fd);
	picture_fini(s);
	iolane_fini(&s->iolane);
	copylock_fini(&s->copylock);
	free(s);
}

/* What SESSION_OPEN and SESSION_ADOPT have in common. */
struct setup {
	uint64_t number;
	const char *name;
	uint64_t image_bytes;
	uint32_t flags, cluster_min_bytes, cluster_max_bytes, spin_us;
};

static int
check_setup(struct pager *pager, const struct setup *setup)
{
	if (setup->number == 0 || setup->image_bytes == 0 ||
	    !is_cluster(setup->cluster_min_bytes) || !is_cluster(setup->cluster_max_bytes))
		return -EINVAL;
	return session_find(pager, setup->number) != NULL ? -EEXIST : 0;
}

static struct session *
new_session(struct pager *pager, const struct setup *setup)
{
	struct session *s = xcalloc(1, sizeof(*s));

	list_init(&s->link);
	s->pager = pager;
	s->number = setup->number;
	snprintf(s->name, sizeof(s->name), "%s", setup->name);
	s->listener = s->connection = s->arrivals = s->uffd = s->map_fd = s->overlays_fd = -1;
	s->is_known = true;
	s->image_bytes = setup->image_bytes;
	s->flags = setup->flags;
	s->spin_us = setup->spin_us;
	s->state = SESSION_LISTENING;
	copylock_init(&s->copylock);
	iolane_init(&s->iolane);
	picture_init(s);
	cluster_init(&s->cluster, (uint32_t)(setup->cluster_min_bytes / PAGE_BYTES),
	    (uint32_t)(setup->cluster_max_bytes / PAGE_BYTES));
	return s;
}

/* Takes both over, and only when it succeeds. */
static int
map_image(struct session *s, int *image_fd, int *map_fd)
{
	const struct ipc_session_image_name *told = &s->pager->image_name;
	const struct image_name *named = NULL;
	struct image_name name;
	int r = pagemap_map(&s->map, *map_fd, true);

	if (r < 0)
		return r;
	if (s->map.nr_pages < (s->image_bytes + PAGE_BYTES - 1) / PAGE_BYTES)
		return -EPROTO;
	if (told->session == s->number) {
		name = (struct image_name){told->dev, told->ino, told->mtime_ns, told->is_new != 0};
		named = &name;
	}
	r = image_get(s->pager, *image_fd, s->image_bytes, named, &s->image);
	if (r < 0)
		return r;
	*image_fd = -1;
	s->map_fd = fd_take(map_fd);
	return 0;
}

/* They came in a message of their own, right before. */
static int
map_overlays(struct session *s)
{
	if ((s->flags & IPC_SESSION_HAS_OVERLAYS) == 0)
		return 0;
	s->overlays_fd = pager_claim_overlays(s->pager, s->number);
	if (s->overlays_fd < 0)
		return -EPROTO;
	return overlay_open(s->overlays_fd, s->image_bytes, &s->overlays);
}

static void
add_session(struct session *s)
{
	list_add(&s->pager->sessions, &s->link);
	s->pager->nr_sessions++;
	rejoin_forget(s->pager, s->number);
	pager_wake(s->pager); /* what is known of its image is told */
}

/* fds: listener, image, page map. */
int
session_open(struct pager *pager, const struct ipc_session_open *msg, int *fds)
{
	const struct setup setup = {msg->session, msg->name, msg->image_bytes, msg->flags,
	    msg->cluster_min_bytes, msg->cluster_max_bytes, msg->spin_us};
	struct session *s;
	int r = check_setup(pager, &setup);

	if (r < 0)
		return r;
	s = new_session(pager, &setup);
	r = map_overlays(s);
	if (r == 0)
		r = map_image(s, &fds[1], &fds[2]);
	if (r < 0) {
		destroy(s);
		return r;
	}
	s->listener = fd_take(&fds[0]);
	add_session(s);
	session_vmm_listen(s);
	return 0;
}

/* fds: image, page map, userfaultfd, connection. */
int
session_adopt(struct pager *pager, const struct ipc_session_adopt *msg, int *fds)
{
	const struct setup setup = {msg->session, msg->name, msg->image_bytes, msg->flags,
	    msg->cluster_min_bytes, msg->cluster_max_bytes, msg->spin_us};
	struct session *s;
	int r = fault_named(FAULT_ADOPT_SESSION, msg->name) ? -EIO : check_setup(pager, &setup);

	pager->is_adopting = true;
	if (r < 0)
		return r;
	s = new_session(pager, &setup);
	r = map_overlays(s);
	if (r == 0)
		r = map_image(s, &fds[0], &fds[1]);
	if (r == 0)
		r = session_vmm_resume(s, &fds[2], &fds[3]);
	if (r < 0) {
		destroy(s);
		return r;
	}
	s->adopt_seq = msg->seq;
	add_session(s);
	session_step(s, SESSION_EV_ADOPT);
	return 0;
}

static void
answer_adoption(struct session *s, int error)
{
	struct ipc_msg msg = {.type = IPC_SESSION_ADOPTED};

	msg.session_adopted.seq = s->adopt_seq;
	msg.session_adopted.session = s->number;
	msg.session_adopted.error = (uint32_t)-error;
	s->adopt_seq = 0;
	pager_send(s->pager, &msg, NULL, 0);
}

static void
drop_adopted(struct session *s, int error)
{
	answer_adoption(s, error);
	list_remove(&s->link);
	s->pager->nr_sessions--;
	destroy(s);
}

void
sessions_serve_adopted(struct pager *pager)
{
	struct list *pos, *tmp;

	if (!pager->is_adopting)
		return;
	list_for_each_safe(pos, tmp, &pager->sessions) {
		struct session *s = list_entry(pos, struct session, link);
		/* It may have been told to close meanwhile. */
		int r =
		    s->adopt_seq != 0 && s->state != SESSION_STOPPING ? session_vmm_serve(s) : 0;

		if (r < 0)
			drop_adopted(s, r);
	}
	list_for_each(pos, &pager->sessions) {
		struct session *s = list_entry(pos, struct session, link);

		if (s->adopt_seq == 0)
			continue;
		session_vmm_wake(s);
		answer_adoption(s, 0);
		if (s->state == SESSION_SERVING)
			prefetch_begin(s);
	}
	pager->is_adopting = false;
	images_warm(pager);
}

int
session_connect(struct session *s, int fd)
{
	if (s->state != SESSION_LISTENING) {
		fd_closep(&fd);
		return -EINVAL;
	}
	session_vmm_begin(s, fd);
	session_vmm_accept(s);
	return 0;
}

int
session_complete(struct session *s, const struct ipc_session_complete *msg)
{
	int r;

	/* A completion that has posted its outcome is not over until that was attended to. */
	if (s->state != SESSION_SERVING || s->completion.seq != 0)
		return -EBUSY;
	s->completion.seq = msg->seq;
	s->completion.rate_bytes = msg->rate_bytes;
	s->completion.is_stale = false;
	atomic_store(&s->completion.abort, false);
	copylock_calm(&s->copylock);
	r = session_thread_start(s, complete_main);
	if (r < 0) {
		s->completion.seq = 0;
		return r;
	}
	/* A completion fills all that a prefetch would. */
	prefetch_abort(s);
	session_step(s, SESSION_EV_COMPLETE);
	return 0;
}

void
session_abort(struct session *s)
{
	atomic_store(&s->completion.abort, true);
	copylock_hurry(&s->copylock);
}

static void
stop_threads(struct session *s)
{
	session_vmm_stop(s);
	atomic_store(&s->completion.abort, true);
	atomic_store(&s->stop, true);
	copylock_hurry(&s->copylock);
	iolane_stop(&s->iolane);
	fault_interrupt(s);
	pager_wake(s->pager);
}

void
session_close(struct session *s, uint32_t seq)
{
	(void)fault_named(FAULT_RELEASE_SESSION, s->name);
	s->answer_close = true;
	s->close_seq = seq;
	if (s->state != SESSION_STOPPING)
		s->ended_as = IPC_ENDED_CLOSED;
	session_step(s, SESSION_EV_CLOSE);
	stop_threads(s);
}

void
session_give_up(struct session *s)
{
	if (s->state == SESSION_STOPPING)
		return;
	session_log(s, LOG_LEVEL_NOTICE, "its VMM has exited; closed");
	s->ended_as = IPC_ENDED_GONE;
	session_step(s, SESSION_EV_CLOSE);
	stop_threads(s);
}

/* To a supervisor that does not know of it, or not any more, it would make no sense. */
static void
tell(struct session *s, const struct ipc_msg *msg)
{
	if (s->is_known)
		pager_send(s->pager, msg, NULL, 0);
}

static struct ipc_msg
completed_msg(struct session *s)
{
	struct ipc_msg msg = {.type = IPC_SESSION_COMPLETED};
	struct completion *c = &s->completion;

	msg.session_completed.seq = c->seq;
	msg.session_completed.session = s->number;
	msg.session_completed.outcome = (uint32_t)c->outcome;
	msg.session_completed.error = (uint32_t)c->error;
	ipc_text(msg.session_completed.reason, c->reason);
	c->seq = 0;
	return msg;
}

static void
gone(struct session *s)
{
	struct ipc_msg msg = {.type = IPC_SESSION_GONE};

	if (!s->is_known) {
		session_give_up(s);
	} else if (!s->gone_sent) {
		s->gone_sent = true;
		msg.session_gone.session = s->number;
		tell(s, &msg);
	}
}

static void
on_completed(struct session *s)
{
	struct ipc_msg msg;

	session_log(s, LOG_LEVEL_INFO, "completion ended, outcome=%d %s",
	    (int)s->completion.outcome, s->completion.reason);
	if (s->completion.outcome == IPC_COMPLETION_DETACHED) {
		s->ended_as = IPC_ENDED_GRADUATED;
		session_step(s, SESSION_EV_DETACH);
		stop_threads(s); /* answered once nothing is left of it */
		return;
	}
	session_step(s, SESSION_EV_RESUME);
	if (s->completion.outcome == IPC_COMPLETION_GONE)
		gone(s);
	msg = completed_msg(s);
	if (!s->completion.is_stale)
		tell(s, &msg);
}

static void
send_alarm(struct session *s, enum ipc_alarm kind, int error, const char *what)
{
	struct ipc_msg msg = {.type = IPC_SESSION_ALARM};

	msg.session_alarm.session = s->number;
	msg.session_alarm.kind = (uint32_t)kind;
	msg.session_alarm.error = (uint32_t)error;
	snprintf(msg.session_alarm.reason, sizeof(msg.session_alarm.reason), "%s: %s", what,
	    strerror(error));
	tell(s, &msg);
}

static void
attend_posts(struct session *s)
{
	unsigned posted = atomic_exchange(&s->posted, 0);

	if (posted & SESSION_POST_GONE)
		gone(s);
	if (posted & SESSION_POST_IMAGE_ALARM)
		send_alarm(s, IPC_ALARM_IMAGE_READ, atomic_load(&s->unreadable.error),
		    "the image cannot be read; the fault waits and is tried again");
	if (posted & SESSION_POST_FILL_ALARM)
		send_alarm(s, IPC_ALARM_FILL, atomic_load(&s->alarm_error),
		    "a page cannot be filled; the fault waits");
	unreadable_tell(s, posted);
	image_tell(s);
	if ((posted & SESSION_POST_PICTURE) && s->picture.seq != 0)
		picture_tell(s);
	if (posted & SESSION_POST_PREFETCHED)
		prefetch_report(s);
	if ((posted & SESSION_POST_COMPLETED) && s->completion.seq != 0)
		on_completed(s);
}

/* What the supervisor is told once nothing of the session is left here. */
static size_t
last_words(struct session *s, struct ipc_msg msgs[3])
{
	size_t n = 0;

	if (s->completion.seq != 0 && !s->completion.is_stale) {
		msgs[n++] = completed_msg(s);
	} else if (s->ended_as == IPC_ENDED_GRADUATED) {
		msgs[n] = (struct ipc_msg){.type = IPC_SESSION_ENDED};
		msgs[n].session_ended.session = s->number;
		msgs[n++].session_ended.outcome = IPC_ENDED_GRADUATED;
	}
	if (s->refused) {
		msgs[n] = (struct ipc_msg){.type = IPC_SESSION_REFUSED};
		msgs[n].session_refused.session = s->number;
		ipc_text(msgs[n++].session_refused.reason, s->reason);
	}
	if (s->answer_close) {
		msgs[n] = (struct ipc_msg){.type = IPC_SESSION_CLOSED};
		msgs[n].session_closed.seq = s->close_seq;
		msgs[n++].session_closed.session = s->number;
	}
	return n;
}

static void
finish(struct session *s)
{
	struct pager *pager = s->pager;
	struct ipc_msg msgs[3];
	size_t n = last_words(s, msgs);

	list_remove(&s->link);
	pager->nr_sessions--;
	rejoin_remember(s);
	if (!s->is_known || s->is_silent)
		n = 0;
	destroy(s);
	for (size_t i = 0; i < n; i++)
		pager_send(pager, &msgs[i], NULL, 0);
}

void
session_attend(struct session *s)
{
	attend_posts(s);
	if (s->refused && s->state == SESSION_HANDSHAKE) {
		s->ended_as = IPC_ENDED_REFUSED;
		session_step(s, SESSION_EV_REFUSE);
		stop_threads(s);
	}
	/* Posts come before a thread's end, so that none is left behind. */
	if (s->state == SESSION_STOPPING && atomic_load(&s->threads) == 0 &&
	    atomic_load(&s->posted) == 0)
		finish(s);
}
