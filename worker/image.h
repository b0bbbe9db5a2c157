/* SPDX-License-Identifier: Apache-2.0 */
/* Where pages come from: one snapshot file, mapped once for all its sessions.
 *
 * Three things about a file decide how a fault is answered:
 *   - which ranges are holes: zeros without reading (found out in the background);
 *   - whether its pages live in memory by nature (tmpfs): copied from the mapping;
 *   - otherwise, whether the bytes are in the page cache now: preadv2(RWF_NOWAIT) says
 *     so and hands them over.  mincore() would say nothing about a file we may not write.
 * What is not in memory is read by a thread that may wait, never by a fault thread.
 *
 * The kernel reads the mapping on our behalf, so that a truncated file is an error
 * of an ioctl and not a SIGBUS.  That holds for whole pages: in the page where a file
 * ends, the kernel shows zeros behind the end.  So the size is looked at before the
 * mapping is used, for faults once in a tick of the clock; a file that was cut is read
 * by pread() from then on. */
#ifndef WORKER_IMAGE_H
#define WORKER_IMAGE_H

#include <pthread.h>
#include <semaphore.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>
#include <time.h>

#include "common/list.h"

struct pager;
struct session;

enum image_kind {
	IMAGE_IN_MEMORY, /* tmpfs and its like */
	IMAGE_CACHED,	 /* the page cache can be asked */
	IMAGE_SLOW,	 /* it cannot: every read may wait */
};

struct image_index;

/* What tells that a file was modified in place. */
struct image_file {
	uint64_t bytes;
	uint64_t mtime_ns, ctime_ns; /* since 1970 */
};

/* Which file an image is. */
struct image_name {
	uint64_t dev, ino;
	uint64_t mtime_ns; /* a file that was rewritten is another image */
	bool is_new;	   /* its storage has just answered */
};

struct image {
	struct list link; /* pager.images */
	unsigned refs;	  /* sessions; control thread only */
	/* The sessions as one, and the indexer, which may wait for storage: the last frees. */
	_Atomic unsigned holders;
	struct image_name name;
	uint64_t ctime_ns; /* when it was opened; 0 where that may wait for storage */
	int fd;		   /* owned */
	uint64_t bytes;	  /* when it was opened; offsets beyond it, up to a whole page, are zeros */
	_Atomic int kind; /* enum image_kind; slow until the indexer knows, and when cut */
	_Atomic uint64_t looked_ns; /* when the size of an image in memory was looked at */
	const unsigned char *map;
	size_t mapped_bytes;
	_Atomic(struct image_index *) index; /* NULL until the holes are known */
	pthread_mutex_t lock;		     /* indexed */
	pthread_cond_t cond;
	sem_t may_warm;	   /* its page tables may be filled, or it is to stop */
	bool indexed;	   /* the holes are known, or cannot be */
	_Atomic bool stop; /* the indexer is to end early; set under watch_lock */
	/* Of its own: whoever waits for the holes holds the other. */
	pthread_mutex_t watch_lock; /* the rest */
	pthread_cond_t watch_cond;
	struct pager *pager;	/* for the indexer, until it is told to stop */
	struct image_file file; /* as it was seen last */
	/* Storage of which nothing is known but by its answers (FUSE): nobody can kill who waits for
	 * one.  So it is asked right after a read that succeeded, and of nothing before the first. */
	bool is_patient;
	_Atomic bool has_answered;   /* a read has succeeded, or a completion cannot do without */
	_Atomic uint64_t watched_ns; /* when the file was looked at */
	_Atomic unsigned changes;    /* how often that has become different; 0: never looked */
};

/* Finds or opens the image behind fd.  On success the image owns fd and the caller a
 * reference.  0 or a negative errno (the caller still owns fd).  Without a name (NULL) it asks
 * the file, which may wait for storage. */
int image_get(
    struct pager *pager, int fd, uint64_t bytes, const struct image_name *name, struct image **ret);
void image_put(struct image *image);

/* Filling page tables keeps others from mapping memory, as a new session must, and from the
 * CPU.  Where pager.is_adopting is set, an image that is opened waits for this. */
void images_warm(struct pager *pager);

/* For the indexer and image_put(): one holder fewer. */
void image_release(struct image *image);

/* Waits at most max_ns until the holes are known, and says whether they are.  Not for the
 * control or a fault thread. */
bool image_wait_index(struct image *image, uint64_t max_ns);

/* The indexer's thread: looks at the file again and again, until the image is put, and wakes
 * the control thread when it has changed. */
void image_watch(struct image *image);
/* The same thread, before it asks anything: waits until the storage may be asked. */
void image_wait_answer(struct image *image);
/* A thread that may wait: a read has succeeded. */
void image_note_answer(struct image *image);

/* The control thread: tells the supervisor how the file of its image is, if that is news. */
void image_tell(struct session *s);

/* False when the file is shorter than it was at the opening.  One cheap system call. */
bool image_is_whole(const struct image *image);

/* Whether offset is in a hole, and in *ret_bytes how far that stays so (at most max). */
bool image_is_hole(const struct image *image, uint64_t offset, uint64_t max, uint64_t *ret_bytes);

/* Bytes from offset on that are in memory now, whole pages, at most bytes; 0: none, so the
 * caller must leave it to image_read().  *ret_src points at them: into the mapping or buf. */
uint64_t image_peek(
    struct image *image, uint64_t offset, uint64_t bytes, void *buf, const void **ret_src);

/* Reads all of bytes (whole pages) into buf and may wait.  0 or a negative errno; what is
 * shorter than it was at the opening is -EIO, never zeros. */
int image_read(const struct image *image, uint64_t offset, uint64_t bytes, void *buf);

/* Whether the byte at offset can be had without waiting for storage; false when that cannot be
 * told. */
bool image_is_near(const struct image *image, uint64_t offset);
/* Asks the kernel to read a range from storage, without waiting for that. */
void image_read_ahead(const struct image *image, uint64_t offset, uint64_t bytes);

/* Brings a range into memory and into our page tables, may wait, and points at it.
 * 0 or a negative errno. */
int image_warm(const struct image *image, uint64_t offset, uint64_t bytes, const void **ret_src);

#endif
