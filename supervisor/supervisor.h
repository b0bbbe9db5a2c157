/* SPDX-License-Identifier: Apache-2.0 */
/* The one context of the supervisor.  supervisor_fini() undoes supervisor_init() in
 * the opposite order. */
#ifndef SUPERVISOR_SUPERVISOR_H
#define SUPERVISOR_SUPERVISOR_H

#include <ev.h>
#include <string.h>
#include <sys/types.h>

#include "supervisor/controller.h"
#include "supervisor/events.h"
#include "supervisor/fleet.h"
#include "supervisor/oom.h"
#include "supervisor/options.h"
#include "supervisor/passed.h"
#include "supervisor/recording.h"
#include "supervisor/recover.h"
#include "supervisor/session.h"

struct controls;
struct hotcache;
struct http_server;
struct fdstore;
struct opener;
struct records;
struct templates;
struct upgrade;

enum stopping {
	STOP_NOT,
	STOP_FOR_NOW,  /* another supervisor follows */
	STOP_FOR_GOOD, /* none does */
};

struct supervisor {
	struct ev_loop *loop; /* not the default loop: libev would reap our children */
	struct options options;
	struct fleet fleet;
	struct sessions sessions;
	struct controller controller;
	struct metrics metrics;
	struct events events;
	struct upgrade *upgrade;   /* the one that runs, or NULL; owned */
	struct list handoffs;	   /* of struct handoff.link: those that run */
	struct http_server *admin; /* owned */
	struct controls *controls; /* owned */
	uint64_t started_ns;
	struct oom oom;	  /* when a worker was found killed last */
	ev_prepare sweep; /* the end of each loop turn: frees what is dead */
	ev_signal on_term, on_int, on_hup;
	ev_timer watchdog; /* keeps the service manager content */
	uid_t worker_uid;  /* workers run as; our own when we cannot switch */
	gid_t worker_gid;
	gid_t admin_gid;	     /* of admin.sock; (gid_t)-1: our own */
	bool admin_is_passed;	     /* the service manager bound admin.sock, and keeps it */
	int run_dir;		     /* owned; O_DIRECTORY, of options.run_dir, which is absolute */
	struct passed passed;	     /* what the service manager gave us, until it is taken */
	struct fdstore *fdstore;     /* owned; NULL: the service manager keeps nothing */
	struct records *records;     /* owned; NULL: none are kept */
	struct templates *templates; /* owned */
	struct opener *opener;	     /* owned */
	struct recovery recovery;
	struct recordings recordings;
	struct hotcache *hotcache; /* owned; NULL: no list was read yet */
	int lock;		   /* owned; held while this supervisor owns run_dir */
	int argc;		   /* the command line, for a reload; borrowed */
	char *const *argv;
	ev_timer patience; /* with idle workers, while we stop */
	uint64_t max_held; /* sessions that there are descriptors for; 0: not known */
	enum stopping stopping;
};

/* Moves the contents of options in.  0 or a negative errno, logged; sup needs
 * supervisor_fini() in either case. */
int supervisor_init(struct supervisor *sup, struct options *options, int argc, char *const argv[]);
/* Says that we are ready, and serves until a signal says stop. */
void supervisor_run(struct supervisor *sup);
void supervisor_fini(struct supervisor *sup);

/* No session is made: VMMs are to map their images. */
static inline bool
supervisor_maps_files(const struct supervisor *sup)
{
	return strcmp(sup->options.backend, "file") == 0;
}

/* Puts options that were changed in force; most are read where they are used. */
static inline void
supervisor_options_changed(struct supervisor *sup)
{
	log_set_level(sup->options.log_level);
	controller_kick(&sup->controller);
	prefetch_options_changed(sup);
	sessions_trials_changed(&sup->sessions);
}

#endif
