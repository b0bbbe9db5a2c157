/* SPDX-License-Identifier: Apache-2.0 */
/* Two ways to end: stopping leaves every session to the next supervisor; shutting down
 * ends them. */
#ifndef SUPERVISOR_STOP_H
#define SUPERVISOR_STOP_H

#include <stddef.h>
#include <stdint.h>

struct supervisor;

/* Workers that hold a session, also one that waits for its VMM, go on without us; the
 * others are seen off.  The second call does not wait for them. */
void stop_begin(struct supervisor *sup, const char *why);

/* Closes every session, drains every worker and ends.  0 and how many sessions there were;
 * -EBUSY when sessions live and force is not set, and their ids. */
int stop_for_good(
    struct supervisor *sup, int force, uint64_t *ret_sessions, char *ids, size_t ids_bytes);

/* At the end of each turn of the loop: ends it when there is nothing left to wait for. */
void stop_check(struct supervisor *sup);

void stop_fini(struct supervisor *sup);

#endif
