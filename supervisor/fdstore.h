/* SPDX-License-Identifier: Apache-2.0 */
/* The service manager keeps a third reference to what a served session needs (systemd's
 * descriptor store): should pagerd and the worker both die, the next pagerd is given it at
 * its start and another worker adopts the session.
 *
 * In force where the manager says how many descriptors it keeps (FDSTORE, systemd 254), or
 * by the option fd-store.  Without NOTIFY_SOCKET every call is a no-op.
 *
 * Its reference may be the last to a userfaultfd whose VM lives.  So it is told to let go of a
 * session that has ended, and of nothing else. */
#ifndef SUPERVISOR_FDSTORE_H
#define SUPERVISOR_FDSTORE_H

#include <stdbool.h>
#include <stdint.h>

struct session;
struct supervisor;

enum fdstore_part {
	FDSTORE_NOTHING, /* not its userfaultfd, and nothing else is of use then */
	FDSTORE_PART,	 /* its userfaultfd; session.reason says what is missing */
	FDSTORE_ALL,
};

struct fdstore_numbers {
	uint64_t limit, used;	/* descriptors */
	uint64_t nr_not_stored; /* sessions that are to be kept and are not */
};

/* Takes over what the manager has kept; sessions that are new get other numbers.  Before the
 * sessions are recovered. */
void fdstore_open(struct supervisor *sup);
void fdstore_close(struct supervisor *sup);

/* Has the session's image, overlays, page map, userfaultfd and connection kept.  Those that are kept
 * already are not kept twice.  What the manager does not take now it is given later. */
void fdstore_save(struct session *session);
/* It has ended. */
void fdstore_remove(struct session *session);

/* Gives a session that no worker holds what was kept of it. */
enum fdstore_part fdstore_claim(struct session *session);
/* Lets go of what was kept of sessions that are no more.  Once they are recovered. */
void fdstore_settle(struct supervisor *sup);

/* False: nothing is kept at all. */
bool fdstore_numbers(const struct supervisor *sup, struct fdstore_numbers *ret);

#endif
