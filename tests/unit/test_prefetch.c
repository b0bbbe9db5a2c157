/* SPDX-License-Identifier: Apache-2.0 */
/* Recording faults into a trace and replaying a plan, alone and under fire. */
#include "worker/prefetch.h"

#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

#include "common/fd.h"
#include "tests/unit/tap.h"
#include "tests/unit/worker_rig.h"
#include "worker/image.h"
#include "worker/recorder.h"

#define NR_PAGES 400U

static struct rig rig;

static unsigned char *
guest_page(uint64_t page)
{
	return rig.memory + page * RIG_PAGE;
}

static void
set_up(void)
{
	rig_open(&rig, NR_PAGES);
	rig_image(&rig, rig_file(NULL, NR_PAGES), NR_PAGES * RIG_PAGE);
}

static void
tear_down(void)
{
	rig_stop(&rig);
	recorder_stop(&rig.session);
	prefetch_free(&rig.session);
	rig_close(&rig);
}

static int
new_trace(enum trace_kind kind, uint64_t room, const uint32_t *words, uint64_t nr)
{
	int fd;

	if (trace_create(kind, room, words, nr, &fd) < 0)
		abort();
	return fd;
}

/* --- Recording -------------------------------------------------------------------- */

/* A trace that the test sees too. */
static struct trace
record(uint64_t room)
{
	int fd = new_trace(TRACE_RECORDING, room, NULL, 0);
	struct trace trace;

	if (trace_map(&trace, fd, TRACE_RECORDING, false) < 0)
		abort();
	is_int(recorder_start(&rig.session, &fd), 0, "recording");
	is_int(fd, -1, "takes the descriptor");
	return trace;
}

static void
touch(uint64_t page)
{
	struct guest guest;

	guest_touch(&guest, guest_page(page));
	guest_join(&guest);
}

static void
test_record(void)
{
	static const uint32_t want[] = {9, 3, 4, 200};
	struct trace trace;
	struct guest guest;
	bool same = true;

	set_up();
	rig_serve(&rig);
	touch(100);
	trace = record(4);
	for (size_t i = 0; i < 4; i++)
		touch(want[i]);
	rig_until(trace_nr(&trace) == 4);
	for (size_t i = 0; i < 4; i++)
		same = same && trace_word(&trace, i) == want[i];
	ok(same, "the pages of faults, in their order");
	ok(rig_state(&rig, 10) == PAGE_ABSENT && rig_state(&rig, 5) == PAGE_ABSENT,
	    "each filled its own page alone");
	guest_discard(&guest, guest_page(3), RIG_PAGE);
	guest_join(&guest);
	touch(3);
	touch(50);
	is_int(trace_nr(&trace), 4, "no more than there is room for");
	recorder_stop(&rig.session);
	touch(60);
	trace_unmap(&trace);
	tear_down();
}

/* A page that reads as zeros is no page of the image. */
static void
test_record_removed(void)
{
	struct trace trace;
	struct guest guest;

	set_up();
	rig_serve(&rig);
	trace = record(100);
	touch(7);
	guest_discard(&guest, guest_page(7), RIG_PAGE);
	guest_join(&guest);
	touch(7);
	touch(8);
	rig_until(trace_nr(&trace) >= 2);
	ok(trace_nr(&trace) == 2 && trace_word(&trace, 1) == 8, "a removed page is not recorded");
	trace_unmap(&trace);
	tear_down();
}

/* The recorder is exchanged while faults come in. */
static void
test_record_again(void)
{
	struct guest guests[NR_PAGES / 4];
	uint64_t nr = 0;

	set_up();
	rig_serve(&rig);
	for (size_t i = 0; i < NR_PAGES / 4; i++)
		guest_touch(&guests[i], guest_page(i * 4));
	for (unsigned i = 0; i < 20; i++) {
		struct trace trace = record(NR_PAGES);

		if (i % 3 == 0)
			recorder_stop(&rig.session);
		nr += trace_nr(&trace);
		trace_unmap(&trace);
	}
	for (size_t i = 0; i < NR_PAGES / 4; i++)
		is_int(guest_join(&guests[i]), rig_byte(i * 4), "page %zu", i * 4);
	ok(nr <= NR_PAGES / 4, "none is recorded twice: %u", (unsigned)nr);
	tear_down();
}

/* --- Replaying -------------------------------------------------------------------- */

static int
plan(const uint32_t *words, uint64_t nr, uint32_t sample)
{
	struct ipc_session_trace msg = {.session = 1, .kind = TRACE_PLAN, .sample = sample};
	int fd = new_trace(TRACE_PLAN, nr, words, nr);
	int r = prefetch_set(&rig.session, &msg, &fd);

	fd_closep(&fd);
	return r;
}

static const struct trace_header *
replayed(void)
{
	rig_posted(&rig, SESSION_POST_PREFETCHED);
	return rig.session.prefetch->plan.header;
}

