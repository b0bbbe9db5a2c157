/* SPDX-License-Identifier: Apache-2.0 */
/* completion: what a shell needs to complete our command lines, from the table of commands; and
 * the names that it asks for while it does.
 *
 * bash and zsh share three functions that know the table, each a case statement:
 *	_pagerctl_options COMMAND	"--name:what it does", a line each
 *	_pagerctl_value COMMAND --OPTION	the kind of its value, "none" without one
 *	_pagerctl_argument COMMAND N	the kind of its N-th argument
 * A kind is file, any, none, "words WORD...", or a list that we print: sessions, versions,
 * templates, options, commands. */
#include <string.h>

#include "common/scope.h"
#include "common/xalloc.h"
#include "supervisor/ctl/ctl.h"
#include "supervisor/ctl/text.h"

#define KIND_BYTES 256

/* --- Kinds ------------------------------------------------------------------------- */

/* "a|b|c" as "words a b c". */
static void
kind_of_words(char kind[KIND_BYTES], const char *words)
{
	snprintf(kind, KIND_BYTES, "words %s", words);
	for (char *p = kind; *p; p++)
		if (*p == '|')
			*p = ' ';
}

static const char *
kind_of_metavar(char kind[KIND_BYTES], const char *word)
{
	static const struct {
		const char *metavar, *kind;
	} kinds[] = {
	    {"PATH", "file"},
	    {"FILE", "file"},
	    {"FILE...", "file"},
	    {"DIR", "file"},
	    {"IMAGE", "file"},
	    {"SESSION", "sessions"},
	    {"VERSION", "versions"},
	    {"COMMAND", "commands"},
	    {"NAME=VALUE...", "options"},
	    {"STATE", "words opened serving graduated closed"},
	    {"POLICY", "words hold poison kill"},
	    {"MODE", "words on off sequential"},
	    {"FORMAT", "words pagerd hpl1 log"},
	};

	/* Words to choose from are in lower case. */
	if (*word >= 'a' && *word <= 'z') {
		kind_of_words(kind, word);
		return kind;
	}
	for (size_t i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++)
		if (strcmp(kinds[i].metavar, word) == 0)
			return kinds[i].kind;
	return "any";
}

static const char *
kind_of_flag(char kind[KIND_BYTES], const struct ctl_flag *flag)
{
	if (!*flag->metavar)
		return "none";
	if (strcmp(flag->name, "template") == 0)
		return "templates";
	return kind_of_metavar(kind, flag->metavar);
}

/* Of the n-th word of "A [B [C]]", from 0; NULL when there is none. */
static const char *
kind_of_argument(char kind[KIND_BYTES], const struct ctl_command *command, size_t n)
{
	scoped_free char *args = xstrdup(command->args);
	char *rest = args, *word = NULL;

	do
		word = strsep(&rest, " []");
	while (word && (!*word || n-- > 0));
	if (!word)
		return NULL;
	/* One that is asked for is a session's; that of create is yet to be. */
	if (strcmp(word, "ID") == 0)
		return "sessions";
	if (strcmp(word, "NAME") == 0)
		return "templates";
	return kind_of_metavar(kind, word);
}

/* --- bash and zsh ------------------------------------------------------------------ */

static void
print_options_function(void)
{
	puts("_pagerctl_options()\n{\n\tcase $1 in");
	for (size_t c = 0; c < ctl_nr_commands; c++) {
		bool any = false;

		for (size_t f = 0; f < ctl_nr_flags; f++) {
			if (!ctl_takes_flag(&ctl_commands[c], &ctl_flag_list[f]))
				continue;
			if (!any)
				printf("\t%s) cat <<'END'\n", ctl_commands[c].name);
			any = true;
			printf("--%s:%s\n", ctl_flag_list[f].name, ctl_flag_list[f].doc);
		}
		if (any)
			puts("END\n\t;;");
	}
	puts("\tesac\n\tcat <<'END'");
	for (size_t f = 0; f < ctl_nr_globals; f++)
		printf("--%s:%s\n", ctl_globals[f].name, ctl_globals[f].doc);
	puts("END\n}\n");
}

static void
print_commands_function(void)
{
	puts("_pagerctl_commands()\n{\n\tcat <<'END'");
	for (size_t c = 0; c < ctl_nr_commands; c++)
		printf("%s:%s\n", ctl_commands[c].name, ctl_commands[c].doc);
	puts("END\n}\n");
}

