/* SPDX-License-Identifier: Apache-2.0 */
#include "supervisor/supervisor.h"

#include <errno.h>
#include <inttypes.h>
#include <signal.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/fd.h"
#include "supervisor/account.h"
#include "supervisor/api.h"
#include "supervisor/child.h"
#include "supervisor/config_check.h"
#include "supervisor/control_sock.h"
#include "supervisor/handoff.h"
#include "supervisor/hotcache.h"
#include "supervisor/notify.h"
#include "supervisor/opener.h"
#include "supervisor/fdstore.h"
#include "supervisor/privs.h"
#include "supervisor/record.h"
#include "supervisor/rundir.h"
#include "supervisor/stop.h"
#include "supervisor/template.h"
#include "supervisor/upgrade.h"

/* Descriptors that one session costs at most, and what we need besides the clients of our
 * sockets. */
#define FDS_PER_SESSION 9
#define FDS_BESIDES	256

/* --- Start ----------------------------------------------------------------------- */

static int
choose_worker_user(struct supervisor *sup)
{
	const char *name = sup->options.worker_user;

	if (!priv_is_available(PRIV_SPAWN)) {
		sup->worker_uid = geteuid();
		sup->worker_gid = getegid();
		log_warning("privileges: cannot %s; workers run as user %u like pagerd",
		    priv_doc(PRIV_SPAWN), (unsigned int)sup->worker_uid);
		return 0;
	}
	if (account_user(name, &sup->worker_uid, &sup->worker_gid) < 0) {
		log_err("worker-user %s: there is no such user; create it or name another", name);
		return -ENOENT;
	}
	if (sup->worker_uid == 0) {
		log_err("worker-user %s: a worker must not be root; name another user", name);
		return -EPERM;
	}
	return 0;
}

static int
choose_admin_group(struct supervisor *sup)
{
	const char *name = sup->options.admin_group;

	sup->admin_gid = (gid_t)-1;
	if (name[0] == '\0' || account_group(name, &sup->admin_gid) == 0)
		return 0;
	log_err("admin-group %s: there is no such group; create it or name another", name);
	return -ENOENT;
}

/* We keep a duplicate of every session's descriptors.  What has no room is refused when it is
 * created: when its userfaultfd arrives it would be too late.  Clients have their share, too: those
 * of admin.sock and those of the versions.  Of a small limit sessions get half at least. */
static void
raise_files(struct supervisor *sup)
{
	uint64_t besides = FDS_BESIDES + 2 * sup->options.http_max_clients;
	struct rlimit files, raised;

	if (getrlimit(RLIMIT_NOFILE, &files) < 0)
		return;
	raised = (struct rlimit){files.rlim_max, files.rlim_max};
	if (setrlimit(RLIMIT_NOFILE, &raised) < 0)
		log_warning("limits: cannot raise the number of descriptors: %s", strerror(errno));
	else
		files = raised;
	if (besides > files.rlim_cur / 2)
		besides = files.rlim_cur / 2;
	sup->max_held = (files.rlim_cur - besides) / FDS_PER_SESSION;
	if (sup->max_held == 0)
		sup->max_held = 1;
	if (sup->max_held < sup->options.max_sessions)
		log_warning("limits: %" PRIu64 " descriptors are enough for %" PRIu64
			    " sessions, not for max-sessions=%" PRIu64 "; more are refused",
		    (uint64_t)files.rlim_cur, sup->max_held, sup->options.max_sessions);
}

/* --- The loop -------------------------------------------------------------------- */

/* True when sessions have changed by it. */
static bool
step_all(struct supervisor *sup)
{
	bool changed = handoffs_step(sup);

	return controller_step(&sup->controller) || changed;
}

static void
send_what_waits(struct supervisor *sup)
{
	struct list *pos;

	list_for_each(pos, &sup->fleet.children)
		sessions_on_child_room(list_entry(pos, struct child, link));
}

/* The end of each turn: what the callbacks left for dead is freed here. */
static void
on_sweep(struct ev_loop *loop, ev_prepare *w, int events)
{
	struct supervisor *sup = w->data;

	(void)loop;
	(void)events;
	recover_check(sup);
	upgrade_check(sup);
	send_what_waits(sup);
	do
		sessions_sweep(&sup->sessions);
	while (step_all(sup));
	api_events_tell(sup);
	fleet_sweep(&sup->fleet);
	controls_sync(sup);
	stop_check(sup);
}

static void
on_term(struct ev_loop *loop, ev_signal *w, int events)
{
	(void)loop;
	(void)events;
	stop_begin(w->data, w->signum == SIGINT ? "SIGINT" : "SIGTERM");
}

static void
on_hup(struct ev_loop *loop, ev_signal *w, int events)
{
	struct supervisor *sup = w->data;
	char why[512];
	int r;

	(void)loop;
	(void)events;
	if (sup->stopping)
		return;
	notify_reloading();
	r = options_reload(&sup->options, sup->argc, sup->argv, why, sizeof(why));
	if (r < 0)
		log_err("reload: %s; nothing changed", why);
	else
		log_notice("reload: done");
	config_check_roots(&sup->options);
	templates_reload(sup);
	controls_reload(sup);
	supervisor_options_changed(sup);
	notify_reloaded();
}

static void
on_watchdog(struct ev_loop *loop, ev_timer *w, int events)
{
	(void)loop;
	(void)w;
	(void)events;
	notify_watchdog();
}

