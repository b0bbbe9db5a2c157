/* SPDX-License-Identifier: Apache-2.0 */
/* Filling pages: what the page map and the kernel hold afterwards, for every answer that
 * the kernel can be made to give and for a filler that died on the way. */
#include "worker/fill.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/fault.h"
#include "common/fd.h"
#include "tests/unit/tap.h"
#include "tests/unit/worker_rig.h"
#include "worker/uffd.h"

#define NR_PAGES 8U

static struct rig rig;
static unsigned char image[NR_PAGES * RIG_PAGE]; /* page n consists of rig_byte(n) */

static unsigned char *
guest_page(uint64_t page)
{
	return rig.memory + page * RIG_PAGE;
}

static const unsigned char *
source(uint64_t page)
{
	return image + page * RIG_PAGE;
}

static enum fill_result
fill(uint64_t first, uint64_t nr, struct fill *ret)
{
	struct run run = rig_run(&rig, first, nr);

	return fill_run(&rig.session, &run, source(first), FILL_FOR_FAULT, ret);
}

/* Fills again and again while the kernel is busy with a removal that was read. */
static enum fill_result
fill_when_quiet(uint64_t first, uint64_t nr, struct fill *ret)
{
	enum fill_result result;

	rig_until((result = fill(first, nr, ret)) != FILL_AGAIN);
	return result;
}

static bool
are_filled(uint64_t first, uint64_t nr)
{
	for (uint64_t p = first; p < first + nr; p++)
		if (!rig_has(guest_page(p)) || !rig_page_is(guest_page(p), rig_byte(p)) ||
		    rig_state(&rig, p) != PAGE_PRESENT)
			return false;
	return true;
}

/* Neither filled nor marked. */
static bool
are_absent(uint64_t first, uint64_t nr)
{
	for (uint64_t p = first; p < first + nr; p++)
		if (rig_has(guest_page(p)))
			return false;
	return rig_all(&rig, first, nr, PAGE_ABSENT);
}

static void
test_absent(void)
{
	struct fill got;

	rig_open(&rig, NR_PAGES);
	is_int(fill(2, 4, &got), FILL_DONE, "absent pages");
	ok(got.nr_done == 4 && got.error == 0, "all of them done");
	ok(are_filled(2, 4) && are_absent(0, 2) && are_absent(6, 2),
	    "they hold the image's bytes, their neighbours nothing");
	ok(rig_counter(&rig, COUNTER_PAGES_DEMAND) == 4 &&
		rig_counter(&rig, COUNTER_IMAGE_BYTES_READ) == 4 * (uint64_t)RIG_PAGE &&
		rig_counter(&rig, COUNTER_PAGES_BACKGROUND) == 0 &&
		rig_counter(&rig, COUNTER_PAGES_ZEROED) == 0,
	    "and are counted");
	ok((atomic_load(&rig.session.map.pages[2]) & PAGE_F_BACKGROUND) == 0,
	    "a demand fill leaves no mark of the background");
	rig_close(&rig);
}

static void
test_wakes(void)
{
	struct uffd_msg msg;
	struct guest guest;
	struct fill got;

	rig_open(&rig, NR_PAGES);
	guest_touch(&guest, guest_page(3));
	rig_read(rig.session.uffd, &msg, 1);
	is_int(fill(2, 3, &got), FILL_DONE, "a page that somebody waits for");
	is_int(guest_join(&guest), rig_byte(3), "the guest reads the image's byte");
	rig_close(&rig);
}

static void
test_exists(void)
{
	struct uffd_msg msg;
	struct guest guest;
	struct fill got;

	rig_open(&rig, NR_PAGES);
	guest_touch(&guest, guest_page(0));
	rig_read(rig.session.uffd, &msg, 1);
	rig_put(rig.session.uffd, guest_page(0), 0xee);
	is_int(fill(0, 3, &got), FILL_DONE, "the first page exists");
	is_int(got.nr_done, 3, "it is passed over");
	is_int(guest_join(&guest), 0xee, "its waiter is woken and reads what is there");
	ok(rig_state(&rig, 0) == PAGE_PRESENT && are_filled(1, 2), "the others are filled");
	is_int(rig_counter(&rig, COUNTER_FILL_EXISTS), 1, "counted as existing");
	is_int(rig_counter(&rig, COUNTER_PAGES_DEMAND), 2, "counted as filled");
	rig_close(&rig);
}

