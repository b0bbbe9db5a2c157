/* SPDX-License-Identifier: Apache-2.0 */
/* File descriptors: one owner each, -1 when there is none. */
#ifndef COMMON_FD_H
#define COMMON_FD_H

#include <stdbool.h>
#include <stddef.h>

/* Closes *fd if it is open and writes -1.  errno is preserved. */
void fd_closep(int *fd);

/* Moves the descriptor out: *fd becomes -1, the caller owns the result. */
int fd_take(int *fd);

/* A close-on-exec duplicate (the caller owns it), or a negative errno. */
int fd_dup(int fd);

/* An empty memory file that can be sealed and, where the kernel knows how, not executed (the
 * caller owns it), or a negative errno. */
int fd_memfd(const char *name);

/* 0 or a negative errno. */
int fd_set_nonblock(int fd, bool on);

/* Opens /dev/null in place of each of 0, 1 and 2 that is closed: the number of what we are
 * told to read or write must never become that of a file or socket of ours. */
void fd_fill_standard(int flags);

/* Closes each of n descriptors and writes -1 in its place. */
void fd_close_all(int *fds, size_t n);

/* How many descriptors this process holds, or a negative errno.
 * Source: /proc/self/fd, so not for a sandboxed worker. */
int fd_count(void);

#endif
