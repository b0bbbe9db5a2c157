/* SPDX-License-Identifier: Apache-2.0 */
/* Whether the first write to a page is told.  It is where the VMM has registered its memory for
 * write protection too, or we have in its place: then each page is protected by the ioctl that
 * fills it, and the page map calls it dirty before the guest is let write.  The invariant, at any
 * time and after any death: who is present and not dirty is protected. */
#ifndef WORKER_TRACK_H
#define WORKER_TRACK_H

struct session;

/* At the handshake, before anything is filled: asks the kernel.  Has its userfaultfd and regions. */
void track_begin(struct session *s);
/* A session that is adopted goes on as it was. */
void track_resume(struct session *s);
/* Before any of its memory is unregistered, which ends the protection: from now on nothing is
 * known of its pages, whatever becomes of the unregistering. */
void track_lose(struct session *s);

#endif
