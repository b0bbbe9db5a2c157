/* SPDX-License-Identifier: Apache-2.0 */
/* Which session is held when workers die: the one that kills them, and no other, which does not
 * wait for that either. */
#define FAKE_FLEET_OWN_TRIAL
#include "common/clock.h"
#include "tests/unit/session_rig.h"

#define TRIAL_MS 10000
#define TRIAL_NS ((TRIAL_MS + 1000) * NS_PER_MS) /* longer than one lasts */

/* Two workers take turns as the one of the version; the others are for trials. */
#define FIRST_TRIAL 2U

enum death {
	CRASHED,
	KILLED,	 /* from outside */
	UNKNOWN, /* perhaps from outside */
};

static struct life a, b;
static bool is_shared;	    /* suspects are given one worker together */
static struct child *trial; /* that was given last */
static unsigned nr_trials;

int
fleet_child_for_trial(
    struct fleet *fleet, const char *version, struct child **ret, char *why, size_t why_bytes)
{
	struct child *ordinary = fleet_next_child;

	(void)fleet;
	(void)version;
	(void)why;
	(void)why_bytes;
	if (!is_shared || trial == NULL) {
		trial = &rig_worker_start(FIRST_TRIAL + nr_trials++ % (RIG_WORKERS - FIRST_TRIAL))
			     ->child;
		trial->is_trial = true;
		fleet_next_child = ordinary;
	}
	*ret = trial;
	return 0;
}

static void
set_up(void)
{
	rig_start();
	rig.sup.options.trial_time_ms = TRIAL_MS;
	is_shared = false;
	trial = NULL;
	nr_trials = 0;
	a = life_serve(0, "a", false);
	b = life_serve(0, "b", false);
}

static void
tear_down(void)
{
	life_drop(&a);
	life_drop(&b);
	rig_stop();
}

/* That child dies.  If it was the version's there is another one. */
static void
child_dies(struct child *child, enum death how)
{
	struct rig_worker *old = &rig.workers[child->number];

	child->crashed = how == CRASHED;
	child->was_killed = how == KILLED;
	if (child == fleet_next_child)
		rig_worker_start(1 - child->number);
	if (child == trial)
		trial = NULL;
	endpoint_close(&old->far);
	endpoint_close(&child->ep);
	sessions_on_child_gone(&rig.sup.sessions, child, how == CRASHED ? "crashed" : "killed");
	rig_sweep();
}

static void
dies(const struct life *life, enum death how)
{
	child_dies(life->session->child, how);
}

static bool
is_placed(const struct life *life)
{
	return life->session->state == SESSION_ADOPTING && life->session->child != NULL;
}

static struct rig_worker *
worker_of(const struct life *life)
{
	return &rig.workers[life->session->child->number];
}

/* The worker has been asked to adopt it.  Returns the number of the question. */
static uint32_t
asked(const struct life *life)
{
	struct far_message m = rig_take(worker_of(life), IPC_SESSION_ADOPT);

	fd_close_all(m.fds, IPC_MAX_FDS);
	if (m.msg.session_adopt.session != life->number)
		ok(false, "it adopts %s", life->session->id);
	return m.msg.seq;
}

/* The worker answers. */
static void
answers(const struct life *life, int error)
{
	struct ipc_msg msg = {.type = IPC_SESSION_ADOPTED};

	msg.session_adopted.seq = asked(life);
	msg.session_adopted.session = life->number;
	msg.session_adopted.error = (uint32_t)error;
	rig_say(worker_of(life), &msg, NULL);
}

static void
adopted(const struct life *life)
{
	answers(life, 0);
}

/* It has been served for so much longer. */
static void
age(const struct life *life, uint64_t ns)
{
	life->session->adopted_ns -= ns;
	if (life->session->tried_ns != 0)
		life->session->tried_ns -= ns;
}

/* Crash after crash, while a is adopted and b never is.  is_shared: then one more, of both
 * on trial together. */
static void
make_suspect(void)
{
	for (unsigned i = 0; i < 3; i++) {
		dies(&a, CRASHED);
		if (i < 2)
			adopted(&a);
	}
}

