/* SPDX-License-Identifier: Apache-2.0 */
/* RUN/uffd/VERSION/control.sock: the API of one version, as orchestrators that drive one
 * pager process for each version know it (compat_api.h).  0660, group admin-group.
 *
 * A version has one while it is current, while a worker of it runs, and while it is
 * installed, unless it was drained: then its socket goes with its last worker, and
 * comes back with the next one.  Versions that are installed later get theirs with
 * their first worker, or at a reload. */
#ifndef SUPERVISOR_CONTROL_SOCK_H
#define SUPERVISOR_CONTROL_SOCK_H

#include <stdbool.h>

#include "common/list.h"
#include "common/version.h"

struct api;
struct child;
struct http_server;
struct supervisor;

struct control {
	struct list link; /* controls.all, or controls.retired */
	struct api *api;
	char version[VERSION_BYTES];
	struct http_server *server; /* owned; NULL: its socket could not be made */
	bool draining;		    /* by the last that is known of its workers */
	bool had_child;
};

struct controls;

/* One for each version that has one.  After api_new().  What cannot be made is logged:
 * the admin API does not depend on it. */
void controls_new(struct supervisor *sup);
/* Makes and removes them as the fleet has changed.  At the end of a loop turn, after
 * fleet_sweep(). */
void controls_sync(struct supervisor *sup);
/* Looks anew at what is installed. */
void controls_reload(struct supervisor *sup);
/* Hangs up on every client and removes the sockets.  Before api_free(). */
void controls_free(struct supervisor *sup);

/* POST /drain of this one: its workers drain, and without one it takes no session. */
void control_drain(struct control *control);

#endif
