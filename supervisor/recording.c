/* SPDX-License-Identifier: Apache-2.0 */
#include "supervisor/recording.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/clock.h"
#include "common/fd.h"
#include "common/hotlist.h"
#include "common/scope.h"
#include "common/xalloc.h"
#include "supervisor/child.h"
#include "supervisor/json.h"
#include "supervisor/opener.h"
#include "supervisor/opener/image.h"
#include "supervisor/prefetch.h"
#include "supervisor/record.h"
#include "supervisor/session_impl.h"
#include "supervisor/supervisor.h"
#include "supervisor/template.h"
#include "supervisor/why.h"

#define TICK_S 0.05

static const char *const state_words[] = {
    [RECORDING_RUNNING] = "running",
    [RECORDING_SAVING] = "saving",
    [RECORDING_SAVED] = "saved",
    [RECORDING_FAILED] = "failed",
};

/* A list that is being written, whatever becomes of its session meanwhile. */
struct saving {
	struct recording *recording; /* NULL: gone */
	char *path, *reason, *id;    /* owned */
	uint64_t number, pages;
};

/* --- Life ------------------------------------------------------------------------ */

static void
destroy(struct recording *recording)
{
	struct recordings *all = &recording->session->sup->recordings;

	list_remove(&recording->link);
	if (recording->saving)
		recording->saving->recording = NULL;
	if (list_is_empty(&all->running))
		ev_timer_stop(recording->session->sup->loop, &all->tick);
	trace_unmap(&recording->trace);
	fd_closep(&recording->fd);
	free(recording->path);
	free(recording);
}

void
recording_free(struct session *session)
{
	if (session->recording != NULL)
		destroy(session->recording);
	session->recording = NULL;
}

static void
attach(struct session *session, struct recording *recording)
{
	struct recordings *all = &session->sup->recordings;

	recording_free(session);
	session->recording = recording;
	list_add(&all->running, &recording->link);
	if (!ev_is_active(&all->tick))
		ev_timer_again(session->sup->loop, &all->tick);
}

char *
recording_default_path(const struct session *session)
{
	const char *named = template_hot_list(session);

	return named ? xstrdup(named) : xasprintf("%s" PREFETCH_SUFFIX, session->image_path);
}

static struct recording *
recording_new(struct session *session, const char *path)
{
	struct recording *recording = xcalloc(1, sizeof(*recording));

	list_init(&recording->link);
	recording->session = session;
	recording->fd = -1;
	recording->path = path ? xstrdup(path) : recording_default_path(session);
	return recording;
}

bool
recording_runs(const struct session *session)
{
	return session->recording != NULL && session->recording->state == RECORDING_RUNNING;
}

static int
open_trace(struct recording *recording)
{
	uint64_t room = recording->session->sup->options.record_limit;
	int r = trace_create(TRACE_RECORDING, room, NULL, 0, &recording->fd);

	return r < 0 ? r : trace_map(&recording->trace, recording->fd, TRACE_RECORDING, false);
}

/* One that opens an image says so, and what is meant here is no image. */
int
recording_refuse(const struct opener_outcome *outcome, char *why, size_t why_bytes)
{
	static const char image[] = "image ";
	const char *what = outcome->why;

	if (strncmp(what, image, strlen(image)) == 0)
		what += strlen(image);
	return why_set(why, why_bytes, outcome->error, "it cannot be recorded: %s", what);
}

static int
check_free(const struct session *session, char *why, size_t why_bytes)
{
	if (session->recording == NULL || session->recording->state == RECORDING_SAVED ||
	    session->recording->state == RECORDING_FAILED)
		return 0;
	return why_set(why, why_bytes, -EBUSY, "session %s is recorded already, to %s", session->id,
	    session->recording->path);
}

int
recording_prepare(
    struct session *session, const struct peer *peer, const char *path, char *why, size_t why_bytes)
{
	struct recording *recording;
	int r;

	r = check_free(session, why, why_bytes);
	if (r < 0)
		return r;
	recording = recording_new(session, path);
	recording->peer = *peer;
	r = open_trace(recording);
	if (r < 0)
		why_set(why, why_bytes, r, "no memory to record into: %s", strerror(-r));
	if (r < 0) {
		destroy(recording);
		return r;
	}
	attach(session, recording);
	return 0;
}

static int
send_trace(struct session *session)
{
	struct ipc_msg msg = {.type = IPC_SESSION_TRACE};

	if (session->child == NULL || (session->child->sandbox & IPC_CAN_TRACE) == 0)
		return -ENOTSUP;
	msg.session_trace.seq = endpoint_next_seq(&session->child->ep);
	msg.session_trace.session = session->number;
	msg.session_trace.kind = TRACE_RECORDING;
	return child_send(session->child, &msg, &session->recording->fd, 1);
}

void
recording_send(struct session *session)
{
	int r;

	if (!recording_runs(session) || session->recording->fd < 0)
		return;
	r = send_trace(session);
	if (r == 0)
		return;
	/* What its last worker recorded is still saved at the end. */
	session_log(session, LOG_LEVEL_WARNING, "worker v%s does not record it: %s",
	    session->version, r == -ENOTSUP ? "it is too old to know how" : strerror(-r));
}

