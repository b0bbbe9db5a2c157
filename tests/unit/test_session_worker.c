/* SPDX-License-Identifier: Apache-2.0 */
/* Sessions whose worker lies, answers late or dies, and whose VMM exits. */
#include <sys/resource.h>

#include "supervisor/vmm.h"
#include "tests/unit/session_rig.h"

static void
close_now(struct life *life)
{
	session_close(life->session, SESSION_OUTCOME_CLOSED, "test");
	if (life->session->state == SESSION_CLOSING)
		life_answer_close(life);
	ok(!session_is_live(life->session) && holds_nothing(life->session), "closed");
	life_drop(life);
}

static void
test_late(void)
{
	struct life life = life_create(0, "late", geteuid());
	struct rig_worker *w = life.worker;
	struct session *s = life.session;

	is_int(rig_say_opened(w, life.open_seq + 77, life.number, 0), 0, "OPENED: old seq");
	ok(!session_is_opened(s), "is dropped");
	rig_say_opened(w, life.open_seq, life.number, 0);
	is_int(rig_say_opened(w, life.open_seq, life.number, ENOMEM), 0, "OPENED: twice");
	is_int(s->state, SESSION_CREATED, "is dropped");
	is_int(rig_say_opened(w, 0, life.number, ENOMEM), 0, "OPENED: to no request");
	is_int(s->state, SESSION_CREATED, "is dropped");
	is_int(rig_say_closed(w, 0, life.number), -EPROTO, "CLOSED: as an event is a lie");
	is_int(rig_say_closed(w, 99, life.number), 0, "CLOSED: old seq is dropped");
	life_shake(&life, false);
	is_int(rig_say_completed(w, 55, life.number, IPC_COMPLETION_DETACHED, 0, ""), 0,
	    "COMPLETED: old seq");
	is_int(s->state, SESSION_SERVING, "is dropped: nobody graduates by it");
	session_complete(s, rig.why, sizeof(rig.why));
	struct far_message m = rig_take(w, IPC_SESSION_COMPLETE);
	is_int(rig_say_completed(w, m.msg.seq - 1, life.number, IPC_COMPLETION_DETACHED, 0, ""), 0,
	    "COMPLETED: the seq before");
	is_int(s->state, SESSION_COMPLETING, "is dropped");
	rig_say_completed(w, m.msg.seq, life.number, IPC_COMPLETION_FAILED, 0, "x");
	is_int(rig_say_completed(w, m.msg.seq, life.number, IPC_COMPLETION_DETACHED, 0, ""), 0,
	    "COMPLETED: twice");
	is_int(s->state, SESSION_SERVING, "is dropped");
	close_now(&life);
	is_int(rig_say_gone(w, life.number), 0, "GONE: of a tombstone is dropped");
	is_int(rig_say_refused(w, life.number, "x"), 0, "REFUSED: of a tombstone is dropped");
	is_int(s->outcome, SESSION_OUTCOME_CLOSED, "the outcome stays");
}

static int
say_alarm(struct rig_worker *worker, uint64_t session, uint32_t kind)
{
	struct ipc_msg msg = {.type = IPC_SESSION_ALARM};

	msg.session_alarm.session = session;
	msg.session_alarm.kind = kind;
	msg.session_alarm.error = EIO;
	ipc_text(msg.session_alarm.reason, "page 7 cannot be read");
	return rig_say(worker, &msg, NULL);
}

