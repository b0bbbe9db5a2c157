/* SPDX-License-Identifier: Apache-2.0 */
#include "worker/picture.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include "common/clock.h"
#include "common/fault.h"
#include "common/fd.h"
#include "common/picture.h"
#include "common/scope.h"
#include "worker/fault.h"
#include "worker/page.h"
#include "worker/pager.h"
#include "worker/pause.h"
#include "worker/session.h"
#include "worker/uffd.h"

/* The fault thread answers at most one batch. */
#define HOLD_NS (20 * NS_PER_US)
/* A removal under way hinders for microseconds; a VMM that discards without end gets no
 * picture that the next one could start from. */
#define QUIET_NS    (20 * NS_PER_US)
#define QUIET_TRIES 2000U

#define EACH_BYTE(value) (UINT64_C(0x0101010101010101) * (value))

/* Under the hold. */
struct shot {
	struct session *s;
	struct picture *p;
	uint8_t *out; /* one byte for each page of each region */
	bool has_read_faults;
};

static uint64_t
nr_pages(const struct session *s)
{
	uint64_t n = 0;

	for (uint32_t i = 0; i < s->regions.nr; i++)
		n += region_nr_pages(&s->regions.rows[i]);
	return n;
}

/* What stands in the picture for each byte that the map can hold.  flags: what makes a page
 * dirty. */
static void
make_table(bool is_tracked, unsigned flags, uint8_t table[256])
{
	static const uint8_t by_state[] = {
	    [PAGE_ABSENT] = PICTURE_ABSENT,
	    /* Left by a worker that died: only the kernel knows what is there. */
	    [PAGE_FILLING] = PICTURE_DIRTY,
	    [PAGE_PRESENT] = PICTURE_CLEAN,
	    [PAGE_REMOVED] = PICTURE_REMOVED,
	};

	for (unsigned cell = 0; cell < 256; cell++) {
		table[cell] = by_state[cell & PAGE_STATE_MASK];
		if ((cell & flags) != 0 || (table[cell] == PICTURE_CLEAN && !is_tracked))
			table[cell] = PICTURE_DIRTY;
	}
}

/* --- The hold ---------------------------------------------------------------------- */

static void
hold(struct session *s)
{
	copylock_background(&s->copylock);
	/* It answers what it has read, and reads nothing more. */
	while (atomic_load_explicit(&s->answering, memory_order_acquire))
		pause_ns(HOLD_NS);
	(void)fault(FAULT_PICTURE_HELD);
}

static void
let_go(struct shot *shot)
{
	copylock_background_done(&shot->s->copylock);
	/* What we have read instead of the fault thread is raised again. */
	if (shot->has_read_faults)
		fault_wake_all(shot->s);
}

/* In the fault thread's place: nothing is protected while a removal is not read. */
static void
read_events(struct shot *shot)
{
	struct uffd_msg *msgs = fault_events(shot->s);
	int n = uffd_read(shot->s->uffd, msgs, PAGEMAP_EVENTS);

	if (n <= 0)
		return;
	if (fault_apply_removals(shot->s, msgs, (size_t)n) > 0)
		shot->has_read_faults = true;
	for (int i = 0; i < n; i++) {
		if (msgs[i].event != UFFD_EVENT_PAGEFAULT)
			msgs[i].event = 0;
	}
}

/* --- Protecting --------------------------------------------------------------------- */

static int
protect_run(struct shot *shot, const struct run *run)
{
	struct session *s = shot->s;
	int error = 0;

	for (unsigned i = 0; i < QUIET_TRIES && !atomic_load(&s->stop); i++) {
		switch (uffd_protect(s->uffd, run_host(run), run_bytes(run), true, &error)) {
		case UFFD_DONE:
			return 0;
		case UFFD_AGAIN:
			read_events(shot);
			pause_ns(QUIET_NS);
			break;
		default:
			return error != 0 ? -error : -EIO;
		}
	}
	return atomic_load(&s->stop) ? -ECANCELED : -EAGAIN;
}

static bool
has_flag(const struct pagemap *map, uint64_t page, unsigned flag)
{
	return (atomic_load_explicit(&map->pages[page], memory_order_relaxed) & flag) != 0;
}

/* The next run of pages of r with that flag at or after first; nr is 0 at the end. */
static struct run
next_flagged(const struct session *s, const struct region *r, uint64_t first, unsigned flag)
{
	uint64_t nr = region_nr_pages(r), base = region_map_first(r), p = first;
	struct run run = {.region = r};

	while (p < nr && !has_flag(&s->map, base + p, flag)) {
		if ((base + p) % 8 == 0 && p + 8 <= nr &&
		    (page_word(&s->map, base + p) & EACH_BYTE(flag)) == 0)
			p += 8;
		else
			p++;
	}
	run.first = p;
	while (p < nr && has_flag(&s->map, base + p, flag))
		p++;
	run.nr = p - run.first;
	return run;
}

static int
protect_dirty(struct shot *shot)
{
	struct session *s = shot->s;
	int r = 0;

	for (uint32_t i = 0; i < s->regions.nr; i++) {
		struct run run = {.region = &s->regions.rows[i]};

		do {
			run = next_flagged(s, run.region, run.first + run.nr, PAGE_F_DIRTY);
			if (run.nr > 0)
				r = protect_run(shot, &run);
		} while (run.nr > 0 && r == 0);
		if (r < 0)
			return r;
	}
	return 0;
}

/* take: dirty pages become taken ones; otherwise taken ones are so no more. */
static void
change_flags(struct session *s, bool take)
{
	unsigned flag = take ? PAGE_F_DIRTY : PAGE_F_TAKEN;

	for (uint32_t i = 0; i < s->regions.nr; i++) {
		struct run run = {.region = &s->regions.rows[i]};

		do {
			run = next_flagged(s, run.region, run.first + run.nr, flag);
			for (uint64_t p = 0; p < run.nr; p++) {
				if (take)
					page_take(&s->map, run_map(&run) + p);
				else
					page_clear_flag(&s->map, run_map(&run) + p, flag);
			}
		} while (run.nr > 0);
	}
}

