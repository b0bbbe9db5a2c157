/* SPDX-License-Identifier: Apache-2.0 */
/* What the kernel says of the processes that it killed for want of memory. */
#include "supervisor/oom.h"

#include <errno.h>

#include "tests/unit/tap.h"

static const struct {
	const char *text;
	int want;
	uint64_t kills;
} texts[] = {
    {"oom_kill 0\n", 0, 0},
    {"nr_free_pages 5547624\noom_kill 12\ndrop_pagecache 3\n", 0, 12},
    {"oom_kill 18446744073709551615", 0, UINT64_MAX},
    {"noom_kill 1\noom_kill 2\n", 0, 2},
    {"", -ENOENT, 0},
    {"\n", -ENOENT, 0},
    {"\n\n", -ENOENT, 0},
    {"oom_kill", -ENOENT, 0},
    {"oom_kill ", -ENOENT, 0},
    {"oom_kill x\n", -ENOENT, 0},
    {"oom_killed 7\n", -ENOENT, 0},
    {"nr_free_pages 5547624\n", -ENOENT, 0},
};

int
main(void)
{
	struct oom oom;

	for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++) {
		uint64_t kills = 0;

		ok(oom_parse(texts[i].text, &kills) == texts[i].want && kills == texts[i].kills,
		    "text %zu", i);
	}
	oom_init(&oom);
	if (oom.kills > 0 || !oom_has_killed(&oom)) {
		oom.kills++;
		ok(oom_has_killed(&oom), "another number than the last time");
	}
	return done();
}