static void
test_exists_in_the_middle(void)
{
	struct fill got;

	rig_open(&rig, NR_PAGES);
	rig_put(rig.session.uffd, guest_page(2), 0xee);
	rig_put(rig.session.uffd, guest_page(4), 0xef);
	is_int(fill(0, 6, &got), FILL_DONE, "two pages in the middle exist");
	is_int(got.nr_done, 6, "what was done in part is honoured");
	ok(are_filled(0, 2) && are_filled(3, 1) && are_filled(5, 1), "the absent ones are filled");
	ok(rig_page_is(guest_page(2), 0xee) && rig_page_is(guest_page(4), 0xef) &&
		rig_all(&rig, 0, 6, PAGE_PRESENT),
	    "the others keep their bytes and are present");
	rig_put(rig.session.uffd, guest_page(7), 0xee);
	is_int(fill(6, 2, &got), FILL_DONE, "the last page exists");
	ok(got.nr_done == 2 && are_filled(6, 1) && rig_page_is(guest_page(7), 0xee), "alike");
	rig_close(&rig);
}

static void
test_removed_in_the_middle(void)
{
	struct fill got;

	rig_open(&rig, NR_PAGES);
	page_step(&rig.session.map, 2, PAGE_EV_REMOVE);
	is_int(fill(0, 5, &got), FILL_STALE, "a removed page in the middle");
	ok(got.nr_done == 2 && are_filled(0, 2), "the pages before it are filled");
	ok(!rig_has(guest_page(2)) && rig_state(&rig, 2) == PAGE_REMOVED && are_absent(3, 2),
	    "it and those behind it are not touched");
	is_int(fill(2, 3, &got), FILL_STALE, "a removed page at the front");
	ok(got.nr_done == 0 && are_absent(3, 2) && !rig_has(guest_page(2)), "nothing is filled");
	is_int(fill(0, 2, &got), FILL_STALE, "a present page at the front");
	ok(got.nr_done == 0 && are_filled(0, 2), "nothing changes");
	rig_close(&rig);
}

static void
test_pending_removal(void)
{
	struct uffd_msg msg;
	struct guest guest;
	struct fill got;

	rig_open(&rig, NR_PAGES);
	is_int(fill(7, 1, &got), FILL_DONE, "a page to discard");
	guest_discard(&guest, guest_page(7), RIG_PAGE);
	rig_wait_event(rig.session.uffd);
	is_int(fill(0, 4, &got), FILL_AGAIN, "a removal is pending, unread");
	ok(got.nr_done == 0 && got.error == EAGAIN, "nothing is done");
	ok(are_absent(0, 4), "the marks are rolled back");
	rig_read(rig.session.uffd, &msg, 1);
	ok(msg.event == UFFD_EVENT_REMOVE && msg.arg.remove.start == (uintptr_t)guest_page(7) &&
		msg.arg.remove.end == (uintptr_t)guest_page(7) + RIG_PAGE,
	    "it is read");
	ok(fill_when_quiet(0, 4, &got) == FILL_DONE && are_filled(0, 4), "then the fill works");
	guest_join(&guest);
	rig_close(&rig);
}

static void
test_quiet(void)
{
	struct uffd_msg msg;
	struct guest guest;

	rig_open(&rig, NR_PAGES);
	ok(uffd_is_quiet(rig.session.uffd) && uffd_is_alive(rig.session.uffd), "quiet at first");
	guest_discard(&guest, guest_page(0), RIG_PAGE);
	rig_wait_event(rig.session.uffd);
	ok(!uffd_is_quiet(rig.session.uffd), "not while a removal waits to be read");
	rig_read(rig.session.uffd, &msg, 1);
	guest_join(&guest);
	ok(uffd_is_quiet(rig.session.uffd), "and again when it is over");
	rig_close(&rig);
}

