/* SPDX-License-Identifier: Apache-2.0 */
/* The set of children, the versions that are installed, and which one is current. */
#ifndef SUPERVISOR_FLEET_H
#define SUPERVISOR_FLEET_H

#include <ev.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/list.h"
#include "common/version.h"

struct child;
struct supervisor;

struct fleet {
	struct supervisor *sup;
	struct list children;	     /* of struct child.link */
	char current[VERSION_BYTES]; /* new sessions go to it; empty: none is installed */
	bool current_drains;	     /* by request, since it is current */
	uint32_t next_number;
	int worker_dir;	       /* owned; O_PATH */
	struct list backoffs;  /* of struct fleet_backoff.link */
	struct list unwatched; /* processes that only waiting tells the end of: child_reap.c */
	ev_timer reap_again;   /* while there are any */
};

/* One version as GET /versions shows it: the union of installed and running. */
struct version_info {
	char version[VERSION_BYTES];
	bool installed; /* its worker is on disk and may be executed */
	bool current;
	const struct child *child; /* running or starting; NULL otherwise */
	uint64_t sessions;
	uint64_t retry_in_ms; /* back-off left before the next start; 0: none */
};

/* Opens worker-dir, removes what dead workers left in the run directory and chooses
 * the current version.  0 or a negative errno, logged: worker-dir cannot be opened or
 * --current is not installed.  Having no version at all is no error. */
int fleet_init(struct fleet *fleet, struct supervisor *sup);
void fleet_fini(struct fleet *fleet);

/* The running child of a version (not GONE), or NULL: the one that takes sessions
 * when there are several, because an upgrade went back to a version that drains.  One
 * that is there for trials is the last choice. */
struct child *fleet_find(struct fleet *fleet, const char *version);

/* The child of a version (NULL: the current one) that a new session goes to, started if it
 * does not run.  It need not be ready yet.  0 and a borrowed child, or: -ENOENT nothing
 * is installed, -EAGAIN its start is backing off or the current version drains,
 * -ESHUTDOWN the version that was named drains, another errno of the spawn.  why gets a
 * sentence for the client. */
int fleet_child_for_new(
    struct fleet *fleet, const char *version, struct child **ret, char *why, size_t why_bytes);

/* The child for a session of that version whose worker is gone: one of the same version, started
 * if needed, also when that is outdated; the current one when that version cannot be started.  It
 * need not be ready yet.  Errors as above. */
int fleet_child_to_adopt(
    struct fleet *fleet, const char *version, struct child **ret, char *why, size_t why_bytes);
/* The same for a session that may be what kills workers (fleet_trial.c): a child of its own, or
 * one that it shares with some of the others that lost their worker in this turn of the loop. */
int fleet_child_for_trial(
    struct fleet *fleet, const char *version, struct child **ret, char *why, size_t why_bytes);
/* Drains the child when its version, or it, is to get no new sessions.  It keeps those it has. */
void fleet_drain_outdated(struct fleet *fleet, struct child *child);
/* Of two that an earlier supervisor has left of a version one drains, the one that has less. */
void fleet_drain_surplus(struct fleet *fleet, const char *version);

/* Fills infos with at most max rows, newest version first.  Returns how many. */
size_t fleet_versions(struct fleet *fleet, struct version_info *infos, size_t max);

/* Drains one version: 0; -ENOENT when no child of it runs. */
int fleet_drain(struct fleet *fleet, const char *version);

/* The child of a version that takes sessions, started if there is none and whether it
 * backs off or not.  0 and a borrowed child; -EINVAL not a version, -ENOENT not
 * installed, or the errno of the spawn, with a sentence. */
int fleet_start(
    struct fleet *fleet, const char *version, struct child **ret, char *why, size_t why_bytes);
/* 0, or a negative errno and a sentence that says what is wrong with the installation. */
int fleet_check_installed(struct fleet *fleet, const char *version, char *why, size_t why_bytes);
/* New sessions go to version from now on; every child of another one is drained. */
void fleet_set_current(struct fleet *fleet, const char *version);

/* The process of child has ended: counts the death.  Returns how long its version
 * stays down at least, in ms. */
uint64_t fleet_on_death(struct fleet *fleet, const struct child *child);

/* How long at most to wait until a start is tried again: max_ms, or less when a version's
 * back-off ends before that.  Not 0. */
uint64_t fleet_pause_ms(const struct fleet *fleet, uint64_t max_ms);

/* For fleet_trial.c.  Can still be told of a session: */
bool fleet_can_adopt(const struct child *child);
/* Starts another one of a version, unless such keep dying before they are ready: -EAGAIN. */
int fleet_start_to_adopt(
    struct fleet *fleet, const char *version, struct child **ret, char *why, size_t why_bytes);

/* Frees children that are GONE.  At the end of a loop turn. */
void fleet_sweep(struct fleet *fleet);

#endif
