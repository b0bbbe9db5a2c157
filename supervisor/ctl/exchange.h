/* SPDX-License-Identifier: Apache-2.0 */
/* A request and its JSON, within a deadline, for commands that talk to pagerd and to a VMM in
 * turn.  Nothing here complains: who knows the step does. */
#ifndef SUPERVISOR_CTL_EXCHANGE_H
#define SUPERVISOR_CTL_EXCHANGE_H

#include <jansson.h>
#include <stdint.h>

#include "supervisor/ctl/client.h"

struct exchange {
	const char *socket_path, *method, *target;
	const json_t *body;   /* borrowed; NULL for none */
	uint64_t deadline_ns; /* of the monotonic clock */
};

/* status: HTTP's, or a negative errno: -ETIMEDOUT; -EINTR when interrupt_caught(); -EPROTO
 * for what is no HTTP; -ECONNRESET for an answer cut short; what connect() said.
 * json: the body, owned; NULL when there is none or it is no JSON. */
struct answer {
	int status;
	json_t *json;
};

void answer_fini(struct answer *answer);
#define scoped_answer __attribute__((cleanup(answer_fini)))

/* The whole of it.  An answer above 16 MiB is none, or above what the second allows. */
void exchange_run(const struct exchange *exchange, struct answer *ret);
void exchange_run_up_to(const struct exchange *exchange, size_t max_body_bytes, struct answer *ret);

/* Its parts, for several at once.  0 and a client that the caller frees, or a negative errno. */
int exchange_start(const struct exchange *exchange, struct client **ret);
/* One turn of client_run(), short enough that a signal is seen soon: 0, -ETIMEDOUT when the
 * deadline has passed, -EINTR when interrupt_caught(). */
int exchange_turn(struct client *const *clients, size_t n, uint64_t deadline_ns);
/* Of a client that is done. */
void exchange_end(const struct client *client, struct answer *ret);

/* Waits that long, at most until the deadline, as exchange_turn() does. */
int exchange_pause(uint64_t ms, uint64_t deadline_ns);
/* Until a deadline, rounded up; 0 when it has passed. */
uint64_t exchange_left_ms(uint64_t deadline_ns);

#endif
