/* SPDX-License-Identifier: Apache-2.0 */
/* The circuit breaker: while the backend is the file no session is made, and whoever asks
 * for one is told what to map instead. */
#include <stdlib.h>

#include "common/xalloc.h"
#include "supervisor/api_open.h"
#include "supervisor/session_impl.h"
#include "supervisor/supervisor.h"
#include "supervisor/template.h"

static void
drop(void *arg)
{
	session_request_free(arg);
	free(arg);
}

static void
tell(struct api_call *call, void *arg, struct opener_answer *answer)
{
	const struct session_request *req = arg;
	char text[API_WHY_BYTES];
	const char *why;
	json_t *json;
	int r = opener_result(answer, &why);

	if (r == 0 && req->template) {
		r = template_check_image(
		    call->sup, req->template, &answer->image, text, sizeof(text));
		why = text;
	}
	if (r < 0) {
		api_refuse_create(call, r, why);
		return;
	}
	json = json_object();
	json_put_text(json, "backend", "file");
	json_put_text(json, "image", req->image_path);
	json_put_u64(json, "image_bytes", answer->image.bytes);
	if (req->template)
		json_put_text(json, "template", req->template);
	else
		json_put_null(json, "template");
	api_reply(call->req, 200, json);
}

int
api_backend_file(
    struct api_call *call, const struct session_request *asked, char *why, size_t why_bytes)
{
	static const struct api_open_ops ops = {tell, drop};
	struct session_request req = *asked, *kept;
	struct opener_request request = {.peer = &call->req->peer, .looks = true};
	int r = req.template ? template_fork(call->sup, &req, why, why_bytes) : 0;

	if (r < 0)
		return r;
	kept = xcalloc(1, sizeof(*kept));
	session_request_copy(kept, &req);
	request.image = kept->image_path;
	return api_open(call, &request, &ops, kept, why, why_bytes);
}