/* A source that ends: the kernel copies what there is and says EFAULT for the rest. */
static void
test_bad_source(void)
{
	int fd = rig_file(NULL, 2);
	const unsigned char *src = mmap(NULL, 4 * RIG_PAGE, PROT_READ, MAP_SHARED, fd, 0);
	struct fill got;
	struct run run;

	rig_open(&rig, NR_PAGES);
	run = rig_run(&rig, 0, 4);
	is_int(fill_run(&rig.session, &run, src, FILL_FOR_FAULT, &got), FILL_BAD_SOURCE,
	    "a source that is shorter than the run");
	ok(got.nr_done == 2 && got.error == EFAULT, "what there was is done: %llu pages, error %d",
	    (unsigned long long)got.nr_done, got.error);
	ok(are_filled(0, 2) && are_absent(2, 2), "the rest is absent, and no zeros are there");
	run = rig_run(&rig, 2, 1);
	is_int(fill_run(&rig.session, &run, src + 2 * RIG_PAGE, FILL_FOR_FAULT, &got),
	    FILL_BAD_SOURCE, "a source with nothing in it");
	ok(got.nr_done == 0 && are_absent(2, 1), "fills nothing");
	munmap((void *)(uintptr_t)src, 4 * RIG_PAGE);
	close(fd);
	rig_close(&rig);
}

static void
test_no_range(void)
{
	struct uffdio_range range;
	struct fill got;

	rig_open(&rig, NR_PAGES);
	range.start = (uintptr_t)guest_page(2);
	range.len = RIG_PAGE;
	ok(ioctl(rig.session.uffd, UFFDIO_UNREGISTER, &range) == 0, "a page is unregistered");
	is_int(fill(2, 1, &got), FILL_NO_RANGE, "it cannot be filled");
	ok(got.nr_done == 0 && are_absent(2, 1), "its mark is rolled back");
	is_int(fill(0, 5, &got), FILL_NO_RANGE, "nor can a run that crosses it");
	ok(got.nr_done == 0 && are_absent(0, 5), "of which nothing is filled or marked");
	ok(fill(0, 2, &got) == FILL_DONE && fill(3, 5, &got) == FILL_DONE, "both sides can");
	rig_close(&rig);
}

/* A VMM that registers, hands its userfaultfd over and dies. */
static int
dead_vmm(void **ret_memory)
{
	union {
		struct cmsghdr align;
		char bytes[CMSG_SPACE(sizeof(int))];
	} control = {0};
	struct iovec iov = {.iov_base = ret_memory, .iov_len = sizeof(*ret_memory)};
	struct msghdr mh = {
	    .msg_iov = &iov,
	    .msg_iovlen = 1,
	    .msg_control = control.bytes,
	    .msg_controllen = sizeof(control.bytes),
	};
	struct cmsghdr *c = CMSG_FIRSTHDR(&mh);
	int pair[2], fd = -1, status;
	pid_t pid;

	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0)
		return -1;
	pid = fork();
	if (pid == 0) {
		fd = rig_uffd();
		*ret_memory = rig_memory(fd, NR_PAGES * RIG_PAGE);
		c->cmsg_level = SOL_SOCKET;
		c->cmsg_type = SCM_RIGHTS;
		c->cmsg_len = CMSG_LEN(sizeof(int));
		memcpy(CMSG_DATA(c), &fd, sizeof(fd));
		_exit(sendmsg(pair[1], &mh, 0) == (ssize_t)sizeof(*ret_memory) ? 0 : 1);
	}
	if (pid > 0 && waitpid(pid, &status, 0) == pid && status == 0 &&
	    recvmsg(pair[0], &mh, MSG_CMSG_CLOEXEC) == (ssize_t)sizeof(*ret_memory))
		memcpy(&fd, CMSG_DATA(CMSG_FIRSTHDR(&mh)), sizeof(fd));
	close(pair[0]);
	close(pair[1]);
	return fd;
}

static void
test_gone(void)
{
	struct fill got;
	struct run run;
	void *memory = NULL;

	rig_open(&rig, NR_PAGES);
	fd_closep(&rig.session.uffd);
	rig.session.uffd = dead_vmm(&memory);
	ok(rig.session.uffd >= 0 && memory != NULL, "a VMM that has exited");
	rig.session.regions.rows[0].host_addr = (uintptr_t)memory;
	is_int(fill(0, 4, &got), FILL_GONE, "its memory is gone");
	ok(got.nr_done == 0 && rig_all(&rig, 0, 4, PAGE_ABSENT), "the marks are rolled back");
	page_step(&rig.session.map, 5, PAGE_EV_REMOVE);
	run = rig_run(&rig, 5, 1);
	is_int(fill_again(&rig.session, &run, &got), FILL_GONE, "also for zeros");
	ok(!uffd_is_alive(rig.session.uffd), "and it is known to be gone");
	rig_close(&rig);
}

