/* SPDX-License-Identifier: Apache-2.0 */
/* doctor: pagerd itself, by its API. */
#include <errno.h>
#include <inttypes.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/num.h"
#include "common/scope.h"
#include "common/xalloc.h"
#include "supervisor/ctl/doctor.h"
#include "supervisor/ctl/exchange.h"
#include "supervisor/ctl/text.h"
#include "version_gen.h"

#define ASK_MS	       UINT64_C(5000)
#define MAX_LIST_BYTES ((size_t)256 << 20)

/* The status, and the JSON that came with it, which the caller owns; else a negative errno. */
static int
ask_for(struct doctor *d, const char *target, json_t **ret)
{
	const struct exchange get = {
	    d->ctl->socket_path, "GET", target, NULL, clock_now_ns() + ASK_MS * NS_PER_MS};
	struct answer answer = {0};

	exchange_run_up_to(&get, MAX_LIST_BYTES, &answer);
	*ret = answer.json;
	return answer.status;
}

/* 0 with the JSON, owned; else a negative errno. */
static int
ask(struct doctor *d, const char *target, json_t **ret)
{
	int status = ask_for(d, target, ret);

	if (status == 200 && *ret)
		return 0;
	json_decref(*ret);
	*ret = NULL;
	return status < 0 ? status : -EPROTO;
}

static void
say_silent(struct doctor *d, int error)
{
	const char *path = d->ctl->socket_path;

	if (error == -ENOENT)
		doctor_say(d, "pagerd", DOCTOR_FAIL,
		    "systemctl start pagerd, or name its socket by --socket",
		    "there is no socket %s", path);
	else if (error == -ECONNREFUSED)
		doctor_say(d, "pagerd", DOCTOR_FAIL,
		    "systemctl start pagerd; journalctl -u pagerd says why it ended",
		    "nobody listens on %s", path);
	else if (error == -EACCES || error == -EPERM)
		doctor_say(d, "pagerd", DOCTOR_FAIL,
		    "run pagerctl as root, or join the group of the socket (admin-group)",
		    "you may not connect to %s", path);
	else
		doctor_say(d, "pagerd", DOCTOR_FAIL, "journalctl -u pagerd", "no answer on %s: %s",
		    path, strerror(-error));
}

static void
check_versions(struct doctor *d)
{
	json_t *json = NULL;
	const json_t *v;
	const char *current;
	size_t i, installed = 0;

	if (ask(d, "/versions", &json) < 0)
		return;
	current = ctl_text(json, "current");
	json_array_foreach(json_object_get(json, "versions"), i, v)
	{
		installed += ctl_flag(v, "installed");
		if (!ctl_flag(v, "installed") && ctl_u64(v, "sessions"))
			doctor_say(d, "workers", DOCTOR_WARN,
			    "install it again, or complete its sessions",
			    "version %s serves %" PRIu64
			    " sessions and is no longer installed: a worker that dies cannot be "
			    "started again",
			    ctl_text(v, "version"), ctl_u64(v, "sessions"));
		if (ctl_u64(v, "retry_in_ms"))
			doctor_say(d, "workers", DOCTOR_FAIL,
			    "journalctl -u pagerd has its last words",
			    "the worker of version %s keeps dying", ctl_text(v, "version"));
	}
	if (!*current)
		doctor_say(d, "workers", DOCTOR_FAIL,
		    "install a package pagerd-worker-VERSION, or set worker-dir",
		    "no version is installed: no session can be created");
	else
		doctor_say(d, "workers", DOCTOR_OK, NULL, "new sessions go to %s; installed: %zu",
		    current, installed);
	json_decref(json);
}

static void
check_sessions(struct doctor *d)
{
	json_t *json = NULL;
	const json_t *s;
	size_t i, live = 0, held = 0, alarmed = 0, changed = 0;
	const char *one = "", *other = "", *third = "";

	if (ask(d, "/sessions", &json) < 0)
		return;
	json_array_foreach(json_object_get(json, "sessions"), i, s)
	{
		if (*ctl_text(s, "outcome"))
			continue;
		live++;
		if (strcmp(ctl_text(s, "state"), "held") == 0) {
			held++;
			one = ctl_text(s, "id");
		}
		if (*ctl_text(s, "image_changed")) {
			changed++;
			third = ctl_text(s, "id");
		} else if (ctl_u64(s, "alarms")) {
			alarmed++;
			other = ctl_text(s, "id");
		}
	}
	if (held)
		doctor_say(d, "sessions", DOCTOR_FAIL, "pagerctl retry ID, or close it",
		    "%zu frozen because workers died with them, such as %s", held, one);
	if (alarmed)
		doctor_say(d, "sessions", DOCTOR_FAIL, "pagerctl show ID; look at the storage",
		    "%zu whose image could not be read, such as %s", alarmed, other);
	if (changed)
		doctor_say(d, "sessions", DOCTOR_FAIL,
		    "restore them again from a whole image; nothing may write to one in place",
		    "%zu whose image was modified under them, such as %s", changed, third);
	if (!held && !alarmed && !changed)
		doctor_say(
		    d, "sessions", DOCTOR_OK, NULL, "%zu, none held, none with alarms", live);
	json_decref(json);
}