static void
test_lies(void)
{
	struct life life = life_create(0, "lies", geteuid());
	struct rig_worker *w = life.worker;

	is_int(rig_say_opened(w, 1, 0, 0), -EPROTO, "session 0");
	is_int(rig_say_opened(w, 1, life.number + 1, 0), -EPROTO, "a session that never was");
	is_int(rig_say_opened(w, 1, UINT64_MAX, 0), -EPROTO, "the last possible session");
	is_int(rig_say_opened(w, life.open_seq, life.number, 5000), -EPROTO, "no errno");
	is_int(rig_say_refused(w, life.number, "x"), -EPROTO, "REFUSED before OPENED");
	is_int(rig_say_gone(w, life.number), -EPROTO, "GONE before OPENED");
	is_int(say_alarm(w, life.number, IPC_ALARM_FILL), -EPROTO, "ALARM before a handshake");
	life_connect(&life, false);
	write_map(life.map, RIG_IMAGE_BYTES);
	is_int(life_say_serving(&life, life.uffd, life.connection, RIG_IMAGE_BYTES), -EPROTO,
	    "SERVING before OPENED");
	is_int(life.session->state, SESSION_CREATED, "nothing of it changed the session");
	rig_say_opened(w, life.open_seq, life.number, 0);
	struct rig_worker *other = rig_worker_start(1);
	is_int(rig_say_gone(other, life.number), -EPROTO, "another worker's session");
	is_int(rig_say_refused(other, life.number, "x"), -EPROTO, "cannot be refused either");
	fleet_next_child = &w->child;
	is_int(rig_say_completed(w, 1, life.number, 17, 0, ""), -EPROTO, "no such outcome");
	close_now(&life);
}

/* What SERVING hands over, each thing wrong in turn. */
static void
test_handed_over(void)
{
	struct life life = life_open(0, "hands");
	struct life other = life_open(0, "hands2");
	int null = open("/dev/null", O_RDWR | O_CLOEXEC);
	int memfd = (int)syscall(SYS_memfd_create, "anon_inode:[userfaultfd]", 0);

	life_connect(&life, false);
	life_connect(&other, false);
	is_int(life_say_serving(&life, life.uffd, life.connection, RIG_IMAGE_BYTES), -EPROTO,
	    "a page map without regions");
	write_map(life.map, RIG_IMAGE_BYTES);
	is_int(life_say_serving(&life, life.uffd, life.connection, RIG_IMAGE_BYTES - 4096), -EPROTO,
	    "another size than the page map's");
	is_int(life_say_serving(&life, null, life.connection, RIG_IMAGE_BYTES), -EPROTO,
	    "no userfaultfd");
	is_int(life_say_serving(&life, memfd, life.connection, RIG_IMAGE_BYTES), -EPROTO,
	    "a memfd that is called like one");
	is_int(life_say_serving(&life, life.uffd, null, RIG_IMAGE_BYTES), -EPROTO, "no socket");
	is_int(life_say_serving(&life, life.uffd, life.listener, RIG_IMAGE_BYTES), -EPROTO,
	    "no connection: the listener");
	is_int(life_say_serving(&life, life.uffd, other.connection, RIG_IMAGE_BYTES), -EPROTO,
	    "another session's connection");
	is_int(life_say_serving(&life, life.connection, life.uffd, RIG_IMAGE_BYTES), -EPROTO,
	    "the right ones in the wrong order");
	is_int(life.session->state, SESSION_CREATED, "nothing of it was accepted");
	ok(life.session->uffd < 0 && life.session->connection < 0, "or kept");
	is_int(life_say_serving(&life, life.uffd, life.connection, RIG_IMAGE_BYTES), 0,
	    "the truth is");
	is_int(life_say_serving(&life, life.uffd, life.connection, RIG_IMAGE_BYTES), -EPROTO,
	    "but once only");
	is_int(rig_say_refused(life.worker, life.number, "x"), -EPROTO,
	    "what is served cannot be refused");
	is_int(say_alarm(life.worker, life.number, 99), -EPROTO, "no such alarm");
	is_int(say_alarm(life.worker, life.number, IPC_ALARM_IMAGE_READ), 0, "an alarm");
	is_int(life.session->alarms, 1, "is counted");
	is_str(life.session->reason, "page 7 cannot be read", "and kept");
	close_now(&life);
	close_now(&other);
	fd_closep(&null);
	fd_closep(&memfd);
}

