/* SPDX-License-Identifier: Apache-2.0 */
/* The admin API: HTTP and JSON on RUN/admin.sock.  Every route is a row of api.def
 * with its permission, which is checked before a handler runs.
 *
 * A request that waits (a state, a completion, an upgrade, the worker's
 * acknowledgement) is a struct of the handler's that ends in exactly one of three
 * ways: its event, its timer, or the client's disconnect. */
#ifndef SUPERVISOR_API_H
#define SUPERVISOR_API_H

struct supervisor;

/* Binds RUN/admin.sock (0660, group admin-group) and serves it as sup->admin; or serves
 * the socket that the service manager passed, wherever that is, with the owner and mode
 * that it gave it.  The run directory exists and is ours alone (rundir_open()), so a
 * socket that is there is stale.  0 or a negative errno, logged. */
int api_new(struct supervisor *sup);

/* Hangs up on every client and removes the socket, unless it was passed.  Before the sessions and the
 * fleet go, since waiting requests point into them. */
void api_free(struct supervisor *sup);

/* Answers those who wait for an event, when there is one.  At the end of a loop turn. */
void api_events_tell(struct supervisor *sup);

#endif
