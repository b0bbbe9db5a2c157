/* SPDX-License-Identifier: Apache-2.0 */
/* Pages whose writes are tracked: how they are filled, what makes them dirty, and pictures of
 * them while others are at work. */
#include "worker/picture.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "common/fd.h"
#include "common/picture.h"
#include "ipc/message.h"
#include "tests/unit/tap.h"
#include "tests/unit/worker_rig.h"
#include "worker/fill.h"
#include "worker/track.h"
#include "worker/uffd.h"

#define NR_PAGES 16U

#define FEATURE_WP_UNPOPULATED (UINT64_C(1) << 13) /* Linux 6.4 */

static struct rig rig;
static unsigned char image[NR_PAGES * RIG_PAGE];
static uint8_t told[NR_PAGES];

static unsigned char *
guest_page(uint64_t page)
{
	return rig.memory + page * RIG_PAGE;
}

static void
open_tracked(void)
{
	struct uffdio_register reg = {
	    .mode = UFFDIO_REGISTER_MODE_MISSING | UFFDIO_REGISTER_MODE_WP};

	rig_open(&rig, NR_PAGES);
	reg.range.start = (uintptr_t)rig.memory;
	reg.range.len = NR_PAGES * RIG_PAGE;
	if (ioctl(rig.session.uffd, UFFDIO_REGISTER, &reg) < 0)
		abort();
	picture_init(&rig.session);
	track_begin(&rig.session);
	ok(rig.session.is_tracked &&
		atomic_load(&pagemap_track(&rig.session.map)->tracking) == PAGEMAP_TRACKED,
	    "writes are tracked");
}

static void
close_tracked(void)
{
	rig_stop(&rig);
	picture_fini(&rig.session);
	rig_close(&rig);
}

static enum fill_result
fill(uint64_t first, uint64_t nr, bool zeros, enum fill_why why)
{
	struct run run = rig_run(&rig, first, nr);
	struct fill got;

	return fill_run(&rig.session, &run, zeros ? NULL : image + first * RIG_PAGE, why, &got);
}

static unsigned
flags_of(uint64_t page)
{
	return atomic_load(&rig.session.map.pages[page]) & (PAGE_F_DIRTY | PAGE_F_TAKEN);
}

static void *
write_main(void *arg)
{
	*(volatile unsigned char *)arg = 0xdd;
	return NULL;
}

/* A thread of the guest writes; true when that is a fault of a protected page, which is
 * answered. */
static bool
is_told(uint64_t page)
{
	struct run run = rig_run(&rig, page, 1);
	struct uffd_msg msg = {0};
	struct fill got;
	pthread_t thread;
	bool tells;

	pthread_create(&thread, NULL, write_main, guest_page(page));
	rig_read(rig.session.uffd, &msg, 1);
	tells = msg.event == UFFD_EVENT_PAGEFAULT &&
	    (msg.arg.pagefault.flags & UFFD_PAGEFAULT_FLAG_WP) != 0 &&
	    msg.arg.pagefault.address == (uintptr_t)guest_page(page) && flags_of(page) == 0 &&
	    fill_allow_write(&rig.session, &run, &got) == FILL_DONE && got.nr_done == 1;
	rig_join(thread);
	return tells && flags_of(page) == PAGE_F_DIRTY && *guest_page(page) == 0xdd;
}

/* One that nobody is told of. */
static void
write_untold(uint64_t page)
{
	pthread_t thread;

	pthread_create(&thread, NULL, write_main, guest_page(page));
	rig_join(thread);
}

static void
test_untracked(void)
{
	rig_open(&rig, NR_PAGES);
	track_begin(&rig.session);
	ok(!rig.session.is_tracked &&
		atomic_load(&pagemap_track(&rig.session.map)->tracking) == PAGEMAP_UNTRACKED,
	    "memory that is registered for missing pages alone");
	is_int(fill(0, 4, false, FILL_FOR_FAULT), FILL_DONE, "is filled");
	write_untold(1);
	is_int(flags_of(1), 0, "and written");
	rig_close(&rig);
}