/* What waits for its handshake goes to the next worker, listener and all. */
static void
test_death_before_handshake(void)
{
	struct life unopened = life_create(0, "d1", geteuid());
	struct life opened = life_open(0, "d2");
	struct rig_worker *next = rig_worker_start(2);

	rig_worker_die(unopened.worker, next);
	is_int(unopened.session->state, SESSION_CREATED, "unopened: still CREATED");
	is_int(opened.session->state, SESSION_CREATED, "opened: still CREATED");
	is_str(opened.session->version, "0.1.2", "on the next worker");
	struct life *lives[] = {&unopened, &opened};
	for (size_t i = 0; i < 2; i++) {
		life_drop(lives[i]);
		lives[i]->worker = next;
		life_take_open(lives[i]);
	}
	for (size_t i = 0; i < 2; i++) {
		is_int(rig_say_opened(next, lives[i]->open_seq, lives[i]->number, 0), 0, "taken");
		is_int(life_shake(lives[i], false), 0, "a VMM comes to the same socket");
		is_int(lives[i]->session->state, SESSION_SERVING, "SERVING");
		close_now(lives[i]);
	}
}

static int
say_adopted(struct rig_worker *worker, uint32_t seq, uint64_t session, uint32_t error)
{
	struct ipc_msg msg = {.type = IPC_SESSION_ADOPTED};

	msg.session_adopted.seq = seq;
	msg.session_adopted.session = session;
	msg.session_adopted.error = error;
	return rig_say(worker, &msg, NULL);
}

/* The next worker is asked to adopt it; returns the number of the request. */
static uint32_t
take_adopt(struct rig_worker *worker, const struct life *life)
{
	struct far_message m = rig_take(worker, IPC_SESSION_ADOPT);

	is_int(m.msg.session_adopt.session, life->number, "it is to be adopted");
	is_int(m.msg.session_adopt.image_bytes, life->session->image.bytes, "its image");
	for (size_t i = 0; i < 4; i++)
		ok(m.fds[i] >= 0, "descriptor %zu comes along", i);
	fd_close_all(m.fds, IPC_MAX_FDS);
	return m.msg.seq;
}

static void
test_death_while_serving(void)
{
	struct life life = life_serve(2, "d3", false);
	struct life busy = life_serve(2, "d4", false);
	struct life ending = life_serve(2, "d5", false);
	struct rig_worker *next = rig_worker_start(3);
	struct session *s = life.session;
	int uffd = s->uffd;

	session_complete(busy.session, rig.why, sizeof(rig.why));
	session_close(ending.session, SESSION_OUTCOME_CLOSED, "test");
	rig_worker_die(life.worker, next);
	is_int(s->state, SESSION_ADOPTING, "serving: ADOPTING");
	ok(s->uffd == uffd && fcntl(uffd, F_GETFD) >= 0, "its userfaultfd is held");
	ok(s->connection >= 0 && s->image.fd >= 0 && s->map_fd >= 0, "and all that is needed");
	ok(strstr(s->reason, "killed by SIGKILL") != NULL, "why: %s", s->reason);
	is_int(session_complete(s, rig.why, sizeof(rig.why)), -EINVAL, "it cannot be completed");
	ok(strstr(rig.why, "no worker now") != NULL, "says so: %s", rig.why);
	is_int(busy.session->state, SESSION_ADOPTING, "completing: ADOPTING");
	ok(strstr(busy.session->completion_reason, "still held") != NULL, "the completion: %s",
	    busy.session->completion_reason);
	is_int(ending.session->state, SESSION_CLOSED, "closing: closed");
	uint32_t seq = take_adopt(next, &life);
	is_int(say_adopted(next, seq + 1000, life.number, 0), 0, "an answer to nothing is late");
	is_int(s->state, SESSION_ADOPTING, "and changes nothing");
	is_int(say_adopted(next, seq, life.number, 0), 0, "adopted");
	is_int(s->state, SESSION_SERVING, "served again");
	is_str(s->version, next->child.version, "by the next worker");
	is_int(s->adoptions, 1, "counted");
	is_int(say_adopted(next, seq, life.number, 0), 0, "twice is late");
	seq = take_adopt(next, &busy);
	is_int(say_adopted(next, seq, busy.number, EBADF), 0, "one is not taken");
	is_int(busy.session->state, SESSION_ADOPTING, "it is tried again");
	ok(busy.session->uffd >= 0, "its userfaultfd is held meanwhile");
	session_close(busy.session, SESSION_OUTCOME_CLOSED, "closed by request");
	is_int(busy.session->state, SESSION_CLOSED, "a close lets it go");
	ok(holds_nothing(busy.session), "it holds nothing");
	life.worker = next;
	close_now(&life);
	life_drop(&busy);
	life_drop(&ending);
}

