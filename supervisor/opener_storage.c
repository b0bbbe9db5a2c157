/* SPDX-License-Identifier: Apache-2.0 */
#include "supervisor/opener_storage.h"

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/scope.h"

/* The next byte of a mount point, in which blanks and backslashes are octal.  0: its end. */
static int
next_byte(const char **p)
{
	const char *s = *p;

	if (*s == '\0' || *s == ' ' || *s == '\n')
		return 0;
	if (s[0] == '\\' && s[1] >= '0' && s[1] <= '3' && s[2] >= '0' && s[2] <= '7' &&
	    s[3] >= '0' && s[3] <= '7') {
		*p += 4;
		return (s[1] - '0') << 6 | (s[2] - '0') << 3 | (s[3] - '0');
	}
	*p += 1;
	return (unsigned char)*s;
}

/* Bytes of path that the mount point covers; 0: it does not lead there. */
static size_t
covers(const char *point, const char *path)
{
	size_t n = 0;
	int byte;

	while ((byte = next_byte(&point)) != 0) {
		/* As the opener reads paths: "//" and "/./" are "/". */
		while (path[n] == '/' &&
		    (path[n + 1] == '/' || (path[n + 1] == '.' && path[n + 2] == '/')))
			n += path[n + 1] == '/' ? 1 : 2;
		if ((unsigned char)path[n] != byte)
			return 0;
		n++;
	}
	return n == 1 || path[n] == '/' || path[n] == '\0' ? n : 0;
}

uint64_t
opener_storage_find(const char *table, const char *path)
{
	size_t longest = 0;
	uint64_t found = 0;

	/* "ID PARENT MAJOR:MINOR ROOT POINT …": of two at one place the later is on top. */
	for (const char *line = table; *line != '\0';) {
		const char *end = strchr(line, '\n'), *point = line;
		int blanks = 0;

		for (; *point != '\0' && *point != '\n' && blanks < 4; point++)
			blanks += *point == ' ';
		size_t n = blanks == 4 ? covers(point, path) : 0;
		if (n > 0 && n >= longest) {
			longest = n;
			found = strtoull(line, NULL, 10);
		}
		line = end ? end + 1 : line + strlen(line);
	}
	return found;
}

uint64_t
opener_storage_of(const char *path)
{
	FILE *file = fopen("/proc/self/mountinfo", "re");
	scoped_free char *text = NULL;
	size_t room = 0;
	uint64_t found = 0;

	if (file == NULL)
		return 0;
	if (getdelim(&text, &room, '\0', file) > 0)
		found = opener_storage_find(text, path);
	fclose(file);
	return found;
}
