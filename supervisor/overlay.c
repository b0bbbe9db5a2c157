/* SPDX-License-Identifier: Apache-2.0 */
#include "supervisor/overlay.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/fd.h"
#include "common/pagemap.h"
#include "common/scope.h"
#include "common/xalloc.h"
#include "supervisor/session.h"
#include "supervisor/why.h"

static int
identify(struct overlays *overlays)
{
	struct stat st;

	if (fstat(overlays->fd, &st) < 0)
		return -errno;
	overlays->dev = st.st_dev;
	overlays->ino = st.st_ino;
	return 0;
}

/* --- What a worker hands over ---------------------------------------------------- */

static bool
is_same(const struct overlays *overlays, const struct overlay_table *table, const struct stat *st)
{
	if (st->st_dev != overlays->dev || st->st_ino != overlays->ino || table->nr != overlays->nr)
		return false;
	for (size_t i = 0; i < overlays->nr; i++)
		if (overlays->files[i].offset != table->rows[i].offset ||
		    overlays->files[i].bytes != table->rows[i].bytes)
			return false;
	return true;
}

static void
learn(struct overlays *overlays, const struct overlay_table *table)
{
	overlays->nr = table->nr;
	overlays->files = xcalloc(table->nr, sizeof(overlays->files[0]));
	for (size_t i = 0; i < overlays->nr; i++)
		overlays->files[i] =
		    (struct overlay_file){table->rows[i].offset, table->rows[i].bytes, xstrdup("")};
}

int
overlays_take(struct session *session, int *fd)
{
	struct overlays *overlays = &session->overlays;
	struct overlay_table table;
	struct stat st;

	if (overlay_map(&table, *fd, session->image.bytes) < 0)
		return -EPROTO;
	bool is_known = overlays->nr > 0;
	bool is_ours = !is_known || (fstat(*fd, &st) == 0 && is_same(overlays, &table, &st));
	if (is_ours && !is_known)
		learn(overlays, &table);
	overlay_unmap(&table);
	if (!is_ours)
		return -EPROTO;
	overlays->fd = fd_take(fd);
	return identify(overlays);
}

/* As their client named them: the table knows no paths. */
static void
name_files(struct overlays *overlays, const struct overlay_request *requests, size_t nr)
{
	for (size_t i = 0; i < overlays->nr; i++)
		for (size_t j = 0; j < nr; j++) {
			if (requests[j].offset != overlays->files[i].offset)
				continue;
			free(overlays->files[i].path);
			overlays->files[i].path = xstrdup(requests[j].path);
		}
}

int
overlays_keep(struct session *session, const struct session_request *req, int *fd)
{
	int r = overlays_take(session, fd);

	if (r < 0)
		return r;
	name_files(&session->overlays, req->overlays, req->nr_overlays);
	session->flags |= IPC_SESSION_HAS_OVERLAYS;
	return 0;
}

void
overlays_free(struct overlays *overlays)
{
	fd_closep(&overlays->fd);
	for (size_t i = 0; i < overlays->nr; i++)
		free(overlays->files[i].path);
	free(overlays->files);
	overlays->files = NULL;
	overlays->nr = 0;
}
