/* SPDX-License-Identifier: Apache-2.0 */
/* Sessions with a worker that the test plays: real endpoints over a socket pair, real
 * sockets, userfaultfds and processes, and a loop that is run until something holds. */
#ifndef TESTS_UNIT_SESSION_RIG_H
#define TESTS_UNIT_SESSION_RIG_H

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/fd.h"
#include "supervisor/opener.h"
#include "supervisor/session_impl.h"
#include "tests/unit/fake_fleet.h"
#include "tests/unit/tap.h"

#define RIG_WORKERS	8
#define RIG_QUEUE	64
#define RIG_IMAGE_BYTES (UINT64_C(64) << 12)
#define RIG_BASE	UINT64_C(0x7f0000000000)

struct far_message {
	struct ipc_msg msg;
	int fds[IPC_MAX_FDS]; /* owned */
};

/* A worker: the supervisor's view of it, and the test's end of its link. */
struct rig_worker {
	struct child child;
	struct endpoint far;
	struct far_message queue[RIG_QUEUE];
	unsigned int head, tail;
	unsigned int handled; /* messages that reached the sessions */
	int verdict;	      /* what they said to the last one */
};

static struct {
	struct supervisor sup;
	struct rig_worker workers[RIG_WORKERS];
	ev_timer watchdog;
	bool timed_out;
	char dir[64];
	char image[96];
	struct peer peer;
	char why[512];
} rig;

/* The end of a turn of the loop, of which a test may want more. */
#ifndef RIG_STEP
#define RIG_STEP() false
#endif
static inline void
rig_sweep(void)
{
	do
		sessions_sweep(&rig.sup.sessions);
	while (RIG_STEP());
}

/* Runs the loop, and what ends each of its turns, until cond holds. */
#define wait_for(cond)                                                      \
	do {                                                                \
		rig_sweep();                                                \
		while (!(cond) && !rig.timed_out) {                         \
			ev_run(rig.sup.loop, EVRUN_ONCE);                   \
			rig_sweep();                                        \
		}                                                           \
		if (rig.timed_out)                                          \
			ok(false, "line %d: in time: %s", __LINE__, #cond); \
	} while (0)

static void
rig_on_watchdog(struct ev_loop *loop, ev_timer *timer, int revents)
{
	(void)loop;
	(void)timer;
	(void)revents;
	rig.timed_out = true;
}

static void
rig_on_near(struct endpoint *ep, const struct ipc_msg *msg, int *fds)
{
	struct rig_worker *worker = ep->owner;
	struct child *child = &worker->child;

	switch (msg->type) {
	case IPC_SESSION_OPENED:
		worker->verdict = session_on_opened(child, &msg->session_opened);
		break;
	case IPC_SESSION_SERVING:
		worker->verdict = session_on_serving(child, &msg->session_serving, fds);
		break;
	case IPC_SESSION_CONNECTED:
		worker->verdict = session_on_connected(child, &msg->session_connected, fds);
		break;
	case IPC_SESSION_ADOPTED:
		worker->verdict = session_on_adopted(child, &msg->session_adopted);
		break;
	case IPC_SESSION_REFUSED:
		worker->verdict = session_on_refused(child, &msg->session_refused);
		break;
	case IPC_SESSION_CLOSED:
		worker->verdict = session_on_closed(child, &msg->session_closed);
		break;
	case IPC_SESSION_COMPLETED:
		worker->verdict = session_on_completed(child, &msg->session_completed);
		break;
	case IPC_SESSION_GONE:
		worker->verdict = session_on_gone(child, &msg->session_gone);
		break;
	case IPC_SESSION_ALARM:
		worker->verdict = session_on_alarm(child, &msg->session_alarm);
		break;
	case IPC_SESSION_IMAGE:
		worker->verdict = session_on_image(child, &msg->session_image);
		break;
	case IPC_SESSION_IMAGE_FILE:
		worker->verdict = session_on_image_file(child, &msg->session_image_file);
		break;
	case IPC_SESSION_PICTURED:
		worker->verdict = session_on_pictured(child, &msg->session_pictured);
		break;
	default:
		ok(false, "no test sends %s", ipc_type_name(msg->type));
	}
	worker->handled++;
}

static void
rig_on_far(struct endpoint *ep, const struct ipc_msg *msg, int *fds)
{
	struct rig_worker *worker = ep->owner;
	struct far_message *m = &worker->queue[worker->tail++ % RIG_QUEUE];

	m->msg = *msg;
	for (size_t i = 0; i < IPC_MAX_FDS; i++)
		m->fds[i] = i < ipc_type_fds(msg->type) ? fd_take(&fds[i]) : -1;
}

static void
rig_on_down(struct endpoint *ep, int error, enum ipc_error fault)
{
	(void)ep;
	(void)error;
	(void)fault;
}

static const struct endpoint_ops rig_near_ops = {rig_on_near, rig_on_down};
static const struct endpoint_ops rig_far_ops = {rig_on_far, rig_on_down};

static void
rig_worker_stop(struct rig_worker *worker)
{
	if (!worker->far.ops)
		return;
	endpoint_close(&worker->far);
	endpoint_close(&worker->child.ep);
	for (; worker->head < worker->tail; worker->head++)
		fd_close_all(worker->queue[worker->head % RIG_QUEUE].fds, IPC_MAX_FDS);
}

static struct rig_worker *
rig_worker_start(unsigned int n)
{
	struct rig_worker *worker = &rig.workers[n];
	int pair[2];

	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0)
		abort();
	rig_worker_stop(worker);
	*worker = (struct rig_worker){.child.sup = &rig.sup, .child.number = n};
	snprintf(worker->child.version, sizeof(worker->child.version), "0.1.%u", n);
	list_init(&worker->child.sessions);
	endpoint_init(&worker->child.ep, rig.sup.loop, pair[0], IPC_WORKER, &rig_near_ops, worker);
	endpoint_init(&worker->far, rig.sup.loop, pair[1], IPC_SUPERVISOR, &rig_far_ops, worker);
	fleet_next_child = &worker->child;
	return worker;
}

