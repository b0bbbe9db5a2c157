/* SPDX-License-Identifier: Apache-2.0 */
#include "worker/prefetch.h"

#include <errno.h>
#include <sched.h>
#include <stdlib.h>

#include "common/clock.h"
#include "common/fault.h"
#include "common/fd.h"
#include "common/hotlist.h"
#include "common/xalloc.h"
#include "worker/image.h"
#include "worker/page.h"
#include "worker/populate.h"
#include "worker/session.h"

/* How far the kernel is asked to read ahead of the copies, for how much in one call, and how
 * often: at first enough for storage to have something to choose from, then as the copies
 * follow, several times as fast. */
#define AHEAD_PAGES	  UINT64_C(4096)
#define AHEAD_CALL_PAGES  UINT64_C(512)
#define AHEAD_FIRST_CALLS 64U
#define AHEAD_CALLS	  8U
#define AHEAD_HEAD_PAGES  UINT64_C(8192)

/* Of an image that seems to be in memory, so many copies are made between two looks. */
#define LOOK_EVERY 8U

/* Times that a copy lets others go first while faults queue. */
#define GIVE_WAY_TRIES 200U

/* A page of the plan. */
struct cursor {
	uint64_t word;	/* of its run */
	uint64_t page;	/* in the run */
	uint64_t place; /* in the plan */
};

struct replay {
	struct sweep sweep;
	struct prefetch *prefetch;
	const struct trace *plan;
	uint64_t nr;		  /* words of the plan */
	struct cursor at;	  /* the next page */
	bool is_cold;		  /* something was not in memory */
	struct cursor next_ahead; /* the next page that the kernel is to read */
	uint64_t chunks;
	uint64_t before; /* pages that another worker has filled and that were not met yet */
};

static void
count(_Atomic uint64_t *counter, uint64_t n)
{
	atomic_fetch_add_explicit(counter, n, memory_order_relaxed);
}

static struct hotlist_run
run_at(const struct replay *rp, uint64_t word)
{
	return (struct hotlist_run){trace_word(rp->plan, word), trace_word(rp->plan, word + 1)};
}

/* --- Reading ahead ---------------------------------------------------------------- */

static uint64_t
step_ahead(struct cursor *next, struct hotlist_run run)
{
	uint64_t nr = run.nr - next->page;

	if (nr > AHEAD_CALL_PAGES)
		nr = AHEAD_CALL_PAGES;
	next->page += nr;
	next->place += nr;
	if (next->page >= run.nr) {
		next->word += 2;
		next->page = 0;
	}
	return nr;
}

static void
read_ahead_once(struct replay *rp)
{
	struct cursor *next = &rp->next_ahead;
	struct hotlist_run run = run_at(rp, next->word);
	uint64_t first = run.first + next->page, nr = step_ahead(next, run);

	image_read_ahead(rp->sweep.s->image, first * PAGE_BYTES, nr * PAGE_BYTES);
}

static bool
is_in_head(const struct replay *rp, const struct cursor *at)
{
	return at->word + 1 < rp->nr && at->place < AHEAD_HEAD_PAGES;
}

/* Where the one that reads the beginning ahead leaves off, or is not far from it. */
static void
skip_head(struct replay *rp)
{
	while (rp->prefetch->has_head && is_in_head(rp, &rp->next_ahead))
		step_ahead(&rp->next_ahead, run_at(rp, rp->next_ahead.word));
}

static void
read_ahead(struct replay *rp, uint64_t offset)
{
	unsigned calls = AHEAD_CALLS;

	if (!rp->is_cold) {
		if (rp->chunks++ % LOOK_EVERY != 0 || image_is_near(rp->sweep.s->image, offset))
			return;
		rp->is_cold = true;
		rp->next_ahead = rp->at;
		skip_head(rp);
		calls = AHEAD_FIRST_CALLS;
	}
	for (; calls > 0 && rp->next_ahead.word + 1 < rp->nr &&
	     rp->next_ahead.place < rp->at.place + AHEAD_PAGES;
	     calls--)
		read_ahead_once(rp);
}

