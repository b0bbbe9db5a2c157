/* SPDX-License-Identifier: Apache-2.0 */
/* Whether what the options name is there, beyond what options_check() sees in them alone. */
#ifndef SUPERVISOR_CONFIG_CHECK_H
#define SUPERVISOR_CONFIG_CHECK_H

#include <stdbool.h>

#include "supervisor/options.h"

/* False when pagerd would not start with them.  Logs what is wrong. */
bool config_check(const struct options *options);

/* Logs image roots that are not there, as pagerd sees the file system: its unit hides parts
 * of it.  No mistake: one can be mounted later. */
void config_check_roots(const struct options *options);

#endif
