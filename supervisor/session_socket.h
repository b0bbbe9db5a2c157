/* SPDX-License-Identifier: Apache-2.0 */
/* The socket that one VMM connects to: RUN/sessions/NAME.sock, 0600 and owned by the
 * user of that VMM, so that nobody else (but root) can connect. */
#ifndef SUPERVISOR_SESSION_SOCKET_H
#define SUPERVISOR_SESSION_SOCKET_H

#include <stddef.h>

struct session;

/* The id as a file name: what is not in [A-Za-z0-9._-] becomes '-'. */
void session_socket_name(char *buf, size_t bytes, const char *id);

/* Binds and listens: fills listener and socket_path.  A name that is taken, or too
 * long for a socket address, is cut and gets "-" and the session's number.  0, or a
 * negative errno and a sentence: -ENAMETOOLONG when the run directory is to blame. */
int session_socket_open(struct session *session, char *why, size_t why_bytes);

/* Closes the listener and removes the path, at the first call only: from then on the
 * name may belong to another session. */
void session_socket_close(struct session *session);

#endif
