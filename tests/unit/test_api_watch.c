/* SPDX-License-Identifier: Apache-2.0 */
/* Progress line by line, and completions that several clients wait for. */
#include "supervisor/api_wait.h"
#include "tests/unit/api_rig.h"

/* Pages that the worker has filled by now. */
static void
fill(const struct life *life, uint64_t first, uint64_t n)
{
	struct pagemap map = {0};

	if (pagemap_map(&map, life->map, true) < 0)
		abort();
	for (uint64_t i = first; i < first + n; i++)
		atomic_store(&map.pages[i], PAGE_PRESENT);
	pagemap_unmap(&map);
}

static bool
has_come(const struct asker *a, const char *words)
{
	return strstr(a->in, words) != NULL;
}

static size_t
count(const char *text, const char *words)
{
	size_t n = 0;

	for (const char *p = text; (p = strstr(p, words)); p += strlen(words))
		n++;
	return n;
}

static struct life
begin(const char *id)
{
	start();
	return life_serve(0, id, false);
}

static void
finish(struct life *life)
{
	life_drop(life);
	stop();
}

static void
test_watch_state(void)
{
	static struct asker a, b, c;
	struct life life = begin("w");

	ask(&a, "GET", "/sessions/w?watch=1", "");
	wait_for(has_come(&a, "\"pages_done\":0"));
	ok(strstr(a.in, "200 OK") && strstr(a.in, "application/x-ndjson") &&
		strstr(a.in,
		    "{\"state\":\"serving\",\"guest_bytes\":262144,\"pages_done\":0,\"pages_total\":64,"
		    "\"bytes_per_second\":0,\"eta_ms\":null}\n"),
	    "a watch begins with what is");
	ask(&b, "GET", "/sessions/w?watch=1&wait=graduated&timeout=250ms", "");
	fill(&life, 0, 3);
	wait_for(has_come(&a, "\"pages_done\":3"));
	fill(&life, 3, 1);
	fill(&life, 4, 1);
	wait_for(has_come(&a, "\"pages_done\":5"));
	wait_for(b.eof);
	leave(&b);
	ok(strstr(b.in, "\"code\":\"timeout\",\"status\":504,\"state\":\"serving\"}\n"),
	    "a deadline ends it with a line");
	ok(!strstr(a.in, "\"pages_done\":4") && count(a.in, "\"pages_done\":5") == 1,
	    "a line for what has changed by the time of a tick, and none without a change");
	ask(&c, "POST", "/sessions/w/close", "");
	struct far_message m = rig_take(life.worker, IPC_SESSION_CLOSE);
	rig_say_closed(life.worker, m.msg.seq, life.number);
	is_int(status_of(&c), 200, "the session is closed");
	wait_for(a.eof);
	leave(&a);
	ok(strstr(a.in, "{\"session\":{\"id\":\"w\"") &&
		strstr(a.in, "\"status\":200,\"state\":\"closed\"}\n"),
	    "the last line has the session and the status");
	is_int(ask_now("GET", "/sessions/w?watch=1", "", &a), 200, "watching a tombstone");
	ok(!strstr(a.in, "{\"state\":") && strstr(a.in, "\"status\":200,\"state\":\"closed\""),
	    "says what was at once");
	is_int(ask_now("GET", "/sessions/w?watch=1&wait=graduated", "", &a), 200, "what cannot be");
	ok(strstr(a.in, "\"code\":\"ended\",\"status\":409"), "is an error in the last line");
	is_int(ask_now("GET", "/sessions/w?watch=2", "", &a), 400, "watch is 0 or 1");
	is_int(ask_now("GET", "/sessions/w?watch=0", "", &a), 200, "watch=0 is no watch");
	ok(strstr(a.in, "application/json"), "but an ordinary answer");
	is_int(ask_now("HEAD", "/sessions/w?watch=1", "", &a), 200, "nor has HEAD one");
	ok(strstr(a.in, "application/json"), "it is that of GET without");
	finish(&life);
}

static void
test_watch_complete(void)
{
	static struct asker a, b;
	struct life life = begin("c");

	ask(&a, "POST", "/sessions/c/complete?watch=1", "");
	struct far_message m = rig_take(life.worker, IPC_SESSION_COMPLETE);
	wait_for(has_come(&a, "\"state\":\"completing\""));
	fill(&life, 0, 32);
	wait_for(has_come(&a, "\"pages_done\":32"));
	const char *line = strstr(a.in, "\"pages_done\":32");
	ok(!strstr(line, "\"bytes_per_second\":0,") && !strstr(line, "null"),
	    "with the rate and the time that is left");
	rig_say_completed(
	    life.worker, m.msg.seq, life.number, IPC_COMPLETION_FAILED, EIO, "cannot read it");
	wait_for(a.eof);
	leave(&a);
	ok(strstr(a.in, "cannot read it") &&
		strstr(a.in, "\"code\":\"failed\",\"status\":500,\"state\":\"serving\"}\n"),
	    "a failure is its last line");

	ask(&a, "POST", "/sessions/c/complete?watch=1", "");
	m = rig_take(life.worker, IPC_SESSION_COMPLETE);
	is_int(ask_now("POST", "/sessions/c/complete?watch=1", "", &b), 409,
	    "what cannot begin is refused as ever");
	leave(&a);
	rig_take(life.worker, IPC_SESSION_ABORT);
	ok(true, "a watcher of its own completion that leaves aborts it");
	rig_say_completed(
	    life.worker, m.msg.seq, life.number, IPC_COMPLETION_ABORTED, 0, "aborted");

	ask(&a, "POST", "/sessions/c/complete?watch=1", "");
	m = rig_take(life.worker, IPC_SESSION_COMPLETE);
	rig_say_completed(life.worker, m.msg.seq, life.number, IPC_COMPLETION_DETACHED, 0, "");
	wait_for(a.eof);
	leave(&a);
	ok(strstr(a.in, "\"status\":200,\"state\":\"graduated\"}\n"), "done");
	is_int(ask_now("POST", "/sessions/c/complete?watch=1", "", &a), 200, "done before");
	ok(strstr(a.in, "\"status\":200,\"state\":\"graduated\"}\n"), "is a line as well");
	finish(&life);
}

