/* SPDX-License-Identifier: Apache-2.0 */
#include "supervisor/oom.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "common/scope.h"

#define PATH	   "/proc/vmstat"
#define KEY	   "oom_kill "
#define TEXT_BYTES 16384

int
oom_parse(const char *text, uint64_t *ret)
{
	for (const char *line = text; line != NULL; line = strchr(line, '\n')) {
		line += *line == '\n';
		if (strncmp(line, KEY, strlen(KEY)) == 0)
			return sscanf(line + strlen(KEY), "%" SCNu64, ret) == 1 ? 0 : -ENOENT;
	}
	return -ENOENT;
}

static int
count(uint64_t *ret)
{
	scoped_fd int fd = open(PATH, O_RDONLY | O_CLOEXEC);
	char text[TEXT_BYTES];
	size_t have = 0;
	ssize_t n;

	if (fd < 0)
		return -errno;
	do {
		n = read(fd, text + have, sizeof(text) - 1 - have);
		if (n < 0)
			return -errno;
		have += (size_t)n;
	} while (n > 0);
	text[have] = '\0';
	return oom_parse(text, ret);
}

void
oom_init(struct oom *oom)
{
	oom->kills = 0;
	(void)oom_has_killed(oom);
}

bool
oom_has_killed(struct oom *oom)
{
	uint64_t before = oom->kills;

	return count(&oom->kills) < 0 || oom->kills != before;
}
