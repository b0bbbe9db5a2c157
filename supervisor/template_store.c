/* SPDX-License-Identifier: Apache-2.0 */
/* The records of the templates: one file each, which outlives a reboot. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/scope.h"
#include "common/xalloc.h"
#include "supervisor/statefile.h"
#include "supervisor/supervisor.h"
#include "supervisor/template_impl.h"
#include "supervisor/why.h"

#define LOCK		 ".lock" /* the name of no template */
#define TAIL		 ".json"
#define FILE_NAME_BYTES	 (TEMPLATE_NAME_BYTES + sizeof(TAIL))
#define MAX_RECORD_BYTES (64U << 10) /* two paths in which every byte is escaped */
#define STATE_DIR_MODE	 0755	     /* image roots may lie below it */

static void
file_name(const char *name, char ret[FILE_NAME_BYTES])
{
	snprintf(ret, FILE_NAME_BYTES, "%s" TAIL, name);
}

int
template_save(const struct supervisor *sup, const struct template *template)
{
	scoped_free char *text = template_encode(template);
	char name[FILE_NAME_BYTES];

	file_name(template->name, name);
	return text ? statefile_replace(sup->templates->dir, name, text) : -ENOMEM;
}

int
template_unlink(const struct supervisor *sup, const struct template *template)
{
	char name[FILE_NAME_BYTES];

	file_name(template->name, name);
	if (unlinkat(sup->templates->dir, name, 0) < 0 && errno != ENOENT)
		return -errno;
	return 0;
}

/* --- Reading --------------------------------------------------------------------- */

/* 0; -ENOENT: there is no record; another negative errno and what is wrong with it. */
static int
read_record(const struct templates *templates, struct template *ret, char *why, size_t why_bytes)
{
	scoped_free char *text = NULL;
	char file[FILE_NAME_BYTES], name[TEMPLATE_NAME_BYTES];
	size_t bytes;

	memcpy(name, ret->name, sizeof(name));
	file_name(name, file);
	int r = statefile_read(templates->dir, file, MAX_RECORD_BYTES, &text, &bytes);
	if (r == -EPERM)
		return why_set(why, why_bytes, r, "it is no file of pagerd's own");
	if (r < 0)
		return why_set(why, why_bytes, r, "%s", strerror(-r));
	if (bytes == 0)
		return why_set(why, why_bytes, -EINVAL, "it is empty");
	return template_decode(text, bytes, name, ret, why, why_bytes);
}

/* Its name is taken, whatever the record says. */
static void
load(struct supervisor *sup, const char *name)
{
	struct templates *templates = sup->templates;
	struct template *template = template_new(name);
	int r = read_record(templates, template, template->reason, sizeof(template->reason));

	if (r == -ENOENT) {
		template_free(template);
		return;
	}
	if (r < 0) {
		template->state = TEMPLATE_DAMAGED;
		log_err("template %s: %s/templates/%s" TAIL
			": %s; it is refused for everything until the file is repaired or removed "
			"and pagerd reloaded",
		    name, sup->options.state_dir, name, template->reason);
	}
	templates_insert(templates, template);
}

/* The NAME of NAME.json, or false. */
static bool
name_of(const char *file, char ret[TEMPLATE_NAME_BYTES])
{
	size_t n = strlen(file), tail = strlen(TAIL);

	if (n <= tail || n - tail >= TEMPLATE_NAME_BYTES || strcmp(file + n - tail, TAIL) != 0)
		return false;
	snprintf(ret, TEMPLATE_NAME_BYTES, "%.*s", (int)(n - tail), file);
	return template_name_is_valid(ret);
}

