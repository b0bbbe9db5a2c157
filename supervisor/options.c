/* SPDX-License-Identifier: Apache-2.0 */
#include "supervisor/options.h"

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/num.h"
#include "common/scope.h"
#include "common/version.h"
#include "common/xalloc.h"
#include "version_gen.h"

#define DEFAULT_WORKER_DIR PROJECT_LIBEXECDIR "/pagerd/workers"
#define CONFIG_MAX_BYTES   (1024 * 1024)

enum option_type { TYPE_STRING, TYPE_LIST, TYPE_MS, TYPE_BYTES, TYPE_COUNT, TYPE_LEVEL };
enum option_when { WHEN_START, WHEN_RELOAD, WHEN_FLAG };

struct option_desc {
	const char *name;
	enum option_type type;
	size_t offset; /* of the member in struct options */
	const char *def;
	uint64_t min, max;
	enum option_when when;
	const char *metavar;
};

/* clang-format off */
static const struct option_desc descs[] = {
#define OPTION(member, name, type, def, min, max, when, metavar, doc) \
	{ name, TYPE_##type, offsetof(struct options, member), def, min, max, WHEN_##when, metavar },
#define ACTION(NAME, name, doc)
#include "supervisor/options.def"
#undef OPTION
#undef ACTION
};

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

#define NR_DESCS (sizeof(descs) / sizeof(descs[0]))

/* Where values come from, while they are read. */
struct source {
	const char *file; /* NULL: the command line */
	unsigned int line;
	bool given[NR_DESCS]; /* by this source */
};

#define NR_ACTIONS (sizeof(actions) / sizeof(actions[0]))

static void *
member(struct options *options, const struct option_desc *desc)
{
	return (char *)options + desc->offset;
}

static const void *
member_const(const struct options *options, const struct option_desc *desc)
{
	return (const char *)options + desc->offset;
}

static void
list_clear(struct options_list *list)
{
	for (size_t i = 0; i < list->nr; i++)
		free(list->items[i]);
	free(list->items);
	*list = (struct options_list){0};
}

static void
list_append(struct options_list *list, const char *value)
{
	char **items = xcalloc(list->nr + 1, sizeof(*items));

	if (list->nr > 0)
		memcpy(items, list->items, list->nr * sizeof(*items));
	items[list->nr++] = xstrdup(value);
	free(list->items);
	list->items = items;
}

/* "a number from 1 to 10": what a value should have been. */
static int
refuse_number(const struct option_desc *desc, int r, const char *value, char *why, size_t bytes)
{
	static const char *const kinds[] = {
	    [TYPE_MS] = "a duration such as 500ms, 30s, 5m or 2h",
	    [TYPE_BYTES] = "a size such as 4096, 64K, 2M or 1G",
	    [TYPE_COUNT] = "a decimal number",
	};
	const char *unit = desc->type == TYPE_MS ? "ms" : desc->type == TYPE_BYTES ? " bytes" : "";

	if (r == -ERANGE)
		snprintf(why, bytes, "\"%s\" is out of range: %" PRIu64 "%s to %" PRIu64 "%s",
		    value, desc->min, unit, desc->max, unit);
	else
		snprintf(why, bytes, "\"%s\" is not %s", value, kinds[desc->type]);
	return r;
}

static int
check_text(const char *value, char *why, size_t bytes)
{
	for (const char *p = value; *p != '\0'; p++) {
		if (iscntrl((unsigned char)*p) == 0 &&
		    (*p != '#' || p == value || isblank((unsigned char)p[-1]) == 0))
			continue;
		snprintf(why, bytes, "a value cannot hold a control character or \" #\"");
		return -EINVAL;
	}
	return 0;
}

static int
set_number(void *ret, const struct option_desc *desc, const char *value, char *why, size_t bytes)
{
	uint64_t n = 0;
	int r;

	if (desc->type == TYPE_MS)
		r = num_parse_ms(value, desc->min, desc->max, &n);
	else if (desc->type == TYPE_BYTES)
		r = num_parse_bytes(value, desc->min, desc->max, &n);
	else
		r = num_parse_u64(value, desc->min, desc->max, &n);
	if (r < 0)
		return refuse_number(desc, r, value, why, bytes);
	*(uint64_t *)ret = n;
	return 0;
}

static int
set_value(struct options *options, const struct option_desc *desc, const char *value, char *why,
    size_t bytes)
{
	void *at = member(options, desc);
	int r = check_text(value, why, bytes);

	if (r < 0)
		return r;
	switch (desc->type) {
	case TYPE_STRING:
		free(*(char **)at);
		*(char **)at = xstrdup(value);
		return 0;
	case TYPE_LIST:
		if (value[0] != '\0')
			list_append(at, value);
		return 0;
	case TYPE_LEVEL:
		r = log_level_parse(value);
		if (r < 0) {
			snprintf(why, bytes,
			    "\"%s\" is not a level: err, warning, notice, info or debug", value);
			return r;
		}
		*(enum log_level *)at = (enum log_level)r;
		return 0;
	case TYPE_MS:
	case TYPE_BYTES:
	case TYPE_COUNT:
		return set_number(at, desc, value, why, bytes);
	}
	return -EINVAL;
}

/* Sets desc from a source: the first item of a list replaces what other sources said. */
static int
apply(struct options *options, const struct option_desc *desc, const char *value,
    struct source *source, char *why, size_t bytes)
{
	size_t i = (size_t)(desc - descs);
	char reason[256] = "";
	int r;

	if (source->file != NULL && source->given[i] && desc->type != TYPE_LIST) {
		snprintf(
		    why, bytes, "%s:%u: %s is given twice", source->file, source->line, desc->name);
		return -EINVAL;
	}
	if (desc->type == TYPE_LIST && !source->given[i])
		list_clear(member(options, desc));
	source->given[i] = true;
	r = set_value(options, desc, value, reason, sizeof(reason));
	if (r == 0)
		return 0;
	if (source->file != NULL)
		snprintf(
		    why, bytes, "%s:%u: %s: %s", source->file, source->line, desc->name, reason);
	else
		snprintf(why, bytes, "--%s: %s", desc->name, reason);
	return r;
}

static const struct option_desc *
desc_find(const char *name, size_t bytes)
{
	for (size_t i = 0; i < NR_DESCS; i++) {
		if (strlen(descs[i].name) == bytes && memcmp(descs[i].name, name, bytes) == 0)
			return &descs[i];
	}
	return NULL;
}

void
options_init(struct options *options)
{
	char why[256];

	*options = (struct options){0};
	for (size_t i = 0; i < NR_DESCS; i++) {
		if (set_value(options, &descs[i], descs[i].def, why, sizeof(why)) < 0)
			fatal("options.def: %s: %s", descs[i].name, why);
	}
}

void
options_fini(struct options *options)
{
	for (size_t i = 0; i < NR_DESCS; i++) {
		void *at = member(options, &descs[i]);

		if (descs[i].type == TYPE_LIST) {
			list_clear(at);
		} else if (descs[i].type == TYPE_STRING) {
			free(*(char **)at);
			*(char **)at = NULL;
		}
	}
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
parse_line(struct options *options, char *line, struct source *source, char *why, size_t bytes)
{
	const struct option_desc *desc;
	char *equals;

	line = trim(line);
	if (*line == '\0')
		return 0;
	equals = strchr(line, '=');
	if (equals == NULL) {
		snprintf(why, bytes, "%s:%u: \"%s\" is not of the form key = value", source->file,
		    source->line, line);
		return -EINVAL;
	}
	*equals = '\0';
	line = trim(line);
	desc = desc_find(line, strlen(line));
	if (desc == NULL || desc->when == WHEN_FLAG) {
		snprintf(why, bytes, "%s:%u: there is no key \"%s\"%s", source->file, source->line,
		    line, desc != NULL ? ": it is a flag of the command line only" : "");
		return -EINVAL;
	}
	return apply(options, desc, trim(equals + 1), source, why, bytes);
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
	struct source source = {.file = path};
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
		source.line++;
		r = parse_line(options, strsep(&next, "\n"), &source, why, bytes);
	}
	return r;
}

/* One argument, with the next one when it takes its value from there.  Returns how
 * many were used, or a negative errno. */
static int
parse_flag(struct options *options, enum options_action *action, char *const *args,
    struct source *source, char *why, size_t bytes)
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
	desc = desc_find(arg, length);
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
	r = apply(options, desc, value, source, why, bytes);
	if (r < 0)
		return r;
	return arg[length] == '=' ? 1 : 2;
}

