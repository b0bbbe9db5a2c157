/* SPDX-License-Identifier: Apache-2.0 */
/* The API socket of a Firecracker: what a restore and a pause ask of it.
 *
 * It answers one request after the other and knows no time-out of its own: while it loads a
 * snapshot or writes one it may be silent for ever, so that every call has a deadline. */
#ifndef SUPERVISOR_CTL_FIRECRACKER_H
#define SUPERVISOR_CTL_FIRECRACKER_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/socket.h>

#include "common/exitcode.h"
#include "supervisor/ctl/exchange.h"

#define FC_NOT_STARTED "Not started"
#define FC_RUNNING     "Running"
#define FC_PAUSED      "Paused"

struct fc {
	const char *socket_path;
	char version[32];  /* "1.13.0" */
	char state[32];	   /* FC_… */
	struct ucred peer; /* who listens there */
	char why[1024];	   /* of the last failure: a clause that names Firecracker */
};

/* Each returns EXITCODE_OK, or what kind of failure fc->why tells of. */

/* Who it is and what state its VM is in: version, state and peer. */
enum exitcode fc_look(struct fc *fc, uint64_t deadline_ns);
/* A request.  *ret (NULL when nobody wants it) is the answer's JSON, owned, or NULL. */
enum exitcode fc_call(struct fc *fc, const struct exchange *exchange, json_t **ret);
/* What an answer means. */
enum exitcode fc_conclude(struct fc *fc, const struct answer *answer);

/* PATCH /vm: FC_PAUSED or "Resumed". */
enum exitcode fc_set_state(struct fc *fc, const char *state, uint64_t deadline_ns);
/* The body of PUT /snapshot/load, owned.  extra (NULL for none) is what else it holds. */
json_t *fc_load_body(
    const char *snapshot, const char *backend, const char *backend_path, const json_t *extra);

/* What Firecracker calls a path of ours: without the directory that is its root; NULL for none.
 * Absolute and owned.  One that is not below it stays as it is; the file need not be there. */
char *fc_path(const char *path, const char *jail);

#endif
