/* SPDX-License-Identifier: Apache-2.0 */
/* The one context of the supervisor.  supervisor_fini() undoes supervisor_init() in
 * the opposite order. */
#ifndef SUPERVISOR_SUPERVISOR_H
#define SUPERVISOR_SUPERVISOR_H

#include <ev.h>

#include "supervisor/fleet.h"
#include "supervisor/options.h"
#include "supervisor/session.h"

struct http_server;
struct upgrade;

struct supervisor {
	struct ev_loop *loop; /* not the default loop: libev would reap our children */
	struct options options;
	struct fleet fleet;
	struct sessions sessions;
	struct upgrade *upgrade;   /* the one that runs, or NULL; owned */
	struct http_server *admin; /* owned */
	uint64_t started_ns;
	ev_prepare sweep; /* the end of each loop turn: frees what is dead */
	ev_signal on_term, on_int, on_hup;
	int stopping;
};

/* 0 or a negative errno, logged. */
int supervisor_init(struct supervisor *sup, const struct options *options);
void supervisor_run(struct supervisor *sup);
void supervisor_fini(struct supervisor *sup);

#endif
