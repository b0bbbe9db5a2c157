/* SPDX-License-Identifier: Apache-2.0 */
/* What the manager is told about descriptors.  Its socket takes a few datagrams at a time and
 * more when it has read them: what it does not take waits here, and nobody waits for it. */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/fd.h"
#include "common/scope.h"
#include "common/xalloc.h"
#include "supervisor/fdstore.h"
#include "supervisor/fdstore_impl.h"
#include "supervisor/notify.h"
#include "supervisor/privs.h"
#include "supervisor/session_impl.h"
#include "supervisor/supervisor.h"

/* Between two tries, doubled by each.  A manager that has taken nothing for this long is busy
 * with something else than reading. */
#define FIRST_PAUSE_MS 20U
#define MAX_PAUSE_MS   5000U
#define TELL_PAUSE_MS  640U

/* There are no more of these than the store has descriptors: what one is about counts as used
 * until the manager has been told. */
struct removal {
	struct list link; /* fdstore.removals */
	uint64_t number, nr;
};

struct kept *
fdstore_find(const struct fdstore *store, uint64_t number)
{
	struct list *pos;

	list_for_each(pos, &store->kept) {
		struct kept *kept = list_entry(pos, struct kept, link);

		if (kept->number == number)
			return kept;
	}
	return NULL;
}

/* Overlays are the last. */
size_t
fdstore_needed(const struct session *session)
{
	return (session->flags & IPC_SESSION_HAS_OVERLAYS) != 0 ? FDSTORE_PER_SESSION
								: FDSTORE_PER_SESSION - 1;
}

static bool
is_busy(int error)
{
	return error == -EAGAIN || error == -ENOBUFS || error == -ENOMEM ||
	    error == -ETOOMANYREFS || error == -EMFILE || error == -ENFILE;
}

static void
complain(struct fdstore *store, const char *what)
{
	if (store->has_complained)
		return;
	store->has_complained = true;
	log_warning("fd store: %s; sessions=%" PRIu64 " are not kept, and lost if pagerd and their "
		    "worker both die; tried again",
	    what, store->nr_unstored);
}

static void
complain_of(struct fdstore *store, int error)
{
	char what[128];

	snprintf(what, sizeof(what), "the service manager cannot be told: %s", strerror(-error));
	complain(store, what);
}

static void
try_again(struct fdstore *store, int error)
{
	struct ev_loop *loop = store->sup->loop;

	store->pause_ms = store->pause_ms == 0 ? FIRST_PAUSE_MS : store->pause_ms * 2;
	if (store->pause_ms > MAX_PAUSE_MS)
		store->pause_ms = MAX_PAUSE_MS;
	if (!is_busy(error) || store->pause_ms >= TELL_PAUSE_MS)
		complain_of(store, error);
	ev_timer_stop(loop, &store->again);
	ev_now_update(loop);
	ev_timer_set(&store->again, (double)store->pause_ms / 1000., 0.);
	ev_timer_start(loop, &store->again);
}

/* --- One message ------------------------------------------------------------------ */

static int
send_removal(const struct removal *removal)
{
	char text[64];

	snprintf(text, sizeof(text), "FDSTOREREMOVE=1\nFDNAME=" FDSTORE_NAME "%" PRIu64,
	    removal->number);
	return notify_with_fds(text, NULL, 0);
}

/* Of descriptors that are one open file the manager keeps the first, whatever the others are
 * called; and a worker that is found again gives back one for all sessions of an image.  Any
 * other is the session's own: to open it would be to wait for its storage.
 * Owned by the caller; -1 where it cannot be opened again. */
