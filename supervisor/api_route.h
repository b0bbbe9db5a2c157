/* SPDX-License-Identifier: Apache-2.0 */
/* Routes, permissions and the parts that handlers share.  Private to api*.c and
 * their tests. */
#ifndef SUPERVISOR_API_ROUTE_H
#define SUPERVISOR_API_ROUTE_H

#include <ev.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/list.h"
#include "supervisor/http.h"
#include "supervisor/json.h"
#include "supervisor/session.h"

#define API_WHY_BYTES 512

struct supervisor;

struct api {
	struct supervisor *sup;
	bool has_admin_gid;
	gid_t admin_gid;
	struct list waits;	 /* of struct api_wait.link */
	struct list event_waits; /* of struct events_wait.link */
	struct list dead;	 /* of anything that begins with its struct list; freed by sweep */
	ev_prepare sweep;
};

struct control;

struct api_call {
	struct api *api;
	struct control *control; /* the version's socket that it came by; NULL: admin.sock */
	struct supervisor *sup;
	struct http_request *req;
	char id[SESSION_ID_BYTES]; /* what {…} stands for */
};

enum api_permission { API_OBSERVE, API_CONTROL };

struct api_route {
	const char *method;
	const char *pattern;
	enum api_permission permission;
	void (*handler)(struct api_call *call);
	const char *keys; /* of the query, with spaces between */
	const char *doc;
};

#define ROUTE(method, pattern, permission, handler, keys, doc) \
	void api_##handler(struct api_call *call);
#include "supervisor/api.def"
#undef ROUTE

extern const struct api_route api_routes[];
extern const size_t api_nr_routes;

struct api_table {
	const struct api_route *routes;
	size_t nr;
};

enum api_match {
	API_MATCHED,
	API_NO_ROUTE,
	API_NO_METHOD, /* allow gets the value of the Allow header */
	API_BAD_ID,    /* broken percent-encoding, or longer than an id can be */
};

struct api_found {
	const struct api_route *route;
	char id[SESSION_ID_BYTES]; /* empty for a pattern without one */
	char allow[128];
};

/* Finds the row for a request. */
enum api_match api_table_find(
    const struct api_table *table, const char *method, const char *path, struct api_found *ret);

/* Every key of the query is on the list and there once: 0, or -EINVAL and why. */
int api_query_check(const char *query, const char *keys, char *why, size_t why_bytes);

/* A duration from the query: *ret is left alone when the key is not there.  -EINVAL
 * and why when it is no duration from 0 to an hour. */
int api_query_ms(
    const struct http_request *req, const char *key, uint64_t *ret, char *why, size_t why_bytes);

/* "1" or "0" from the query: *ret is left alone when the key is not there.  -EINVAL and
 * why when it is neither. */
int api_query_flag(
    const struct http_request *req, const char *key, bool *ret, char *why, size_t why_bytes);

bool api_is_permitted(
    const struct api *api, const struct peer *peer, enum api_permission permission);
/* gid is the peer's own or one of its groups. */
bool api_peer_in_group(const struct peer *peer, gid_t gid);

/* Takes the JSON. */
void api_reply(struct http_request *req, int status, json_t *json);
/* The sentence names the thing and the remedy; code is a word for programs. */
void api_error(struct http_request *req, int status, const char *code, const char *fmt, ...)
    __attribute__((format(printf, 4, 5)));

/* What an errno becomes; a table ends with the row of error 0, for every other one. */
struct api_refusal {
	int error; /* positive */
	int status;
	const char *code;
};
/* error is negative.  A 503 says when to try again. */
void api_refuse(
    struct http_request *req, const struct api_refusal *table, int error, const char *why);

/* Reads the body's members into *ret (see json.h).  The caller owns the JSON, which
 * the texts in *ret point into.  NULL: the error has been answered. */
json_t *api_read_body(
    const struct api_call *call, const struct json_member *members, size_t nr_members, void *ret);

/* Binds and listens: path is of mode 0660 and of the group admin-group, and nobody can
 * connect before it is.  What is at path is removed.  0 or a negative errno. */
int api_bind(const struct api *api, const char *path, int *ret_fd);

/* Frees link's object, whose first member it is, at the end of the loop turn. */
void api_bury(struct api *api, struct list *link);

/* The body of POST /sessions. */
struct api_create {
	struct session_request session;
	const json_t *list;   /* of overlays; NULL: not given */
	const json_t *record; /* NULL: not given */
	const char *prefetch; /* NULL: not given */
	struct overlay_request overlays[OVERLAY_MAX];
	uint64_t vmm_uid, vmm_gid; /* UINT64_MAX: not given */
};

/* Fills *ret, which must stay where it is, from the JSON, whose texts it borrows.  0, or
 * -EINVAL and why. */
int api_create_read(const json_t *json, struct api_create *ret, char *why, size_t why_bytes);

/* "record" of a request: true, false, or an object with a path.  0, or -EINVAL and why. */
int api_record_read(
    const json_t *json, bool *ret, const char **ret_path, char *why, size_t why_bytes);

struct handoff_result;
/* How many sessions were moved, and why others were not. */
void api_handoff_put(json_t *json, const struct handoff_result *result);

/* The session of the path, or NULL and a 404. */
struct session *api_find_session(struct api_call *call);

/* Answers POST /sessions with an error of session_create(). */
void api_refuse_create(struct api_call *call, int error, const char *why);

/* POST /sessions while the backend is the file: what the client is to map, answered later. */
int api_backend_file(
    struct api_call *call, const struct session_request *req, char *why, size_t why_bytes);

/* Counters by name. */
json_t *api_counters_json(const uint64_t counters[COUNTER_COUNT]);
/* The session object. */
json_t *api_session_json(const struct session *session);
/* The same with the pages as they were counted last: see session_refresh_counts(). */
json_t *api_session_json_listed(const struct session *session);
/* The members of its progress, rate and eta being those of its completion. */
void api_progress_put(
    json_t *json, const struct session *session, const struct pagemap_counts *counts);

#endif
