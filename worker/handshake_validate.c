/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <inttypes.h>

#include "worker/handshake.h"
#include "worker/reason.h"

#define HUGE_PAGE_BYTES UINT64_C(2097152)

/* No architecture gives a process more: 5-level page tables on x86-64.  Where less
 * is mapped, the kernel says so at the first ioctl. */
#define USER_END (UINT64_C(1) << 56)

#define refuse(reason, ...) reason_set((reason), HANDSHAKE_REASON_BYTES, __VA_ARGS__)

struct span {
	uint64_t start;
	uint64_t end;
	size_t index;
};

static int
check_alignment(const struct region *r, size_t i, char *reason)
{
	static const char *const text =
	    "region %zu: %s 0x%" PRIx64 " is not a multiple of its page size %" PRIu64;

	if (r->host_addr % r->page_bytes != 0)
		return refuse(reason, text, i, "base_host_virt_addr", r->host_addr, r->page_bytes);
	if (r->size_bytes % r->page_bytes != 0)
		return refuse(reason, text, i, "size", r->size_bytes, r->page_bytes);
	if (r->offset % r->page_bytes != 0)
		return refuse(reason, text, i, "offset", r->offset, r->page_bytes);
	return 0;
}

static int
check_region(const struct region *r, size_t i, uint64_t image_bytes, char *reason)
{
	uint64_t image_end = UINT64_MAX - UINT64_MAX % PAGE_BYTES;

	if (r->page_bytes != PAGE_BYTES && r->page_bytes != HUGE_PAGE_BYTES)
		return refuse(reason,
		    "region %zu: page size %" PRIu64 " is neither 4096 nor 2097152 bytes "
		    "(page_size_kib is in bytes too)",
		    i, r->page_bytes);
	if (r->size_bytes == 0)
		return refuse(reason, "region %zu: size is 0", i);
	if (check_alignment(r, i, reason) < 0)
		return -EINVAL;
	if (r->host_addr == 0)
		return refuse(reason, "region %zu: base_host_virt_addr is 0", i);
	if (r->host_addr > UINT64_MAX - r->size_bytes)
		return refuse(reason,
		    "region %zu: base_host_virt_addr 0x%" PRIx64 " + size %" PRIu64
		    " wraps around 2^64",
		    i, r->host_addr, r->size_bytes);
	if (r->host_addr + r->size_bytes > USER_END)
		return refuse(reason,
		    "region %zu: base_host_virt_addr 0x%" PRIx64 " + size %" PRIu64
		    " is outside the address space of a process",
		    i, r->host_addr, r->size_bytes);
	if (image_bytes < image_end)
		image_end = (image_bytes + PAGE_BYTES - 1) / PAGE_BYTES * PAGE_BYTES;
	if (r->offset > image_end || r->size_bytes > image_end - r->offset)
		return refuse(reason,
		    "region %zu: offset %" PRIu64 " + size %" PRIu64
		    " exceeds the image of %" PRIu64 " bytes",
		    i, r->offset, r->size_bytes, image_bytes);
	return 0;
}

/* By insertion, which keeps equals in order: qsort() allocates for many and asks sysinfo(),
 * which the sandbox does not forgive. */
static void
sort_by_start(struct span *spans, size_t n)
{
	for (size_t i = 1; i < n; i++) {
		struct span span = spans[i];
		size_t at = i;

		for (; at > 0 && spans[at - 1].start > span.start; at--)
			spans[at] = spans[at - 1];
		spans[at] = span;
	}
}

/* Sorted by start, two spans overlap only if two neighbours do. */
static int
check_overlap(struct span *spans, size_t n, const char *where, char *reason)
{
	sort_by_start(spans, n);
	for (size_t i = 1; i < n; i++) {
		const struct span *l = &spans[i - 1];
		const struct span *r = &spans[i];

		if (r->start < l->end)
			return refuse(reason,
			    "regions %zu and %zu overlap in the %s: "
			    "[0x%" PRIx64 ", 0x%" PRIx64 ") and [0x%" PRIx64 ", 0x%" PRIx64 ")",
			    l->index, r->index, where, l->start, l->end, r->start, r->end);
	}
	return 0;
}

int
handshake_validate(const struct region *r, size_t n, uint64_t image_bytes, char *reason)
{
	struct span spans[PAGEMAP_MAX_REGIONS];

	if (n == 0)
		return refuse(reason, "no region: the array is empty");
	if (n > PAGEMAP_MAX_REGIONS)
		return refuse(reason, "%zu regions; at most %u are served", n, PAGEMAP_MAX_REGIONS);
	for (size_t i = 0; i < n; i++)
		if (check_region(&r[i], i, image_bytes, reason) < 0)
			return -EINVAL;

	for (size_t i = 0; i < n; i++)
		spans[i] = (struct span){r[i].host_addr, r[i].host_addr + r[i].size_bytes, i};
	if (check_overlap(spans, n, "VMM's memory", reason) < 0)
		return -EINVAL;
	/* The page map has one entry for each page of the image, so a page of the image
	 * can be at one place only. */
	for (size_t i = 0; i < n; i++)
		spans[i] = (struct span){r[i].offset, r[i].offset + r[i].size_bytes, i};
	return check_overlap(spans, n, "image", reason);
}