static void
test_poison(void)
{
	struct child *of_a;

	set_up();
	make_suspect();
	ok(is_placed(&a) && is_placed(&b), "suspects are adopted at once, none waits");
	ok(a.session->child != b.session->child && a.session->child->is_trial &&
		b.session->child->is_trial,
	    "by workers of their own");
	adopted(&a);
	of_a = a.session->child;
	dies(&b, CRASHED);
	is_int(b.session->state, SESSION_HELD, "the one whose worker crashes again is held");
	ok(b.session->uffd >= 0, "with its memory");
	ok(a.session->state == SESSION_SERVING && a.session->child == of_a,
	    "the other notices nothing");
	is_int(session_retry(a.session, NULL, rig.why, sizeof(rig.why)), -EINVAL,
	    "what is served is not retried");
	is_int(session_retry(b.session, NULL, rig.why, sizeof(rig.why)), 0, "a retry");
	ok(is_placed(&b) && b.session->child->is_trial && b.session->child != of_a,
	    "is a trial of its own");
	dies(&b, CRASHED);
	is_int(b.session->state, SESSION_HELD, "and once is enough");
	session_close(b.session, SESSION_OUTCOME_CLOSED, "test");
	is_int(b.session->state, SESSION_CLOSED, "a close ends it");
	ok(holds_nothing(b.session), "and lets go of its memory");
	tear_down();
}

/* Another one that was adopted a moment ago may have done it as well. */
static void
test_shared(void)
{
	set_up();
	is_shared = true;
	make_suspect();
	ok(a.session->child == b.session->child, "two that share a worker on their trial");
	for (unsigned i = 0; i < 4; i++)
		dies(&a, CRASHED);
	ok(is_placed(&a) && is_placed(&b), "are not held, whatever becomes of it");
	is_shared = false;
	dies(&a, CRASHED);
	ok(a.session->child != b.session->child, "until they are apart");
	dies(&a, CRASHED);
	ok(a.session->state == SESSION_HELD && is_placed(&b), "then one is caught");
	tear_down();
}

/* It shares a worker with one that is known to be good. */
static void
test_beside_good(void)
{
	set_up();
	is_shared = true;
	make_suspect();
	adopted(&a);
	adopted(&b);
	age(&b, TRIAL_NS);
	dies(&a, CRASHED);
	ok(a.session->state == SESSION_HELD && is_placed(&b),
	    "one that has been served long enough is no excuse for another");
	is_int(b.session->blame, 7, "and is not suspect any more");
	tear_down();
}

static void
test_acquittal(void)
{
	set_up();
	rig.sup.options.trial_time_ms = 20;
	make_suspect();
	adopted(&a);
	wait_for(!a.session->is_on_trial);
	is_int(a.session->blame, 0, "a worker that survives acquits");
	ok(b.session->is_on_trial, "of those that it serves only");
	dies(&a, CRASHED);
	ok(is_placed(&a) && !a.session->child->is_trial,
	    "after the next death it is adopted like any other");
	rig.sup.options.heartbeat_interval_ms = 1;
	adopted(&b);
	b.session->child->heard_ns = 0;
	ev_timer_stop(rig.sup.loop, &b.session->trial);
	ev_timer_set(&b.session->trial, 0.0, 0.0);
	ev_timer_start(rig.sup.loop, &b.session->trial);
	wait_for(
	    !b.session->is_on_trial || ev_timer_remaining(rig.sup.loop, &b.session->trial) > 0.05);
	ok(b.session->is_on_trial, "a worker that has not been heard since acquits nobody");
	b.session->child->heard_ns = b.session->tried_ns + 20 * NS_PER_MS;
	wait_for(!b.session->is_on_trial);
	is_int(b.session->blame, 0, "until it is");
	tear_down();
}

/* What somebody else does to workers is no session's fault. */
static void
test_kills(void)
{
	set_up();
	for (unsigned i = 0; i < 50; i++) {
		dies(&a, KILLED);
		adopted(&a);
		adopted(&b);
	}
	is_int(a.session->blame + b.session->blame, 0, "fifty kills from outside blame nobody");
	dies(&a, CRASHED);
	adopted(&a);
	adopted(&b);
	age(&a, TRIAL_NS);
	dies(&a, KILLED);
	adopted(&a);
	adopted(&b);
	is_int(a.session->blame, 7, "nor do they acquit");
	dies(&a, CRASHED);
	is_int(a.session->blame, 7, "but the time before them counts");
	is_int(b.session->blame, 14, "where it was long enough");
	tear_down();
}

