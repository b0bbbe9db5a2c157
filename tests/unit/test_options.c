/* SPDX-License-Identifier: Apache-2.0 */
/* Flags, configuration file, and that what is wrong is named. */
#include "supervisor/options.h"

#include <errno.h>
#include <unistd.h>

#include "tests/unit/tap.h"

#define MAX_ARGS 24

static char file_path[] = "/tmp/test_options.XXXXXX";
static char why[512];

/* Parses the words of line, with --config when text is given. */
static int
parse(struct options *options, enum options_action *action, const char *line, const char *text)
{
	static char words[1024];
	char *argv[MAX_ARGS + 1] = {NULL};
	char *rest = words;
	char *word;
	int argc = 0;
	FILE *file;

	snprintf(words, sizeof(words), "pagerd %s%s %s", text != NULL ? "--config " : "",
	    text != NULL ? file_path : "", line);
	while (argc < MAX_ARGS && (word = strsep(&rest, " ")) != NULL) {
		if (word[0] != '\0')
			argv[argc++] = word;
	}
	if (text != NULL) {
		file = fopen(file_path, "w");
		fputs(text, file);
		fclose(file);
	}
	why[0] = '\0';
	return options_parse(options, action, argc, argv, why, sizeof(why));
}

static void
test_defaults(void)
{
	struct options o;
	enum options_action action;

	is_int(parse(&o, &action, "", NULL), 0, "no arguments");
	is_int(action, OPTIONS_RUN, "means run");
	is_str(o.run_dir, "/run/pagerd", "run-dir");
	is_str(o.worker_user, "pagerd-worker", "worker-user");
	is_int(o.log_level, LOG_LEVEL_NOTICE, "log-level");
	is_int((intmax_t)o.handshake_timeout_ms, 30000, "handshake-timeout");
	is_int((intmax_t)o.tombstone_life_ms, 600000, "tombstone-life");
	is_int((intmax_t)o.cluster_max_bytes, 65536, "cluster-max");
	is_int((intmax_t)o.max_sessions, 4096, "max-sessions");
	is_int((intmax_t)o.image_root.nr, 1, "one image root");
	is_str(o.image_root.items[0], "/var/lib/pagerd/images", "image-root");
	options_fini(&o);
	options_fini(&o);
	ok(true, "fini twice is harmless");
}

static void
test_flags(void)
{
	struct options o;
	enum options_action action;

	is_int(parse(&o, &action,
		   "--run-dir=/a --worker-dir /b --image-root /c --image-root /d --log-level debug",
		   NULL),
	    0, "flags in both forms");
	is_str(o.run_dir, "/a", "--name=value");
	is_str(o.worker_dir, "/b", "--name value");
	is_int((intmax_t)o.image_root.nr, 2, "a list replaces the default");
	is_str(o.image_root.items[1], "/d", "and keeps its order");
	is_int(o.log_level, LOG_LEVEL_DEBUG, "level");
	options_fini(&o);

	is_int(parse(&o, &action, "--run-dir rd --cluster-min 64K --cluster-max 2M", NULL), 0,
	    "relative directory");
	ok(o.run_dir[0] == '/' && strcmp(o.run_dir + strlen(o.run_dir) - 3, "/rd") == 0,
	    "becomes absolute: %s", o.run_dir);
	is_int((intmax_t)o.cluster_min_bytes, 65536, "64K");
	options_fini(&o);

	is_int(parse(&o, &action, "--check-config --run-dir /a", NULL), 0, "an action");
	is_int(action, OPTIONS_CHECK_CONFIG, "is told");
	options_fini(&o);
	is_int(parse(&o, &action, "--help --nonsense", NULL), 0, "help wins over mistakes");
	is_int(action, OPTIONS_HELP, "help");
	options_fini(&o);
}

