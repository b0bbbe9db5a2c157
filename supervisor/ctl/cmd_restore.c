/* SPDX-License-Identifier: Apache-2.0 */
/* restore: a session, and a Firecracker that loads its snapshot from it, as one step that
 * succeeds or leaves no session behind.
 *
 * Firecracker ends itself after a load that failed, and loads only once: the file backend is
 * tried with another one that was started on the same API socket, unless the failure came
 * before. */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/scope.h"
#include "common/xalloc.h"
#include "supervisor/ctl/firecracker.h"
#include "supervisor/ctl/interrupt.h"
#include "supervisor/ctl/restore.h"
#include "supervisor/ctl/text.h"

#define DEFAULT_TIMEOUT_MS UINT64_C(30000)
#define CLOSE_MS	   UINT64_C(5000) /* beyond the time-out */
#define AWAIT_FIRST_MS	   UINT64_C(5)
#define AWAIT_MOST_MS	   UINT64_C(50)

/* --- The command line ------------------------------------------------------------ */

static bool
is_ours(const char *member)
{
	static const char *const ours[] = {
	    "snapshot_path", "mem_backend", "mem_file_path", "resume_vm"};

	for (size_t i = 0; i < sizeof(ours) / sizeof(ours[0]); i++)
		if (strcmp(member, ours[i]) == 0)
			return true;
	return false;
}

/* --load: an object, which is kept in r. */
static int
read_extra(struct restore *r, const char *text)
{
	json_error_t error;
	const char *member;
	json_t *value;

	if (!text)
		return 0;
	r->extra = json_loads(text, JSON_REJECT_DUPLICATES, &error);
	if (!json_is_object(r->extra)) {
		ctl_complain("--load: %s", r->extra ? "it is no JSON object" : error.text);
		return -EINVAL;
	}
	json_object_foreach(r->extra, member, value)
	{
		if (!is_ours(member))
			continue;
		ctl_complain("--load: %s is for pagerctl to say", member);
		return -EINVAL;
	}
	return 0;
}

static int
check_flags(struct restore *r)
{
	const struct ctl_flags *f = &r->ctl->flags;
	const char *missing = !f->api_sock ? "--api-sock PATH"
	    : !f->snapshot		   ? "--snapshot STATE"
	    : !f->image && !f->template	   ? "--image MEM or --template NAME"
					   : NULL;

	if (missing) {
		ctl_complain("restore needs %s", missing);
		return -EINVAL;
	}
	if (f->image && f->template) {
		ctl_complain("restore takes --image or --template, and not both");
		return -EINVAL;
	}
	if (f->fallback && strcmp(f->fallback, "file") != 0) {
		ctl_complain("--fallback is file");
		return -EINVAL;
	}
	r->timeout_ms = DEFAULT_TIMEOUT_MS;
	if (ctl_parse_time("timeout", f->timeout, &r->timeout_ms) < 0)
		return -EINVAL;
	if (r->timeout_ms == 0) {
		ctl_complain("--timeout must be more than 0");
		return -EINVAL;
	}
	r->create = json_object();
	if (!ctl_create_members(r->ctl, f->image, r->create))
		return -EINVAL;
	r->deadline_ns = clock_now_ns() + r->timeout_ms * NS_PER_MS;
	return read_extra(r, f->load);
}

/* --- Steps ----------------------------------------------------------------------- */

/* Before anything is begun for it. */
static enum exitcode
look(struct restore *r)
{
	enum exitcode code;

	steps_begin(&r->steps, "firecracker", "asking who it is");
	code = fc_look(&r->fc, r->deadline_ns);
	if (code != EXITCODE_OK)
		return restore_fail(r, code, "%s", r->fc.why);
	if (strcmp(r->fc.state, FC_NOT_STARTED) != 0)
		return restore_fail(r, EXITCODE_CONFLICT,
		    "this Firecracker has a VM already, which is %s; a snapshot needs a fresh one",
		    r->fc.state);
	steps_end(
	    &r->steps, STEP_DONE, "Firecracker %s, process %d", r->fc.version, (int)r->fc.peer.pid);
	return EXITCODE_OK;
}

