/* SPDX-License-Identifier: Apache-2.0 */
/* Asks a worker's control loop whether it lives.  Its fault threads do not depend on
 * that loop, so a hung worker that serves a VM is reported, not killed. */
#ifndef SUPERVISOR_HEARTBEAT_H
#define SUPERVISOR_HEARTBEAT_H

#include <stdint.h>

struct child;

void heartbeat_start(struct child *child);
void heartbeat_stop(struct child *child);
/* A PONG came.  0, or -EPROTO when it is one too many. */
int heartbeat_on_pong(struct child *child, uint32_t seq);

#endif