static void
print_value_function(void)
{
	char kind[KIND_BYTES];

	puts("_pagerctl_value()\n{\n\tcase $1:$2 in");
	for (size_t f = 0; f < ctl_nr_globals; f++)
		printf("\t*:--%s) echo %s ;;\n", ctl_globals[f].name,
		    kind_of_flag(kind, &ctl_globals[f]));
	for (size_t c = 0; c < ctl_nr_commands; c++)
		for (size_t f = 0; f < ctl_nr_flags; f++)
			if (ctl_takes_flag(&ctl_commands[c], &ctl_flag_list[f]))
				printf("\t%s:--%s) echo %s ;;\n", ctl_commands[c].name,
				    ctl_flag_list[f].name, kind_of_flag(kind, &ctl_flag_list[f]));
	puts("\t*) echo none ;;\n\tesac\n}\n");
}

/* The last argument may be given again where "..." says so. */
static const char *
place(const struct ctl_command *command, size_t n)
{
	static const char *const digits[] = {"0", "1", "2", "3"};
	char buf[KIND_BYTES];

	if (strstr(command->args, "...") && !kind_of_argument(buf, command, n + 1))
		return "*";
	return digits[n < 3 ? n : 3];
}

static void
print_argument_function(void)
{
	char buf[KIND_BYTES];
	const char *kind;

	puts("_pagerctl_argument()\n{\n\tcase $1:$2 in");
	for (size_t c = 0; c < ctl_nr_commands; c++)
		for (size_t n = 0; (kind = kind_of_argument(buf, &ctl_commands[c], n)); n++)
			printf("\t%s:%s) echo %s ;;\n", ctl_commands[c].name,
			    place(&ctl_commands[c], n), kind);
	puts("\t*) echo none ;;\n\tesac\n}\n");
}

static void
print_functions(void)
{
	print_commands_function();
	print_options_function();
	print_value_function();
	print_argument_function();
}

/* What stands before the cursor.  A name comes from pagerd and may hold anything: it is quoted
 * for the shell and never expanded. */
static const char bash_driver[] =
    "_pagerctl_add()\n"
    "{\n"
    "\tlocal word\n"
    "\twhile IFS= read -r word; do\n"
    "\t\t[[ $word == \"$cur\"* ]] && COMPREPLY+=(\"$(printf %q \"$word\")\")\n"
    "\tdone\n"
    "}\n"
    "\n"
    "_pagerctl()\n"
    "{\n"
    "\tlocal cur=${COMP_WORDS[COMP_CWORD]} command='' option='' kind i word n=0 socket=()\n"
    "\tCOMPREPLY=()\n"
    "\tfor ((i = 1; i < COMP_CWORD; i++)); do\n"
    "\t\tword=${COMP_WORDS[i]}\n"
    "\t\tif [[ $word == = ]]; then\n"
    "\t\t\tcontinue\n"
    "\t\telif [[ $option ]]; then\n"
    "\t\t\t[[ $option == --socket ]] && socket=(--socket \"$word\")\n"
    "\t\t\toption=''\n"
    "\t\telif [[ $word == --* ]]; then\n"
    "\t\t\t[[ $(_pagerctl_value \"$command\" \"$word\") == none ]] || option=$word\n"
    "\t\telif [[ ! $command ]]; then\n"
    "\t\t\tcommand=$word\n"
    "\t\telse\n"
    "\t\t\tn=$((n + 1))\n"
    "\t\tfi\n"
    "\tdone\n"
    "\t[[ $cur == = ]] && cur=''\n"
    "\tif [[ $option ]]; then\n"
    "\t\tkind=$(_pagerctl_value \"$command\" \"$option\")\n"
    "\telif [[ $cur == -* ]]; then\n"
    "\t\t_pagerctl_add < <(_pagerctl_options \"$command\" | cut -d: -f1)\n"
    "\t\treturn\n"
    "\telif [[ $command ]]; then\n"
    "\t\tkind=$(_pagerctl_argument \"$command\" $n)\n"
    "\telse\n"
    "\t\tkind=commands\n"
    "\tfi\n"
    "\tcase $kind in\n"
    "\tfile)\n"
    "\t\tcompopt -o filenames 2>/dev/null\n"
    "\t\twhile IFS= read -r word; do COMPREPLY+=(\"$word\"); done < <(compgen -f -- \"$cur\")\n"
    "\t\t;;\n"
    "\twords*) _pagerctl_add < <(printf '%s\\n' ${kind#words}) ;;\n"
    "\tcommands) _pagerctl_add < <(_pagerctl_commands | cut -d: -f1) ;;\n"
    "\toptions)\n"
    "\t\tcompopt -o nospace 2>/dev/null\n"
    "\t\t_pagerctl_add < <(\"${COMP_WORDS[0]}\" \"${socket[@]}\" completion options 2>/dev/null)\n"
    "\t\t;;\n"
    "\tsessions | versions | templates)\n"
    "\t\t_pagerctl_add < <(\"${COMP_WORDS[0]}\" \"${socket[@]}\" completion \"$kind\" 2>/dev/null)\n"
    "\t\t;;\n"
    "\tesac\n"
    "}\n"
    "\n"
    "complete -F _pagerctl pagerctl\n";

