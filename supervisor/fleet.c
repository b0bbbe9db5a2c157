/* SPDX-License-Identifier: Apache-2.0 */
#include "supervisor/fleet.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/log.h"
#include "common/scope.h"
#include "common/xalloc.h"
#include "supervisor/child.h"
#include "supervisor/drain.h"
#include "supervisor/fleet_backoff.h"
#include "supervisor/record.h"
#include "supervisor/supervisor.h"
#include "supervisor/upgrade.h"

/* A worker that was ready this long has not died of its start. */
#define STABLE_RUN_MS 30000
#define MAX_VERSIONS  256

/* --- Starts and deaths ----------------------------------------------------------- */

/* VMs are frozen until their sessions are adopted.  A version that gets as far as being ready
 * may try at once: a session that kills workers is found out by its trial, not by waiting. */
static bool
may_start_to_adopt(struct fleet *fleet, const char *version)
{
	const struct fleet_backoff *backoff = backoff_find(fleet, version);

	return backoff == NULL || backoff->was_ready || backoff_left_ms(fleet, version) == 0;
}

uint64_t
fleet_on_death(struct fleet *fleet, const struct child *child)
{
	const struct fleet_backoff *backoff = backoff_find(fleet, child->version);
	bool was_stable =
	    child->ready_ns != 0 && clock_now_ns() - child->ready_ns >= STABLE_RUN_MS * NS_PER_MS;

	/* That of one that was there for suspects is theirs, not the version's; and of several that
	 * were started together the first tells what all do, however long they take. */
	if (child->is_trial && child->ready_ns != 0)
		return 0;
	if (child->is_trial && backoff != NULL && child->started_ns < backoff_since_ns(backoff))
		return backoff_left_ms(fleet, child->version);
	if (was_stable || !child->failed)
		backoff_drop(backoff_find(fleet, child->version));
	/* One that was killed from outside has shown nothing of its version. */
	return child->failed
	    ? backoff_add(fleet, child->version, child->ready_ns != 0 || child->was_killed)
	    : 0;
}

/* --- What is installed ----------------------------------------------------------- */

/* What others can change must not be started by us. */
static int
check_owner(const struct stat *st, const char *what, char *why, size_t why_bytes)
{
	if (st->st_uid != 0 && st->st_uid != geteuid()) {
		snprintf(why, why_bytes, "%s belongs to user %u; root must own it", what,
		    (unsigned int)st->st_uid);
		return -EPERM;
	}
	if ((st->st_mode & (S_IWGRP | S_IWOTH)) != 0) {
		snprintf(why, why_bytes,
		    "%s can be written by others (mode %04o); remove that permission", what,
		    (unsigned int)(st->st_mode & 07777));
		return -EPERM;
	}
	return 0;
}

