/* SPDX-License-Identifier: Apache-2.0 */
/* pause: the balloon if asked for, the pause, the snapshot if asked for. */
#include <errno.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "common/clock.h"
#include "common/scope.h"
#include "common/xalloc.h"
#include "supervisor/ctl/balloon.h"
#include "supervisor/ctl/firecracker.h"
#include "supervisor/ctl/interrupt.h"
#include "supervisor/ctl/pause.h"
#include "supervisor/ctl/text.h"

#define DEFAULT_TIMEOUT_MS  UINT64_C(30000)
#define SNAPSHOT_TIMEOUT_MS UINT64_C(600000)
#define BALLOON_TIMEOUT_MS  UINT64_C(2000)
#define RESUME_MS	    UINT64_C(30000) /* beyond the time-out */
#define ASK_MS		    UINT64_C(5000)
#define MAX_LIST_BYTES	    ((size_t)256 << 20)

static int
check_flags(struct pause *p)
{
	const struct ctl_flags *f = &p->ctl->flags;

	if (!f->api_sock) {
		ctl_complain("pause needs --api-sock PATH");
		return -EINVAL;
	}
	if (!f->snapshot != !f->mem) {
		ctl_complain("a snapshot needs both --snapshot STATE and --mem FILE");
		return -EINVAL;
	}
	if ((f->diff && !f->snapshot) || (f->id && !f->diff)) {
		ctl_complain("%s", f->diff ? "--diff needs --snapshot STATE" : "--id needs --diff");
		return -EINVAL;
	}
	if ((f->resume && !f->snapshot) || (f->balloon_timeout && !f->balloon)) {
		ctl_complain("%s",
		    f->resume && !f->snapshot ? "--resume needs --snapshot STATE"
					      : "--balloon-timeout needs --balloon");
		return -EINVAL;
	}
	p->timeout_ms = f->snapshot ? SNAPSHOT_TIMEOUT_MS : DEFAULT_TIMEOUT_MS;
	p->balloon_ms = BALLOON_TIMEOUT_MS;
	if (ctl_parse_time("timeout", f->timeout, &p->timeout_ms) < 0 ||
	    ctl_parse_time("balloon-timeout", f->balloon_timeout, &p->balloon_ms) < 0)
		return -EINVAL;
	if (p->timeout_ms == 0) {
		ctl_complain("--timeout must be more than 0");
		return -EINVAL;
	}
	return 0;
}

enum exitcode
pause_fail(struct pause *p, enum exitcode code, const char *fmt, ...)
{
	va_list ap;

	p->failed_step = steps_name(&p->steps);
	va_start(ap, fmt);
	vsnprintf(p->why, sizeof(p->why), fmt, ap);
	va_end(ap);
	steps_end(&p->steps, STEP_FAILED, "%s", p->why);
	return code;
}

static uint64_t
after_ms(uint64_t ms)
{
	return clock_now_ns() + ms * NS_PER_MS;
}

/* --- Steps ------------------------------------------------------------------------- */

static enum exitcode
look(struct pause *p)
{
	enum exitcode code;

	steps_begin(&p->steps, "firecracker", "asking who it is");
	code = fc_look(&p->fc, after_ms(p->timeout_ms));
	if (code != EXITCODE_OK)
		return pause_fail(p, code, "%s", p->fc.why);
	p->paused = strcmp(p->fc.state, FC_PAUSED) == 0;
	if (!p->paused && strcmp(p->fc.state, FC_RUNNING) != 0)
		return pause_fail(p, EXITCODE_CONFLICT,
		    "this Firecracker has no VM that runs: it is %s", p->fc.state);
	steps_end(&p->steps, STEP_DONE, "Firecracker %s, process %d, its VM is %s", p->fc.version,
	    (int)p->fc.peer.pid, p->fc.state);
	return code;
}

