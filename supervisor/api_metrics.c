/* SPDX-License-Identifier: Apache-2.0 */
#include <stdlib.h>

#include "common/scope.h"
#include "supervisor/api_route.h"
#include "supervisor/metrics.h"

#define CONTENT_TYPE "text/plain; version=0.0.4; charset=utf-8"

void
api_metrics(struct api_call *call)
{
	size_t bytes = 0;
	scoped_free char *text = metrics_text(call->sup, &bytes);

	if (text == NULL)
		api_error(call->req, 503, "resources", "there is no memory for the metrics");
	else
		http_reply(call->req, 200, CONTENT_TYPE, text, bytes);
}