int
recording_check(const struct session *session, char *why, size_t why_bytes)
{
	if (!session_is_live(session) || session_is_over(session) || session->child == NULL ||
	    !session->sent)
		return why_set(why, why_bytes, -EINVAL,
		    "session %s is %s; only one that a worker has can be recorded", session->id,
		    session_state_word(session->state));
	if ((session->child->sandbox & IPC_CAN_TRACE) == 0)
		return why_set(why, why_bytes, -ENOTSUP,
		    "worker v%s is too old to record; hand session %s over to a newer one first",
		    session->version, session->id);
	return check_free(session, why, why_bytes);
}

int
recording_start(
    struct session *session, const struct peer *peer, const char *path, char *why, size_t why_bytes)
{
	int r = recording_check(session, why, why_bytes);

	if (r == 0)
		r = recording_prepare(session, peer, path, why, why_bytes);
	if (r < 0)
		return r;
	r = send_trace(session);
	if (r < 0) {
		recording_free(session);
		return why_set(why, why_bytes, r, "cannot reach worker v%s: %s", session->version,
		    strerror(-r));
	}
	record_save(session);
	session_log(session, LOG_LEVEL_INFO, "is recorded, to %s", session->recording->path);
	return 0;
}

/* --- The end --------------------------------------------------------------------- */

static void
send_stop(const struct session *session)
{
	struct ipc_msg msg = {.type = IPC_SESSION_TRACE_STOP};

	if (session->child == NULL || !session->sent || session_is_over(session) ||
	    (session->child->sandbox & IPC_CAN_TRACE) == 0)
		return;
	msg.session_trace_stop.seq = endpoint_next_seq(&session->child->ep);
	msg.session_trace_stop.session = session->number;
	msg.session_trace_stop.kind = TRACE_RECORDING;
	/* What it goes on to record nobody reads. */
	(void)child_send(session->child, &msg, NULL, 0);
}

/* The worker may still write: each word is read once. */
static int
make_list(const struct recording *recording, struct hotlist *list)
{
	size_t nr = (size_t)trace_nr(&recording->trace);
	scoped_free uint32_t *pages = calloc(nr + 1, sizeof(*pages));

	if (pages == NULL)
		return -ENOMEM;
	for (size_t i = 0; i < nr; i++)
		pages[i] = trace_word(&recording->trace, i);
	return hotlist_add_pages(list, pages, nr);
}

/* Once for each recording, also of a session that has ended. */
static void
settle(struct recording *recording, enum recording_state state, const char *reason)
{
	recording->saving = NULL;
	recording->state = state;
	snprintf(recording->reason, sizeof(recording->reason), "%s", reason);
	session_mark_changed(recording->session);
}

static void
on_saved(void *arg, struct opener_answer *answer)
{
	struct saving *saving = arg;
	const char *why;
	int r = opener_result(answer, &why);

	if (r < 0)
		log_warning("session %" PRIu64 " id=%s: no hot list is saved to %s: %s",
		    saving->number, saving->id, saving->path, why);
	else
		log_notice("session %" PRIu64 " id=%s: hot list saved to %s, pages=%" PRIu64 ": %s",
		    saving->number, saving->id, saving->path, saving->pages, saving->reason);
	if (saving->recording != NULL)
		settle(saving->recording, r < 0 ? RECORDING_FAILED : RECORDING_SAVED,
		    r < 0 ? why : saving->reason);
	free(saving->path);
	free(saving->reason);
	free(saving->id);
	free(saving);
}

static int
have_written(struct recording *recording, const struct image_bytes *bytes, const char *reason,
    char *why, size_t why_bytes)
{
	const struct session *session = recording->session;
	const struct opener_request request = {.peer = &recording->peer,
	    .record = recording->path,
	    .bytes = bytes->bytes,
	    .nr_bytes = bytes->nr};
	struct saving *saving = xcalloc(1, sizeof(*saving));
	struct opening *opening;

	saving->recording = recording;
	saving->path = xstrdup(recording->path);
	saving->reason = xstrdup(reason);
	saving->id = xstrdup(session->id);
	saving->number = session->number;
	saving->pages = recording->pages;
	int r = opener_ask(session->sup, &request, on_saved, saving, &opening, why, why_bytes);
	if (r == 0) {
		recording->saving = saving;
		return 0;
	}
	free(saving->path);
	free(saving->reason);
	free(saving->id);
	free(saving);
	return r;
}