static void
test_replay(void)
{
	static const uint32_t words[] = {300, 50, 5, 1, 7, 2, 340, 20};
	const struct trace_header *header;

	set_up();
	is_int(plan(words, 8, 0), 0, "a plan");
	header = replayed();
	is_int(atomic_load(&header->state), TRACE_DONE, "is replayed");
	ok(rig_all(&rig, 300, 60, PAGE_PRESENT) && rig_all(&rig, 7, 2, PAGE_PRESENT) &&
		rig_state(&rig, 5) == PAGE_PRESENT && rig_state(&rig, 6) == PAGE_ABSENT,
	    "what it names is there and nothing else");
	ok(rig_page_is(guest_page(5), rig_byte(5)) && rig_page_is(guest_page(359), rig_byte(359)),
	    "with the image's bytes");
	ok(atomic_load(&header->filled) == 63 && atomic_load(&header->present) == 10, "counted");
	is_int(plan(words, 8, 0), -EEXIST, "a session has one plan");
	tear_down();
}

/* What another worker wrote is no better than chance. */
static void
test_replay_nonsense(void)
{
	static const uint32_t words[] = {
	    UINT32_MAX, UINT32_MAX, 390, 100, 0, 0, UINT32_MAX - 1, 5, 10, 1, 77};
	const struct trace_header *header;

	set_up();
	is_int(plan(words, 11, 0), 0, "a plan of nonsense");
	header = replayed();
	is_int(atomic_load(&header->state), TRACE_DONE, "does no harm");
	ok(atomic_load(&header->filled) == 11 && rig_all(&rig, 390, 10, PAGE_PRESENT),
	    "what lies in the guest is filled");
	tear_down();
}

static void
test_replay_regions(void)
{
	static const uint32_t words[] = {90, 20, 0, 400};
	const struct trace_header *header;

	set_up();
	rig_region(&rig, 100, 50);
	is_int(plan(words, 4, 0), 0, "a plan that is larger than the guest");
	header = replayed();
	ok(rig_all(&rig, 100, 50, PAGE_PRESENT) && rig_state(&rig, 99) == PAGE_ABSENT &&
		rig_state(&rig, 150) == PAGE_ABSENT,
	    "is cut to its regions");
	is_int(atomic_load(&header->filled), 50, "filled");
	is_int(atomic_load(&header->outside), 10 + 350, "outside");
	is_int(atomic_load(&header->present), 10, "there already");
	tear_down();
}

static void
test_left_out(void)
{
	static const uint32_t words[] = {200, 30, 100, 100};
	const struct trace_header *header;

	set_up();
	is_int(plan(words, 4, 10), 0, "a plan with a sample");
	header = replayed();
	is_int(atomic_load(&header->left), 13, "one in ten is left out");
	ok(rig_state(&rig, 209) == PAGE_ABSENT && rig_state(&rig, 229) == PAGE_ABSENT &&
		rig_state(&rig, 109) == PAGE_ABSENT && rig_state(&rig, 110) == PAGE_PRESENT,
	    "by its place in the plan");
	tear_down();
}

/* The next worker begins anew, and does not count twice. */
static void
test_resumed(void)
{
	static const uint32_t words[] = {0, 100};
	const struct trace_header *header;
	struct session *s = &rig.session;
	struct ipc_session_trace msg = {.session = 1, .kind = TRACE_PLAN};
	int fd, again;

	set_up();
	fd = new_trace(TRACE_PLAN, 2, words, 2);
	again = fd_dup(fd);
	for (uint64_t p = 0; p < 40; p++)
		page_step(&s->map, p, PAGE_EV_REMOVE);
	if (prefetch_set(s, &msg, &fd) < 0)
		abort();
	rig_posted(&rig, SESSION_POST_PREFETCHED);
	header = s->prefetch->plan.header;
	ok(atomic_load(&header->filled) == 60 && atomic_load(&header->present) == 40, "one worker");
	rig_until(atomic_load(&s->threads) == 0);
	atomic_store(&s->prefetch->plan.header->state, TRACE_RUNNING); /* as if it had died */
	atomic_store(&s->posted, 0);
	prefetch_free(s);
	if (prefetch_set(s, &msg, &again) < 0)
		abort();
	rig_posted(&rig, SESSION_POST_PREFETCHED);
	header = s->prefetch->plan.header;
	ok(atomic_load(&header->filled) == 60 && atomic_load(&header->present) == 40,
	    "and another");
	rig_until(atomic_load(&s->threads) == 0);
	atomic_store(&s->posted, 0);
	prefetch_begin(s);
	is_int(atomic_load(&s->threads), 0, "what is done is not begun again");
	tear_down();
}

static void
test_aborted(void)
{
	static const uint32_t words[] = {0, NR_PAGES};
	struct ipc_session_trace msg = {.session = 1, .kind = TRACE_PLAN, .rate_bytes = 65536};
	int fd;

	set_up();
	fd = new_trace(TRACE_PLAN, 2, words, 2);
	if (prefetch_set(&rig.session, &msg, &fd) < 0)
		abort();
	rig_until(rig_counter(&rig, COUNTER_PAGES_BACKGROUND) > 0);
	prefetch_abort(&rig.session);
	is_int(atomic_load(&replayed()->state), TRACE_STOPPED, "told to stop");
	ok(rig_state(&rig, NR_PAGES - 1) == PAGE_ABSENT, "before its end");
	tear_down();
}

