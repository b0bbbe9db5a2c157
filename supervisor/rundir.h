/* SPDX-License-Identifier: Apache-2.0 */
/* The run directory: made with the right modes, owned by one supervisor at a time,
 * without the sockets of processes that are gone. */
#ifndef SUPERVISOR_RUNDIR_H
#define SUPERVISOR_RUNDIR_H

struct supervisor;

/* Makes options.run_dir absolute, makes it and its subdirectories, locks it and removes
 * stale sockets.  0 or a negative errno, logged: -EWOULDBLOCK when another pagerd
 * holds it. */
int rundir_open(struct supervisor *sup);
/* Gives the lock back. */
void rundir_close(struct supervisor *sup);

#endif