static void
start_watchers(struct supervisor *sup)
{
	double watchdog_s = (double)notify_watchdog_interval_ms() / 1000.;

	ev_prepare_init(&sup->sweep, on_sweep);
	sup->sweep.data = sup;
	ev_prepare_start(sup->loop, &sup->sweep);
	ev_signal_init(&sup->on_term, on_term, SIGTERM);
	ev_signal_init(&sup->on_int, on_term, SIGINT);
	ev_signal_init(&sup->on_hup, on_hup, SIGHUP);
	sup->on_term.data = sup;
	sup->on_int.data = sup;
	sup->on_hup.data = sup;
	ev_signal_start(sup->loop, &sup->on_term);
	ev_signal_start(sup->loop, &sup->on_int);
	ev_signal_start(sup->loop, &sup->on_hup);
	ev_timer_init(&sup->watchdog, on_watchdog, watchdog_s, watchdog_s);
	if (watchdog_s > 0.)
		ev_timer_start(sup->loop, &sup->watchdog);
}

static void
stop_watchers(struct supervisor *sup)
{
	ev_prepare_stop(sup->loop, &sup->sweep);
	ev_signal_stop(sup->loop, &sup->on_term);
	ev_signal_stop(sup->loop, &sup->on_int);
	ev_signal_stop(sup->loop, &sup->on_hup);
	ev_timer_stop(sup->loop, &sup->watchdog);
	stop_fini(sup);
}

/* --- Life ------------------------------------------------------------------------ */

int
supervisor_init(struct supervisor *sup, struct options *options, int argc, char *const argv[])
{
	int r;

	*sup = (struct supervisor){.run_dir = -1, .lock = -1, .argc = argc, .argv = argv};
	options_move(&sup->options, options);
	sup->started_ns = clock_now_ns();
	oom_init(&sup->oom);
	umask(077);
	signal(SIGPIPE, SIG_IGN);
	sup->loop = ev_loop_new(EVFLAG_AUTO | EVFLAG_NOENV);
	if (sup->loop == NULL) {
		log_err("supervisor: cannot make an event loop; not started");
		return -ENOMEM;
	}
	notify_open(sup->loop);
	passed_open(&sup->passed);
	raise_files(sup);
	r = rundir_open(sup);
	if (r < 0)
		return r;
	r = privs_init();
	if (r < 0) {
		log_err("privileges: cannot be reduced: %s; not started", strerror(-r));
		return r;
	}
	r = choose_worker_user(sup);
	if (r == 0)
		r = choose_admin_group(sup);
	if (r == 0)
		r = opener_start(sup);
	if (r < 0)
		return r;
	config_check_roots(&sup->options);
	recordings_init(sup);
	sessions_init(&sup->sessions, sup);
	metrics_init(&sup->metrics);
	controller_init(&sup->controller, sup);
	handoffs_init(sup);
	templates_open(sup);
	r = record_open(sup);
	if (r == 0)
		r = fleet_init(&sup->fleet, sup);
	if (r < 0)
		return r;
	start_watchers(sup);
	recover_start(sup);
	/* Who asks for sessions is told of all of them: until then nobody can ask. */
	while (!recover_is_settled(sup) && sup->stopping == STOP_NOT)
		ev_run(sup->loop, EVRUN_ONCE);
	if (sup->stopping != STOP_NOT)
		return 0;
	recover_check(sup);
	r = api_new(sup);
	if (r == 0)
		controls_new(sup);
	passed_close(&sup->passed);
	return r;
}

void
supervisor_run(struct supervisor *sup)
{
	int ready_fd = sup->options.ready_fd > 0 ? (int)sup->options.ready_fd : -1;

	if (sup->stopping != STOP_NOT) {
		ev_run(sup->loop, 0);
		return;
	}
	log_notice("supervisor: ready on %s", sup->options.run_dir);
	notify_status("ready; new sessions go to version %s",
	    sup->fleet.current[0] != '\0' ? sup->fleet.current : "(none installed)");
	notify_ready(ready_fd);
	ev_run(sup->loop, 0);
}

static uint64_t
count_orphans(const struct supervisor *sup, uint64_t *ret_sessions)
{
	const struct list *link;
	uint64_t n = 0;

	list_for_each(link, &sup->fleet.children) {
		const struct child *child = list_entry(link, struct child, link);
		uint64_t sessions = child_nr_sessions(child);

		*ret_sessions += sessions;
		n += child->state != CHILD_GONE && sessions > 0;
	}
	return n;
}

void
supervisor_fini(struct supervisor *sup)
{
	uint64_t sessions = 0;
	uint64_t orphans = 0;

	if (sup->fleet.sup != NULL) {
		orphans = count_orphans(sup, &sessions);
		stop_watchers(sup);
		controls_free(sup);
		api_free(sup);
		upgrade_fini(sup);
		handoffs_fini(sup);
		controller_fini(&sup->controller);
		sessions_fini(&sup->sessions);
		recordings_fini(sup);
		hotcache_free(sup->hotcache);
		fleet_fini(&sup->fleet);
		metrics_fini(&sup->metrics);
		events_fini(&sup->events);
	}
	opener_stop(sup);
	if (orphans > 0)
		log_notice("supervisor: stopped; workers=%" PRIu64 " keep sessions=%" PRIu64,
		    orphans, sessions);
	else
		log_notice("supervisor: stopped");
	fdstore_close(sup);
	notify_close();
	passed_close(&sup->passed);
	record_close(sup);
	templates_close(sup);
	rundir_close(sup);
	if (sup->loop != NULL)
		ev_loop_destroy(sup->loop);
	sup->loop = NULL;
	options_fini(&sup->options);
}
