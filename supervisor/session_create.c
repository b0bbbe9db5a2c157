/* SPDX-License-Identifier: Apache-2.0 */
/* A request becomes a session: checked, opened, bound, handed over, or undone. */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <unistd.h>

#include "common/fault.h"
#include "common/fd.h"
#include "common/scope.h"
#include "common/xalloc.h"
#include "supervisor/child.h"
#include "supervisor/opener.h"
#include "supervisor/privs.h"
#include "supervisor/record.h"
#include "supervisor/recording.h"
#include "supervisor/session_impl.h"
#include "supervisor/session_socket.h"
#include "supervisor/supervisor.h"
#include "supervisor/template.h"
#include "supervisor/why.h"

#define MIN_CLUSTER_BYTES UINT64_C(4096)
#define MAX_CLUSTER_BYTES (UINT64_C(2) << 20)

struct reply {
	char *why;
	size_t bytes;
};

/* A session that the opener works for: nobody but its creator knows of it. */
struct creation {
	struct list link; /* sessions.creations */
	struct supervisor *sup;
	struct session *session;	/* owned; NULL: it is made */
	struct session_request request; /* its texts are owned */
	struct peer peer;
	struct opening *opening; /* NULL: it has been answered */
	session_created_fn done;
	void *arg;
};

static void on_opened(void *arg, struct opener_answer *answer);

#define refuse(reply, error, ...) why_set((reply)->why, (reply)->bytes, (error), __VA_ARGS__)

/* Names of ours and of clients end up in logs, replies and file names. */
static int
check_name(const struct reply *reply, const char *what, const char *name)
{
	size_t n = strlen(name);

	if (n == 0 || n >= SESSION_ID_BYTES)
		return refuse(reply, -EINVAL, "%s must have 1 to %d bytes, not %zu", what,
		    SESSION_ID_BYTES - 1, n);
	for (size_t i = 0; i < n; i++)
		if ((unsigned char)name[i] < 0x20 || name[i] == 0x7f)
			return refuse(
			    reply, -EINVAL, "%s has a control character at byte %zu", what, i);
	return 0;
}

static int
check_names(const struct reply *reply, const struct session_request *req)
{
	int r = 0;

	if (req->id)
		r = check_name(reply, "the session's id", req->id);
	if (r == 0 && req->instance)
		r = check_name(reply, "instance", req->instance);
	if (r == 0 && req->cache_key)
		r = check_name(reply, "cache_key", req->cache_key);
	if (r == 0 && req->version && !version_is_valid(req->version))
		r = refuse(reply, -EINVAL, "%.40s is no version", req->version);
	if (r == 0 && !req->image_path)
		r = refuse(reply, -EINVAL, "the path of the image is missing");
	return r;
}

static bool
is_cluster(uint64_t bytes)
{
	return bytes >= MIN_CLUSTER_BYTES && bytes <= MAX_CLUSTER_BYTES &&
	    (bytes & (bytes - 1)) == 0;
}

/* A bound that the client leaves to us gives way to the one that it names. */
static int
choose_clusters(
    const struct reply *reply, const struct session_request *req, struct session *session)
{
	const struct options *options = &session->sup->options;
	uint64_t min = req->cluster_min_bytes ? req->cluster_min_bytes : options->cluster_min_bytes;
	uint64_t max = req->cluster_max_bytes ? req->cluster_max_bytes : options->cluster_max_bytes;

	if (min > max && !req->cluster_max_bytes)
		max = min;
	if (min > max && !req->cluster_min_bytes)
		min = max;
	if (!is_cluster(min) || !is_cluster(max) || min > max)
		return refuse(reply, -EINVAL,
		    "clusters of %" PRIu64 " to %" PRIu64
		    " bytes: both must be powers of two from 4096 to 2097152, in that order",
		    min, max);
	session->cluster_min_bytes = min;
	session->cluster_max_bytes = max;
	return 0;
}

static int
choose_policy(const struct reply *reply, const struct session_request *req, struct session *session)
{
	const struct options *options = &session->sup->options;
	const char *word = req->on_image_error ? req->on_image_error : options->on_image_error;
	enum image_policy policy;

	if (image_policy_parse(word, &policy) < 0)
		return refuse(reply, -EINVAL, "on_image_error is hold, poison or kill");
	if (policy == IMAGE_KILL && !options->image_error_kill)
		return refuse(reply, -EPERM,
		    "on_image_error may not be kill here; the administrator allows it with "
		    "--image-error-kill on");
	session->flags = image_policy_flags(policy) | (req->memfd ? IPC_SESSION_MEMFD : 0) |
	    (req->track_writes ? IPC_SESSION_TRACK : 0);
	return 0;
}

