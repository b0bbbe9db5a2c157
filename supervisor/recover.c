/* SPDX-License-Identifier: Apache-2.0 */
#include "supervisor/recover.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/fd.h"
#include "common/num.h"
#include "common/scope.h"
#include "common/xalloc.h"
#include "supervisor/child.h"
#include "supervisor/fdstore.h"
#include "supervisor/record.h"
#include "supervisor/recording.h"
#include "supervisor/session_impl.h"
#include "supervisor/supervisor.h"
#include "supervisor/vmm.h"

/* --- Knocking -------------------------------------------------------------------- */

static int
knock(const char *path, int *ret)
{
	struct sockaddr_un addr = {.sun_family = AF_UNIX};
	scoped_fd int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

	if (fd < 0)
		return -errno;
	if (strlen(path) >= sizeof(addr.sun_path))
		return -ENAMETOOLONG;
	memcpy(addr.sun_path, path, strlen(path) + 1);
	if (connect(fd, (struct sockaddr *)&addr, sizeof(addr)) < 0)
		return -errno;
	*ret = fd_take(&fd);
	return 0;
}

/* Whoever listens there is to be a worker, by the uid that the kernel noted when it did. */
static int
identify(struct child *child, int fd)
{
	struct vmm_peer peer;
	int r = vmm_peer(fd, &peer);

	if (r < 0)
		return r;
	child->pid = peer.pid;
	if (peer.uid != child->sup->worker_uid) {
		child_log(child, LOG_LEVEL_ERR,
		    "runs as user %u, not as worker-user %u: not trusted and left alone, with what "
		    "it serves",
		    (unsigned)peer.uid, (unsigned)child->sup->worker_uid);
		return -EPERM;
	}
	return vmm_pidfd(fd, &child->pidfd);
}

static int
open_words(struct child *child, int *ret_writer)
{
	int fds[2];

	if (pipe2(fds, O_CLOEXEC | O_NONBLOCK) < 0)
		return -errno;
	child->words_fd = fds[0];
	*ret_writer = fds[1];
	return 0;
}

static int
greet(struct child *child)
{
	scoped_fd int fd = -1;
	scoped_fd int words = -1;
	int r = knock(child->rendezvous_path, &fd);

	if (r == 0)
		r = identify(child, fd);
	if (r == 0)
		r = open_words(child, &words);
	if (r < 0)
		return r;
	child->words_end = fd_take(&words);
	child_link_open(child, fd_take(&fd));
	child_reap_start(child);
	return 0;
}

static void
meet(struct supervisor *sup, const char *version, uint32_t number, const char *name)
{
	struct fleet *fleet = &sup->fleet;
	struct child *child = child_new(sup, version, number);
	int r;

	child->state = CHILD_FOUND;
	child->started_ns = clock_now_ns();
	snprintf(child->rendezvous_path, sizeof(child->rendezvous_path), "%s/workers/%.60s",
	    sup->options.run_dir, name);
	if (fleet->next_number < number)
		fleet->next_number = number;
	r = greet(child);
	if (r == -ECONNREFUSED || r == -ESRCH) {
		log_info("recovery: workers/%s: nobody listens; removed", name);
		unlink(child->rendezvous_path);
	}
	if (r == -ECONNREFUSED || r == -ESRCH || r == -EPERM) {
		child_free(child);
		return;
	}
	/* Too many knock there, or we are short of something: it lives, and so do its VMs. */
	if (r < 0)
		log_warning("recovery: workers/%s: %s; knocked at again", name, strerror(-r));
	list_add(&fleet->children, &child->link);
	sup->recovery.workers++;
	child_fsm_start(child);
}

/* VERSION.NUMBER.sock */
static void
meet_name(struct supervisor *sup, const char *name)
{
	char version[VERSION_BYTES + 16];
	size_t n = strlen(name);
	uint64_t number;
	char *dot;

	if (n <= 5 || n - 5 >= sizeof(version) || strcmp(name + n - 5, ".sock") != 0)
		return;
	snprintf(version, sizeof(version), "%.*s", (int)(n - 5), name);
	dot = strrchr(version, '.');
	if (dot == NULL || num_parse_u64(dot + 1, 0, UINT32_MAX, &number) < 0)
		return;
	*dot = '\0';
	if (version_is_valid(version) && strlen(version) < VERSION_BYTES)
		meet(sup, version, (uint32_t)number, name);
	else
		log_warning("recovery: workers/%s: not ours; left alone", name);
}

