/* SPDX-License-Identifier: Apache-2.0 */
/* Options that change while pagerd runs: by a reload, and by a request. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "common/scope.h"
#include "supervisor/options_impl.h"
#include "supervisor/why.h"

const char *
options_source_word(enum options_source source)
{
	static const char *const words[] = {
	    [OPTIONS_FROM_DEFAULT] = "default",
	    [OPTIONS_FROM_FILE] = "file",
	    [OPTIONS_FROM_FLAG] = "flag",
	    [OPTIONS_FROM_API] = "api",
	};

	return words[source];
}

void
options_row(size_t index, struct options_row *ret)
{
	const struct option_desc *desc = &option_descs[index];

	*ret = (struct options_row){desc->name, desc->doc,
	    desc->when == WHEN_RELOAD || desc->when == WHEN_FILE, desc->when == WHEN_RELOAD};
}

/* The values of fresh that may change now; fresh gets the old ones. */
static void
take_over(struct options *options, struct options *fresh)
{
	for (size_t i = 0; i < OPTIONS_COUNT; i++) {
		const struct option_desc *desc = &option_descs[i];
		scoped_free char *was = NULL, *is = NULL;

		if (desc->when == WHEN_FLAG)
			continue;
		if (option_is_equal(options, fresh, desc)) {
			options->sources[i] = fresh->sources[i];
			continue;
		}
		was = options_text(options, i);
		is = options_text(fresh, i);
		if (desc->when != WHEN_START) {
			log_notice("option %s: %s -> %s, source=%s; in force now", desc->name, was,
			    is, options_source_word(fresh->sources[i]));
			option_swap(options, fresh, desc);
		} else {
			log_warning(
			    "option %s: %s -> %s, source=%s; takes effect at the next start "
			    "only",
			    desc->name, was, is, options_source_word(fresh->sources[i]));
		}
	}
}

int
options_reload(struct options *options, int argc, char *const argv[], char *why, size_t why_bytes)
{
	struct options fresh;
	enum options_action action;
	int r = options_parse(&fresh, &action, argc, argv, why, why_bytes);

	if (r < 0)
		return r;
	take_over(options, &fresh);
	options_fini(&fresh);
	return 0;
}

/* For an option that is not WHEN_RELOAD. */
static const char *
remedy(const struct option_desc *desc)
{
	if (desc->when == WHEN_FLAG)
		return "it is a flag of the command line only";
	return desc->when == WHEN_FILE ? "set it in the configuration file and reload"
				       : "set it in the configuration file and restart";
}

static int
change(struct options *fresh, const struct options_change *changes, size_t n, char *why,
    size_t why_bytes)
{
	struct option_reader reader = {.source = OPTIONS_FROM_API};
	int r = 0;

	for (size_t i = 0; i < n && r == 0; i++) {
		const char *name = changes[i].name;
		const struct option_desc *desc = option_find(name, strlen(name));

		if (desc == NULL)
			return why_set(
			    why, why_bytes, -ENOENT, "there is no option \"%.64s\"", name);
		if (desc->when != WHEN_RELOAD)
			return why_set(why, why_bytes, -EPERM,
			    "option \"%s\" cannot be changed like this: %s", name, remedy(desc));
		r = option_apply(fresh, desc, changes[i].value, &reader, why, why_bytes);
	}
	return r == 0 ? options_check(fresh, why, why_bytes) : r;
}

int
options_change(struct options *options, const struct options_change *changes, size_t n, char *why,
    size_t why_bytes)
{
	struct options fresh = {0};
	int r;

	for (size_t i = 0; i < OPTIONS_COUNT; i++)
		option_copy(&fresh, options, &option_descs[i]);
	r = change(&fresh, changes, n, why, why_bytes);
	if (r == 0)
		take_over(options, &fresh);
	options_fini(&fresh);
	return r;
}
