/* SPDX-License-Identifier: Apache-2.0 */
/* Opening what a client names: only images, only below the roots, only with the
 * client's own rights, and never waiting. */
#include "supervisor/opener/image.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <linux/capability.h>
#include <signal.h>
#include <sys/fsuid.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/fd.h"
#include "supervisor/privs.h"
#include "supervisor/supervisor.h"
#include "tests/unit/tap.h"

#define OTHER_UID   64321
#define OTHER_GROUP 64322
#define NEAR_4_GIB  ((UINT64_C(4) << 30) - 4096)

static struct supervisor sup;
static char base[] = "/tmp/test_image.XXXXXX";
static const struct peer root_peer = {.uid = 0, .gid = 0};
static const struct peer other_peer = {.uid = OTHER_UID, .gid = OTHER_UID};
static const struct peer grouped_peer = {
    .uid = OTHER_UID, .gid = OTHER_UID, .nr_groups = 1, .groups = {OTHER_GROUP}};

struct image_case {
	const char *path; /* below the base, or absolute when it starts with a slash */
	const struct peer *peer;
	int want;	   /* result */
	const char *names; /* what the sentence must say, besides the path */
	uint64_t bytes;
};

static const struct image_case cases[] = {
    {"images/good", &root_peer, 0, NULL, 8192},
    {"images/good", &other_peer, 0, NULL, 8192},
    {"images//./good", &other_peer, 0, NULL, 8192},
    {"images/odd", &other_peer, 0, NULL, 5000},
    {"images/sparse", &other_peer, 0, NULL, NEAR_4_GIB},
    {"images/sub/deep", &other_peer, 0, NULL, 4096},
    {"linked/good", &other_peer, 0, NULL, 8192}, /* the root itself is a link */
    {"images/link", &root_peer, -ELOOP, "symbolic link", 0},
    {"images/linkdir/deep", &root_peer, -ELOOP, "symbolic link", 0},
    {"images/escape", &root_peer, -ELOOP, "symbolic link", 0},
    {"images/sub", &root_peer, -EISDIR, "directory", 0},
    {"images/fifo", &root_peer, -EINVAL, "FIFO", 0},
    {"images/fifo", &other_peer, -EINVAL, "FIFO", 0},
    {"images/socket", &root_peer, -EINVAL, "socket", 0},
    {"images/empty", &root_peer, -EINVAL, "empty", 0},
    {"images/missing", &root_peer, -ENOENT, "No such file", 0},
    {"images/good/below", &root_peer, -ENOTDIR, "", 0},
    {"images/secret", &root_peer, 0, NULL, 4096},
    {"images/secret", &other_peer, -EACCES, "may not be read", 0},
    {"images/others", &other_peer, 0, NULL, 4096},
    {"images/others", &root_peer, 0, NULL, 4096},
    {"images/group", &other_peer, -EACCES, "may not be read", 0},
    {"images/group", &grouped_peer, 0, NULL, 4096},
    {"images/locked/file", &other_peer, -EACCES, "may not be read", 0},
    {"images/locked/file", &root_peer, 0, NULL, 4096},
    {"images/leased", &root_peer, -EBUSY, "leased", 0},
    {"images", &root_peer, -EXDEV, "--image-root", 0},
    {"images2/good", &root_peer, -EXDEV, "--image-root", 0},
    {"outside", &root_peer, -EXDEV, "--image-root", 0},
    {"images/../outside", &root_peer, -EINVAL, "'..'", 0},
    {"images/sub/..", &root_peer, -EINVAL, "'..'", 0},
    {"/etc/shadow", &root_peer, -EXDEV, "--image-root", 0},
    {"/", &root_peer, -EXDEV, "--image-root", 0},
};

static const char *
in_base(const char *name)
{
	static char path[512];

	if (name[0] == '/')
		return name;
	snprintf(path, sizeof(path), "%s/%s", base, name);
	return path;
}

static void
make_file(const char *name, uint64_t bytes, mode_t mode, uid_t uid, gid_t gid)
{
	int fd = open(in_base(name), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, mode);

	if (fd < 0 || ftruncate(fd, (off_t)bytes) < 0 || fchown(fd, uid, gid) < 0 ||
	    fchmod(fd, mode) < 0)
		ok(false, "cannot make %s: %s", name, strerror(errno));
	fd_closep(&fd);
}

static void
make_link(const char *target, const char *name)
{
	if (symlink(target, in_base(name)) < 0)
		ok(false, "cannot make %s: %s", name, strerror(errno));
}