static int
check_vmm_user(
    const struct reply *reply, const struct peer *peer, const struct session_request *req)
{
	if (req->vmm_uid == (uid_t)-1 || req->vmm_gid == (gid_t)-1)
		return refuse(reply, -EINVAL, "vmm_uid and vmm_gid must be real ids");
	if (req->vmm_uid != peer->uid && peer->uid != 0)
		return refuse(reply, -EPERM,
		    "only root may create a session for another user's VMM (you are uid %u, vmm_uid "
		    "is %u)",
		    (unsigned int)peer->uid, (unsigned int)req->vmm_uid);
	if (req->vmm_uid != geteuid() && !priv_is_available(PRIV_CHOWN))
		return refuse(reply, -EPERM,
		    "this pagerd runs unprivileged as uid %u and serves VMMs of that user only",
		    (unsigned int)geteuid());
	return 0;
}

/* Not a secret, but nobody guesses it by accident, not even after a restart. */
static void
generate_id(struct session *session)
{
	uint32_t random = 0;

	do {
		if (getrandom(&random, sizeof(random), GRND_NONBLOCK) < 0)
			random = (uint32_t)session->created_ns;
		snprintf(session->id, sizeof(session->id), "s%" PRIu64 "-%08" PRIx32,
		    session->number, random);
	} while (session_find(&session->sup->sessions, session->id));
}

static bool
is_being_created(const struct sessions *sessions, const char *id)
{
	struct list *pos;

	list_for_each(pos, &sessions->creations)
		if (strcmp(list_entry(pos, struct creation, link)->session->id, id) == 0)
			return true;
	return false;
}

static int
choose_id(const struct reply *reply, const struct session_request *req, struct session *session)
{
	const char *id = req->id ? req->id : req->instance;

	if (!id) {
		generate_id(session);
		return 0;
	}
	const struct session *other = session_find(&session->sup->sessions, id);
	if (is_being_created(&session->sup->sessions, id))
		return refuse(reply, -EEXIST,
		    "session %s is being created; wait for that or choose another id", id);
	if (other && session_is_live(other))
		return refuse(reply, -EEXIST,
		    "session %s exists (%s%s); close it first or choose another id", id,
		    session_state_word(other->state),
		    other->state == SESSION_CLOSING ? ", its worker is letting go of it" : "");
	snprintf(session->id, sizeof(session->id), "%s", id);
	return 0;
}

void
session_image_key(const struct image *image, char ret[SESSION_ID_BYTES])
{
	snprintf(ret, SESSION_ID_BYTES, "%" PRIx64 ":%" PRIu64 ":%" PRIu64 ":%" PRId64, image->dev,
	    image->ino, image->bytes, image->mtime_ns);
}

static void
name_session(const struct session_request *req, struct session *session)
{
	if (req->template)
		snprintf(session->template, sizeof(session->template), "%s", req->template);
	if (req->instance)
		snprintf(session->instance, sizeof(session->instance), "%s", req->instance);
	if (req->cache_key)
		snprintf(session->cache_key, sizeof(session->cache_key), "%s", req->cache_key);
	else
		session_image_key(&session->image, session->cache_key);
}

/* Everything that needs no file and no worker. */
static int
prepare(const struct reply *reply, const struct peer *peer, const struct session_request *req,
    struct session *session)
{
	const struct options *options = &session->sup->options;
	int r = check_names(reply, req);

	if (r == 0)
		r = check_vmm_user(reply, peer, req);
	if (r == 0)
		r = choose_clusters(reply, req, session);
	if (r == 0)
		r = choose_policy(reply, req, session);
	if (r == 0)
		r = choose_id(reply, req, session);
	session->vmm_uid = req->vmm_uid;
	session->vmm_gid = req->vmm_gid;
	if (r == 0 && req->version)
		snprintf(session->wanted, sizeof(session->wanted), "%s", req->version);
	session->handshake_timeout_ms =
	    req->handshake_timeout_ms ? req->handshake_timeout_ms : options->handshake_timeout_ms;
	return r;
}

