/* SPDX-License-Identifier: Apache-2.0 */
/* Requests that wait, on real sessions whose worker the test plays: each ends by its
 * event, by its timer or by the client's leaving, and in no other way. */
#include "tests/unit/api_rig.h"

static void
test_create(void)
{
	static struct asker a;

	start();
	ask(&a, "POST", "/sessions", body_for("a"));
	ok(waits(&a), "a create waits for the worker");
	struct life life = life_asked("a");
	rig_say_opened(life.worker, life.open_seq, life.number, 0);
	is_int(status_of(&a), 201, "and is answered when it has the session");
	ok(strstr(a.in, "\"state\":\"created\"") && strstr(a.in, "/sessions/a.sock"), "with it");
	is_int(ask_now("POST", "/sessions", body_for("a"), &a), 409, "a live id");
	close_life(&life);

	ask(&a, "POST", "/sessions", body_for("b"));
	waits(&a);
	life = life_asked("b");
	rig_say_opened(life.worker, life.open_seq, life.number, ENOMEM);
	is_int(status_of(&a), 503, "a worker that will not take it");
	ok(strstr(a.in, "\"code\":\"worker\""), "is named");
	life_drop(&life);

	ask(&a, "POST", "/sessions", body_for("c"));
	life = life_asked("c");
	leave(&a);
	rig_say_opened(life.worker, life.open_seq, life.number, 0);
	ok(session_is_opened(life.session) && session_is_live(life.session),
	    "a client that leaves leaves the session");
	close_life(&life);
	stop();
}

static void
test_show(void)
{
	static struct asker a, b, c;

	start();
	struct life life = life_open(0, "x/1");
	ask(&a, "GET", "/sessions/x%2F1?wait=serving", "");
	ok(waits(&a), "a wait waits");
	is_int(ask_now("GET", "/sessions/x%2F1?wait=serving&timeout=20ms", "", &b), 504,
	    "until its time is over");
	is_int(ask_now("GET", "/sessions/x%2F1?wait=serving&timeout=0", "", &b), 504,
	    "which may be no time");
	is_int(ask_now("GET", "/sessions/x%2F1?wait=opened", "", &b), 200, "not for what is true");
	ask(&b, "GET", "/sessions/x%2F1?wait=graduated", "");
	waits(&b);
	leave(&b);
	life_shake(&life, false);
	is_int(status_of(&a), 200, "the event answers it");
	ok(strstr(a.in, "\"state\":\"serving\"") && strstr(a.in, "\"guest_bytes\":262144") &&
		strstr(a.in, "\"host_addr\":139637976727552"),
	    "with the session as it is then");
	ask(&a, "GET", "/sessions/x%2F1?wait=graduated", "");
	ask(&b, "GET", "/sessions/x%2F1?wait=closed", "");
	waits(&a);
	waits(&b);
	ask(&c, "POST", "/sessions/x%2F1/close", "");
	ok(waits(&c), "a close waits until the worker has let go");
	struct far_message m = rig_take(life.worker, IPC_SESSION_CLOSE);
	rig_say_closed(life.worker, m.msg.seq, life.number);
	is_int(status_of(&c), 200, "then it is answered");
	is_int(status_of(&b), 200, "and so is who waited for it");
	is_int(status_of(&a), 409, "and who waited for what cannot be any more");
	ok(strstr(a.in, "\"code\":\"ended\"") && strstr(a.in, "closed by request"), "with why");
	is_int(ask_now("POST", "/sessions/x%2F1/close", "", &a), 200, "closing a tombstone");
	is_int(ask_now("POST", "/sessions/x%2F1/close", "{\"x\":1}", &a), 400, "a member too many");
	is_int(ask_now("POST", "/sessions/y/close", "", &a), 404, "closing nothing");
	life_drop(&life);

	life = life_open(0, "r");
	ask(&a, "GET", "/sessions/r?wait=serving", "");
	waits(&a);
	rig_say_refused(life.worker, life.number, "region 0 overlaps region 1");
	is_int(status_of(&a), 409, "a handshake that is refused");
	ok(strstr(a.in, "region 0 overlaps region 1"), "with its reason");
	life_drop(&life);
	stop();
}

