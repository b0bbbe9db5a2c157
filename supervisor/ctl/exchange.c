/* SPDX-License-Identifier: Apache-2.0 */
#include "supervisor/ctl/exchange.h"

#include <errno.h>
#include <stdlib.h>

#include "common/clock.h"
#include "common/scope.h"
#include "supervisor/ctl/interrupt.h"

/* A signal that comes just before poll() is seen this much later. */
#define TURN_MS	       UINT64_C(200)
#define CONNECT_MS     UINT64_C(10000)
#define MAX_BODY_BYTES (16U << 20)

void
answer_fini(struct answer *answer)
{
	json_decref(answer->json);
	answer->json = NULL;
}

uint64_t
exchange_left_ms(uint64_t deadline_ns)
{
	uint64_t now_ns = clock_now_ns();

	return now_ns < deadline_ns ? (deadline_ns - now_ns + NS_PER_MS - 1) / NS_PER_MS : 0;
}

static uint64_t
smaller(uint64_t a, uint64_t b)
{
	return a < b ? a : b;
}

int
exchange_start(const struct exchange *exchange, struct client **ret)
{
	uint64_t left_ms = exchange_left_ms(exchange->deadline_ns);
	scoped_free char *body = NULL;
	int r;

	/* To connect without a limit is what 0 would mean. */
	if (left_ms == 0)
		return -ETIMEDOUT;
	if (exchange->body) {
		body = json_dumps(exchange->body, JSON_COMPACT);
		if (!body)
			return -ENOMEM;
	}
	r = client_start(exchange->socket_path, exchange->method, exchange->target, body,
	    smaller(left_ms, CONNECT_MS), ret);
	if (r == 0)
		client_limit_body(*ret, MAX_BODY_BYTES);
	return r;
}

int
exchange_turn(struct client *const *clients, size_t n, uint64_t deadline_ns)
{
	uint64_t left_ms = exchange_left_ms(deadline_ns);
	int r;

	if (interrupt_caught())
		return -EINTR;
	if (left_ms == 0)
		return -ETIMEDOUT;
	r = client_run(clients, n, smaller(left_ms, TURN_MS));
	if (interrupt_caught())
		return -EINTR;
	return r == -ETIMEDOUT || r == -EINTR ? 0 : r;
}

int
exchange_pause(uint64_t ms, uint64_t deadline_ns)
{
	uint64_t end_ns = smaller(clock_now_ns() + ms * NS_PER_MS, deadline_ns);

	for (;;) {
		int r = exchange_turn(NULL, 0, end_ns);

		if (r == -ETIMEDOUT)
			return end_ns == deadline_ns ? r : 0;
		if (r < 0)
			return r;
	}
}

void
exchange_end(const struct client *client, struct answer *ret)
{
	const char *body;
	size_t bytes;

	ret->status = client_result(client, &body, &bytes);
	ret->json = ret->status < 0 ? NULL : json_loadb(body, bytes, 0, NULL);
}

void
exchange_run_up_to(const struct exchange *exchange, size_t max_body_bytes, struct answer *ret)
{
	scoped_client struct client *client = NULL;
	int r = exchange_start(exchange, &client);

	if (r == 0)
		client_limit_body(client, max_body_bytes);
	while (r == 0 && !client_is_done(client))
		r = exchange_turn(&client, 1, exchange->deadline_ns);
	*ret = (struct answer){.status = r};
	if (r == 0)
		exchange_end(client, ret);
}

void
exchange_run(const struct exchange *exchange, struct answer *ret)
{
	exchange_run_up_to(exchange, MAX_BODY_BYTES, ret);
}
