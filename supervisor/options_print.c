/* SPDX-License-Identifier: Apache-2.0 */
/* What people read of the options: --help, --dump-config and the manual page. */
#include <string.h>

#include "common/scope.h"
#include "supervisor/options_impl.h"
#include "version_gen.h"

#define DEFAULT_WORKER_DIR PROJECT_LIBEXECDIR "/pagerd/workers"
#define TEXT_COLUMNS	   78

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
dump_list(FILE *out, const char *name, const struct options_list *list)
{
	for (size_t i = 0; i < list->nr; i++)
		fprintf(out, "%s = %s\n", name, list->items[i]);
}

void
options_dump(const struct options *options, FILE *out)
{
	for (size_t i = 0; i < OPTIONS_COUNT; i++) {
		const struct option_desc *desc = &option_descs[i];
		const struct options_list *list = options_list(options, i);
		scoped_free char *text = options_text(options, i);

		if (desc->when == WHEN_FLAG)
			continue;
		print_wrapped(out, "# ", desc->doc);
		if (list != NULL)
			dump_list(out, desc->name, list);
		else
			fprintf(out, "%s%s = %s\n", text[0] == '\0' ? "# " : "", desc->name, text);
	}
}

/* mdoc wants lines of 80 bytes, and none that starts like a request. */
static void
print_sentence(FILE *out, const char *text, size_t bytes)
{
	const char *end = text + bytes;
	size_t column = 0;

	while (text < end) {
		size_t word = strcspn(text, " ");

		if (word > (size_t)(end - text))
			word = (size_t)(end - text);
		if (column > 0 && column + 1 + word > TEXT_COLUMNS) {
			fputc('\n', out);
			column = 0;
		}
		if (column > 0)
			column += (size_t)fprintf(out, " ");
		else if (*text == '.' || *text == '\'')
			column += (size_t)fprintf(out, "\\&");
		column += (size_t)fprintf(out, "%.*s", (int)word, text);
		text += word;
		text += strspn(text, " ");
	}
	fputc('\n', out);
}

/* Each on a line of its own, as mdoc wants them. */
static void
print_sentences(FILE *out, const char *text)
{
	while (*text != '\0') {
		const char *end = strstr(text, ".  ");
		size_t bytes = end != NULL ? (size_t)(end - text) + 1 : strlen(text);

		print_sentence(out, text, bytes);
		text += bytes;
		text += strspn(text, " ");
	}
}

void
options_print_mdoc(FILE *out, bool keys)
{
	fputs(".Bl -tag -width Ds\n", out);
	for (size_t i = 0; i < NR_ROWS; i++) {
		if (keys && rows[i].when == WHEN_FLAG)
			continue;
		if (keys)
			fprintf(out, ".It Ic %s Li = Ar %s\n", rows[i].name, rows[i].metavar);
		else
			fprintf(out, ".It Fl Fl %s%s%s\n", rows[i].name,
			    rows[i].metavar[0] != '\0' ? " Ar " : "", rows[i].metavar);
		print_sentences(out, rows[i].doc);
		if (rows[i].when == WHEN_FLAG)
			continue;
		if (rows[i].def[0] != '\0')
			fprintf(out, "Default:\n.Ql %s .\n", rows[i].def);
		fputs(rows[i].when != WHEN_START ? "Read again on\n.Dv SIGHUP .\n"
						 : "Takes effect at start only.\n",
		    out);
	}
	fputs(".El\n", out);
}
