/* SPDX-License-Identifier: Apache-2.0 */
/* What pagerctl doctor makes of a host, from files below a directory of ours. */
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/xalloc.h"
#include "supervisor/ctl/doctor.h"
#include "tests/unit/tap.h"

#define PID  4242
#define USER 64321 /* nobody that the system knows */
#define LIMITS(n) \
	"Limit Soft Limit Hard Limit Units\nMax open files  1024  " n "  files\nMax x 1 2\n"

static char root[] = "/tmp/test_doctor.XXXXXX";
static struct doctor doctor = {.root = root};

/* Writes a file below the root, with the directories above it. */
static void
put(const char *path, const char *text)
{
	char *name = xasprintf("%s%s", root, path);
	FILE *f;

	for (char *p = name + strlen(root) + 1; (p = strchr(p, '/')); p++) {
		*p = '\0';
		mkdir(name, 0755);
		*p = '/';
	}
	f = fopen(name, "we");
	if (!f)
		abort();
	fputs(text, f);
	fclose(f);
	free(name);
}

static void
drop(const char *path)
{
	char *name = xasprintf("%s%s", root, path);

	unlink(name);
	free(name);
}

/* The worst finding of a check whose detail holds the words; NULL for any. */
static const struct doctor_finding *
found(const char *check, const char *words)
{
	const struct doctor_finding *worst = NULL;

	for (size_t i = 0; i < doctor.nr; i++) {
		const struct doctor_finding *f = &doctor.findings[i];

		if (strcmp(f->check, check) == 0 && (!words || strstr(f->detail, words)) &&
		    (!worst || f->result > worst->result))
			worst = f;
	}
	return worst;
}

static void
is_result(const char *check, enum doctor_result wanted, const char *what)
{
	const struct doctor_finding *f = found(check, NULL);

	ok(f && f->result == wanted, "%s: %s", what, f ? f->detail : "nothing is said");
	ok(f && (wanted == DOCTOR_OK) == !f->remedy, "  remedy: %s",
	    f && f->remedy ? f->remedy : "none");
}

static void
look_at_host(void)
{
	doctor_fini(&doctor);
	doctor_host(&doctor);
}

static void
test_host(void)
{
	put("/proc/pressure/memory", "some avg10=0.00\n");
	put("/proc/sys/vm/overcommit_memory", "0\n");
	put("/proc/sys/vm/max_map_count", "65530\n");
	put("/sys/fs/cgroup/cgroup.controllers", "cpu memory pids\n");
	look_at_host();
	is_result("pressure", DOCTOR_OK, "pressure is counted");
	is_result("memory", DOCTOR_OK, "memory is as it should be");
	is_result("cgroup", DOCTOR_OK, "unified");
	drop("/proc/pressure/memory");
	drop("/sys/fs/cgroup/cgroup.controllers");
	put("/proc/sys/vm/overcommit_memory", "2\n");
	look_at_host();
	is_result("pressure", DOCTOR_WARN, "no pressure");
	is_result("memory", DOCTOR_WARN, "strict overcommit");
	is_result("cgroup", DOCTOR_WARN, "no unified hierarchy");
	put("/proc/sys/vm/overcommit_memory", "1\n");
	put("/proc/sys/vm/max_map_count", "1000\n");
	look_at_host();
	ok(found("memory", "max_map_count is 1000"), "few mappings");
}

static void
look_at_limits(const char *limits, const char *tasks, const char *bytes)
{
	put("/proc/4242/limits", limits);
	put("/sys/fs/cgroup/system.slice/pagerd.service/pids.max", tasks);
	put("/sys/fs/cgroup/system.slice/pagerd.service/memory.max", bytes);
	doctor_fini(&doctor);
	doctor_limits(&doctor, PID, 1000);
}

static void
test_limits(void)
{
	put("/proc/4242/cgroup", "1:name=x:/y\n0::/system.slice/pagerd.service\n");
	look_at_limits(LIMITS("524288"), "max\n", "max\n");
	is_result("limits", DOCTOR_OK, "enough of all");
	is_int(doctor.nr, 1, "and no more to say");
	look_at_limits(LIMITS("unlimited"), "5000\n", "max\n");
	is_result("limits", DOCTOR_OK, "no limit");
	look_at_limits(LIMITS("9511"), "max\n", "max\n");
	is_result("limits", DOCTOR_WARN, "one descriptor too few");
	ok(strstr(found("limits", NULL)->remedy, "LimitNOFILE=9512"), "  which names the number");
	look_at_limits(LIMITS("9512"), "1000\n", "max\n");
	ok(found("limits", "1 000 tasks"), "few tasks");
	look_at_limits(LIMITS("9512"), "max\n", "1073741824\n");
	ok(found("limits", "limited to 1 GiB"), "limited memory");
	look_at_limits("nonsense", "", "many");
	is_int(doctor.nr, 0, "files that are not understood say nothing");
	doctor_fini(&doctor);
	doctor_limits(&doctor, PID + 1, 1000);
	is_int(doctor.nr, 0, "nor does a process that is gone");
}

static void
test_access(void)
{
	char *device = xasprintf("%s/dev/userfaultfd", root);

	is_int(doctor_access(&doctor, "/dev/userfaultfd", USER), -ENOENT, "no device");
	put("/dev/userfaultfd", "");
	chmod(device, 0600);
	is_int(doctor_access(&doctor, "/dev/userfaultfd", 0), 0, "root may");
	is_int(doctor_access(&doctor, "/dev/userfaultfd", USER), -EACCES, "another may not");
	chmod(device, 0602);
	is_int(doctor_access(&doctor, "/dev/userfaultfd", USER), -EACCES, "nor with half of it");
	chmod(device, 0666);
	is_int(doctor_access(&doctor, "/dev/userfaultfd", USER), 0, "all may");
	chmod(device, 0066);
	is_int(doctor_access(&doctor, "/dev/userfaultfd", geteuid() ? geteuid() : USER),
	    geteuid() ? -EACCES : 0, "the owner's bits are the owner's");
	free(device);
}

static int
remove_one(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
	(void)st;
	(void)type;
	(void)ftw;
	return remove(path);
}

int
main(void)
{
	if (!mkdtemp(root))
		return 1;
	test_host();
	test_limits();
	test_access();
	doctor_fini(&doctor);
	nftw(root, remove_one, 8, FTW_DEPTH | FTW_PHYS);
	return done();
}