/* Opens VERSION/pager-worker for execution.  The caller owns the descriptor. */
static int
open_worker(struct fleet *fleet, const char *version, int *ret, char *why, size_t why_bytes)
{
	const char *root = fleet->sup->options.worker_dir;
	scoped_fd int dir =
	    openat(fleet->worker_dir, version, O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	scoped_fd int file = -1;
	scoped_free char *path = xasprintf("%s/%s/pager-worker", root, version);
	struct stat dir_st, file_st;
	int r;

	if (dir >= 0)
		file = openat(dir, "pager-worker", O_PATH | O_NOFOLLOW | O_CLOEXEC);
	if (dir < 0 || file < 0 || fstat(dir, &dir_st) < 0 || fstat(file, &file_st) < 0) {
		r = -errno;
		snprintf(why, why_bytes, "version %s is not installed: %s: %s", version, path,
		    strerror(-r));
		return r == -ENOTDIR || r == -ELOOP ? -ENOENT : r;
	}
	if (!S_ISREG(file_st.st_mode) || (file_st.st_mode & S_IXOTH) == 0) {
		snprintf(why, why_bytes, "version %s: %s is not an executable file", version, path);
		return -ENOENT;
	}
	r = check_owner(&dir_st, path, why, why_bytes);
	if (r == 0)
		r = check_owner(&file_st, path, why, why_bytes);
	if (r == 0)
		*ret = fd_take(&file);
	return r;
}

int
fleet_check_installed(struct fleet *fleet, const char *version, char *why, size_t why_bytes)
{
	scoped_fd int fd = -1;

	if (!version_is_valid(version)) {
		snprintf(why, why_bytes, "that is not a version: up to three dotted numbers");
		return -EINVAL;
	}
	return open_worker(fleet, version, &fd, why, why_bytes);
}

/* The versions on disk that may be started, in no order.  Returns how many. */
static size_t
scan(struct fleet *fleet, char (*versions)[VERSION_BYTES], size_t max)
{
	scoped_fd int fd = openat(fleet->worker_dir, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	const struct dirent *entry;
	char why[256];
	size_t n = 0;
	DIR *dir;

	if (fd < 0)
		return 0;
	dir = fdopendir(fd);
	if (dir == NULL)
		return 0;
	fd = -1; /* closedir() closes it */
	while (n < max && (entry = readdir(dir)) != NULL) {
		if (fleet_check_installed(fleet, entry->d_name, why, sizeof(why)) < 0)
			continue;
		snprintf(versions[n++], VERSION_BYTES, "%.*s", VERSION_BYTES - 1, entry->d_name);
	}
	closedir(dir);
	return n;
}

static void
choose_newest(struct fleet *fleet)
{
	char versions[MAX_VERSIONS][VERSION_BYTES];
	size_t n = scan(fleet, versions, MAX_VERSIONS);

	for (size_t i = 0; i < n; i++) {
		if (fleet->current[0] == '\0' || version_compare(versions[i], fleet->current) > 0)
			memcpy(fleet->current, versions[i], VERSION_BYTES);
	}
	if (fleet->current[0] != '\0')
		log_notice(
		    "fleet: current version is %s, the newest of %zu installed", fleet->current, n);
}

/* What an upgrade has made current stays so. */
static bool
choose_remembered(struct fleet *fleet)
{
	char version[VERSION_BYTES], why[512];

	if (!record_load_current(fleet->sup, version, sizeof(version)))
		return false;
	if (fleet_check_installed(fleet, version, why, sizeof(why)) < 0) {
		log_warning("fleet: %s was current: %s; the newest takes its place", version, why);
		return false;
	}
	memcpy(fleet->current, version, sizeof(version));
	log_notice("fleet: current version is %s, as it was", fleet->current);
	return true;
}

/* --- Children -------------------------------------------------------------------- */

/* How well a child stands for its version: higher is better, 0 not at all. */
static int
rank(const struct child *child)
{
	if (child->state == CHILD_GONE)
		return 0;
	if (child->is_trial)
		return 1;
	if (child_takes_sessions(child))
		return 4;
	return child_is_draining(child) ? 3 : 2;
}

struct child *
fleet_find(struct fleet *fleet, const char *version)
{
	struct child *best = NULL;
	struct list *link;

	list_for_each(link, &fleet->children) {
		struct child *child = list_entry(link, struct child, link);

		if (strcmp(child->version, version) == 0 &&
		    rank(child) > (best != NULL ? rank(best) : 0))
			best = child;
	}
	return best;
}

static int
start_child(
    struct fleet *fleet, const char *version, struct child **ret, char *why, size_t why_bytes)
{
	scoped_fd int worker = -1;
	struct child *child;
	int r = open_worker(fleet, version, &worker, why, why_bytes);

	if (r < 0)
		return r;
	child = child_new(fleet->sup, version, ++fleet->next_number);
	r = child_spawn(child, worker, why, why_bytes);
	if (r < 0) {
		uint64_t ms = backoff_add(fleet, version, false);

		log_warning("fleet: %s; the next start waits %" PRIu64 " ms", why, ms);
		child_free(child);
		return r;
	}
	list_add(&fleet->children, &child->link);
	child_fsm_start(child);
	*ret = child;
	return 0;
}

int
fleet_start(
    struct fleet *fleet, const char *version, struct child **ret, char *why, size_t why_bytes)
{
	struct child *child;

	if (!version_is_valid(version)) {
		snprintf(why, why_bytes, "that is not a version: up to three dotted numbers");
		return -EINVAL;
	}
	child = fleet_find(fleet, version);
	if (child != NULL && child_takes_sessions(child)) {
		*ret = child;
		return 0;
	}
	return start_child(fleet, version, ret, why, why_bytes);
}

/* The version that new sessions go to when none is named; NULL when there is none. */
static const char *
current_version(struct fleet *fleet)
{
	if (fleet->current[0] == '\0')
		choose_newest(fleet);
	return fleet->current[0] != '\0' ? fleet->current : NULL;
}

int
fleet_child_for_new(
    struct fleet *fleet, const char *version, struct child **ret, char *why, size_t why_bytes)
{
	const char *wanted = version != NULL ? version : current_version(fleet);
	const struct child *child;
	uint64_t ms;

	if (fleet->sup->stopping) {
		snprintf(why, why_bytes, "pagerd is stopping");
		return -EAGAIN;
	}
	if (wanted == NULL) {
		snprintf(why, why_bytes, "no worker is installed below %s",
		    fleet->sup->options.worker_dir);
		return -ENOENT;
	}
	child = fleet_find(fleet, wanted);
	/* What drains of the current version may be left from when it was outdated. */
	if (child != NULL && child_is_draining(child) &&
	    (fleet->current_drains || strcmp(wanted, fleet->current) != 0)) {
		snprintf(why, why_bytes,
		    "version %s is draining; upgrade to another version or wait until it has exited",
		    wanted);
		return version != NULL ? -ESHUTDOWN : -EAGAIN;
	}
	if (child == NULL && strcmp(wanted, fleet->current) == 0)
		fleet->current_drains = false; /* and has exited */
	ms = backoff_left_ms(fleet, wanted);
	if (ms > 0 && (child == NULL || !child_takes_sessions(child))) {
		snprintf(why, why_bytes,
		    "workers of version %s keep dying; the next start is in %" PRIu64
		    " ms, the log says why",
		    wanted, ms);
		return -EAGAIN;
	}
	return fleet_start(fleet, wanted, ret, why, why_bytes);
}

bool
fleet_can_adopt(const struct child *child)
{
	return child->state == CHILD_STARTING || child->state == CHILD_UNWANTED ||
	    child->state == CHILD_READY || child->state == CHILD_DRAINING;
}

int
fleet_start_to_adopt(
    struct fleet *fleet, const char *version, struct child **ret, char *why, size_t why_bytes)
{
	if (may_start_to_adopt(fleet, version))
		return start_child(fleet, version, ret, why, why_bytes);
	snprintf(why, why_bytes, "workers of version %s keep dying", version);
	return -EAGAIN;
}

int
fleet_child_to_adopt(
    struct fleet *fleet, const char *version, struct child **ret, char *why, size_t why_bytes)
{
	struct child *child = fleet_find(fleet, version);
	int r;

	if (child != NULL && !child->is_trial && fleet_can_adopt(child)) {
		*ret = child;
		return 0;
	}
	/* Also while we stop: nobody else holds what it needs. */
	r = fleet_start_to_adopt(fleet, version, ret, why, why_bytes);
	if (r < 0 && strcmp(version, fleet->current) != 0)
		r = fleet_child_for_new(fleet, NULL, ret, why, why_bytes);
	return r;
}

void
fleet_drain_outdated(struct fleet *fleet, struct child *child)
{
	if (upgrade_awaits(fleet->sup, child))
		return;
	if (child->is_trial)
		drain_child(child, "for those that it tries only");
	if (strcmp(child->version, fleet->current) != 0)
		drain_child(child, "outdated");
	else if (fleet->current_drains)
		drain_child(child, "by request");
}

void
fleet_set_current(struct fleet *fleet, const char *version)
{
	char previous[VERSION_BYTES];

	memcpy(previous, fleet->current, sizeof(previous));
	snprintf(fleet->current, sizeof(fleet->current), "%s", version);
	fleet->current_drains = false;
	record_save_current(fleet->sup, version);
	if (strcmp(previous, version) != 0)
		log_notice("fleet: current version is %s, was %s; workers of other versions drain",
		    fleet->current, previous[0] != '\0' ? previous : "none");
	drain_others(fleet->sup, version, "outdated");
}

int
fleet_drain(struct fleet *fleet, const char *version)
{
	struct list *link, *next;
	int r = -ENOENT;

	list_for_each_safe(link, next, &fleet->children) {
		struct child *child = list_entry(link, struct child, link);

		if (child->state == CHILD_GONE || strcmp(child->version, version) != 0)
			continue;
		drain_child(child, "by request");
		r = 0;
	}
	if (r == 0 && strcmp(version, fleet->current) == 0)
		fleet->current_drains = true;
	return r;
}

/* --- The list for people --------------------------------------------------------- */

static struct version_info *
info_of(struct version_info *infos, size_t *n, size_t max, const char *version)
{
	for (size_t i = 0; i < *n; i++) {
		if (strcmp(infos[i].version, version) == 0)
			return &infos[i];
	}
	if (*n == max)
		return NULL;
	infos[*n] = (struct version_info){0};
	snprintf(infos[*n].version, VERSION_BYTES, "%s", version);
	return &infos[(*n)++];
}

static int
compare_infos(const void *a, const void *b)
{
	const struct version_info *x = a;
	const struct version_info *y = b;

	return version_compare(y->version, x->version);
}

size_t
fleet_versions(struct fleet *fleet, struct version_info *infos, size_t max)
{
	char versions[MAX_VERSIONS][VERSION_BYTES];
	size_t nr_installed = scan(fleet, versions, MAX_VERSIONS);
	struct version_info *info;
	const struct list *link;
	size_t n = 0;

	for (size_t i = 0; i < nr_installed; i++) {
		info = info_of(infos, &n, max, versions[i]);
		if (info != NULL)
			info->installed = true;
	}
	list_for_each(link, &fleet->children) {
		const struct child *child = list_entry(link, struct child, link);

		if (child->state == CHILD_GONE)
			continue;
		info = info_of(infos, &n, max, child->version);
		if (info != NULL)
			info->sessions += child_nr_sessions(child);
	}
	for (size_t i = 0; i < n; i++) {
		infos[i].current = strcmp(infos[i].version, fleet->current) == 0;
		infos[i].child = fleet_find(fleet, infos[i].version);
		/* Where the next session would start one, none is draining. */
		if (infos[i].child != NULL && infos[i].child->is_trial && infos[i].current)
			infos[i].child = NULL;
		infos[i].retry_in_ms = backoff_left_ms(fleet, infos[i].version);
	}
	qsort(infos, n, sizeof(*infos), compare_infos);
	return n;
}

/* --- Life ------------------------------------------------------------------------ */

int
fleet_init(struct fleet *fleet, struct supervisor *sup)
{
	const struct options *options = &sup->options;
	char why[512];
	int r;

	*fleet = (struct fleet){.sup = sup};
	list_init(&fleet->children);
	list_init(&fleet->backoffs);
	child_reap_unwatched_init(fleet);
	fleet->worker_dir = open(options->worker_dir, O_PATH | O_DIRECTORY | O_CLOEXEC);
	if (fleet->worker_dir < 0) {
		r = -errno;
		log_err("fleet: worker-dir %s: %s", options->worker_dir, strerror(-r));
		return r;
	}
	if (options->current[0] == '\0' && !choose_remembered(fleet)) {
		choose_newest(fleet);
		if (fleet->current[0] == '\0')
			log_warning("fleet: no worker is installed below %s; sessions are refused "
				    "until one is",
			    options->worker_dir);
		return 0;
	}
	if (options->current[0] == '\0')
		return 0;
	r = fleet_check_installed(fleet, options->current, why, sizeof(why));
	if (r < 0) {
		log_err("fleet: --current: %s", why);
		return r;
	}
	snprintf(fleet->current, sizeof(fleet->current), "%s", options->current);
	log_notice("fleet: current version is %s, as configured", fleet->current);
	return 0;
}

void
fleet_sweep(struct fleet *fleet)
{
	struct list *link, *next;

	list_for_each_safe(link, next, &fleet->children) {
		struct child *child = list_entry(link, struct child, link);

		if (child->state != CHILD_GONE)
			continue;
		list_remove(&child->link);
		child_free(child);
	}
}

void
fleet_fini(struct fleet *fleet)
{
	if (fleet->sup == NULL)
		return;
	while (!list_is_empty(&fleet->children)) {
		struct child *child = list_entry(fleet->children.next, struct child, link);

		list_remove(&child->link);
		child_free(child);
	}
	while (!list_is_empty(&fleet->backoffs))
		backoff_drop(list_entry(fleet->backoffs.next, struct fleet_backoff, link));
	child_reap_unwatched_fini(fleet);
	fd_closep(&fleet->worker_dir);
}