static void
test_fills(void)
{
	open_tracked();
	is_int(fill(0, 4, false, FILL_FOR_FAULT), FILL_DONE, "for a fault");
	ok(rig_page_is(guest_page(2), rig_byte(2)) && flags_of(2) == 0, "the bytes, clean");
	ok(is_told(2), "a write is told");
	write_untold(2);
	is_int(flags_of(2), PAGE_F_DIRTY, "the next is not");
	is_int(fill(4, 2, true, FILL_FOR_FAULT), FILL_DONE, "zeros for a fault");
	ok(rig_page_is(guest_page(4), 0) && flags_of(4) == 0 && is_told(4), "are protected");
	is_int(fill(6, 2, false, FILL_FOR_BACKGROUND), FILL_DONE, "in the background");
	ok(flags_of(6) == 0 && is_told(6), "the same");
	is_int(fill(8, 2, true, FILL_FOR_BACKGROUND), FILL_DONE, "zeros in the background");
	ok(rig_page_is(guest_page(8), 0) && flags_of(8) == PAGE_F_DIRTY, "count as written");
	is_int(fill(10, 1, false, FILL_FOR_WRITE), FILL_DONE, "for a write");
	write_untold(10);
	is_int(flags_of(10), PAGE_F_DIRTY, "is not protected first");
	close_tracked();
}

/* What somebody else has put there may be written already. */
static void
test_exists(void)
{
	open_tracked();
	rig_put(rig.session.uffd, guest_page(3), 0xee);
	is_int(fill(2, 3, false, FILL_FOR_FAULT), FILL_DONE, "a page that exists");
	ok(flags_of(2) == 0 && flags_of(3) == PAGE_F_DIRTY && flags_of(4) == 0,
	    "is dirty, its neighbours are not");
	close_tracked();
}

static void
test_again(void)
{
	struct run run;
	struct fill got;

	open_tracked();
	fill(0, 2, false, FILL_FOR_FAULT);
	run = rig_run(&rig, 0, 1);
	is_int(fill_again(&rig.session, &run, &got), FILL_DONE, "a fault that is answered already");
	is_int(flags_of(0), 0, "makes nothing dirty");
	page_step(&rig.session.map, 5, PAGE_EV_REMOVE);
	run = rig_run(&rig, 5, 1);
	is_int(fill_again(&rig.session, &run, &got), FILL_DONE, "a removed page is touched again");
	ok(rig_page_is(guest_page(5), 0) && flags_of(5) == PAGE_F_DIRTY &&
		rig_state(&rig, 5) == PAGE_PRESENT,
	    "it is not as in the image, nor empty");
	page_step(&rig.session.map, 5, PAGE_EV_REMOVE);
	is_int(flags_of(5), 0, "until it is removed again");
	close_tracked();
}

/* --- Pictures ----------------------------------------------------------------------- */

static void
begin(uint32_t flags, uint64_t since)
{
	const struct ipc_session_picture msg = {1, 1, flags, since};
	int fd = memfd_create("picture", MFD_CLOEXEC);

	if (fd < 0 || ftruncate(fd, NR_PAGES) < 0 || picture_begin(&rig.session, &msg, &fd) < 0)
		abort();
}

/* The error; what stands in the picture is in told[]. */
static int
end(void)
{
	struct picture *p = &rig.session.picture;

	rig_posted(&rig, SESSION_POST_PICTURE);
	rig_until(atomic_load(&rig.session.threads) == 0);
	atomic_store(&rig.session.posted, 0);
	if (pread(p->fd, told, NR_PAGES, 0) != NR_PAGES)
		abort();
	fd_closep(&p->fd);
	p->seq = 0;
	return p->error;
}

static int
take(uint32_t flags, uint64_t since)
{
	begin(flags, since);
	return end();
}

static bool
is_told_as(const char *want)
{
	static const char letters[] = "acdr";
	char got[NR_PAGES + 1] = "";

	for (unsigned i = 0; i < NR_PAGES; i++)
		got[i] = told[i] < PICTURE_PAGES ? letters[told[i]] : '?';
	if (strcmp(got, want) == 0)
		return true;
	printf("# got  %s\n# want %s\n", got, want);
	return false;
}

static void
test_says(void)
{
	const struct picture *p = &rig.session.picture;

	open_tracked();
	fill(0, 4, false, FILL_FOR_FAULT);
	is_told(1);
	fill(6, 1, false, FILL_FOR_WRITE);
	page_step(&rig.session.map, 8, PAGE_EV_REMOVE);
	page_step(&rig.session.map, 9, PAGE_EV_REMOVE);
	page_set_flag(&rig.session.map, 9, PAGE_F_DIRTY); /* a worker died while it filled */
	page_step(&rig.session.map, 10, PAGE_EV_MARK);	  /* and here */
	is_int(take(0, 0), 0, "a picture");
	ok(is_told_as("cdccaadarddaaaaa"), "as it is");
	ok(p->number == 0 && p->base == 0 && p->tracking == PAGEMAP_TRACKED, "not a new one");
	is_int(take(IPC_PICTURE_NEW, 0), 0, "a new one");
	ok(is_told_as("cdccaadarddaaaaa") && p->number == 1 && p->base == 0, "says the same");
	is_int(take(IPC_PICTURE_SINCE, 1), 0, "since then");
	ok(is_told_as("ccccaacarcdaaaaa") && p->base == 1, "nothing, but what nobody knows");
	is_int(take(0, 0), 0, "without since");
	ok(is_told_as("cdccaadarddaaaaa") && p->base == 0, "all since the image");
	close_tracked();
}

