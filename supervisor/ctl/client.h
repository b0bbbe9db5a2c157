/* SPDX-License-Identifier: Apache-2.0 */
/* The client's end of an HTTP server on a Unix socket, pagerd's or a VMM's: one request on
 * one connection, driven by poll(), so that several can be under way at once. */
#ifndef SUPERVISOR_CTL_CLIENT_H
#define SUPERVISOR_CTL_CLIENT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>

struct client;

/* Connects (at most connect_ms) and begins to send.  target is percent-encoded; body
 * is NULL for none.  0 and a client that the caller frees, or a negative errno. */
int client_start(const char *socket_path, const char *method, const char *target, const char *body,
    uint64_t connect_ms, struct client **ret);
/* Hangs up if it is not done. */
void client_free(struct client *client);
void client_freep(struct client **client);
#define scoped_client __attribute__((cleanup(client_freep)))

/* The most that an answer's body may have; 256 MiB at first.  More is no HTTP to us. */
void client_limit_body(struct client *client, size_t max_bytes);
/* Whose socket it is: the process that listens there.  0 or a negative errno. */
int client_peer(const struct client *client, struct ucred *ret);

/* Moves n requests on (NULL ones are skipped) until one is done or the time is over.
 * 0; -ETIMEDOUT; -EINTR on a signal. */
int client_run(struct client *const *clients, size_t n, uint64_t timeout_ms);

/* From now on client_run() also returns when a line of an answer with status 200 is there,
 * which client_take_line() hands out: the caller frees it, NULL when there is none.  What
 * is handed out is no longer part of the body. */
void client_want_lines(struct client *client);
char *client_take_line(struct client *client);

/* There is an answer or an error. */
bool client_is_done(const struct client *client);
/* Of one that is done: the status, or a negative errno: -EPROTO for what is no HTTP,
 * -ECONNRESET when the answer was cut short.  The body is the client's. */
int client_result(const struct client *client, const char **ret_body, size_t *ret_bytes);

#endif
