/* SPDX-License-Identifier: Apache-2.0 */
/* What a worker hands over is looked at before it is kept: it can be anything. */
#include <stdio.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/un.h>
#include <unistd.h>

#include "common/fd.h"
#include "common/scope.h"
#include "common/xalloc.h"
#include "supervisor/session_impl.h"
#include "supervisor/vmm.h"

bool
session_is_userfaultfd(int fd)
{
	static const char want[] = "anon_inode:[userfaultfd]";
	char link[64], target[sizeof(want)];

	snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
	ssize_t n = readlink(link, target, sizeof(target));
	return n == (ssize_t)sizeof(want) - 1 && memcmp(target, want, sizeof(want) - 1) == 0;
}

bool
session_uffd_features(int fd, uint64_t *ret)
{
	char path[64], text[512];
	const char *api;

	snprintf(path, sizeof(path), "/proc/self/fdinfo/%d", fd);
	scoped_fd int info = open(path, O_RDONLY | O_CLOEXEC);
	if (info < 0)
		return false;
	ssize_t n = read(info, text, sizeof(text) - 1);
	if (n <= 0)
		return false;
	text[n] = '\0';
	/* "API:	aa:FEATURES:IOCTLS" in hexadecimal */
	api = strstr(text, "\nAPI:\t");
	return api != NULL && sscanf(api, "\nAPI:\t%*x:%" SCNx64 ":", ret) == 1;
}

static bool
has_option(int fd, int option, int want)
{
	int value = -1;
	socklen_t bytes = sizeof(value);

	return getsockopt(fd, SOL_SOCKET, option, &value, &bytes) == 0 && value == want;
}

/* A stream socket of this session's name, in that role. */
static bool
is_socket_of(const struct session *session, int fd, int listens)
{
	struct sockaddr_un addr = {0};
	socklen_t bytes = sizeof(addr);

	return has_option(fd, SO_DOMAIN, AF_UNIX) && has_option(fd, SO_TYPE, SOCK_STREAM) &&
	    has_option(fd, SO_ACCEPTCONN, listens) &&
	    getsockname(fd, (struct sockaddr *)&addr, &bytes) == 0 &&
	    strncmp(addr.sun_path, session->socket_path, sizeof(addr.sun_path)) == 0;
}

bool
session_is_connection(const struct session *session, int fd)
{
	return is_socket_of(session, fd, 0);
}

bool
session_is_listener(const struct session *session, int fd)
{
	return is_socket_of(session, fd, 1);
}

/* Which file it is, by what the kernel knows without asking storage that may not answer. */
static bool
identify(int fd, struct image *ret)
{
	int flags = fcntl(fd, F_GETFL);
	struct statx st;

	if (flags < 0 || (flags & O_ACCMODE) != O_RDONLY ||
	    statx(fd, "", AT_EMPTY_PATH | AT_STATX_DONT_SYNC, STATX_BASIC_STATS, &st) < 0 ||
	    !S_ISREG(st.stx_mode))
		return false;
	*ret = (struct image){.fd = -1,
	    .dev = makedev(st.stx_dev_major, st.stx_dev_minor),
	    .ino = st.stx_ino,
	    .bytes = st.stx_size,
	    .mtime_ns = st.stx_mtime.tv_sec * INT64_C(1000000000) + st.stx_mtime.tv_nsec};
	return true;
}

bool
session_is_image(const struct session *session, int fd)
{
	struct image found;

	return identify(fd, &found) && found.dev == session->image.dev &&
	    found.ino == session->image.ino;
}

bool
session_image_differs(const struct session *session)
{
	struct image now;

	return identify(session->image.fd, &now) &&
	    (now.mtime_ns != session->image.mtime_ns || now.bytes != session->image.bytes);
}

void
session_learn_image(struct session *session, int fd)
{
	char link[64], path[4096];
	struct image found;

	snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
	ssize_t n = readlink(link, path, sizeof(path) - 1);
	if (n <= 0 || !identify(fd, &found))
		return;
	path[n] = '\0';
	free(session->image_path);
	session->image_path = xstrdup(path);
	found.fd = session->image.fd;
	session->image = found;
}

void
session_learn_socket(struct session *session, int fd)
{
	struct sockaddr_un addr = {0};
	socklen_t bytes = sizeof(addr);
	struct vmm_peer peer;

	if (session->socket_path[0] != '\0' || !has_option(fd, SO_DOMAIN, AF_UNIX) ||
	    !has_option(fd, SO_ACCEPTCONN, 0) || vmm_peer(fd, &peer) < 0 ||
	    getsockname(fd, (struct sockaddr *)&addr, &bytes) < 0)
		return;
	snprintf(session->socket_path, sizeof(session->socket_path), "%.*s",
	    (int)sizeof(addr.sun_path) - 1, addr.sun_path);
	session->vmm_uid = peer.uid;
}

bool
session_is_whole(const struct session *session)
{
	bool has_overlays = (session->flags & IPC_SESSION_HAS_OVERLAYS) != 0;

	return session->uffd >= 0 && session->connection >= 0 && session->image.fd >= 0 &&
	    session->map_fd >= 0 && (!has_overlays || session->overlays.fd >= 0);
}

int
session_take_map(struct session *session, int *fd)
{
	int r = pagemap_map(&session->map, *fd, false);

	if (r < 0)
		return r;
	if (session->map.nr_pages != (session->image.bytes + PAGE_BYTES - 1) / PAGE_BYTES) {
		pagemap_unmap(&session->map);
		return -EPROTO;
	}
	session->map_fd = fd_take(fd);
	return 0;
}

int
session_meet_vmm(struct session *session, int connection)
{
	struct vmm_peer peer;
	int r = vmm_peer(connection, &peer);

	if (r < 0)
		return r;
	session->vmm_pid = peer.pid;
	if (peer.uid != session->vmm_uid) {
		char reason[sizeof(session->reason)];

		snprintf(reason, sizeof(reason), "uid %u connected (pid %d), not the VMM's uid %u",
		    (unsigned int)peer.uid, (int)peer.pid, (unsigned int)session->vmm_uid);
		session_close(session, SESSION_OUTCOME_REFUSED, reason);
		return -EPERM;
	}
	return vmm_pidfd(connection, &session->vmm_pidfd);
}

void
session_watch_vmm(struct session *session, int met)
{
	if (met == -ESRCH)
		session_vmm_exited(session);
	else if (met < 0)
		session_log(session, LOG_LEVEL_WARNING,
		    "cannot watch its VMM pid=%d: %s; its exit will be noticed by the worker only",
		    (int)session->vmm_pid, strerror(-met));
	else
		vmm_watch_start(session);
}

void
session_measure(struct session *session)
{
	struct region regions[PAGEMAP_MAX_REGIONS];

	session->nr_regions = pagemap_regions(&session->map, regions);
	session->guest_bytes = 0;
	for (uint32_t i = 0; i < session->nr_regions; i++)
		session->guest_bytes += regions[i].size_bytes;
}