/* Every dirty page is protected again. */
static void
test_protects(void)
{
	const struct picture *p = &rig.session.picture;

	open_tracked();
	fill(0, NR_PAGES, false, FILL_FOR_FAULT);
	is_told(3);
	is_told(4);
	is_int(take(IPC_PICTURE_NEW, 0), 0, "picture 1");
	ok(flags_of(3) == PAGE_F_TAKEN && flags_of(4) == PAGE_F_TAKEN, "dirty pages are taken");
	page_clear_flag(&rig.session.map, 4, PAGE_F_TAKEN);
	ok(is_told(4), "a write after it is told");
	is_int(take(IPC_PICTURE_NEW | IPC_PICTURE_SINCE, 1), 0, "picture 2, since 1");
	ok(is_told_as("ccccdccccccccccc") && p->base == 1 && p->number == 2, "has that");
	is_int(flags_of(3), 0, "what was taken is confirmed");
	is_int(take(IPC_PICTURE_NEW | IPC_PICTURE_SINCE, 1), 0, "since 1 again: 2 was lost");
	ok(is_told_as("ccccdccccccccccc") && p->base == 1 && p->number == 3, "nothing is lost");
	is_int(take(IPC_PICTURE_SINCE, 2), ESTALE, "since 2, which nobody has confirmed");
	is_int(take(IPC_PICTURE_SINCE, 4), ESTALE, "since one that is not there");
	is_int(take(IPC_PICTURE_SINCE, 3), 0, "since 3");
	ok(is_told_as("cccccccccccccccc"), "nothing was written");
	close_tracked();
}

static void
test_lost(void)
{
	open_tracked();
	fill(0, 2, false, FILL_FOR_FAULT);
	track_lose(&rig.session);
	is_int(take(IPC_PICTURE_NEW, 0), EOPNOTSUPP, "memory is being unregistered: no new one");
	is_int(take(0, 0), 0, "but one");
	ok(is_told_as("ddaaaaaaaaaaaaaa") && rig.session.picture.tracking == PAGEMAP_LOST,
	    "where everything may be written");
	close_tracked();
}

/* Half of it for write protection, too.  A page of the rest that is filled with one is refused. */
static void
test_in_part(void)
{
	struct uffdio_register reg = {
	    .mode = UFFDIO_REGISTER_MODE_MISSING | UFFDIO_REGISTER_MODE_WP};
	struct guest guest;

	rig_open(&rig, NR_PAGES);
	reg.range.start = (uintptr_t)rig.memory;
	reg.range.len = NR_PAGES / 2 * RIG_PAGE;
	if (ioctl(rig.session.uffd, UFFDIO_REGISTER, &reg) < 0)
		abort();
	track_begin(&rig.session);
	ok(!rig.session.is_tracked, "memory that is registered for both in part: not tracked");
	rig_image(&rig, rig_file(NULL, NR_PAGES), NR_PAGES * RIG_PAGE);
	rig_serve(&rig);
	guest_touch(&guest, guest_page(NR_PAGES - 1));
	is_int(guest_join(&guest), rig_byte(NR_PAGES - 1), "the other part is served");
	guest_touch(&guest, guest_page(1));
	is_int(guest_join(&guest), rig_byte(1), "and so is this one");
	rig_close(&rig);
}

/* A session whose completion has failed and whose worker has died since: its pages are as protected
 * as they were.  Where the kernel remembers that of a page which is not there it takes no zero
 * page, and says that there is one. */
