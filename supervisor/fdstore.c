/* SPDX-License-Identifier: Apache-2.0 */
#include "supervisor/fdstore.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/fd.h"
#include "common/num.h"
#include "common/scope.h"
#include "common/xalloc.h"
#include "supervisor/fdstore_impl.h"
#include "supervisor/passed.h"
#include "supervisor/recover.h"
#include "supervisor/session_impl.h"
#include "supervisor/supervisor.h"
#include "supervisor/vmm.h"

#define DEFAULT_LIMIT 1048576U

static void
drop(struct kept *kept)
{
	fd_close_all(kept->fds, kept->nr);
	list_remove(&kept->link);
	free(kept->fds);
	free(kept);
}

static void
keep(struct fdstore *store, uint64_t number, int fd)
{
	struct kept *kept = fdstore_find(store, number);
	int *fds;

	if (kept == NULL) {
		kept = xcalloc(1, sizeof(*kept));
		kept->number = number;
		list_add(&store->kept, &kept->link);
	}
	fds = xcalloc(kept->nr + 1, sizeof(*fds));
	if (kept->nr > 0)
		memcpy(fds, kept->fds, kept->nr * sizeof(*fds));
	fds[kept->nr++] = fd;
	free(kept->fds);
	kept->fds = fds;
}

/* 0: none of ours. */
static uint64_t
number_of(const char *name)
{
	uint64_t number;

	if (strncmp(name, FDSTORE_NAME, strlen(FDSTORE_NAME)) != 0 ||
	    num_parse_u64(name + strlen(FDSTORE_NAME), 1, INT64_MAX - 1, &number) < 0)
		return 0;
	return number;
}

/* What was passed and is none of ours stays where it is.  A number that the manager knows is
 * not given to another session, whose descriptors would get mixed up with these. */
static void
take(struct fdstore *store, struct passed *passed)
{
	struct sessions *sessions = &store->sup->sessions;
	size_t cursor = 0;
	char name[64];
	int fd;

	while ((fd = passed_take(passed, &cursor, FDSTORE_NAME, name, sizeof(name))) >= 0) {
		uint64_t number = number_of(name);

		if (number != 0)
			keep(store, number, fd);
		else
			fd_closep(&fd);
		if (sessions->next_number <= number)
			sessions->next_number = number + 1;
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
	store->sup = sup;
	list_init(&store->kept);
	store->limit = limit;
	fdstore_send_init(store);
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
	fdstore_send_fini(store);
	while (!list_is_empty(&store->kept))
		drop(list_entry(store->kept.next, struct kept, link));
	free(store);
	sup->fdstore = NULL;
}

static bool
has_overlays(const struct session *session)
{
	return fdstore_needed(session) == FDSTORE_PER_SESSION;
}

/* Each is known by what it is, not by its place. */
static void
hand_over(struct session *session, int *fd)
{
	if (session->is_unrecorded)
		session_learn_socket(session, *fd);
	if (session->uffd < 0 && session_is_userfaultfd(*fd))
		session->uffd = fd_take(fd);
	else if (session->connection < 0 && session_is_connection(session, *fd))
		session->connection = fd_take(fd);
	else if (session->is_unrecorded)
		session_learn_image(session, *fd); /* for people; it cannot be served */
	else if (session->image.fd < 0 && session_is_image(session, *fd))
		session->image.fd = fd_take(fd);
	else if (has_overlays(session) && session->overlays.fd < 0 &&
	    overlays_take(session, fd) == 0)
		return;
	else if (session->map_fd < 0)
		(void)session_take_map(session, fd);
}

static void
let_go(struct session *session)
{
	pagemap_unmap(&session->map);
	fd_closep(&session->map_fd);
	fd_closep(&session->connection);
	fd_closep(&session->image.fd);
	fd_closep(&session->overlays.fd);
}

enum fdstore_part
fdstore_claim(struct session *session)
{
	struct fdstore *store = session->sup->fdstore;
	struct kept *kept = store != NULL ? fdstore_find(store, session->number) : NULL;

	if (kept == NULL)
		return FDSTORE_NOTHING;
	store->used += kept->nr;
	session->nr_stored = (uint32_t)kept->nr;
	for (size_t i = 0; i < kept->nr; i++)
		hand_over(session, &kept->fds[i]);
	drop(kept);
	if (session_is_whole(session))
		return FDSTORE_ALL;
	snprintf(session->reason, sizeof(session->reason), "%s:%s%s%s%s%s missing",
	    session->is_unrecorded ? "its record is lost"
				   : "the service manager has kept too little of it",
	    session->uffd < 0 ? " userfaultfd" : "", session->image.fd < 0 ? " image" : "",
	    session->connection < 0 ? " connection" : "", session->map_fd < 0 ? " page map" : "",
	    has_overlays(session) && session->overlays.fd < 0 ? " overlays" : "");
	if (session->uffd >= 0)
		return FDSTORE_PART;
	session_log(session, LOG_LEVEL_ERR, "%s", session->reason);
	let_go(session);
	return FDSTORE_NOTHING;
}

static bool
has_userfaultfd(const struct kept *kept)
{
	for (size_t i = 0; i < kept->nr; i++)
		if (session_is_userfaultfd(kept->fds[i]))
			return true;
	return false;
}

/* The end of its session was not told to the manager, and neither is it news to the VM. */
static bool
has_vmm_exited(const struct kept *kept)
{
	scoped_fd int pidfd = -1;

	for (size_t i = 0; i < kept->nr; i++) {
		int r = vmm_pidfd(kept->fds[i], &pidfd);

		if (r == -ESRCH || (r == 0 && vmm_has_exited(pidfd)))
			return true;
		fd_closep(&pidfd);
	}
	return false;
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

		if (session == NULL && has_userfaultfd(kept) && !has_vmm_exited(kept)) {
			recover_unrecorded(sup, kept->number); /* claims it */
			continue;
		}
		if (session == NULL || !session_is_live(session))
			fdstore_forget(store, kept->number, 0);
		drop(kept);
	}
}