static enum exitcode
resume(struct restore *r)
{
	enum exitcode code;

	if (r->ctl->flags.no_resume)
		return EXITCODE_OK;
	steps_begin(&r->steps, "resume", "resuming the VM");
	code = fc_set_state(&r->fc, "Resumed", r->deadline_ns);
	if (code != EXITCODE_OK)
		return restore_fail(r, code, "%s", r->fc.why);
	steps_end(&r->steps, STEP_DONE, "the VM runs");
	return code;
}

static enum exitcode
load_file(struct restore *r)
{
	scoped_free char *snapshot = fc_path(r->ctl->flags.snapshot, r->ctl->flags.jail);
	scoped_free char *image = fc_path(r->image, r->ctl->flags.jail);
	json_t *body = fc_load_body(snapshot, "File", image, r->extra);
	const struct exchange load = {
	    r->fc.socket_path, "PUT", "/snapshot/load", body, r->deadline_ns};
	enum exitcode code;

	steps_begin(&r->steps, "load", "loading the snapshot with a mapped file");
	code = body ? fc_call(&r->fc, &load, NULL) : EXITCODE_USAGE;
	if (!body)
		snprintf(r->fc.why, sizeof(r->fc.why), "a path is not UTF-8");
	json_decref(body);
	if (code != EXITCODE_OK)
		return restore_fail(r, code, "%s", r->fc.why);
	steps_end(&r->steps, STEP_DONE, "loaded; memory is the mapped file");
	return code;
}

/* Until somebody has started Firecracker again.  One that lives and has a VM never will be fresh. */
static enum exitcode
await_fresh(struct restore *r)
{
	uint64_t pause_ms = AWAIT_FIRST_MS;
	enum exitcode code;

	steps_begin(&r->steps, "fallback", "waiting for a fresh Firecracker");
	while ((code = fc_look(&r->fc, r->deadline_ns)) == EXITCODE_UNREACHABLE) {
		if (exchange_pause(pause_ms, r->deadline_ns) < 0)
			break;
		pause_ms = pause_ms * 2 < AWAIT_MOST_MS ? pause_ms * 2 : AWAIT_MOST_MS;
	}
	if (code == EXITCODE_OK && strcmp(r->fc.state, FC_NOT_STARTED) == 0) {
		steps_end(
		    &r->steps, STEP_DONE, "the file backend, with Firecracker %s", r->fc.version);
		return code;
	}
	steps_end(&r->steps, STEP_FAILED, "no fresh Firecracker on %s", r->fc.socket_path);
	return EXITCODE_FAILED;
}

/* What failed first stays what is told, unless the file backend fails by itself. */
static enum exitcode
fall_back(struct restore *r)
{
	if (!r->image) {
		ctl_complain("no fallback: only pagerd knows the image of template %s",
		    r->ctl->flags.template);
		return EXITCODE_FAILED;
	}
	snprintf(r->fallback_from, sizeof(r->fallback_from), "%s: %s", r->failed_step, r->why);
	/* What failed may have used up all of the time. */
	r->deadline_ns = clock_now_ns() + r->timeout_ms * NS_PER_MS;
	if (await_fresh(r) != EXITCODE_OK)
		return EXITCODE_FAILED;
	r->backend = "file";
	return load_file(r) == EXITCODE_OK ? resume(r) : EXITCODE_FAILED;
}

/* --- The session's end ----------------------------------------------------------- */

/* A session that nobody needs: on every way that does not end with a VM. */
static void
close_session(struct restore *r)
{
	scoped_free char *target = r->id ? ctl_session_target(r->id, "/close") : NULL;
	scoped_answer struct answer answer = {0};
	struct exchange close = {.socket_path = r->ctl->socket_path,
	    .method = "POST",
	    .target = target,
	    .deadline_ns = clock_now_ns() + CLOSE_MS * NS_PER_MS};

	if (!r->id)
		return;
	steps_begin(&r->steps, "close", "closing the session");
	interrupt_forget();
	exchange_run(&close, &answer);
	r->closed = (answer.status >= 200 && answer.status < 300) || answer.status == 404;
	if (r->closed)
		steps_end(&r->steps, STEP_DONE, "session %s is closed", r->id);
	else
		steps_end(&r->steps, STEP_FAILED, "session %s is not closed: %s", r->id,
		    answer.status < 0 ? strerror(-answer.status) : ctl_text(answer.json, "error"));
}

