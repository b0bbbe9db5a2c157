/* SPDX-License-Identifier: Apache-2.0 */
/* Recordings: the order in which a session's guest touches its pages becomes a hot list.
 *
 * The worker appends pages to a trace (common/trace.h) that is ours too, so its death loses
 * nothing and an adopter goes on.  A recording ends when it has settled (settle.h), when it is
 * full, on request, or with its session; the list then takes the place of the file at its path,
 * in one piece and on behalf of the client that asked for it. */
#ifndef SUPERVISOR_RECORDING_H
#define SUPERVISOR_RECORDING_H

#include <ev.h>
#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/list.h"
#include "common/trace.h"
#include "supervisor/image.h"
#include "supervisor/opener/wire.h"
#include "supervisor/settle.h"

struct saving;
struct session;
struct supervisor;

enum recording_state {
	RECORDING_RUNNING,
	RECORDING_SAVING, /* the list is made and being written */
	RECORDING_SAVED,
	RECORDING_FAILED, /* see reason */
};

/* Of a session: the one that runs, or the last. */
struct recording {
	struct list link; /* recordings.running */
	struct session *session;
	enum recording_state state;
	char *path;	  /* owned; where the list goes */
	struct peer peer; /* on whose behalf */
	int fd;		  /* owned; of the trace; -1: it has ended, or no worker has told yet */
	struct trace trace;
	struct settle settle;
	struct saving *saving; /* while SAVING */
	uint64_t pages;	       /* of the list, once there is one */
	char reason[256];      /* why it ended, or why there is no list */
};

/* Those of all sessions. */
struct recordings {
	struct list running; /* of struct recording.link */
	ev_timer tick;	     /* while there are any: looks whether they have settled */
};

void recordings_init(struct supervisor *sup);
void recordings_fini(struct supervisor *sup);

/* Where the list of a session goes whose client does not say: the caller frees. */
char *recording_default_path(const struct session *session);

/* Makes ready to record the session to path (NULL: the default), where peer may write.  0; -EBUSY one runs; or
 * another negative errno; why gets a sentence.  recording_send() makes it begin. */
int recording_prepare(struct session *session, const struct peer *peer, const char *path, char *why,
    size_t why_bytes);
/* Of a session that is there already: whether it can be recorded now.  0; -EBUSY; -EINVAL;
 * -ENOTSUP its worker cannot; and a sentence. */
int recording_check(const struct session *session, char *why, size_t why_bytes);
/* Both, and begins it. */
int recording_start(struct session *session, const struct peer *peer, const char *path, char *why,
    size_t why_bytes);
/* The sentence for what the opener says of the path; returns its error. */
int recording_refuse(const struct opener_outcome *outcome, char *why, size_t why_bytes);
/* Tells the worker, which was told of the session right before.  Without effect on a session
 * that is not recorded. */
void recording_send(struct session *session);

bool recording_runs(const struct session *session);
/* Ends it, for this reason, and has what there is saved: it is SAVING, or FAILED. */
void recording_stop(struct session *session, const char *reason);
/* No page is recorded any more, and nothing is saved. */
void recording_free(struct session *session);

/* All that there is of the session has been told: a recording that is not among it is lost. */
void recording_settle(struct session *session);

/* What a worker of an earlier supervisor hands over.  0, or -EPROTO. */
int recording_take(struct session *session, int *fd);

/* The session object's member; takes no NULL. */
json_t *recording_json(const struct session *session);
/* Members of the record, and back: groups that are none are left out. */
void recording_put(json_t *json, const struct session *session);
void recording_load(
    struct session *session, const char *path, uint64_t uid, uint64_t gid, const json_t *groups);

#endif
