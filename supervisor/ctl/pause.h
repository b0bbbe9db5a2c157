/* SPDX-License-Identifier: Apache-2.0 */
/* A pause under way, which cmd_pause.c drives; pause_diff.c is what a diff adds. */
#ifndef SUPERVISOR_CTL_PAUSE_H
#define SUPERVISOR_CTL_PAUSE_H

#include <stdbool.h>
#include <stdint.h>

#include "supervisor/ctl/ctl.h"
#include "supervisor/ctl/firecracker.h"
#include "supervisor/ctl/steps.h"

struct pause {
	const struct ctl *ctl;
	struct steps steps;
	struct fc fc;
	uint64_t timeout_ms, balloon_ms;
	uint64_t deadline_ns; /* of what follows the balloon */
	bool paused, drained; /* drained: the guest has given back what it could */
	/* Of a diff. */
	char *id;	    /* owned: the session's */
	int mem_fd;	    /* owned: the memory file; -1 for none */
	bool emptied;	    /* that file is no longer what it was */
	bool made;	    /* we made that file */
	uint64_t mem_bytes; /* its size */
	const char *failed_step;
	char why[1024];
};

/* Ends the step that was begun, as failed, and keeps why for the end.  Returns code. */
enum exitcode pause_fail(struct pause *p, enum exitcode code, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));

/* Before the pause: finds the session of the VM and puts its image where the snapshot goes. */
enum exitcode pause_diff_prepare(struct pause *p);
/* Between the pause and the snapshot: empties in it what the VM gave back.  Firecracker then
 * writes what is in memory over it, so that a page that was given back and used again stays. */
enum exitcode pause_diff_empty(struct pause *p);
/* On every way out.  A file that we made and that is no snapshot is gone again. */
void pause_diff_fini(struct pause *p, bool written);

#endif
