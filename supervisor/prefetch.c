/* SPDX-License-Identifier: Apache-2.0 */
#include "supervisor/prefetch.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/clock.h"
#include "common/fd.h"
#include "common/scope.h"
#include "common/xalloc.h"
#include "supervisor/child.h"
#include "supervisor/hotcache.h"
#include "supervisor/opener.h"
#include "supervisor/recording.h"
#include "supervisor/session_impl.h"
#include "supervisor/supervisor.h"
#include "supervisor/why.h"

static const char *const mode_words[] = {
    [PREFETCH_UNSET] = "on",
    [PREFETCH_OFF] = "off",
    [PREFETCH_ON] = "on",
    [PREFETCH_SEQUENTIAL] = "sequential",
};

const char *
prefetch_mode_word(enum prefetch_mode mode)
{
	return mode_words[mode];
}

bool
prefetch_mode_read(const char *word, enum prefetch_mode *ret)
{
	for (int mode = PREFETCH_OFF; mode <= PREFETCH_SEQUENTIAL; mode++) {
		if (strcmp(word, mode_words[mode]) == 0) {
			*ret = (enum prefetch_mode)mode;
			return true;
		}
	}
	return false;
}

static struct prefetch *
prefetch_new(enum prefetch_mode mode)
{
	struct prefetch *prefetch = xcalloc(1, sizeof(*prefetch));

	prefetch->mode = mode;
	prefetch->fd = -1;
	return prefetch;
}

void
prefetch_free(struct session *session)
{
	struct prefetch *prefetch = session->prefetch;

	if (prefetch == NULL)
		return;
	trace_unmap(&prefetch->plan);
	fd_closep(&prefetch->fd);
	free(prefetch->left);
	free(prefetch->path);
	free(prefetch);
	session->prefetch = NULL;
}

void
prefetch_identify(const struct session *session, struct hotlist_image *ret)
{
	char made_up[SESSION_ID_BYTES];

	*ret = (struct hotlist_image){session->image.bytes, session->image.mtime_ns, ""};
	session_image_key(&session->image, made_up);
	_Static_assert(HOTLIST_KEY_BYTES == SESSION_ID_BYTES, "a cache key fits");
	/* One that we made up names the file, which other hosts do not have. */
	if (strcmp(session->cache_key, made_up) != 0)
		memcpy(ret->key, session->cache_key, sizeof(ret->key));
}

/* --- The plan -------------------------------------------------------------------- */

/* Borrowed until the next list is read. */
static int
read_list(const struct session *session, const char *path, int fd, const struct hotlist **ret,
    char *why, size_t why_bytes)
{
	struct hotcache **cache = &session->sup->hotcache;
	unsigned misses = hotcache_misses(*cache);
	struct hotlist_image want;
	const char *what = NULL;
	int r = hotcache_get(cache, fd, PREFETCH_GATHER_PAGES, ret, &what);

	if (r == -EINVAL)
		return why_set(why, why_bytes, r, "%s: %s", path, what);
	if (r < 0)
		return why_set(why, why_bytes, r, "%s: %s", path, strerror(-r));
	log_debug("hot list %s is %s", path, misses == hotcache_misses(*cache) ? "known" : "new");
	prefetch_identify(session, &want);
	what = hotlist_stale(&(*ret)->image, &want);
	if (what == NULL)
		return 0;
	return why_set(why, why_bytes, -ESTALE, "%s is stale: %s", path, what);
}

/* -ENOENT also where it was not asked for. */
static int
take_list(struct session *session, const char *path, const struct opener_outcome *outcome, int fd,
    const struct hotlist **ret)
{
	static const char image[] = "image ";
	struct prefetch *prefetch = session->prefetch;
	char why[sizeof(prefetch->reason)] = "";
	const char *what = outcome->why;
	int r = outcome->error;

	if (r == 0 && fd >= 0) {
		r = read_list(session, path, fd, ret, why, sizeof(why));
		what = why;
	} else if (r == 0) {
		return -ENOENT;
	}
	if (r == 0)
		return 0;
	/* One that opens an image says so, and what is meant here is no image. */
	if (strncmp(what, image, strlen(image)) == 0)
		what += strlen(image);
	return why_set(prefetch->reason, sizeof(prefetch->reason), r, "%s", what);
}

