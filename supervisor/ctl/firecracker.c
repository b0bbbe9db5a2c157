/* SPDX-License-Identifier: Apache-2.0 */
#include "supervisor/ctl/firecracker.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/scope.h"
#include "common/xalloc.h"
#include "supervisor/ctl/ctl.h"

static enum exitcode
fail(struct fc *fc, enum exitcode code, const char *why)
{
	snprintf(fc->why, sizeof(fc->why), "%s", why);
	return code;
}

static enum exitcode
conclude_silence(struct fc *fc, int error)
{
	switch (error) {
	case -ETIMEDOUT:
		return fail(fc, EXITCODE_TIMEOUT, "Firecracker had not answered in time");
	case -EINTR:
		return fail(fc, EXITCODE_FAILED, "it was interrupted");
	case -EPROTO:
		snprintf(fc->why, sizeof(fc->why), "what answers on %s is not Firecracker",
		    fc->socket_path);
		return EXITCODE_UNREACHABLE;
	case -ECONNRESET:
		return fail(fc, EXITCODE_UNREACHABLE,
		    "Firecracker hung up before it had answered; its log may say why");
	default:
		snprintf(fc->why, sizeof(fc->why), "Firecracker does not answer on %s: %s",
		    fc->socket_path, strerror(-error));
		return EXITCODE_UNREACHABLE;
	}
}

enum exitcode
fc_conclude(struct fc *fc, const struct answer *answer)
{
	const char *fault = ctl_text(answer->json, "fault_message");

	if (answer->status < 0)
		return conclude_silence(fc, answer->status);
	if (answer->status >= 200 && answer->status < 300)
		return EXITCODE_OK;
	if (*fault)
		snprintf(fc->why, sizeof(fc->why), "Firecracker says: %s", fault);
	else
		snprintf(fc->why, sizeof(fc->why), "Firecracker answered %d without a reason",
		    answer->status);
	return EXITCODE_FAILED;
}

enum exitcode
fc_call(struct fc *fc, const struct exchange *exchange, json_t **ret)
{
	scoped_answer struct answer answer = {0};
	enum exitcode code;

	exchange_run(exchange, &answer);
	code = fc_conclude(fc, &answer);
	if (ret) {
		*ret = code == EXITCODE_OK ? answer.json : NULL;
		if (*ret)
			answer.json = NULL;
	}
	return code;
}

/* A word of its, which JSON and a terminal can have. */
static void
keep(char *ret, size_t bytes, const char *text)
{
	snprintf(ret, bytes, "%s", text);
	for (; *ret; ret++)
		if (*ret < 0x20 || *ret > 0x7e)
			*ret = '?';
}

static enum exitcode
read_instance(struct fc *fc, const struct answer *answer)
{
	enum exitcode code = fc_conclude(fc, answer);

	if (code != EXITCODE_OK)
		return code;
	keep(fc->version, sizeof(fc->version), ctl_text(answer->json, "vmm_version"));
	keep(fc->state, sizeof(fc->state), ctl_text(answer->json, "state"));
	return *fc->state ? code : conclude_silence(fc, -EPROTO);
}

enum exitcode
fc_look(struct fc *fc, uint64_t deadline_ns)
{
	const struct exchange exchange = {
	    .socket_path = fc->socket_path,
	    .method = "GET",
	    .target = "/",
	    .deadline_ns = deadline_ns,
	};
	scoped_client struct client *client = NULL;
	scoped_answer struct answer answer = {0};
	int r = exchange_start(&exchange, &client);

	if (r == 0)
		r = client_peer(client, &fc->peer);
	while (r == 0 && !client_is_done(client))
		r = exchange_turn(&client, 1, deadline_ns);
	answer.status = r;
	if (r == 0)
		exchange_end(client, &answer);
	return read_instance(fc, &answer);
}

enum exitcode
fc_set_state(struct fc *fc, const char *state, uint64_t deadline_ns)
{
	json_t *body = json_pack("{ss}", "state", state);
	enum exitcode code = fc_call(
	    fc, &(struct exchange){fc->socket_path, "PATCH", "/vm", body, deadline_ns}, NULL);

	json_decref(body);
	return code;
}

json_t *
fc_load_body(
    const char *snapshot, const char *backend, const char *backend_path, const json_t *extra)
{
	json_t *body =
	    json_pack("{s:s, s:{s:s, s:s}, s:b}", "snapshot_path", snapshot, "mem_backend",
		"backend_type", backend, "backend_path", backend_path, "resume_vm", false);

	if (body && extra)
		json_object_update_missing(body, (json_t *)(uintptr_t)extra);
	return body;
}

/* realpath() of a file that may still have to be made. */
static char *
resolve(const char *path)
{
	char *real = realpath(path, NULL);
	const char *name = strrchr(path, '/');
	scoped_free char *parent = NULL, *directory = NULL;

	if (real)
		return real;
	parent = !name ? xstrdup(".") : xasprintf("%.*s/", (int)(name - path), path);
	directory = realpath(parent, NULL);
	/* One that only Firecracker can see. */
	if (!directory)
		return xstrdup(path);
	return xasprintf(
	    "%s/%s", strcmp(directory, "/") == 0 ? "" : directory, name ? name + 1 : path);
}

char *
fc_path(const char *path, const char *jail)
{
	scoped_free char *root = jail ? realpath(jail, NULL) : NULL;
	char *real = resolve(path);
	size_t bytes = root ? strlen(root) : 0;

	if (bytes > 1 && strncmp(real, root, bytes) == 0 && real[bytes] == '/')
		memmove(real, real + bytes, strlen(real + bytes) + 1);
	return real;
}