/* It is dropped if it cannot be served: nobody may use it yet. */
static void
test_adopted(void)
{
	static const uint32_t words[] = {0, 8};

	set_up();
	rig.session.adopt_seq = 1;
	is_int(plan(words, 2, 0), 0, "a plan for a session that is not served yet");
	ok(!rig.session.prefetch->is_begun && atomic_load(&rig.session.threads) == 0,
	    "is not begun");
	rig.session.adopt_seq = 0;
	prefetch_begin(&rig.session);
	is_int(atomic_load(&replayed()->filled), 8, "until it is");
	tear_down();
}

/* Faults and discards while it runs: nobody reads what is not the image's, or zeros. */
static void
test_under_fire(void)
{
	uint32_t words[NR_PAGES];
	struct guest guests[NR_PAGES / 5], discards[NR_PAGES / 20];
	unsigned wrong = 0;

	for (uint32_t i = 0; i < NR_PAGES / 2; i++) {
		words[i * 2] = NR_PAGES - 2 - i * 2;
		words[i * 2 + 1] = 2;
	}
	set_up();
	rig_serve(&rig);
	for (size_t i = 0; i < NR_PAGES / 20; i++)
		guest_discard(&discards[i], guest_page(i * 20), RIG_PAGE);
	if (plan(words, NR_PAGES, 7) < 0)
		abort();
	for (size_t i = 0; i < NR_PAGES / 5; i++)
		guest_touch(&guests[i], guest_page(i * 5));
	for (size_t i = 0; i < NR_PAGES / 20; i++)
		guest_join(&discards[i]);
	for (size_t i = 0; i < NR_PAGES / 5; i++) {
		unsigned char got = guest_join(&guests[i]);

		wrong += got != rig_byte(i * 5) && !(got == 0 && i % 4 == 0);
	}
	is_int(wrong, 0, "every page is the image's, or was discarded");
	is_int(atomic_load(&replayed()->state), TRACE_DONE, "it is done");
	for (uint64_t p = 0; p < NR_PAGES; p++)
		wrong += p % 20 != 0 && rig_state(&rig, p) == PAGE_PRESENT &&
		    !rig_page_is(guest_page(p), rig_byte(p));
	is_int(wrong, 0, "so are the pages that it filled");
	tear_down();
}

static void
test_bad_image(void)
{
	static const uint32_t words[] = {350, 10};
	int fd, keep;

	rig_open(&rig, NR_PAGES);
	fd = rig_file(NULL, NR_PAGES);
	keep = fd_dup(fd);
	rig_image(&rig, fd, NR_PAGES * RIG_PAGE);
	rig_cut(keep, 10 * RIG_PAGE);
	if (plan(words, 2, 0) < 0)
		abort();
	is_int(atomic_load(&replayed()->state), TRACE_FAILED, "an image that was cut");
	ok(atomic_load(&replayed()->error) == EIO && rig_all(&rig, 350, 10, PAGE_ABSENT) &&
		!rig_has(guest_page(350)),
	    "no page of zeros");
	close(keep);
	tear_down();
}

/* On storage, where nothing is in memory: as far as the file system lets go of it. */
static void
test_cold(void)
{
	uint32_t words[NR_PAGES];
	int fd, keep;
	unsigned wrong = 0;

	for (uint32_t i = 0; i < NR_PAGES / 2; i++) {
		words[i * 2] = (i * 37) % (NR_PAGES / 2) * 2;
		words[i * 2 + 1] = 1;
	}
	rig_open(&rig, NR_PAGES);
	fd = rig_file("/var/tmp", NR_PAGES);
	keep = fd_dup(fd);
	rig_image(&rig, fd, NR_PAGES * RIG_PAGE);
	if (fdatasync(keep) < 0 || posix_fadvise(keep, 0, 0, POSIX_FADV_DONTNEED) != 0)
		abort();
	printf(
	    "# the first page is %sin memory\n", image_is_near(rig.session.image, 0) ? "" : "not ");
	if (plan(words, NR_PAGES, 0) < 0)
		abort();
	is_int(atomic_load(&replayed()->state), TRACE_DONE, "an image on storage");
	for (uint64_t p = 0; p < NR_PAGES; p++)
		wrong += p % 2 == 0 ? !rig_page_is(guest_page(p), rig_byte(p))
				    : rig_state(&rig, p) != PAGE_ABSENT;
	is_int(wrong, 0, "every page of the plan is there, and no other");
	close(keep);
	tear_down();
}

int
main(void)
{
	test_record();
	test_record_removed();
	test_record_again();
	test_replay();
	test_replay_nonsense();
	test_replay_regions();
	test_left_out();
	test_resumed();
	test_aborted();
	test_adopted();
	test_under_fire();
	test_bad_image();
	test_cold();
	return done();
}
