/* SPDX-License-Identifier: Apache-2.0 */
/* Having files opened: what is asked for, what is said of it, and what becomes of those who do
 * not wait.  Storage that is silent is a scenario's. */
#include "supervisor/opener.h"

#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>

#include "common/scope.h"
#include "supervisor/opener/job.h"
#include "supervisor/opener_impl.h"
#include "supervisor/opener_storage.h"
#include "supervisor/overlay.h"
#include "tests/unit/session_rig.h"

#define TABLE                                                  \
	"22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/a rw\n" \
	"30 22 0:5 / /srv rw - nfs a:/b rw\n"                  \
	"31 30 0:6 / /srv/deep\\040er rw - nfs a:/c rw\n"      \
	"32 22 0:7 / /over rw - nfs a:/d rw\n"                 \
	"33 22 0:8 / /over rw - tmpfs none rw\n"

static void
test_storage(void)
{
	static const struct {
		const char *path;
		uint64_t want;
	} cases[] = {
	    {"/", 22},
	    {"/a", 22},
	    {"/srvx", 22},
	    {"/srv", 30},
	    {"/srv/a", 30},
	    {"//./srv//a", 30},
	    {"/srv/deep er/a", 31},
	    {"/srv/./deep er", 31},
	    {"/srv/deep\\040er/a", 30},
	    {"/over/a", 33},
	    {"relative", 0},
	    {"", 0},
	};

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
		is_int(opener_storage_find(TABLE, cases[i].path), cases[i].want, "\"%s\"",
		    cases[i].path);
	ok(!opener_storage_find_told(TABLE, makedev(8, 1)) &&
		!opener_storage_find_told(TABLE, makedev(0, 8)),
	    "these are not told of a close");
	ok(opener_storage_find_told(TABLE, makedev(0, 9)), "one that is not mounted may be");
	ok(opener_storage_find_told("7 1 0:9 / /x rw - fuse.s3 a rw\n", makedev(0, 9)) &&
		opener_storage_find_told("7 1 0:9 / /x rw - virtiofs a rw", makedev(0, 9)),
	    "these are");
	is_int(opener_storage_find("", "/a"), 0, "no table");
	is_int(opener_storage_find("1 2 3", "/a"), 0, "half a line");
	is_int(opener_storage_find("7 2 0:1 / /", "/a"), 7, "the last line has no end");
	ok(opener_storage_of("/proc/1") != opener_storage_of("/"), "this machine's");
}

struct asked {
	unsigned calls;
	int error;
	char why[OPENER_WHY_BYTES];
	struct image image;
	struct opener_outcome outcomes[OPENER_PARTS];
	int fds[OPENER_PARTS];
};

static void
on_answer(void *arg, struct opener_answer *answer)
{
	struct asked *asked = arg;

	asked->calls++;
	asked->error = answer->error;
	snprintf(asked->why, sizeof(asked->why), "%s", answer->why);
	asked->image = answer->image;
	memcpy(asked->outcomes, answer->outcomes, sizeof(asked->outcomes));
	for (unsigned i = 0; i < OPENER_PARTS; i++)
		asked->fds[i] = fd_take(&answer->fds[i]);
}

static struct opening *
ask_for(struct asked *asked, struct opener_request *request)
{
	struct opening *opening = NULL;

	memset(asked, 0, sizeof(*asked));
	request->peer = &rig.peer;
	is_int(opener_ask(&rig.sup, request, on_answer, asked, &opening, rig.why, sizeof(rig.why)),
	    0, "asked");
	return opening;
}

static uint64_t
nr_running(void)
{
	uint64_t running, stuck;

	opener_count(&rig.sup, &running, &stuck);
	return running;
}