/* Never a reason not to pause; an interruption is. */
static enum exitcode
drain(struct pause *p)
{
	char why[768];

	if (!p->ctl->flags.balloon)
		return EXITCODE_OK;
	steps_begin(&p->steps, "balloon", "the guest gives back free memory");
	if (p->paused)
		snprintf(why, sizeof(why), "skipped: the VM is paused already");
	else
		p->drained = balloon_drain(&p->fc, after_ms(p->balloon_ms), why, sizeof(why));
	if (interrupt_caught())
		return pause_fail(p, EXITCODE_FAILED, "it was interrupted");
	if (p->drained)
		steps_end(&p->steps, STEP_DONE, "the guest has given back its free memory");
	else
		steps_end(&p->steps, STEP_SKIPPED, "%s", why);
	return EXITCODE_OK;
}

static enum exitcode
pause_vm(struct pause *p)
{
	enum exitcode code;

	if (p->paused)
		return EXITCODE_OK;
	steps_begin(&p->steps, "pause", "pausing the VM");
	code = fc_set_state(&p->fc, FC_PAUSED, p->deadline_ns);
	if (code != EXITCODE_OK)
		return pause_fail(p, code, "%s", p->fc.why);
	p->paused = true;
	steps_end(&p->steps, STEP_DONE, "the VM is paused");
	return code;
}

static bool
is_same_file(const char *path, const struct stat *st)
{
	struct stat other;

	return stat(path, &other) == 0 && other.st_dev == st->st_dev && other.st_ino == st->st_ino;
}

/* Whether one of a list has the file for its image.  A pagerd that is too old to know of
 * templates has none. */
static enum exitcode
check_images(struct pause *p, const struct stat *st, const char *what, const char *name)
{
	scoped_free char *target = xasprintf("/%ss", what);
	const struct exchange get = {p->ctl->socket_path, "GET", target, NULL, after_ms(ASK_MS)};
	scoped_answer struct answer answer = {0};
	const json_t *one;
	size_t i;

	exchange_run_up_to(&get, MAX_LIST_BYTES, &answer);
	if (answer.status != 200 && answer.status != 404)
		return pause_fail(p, EXITCODE_UNREACHABLE,
		    "%s exists, and pagerd does not say whether it serves it; name a new file",
		    p->ctl->flags.mem);
	json_array_foreach(json_object_get(answer.json, target + 1), i, one)
	{
		if (!*ctl_text(one, "outcome") && is_same_file(ctl_text(one, "image"), st))
			return pause_fail(p, EXITCODE_CONFLICT,
			    "%s is the image of %s %s, whose memory it would change",
			    p->ctl->flags.mem, what, ctl_text(one, name));
	}
	return EXITCODE_OK;
}

/* To write a snapshot over an image would change the memory of every VM that is served from
 * it, and wait for itself where it is the VM's own. */
static enum exitcode
check_memory_file(struct pause *p)
{
	struct stat st;
	enum exitcode code;

	if (stat(p->ctl->flags.mem, &st) < 0)
		return EXITCODE_OK;
	code = check_images(p, &st, "session", "id");
	return code == EXITCODE_OK ? check_images(p, &st, "template", "name") : code;
}

static enum exitcode
write_snapshot(struct pause *p)
{
	const struct ctl_flags *f = &p->ctl->flags;
	scoped_free char *state = NULL, *memory = NULL;
	json_t *body;
	enum exitcode code;

	if (!f->snapshot)
		return EXITCODE_OK;
	state = fc_path(f->snapshot, f->jail);
	memory = fc_path(f->mem, f->jail);
	steps_begin(&p->steps, "snapshot", "Firecracker writes the snapshot");
	body = json_pack("{ss, ss, ss}", "snapshot_type", f->diff ? "Diff" : "Full",
	    "snapshot_path", state, "mem_file_path", memory);
	if (!body)
		return pause_fail(p, EXITCODE_USAGE, "a path is not UTF-8");
	code = fc_call(&p->fc,
	    &(const struct exchange){
		p->fc.socket_path, "PUT", "/snapshot/create", body, p->deadline_ns},
	    NULL);
	json_decref(body);
	if (code != EXITCODE_OK)
		return pause_fail(p, code, "%s", p->fc.why);
	steps_end(&p->steps, STEP_DONE, "%s and %s are written", f->snapshot, f->mem);
	return code;
}

