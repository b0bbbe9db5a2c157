/* SPDX-License-Identifier: Apache-2.0 */
#include "supervisor/options_impl.h"

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/scope.h"
#include "common/version.h"
#include "common/xalloc.h"
#include "supervisor/image_policy.h"

#define CONFIG_MAX_BYTES (1024 * 1024)

/* clang-format off */
static const struct {
	const char *name;
	enum options_action action;
} actions[] = {
#define OPTION(member, name, type, def, min, max, when, metavar, doc)
#define ACTION(NAME, name, doc) { name, OPTIONS_##NAME },
#include "supervisor/options.def"
#undef OPTION
#undef ACTION
};
/* clang-format on */

#define NR_ACTIONS (sizeof(actions) / sizeof(actions[0]))

int
option_apply(struct options *options, const struct option_desc *desc, const char *value,
    struct option_reader *reader, char *why, size_t bytes)
{
	size_t i = option_index(desc);
	char reason[256] = "";
	int r;

	if (reader->source == OPTIONS_FROM_FILE && reader->given[i] && desc->type != TYPE_LIST) {
		snprintf(
		    why, bytes, "%s:%u: %s is given twice", reader->file, reader->line, desc->name);
		return -EINVAL;
	}
	if (desc->type == TYPE_LIST && !reader->given[i])
		option_clear(options, desc);
	reader->given[i] = true;
	options->sources[i] = reader->source;
	r = option_set(options, desc, value, reason, sizeof(reason));
	if (r == 0)
		return 0;
	if (reader->source == OPTIONS_FROM_FILE)
		snprintf(
		    why, bytes, "%s:%u: %s: %s", reader->file, reader->line, desc->name, reason);
	else
		snprintf(why, bytes, "%s%s: %s", reader->source == OPTIONS_FROM_FLAG ? "--" : "",
		    desc->name, reason);
	return r;
}

void
options_init(struct options *options)
{
	char why[256];

	*options = (struct options){0};
	for (size_t i = 0; i < OPTIONS_COUNT; i++) {
		const struct option_desc *desc = &option_descs[i];

		if (option_set(options, desc, desc->def, why, sizeof(why)) < 0)
			fatal("options.def: %s: %s", desc->name, why);
	}
}

void
options_fini(struct options *options)
{
	for (size_t i = 0; i < OPTIONS_COUNT; i++)
		option_clear(options, &option_descs[i]);
}

void
options_move(struct options *to, struct options *from)
{
	*to = *from;
	*from = (struct options){0};
}

/* A line of the file without its comment and the blanks around it. */
static char *
trim(char *line)
{
	char *end;

	for (char *p = line; *p != '\0'; p++) {
		if (*p == '#' && (p == line || isblank((unsigned char)p[-1]) != 0)) {
			*p = '\0';
			break;
		}
	}
	while (isspace((unsigned char)*line) != 0)
		line++;
	end = line + strlen(line);
	while (end > line && isspace((unsigned char)end[-1]) != 0)
		*--end = '\0';
	return line;
}

static int
parse_line(
    struct options *options, char *line, struct option_reader *reader, char *why, size_t bytes)
{
	const struct option_desc *desc;
	char *equals;

	line = trim(line);
	if (*line == '\0')
		return 0;
	equals = strchr(line, '=');
	if (equals == NULL) {
		snprintf(why, bytes, "%s:%u: \"%s\" is not of the form key = value", reader->file,
		    reader->line, line);
		return -EINVAL;
	}
	*equals = '\0';
	line = trim(line);
	desc = option_find(line, strlen(line));
	if (desc == NULL || desc->when == WHEN_FLAG) {
		snprintf(why, bytes, "%s:%u: there is no key \"%s\"%s", reader->file, reader->line,
		    line, desc != NULL ? ": it is a flag of the command line only" : "");
		return -EINVAL;
	}
	return option_apply(options, desc, trim(equals + 1), reader, why, bytes);
}