static int
open_again(const struct session *session)
{
	scoped_priv enum priv held = priv_raise(PRIV_ROOT_FILES);
	char link[40];

	(void)held;
	if (!session->image_is_shared)
		return -1;
	snprintf(link, sizeof(link), "/proc/self/fd/%d", session->image.fd);
	return open(link, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
}

/* The userfaultfd is the first: should the manager have less room than it said, nothing else
 * matters as much.  FDPOLL=0: it would let go of a connection that the VMM has closed. */
static int
send_session(const struct session *session)
{
	scoped_fd int image = open_again(session);
	const int fds[FDSTORE_PER_SESSION] = {session->uffd, session->map_fd, session->connection,
	    image >= 0 ? image : session->image.fd, session->overlays.fd};
	char text[80];

	snprintf(text, sizeof(text), "FDSTORE=1\nFDNAME=" FDSTORE_NAME "%" PRIu64 "\nFDPOLL=0",
	    session->number);
	return notify_with_fds(text, fds, fdstore_needed(session));
}

/* --- The queues ------------------------------------------------------------------- */

static void
drop_removal(struct fdstore *store, struct removal *removal)
{
	store->used -= store->used >= removal->nr ? removal->nr : 0;
	list_remove(&removal->link);
	free(removal);
}

static void
drop_unstored(struct fdstore *store, struct session *session)
{
	if (list_is_empty(&session->unstored))
		return;
	list_remove(&session->unstored);
	store->nr_unstored--;
}

static int
step_removals(struct fdstore *store)
{
	struct list *pos, *tmp;

	list_for_each_safe(pos, tmp, &store->removals) {
		struct removal *removal = list_entry(pos, struct removal, link);
		int r = send_removal(removal);

		if (r < 0)
			return r;
		drop_removal(store, removal);
	}
	return 0;
}

static int
step_unstored(struct fdstore *store)
{
	struct list *pos, *tmp;

	list_for_each_safe(pos, tmp, &store->unstored) {
		struct session *session = list_entry(pos, struct session, unstored);
		size_t nr = fdstore_needed(session);
		int r;

		/* Until one of those that are in has ended. */
		if (store->used + nr > store->limit) {
			complain(store, "the service manager's store is full");
			return 0;
		}
		r = send_session(session);
		if (r < 0)
			return r;
		drop_unstored(store, session);
		session->nr_stored = (uint32_t)nr;
		store->used += nr;
	}
	return 0;
}

static void
step(struct fdstore *store)
{
	int r = step_removals(store);

	if (r == 0)
		r = step_unstored(store);
	if (r < 0) {
		try_again(store, r);
		return;
	}
	store->pause_ms = 0;
	ev_timer_stop(store->sup->loop, &store->again);
	if (!store->has_complained || store->nr_unstored > 0)
		return;
	store->has_complained = false;
	log_notice("fd store: the descriptors of all sessions are kept again");
}

static void
step_soon(struct fdstore *store)
{
	if (!ev_is_active(&store->again))
		step(store);
}

static void
on_again(struct ev_loop *loop, ev_timer *timer, int revents)
{
	(void)loop;
	(void)revents;
	step(timer->data);
}

/* An earlier pagerd has had all of it kept.  A page map, a connection and overlays are known
 * to be right when they are needed. */
static bool
is_kept(const struct kept *kept, const struct session *session)
{
	bool has_uffd = false, has_image = false;

	for (size_t i = 0; kept != NULL && i < kept->nr; i++) {
		has_uffd = has_uffd || session_is_userfaultfd(kept->fds[i]);
		has_image = has_image || session_is_image(session, kept->fds[i]);
	}
	return has_uffd && has_image && kept->nr >= fdstore_needed(session);
}

void
fdstore_save(struct session *session)
{
	struct fdstore *store = session->sup->fdstore;
	const struct kept *kept;

	if (store == NULL || session->nr_stored > 0 || !list_is_empty(&session->unstored))
		return;
	kept = fdstore_find(store, session->number);
	if (is_kept(kept, session)) {
		session->nr_stored = (uint32_t)kept->nr;
		store->used += kept->nr;
		return;
	}
	list_add(&store->unstored, &session->unstored);
	store->nr_unstored++;
	step_soon(store);
}

void
fdstore_forget(struct fdstore *store, uint64_t number, uint64_t nr)
{
	struct removal *removal = xcalloc(1, sizeof(*removal));

	*removal = (struct removal){.number = number, .nr = nr};
	list_add(&store->removals, &removal->link);
	step_soon(store);
}

void
fdstore_remove(struct session *session)
{
	struct fdstore *store = session->sup->fdstore;

	if (store == NULL)
		return;
	drop_unstored(store, session);
	if (session->nr_stored > 0)
		fdstore_forget(store, session->number, session->nr_stored);
	session->nr_stored = 0;
}

bool
fdstore_numbers(const struct supervisor *sup, struct fdstore_numbers *ret)
{
	const struct fdstore *store = sup->fdstore;

	if (store == NULL)
		return false;
	*ret = (struct fdstore_numbers){store->limit, store->used, store->nr_unstored};
	return true;
}

void
fdstore_send_init(struct fdstore *store)
{
	list_init(&store->unstored);
	list_init(&store->removals);
	ev_timer_init(&store->again, on_again, 0., 0.);
	store->again.data = store;
}

/* What the manager was not told to let go of, the next pagerd tells it. */
void
fdstore_send_fini(struct fdstore *store)
{
	ev_timer_stop(store->sup->loop, &store->again);
	while (!list_is_empty(&store->unstored))
		list_remove(store->unstored.next);
	(void)step_removals(store);
	while (!list_is_empty(&store->removals))
		drop_removal(store, list_entry(store->removals.next, struct removal, link));
}