static void
make_dir(const char *name, mode_t mode)
{
	if (mkdir(in_base(name), 0700) < 0 || chmod(in_base(name), mode) < 0)
		ok(false, "cannot make %s: %s", name, strerror(errno));
}

static void
make_socket(const char *name)
{
	struct sockaddr_un addr = {.sun_family = AF_UNIX};
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	snprintf(addr.sun_path, sizeof(addr.sun_path), "%s", in_base(name));
	if (bind(fd, (const struct sockaddr *)&addr, sizeof(addr)) < 0)
		ok(false, "cannot make %s: %s", name, strerror(errno));
	fd_closep(&fd);
}

static void
make_tree(void)
{
	if (!mkdtemp(base) || chmod(base, 0755) < 0)
		ok(false, "cannot make %s", base);
	make_dir("images", 0755);
	make_dir("images2", 0755);
	make_dir("images/sub", 0755);
	make_dir("images/locked", 0700);
	make_file("images/good", 8192, 0644, 0, 0);
	make_file("images2/good", 8192, 0644, 0, 0);
	make_file("images/odd", 5000, 0644, 0, 0);
	make_file("images/sparse", NEAR_4_GIB, 0644, 0, 0);
	make_file("images/sub/deep", 4096, 0644, 0, 0);
	make_file("images/empty", 0, 0644, 0, 0);
	make_file("images/secret", 4096, 0600, 0, 0);
	make_file("images/others", 4096, 0600, OTHER_UID, OTHER_UID);
	make_file("images/group", 4096, 0640, 0, OTHER_GROUP);
	make_file("images/locked/file", 4096, 0644, 0, 0);
	make_file("images/leased", 4096, 0644, 0, 0);
	make_file("outside", 4096, 0644, 0, 0);
	make_link("good", "images/link");
	make_link("sub", "images/linkdir");
	make_link("../outside", "images/escape");
	make_link("images", "linked");
	make_socket("images/socket");
	if (mkfifo(in_base("images/fifo"), 0666) < 0)
		ok(false, "cannot make a FIFO");
}

static void
set_roots(size_t n, const char *const roots[])
{
	static char texts[3][512];
	static char *items[3];

	for (size_t i = 0; i < n; i++) {
		snprintf(texts[i], sizeof(texts[i]), "%s", in_base(roots[i]));
		items[i] = texts[i];
	}
	sup.options.image_root = (struct options_list){items, n};
}

/* Everything of ours that opening changes on its way. */
struct self {
	struct __user_cap_data_struct caps[2];
	int fsuid, fsgid, fds, nr_groups;
	gid_t groups[64];
};

static struct self
look_at_self(void)
{
	struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
	struct self self;

	memset(&self, 0, sizeof(self));
	syscall(SYS_capget, &header, self.caps);
	self.fsuid = setfsuid((uid_t)-1);
	self.fsgid = setfsgid((gid_t)-1);
	self.nr_groups = getgroups(64, self.groups);
	self.fds = fd_count();
	return self;
}

static void
run_case(const struct image_case *c, const char *phase)
{
	struct image image = {.fd = -1};
	char why[512] = "";
	const char *path = in_base(c->path);
	struct self before = look_at_self();
	int r = image_open(&sup.options.image_root, c->peer, path, &image, why, sizeof(why));

	is_int(
	    r, c->want, "%s: %s as uid %u (%s)", phase, c->path, (unsigned int)c->peer->uid, why);
	if (c->want == 0) {
		is_int(image.bytes, c->bytes, "%s: %s: size", phase, c->path);
		is_int(fcntl(image.fd, F_GETFL) & (O_ACCMODE | O_NONBLOCK), O_RDONLY,
		    "%s: %s: read-only", phase, c->path);
		ok(fcntl(image.fd, F_GETFD) & FD_CLOEXEC, "%s: %s: close-on-exec", phase, c->path);
	} else {
		ok(strstr(why, c->path) && strstr(why, c->names), "%s: says why: %s", phase, why);
		is_int(image.fd, -1, "%s: %s: nothing returned", phase, c->path);
	}
	fd_closep(&image.fd);
	struct self after = look_at_self();
	ok(memcmp(&before, &after, sizeof(before)) == 0, "%s: %s: we are who we were", phase,
	    c->path);
}

static void
test_cases(const char *phase)
{
	static const char *const roots[] = {"nowhere", "images/", "linked"};

	set_roots(3, roots);
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
		run_case(&cases[i], phase);
}