static void
test_hole(void)
{
	struct run run;
	struct fill got;

	rig_open(&rig, NR_PAGES);
	run = rig_run(&rig, 1, 4);
	rig_put(rig.session.uffd, guest_page(3), 0xee);
	is_int(fill_run(&rig.session, &run, NULL, FILL_FOR_FAULT, &got), FILL_DONE, "a hole");
	ok(got.nr_done == 4 && rig_all(&rig, 1, 4, PAGE_PRESENT), "is filled");
	ok(rig_page_is(guest_page(1), 0) && rig_page_is(guest_page(2), 0) &&
		rig_page_is(guest_page(3), 0xee) && rig_page_is(guest_page(4), 0),
	    "with zeros, but for the page that was there");
	ok(rig_counter(&rig, COUNTER_PAGES_ZEROED) == 3 &&
		rig_counter(&rig, COUNTER_IMAGE_BYTES_READ) == 0,
	    "and is not counted as read");
	rig_close(&rig);
}

static void
test_again_zeros(void)
{
	struct uffd_msg msg;
	struct guest guest;
	struct fill got;
	struct run run;

	rig_open(&rig, NR_PAGES);
	run = rig_run(&rig, 0, 1);
	page_step(&rig.session.map, 0, PAGE_EV_REMOVE);
	guest_touch(&guest, guest_page(0));
	rig_read(rig.session.uffd, &msg, 1);
	is_int(fill_again(&rig.session, &run, &got), FILL_DONE, "a fault on a removed page");
	is_int(guest_join(&guest), 0, "the guest reads zeros");
	is_int(rig_state(&rig, 0), PAGE_PRESENT, "the page is present again");
	run = rig_run(&rig, 1, 1);
	page_step(&rig.session.map, 1, PAGE_EV_FILLED);
	guest_touch(&guest, guest_page(1));
	rig_read(rig.session.uffd, &msg, 1);
	is_int(fill_again(&rig.session, &run, &got), FILL_DONE, "a fault on a present page");
	is_int(guest_join(&guest), 0, "discarded behind our back: zeros");
	is_int(rig_state(&rig, 1), PAGE_PRESENT, "it stays present");
	is_int(rig_counter(&rig, COUNTER_PAGES_ZEROED), 2, "both are counted");
	rig_close(&rig);
}

static void
test_again_exists(void)
{
	struct uffd_msg msg;
	struct guest guest;
	struct fill got;
	struct run run;

	rig_open(&rig, NR_PAGES);
	run = rig_run(&rig, 0, 1);
	guest_touch(&guest, guest_page(0));
	rig_read(rig.session.uffd, &msg, 1);
	rig_put(rig.session.uffd, guest_page(0), rig_byte(0));
	page_step(&rig.session.map, 0, PAGE_EV_FILLED);
	is_int(fill_again(&rig.session, &run, &got), FILL_DONE,
	    "a late fault on a page that is there");
	is_int(guest_join(&guest), rig_byte(0), "wakes the guest and changes nothing");
	is_int(rig_counter(&rig, COUNTER_FILL_EXISTS), 1, "counted as existing");
	rig_close(&rig);
}

static void
test_again_pending(void)
{
	struct uffd_msg msg;
	struct guest guest;
	struct fill got;
	struct run run;

	rig_open(&rig, NR_PAGES);
	run = rig_run(&rig, 0, 1);
	page_step(&rig.session.map, 0, PAGE_EV_REMOVE);
	guest_discard(&guest, guest_page(4), RIG_PAGE);
	rig_wait_event(rig.session.uffd);
	is_int(fill_again(&rig.session, &run, &got), FILL_AGAIN, "zeros wait for a removal too");
	ok(rig_state(&rig, 0) == PAGE_REMOVED && !rig_has(guest_page(0)), "nothing changed");
	rig_read(rig.session.uffd, &msg, 1);
	rig_until(fill_again(&rig.session, &run, &got) == FILL_DONE);
	ok(rig_state(&rig, 0) == PAGE_PRESENT && rig_page_is(guest_page(0), 0), "then it works");
	guest_join(&guest);
	rig_close(&rig);
}

