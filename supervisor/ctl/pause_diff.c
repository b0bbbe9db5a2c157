/* SPDX-License-Identifier: Apache-2.0 */
/* A snapshot of what has changed.  Firecracker's own leaves out pages that the VM gave back, and
 * whoever merges it into the image brings old bytes to life there.  pagerd knows those pages. */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/scope.h"
#include "common/xalloc.h"
#include "supervisor/ctl/memfile.h"
#include "supervisor/ctl/pause.h"
#include "supervisor/ctl/text.h"

#define MAX_PICTURE_BYTES ((size_t)256 << 20)

/* 0 and the JSON, owned; else the step has failed. */
static enum exitcode
ask(struct pause *p, const char *target, json_t **ret)
{
	const struct exchange get = {p->ctl->socket_path, "GET", target, NULL, p->deadline_ns};
	scoped_answer struct answer answer = {0};

	exchange_run_up_to(&get, MAX_PICTURE_BYTES, &answer);
	if (answer.status < 0)
		return pause_fail(p,
		    answer.status == -ETIMEDOUT ? EXITCODE_TIMEOUT : EXITCODE_UNREACHABLE,
		    "pagerd does not answer on %s: %s", p->ctl->socket_path,
		    strerror(-answer.status));
	if (answer.status != 200 || !answer.json)
		return pause_fail(p, ctl_exitcode(answer.status), "%s",
		    *ctl_text(answer.json, "error") ? ctl_text(answer.json, "error")
						    : "pagerd refused without a reason");
	*ret = answer.json;
	answer.json = NULL;
	return EXITCODE_OK;
}

/* --id, or the one whose VMM is the process that listens on the API socket. */
static const json_t *
find_session(const struct pause *p, const json_t *sessions)
{
	const char *id = p->ctl->flags.id;
	const json_t *session;
	size_t i;

	json_array_foreach(sessions, i, session)
	{
		if (*ctl_text(session, "outcome"))
			continue;
		if (id ? strcmp(ctl_text(session, "id"), id) == 0
		       : ctl_u64(session, "vmm_pid") == (uint64_t)p->fc.peer.pid)
			return session;
	}
	return NULL;
}

static enum exitcode
prepare(struct pause *p, const json_t *session)
{
	const uid_t owner[2] = {p->fc.peer.uid, p->fc.peer.gid};
	const char *image = ctl_text(session, "image");
	char bytes[TEXT_BYTES];

	/* Their pages may be absent still, and are nowhere but in pagerd. */
	if (json_array_size(json_object_get(session, "overlays")))
		return pause_fail(p, EXITCODE_CONFLICT,
		    "session %s has overlays; its snapshot must be a full one",
		    ctl_text(session, "id"));
	p->id = xstrdup(ctl_text(session, "id"));
	p->mem_bytes = ctl_u64(session, "image_bytes");
	p->mem_fd =
	    memfile_open(p->ctl->flags.mem, image, p->mem_bytes, owner, p->deadline_ns, &p->made);
	if (p->mem_fd == -EFBIG)
		return pause_fail(p, EXITCODE_CONFLICT, "%s is not of the image's size",
		    p->made ? image : p->ctl->flags.mem);
	if (p->mem_fd < 0)
		return pause_fail(p, p->mem_fd == -ETIMEDOUT ? EXITCODE_TIMEOUT : EXITCODE_FAILED,
		    "%s: %s", p->ctl->flags.mem, strerror(-p->mem_fd));
	text_bytes(bytes, p->mem_bytes);
	steps_end(&p->steps, STEP_DONE, "%s: %s%s", p->ctl->flags.mem, bytes,
	    p->made ? ", copied from the image" : ", of a snapshot before");
	return EXITCODE_OK;
}

enum exitcode
pause_diff_prepare(struct pause *p)
{
	json_t *json = NULL;
	const json_t *session;
	enum exitcode code;

	steps_begin(&p->steps, "base", "copying the image");
	code = ask(p, "/sessions", &json);
	if (code != EXITCODE_OK)
		return code;
	session = find_session(p, json_object_get(json, "sessions"));
	if (session)
		code = prepare(p, session);
	else if (p->ctl->flags.id)
		code = pause_fail(p, EXITCODE_NOT_FOUND, "no live session is %s", p->ctl->flags.id);
	else
		code = pause_fail(p, EXITCODE_NOT_FOUND,
		    "no session serves process %d: name it by --id, or write a full snapshot",
		    (int)p->fc.peer.pid);
	json_decref(json);
	return code;
}

enum exitcode
pause_diff_empty(struct pause *p)
{
	scoped_free char *target = ctl_session_target(p->id, "/pages");
	json_t *json = NULL;
	uint64_t emptied = 0;
	char bytes[TEXT_BYTES];
	enum exitcode code;
	int r;

	steps_begin(&p->steps, "pages", "asking pagerd what the VM gave back");
	code = ask(p, target, &json);
	if (code != EXITCODE_OK)
		return code;
	r = memfile_empty(p->mem_fd, p->mem_bytes, json, &emptied);
	json_decref(json);
	if (r == -EPROTO)
		return pause_fail(p, EXITCODE_FAILED,
		    "what pagerd says of the pages does not fit %s", p->ctl->flags.mem);
	p->emptied = r != -EPROTO;
	if (r < 0)
		return pause_fail(p, EXITCODE_FAILED, "%s: %s", p->ctl->flags.mem, strerror(-r));
	steps_end(
	    &p->steps, STEP_DONE, "%s that the VM gave back are empty", text_bytes(bytes, emptied));
	return EXITCODE_OK;
}

void
pause_diff_fini(struct pause *p, bool written)
{
	if (p->mem_fd >= 0 && p->made && !written)
		unlink(p->ctl->flags.mem);
	else if (p->mem_fd >= 0 && p->emptied && !written)
		ctl_complain(
		    "%s is a snapshot no more: it was being written over", p->ctl->flags.mem);
	fd_closep(&p->mem_fd);
	free(p->id);
	p->id = NULL;
}
