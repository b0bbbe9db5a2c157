/* SPDX-License-Identifier: Apache-2.0 */
/* Pressure stall information: how much of the time tasks waited for memory. */
#ifndef SUPERVISOR_PSI_H
#define SUPERVISOR_PSI_H

#include <stddef.h>
#include <stdint.h>

#define PSI_PERCENT 100U /* the unit is a hundredth of a percent */

/* The 10 second average of the line "some", 0 to 10000.  0, or -EINVAL for what is no
 * such text; then *ret is untouched. */
int psi_parse(const char *text, uint32_t *ret);

/* The same of a file.  -EOPNOTSUPP and -ENOENT where the kernel does not count it. */
int psi_read(const char *path, uint32_t *ret);

#endif