/* As the fleet does when the process has ended.  next (may be NULL) takes what is left. */
static inline void
rig_worker_die(struct rig_worker *worker, struct rig_worker *next)
{
	fleet_next_child = next ? &next->child : NULL;
	endpoint_close(&worker->far);
	endpoint_close(&worker->child.ep);
	sessions_on_child_gone(&rig.sup.sessions, &worker->child, "killed by SIGKILL");
	ok(list_is_empty(&worker->child.sessions), "no session points at a dead worker");
	sessions_sweep(&rig.sup.sessions);
}

static void
rig_start(void)
{
	static char *roots[1], hold[] = "hold";
	struct options *options = &rig.sup.options;
	char path[128];

	snprintf(rig.dir, sizeof(rig.dir), "/tmp/test_session.XXXXXX");
	if (!mkdtemp(rig.dir))
		abort();
	snprintf(path, sizeof(path), "%s/sessions", rig.dir);
	mkdir(path, 0711);
	chmod(rig.dir, 0711);
	snprintf(rig.image, sizeof(rig.image), "%s/image", rig.dir);
	int fd = open(rig.image, O_WRONLY | O_CREAT | O_CLOEXEC, 0644);
	if (fd < 0 || ftruncate(fd, (off_t)RIG_IMAGE_BYTES) < 0)
		abort();
	fd_closep(&fd);
	rig.sup.loop = ev_loop_new(EVFLAG_AUTO);
	options->run_dir = rig.dir;
	roots[0] = rig.dir;
	options->image_root = (struct options_list){roots, 1};
	options->max_sessions = 4096;
	options->handshake_timeout_ms = 60000;
	options->tombstone_life_ms = 60000;
	options->spawn_backoff_max_ms = 30000;
	options->cluster_min_bytes = 4096;
	options->cluster_max_bytes = 65536;
	options->fault_spin_us = 7;
	options->on_image_error = hold;
	rig.peer = (struct peer){.uid = geteuid(), .gid = getegid()};
	options->open_timeout_ms = 60000;
	if (opener_start(&rig.sup) < 0)
		abort();
	sessions_init(&rig.sup.sessions, &rig.sup);
	ev_timer_init(&rig.watchdog, rig_on_watchdog, 150.0, 0.0);
	ev_timer_start(rig.sup.loop, &rig.watchdog);
	rig_worker_start(0);
}

static void
rig_stop(void)
{
	char path[128];

	sessions_fini(&rig.sup.sessions);
	opener_stop(&rig.sup);
	for (unsigned int i = 0; i < RIG_WORKERS; i++)
		rig_worker_stop(&rig.workers[i]);
	ev_timer_stop(rig.sup.loop, &rig.watchdog);
	ev_loop_destroy(rig.sup.loop);
	unlink(rig.image);
	snprintf(path, sizeof(path), "%s/sessions", rig.dir);
	ok(rmdir(path) == 0 && rmdir(rig.dir) == 0, "no socket is left behind");
}

