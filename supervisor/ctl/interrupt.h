/* SPDX-License-Identifier: Apache-2.0 */
/* SIGINT and SIGTERM for commands that have something to put in order before they end. */
#ifndef SUPERVISOR_CTL_INTERRUPT_H
#define SUPERVISOR_CTL_INTERRUPT_H

#include "common/exitcode.h"

/* From now on they are only noted; client_run() and poll() return -EINTR for one. */
void interrupt_catch(void);
/* The signal that came, 0 without one. */
int interrupt_caught(void);
/* Back to none, for putting things in order, which another signal may then cut short.  Returns
 * what was caught; interrupt_again() notes it once more, unless there is another by then. */
int interrupt_forget(void);
void interrupt_again(int number);
/* How a command ends that a signal has ended: 128 + n. */
enum exitcode interrupt_exitcode(void);

#endif
