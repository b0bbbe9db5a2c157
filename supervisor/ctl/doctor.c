/* SPDX-License-Identifier: Apache-2.0 */
#include "supervisor/ctl/doctor.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <pwd.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "common/num.h"
#include "common/scope.h"
#include "common/xalloc.h"
#include "supervisor/ctl/text.h"

#define MAX_GROUPS 256

void
doctor_fini(struct doctor *d)
{
	for (size_t i = 0; i < d->nr; i++) {
		free(d->findings[i].detail);
		free(d->findings[i].remedy);
	}
	d->nr = 0;
}

void
doctor_say(struct doctor *d, const char *check, enum doctor_result result, const char *remedy,
    const char *fmt, ...)
{
	struct doctor_finding *f = &d->findings[d->nr];
	char text[1024];
	va_list ap;

	if (d->nr == DOCTOR_MAX)
		return;
	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	text_make_printable(text);
	*f = (struct doctor_finding){check, result, xstrdup(text), remedy ? xstrdup(remedy) : NULL};
	d->nr++;
}

int
doctor_read(const struct doctor *d, const char *path, char *buf, size_t bytes)
{
	scoped_free char *name = xasprintf("%s%s", d->root, path);
	scoped_fd int fd = open(name, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	ssize_t n;

	if (fd < 0)
		return -errno;
	n = read(fd, buf, bytes - 1);
	if (n < 0)
		return -errno;
	if (n > 0 && buf[n - 1] == '\n')
		n--;
	buf[n] = '\0';
	return 0;
}

int
doctor_read_number(const struct doctor *d, const char *path, uint64_t *ret)
{
	char text[64];
	int r = doctor_read(d, path, text, sizeof(text));

	if (r < 0)
		return r;
	if (strcmp(text, "max") == 0) {
		*ret = UINT64_MAX;
		return 0;
	}
	return num_parse_u64(text, 0, UINT64_MAX, ret);
}

static bool
is_member(uid_t uid, gid_t gid)
{
	const struct passwd *user = getpwuid(uid);
	gid_t groups[MAX_GROUPS];
	int n = MAX_GROUPS;

	if (!user || getgrouplist(user->pw_name, user->pw_gid, groups, &n) < 0)
		return false;
	for (int i = 0; i < n; i++)
		if (groups[i] == gid)
			return true;
	return false;
}

int
doctor_access(const struct doctor *d, const char *path, uid_t uid)
{
	scoped_free char *name = xasprintf("%s%s", d->root, path);
	struct stat st;
	mode_t bits;

	if (stat(name, &st) < 0)
		return -errno;
	if (uid == 0)
		return 0;
	if (getxattr(name, "system.posix_acl_access", NULL, 0) > 0)
		return -EAGAIN;
	bits = st.st_uid == uid		? st.st_mode >> 6
	    : is_member(uid, st.st_gid) ? st.st_mode >> 3
					: st.st_mode;
	return (bits & 6) == 6 ? 0 : -EACCES;
}