/* --- Filling ---------------------------------------------------------------------- */

/* A processor that faults need is not ours to have. */
static void
give_way(struct replay *rp)
{
	const struct session *s = rp->sweep.s;

	for (unsigned i = 0; i < GIVE_WAY_TRIES && session_fault_get(s, COUNTER_FAULTS_ACTIVE) > 1;
	     i++)
		sched_yield();
}

/* The region that the byte of the image at offset is in, and where it ends there; or NULL, and
 * where the next one begins. */
static const struct region *
region_at(const struct session *s, uint64_t offset, uint64_t *ret_end)
{
	*ret_end = UINT64_MAX;
	for (uint32_t i = 0; i < s->regions.nr; i++) {
		const struct region *r = &s->regions.rows[i];

		if (offset >= r->offset && offset - r->offset < r->size_bytes) {
			*ret_end = r->offset + r->size_bytes;
			return r;
		}
		if (r->offset > offset && r->offset < *ret_end)
			*ret_end = r->offset;
	}
	return NULL;
}

/* Pages of a region, those that are the plan's next ones. */
struct piece {
	const struct region *region;
	uint64_t first, end; /* pages of the region */
	uint64_t low, high;  /* the same in pages of the plan: a huge page has 512 of those */
	uint64_t place;	     /* of the first in the plan */
	uint64_t sample;     /* as in struct prefetch */
};

/* How many pages of the plan are in these of the region. */
static uint64_t
planned(const struct piece *piece, uint64_t page, uint64_t nr)
{
	uint64_t each = piece->region->page_bytes / PAGE_BYTES;
	uint64_t low = page * each, high = (page + nr) * each;

	if (low < piece->low)
		low = piece->low;
	if (high > piece->high)
		high = piece->high;
	return high > low ? high - low : 0;
}

/* How many pages from page on can be filled at once. */
static uint64_t
fillable_from(const struct session *s, const struct piece *piece, uint64_t page)
{
	uint64_t base = region_map_first(piece->region), n = 0;
	uint64_t most = PREFETCH_CHUNK_BYTES / piece->region->page_bytes;

	if (most == 0)
		most = 1;
	while (n < most && page + n < piece->end &&
	    page_is_fillable(page_get(&s->map, base + page + n)) &&
	    !trace_is_left_out(piece->place + (page + n - piece->first), piece->sample))
		n++;
	return n;
}

/* How far it came is in *page. */
static int
fill_some(struct replay *rp, const struct piece *piece, uint64_t *page, uint64_t nr)
{
	struct run run = {piece->region, *page, nr};
	uint64_t done = 0;
	int r;

	give_way(rp);
	read_ahead(rp, run_offset(&run));
	r = populate_run(&rp->sweep, run, &done);
	if (r == -ENOENT) { /* the VMM took it away */
		count(&rp->plan->header->outside, planned(piece, *page, nr));
		*page += nr;
		return 0;
	}
	count(&rp->plan->header->filled, planned(piece, *page, done));
	*page += done;
	if (done > 0)
		populate_keep_pace(&rp->sweep);
	return r;
}

/* Somebody was faster: a fault, or the worker that replayed it before. */
static void
pass_over(struct replay *rp, uint64_t nr)
{
	uint64_t before = rp->before < nr ? rp->before : nr;

	rp->before -= before;
	if (nr > before)
		count(&rp->plan->header->present, nr - before);
}

static int
replay_piece(struct replay *rp, const struct piece *piece)
{
	struct trace_header *header = rp->plan->header;
	uint64_t page = piece->first, base = region_map_first(piece->region), nr;
	int r = 0;

	while (page < piece->end && r == 0) {
		if (populate_is_over(&rp->sweep))
			return -ECANCELED;
		if (trace_is_left_out(piece->place + (page - piece->first), piece->sample)) {
			count(&header->left, 1);
			page++;
		} else if (!page_is_fillable(page_get(&rp->sweep.s->map, base + page))) {
			pass_over(rp, planned(piece, page, 1));
			page++;
		} else if ((nr = fillable_from(rp->sweep.s, piece, page)) > 0) {
			r = fill_some(rp, piece, &page, nr);
		}
	}
	return r;
}