static int
load_all(struct supervisor *sup)
{
	scoped_fd int fd = openat(sup->templates->dir, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	DIR *dir = fd >= 0 ? fdopendir(fd) : NULL;
	char name[TEMPLATE_NAME_BYTES];
	const struct dirent *entry;

	if (dir == NULL)
		return -errno;
	fd = -1; /* closedir() closes it */
	int r = 0;
	while (r == 0 && (errno = 0, entry = readdir(dir)) != NULL) {
		if (name_of(entry->d_name, name) && sup->templates->nr == TEMPLATE_MAX)
			r = -E2BIG;
		else if (name_of(entry->d_name, name))
			load(sup, name);
		else if (entry->d_name[0] != '.' && strcmp(entry->d_name, STATEFILE_NEW) != 0)
			log_warning("templates: %s/templates/%s: not ours; left alone",
			    sup->options.state_dir, entry->d_name);
	}
	if (r == 0)
		r = -errno;
	closedir(dir);
	return r;
}

/* --- Life ------------------------------------------------------------------------ */

/* Two that keep one set of templates would not know of each other's forks. */
static int
take_lock(struct templates *templates)
{
	struct flock whole = {.l_type = F_WRLCK, .l_whence = SEEK_SET};

	templates->lock =
	    openat(templates->dir, LOCK, O_RDWR | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0600);
	if (templates->lock < 0)
		return -errno;
	if (fcntl(templates->lock, F_SETLK, &whole) == 0)
		return 0;
	return errno == EACCES || errno == EAGAIN ? -EWOULDBLOCK : -errno;
}

static int
open_state_dir(const char *path, int *ret)
{
	mode_t before = umask(022);
	int r = mkdir(path, STATE_DIR_MODE) < 0 && errno != EEXIST ? -errno : 0;

	umask(before);
	if (r < 0)
		return r;
	*ret = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	return *ret < 0 ? -errno : 0;
}

static int
open_dirs(struct supervisor *sup)
{
	struct templates *templates = sup->templates;
	scoped_fd int dir = -1;
	int r = open_state_dir(sup->options.state_dir, &dir);

	if (r == 0)
		r = statefile_open_dir(dir, "templates", &templates->dir);
	if (r == 0)
		r = take_lock(templates);
	return r == 0 ? load_all(sup) : r;
}

void
templates_open(struct supervisor *sup)
{
	struct templates *templates = xcalloc(1, sizeof(*templates));
	const char *path = sup->options.state_dir;

	sup->templates = templates;
	templates->dir = templates->lock = -1;
	int r = open_dirs(sup);
	if (r == 0) {
		if (templates->nr > 0)
			log_notice("templates: known=%zu", templates->nr);
		return;
	}
	/* What was read so far may be half of it. */
	fd_closep(&templates->dir);
	if (r == -EWOULDBLOCK)
		why_set(templates->why, sizeof(templates->why), r,
		    "another pagerd holds %s; give this one another --state-dir", path);
	else if (r == -EPERM)
		why_set(templates->why, sizeof(templates->why), r,
		    "%s/templates belongs to another user; give this pagerd another --state-dir",
		    path);
	else if (r == -E2BIG)
		why_set(templates->why, sizeof(templates->why), r,
		    "%s/templates has more than %u records; remove some", path, TEMPLATE_MAX);
	else
		why_set(templates->why, sizeof(templates->why), r, "%s: %s", path, strerror(-r));
	log_warning("templates: %s; there are none until the next start", templates->why);
}

void
templates_close(struct supervisor *sup)
{
	struct templates *templates = sup->templates;

	if (templates == NULL)
		return;
	for (size_t i = 0; i < templates->nr; i++)
		template_free(templates->all[i]);
	fd_closep(&templates->dir);
	fd_closep(&templates->lock);
	free(templates);
	sup->templates = NULL;
}

void
templates_reload(struct supervisor *sup)
{
	struct templates *templates = sup->templates;
	char name[TEMPLATE_NAME_BYTES];

	if (templates == NULL || templates->dir < 0)
		return;
	/* Backwards: one that goes moves those behind it, one that is read takes its place. */
	for (size_t i = templates->nr; i-- > 0;) {
		if (templates->all[i]->state != TEMPLATE_DAMAGED)
			continue;
		memcpy(name, templates->all[i]->name, sizeof(name));
		templates_remove(templates, name);
		load(sup, name);
	}
}