static const char zsh_driver[] =
    "_pagerctl()\n"
    "{\n"
    "\tlocal command='' option='' kind word cur=$words[CURRENT] prefix='' i n=0\n"
    "\tlocal -a socket list\n"
    "\tfor ((i = 2; i < CURRENT; i++)); do\n"
    "\t\tword=${(Q)words[i]}\n"
    "\t\tif [[ -n $option ]]; then\n"
    "\t\t\t[[ $option == --socket ]] && socket=(--socket $word)\n"
    "\t\t\toption=''\n"
    "\t\telif [[ $word == --socket=* ]]; then\n"
    "\t\t\tsocket=(--socket ${word#*=})\n"
    "\t\telif [[ $word == --*=* ]]; then\n"
    "\t\t\tcontinue\n"
    "\t\telif [[ $word == --* ]]; then\n"
    "\t\t\t[[ $(_pagerctl_value \"$command\" \"$word\") == none ]] || option=$word\n"
    "\t\telif [[ -z $command ]]; then\n"
    "\t\t\tcommand=$word\n"
    "\t\telse\n"
    "\t\t\tn=$((n + 1))\n"
    "\t\tfi\n"
    "\tdone\n"
    "\tif [[ -z $option && $cur == --*=* ]]; then\n"
    "\t\toption=${cur%%=*}\n"
    "\t\tcompset -P '*='\n"
    "\tfi\n"
    "\tif [[ -n $option ]]; then\n"
    "\t\tkind=$(_pagerctl_value \"$command\" \"$option\")\n"
    "\telif [[ $cur == -* ]]; then\n"
    "\t\tlist=(${(f)\"$(_pagerctl_options \"$command\")\"})\n"
    "\t\t_describe option list\n"
    "\t\treturn\n"
    "\telif [[ -n $command ]]; then\n"
    "\t\tkind=$(_pagerctl_argument \"$command\" $n)\n"
    "\telse\n"
    "\t\tkind=commands\n"
    "\tfi\n"
    "\tcase $kind in\n"
    "\tfile) _files ;;\n"
    "\twords*) list=(${=kind#words}); compadd -a list ;;\n"
    "\tcommands) list=(${(f)\"$(_pagerctl_commands)\"}); _describe command list ;;\n"
    "\toptions)\n"
    "\t\tlist=(${(f)\"$($words[1] $socket completion options 2>/dev/null)\"})\n"
    "\t\tcompadd -S '' -a list\n"
    "\t\t;;\n"
    "\tsessions | versions | templates)\n"
    "\t\tlist=(${(f)\"$($words[1] $socket completion $kind 2>/dev/null)\"})\n"
    "\t\tcompadd -a list\n"
    "\t\t;;\n"
    "\tesac\n"
    "}\n"
    "\n"
    "if [[ $funcstack[1] == _pagerctl ]]; then\n"
    "\t_pagerctl \"$@\"\n"
    "else\n"
    "\tcompdef _pagerctl pagerctl\n"
    "fi\n";

/* --- fish -------------------------------------------------------------------------- */

/* In single quotes. */
static void
print_quoted(const char *text)
{
	putchar('\'');
	for (; *text; text++) {
		if (*text == '\'' || *text == '\\')
			putchar('\\');
		putchar(*text);
	}
	putchar('\'');
}

/* What may stand in a place of that kind. */
static void
print_fish_kind(const char *kind)
{
	if (strcmp(kind, "file") == 0)
		fputs(" -r -F", stdout);
	else if (strcmp(kind, "any") == 0)
		fputs(" -x", stdout);
	else if (strncmp(kind, "words ", 6) == 0)
		printf(" -x -a '%s'", kind + 6);
	else if (strcmp(kind, "none") != 0)
		printf(" -x -a '(pagerctl completion %s 2>/dev/null)'", kind);
}

