/* SPDX-License-Identifier: Apache-2.0 */
/* The way out of a worker: drain, then its own exit, then SIGKILL. */
#ifndef SUPERVISOR_DRAIN_H
#define SUPERVISOR_DRAIN_H

#include <stdint.h>

struct child;
struct supervisor;

/* No new sessions for it; it exits when the last has ended. */
void drain_child(struct child *child, const char *why);

/* Tells the worker, once.  The action of the state machine. */
void drain_tell(struct child *child);

/* Drains every child but those of version keep (NULL: every one).  Returns how many
 * were told. */
uint32_t drain_others(struct supervisor *sup, const char *keep, const char *why);

#endif
