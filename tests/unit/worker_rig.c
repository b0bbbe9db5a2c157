/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/unit/worker_rig.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/fd.h"
#include "worker/fault.h"
#include "worker/image.h"

/* Far beyond what anything here takes, below the limit of the test runner. */
#define PATIENCE_S 120

static void __attribute__((noreturn, format(printf, 1, 2))) bail_out(const char *fmt, ...)
{
	va_list ap;

	printf("Bail out! ");
	va_start(ap, fmt);
	vprintf(fmt, ap);
	va_end(ap);
	putchar('\n');
	fflush(stdout);
	_exit(EXIT_FAILURE);
}

static void
need(bool held, const char *what)
{
	if (!held)
		bail_out("%s: %s", what, strerror(errno));
}

uint64_t
rig_now(void)
{
	return clock_now_ns();
}

void
rig_check(uint64_t begin_ns, const char *what)
{
	if (clock_now_ns() - begin_ns > PATIENCE_S * NS_PER_S)
		bail_out("never happened: %s", what);
	sched_yield();
}

int
rig_uffd(void)
{
	struct uffdio_api api = {.api = UFFD_API, .features = UFFD_FEATURE_EVENT_REMOVE};
	int fd = (int)syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK | UFFD_USER_MODE_ONLY);

	need(fd >= 0, "userfaultfd");
	need(ioctl(fd, UFFDIO_API, &api) == 0, "UFFDIO_API");
	return fd;
}

void *
rig_memory(int uffd, size_t bytes)
{
	struct uffdio_register reg = {.mode = UFFDIO_REGISTER_MODE_MISSING};
	void *memory =
	    mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	need(memory != MAP_FAILED, "mmap");
	/* A huge page would make neighbours present that nobody filled. */
	madvise(memory, bytes, MADV_NOHUGEPAGE);
	reg.range.start = (uintptr_t)memory;
	reg.range.len = bytes;
	need(ioctl(uffd, UFFDIO_REGISTER, &reg) == 0, "UFFDIO_REGISTER");
	return memory;
}

void
rig_put(int uffd, void *page, unsigned char byte)
{
	unsigned char bytes[RIG_PAGE];
	struct uffdio_copy op = {
	    .dst = (uintptr_t)page,
	    .src = (uintptr_t)bytes,
	    .len = RIG_PAGE,
	    .mode = UFFDIO_COPY_MODE_DONTWAKE,
	};

	memset(bytes, byte, sizeof(bytes));
	need(ioctl(uffd, UFFDIO_COPY, &op) == 0, "UFFDIO_COPY");
}

bool
rig_has(const void *page)
{
	unsigned char vec = 0;

	need(mincore((void *)(uintptr_t)page, RIG_PAGE, &vec) == 0, "mincore");
	return (vec & 1) != 0;
}

unsigned char
rig_byte(uint64_t page)
{
	return (unsigned char)(1 + page % 251);
}

bool
rig_page_is(const void *page, unsigned char byte)
{
	const volatile unsigned char *p = page;

	for (size_t i = 0; i < RIG_PAGE; i++)
		if (p[i] != byte)
			return false;
	return true;
}

int
rig_file(const char *directory, uint64_t nr_pages)
{
	unsigned char bytes[RIG_PAGE];
	char path[256];
	int fd;

	if (directory == NULL) {
		fd = memfd_create("image", MFD_CLOEXEC);
	} else {
		snprintf(path, sizeof(path), "%s/image.XXXXXX", directory);
		fd = mkostemp(path, O_CLOEXEC);
		if (fd >= 0)
			unlink(path);
	}
	need(fd >= 0, "image file");
	for (uint64_t p = 0; p < nr_pages; p++) {
		memset(bytes, rig_byte(p), sizeof(bytes));
		need(pwrite(fd, bytes, RIG_PAGE, (off_t)(p * RIG_PAGE)) == RIG_PAGE, "pwrite");
	}
	return fd;
}

void
rig_cut(int fd, uint64_t bytes)
{
	need(ftruncate(fd, (off_t)bytes) == 0, "ftruncate");
}

void
rig_region(struct rig *rig, uint64_t first, uint64_t nr)
{
	struct region row = {
	    .host_addr = (uintptr_t)rig->memory + first * RIG_PAGE,
	    .size_bytes = nr * RIG_PAGE,
	    .offset = first * RIG_PAGE,
	    .page_bytes = RIG_PAGE,
	};

	region_table_init(&rig->session.regions, &row, 1);
}

