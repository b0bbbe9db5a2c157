/* SPDX-License-Identifier: Apache-2.0 */
#include "worker/reason.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>

int
reason_set(char *reason, size_t bytes, const char *fmt, ...)
{
	va_list ap;

	if (bytes == 0)
		return -EINVAL;
	va_start(ap, fmt);
	if (vsnprintf(reason, bytes, fmt, ap) < 0)
		reason[0] = '\0';
	va_end(ap);
	for (char *c = reason; *c != '\0'; c++)
		if (*c < 0x20 || *c > 0x7e)
			*c = '?';
	return -EINVAL;
}
