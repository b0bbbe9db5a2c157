/* SPDX-License-Identifier: Apache-2.0 */
/* A request becomes a session: checked, opened, bound, handed over, or undone. */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/random.h>
#include <unistd.h>

#include "common/fault.h"
#include "supervisor/child.h"
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

static int
choose_id(const struct reply *reply, const struct session_request *req, struct session *session)
{
	const char *id = req->id ? req->id : req->instance;

	if (!id) {
		generate_id(session);
		return 0;
	}
	const struct session *other = session_find(&session->sup->sessions, id);
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

static int
open_files(const struct reply *reply, const struct peer *peer, const struct session_request *req,
    struct session *session)
{
	int r = image_open(
	    session->sup, peer, req->image_path, &session->image, reply->why, reply->bytes);

	if (r == 0 && req->template)
		r = template_check_image(
		    session->sup, req->template, &session->image, reply->why, reply->bytes);
	if (r < 0)
		return r;
	session->image_path = strdup(req->image_path);
	if (!session->image_path)
		return refuse(reply, -ENOMEM, "no memory for another session");
	r = overlays_open(session, peer, req, reply->why, reply->bytes);
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

/* Why the fleet has no worker is in the sentence.  Its errno stays with us: a client
 * would read -ENOENT as a missing image. */
static int
place(const struct reply *reply, struct session *session)
{
	int r = session_place(session, reply->why, reply->bytes);

	return r == 0 || session_lacks_resources(r) ? r : -EAGAIN;
}

static int
set_up(const struct reply *reply, const struct peer *peer, const struct session_request *asked,
    struct session *session)
{
	struct session_request req = *asked;
	int r = 0;

	if (req.template)
		r = template_fork(session->sup, &req, reply->why, reply->bytes);
	if (r == 0)
		r = prepare(reply, peer, &req, session);
	if (r == 0)
		r = open_files(reply, peer, &req, session);
	if (r == 0) {
		name_session(&req, session);
		if (req.record)
			r = recording_prepare(
			    session, peer, req.record_path, reply->why, reply->bytes);
	}
	if (r == 0) {
		prefetch_prepare(session, peer, &req);
		r = place(reply, session);
	}
	return r;
}

int
session_create(struct sessions *sessions, const struct peer *peer,
    const struct session_request *req, struct session **ret, char *why, size_t why_bytes)
{
	const struct reply reply = {why, why_bytes};

	if (sessions->live >= sessions->sup->options.max_sessions)
		return refuse(&reply, -ENOSPC,
		    "%" PRIu64 " sessions are live, which is the limit; raise max-sessions",
		    sessions->live);
	uint64_t max_held = sessions->sup->max_held;
	if (max_held != 0 && sessions->live >= max_held)
		return refuse(&reply, -EMFILE,
		    "%" PRIu64 " sessions are live, and pagerd may open no more files; raise its "
		    "LimitNOFILE",
		    sessions->live);
	struct session *session = session_new(sessions);
	if (!session)
		return refuse(&reply, -ENOMEM, "no memory for another session");
	int r = set_up(&reply, peer, req, session);
	if (r < 0) {
		session_free(session);
		return r;
	}
	list_add(&sessions->all, &session->link);
	sessions->live++;
	session_arm_deadline(session);
	(void)fault(FAULT_CREATE_RECORD);
	record_save(session);
	session_log(session, LOG_LEVEL_INFO,
	    "CREATED for uid=%u image=%s bytes=%" PRIu64
	    " on worker v%s; waiting for its VMM at %s",
	    (unsigned int)session->vmm_uid, session->image_path, session->image.bytes,
	    session->version, session->socket_path);
	*ret = session;
	return 0;
}