/* Whatever became of the snapshot: a VM that is to run again must not stay paused. */
static enum exitcode
resume(struct pause *p, enum exitcode before)
{
	enum exitcode code;
	int interrupt = interrupt_forget();

	steps_begin(&p->steps, "resume", "resuming the VM");
	code = fc_set_state(&p->fc, "Resumed", after_ms(RESUME_MS));
	if (code == EXITCODE_OK) {
		p->paused = false;
		steps_end(&p->steps, STEP_DONE, "the VM runs");
	} else if (before == EXITCODE_OK)
		before = pause_fail(p, code, "%s", p->fc.why);
	else
		steps_end(&p->steps, STEP_FAILED, "%s", p->fc.why);
	interrupt_again(interrupt);
	return before;
}

/* --- The end ----------------------------------------------------------------------- */

static void
print_json(const struct pause *p, bool done)
{
	json_t *json = json_pack("{s:b, s:b, s:b, s:s*, s:I, s:o}", "done", done, "paused",
	    p->paused, "drained", p->drained, "firecracker", *p->fc.version ? p->fc.version : NULL,
	    "nanos", (json_int_t)steps_nanos(&p->steps), "steps", steps_json(&p->steps));

	if (!done) {
		json_object_set_new(json, "failed_step", json_string(p->failed_step));
		json_object_set_new(json, "error", steps_text(p->why));
	}
	ctl_print_json(json);
	json_decref(json);
}

static enum exitcode
conclude(const struct pause *p, enum exitcode code)
{
	char time[TEXT_BYTES];

	text_nanos(time, steps_nanos(&p->steps));
	if (p->ctl->json)
		print_json(p, code == EXITCODE_OK);
	if (code != EXITCODE_OK)
		ctl_complain("pause failed at %s: %s; the VM %s", p->failed_step, p->why,
		    p->paused ? "is paused" : "may be running");
	else if (!p->ctl->json)
		printf("the VM %s after %s%s%s%s\n", p->paused ? "is paused" : "runs again", time,
		    p->ctl->flags.snapshot ? ", its snapshot written" : "",
		    p->drained ? ", its free memory given back" : "",
		    p->ctl->flags.balloon && !p->drained ? ", the balloon skipped" : "");
	return code;
}

static enum exitcode
run(struct pause *p)
{
	enum exitcode code = look(p);

	if (code == EXITCODE_OK)
		code = drain(p);
	p->deadline_ns = after_ms(p->timeout_ms);
	if (code == EXITCODE_OK && p->ctl->flags.snapshot) {
		steps_begin(&p->steps, "check", "looking at the memory file");
		code = check_memory_file(p);
	}
	if (code == EXITCODE_OK && p->ctl->flags.diff)
		code = pause_diff_prepare(p);
	if (code == EXITCODE_OK)
		code = pause_vm(p);
	if (code != EXITCODE_OK) {
		pause_diff_fini(p, false);
		return code;
	}
	if (p->ctl->flags.diff)
		code = pause_diff_empty(p);
	if (code == EXITCODE_OK)
		code = write_snapshot(p);
	pause_diff_fini(p, code == EXITCODE_OK);
	return p->ctl->flags.resume ? resume(p, code) : code;
}

enum exitcode
ctl_pause(const struct ctl *ctl)
{
	struct pause p = {.ctl = ctl, .mem_fd = -1};
	enum exitcode code;

	if (check_flags(&p) < 0)
		return EXITCODE_USAGE;
	p.fc.socket_path = ctl->flags.api_sock;
	interrupt_catch();
	steps_init(&p.steps, ctl);
	code = run(&p);
	if (code != EXITCODE_OK && interrupt_caught())
		code = interrupt_exitcode();
	code = conclude(&p, code);
	steps_fini(&p.steps);
	return code;
}