/* A VMM that had connected goes to the next worker with its connection. */
static void
test_death_in_handshake(void)
{
	struct life life = life_open(3, "h1");
	struct rig_worker *next;
	struct ipc_msg msg = {.type = IPC_SESSION_CONNECTED};

	life_connect(&life, false);
	msg.session_connected.session = life.number;
	is_int(rig_say(life.worker, &msg, &life.connection), 0, "the VMM has connected");
	ok(life.session->connection >= 0, "its connection is held");
	ok(life.session->vmm_pidfd >= 0, "and its process watched");
	is_int(rig_say(life.worker, &msg, &life.connection), -EPROTO, "a VMM connects once");
	next = rig_worker_start(2);
	rig_worker_die(life.worker, next);
	is_int(life.session->state, SESSION_CREATED, "still CREATED");
	life_drop(&life);
	life.worker = next;
	life_take_open(&life);
	struct far_message m = rig_take(next, IPC_SESSION_CONNECT);
	is_int(m.msg.session_connect.session, life.number, "the next worker gets it");
	ok(m.fds[0] >= 0, "with the connection");
	fd_close_all(m.fds, IPC_MAX_FDS);
	close_now(&life);
}

static void
test_move(void)
{
	struct life life = life_serve(2, "m1", false);
	struct rig_worker *old = life.worker, *next = rig_worker_start(3);
	struct session *s = life.session;

	is_int(session_move(s, "9.9.9", rig.why, sizeof(rig.why)), -EAGAIN, "no such worker");
	is_int(session_move(s, s->version, rig.why, sizeof(rig.why)), -EALREADY, "it is there");
	is_int(session_move(s, next->child.version, rig.why, sizeof(rig.why)), 0, "moved");
	is_int(s->state, SESSION_MOVING, "MOVING");
	struct far_message m = rig_take(old, IPC_SESSION_CLOSE);
	is_int(next->head, next->tail, "the other hears nothing before it is let go of");
	is_int(rig_say_closed(old, m.msg.seq, life.number), 0, "let go of");
	is_int(s->state, SESSION_ADOPTING, "ADOPTING");
	ok(s->uffd >= 0, "its userfaultfd is held");
	is_int(say_adopted(next, take_adopt(next, &life), life.number, 0), 0, "adopted");
	is_int(s->state, SESSION_SERVING, "SERVING");
	is_str(s->version, next->child.version, "there");
	life.worker = next;
	close_now(&life);
}

/* A session whose time runs out while its worker shakes hands. */
static struct life
life_time_out(const char *id)
{
	struct life life = life_open(3, id);

	life_connect(&life, false);
	write_map(life.map, RIG_IMAGE_BYTES);
	ev_feed_event(rig.sup.loop, &life.session->deadline, EV_TIMER);
	wait_for(life.session->state == SESSION_CLOSING);
	is_int(life.session->outcome, SESSION_OUTCOME_TIMED_OUT, "its time is over");
	return life;
}

