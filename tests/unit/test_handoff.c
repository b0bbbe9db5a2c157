/* SPDX-License-Identifier: Apache-2.0 */
/* Hand-over of sessions between workers that the test plays: how many at a time, what is
 * counted, and what follows when a worker does not come up or goes away. */
#define FAKE_FLEET_OWN_FIND
#define RIG_STEP() handoffs_step(&rig.sup)
#include "supervisor/handoff.h"
#include "tests/unit/session_rig.h"

#define NR_LIVES 5U

static unsigned nr_started, nr_done, nr_drained_early;
static bool is_running[RIG_WORKERS]; /* as far as fleet_find() knows */
static unsigned adopter;	     /* whom the fleet gives sessions, whatever they ask for */
static struct handoff_result result;
static struct life lives[NR_LIVES];

static struct child *
child_of(const char *version)
{
	for (unsigned i = 0; i < RIG_WORKERS; i++)
		if (strcmp(rig.workers[i].child.version, version) == 0)
			return &rig.workers[i].child;
	return NULL;
}

struct child *
fleet_find(struct fleet *fleet, const char *version)
{
	struct child *child = child_of(version);

	(void)fleet;
	return child != NULL && is_running[child->number] ? child : NULL;
}

int
fleet_check_installed(struct fleet *fleet, const char *version, char *why, size_t why_bytes)
{
	(void)fleet;
	snprintf(why, why_bytes, "version %s is not installed", version);
	return child_of(version) != NULL ? 0 : -ENOENT;
}

int
fleet_start(
    struct fleet *fleet, const char *version, struct child **ret, char *why, size_t why_bytes)
{
	(void)fleet;
	(void)why;
	(void)why_bytes;
	*ret = child_of(version);
	is_running[(*ret)->number] = true;
	nr_started++;
	return 0;
}

int
fleet_child_to_adopt(
    struct fleet *fleet, const char *version, struct child **ret, char *why, size_t why_bytes)
{
	(void)fleet;
	(void)version;
	(void)why;
	(void)why_bytes;
	*ret = &rig.workers[adopter].child;
	return 0;
}

int
fleet_child_for_trial(
    struct fleet *fleet, const char *version, struct child **ret, char *why, size_t why_bytes)
{
	return fleet_child_to_adopt(fleet, version, ret, why, why_bytes);
}

/* A worker that is told before it has a session exits. */
void
fleet_drain_outdated(struct fleet *fleet, struct child *child)
{
	const struct list *pos;

	(void)fleet;
	list_for_each(pos, &child->sessions)
		nr_drained_early += !list_entry(pos, const struct session, on_child)->sent;
}

static void
on_done(void *arg, const struct handoff_result *r)
{
	ok(arg == &result, "done is told whose it is");
	result = *r;
	nr_done++;
}

static void
set_up(unsigned nr)
{
	rig_start();
	handoffs_init(&rig.sup);
	rig_worker_start(2);
	rig_worker_start(1);
	fleet_next_child = &rig.workers[0].child;
	fleet_child_ready = true;
	memset(is_running, 0, sizeof(is_running));
	is_running[0] = is_running[1] = is_running[2] = true;
	adopter = 1;
	nr_started = nr_done = nr_drained_early = 0;
	for (unsigned i = 0; i < nr; i++) {
		char id[16];

		snprintf(id, sizeof(id), "s%u", i);
		lives[i] = life_serve(0, id, false);
	}
}

static void
tear_down(unsigned nr)
{
	for (unsigned i = 0; i < nr; i++)
		life_drop(&lives[i]);
	handoffs_fini(&rig.sup);
	rig_stop();
}

static void
begin(const char *from, const char *to)
{
	is_int(handoff_version(&rig.sup, from, to, on_done, &result, rig.why, sizeof(rig.why)), 0,
	    "a hand-over begins");
	rig_sweep();
}

static unsigned
count_in(enum session_state state)
{
	unsigned n = 0;

	for (unsigned i = 0; i < NR_LIVES; i++)
		n += lives[i].session->state == state;
	return n;
}

/* The old worker lets go of a session, and another one is asked to adopt it. */
static void
let_go(struct life *life)
{
	struct far_message m = rig_take(life->worker, IPC_SESSION_CLOSE);

	is_int(m.msg.session_close.session, life->number, "the old worker is told");
	rig_say_closed(life->worker, m.msg.seq, life->number);
}

static void
adopt(struct life *life, unsigned worker)
{
	struct far_message m = rig_take(&rig.workers[worker], IPC_SESSION_ADOPT);
	struct ipc_msg msg = {.type = IPC_SESSION_ADOPTED};

	fd_close_all(m.fds, IPC_MAX_FDS);
	msg.session_adopted.seq = m.msg.seq;
	msg.session_adopted.session = life->number;
	rig_say(&rig.workers[worker], &msg, NULL);
	rig_sweep();
}

static void
end_waiting(struct life *life)
{
	session_close(life->session, SESSION_OUTCOME_CLOSED, "test");
	let_go(life);
	life_drop(life);
}

static void
test_all(void)
{
	set_up(NR_LIVES);
	struct life waits = life_open(0, "waits");
	begin(NULL, "0.1.1");
	for (unsigned i = 0; i < NR_LIVES; i++) {
		is_int(count_in(SESSION_MOVING), i + 2 <= NR_LIVES ? 2 : 1, "two at a time");
		let_go(&lives[i]);
		adopt(&lives[i], 1);
		is_str(lives[i].session->version, "0.1.1", "it is there");
		is_int(nr_done, i + 1 == NR_LIVES, "done at the end");
	}
	is_int(result.moved, NR_LIVES, "all were moved");
	is_int(result.failed + (uint64_t)-result.error, 0, "none failed");
	is_int(result.left, 1, "the one that waits for its VMM was left");
	is_str(result.why, "", "nothing went wrong");
	is_int(nr_drained_early, 0, "no worker was drained before it had its session");
	begin("0.1.2", "0.1.0");
	is_int(result.moved + result.left, 0, "nothing is on the third version");
	end_waiting(&waits);
	tear_down(NR_LIVES);
}