/* Pages left out that are looked at.  More say no more. */
#define MAX_LEFT 2048U

/* Kept apart: whoever asks for numbers, of all sessions at once perhaps, does not look at every
 * run, and of a list of millions of pages left out at some of them, spread evenly.  A plan that
 * a worker hands back can be anything, but has no more than it is to have. */
static void
find_left(struct prefetch *prefetch)
{
	uint64_t nr = trace_nr(&prefetch->plan), sample = prefetch->sample, place = 0;
	uint64_t all = sample != 0 ? prefetch->pages / sample : 0;
	size_t room;
	void *left = NULL;

	prefetch->left_weight = (all + MAX_LEFT - 1) / MAX_LEFT;
	sample *= prefetch->left_weight;
	room = sample != 0 ? (size_t)(prefetch->pages / sample) : 0;
	if (room == 0 || posix_memalign(&left, sizeof(left), room * sizeof(*prefetch->left)) != 0)
		return;
	free(prefetch->left);
	prefetch->left = left;
	prefetch->nr_left = 0;
	for (uint64_t i = 0; i + 1 < nr; i += 2) {
		uint64_t first = trace_word(&prefetch->plan, i);
		uint64_t pages = trace_word(&prefetch->plan, i + 1);
		uint64_t at = sample - 1 - place % sample; /* in the run, of the next one */

		for (; at < pages && prefetch->nr_left < room; at += sample)
			prefetch->left[prefetch->nr_left++] = (uint32_t)(first + at);
		place += pages;
	}
}

static int
make_plan(struct prefetch *prefetch, const struct hotlist *list)
{
	const struct hotlist_run *runs = list->runs;
	size_t nr = list->nr_runs * 2;
	int r;

	_Static_assert(
	    sizeof(*runs) == 2 * sizeof(uint32_t) && offsetof(struct hotlist_run, first) == 0,
	    "a run is two words of a plan");
	r = trace_create(TRACE_PLAN, nr, (const uint32_t *)(const void *)runs, nr, &prefetch->fd);
	if (r == 0)
		r = trace_map(&prefetch->plan, prefetch->fd, TRACE_PLAN, false);
	prefetch->pages = list->nr_pages;
	if (r == 0)
		find_left(prefetch);
	return r;
}

static void
plan(struct session *session, const struct hotlist *list)
{
	struct prefetch *prefetch = session->prefetch;
	int r = list->nr_runs > 0 ? make_plan(prefetch, list) : 0;

	if (r == 0)
		return;
	fd_closep(&prefetch->fd);
	snprintf(
	    prefetch->reason, sizeof(prefetch->reason), "no memory for the plan: %s", strerror(-r));
}

/* All of it, in the order of the image. */
static int
list_all(const struct session *session, struct hotlist *list)
{
	uint64_t pages, first = 0;
	int r = 0;

	hotlist_init(list);
	list->image.bytes = session->image.bytes;
	pages = hotlist_image_pages(&list->image);
	while (first < pages && r == 0) {
		uint64_t nr = pages - first < UINT32_MAX ? pages - first : UINT32_MAX;

		r = hotlist_add(list, first, nr);
		first += nr;
	}
	return r;
}

static void
complain(const struct session *session)
{
	session_log(session, LOG_LEVEL_WARNING,
	    "no hot list is replayed: %s; it is restored without", session->prefetch->reason);
}

/* Why nothing is to be prefetched at all, or NULL. */
static const char *
why_not(const struct session *session)
{
	if (!session->sup->options.prefetch)
		return "pagerd's option prefetch is off";
	return recording_runs(session) ? "the session is recorded" : NULL;
}

