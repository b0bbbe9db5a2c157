/* SPDX-License-Identifier: Apache-2.0 */
/* Pictures of the page map, all of it at one instant, while the guest runs.
 *
 * A thread of its own takes the copy lock and waits until the fault thread, which fills without
 * it, has answered what it had read: then nothing writes to the map and nobody's write or
 * discard gets through.  A new picture, which the next one can start from, is protected in the
 * same moment: a write is either before the picture and in it, or in the next one.
 *
 * Nothing is lost with a picture that never arrives: its dirty pages are "taken" and go on
 * being told until somebody says that he has it. */
#ifndef WORKER_PICTURE_H
#define WORKER_PICTURE_H

#include <stdbool.h>
#include <stdint.h>

struct ipc_session_picture;
struct session;

struct picture {
	uint32_t seq; /* of SESSION_PICTURE; 0: none is being taken */
	int fd;	      /* owned; -1 */
	bool is_new;  /* the next one can start from it */
	bool has_since;
	bool is_stale;	/* who asked for it is gone */
	uint64_t since; /* the picture that the client has */
	/* The result. */
	int error; /* positive errno */
	uint32_t tracking;
	uint64_t base;	 /* what "dirty" is relative to: a picture, or 0 for the image */
	uint64_t number; /* its own; 0: it is not new */
};

void picture_init(struct session *s);
void picture_fini(struct session *s);

/* Begins to take one; *fd, which it is put into, is taken over when it succeeds.  0 or a
 * negative errno. */
int picture_begin(struct session *s, const struct ipc_session_picture *msg, int *fd);

/* After SESSION_POST_PICTURE: tells the supervisor. */
void picture_tell(struct session *s);

#endif