static void
test_background(void)
{
	struct run run;
	struct fill got;

	rig_open(&rig, NR_PAGES);
	run = rig_run(&rig, 0, 3);
	rig_put(rig.session.uffd, guest_page(1), 0xee);
	is_int(fill_run(&rig.session, &run, source(0), FILL_FOR_BACKGROUND, &got), FILL_DONE,
	    "a fill in the background");
	for (uint64_t p = 0; p < 3; p++)
		is_int(atomic_load(&rig.session.map.pages[p]), PAGE_PRESENT | PAGE_F_BACKGROUND,
		    "page %llu says so", (unsigned long long)p);
	ok(rig_counter(&rig, COUNTER_PAGES_BACKGROUND) == 2 &&
		rig_counter(&rig, COUNTER_PAGES_DEMAND) == 0,
	    "and the counters do");
	rig_close(&rig);
}

/* Memory of a file, which somebody else has written to.  Missing pages of it come as ever. */
static void
test_map(void)
{
	struct uffdio_api api = {
	    .api = UFFD_API, .features = UFFD_FEATURE_EVENT_REMOVE | UFFD_FEATURE_MINOR_SHMEM};
	struct uffdio_register reg = {
	    .mode = UFFDIO_REGISTER_MODE_MISSING | UFFDIO_REGISTER_MODE_MINOR};
	int fd = rig_file(NULL, 0);
	struct guest guest;

	rig_open(&rig, NR_PAGES);
	fd_closep(&rig.session.uffd);
	rig.session.uffd =
	    (int)syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK | UFFD_USER_MODE_ONLY);
	rig_cut(fd, sizeof(image));
	ok(mmap(rig.memory, sizeof(image), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, fd, 0) ==
		rig.memory,
	    "memory that is a file");
	reg.range.start = (uintptr_t)rig.memory;
	reg.range.len = sizeof(image);
	if (ioctl(rig.session.uffd, UFFDIO_API, &api) < 0 ||
	    ioctl(rig.session.uffd, UFFDIO_REGISTER, &reg) < 0) {
		skip(1, "no minor faults of such memory before Linux 5.14");
		rig_close(&rig);
		close(fd);
		return;
	}
	rig_image(&rig, rig_file(NULL, NR_PAGES), sizeof(image));
	if (pwrite(fd, source(5), RIG_PAGE, 3 * RIG_PAGE) != RIG_PAGE)
		ok(false, "write to the file");
	page_step(&rig.session.map, 6, PAGE_EV_REMOVE);
	if (pwrite(fd, source(7), RIG_PAGE, 6 * RIG_PAGE) != RIG_PAGE)
		ok(false, "write to the file");
	rig_serve(&rig);
	guest_touch(&guest, guest_page(3));
	is_int(guest_join(&guest), rig_byte(5), "a page that was written to by another");
	guest_touch(&guest, guest_page(6));
	is_int(guest_join(&guest), rig_byte(7), "one that was removed before");
	guest_touch(&guest, guest_page(0));
	is_int(guest_join(&guest), rig_byte(0), "one that is missing has the image's bytes");
	rig_stop(&rig);
	ok(rig_state(&rig, 3) == PAGE_PRESENT && rig_state(&rig, 6) == PAGE_PRESENT &&
		rig_state(&rig, 0) == PAGE_PRESENT,
	    "all are present");
	rig_close(&rig);
	close(fd);
}

/* A worker that is killed at a fault point inside a fill.  It fills this process's memory:
 * a userfaultfd acts on the memory of whoever made it. */
static void
die_filling(const char *point)
{
	struct fill got;
	int status = 0;
	pid_t pid = fork();

	if (pid == 0) {
		setenv("PAGER_FAULT", point, 1);
		if (fault_init() == 0)
			(void)fill(1, 3, &got);
		_exit(0);
	}
	ok(pid > 0 && waitpid(pid, &status, 0) == pid && WIFSIGNALED(status) &&
		WTERMSIG(status) == SIGKILL,
	    "a filler dies at %s", point);
}