/* --- What is to be opened -------------------------------------------------------- */

/* Where the list goes that is recorded, or NULL. */
static char *
record_path(const struct session_request *req)
{
	if (!req->record)
		return NULL;
	return req->record_path ? xstrdup(req->record_path)
				: xasprintf("%s" PREFETCH_SUFFIX, req->image_path);
}

static int
ask(struct creation *creation, uint64_t timeout_ms, const struct reply *reply)
{
	const struct session_request *req = &creation->request;
	struct supervisor *sup = creation->session->sup;
	scoped_free char *record = record_path(req);
	scoped_free char *hot_list = prefetch_list_path(sup, req);
	const struct opener_request request = {
	    .peer = &creation->peer,
	    .image = req->image_path,
	    .overlays = req->overlays,
	    .nr_overlays = req->nr_overlays,
	    .record = record,
	    .hot_list = hot_list,
	    .timeout_ms = timeout_ms,
	};

	return opener_ask(
	    sup, &request, on_opened, creation, &creation->opening, reply->why, reply->bytes);
}

/* --- What was opened ------------------------------------------------------------- */

/* Says what became of a part, if that is an error. */
static int
pass_on(const struct reply *reply, const struct opener_answer *answer, enum opener_part part)
{
	const struct opener_outcome *outcome = &answer->outcomes[part];

	if (outcome->error >= 0)
		return 0;
	if (part == OPENER_RECORD)
		return recording_refuse(outcome, reply->why, reply->bytes);
	return refuse(reply, outcome->error, "%s", outcome->why);
}

/* Its template may have become another one meanwhile. */
static int
check_template(
    const struct reply *reply, const struct session_request *req, const struct session *session)
{
	struct session_request again = *req;
	int r;

	if (!req->template)
		return 0;
	r = template_fork(session->sup, &again, reply->why, reply->bytes);
	return r < 0 ? r
		     : template_check_image(
			   session->sup, req->template, &session->image, reply->why, reply->bytes);
}

static int
take_files(struct creation *creation, struct opener_answer *answer, const struct reply *reply)
{
	struct session *session = creation->session;
	int r = pass_on(reply, answer, OPENER_IMAGE);

	if (r < 0)
		return r;
	session->image = answer->image;
	session->image.fd = fd_take(&answer->fds[OPENER_IMAGE]);
	r = check_template(reply, &creation->request, session);
	if (r < 0)
		return r;
	session->image_path = xstrdup(creation->request.image_path);
	r = pass_on(reply, answer, OPENER_OVERLAYS);
	if (r == 0 && creation->request.nr_overlays > 0) {
		r = overlays_keep(session, &creation->request, &answer->fds[OPENER_OVERLAYS]);
		if (r < 0)
			refuse(reply, r, "the overlays cannot be kept: %s", strerror(-r));
	}
	if (r < 0)
		return r;
	r = pagemap_create(session->image.bytes, &session->map_fd);
	if (r == 0)
		r = pagemap_map(&session->map, session->map_fd, false);
	if (r < 0)
		return refuse(reply, r, "no page map for an image of %" PRIu64 " bytes: %s",
		    session->image.bytes, strerror(-r));
	return session_socket_open(session, reply->why, reply->bytes);
}

static int
take_record(
    struct creation *creation, const struct opener_answer *answer, const struct reply *reply)
{
	scoped_free char *path = record_path(&creation->request);
	int r = path ? pass_on(reply, answer, OPENER_RECORD) : 0;

	if (r < 0 || !path)
		return r;
	return recording_prepare(
	    creation->session, &creation->peer, path, reply->why, reply->bytes);
}

/* Why the fleet has no worker is in the sentence.  Its errno stays with us: a client
 * would read -ENOENT as a missing image. */
static int
place(const struct reply *reply, struct session *session)
{
	int r = session_place(session, reply->why, reply->bytes);

	return r == 0 || session_lacks_resources(r) ? r : -EAGAIN;
}

