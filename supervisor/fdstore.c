/* SPDX-License-Identifier: Apache-2.0 */
#include "supervisor/fdstore.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/fd.h"
#include "common/num.h"
#include "common/scope.h"
#include "common/xalloc.h"
#include "supervisor/notify.h"
#include "supervisor/passed.h"
#include "supervisor/privs.h"
#include "supervisor/session_impl.h"
#include "supervisor/supervisor.h"

#define NR_KEPT	      5 /* descriptors of a session, at most: see needed() */
#define NAME	      "session-"
#define DEFAULT_LIMIT 1048576U

/* What was kept of one session. */
struct kept {
	struct list link; /* fdstore.kept */
	uint64_t number;
	size_t nr;
	int fds[NR_KEPT]; /* owned */
};

struct fdstore {
	struct list kept;
	uint64_t limit; /* descriptors that the manager keeps */
	uint64_t used;
	bool has_complained;
};

/* --- In --------------------------------------------------------------------------- */

static struct kept *
find(const struct fdstore *store, uint64_t number)
{
	struct list *pos;

	list_for_each(pos, &store->kept) {
		struct kept *kept = list_entry(pos, struct kept, link);

		if (kept->number == number)
			return kept;
	}
	return NULL;
}

static void
drop(struct kept *kept)
{
	fd_close_all(kept->fds, kept->nr);
	list_remove(&kept->link);
	free(kept);
}

static void
keep(struct fdstore *store, uint64_t number, int fd)
{
	struct kept *kept = find(store, number);

	if (kept == NULL) {
		kept = xcalloc(1, sizeof(*kept));
		kept->number = number;
		list_add(&store->kept, &kept->link);
	}
	if (kept->nr == NR_KEPT)
		fd_closep(&fd);
	else
		kept->fds[kept->nr++] = fd;
}

/* 0: none of ours. */
static uint64_t
number_of(const char *name)
{
	uint64_t number;

	if (strncmp(name, NAME, strlen(NAME)) != 0 ||
	    num_parse_u64(name + strlen(NAME), 1, INT64_MAX - 1, &number) < 0)
		return 0;
	return number;
}

/* What was passed and is none of ours stays where it is. */
static void
take(struct fdstore *store, struct passed *passed)
{
	size_t cursor = 0;
	char name[64];
	int fd;

	while ((fd = passed_take(passed, &cursor, NAME, name, sizeof(name))) >= 0) {
		uint64_t number = number_of(name);

		if (number != 0)
			keep(store, number, fd);
		else
			fd_closep(&fd);
	}
}

void
fdstore_open(struct supervisor *sup)
{
	const char *max = getenv("FDSTORE");
	const char *notify = getenv("NOTIFY_SOCKET");
	struct fdstore *store;
	uint64_t limit = sup->options.fd_store ? DEFAULT_LIMIT : 0;

	if (max != NULL && num_parse_u64(max, 0, INT32_MAX, &limit) < 0)
		log_warning("fd store: FDSTORE=%s is no number; ignored", max);
	if (notify == NULL || limit == 0)
		return;
	store = xcalloc(1, sizeof(*store));
	list_init(&store->kept);
	store->limit = limit;
	sup->fdstore = store;
	take(store, &sup->passed);
	log_info("fd store: the service manager keeps up to %" PRIu64 " descriptors", limit);
}

void
fdstore_close(struct supervisor *sup)
{
	struct fdstore *store = sup->fdstore;

	if (store == NULL)
		return;
	while (!list_is_empty(&store->kept))
		drop(list_entry(store->kept.next, struct kept, link));
	free(store);
	sup->fdstore = NULL;
}

/* Overlays are the last. */
static size_t
needed(const struct session *session)
{
	return (session->flags & IPC_SESSION_HAS_OVERLAYS) != 0 ? NR_KEPT : NR_KEPT - 1;
}

/* Each is known by what it is, not by its place. */
static void
hand_over(struct session *session, int *fd)
{
	if (session->uffd < 0 && session_is_userfaultfd(*fd))
		session->uffd = fd_take(fd);
	else if (session->image.fd < 0 && session_is_image(session, *fd))
		session->image.fd = fd_take(fd);
	else if (session->connection < 0 && session_is_connection(session, *fd))
		session->connection = fd_take(fd);
	else if (needed(session) == NR_KEPT && session->overlays.fd < 0 &&
	    overlays_take(session, fd) == 0)
		return;
	else if (session->map_fd < 0)
		session_take_map(session, fd);
}

static bool
has_all(const struct session *session)
{
	return session->uffd >= 0 && session->image.fd >= 0 && session->connection >= 0 &&
	    session->map_fd >= 0 && (needed(session) < NR_KEPT || session->overlays.fd >= 0);
}

