/* SPDX-License-Identifier: Apache-2.0 */
/* The admin API on the rig of the sessions: real clients of a real socket, a worker that
 * the test plays, and a fleet that does nothing. */
#ifndef TESTS_UNIT_API_RIG_H
#define TESTS_UNIT_API_RIG_H

#define FAKE_FLEET_OWN_FIND
#include "supervisor/api.h"
#include "supervisor/api_route.h"
#include "supervisor/handoff.h"
#include "supervisor/stop.h"
#include "supervisor/upgrade.h"
#include "tests/unit/session_rig.h"

#define ANSWER_BYTES 65536

/* The rest of the fleet, as the API wants it. */
static upgrade_done_fn upgrade_done;
static void *upgrade_arg;
static int upgrade_result;
static unsigned nr_forgotten;

int
upgrade_start(struct supervisor *sup, const char *version, upgrade_done_fn done_fn, void *arg,
    char *why, size_t why_bytes)
{
	(void)sup;
	snprintf(why, why_bytes, "about %s", version);
	if (upgrade_result == 0) {
		upgrade_done = done_fn;
		upgrade_arg = arg;
	}
	return upgrade_result;
}

void
upgrade_forget(struct supervisor *sup, void *arg, bool handoff)
{
	(void)sup;
	(void)handoff;
	nr_forgotten += arg == upgrade_arg;
}

static int shutdown_result;
static int shutdown_forced;

int
stop_for_good(
    struct supervisor *sup, int force, uint64_t *ret_sessions, char *ids, size_t ids_bytes)
{
	(void)sup;
	shutdown_forced = force;
	*ret_sessions = 2;
	snprintf(ids, ids_bytes, "a, b");
	return shutdown_result;
}

struct child *
fleet_find(struct fleet *fleet, const char *version)
{
	(void)fleet;
	return strcmp(version, "1.0") == 0 ? &rig.workers[0].child : NULL;
}

int
fleet_child_to_adopt(
    struct fleet *fleet, const char *version, struct child **ret, char *why, size_t why_bytes)
{
	(void)version;
	return fleet_child_for_new(fleet, NULL, ret, why, why_bytes);
}

int
fleet_child_for_trial(
    struct fleet *fleet, const char *version, struct child **ret, char *why, size_t why_bytes)
{
	return fleet_child_to_adopt(fleet, version, ret, why, why_bytes);
}

void
fleet_drain_outdated(struct fleet *fleet, struct child *child)
{
	(void)fleet;
	(void)child;
}

int
fleet_check_installed(struct fleet *fleet, const char *version, char *why, size_t why_bytes)
{
	(void)fleet;
	snprintf(why, why_bytes, "version %s is not installed", version);
	return -ENOENT;
}

int
fleet_start(
    struct fleet *fleet, const char *version, struct child **ret, char *why, size_t why_bytes)
{
	(void)ret;
	return fleet_check_installed(fleet, version, why, why_bytes);
}

int
fleet_drain(struct fleet *fleet, const char *version)
{
	return fleet_find(fleet, version) ? 0 : -ENOENT;
}

size_t
fleet_versions(struct fleet *fleet, struct version_info *infos, size_t max)
{
	(void)fleet;
	(void)infos;
	(void)max;
	return 0;
}

uint64_t
child_nr_sessions(const struct child *child)
{
	(void)child;
	return 0;
}

bool
child_is_draining(const struct child *child)
{
	(void)child;
	return false;
}

const char *
child_state_word(enum child_state state)
{
	(void)state;
	return "ready";
}

/* One client with one request. */
struct asker {
	int fd;
	char in[ANSWER_BYTES];
	size_t bytes;
	bool eof;
	ev_io io;
};

/* Reads what has come; the end of the stream is the end of the answer. */
static inline void
on_answer(struct ev_loop *loop, ev_io *io, int revents)
{
	struct asker *a = io->data;
	ssize_t n = recv(a->fd, a->in + a->bytes, sizeof(a->in) - 1 - a->bytes, MSG_DONTWAIT);

	(void)revents;
	if (n > 0)
		a->bytes += (size_t)n;
	else if (n == 0 || errno != EAGAIN) {
		a->eof = true;
		ev_io_stop(loop, io);
	}
}

static inline void
leave(struct asker *a)
{
	ev_io_stop(rig.sup.loop, &a->io);
	fd_closep(&a->fd);
}

static inline void
ask(struct asker *a, const char *method, const char *target, const char *body)
{
	char text[1024], path[128];
	int n = snprintf(text, sizeof(text),
	    "%s %s HTTP/1.1\r\nConnection: close\r\nContent-Length: %zu\r\n\r\n%s", method, target,
	    strlen(body), body);

	snprintf(path, sizeof(path), "%s/admin.sock", rig.dir);
	memset(a, 0, sizeof(*a));
	a->fd = connect_to(path);
	if (a->fd < 0 || send(a->fd, text, (size_t)n, MSG_NOSIGNAL) != n)
		abort();
	ev_io_init(&a->io, on_answer, a->fd, EV_READ);
	a->io.data = a;
	ev_io_start(rig.sup.loop, &a->io);
}

/* Turns of the loop until what can happen at once has happened. */
static inline void
settle(void)
{
	for (int i = 0; i < 20; i++)
		ev_run(rig.sup.loop, EVRUN_NOWAIT);
}

/* Lets it be read, and says whether it waits. */
static inline bool
waits(struct asker *a)
{
	settle();
	return !a->eof;
}

/* The status of the answer, once it has come; its text stays in a->in. */
static inline long
status_of(struct asker *a)
{
	wait_for(a->eof);
	leave(a);
	return a->bytes > 12 ? strtol(a->in + 9, NULL, 10) : 0;
}

static inline long
ask_now(const char *method, const char *target, const char *body, struct asker *a)
{
	ask(a, method, target, body);
	return status_of(a);
}

static inline void
start(void)
{
	static char backend[] = "uffd";
	struct options *options = &rig.sup.options;

	rig_start();
	controller_init(&rig.sup.controller, &rig.sup);
	list_init(&rig.sup.fleet.children);
	handoffs_init(&rig.sup);
	options->admin_group = (char[]){""};
	options->backend = backend;
	rig.sup.admin_gid = (gid_t)-1;
	options->http_timeout_ms = 60000;
	options->http_max_clients = 16;
	if (api_new(&rig.sup) < 0)
		abort();
}

static inline void
stop(void)
{
	api_free(&rig.sup);
	handoffs_fini(&rig.sup);
	controller_fini(&rig.sup.controller);
	rig_stop();
}

static inline const char *
body_for(const char *id)
{
	static char create_body[256];

	snprintf(
	    create_body, sizeof(create_body), "{\"image\":\"%s\",\"id\":\"%s\"}", rig.image, id);
	return create_body;
}

/* The session that a request has made, at the worker. */
static inline struct life
life_asked(const char *id)
{
	struct session *session;

	wait_for(session_find(&rig.sup.sessions, id) != NULL);
	session = session_find(&rig.sup.sessions, id);
	if (!session)
		abort();
	struct life life = life_of(&rig.workers[0], session);
	life_take_open(&life);
	return life;
}

static inline void
close_life(struct life *life)
{
	session_close(life->session, SESSION_OUTCOME_CLOSED, "test");
	struct far_message m = rig_take(life->worker, IPC_SESSION_CLOSE);
	rig_say_closed(life->worker, m.msg.seq, life->number);
	life_drop(life);
}

#endif
