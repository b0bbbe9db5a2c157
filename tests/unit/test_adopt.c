/* SPDX-License-Identifier: Apache-2.0 */
/* Which session is held when workers die: the one that kills them, and no other. */
#include "common/clock.h"
#include "tests/unit/session_rig.h"

#define TRIAL_NS (600 * NS_PER_MS) /* longer than one lasts */

static struct life a, b;

static void
set_up(void)
{
	rig_start();
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

/* The worker that has the sessions dies, and there is another one. */
static void
die(bool crashed)
{
	unsigned next = (fleet_next_child->number + 1) % RIG_WORKERS;
	struct rig_worker *old = &rig.workers[fleet_next_child->number];

	old->child.crashed = crashed;
	rig_worker_start(next);
	endpoint_close(&old->far);
	endpoint_close(&old->child.ep);
	sessions_on_child_gone(&rig.sup.sessions, &old->child, crashed ? "crashed" : "killed");
	rig_sweep();
	a.worker = b.worker = &rig.workers[next];
}

static bool
is_placed(const struct life *life)
{
	return life->session->state == SESSION_ADOPTING && life->session->child != NULL;
}

/* The worker says that it has adopted what it was asked to. */
static void
adopted(struct life *life)
{
	struct far_message m = rig_take(life->worker, IPC_SESSION_ADOPT);
	struct ipc_msg msg = {.type = IPC_SESSION_ADOPTED};

	fd_close_all(m.fds, IPC_MAX_FDS);
	if (m.msg.session_adopt.session != life->number)
		ok(false, "it adopts %s", life->session->id);
	msg.session_adopted.seq = m.msg.seq;
	msg.session_adopted.session = life->number;
	rig_say(life->worker, &msg, NULL);
}

/* Its worker has survived it long enough. */
static void
wait_out_trial(const struct life *life)
{
	wait_for(!life->session->is_on_trial);
}

/* Crash after crash, while a is adopted and b never is. */
static void
make_suspect(void)
{
	for (unsigned i = 0; i < 3; i++) {
		die(true);
		if (i < 2)
			adopted(&a);
	}
}

static void
test_poison(void)
{
	set_up();
	make_suspect();
	ok(is_placed(&a) && !is_placed(&b), "suspects are adopted one at a time");
	adopted(&a);
	is_int(b.session->state, SESSION_ADOPTING, "the other waits");
	wait_out_trial(&a);
	is_int(a.session->blame, 0, "the first is acquitted");
	wait_for(is_placed(&b));
	ok(true, "then it is the other's turn");
	die(true);
	is_int(b.session->state, SESSION_HELD, "which is held for the next crash");
	ok(b.session->uffd >= 0, "with its memory");
	is_int(a.session->state, SESSION_ADOPTING, "the first moves on");
	adopted(&a);
	is_int(session_retry(a.session, NULL, rig.why, sizeof(rig.why)), -EINVAL,
	    "what is served is not retried");
	is_int(session_retry(b.session, NULL, rig.why, sizeof(rig.why)), 0, "a retry");
	ok(is_placed(&b), "is adopted");
	is_int(a.session->state, SESSION_SERVING, "beside one that is known to be good");
	a.session->adopted_ns -= TRIAL_NS;
	die(true);
	is_int(b.session->state, SESSION_HELD, "and once is enough");
	session_close(b.session, SESSION_OUTCOME_CLOSED, "test");
	is_int(b.session->state, SESSION_CLOSED, "a close ends it");
	ok(holds_nothing(b.session), "and lets go of its memory");
	tear_down();
}

/* Another one that was adopted a moment ago may have done it as well. */
static void
test_no_evidence(void)
{
	set_up();
	make_suspect();
	b.session->blame = 0; /* as of one that is new here */
	wait_for(is_placed(&b));
	die(true);
	ok(a.session->state != SESSION_HELD && b.session->state != SESSION_HELD,
	    "a crash with two of them: nobody is held");
	for (unsigned i = 0; i < 2; i++)
		die(true);
	ok(a.session->state != SESSION_HELD && b.session->state != SESSION_HELD,
	    "not after three of those");
	ok(is_placed(&a) && !is_placed(&b), "until they are adopted one by one");
	die(true);
	is_int(a.session->state, SESSION_HELD, "and one is caught");
	tear_down();
}

static void
test_kills(void)
{
	set_up();
	for (unsigned i = 0; i < 20; i++) {
		die(false);
		adopted(&a);
		adopted(&b);
	}
	ok(a.session->state == SESSION_SERVING && b.session->state == SESSION_SERVING,
	    "twenty kills within moments hold nobody");
	a.session->adopted_ns -= TRIAL_NS;
	die(false);
	is_int(a.session->blame, 1, "after a trial's time a kill begins to count anew");
	is_int(b.session->blame, 21, "and not before");
	tear_down();
}

static void
test_refused(void)
{
	set_up();
	make_suspect();
	struct far_message m = rig_take(a.worker, IPC_SESSION_ADOPT);
	struct ipc_msg msg = {.type = IPC_SESSION_ADOPTED};

	fd_close_all(m.fds, IPC_MAX_FDS);
	msg.session_adopted.seq = m.msg.seq;
	msg.session_adopted.session = a.number;
	msg.session_adopted.error = EIO;
	rig_say(a.worker, &msg, NULL);
	wait_for(is_placed(&b));
	ok(true, "a suspect that is refused leaves the trial to the other");
	tear_down();
}

/* The worker will not have it. */
static void
deny(struct life *life)
{
	struct far_message m = rig_take(life->worker, IPC_SESSION_ADOPT);
	struct ipc_msg msg = {.type = IPC_SESSION_ADOPTED};

	fd_close_all(m.fds, IPC_MAX_FDS);
	msg.session_adopted.seq = m.msg.seq;
	msg.session_adopted.session = m.msg.session_adopt.session;
	msg.session_adopted.error = EIO;
	rig_say(life->worker, &msg, NULL);
}

/* What is refused again and again is tried again ever more seldom, or when there is another
 * worker. */
static void
test_back_off(void)
{
	uint64_t before = 0;

	set_up();
	session_close(b.session, SESSION_OUTCOME_CLOSED, "test");
	die(false);
	for (unsigned i = 0; i < 12; i++) {
		uint64_t pause_ms = session_adopt_pause_ms(a.session);

		if (!(pause_ms >= 250 && pause_ms <= 30000 &&
			(pause_ms == before * 2 || i == 0 || pause_ms == 30000)))
			ok(false, "pause %u is %d ms", i, (int)pause_ms);
		before = pause_ms;
		deny(&a);
		sessions_place_homeless(&rig.sup.sessions, false);
		if (is_placed(&a))
			ok(false, "after refusal %u it is tried again at once", i);
		a.session->not_before_ns = clock_now_ns();
		sessions_place_homeless(&rig.sup.sessions, false);
		if (!is_placed(&a))
			ok(false, "after refusal %u and its pause it is not tried again", i);
	}
	is_int((intmax_t)before, 30000, "the pause grows up to a limit");
	deny(&a);
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
	die(true);
	adopted(&a);
	adopted(&b);
	is_int(a.session->blame, 7, "a crash counts");
	a.session->adopted_ns -= 15 * NS_PER_S;
	b.session->adopted_ns -= 15 * NS_PER_S;
	/* It was heard last soon after the adoption: it hangs since then, for all we know. */
	fleet_next_child->hung_ns = a.session->adopted_ns + NS_PER_S;
	die(true);
	is_int(a.session->blame, 14, "so does a hang that took long to be noticed");
	tear_down();
}

int
main(void)
{
	log_set_level(LOG_LEVEL_ERR);
	test_poison();
	test_no_evidence();
	test_kills();
	test_refused();
	test_back_off();
	test_hung();
	return done();
}
