/* SPDX-License-Identifier: Apache-2.0 */
#include "supervisor/opener/image.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <inttypes.h>
#include <limits.h>
#include <linux/openat2.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "common/log.h"
#include "common/pagemap.h"
#include "common/scope.h"
#include "supervisor/options.h"
#include "supervisor/privs.h"
#include "supervisor/why.h"

/* Where a sentence for the client goes, and what it is about. */
struct ask {
	const char *path;
	char *why;
	size_t why_bytes;
};

#define refuse(ask, error, ...) why_set((ask)->why, (ask)->why_bytes, (error), __VA_ARGS__)

#define OWN_MAX_GROUPS 1024

/* What a file-system identity replaced.  The identity is that of this thread alone: the
 * raw system calls are used because glibc would change every thread, and because it
 * hides setfsuid's verdict. */
struct identity {
	bool assumed;
	uid_t fsuid;
	gid_t fsgid;
	int nr_groups;
	gid_t groups[OWN_MAX_GROUPS];
	int dumpable;
};

static int
set_groups(size_t n, const gid_t *groups)
{
#ifdef SYS_setgroups32
	return (int)syscall(SYS_setgroups32, n, groups);
#else
	return (int)syscall(SYS_setgroups, n, groups);
#endif
}

/* setfsuid and setfsgid return the previous value, whether they worked or not: only a
 * second call tells. */
static bool
set_fsuid(uid_t uid)
{
	syscall(SYS_setfsuid, uid);
	return (uid_t)syscall(SYS_setfsuid, (uid_t)-1) == uid;
}

static bool
set_fsgid(gid_t gid)
{
	syscall(SYS_setfsgid, gid);
	return (gid_t)syscall(SYS_setfsgid, (gid_t)-1) == gid;
}

/* Needs the capabilities that identity_assume() needed.  Going on with a client's
 * identity would be worse than to stop, and nothing short of a bug can fail here. */
static void
identity_restore(struct identity *saved)
{
	if (!saved->assumed)
		return;
	saved->assumed = false;
	bool back = set_fsuid(saved->fsuid);
	back = set_fsgid(saved->fsgid) && back;
	back = set_groups((size_t)saved->nr_groups, saved->groups) == 0 && back;
	if (!back)
		fatal("image: cannot take our own identity back from a client");
	/* The kernel makes a process undumpable that changes its identity. */
	if (saved->dumpable == 1)
		prctl(PR_SET_DUMPABLE, 1, 0, 0, 0);
}

static int
identity_assume(const struct peer *peer, struct identity *saved)
{
	saved->nr_groups = getgroups(OWN_MAX_GROUPS, saved->groups);
	if (saved->nr_groups < 0)
		return -errno;
	saved->fsuid = (uid_t)syscall(SYS_setfsuid, (uid_t)-1);
	saved->fsgid = (gid_t)syscall(SYS_setfsgid, (gid_t)-1);
	saved->dumpable = prctl(PR_GET_DUMPABLE, 0, 0, 0, 0);
	saved->assumed = true;
	if (set_groups(peer->nr_groups, peer->groups) == 0 && set_fsgid(peer->gid) &&
	    set_fsuid(peer->uid))
		return 0;
	identity_restore(saved);
	return -EPERM;
}

/* Absolute, no "..", one slash at a time, no ".": so that it can be compared with a root. */
static int
normalise(const struct ask *ask, char ret[PATH_MAX])
{
	const char *p = ask->path;
	size_t used = 0;

	if (p[0] != '/')
		return refuse(ask, -EINVAL, "image path %s is not absolute", p);
	if (strlen(p) >= PATH_MAX)
		return refuse(
		    ask, -ENAMETOOLONG, "the image path is longer than %d bytes", PATH_MAX - 1);
	while (*(p += strspn(p, "/")) != '\0') {
		size_t n = strcspn(p, "/");

		if (n == 2 && memcmp(p, "..", 2) == 0)
			return refuse(ask, -EINVAL,
			    "image path %s has '..' in it; name it directly", ask->path);
		if (n != 1 || *p != '.') {
			ret[used++] = '/';
			memcpy(ret + used, p, n);
			used += n;
		}
		p += n;
	}
	ret[used] = '\0';
	return 0;
}

