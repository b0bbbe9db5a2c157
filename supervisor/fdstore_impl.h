/* SPDX-License-Identifier: Apache-2.0 */
/* Between fdstore.c, what comes in, and fdstore_send.c, what goes out; for nobody else. */
#ifndef SUPERVISOR_FDSTORE_IMPL_H
#define SUPERVISOR_FDSTORE_IMPL_H

#include <ev.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/list.h"

#define FDSTORE_NAME "session-"
/* Descriptors of a session, at most: see fdstore_needed(). */
#define FDSTORE_PER_SESSION 5U

struct session;
struct supervisor;

/* What was kept of one session. */
struct kept {
	struct list link; /* fdstore.kept */
	uint64_t number;
	int *fds; /* owned, and each of them */
	size_t nr;
};

struct fdstore {
	struct supervisor *sup;
	struct list kept;     /* of struct kept.link: what nobody has claimed */
	struct list unstored; /* of struct session.unstored: to be kept, oldest first */
	struct list removals; /* of struct removal.link: the manager is to let go of these */
	uint64_t nr_unstored;
	uint64_t limit;	   /* descriptors that the manager keeps */
	uint64_t used;	   /* of them, also by what is on removals */
	ev_timer again;	   /* when the manager took nothing: tries once more */
	uint64_t pause_ms; /* until then; 0: it took the last one */
	bool has_complained;
};

/* NULL: nothing was kept of it. */
struct kept *fdstore_find(const struct fdstore *store, uint64_t number);
/* How many descriptors are all that a worker needs of it. */
size_t fdstore_needed(const struct session *session);

void fdstore_send_init(struct fdstore *store);
void fdstore_send_fini(struct fdstore *store);
/* The manager is to let go of what it keeps under that number, which is so many. */
void fdstore_forget(struct fdstore *store, uint64_t number, uint64_t nr);

#endif