static void
test_file(void)
{
	struct options o;
	enum options_action action;

	is_int(parse(&o, &action, "--run-dir /flag --image-root /x",
		   "# comment\n\nrun-dir = /file\nworker-dir=/w  # another\n"
		   "image-root = /a\nimage-root = /b\n  hello-timeout = 500ms\n"
		   "worker-user = user#1\ncurrent = 1.2.3"),
	    0, "file and flags");
	is_str(o.run_dir, "/flag", "the command line overrides the file");
	is_str(o.worker_dir, "/w", "a comment after a value");
	is_int((intmax_t)o.image_root.nr, 1, "a list on the command line replaces the file's");
	is_int((intmax_t)o.hello_timeout_ms, 500, "blanks before a key");
	is_str(o.worker_user, "user#1", "a # inside a word is no comment");
	is_str(o.current, "1.2.3", "the last line needs no newline");
	options_fini(&o);

	is_int(
	    parse(&o, &action, "", "image-root = /a\nimage-root = /b\n"), 0, "a list in the file");
	is_int((intmax_t)o.image_root.nr, 2, "replaces the default");
	options_fini(&o);
}

static const struct {
	const char *args;
	const char *text; /* NULL: no file */
	const char *why;  /* part of the sentence */
} wrong[] = {
    {"--nonsense 1", NULL, "there is no option --nonsense"},
    {"serve", NULL, "\"serve\" is not an option"},
    {"-v", NULL, "\"-v\" is not an option"},
    {"--run-dir", NULL, "--run-dir needs a value: DIR"},
    {"--run-dir=", NULL, "--run-dir: a directory is needed"},
    {"--hello-timeout 10x", NULL, "--hello-timeout: \"10x\" is not a duration"},
    {"--hello-timeout 2h", NULL, "--hello-timeout: \"2h\" is out of range: 1ms to 3600000ms"},
    {"--max-sessions -1", NULL, "--max-sessions: \"-1\" is not a decimal number"},
    {"--max-sessions 0", NULL, "out of range: 1 to 1000000"},
    {"--max-sessions 99999999999999999999", NULL, "--max-sessions: "},
    {"--cluster-max 64Q", NULL, "--cluster-max: \"64Q\" is not a size"},
    {"--cluster-max 5000", NULL, "--cluster-max: 5000 is not a power of two"},
    {"--cluster-min 128K", NULL, "--cluster-min is larger than --cluster-max"},
    {"--log-level loud", NULL, "--log-level: \"loud\" is not a level: err, warning"},
    {"--current ../1.0", NULL, "--current: \"../1.0\" is not a version"},
    {"--image-root=", NULL, "--image-root: at least one"},
    {"--config /nowhere/x", NULL, "--config: cannot read /nowhere/x: No such file"},
    {"--config /dev/null", NULL, "--config: cannot read /dev/null: not a text file"},
    {"", "nonsense = 1\n", ":1: there is no key \"nonsense\""},
    {"", "\n\nready-fd = 3\n", ":3: there is no key \"ready-fd\": it is a flag"},
    {"", "config = /a\n", ":1: there is no key \"config\": it is a flag"},
    {"", "run-dir /a\n", ":1: \"run-dir /a\" is not of the form key = value"},
    {"", "run-dir = /a\nrun-dir = /b\n", ":2: run-dir is given twice"},
    {"", "# fine\nmax-sessions = many\n", ":2: max-sessions: \"many\" is not a decimal number"},
};

static void
test_wrong(void)
{
	for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
		struct options o;
		enum options_action action;
		int r = parse(&o, &action, wrong[i].args, wrong[i].text);

		ok(r < 0 && strstr(why, wrong[i].why) != NULL, "%s%s: %s", wrong[i].args,
		    wrong[i].text != NULL ? "(file)" : "", why);
		if (r == 0)
			options_fini(&o);
	}
}

/* What --dump-config prints, read as a file, gives the same. */
static void
test_dump(void)
{
	struct options o, again;
	enum options_action action;
	char *text = NULL, *second = NULL;
	size_t bytes = 0;
	FILE *out = open_memstream(&text, &bytes);

	is_int(parse(&o, &action,
		   "--hello-timeout 1500ms --tombstone-life 2h --cluster-max 2M --image-root /a "
		   "--image-root /b",
		   "admin-group = kvm\nlog-level = debug\n"),
	    0, "options to dump");
	options_dump(&o, out);
	fclose(out);
	is_int(parse(&again, &action, "", text), 0, "the dump is a valid file");
	ok(why[0] == '\0', "without complaint: %s", why);
	out = open_memstream(&second, &bytes);
	options_dump(&again, out);
	fclose(out);
	is_str(second, text, "and says the same");
	is_int((intmax_t)again.hello_timeout_ms, 1500, "1500ms");
	is_int((intmax_t)again.image_root.nr, 2, "both roots");
	free(text);
	free(second);
	options_fini(&o);
	options_fini(&again);
}