/* The part of path below root, without a slash in front, or NULL. */
static const char *
below(const char *root, const char *path)
{
	size_t n = strlen(root);

	while (n > 0 && root[n - 1] == '/')
		n--;
	if (strncmp(path, root, n) != 0 || path[n] != '/' || path[n + 1] == '\0')
		return NULL;
	return path + n + 1;
}

/* The most specific root, since one may lie in another, and what is below it; or NULL. */
static const char *
find_root(const struct options_list *roots, const char *path, const char **ret_rest)
{
	const char *root = NULL;

	for (size_t i = 0; i < roots->nr; i++) {
		const char *rest = below(roots->items[i], path);

		if (rest && (!root || rest > *ret_rest)) {
			*ret_rest = rest;
			root = roots->items[i];
		}
	}
	return root;
}

static int
explain(const struct ask *ask, int error)
{
	switch (error) {
	case -ELOOP:
		return refuse(ask, error,
		    "image %s leads over a symbolic link; name the file itself", ask->path);
	case -EXDEV:
		return refuse(ask, error, "image %s leads out of its image root", ask->path);
	case -EACCES:
		return refuse(ask, error,
		    "image %s may not be read by you; only what the client itself can read is served",
		    ask->path);
	case -EWOULDBLOCK:
		return refuse(
		    ask, -EBUSY, "image %s is leased by another process; try again", ask->path);
	default:
		return refuse(ask, error, "image %s: %s", ask->path, strerror(-error));
	}
}

static const char *
kind_of(mode_t mode)
{
	switch (mode & S_IFMT) {
	case S_IFIFO:
		return "a FIFO";
	case S_IFCHR:
	case S_IFBLK:
		return "a device";
	case S_IFSOCK:
		return "a socket";
	default:
		return "no file";
	}
}

static int
check(const struct ask *ask, int fd, struct stat *ret)
{
	if (fstat(fd, ret) < 0)
		return explain(ask, -errno);
	if (S_ISDIR(ret->st_mode))
		return refuse(ask, -EISDIR, "image %s is a directory", ask->path);
	if (!S_ISREG(ret->st_mode))
		return refuse(ask, -EINVAL, "image %s is %s, not a regular file", ask->path,
		    kind_of(ret->st_mode));
	if (ret->st_size <= 0)
		return refuse(ask, -EINVAL, "image %s is empty", ask->path);
	if ((uint64_t)ret->st_size > PAGEMAP_MAX_PAGES * PAGE_BYTES)
		return refuse(ask, -EFBIG, "image %s is larger than 16 TiB", ask->path);
	return 0;
}

/* The root is resolved as the client too: what it cannot reach it cannot name.  Roots
 * are the administrator's, so links in them are followed. */
static int
open_path(const struct ask *ask, const char *root, const char *rest)
{
	const struct open_how how = {
	    .flags = O_PATH | O_CLOEXEC, /* O_NOFOLLOW would open a link itself */
	    .resolve = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS,
	};
	scoped_fd int dir = open(root, O_PATH | O_DIRECTORY | O_CLOEXEC);

	if (dir < 0)
		return refuse(ask, -errno, "image root %s: %s", root, strerror(errno));
	int fd = (int)syscall(SYS_openat2, dir, rest, &how, sizeof(how));
	return fd >= 0 ? fd : explain(ask, -errno);
}

/* A descriptor from O_PATH pins the very file that was checked, so what is opened for
 * reading cannot be exchanged for a FIFO in between.  O_NONBLOCK: a lease that somebody
 * holds on the file must not stop us. */
