/* SPDX-License-Identifier: Apache-2.0 */
/* Faults that have to be tried again, with a kernel that says what the test wants: a
 * machine without memory, or a page that is refused for ever, cannot be had on demand.
 * The file under test is compiled here, with its calls for fills going to the test. */
#include <errno.h>

#include "worker/fill.h"
#include "worker/session.h"

static enum fill_result fake_fill_run(
    struct session *s, const struct run *run, const void *src, enum fill_why why, struct fill *ret);
static enum fill_result fake_fill_again(
    struct session *s, const struct run *page, struct fill *ret);
static void fake_wake_all(struct session *s);

#define fill_run       fake_fill_run
#define fill_again     fake_fill_again
#define fault_wake_all fake_wake_all
#include "worker/fault.c"
#undef fill_run
#undef fill_again
#undef fault_wake_all

#include "tests/unit/tap.h"
#include "tests/unit/worker_rig.h"

#define NR_PAGES 256U

static struct rig rig;
static struct fault_thread t;
static enum fill_result answers[NR_PAGES];
static unsigned asked[NR_PAGES];
static unsigned wakes;

static enum fill_result
fake_fill_run(
    struct session *s, const struct run *run, const void *src, enum fill_why why, struct fill *ret)
{
	(void)s;
	(void)src;
	(void)why;
	asked[run->first]++;
	*ret = (struct fill){.nr_done = answers[run->first] == FILL_DONE, .error = EINVAL};
	return answers[run->first];
}

static enum fill_result
fake_fill_again(struct session *s, const struct run *page, struct fill *ret)
{
	return fake_fill_run(s, page, NULL, FILL_FOR_FAULT, ret);
}

static void
fake_wake_all(struct session *s)
{
	(void)s;
	wakes++;
}

static void
set_up(void)
{
	rig_open(&rig, NR_PAGES);
	rig_image(&rig, rig_file(NULL, NR_PAGES), NR_PAGES * RIG_PAGE);
	cluster_init(&rig.session.cluster, 1, 1);
	t = (struct fault_thread){.s = &rig.session};
	for (unsigned p = 0; p < NR_PAGES; p++) {
		answers[p] = FILL_DONE;
		asked[p] = 0;
	}
	wakes = 0;
}

static uint64_t
addr(uint64_t page)
{
	return (uintptr_t)rig.memory + page * RIG_PAGE;
}

/* The test moves the clock: what is not due yet is due in centuries. */
static void
make_all(uint64_t due_ns)
{
	for (size_t i = 0; i < t.nr_deferred; i++)
		t.deferred[i].due_ns = due_ns;
}

static void
make_due(void)
{
	make_all(0);
}

static void
test_once(void)
{
	set_up();
	answers[3] = FILL_NO_MEMORY;
	for (unsigned i = 0; i < 1000; i++)
		answer(&t, addr(3) + i);
	ok(t.nr_deferred == 1 && asked[3] == 1 && t.wake_ns == 0,
	    "a page that faults a thousand times is asked for and deferred once");
	make_all(UINT64_MAX);
	retry_deferred(&t);
	is_int(asked[3], 1, "not before its time");
	make_due();
	answers[3] = FILL_DONE;
	retry_deferred(&t);
	ok(asked[3] == 2 && t.nr_deferred == 0, "then again, and that is all");
	rig_close(&rig);
}

/* Of a huge page: the kernel says that it is there, and perhaps it is. */
static void
test_maybe(void)
{
	set_up();
	answers[3] = FILL_MAYBE;
	answer(&t, addr(3));
	ok(t.nr_deferred == 1, "a page that may be there is deferred");
	make_due();
	retry_deferred(&t);
	ok(asked[3] == 1 && t.nr_deferred == 0, "and forgotten, unless it faults again");
	answer(&t, addr(3));
	for (unsigned i = 0; i < 1000; i++)
		answer(&t, addr(3));
	is_int(asked[3], 2, "then it waits, however often it faults");
	make_due();
	retry_deferred(&t);
	ok(asked[3] == 3 && t.nr_deferred == 1, "and is tried again");
	for (unsigned i = 0; i < 10; i++) {
		answer(&t, addr(3));
		make_due();
		retry_deferred(&t);
	}
	ok(rig_posted(&rig, SESSION_POST_FILL_ALARM), "which becomes an alarm");
	rig_close(&rig);
}

