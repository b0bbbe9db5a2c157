/* SPDX-License-Identifier: Apache-2.0 */
#include "worker/recorder.h"

#include <linux/userfaultfd.h>
#include <stdlib.h>

#include "common/fd.h"
#include "common/xalloc.h"
#include "worker/page.h"
#include "worker/session.h"

static void
destroy(struct recorder *recorder)
{
	if (recorder == NULL)
		return;
	trace_unmap(&recorder->trace);
	fd_closep(&recorder->fd);
	free(recorder);
}

/* The fault thread uses it under the copy lock only. */
static void
exchange(struct session *s, struct recorder *recorder)
{
	struct recorder *before;

	copylock_demand(&s->copylock);
	before = atomic_exchange(&s->recorder, recorder);
	copylock_demand_done(&s->copylock);
	destroy(before);
}

int
recorder_start(struct session *s, int *fd)
{
	struct recorder *recorder = xcalloc(1, sizeof(*recorder));
	int r;

	recorder->fd = -1;
	r = trace_map(&recorder->trace, *fd, TRACE_RECORDING, true);
	if (r < 0) {
		destroy(recorder);
		return r;
	}
	recorder->fd = fd_take(fd);
	exchange(s, recorder);
	return 0;
}

void
recorder_stop(struct session *s)
{
	if (atomic_load(&s->recorder) != NULL)
		exchange(s, NULL);
}

static void
note(struct session *s, struct recorder *recorder, uint64_t addr)
{
	struct run page = {.region = region_find(&s->regions, addr), .nr = 1};

	if (page.region == NULL)
		return;
	page.first = (addr - page.region->host_addr) / page.region->page_bytes;
	/* Otherwise zeros answer it, whatever the image has. */
	if (page_is_fillable(page_get(&s->map, run_map(&page))))
		trace_note(&recorder->trace, (uint32_t)(run_offset(&page) / PAGE_BYTES));
}

void
recorder_note(struct session *s, const struct uffd_msg *msgs, size_t nr)
{
	struct recorder *recorder = atomic_load_explicit(&s->recorder, memory_order_relaxed);

	if (recorder == NULL)
		return;
	for (size_t i = 0; i < nr; i++) {
		if (msgs[i].event == UFFD_EVENT_PAGEFAULT)
			note(s, recorder, msgs[i].arg.pagefault.address);
	}
}