static void
test_late_handshake(void)
{
	struct life life = life_time_out("lh1");
	struct session *s = life.session;

	is_int(life_say_serving(&life, life.uffd, life.connection, RIG_IMAGE_BYTES), 0,
	    "a handshake that the worker took just in time");
	ok(s->uffd >= 0, "its userfaultfd is held, for its VM lives");
	is_int(s->state, SESSION_MOVING, "until the worker has let go of it");
	is_int(s->outcome, SESSION_OUTCOME_NONE, "it has not ended");
	life_answer_close(&life);
	is_int(s->state, SESSION_ADOPTING, "then a worker adopts it");
	is_int(
	    say_adopted(life.worker, take_adopt(life.worker, &life), life.number, 0), 0, "adopted");
	is_int(s->state, SESSION_SERVING, "SERVING");
	is_str(s->reason, "", "nothing is wrong with it");
	close_now(&life);

	life = life_time_out("lh2");
	session_close(life.session, SESSION_OUTCOME_CLOSED, "closed by request");
	is_int(life_say_serving(&life, life.uffd, life.connection, RIG_IMAGE_BYTES), 0,
	    "but what somebody has closed");
	is_int(life.session->state, SESSION_CLOSING, "stays closed");
	ok(life.session->uffd < 0, "and holds nothing new");
	life_answer_close(&life);
	life_drop(&life);
}

static void
test_no_worker_left(void)
{
	struct life life = life_open(3, "d6");
	struct rig_worker *w = life.worker;

	fleet_next_error = -EAGAIN;
	rig_worker_die(w, NULL);
	is_int(life.session->state, SESSION_CREATED, "while a start backs off it waits");
	ok(!session_is_opened(life.session), "and nobody has it");
	life_drop(&life);
	life.worker = rig_worker_start(3);
	life_take_open(&life);
	ok(life.session->child == &life.worker->child, "until a worker can be started");
	fleet_next_error = -ENOENT;
	rig_worker_die(life.worker, NULL);
	is_int(life.session->state, SESSION_CLOSED, "without any hope it ends");
	is_int(life.session->outcome, SESSION_OUTCOME_FAILED, "outcome");
	ok(strstr(life.session->reason, "no worker") != NULL, "why: %s", life.session->reason);
	life_drop(&life);
	rig_worker_start(3);
	life = life_create(3, "d7", geteuid());
	for (unsigned int i = 0; session_is_live(life.session) && i < 10; i++) {
		struct rig_worker *dying = &rig.workers[3 + i % 2];
		rig_worker_die(dying, rig_worker_start(4 - i % 2));
	}
	ok(strstr(life.session->reason, "one worker after another") != NULL,
	    "one that kills its workers ends: %s", life.session->reason);
	life_drop(&life);
	rig_worker_start(0);
}

/* A worker that is not ready yet gets what waits for it when it is. */
static void
test_start_up(void)
{
	fleet_child_ready = false;
	struct life life = life_create(0, "early", geteuid());
	struct life gone = life_create(0, "early2", geteuid());

	is_int(rig.workers[0].head, rig.workers[0].tail, "nothing is sent before it is ready");
	session_close(gone.session, SESSION_OUTCOME_CLOSED, "changed my mind");
	is_int(gone.session->state, SESSION_CLOSED, "what was not sent ends at once");
	fleet_child_ready = true;
	sessions_on_child_ready(&rig.sup.sessions, &rig.workers[0].child);
	life_take_open(&life);
	is_int(rig_say_opened(life.worker, life.open_seq, life.number, 0), 0, "then it is");
	close_now(&life);
}

