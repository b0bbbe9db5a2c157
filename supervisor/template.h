/* SPDX-License-Identifier: Apache-2.0 */
/* Templates: images that many sessions are made of, under a name that outlives a reboot.
 *
 * A template keeps who its image is, and what sessions of it have in common.  Its forks are
 * the live sessions that were made of it: they are counted whenever the number matters and
 * never kept in a counter.  A live session of which nobody knows what it was made of counts
 * for every template of the same image; a template whose record cannot be read is refused
 * for everything.  Each is a name of one file, STATE-DIR/templates/NAME.json.
 *
 * template_step() is the only writer of state.  Strings and templates that are handed out
 * are borrowed until the next call that changes something. */
#ifndef SUPERVISOR_TEMPLATE_H
#define SUPERVISOR_TEMPLATE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "supervisor/session.h"

struct supervisor;

#define TEMPLATE_MAX		1024U /* templates; a name each and a file */
#define TEMPLATE_MAX_PATH_BYTES 4096U /* with the terminator */

enum template_state {
#define STATE(NAME, word, doc) TEMPLATE_##NAME,
#define EVENT(NAME, doc)
#define T(state, event, next, condition)
#define NO(state, event, text)
#include "supervisor/template_fsm.def"
#undef STATE
	TEMPLATE_STATE_COUNT
};

enum template_event {
#define STATE(NAME, word, doc)
#undef EVENT
#define EVENT(NAME, doc) TEMPLATE_EV_##NAME,
#include "supervisor/template_fsm.def"
#undef STATE
#undef EVENT
#undef T
#undef NO
	TEMPLATE_EVENT_COUNT
};

/* What a client asks for.  Strings are borrowed for the call. */
struct template_request {
	const char *image_path;
	const char *cache_key;	     /* NULL: the image's identity */
	const char *hot_list;	     /* absolute path; NULL: the one beside the image */
	enum prefetch_mode prefetch; /* of forks that do not say */
};

/* What sessions of it have in common. */
struct template_spec {
	char *image_path, *cache_key, *hot_list; /* owned; the last two may be NULL, as above */
	enum prefetch_mode prefetch;
};

/* Who its image was when it was registered.  Not the device: its number may be another
 * after a reboot. */
struct template_image {
	uint64_t bytes, ino;
	int64_t mtime_ns;
};

struct template
{
	char name[TEMPLATE_NAME_BYTES];
	enum template_state state;
	struct template_spec spec; /* its strings are owned; nothing in it while DAMAGED */
	struct template_image image;
	char reason[256]; /* while DAMAGED: what is wrong with its record */
};

struct templates; /* NULL: none can be kept here; see templates_why() */

/* Reads the templates of options.state_dir.  What cannot be read is logged and refused
 * later: sessions need no templates. */
void templates_open(struct supervisor *sup);
void templates_close(struct supervisor *sup);
/* Looks again at what could not be read. */
void templates_reload(struct supervisor *sup);

/* In the order of their names; *ret_nr of them.  NULL and a sentence: see templates. */
struct template *const *templates_all(
    const struct supervisor *sup, size_t *ret_nr, char *why, size_t why_bytes);
/* 1 to 64 letters, digits, dots, underscores and minuses; no dot in front. */
bool template_name_is_valid(const char *name);
const char *template_state_word(enum template_state state);

/* Of each of these: 0, or a negative errno and a sentence:
 *	-EINVAL		the name, or what the template is to be
 *	-ENOENT		there is no template of that name (or -E… of image_open())
 *	-EOPNOTSUPP	not in its state
 *	-EBUSY		it has forks, which the sentence names
 *	-EBADMSG	its record cannot be read
 *	-ESTALE		its image is not the one that was registered
 *	-ENOSPC		there are too many
 *	-ENODEV		the directory of the records is not at hand
 *	others		the record could not be written; nothing has changed */
int template_find(const struct supervisor *sup, const char *name, const struct template **ret,
    char *why, size_t why_bytes);
/* Whether one may be asked for, whatever its image. */
int template_check(const struct supervisor *sup, const char *name,
    const struct template_request *req, char *why, size_t why_bytes);
/* Makes or changes one; image is what was opened as its client.  *ret_made: there was none
 * before.  Asking for what is there already is always allowed. */
int template_put(struct supervisor *sup, const char *name, const struct template_request *req,
    const struct image *image, bool *ret_made, char *why, size_t why_bytes);
/* PROMOTE, DEMOTE or DELETE.  *ret_state is the state that it has now. */
int template_do(struct supervisor *sup, const char *name, enum template_event event,
    enum template_state *ret_state, char *why, size_t why_bytes);

/* Makes the request, which names a template, one of its image. */
int template_fork(
    const struct supervisor *sup, struct session_request *req, char *why, size_t why_bytes);
/* Where the hot list of a session's template is, or NULL. */
const char *template_hot_list(const struct session *session);
/* The image that was opened for a fork is the template's. */
int template_check_image(const struct supervisor *sup, const char *name, const struct image *image,
    char *why, size_t why_bytes);

/* How many forks each of templates_all() has: one number each in ret. */
void templates_count_forks(const struct supervisor *sup, size_t *ret);
/* Live sessions that are, or may be, forks of it: the first max of them in ret, which may be
 * NULL with max 0.  Returns how many there are. */
size_t template_forks(const struct supervisor *sup, const struct template *template,
    const struct session **ret, size_t max);

#endif
