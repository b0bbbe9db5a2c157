/* SPDX-License-Identifier: Apache-2.0 */
/* What people read of the options: --help, --dump-config and the manual page. */
#include "supervisor/options.h"

#include <ctype.h>
#include <inttypes.h>
#include <string.h>

#include "version_gen.h"

#define DEFAULT_WORKER_DIR PROJECT_LIBEXECDIR "/pagerd/workers"
#define TEXT_COLUMNS	   78

enum option_when { WHEN_START, WHEN_RELOAD, WHEN_FLAG };

static const struct {
	const char *name;
	const char *metavar; /* "" : takes no value */
	const char *def;
	enum option_when when;
	const char *doc;
} rows[] = {
/* clang-format off */
#define OPTION(member, name, type, def, min, max, when, metavar, doc) \
	{ name, metavar, def, WHEN_##when, doc },
#define ACTION(NAME, name, doc) { name, "", "", WHEN_FLAG, doc },
#include "supervisor/options.def"
#undef OPTION
#undef ACTION
    /* clang-format on */
};

#define NR_ROWS (sizeof(rows) / sizeof(rows[0]))

/* Words of text, each line behind lead and no longer than TEXT_COLUMNS. */
static void
print_wrapped(FILE *out, const char *lead, const char *text)
{
	size_t column = 0;

	while (*text != '\0') {
		size_t word = strcspn(text, " ");

		if (word > 0 && column > 0 && column + 1 + word > TEXT_COLUMNS) {
			fputc('\n', out);
			column = 0;
		}
		if (word > 0) {
			fprintf(out, "%s%.*s", column == 0 ? lead : " ", (int)word, text);
			column += word + (column == 0 ? strlen(lead) : 1);
		}
		text += word;
		text += strspn(text, " ");
	}
	fputc('\n', out);
}

void
options_print_help(FILE *out)
{
	fprintf(out,
	    "usage: pagerd [option...]\n\n"
	    "Serves the memory of virtual machines that were restored from a snapshot.\n"
	    "Each option is also a key of the configuration file, except where it says\n"
	    "so; see pagerd(8).\n\n");
	for (size_t i = 0; i < NR_ROWS; i++) {
		bool is_key = rows[i].when != WHEN_FLAG;

		fprintf(out, "  --%s%s%s", rows[i].name, rows[i].metavar[0] != '\0' ? " " : "",
		    rows[i].metavar);
		if (is_key && rows[i].def[0] != '\0')
			fprintf(out, "  (default: %s)", rows[i].def);
		fprintf(out, "%s\n",
		    !is_key && rows[i].metavar[0] != '\0' ? "  (command line only)" : "");
		print_wrapped(out, "        ", rows[i].doc);
	}
}

static void
dump_STRING(FILE *out, const char *name, const char *const *value)
{
	fprintf(out, "%s%s = %s\n", (*value)[0] == '\0' ? "# " : "", name, *value);
}

static void
dump_LIST(FILE *out, const char *name, const struct options_list *value)
{
	for (size_t i = 0; i < value->nr; i++)
		fprintf(out, "%s = %s\n", name, value->items[i]);
}

static void
dump_COUNT(FILE *out, const char *name, const uint64_t *value)
{
	fprintf(out, "%s = %" PRIu64 "\n", name, *value);
}

/* In the largest unit that loses nothing. */
static void
dump_MS(FILE *out, const char *name, const uint64_t *value)
{
	if (*value == 0 || *value % 1000 != 0)
		fprintf(out, "%s = %" PRIu64 "ms\n", name, *value);
	else if (*value % 60000 != 0)
		fprintf(out, "%s = %" PRIu64 "s\n", name, *value / 1000);
	else
		fprintf(out, "%s = %" PRIu64 "m\n", name, *value / 60000);
}

static void
dump_BYTES(FILE *out, const char *name, const uint64_t *value)
{
	if (*value % 1024 == 0)
		fprintf(out, "%s = %" PRIu64 "K\n", name, *value / 1024);
	else
		fprintf(out, "%s = %" PRIu64 "\n", name, *value);
}

static void
dump_LEVEL(FILE *out, const char *name, const enum log_level *value)
{
	static const char *const words[] = {
	    [LOG_LEVEL_ERR] = "err",
	    [LOG_LEVEL_WARNING] = "warning",
	    [LOG_LEVEL_NOTICE] = "notice",
	    [LOG_LEVEL_INFO] = "info",
	    [LOG_LEVEL_DEBUG] = "debug",
	};

	fprintf(out, "%s = %s\n", name, words[*value]);
}

#define DUMP_CAST_STRING (const char *const *)
#define DUMP_CAST_LIST
#define DUMP_CAST_COUNT
#define DUMP_CAST_MS
#define DUMP_CAST_BYTES
#define DUMP_CAST_LEVEL

void
options_dump(const struct options *options, FILE *out)
{
/* clang-format off */
#define OPTION(member, name, type, def, min, max, when, metavar, doc)			\
	if (WHEN_##when != WHEN_FLAG) {							\
		print_wrapped(out, "# ", doc);						\
		dump_##type(out, name, DUMP_CAST_##type & options->member);		\
	}
#define ACTION(NAME, name, doc)
#include "supervisor/options.def"
#undef OPTION
#undef ACTION
	/* clang-format on */
}

/* mdoc wants each sentence on its own line, and no line that starts like a request. */
static void
print_sentences(FILE *out, const char *text)
{
	while (*text != '\0') {
		const char *end = strstr(text, ".  ");
		size_t bytes = end != NULL ? (size_t)(end - text) + 1 : strlen(text);

		if (*text == '.' || *text == '\'')
			fputs("\\&", out);
		fprintf(out, "%.*s\n", (int)bytes, text);
		text += bytes;
		text += strspn(text, " ");
	}
}

void
options_print_mdoc(FILE *out)
{
	fputs(".Bl -tag -width Ds\n", out);
	for (size_t i = 0; i < NR_ROWS; i++) {
		fprintf(out, ".It Fl Fl %s%s%s\n", rows[i].name,
		    rows[i].metavar[0] != '\0' ? " Ar " : "", rows[i].metavar);
		print_sentences(out, rows[i].doc);
		if (rows[i].when == WHEN_FLAG)
			continue;
		if (rows[i].def[0] != '\0')
			fprintf(out, "Default:\n.Ql %s .\n", rows[i].def);
		fputs(rows[i].when == WHEN_RELOAD ? "Read again on\n.Dv SIGHUP .\n"
						  : "Takes effect at start only.\n",
		    out);
	}
	fputs(".El\n", out);
}