bool
fdstore_claim(struct session *session)
{
	struct fdstore *store = session->sup->fdstore;
	struct kept *kept = store != NULL ? find(store, session->number) : NULL;

	if (kept == NULL)
		return false;
	store->used += kept->nr;
	for (size_t i = 0; i < kept->nr; i++)
		hand_over(session, &kept->fds[i]);
	drop(kept);
	session->is_stored = true;
	if (has_all(session))
		return true;
	session_log(session, LOG_LEVEL_ERR,
	    "the service manager has kept too little of it:%s%s%s%s%s missing",
	    session->uffd < 0 ? " userfaultfd" : "", session->image.fd < 0 ? " image" : "",
	    session->connection < 0 ? " connection" : "", session->map_fd < 0 ? " page map" : "",
	    needed(session) == NR_KEPT && session->overlays.fd < 0 ? " overlays" : "");
	pagemap_unmap(&session->map);
	fd_closep(&session->map_fd);
	fd_closep(&session->uffd);
	fd_closep(&session->connection);
	fd_closep(&session->image.fd);
	fd_closep(&session->overlays.fd);
	return false;
}

/* --- Out -------------------------------------------------------------------------- */

static int
forget(uint64_t number)
{
	char text[64];

	snprintf(text, sizeof(text), "FDSTOREREMOVE=1\nFDNAME=" NAME "%" PRIu64, number);
	return notify_with_fds(text, NULL, 0);
}

void
fdstore_settle(struct supervisor *sup)
{
	struct fdstore *store = sup->fdstore;
	struct list *pos, *tmp;

	if (store == NULL)
		return;
	list_for_each_safe(pos, tmp, &store->kept) {
		struct kept *kept = list_entry(pos, struct kept, link);
		const struct session *session = session_by_number(&sup->sessions, kept->number);

		if (session == NULL || !session_is_live(session))
			forget(kept->number);
		drop(kept);
	}
}

/* An earlier pagerd has had all of it kept.  A page map, a connection and overlays are known
 * to be right when they are needed. */
static bool
is_kept(const struct fdstore *store, const struct session *session)
{
	const struct kept *kept = find(store, session->number);
	bool has_uffd = false, has_image = false;

	for (size_t i = 0; kept != NULL && i < kept->nr; i++) {
		has_uffd = has_uffd || session_is_userfaultfd(kept->fds[i]);
		has_image = has_image || session_is_image(session, kept->fds[i]);
	}
	return has_uffd && has_image && kept->nr >= needed(session);
}

/* Of descriptors that are one open file the manager keeps the first, whatever the others are
 * called; and a worker that is found again gives back one for all sessions of an image.
 * Owned by the caller; -1 where it cannot be opened again. */
static int
open_again(int fd)
{
	scoped_priv enum priv held = priv_raise(PRIV_ROOT_FILES);
	char link[40];

	(void)held;
	snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
	return open(link, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
}

/* FDPOLL=0: the manager would let go of a connection that the VMM has closed. */
void
fdstore_save(struct session *session)
{
	struct fdstore *store = session->sup->fdstore;
	scoped_fd int image = -1;
	int fds[NR_KEPT] = {session->image.fd, session->map_fd, session->uffd, session->connection,
	    session->overlays.fd};
	size_t nr = needed(session);
	char text[80];
	int r = -ENOSPC;

	if (store == NULL || session->is_stored)
		return;
	if (is_kept(store, session)) {
		session->is_stored = true;
		store->used += nr;
		return;
	}
	image = open_again(session->image.fd);
	if (image >= 0)
		fds[0] = image;
	snprintf(
	    text, sizeof(text), "FDSTORE=1\nFDNAME=" NAME "%" PRIu64 "\nFDPOLL=0", session->number);
	if (store->used + nr <= store->limit)
		r = notify_with_fds(text, fds, nr);
	session->is_stored = r == 0;
	store->used += r == 0 ? nr : 0;
	if (r == 0 || store->has_complained)
		return;
	store->has_complained = true;
	session_log(session, LOG_LEVEL_WARNING,
	    "the service manager does not keep its descriptors: %s; it is lost if pagerd and its "
	    "worker both die; not said of others",
	    r == -ENOSPC ? "its store is full" : strerror(-r));
}

void
fdstore_remove(struct session *session)
{
	struct fdstore *store = session->sup->fdstore;
	size_t nr = needed(session);
	int r;

	if (store == NULL || !session->is_stored)
		return;
	r = forget(session->number);
	if (r < 0)
		session_log(session, LOG_LEVEL_WARNING,
		    "the service manager cannot be told to let go of it: %s; done at the next start",
		    strerror(-r));
	session->is_stored = false;
	store->used -= store->used >= nr ? nr : 0;
}
