/* SPDX-License-Identifier: Apache-2.0 */
/* Asks a worker's control loop whether it lives.  One that does not answer is killed, and
 * another adopts its sessions: its fault threads may still serve, but nothing can be asked
 * of it any more, and nobody knows how much of it hangs. */
#ifndef SUPERVISOR_HEARTBEAT_H
#define SUPERVISOR_HEARTBEAT_H

#include <stdint.h>

struct child;

void heartbeat_start(struct child *child);
void heartbeat_stop(struct child *child);
/* A PONG came.  0, or -EPROTO when it is one too many. */
int heartbeat_on_pong(struct child *child, uint32_t seq);

#endif
