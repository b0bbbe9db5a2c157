/* SPDX-License-Identifier: Apache-2.0 */
/* Records, and what a worker of an earlier supervisor says that it holds: the supervisor
 * forgets everything and learns it again. */
#include "supervisor/record.h"

#include <inttypes.h>

#include "tests/unit/session_rig.h"

#define SEQ 5U

static char state_dir[128];

static void
begin(void)
{
	rig_start();
	snprintf(state_dir, sizeof(state_dir), "%s/state", rig.dir);
	rig.sup.run_dir = open(rig.dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (record_open(&rig.sup) < 0)
		abort();
}

static void
end(void)
{
	char path[192];

	record_close(&rig.sup);
	fd_closep(&rig.sup.run_dir);
	snprintf(path, sizeof(path), "%s/current", state_dir);
	unlink(path);
	ok(rmdir(state_dir) == 0, "no record is left behind");
	rig_stop();
}

static void
record_path(char path[192], uint64_t number, const char *tail)
{
	snprintf(path, 192, "%s/%" PRIu64 ".json%s", state_dir, number, tail);
}

static bool
has_record(uint64_t number, const char *tail)
{
	char path[192];

	record_path(path, number, tail);
	return access(path, F_OK) == 0;
}

/* Another supervisor: it has the records, and a worker that it has asked. */
static size_t
restart(size_t *ret_damaged)
{
	struct child *child = &rig.workers[0].child;

	sessions_fini(&rig.sup.sessions);
	sessions_init(&rig.sup.sessions, &rig.sup);
	list_init(&child->sessions);
	child->state = CHILD_FOUND;
	child->inventory_seq = SEQ;
	child->nr_held = 0;
	return record_load_all(&rig.sup, ret_damaged);
}

static struct session *
numbered(uint64_t number)
{
	struct list *pos;

	list_for_each(pos, &rig.sup.sessions.all) {
		struct session *session = list_entry(pos, struct session, link);

		if (session->number == number)
			return session;
	}
	return NULL;
}

static struct life
reborn(const struct life *old)
{
	struct life life = *old;

	life.session = numbered(old->number);
	if (life.session == NULL)
		abort();
	return life;
}

/* Duplicates, as they come over a link; what is not taken is closed. */
static int
say_serving(const struct life *life, uint32_t seq, const int from[4])
{
	int fds[4];

	for (size_t i = 0; i < 4; i++)
		fds[i] = fd_dup(from[i]);
	int r = recover_on_serving(&life->worker->child, seq, life->number, fds);
	fd_close_all(fds, 4);
	return r;
}

static int
say_waiting(const struct life *life, uint32_t seq, const int from[3])
{
	int fds[3];

	for (size_t i = 0; i < 3; i++)
		fds[i] = fd_dup(from[i]);
	int r = recover_on_waiting(&life->worker->child, seq, life->number, fds);
	fd_close_all(fds, 3);
	return r;
}

static int
say_connected(const struct life *life, uint32_t seq, const int from[4])
{
	int fds[4];

	for (size_t i = 0; i < 4; i++)
		fds[i] = fd_dup(from[i]);
	int r = recover_on_connected(&life->worker->child, seq, life->number, fds);
	fd_close_all(fds, 4);
	return r;
}

static int
say_ended(const struct life *life, uint32_t seq, uint32_t outcome, const char *reason)
{
	struct ipc_session_ended msg = {.seq = seq, .session = life->number, .outcome = outcome};

	ipc_text(msg.reason, reason);
	return recover_on_ended(&life->worker->child, &msg);
}

static void
finish(struct life *life)
{
	session_close(life->session, SESSION_OUTCOME_CLOSED, "test");
	if (life->session->state == SESSION_CLOSING)
		life_answer_close(life);
	ok(!session_is_live(life->session) && holds_nothing(life->session), "it ends");
	ok(!has_record(life->number, ""), "and its record");
	life_drop(life);
}

/* --- Records ---------------------------------------------------------------------- */

static void
test_record(void)
{
	struct life life = life_serve(0, "vm \xc3\xa4/1", true);
	struct session before = *life.session;
	size_t damaged;

	ok(has_record(life.number, ""), "a session has a record");
	is_int(restart(&damaged), 1, "which is read again");
	is_int(damaged, 0, "undamaged");
	life = reborn(&life);
	struct session *s = life.session;
	is_int(s->state, SESSION_RECOVERING, "nobody has said yet that it is served");
	is_str(s->id, before.id, "its id");
	is_str(s->socket_path, before.socket_path, "its socket");
	is_str(s->image_path, rig.image, "its image");
	is_str(s->version, before.version, "its version");
	is_str(s->cache_key, before.cache_key, "its cache key");
	ok(s->image.dev == before.image.dev && s->image.ino == before.image.ino &&
		s->image.bytes == before.image.bytes && s->image.mtime_ns == before.image.mtime_ns,
	    "the image's identity");
	ok(s->vmm_uid == before.vmm_uid && s->vmm_gid == before.vmm_gid &&
		s->vmm_pid == before.vmm_pid && s->flags == before.flags,
	    "the VMM");
	ok(s->cluster_min_bytes == before.cluster_min_bytes &&
		s->cluster_max_bytes == before.cluster_max_bytes &&
		s->handshake_timeout_ms == before.handshake_timeout_ms,
	    "what its client had asked for");
	ok(s->created_ns == before.created_ns && s->serving_ns == before.serving_ns,
	    "and its age are as they were");
	is_int(rig.sup.sessions.next_number, life.number + 1, "numbers go on");
	is_int(rig.sup.sessions.live, 1, "it counts");
	finish(&life);
}

/* Writes text over a record, or to a new one. */
static void
write_record(uint64_t number, const char *text, size_t bytes)
{
	char path[192];

	record_path(path, number, "");
	int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	if (fd < 0 || write(fd, text, bytes) != (ssize_t)bytes)
		abort();
	fd_closep(&fd);
}

static size_t
read_record(uint64_t number, char *text, size_t bytes)
{
	char path[192];

	record_path(path, number, "");
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	ssize_t n = fd < 0 ? -1 : read(fd, text, bytes - 1);
	if (n < 0)
		abort();
	fd_closep(&fd);
	text[n] = '\0';
	return (size_t)n;
}

static void
is_refused(uint64_t number, const char *text, size_t bytes, const char *what)
{
	char path[192];
	size_t damaged;

	write_record(number, text, bytes);
	is_int(restart(&damaged), 0, "%s: no session", what);
	is_int(damaged, 1, "%s: counted", what);
	ok(!has_record(number, "") && has_record(number, ".damaged"), "%s: put aside", what);
	ok(rig.sup.sessions.next_number > number, "%s: its number is not used again", what);
	record_path(path, number, ".damaged");
	unlink(path);
}

/* The same record with one member replaced by other text. */
static void
is_refused_with(const char *good, const char *member, const char *value)
{
	char text[4096], what[64];
	const char *at = strstr(good, member);
	const char *rest = at ? strchr(at, '\n') : NULL;

	if (rest == NULL)
		abort();
	int n = snprintf(
	    text, sizeof(text), "%.*s%s %s,%s", (int)(at - good), good, member, value, rest);
	snprintf(what, sizeof(what), "%s %.30s", member, value);
	is_refused(1, text, (size_t)n, what);
}

static void
test_damage(void)
{
	struct life life = life_serve(0, "good", false);
	char good[4096];
	size_t n = read_record(life.number, good, sizeof(good)), damaged, whole = 0;

	for (size_t cut = 0; cut < n - 2; cut += 7) {
		char path[192];

		write_record(1, good, cut);
		whole += restart(&damaged);
		record_path(path, 1, ".damaged");
		unlink(path);
	}
	is_int(whole, 0, "a record that is cut short is none, wherever it is cut");
	is_refused(1, "\0\0\0\0", 4, "zeros");
	is_refused(7, good, n, "another session's");
	is_refused_with(good, "\"layout\":", "2");
	is_refused_with(good, "\"number\":", "0");
	is_refused_with(good, "\"number\":", "-1");
	is_refused_with(good, "\"id\":", "\"\"");
	is_refused_with(good, "\"id\":", "\"a\\nb\"");
	is_refused_with(good, "\"id\":", "7");
	is_refused_with(good, "\"version\":", "\"../1\"");
	is_refused_with(good, "\"image_file\":", "\"1:2:3\"");
	is_refused_with(good, "\"image_file\":", "\"nothing\"");
	is_refused_with(good, "\"cluster_min_bytes\":", "0");
	is_refused_with(good, "\"flags\":", "255");
	is_refused_with(good, "\"vmm_uid\":", "4294967295");
	is_refused_with(good, "\"cache_key\":", "\"k\", \"surprise\": 1");
	write_record(1, good, n);
	is_int(restart(&damaged), 1, "and the good one is good");
	life = reborn(&life);
	session_step(life.session, SESSION_EV_WORKER_LOST);
	life_drop(&life);
}

static void
test_other_boot(void)
{
	struct life life = life_serve(0, "old", false);
	char text[4096];
	size_t n = read_record(life.number, text, sizeof(text)), damaged;
	char *boot = strstr(text, "\"boot\": \"");

	if (boot == NULL)
		abort();
	boot[9] = boot[9] == '0' ? '1' : '0';
	write_record(life.number, text, n);
	is_int(restart(&damaged), 0, "nothing of another boot lives");
	is_int(damaged, 0, "which is no damage");
	ok(!has_record(life.number, ""), "its record goes");
	life_drop(&life);
}

static void
test_current(void)
{
	char version[VERSION_BYTES];
	char path[192];

	ok(!record_load_current(&rig.sup, version, sizeof(version)), "no version was made current");
	record_save_current(&rig.sup, "1.2.3");
	ok(record_load_current(&rig.sup, version, sizeof(version)), "one was");
	is_str(version, "1.2.3", "and is remembered");
	snprintf(path, sizeof(path), "%s/current", state_dir);
	int fd = open(path, O_WRONLY | O_TRUNC | O_CLOEXEC);
	if (fd < 0 || write(fd, "../../x\n", 8) != 8)
		abort();
	fd_closep(&fd);
	ok(!record_load_current(&rig.sup, version, sizeof(version)), "what is no version is none");
}

/* --- What a worker tells ------------------------------------------------------------ */

static void
test_serving(void)
{
	struct life life = life_serve(0, "a", true);
	const int fds[4] = {life.image, life.map, life.uffd, life.connection};
	size_t damaged;

	restart(&damaged);
	life = reborn(&life);
	struct session *s = life.session;
	is_int(say_serving(&life, SEQ, fds), 0, "it is held");
	is_int(s->state, SESSION_SERVING, "and served");
	ok(s->child == &life.worker->child && s->sent && s->opened, "by that worker");
	ok(s->uffd >= 0 && s->connection >= 0 && s->image.fd >= 0 && s->map.header != NULL,
	    "the supervisor holds it, too");
	is_int((long)s->guest_bytes, (long)RIG_IMAGE_BYTES, "it has its regions");
	is_int(life.worker->child.nr_held, 1, "one part was told");
	is_int(say_serving(&life, SEQ, fds), 0, "told again by the same worker: no matter");
	struct rig_worker *other = rig_worker_start(1);
	other->child.state = CHILD_FOUND;
	other->child.inventory_seq = SEQ;
	struct life stolen = life;
	stolen.worker = other;
	is_int(say_serving(&stolen, SEQ, fds), -EPROTO, "by another: a lie");
	fleet_next_child = &life.worker->child;
	kill(life.vmm, SIGKILL);
	wait_for(session_is_over(s));
	is_int(s->outcome, SESSION_OUTCOME_VMM_EXITED, "its VMM is watched");
	finish(&life);
}

static void
test_lies(void)
{
	struct life life = life_serve(0, "a", false);
	struct life other = life_serve(0, "b", false);
	const int good[4] = {life.image, life.map, life.uffd, life.connection};
	char path[128];
	size_t damaged;

	restart(&damaged);
	life = reborn(&life);
	other = reborn(&other);
	snprintf(path, sizeof(path), "%s/sessions/x", rig.dir);
	int file = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	int writable = open(rig.image, O_RDWR | O_CLOEXEC);
	const struct {
		const char *what;
		size_t at;
		int fd;
	} lies[] = {
	    {"another file is no image", 0, file},
	    {"nor is one that can be written", 0, writable},
	    {"nor a page map", 0, life.map},
	    {"an image is no page map", 1, life.image},
	    {"an image is no userfaultfd", 2, life.image},
	    {"nor is a connection", 2, life.connection},
	    {"another session's connection is none", 3, other.connection},
	    {"nor is a userfaultfd", 3, life.uffd},
	};
	for (size_t i = 0; i < sizeof(lies) / sizeof(lies[0]); i++) {
		int fds[4];

		memcpy(fds, good, sizeof(fds));
		fds[lies[i].at] = lies[i].fd;
		is_int(say_serving(&life, SEQ, fds), -EPROTO, "%s", lies[i].what);
		is_int(life.session->state, SESSION_RECOVERING, "nothing follows from it");
	}
	is_int(say_serving(&life, SEQ + 1, good), -EPROTO, "an inventory that nobody asked for");
	is_int(say_serving(&life, 0, good), -EPROTO, "nor is it an event");
	is_int(say_waiting(&life, SEQ, good), -EPROTO, "an image is no socket");
	is_int(say_ended(&life, SEQ, 9, ""), -EPROTO, "no such end");
	is_int(say_ended(&life, 0, IPC_ENDED_GRADUATED, ""), -EPROTO, "nor one of its own");
	is_int(say_serving(&life, SEQ, good), 0, "the truth");
	is_int(say_ended(&life, 0, IPC_ENDED_CLOSED, ""), -EPROTO, "it is not closed unasked");
	is_int(life.session->state, SESSION_SERVING, "and served on");
	const int rest[4] = {other.image, other.map, other.uffd, other.connection};
	say_serving(&other, SEQ, rest);
	finish(&life);
	finish(&other);
	fd_closep(&file);
	fd_closep(&writable);
	unlink(path);
}

static void
test_waiting(void)
{
	struct life life = life_open(0, "w");
	const int fds[3] = {life.listener, life.image, life.map};
	size_t damaged;

	restart(&damaged);
	life = reborn(&life);
	is_int(say_waiting(&life, SEQ, fds), 0, "it waits for its VMM");
	is_int(life.session->state, SESSION_CREATED, "as before");
	ok(session_is_opened(life.session), "a worker has it");
	ok(ev_is_active(&life.session->deadline), "and it has a deadline");
	const int strange[4] = {life.listener, life.image, life.map, life.worker->child.ep.fd};
	is_int(say_connected(&life, SEQ, strange), -EPROTO,
	    "told again, with what is no connection of it: a lie");
	ok(life.session->connection < 0 && life.session->vmm_pid < 0, "nobody is its VMM for that");
	is_int(life_shake(&life, false), 0, "its VMM comes");
	is_int(life.session->state, SESSION_SERVING, "and is served");
	ok(access(life.session->socket_path, F_OK) < 0, "its socket goes as it should");
	finish(&life);
}

/* No record: what no VM depends on is let go of, the rest is kept. */
static void
test_unrecorded(void)
{
	struct life waits = life_open(0, "w");
	struct life serves = life_serve(0, "s", false);
	const int three[3] = {waits.listener, waits.image, waits.map};
	const int four[4] = {serves.image, serves.map, serves.uffd, serves.connection};
	char path[192];
	size_t damaged;

	for (uint64_t i = 1; i <= 2; i++) {
		record_path(path, i, "");
		unlink(path);
	}
	snprintf(path, sizeof(path), "%s", waits.session->socket_path);
	is_int(restart(&damaged), 0, "there is no record");
	is_int(say_waiting(&waits, SEQ, three), 0, "one waits");
	struct far_message m = rig_take(waits.worker, IPC_SESSION_CLOSE);
	is_int((long)m.msg.session_close.session, (long)waits.number, "and is closed");
	is_int(say_serving(&serves, SEQ, four), 0, "one is served");
	serves = reborn(&serves);
	is_str(serves.session->id, "unrecorded-2", "and gets a name");
	is_str(serves.session->image_path, rig.image, "its image is known");
	is_int(serves.session->state, SESSION_SERVING, "it is kept");
	ok(has_record(2, ""), "and has a record now");
	is_int(rig.sup.sessions.next_number, 3, "its number is not used again");
	finish(&serves);
	life_drop(&waits);
	unlink(path);
}

/* A worker can say any number, and of sessions that nobody knows as many as it likes. */
static void
test_bounds(void)
{
	struct life serves = life_serve(0, "s", false);
	const int fds[4] = {serves.image, serves.map, serves.uffd, serves.connection};
	struct life other = serves;
	size_t damaged;

	restart(&damaged);
	other.number = INT64_MAX - 1;
	is_int(say_serving(&other, SEQ, fds), -EPROTO, "the last of all numbers is a lie");
	is_int(say_ended(&other, SEQ, IPC_ENDED_GRADUATED, ""), 0, "and is not heard elsewhere");
	is_int((long)rig.sup.sessions.next_number, (long)serves.number + 1,
	    "numbers go on where they were");
	rig.sup.max_held = 1;
	other.number = serves.number + 9;
	is_int(say_serving(&other, SEQ, fds), -EPROTO,
	    "sessions without a record end with our descriptors");
	rig.sup.max_held = 0;
	serves = reborn(&serves);
	is_int(say_serving(&serves, SEQ, fds), 0, "what is known is taken");
	finish(&serves);
}

/* Its worker has let go of the trace, or it was lost with another. */
static void
test_lost_recording(void)
{
	struct life life = life_serve(0, "r", false);
	const int fds[4] = {life.image, life.map, life.uffd, life.connection};
	const struct ipc_inventory_end last = {SEQ, 1};
	size_t damaged;

	life.worker->child.sandbox |= IPC_CAN_TRACE;
	recordings_init(&rig.sup);
	rig.sup.options.record_limit = 64;
	is_int(recording_start(life.session, &rig.peer, NULL, rig.why, sizeof(rig.why)), 0,
	    "a session is recorded");
	struct far_message m = rig_take(life.worker, IPC_SESSION_TRACE);
	fd_close_all(m.fds, IPC_MAX_FDS);
	restart(&damaged);
	life = reborn(&life);
	ok(recording_runs(life.session), "which the next supervisor knows");
	say_serving(&life, SEQ, fds);
	is_int(recover_on_end(&life.worker->child, &last), 0, "its worker has told all");
	is_int(life.session->recording->state, RECORDING_FAILED, "of the recording it had nothing");
	ok(life.session->recording->reason[0] != '\0', "so it ends: %s",
	    life.session->recording->reason);
	rig_take(life.worker, IPC_SESSION_TRACE_STOP);
	recordings_fini(&rig.sup);
	finish(&life);
}

/* A session that was moved has ended twice: once for the worker that let go of it. */
static void
test_moved(void)
{
	static const uint32_t orders[2][2] = {
	    {IPC_ENDED_CLOSED, IPC_ENDED_GRADUATED}, {IPC_ENDED_GRADUATED, IPC_ENDED_CLOSED}};
	struct life life = life_serve(0, "m", false);
	size_t damaged;

	for (size_t i = 0; i < 2; i++) {
		restart(&damaged);
		life = reborn(&life);
		is_int(say_ended(&life, SEQ, orders[i][0], ""), 0, "one worker says how it ended");
		is_int(say_ended(&life, SEQ, orders[i][1], ""), 0, "and the other");
		ok(life.session->has_ended && life.session->ended_as == IPC_ENDED_GRADUATED,
		    "it graduated, whoever is heard first");
	}
	session_step(life.session, SESSION_EV_DETACHED);
	life_drop(&life);
}

/* The supervisor that was told to close it died on the way. */
static void
test_closing(void)
{
	struct life life = life_serve(0, "c", false);
	const int fds[4] = {life.image, life.map, life.uffd, life.connection};
	size_t damaged;

	session_close(life.session, SESSION_OUTCOME_CLOSED, "by request");
	rig_take(life.worker, IPC_SESSION_CLOSE);
	restart(&damaged);
	life = reborn(&life);
	is_int(say_serving(&life, SEQ, fds), 0, "its worker had not been told");
	is_int(life.session->state, SESSION_CLOSING, "it is told again");
	is_int(life.session->outcome, SESSION_OUTCOME_CLOSED, "the outcome is what it was");
	life_answer_close(&life);
	ok(!has_record(life.number, ""), "and it ends");
	life_drop(&life);
}

int
main(void)
{
	begin();
	test_record();
	test_current();
	end();
	static void (*const tests[])(void) = {test_damage, test_other_boot, test_serving, test_lies,
	    test_waiting, test_unrecorded, test_bounds, test_lost_recording, test_moved,
	    test_closing};
	for (size_t i = 0; i < sizeof(tests) / sizeof(tests[0]); i++) {
		begin();
		tests[i]();
		end();
	}
	return done();
}
