/* SPDX-License-Identifier: Apache-2.0 */
#include "supervisor/api.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "common/fd.h"
#include "common/scope.h"
#include "common/xalloc.h"
#include "supervisor/api_route.h"
#include "supervisor/privs.h"
#include "supervisor/supervisor.h"

#define ADMIN_BACKLOG 128

void
api_reply(struct http_request *req, int status, json_t *json)
{
	static const char out_of_memory[] =
	    "{\"error\": \"no memory for the answer; try again later\", \"code\": \"resources\"}\n";
	struct json_text text = {0};

	json_text_put(&text, json);
	json_text_add(&text, "\n", 1);
	if (text.failed)
		http_reply(req, 503, "application/json", out_of_memory, sizeof(out_of_memory) - 1);
	else
		http_reply(req, status, "application/json", text.text, text.used);
	free(text.text);
}

void
api_error(struct http_request *req, int status, const char *code, const char *fmt, ...)
{
	char text[API_WHY_BYTES];
	json_t *json = json_object();
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	json_put_text(json, "error", text);
	json_put_text(json, "code", code);
	api_reply(req, status, json);
}

void
api_refuse(struct http_request *req, const struct api_refusal *table, int error, const char *why)
{
	while (table->error != 0 && table->error != -error)
		table++;
	if (table->status == 503)
		http_header_add(req, "Retry-After", "1");
	api_error(req, table->status, table->code, "%s", why);
}

json_t *
api_read_body(
    const struct api_call *call, const struct json_member *members, size_t nr_members, void *ret)
{
	char why[API_WHY_BYTES];
	json_t *json;

	if (json_parse_object(call->req->body, call->req->body_bytes, &json, why, sizeof(why)) <
	    0) {
		api_error(call->req, 400, "bad-request", "%s", why);
		return NULL;
	}
	if (json_read_members(json, members, nr_members, ret, why, sizeof(why)) < 0) {
		json_decref(json);
		api_error(call->req, 400, "bad-request", "%s", why);
		return NULL;
	}
	return json;
}

struct session *
api_find_session(struct api_call *call)
{
	struct session *session = session_find(&call->sup->sessions, call->id);

	if (!session)
		api_error(call->req, 404, "not-found",
		    "there is no session %s; the list of sessions has those that there are",
		    call->id);
	return session;
}

void
api_bury(struct api *api, struct list *link)
{
	list_remove(link);
	list_add(&api->dead, link);
}

static void
on_sweep(struct ev_loop *loop, ev_prepare *watcher, int revents)
{
	struct api *api = watcher->data;
	struct list *pos, *tmp;

	(void)loop;
	(void)revents;
	list_for_each_safe(pos, tmp, &api->dead) {
		list_remove(pos);
		free(pos);
	}
}

static void
refuse_permission(const struct api *api, struct http_request *req)
{
	const char *group = api->sup->options.admin_group;

	api_error(req, 403, "forbidden",
	    "uid %u may not do this; it takes root, pagerd's own user%s%s", req->peer.uid,
	    *group ? " or a member of the group " : " or a member of admin-group, which is not set",
	    group);
}

static void
on_request(void *arg, struct http_request *req)
{
	const struct api_table table = {api_routes, api_nr_routes};
	struct api *api = arg;
	struct api_call call = {.api = api, .sup = api->sup, .req = req};
	const struct options *options = &api->sup->options;
	struct http_limits limits = {options->http_timeout_ms, (uint32_t)options->http_max_clients};
	struct api_found found;
	char why[API_WHY_BYTES];

	/* They may have been read again from the configuration. */
	http_server_set_limits(api->sup->admin, &limits);
	switch (api_table_find(&table, req->method, req->path, &found)) {
	case API_NO_ROUTE:
		api_error(req, 404, "no-route", "there is no %s; see pagerd-api(7)", req->path);
		return;
	case API_NO_METHOD:
		http_header_add(req, "Allow", found.allow);
		api_error(req, 405, "method", "%s is not for %s; it takes %s", req->method,
		    req->path, found.allow);
		return;
	case API_BAD_ID:
		api_error(req, 400, "bad-request",
		    "%s holds no id: percent-encoded, of 1 to %d bytes", req->path,
		    SESSION_ID_BYTES - 1);
		return;
	case API_MATCHED:
		break;
	}
	memcpy(call.id, found.id, sizeof(call.id));
	if (!api_is_permitted(api, &req->peer, found.route->permission))
		refuse_permission(api, req);
	else if (api_query_check(req->query, found.route->keys, why, sizeof(why)) < 0)
		api_error(req, 400, "bad-request", "%s", why);
	else
		found.route->handler(&call);
}

