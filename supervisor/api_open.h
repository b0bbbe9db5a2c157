/* SPDX-License-Identifier: Apache-2.0 */
/* Requests that wait for the opener.  Private to api*.c. */
#ifndef SUPERVISOR_API_OPEN_H
#define SUPERVISOR_API_OPEN_H

#include "supervisor/api_route.h"
#include "supervisor/opener.h"

/* What follows, which answers the request, and what is to be freed after it, or when the client
 * has gone. */
struct api_open_ops {
	void (*then)(struct api_call *call, void *arg, struct opener_answer *answer);
	void (*drop)(void *arg);
};

/* Owns arg, whatever it returns: 0, or opener_ask()'s error and why. */
int api_open(const struct api_call *call, const struct opener_request *request,
    const struct api_open_ops *ops, void *arg, char *why, size_t why_bytes);

#endif