static void
print_fish_flag(const struct ctl_command *command, const struct ctl_flag *flag)
{
	char kind[KIND_BYTES];

	fputs("complete -c pagerctl", stdout);
	if (command)
		printf(" -n '__fish_seen_subcommand_from %s'", command->name);
	printf(" -l %s -d ", flag->name);
	print_quoted(flag->doc);
	print_fish_kind(kind_of_flag(kind, flag));
	putchar('\n');
}

static void
print_fish_command(const struct ctl_command *command)
{
	char buf[KIND_BYTES];
	const char *kind = kind_of_argument(buf, command, 0);

	printf("complete -c pagerctl -n __fish_use_subcommand -a %s -d ", command->name);
	print_quoted(command->doc);
	putchar('\n');
	/* All arguments of a command are offered at each place. */
	for (size_t n = 0; (kind = kind_of_argument(buf, command, n)); n++) {
		printf("complete -c pagerctl -n '__fish_seen_subcommand_from %s'", command->name);
		print_fish_kind(kind);
		putchar('\n');
	}
	for (size_t f = 0; f < ctl_nr_flags; f++)
		if (ctl_takes_flag(command, &ctl_flag_list[f]))
			print_fish_flag(command, &ctl_flag_list[f]);
}

static void
print_fish(void)
{
	puts("# SPDX-License-Identifier: Apache-2.0\n"
	     "# pagerctl(1) for fish, by `pagerctl completion fish`.\n"
	     "complete -c pagerctl -f");
	for (size_t f = 0; f < ctl_nr_globals; f++)
		print_fish_flag(NULL, &ctl_globals[f]);
	for (size_t c = 0; c < ctl_nr_commands; c++)
		print_fish_command(&ctl_commands[c]);
}

/* --- Names ------------------------------------------------------------------------- */

/* One that would be two, or tell a terminal something, is left out. */
static void
print_name(const char *name, const char *suffix)
{
	scoped_free char *printable = xstrdup(name);

	text_make_printable(printable);
	if (*name && strcmp(printable, name) == 0)
		printf("%s%s\n", name, suffix);
}

static enum exitcode
print_names(const struct ctl *ctl, const char *kind)
{
	const char *member = strcmp(kind, "sessions") == 0 ? "id"
	    : strcmp(kind, "versions") == 0		   ? "version"
							   : "name";
	scoped_free char *target = xasprintf("/%s", strcmp(kind, "options") == 0 ? "config" : kind);
	json_t *json, *list, *one;
	const char *name;
	size_t i;
	enum exitcode code = ctl_get(ctl, target, &json);

	if (code != EXITCODE_OK)
		return code;
	list = json_object_get(json, kind);
	json_array_foreach(list, i, one) if (!*ctl_text(one, "outcome"))
	    print_name(ctl_text(one, member), "");
	json_object_foreach(list, name, one) if (ctl_flag(one, "settable")) print_name(name, "=");
	json_decref(json);
	return code;
}

/* --- The command ------------------------------------------------------------------- */

enum exitcode
ctl_completion(const struct ctl *ctl)
{
	static const char *const lists[] = {"sessions", "versions", "templates", "options"};
	const char *what = ctl->args[0];

	for (size_t i = 0; i < sizeof(lists) / sizeof(lists[0]); i++)
		if (strcmp(what, lists[i]) == 0)
			return print_names(ctl, what);
	if (strcmp(what, "commands") == 0) {
		for (size_t c = 0; c < ctl_nr_commands; c++)
			puts(ctl_commands[c].name);
		return EXITCODE_OK;
	}
	if (strcmp(what, "fish") == 0) {
		print_fish();
		return EXITCODE_OK;
	}
	if (strcmp(what, "bash") != 0 && strcmp(what, "zsh") != 0) {
		ctl_complain(
		    "there is no completion for %s; for bash, zsh and fish there is", what);
		return EXITCODE_USAGE;
	}
	if (strcmp(what, "zsh") == 0)
		puts("#compdef pagerctl");
	printf("# SPDX-License-Identifier: Apache-2.0\n"
	       "# pagerctl(1) for %s, by `pagerctl completion %s`.\n\n",
	    what, what);
	print_functions();
	fputs(strcmp(what, "zsh") == 0 ? zsh_driver : bash_driver, stdout);
	return EXITCODE_OK;
}
