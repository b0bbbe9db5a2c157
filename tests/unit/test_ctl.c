/* SPDX-License-Identifier: Apache-2.0 */
/* pagerctl's command line and its texts for people. */
#include <errno.h>

#include "supervisor/ctl/ctl.h"
#include "supervisor/ctl/text.h"
#include "tests/unit/tap.h"

#define MAX_WORDS 12

static struct ctl ctl;
static enum ctl_action action;
static const struct ctl_command *command;
static char said[1024]; /* on stderr */

/* Parses "pagerctl WORDS" and catches the complaint. */
static int
parse(const char *words)
{
	static char text[256]; /* the parsed options point into it */
	char *rest = text, *word, *argv[MAX_WORDS] = {(char[]){"pagerctl"}};
	FILE *old = stderr, *catch = fmemopen(said, sizeof(said), "w");
	int argc = 1, r;

	snprintf(text, sizeof(text), "%s", words);
	while ((word = strsep(&rest, " ")) && argc < MAX_WORDS)
		if (*word)
			argv[argc++] = word;
	said[0] = '\0';
	stderr = catch;
	r = ctl_parse(&ctl, &action, &command, argc, argv);
	stderr = old;
	fclose(catch);
	said[strcspn(said, "\n")] = '\0';
	return r;
}

static void
test_parse_good(void)
{
	unsetenv("PAGERD_SOCKET");
	ok(parse("status") == 0 && action == CTL_RUN && strcmp(command->name, "status") == 0 &&
		!ctl.json,
	    "a command");
	is_str(ctl.socket_path, CTL_DEFAULT_SOCKET, "the default socket");
	setenv("PAGERD_SOCKET", "/env", 1);
	parse("status");
	is_str(ctl.socket_path, "/env", "the socket of the environment");
	parse("status --socket=/flag --json");
	ok(strcmp(ctl.socket_path, "/flag") == 0 && ctl.json, "options behind the command");
	parse("--socket /flag --json status");
	ok(strcmp(ctl.socket_path, "/flag") == 0 && ctl.json, "options before the command");
	unsetenv("PAGERD_SOCKET");
	ok(parse("create --id a --cluster-min=4K /img --memfd") == 0 &&
		strcmp(ctl.flags.id, "a") == 0 && strcmp(ctl.flags.cluster_min, "4K") == 0 &&
		ctl.flags.memfd && !ctl.flags.cluster_max && strcmp(ctl.args[0], "/img") == 0,
	    "options of a command");
	ok(parse("show a --wait serving") == 0 && strcmp(ctl.flags.state, "serving") == 0 &&
		!ctl.flags.wait,
	    "--wait of show has a value");
	ok(parse("drain 1 --wait") == 0 && ctl.flags.wait && !ctl.flags.state,
	    "--wait of drain has none");
	ok(parse("show -- --odd") == 0 && strcmp(ctl.args[0], "--odd") == 0, "behind --");
	ok(parse("--help") == 0 && action == CTL_HELP && !command, "help");
	ok(parse("show --help") == 0 && action == CTL_HELP && command, "help of a command");
	ok(parse("--version") == 0 && action == CTL_VERSION, "version");
}

static void
test_parse_bad(void)
{
	static const struct {
		const char *words, *says;
	} cases[] = {
	    {"", "say what to do"},
	    {"sesions", "did you mean sessions?"},
	    {"sess", "did you mean sessions?"},
	    {"cretae x", "did you mean create?"},
	    {"frobnicate", "there is no command frobnicate; pagerctl --help"},
	    {"show", "needs an argument: pagerctl show ID"},
	    {"show a b", "no place for b"},
	    {"status x", "takes no arguments"},
	    {"status --jsno", "did you mean --json?"},
	    {"create x --instnace y", "did you mean --instance?"},
	    {"status --instance y", "status has no option --instance"},
	    {"status --json=1", "takes no value"},
	    {"create x --id", "needs a value: --id ID"},
	    {"create x --id=", "needs a value"},
	    {"status -x", "no option -x"},
	    {"complete x --wait", "complete has no option --wait"},
	};

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
		ok(parse(cases[i].words) == -EINVAL && strstr(said, cases[i].says), "%s: %s",
		    cases[i].words, said);
}

