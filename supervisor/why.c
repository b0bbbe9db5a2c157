/* SPDX-License-Identifier: Apache-2.0 */
#include "supervisor/why.h"

#include <stdarg.h>
#include <stdio.h>

int
why_set(char *why, size_t why_bytes, int error, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(why, why_bytes, fmt, ap);
	va_end(ap);
	return error;
}

void
why_copy_untrusted(char *dst, size_t dst_bytes, const char *src)
{
	size_t i = 0;

	for (; i + 1 < dst_bytes && src[i] != '\0'; i++) {
		unsigned char c = (unsigned char)src[i];

		dst[i] = c >= 0x20 && c < 0x7f ? src[i] : '?';
	}
	dst[i] = '\0';
}
