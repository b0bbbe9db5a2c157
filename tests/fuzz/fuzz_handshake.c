/* SPDX-License-Identifier: Apache-2.0 */
/* Whatever is accepted must be servable: every property of the regions is checked here
 * again, the slow and obvious way.  However the bytes are cut, the outcome is the same.
 *
 * The first byte chooses: bit 0 the memfd form, bits 1 and 2 the number of descriptors,
 * bits 3 to 5 the size of the image, bits 6 and 7 how the bytes are cut. */
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/fd.h"
#include "worker/handshake.h"

#define MAX_FDS	   3U
#define SMALL_PAGE UINT64_C(4096)
#define HUGE_PAGE  UINT64_C(2097152)

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const uint64_t image_sizes[8] = {0, 1, 4096, 8192, UINT64_C(2097152) * 3,
    UINT64_C(4294967296), UINT64_C(6442450945), UINT64_MAX};

static void
expect(bool held)
{
	if (!held)
		abort();
}

static bool
overlaps(uint64_t a, uint64_t b, uint64_t a_size, uint64_t b_size)
{
	return a <= b ? b - a < a_size : a - b < b_size;
}

static void
check_accepted(const struct handshake *h)
{
	const struct region *r = h->regions;

	expect(h->nr_regions >= 1 && h->nr_regions <= PAGEMAP_MAX_REGIONS);
	for (uint32_t i = 0; i < h->nr_regions; i++) {
		uint64_t page = r[i].page_bytes;

		expect(page == SMALL_PAGE || page == HUGE_PAGE);
		expect((r[i].host_addr | r[i].size_bytes | r[i].offset) % page == 0);
		expect(r[i].host_addr != 0 && r[i].size_bytes != 0);
		expect(r[i].host_addr < UINT64_C(1) << 56);
		expect(r[i].size_bytes <= (UINT64_C(1) << 56) - r[i].host_addr);
		/* Its last page, of 4 KiB, begins before the image ends. */
		expect(r[i].offset < h->image_bytes);
		expect(r[i].size_bytes - SMALL_PAGE < h->image_bytes - r[i].offset);
		for (uint32_t k = 0; k < i; k++) {
			expect(!overlaps(
			    r[i].host_addr, r[k].host_addr, r[i].size_bytes, r[k].size_bytes));
			expect(
			    !overlaps(r[i].offset, r[k].offset, r[i].size_bytes, r[k].size_bytes));
		}
	}
}

static void
check_refused(const struct handshake *h)
{
	size_t n = strnlen(h->reason, sizeof(h->reason));

	expect(n > 0 && n < sizeof(h->reason));
	for (size_t i = 0; i < n; i++)
		expect(h->reason[i] >= 0x20 && h->reason[i] <= 0x7e);
	expect(h->nr_regions == 0 && h->nr_fds == 0 && h->bytes == NULL);
	for (size_t i = 0; i < HANDSHAKE_MAX_FDS; i++)
		expect(h->fds[i] == -1);
}

/* Duplicates are the descriptors: what they are is not looked at here. */
static void
run(struct handshake *h, uint8_t choice, const uint8_t *bytes, size_t n, size_t step)
{
	size_t nr_fds = (choice >> 1) & 3;
	int fds[MAX_FDS];

	for (size_t i = 0; i < nr_fds; i++)
		expect((fds[i] = fd_dup(STDOUT_FILENO)) >= 0);
	handshake_init(h, image_sizes[(choice >> 3) & 7], choice & 1);
	handshake_feed(h, bytes, n < step ? n : step, fds, nr_fds);
	for (size_t i = 0; i < nr_fds; i++)
		expect(fds[i] == -1);
	for (size_t at = step; at < n; at += step)
		handshake_feed(h, bytes + at, n - at < step ? n - at : step, NULL, 0);
	handshake_eof(h);
	if (h->status == HANDSHAKE_DONE)
		check_accepted(h);
	else
		check_refused(h);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static const size_t steps[4] = {1, 2, 3, 17};
	struct handshake whole;
	struct handshake cut;

	if (size == 0)
		return 0;
	run(&whole, data[0], data + 1, size - 1, SIZE_MAX / 2);
	run(&cut, data[0], data + 1, size - 1, steps[data[0] >> 6]);
	expect(whole.status == cut.status);
	if (whole.status == HANDSHAKE_DONE) {
		expect(whole.nr_regions == cut.nr_regions && whole.nr_fds == cut.nr_fds);
		expect(memcmp(whole.regions, cut.regions, sizeof(whole.regions)) == 0);
		expect(whole.nr_fds == (data[0] & 1 ? 2U : 1U));
	}
	handshake_fini(&whole);
	handshake_fini(&cut);
	return 0;
}