/* Reads the whole file: it is small, and a reload must not wait for a FIFO. */
static int
read_file(const char *path, char **ret)
{
	scoped_fd int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
	scoped_free char *text = NULL;
	struct stat st;
	size_t have = 0;
	ssize_t n;

	if (fd < 0 || fstat(fd, &st) < 0)
		return -errno;
	if (!S_ISREG(st.st_mode))
		return -EINVAL;
	if (st.st_size > CONFIG_MAX_BYTES)
		return -EFBIG;
	text = xcalloc((size_t)st.st_size + 1, 1);
	do {
		n = read(fd, text + have, (size_t)st.st_size - have);
		if (n < 0)
			return -errno;
		have += (size_t)n;
	} while (n > 0);
	if (memchr(text, '\0', have) != NULL)
		return -EINVAL;
	*ret = text;
	text = NULL;
	return 0;
}

static int
parse_file(struct options *options, const char *path, char *why, size_t bytes)
{
	struct option_reader reader = {.source = OPTIONS_FROM_FILE, .file = path};
	scoped_free char *text = NULL;
	char *next;
	int r = read_file(path, &text);

	if (r < 0) {
		snprintf(why, bytes, "--config: cannot read %s: %s", path,
		    r == -EINVAL ? "not a text file" : strerror(-r));
		return r;
	}
	next = text;
	while (r == 0 && next != NULL) {
		reader.line++;
		r = parse_line(options, strsep(&next, "\n"), &reader, why, bytes);
	}
	return r;
}

/* One argument, with the next one when it takes its value from there.  Returns how
 * many were used, or a negative errno. */
static int
parse_flag(struct options *options, enum options_action *action, char *const *args,
    struct option_reader *reader, char *why, size_t bytes)
{
	const char *arg = args[0];
	const struct option_desc *desc;
	const char *value;
	size_t length;
	int r;

	if (strncmp(arg, "--", 2) != 0 || arg[2] == '\0') {
		snprintf(why, bytes, "\"%s\" is not an option; see pagerd --help", arg);
		return -EINVAL;
	}
	arg += 2;
	for (size_t i = 0; i < NR_ACTIONS; i++) {
		if (strcmp(arg, actions[i].name) == 0) {
			*action = actions[i].action;
			return 1;
		}
	}
	length = strcspn(arg, "=");
	desc = option_find(arg, length);
	if (desc == NULL) {
		snprintf(
		    why, bytes, "there is no option --%.*s; see pagerd --help", (int)length, arg);
		return -EINVAL;
	}
	value = arg[length] == '=' ? arg + length + 1 : args[1];
	if (value == NULL) {
		snprintf(why, bytes, "--%s needs a value: %s", desc->name, desc->metavar);
		return -EINVAL;
	}
	r = option_apply(options, desc, value, reader, why, bytes);
	if (r < 0)
		return r;
	return arg[length] == '=' ? 1 : 2;
}

static int
parse_args(struct options *options, enum options_action *action, char *const argv[], char *why,
    size_t bytes)
{
	struct option_reader reader = {.source = OPTIONS_FROM_FLAG};

	for (char *const *args = argv + 1; *args != NULL;) {
		int used = parse_flag(options, action, args, &reader, why, bytes);

		if (used < 0)
			return used;
		args += used;
	}
	return 0;
}

static bool
is_power_of_two(uint64_t n)
{
	return n != 0 && (n & (n - 1)) == 0;
}

static const char *
relative_root(const struct options *options)
{
	for (size_t i = 0; i < options->image_root.nr; i++) {
		if (options->image_root.items[i][0] != '/')
			return options->image_root.items[i];
	}
	return NULL;
}