static int
reload(struct options *options, const char *text)
{
	char *argv[] = {(char[]){"pagerd"}, (char[]){"--config"}, file_path, NULL};
	FILE *file = fopen(file_path, "w");

	fputs(text, file);
	fclose(file);
	why[0] = '\0';
	return options_reload(options, 3, argv, why, sizeof(why));
}

static void
test_reload(void)
{
	struct options o;
	enum options_action action;

	is_int(parse(&o, &action, "", "max-sessions = 5\nrun-dir = /a\nimage-root = /x\n"), 0,
	    "options to reload");
	is_int(reload(&o, "max-sessions = 6\nrun-dir = /b\nimage-root = /y\nimage-root = /z\n"), 0,
	    "reload");
	is_int((intmax_t)o.max_sessions, 6, "a reloadable number is taken over");
	is_int((intmax_t)o.image_root.nr, 2, "and a list");
	is_str(o.run_dir, "/a", "what was read at start stays");
	ok(reload(&o, "max-sessions = 7\nimage-root = /q\nlog-level = loud\n") < 0 &&
		strstr(why, "loud") != NULL,
	    "a bad file is refused: %s", why);
	is_int((intmax_t)o.max_sessions, 6, "and changes nothing");
	is_int((intmax_t)o.image_root.nr, 2, "nothing at all");
	options_fini(&o);
}

static void
is_option(const struct options *o, enum options_index index, const char *text, const char *source)
{
	char *got = options_text(o, index);
	struct options_row row;

	options_row(index, &row);
	is_str(got, text, "%s", row.name);
	is_str(options_source_word(o->sources[index]), source, "its source");
	free(got);
}

static void
test_sources(void)
{
	struct options o;
	enum options_action action;

	is_int(parse(&o, &action, "--cluster-max 2M --max-sessions 7",
		   "max-sessions = 5\nimage-root = /x\nimage-root = /y\nhello-timeout = 90s\n"),
	    0, "options from everywhere");
	is_option(&o, OPTIONS_AT_cluster_max_bytes, "2M", "flag");
	is_option(&o, OPTIONS_AT_cluster_min_bytes, "4K", "default");
	is_option(&o, OPTIONS_AT_max_sessions, "7", "flag");
	is_option(&o, OPTIONS_AT_hello_timeout_ms, "90s", "file");
	is_option(&o, OPTIONS_AT_tombstone_life_ms, "10m", "default");
	is_option(&o, OPTIONS_AT_image_root, "/x, /y", "file");
	is_option(&o, OPTIONS_AT_admin_group, "", "default");
	ok(options_list(&o, OPTIONS_AT_image_root)->nr == 2 &&
		options_list(&o, OPTIONS_AT_max_sessions) == NULL,
	    "a list is told from the rest");
	options_fini(&o);
}

static const struct {
	const char *name, *value;
	int want;
	const char *why;
} refused[] = {
    {"nonsense", "1", -ENOENT, "there is no option \"nonsense\""},
    {"", "", -ENOENT, "there is no option \"\""},
    {"run-dir", "/b", -EPERM,
	"\"run-dir\" cannot be changed like this: set it in the configuration file and restart"},
    {"config", "/b", -EPERM, "\"config\" cannot be changed like this: it is a flag"},
    {"help", "", -ENOENT, "there is no option \"help\""},
    {"controller", "maybe", -EINVAL, "controller: \"maybe\" is neither on nor off"},
    {"controller", "ON", -EINVAL, "controller: \"ON\" is neither on nor off"},
    {"max-sessions", "0", -ERANGE, "max-sessions: \"0\" is out of range: 1 to 1000000"},
    {"max-sessions", "", -EINVAL, "max-sessions: \"\" is not a decimal number"},
    {"log-level", "loud", -EINVAL, "log-level: \"loud\" is not a level"},
    {"cluster-max", "5000", -EINVAL, "cluster-max: 5000 is not a power of two"},
    {"image-root", "/", -EPERM,
	"\"image-root\" cannot be changed like this: set it in the configuration file and reload"},
    {"controller-rate", "1M\n", -EINVAL,
	"controller-rate: a value cannot hold a control character"},
};