static void
test_lost_link(void)
{
	struct life waiting = life_open(0, "l1");
	struct life busy = life_serve(0, "l2", false);
	struct rig_worker *old = busy.worker, *next = rig_worker_start(1);

	session_complete(busy.session, rig.why, sizeof(rig.why));
	endpoint_close(&old->far);
	endpoint_close(&old->child.ep);
	sessions_on_child_unlinked(&rig.sup.sessions, &old->child);
	life_drop(&waiting);
	waiting.worker = next;
	life_take_open(&waiting);
	ok(waiting.session->child == &next->child, "what waits goes to another worker");
	is_int(busy.session->state, SESSION_COMPLETING,
	    "what is being completed waits for the end of the worker");
	session_close(busy.session, SESSION_OUTCOME_CLOSED, "test");
	is_int(busy.session->state, SESSION_CLOSING, "a close waits for the end of the worker");
	rig_worker_die(old, next);
	is_int(busy.session->state, SESSION_CLOSED, "which ends it");
	life_drop(&busy);
	close_now(&waiting);
	rig_worker_start(0);
}

static void
kill_vmm(const struct life *life, bool reap)
{
	siginfo_t info;

	kill(life->vmm, SIGKILL);
	waitid(P_PID, (id_t)life->vmm, &info, reap ? WEXITED : WEXITED | WNOWAIT);
}

static void
test_vmm_exit(void)
{
	struct life life = life_serve(0, "v1", true);
	struct session *s = life.session;

	is_int(s->vmm_pid, life.vmm, "the VMM's pid");
	is_int(rig_say_gone(life.worker, life.number), 0, "GONE while it lives");
	is_int(s->state, SESSION_SERVING, "is not taken at its word");
	ok(s->uffd >= 0, "its userfaultfd is held");
	kill(life.vmm, SIGKILL);
	wait_for(s->state == SESSION_CLOSING);
	is_int(s->outcome, SESSION_OUTCOME_VMM_EXITED, "its exit is seen by the pidfd");
	life_answer_close(&life);
	is_int(s->state, SESSION_CLOSED, "CLOSED");
	life_drop(&life);

	for (int reap = 0; reap < 2; reap++) {
		life = life_open(0, "v2");
		life_connect(&life, true);
		write_map(life.map, RIG_IMAGE_BYTES);
		kill_vmm(&life, reap);
		is_int(life_say_serving(&life, life.uffd, life.connection, RIG_IMAGE_BYTES), 0,
		    "a VMM that is dead%s before we look", reap ? " and reaped" : "");
		wait_for(life.session->state == SESSION_CLOSING);
		is_int(life.session->outcome, SESSION_OUTCOME_VMM_EXITED, "is noticed");
		life_answer_close(&life);
		if (reap)
			life.vmm = 0;
		life_drop(&life);
	}

	life = life_serve(0, "v3", true);
	rig_worker_die(life.worker, rig_worker_start(1));
	is_int(life.session->state, SESSION_ADOPTING, "without a worker");
	kill(life.vmm, SIGKILL);
	wait_for(life.session->state == SESSION_CLOSED);
	is_int(life.session->outcome, SESSION_OUTCOME_VMM_EXITED, "a VMM's exit ends it too");
	ok(holds_nothing(life.session), "it holds nothing");
	life_drop(&life);
	rig_worker_start(0);
}

/* Where the kernel cannot say who the VMM is, it is not taken for dead. */
static void
test_unseen_vmm(void)
{
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0), pidfd = -1;

	is_int(vmm_pidfd(fd, &pidfd), -ENODATA, "a peer without a pid here is unknown, not gone");
	ok(pidfd < 0, "and has no pidfd");
	fd_closep(&fd);
}

/* A process of another user: it tells whether it could connect by its exit code. */
static int
connect_as(uid_t uid, const char *path)
{
	siginfo_t info = {0};
	pid_t pid = fork();

	if (pid == 0) {
		if (setuid(uid) < 0)
			_exit(100);
		int fd = connect_to(path);
		_exit(fd < 0 ? -fd : 0);
	}
	waitid(P_PID, (id_t)pid, &info, WEXITED);
	return info.si_code == CLD_EXITED ? info.si_status : -1;
}