void
rig_open(struct rig *rig, uint64_t nr_pages)
{
	struct session *s = &rig->session;
	int r;

	memset(rig, 0, sizeof(*rig));
	pager_init(&rig->pager);
	rig->nr_pages = nr_pages;
	list_init(&s->link);
	s->pager = &rig->pager;
	s->number = 1;
	snprintf(s->name, sizeof(s->name), "rig");
	s->state = SESSION_SERVING;
	s->listener = s->connection = -1;
	fault_init_signal();
	s->uffd = rig_uffd();
	rig->memory = rig_memory(s->uffd, nr_pages * RIG_PAGE);
	s->image_bytes = nr_pages * RIG_PAGE;
	r = pagemap_create(s->image_bytes, &rig->map_fd);
	if (r == 0)
		r = pagemap_map(&s->map, rig->map_fd, true);
	if (r < 0)
		bail_out("page map: %s", strerror(-r));
	copylock_init(&s->copylock);
	iolane_init(&s->iolane);
	cluster_init(&s->cluster, 1, 16);
	rig_region(rig, 0, nr_pages);
}

void
rig_close(struct rig *rig)
{
	struct session *s = &rig->session;

	rig_stop(rig);
	image_put(s->image);
	pagemap_unmap(&s->map);
	fd_closep(&rig->map_fd);
	fd_closep(&s->uffd);
	iolane_fini(&s->iolane);
	copylock_fini(&s->copylock);
	munmap(rig->memory, rig->nr_pages * RIG_PAGE);
	pager_fini(&rig->pager);
}

void
rig_image(struct rig *rig, int fd, uint64_t bytes)
{
	int r = image_get(&rig->pager, fd, bytes, NULL, &rig->session.image);

	if (r < 0)
		bail_out("image: %s", strerror(-r));
	need(image_wait_index(rig->session.image, PATIENCE_S * NS_PER_S), "index");
}

void
rig_serve(struct rig *rig)
{
	int r = session_thread_start(&rig->session, fault_main);

	if (r < 0)
		bail_out("fault thread: %s", strerror(-r));
}

void
rig_stop(struct rig *rig)
{
	struct session *s = &rig->session;

	atomic_store(&s->completion.abort, true);
	atomic_store(&s->stop, true);
	iolane_stop(&s->iolane);
	fault_interrupt(s);
	rig_until(atomic_load(&s->threads) == 0);
}

bool
rig_posted(struct rig *rig, enum session_post what)
{
	rig_until(atomic_load(&rig->session.posted) & (unsigned)what);
	return true;
}

struct run
rig_run(const struct rig *rig, uint64_t first, uint64_t nr)
{
	return (struct run){&rig->session.regions.rows[0], first, nr};
}

enum page_state
rig_state(const struct rig *rig, uint64_t page)
{
	return page_get(&rig->session.map, page);
}

bool
rig_all(const struct rig *rig, uint64_t first, uint64_t nr, enum page_state state)
{
	for (uint64_t p = first; p < first + nr; p++)
		if (rig_state(rig, p) != state)
			return false;
	return true;
}

uint64_t
rig_counter(const struct rig *rig, enum counter counter)
{
	return pagemap_counter(&rig->session.map, counter);
}

bool
rig_wait_event(int uffd)
{
	struct pollfd p = {.fd = uffd, .events = POLLIN};
	int n = poll(&p, 1, PATIENCE_S * 1000);

	if (n != 1)
		bail_out("no event on the userfaultfd");
	return (p.revents & POLLIN) != 0;
}

size_t
rig_read(int uffd, struct uffd_msg *msgs, size_t max)
{
	ssize_t n;

	rig_wait_event(uffd);
	n = read(uffd, msgs, max * sizeof(*msgs));
	need(n > 0, "read");
	return (size_t)n / sizeof(*msgs);
}

static void *
touch_main(void *arg)
{
	struct guest *guest = arg;

	guest->got = *(volatile unsigned char *)guest->at;
	return NULL;
}

static void *
discard_main(void *arg)
{
	struct guest *guest = arg;

	need(madvise(guest->at, guest->bytes, MADV_DONTNEED) == 0, "madvise");
	return NULL;
}

void
guest_touch(struct guest *guest, void *at)
{
	*guest = (struct guest){.at = at, .bytes = 1};
	need(pthread_create(&guest->thread, NULL, touch_main, guest) == 0, "pthread_create");
}

void
guest_discard(struct guest *guest, void *at, size_t bytes)
{
	*guest = (struct guest){.at = at, .bytes = bytes};
	need(pthread_create(&guest->thread, NULL, discard_main, guest) == 0, "pthread_create");
}

void *
rig_join(pthread_t thread)
{
	struct timespec until;
	void *got = NULL;

	clock_gettime(CLOCK_REALTIME, &until);
	until.tv_sec += PATIENCE_S;
	if (pthread_timedjoin_np(thread, &got, &until) != 0)
		bail_out("a thread of the guest waits for ever");
	return got;
}

unsigned char
guest_join(struct guest *guest)
{
	rig_join(guest->thread);
	return guest->got;
}