static char *
list_path(const struct session_request *req)
{
	return req->hot_list ? xstrdup(req->hot_list)
			     : xasprintf("%s" PREFETCH_SUFFIX, req->image_path);
}

static void
prepare_list(struct session *session, const struct session_request *req,
    const struct opener_outcome *outcome, int fd)
{
	struct prefetch *prefetch = session->prefetch;
	scoped_free char *path = list_path(req);
	const struct hotlist *list = NULL;
	struct hotlist all;
	int r = take_list(session, path, outcome, fd, &list);

	if (r == 0 && list != NULL) {
		prefetch->path = path;
		path = NULL;
		prefetch->sample = list->nr_pages >= PREFETCH_SAMPLE_OF ? PREFETCH_SAMPLE : 0;
		plan(session, list);
		return;
	}
	if (r != -ENOENT)
		complain(session);
	else if (!req->hot_list)
		prefetch->reason[0] = '\0'; /* nobody spoke of one */
	if (prefetch->mode != PREFETCH_SEQUENTIAL)
		return;
	if (list_all(session, &all) == 0)
		plan(session, &all);
	hotlist_fini(&all);
}

static enum prefetch_mode
mode_of(const struct session_request *req)
{
	return req->prefetch == PREFETCH_UNSET ? PREFETCH_ON : req->prefetch;
}

char *
prefetch_list_path(const struct supervisor *sup, const struct session_request *req)
{
	if (mode_of(req) == PREFETCH_OFF || !sup->options.prefetch || req->record)
		return NULL;
	return list_path(req);
}

void
prefetch_prepare(struct session *session, const struct session_request *req,
    const struct opener_outcome *outcome, int fd)
{
	enum prefetch_mode mode = mode_of(req);
	struct prefetch *prefetch = session->prefetch = prefetch_new(mode);
	const char *why;

	if (mode == PREFETCH_OFF)
		return;
	why = why_not(session);
	if (why != NULL) {
		prefetch->mode = PREFETCH_OFF;
		snprintf(prefetch->reason, sizeof(prefetch->reason), "%s", why);
		return;
	}
	prepare_list(session, req, outcome, fd);
}

/* --- The worker ------------------------------------------------------------------ */

static bool
has_plan(const struct session *session)
{
	return session->prefetch != NULL && session->prefetch->fd >= 0;
}

static bool
can_be_told(const struct session *session)
{
	return session->child != NULL && session->sent && !session_is_over(session) &&
	    (session->child->sandbox & IPC_CAN_TRACE) != 0;
}

void
prefetch_send(struct session *session)
{
	struct ipc_msg msg = {.type = IPC_SESSION_TRACE};
	int r = -ENOTSUP;

	if (!has_plan(session))
		return;
	if (can_be_told(session)) {
		msg.session_trace.seq = endpoint_next_seq(&session->child->ep);
		msg.session_trace.session = session->number;
		msg.session_trace.kind = TRACE_PLAN;
		msg.session_trace.rate_bytes = session->sup->options.prefetch_rate_bytes;
		msg.session_trace.sample = (uint32_t)session->prefetch->sample;
		r = child_send(session->child, &msg, &session->prefetch->fd, 1);
	}
	if (r < 0)
		session_log(session, LOG_LEVEL_WARNING, "worker v%s does not prefetch for it: %s",
		    session->version, r == -ENOTSUP ? "it is too old to know how" : strerror(-r));
}

static void
send_stop(const struct session *session)
{
	struct ipc_msg msg = {.type = IPC_SESSION_TRACE_STOP};

	if (!has_plan(session) || !can_be_told(session))
		return;
	msg.session_trace_stop.seq = endpoint_next_seq(&session->child->ep);
	msg.session_trace_stop.session = session->number;
	msg.session_trace_stop.kind = TRACE_PLAN;
	(void)child_send(session->child, &msg, NULL, 0);
}

