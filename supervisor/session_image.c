/* SPDX-License-Identifier: Apache-2.0 */
/* What a worker says of a session's image, and what follows from it.  A worker that lies
 * can raise an alarm, and have a VMM killed that was created to be killed: it has that one's
 * memory in its hands anyway. */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "supervisor/child.h"
#include "supervisor/session_impl.h"
#include "supervisor/supervisor.h"
#include "supervisor/vmm.h"
#include "supervisor/why.h"

#define MAX_ERRNO 4095U

#define lied(child, ...) (child_log((child), LOG_LEVEL_WARNING, __VA_ARGS__), -EPROTO)

static void
count_alarm(struct session *session)
{
	if (session->alarms < UINT32_MAX)
		session->alarms++;
	session_mark_changed(session);
}

int
session_on_alarm(struct child *child, const struct ipc_session_alarm *msg)
{
	struct session *session;
	char text[sizeof(session->reason)];
	int r = session_find_told(child, msg->session, &session);

	if (r < 0)
		return r == -ESTALE ? 0 : r;
	if ((msg->kind != IPC_ALARM_IMAGE_READ && msg->kind != IPC_ALARM_FILL) ||
	    msg->error > MAX_ERRNO || session->state == SESSION_CREATED)
		return lied(child,
		    "raises alarm %" PRIu32 " error %" PRIu32 " for session %" PRIu64, msg->kind,
		    msg->error, session->number);
	why_copy_untrusted(text, sizeof(text), msg->reason);
	log_limited(&session->alarm_limit, LOG_LEVEL_ERR,
	    "session %" PRIu64 " id=%s: alarm: %s: %s; its VM waits for the page", session->number,
	    session->id, text, strerror((int)msg->error));
	if (!session_is_over(session))
		snprintf(session->reason, sizeof(session->reason), "%s", text);
	if (msg->kind == IPC_ALARM_IMAGE_READ)
		snprintf(session->image_alarm, sizeof(session->image_alarm), "%s", text);
	count_alarm(session);
	return 0;
}

void
session_image_forget(struct session *session)
{
	if (session->image_alarm[0] == '\0')
		return;
	if (!session_is_over(session) && strcmp(session->reason, session->image_alarm) == 0)
		session->reason[0] = '\0';
	session->image_alarm[0] = '\0';
	session_mark_changed(session);
}

/* An alarm that stands until the image heals. */
static void __attribute__((format(printf, 2, 3)))
raise_alarm(struct session *session, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(session->image_alarm, sizeof(session->image_alarm), fmt, ap);
	va_end(ap);
	if (!session_is_over(session))
		snprintf(session->reason, sizeof(session->reason), "%s", session->image_alarm);
	/* A worker can say this of every page. */
	log_limited(&session->alarm_limit, LOG_LEVEL_ERR, "session %" PRIu64 " id=%s: alarm: %s",
	    session->number, session->id, session->image_alarm);
	count_alarm(session);
}

/* Once: a SIGKILL is not lost, and what it takes to die may be long. */
static void
kill_vmm(struct session *session, uint64_t offset, int error)
{
	int r;

	if (session->killed[0] != '\0' || session_is_over(session))
		return;
	if (image_policy_of(session->flags) != IMAGE_KILL ||
	    !session->sup->options.image_error_kill)
		r = -EPERM;
	else
		r = vmm_kill(session);
	if (r < 0) {
		raise_alarm(session,
		    "the image cannot be read at offset %" PRIu64 ": %s; its VMM is not killed: %s",
		    offset, strerror(error),
		    r == -EPERM && !session->sup->options.image_error_kill
			? "image-error-kill is off"
			: strerror(-r));
		return;
	}
	snprintf(session->killed, sizeof(session->killed),
	    "the image could not be read at offset %" PRIu64 ": %s", offset, strerror(error));
	raise_alarm(
	    session, "%s; its VMM pid=%d is killed", session->killed, (int)session->vmm_pid);
}

int
session_on_image(struct child *child, const struct ipc_session_image *msg)
{
	struct session *session;
	int error = (int)msg->error, r = session_find_told(child, msg->session, &session);

	if (r < 0)
		return r == -ESTALE ? 0 : r;
	if (msg->seq != 0 || msg->error > MAX_ERRNO || session->state == SESSION_CREATED)
		return lied(child, "says SESSION_IMAGE of session %" PRIu64 " out of order",
		    session->number);
	switch (msg->what) {
	case IPC_IMAGE_HEALED:
		if (session->image_alarm[0] != '\0')
			session_log(session, LOG_LEVEL_NOTICE,
			    "its image can be read again: no page waits for it");
		session_image_forget(session);
		return 0;
	case IPC_IMAGE_POISONED:
		raise_alarm(session,
		    "the image cannot be read at offset %" PRIu64
		    ": %s; the page is poisoned, its VMM stops when it touches it; pages=%" PRIu32,
		    msg->offset, strerror(error), msg->pages);
		return 0;
	case IPC_IMAGE_HOLDING:
		raise_alarm(session,
		    "the image cannot be read at offset %" PRIu64
		    ": %s; this kernel poisons no page, so its VM waits",
		    msg->offset, strerror(error));
		return 0;
	case IPC_IMAGE_HOPELESS:
		kill_vmm(session, msg->offset, error);
		return 0;
	default:
		return lied(child, "says SESSION_IMAGE with what=%" PRIu32, msg->what);
	}
}

static uint64_t
known(int64_t ns)
{
	return ns < 0 ? 0 : (uint64_t)ns;
}

/* Its inode alone: a rename over it, a link, another owner.  Or somebody wrote to it and put
 * its times back. */
static void
note_inode(struct session *session, uint64_t ctime_ns)
{
	if (session->image.ctime_ns == 0 || ctime_ns == known(session->image.ctime_ns) ||
	    session->inode_noted)
		return;
	session->inode_noted = true;
	session_log(session, LOG_LEVEL_INFO,
	    "the inode of its image %s has changed (renamed, removed, linked or given away); its "
	    "bytes have not, as far as its times tell",
	    session->image_path);
}

int
session_on_image_file(struct child *child, const struct ipc_session_image_file *msg)
{
	struct session *session;
	int r = session_find_told(child, msg->session, &session);

	if (r < 0)
		return r == -ESTALE ? 0 : r;
	if (msg->seq != 0)
		return lied(child, "says SESSION_IMAGE_FILE of session %" PRIu64 " out of order",
		    session->number);
	if (msg->bytes == session->image.bytes && msg->mtime_ns == known(session->image.mtime_ns)) {
		note_inode(session, msg->ctime_ns);
		return 0;
	}
	/* Said once: the bytes that a guest has are not taken back by another change. */
	if (session->image_changed[0] != '\0')
		return 0;
	if (msg->bytes != session->image.bytes)
		snprintf(session->image_changed, sizeof(session->image_changed),
		    "its size went from %" PRIu64 " to %" PRIu64, session->image.bytes, msg->bytes);
	else
		snprintf(session->image_changed, sizeof(session->image_changed),
		    "it was written to since it was opened");
	session_log(session, LOG_LEVEL_ERR,
	    "alarm: its image %s was modified in place: %s; pages not read yet are not those of "
	    "the snapshot",
	    session->image_path, session->image_changed);
	count_alarm(session);
	return 0;
}
