/* SPDX-License-Identifier: Apache-2.0 */
#include "supervisor/passed.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/fd.h"
#include "common/log.h"
#include "common/num.h"
#include "common/scope.h"
#include "common/xalloc.h"

#define FIRST_FD   3
#define NAME_BYTES 64
/* The manager's table of descriptors can be larger; what is beyond is not ours. */
#define MAX_FDS 1048576U

struct passed_fd {
	int fd; /* owned; -1: taken */
	char name[NAME_BYTES];
};

static void
add(struct passed *passed, const char *name, int fd)
{
	struct passed_fd *entry = &passed->fds[passed->nr];

	/* Not open after all, in spite of the count. */
	if (fcntl(fd, F_SETFD, FD_CLOEXEC) < 0)
		return;
	entry->fd = fd;
	snprintf(entry->name, sizeof(entry->name), "%s", name);
	passed->nr++;
}

/* LISTEN_FDS of them from FIRST_FD on, with a name each in LISTEN_FDNAMES. */
static void
take_all(struct passed *passed)
{
	const char *pid = getenv("LISTEN_PID"), *count = getenv("LISTEN_FDS");
	const char *names = getenv("LISTEN_FDNAMES");
	scoped_free char *copy = names != NULL ? xstrdup(names) : NULL;
	char *rest = copy;
	uint64_t wanted, n;

	if (pid == NULL || count == NULL || copy == NULL ||
	    num_parse_u64(pid, 1, INT32_MAX, &wanted) < 0 || wanted != (uint64_t)getpid() ||
	    num_parse_u64(count, 1, MAX_FDS, &n) < 0)
		return;
	passed->fds = xcalloc((size_t)n, sizeof(*passed->fds));
	for (uint64_t i = 0; i < n && rest != NULL; i++)
		add(passed, strsep(&rest, ":"), FIRST_FD + (int)i);
}

void
passed_open(struct passed *passed)
{
	*passed = (struct passed){0};
	take_all(passed);
	unsetenv("LISTEN_PID");
	unsetenv("LISTEN_FDS");
	unsetenv("LISTEN_FDNAMES");
}

void
passed_close(struct passed *passed)
{
	for (size_t i = 0; i < passed->nr; i++) {
		if (passed->fds[i].fd < 0)
			continue;
		log_warning("service manager: passed a descriptor named \"%s\", which pagerd has "
			    "no use for; closed",
		    passed->fds[i].name);
		fd_closep(&passed->fds[i].fd);
	}
	free(passed->fds);
	*passed = (struct passed){0};
}

int
passed_take(
    struct passed *passed, size_t *cursor, const char *prefix, char *name, size_t name_bytes)
{
	while (*cursor < passed->nr) {
		struct passed_fd *entry = &passed->fds[(*cursor)++];

		if (entry->fd < 0 || strncmp(entry->name, prefix, strlen(prefix)) != 0)
			continue;
		snprintf(name, name_bytes, "%s", entry->name);
		return fd_take(&entry->fd);
	}
	return -1;
}

static bool
has_option(int fd, int option, int wanted)
{
	socklen_t bytes = sizeof(int);
	int value;

	return getsockopt(fd, SOL_SOCKET, option, &value, &bytes) == 0 && value == wanted;
}

int
passed_take_admin(struct passed *passed)
{
	char name[NAME_BYTES];
	size_t cursor = 0;
	scoped_fd int fd = passed_take(passed, &cursor, PASSED_ADMIN, name, sizeof(name));

	if (fd < 0)
		return -1;
	if (strcmp(name, PASSED_ADMIN) == 0 && has_option(fd, SO_DOMAIN, AF_UNIX) &&
	    has_option(fd, SO_TYPE, SOCK_STREAM) && has_option(fd, SO_ACCEPTCONN, 1) &&
	    fd_set_nonblock(fd, true) == 0)
		return fd_take(&fd);
	log_warning("service manager: \"%s\" is no listening Unix stream socket; pagerd makes "
		    "its own admin socket",
	    name);
	return -1;
}
