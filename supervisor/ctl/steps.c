/* SPDX-License-Identifier: Apache-2.0 */
#include "supervisor/ctl/steps.h"

#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/scope.h"
#include "common/xalloc.h"
#include "supervisor/ctl/text.h"

#define NAME_COLUMNS 12
#define TIME_COLUMNS 9

static const char *const words[] = {
    [STEP_DONE] = "done",
    [STEP_SKIPPED] = "skipped",
    [STEP_FAILED] = "failed",
};

static const char *const escapes[] = {
    [STEP_DONE] = "\033[32m",
    [STEP_SKIPPED] = "\033[33m",
    [STEP_FAILED] = "\033[31m",
};

void
steps_init(struct steps *steps, const struct ctl *ctl)
{
	*steps = (struct steps){
	    .ctl = ctl,
	    .terminal = isatty(STDERR_FILENO) && !ctl->json,
	    .started_ns = clock_now_ns(),
	};
}

void
steps_fini(struct steps *steps)
{
	for (size_t i = 0; i < steps->nr; i++)
		free(steps->list[i].detail);
	steps->nr = 0;
}

const char *
steps_name(const struct steps *steps)
{
	return steps->list[steps->nr < STEPS_MAX ? steps->nr : STEPS_MAX - 1].name;
}

uint64_t
steps_nanos(const struct steps *steps)
{
	return clock_now_ns() - steps->started_ns;
}

void
steps_begin(struct steps *steps, const char *name, const char *waits_for)
{
	if (steps->nr < STEPS_MAX)
		steps->list[steps->nr].name = name;
	steps->step_started_ns = clock_now_ns();
	if (!steps->terminal)
		return;
	fprintf(stderr, "\r%-*s %s ...\033[K", NAME_COLUMNS, name, waits_for);
	fflush(stderr);
}

static void
show(const struct steps *steps, const struct step *step)
{
	char time[TEXT_BYTES];
	const char *escape = steps->ctl->colour ? escapes[step->outcome] : "";

	fprintf(stderr, "\r%-*s %s%-7s%s %*s  %s\033[K\n", NAME_COLUMNS, step->name, escape,
	    words[step->outcome], *escape ? "\033[0m" : "", TIME_COLUMNS,
	    text_nanos(time, step->nanos), step->detail);
}

void
steps_end(struct steps *steps, enum step_outcome outcome, const char *fmt, ...)
{
	struct step *step = &steps->list[steps->nr];
	char text[1024];
	va_list ap;

	if (steps->nr == STEPS_MAX)
		return;
	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	text_make_printable(text);
	step->outcome = outcome;
	step->nanos = clock_now_ns() - steps->step_started_ns;
	step->detail = xstrdup(text);
	steps->nr++;
	if (steps->terminal)
		show(steps, step);
}

json_t *
steps_text(const char *text)
{
	json_t *json = json_string(text);
	scoped_free char *ascii = json ? NULL : xstrdup(text);

	if (json)
		return json;
	for (char *p = ascii; *p; p++)
		if ((unsigned char)*p >= 0x80)
			*p = '?';
	return json_string(ascii);
}

json_t *
steps_json(const struct steps *steps)
{
	json_t *list = json_array();

	for (size_t i = 0; i < steps->nr; i++) {
		const struct step *step = &steps->list[i];

		json_array_append_new(list,
		    json_pack("{s:s, s:s, s:I, s:o}", "step", step->name, "outcome",
			words[step->outcome], "nanos", (json_int_t)step->nanos, "detail",
			steps_text(step->detail)));
	}
	return list;
}