/* --- The end --------------------------------------------------------------------- */

static void
print_json(const struct restore *r, bool restored)
{
	json_t *json = json_pack("{s:b, s:s, s:s*, s:s*, s:s*, s:s*, s:I, s:o}", "restored",
	    restored, "backend", r->backend, "id", r->id, "version", r->version, "socket_path",
	    r->socket_path, "firecracker", *r->fc.version ? r->fc.version : NULL, "nanos",
	    (json_int_t)steps_nanos(&r->steps), "steps", steps_json(&r->steps));

	if (*r->fallback_from)
		json_object_set_new(json, "fallback_from", steps_text(r->fallback_from));
	if (!restored) {
		json_object_set_new(json, "failed_step", json_string(r->failed_step));
		json_object_set_new(json, "error", steps_text(r->why));
		json_object_set_new(json, "closed", json_boolean(r->closed));
	}
	ctl_print_json(json);
	json_decref(json);
}

static void
tell_success(const struct restore *r)
{
	char time[TEXT_BYTES];
	const char *state = r->ctl->flags.no_resume ? "is loaded and paused" : "runs";

	text_nanos(time, steps_nanos(&r->steps));
	if (strcmp(r->backend, "file") == 0)
		printf("the VM %s after %s, on the file backend: it has no session\n", state, time);
	else
		printf("%s %s after %s, served by %s\n", r->id, state, time, r->version);
	if (r->no_hot_list && strcmp(r->backend, "uffd") == 0 && !r->steps.terminal)
		ctl_complain("%s", r->no_hot_list);
}

static void
tell_failure(const struct restore *r)
{
	if (*r->fallback_from)
		ctl_complain("the uffd backend had failed at %s", r->fallback_from);
	if (!r->id)
		ctl_complain("restore failed at %s: %s", r->failed_step, r->why);
	else if (r->closed)
		ctl_complain("restore failed at %s: %s; session %s is closed", r->failed_step,
		    r->why, r->id);
	else
		ctl_complain("restore failed at %s: %s; and session %s could not be closed: "
			     "pagerctl close %s",
		    r->failed_step, r->why, r->id, r->id);
}

static enum exitcode
conclude(struct restore *r, enum exitcode code)
{
	if (r->ctl->json)
		print_json(r, code == EXITCODE_OK);
	else if (code == EXITCODE_OK)
		tell_success(r);
	if (code != EXITCODE_OK)
		tell_failure(r);
	return code;
}

/* After a failure that left the session, if any, of no use. */
static enum exitcode
give_up(struct restore *r, enum exitcode code)
{
	bool interrupted = interrupt_caught();

	if (interrupted)
		code = interrupt_exitcode();
	close_session(r);
	if (interrupted || !r->ctl->flags.fallback)
		return code;
	if (fall_back(r) == EXITCODE_OK)
		return EXITCODE_OK;
	return interrupt_caught() ? interrupt_exitcode() : code;
}

static enum exitcode
run(struct restore *r)
{
	enum exitcode code = look(r);

	if (code != EXITCODE_OK)
		return interrupt_caught() ? interrupt_exitcode() : code;
	code = restore_session(r);
	if (code == EXITCODE_OK)
		code = resume(r);
	return code == EXITCODE_OK ? code : give_up(r, code);
}

enum exitcode
ctl_restore(const struct ctl *ctl)
{
	struct restore r = {.ctl = ctl, .backend = "uffd"};
	enum exitcode code = EXITCODE_USAGE;

	if (check_flags(&r) == 0) {
		r.fc.socket_path = ctl->flags.api_sock;
		r.image = ctl->flags.image ? xstrdup(ctl->flags.image) : NULL;
		interrupt_catch();
		steps_init(&r.steps, ctl);
		code = conclude(&r, run(&r));
		steps_fini(&r.steps);
	}
	json_decref(r.create);
	json_decref(r.extra);
	free(r.id);
	free(r.version);
	free(r.socket_path);
	free(r.image);
	free(r.no_hot_list);
	return code;
}
