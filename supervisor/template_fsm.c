/* SPDX-License-Identifier: Apache-2.0 */
/* What may become of a template, and the one function that lets it. */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "supervisor/supervisor.h"
#include "supervisor/template_impl.h"
#include "supervisor/why.h"

/* Forks that a sentence names. */
#define NAMED_FORKS 5U

enum condition { NO_ROW, ALWAYS, UNFORKED, REFUSED };

struct row {
	enum condition condition;
	enum template_state next;
	const char *text; /* of REFUSED */
};

/* clang-format off */
static const struct row rows[TEMPLATE_STATE_COUNT][TEMPLATE_EVENT_COUNT] = {
#define STATE(NAME, word, doc)
#define EVENT(NAME, doc)
#define T(state, event, next, condition) \
	[TEMPLATE_##state][TEMPLATE_EV_##event] = { condition, TEMPLATE_##next, NULL },
#define NO(state, event, text) \
	[TEMPLATE_##state][TEMPLATE_EV_##event] = { REFUSED, TEMPLATE_##state, text },
#include "supervisor/template_fsm.def"
#undef STATE
#undef EVENT
#undef T
#undef NO
};

static const char *const words[TEMPLATE_STATE_COUNT] = {
#define STATE(NAME, word, doc) [TEMPLATE_##NAME] = word,
#define EVENT(NAME, doc)
#define T(state, event, next, condition)
#define NO(state, event, text)
#include "supervisor/template_fsm.def"
#undef STATE
#undef EVENT
};

static const char *const events[TEMPLATE_EVENT_COUNT] = {
#define STATE(NAME, word, doc)
#define EVENT(NAME, doc) [TEMPLATE_EV_##NAME] = #NAME,
#include "supervisor/template_fsm.def"
#undef STATE
#undef EVENT
#undef T
#undef NO
};
/* clang-format on */

const char *
template_state_word(enum template_state state)
{
	return words[state];
}

const char *
template_fsm_refusal(
    enum template_state state, enum template_event event, enum template_state *ret_next)
{
	const struct row *row = &rows[state][event];

	if (ret_next)
		*ret_next = row->next;
	return row->condition == NO_ROW ? "is removed" : row->text;
}

static int
check_forks(
    const struct supervisor *sup, const struct template *template, char *why, size_t why_bytes)
{
	const struct session *forks[NAMED_FORKS];
	size_t n = template_forks(sup, template, forks, NAMED_FORKS);
	char names[NAMED_FORKS * (SESSION_ID_BYTES + 24)] = "";
	size_t used = 0;

	if (n == 0 && sup->recovery.is_running)
		return why_set(why, why_bytes, -EBUSY,
		    "a worker of an earlier pagerd has not told yet what it serves, which may be "
		    "forks of template %s; try again later",
		    template->name);
	if (n == 0)
		return 0;
	for (size_t i = 0; i < n && i < NAMED_FORKS; i++)
		used +=
		    (size_t)snprintf(names + used, sizeof(names) - used, "%s%s%s", i ? ", " : "",
			forks[i]->id, forks[i]->is_unrecorded ? " (which may be one)" : "");
	return why_set(why, why_bytes, -EBUSY,
	    "template %s has %zu live fork%s: %s%s; let them end or graduate first", template->name,
	    n, n == 1 ? "" : "s", names, n > NAMED_FORKS ? ", ..." : "");
}

int
template_may(const struct supervisor *sup, const struct template *template,
    enum template_event event, char *why, size_t why_bytes)
{
	const char *refusal = template_fsm_refusal(template->state, event, NULL);

	if (template->state == TEMPLATE_DAMAGED)
		return why_set(why, why_bytes, -EBADMSG,
		    "template %s %s: %s/templates/%s.json: %s; repair or remove the file, then "
		    "reload pagerd",
		    template->name, refusal, sup->options.state_dir, template->name,
		    template->reason);
	if (refusal)
		return why_set(
		    why, why_bytes, -EOPNOTSUPP, "template %s %s", template->name, refusal);
	if (rows[template->state][event].condition == UNFORKED)
		return check_forks(sup, template, why, why_bytes);
	return 0;
}

/* The record as it would be: what is on disk is never behind what clients were told. */
static int
write_record(const struct supervisor *sup, const struct template *template,
    const struct template *changed, enum template_state next)
{
	struct template image = changed ? *changed : *template;

	if (next == TEMPLATE_REMOVED)
		return template_unlink(sup, template);
	image.state = next;
	return template_save(sup, &image);
}

static void
move_in(struct template *template, struct template *changed)
{
	template_spec_fini(&template->spec);
	template->spec = changed->spec;
	changed->spec = (struct template_spec){0};
	template->image = changed->image;
}

int
template_step(struct supervisor *sup, struct template *template, enum template_event event,
    struct template *changed, char *why, size_t why_bytes)
{
	enum template_state was = template->state, next = rows[was][event].next;
	int r = template_may(sup, template, event, why, why_bytes);

	if (r < 0 || (next == was && !changed))
		return r;
	r = write_record(sup, template, changed, next);
	if (r < 0)
		return why_set(why, why_bytes, r,
		    "the record of template %s cannot be written in %s/templates: %s; nothing has "
		    "changed",
		    template->name, sup->options.state_dir, strerror(-r));
	if (changed)
		move_in(template, changed);
	template->state = next;
	log_notice("template %s: %s -> %s on %s; image=%s", template->name, words[was], words[next],
	    events[event], template->spec.image_path);
	return 0;
}