static int
finish(struct creation *creation, struct opener_answer *answer, const struct reply *reply)
{
	struct session *session = creation->session;
	int r;

	if (answer->error < 0)
		return refuse(reply, answer->error, "%s", answer->why);
	if (session->sup->stopping != STOP_NOT)
		return refuse(reply, -EAGAIN, "pagerd is stopping");
	r = take_files(creation, answer, reply);
	if (r < 0)
		return r;
	name_session(&creation->request, session);
	r = take_record(creation, answer, reply);
	if (r < 0)
		return r;
	prefetch_prepare(session, &creation->request, &answer->outcomes[OPENER_HOT_LIST],
	    answer->fds[OPENER_HOT_LIST]);
	return place(reply, session);
}

static void
enter(struct session *session)
{
	sessions_insert(&session->sup->sessions, session);
	session_arm_deadline(session);
	(void)fault(FAULT_CREATE_RECORD);
	record_save(session);
	session_log(session, LOG_LEVEL_INFO,
	    "CREATED for uid=%u image=%s bytes=%" PRIu64
	    " on worker v%s; waiting for its VMM at %s",
	    (unsigned int)session->vmm_uid, session->image_path, session->image.bytes,
	    session->version, session->socket_path);
}

/* The session goes with it, unless it was taken out. */
static void
creation_free(struct creation *creation)
{
	struct sessions *sessions = &creation->sup->sessions;

	opener_cancel(creation->opening);
	session_free(creation->session);
	session_request_free(&creation->request);
	list_remove(&creation->link);
	sessions->nr_creations--;
	free(creation);
}

static void
on_opened(void *arg, struct opener_answer *answer)
{
	struct creation *creation = arg;
	session_created_fn done = creation->done;
	void *done_arg = creation->arg;
	struct session *session = creation->session;
	char why[OPENER_WHY_BYTES] = "see pagerd's log";
	const struct reply reply = {why, sizeof(why)};
	int r;

	creation->opening = NULL;
	r = finish(creation, answer, &reply);
	if (r == 0)
		creation->session = NULL;
	creation_free(creation);
	if (r == 0)
		enter(session);
	done(done_arg, r, r == 0 ? session : NULL, why);
}

/* --- Asking ---------------------------------------------------------------------- */

static int
check_room(const struct reply *reply, const struct sessions *sessions)
{
	uint64_t nr = sessions->live + sessions->nr_creations;
	uint64_t max_held = sessions->sup->max_held;

	if (nr >= sessions->sup->options.max_sessions)
		return refuse(reply, -ENOSPC,
		    "%" PRIu64 " sessions are live, which is the limit; raise max-sessions", nr);
	if (max_held != 0 && nr >= max_held)
		return refuse(reply, -EMFILE,
		    "%" PRIu64 " sessions are live, and pagerd may open no more files; raise its "
		    "LimitNOFILE",
		    nr);
	return 0;
}

static int
begin(struct creation *creation, const struct session_order *order, const struct reply *reply)
{
	struct session_request req = *order->request;
	int r = 0;

	if (req.template)
		r = template_fork(creation->sup, &req, reply->why, reply->bytes);
	if (r == 0)
		r = prepare(reply, &creation->peer, &req, creation->session);
	if (r < 0)
		return r;
	session_request_copy(&creation->request, &req);
	return ask(creation, order->open_timeout_ms, reply);
}

int
session_create(struct sessions *sessions, const struct session_order *order, struct creation **ret,
    char *why, size_t why_bytes)
{
	const struct reply reply = {why, why_bytes};
	struct session *session;
	int r = check_room(&reply, sessions);

	*ret = NULL;
	if (r < 0)
		return r;
	session = session_new(sessions);
	if (!session)
		return refuse(&reply, -ENOMEM, "no memory for another session");
	struct creation *creation = xcalloc(1, sizeof(*creation));
	list_init(&creation->link);
	creation->sup = sessions->sup;
	creation->session = session;
	creation->peer = *order->peer;
	creation->done = order->done;
	creation->arg = order->arg;
	r = begin(creation, order, &reply);
	/* Not before: its id is compared with those on the list. */
	list_add(&sessions->creations, &creation->link);
	sessions->nr_creations++;
	if (r < 0) {
		creation_free(creation);
		return r;
	}
	*ret = creation;
	return 0;
}

void
session_create_cancel(struct creation *creation)
{
	if (creation)
		creation_free(creation);
}

void
sessions_cancel_creations(struct sessions *sessions)
{
	while (!list_is_empty(&sessions->creations))
		creation_free(list_entry(sessions->creations.next, struct creation, link));
}
