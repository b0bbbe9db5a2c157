/* SPDX-License-Identifier: Apache-2.0 */
#include "supervisor/control_sock.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/log.h"
#include "common/scope.h"
#include "common/xalloc.h"
#include "supervisor/api_route.h"
#include "supervisor/child.h"
#include "supervisor/compat_api.h"
#include "supervisor/supervisor.h"

#define MAX_VERSIONS 64

/* Others may pass, to reach the socket, and list nothing. */
#define DIR_MODE 0711

struct controls {
	struct supervisor *sup;
	struct list all;	     /* of struct control.link, by age */
	struct list retired;	     /* the same: their sockets are gone, some clients are not */
	struct http_pool clients;    /* of all of them, retired or not */
	char current[VERSION_BYTES]; /* when it was looked at last */
};

/* --- The socket ------------------------------------------------------------------ */

static char *
dir_of(const struct supervisor *sup, const char *version)
{
	return xasprintf("%s/uffd/%s", sup->options.run_dir, version);
}

static char *
path_of(const struct supervisor *sup, const char *version)
{
	return xasprintf("%s/uffd/%s/control.sock", sup->options.run_dir, version);
}

/* RUN/uffd can be written by us alone, so what is there is ours. */
static int
make_dir(const char *path)
{
	scoped_fd int fd = -1;

	if (mkdir(path, DIR_MODE) < 0 && errno != EEXIST)
		return -errno;
	fd = open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	if (fd < 0 || fchmod(fd, DIR_MODE) < 0)
		return -errno;
	return 0;
}

static void
remove_socket(const struct supervisor *sup, const char *version)
{
	scoped_free char *dir = dir_of(sup, version);
	scoped_free char *path = path_of(sup, version);

	if ((unlink(path) < 0 && errno != ENOENT) || (rmdir(dir) < 0 && errno != ENOENT))
		log_warning("control v%s: cannot remove %s: %s; left behind", version, path,
		    strerror(errno));
}

static void
open_socket(struct control *control)
{
	const struct supervisor *sup = control->api->sup;
	const struct options *options = &sup->options;
	struct http_limits limits = {options->http_timeout_ms, (uint32_t)options->http_max_clients};
	scoped_free char *dir = dir_of(sup, control->version);
	scoped_free char *path = path_of(sup, control->version);
	int fd = -1, r = make_dir(dir);

	if (r == 0)
		r = api_bind(control->api, path, &fd);
	if (r < 0) {
		log_err("control v%s: %s: %s; this version is reached by the admin API only",
		    control->version, path, strerror(-r));
		return;
	}
	control->server = http_server_new(sup->loop, fd, compat_request, control, &limits);
	http_server_set_plain(control->server);
	http_server_share(control->server, &control->api->sup->controls->clients);
	log_info("control v%s: listening on %s", control->version, path);
}

/* --- One for each version -------------------------------------------------------- */

static struct control *
find(struct controls *controls, const char *version)
{
	struct list *pos;

	list_for_each(pos, &controls->all) {
		struct control *control = list_entry(pos, struct control, link);

		if (strcmp(control->version, version) == 0)
			return control;
	}
	return NULL;
}

static void
add(struct controls *controls, const char *version)
{
	struct control *control;

	if (find(controls, version) != NULL)
		return;
	control = xcalloc(1, sizeof(*control));
	control->api = http_server_arg(controls->sup->admin);
	snprintf(control->version, sizeof(control->version), "%s", version);
	list_add(&controls->all, &control->link);
	open_socket(control);
}

static void
destroy(struct control *control)
{
	list_remove(&control->link);
	http_server_free(control->server);
	free(control);
}

/* Who has asked is still answered, since the answer may be what ended the version. */
static void
retire(struct controls *controls, struct control *control)
{
	remove_socket(controls->sup, control->version);
	list_remove(&control->link);
	list_add(&controls->retired, &control->link);
	if (control->server != NULL)
		http_server_retire(control->server);
	log_info("control v%s: removed", control->version);
}

static bool
is_current(const struct controls *controls, const struct control *control)
{
	return strcmp(controls->sup->fleet.current, control->version) == 0;
}

static bool
is_installed(const struct controls *controls, const struct control *control)
{
	char why[256];

	return fleet_check_installed(&controls->sup->fleet, control->version, why, sizeof(why)) ==
	    0;
}

