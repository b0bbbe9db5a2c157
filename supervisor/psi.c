/* SPDX-License-Identifier: Apache-2.0 */
#include "supervisor/psi.h"

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "common/scope.h"

#define SOME	   "some avg10="
#define MAX_WHOLE  100U
#define TEXT_BYTES 512

/* Where the line begins, or NULL. */
static const char *
find_some(const char *text)
{
	while (strncmp(text, SOME, strlen(SOME)) != 0) {
		text = strchr(text, '\n');
		if (!text)
			return NULL;
		text++;
	}
	return text + strlen(SOME);
}

/* "12.34 ": one to three digits, a dot, two digits, a blank. */
int
psi_parse(const char *text, uint32_t *ret)
{
	const char *p = find_some(text);
	uint32_t value = 0;
	size_t digits = 0;

	if (!p)
		return -EINVAL;
	for (; isdigit((unsigned char)*p) && digits < 3; p++, digits++)
		value = value * 10 + (uint32_t)(*p - '0');
	if (digits == 0 || *p++ != '.')
		return -EINVAL;
	for (size_t i = 0; i < 2; i++, p++) {
		if (!isdigit((unsigned char)*p))
			return -EINVAL;
		value = value * 10 + (uint32_t)(*p - '0');
	}
	if (*p != ' ' || value > MAX_WHOLE * PSI_PERCENT)
		return -EINVAL;
	*ret = value;
	return 0;
}

int
psi_read(const char *path, uint32_t *ret)
{
	/* Never waits, whatever the path leads to. */
	scoped_fd int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
	char text[TEXT_BYTES];
	ssize_t n;

	if (fd < 0)
		return -errno;
	n = read(fd, text, sizeof(text) - 1);
	if (n < 0)
		return -errno;
	text[n] = '\0';
	return psi_parse(text, ret);
}
