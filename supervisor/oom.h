/* SPDX-License-Identifier: Apache-2.0 */
/* Whether the kernel kills processes because it is short of memory.  It counts them before it
 * kills them; of a SIGKILL alone nobody can tell who sent it. */
#ifndef SUPERVISOR_OOM_H
#define SUPERVISOR_OOM_H

#include <stdbool.h>
#include <stdint.h>

struct oom {
	uint64_t kills; /* since the boot, when it was looked at last */
};

/* From /proc/vmstat.  0, or -ENOENT when it does not say. */
int oom_parse(const char *text, uint64_t *ret);

/* Looks for the first time. */
void oom_init(struct oom *oom);
/* True when it has killed any since the last look, or does not say. */
bool oom_has_killed(struct oom *oom);

#endif
