/* SPDX-License-Identifier: Apache-2.0 */
/* The fault thread of a session: the only reader of its userfaultfd, as long as pages can
 * be filled.  It reads events and fills; it does no I/O that waits, takes no lock but
 * the copy lock, and neither allocates nor logs. */
#ifndef WORKER_FAULT_H
#define WORKER_FAULT_H

#include <stddef.h>

#include <linux/userfaultfd.h>

struct session;

/* Thread; arg is the session. */
void *fault_main(void *arg);

/* Applies the removals among events to the page map, before any fault of the batch is
 * answered.  The copy lock is held.  Returns how many of the events are faults. */
size_t fault_apply_removals(struct session *s, const struct uffd_msg *msgs, size_t nr);

/* Where the fault thread reads events to: PAGEMAP_EVENTS of them. */
struct uffd_msg *fault_events(struct session *s);
/* Before the fault thread of an adopted session: applies the removals that the last worker
 * had read and may not have applied.  Returns how many. */
size_t fault_recover_removals(struct session *s);

/* Once, before the first thread: the signal that ends a wait is blocked everywhere else. */
void fault_init_signal(void);

/* Makes the fault thread look at session.stop, which is set already. */
void fault_interrupt(struct session *s);

/* Makes every thread of the VMM that waits fault again. */
void fault_wake_all(struct session *s);

#endif
