/* SPDX-License-Identifier: Apache-2.0 */
/* What takes the place of parts of the image, for one session.  The files are opened as
 * images are and copied once, by the opener, when the session is created: what becomes of
 * them later does not matter, and every worker of the session gets the same bytes. */
#ifndef SUPERVISOR_OVERLAY_H
#define SUPERVISOR_OVERLAY_H

#include <jansson.h>
#include <stddef.h>
#include <stdint.h>

#include "common/overlay.h"

struct session;
struct session_request;

/* What a client asks for. */
struct overlay_request {
	uint64_t offset;
	const char *path; /* borrowed */
};

struct overlay_file {
	uint64_t offset, bytes;
	char *path; /* owned; as its client named it; empty: not known any more */
};

struct overlays {
	int fd;		   /* owned; the memfd of common/overlay.h; -1: none, or it has ended */
	uint64_t dev, ino; /* of the memfd */
	size_t nr;
	struct overlay_file *files; /* owned; sorted by offset */
};

/* Takes over what the opener made of a request's overlays; session->image is known.  0 or a
 * negative errno. */
int overlays_keep(struct session *session, const struct session_request *req, int *fd);

/* Takes over what a worker hands over, when it is what the record says; a session without a
 * record gets what there is.  0 or -EPROTO. */
int overlays_take(struct session *session, int *fd);

/* The list in a request; offset_name is what its API calls the offset.  ret has room for
 * OVERLAY_MAX.  0, or -EINVAL and a sentence; texts are borrowed from list. */
int overlays_read(const json_t *list, const char *offset_name, struct overlay_request *ret,
    char *why, size_t why_bytes);

/* For people and for the record: [{"offset", "bytes", "path"}]. */
json_t *overlays_json(const struct overlays *overlays);
/* The same from a record, which may be damaged.  0, or -EINVAL and a sentence. */
int overlays_load(
    const json_t *list, const char *file, struct overlays *ret, char *why, size_t why_bytes);
/* "DEV:INO" of the memfd. */
void overlays_put_file(json_t *json, const char *name, const struct overlays *overlays);

void overlays_free(struct overlays *overlays);

#endif
