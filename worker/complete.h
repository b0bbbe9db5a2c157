/* SPDX-License-Identifier: Apache-2.0 */
/* Graduation of one session: populate, then unregister every region. */
#ifndef WORKER_COMPLETE_H
#define WORKER_COMPLETE_H

/* Thread; arg is the session.  Leaves the outcome in session.completion and posts it:
 * detached means that every region is unregistered, anything else that faults are still
 * answered. */
void *complete_main(void *arg);

#endif
