/* SPDX-License-Identifier: Apache-2.0 */
#include "supervisor/picture.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/userfaultfd.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "common/fd.h"
#include "common/scope.h"
#include "supervisor/child.h"
#include "supervisor/session_impl.h"
#include "supervisor/supervisor.h"
#include "supervisor/why.h"

#ifndef UFFD_FEATURE_WP_ASYNC
#define UFFD_FEATURE_WP_ASYNC (1 << 15) /* Linux 6.7: the kernel lets writes pass by itself */
#endif

#define SEALS (F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL)

static int
create_memfd(uint64_t bytes, int *ret)
{
	scoped_fd int fd = fd_memfd("picture");

	if (fd < 0)
		return fd;
	if (ftruncate(fd, (off_t)bytes) < 0 || fcntl(fd, F_ADD_SEALS, SEALS) < 0)
		return -errno;
	*ret = fd_take(&fd);
	return 0;
}

/* Whether each write and each removal is an event, as far as the VMM's choice of features goes. */
static bool
has_events(const struct session *session)
{
	uint64_t want = UFFD_FEATURE_EVENT_REMOVE, not_want = UFFD_FEATURE_WP_ASYNC, features;

	return session_uffd_features(session->uffd, &features) && (features & want) != 0 &&
	    (features & not_want) == 0;
}

static int
check(const struct session *session, const struct picture_wish *wish, char *why, size_t why_bytes)
{
	if (session->state == SESSION_CREATED)
		return why_set(why, why_bytes, -EINVAL,
		    "session %s has no memory yet: its VMM has not said what it has", session->id);
	if (session->state != SESSION_SERVING && session->state != SESSION_COMPLETING)
		return why_set(why, why_bytes, -ENOTCONN,
		    "session %s is %s: no worker can tell how its pages are; ask again when it is "
		    "serving",
		    session->id, session_state_word(session->state));
	if ((session->child->sandbox & IPC_CAN_PICTURE) == 0)
		return why_set(why, why_bytes, -EPROTONOSUPPORT,
		    "worker version %s of session %s cannot tell how its pages are; hand it over "
		    "to a newer one",
		    session->version, session->id);
	if (session->picture != NULL)
		return why_set(why, why_bytes, -EBUSY,
		    "another client asks for the pages of session %s; ask again", session->id);
	if (wish->is_new && !has_events(session))
		return why_set(why, why_bytes, -EOPNOTSUPP,
		    "the writes of session %s are not tracked: its userfaultfd does not tell of "
		    "removals, or lets writes pass by itself",
		    session->id);
	return 0;
}

static int
send_request(struct picture *picture, const struct picture_wish *wish)
{
	struct session *session = picture->session;
	struct ipc_msg msg = {.type = IPC_SESSION_PICTURE};

	msg.session_picture.seq = endpoint_next_seq(&session->child->ep);
	msg.session_picture.session = session->number;
	msg.session_picture.flags =
	    (wish->is_new ? IPC_PICTURE_NEW : 0) | (wish->has_since ? IPC_PICTURE_SINCE : 0);
	msg.session_picture.since = wish->since;
	picture->seq = msg.session_picture.seq;
	return child_send(session->child, &msg, &picture->fd, 1);
}

/* The layout as it is now: the worker could change what the map says of it. */
static int
make_room(struct picture *picture, char *why, size_t why_bytes)
{
	struct session *session = picture->session;
	uint64_t *used = &session->sup->sessions.picture_bytes, bytes = 0;
	int r;

	picture->nr_regions = pagemap_regions(&session->map, picture->regions);
	for (uint32_t i = 0; i < picture->nr_regions; i++)
		bytes += region_nr_pages(&picture->regions[i]);
	if (bytes == 0)
		return why_set(why, why_bytes, -EINVAL, "session %s has no memory", session->id);
	if (bytes > PICTURE_MAX_BYTES)
		return why_set(why, why_bytes, -E2BIG,
		    "session %s has %" PRIu64 " pages; at most %" PRIu64 " can be told",
		    session->id, bytes, PICTURE_MAX_BYTES);
	if (bytes > PICTURE_MAX_BYTES - *used)
		return why_set(
		    why, why_bytes, -ENOSPC, "too many clients are being told of pages; ask again");
	r = create_memfd(bytes, &picture->fd);
	if (r < 0)
		return why_set(why, why_bytes, r, "no memory for the picture: %s", strerror(-r));
	picture->bytes = bytes;
	picture->budget = used;
	*used += bytes;
	return 0;
}

int
picture_ask(struct picture *ret, struct session *session, const struct picture_wish *wish,
    char *why, size_t why_bytes)
{
	int r = check(session, wish, why, why_bytes);

	if (r < 0)
		return r;
	*ret = (struct picture){.fd = -1, .session = session, .child = session->child};
	ret->knows_writes = has_events(session);
	ret->knows_removals = (session->flags & IPC_SESSION_MEMFD) == 0;
	session->picture = ret;
	r = make_room(ret, why, why_bytes);
	if (r == 0) {
		r = send_request(ret, wish);
		if (r < 0)
			why_set(why, why_bytes, r, "the worker of session %s cannot be asked: %s",
			    session->id, strerror(-r));
	}
	if (r < 0)
		picture_drop(ret);
	return r;
}

bool
picture_is_over(const struct picture *picture)
{
	const struct session *session = picture->session;

	if (picture->is_answered)
		return true;
	return (session->state != SESSION_SERVING && session->state != SESSION_COMPLETING) ||
	    session->child != picture->child;
}

static void
stop_waiting(struct picture *picture)
{
	if (picture->session != NULL && picture->session->picture == picture)
		picture->session->picture = NULL;
	picture->session = NULL;
}

void
picture_drop(struct picture *picture)
{
	stop_waiting(picture);
	fd_closep(&picture->fd);
	if (picture->budget != NULL)
		*picture->budget -= picture->bytes;
	picture->budget = NULL;
}

void
session_pictured(struct session *session, const struct ipc_session_pictured *msg)
{
	struct picture *picture = session->picture;

	stop_waiting(picture);
	picture->is_answered = true;
	picture->error = (int)msg->error;
	picture->tracking = (enum pagemap_tracking)msg->tracking;
	picture->base = msg->base;
	picture->number = msg->number;
	session_mark_changed(session);
}