static void
test_complete(void)
{
	static struct asker a, b;

	start();
	struct life life = life_open(0, "s");
	is_int(ask_now("POST", "/sessions/s/complete", "", &a), 409, "nothing to complete yet");
	ok(strstr(a.in, "\"code\":\"state\""), "is a matter of its state");
	life_shake(&life, false);
	ask(&a, "POST", "/sessions/s/complete", "");
	ok(waits(&a), "a completion waits");
	struct far_message m = rig_take(life.worker, IPC_SESSION_COMPLETE);
	is_int(ask_now("POST", "/sessions/s/complete", "", &b), 409, "a second one");
	ok(strstr(b.in, "\"code\":\"busy\""), "has to wait");
	is_int(ask_now("GET", "/sessions/s", "", &b), 200, "meanwhile");
	ok(strstr(b.in,
	       "\"progress\":{\"pages_done\":0,\"pages_total\":64,"
	       "\"bytes_per_second\":0,\"eta_ms\":null}"),
	    "there is its progress");
	rig_say_completed(
	    life.worker, m.msg.seq, life.number, IPC_COMPLETION_FAILED, EIO, "cannot read it");
	is_int(status_of(&a), 500, "a completion that fails");
	ok(strstr(a.in, "\"code\":\"failed\"") && strstr(a.in, "cannot read it") &&
		life.session->state == SESSION_SERVING,
	    "with why, and the session is served");

	ask(&a, "POST", "/sessions/s/complete", "");
	waits(&a);
	rig_take(life.worker, IPC_SESSION_COMPLETE);
	leave(&a);
	m = rig_take(life.worker, IPC_SESSION_ABORT);
	ok(m.msg.session_abort.session == life.number, "a client that leaves aborts it");
	rig_say_completed(life.worker, life.session->complete_seq, life.number,
	    IPC_COMPLETION_ABORTED, 0, "aborted");

	ask(&a, "POST", "/sessions/s/complete?timeout=20ms", "");
	waits(&a);
	m = rig_take(life.worker, IPC_SESSION_COMPLETE);
	rig_take(life.worker, IPC_SESSION_ABORT);
	ok(waits(&a), "out of time: it waits for the worker to stop");
	rig_say_completed(
	    life.worker, m.msg.seq, life.number, IPC_COMPLETION_ABORTED, 0, "aborted");
	is_int(status_of(&a), 504, "and is answered then");

	ask(&a, "POST", "/sessions/s/complete?timeout=20ms", "");
	waits(&a);
	m = rig_take(life.worker, IPC_SESSION_COMPLETE);
	rig_take(life.worker, IPC_SESSION_ABORT);
	rig_say_completed(life.worker, m.msg.seq, life.number, IPC_COMPLETION_DETACHED, 0, "");
	is_int(status_of(&a), 200, "done before the abort came: graduated");
	is_int(ask_now("POST", "/sessions/s/complete", "", &a), 200, "and so it stays");
	is_int(ask_now("GET", "/sessions/s?wait=closed", "", &a), 409, "it will never be closed");
	is_int(ask_now("POST", "/sessions/t/complete", "", &a), 404, "what never was");
	life_drop(&life);
	stop();
}

static void
test_lost(void)
{
	static struct asker a, b;

	start();
	struct life life = life_serve(0, "l", false);
	ask(&a, "POST", "/sessions/l/complete", "");
	waits(&a);
	rig_take(life.worker, IPC_SESSION_COMPLETE);
	rig_worker_die(life.worker, NULL);
	is_int(status_of(&a), 500, "a worker that dies in a completion");
	ok(session_is_live(life.session), "and the session lives");
	is_int(ask_now("POST", "/sessions/l/close", "", &a), 200, "it can be closed");
	life_drop(&life);

	rig_worker_start(1);
	life = life_serve(1, "m", false);
	ask(&a, "GET", "/sessions/m?wait=graduated&timeout=1h", "");
	ask(&b, "POST", "/sessions/m/complete", "");
	waits(&a);
	waits(&b);
	api_free(&rig.sup);
	is_int(status_of(&a) + status_of(&b), 0, "the API stops: hung up on");
	life_drop(&life);
	rig_stop();
}

