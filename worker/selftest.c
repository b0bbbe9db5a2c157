/* SPDX-License-Identifier: Apache-2.0 */
#include "worker/selftest.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <poll.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/fd.h"
#include "common/pagemap.h"
#include "worker/reason.h"

#define NR_PAGES   2U
#define TEST_BYTES ((size_t)NR_PAGES * PAGE_BYTES)
#define TIMEOUT_MS 5000
#define PATTERN	   0x5a

struct toucher {
	const unsigned char *memory;
	bool copied_right;
	bool zeroed_right;
};

static bool
page_is(const unsigned char *page, unsigned char byte)
{
	for (size_t i = 0; i < PAGE_BYTES; i++)
		if (((const volatile unsigned char *)page)[i] != byte)
			return false;
	return true;
}

/* A thread of its own: whoever touches the memory sleeps until the other fills it. */
static void *
touch(void *arg)
{
	struct toucher *t = arg;

	t->copied_right = page_is(t->memory, PATTERN);
	t->zeroed_right = page_is(t->memory + PAGE_BYTES, 0);
	return NULL;
}

static void
selftest_close(struct selftest *t)
{
	if (t->memory != NULL)
		munmap(t->memory, TEST_BYTES);
	t->memory = NULL;
	fd_closep(&t->uffd);
}

int
selftest_open(struct selftest *t)
{
	struct uffdio_api api = {.api = UFFD_API};
	struct uffdio_register reg = {.mode = UFFDIO_REGISTER_MODE_MISSING};
	void *memory;
	int rc;

	t->memory = NULL;
	/* The kernel lets everybody have one that sees user-mode faults only. */
	t->uffd = (int)syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK | UFFD_USER_MODE_ONLY);
	if (t->uffd < 0)
		return -errno;
	memory = mmap(NULL, TEST_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (memory != MAP_FAILED) {
		t->memory = memory;
		reg.range.start = (uintptr_t)memory;
		reg.range.len = TEST_BYTES;
		if (ioctl(t->uffd, UFFDIO_API, &api) == 0 &&
		    ioctl(t->uffd, UFFDIO_REGISTER, &reg) == 0)
			return 0;
	}
	rc = -errno;
	selftest_close(t);
	return rc;
}

static int
wait_fault(const struct selftest *t, uint64_t *ret_address)
{
	struct pollfd p = {.fd = t->uffd, .events = POLLIN};
	uint64_t deadline_ns = clock_now_ns() + TIMEOUT_MS * NS_PER_MS;
	struct uffd_msg msg;
	ssize_t n;

	for (;;) {
		uint64_t now_ns = clock_now_ns();

		if (now_ns >= deadline_ns)
			return -ETIMEDOUT;
		if (poll(&p, 1, (int)((deadline_ns - now_ns) / NS_PER_MS) + 1) < 0 &&
		    errno != EINTR)
			return -errno;
		n = read(t->uffd, &msg, sizeof(msg));
		if (n == (ssize_t)sizeof(msg) && msg.event == UFFD_EVENT_PAGEFAULT) {
			*ret_address = msg.arg.pagefault.address & ~(PAGE_BYTES - 1);
			return 0;
		}
		if (n >= 0)
			return -EPROTO;
		if (errno != EAGAIN && errno != EINTR)
			return -errno;
	}
}

static int
fill_copy(const struct selftest *t, uint64_t address)
{
	unsigned char page[PAGE_BYTES];
	struct uffdio_copy copy = {
	    .dst = address,
	    .src = (uintptr_t)page,
	    .len = PAGE_BYTES,
	};

	memset(page, PATTERN, sizeof(page));
	return ioctl(t->uffd, UFFDIO_COPY, &copy) < 0 ? -errno : 0;
}

static int
fill_zero(const struct selftest *t, uint64_t address)
{
	struct uffdio_zeropage zero = {.range = {.start = address, .len = PAGE_BYTES}};

	return ioctl(t->uffd, UFFDIO_ZEROPAGE, &zero) < 0 ? -errno : 0;
}

static int
serve(const struct selftest *t, char *why, size_t bytes)
{
	static const char *const names[NR_PAGES] = {"UFFDIO_COPY", "UFFDIO_ZEROPAGE"};

	for (size_t i = 0; i < NR_PAGES; i++) {
		uint64_t want = (uintptr_t)t->memory + i * PAGE_BYTES;
		uint64_t address = 0;
		int rc;

		do /* a page can be reported twice when a signal comes in between */
			rc = wait_fault(t, &address);
		while (rc == 0 && address < want && address >= (uintptr_t)t->memory);
		if (rc < 0) {
			reason_set(why, bytes, "no fault arrived: %s", strerror(-rc));
			return rc;
		}
		if (address != want) {
			reason_set(why, bytes, "a fault arrived for another page");
			return -EPROTO;
		}
		rc = i == 0 ? fill_copy(t, address) : fill_zero(t, address);
		if (rc < 0) {
			reason_set(why, bytes, "%s failed: %s", names[i], strerror(-rc));
			return rc;
		}
	}
	return 0;
}

/* Also wakes the thread when a fill failed: its page becomes an ordinary zero page. */
static int
unregister(const struct selftest *t, char *why, size_t bytes)
{
	struct uffdio_range range = {.start = (uintptr_t)t->memory, .len = TEST_BYTES};
	int rc = ioctl(t->uffd, UFFDIO_UNREGISTER, &range) < 0 ? -errno : 0;

	if (rc < 0)
		reason_set(why, bytes, "UFFDIO_UNREGISTER failed: %s", strerror(-rc));
	return rc;
}

int
selftest_run(struct selftest *t, char *why, size_t bytes)
{
	struct toucher toucher = {.memory = t->memory};
	pthread_t thread;
	int unregistered;
	int rc;

	rc = -pthread_create(&thread, NULL, touch, &toucher);
	if (rc < 0) {
		reason_set(why, bytes, "no thread could be started: %s", strerror(-rc));
		selftest_close(t);
		return rc;
	}
	rc = serve(t, why, bytes);
	unregistered = unregister(t, why, bytes);
	fd_closep(&t->uffd); /* lets go of the thread even if unregister failed */
	pthread_join(thread, NULL);
	if (rc == 0)
		rc = unregistered;
	if (rc == 0 && !(toucher.copied_right && toucher.zeroed_right)) {
		reason_set(why, bytes, "%s delivered wrong bytes",
		    toucher.copied_right ? "UFFDIO_ZEROPAGE" : "UFFDIO_COPY");
		rc = -EIO;
	}
	selftest_close(t);
	return rc;
}