static void
test_relative(void)
{
	struct image image;
	char why[512] = "";

	is_int(image_open(
		   &sup.options.image_root, &root_peer, "images/good", &image, why, sizeof(why)),
	    -EINVAL, "a relative path");
	ok(strstr(why, "not absolute") != NULL, "says so: %s", why);
	is_int(image_open(&sup.options.image_root, &root_peer, "", &image, why, sizeof(why)),
	    -EINVAL, "no path");
	char longest[5000];
	memset(longest, 'a', sizeof(longest));
	longest[0] = '/';
	longest[sizeof(longest) - 1] = '\0';
	is_int(image_open(&sup.options.image_root, &root_peer, longest, &image, why, sizeof(why)),
	    -ENAMETOOLONG, "a path that is too long");
}

static void
test_device(const char *phase)
{
	const struct image_case c = {"images/device", &root_peer, -EINVAL, "device", 0};

	if (mknod(in_base("images/device"), S_IFCHR | 0666, makedev(1, 3)) < 0 && errno != EEXIST)
		skip(3, "no device nodes here: %s", strerror(errno));
	else
		run_case(&c, phase);
}

/* A root of "/" is the administrator's right; the client's rights still hold. */
static void
test_whole_system(const char *phase)
{
	static const char *const roots[] = {"/"};
	static const struct image_case tight[] = {
	    {"/etc/shadow", &other_peer, -EACCES, "may not be read", 0},
	    {"/proc/self/mem", &other_peer, -ELOOP, "symbolic link", 0},
	    {"/dev/zero", &other_peer, -EINVAL, "device", 0},
	};

	set_roots(1, roots);
	for (size_t i = 0; i < sizeof(tight) / sizeof(tight[0]); i++)
		run_case(&tight[i], phase);
}

/* Runs in a process of its own, which has given up root for good. */
static int
unprivileged(void)
{
	static const char *const roots[] = {"images"};
	const struct peer stranger = {.uid = OTHER_UID + 1, .gid = OTHER_UID + 1};
	struct image image;
	char why[512] = "";

	if (setgid(OTHER_UID) < 0 || setuid(OTHER_UID) < 0 || privs_init() < 0)
		return 1;
	set_roots(1, roots);
	if (image_open(&sup.options.image_root, &other_peer, in_base("images/others"), &image, why,
		sizeof(why)) != 0)
		return 2;
	if (image_open(&sup.options.image_root, &other_peer, in_base("images/secret"), &image, why,
		sizeof(why)) != -EACCES)
		return 3;
	if (image_open(&sup.options.image_root, &stranger, in_base("images/good"), &image, why,
		sizeof(why)) != -EPERM)
		return 4;
	if (!strstr(why, "unprivileged"))
		return 5;
	if (image_open(&sup.options.image_root, &root_peer, in_base("images/good"), &image, why,
		sizeof(why)) != -EPERM)
		return 6;
	return 0;
}

static void
test_unprivileged(void)
{
	siginfo_t info = {0};
	pid_t pid = fork();

	if (pid == 0)
		_exit(unprivileged());
	waitid(P_PID, (id_t)pid, &info, WEXITED);
	ok(info.si_code == CLD_EXITED && info.si_status == 0,
	    "an unprivileged supervisor serves its own user only (step %d)", info.si_status);
}

static void
remove_tree(void)
{
	static const char *const names[] = {"images/good", "images/odd", "images/sparse",
	    "images/sub/deep", "images/empty", "images/secret", "images/others", "images/group",
	    "images/locked/file", "images/leased", "images/link", "images/linkdir", "images/escape",
	    "images/socket", "images/fifo", "images/device", "images2/good", "outside", "linked",
	    "images/sub", "images/locked", "images", "images2", ""};

	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
		remove(in_base(names[i]));
}

int
main(void)
{
	const gid_t groups[] = {0, 4, 20};

	if (geteuid() != 0) {
		skip(1, "needs root: opens files as other users");
		return done();
	}
	alarm(150); /* a FIFO that is waited for ends the test */
	signal(SIGIO, SIG_IGN);
	if (setgroups(3, groups) < 0)
		ok(false, "setgroups: %s", strerror(errno));
	make_tree();
	/* Opening a file for reading waits for the holder of a write lease. */
	int writer = open(in_base("images/leased"), O_WRONLY | O_CLOEXEC);
	if (fcntl(writer, F_SETLEASE, F_WRLCK) < 0)
		ok(false, "cannot lease a file: %s", strerror(errno));
	test_unprivileged();
	test_cases("root");
	test_device("root");
	test_whole_system("root");
	test_relative();
	is_int(privs_init(), 0, "privileges are reduced");
	test_cases("reduced");
	test_device("reduced");
	test_whole_system("reduced");
	fd_closep(&writer);
	remove_tree();
	ok(access(base, F_OK) < 0, "nothing is left behind");
	return done();
}