static void
test_elsewhere(void)
{
	set_up(2);
	begin("0.1.0", "0.1.1");
	adopter = 2;
	let_go(&lives[0]);
	adopt(&lives[0], 2);
	adopter = 1;
	let_go(&lives[1]);
	adopt(&lives[1], 1);
	is_int(nr_done, 1, "over");
	is_int(result.moved, 1, "one is there");
	is_int(result.failed, 1, "one went elsewhere");
	ok(strstr(result.why, "session s0 is served by version 0.1.2") != NULL, "%s", result.why);
	tear_down(2);
}

static void
test_changes(void)
{
	set_up(4);
	begin(NULL, "0.1.1");
	session_complete(lives[2].session, rig.why, sizeof(rig.why));
	session_close(lives[3].session, SESSION_OUTCOME_CLOSED, "test");
	session_close(lives[1].session, SESSION_OUTCOME_CLOSED, "test");
	let_go(&lives[0]);
	adopt(&lives[0], 1);
	is_int(nr_done, 1, "over");
	is_int(result.moved, 1, "one is there");
	is_int(result.left, 1, "one is being completed");
	is_int(result.failed, 0, "two that were closed are no failure");
	tear_down(4);
}

static void
test_start(void)
{
	set_up(1);
	is_running[1] = fleet_child_ready = false;
	begin(NULL, "0.1.1");
	is_int(nr_started, 1, "a worker is started");
	rig_sweep();
	is_int(nr_started, 1, "once");
	is_int(lives[0].session->state, SESSION_SERVING, "nothing moves before it is ready");
	fleet_child_ready = true;
	rig_sweep();
	is_int(lives[0].session->state, SESSION_MOVING, "then it does");
	let_go(&lives[0]);
	adopt(&lives[0], 1);
	is_int(result.moved, 1, "moved");
	tear_down(1);
}

static void
test_no_start(void)
{
	struct child *child;

	set_up(2);
	child = &rig.workers[1].child;
	is_running[1] = fleet_child_ready = false;
	is_int(
	    handoff_session(lives[0].session, "0.1.1", on_done, &result, rig.why, sizeof(rig.why)),
	    0, "one session");
	begin(NULL, "0.1.1");
	child->state = CHILD_GONE;
	snprintf(child->obituary, sizeof(child->obituary), "killed by SIGSEGV");
	is_running[1] = false;
	rig_sweep();
	is_int(nr_done, 2, "a worker that does not come up ends both");
	is_int(result.error, -ECHILD, "which is an error");
	ok(strstr(result.why, "killed by SIGSEGV") != NULL, "%s", result.why);
	is_int(lives[0].session->state, SESSION_SERVING, "they are served as before");
	is_str(lives[0].session->version, "0.1.0", "where they were");
	fleet_child_ready = true;
	tear_down(2);
}

static void
test_target_goes(void)
{
	set_up(3);
	begin(NULL, "0.1.1");
	is_running[1] = false;
	let_go(&lives[0]);
	adopt(&lives[0], 1);
	is_int(nr_started, 1, "its worker has gone meanwhile: another is started");
	is_int(lives[2].session->state, SESSION_MOVING, "and gets the rest");
	let_go(&lives[1]);
	adopt(&lives[1], 1);
	let_go(&lives[2]);
	adopt(&lives[2], 1);
	is_int(result.moved, 3, "all are there");
	tear_down(3);
}

static void
test_one(void)
{
	set_up(2);
	struct life waits = life_open(0, "waits");

	is_int(handoff_session(waits.session, "0.1.1", on_done, &result, rig.why, sizeof(rig.why)),
	    -EINVAL, "one that waits for its VMM");
	is_int(
	    handoff_session(lives[0].session, "0.1.0", on_done, &result, rig.why, sizeof(rig.why)),
	    -EALREADY, "one that is there");
	is_running[0] = false;
	is_int(
	    handoff_session(lives[0].session, "9.9.9", on_done, &result, rig.why, sizeof(rig.why)),
	    -ENOENT, "no such version");
	is_int(
	    handoff_session(lives[0].session, "0.1.1", on_done, &result, rig.why, sizeof(rig.why)),
	    0, "one that can be moved");
	rig_sweep();
	is_int(lives[1].session->state, SESSION_SERVING, "the other stays");
	let_go(&lives[0]);
	adopt(&lives[0], 1);
	is_int(result.moved, 1, "moved");
	is_int(
	    handoff_session(lives[1].session, "0.1.1", on_done, &result, rig.why, sizeof(rig.why)),
	    0, "the other one");
	handoff_forget(&rig.sup, &result);
	rig_sweep();
	let_go(&lives[1]);
	adopt(&lives[1], 1);
	is_int(nr_done, 1, "whose caller went away");
	is_str(lives[1].session->version, "0.1.1", "is moved all the same");
	end_waiting(&waits);
	tear_down(2);
}

int
main(void)
{
	log_set_level(LOG_LEVEL_ERR);
	test_all();
	test_elsewhere();
	test_changes();
	test_start();
	test_no_start();
	test_target_goes();
	test_one();
	return done();
}