static int
reopen(const struct ask *ask, int path_fd)
{
	char link[64];

	snprintf(link, sizeof(link), "/proc/self/fd/%d", path_fd);
	int fd = open(link, O_RDONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
	return fd >= 0 ? fd : explain(ask, -errno);
}

static int
open_as_we_are(const struct ask *ask, const char *root, const char *rest, void *arg)
{
	struct image *ret = arg;
	scoped_fd int path_fd = open_path(ask, root, rest);
	struct stat st, again;

	if (path_fd < 0)
		return path_fd;
	int r = check(ask, path_fd, &st);
	if (r < 0)
		return r;
	scoped_fd int fd = reopen(ask, path_fd);
	if (fd < 0)
		return fd;
	r = check(ask, fd, &again);
	if (r < 0)
		return r;
	if (st.st_dev != again.st_dev || st.st_ino != again.st_ino)
		return refuse(
		    ask, -EBUSY, "image %s changed while it was opened; try again", ask->path);
	fd_set_nonblock(fd, false);
	*ret = (struct image){
	    .fd = fd_take(&fd),
	    .bytes = (uint64_t)again.st_size,
	    .dev = again.st_dev,
	    .ino = again.st_ino,
	    .mtime_ns = again.st_mtim.tv_sec * INT64_C(1000000000) + again.st_mtim.tv_nsec,
	    .ctime_ns = again.st_ctim.tv_sec * INT64_C(1000000000) + again.st_ctim.tv_nsec,
	};
	return 0;
}

/* --- A file in place of another ---------------------------------------------------- */

/* The directory that the file is to be in, and its name there. */
static int
open_parent(const struct ask *ask, const char *root, const char *rest, const char **ret_name)
{
	const char *slash = strrchr(rest, '/');
	char parent[PATH_MAX];
	const struct open_how how = {
	    .flags = O_PATH | O_DIRECTORY | O_CLOEXEC,
	    .resolve = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS,
	};
	scoped_fd int dir = open(root, O_PATH | O_DIRECTORY | O_CLOEXEC);

	*ret_name = slash ? slash + 1 : rest;
	if (dir < 0)
		return refuse(ask, -errno, "image root %s: %s", root, strerror(errno));
	if (!slash)
		return fd_take(&dir);
	snprintf(parent, sizeof(parent), "%.*s", (int)(slash - rest), rest);
	int fd = (int)syscall(SYS_openat2, dir, parent, &how, sizeof(how));
	if (fd >= 0)
		return fd;
	return refuse(ask, -errno, "the directory of %s: %s", ask->path, strerror(errno));
}

/* Nobody loses an image because of a slip: only a hot list gives way to a hot list. */
static int
check_target(const struct ask *ask, int dir, const char *name)
{
	char magic[sizeof(IMAGE_REPLACED) - 1];
	scoped_fd int fd = openat(dir, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);

	if (fd < 0 && errno == ENOENT)
		return 0;
	if (fd < 0)
		return refuse(ask, -errno, "%s cannot be replaced: %s", ask->path, strerror(errno));
	if (pread(fd, magic, sizeof(magic), 0) == (ssize_t)sizeof(magic) &&
	    memcmp(magic, IMAGE_REPLACED, sizeof(magic)) == 0)
		return 0;
	return refuse(
	    ask, -EEXIST, "%s is there and is no hot list; choose another name", ask->path);
}

static int
write_new(int fd, const struct image_bytes *what)
{
	size_t done = 0;

	while (what != NULL && done < what->nr) {
		ssize_t n = write(fd, (const char *)what->bytes + done, what->nr - done);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return n < 0 ? -errno : -EIO;
		done += (size_t)n;
	}
	return 0;
}

/* A reader finds the old file or the new one, whole.  No fsync: what a crash of the machine
 * damages, the checksum tells. */
static int
replace_as_we_are(const struct ask *ask, const char *root, const char *rest, void *arg)
{
	const struct image_bytes *what = arg;
	const char *name;
	char temporary[48];
	uint64_t random = 0;
	scoped_fd int dir = open_parent(ask, root, rest, &name);
	int r = dir < 0 ? dir : check_target(ask, dir, name);

	if (r < 0)
		return r;
	if (getrandom(&random, sizeof(random), GRND_NONBLOCK) < 0)
		random = (uint64_t)(uintptr_t)&random;
	snprintf(temporary, sizeof(temporary), ".pagerd-%016" PRIx64 ".new", random);
	scoped_fd int fd =
	    openat(dir, temporary, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0644);
	if (fd < 0)
		return refuse(
		    ask, -errno, "%s cannot be written by you: %s", ask->path, strerror(errno));
	r = write_new(fd, what);
	if (r == 0 && what != NULL && renameat(dir, temporary, dir, name) < 0)
		r = -errno;
	if (r < 0 || what == NULL)
		unlinkat(dir, temporary, 0);
	return r < 0 ? refuse(ask, r, "%s cannot be written: %s", ask->path, strerror(-r)) : 0;
}

/* --- Whose identity ---------------------------------------------------------------- */

/* Something that is done below a root, as whoever we are then. */
struct deed {
	int (*act)(const struct ask *ask, const char *root, const char *rest, void *arg);
	void *arg;
};

/* Root may read what it likes, so its identity is ours plus that right. */
static int
act_for_root(const struct ask *ask, const char *root, const char *rest, const struct deed *deed)
{
	scoped_priv enum priv held = priv_raise(PRIV_ROOT_FILES);

	return deed->act(ask, root, rest, deed->arg);
}

static int
act_for(const struct ask *ask, const struct peer *peer, const char *root, const char *rest,
    const struct deed *deed)
{
	/* First in, last out: the identity goes back before the right to change it goes. */
	scoped_priv enum priv held = priv_raise(PRIV_CLIENT_FILES);
	__attribute__((cleanup(identity_restore))) struct identity saved = {.assumed = false};

	if (identity_assume(peer, &saved) < 0)
		return refuse(ask, -EPERM, "cannot open image %s as uid %u", ask->path,
		    (unsigned int)peer->uid);
	return deed->act(ask, root, rest, deed->arg);
}

static int
act_below_root(const struct options_list *roots, const struct peer *peer, const struct ask *ask,
    const struct deed *deed)
{
	char plain[PATH_MAX];
	const char *rest = NULL;
	int r = normalise(ask, plain);

	if (r < 0)
		return r;
	const char *root = find_root(roots, plain, &rest);
	if (!root)
		return refuse(ask, -EXDEV,
		    "image %s is below no image root; move it there or add its directory with "
		    "--image-root",
		    ask->path);
	bool switches = priv_is_available(PRIV_CLIENT_FILES);
	if (peer->uid == 0 && (geteuid() == 0 || priv_is_available(PRIV_ROOT_FILES)))
		return act_for_root(ask, root, rest, deed);
	if (switches && peer->uid != 0)
		return act_for(ask, peer, root, rest, deed);
	if (peer->uid == geteuid())
		return deed->act(ask, root, rest, deed->arg);
	return refuse(ask, -EPERM,
	    "this pagerd runs unprivileged as uid %u and opens images for that user only",
	    (unsigned int)geteuid());
}

int
image_open(const struct options_list *roots, const struct peer *peer, const char *path,
    struct image *ret, char *why, size_t why_bytes)
{
	const struct ask ask = {path, why, why_bytes};
	const struct deed deed = {open_as_we_are, ret};

	return act_below_root(roots, peer, &ask, &deed);
}

int
image_replace(const struct options_list *roots, const struct peer *peer, const char *path,
    const struct image_bytes *bytes, char *why, size_t why_bytes)
{
	const struct ask ask = {path, why, why_bytes};
	const struct deed deed = {replace_as_we_are, (void *)(uintptr_t)bytes};

	return act_below_root(roots, peer, &ask, &deed);
}
