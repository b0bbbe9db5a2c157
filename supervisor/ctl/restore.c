/* SPDX-License-Identifier: Apache-2.0 */
/* The session of a restore: made, loaded from, served.
 *
 * The load is answered when the VMM has all it needs, which it may wait for in vain: so pagerd
 * is asked at the same time, and knows at once when a handshake was refused. */
#include "supervisor/ctl/restore.h"

#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/scope.h"
#include "common/xalloc.h"

#define RETRY_MS     UINT64_C(50)
#define BEYOND_MS    UINT64_C(1000) /* pagerd waits longer than we, who know more about it */
#define MAX_LIMIT_MS (UINT64_C(3600) * 1000) /* of handshake_timeout_ms */

enum exitcode
restore_fail(struct restore *r, enum exitcode code, const char *fmt, ...)
{
	va_list ap;

	r->failed_step = steps_name(&r->steps);
	va_start(ap, fmt);
	vsnprintf(r->why, sizeof(r->why), fmt, ap);
	va_end(ap);
	steps_end(&r->steps, STEP_FAILED, "%s", r->why);
	return code;
}

/* --- The session ------------------------------------------------------------------- */

static enum exitcode
fail_silent(struct restore *r, int error)
{
	if (error == -ETIMEDOUT)
		return restore_fail(r, EXITCODE_TIMEOUT, "pagerd had not answered in time");
	if (error == -EINTR)
		return restore_fail(r, EXITCODE_FAILED, "it was interrupted");
	return restore_fail(r, EXITCODE_UNREACHABLE, "pagerd does not answer on %s: %s",
	    r->ctl->socket_path, strerror(-error));
}

static const char *
error_of(const struct answer *answer)
{
	const char *error = ctl_text(answer->json, "error");

	return *error ? error : "pagerd refused without a reason";
}

/* Whose VMM it is: only root may name another user than its own.  A session that is never
 * connected to, because the answer was lost, ends by itself soon after our time. */
static void
complete_body(struct restore *r)
{
	uint64_t left_ms = exchange_left_ms(r->deadline_ns) + BEYOND_MS;
	bool names = geteuid() == 0;

	json_object_set_new(r->create, "handshake_timeout_ms",
	    json_integer((json_int_t)(left_ms < MAX_LIMIT_MS ? left_ms : MAX_LIMIT_MS)));
	if (names && !json_object_get(r->create, "vmm_uid"))
		json_object_set_new(r->create, "vmm_uid", json_integer((json_int_t)r->fc.peer.uid));
	if (names && !json_object_get(r->create, "vmm_gid"))
		json_object_set_new(r->create, "vmm_gid", json_integer((json_int_t)r->fc.peer.gid));
}

static enum exitcode
create(struct restore *r)
{
	const struct exchange post = {
	    r->ctl->socket_path, "POST", "/sessions", r->create, r->deadline_ns};
	scoped_answer struct answer answer = {0};

	complete_body(r);
	steps_begin(&r->steps, "session", "creating it");
	exchange_run(&post, &answer);
	if (answer.status < 0)
		return fail_silent(r, answer.status);
	if (answer.status >= 300)
		return restore_fail(r, ctl_exitcode(answer.status), "%s", error_of(&answer));
	if (!r->image && *ctl_text(answer.json, "image"))
		r->image = xstrdup(ctl_text(answer.json, "image"));
	if (strcmp(ctl_text(answer.json, "backend"), "file") == 0)
		return restore_fail(r, EXITCODE_CONFLICT, "pagerd is switched to the file backend");
	if (!*ctl_text(answer.json, "id") || !*ctl_text(answer.json, "socket_path"))
		return restore_fail(r, EXITCODE_UNREACHABLE, "what answers on %s is not pagerd",
		    r->ctl->socket_path);
	r->id = xstrdup(ctl_text(answer.json, "id"));
	r->version = xstrdup(ctl_text(answer.json, "version"));
	r->socket_path = xstrdup(ctl_text(answer.json, "socket_path"));
	r->no_hot_list = ctl_no_hot_list(answer.json);
	steps_end(&r->steps, STEP_DONE, "session %s on %s%s%s", r->id, r->version,
	    r->no_hot_list ? "; " : "", r->no_hot_list ? r->no_hot_list : "");
	return EXITCODE_OK;
}

/* --- Load and serve ---------------------------------------------------------------- */

enum { LOAD, SERVE, NR_CLIENTS };

struct loading {
	struct restore *r;
	struct exchange serve;
	struct client *clients[NR_CLIENTS]; /* owned; NULL once their answer is known */
	uint64_t ask_ns;		    /* when pagerd may be asked again */
	bool loaded, serving;
};

/* pagerd may be restarted under us, and comes back with the session: it is asked again. */
static void
ask_again(struct loading *l)
{
	uint64_t now_ns = clock_now_ns();

	if (l->serving || l->clients[SERVE] || now_ns < l->ask_ns)
		return;
	l->ask_ns = now_ns + RETRY_MS * NS_PER_MS;
	if (exchange_start(&l->serve, &l->clients[SERVE]) < 0)
		l->clients[SERVE] = NULL;
}

