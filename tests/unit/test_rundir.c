/* SPDX-License-Identifier: Apache-2.0 */
/* The run directory: who may pass, whose it must be, what is left behind in it. */
#include "supervisor/rundir.h"

#include <errno.h>
#include <ftw.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <sys/un.h>
#include <unistd.h>

#include "common/fd.h"
#include "common/xalloc.h"
#include "supervisor/supervisor.h"
#include "tests/unit/tap.h"

static char top[] = "/tmp/test_rundir.XXXXXX";

static struct supervisor
supervisor_at(const char *name)
{
	return (struct supervisor){
	    .run_dir = -1, .lock = -1, .options.run_dir = xasprintf("%s/%s", top, name)};
}

static void
drop(struct supervisor *sup)
{
	rundir_close(sup);
	free(sup->options.run_dir);
}

static unsigned int
mode_of(const char *name)
{
	char path[160];
	struct stat st;

	snprintf(path, sizeof(path), "%s/%s", top, name);
	return lstat(path, &st) < 0 ? 0 : st.st_mode & 07777;
}

/* A socket at name in the run directory; -1 for one that nobody holds any more. */
static int
bind_at(const char *name, bool is_held)
{
	struct sockaddr_un addr = {.sun_family = AF_UNIX};
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	snprintf(addr.sun_path, sizeof(addr.sun_path), "%s/a/run/%s", top, name);
	if (fd < 0 || bind(fd, (struct sockaddr *)&addr, sizeof(addr)) < 0)
		ok(false, "bind %s: %s", addr.sun_path, strerror(errno));
	if (!is_held)
		fd_closep(&fd);
	return fd;
}

static void
test_modes(void)
{
	struct supervisor sup = supervisor_at("a/run");

	is_int(rundir_open(&sup), 0, "made, with what leads there");
	is_int(mode_of("a"), 0755, "others may pass what leads there, whatever our umask is");
	is_int(mode_of("a/run"), 0711, "they may pass, not list, the directory");
	is_int(mode_of("a/run/sessions"), 0711, "and those below");
	is_int(mode_of("a/run/lock"), 0600, "the lock is ours");
	is_int(umask(077), 077, "the umask is as it was");
	drop(&sup);
}

static void
test_lock(void)
{
	struct supervisor one = supervisor_at("a/run");
	int status = -1;

	is_int(rundir_open(&one), 0, "one supervisor");
	/* The lock is the process's, so another process has to ask for it. */
	pid_t pid = fork();
	if (pid == 0) {
		struct supervisor two = supervisor_at("a/run");

		_exit(rundir_open(&two) == -EWOULDBLOCK ? 0 : 1);
	}
	waitpid(pid, &status, 0);
	is_int(status, 0, "but not two");
	drop(&one);
}

static void
test_stale(void)
{
	int held = bind_at("workers/test.held.sock", true);

	bind_at("sessions/test.dead.sock", false);
	bind_at("workers/test.dead.sock", false);
	struct supervisor sup = supervisor_at("a/run");
	is_int(rundir_open(&sup), 0, "opened with sockets in it");
	ok(mode_of("a/run/workers/test.held.sock") != 0, "what a worker holds stays");
	ok(mode_of("a/run/workers/test.dead.sock") == 0, "what no worker holds goes");
	ok(mode_of("a/run/sessions/test.dead.sock") == 0, "so does a dead session's");
	drop(&sup);
	fd_closep(&held);
}

static void
test_attacks(void)
{
	struct supervisor link = supervisor_at("link"), other = supervisor_at("other");
	char target[160];

	snprintf(target, sizeof(target), "%s/a/run", top);
	if (symlink(target, link.options.run_dir) < 0)
		ok(false, "symlink: %s", strerror(errno));
	is_int(rundir_open(&link), -ENOTDIR, "a symbolic link is refused");
	drop(&link);
	if (geteuid() != 0) {
		skip(1, "needs root: gives a directory away");
	} else {
		if (mkdir(other.options.run_dir, 0755) < 0 ||
		    chown(other.options.run_dir, 64321, 64321) < 0)
			ok(false, "chown: %s", strerror(errno));
		is_int(rundir_open(&other), -EPERM, "so is another user's directory");
	}
	drop(&other);
}

static int
remove_one(const char *path, const struct stat *st, int kind, struct FTW *ftw)
{
	(void)st;
	(void)kind;
	(void)ftw;
	return remove(path);
}

int
main(void)
{
	log_init("test_rundir", LOG_LEVEL_ERR);
	umask(077);
	int before = fd_count();
	if (!mkdtemp(top))
		abort();
	test_modes();
	test_lock();
	test_stale();
	test_attacks();
	is_int(fd_count(), before, "no descriptor stayed");
	is_int(nftw(top, remove_one, 8, FTW_DEPTH | FTW_PHYS), 0, "all is removed");
	return done();
}
