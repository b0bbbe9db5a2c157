/* SPDX-License-Identifier: Apache-2.0 */
#include "supervisor/session_socket.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

#include "common/scope.h"
#include "supervisor/privs.h"
#include "supervisor/session.h"
#include "supervisor/session_impl.h"
#include "supervisor/supervisor.h"
#include "supervisor/why.h"

/* One VMM connects once; a few more may wait to be told that they are too late. */
#define BACKLOG 4

#define NAME_TRIES   8
#define SUFFIX_BYTES 28 /* "-" a 64-bit number "-" a try */

_Static_assert(
    sizeof(((struct session *)NULL)->socket_path) == sizeof(((struct sockaddr_un *)NULL)->sun_path),
    "a path that fits fits both");

void
session_socket_name(char *buf, size_t bytes, const char *id)
{
	static const char safe[] = "abcdefghijklmnopqrstuvwxyz"
				   "ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-";
	size_t i = 0;

	for (; i + 1 < bytes && id[i] != '\0'; i++)
		buf[i] = strchr(safe, id[i]) ? id[i] : '-';
	buf[i] = '\0';
}

/* The path for the try-th time: the plain name, then with a suffix that no other
 * session's name ends in by chance.  -ENAMETOOLONG when not even that fits. */
static int
make_path(struct session *session, unsigned int attempt)
{
	const char *dir = session->sup->options.run_dir;
	char name[SESSION_ID_BYTES], suffix[SUFFIX_BYTES] = "";
	size_t room = sizeof(session->socket_path) - 1;
	size_t fixed = strlen(dir) + strlen("/sessions/.sock");

	session_socket_name(name, sizeof(name), session->id);
	if (attempt == 0 && fixed + strlen(name) > room)
		return -ENAMETOOLONG;
	if (attempt == 1)
		snprintf(suffix, sizeof(suffix), "-%" PRIu64, session->number);
	else if (attempt > 1)
		snprintf(suffix, sizeof(suffix), "-%" PRIu64 "-%u", session->number, attempt);
	fixed += strlen(suffix);
	if (fixed >= room)
		return -ENAMETOOLONG;
	snprintf(session->socket_path, sizeof(session->socket_path), "%s/sessions/%.*s%s.sock", dir,
	    (int)(room - fixed), name, suffix);
	return 0;
}

/* Nobody but us can connect before the owner is set: the mode is 0600 from the start,
 * and nobody at all before listen(). */
static int
bind_path(int fd, const char *path)
{
	struct sockaddr_un addr = {.sun_family = AF_UNIX};

	snprintf(addr.sun_path, sizeof(addr.sun_path), "%s", path);
	mode_t before = umask(0177);
	int r = bind(fd, (const struct sockaddr *)&addr, sizeof(addr)) < 0 ? -errno : 0;
	umask(before);
	return r;
}

static int
bind_any(struct session *session, int fd)
{
	int r = -EADDRINUSE;

	for (unsigned int i = 0; i < NAME_TRIES; i++) {
		r = make_path(session, i);
		if (r == 0)
			r = bind_path(fd, session->socket_path);
		if (r == 0)
			session->socket_bound = true;
		/* Too long at first: the next try cuts it. */
		if (r != -EADDRINUSE && !(r == -ENAMETOOLONG && i == 0))
			break;
	}
	return r;
}

static int
give_to_vmm(const struct session *session)
{
	if (session->vmm_uid == geteuid() && session->vmm_gid == getegid())
		return 0;
	scoped_priv enum priv held = priv_raise(PRIV_CHOWN);
	if (lchown(session->socket_path, session->vmm_uid, session->vmm_gid) < 0)
		return -errno;
	return 0;
}

int
session_socket_open(struct session *session, char *why, size_t why_bytes)
{
	const char *dir = session->sup->options.run_dir;
	const struct timeval patience = {.tv_usec = 1000};
	scoped_fd int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	int r;

	if (fd < 0)
		return why_set(
		    why, why_bytes, -errno, "no socket for the session: %s", strerror(errno));
	r = bind_any(session, fd);
	if (r == -ENAMETOOLONG)
		return why_set(why, why_bytes, r,
		    "the run directory %s is too long a path for sockets in it; choose a shorter "
		    "--run-dir",
		    dir);
	if (r < 0)
		return why_set(
		    why, why_bytes, r, "cannot bind %s: %s", session->socket_path, strerror(-r));
	/* Workers share the flags of this socket: one that makes it blocking, and takes the
	 * connection that we were told of, holds us up for a millisecond and not for ever. */
	(void)setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience));
	r = give_to_vmm(session);
	if (r == 0 && listen(fd, BACKLOG) < 0)
		r = -errno;
	if (r < 0) {
		session_socket_close(session);
		return why_set(why, why_bytes, r,
		    "cannot give %s to uid %u gid %u: %s; a supervisor that is not privileged "
		    "serves its own user only",
		    session->socket_path, (unsigned int)session->vmm_uid,
		    (unsigned int)session->vmm_gid, strerror(-r));
	}
	session->listener = fd_take(&fd);
	session_accept_watch(session);
	return 0;
}

void
session_socket_close(struct session *session)
{
	session_accept_stop(session);
	fd_closep(&session->listener);
	if (!session->socket_bound)
		return;
	session->socket_bound = false;
	if (unlink(session->socket_path) < 0 && errno != ENOENT)
		session_log(session, LOG_LEVEL_WARNING, "cannot remove %s: %s; it stays behind",
		    session->socket_path, strerror(errno));
}
