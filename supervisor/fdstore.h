/* SPDX-License-Identifier: Apache-2.0 */
/* The service manager keeps a third reference to what a served session needs (systemd's
 * descriptor store): should pagerd and the worker both die, the next pagerd is given it at
 * its start and another worker adopts the session.
 *
 * In force where the manager says how many descriptors it keeps (FDSTORE, systemd 254), or
 * by the option fd-store.  Without NOTIFY_SOCKET every call is a no-op. */
#ifndef SUPERVISOR_FDSTORE_H
#define SUPERVISOR_FDSTORE_H

#include <stdbool.h>

struct session;
struct supervisor;

/* Takes over what the manager has kept.  Before the sessions are recovered. */
void fdstore_open(struct supervisor *sup);
void fdstore_close(struct supervisor *sup);

/* Has the session's image, overlays, page map, userfaultfd and connection kept.  Those that are kept
 * already are not kept twice. */
void fdstore_save(struct session *session);
/* It has ended. */
void fdstore_remove(struct session *session);

/* Gives a session that no worker holds what was kept of it.  False when that is not all
 * that it needs; then it has nothing of it. */
bool fdstore_claim(struct session *session);
/* Lets go of what was kept of sessions that are no more.  Once they are recovered. */
void fdstore_settle(struct supervisor *sup);

#endif
