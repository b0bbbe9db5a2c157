/* SPDX-License-Identifier: Apache-2.0 */
#include "common/xalloc.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/log.h"

void *
xcalloc(size_t n, size_t size)
{
	void *p = calloc(n ? n : 1, size ? size : 1);

	if (!p)
		fatal("out of memory: cannot allocate %zu bytes", n * size);
	return p;
}

char *
xstrdup(const char *s)
{
	size_t bytes = strlen(s) + 1;

	return memcpy(xcalloc(1, bytes), s, bytes);
}

char *
xasprintf(const char *fmt, ...)
{
	char *s;
	va_list ap;

	va_start(ap, fmt);
	int n = vasprintf(&s, fmt, ap);
	va_end(ap);
	if (n < 0)
		fatal("out of memory: cannot format a string");
	return s;
}
