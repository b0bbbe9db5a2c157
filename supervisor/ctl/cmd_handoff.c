/* SPDX-License-Identifier: Apache-2.0 */
/* handoff and retry: which worker serves a session. */
#include <inttypes.h>
#include <stdlib.h>

#include "common/scope.h"
#include "common/xalloc.h"
#include "supervisor/ctl/ctl.h"

#define ONE_MS UINT64_C(30000)	 /* the server's */
#define ALL_MS UINT64_C(3600000) /* without --timeout it has none */

/* A POST of {"version": …, "from": …}; what is NULL is left out. */
static enum exitcode
post(const struct ctl *ctl, const char *path, const char *version, uint64_t wait_ms, json_t **ret)
{
	const char *from = ctl->flags.from;
	json_t *body = json_pack("{ss*ss*}", "version", version, "from", from);
	scoped_free char *text = body ? json_dumps(body, JSON_COMPACT) : NULL;
	scoped_free char *target = NULL;

	json_decref(body);
	if (!text) {
		ctl_complain("the version is not UTF-8");
		return EXITCODE_USAGE;
	}
	if (ctl_parse_time("timeout", ctl->flags.timeout, &wait_ms) < 0)
		return EXITCODE_USAGE;
	target = ctl->flags.timeout ? xasprintf("%s?timeout=%" PRIu64 "ms", path, wait_ms)
				    : xstrdup(path);
	return ctl_call(ctl, "POST", target, text, wait_ms, ret);
}

/* Prints where the session of the command line is now. */
static enum exitcode
post_session(const struct ctl *ctl, const char *verb, const char *version)
{
	scoped_free char *path = ctl_session_target(ctl->args[0], verb);
	json_t *json;
	enum exitcode code = post(ctl, path, version, ONE_MS, &json);

	if (code != EXITCODE_OK)
		return code;
	if (ctl->json)
		ctl_print_json(json);
	else
		printf("%s is %s on %s\n", ctl->args[0], ctl_text(json, "state"),
		    ctl_text(json, "version"));
	json_decref(json);
	return EXITCODE_OK;
}

enum exitcode
ctl_print_moved(const struct ctl *ctl, const json_t *json)
{
	uint64_t moved = ctl_u64(json, "moved"), failed = ctl_u64(json, "failed");
	uint64_t left = ctl_u64(json, "left");

	if (!ctl->json) {
		printf("%" PRIu64 " session%s moved to %s\n", moved, moved == 1 ? "" : "s",
		    ctl_text(json, "version"));
		if (left > 0)
			printf("%" PRIu64 " left: waiting for a VMM, being completed, or held\n",
			    left);
	}
	if (failed == 0 && !*ctl_text(json, "reason"))
		return EXITCODE_OK;
	ctl_complain("%" PRIu64 " not moved: %s", failed, ctl_text(json, "reason"));
	return EXITCODE_FAILED;
}

static enum exitcode
move_version(const struct ctl *ctl)
{
	json_t *json;
	enum exitcode code = post(ctl, "/handoff", ctl->flags.to, ALL_MS, &json);

	if (code != EXITCODE_OK)
		return code;
	if (ctl->json)
		ctl_print_json(json);
	code = ctl_print_moved(ctl, json);
	json_decref(json);
	return code;
}

enum exitcode
ctl_handoff(const struct ctl *ctl)
{
	bool is_one = ctl->args[0] && ctl->args[1] && !ctl->flags.from && !ctl->flags.to;
	bool is_all = !ctl->args[0] && ctl->flags.to;

	if (is_one)
		return post_session(ctl, "/handoff", ctl->args[1]);
	if (is_all)
		return move_version(ctl);
	ctl_complain("handoff takes SESSION VERSION, or --to VERSION and perhaps --from VERSION");
	return EXITCODE_USAGE;
}

enum exitcode
ctl_retry(const struct ctl *ctl)
{
	return post_session(ctl, "/retry", ctl->flags.to);
}