static void
test_join(void)
{
	static struct asker a, b, c, d;
	struct life life = begin("j");

	ask(&a, "POST", "/sessions/j/complete", "");
	struct far_message m = rig_take(life.worker, IPC_SESSION_COMPLETE);
	ask(&b, "POST", "/sessions/j/complete?join=1", "");
	ok(waits(&b), "a second one may join");
	is_int(ask_now("POST", "/sessions/j/complete?join=0", "", &c), 409, "or not");
	ok(strstr(c.in, "?join=1"), "and is told that it could");
	is_int(ask_now("POST", "/sessions/j/complete?join=1&timeout=20ms", "", &c), 504,
	    "for a while");
	ok(strstr(c.in, "its completion goes on"), "which is not its own");
	ask(&c, "POST", "/sessions/j/complete?join=1", "");
	waits(&c);
	leave(&c);
	settle();
	ok(life.session->state == SESSION_COMPLETING && life.worker->head == life.worker->tail,
	    "who joined and leaves aborts nothing");
	rig_say_completed(life.worker, m.msg.seq, life.number, IPC_COMPLETION_FAILED, EIO, "no");
	is_int(status_of(&a), 500, "the outcome of the one");
	is_int(status_of(&b), 500, "is that of the other");

	ask(&a, "POST", "/sessions/j/complete?join=1", "");
	m = rig_take(life.worker, IPC_SESSION_COMPLETE);
	ok(waits(&a), "who joins nothing begins it");
	ask(&b, "POST", "/sessions/j/complete?join=1&watch=1", "");
	ask(&d, "GET", "/sessions/j?wait=graduated", "");
	waits(&b);
	waits(&d);
	rig_say_completed(life.worker, m.msg.seq, life.number, IPC_COMPLETION_DETACHED, 0, "");
	is_int(status_of(&a), 200, "graduated for who began");
	wait_for(b.eof);
	leave(&b);
	ok(strstr(b.in, "\"status\":200,\"state\":\"graduated\"}\n"), "for who watched");
	is_int(status_of(&d), 200, "for who waited");
	is_int(ask_now("POST", "/sessions/j/complete?join=2", "", &a), 400, "join is 0 or 1");
	finish(&life);
}

static void
test_join_aborted(void)
{
	static struct asker a, b;
	struct life life = begin("k");

	ask(&a, "POST", "/sessions/k/complete", "");
	struct far_message m = rig_take(life.worker, IPC_SESSION_COMPLETE);
	ask(&b, "POST", "/sessions/k/complete?join=1", "");
	waits(&b);
	leave(&a);
	rig_take(life.worker, IPC_SESSION_ABORT);
	rig_say_completed(
	    life.worker, m.msg.seq, life.number, IPC_COMPLETION_ABORTED, 0, "aborted");
	is_int(status_of(&b), 500, "who began it leaves: who joined is told");
	ok(strstr(b.in, "aborted") && strstr(b.in, "the session is serving"), "why");
	finish(&life);
}

/* Two completions within one turn of the loop: each has its own outcome. */
static void
test_own_outcome(void)
{
	static struct asker a;
	char why[256];
	struct life life = begin("o");
	struct ipc_session_completed completed = {
	    .session = life.number, .outcome = IPC_COMPLETION_FAILED, .reason = "the first"};

	ask(&a, "POST", "/sessions/o/complete", "");
	struct far_message m = rig_take(life.worker, IPC_SESSION_COMPLETE);
	completed.seq = m.msg.seq;
	session_on_completed(&life.worker->child, &completed);
	is_int(session_complete(life.session, why, sizeof(why)), 0, "the next one begins at once");
	m = rig_take(life.worker, IPC_SESSION_COMPLETE);
	is_int(status_of(&a), 500, "the first has failed for its caller");
	ok(strstr(a.in, "the first"), "with its own reason");
	rig_say_completed(life.worker, m.msg.seq, life.number, IPC_COMPLETION_DETACHED, 0, "");
	is_int(ask_now("POST", "/sessions/o/complete", "", &a), 200, "the second graduates");
	finish(&life);
}

static void
test_hung_up_at_once(void)
{
	static struct asker a;
	struct life life = begin("h");

	ask(&a, "POST", "/sessions/h/complete?watch=1", "");
	leave(&a);
	struct far_message m = rig_take(life.worker, IPC_SESSION_COMPLETE);
	rig_take(life.worker, IPC_SESSION_ABORT);
	rig_say_completed(
	    life.worker, m.msg.seq, life.number, IPC_COMPLETION_ABORTED, 0, "aborted");
	ok(life.session->state == SESSION_SERVING, "who asks and leaves has asked for nothing");
	close_life(&life);
	stop();
}

int
main(void)
{
	log_init("test_api_watch", LOG_LEVEL_ERR);
	test_watch_state();
	test_watch_complete();
	test_join();
	test_join_aborted();
	test_own_outcome();
	test_hung_up_at_once();
	return done();
}