/* The pages [first, end) of the image, which are in one region or in none. */
static int
replay_part(struct replay *rp, const struct region *region, uint64_t first, uint64_t end)
{
	struct piece piece = {.region = region, .place = rp->at.place};

	if (region == NULL) {
		count(&rp->plan->header->outside, end - first);
		return populate_is_over(&rp->sweep) ? -ECANCELED : 0;
	}
	piece.low = first - region->offset / PAGE_BYTES;
	piece.high = end - region->offset / PAGE_BYTES;
	piece.first = (first * PAGE_BYTES - region->offset) / region->page_bytes;
	piece.end =
	    (end * PAGE_BYTES - region->offset + region->page_bytes - 1) / region->page_bytes;
	piece.sample = region->page_bytes == PAGE_BYTES ? rp->prefetch->sample : 0;
	return replay_piece(rp, &piece);
}

static int
replay_run(struct replay *rp, struct hotlist_run run)
{
	uint64_t first = run.first, end = (uint64_t)run.first + run.nr, stop;
	int r = 0;

	while (first < end && r == 0) {
		const struct region *region = region_at(rp->sweep.s, first * PAGE_BYTES, &stop);

		/* Where a region of an image that ends in half a page ends, does not matter. */
		stop = stop / PAGE_BYTES < end ? stop / PAGE_BYTES : end;
		r = replay_part(rp, region, first, stop);
		rp->at.page += stop - first;
		rp->at.place += stop - first;
		first = stop;
	}
	return r;
}

static int
replay(struct replay *rp)
{
	int r = 0;

	while (rp->at.word + 1 < rp->nr && r == 0) {
		r = replay_run(rp, run_at(rp, rp->at.word));
		rp->at.word += 2;
		rp->at.page = 0;
	}
	return r;
}

/* --- The thread ------------------------------------------------------------------- */

static enum trace_state
state_of(struct session *s, int error)
{
	if (error == 0)
		return TRACE_DONE;
	if (error == -ESRCH)
		session_post(s, SESSION_POST_GONE);
	if (error == -ECANCELED || error == -ESRCH)
		return TRACE_STOPPED;
	atomic_store(&s->prefetch->plan.header->error, (uint32_t)-error);
	return TRACE_FAILED;
}

static void *
prefetch_main(void *arg)
{
	struct session *s = arg;
	struct prefetch *prefetch = s->prefetch;
	struct trace_header *header = prefetch->plan.header;
	struct replay rp = {
	    .sweep = {.s = s,
		.abort = &prefetch->abort,
		.rate_bytes = prefetch->rate_bytes,
		.begin_ns = clock_now_ns(),
		.why = prefetch->why,
		.why_bytes = sizeof(prefetch->why)},
	    .prefetch = prefetch,
	    .plan = &prefetch->plan,
	    .nr = trace_nr(&prefetch->plan),
	};
	int r;

	copylock_idle_begin(&s->copylock);
	atomic_store(&header->began_ns, rp.sweep.begin_ns);
	rp.before = atomic_load(&header->filled);
	atomic_store(&header->present, 0);
	atomic_store(&header->outside, 0);
	atomic_store(&header->left, 0);
	atomic_store(&header->state, TRACE_RUNNING);
	(void)fault_named(FAULT_PREFETCH_BEGIN, s->name);
	r = replay(&rp);
	populate_end(&rp.sweep);
	atomic_store(&header->ended_ns, clock_now_ns());
	/* A worker that ends lets the next one go on. */
	if (!atomic_load(&s->stop))
		atomic_store(&header->state, state_of(s, r));
	session_post(s, SESSION_POST_PREFETCHED);
	copylock_idle_end(&s->copylock);
	session_thread_done(s);
	return NULL;
}