static void
test_parts(void)
{
	char list[128], missing[128];
	const struct overlay_request overlay = {4096, rig.image};
	struct opener_request request = {.image = rig.image, .hot_list = rig.image};
	struct asked asked;
	struct stat st;

	snprintf(list, sizeof(list), "%s/list", rig.dir);
	snprintf(missing, sizeof(missing), "%s/missing", rig.dir);
	ask_for(&asked, &request);
	is_int(asked.calls, 0, "nobody is called before the loop's turn");
	wait_for(asked.calls > 0);
	is_int(asked.error, 0, "an image and a list");
	stat(rig.image, &st);
	ok(asked.image.bytes == RIG_IMAGE_BYTES && asked.image.ino == st.st_ino &&
		asked.image.dev == st.st_dev,
	    "the image is that file");
	ok(fcntl(asked.fds[OPENER_IMAGE], F_GETFL) >= 0 &&
		fcntl(asked.fds[OPENER_IMAGE], F_GETFD) == FD_CLOEXEC,
	    "with a descriptor");
	ok(fstat(asked.fds[OPENER_HOT_LIST], &st) == 0 && st.st_size == (off_t)RIG_IMAGE_BYTES &&
		st.st_ino != asked.image.ino,
	    "and the list a copy");
	ok(asked.fds[OPENER_OVERLAYS] < 0 && asked.fds[OPENER_RECORD] < 0, "nothing else");
	fd_close_all(asked.fds, OPENER_PARTS);

	request.hot_list = missing;
	ask_for(&asked, &request);
	wait_for(asked.calls > 0);
	ok(asked.outcomes[OPENER_IMAGE].error == 0 &&
		asked.outcomes[OPENER_HOT_LIST].error == -ENOENT &&
		strstr(asked.outcomes[OPENER_HOT_LIST].why, missing),
	    "a list that is missing: %s", asked.outcomes[OPENER_HOT_LIST].why);
	fd_close_all(asked.fds, OPENER_PARTS);

	request = (struct opener_request){
	    .image = rig.image, .overlays = &overlay, .nr_overlays = 1, .record = list};
	ask_for(&asked, &request);
	wait_for(asked.calls > 0);
	ok(asked.outcomes[OPENER_OVERLAYS].error == -EINVAL &&
		strstr(asked.outcomes[OPENER_OVERLAYS].why, "beyond the image"),
	    "an overlay that does not fit: %s", asked.outcomes[OPENER_OVERLAYS].why);
	fd_close_all(asked.fds, OPENER_PARTS);

	request = (struct opener_request){.record = list};
	ask_for(&asked, &request);
	wait_for(asked.calls > 0);
	ok(asked.outcomes[OPENER_RECORD].error == 0 && access(list, F_OK) < 0,
	    "a list could be written: %s", asked.outcomes[OPENER_RECORD].why);
	request.bytes = "pagerhot and more";
	request.nr_bytes = 17;
	ask_for(&asked, &request);
	wait_for(asked.calls > 0);
	ok(asked.outcomes[OPENER_RECORD].error == 0 && stat(list, &st) == 0 && st.st_size == 17,
	    "and is written: %s", asked.outcomes[OPENER_RECORD].why);
	unlink(list);
	wait_for(nr_running() == 0);
	ok(true, "its processes end");
}

static void
test_cancelled(void)
{
	struct opener_request request = {.image = rig.image};
	struct asked asked;
	int before = fd_count();

	for (int i = 0; i < 20; i++)
		opener_cancel(ask_for(&asked, &request));
	wait_for(nr_running() == 0);
	is_int(asked.calls, 0, "who does not wait is not called");
	is_int(fd_count(), before, "and nothing is left");
}

/* The opener is stopped, so that nothing is answered. */
static pid_t
opener_pid(void)
{
	char path[64], text[64];
	pid_t pid = 0;

	snprintf(path, sizeof(path), "/proc/self/task/%d/children", (int)getpid());
	FILE *file = fopen(path, "re");
	if (!file || !fgets(text, sizeof(text), file))
		abort();
	fclose(file);
	pid = (pid_t)strtol(text, NULL, 10);
	return pid;
}

static void
test_late(void)
{
	struct opener_request request = {.image = rig.image, .timeout_ms = 1};
	struct asked asked;
	uint64_t running, stuck;
	int before = fd_count();

	kill(opener_pid(), SIGSTOP);
	ask_for(&asked, &request);
	wait_for(asked.calls > 0);
	ok(asked.error == -ETIMEDOUT && strstr(asked.why, rig.image), "in time: %s", asked.why);
	opener_count(&rig.sup, &running, &stuck);
	ok(running == 1 && stuck == 1, "it is counted");
	kill(opener_pid(), SIGCONT);
	wait_for(nr_running() == 0);
	opener_count(&rig.sup, &running, &stuck);
	is_int(stuck, 0, "until it has ended");
	is_int(asked.calls, 1, "and nobody is called again");
	is_int(fd_count(), before, "nothing is left");
}