static void
test_dead_before_the_ioctl(void)
{
	struct fill got;

	rig_open(&rig, NR_PAGES);
	die_filling("FILL_AFTER_MARK!kill");
	ok(rig_all(&rig, 1, 3, PAGE_FILLING) && !rig_has(guest_page(1)) && !rig_has(guest_page(3)),
	    "it leaves marks and no page");
	is_int(fill(0, 5, &got), FILL_DONE, "whoever comes next fills");
	ok(got.nr_done == 5 && are_filled(0, 5), "with the image's bytes");
	rig_close(&rig);
}

static void
test_dead_after_the_ioctl(void)
{
	struct fill got;

	rig_open(&rig, NR_PAGES);
	die_filling("FILL_AFTER_IOCTL!kill");
	ok(rig_all(&rig, 1, 3, PAGE_FILLING) && rig_has(guest_page(1)) && rig_has(guest_page(3)),
	    "it leaves marks and pages");
	/* The guest goes on at once: what it wrote must survive. */
	memset(guest_page(2), 0xaa, RIG_PAGE);
	is_int(fill(0, 5, &got), FILL_DONE, "whoever comes next asks the kernel");
	ok(got.nr_done == 5 && are_filled(0, 2) && are_filled(3, 2) &&
		rig_all(&rig, 0, 5, PAGE_PRESENT),
	    "which says what is there");
	ok(rig_page_is(guest_page(2), 0xaa), "the guest's own bytes are not overwritten");
	rig_close(&rig);
}

/* The next worker must not call it absent before it has asked: the guest may have written. */
static void
test_dead_then_refused(void)
{
	struct uffd_msg msg;
	struct guest guest;
	struct fill got;

	rig_open(&rig, NR_PAGES);
	page_step(&rig.session.map, 1, PAGE_EV_MARK);
	rig_put(rig.session.uffd, guest_page(1), 0xee);
	guest_discard(&guest, guest_page(7), RIG_PAGE);
	rig_wait_event(rig.session.uffd);
	is_int(fill(1, 3, &got), FILL_AGAIN, "filled by one that died, and a removal is pending");
	ok(rig_state(&rig, 1) == PAGE_FILLING && are_absent(2, 2), "it is not called absent");
	is_int(fill(0, 4, &got), FILL_AGAIN, "nor in the middle of others");
	ok(are_absent(0, 1) && rig_state(&rig, 1) == PAGE_FILLING && are_absent(2, 2), "which are");
	rig_read(rig.session.uffd, &msg, 1);
	guest_join(&guest);
	ok(fill_when_quiet(1, 1, &got) == FILL_DONE && rig_state(&rig, 1) == PAGE_PRESENT &&
		rig_page_is(guest_page(1), 0xee),
	    "the kernel knows");
	rig_close(&rig);
}

static void
test_dead_then_removed(void)
{
	struct uffd_msg msg;
	struct guest guest;
	struct fill got;
	struct run run;

	rig_open(&rig, NR_PAGES);
	die_filling("FILL_AFTER_IOCTL!kill");
	guest_discard(&guest, guest_page(2), RIG_PAGE);
	rig_read(rig.session.uffd, &msg, 1);
	page_step(&rig.session.map, 2, PAGE_EV_REMOVE);
	guest_join(&guest);
	is_int(fill_when_quiet(2, 1, &got), FILL_STALE, "discarded after the death: no image");
	run = rig_run(&rig, 2, 1);
	ok(fill_again(&rig.session, &run, &got) == FILL_DONE && rig_page_is(guest_page(2), 0),
	    "zeros");
	rig_close(&rig);
}

int
main(void)
{
	for (uint64_t p = 0; p < NR_PAGES; p++)
		memset(image + p * RIG_PAGE, rig_byte(p), RIG_PAGE);
	test_absent();
	test_wakes();
	test_exists();
	test_exists_in_the_middle();
	test_removed_in_the_middle();
	test_pending_removal();
	test_quiet();
	test_bad_source();
	test_no_range();
	test_gone();
	test_hole();
	test_again_zeros();
	test_again_exists();
	test_again_pending();
	test_background();
	test_map();
	test_dead_before_the_ioctl();
	test_dead_after_the_ioctl();
	test_dead_then_refused();
	test_dead_then_removed();
	return done();
}