/* Thread: the beginning of the plan, while the other copies. */
static void *
head_main(void *arg)
{
	struct session *s = arg;
	struct prefetch *prefetch = s->prefetch;
	struct replay rp = {.sweep = {.s = s, .abort = &prefetch->abort},
	    .plan = &prefetch->plan,
	    .nr = trace_nr(&prefetch->plan)};

	while (is_in_head(&rp, &rp.next_ahead) && !populate_is_over(&rp.sweep))
		read_ahead_once(&rp);
	session_thread_done(s);
	return NULL;
}

int
prefetch_set(struct session *s, const struct ipc_session_trace *msg, int *fd)
{
	struct prefetch *prefetch;
	int r;

	if (s->prefetch != NULL)
		return -EEXIST;
	prefetch = xcalloc(1, sizeof(*prefetch));
	prefetch->fd = -1;
	r = trace_map(&prefetch->plan, *fd, TRACE_PLAN, true);
	if (r < 0) {
		free(prefetch);
		return r;
	}
	prefetch->fd = fd_take(fd);
	prefetch->rate_bytes = msg->rate_bytes;
	prefetch->sample = msg->sample;
	s->prefetch = prefetch;
	/* One that is being adopted is served at the end of the turn, or dropped. */
	if (s->state == SESSION_SERVING && s->adopt_seq == 0)
		prefetch_begin(s);
	return 0;
}

static bool
is_finished(const struct prefetch *prefetch)
{
	enum trace_state state = (enum trace_state)atomic_load(&prefetch->plan.header->state);

	return state != TRACE_WAITING && state != TRACE_RUNNING;
}

/* What is bounded by no rate but the storage's would not be within one that was asked for. */
static bool
wants_head(const struct session *s)
{
	const struct prefetch *prefetch = s->prefetch;

	return prefetch->rate_bytes == 0 && trace_nr(&prefetch->plan) >= 2 &&
	    !image_is_near(s->image, trace_word(&prefetch->plan, 0) * PAGE_BYTES);
}

void
prefetch_begin(struct session *s)
{
	struct prefetch *prefetch = s->prefetch;

	if (prefetch == NULL || prefetch->is_begun || is_finished(prefetch))
		return;
	copylock_calm(&s->copylock);
	prefetch->has_head = wants_head(s) && session_thread_start(s, head_main) == 0;
	if (session_thread_start(s, prefetch_main) < 0)
		session_log(s, LOG_LEVEL_WARNING, "no thread for its prefetch: it does without");
	else
		prefetch->is_begun = true;
}

void
prefetch_abort(struct session *s)
{
	if (s->prefetch != NULL)
		atomic_store(&s->prefetch->abort, true);
}

void
prefetch_report(const struct session *s)
{
	const struct trace_header *header = s->prefetch->plan.header;
	enum trace_state state = (enum trace_state)atomic_load(&header->state);
	bool failed = state == TRACE_FAILED;

	session_log(s, failed ? LOG_LEVEL_WARNING : LOG_LEVEL_INFO,
	    "prefetch %s, filled=%llu present=%llu outside=%llu left_out=%llu ms=%.1f%s%s",
	    failed			 ? "failed"
		: state == TRACE_DONE	 ? "done"
		: state == TRACE_STOPPED ? "stopped"
					 : "interrupted",
	    (unsigned long long)atomic_load(&header->filled),
	    (unsigned long long)atomic_load(&header->present),
	    (unsigned long long)atomic_load(&header->outside),
	    (unsigned long long)atomic_load(&header->left),
	    (double)(atomic_load(&header->ended_ns) - atomic_load(&header->began_ns)) /
		(double)NS_PER_MS,
	    failed ? ": " : "", failed ? s->prefetch->why : "");
}

void
prefetch_free(struct session *s)
{
	if (s->prefetch == NULL)
		return;
	trace_unmap(&s->prefetch->plan);
	fd_closep(&s->prefetch->fd);
	free(s->prefetch);
	s->prefetch = NULL;
}