static void
test_back_off(void)
{
	static const uint64_t want_ms[] = {1, 2, 4, 8, 16, 32, 64, 100, 100};
	bool right = true, quiet = true;

	set_up();
	answers[3] = FILL_NO_MEMORY;
	answer(&t, addr(3));
	for (size_t i = 0; i < sizeof(want_ms) / sizeof(want_ms[0]); i++) {
		uint64_t now_ns = clock_now_ns();

		right = right && t.nr_deferred == 1 &&
		    t.deferred[0].wait_ns == want_ms[i] * NS_PER_MS &&
		    t.deferred[0].due_ns <= now_ns + t.deferred[0].wait_ns;
		quiet = quiet && (i >= 8 || atomic_load(&rig.session.posted) == 0);
		make_due();
		retry_deferred(&t);
	}
	ok(right, "without memory: from 1 ms by doubling to 100 ms");
	ok(quiet && atomic_load(&rig.session.posted) == SESSION_POST_FILL_ALARM,
	    "and an alarm when that does not end");
	answers[3] = FILL_DONE;
	make_due();
	retry_deferred(&t);
	answers[3] = FILL_AGAIN;
	answer(&t, addr(3));
	is_int(t.deferred[0].wait_ns, 20 * NS_PER_US, "a new fault begins anew");
	rig_close(&rig);
}

/* One page that the kernel refuses for ever, beside others that wait for microseconds. */
static void
test_no_mixing(void)
{
	struct timespec wait;

	set_up();
	answers[3] = FILL_FAILED;
	answers[4] = FILL_AGAIN;
	answer(&t, addr(3));
	is_int(atomic_load(&rig.session.posted), SESSION_POST_FILL_ALARM, "refused: alarm");
	is_int(atomic_load(&rig.session.alarm_error), EINVAL, "with its reason");
	answer(&t, addr(4));
	wait = until_due(&t);
	ok(wait.tv_sec == 0 && (uint64_t)wait.tv_nsec <= 20 * NS_PER_US,
	    "a short wait is not lengthened by a long one");
	make_all(UINT64_MAX);
	for (size_t i = 0; i < t.nr_deferred; i++)
		if (t.deferred[i].addr == addr(4))
			t.deferred[i].due_ns = 0;
	answers[4] = FILL_DONE;
	retry_deferred(&t);
	ok(asked[4] == 2 && asked[3] == 1 && t.nr_deferred == 1, "only what is due is asked for");
	rig_close(&rig);
}

static void
test_forgotten(void)
{
	set_up();
	for (unsigned p = 0; p < DEFERRED_MAX; p++)
		answers[p] = FILL_NO_MEMORY;
	for (unsigned p = 0; p < DEFERRED_MAX; p++)
		answer(&t, addr(p));
	ok(t.nr_deferred == DEFERRED_MAX && t.wake_ns == 0, "as many as fit");
	answers[200] = FILL_NO_MEMORY;
	answer(&t, addr(200));
	ok(t.nr_deferred == DEFERRED_MAX && t.wake_ns != 0,
	    "one more is forgotten, but not for good");
	make_all(UINT64_MAX);
	t.wake_ns = UINT64_MAX;
	retry_deferred(&t);
	is_int(wakes, 0, "nobody is woken at once");
	make_due();
	for (unsigned p = 0; p < DEFERRED_MAX; p++)
		answers[p] = FILL_DONE;
	retry_deferred(&t);
	ok(t.nr_deferred == 0 && wakes == 1 && t.wake_ns == 0,
	    "everybody is when there is room again");
	retry_deferred(&t);
	is_int(wakes, 1, "once");
	rig_close(&rig);
}

static void
test_forgotten_while_full(void)
{
	struct timespec wait;

	set_up();
	for (unsigned p = 0; p <= DEFERRED_MAX; p++)
		answers[p] = FILL_FAILED;
	for (unsigned p = 0; p <= DEFERRED_MAX; p++)
		answer(&t, addr(p));
	t.wake_ns = 1;
	wait = until_due(&t);
	ok(wait.tv_sec == 0 && wait.tv_nsec == 0, "the wait ends when the wake is due");
	retry_deferred(&t);
	ok(wakes == 1 && t.nr_deferred == DEFERRED_MAX,
	    "pages that are refused for ever do not keep the others asleep");
	answer(&t, addr(100));
	is_int(asked[100], 1, "who comes back gets a try");
	answer(&t, addr(DEFERRED_MAX));
	ok(t.wake_ns != 0, "or is forgotten again, until the next wake");
	rig_close(&rig);
}

static void
test_outcomes(void)
{
	set_up();
	answers[1] = FILL_STALE;
	answers[2] = FILL_NO_RANGE;
	answers[3] = FILL_GONE;
	for (unsigned p = 1; p <= 3; p++)
		answer(&t, addr(p));
	is_int(t.nr_deferred, 0, "what another try cannot change is not deferred");
	is_int(atomic_load(&rig.session.posted), SESSION_POST_GONE, "a VMM that is gone is told");
	page_step(&rig.session.map, 7, PAGE_EV_REMOVE);
	answers[7] = FILL_FAILED;
	answer(&t, addr(7));
	ok(t.nr_deferred == 1 && atomic_load(&rig.session.alarm_error) == EINVAL,
	    "zeros that are refused raise the alarm with its reason too");
	rig_close(&rig);
}

int
main(void)
{
	test_once();
	test_maybe();
	test_back_off();
	test_no_mixing();
	test_forgotten();
	test_forgotten_while_full();
	test_outcomes();
	return done();
}
