/* SPDX-License-Identifier: Apache-2.0 */
/* Proof, before the first session, that this confined process can serve a fault:
 * one page filled by UFFDIO_COPY and one by UFFDIO_ZEROPAGE in its own memory. */
#ifndef WORKER_SELFTEST_H
#define WORKER_SELFTEST_H

#include <stddef.h>

struct selftest {
	int uffd;	       /* -1: closed */
	unsigned char *memory; /* two registered pages, or NULL */
};

/* Before the sandbox: creates the userfaultfd, which the sandbox forbids.  0 or a
 * negative errno.  On failure nothing is held. */
int selftest_open(struct selftest *t);

/* After the sandbox: faults, fills, verifies.  Releases everything whatever the
 * outcome.  0, or a negative errno and why (at most bytes, with the terminator). */
int selftest_run(struct selftest *t, char *why, size_t bytes);

#endif