static void
check_damaged(struct doctor *d, const json_t *list)
{
	const json_t *t, *one = NULL;
	size_t i, damaged = 0;

	json_array_foreach(list, i, t)
	{
		if (strcmp(ctl_text(t, "state"), "damaged") == 0) {
			damaged++;
			one = t;
		}
	}
	if (damaged)
		doctor_say(d, "templates", DOCTOR_FAIL,
		    "repair or remove their files in STATE-DIR/templates, then systemctl reload "
		    "pagerd",
		    "%zu whose record cannot be read, such as %s: %s", damaged,
		    ctl_text(one, "name"), ctl_text(one, "reason"));
}

static void
check_templates(struct doctor *d)
{
	json_t *json = NULL;
	int status = ask_for(d, "/templates", &json);

	if (status == 200)
		check_damaged(d, json_object_get(json, "templates"));
	else if (status == 503)
		doctor_say(d, "templates", DOCTOR_WARN,
		    "mend the directory of state-dir, then systemctl restart pagerd; no VM notices",
		    "%s", ctl_text(json, "error"));
	json_decref(json);
}

static const json_t *
option(const json_t *config, const char *name)
{
	return json_object_get(json_object_get(json_object_get(config, "options"), name), "value");
}

/* As pagerd sees it: its unit has a file system of its own, with parts taken away.  Who may not
 * look through its eyes uses his own. */
static int
stat_as_pagerd(const struct doctor *d, pid_t pid, const char *path)
{
	scoped_free char *comm = xasprintf("/proc/%d/comm", (int)pid);
	scoped_free char *name = xasprintf("%s/proc/%d/root%s", d->root, (int)pid, path);
	char text[32];
	struct stat st;

	/* Another namespace's number may be anybody's here. */
	if (doctor_read(d, comm, text, sizeof(text)) == 0 && strcmp(text, "pagerd") == 0) {
		if (stat(name, &st) == 0)
			return 0;
		if (errno == ENOENT)
			return -ENOENT;
	}
	return stat(path, &st) < 0 ? -errno : 0;
}

static void
check_root(struct doctor *d, pid_t pid, const char *path)
{
	struct stat st;
	int r = stat_as_pagerd(d, pid, path);

	if (r == 0)
		doctor_say(d, "images", DOCTOR_OK, NULL, "image root %s", path);
	else if (stat(path, &st) == 0)
		doctor_say(d, "images", DOCTOR_WARN,
		    "systemctl edit pagerd: ProtectHome=read-only, or what else hides it",
		    "image root %s is there, but not for pagerd, whose unit hides it", path);
	else
		doctor_say(d, "images", DOCTOR_WARN, "make it, or take it out of image-root",
		    "image root %s: %s", path, strerror(-r));
}

static void
check_roots(struct doctor *d, const json_t *config, pid_t pid)
{
	const json_t *list = option(config, "image-root"), *root;
	size_t i;

	if (json_array_size(list) == 0)
		doctor_say(d, "images", DOCTOR_FAIL, "set image-root in pagerd.conf",
		    "pagerd has no image root: no image can be opened");
	json_array_foreach(list, i, root)
	{
		const char *path = json_string_value(root);

		if (path)
			check_root(d, pid, path);
	}
}

static void
check_config(struct doctor *d, pid_t pid)
{
	json_t *json = NULL;
	const char *text;
	uint64_t max_sessions;

	if (ask(d, "/config", &json) < 0)
		return;
	check_roots(d, json, pid);
	text = json_string_value(option(json, "max-sessions"));
	if (text && num_parse_u64(text, 0, UINT32_MAX, &max_sessions) == 0)
		doctor_limits(d, pid, max_sessions);
	text = json_string_value(option(json, "backend"));
	if (text && strcmp(text, "file") == 0)
		doctor_say(d, "pagerd", DOCTOR_WARN, "pagerctl config backend=uffd",
		    "its backend is file: no session is made, VMMs map their images themselves");
	json_decref(json);
}

void
doctor_pagerd(struct doctor *d)
{
	json_t *health = NULL;
	const char *version;
	char up[TEXT_BYTES];
	pid_t pid;
	int r = ask(d, "/health", &health);

	if (r < 0) {
		say_silent(d, r);
		return;
	}
	version = ctl_text(health, "version");
	/* Not whom the socket names: that is the service manager, if it made the socket. */
	pid = (pid_t)ctl_u64(health, "pid");
	doctor_say(d, "pagerd", DOCTOR_OK, NULL, "%s, process %d, up %s", version, (int)pid,
	    text_nanos(up, ctl_u64(health, "uptime_ms") * NS_PER_MS));
	if (strcmp(version, PROJECT_VERSION) != 0)
		doctor_say(d, "pagerd", DOCTOR_WARN, "systemctl restart pagerd; no VM notices",
		    "pagerd is %s, pagerctl %s: an upgrade has not been finished", version,
		    PROJECT_VERSION);
	json_decref(health);
	check_config(d, pid);
	check_versions(d);
	check_sessions(d);
	check_templates(d);
}