static void
test_change(void)
{
	const struct options_change good[] = {{"controller", "on"}, {"controller-rate", "64M"},
	    {"cluster-min", "1M"}, {"cluster-max", "2M"}};
	struct options o;
	enum options_action action;

	is_int(parse(&o, &action, "", "max-sessions = 5\nrun-dir = /a\nimage-root = /x\n"), 0,
	    "options to change");
	is_option(&o, OPTIONS_AT_controller, "off", "default");
	for (size_t i = 0; i < sizeof(refused) / sizeof(refused[0]); i++) {
		const struct options_change bad[] = {
		    {"max-sessions", "9"}, {refused[i].name, refused[i].value}};
		bool is_same = strcmp(refused[i].name, "max-sessions") == 0;

		why[0] = '\0';
		is_int(options_change(&o, bad + is_same, 2 - (size_t)is_same, why, sizeof(why)),
		    refused[i].want, "%s=%s", refused[i].name, refused[i].value);
		ok(strstr(why, refused[i].why) != NULL, "says why: %s", why);
		is_int((intmax_t)o.max_sessions, 5, "and the good one beside it changes nothing");
	}
	is_int(options_change(&o, good, 4, why, sizeof(why)), 0, "several at once");
	is_option(&o, OPTIONS_AT_controller, "on", "api");
	is_option(&o, OPTIONS_AT_image_root, "/x", "file");
	is_option(&o, OPTIONS_AT_controller_rate_bytes, "64M", "api");
	is_option(&o, OPTIONS_AT_cluster_min_bytes, "1M", "api");
	is_option(&o, OPTIONS_AT_max_sessions, "5", "file");
	is_int(options_change(&o, good, 0, why, sizeof(why)), 0, "none at all");
	is_int(reload(&o, "max-sessions = 5\nrun-dir = /a\nimage-root = /y\ncontroller = on\n"), 0,
	    "a reload");
	is_option(&o, OPTIONS_AT_controller_rate_bytes, "0", "default");
	is_option(&o, OPTIONS_AT_image_root, "/y", "file");
	is_option(&o, OPTIONS_AT_controller, "on", "file");
	options_fini(&o);
}

static void
test_texts(void)
{
	char *text = NULL;
	size_t bytes = 0;
	FILE *out = open_memstream(&text, &bytes);

	options_print_help(out);
	options_print_mdoc(out, false);
	fclose(out);
#define OPTION(member, name, type, def, min, max, when, metavar, doc)   \
	ok(strstr(text, "  --" name " " metavar) != NULL &&             \
		strstr(text, ".It Fl Fl " name " Ar " metavar) != NULL, \
	    "--" name " is in the help and in the manual");
#define ACTION(NAME, name, doc) ok(strstr(text, "  --" name "\n") != NULL, "--" name " too");
#include "supervisor/options.def"
#undef OPTION
#undef ACTION
	free(text);
}

static void
test_keys(void)
{
	char *text = NULL;
	size_t bytes = 0;
	FILE *out = open_memstream(&text, &bytes);

	options_print_mdoc(out, true);
	fclose(out);
#define OPTION(member, name, type, def, min, max, when, metavar, doc)         \
	ok((strstr(text, ".It Ic " name " Li = Ar " metavar "\n") != NULL) == \
		(strcmp(#when, "FLAG") != 0),                                 \
	    name " is in the manual of the file unless it is a flag");
#define ACTION(NAME, name, doc)
#include "supervisor/options.def"
#undef OPTION
#undef ACTION
	free(text);
}

int
main(void)
{
	int fd = mkstemp(file_path);

	if (fd < 0)
		return 1;
	close(fd);
	log_init("test", LOG_LEVEL_ERR);
	test_defaults();
	test_flags();
	test_file();
	test_wrong();
	test_dump();
	test_reload();
	test_sources();
	test_change();
	test_texts();
	test_keys();
	unlink(file_path);
	return done();
}
