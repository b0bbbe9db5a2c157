/* SPDX-License-Identifier: Apache-2.0 */
#include "supervisor/opener_storage.h"

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/sysmacros.h>

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

bool
opener_storage_find_told(const char *table, uint64_t dev)
{
	char device[32];
	size_t n = (size_t)snprintf(device, sizeof(device), "%u:%u ", major(dev), minor(dev));

	for (const char *line = table, *end; line != NULL && *line != '\0';
	     line = end ? end + 1 : NULL) {
		const char *at = line, *type;

		end = strchr(line, '\n');
		for (int i = 0; i < 2 && at != NULL; i++)
			at = (at = strchr(at, ' ')) != NULL ? at + 1 : NULL;
		if (at == NULL || strncmp(at, device, n) != 0)
			continue;
		type = strstr(at, " - ");
		return type == NULL || strncmp(type + 3, "fuse", 4) == 0 ||
		    strncmp(type + 3, "virtiofs", 8) == 0;
	}
	return true;
}

/* The caller frees; NULL: it cannot be read. */
static char *
read_table(void)
{
	FILE *file = fopen("/proc/self/mountinfo", "re");
	char *text = NULL;
	size_t room = 0;

	if (file == NULL)
		return NULL;
	if (getdelim(&text, &room, '\0', file) <= 0) {
		free(text);
		text = NULL;
	}
	fclose(file);
	return text;
}

bool
opener_storage_is_told(uint64_t dev)
{
	scoped_free char *table = read_table();

	return table == NULL || opener_storage_find_told(table, dev);
}

uint64_t
opener_storage_of(const char *path)
{
	scoped_free char *table = read_table();

	return table != NULL ? opener_storage_find(table, path) : 0;
}