void
prefetch_options_changed(struct supervisor *sup)
{
	struct list *pos;

	if (sup->options.prefetch)
		return;
	list_for_each(pos, &sup->sessions.all)
		send_stop(list_entry(pos, struct session, link));
}

int
prefetch_take(struct session *session, int *fd)
{
	struct prefetch *prefetch = session->prefetch;

	if (prefetch == NULL || prefetch->fd >= 0)
		return 0;
	if (trace_map(&prefetch->plan, *fd, TRACE_PLAN, false) < 0)
		return -EPROTO;
	prefetch->fd = fd_take(fd);
	find_left(prefetch);
	return 0;
}

/* --- Numbers --------------------------------------------------------------------- */

/* A fault filled it, and not with its neighbours from the plan. */
static bool
was_asked_for(const struct pagemap *map, uint64_t page)
{
	uint8_t cell;

	if (page >= map->nr_pages)
		return false;
	cell = atomic_load_explicit(&map->pages[page], memory_order_relaxed);
	return (cell & PAGE_STATE_MASK) == PAGE_PRESENT && (cell & PAGE_F_BACKGROUND) == 0;
}

/* Of the pages left out.  Only pages of 4096 bytes are, and those have their number's byte in
 * the map. */
static uint64_t
count_asked_for(const struct session *session)
{
	const struct prefetch *prefetch = session->prefetch;
	uint64_t n = 0;

	for (size_t i = 0; i < prefetch->nr_left && session->map.header != NULL; i++)
		n += was_asked_for(&session->map, prefetch->left[i]);
	return n * prefetch->left_weight;
}

static uint64_t
clipped(const _Atomic uint64_t *value, uint64_t most)
{
	uint64_t n = atomic_load_explicit(value, memory_order_relaxed);

	return n < most ? n : most;
}

bool
prefetch_numbers(const struct session *session, struct prefetch_numbers *ret)
{
	const struct prefetch *prefetch = session->prefetch;
	const struct trace_header *header;
	uint64_t began_ns, ended_ns;
	uint32_t state;

	if (prefetch == NULL || (prefetch->fd < 0 && prefetch->last.pages == 0))
		return false;
	*ret = prefetch->last;
	if (prefetch->fd < 0)
		return true;
	header = prefetch->plan.header;
	state = atomic_load(&header->state);
	*ret = (struct prefetch_numbers){
	    .state = state <= TRACE_FAILED ? (enum trace_state)state : TRACE_FAILED,
	    .error = (int)(atomic_load(&header->error) & 0xfff),
	    .pages = prefetch->pages,
	    .filled = clipped(&header->filled, prefetch->pages),
	    .present = clipped(&header->present, prefetch->pages),
	    .outside = clipped(&header->outside, prefetch->pages),
	    .left_out = clipped(&header->left, prefetch->pages),
	    .asked_for = count_asked_for(session),
	};
	began_ns = atomic_load(&header->began_ns);
	ended_ns = ret->state == TRACE_RUNNING ? clock_now_ns() : atomic_load(&header->ended_ns);
	if (began_ns != 0 && ended_ns > began_ns)
		ret->ms = (ended_ns - began_ns) / NS_PER_MS;
	return true;
}

void
prefetch_end(struct session *session)
{
	struct prefetch *prefetch = session->prefetch;
	struct prefetch_numbers last;

	if (!has_plan(session) || !prefetch_numbers(session, &last))
		return;
	if (last.state == TRACE_RUNNING || last.state == TRACE_WAITING)
		last.state = TRACE_STOPPED;
	prefetch->last = last;
	trace_unmap(&prefetch->plan);
	fd_closep(&prefetch->fd);
}

void
prefetch_add(struct prefetch_totals *totals, const struct session *session)
{
	struct prefetch_numbers n;

	if (!prefetch_numbers(session, &n))
		return;
	totals->sessions++;
	totals->filled += n.filled;
	totals->present += n.present;
	totals->outside += n.outside;
	totals->left_out += n.left_out;
	totals->asked_for += n.asked_for;
}
