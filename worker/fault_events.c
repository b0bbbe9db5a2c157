/* SPDX-License-Identifier: Apache-2.0 */
/* Events that change the page map. */
#include <unistd.h>

#include "common/fault.h"
#include "worker/fault.h"
#include "worker/page.h"
#include "worker/session.h"
#include "worker/uffd.h"

/* Only pages that lie wholly in the range are gone; the kernel rounds the same way. */
static void
remove_in_region(struct session *s, const struct region *r, uint64_t start, uint64_t end)
{
	uint64_t r_end = r->host_addr + r->size_bytes;
	uint64_t low = start > r->host_addr ? start : r->host_addr;
	uint64_t high = end < r_end ? end : r_end;
	uint64_t first, last;

	if (low >= high)
		return;
	first = (low - r->host_addr + r->page_bytes - 1) / r->page_bytes;
	last = (high - r->host_addr) / r->page_bytes;
	for (uint64_t p = first; p < last; p++)
		page_step(&s->map, region_map_first(r) + p, PAGE_EV_REMOVE);
	if (last > first)
		session_fault_count(s, COUNTER_PAGES_REMOVED, last - first);
}

static void
apply_removal(struct session *s, uint64_t start, uint64_t end)
{
	for (uint32_t i = 0; i < s->regions.nr; i++)
		remove_in_region(s, &s->regions.rows[i], start, end);
}

size_t
fault_apply_removals(struct session *s, const struct uffd_msg *msgs, size_t nr)
{
	size_t faults = 0;

	for (size_t i = 0; i < nr; i++) {
		switch (msgs[i].event) {
		case UFFD_EVENT_PAGEFAULT:
			faults++;
			break;
		case UFFD_EVENT_REMOVE:
		case UFFD_EVENT_UNMAP:
			apply_removal(s, msgs[i].arg.remove.start, msgs[i].arg.remove.end);
			break;
		case UFFD_EVENT_FORK:
			/* We never ask for it.  A VMM that does gives us a descriptor. */
			close((int)msgs[i].arg.fork.ufd);
			break;
		default:
			break;
		}
	}
	return faults;
}

struct uffd_msg *
fault_events(struct session *s)
{
	_Static_assert(sizeof(struct uffd_msg) == PAGEMAP_EVENT_BYTES, "an event's room");

	return (struct uffd_msg *)(void *)s->map.header->events;
}

/* The last worker left it there, so it proves nothing: only removals count, and those are
 * cut to the regions.  Applied twice they do no harm: a page that has come back since is
 * there for the kernel, and the next time it is missing it is zeros either way.  Forgotten
 * only when it is applied: we can die too. */
size_t
fault_recover_removals(struct session *s)
{
	struct uffd_msg *msgs = fault_events(s);
	size_t removals = 0;

	for (size_t i = 0; i < PAGEMAP_EVENTS; i++) {
		struct uffd_msg msg = msgs[i];

		if (msg.event == UFFD_EVENT_REMOVE || msg.event == UFFD_EVENT_UNMAP) {
			(void)fault(FAULT_RECOVER_REMOVAL);
			apply_removal(s, msg.arg.remove.start, msg.arg.remove.end);
			removals++;
		}
		msgs[i].event = 0;
	}
	return removals;
}

void
fault_wake_all(struct session *s)
{
	for (uint32_t i = 0; i < s->regions.nr; i++)
		uffd_wake(s->uffd, s->regions.rows[i].host_addr, s->regions.rows[i].size_bytes);
}
