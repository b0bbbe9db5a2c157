/* SPDX-License-Identifier: Apache-2.0 */
/* Asking a worker for the pages of a session: one that is too old, lies, answers late or dies. */
#include "supervisor/picture.h"

#include <sys/stat.h>

#include "tests/unit/session_rig.h"

static const struct picture_wish plain, new_one = {.is_new = true},
					since_5 = {.has_since = true, .since = 5};
static struct picture picture;

static uint64_t
held(void)
{
	return rig.sup.sessions.picture_bytes;
}

static int
ask(struct life *life, const struct picture_wish *wish)
{
	return picture_ask(&picture, life->session, wish, rig.why, sizeof(rig.why));
}

static int
say(struct life *life, uint32_t seq, uint32_t error, uint32_t tracking)
{
	struct ipc_msg msg = {.type = IPC_SESSION_PICTURED};

	msg.session_pictured =
	    (struct ipc_session_pictured){seq, life->number, error, tracking, 2, 3};
	return rig_say(life->worker, &msg, NULL);
}

static struct life
serve(const char *id)
{
	struct life life = life_serve(0, id, false);

	life.worker->child.sandbox |= IPC_CAN_PICTURE;
	return life;
}

static void
end(struct life *life)
{
	session_close(life->session, SESSION_OUTCOME_CLOSED, "test");
	if (life->session->state == SESSION_CLOSING)
		life_answer_close(life);
	life_drop(life);
}

static void
test_asks(void)
{
	struct life life = serve("asks");
	struct far_message m;
	struct stat st;

	is_int(ask(&life, &since_5), 0, "asked");
	m = rig_take(life.worker, IPC_SESSION_PICTURE);
	ok(m.msg.session_picture.session == life.number &&
		m.msg.session_picture.flags == IPC_PICTURE_SINCE &&
		m.msg.session_picture.since == 5,
	    "the worker is told what is wanted");
	ok(fstat(m.fds[0], &st) == 0 && (uint64_t)st.st_size == RIG_IMAGE_BYTES / PAGE_BYTES &&
		ftruncate(m.fds[0], 0) < 0,
	    "and gets a file of a byte for each page, which it cannot cut");
	is_int(held(), RIG_IMAGE_BYTES / PAGE_BYTES, "which is counted");
	ok(!picture_is_over(&picture), "it is awaited");
	is_int(say(&life, m.msg.seq, 0, PAGEMAP_TRACKED), 0, "answered");
	ok(picture.is_answered && picture.error == 0 && picture.base == 2 && picture.number == 3 &&
		picture.tracking == PAGEMAP_TRACKED && life.session->picture == NULL,
	    "it is here");
	is_int(say(&life, m.msg.seq, EIO, 0), 0, "answered twice");
	is_int(picture.error, 0, "is late and dropped");
	picture_drop(&picture);
	is_int(held(), 0, "nothing is held");
	fd_close_all(m.fds, 1);
	end(&life);
}

static void
test_refuses(void)
{
	struct life life = life_open(0, "refuses");
	struct picture other;

	life.worker->child.sandbox |= IPC_CAN_PICTURE;
	is_int(ask(&life, &plain), -EINVAL, "before the VMM has come");
	life_shake(&life, false);
	life.worker->child.sandbox = 0;
	is_int(ask(&life, &plain), -EPROTONOSUPPORT, "a worker that is too old");
	ok(strstr(rig.why, "newer"), "says so: %s", rig.why);
	life.worker->child.sandbox = IPC_CAN_PICTURE;
	is_int(ask(&life, &new_one), -EOPNOTSUPP, "a userfaultfd without removals");
	is_int(ask(&life, &plain), 0, "a picture of what is there");
	is_int(picture_ask(&other, life.session, &plain, rig.why, sizeof(rig.why)), -EBUSY,
	    "one at a time");
	struct far_message m = rig_take(life.worker, IPC_SESSION_PICTURE);
	fd_close_all(m.fds, 1);
	picture_drop(&picture);
	rig.sup.sessions.picture_bytes = PICTURE_MAX_BYTES - 1;
	is_int(ask(&life, &plain), -ENOSPC, "too many at a time");
	rig.sup.sessions.picture_bytes = 0;
	end(&life);
	is_int(ask(&life, &plain), -ENOTCONN, "when it has ended");
	is_int(held(), 0, "nothing is held");
}

static void
test_lies(void)
{
	struct life life = serve("lies");
	struct far_message m;

	is_int(say(&life, 7, 0, 0), 0, "to no request: dropped");
	ask(&life, &plain);
	m = rig_take(life.worker, IPC_SESSION_PICTURE);
	is_int(say(&life, m.msg.seq + 1, 0, 0), 0, "to another: dropped");
	ok(!picture.is_answered, "it is awaited");
	is_int(say(&life, m.msg.seq, 5000, 0), -EPROTO, "no errno");
	is_int(say(&life, m.msg.seq, 0, PAGEMAP_LOST + 1), -EPROTO, "no tracking");
	is_int(say(&life, m.msg.seq, ESTALE, 0), 0, "an error");
	is_int(picture.error, ESTALE, "is told");
	picture_drop(&picture);
	fd_close_all(m.fds, 1);
	end(&life);
}

static void
test_dies(void)
{
	struct life life = serve("dies");
	struct rig_worker *next;
	struct far_message m;

	ask(&life, &plain);
	m = rig_take(life.worker, IPC_SESSION_PICTURE);
	fd_close_all(m.fds, 1);
	next = rig_worker_start(1);
	rig_worker_die(life.worker, next);
	ok(picture_is_over(&picture) && !picture.is_answered, "its worker dies: no answer");
	picture_drop(&picture);
	ok(life.session->picture == NULL && held() == 0, "nothing is held");
	life.worker = next;
	m = rig_take(next, IPC_SESSION_ADOPT);
	fd_close_all(m.fds, IPC_MAX_FDS);
	end(&life);
}

/* Its writes are tracked: a worker that is too old would never let the guest write. */
static void
test_suits(void)
{
	struct life life = serve("suits");
	struct pagemap map = {0};
	struct child old = {.sandbox = 0}, good = {.sandbox = IPC_CAN_PICTURE};

	ok(session_suits(life.session, &old) && session_suits(life.session, &good),
	    "a session that is not tracked goes anywhere");
	if (pagemap_map(&map, life.map, true) < 0)
		abort();
	atomic_store(&pagemap_track(&map)->tracking, PAGEMAP_TRACKED);
	ok(!session_suits(life.session, &old) && session_suits(life.session, &good),
	    "one that is does not go to an older worker");
	atomic_store(&pagemap_track(&map)->tracking, PAGEMAP_LOST);
	ok(!session_suits(life.session, &old), "nor one that was");
	pagemap_unmap(&map);
	end(&life);
}

int
main(void)
{
	log_init("test_picture_ask", LOG_LEVEL_ERR);
	rig_start();
	test_asks();
	test_refuses();
	test_lies();
	test_suits();
	test_dies();
	rig_stop();
	return done();
}