static int
save(struct recording *recording, const char *reason, char *why, size_t why_bytes)
{
	scoped_free unsigned char *bytes = NULL;
	struct hotlist list;
	size_t nr_bytes = 0;
	int r;

	hotlist_init(&list);
	prefetch_identify(recording->session, &list.image);
	r = make_list(recording, &list);
	recording->pages = list.nr_pages;
	if (r == 0 && list.nr_pages == 0)
		r = -ENODATA;
	if (r == 0)
		r = hotlist_encode(&list, &bytes, &nr_bytes);
	hotlist_fini(&list);
	if (r == -ENODATA)
		return why_set(why, why_bytes, r, "its guest has touched nothing");
	if (r < 0)
		return why_set(why, why_bytes, r, "no list could be made: %s", strerror(-r));
	const struct image_bytes written = {bytes, nr_bytes};
	return have_written(recording, &written, reason, why, why_bytes);
}

void
recording_stop(struct session *session, const char *reason)
{
	struct recording *recording = session->recording;
	char why[sizeof(recording->reason)] = "no worker holds what was recorded any more";

	if (!recording_runs(session))
		return;
	send_stop(session);
	if (recording->fd < 0 || save(recording, reason, why, sizeof(why)) < 0) {
		settle(recording, RECORDING_FAILED, why);
		session_log(session, LOG_LEVEL_WARNING, "no hot list is saved to %s: %s",
		    recording->path, why);
	} else {
		recording->state = RECORDING_SAVING;
	}
	trace_unmap(&recording->trace);
	fd_closep(&recording->fd);
	list_remove(&recording->link);
	record_save(session);
	session_mark_changed(session);
}

static void
look_at(struct recording *recording)
{
	struct session *session = recording->session;
	uint64_t window_ns = session->sup->options.record_settle_ms * NS_PER_MS, nr;

	if (recording->fd < 0)
		return;
	nr = trace_nr(&recording->trace);
	if (nr == recording->trace.room)
		recording_stop(session, "it is full");
	else if (session->state != SESSION_SERVING)
		recording->settle = (struct settle){0}; /* its guest may be held up */
	else if (settle_step(&recording->settle, clock_now_ns(), nr, window_ns))
		recording_stop(session, "it has settled");
}

static void
on_tick(struct ev_loop *loop, ev_timer *timer, int revents)
{
	struct supervisor *sup = timer->data;
	struct list *pos, *tmp;

	(void)revents;
	list_for_each_safe(pos, tmp, &sup->recordings.running)
		look_at(list_entry(pos, struct recording, link));
	if (list_is_empty(&sup->recordings.running))
		ev_timer_stop(loop, timer);
}

void
recordings_init(struct supervisor *sup)
{
	list_init(&sup->recordings.running);
	ev_timer_init(&sup->recordings.tick, on_tick, 0., TICK_S);
	sup->recordings.tick.data = sup;
}

void
recordings_fini(struct supervisor *sup)
{
	if (sup->loop != NULL)
		ev_timer_stop(sup->loop, &sup->recordings.tick);
}

void
recording_settle(struct session *session)
{
	if (recording_runs(session) && session->recording->fd < 0)
		recording_stop(session, "");
}

int
recording_take(struct session *session, int *fd)
{
	struct recording *recording = session->recording;

	if (!recording_runs(session) || recording->fd >= 0)
		return 0; /* it is wanted no more */
	if (trace_map(&recording->trace, *fd, TRACE_RECORDING, false) < 0)
		return -EPROTO;
	recording->fd = fd_take(fd);
	return 0;
}

/* --- In words -------------------------------------------------------------------- */

json_t *
recording_json(const struct session *session)
{
	const struct recording *recording = session->recording;
	json_t *json;

	if (recording == NULL)
		return json_null();
	json = json_object();
	json_put_text(json, "state", state_words[recording->state]);
	json_put_text(json, "path", recording->path);
	json_put_u64(
	    json, "pages", recording->fd >= 0 ? trace_nr(&recording->trace) : recording->pages);
	if (recording->reason[0] != '\0')
		json_put_text(json, "reason", recording->reason);
	else
		json_put_null(json, "reason");
	return json;
}

void
recording_put(json_t *json, const struct session *session)
{
	const struct recording *recording = session->recording;
	json_t *groups;

	if (!recording_runs(session))
		return;
	json_put_text(json, "record_path", recording->path);
	json_put_u64(json, "record_uid", recording->peer.uid);
	json_put_u64(json, "record_gid", recording->peer.gid);
	groups = json_array();
	for (size_t i = 0; i < recording->peer.nr_groups; i++)
		json_array_append_new(groups, json_integer(recording->peer.groups[i]));
	json_put(json, "record_groups", groups);
}

void
recording_load(
    struct session *session, const char *path, uint64_t uid, uint64_t gid, const json_t *groups)
{
	struct recording *recording = recording_new(session, path);
	struct peer *peer = &recording->peer;
	const json_t *group;
	size_t i;

	peer->pid = -1;
	peer->uid = (uid_t)uid;
	peer->gid = (gid_t)gid;
	json_array_foreach(groups, i, group)
	{
		json_int_t value = json_integer_value(group);

		if (json_is_integer(group) && value >= 0 && value < UINT32_MAX &&
		    peer->nr_groups < PEER_MAX_GROUPS)
			peer->groups[peer->nr_groups++] = (gid_t)value;
	}
	attach(session, recording);
}
