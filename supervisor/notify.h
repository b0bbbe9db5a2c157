/* SPDX-License-Identifier: Apache-2.0 */
/* Tells the service manager how we are, by systemd's protocol (NOTIFY_SOCKET), and
 * whoever started us, by a readiness descriptor.  Without either every call is a
 * no-op.  A manager that does not listen never holds us up. */
#ifndef SUPERVISOR_NOTIFY_H
#define SUPERVISOR_NOTIFY_H

#include <stddef.h>
#include <stdint.h>

struct ev_loop;

/* From now on what the manager has no room for waits for it on the loop. */
void notify_open(struct ev_loop *loop);
void notify_close(void);

/* READY=1, and a newline on ready_fd, which is closed; -1: none. */
void notify_ready(int ready_fd);
void notify_reloading(void);
/* After a reload. */
void notify_reloaded(void);
void notify_stopping(void);
void notify_status(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
void notify_watchdog(void);
/* Any text, with descriptors (at most 5), which stay the caller's.  0, also without a
 * manager, or a negative errno: -EAGAIN when it has no room, and nothing waits. */
int notify_with_fds(const char *text, const int *fds, size_t nr_fds);

/* Half of the watchdog's period in milliseconds, or 0 when nobody watches. */
uint64_t notify_watchdog_interval_ms(void);

#endif
