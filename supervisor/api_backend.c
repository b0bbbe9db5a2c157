/* SPDX-License-Identifier: Apache-2.0 */
/* The circuit breaker: while the backend is the file no session is made, and whoever asks
 * for one is told what to map instead. */
#include "common/fd.h"
#include "supervisor/api_route.h"
#include "supervisor/supervisor.h"
#include "supervisor/template.h"

int
api_backend_file(
    struct api_call *call, const struct session_request *asked, char *why, size_t why_bytes)
{
	struct session_request req = *asked;
	struct image image = {.fd = -1};
	json_t *json;
	int r = 0;

	if (req.template)
		r = template_fork(call->sup, &req, why, why_bytes);
	if (r == 0)
		r = image_open(call->sup, &call->req->peer, req.image_path, &image, why, why_bytes);
	if (r == 0 && req.template)
		r = template_check_image(call->sup, req.template, &image, why, why_bytes);
	fd_closep(&image.fd);
	if (r < 0)
		return r;
	json = json_object();
	json_put_text(json, "backend", "file");
	json_put_text(json, "image", req.image_path);
	json_put_u64(json, "image_bytes", image.bytes);
	if (req.template)
		json_put_text(json, "template", req.template);
	else
		json_put_null(json, "template");
	api_reply(call->req, 200, json);
	return 0;
}