/* Removes it when nothing speaks for it any more. */
static void
review(struct controls *controls, struct control *control)
{
	if (control->had_child || is_current(controls, control))
		return;
	if (control->draining || !is_installed(controls, control))
		retire(controls, control);
}

static void
review_all(struct controls *controls)
{
	struct list *pos, *tmp;

	list_for_each_safe(pos, tmp, &controls->all)
		review(controls, list_entry(pos, struct control, link));
}

/* On its way out because it was told to go: it may be past DRAINING already. */
static bool
is_unwanted(const struct child *child)
{
	return child_is_draining(child) || child->drain_sent ||
	    (child->state == CHILD_KILLING && !child->failed);
}

/* What its workers say.  Returns whether it has lost the last of them. */
static bool
look_at_child(struct controls *controls, struct control *control)
{
	const struct child *child = fleet_find(&controls->sup->fleet, control->version);
	bool had_child = control->had_child;

	control->had_child = child != NULL;
	/* Without a worker the next session of the current version starts one; and what drains
	 * of it may be left from when it was outdated. */
	if (is_current(controls, control))
		control->draining = child != NULL && !child_takes_sessions(child) &&
		    controls->sup->fleet.current_drains;
	else if (child != NULL)
		control->draining =
		    !child_takes_sessions(child) && (control->draining || is_unwanted(child));
	return had_child && child == NULL;
}

/* --- The set --------------------------------------------------------------------- */

static void
add_installed(struct controls *controls)
{
	struct version_info infos[MAX_VERSIONS];
	size_t n = fleet_versions(&controls->sup->fleet, infos, MAX_VERSIONS);

	for (size_t i = 0; i < n; i++)
		add(controls, infos[i].version);
}

/* What a pagerd that was killed has left, of versions that are not there any more. */
static void
remove_stale(struct controls *controls)
{
	const struct supervisor *sup = controls->sup;
	scoped_free char *path = xasprintf("%s/uffd", sup->options.run_dir);
	DIR *dir = opendir(path);
	const struct dirent *entry;

	while (dir != NULL && (entry = readdir(dir)) != NULL) {
		if (version_is_valid(entry->d_name) && find(controls, entry->d_name) == NULL)
			remove_socket(sup, entry->d_name);
	}
	if (dir != NULL)
		closedir(dir);
}

void
controls_new(struct supervisor *sup)
{
	struct controls *controls = xcalloc(1, sizeof(*controls));

	controls->sup = sup;
	list_init(&controls->all);
	list_init(&controls->retired);
	http_pool_init(&controls->clients);
	sup->controls = controls;
	add_installed(controls);
	remove_stale(controls);
	controls_sync(sup);
}

void
controls_sync(struct supervisor *sup)
{
	struct controls *controls = sup->controls;
	bool changed = false;
	struct list *pos, *tmp;

	if (controls == NULL)
		return;
	list_for_each(pos, &sup->fleet.children)
		add(controls, list_entry(pos, struct child, link)->version);
	if (strcmp(controls->current, sup->fleet.current) != 0) {
		changed = true;
		memcpy(controls->current, sup->fleet.current, sizeof(controls->current));
		if (controls->current[0] != '\0')
			add(controls, controls->current);
	}
	list_for_each(pos, &controls->all)
		changed |= look_at_child(controls, list_entry(pos, struct control, link));
	if (changed)
		review_all(controls);
	list_for_each_safe(pos, tmp, &controls->retired) {
		struct control *control = list_entry(pos, struct control, link);

		if (control->server == NULL || http_server_clients(control->server) == 0)
			destroy(control);
	}
}

void
controls_reload(struct supervisor *sup)
{
	struct controls *controls = sup->controls;

	if (controls == NULL)
		return;
	add_installed(controls);
	controls_sync(sup);
	review_all(controls);
}

void
controls_free(struct supervisor *sup)
{
	struct controls *controls = sup->controls;

	if (controls == NULL)
		return;
	while (!list_is_empty(&controls->retired))
		destroy(list_entry(controls->retired.next, struct control, link));
	while (!list_is_empty(&controls->all)) {
		struct control *control = list_entry(controls->all.next, struct control, link);

		remove_socket(sup, control->version);
		destroy(control);
	}
	free(controls);
	sup->controls = NULL;
}

void
control_drain(struct control *control)
{
	struct supervisor *sup = control->api->sup;

	log_notice("control v%s: drained by request", control->version);
	control->draining = true;
	if (fleet_drain(&sup->fleet, control->version) < 0 && sup->controls != NULL)
		review(sup->controls, control);
}
