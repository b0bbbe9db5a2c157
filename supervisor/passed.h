/* SPDX-License-Identifier: Apache-2.0 */
/* Descriptors that the service manager passed at our start, with a name each: sockets that
 * it listens on for us, and what it has kept of sessions (sd_listen_fds(3)). */
#ifndef SUPERVISOR_PASSED_H
#define SUPERVISOR_PASSED_H

#include <stddef.h>

#define PASSED_ADMIN "admin" /* the admin socket, listening */

struct passed {
	struct passed_fd *fds; /* owned */
	size_t nr;
};

/* Takes all of them from the environment, which says nothing of them afterwards.  None
 * where it names another process or no count. */
void passed_open(struct passed *passed);
/* Closes what nobody has taken, which is logged. */
void passed_close(struct passed *passed);

/* The next one whose name starts with prefix, the caller's from now on, or -1.  Its name
 * goes to name.  *cursor is 0 at first. */
int passed_take(
    struct passed *passed, size_t *cursor, const char *prefix, char *name, size_t name_bytes);

/* The admin socket, non-blocking, the caller's; -1: there is none, or, logged, it is no
 * listening Unix stream socket. */
int passed_take_admin(struct passed *passed);

#endif
