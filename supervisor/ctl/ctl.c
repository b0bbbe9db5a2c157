/* SPDX-License-Identifier: Apache-2.0 */
#include "supervisor/ctl/ctl.h"

#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "common/num.h"
#include "common/scope.h"
#include "common/xalloc.h"
#include "supervisor/ctl/text.h"

#define CONNECT_MS UINT64_C(10000)
#define ANSWER_MS  UINT64_C(15000) /* beyond what a request waits for by itself */

void
ctl_complain(const char *fmt, ...)
{
	char text[1024];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	text_make_printable(text);
	fprintf(stderr, "pagerctl: %s\n", text);
}

enum exitcode
ctl_complain_unreachable(const struct ctl *ctl, int error)
{
	if (error == -EACCES || error == -EPERM)
		ctl_complain("you may not connect to %s; run it as root, or join the group of "
			     "that socket",
		    ctl->socket_path);
	else if (error == -EPROTO)
		ctl_complain("what answers on %s is not pagerd; see --socket", ctl->socket_path);
	else if (error == -ECONNRESET)
		ctl_complain("pagerd hung up before it had answered; see its log");
	else
		ctl_complain("pagerd does not answer on %s: %s; is it running?", ctl->socket_path,
		    strerror(-error));
	return EXITCODE_UNREACHABLE;
}

enum exitcode
ctl_start(const struct ctl *ctl, const char *method, const char *target, const char *body,
    struct client **ret)
{
	int r = client_start(ctl->socket_path, method, target, body, CONNECT_MS, ret);

	if (r == 0)
		return EXITCODE_OK;
	return ctl_complain_unreachable(ctl, r);
}

enum exitcode
ctl_exitcode(int status)
{
	switch (status) {
	case 404:
		return EXITCODE_NOT_FOUND;
	case 408:
	case 504:
		return EXITCODE_TIMEOUT;
	case 409:
		return EXITCODE_CONFLICT;
	default:
		return status >= 200 && status < 300 ? EXITCODE_OK : EXITCODE_FAILED;
	}
}

enum exitcode
ctl_conclude(const struct ctl *ctl, int status, json_t *json, json_t **ret)
{
	enum exitcode code = ctl_exitcode(status);

	if (code == EXITCODE_OK) {
		*ret = json;
		return code;
	}
	if (ctl->json)
		ctl_print_json(json);
	ctl_complain("%s", *ctl_text(json, "error") ? ctl_text(json, "error") : "refused");
	json_decref(json);
	return code;
}

enum exitcode
ctl_finish(const struct ctl *ctl, const struct client *client, json_t **ret)
{
	const char *body;
	size_t bytes;
	int status = client_result(client, &body, &bytes);
	json_t *json;

	if (status < 0)
		return ctl_complain_unreachable(ctl, status);
	json = json_loadb(body, bytes, 0, NULL);
	if (!json)
		return ctl_complain_unreachable(ctl, -EPROTO);
	return ctl_conclude(ctl, status, json, ret);
}

enum exitcode
ctl_call(const struct ctl *ctl, const char *method, const char *target, const char *body,
    uint64_t wait_ms, json_t **ret)
{
	scoped_client struct client *client = NULL;
	enum exitcode code = ctl_start(ctl, method, target, body, &client);
	int r;

	if (code != EXITCODE_OK)
		return code;
	do
		r = client_run(&client, 1, wait_ms + ANSWER_MS);
	while (r == -EINTR);
	if (r < 0)
		return ctl_complain_unreachable(ctl, r);
	code = ctl_finish(ctl, client, ret);
	if (code == EXITCODE_NOT_FOUND)
		ctl_suggest(ctl, target, ctl->args[strncmp(target, "/templates/", 11) == 0]);
	return code;
}

enum exitcode
ctl_get(const struct ctl *ctl, const char *target, json_t **ret)
{
	return ctl_call(ctl, "GET", target, NULL, 0, ret);
}

char *
ctl_target(const char *prefix, const char *name, const char *rest)
{
	static const char digits[] = "0123456789ABCDEF";
	scoped_free char *encoded = xcalloc(3, strlen(name) + 1);

	for (char *p = encoded; *name; name++) {
		unsigned char c = (unsigned char)*name;

		if (text_is_unreserved(*name))
			*p++ = *name;
		else {
			*p++ = '%';
			*p++ = digits[c >> 4];
			*p++ = digits[c & 15];
		}
	}
	return xasprintf("%s%s%s", prefix, encoded, rest);
}

char *
ctl_session_target(const char *id, const char *rest)
{
	return ctl_target("/sessions/", id, rest);
}

int
ctl_parse_time(const char *flag, const char *text, uint64_t *ret_ms)
{
	if (!text || num_parse_ms(text, 0, UINT64_C(3600) * 1000, ret_ms) == 0)
		return 0;
	ctl_complain("--%s: %s is no duration up to 1h, such as 500ms, 5s or 2m", flag, text);
	return -EINVAL;
}

void
ctl_print_json(const json_t *json)
{
	json_dumpf(json, stdout, JSON_INDENT(2));
	putchar('\n');
}

const char *
ctl_text(const json_t *object, const char *name)
{
	const char *text = json_string_value(json_object_get(object, name));

	return text ? text : "";
}

uint64_t
ctl_u64(const json_t *object, const char *name)
{
	json_int_t number = json_integer_value(json_object_get(object, name));

	return number < 0 ? 0 : (uint64_t)number;
}

bool
ctl_flag(const json_t *object, const char *name)
{
	return json_is_true(json_object_get(object, name));
}