static void
test_unknown(void)
{
	set_up();
	for (unsigned i = 0; i < 20; i++) {
		dies(&a, UNKNOWN);
		adopted(&a);
		adopted(&b);
	}
	ok(a.session->state == SESSION_SERVING && b.session->state == SESSION_SERVING,
	    "twenty deaths that nobody knows the cause of hold nobody");
	age(&a, TRIAL_NS);
	dies(&a, UNKNOWN);
	is_int(a.session->blame, 1, "after a trial's time they begin to count anew");
	is_int(b.session->blame, 21, "and not before");
	ok(!a.session->child->is_trial && b.session->child->is_trial, "then it is a suspect");
	for (unsigned i = 0; i < 20; i++)
		dies(&b, UNKNOWN);
	is_int(b.session->state, SESSION_ADOPTING, "which may die of that again and again");
	dies(&b, UNKNOWN);
	is_int(b.session->state, SESSION_HELD, "before it is held");
	tear_down();
}

static void
test_refused(void)
{
	set_up();
	make_suspect();
	answers(&a, EIO);
	ok(!is_placed(&a) && !a.session->is_on_trial, "a suspect that is refused waits");
	adopted(&b);
	is_int(b.session->state, SESSION_SERVING, "and the other does not");
	sessions_on_child_ready(&rig.sup.sessions, b.session->child);
	ok(!is_placed(&a), "another worker for trials is no reason to try it again");
	a.session->not_before_ns = clock_now_ns();
	sessions_place_homeless(&rig.sup.sessions, false);
	ok(is_placed(&a) && a.session->child->is_trial, "it is tried again, on trial");
	tear_down();
}

/* What is refused again and again is tried again ever more seldom, or when there is another
 * worker. */
static void
test_back_off(void)
{
	uint64_t before = 0;

	set_up();
	session_close(b.session, SESSION_OUTCOME_CLOSED, "test");
	dies(&a, KILLED);
	for (unsigned i = 0; i < 12; i++) {
		uint64_t pause_ms = session_adopt_pause_ms(a.session);

		if (!(pause_ms >= 250 && pause_ms <= 30000 &&
			(pause_ms == before * 2 || i == 0 || pause_ms == 30000)))
			ok(false, "pause %u is %d ms", i, (int)pause_ms);
		before = pause_ms;
		answers(&a, EIO);
		sessions_place_homeless(&rig.sup.sessions, false);
		if (is_placed(&a))
			ok(false, "after refusal %u it is tried again at once", i);
		a.session->not_before_ns = clock_now_ns();
		sessions_place_homeless(&rig.sup.sessions, false);
		if (!is_placed(&a))
			ok(false, "after refusal %u and its pause it is not tried again", i);
	}
	is_int((intmax_t)before, 30000, "the pause grows up to a limit");
	answers(&a, EIO);
	sessions_place_homeless(&rig.sup.sessions, true);
	ok(is_placed(&a), "another worker is tried at once");
	adopted(&a);
	is_int(a.session->state, SESSION_SERVING, "and adopts it");
	is_int((intmax_t)session_adopt_pause_ms(a.session), 250, "then all is forgotten");
	tear_down();
}

static void
test_hung(void)
{
	set_up();
	dies(&a, CRASHED);
	adopted(&a);
	adopted(&b);
	is_int(a.session->blame, 7, "a crash counts");
	age(&a, 15 * NS_PER_S);
	age(&b, 15 * NS_PER_S);
	/* It was heard last soon after the adoption: it hangs since then, for all we know. */
	fleet_next_child->hung_ns = a.session->adopted_ns + NS_PER_S;
	dies(&a, CRASHED);
	is_int(a.session->blame, 14, "so does a hang that took long to be noticed");
	tear_down();
}

int
main(void)
{
	log_set_level(LOG_LEVEL_ERR);
	test_poison();
	test_shared();
	test_beside_good();
	test_acquittal();
	test_kills();
	test_unknown();
	test_refused();
	test_back_off();
	test_hung();
	return done();
}