/* The next message at the worker's end, with its descriptors, which must be of type. */
static struct far_message
rig_take(struct rig_worker *worker, enum ipc_type type)
{
	wait_for(worker->head != worker->tail);
	if (worker->head == worker->tail)
		return (struct far_message){.fds = {-1, -1, -1, -1}};
	struct far_message m = worker->queue[worker->head++ % RIG_QUEUE];
	if (m.msg.type != type)
		ok(false, "got %s, want %s", ipc_type_name(m.msg.type), ipc_type_name(type));
	return m;
}

/* The worker says msg.  Returns what the sessions say to it. */
static int
rig_say(struct rig_worker *worker, const struct ipc_msg *msg, const int *fds)
{
	unsigned int before = worker->handled;

	if (endpoint_send(&worker->far, msg, fds, ipc_type_fds(msg->type)) < 0)
		abort();
	wait_for(worker->handled != before);
	return worker->verdict;
}

static inline int
rig_say_opened(struct rig_worker *worker, uint32_t seq, uint64_t session, uint32_t error)
{
	struct ipc_msg msg = {.type = IPC_SESSION_OPENED};

	msg.session_opened = (struct ipc_session_opened){seq, session, error};
	return rig_say(worker, &msg, NULL);
}

static inline int
rig_say_closed(struct rig_worker *worker, uint32_t seq, uint64_t session)
{
	struct ipc_msg msg = {.type = IPC_SESSION_CLOSED};

	msg.session_closed = (struct ipc_session_closed){seq, session};
	return rig_say(worker, &msg, NULL);
}

static inline int
rig_say_completed(struct rig_worker *worker, uint32_t seq, uint64_t session, uint32_t outcome,
    uint32_t error, const char *reason)
{
	struct ipc_msg msg = {.type = IPC_SESSION_COMPLETED};

	msg.session_completed.seq = seq;
	msg.session_completed.session = session;
	msg.session_completed.outcome = outcome;
	msg.session_completed.error = error;
	ipc_text(msg.session_completed.reason, reason);
	return rig_say(worker, &msg, NULL);
}

static inline int
rig_say_refused(struct rig_worker *worker, uint64_t session, const char *reason)
{
	struct ipc_msg msg = {.type = IPC_SESSION_REFUSED};

	msg.session_refused.session = session;
	ipc_text(msg.session_refused.reason, reason);
	return rig_say(worker, &msg, NULL);
}

static inline int
rig_say_gone(struct rig_worker *worker, uint64_t session)
{
	struct ipc_msg msg = {.type = IPC_SESSION_GONE};

	msg.session_gone.session = session;
	return rig_say(worker, &msg, NULL);
}

/* One session, with the descriptors at the worker's end. */
struct life {
	struct rig_worker *worker;
	struct session *session;
	uint64_t number;
	uint32_t open_seq;
	int listener, image, map, uffd, connection, client;
	pid_t vmm; /* 0: this process plays it */
};

static inline struct life
life_of(struct rig_worker *worker, struct session *session)
{
	return (struct life){worker, session, session->number, 0, -1, -1, -1, -1, -1, -1, 0};
}

static inline void
life_drop(struct life *life)
{
	int *fds[] = {&life->listener, &life->image, &life->map, &life->uffd, &life->connection,
	    &life->client};

	for (size_t i = 0; i < sizeof(fds) / sizeof(fds[0]); i++)
		fd_closep(fds[i]);
	if (life->vmm > 0) {
		siginfo_t info;

		kill(life->vmm, SIGKILL);
		waitid(P_PID, (id_t)life->vmm, &info, WEXITED);
		life->vmm = 0;
	}
}

struct rig_created {
	bool is_done;
	int error;
	struct session *session;
};

static inline void
rig_on_created(void *arg, int error, struct session *session, const char *why)
{
	struct rig_created *created = arg;

	*created = (struct rig_created){true, error, session};
	snprintf(rig.why, sizeof(rig.why), "%s", why);
}

/* A process that has answered ends a little later. */
static inline bool
rig_opener_is_idle(void)
{
	uint64_t running, stuck;

	opener_count(&rig.sup, &running, &stuck);
	return running == 0;
}

static inline int
rig_create(const struct session_request *req, struct session **ret)
{
	struct rig_created created = {0};
	const struct session_order order = {
	    .peer = &rig.peer, .request = req, .done = rig_on_created, .arg = &created};
	struct creation *creation;
	int r;

	rig.why[0] = '\0';
	r = session_create(&rig.sup.sessions, &order, &creation, rig.why, sizeof(rig.why));
	while (r == 0 && !(created.is_done && rig_opener_is_idle()) && !rig.timed_out)
		ev_run(rig.sup.loop, EVRUN_ONCE);
	*ret = created.session;
	return r < 0 ? r : created.error;
}

