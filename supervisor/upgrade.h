/* SPDX-License-Identifier: Apache-2.0 */
/* Upgrade: start a version, wait until it is ready and has passed its self-test,
 * make it current, drain the others.  If it does not start, nothing changes. */
#ifndef SUPERVISOR_UPGRADE_H
#define SUPERVISOR_UPGRADE_H

#include <stdbool.h>
#include <stddef.h>

struct child;
struct supervisor;

/* error is 0 or a negative errno; why says in words what stopped it (with the
 * last words of a worker that died).  Called once, from the loop. */
typedef void (*upgrade_done_fn)(void *arg, int error, const char *why);

/* 0: done will be called.  -EBUSY another upgrade runs, -ENOENT not installed,
 * -EINVAL not a version, or the errno of its spawn: done is not called, why gets a
 * sentence.  A version that backs off is started nevertheless: a person asked. */
int upgrade_start(struct supervisor *sup, const char *version, upgrade_done_fn done, void *arg,
    char *why, size_t why_bytes);

/* At the end of a loop turn, before the fleet frees the dead: whether the version that
 * is awaited has become ready or has died. */
void upgrade_check(struct supervisor *sup);

/* Whether one waits for child to become ready. */
bool upgrade_awaits(const struct supervisor *sup, const struct child *child);

/* Forgets the one that runs, without calling done. */
void upgrade_fini(struct supervisor *sup);

/* The caller went away: the upgrade goes on, done is not called.  With handoff the sessions
 * of other versions are moved when it is done. */
void upgrade_forget(struct supervisor *sup, void *arg, bool handoff);

#endif
