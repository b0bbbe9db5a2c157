/* SPDX-License-Identifier: Apache-2.0 */
/* The body of PATCH /config.  Private to api*.c and their tests. */
#ifndef SUPERVISOR_API_CONFIG_H
#define SUPERVISOR_API_CONFIG_H

#include "supervisor/api_route.h"
#include "supervisor/options.h"

struct api_config {
	struct options_change changes[OPTIONS_COUNT]; /* point into the JSON and numbers */
	size_t nr;
	char numbers[OPTIONS_COUNT][24];
};

/* An object of values by the name of their option: as text like in the configuration
 * file, as a number or as a boolean.  Whether there is such an option and what it takes
 * is not its business.  0, or -EINVAL and why. */
int api_config_read(json_t *json, struct api_config *ret, char *why, size_t why_bytes);

#endif