static void
test_units(void)
{
	char buf[TEXT_BYTES], bar[16];

	is_str(text_bytes(buf, 0), "0 B", "no bytes");
	is_str(text_bytes(buf, 1023), "1023 B", "1023");
	is_str(text_bytes(buf, 1024), "1 KiB", "1024");
	is_str(text_bytes(buf, 1536), "1.5 KiB", "1536");
	is_str(text_bytes(buf, 1048575), "1.0 MiB", "one byte less than a MiB, rounded");
	is_str(text_bytes(buf, UINT64_C(512) << 20), "512 MiB", "512 MiB");
	is_str(text_bytes(buf, UINT64_MAX), "16 EiB", "all of them");
	is_str(text_nanos(buf, 999), "999 ns", "nanoseconds");
	is_str(text_nanos(buf, 12000), "12 us", "microseconds");
	is_str(text_nanos(buf, 3400000), "3.4 ms", "milliseconds");
	is_str(text_nanos(buf, 340000000), "340 ms", "many");
	is_str(text_nanos(buf, UINT64_C(2500000000)), "2.5 s", "seconds");
	is_str(text_nanos(buf, UINT64_C(245000000000)), "4 min 5 s", "minutes");
	is_str(text_nanos(buf, UINT64_C(10920000000000)), "3 h 2 min", "hours");
	is_str(text_nanos(buf, UINT64_C(176400000000000)), "2 d 1 h", "days");
	is_str(text_count(buf, 0), "0", "0");
	is_str(text_count(buf, 999), "999", "999");
	is_str(text_count(buf, 1234567), "1 234 567", "1234567");
	is_str(text_count(buf, UINT64_MAX), "18 446 744 073 709 551 615", "the largest");
	is_str(text_percent(buf, 0, 10), "0 %", "none of it");
	is_str(text_percent(buf, 1, 1000), "1 %", "hardly any is some");
	is_str(text_percent(buf, 999999, 1000000), "99 %", "nearly all is not all");
	is_str(text_percent(buf, 10, 10), "100 %", "all");
	is_str(text_percent(buf, 0, 0), "0 %", "of nothing");
	text_bar(bar, 10, 5, 10);
	is_str(bar, "[#####.....]", "half a bar");
	text_bar(bar, 10, 999, 1000);
	is_str(bar, "[#########.]", "nearly a whole one");
	text_bar(bar, 10, 1000, 1000);
	is_str(bar, "[##########]", "a whole one");
	text_bar(bar, 10, 0, 0);
	is_str(bar, "[..........]", "of nothing");
}

static void
test_text(void)
{
	char evil[] = "a\033[2J\r\n\x7f\xc2\x9b"
		      "b\xc3\xa4";

	text_make_printable(evil);
	is_str(evil, "a?[2J?????b\xc3\xa4", "a terminal is told nothing");
	is_int(text_width("\xc3\xa4 1"), 3, "width in characters");
	is_int(text_distance("create", "create"), 0, "the same");
	is_int(text_distance("cretae", "create"), 1, "neighbours swapped");
	is_int(text_distance("crate", "create"), 1, "one left out");
	is_int(text_distance("", "abc"), 3, "all of it");
	is_int(text_distance("a very long word that goes on and on and on", "x"), 32,
	    "a long word is cut");
	char *target = ctl_session_target("web/1 \xc3\xa4..%", "/close");
	is_str(target, "/sessions/web%2F1%20%C3%A4..%25/close", "an id in a path");
	free(target);
}

static void
test_wrap(void)
{
	char text[256] = "";
	FILE *out = fmemopen(text, sizeof(text), "w");

	text_wrap(out, "a word and" TEXT_SPACE "another one", 0, 2, 12);
	text_wrap(out, "a-word-that-is-too-long for it", 6, 4, 10);
	text_wrap(out, "", 0, 2, 12);
	fclose(out);
	is_str(text,
	    "  a word\n  and another\n  one\n"
	    "a-word-that-is-too-long\n    for it\n"
	    "  \n",
	    "lines are broken at spaces, but not at each");
	ok(text_is_near("sess", "sessions") && text_is_near("web-1", "web1") &&
		!text_is_near("s", "sessions") && !text_is_near("abc", "xyz"),
	    "what is near");
}

static void
test_table(void)
{
	static const char *const headers[] = {"ID", ">N", "WORD", NULL};
	char text[512] = "";
	FILE *out = fmemopen(text, sizeof(text), "w");
	struct table table;

	table_init(&table, headers);
	for (int i = 0; i < 2; i++) {
		table_add(&table, TABLE_PLAIN, "%s", i ? "\xc3\xa4" : "long one");
		table_add(&table, TABLE_PLAIN, "%d", i ? 1000 : 1);
		table_add(&table, TABLE_GOOD, "%s", i ? "" : "x\033y");
	}
	table_print(&table, out, false);
	fputs("--\n", out);
	table_print(&table, out, true);
	fclose(out);
	table_fini(&table);
	is_str(text,
	    "ID           N  WORD\n"
	    "long one     1  x?y\n"
	    "\xc3\xa4         1000  -\n"
	    "--\n"
	    "ID           N  WORD\n"
	    "long one     1  \033[32mx?y\033[0m\n"
	    "\xc3\xa4         1000  \033[32m-\033[0m\n",
	    "columns line up, also with colours and more than ASCII");
}

int
main(void)
{
	test_parse_good();
	test_parse_bad();
	test_units();
	test_text();
	test_wrap();
	test_table();
	return done();
}