static int
parse_args(struct options *options, enum options_action *action, char *const argv[], char *why,
    size_t bytes)
{
	struct source source = {0};

	for (char *const *args = argv + 1; *args != NULL;) {
		int used = parse_flag(options, action, args, &source, why, bytes);

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

/* What no single row can say. */
static int
check_together(const struct options *options, char *why, size_t bytes)
{
	if (options->run_dir[0] == '\0')
		snprintf(why, bytes, "--run-dir: a directory is needed");
	else if (options->worker_dir[0] == '\0')
		snprintf(why, bytes, "--worker-dir: a directory is needed");
	else if (options->worker_user[0] == '\0')
		snprintf(why, bytes, "--worker-user: a user is needed");
	else if (options->image_root.nr == 0)
		snprintf(why, bytes, "--image-root: at least one directory is needed");
	else if (options->current[0] != '\0' && !version_is_valid(options->current))
		snprintf(why, bytes, "--current: \"%s\" is not a version", options->current);
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
		r = check_together(options, why, bytes);
	if (r < 0)
		return r;
	r = make_absolute(&options->run_dir);
	if (r == 0)
		r = make_absolute(&options->worker_dir);
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

static bool
is_equal(const struct option_desc *desc, const void *a, const void *b)
{
	const struct options_list *x = a;
	const struct options_list *y = b;

	switch (desc->type) {
	case TYPE_STRING:
		return strcmp(*(char *const *)a, *(char *const *)b) == 0;
	case TYPE_LIST:
		for (size_t i = 0; x->nr == y->nr && i < x->nr; i++) {
			if (strcmp(x->items[i], y->items[i]) != 0)
				return false;
		}
		return x->nr == y->nr;
	case TYPE_LEVEL:
		return *(const enum log_level *)a == *(const enum log_level *)b;
	case TYPE_MS:
	case TYPE_BYTES:
	case TYPE_COUNT:
		break;
	}
	return *(const uint64_t *)a == *(const uint64_t *)b;
}

/* Exchanges a member: what was in options is then freed with the other. */
static void
swap_member(const struct option_desc *desc, void *a, void *b)
{
	_Alignas(max_align_t) char tmp[sizeof(struct options_list)];
	size_t bytes = desc->type == TYPE_LIST ? sizeof(struct options_list)
	    : desc->type == TYPE_STRING	       ? sizeof(char *)
	    : desc->type == TYPE_LEVEL	       ? sizeof(enum log_level)
					       : sizeof(uint64_t);

	memcpy(tmp, a, bytes);
	memcpy(a, b, bytes);
	memcpy(b, tmp, bytes);
}

int
options_reload(struct options *options, int argc, char *const argv[], char *why, size_t why_bytes)
{
	struct options fresh;
	enum options_action action;
	int r = options_parse(&fresh, &action, argc, argv, why, why_bytes);

	if (r < 0)
		return r;
	for (size_t i = 0; i < NR_DESCS; i++) {
		const struct option_desc *desc = &descs[i];

		if (desc->when == WHEN_FLAG ||
		    is_equal(desc, member_const(options, desc), member_const(&fresh, desc)))
			continue;
		if (desc->when == WHEN_RELOAD) {
			swap_member(desc, member(options, desc), member(&fresh, desc));
			log_notice("option %s: changed; in force now", desc->name);
		} else {
			log_warning(
			    "option %s: changed; takes effect at the next start only", desc->name);
		}
	}
	options_fini(&fresh);
	return 0;
}
