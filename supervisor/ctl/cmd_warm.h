/* SPDX-License-Identifier: Apache-2.0 */
/* template warm: an image into the page cache, by the caller's own right to read it. */
#ifndef SUPERVISOR_CTL_CMD_WARM_H
#define SUPERVISOR_CTL_CMD_WARM_H

#include "supervisor/ctl/ctl.h"

/* Reads what the image has (not its holes) until all of it is in memory, or a signal comes;
 * image_bytes is the size that the template knows. */
enum exitcode ctl_warm(
    const struct ctl *ctl, const char *name, const char *image, uint64_t image_bytes);

#endif
