/* SPDX-License-Identifier: Apache-2.0 */
/* Whatever a client's path leads to is touched by the opener, never by us: its storage may be
 * silent for ever.  What is asked for is done by a process of its own and answered from the
 * loop; what is not answered in time is given up, with a sentence that names the path.
 *
 * A process that waits for storage may not die when it is killed.  It is counted until it
 * does: there are at most OPENER_MAX processes, and at most OPENER_MAX_OF_STORAGE that
 * wait for the same mounted file system, so that others always find room. */
#ifndef SUPERVISOR_OPENER_H
#define SUPERVISOR_OPENER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "supervisor/opener/wire.h"

struct opener;
struct opening;
struct overlay_request;
struct supervisor;

#define OPENER_MAX	      64U
#define OPENER_MAX_OF_STORAGE 8U

/* What is wanted: all of it borrowed for the call. */
struct opener_request {
	const struct peer *peer;
	const char *image; /* NULL, as of the others: not wanted */
	const struct overlay_request *overlays;
	size_t nr_overlays;
	const char *record; /* see opener/image.h: image_replace() */
	const void *bytes;  /* NULL: whether it could be */
	size_t nr_bytes;
	const char *hot_list;
	bool looks;	     /* how the image is; its descriptor is not wanted */
	uint64_t timeout_ms; /* 0: open-timeout */
};

/* What came of it.  Descriptors that are not taken are closed after the call. */
struct opener_answer {
	/* 0, or what kept us from doing any of it: -ETIMEDOUT, -EAGAIN its process died, … */
	int error;
	const char *why;    /* a sentence */
	struct image image; /* its descriptor is fds[OPENER_IMAGE] */
	const struct opener_outcome *outcomes;
	int fds[OPENER_PARTS];
};

typedef void (*opener_done_fn)(void *arg, struct opener_answer *answer);

/* Before anything that costs memory or descriptors.  0 or a negative errno, logged. */
int opener_start(struct supervisor *sup);
/* Who waits is told so.  What waits for storage is left to itself. */
void opener_stop(struct supervisor *sup);

/* done is called once, from the loop, unless opener_cancel() was called before.  0, or a
 * negative errno and a sentence; then done is not called. */
int opener_ask(struct supervisor *sup, const struct opener_request *request, opener_done_fn done,
    void *arg, struct opening **ret, char *why, size_t why_bytes);
/* Nobody wants the answer.  NULL is no opening. */
void opener_cancel(struct opening *opening);

/* Closes *fd, which becomes -1, of an image on a device: in its own time where the storage is told
 * of that, which may be silent.  path is its name. */
void opener_close(struct supervisor *sup, int *fd, uint64_t dev, const char *path);

/* A list is being written that nobody else has. */
bool opener_writes(const struct supervisor *sup);
/* Those that are under way, and those of them that have not been answered in time. */
void opener_count(const struct supervisor *sup, uint64_t *ret_running, uint64_t *ret_stuck);

/* The first error of the parts that must succeed, in their order, or 0. */
int opener_result(const struct opener_answer *answer, const char **ret_why);

#endif
