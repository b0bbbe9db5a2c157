/* SPDX-License-Identifier: Apache-2.0 */
#include "supervisor/rundir.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "common/log.h"
#include "common/scope.h"
#include "common/xalloc.h"
#include "supervisor/supervisor.h"

/* Room for "/sessions/" and a name in a socket's address: see rundir_open(). */
#define LONGEST_NAME "/workers/" /* VERSION.NUMBER.sock follows */

/* Others may pass, to reach the sockets that are theirs, and list nothing. */
#define DIR_MODE 0711

static const char *const subdirs[] = {"sessions", "workers", "uffd"};

#define NR_SUBDIRS (sizeof(subdirs) / sizeof(subdirs[0]))

/* Opens a directory that is ours, made if missing.  A symbolic link or a directory of
 * somebody else's is refused: the owner could replace our sockets. */
static int
open_dir(int at, const char *path, int *ret)
{
	scoped_fd int fd = -1;
	struct stat st;

	if (mkdirat(at, path, DIR_MODE) < 0 && errno != EEXIST)
		return -errno;
	fd = openat(at, path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	if (fd < 0 || fstat(fd, &st) < 0)
		return -errno;
	if (st.st_uid != geteuid())
		return -EPERM;
	if ((st.st_mode & 07777) != DIR_MODE && fchmod(fd, DIR_MODE) < 0)
		return -errno;
	*ret = fd_take(&fd);
	return 0;
}

static int
make_each(char *path)
{
	for (char *p = path + 1; *p != '\0'; p++) {
		if (*p != '/')
			continue;
		*p = '\0';
		if (mkdir(path, 0755) < 0 && errno != EEXIST)
			return -errno;
		*p = '/';
	}
	return 0;
}

/* A VMM must be able to pass these too, which our umask would forbid. */
static int
make_parents(const char *path)
{
	scoped_free char *copy = xstrdup(path);
	mode_t before = umask(022);
	int r = make_each(copy);

	umask(before);
	return r;
}

/* --- Stale sockets --------------------------------------------------------------- */

/* /proc/net/unix: the names that some process has bound.  Connecting would tell too, but
 * a worker that outlived its supervisor would take that for a supervisor or a VMM. */
struct bound {
	char **paths; /* owned, as is each */
	size_t nr;
};

static void
bound_fini(struct bound *bound)
{
	for (size_t i = 0; i < bound->nr; i++)
		free(bound->paths[i]);
	free(bound->paths);
}

static int
bound_read(struct bound *bound)
{
	FILE *file = fopen("/proc/net/unix", "re");
	scoped_free char *line = NULL;
	size_t bytes = 0, room = 0;

	if (file == NULL)
		return -errno;
	while (getline(&line, &bytes, file) > 0) {
		const char *path = strchr(line, '/');

		if (path == NULL)
			continue;
		if (bound->nr == room) {
			room = room == 0 ? 64 : room * 2;
			bound->paths = reallocarray(bound->paths, room, sizeof(char *));
			if (bound->paths == NULL)
				fatal("rundir: out of memory");
		}
		line[strcspn(line, "\n")] = '\0';
		bound->paths[bound->nr++] = xstrdup(path);
	}
	fclose(file);
	return 0;
}

/* By the last two components, so that another way to spell the directory still counts
 * as bound: a socket too many does no harm, one too few would. */
static bool
bound_has(const struct bound *bound, const char *dir, const char *name)
{
	scoped_free char *tail = xasprintf("%s%s%s", dir, dir[0] != '\0' ? "/" : "", name);
	size_t length = strlen(tail);

	for (size_t i = 0; i < bound->nr; i++) {
		const char *path = bound->paths[i];
		size_t n = strlen(path);

		if (n >= length && strcmp(path + n - length, tail) == 0)
			return true;
	}
	return false;
}

/* Removes the dead sockets of one directory.  Returns how many live ones it holds. */
static size_t
sweep_dir(int at, const char *name, const struct bound *bound)
{
	scoped_fd int fd = openat(
	    at, name[0] != '\0' ? name : ".", O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	DIR *dir = fd >= 0 ? fdopendir(fd) : NULL;
	const struct dirent *entry;
	size_t live = 0;
	struct stat st;

	if (dir == NULL)
		return 0;
	fd = -1; /* closedir() closes it */
	while ((entry = readdir(dir)) != NULL) {
		if (fstatat(dirfd(dir), entry->d_name, &st, AT_SYMLINK_NOFOLLOW) < 0 ||
		    !S_ISSOCK(st.st_mode))
			continue;
		if (bound_has(bound, name, entry->d_name)) {
			live++;
		} else if (unlinkat(dirfd(dir), entry->d_name, 0) == 0) {
			log_info("rundir: %s%s%s: nobody listens; removed", name,
			    name[0] != '\0' ? "/" : "", entry->d_name);
		}
	}
	closedir(dir);
	return live;
}

static void
remove_stale(const struct supervisor *sup)
{
	struct bound bound = {0};
	size_t workers;

	if (bound_read(&bound) < 0) {
		log_warning("rundir: cannot read /proc/net/unix; stale sockets stay");
		return;
	}
	sweep_dir(sup->run_dir, "", &bound);
	sweep_dir(sup->run_dir, "sessions", &bound);
	workers = sweep_dir(sup->run_dir, "workers", &bound);
	if (workers > 0)
		log_notice("rundir: workers=%zu of an earlier pagerd run", workers);
	bound_fini(&bound);
}

/* --- Life ------------------------------------------------------------------------ */

static int
take_lock(struct supervisor *sup)
{
	const char *path = sup->options.run_dir;
	/* The process's own: a worker that is being started when we are killed has a copy of
	 * every descriptor, and must not keep the next pagerd out. */
	struct flock whole = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
	int r;

	sup->lock = openat(sup->run_dir, "lock", O_RDWR | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0600);
	if (sup->lock >= 0 && fcntl(sup->lock, F_SETLK, &whole) == 0)
		return 0;
	r = -errno;
	if (r == -EAGAIN || r == -EACCES)
		log_err(
		    "rundir: %s: another pagerd holds it; give this one another --run-dir", path);
	else
		log_err("rundir: %s/lock: %s", path, strerror(-r));
	return r;
}

static int
resolve(struct supervisor *sup)
{
	char *path = realpath(sup->options.run_dir, NULL);

	if (path == NULL)
		return -errno;
	free(sup->options.run_dir);
	sup->options.run_dir = path;
	if (strlen(path) + strlen(LONGEST_NAME) + VERSION_BYTES + 16 >
	    sizeof(((struct sockaddr_un *)NULL)->sun_path))
		return -ENAMETOOLONG;
	return 0;
}

int
rundir_open(struct supervisor *sup)
{
	int r = make_parents(sup->options.run_dir);

	if (r == 0)
		r = open_dir(AT_FDCWD, sup->options.run_dir, &sup->run_dir);
	if (r == 0)
		r = resolve(sup);
	if (r < 0) {
		log_err("rundir: %s: %s", sup->options.run_dir, strerror(-r));
		return r;
	}
	r = take_lock(sup);
	if (r < 0)
		return r;
	for (size_t i = 0; i < NR_SUBDIRS; i++) {
		scoped_fd int fd = -1;

		r = open_dir(sup->run_dir, subdirs[i], &fd);
		if (r < 0) {
			log_err(
			    "rundir: %s/%s: %s", sup->options.run_dir, subdirs[i], strerror(-r));
			return r;
		}
	}
	remove_stale(sup);
	return 0;
}

void
rundir_close(struct supervisor *sup)
{
	/* The lock file stays: removing it would let two supervisors lock two files. */
	fd_closep(&sup->lock);
	fd_closep(&sup->run_dir);
}