static void
test_users(void)
{
	struct life life = life_create(0, "u1", 64321);
	struct session *s = life.session;
	struct stat st;

	rig_say_opened(life.worker, life.open_seq, life.number, 0);
	ok(stat(s->socket_path, &st) == 0 && st.st_uid == 64321 && (st.st_mode & 0777) == 0600,
	    "the socket belongs to the VMM's user");
	is_int(connect_as(64322, s->socket_path), EACCES, "nobody else can connect");
	is_int(connect_as(64321, s->socket_path), 0, "that user can");
	life.connection = accept_one(life.listener); /* of the process above */
	fd_closep(&life.connection);
	life_connect(&life, false);
	write_map(life.map, RIG_IMAGE_BYTES);
	is_int(life_say_serving(&life, life.uffd, life.connection, RIG_IMAGE_BYTES), 0,
	    "root, which can connect anywhere");
	is_int(s->state, SESSION_CLOSING, "is not the VMM");
	is_int(s->outcome, SESSION_OUTCOME_REFUSED, "and refused");
	ok(strstr(s->reason, "64321") != NULL, "why: %s", s->reason);
	ok(s->uffd < 0, "nothing of it is kept");
	life_answer_close(&life);
	life_drop(&life);
}

/* Each open session has descriptors in the queue: a worker that starts slowly, or takes over
 * from one that had thousands, is told of them little by little, and its link is kept. */
static void
test_many_at_once(void)
{
	struct rig_worker *w = rig_worker_start(1);
	struct session *last = NULL;
	unsigned int nr = 0, told = 0;
	struct rlimit files;

	getrlimit(RLIMIT_NOFILE, &files);
	files.rlim_cur = files.rlim_max;
	setrlimit(RLIMIT_NOFILE, &files);
	ev_io_stop(rig.sup.loop, &w->far.reader);
	while (!w->child.is_behind && nr < 4000) {
		char id[32];
		const struct session_request req = {
		    .id = id, .image_path = rig.image, .vmm_uid = geteuid(), .vmm_gid = getegid()};

		snprintf(id, sizeof(id), "many-%u", nr++);
		if (rig_create(&req, &last) < 0)
			abort();
	}
	ok(w->child.is_behind && !last->sent, "after %u sessions the next one waits", nr - 1);
	ok(w->child.ep.queued <= 64, "few are on their way");
	ok(endpoint_is_open(&w->child.ep), "the link is kept");
	sessions_on_child_room(&w->child);
	ok(!last->sent, "it waits on");
	ev_io_start(rig.sup.loop, &w->far.reader);
	while (told < nr && !rig.timed_out) {
		ev_run(rig.sup.loop, EVRUN_ONCE);
		sessions_on_child_room(&w->child);
		for (; w->head != w->tail; told++) {
			struct far_message m = rig_take(w, IPC_SESSION_OPEN);

			fd_close_all(m.fds, IPC_MAX_FDS);
		}
	}
	ok(told == nr && last->sent && !w->child.is_behind, "then the worker is told of all");
	rig_worker_die(w, NULL);
	ok(rig.sup.sessions.live == 0, "and they end with it");
	rig_worker_start(0);
}

int
main(void)
{
	if (geteuid() != 0) {
		skip(1, "needs root: makes userfaultfds");
		return done();
	}
	log_init("test_session_worker", LOG_LEVEL_DEBUG);
	int before = fd_count();
	rig_start();
	test_late();
	test_lies();
	test_handed_over();
	test_death_before_handshake();
	test_death_while_serving();
	test_death_in_handshake();
	test_move();
	test_late_handshake();
	test_no_worker_left();
	test_start_up();
	test_lost_link();
	test_vmm_exit();
	test_unseen_vmm();
	test_users();
	test_many_at_once();
	is_int(rig.sup.sessions.live, 0, "nothing lives on");
	rig_stop();
	is_int(fd_count(), before, "no descriptor stayed");
	return done();
}