static void
meet_all(struct supervisor *sup)
{
	scoped_fd int fd =
	    openat(sup->run_dir, "workers", O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	DIR *dir = fd >= 0 ? fdopendir(fd) : NULL;
	const struct dirent *entry;

	if (dir == NULL)
		return;
	fd = -1; /* closedir() closes it */
	while ((entry = readdir(dir)) != NULL)
		meet_name(sup, entry->d_name);
	closedir(dir);
}

void
recover_start(struct supervisor *sup)
{
	size_t damaged;
	size_t n = record_load_all(sup, &damaged);

	sup->recovery = (struct recovery){.is_running = true, .begun_ns = clock_now_ns()};
	fdstore_open(sup);
	meet_all(sup);
	if (n > 0 || damaged > 0 || sup->recovery.workers > 0)
		log_notice("recovery: workers=%" PRIu64 " records=%zu damaged=%zu",
		    sup->recovery.workers, n, damaged);
}

void
recover_ask(struct child *child)
{
	struct ipc_msg msg = {.type = IPC_INVENTORY};
	int r;

	msg.inventory.seq = endpoint_next_seq(&child->ep);
	child->inventory_seq = msg.inventory.seq;
	child->nr_held = 0;
	r = child_send(child, &msg, &child->words_end, 1);
	if (r < 0)
		endpoint_fail(&child->ep, r);
	fd_closep(&child->words_end);
}

/* Nobody waits any longer for what it holds. */
static void
find_late(struct child *child)
{
	uint64_t patience_ns = child->sup->options.hello_timeout_ms * NS_PER_MS;

	if (!child->is_late && clock_now_ns() - child->started_ns < patience_ns)
		return;
	child->is_late = true;
	child_log(child, LOG_LEVEL_ERR,
	    "has not told what it holds: left alone, because it may hold memory of VMs that is "
	    "nowhere else; asked again");
}

void
recover_ask_again(struct child *child)
{
	int r = 0;

	find_late(child);
	if (endpoint_is_open(&child->ep))
		return;
	child->inventory_seq = 0;
	child_reap_stop(child);
	fd_closep(&child->words_end);
	r = greet(child);
	if (r == -ECONNREFUSED || r == -ESRCH) {
		snprintf(child->obituary, sizeof(child->obituary), "ended, nobody knows how");
		child->failed = true;
		child_step(child, CHILD_EV_EXITED, NULL);
	} else if (r < 0) {
		child_log(child, LOG_LEVEL_ERR, "cannot be asked: %s", strerror(-r));
	}
}

void
recover_disown(struct child *child)
{
	endpoint_close(&child->ep);
	child->is_late = true;
	child_log(child, LOG_LEVEL_ERR,
	    "%s: not trusted and left alone, because it may hold memory of VMs that is nowhere "
	    "else; asked again",
	    child->cause);
}

/* --- The account ----------------------------------------------------------------- */

static bool
is_awaited(const struct supervisor *sup, bool also_late)
{
	const struct list *pos;

	list_for_each(pos, &sup->fleet.children) {
		const struct child *child = list_entry(pos, const struct child, link);

		if (child->state == CHILD_FOUND && (also_late || !child->is_late))
			return true;
	}
	return false;
}

bool
recover_is_settled(const struct supervisor *sup)
{
	return !is_awaited(sup, false);
}

static void
lose(struct session *session)
{
	char reason[sizeof(session->reason)];

	if (session->serving_ns == 0) {
		snprintf(reason, sizeof(reason),
		    "worker v%s died while no supervisor was there; its VMM had not been served yet",
		    session->version);
	} else {
		snprintf(reason, sizeof(reason),
		    "worker v%s died while no supervisor was there: pages that VMM pid=%d had not "
		    "touched read as zeros; stop it",
		    session->version, (int)session->vmm_pid);
	}
	session_decide(session, SESSION_OUTCOME_FAILED, reason);
	session->sup->recovery.lost++;
	session_step(session, SESSION_EV_WORKER_LOST);
}

/* By number: as good as its record, and nothing but a sentence depends on it. */
static bool
has_vmm_exited(const struct session *session)
{
	return session->serving_ns != 0 && session->vmm_pid > 0 && kill(session->vmm_pid, 0) < 0 &&
	    errno == ESRCH;
}

/* Without its connection the VMM is who the record says.  Whoever has that number since can
 * have it only once the VMM has exited, which is all that is asked. */
static int
meet_recorded(struct session *session)
{
	int fd;

	if (session->vmm_pid <= 0)
		return -ENODATA;
	fd = (int)syscall(SYS_pidfd_open, session->vmm_pid, 0);
	if (fd < 0)
		return -errno;
	session->vmm_pidfd = fd;
	return 0;
}

/* From what the service manager has kept.  False when it has not.  A userfaultfd is held
 * whatever else is missing: to let go of it would be to fill its VM with zeros. */
static bool
restore(struct session *session)
{
	enum fdstore_part part = fdstore_claim(session);
	int met;

	if (part == FDSTORE_NOTHING)
		return false;
	session->serving_ns = session->serving_ns != 0 ? session->serving_ns : clock_now_ns();
	if (session->map.header != NULL)
		session_measure(session);
	metrics_begin(session);
	met = session->connection >= 0 ? session_meet_vmm(session, session->connection)
				       : meet_recorded(session);
	if (met == -EPERM)
		return true; /* closed */
	session->sup->recovery.sessions++;
	session->unserved_ns = clock_now_ns();
	recording_settle(session);
	if (part == FDSTORE_ALL)
		snprintf(session->reason, sizeof(session->reason),
		    "worker v%s died while no supervisor was there", session->version);
	session_step(
	    session, part == FDSTORE_ALL ? SESSION_EV_FOUND_STORED : SESSION_EV_FOUND_PART);
	session_watch_vmm(session, met);
	return true;
}

void
recover_unrecorded(struct supervisor *sup, uint64_t number)
{
	struct session *session = session_new(&sup->sessions);

	/* The manager keeps it, for the next supervisor. */
	if (session == NULL)
		return;
	session->state = SESSION_RECOVERING;
	session->is_unrecorded = true;
	session->number = number;
	session->image_path = xstrdup("unknown");
	snprintf(session->id, sizeof(session->id), "unrecorded-%" PRIu64, number);
	snprintf(session->cache_key, sizeof(session->cache_key), "%s", session->id);
	sessions_insert(&sup->sessions, session);
	if (!restore(session))
		lose(session);
}

/* Of a session that no worker holds. */
static void
conclude(struct session *session)
{
	struct recovery *recovery = &session->sup->recovery;

	recovery->ended++;
	if (session->has_ended && session->ended_as == IPC_ENDED_GRADUATED) {
		session_step(session, SESSION_EV_DETACHED);
	} else if (session->has_ended && session->ended_as == IPC_ENDED_REFUSED) {
		session_decide(session, SESSION_OUTCOME_REFUSED, session->completion_reason);
		session_step(session, SESSION_EV_REFUSED);
	} else if (session->outcome != SESSION_OUTCOME_NONE) {
		session_step(session, SESSION_EV_RELEASED);
	} else if ((session->has_ended && session->ended_as == IPC_ENDED_GONE) ||
	    has_vmm_exited(session)) {
		session_vmm_exited(session);
	} else {
		recovery->ended--;
		if (!restore(session))
			lose(session);
	}
}

static void
conclude_all(struct supervisor *sup)
{
	struct list *pos, *tmp;

	list_for_each_safe(pos, tmp, &sup->sessions.all) {
		struct session *session = list_entry(pos, struct session, link);

		if (session->state == SESSION_RECOVERING)
			conclude(session);
	}
}

void
recover_check(struct supervisor *sup)
{
	struct recovery *recovery = &sup->recovery;

	if (!recovery->is_running || is_awaited(sup, true))
		return;
	recovery->is_running = false;
	conclude_all(sup);
	fdstore_settle(sup);
	if (recovery->workers + recovery->sessions + recovery->ended + recovery->lost == 0)
		return;
	log_at(recovery->lost > 0 ? LOG_LEVEL_ERR : LOG_LEVEL_NOTICE,
	    "recovery: done, workers=%" PRIu64 " sessions=%" PRIu64 " ended=%" PRIu64
	    " lost=%" PRIu64 " ms=%.1f",
	    recovery->workers, recovery->sessions, recovery->ended, recovery->lost,
	    (double)(clock_now_ns() - recovery->begun_ns) / (double)NS_PER_MS);
}