static void
test_lost_and_adopted(void)
{
	struct uffdio_api api = {
	    .api = UFFD_API, .features = UFFD_FEATURE_EVENT_REMOVE | FEATURE_WP_UNPOPULATED};
	struct uffdio_register reg = {
	    .mode = UFFDIO_REGISTER_MODE_MISSING | UFFDIO_REGISTER_MODE_WP};
	struct guest guest;
	int error = 0;

	rig_open(&rig, NR_PAGES);
	fd_closep(&rig.session.uffd);
	rig.session.uffd =
	    (int)syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK | UFFD_USER_MODE_ONLY);
	reg.range.start = (uintptr_t)rig.memory;
	reg.range.len = NR_PAGES * RIG_PAGE;
	if (ioctl(rig.session.uffd, UFFDIO_API, &api) < 0 ||
	    ioctl(rig.session.uffd, UFFDIO_REGISTER, &reg) < 0) {
		skip(1, "no protection of what is not there before Linux 6.4");
		rig_close(&rig);
		return;
	}
	track_begin(&rig.session);
	is_int(uffd_protect(rig.session.uffd, reg.range.start, reg.range.len, true, &error),
	    UFFD_DONE, "memory that is protected before it is there");
	track_lose(&rig.session);
	track_resume(&rig.session);
	page_step(&rig.session.map, 3, PAGE_EV_REMOVE);
	rig_serve(&rig);
	guest_touch(&guest, guest_page(3));
	is_int(guest_join(&guest), 0, "tracked once: a removed page comes, as zeros");
	rig_close(&rig);
}

/* The fault thread fills without the copy lock: what it has begun is waited for. */
static void
test_waits(void)
{
	pthread_mutex_t *lock = &rig.session.copylock.mutex;
	int busy = 0;

	open_tracked();
	fill(0, NR_PAGES, false, FILL_FOR_FAULT);
	atomic_store(&rig.session.answering, true);
	begin(0, 0);
	do {
		busy = pthread_mutex_trylock(lock);
		if (busy == 0)
			pthread_mutex_unlock(lock);
	} while (busy == 0 && atomic_load(&rig.session.posted) == 0);
	ok(atomic_load(&rig.session.posted) == 0, "nobody reads or fills, but one batch is out");
	for (unsigned i = 0; i < NR_PAGES; i += 2)
		page_set_flag(&rig.session.map, i, PAGE_F_DIRTY);
	atomic_store(&rig.session.answering, false);
	is_int(end(), 0, "a picture");
	ok(is_told_as("dcdcdcdcdcdcdcdc"), "of when it was answered");
	close_tracked();
}

/* Nothing can be protected before a removal is read, and nobody else reads. */
static void
test_removal(void)
{
	struct guest discards, touches;
	struct uffd_msg msg;

	open_tracked();
	fill(0, 8, false, FILL_FOR_FAULT);
	is_told(1);
	is_told(2);
	guest_touch(&touches, guest_page(12));
	guest_discard(&discards, guest_page(2), 2 * RIG_PAGE);
	rig_until(!uffd_is_quiet(rig.session.uffd));
	rig_wait_event(rig.session.uffd);
	is_int(take(IPC_PICTURE_NEW, 0), 0, "a new picture while a removal waits to be read");
	guest_join(&discards);
	ok(is_told_as("cdrrccccaaaaaaaa"), "has it");
	rig_until(rig_read(rig.session.uffd, &msg, 1) == 1 && msg.event == UFFD_EVENT_PAGEFAULT);
	is_int(msg.arg.pagefault.address, (uintptr_t)guest_page(12),
	    "a fault that was read meanwhile is raised again");
	fill(12, 1, false, FILL_FOR_FAULT);
	is_int(guest_join(&touches), rig_byte(12), "and answered");
	close_tracked();
}

static void
test_refused(void)
{
	const struct ipc_session_picture msg = {2, 1, 0, 0};
	int fd;

	open_tracked();
	fd = memfd_create("picture", MFD_CLOEXEC);
	rig.session.picture.seq = 1;
	is_int(picture_begin(&rig.session, &msg, &fd), -EBUSY, "one at a time");
	rig.session.picture.seq = 0;
	rig.session.state = SESSION_STOPPING;
	is_int(picture_begin(&rig.session, &msg, &fd), -EINVAL, "not when it ends");
	ok(fd >= 0, "the descriptor stays the caller's");
	rig.session.state = SESSION_SERVING;
	if (picture_begin(&rig.session, &msg, &fd) < 0)
		abort();
	rig_posted(&rig, SESSION_POST_PICTURE);
	is_int(rig.session.picture.error, EPROTO, "a file of another size");
	close_tracked();
}

int
main(void)
{
	for (uint64_t p = 0; p < NR_PAGES; p++)
		memset(image + p * RIG_PAGE, rig_byte(p), RIG_PAGE);
	test_untracked();
	test_fills();
	test_exists();
	test_again();
	test_says();
	test_protects();
	test_in_part();
	test_lost();
	test_lost_and_adopted();
	test_waits();
	test_removal();
	test_refused();
	return done();
}
