/* SPDX-License-Identifier: Apache-2.0 */
/* The confinement of a worker.  After sandbox_enter() this process can serve the
 * descriptors it holds or is sent, and nothing else: no path, no socket of its own,
 * no other process, no new code. */
#ifndef WORKER_SANDBOX_H
#define WORKER_SANDBOX_H

#include <stdint.h>

/* The last step before HELLO.  Checks that user and capabilities were dropped, then
 * sets what remains.  Returns the bits of enum ipc_sandbox in force; Landlock's is
 * missing where the kernel has none.  Any other failure is a line on stderr and an
 * exit with EXITCODE_SANDBOX.
 *
 * Call it with one thread: Landlock confines the caller and what it creates later.
 * Make the event loop first: its descriptors cannot all be made afterwards.
 *
 * Traps for what runs later:
 *   - opening any path fails with EACCES, every other call off the list kills the
 *     process with SIGSYS;
 *   - fstat() is answered by a SIGSYS handler where libc makes it a call that takes
 *     a path, so a thread that blocks SIGSYS must not call it;
 *   - pthread_exit() and pthread_cancel() load a library: return from the thread.
 *
 * PAGER_SANDBOX=log in the environment lets forbidden calls pass and has the kernel
 * log them, PAGER_SANDBOX=errno fails them with EPERM.  Both are for debugging: the
 * seccomp bit is not reported then. */
uint32_t sandbox_enter(void);

#endif