/* --- The picture -------------------------------------------------------------------- */

static void
copy_map(struct shot *shot)
{
	const struct session *s = shot->s;
	uint8_t *out = shot->out;

	for (uint32_t i = 0; i < s->regions.nr; i++) {
		const struct region *r = &s->regions.rows[i];

		memcpy(out, (const void *)&s->map.pages[region_map_first(r)], region_nr_pages(r));
		out += region_nr_pages(r);
	}
}

/* The number first: a picture that a death keeps from anybody has one that nobody can name, so
 * that its taken pages go on being told. */
static void
take(struct shot *shot)
{
	struct pagemap_track *track = pagemap_track(&shot->s->map);

	shot->p->number = atomic_fetch_add(&track->picture, 1) + 1;
	(void)fault(FAULT_PICTURE_TAKEN);
	change_flags(shot->s, true);
	(void)fault(FAULT_PICTURE_ANSWER);
}

/* The client has the last picture: from now on dirty is what was written since.  The number
 * first: what a death leaves behind of the flags is told once more than need be. */
static void
confirm(struct session *s)
{
	atomic_store(&pagemap_track(&s->map)->confirmed, s->picture.since);
	change_flags(s, false);
}

static int
shoot(struct shot *shot, unsigned *ret_flags)
{
	struct session *s = shot->s;
	struct picture *p = shot->p;
	struct pagemap_track *track = pagemap_track(&s->map);
	uint64_t last = atomic_load(&track->picture);
	bool has_last;
	int r = 0;

	p->tracking = atomic_load(&track->tracking);
	p->base = atomic_load(&track->confirmed);
	if (p->is_new && p->tracking != PAGEMAP_TRACKED)
		return -EOPNOTSUPP;
	if (p->has_since && p->since != last && p->since != p->base)
		return -ESTALE;
	/* Where the two are the same, what is taken is what a death left of confirm(). */
	has_last = p->has_since && p->since == last && last != p->base;
	if (p->is_new)
		r = protect_dirty(shot);
	if (r < 0)
		return r;
	copy_map(shot);
	if (has_last)
		p->base = last;
	*ret_flags = PAGE_F_DIRTY | (has_last ? 0 : PAGE_F_TAKEN);
	if (p->is_new && has_last)
		confirm(s);
	if (p->is_new)
		take(shot);
	return 0;
}

static int
map_out(const struct picture *p, uint64_t bytes, uint8_t **ret)
{
	struct stat st;
	void *out;

	if (fstat(p->fd, &st) < 0)
		return -errno;
	if ((uint64_t)st.st_size != bytes)
		return -EPROTO;
	/* Its memory is there before anybody waits for us. */
	out = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, p->fd, 0);
	if (out == MAP_FAILED)
		return -errno;
	*ret = out;
	return 0;
}

static int
take_picture(struct session *s)
{
	struct shot shot = {.s = s, .p = &s->picture};
	uint64_t n = nr_pages(s);
	unsigned flags = 0;
	uint8_t table[256];
	int r = map_out(shot.p, n, &shot.out);

	if (r < 0)
		return r;
	hold(s);
	r = shoot(&shot, &flags);
	let_go(&shot);
	if (r == 0) {
		make_table(s->picture.tracking == PAGEMAP_TRACKED, flags, table);
		for (uint64_t i = 0; i < n; i++)
			shot.out[i] = table[shot.out[i]];
	}
	munmap(shot.out, n);
	return r;
}

static void *
picture_main(void *arg)
{
	struct session *s = arg;

	s->picture.error = -take_picture(s);
	session_post(s, SESSION_POST_PICTURE);
	session_thread_done(s);
	return NULL;
}

/* --- From the control thread --------------------------------------------------------- */

void
picture_init(struct session *s)
{
	s->picture.fd = -1;
}

void
picture_fini(struct session *s)
{
	fd_closep(&s->picture.fd);
}

int
picture_begin(struct session *s, const struct ipc_session_picture *msg, int *fd)
{
	struct picture *p = &s->picture;
	int r;

	if (s->state != SESSION_SERVING && s->state != SESSION_COMPLETING)
		return -EINVAL;
	if (p->seq != 0)
		return -EBUSY;
	*p = (struct picture){
	    .seq = msg->seq,
	    .fd = fd_take(fd),
	    .is_new = (msg->flags & IPC_PICTURE_NEW) != 0,
	    .has_since = (msg->flags & IPC_PICTURE_SINCE) != 0,
	    .since = msg->since,
	};
	r = session_thread_start(s, picture_main);
	if (r < 0) {
		p->seq = 0;
		*fd = fd_take(&p->fd);
	}
	return r;
}

void
picture_tell(struct session *s)
{
	struct ipc_msg msg = {.type = IPC_SESSION_PICTURED};
	struct picture *p = &s->picture;

	session_log(s, LOG_LEVEL_DEBUG, "picture number=%llu since=%llu error=%d",
	    (unsigned long long)p->number, (unsigned long long)p->base, p->error);
	msg.session_pictured.seq = p->seq;
	msg.session_pictured.session = s->number;
	msg.session_pictured.error = (uint32_t)p->error;
	msg.session_pictured.tracking = p->tracking;
	msg.session_pictured.base = p->base;
	msg.session_pictured.number = p->number;
	p->seq = 0;
	fd_closep(&p->fd);
	if (s->is_known && !p->is_stale)
		pager_send(s->pager, &msg, NULL, 0);
}
