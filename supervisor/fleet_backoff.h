/* SPDX-License-Identifier: Apache-2.0 */
/* The pauses after which a version is started again whose workers keep dying.  For fleet.c. */
#ifndef SUPERVISOR_FLEET_BACKOFF_H
#define SUPERVISOR_FLEET_BACKOFF_H

#include <stdbool.h>
#include <stdint.h>

#include "common/list.h"
#include "common/version.h"

struct fleet;

struct fleet_backoff {
	struct list link; /* fleet.backoffs */
	char version[VERSION_BYTES];
	uint64_t delay_ms;
	uint64_t until_ns; /* no start before */
	uint32_t deaths;   /* in a row */
	bool was_ready;	   /* the last one could serve before it died */
};

/* NULL: it has none. */
struct fleet_backoff *backoff_find(struct fleet *fleet, const char *version);
/* NULL is none. */
void backoff_drop(struct fleet_backoff *backoff);
/* One death more: how long the version stays down, in ms.  was_ready: it could serve before it
 * died. */
uint64_t backoff_add(struct fleet *fleet, const char *version, bool was_ready);
/* Rounded up, so that 0 means that a start is allowed. */
uint64_t backoff_left_ms(struct fleet *fleet, const char *version);
/* When the death came that the pause is for. */
uint64_t backoff_since_ns(const struct fleet_backoff *backoff);

#endif