int
options_check(const struct options *options, char *why, size_t bytes)
{
	const char *root = relative_root(options);
	enum image_policy policy;

	if (options->run_dir[0] == '\0')
		snprintf(why, bytes, "--run-dir: a directory is needed");
	else if (options->worker_dir[0] == '\0')
		snprintf(why, bytes, "--worker-dir: a directory is needed");
	else if (options->worker_user[0] == '\0')
		snprintf(why, bytes, "--worker-user: a user is needed");
	else if (options->state_dir[0] == '\0')
		snprintf(why, bytes, "--state-dir: a directory is needed");
	else if (strcmp(options->backend, "uffd") != 0 && strcmp(options->backend, "file") != 0)
		snprintf(
		    why, bytes, "--backend: \"%s\" is neither uffd nor file", options->backend);
	else if (options->image_root.nr == 0)
		snprintf(why, bytes, "--image-root: at least one directory is needed");
	else if (root != NULL)
		snprintf(why, bytes, "--image-root: \"%s\" is not an absolute path", root);
	else if (options->current[0] != '\0' && !version_is_valid(options->current))
		snprintf(why, bytes, "--current: \"%s\" is not a version", options->current);
	else if (image_policy_parse(options->on_image_error, &policy) < 0)
		snprintf(why, bytes, "--on-image-error: \"%s\" is not hold, poison or kill",
		    options->on_image_error);
	else if (policy == IMAGE_KILL && !options->image_error_kill)
		snprintf(why, bytes, "--on-image-error: kill needs --image-error-kill on");
	else if (!is_power_of_two(options->cluster_min_bytes))
		snprintf(why, bytes, "--cluster-min: %" PRIu64 " is not a power of two",
		    options->cluster_min_bytes);
	else if (!is_power_of_two(options->cluster_max_bytes))
		snprintf(why, bytes, "--cluster-max: %" PRIu64 " is not a power of two",
		    options->cluster_max_bytes);
	else if (options->cluster_min_bytes > options->cluster_max_bytes)
		snprintf(why, bytes, "--cluster-min is larger than --cluster-max");
	else
		return 0;
	return -EINVAL;
}

/* So that a reload compares equal and nothing depends on where we stand. */
static int
make_absolute(char **path)
{
	scoped_free char *cwd = NULL;
	char *joined;

	if ((*path)[0] == '/')
		return 0;
	cwd = getcwd(NULL, 0);
	if (cwd == NULL)
		return -errno;
	joined = xasprintf("%s/%s", cwd, *path);
	free(*path);
	*path = joined;
	return 0;
}

static int
parse(struct options *options, enum options_action *action, char *const argv[], char *why,
    size_t bytes)
{
	/* The first pass finds --config and is then thrown away. */
	int r = parse_args(options, action, argv, why, bytes);
	scoped_free char *config = NULL;

	if (r < 0)
		return r;
	config = xstrdup(options->config);
	options_fini(options);
	options_init(options);
	if (config[0] != '\0')
		r = parse_file(options, config, why, bytes);
	if (r == 0)
		r = parse_args(options, action, argv, why, bytes);
	if (r == 0)
		r = options_check(options, why, bytes);
	if (r < 0)
		return r;
	r = make_absolute(&options->run_dir);
	if (r == 0)
		r = make_absolute(&options->worker_dir);
	if (r == 0)
		r = make_absolute(&options->state_dir);
	if (r < 0)
		snprintf(why, bytes, "cannot tell the current directory: %s", strerror(-r));
	return r;
}

int
options_parse(struct options *ret, enum options_action *ret_action, int argc, char *const argv[],
    char *why, size_t why_bytes)
{
	struct options options;
	enum options_action action = OPTIONS_RUN;
	int r;

	if (argc < 1)
		return -EINVAL;
	options_init(&options);
	r = parse(&options, &action, argv, why, why_bytes);
	/* Whoever asks for help has often got something else wrong. */
	if (action == OPTIONS_HELP || action == OPTIONS_VERSION)
		r = 0;
	if (r < 0) {
		options_fini(&options);
		return r;
	}
	options_move(ret, &options);
	*ret_action = action;
	return 0;
}
