/* SPDX-License-Identifier: Apache-2.0 */
/* Between the files of the templates; for nobody else. */
#ifndef SUPERVISOR_TEMPLATE_IMPL_H
#define SUPERVISOR_TEMPLATE_IMPL_H

#include "supervisor/template.h"

struct templates {
	int dir;       /* owned; STATE-DIR/templates; -1: not at hand */
	int lock;      /* owned; held while this pagerd owns the directory */
	char why[512]; /* why not */
	size_t nr;
	struct template *all[TEMPLATE_MAX]; /* each owned; sorted by name */
};

/* template.c */

/* In no list; the caller frees. */
struct template *template_new(const char *name);
void template_free(struct template *template);
void template_spec_fini(struct template_spec *spec);
/* Its place, or the place where it would be and false. */
bool templates_search(const struct templates *templates, const char *name, size_t *ret_at);
/* There is room for it. */
void templates_insert(struct templates *templates, struct template *template);
void templates_remove(struct templates *templates, const char *name);

/* template_fsm.c */

/* Whether the event is allowed now: 0, or -EOPNOTSUPP, -EBADMSG or -EBUSY and a sentence. */
int template_may(const struct supervisor *sup, const struct template *template,
    enum template_event event, char *why, size_t why_bytes);
/* Takes the transition, which is logged, once its record is written.  With changed, that is
 * what becomes of it: its name and state stay, the rest is moved in. */
int template_step(struct supervisor *sup, struct template *template, enum template_event event,
    struct template *changed, char *why, size_t why_bytes);
/* The row of a pair: NULL for one that is allowed, or the sentence; next may be NULL. */
const char *template_fsm_refusal(
    enum template_state state, enum template_event event, enum template_state *ret_next);

/* template_record.c: pure. */

/* The text of a record; the caller frees; NULL without memory. */
char *template_encode(const struct template *template);
/* Fills *ret, which is zeroed and whose strings the caller then owns, from the record of that
 * name.  0, or -EINVAL and what is wrong; then nothing is owned. */
int template_decode(const char *text, size_t bytes, const char *name, struct template *ret,
    char *why, size_t why_bytes);

/* template_store.c */

int template_save(const struct supervisor *sup, const struct template *template);
int template_unlink(const struct supervisor *sup, const struct template *template);

#endif