static enum exitcode
take_loaded(struct loading *l)
{
	struct restore *r = l->r;
	scoped_answer struct answer answer = {0};
	enum exitcode code;

	exchange_end(l->clients[LOAD], &answer);
	client_freep(&l->clients[LOAD]);
	code = fc_conclude(&r->fc, &answer);
	if (code != EXITCODE_OK)
		return restore_fail(r, code, "%s", r->fc.why);
	l->loaded = true;
	steps_end(&r->steps, STEP_DONE, "Firecracker has loaded the snapshot");
	steps_begin(&r->steps, "serve", "waiting until pagerd serves it");
	return code;
}

/* A VMM that exits after a load that failed ends its session: what it said is the cause. */
static enum exitcode
fail_ended(struct loading *l, const struct answer *ended)
{
	struct client **load = &l->clients[LOAD];
	scoped_answer struct answer answer = {0};
	enum exitcode code;

	if (*load && client_run(load, 1, 0) == 0 && client_is_done(*load)) {
		exchange_end(*load, &answer);
		code = fc_conclude(&l->r->fc, &answer);
		if (code != EXITCODE_OK)
			return restore_fail(l->r, code, "%s; %s", l->r->fc.why, error_of(ended));
	}
	return restore_fail(l->r, ctl_exitcode(ended->status), "%s", error_of(ended));
}

static enum exitcode
take_serving(struct loading *l)
{
	scoped_answer struct answer answer = {0};

	exchange_end(l->clients[SERVE], &answer);
	client_freep(&l->clients[SERVE]);
	if (answer.status < 0)
		return EXITCODE_OK; /* to be asked again */
	if (answer.status >= 300)
		return fail_ended(l, &answer);
	l->serving = true;
	return EXITCODE_OK;
}

static enum exitcode
too_late(struct loading *l)
{
	return restore_fail(l->r, EXITCODE_TIMEOUT, "%s",
	    l->loaded	     ? "the session was not served in time"
		: l->serving ? "Firecracker had not loaded the snapshot in time"
			     : "Firecracker had neither loaded the snapshot in time nor connected "
			       "to the session");
}

/* Waits for one of the two, but not beyond the time when pagerd is to be asked. */
static enum exitcode
wait_for_either(struct loading *l)
{
	uint64_t until_ns = l->r->deadline_ns;
	int e;

	if (!l->serving && !l->clients[SERVE] && l->ask_ns < until_ns)
		until_ns = l->ask_ns;
	e = exchange_turn(l->clients, NR_CLIENTS, until_ns);
	if (e == -ETIMEDOUT && until_ns == l->r->deadline_ns)
		return too_late(l);
	if (e < 0 && e != -ETIMEDOUT)
		return restore_fail(
		    l->r, EXITCODE_FAILED, "%s", e == -EINTR ? "it was interrupted" : strerror(-e));
	return EXITCODE_OK;
}

static enum exitcode
turn(struct loading *l)
{
	enum exitcode code;

	ask_again(l);
	code = wait_for_either(l);
	if (code != EXITCODE_OK)
		return code;
	/* What pagerd has to say of a refused handshake is more than what Firecracker knows. */
	if (l->clients[SERVE] && client_is_done(l->clients[SERVE]))
		code = take_serving(l);
	if (code != EXITCODE_OK)
		return code;
	if (l->clients[LOAD] && client_is_done(l->clients[LOAD]))
		return take_loaded(l);
	return EXITCODE_OK;
}

static enum exitcode
load_and_serve(struct loading *l, const struct exchange *load)
{
	enum exitcode code = EXITCODE_OK;
	int e;

	steps_begin(&l->r->steps, "load", "Firecracker loads the snapshot");
	if (!load->body)
		return restore_fail(l->r, EXITCODE_USAGE, "a path is not UTF-8");
	e = exchange_start(load, &l->clients[LOAD]);
	if (e < 0) {
		const struct answer answer = {.status = e};

		code = fc_conclude(&l->r->fc, &answer);
		return restore_fail(l->r, code, "%s", l->r->fc.why);
	}
	while (code == EXITCODE_OK && !(l->loaded && l->serving))
		code = turn(l);
	if (code == EXITCODE_OK)
		steps_end(&l->r->steps, STEP_DONE, "pagerd serves it");
	return code;
}

enum exitcode
restore_session(struct restore *r)
{
	struct loading l = {.r = r};
	scoped_free char *snapshot = NULL, *socket = NULL, *query = NULL, *target = NULL;
	json_t *body;
	enum exitcode code = create(r);

	if (code != EXITCODE_OK)
		return code;
	snapshot = fc_path(r->ctl->flags.snapshot, r->ctl->flags.jail);
	socket = fc_path(r->socket_path, r->ctl->flags.jail);
	body = fc_load_body(snapshot, "Uffd", socket, r->extra);
	query = xasprintf(
	    "?wait=serving&timeout=%" PRIu64 "ms", exchange_left_ms(r->deadline_ns) + BEYOND_MS);
	target = ctl_session_target(r->id, query);
	l.serve = (struct exchange){r->ctl->socket_path, "GET", target, NULL, r->deadline_ns};
	code = load_and_serve(&l,
	    &(const struct exchange){
		r->fc.socket_path, "PUT", "/snapshot/load", body, r->deadline_ns});
	json_decref(body);
	for (size_t i = 0; i < NR_CLIENTS; i++)
		client_free(l.clients[i]);
	return code;
}
