/* SPDX-License-Identifier: Apache-2.0 */
/* A restore under way, which cmd_restore.c drives; restore.c is what concerns its session. */
#ifndef SUPERVISOR_CTL_RESTORE_H
#define SUPERVISOR_CTL_RESTORE_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#include "supervisor/ctl/ctl.h"
#include "supervisor/ctl/firecracker.h"
#include "supervisor/ctl/steps.h"

struct restore {
	const struct ctl *ctl;
	struct steps steps;
	struct fc fc;
	json_t *create;			  /* owned: the body of POST /sessions */
	json_t *extra;			  /* owned: what --load adds, NULL for nothing */
	uint64_t timeout_ms;		  /* of a backend: the fallback has it anew */
	uint64_t deadline_ns;		  /* of the backend that is tried */
	const char *backend;		  /* "uffd" or "file" */
	char *id, *version, *socket_path; /* owned: the session's; NULL before there is one */
	char *image;			  /* owned; NULL while only pagerd knows the template's */
	char *no_hot_list;		  /* owned; why it is not replayed, NULL when it is */
	bool closed;			  /* the session, after a failure */
	const char *failed_step;	  /* which, and why */
	char why[1024];
	char fallback_from[1200]; /* why the file backend is used, "" when it is not */
};

/* Ends the step that was begun, as failed, and keeps why for the end.  Returns code. */
enum exitcode restore_fail(struct restore *r, enum exitcode code, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));
/* Makes the session, has Firecracker load the snapshot from it and waits until it is served. */
enum exitcode restore_session(struct restore *r);

#endif