/* The worker takes its SESSION_OPEN, but does not answer. */
static inline void
life_take_open(struct life *life)
{
	struct far_message m = rig_take(life->worker, IPC_SESSION_OPEN);

	life->open_seq = m.msg.seq;
	life->listener = m.fds[0];
	life->image = m.fds[1];
	life->map = m.fds[2];
	if (m.msg.session_open.session != life->number)
		ok(false, "SESSION_OPEN names the session");
}

static inline struct life
life_create(unsigned int worker, const char *id, uid_t vmm_uid)
{
	const struct session_request req = {
	    .id = id, .image_path = rig.image, .vmm_uid = vmm_uid, .vmm_gid = getegid()};
	struct session *session = NULL;
	int r = rig_create(&req, &session);

	if (r < 0) {
		ok(false, "create %s: %s", id, rig.why);
		abort();
	}
	struct life life = life_of(&rig.workers[worker], session);
	if (fleet_child_ready)
		life_take_open(&life);
	return life;
}

static inline struct life
life_open(unsigned int worker, const char *id)
{
	struct life life = life_create(worker, id, geteuid());

	if (rig_say_opened(life.worker, life.open_seq, life.number, 0) != 0)
		ok(false, "%s is opened", id);
	return life;
}

static inline int
connect_to(const char *path)
{
	struct sockaddr_un addr = {.sun_family = AF_UNIX};
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	snprintf(addr.sun_path, sizeof(addr.sun_path), "%s", path);
	if (connect(fd, (const struct sockaddr *)&addr, sizeof(addr)) < 0) {
		int error = errno;

		fd_closep(&fd);
		return -error;
	}
	return fd;
}

/* A process that connects and lives on until it is killed. */
static inline pid_t
vmm_start(const char *path)
{
	pid_t pid = fork();

	if (pid != 0)
		return pid;
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (connect_to(path) < 0)
		_exit(1);
	for (;;)
		pause();
}

static inline int
accept_one(int listener)
{
	struct pollfd p = {.fd = listener, .events = POLLIN};

	if (poll(&p, 1, 120000) != 1)
		return -ETIMEDOUT;
	int fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
	return fd < 0 ? -errno : fd;
}

/* The VMM connects: another process, or this one. */
static inline void
life_connect(struct life *life, bool other_process)
{
	if (other_process)
		life->vmm = vmm_start(life->session->socket_path);
	else
		life->client = connect_to(life->session->socket_path);
	life->connection = accept_one(life->listener);
	life->uffd = (int)syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK);
	if (life->connection < 0 || life->uffd < 0) {
		ok(false, "a VMM connects");
		abort();
	}
}

/* What the worker writes when a handshake was valid. */
static inline void
write_map(int fd, uint64_t bytes)
{
	struct pagemap map = {0};

	if (pagemap_map(&map, fd, true) < 0)
		abort();
	map.header->regions[0] = (struct region){RIG_BASE, bytes, 0, PAGE_BYTES};
	atomic_store(&map.header->nr_regions, 1);
	pagemap_unmap(&map);
}

static inline int
life_say_serving(struct life *life, int uffd, int connection, uint64_t bytes)
{
	struct ipc_msg msg = {.type = IPC_SESSION_SERVING};
	const int fds[2] = {uffd, connection};

	msg.session_serving = (struct ipc_session_serving){0, life->number, 1, bytes};
	return rig_say(life->worker, &msg, fds);
}

static inline int
life_shake(struct life *life, bool other_process)
{
	life_connect(life, other_process);
	write_map(life->map, RIG_IMAGE_BYTES);
	return life_say_serving(life, life->uffd, life->connection, RIG_IMAGE_BYTES);
}

static inline struct life
life_serve(unsigned int worker, const char *id, bool other_process)
{
	struct life life = life_open(worker, id);

	if (life_shake(&life, other_process) != 0 || life.session->state != SESSION_SERVING)
		ok(false, "%s is served", id);
	return life;
}

/* The worker lets go when it is told to. */
static inline void
life_answer_close(struct life *life)
{
	struct far_message m = rig_take(life->worker, IPC_SESSION_CLOSE);

	is_int(rig_say_closed(life->worker, m.msg.seq, life->number), 0, "it lets go");
}

static inline bool
holds_nothing(const struct session *s)
{
	return s->listener < 0 && s->image.fd < 0 && s->uffd < 0 && s->connection < 0 &&
	    s->vmm_pidfd < 0 && s->map_fd < 0 && !s->map.header;
}

#endif