static void
test_many(void)
{
	static struct asked asked[200];
	struct opener_request request = {.image = rig.image};
	unsigned n = 0;

	for (unsigned i = 0; i < 200; i++) {
		struct opening *opening;

		request.peer = &rig.peer;
		opener_ask(
		    &rig.sup, &request, on_answer, &asked[i], &opening, rig.why, sizeof(rig.why));
	}
	ok(nr_running() <= OPENER_MAX_OF_STORAGE, "so many at a time and no more");
	for (unsigned i = 0; i < 200; i++) {
		wait_for(asked[i].calls > 0);
		n += asked[i].error == 0 && asked[i].fds[OPENER_IMAGE] >= 0;
		fd_close_all(asked[i].fds, OPENER_PARTS);
	}
	is_int(n, 200, "all have their turn");
	wait_for(nr_running() == 0);
}

static void
test_dies(void)
{
	struct opener_request request = {.image = rig.image};
	struct asked asked;
	pid_t first = opener_pid();

	kill(first, SIGSTOP);
	ask_for(&asked, &request);
	kill(first, SIGKILL);
	wait_for(asked.calls > 0);
	is_int(asked.error, -EAGAIN, "who waited is told: %s", asked.why);
	ask_for(&asked, &request);
	wait_for(asked.calls > 0);
	is_int(asked.error, 0, "another one opens");
	ok(asked.fds[OPENER_IMAGE] >= 0 && opener_pid() != first, "in its place");
	fd_close_all(asked.fds, OPENER_PARTS);
	wait_for(nr_running() == 0);
}

/* What comes finds no room in our table. */
static void
test_full(void)
{
	struct opener_request request = {.image = rig.image};
	struct rlimit before, none;
	struct asked asked;

	getrlimit(RLIMIT_NOFILE, &before);
	none = before;
	none.rlim_cur = 3;
	ask_for(&asked, &request);
	setrlimit(RLIMIT_NOFILE, &none);
	wait_for(asked.calls > 0);
	setrlimit(RLIMIT_NOFILE, &before);
	is_int(asked.outcomes[OPENER_IMAGE].error, -EMFILE, "no room: %s",
	    asked.outcomes[OPENER_IMAGE].why);
	is_int(nr_running(), 0, "and it is not counted for ever");
}

/* One that cannot even read its order has told which process it is: its end is seen. */
static void
test_begun(void)
{
	scoped_fd int order = memfd_create("order", MFD_CLOEXEC);
	struct opener_word word = {0};
	int link[2], fds[OPENER_MAX_FDS];
	size_t nr_fds = 1;

	if (order < 0 || socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, link) < 0)
		abort();
	opener_do(link[0], 7, order, -1);
	ok(opener_receive(link[1], &word, sizeof(word), fds, &nr_fds, MSG_DONTWAIT) > 0 &&
		word.kind == OPENER_BEGUN && word.number == 7 && nr_fds == 1,
	    "an empty order is begun, by a process that can be watched");
	fd_close_all(fds, nr_fds);
	fd_close_all(link, 2);
}

/* What no opener says. */
static void
test_noise(void)
{
	static const char noise[2 * sizeof(struct opener_word)];
	struct opener_request request = {.image = rig.image};
	struct asked asked;
	int before = fd_count();
	pid_t first = opener_pid();
	int pidfd = (int)syscall(SYS_pidfd_open, first, 0);
	int link = (int)syscall(SYS_pidfd_getfd, pidfd, 3, 0);

	if (link < 0)
		abort();
	is_int(opener_send(link, noise, sizeof(noise), &pidfd, 1, 0), sizeof(noise), "noise");
	close(link);
	close(pidfd);
	wait_for(rig.sup.opener->pidfd < 0);
	ask_for(&asked, &request);
	wait_for(asked.calls > 0);
	is_int(asked.error, 0, "the next one opens");
	fd_close_all(asked.fds, OPENER_PARTS);
	wait_for(nr_running() == 0);
	is_int(fd_count(), before, "and nothing is left");
}

int
main(void)
{
	test_storage();
	log_init("test_opener", LOG_LEVEL_ERR);
	rig_start();
	test_parts();
	test_cancelled();
	test_late();
	test_many();
	test_dies();
	test_full();
	test_begun();
	test_noise();
	rig_stop();
	return done();
}