static int
set_owner(const struct api *api, const char *path)
{
	scoped_priv enum priv held = priv_raise(PRIV_CHOWN);

	(void)held;
	if (api->has_admin_gid && lchown(path, (uid_t)-1, api->admin_gid) < 0)
		return -errno;
	return chmod(path, 0660) < 0 ? -errno : 0;
}

/* Until owner and mode are right the mode is 0000 and the socket does not listen. */
int
api_bind(const struct api *api, const char *path, int *ret_fd)
{
	scoped_fd int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	struct sockaddr_un addr = {.sun_family = AF_UNIX};
	mode_t mask;
	int r;

	if (fd < 0)
		return -errno;
	if (strlen(path) >= sizeof(addr.sun_path))
		return -ENAMETOOLONG;
	memcpy(addr.sun_path, path, strlen(path) + 1);
	if (unlink(path) < 0 && errno != ENOENT)
		return -errno;
	mask = umask(0777);
	r = bind(fd, (const struct sockaddr *)&addr, sizeof(addr)) < 0 ? -errno : 0;
	umask(mask);
	if (r == 0)
		r = set_owner(api, path);
	if (r == 0 && listen(fd, ADMIN_BACKLOG) < 0)
		r = -errno;
	if (r == 0)
		*ret_fd = fd_take(&fd);
	return r;
}

static char *
admin_path(const struct supervisor *sup)
{
	return xasprintf("%s/admin.sock", sup->options.run_dir);
}

static void
start(struct api *api, int fd)
{
	struct supervisor *sup = api->sup;
	struct http_limits limits = {
	    sup->options.http_timeout_ms, (uint32_t)sup->options.http_max_clients};

	list_init(&api->waits);
	list_init(&api->event_waits);
	list_init(&api->dead);
	ev_prepare_init(&api->sweep, on_sweep);
	/* After every other watcher of the turn. */
	ev_set_priority(&api->sweep, EV_MINPRI);
	api->sweep.data = api;
	ev_prepare_start(sup->loop, &api->sweep);
	sup->admin = http_server_new(sup->loop, fd, on_request, api, &limits);
}

int
api_new(struct supervisor *sup)
{
	scoped_free struct api *api = xcalloc(1, sizeof(*api));
	scoped_free char *path = admin_path(sup);
	int fd = -1, r;

	api->sup = sup;
	api->admin_gid = sup->admin_gid;
	api->has_admin_gid = sup->admin_gid != (gid_t)-1;
	fd = passed_take_admin(&sup->passed);
	sup->admin_is_passed = fd >= 0;
	r = fd >= 0 ? 0 : api_bind(api, path, &fd);
	if (r < 0) {
		log_err("api: %s: %s; not starting", path, strerror(-r));
		return r;
	}
	start(api, fd);
	api = NULL;
	return 0;
}

void
api_free(struct supervisor *sup)
{
	scoped_free char *path = NULL;
	struct api *api;

	if (!sup->admin)
		return;
	path = admin_path(sup);
	api = http_server_arg(sup->admin);
	http_server_free(sup->admin);
	sup->admin = NULL;
	if (!sup->admin_is_passed)
		unlink(path);
	on_sweep(sup->loop, &api->sweep, 0);
	ev_prepare_stop(sup->loop, &api->sweep);
	free(api);
}
