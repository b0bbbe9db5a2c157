/* SPDX-License-Identifier: Apache-2.0 */
#include "supervisor/api_open.h"

#include <stdlib.h>

#include "common/xalloc.h"
#include "supervisor/supervisor.h"

struct waiting {
	struct api_call call;
	struct opening *opening;
	const struct api_open_ops *ops;
	void *arg;
};

static void
waiting_free(struct waiting *waiting)
{
	waiting->ops->drop(waiting->arg);
	free(waiting);
}

static void
on_answer(void *arg, struct opener_answer *answer)
{
	struct waiting *waiting = arg;

	waiting->ops->then(&waiting->call, waiting->arg, answer);
	waiting_free(waiting);
}

static void
on_gone(struct http_request *req)
{
	struct waiting *waiting = req->state;

	opener_cancel(waiting->opening);
	waiting_free(waiting);
}

int
api_open(const struct api_call *call, const struct opener_request *request,
    const struct api_open_ops *ops, void *arg, char *why, size_t why_bytes)
{
	struct waiting *waiting = xcalloc(1, sizeof(*waiting));
	int r;

	waiting->call = *call;
	waiting->ops = ops;
	waiting->arg = arg;
	r = opener_ask(call->sup, request, on_answer, waiting, &waiting->opening, why, why_bytes);
	if (r < 0) {
		waiting_free(waiting);
		return r;
	}
	call->req->state = waiting;
	call->req->on_gone = on_gone;
	return 0;
}
