/* SPDX-License-Identifier: Apache-2.0 */
/* doctor: how the host is set up, from /proc and /sys. */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "common/num.h"
#include "common/scope.h"
#include "common/xalloc.h"
#include "supervisor/ctl/doctor.h"
#include "supervisor/ctl/text.h"

/* What pagerd keeps for a session and for itself; it says at its start how many that makes. */
#define FDS_PER_SESSION 9
#define FDS_BESIDES	512
/* A worker's threads: one for each session and a few. */
#define TASKS_BESIDES 64
#define MIN_MAPS      65530

static void
check_pressure(struct doctor *d)
{
	char text[256];

	if (doctor_read(d, "/proc/pressure/memory", text, sizeof(text)) < 0)
		doctor_say(d, "pressure", DOCTOR_WARN,
		    "boot with psi=1, or a kernel with CONFIG_PSI=y",
		    "the kernel does not count memory pressure: the controller never pauses for it");
	else
		doctor_say(d, "pressure", DOCTOR_OK, NULL, "memory pressure is counted");
}

static void
check_memory(struct doctor *d)
{
	uint64_t number;

	if (doctor_read_number(d, "/proc/sys/vm/overcommit_memory", &number) == 0 && number == 2)
		doctor_say(d, "memory", DOCTOR_WARN, "sysctl vm.overcommit_memory=0",
		    "vm.overcommit_memory is 2: a guest whose memory is larger than what is free "
		    "cannot be restored, though it is filled on demand");
	else
		doctor_say(
		    d, "memory", DOCTOR_OK, NULL, "memory may be promised beyond what is free");
	if (doctor_read_number(d, "/proc/sys/vm/max_map_count", &number) == 0 && number < MIN_MAPS)
		doctor_say(d, "memory", DOCTOR_WARN, "sysctl vm.max_map_count=65530",
		    "vm.max_map_count is %" PRIu64 ", less than the kernel's default", number);
}

static void
check_cgroup(struct doctor *d)
{
	char text[512];

	if (doctor_read(d, "/sys/fs/cgroup/cgroup.controllers", text, sizeof(text)) < 0)
		doctor_say(d, "cgroup", DOCTOR_WARN, "boot with systemd.unified_cgroup_hierarchy=1",
		    "no unified hierarchy (v2) on /sys/fs/cgroup: limits of units are not seen");
	else
		doctor_say(d, "cgroup", DOCTOR_OK, NULL, "unified hierarchy");
}

void
doctor_host(struct doctor *d)
{
	check_pressure(d);
	check_memory(d);
	check_cgroup(d);
}

/* --- Limits of pagerd -------------------------------------------------------------- */

/* "Max open files   20000   20000   files": the second number. */
static int
read_max_files(const struct doctor *d, pid_t pid, uint64_t *ret)
{
	scoped_free char *path = xasprintf("/proc/%d/limits", (int)pid);
	char text[4096], *line, word[32];
	int r = doctor_read(d, path, text, sizeof(text));

	if (r < 0)
		return r;
	line = strstr(text, "Max open files");
	if (!line || sscanf(line, "Max open files %*s %31s", word) != 1)
		return -EINVAL;
	if (strcmp(word, "unlimited") == 0)
		*ret = UINT64_MAX;
	else
		r = num_parse_u64(word, 0, UINT64_MAX, ret);
	return r;
}

static void
check_files(struct doctor *d, pid_t pid, uint64_t max_sessions)
{
	uint64_t files, wanted = max_sessions * FDS_PER_SESSION + FDS_BESIDES;
	scoped_free char *remedy =
	    xasprintf("LimitNOFILE=%" PRIu64 " in pagerd's unit, or a lower max-sessions", wanted);
	char a[TEXT_BYTES], b[TEXT_BYTES];

	if (read_max_files(d, pid, &files) < 0)
		return;
	if (files < wanted)
		doctor_say(d, "limits", DOCTOR_WARN, remedy,
		    "pagerd may have %s descriptors, too few for max-sessions=%s",
		    text_count(a, files), text_count(b, max_sessions));
	else
		doctor_say(d, "limits", DOCTOR_OK, NULL,
		    "descriptors are enough for max-sessions=%s", text_count(b, max_sessions));
}

/* The value of a file of pagerd's cgroup; -ENOENT without one. */
static int
read_cgroup(const struct doctor *d, pid_t pid, const char *file, uint64_t *ret)
{
	scoped_free char *name = xasprintf("/proc/%d/cgroup", (int)pid), *path = NULL;
	char text[2048], *own;
	int r = doctor_read(d, name, text, sizeof(text));

	if (r < 0)
		return r;
	own = strstr(text, "0::/");
	if (!own)
		return -ENOENT;
	own += strlen("0::");
	own[strcspn(own, "\n")] = '\0';
	path = xasprintf("/sys/fs/cgroup%s/%s", own, file);
	return doctor_read_number(d, path, ret);
}

static void
check_cgroup_limits(struct doctor *d, pid_t pid, uint64_t max_sessions)
{
	uint64_t tasks, bytes, wanted = max_sessions * 2 + TASKS_BESIDES;
	scoped_free char *remedy = xasprintf(
	    "TasksMax=%" PRIu64 " in pagerd's unit and in the slice of its workers", wanted);
	char text[TEXT_BYTES];

	if (read_cgroup(d, pid, "pids.max", &tasks) == 0 && tasks < wanted)
		doctor_say(d, "limits", DOCTOR_WARN, remedy,
		    "pagerd's cgroup may have %s tasks, too few for a thread of each session",
		    text_count(text, tasks));
	if (read_cgroup(d, pid, "memory.max", &bytes) == 0 && bytes != UINT64_MAX)
		doctor_say(d, "limits", DOCTOR_WARN, "MemoryMax=infinity in pagerd's unit",
		    "pagerd's cgroup is limited to %s, which counts the image pages that it reads",
		    text_bytes(text, bytes));
}

void
doctor_limits(struct doctor *d, pid_t pid, uint64_t max_sessions)
{
	check_files(d, pid, max_sessions);
	check_cgroup_limits(d, pid, max_sessions);
}