/* A link that is down is not the client's fault. */
static void
test_unreachable(void)
{
	static struct asker a;

	start();
	struct life life = life_serve(0, "l", false);
	endpoint_close(&life.worker->child.ep);
	is_int(ask_now("POST", "/sessions/l/complete", "", &a), 503,
	    "a completion whose worker cannot be told");
	ok(strstr(a.in, "\"code\":\"worker\"") != NULL, "says so");
	is_int(life.session->state, SESSION_SERVING, "nothing has begun");
	life_drop(&life);
	stop();
}

/* A guest that is too large to be counted in a turn is counted all the same. */
static void
test_large(void)
{
	static struct asker a;
	struct pagemap map = {0};

	start();
	struct life life = life_serve(0, "l", false);
	uint64_t bytes = life.session->guest_bytes;
	pagemap_map(&map, life.map, true);
	atomic_store(&map.pages[3], PAGE_PRESENT);
	pagemap_unmap(&map);
	life.session->guest_bytes = UINT64_C(1) << 40;
	is_int(ask_now("GET", "/sessions/l", "", &a), 200, "a large guest");
	ok(strstr(a.in, "\"absent\":63,\"filling\":0,\"present\":1") != NULL,
	    "its pages are counted");
	life.session->guest_bytes = bytes;
	life_drop(&life);
	stop();
}

static void
test_fleet(void)
{
	static struct asker a;

	start();
	is_int(ask_now("POST", "/upgrade", "{}", &a), 400, "an upgrade to nothing");
	is_int(ask_now("POST", "/upgrade", "{\"version\":\"../x\"}", &a), 400, "to no version");
	upgrade_result = -ENOENT;
	is_int(ask_now("POST", "/upgrade", "{\"version\":\"9\"}", &a), 404, "not installed");
	upgrade_result = -EBUSY;
	is_int(ask_now("POST", "/upgrade", "{\"version\":\"9\"}", &a), 409, "one is running");
	upgrade_result = 0;
	ask(&a, "POST", "/upgrade", "{\"version\":\"9\"}");
	ok(waits(&a), "an upgrade waits");
	upgrade_done(upgrade_arg, -EIO, "last words");
	is_int(status_of(&a), 500, "it fails");
	ok(strstr(a.in, "last words"), "with its last words");
	snprintf(rig.sup.fleet.current, sizeof(rig.sup.fleet.current), "8");
	ask(&a, "POST", "/upgrade", "{\"version\":\"9\"}");
	waits(&a);
	upgrade_done(upgrade_arg, 0, "");
	is_int(status_of(&a), 200, "it succeeds");
	ok(strstr(a.in, "{\"version\":\"9\",\"previous\":\"8\"}"), "and says what was before");
	ask(&a, "POST", "/upgrade", "{\"version\":\"9\"}");
	waits(&a);
	leave(&a);
	settle();
	is_int(nr_forgotten, 1, "a client that leaves is forgotten");
	is_int(ask_now("POST", "/drain", "{\"version\":\"1.0\"}", &a), 200, "a drain");
	is_int(ask_now("POST", "/drain", "{\"version\":\"2.0\"}", &a), 404, "of what does not run");
	is_int(ask_now("GET", "/health", "", &a), 200, "health");
	is_int(ask_now("GET", "/stats", "", &a), 200, "stats");
	is_int(ask_now("GET", "/versions", "", &a), 200, "versions");
	is_int(ask_now("GET", "/sessions?all", "", &a), 400, "an unknown query key");
	is_int(ask_now("GET", "/nothing", "", &a), 404, "an unknown path");
	is_int(ask_now("PUT", "/health", "", &a), 405, "an unknown method");
	ok(strstr(a.in, "Allow: GET, HEAD\r\n"), "with those that there are");
	stop();
}

int
main(void)
{
	log_init("test_api_wait", LOG_LEVEL_ERR);
	test_create();
	test_show();
	test_complete();
	test_lost();
	test_unreachable();
	test_large();
	test_fleet();
	return done();
}
