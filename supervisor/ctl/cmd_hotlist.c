/* SPDX-License-Identifier: Apache-2.0 */
/* record, and hotlist: looking at, converting and merging the files of hot lists. */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/fd.h"
#include "common/hotlist.h"
#include "common/hotlist_foreign.h"
#include "common/num.h"
#include "common/scope.h"
#include "common/xalloc.h"
#include "supervisor/ctl/ctl.h"
#include "supervisor/ctl/text.h"

#define RECORD_MS      UINT64_C(30000)
#define MAX_FILE_BYTES ((size_t)256 << 20)

/* --- record ----------------------------------------------------------------------- */

static void
print_recording(const struct ctl *ctl, const json_t *session)
{
	const json_t *recording = json_object_get(session, "recording");

	if (ctl->json)
		ctl_print_json(session);
	else if (strcmp(ctl_text(recording, "state"), "running") == 0)
		printf("%s is recorded, to %s\n", ctl->args[0], ctl_text(recording, "path"));
	else
		printf("%s: %" PRIu64 " pages in %s\n", ctl->args[0], ctl_u64(recording, "pages"),
		    ctl_text(recording, "path"));
}

/* pagerd knows nothing of our working directory, and the file need not be there. */
static char *
absolute(const char *path)
{
	char here[4096];

	if (path[0] == '/' || getcwd(here, sizeof(here)) == NULL)
		return xstrdup(path);
	return xasprintf("%s/%s", here, path);
}

enum exitcode
ctl_record(const struct ctl *ctl)
{
	scoped_free char *target = ctl_session_target(ctl->args[0], "/record");
	scoped_free char *path = ctl->flags.out ? absolute(ctl->flags.out) : NULL, *text = NULL;
	json_t *body = json_object(), *json;
	enum exitcode code;

	if (ctl->flags.stop && path) {
		ctl_complain("--out is for a recording that begins; leave it out with --stop");
		json_decref(body);
		return EXITCODE_USAGE;
	}
	if (ctl->flags.stop)
		json_object_set_new(body, "stop", json_true());
	if (path)
		json_object_set_new(body, "path", json_string(path));
	text = json_dumps(body, JSON_COMPACT);
	json_decref(body);
	code = ctl_call(ctl, "POST", target, text, RECORD_MS, &json);
	if (code != EXITCODE_OK)
		return code;
	print_recording(ctl, json);
	json_decref(json);
	return EXITCODE_OK;
}

/* --- Files ------------------------------------------------------------------------ */

enum format { FORMAT_PAGERD, FORMAT_HPL1, FORMAT_LOG };

struct regions {
	struct hotlist_region rows[CTL_MAX_REPEATS];
	size_t nr;
};

static bool
read_file(const char *path, unsigned char **ret, size_t *ret_bytes)
{
	scoped_fd int fd = open(path, O_RDONLY | O_CLOEXEC);
	scoped_free unsigned char *bytes = NULL;
	struct stat st;
	size_t done = 0;

	if (fd < 0 || fstat(fd, &st) < 0) {
		ctl_complain("%s: %s", path, strerror(errno));
		return false;
	}
	if (!S_ISREG(st.st_mode) || (uint64_t)st.st_size > MAX_FILE_BYTES) {
		ctl_complain("%s is no file, or too large for a hot list", path);
		return false;
	}
	bytes = xcalloc(1, (size_t)st.st_size + 1);
	while (done < (size_t)st.st_size) {
		ssize_t n = read(fd, bytes + done, (size_t)st.st_size - done);

		if (n < 0) {
			ctl_complain("%s: %s", path, strerror(errno));
			return false;
		}
		if (n == 0)
			break;
		done += (size_t)n;
	}
	*ret = bytes;
	*ret_bytes = done;
	bytes = NULL;
	return true;
}

static enum format
format_of(const unsigned char *bytes, size_t nr)
{
	if (nr >= 8 && memcmp(bytes, "pagerhot", 8) == 0)
		return FORMAT_PAGERD;
	return nr >= 4 && memcmp(bytes, "HPL1", 4) == 0 ? FORMAT_HPL1 : FORMAT_LOG;
}

/* What other programs' lists do not say. */
static bool
identify(const struct ctl *ctl, const char *path, struct hotlist_image *ret)
{
	const char *key = ctl->flags.cache_key ? ctl->flags.cache_key : "";
	struct stat st;

	if (!ctl->flags.image) {
		ctl_complain("%s does not say which image it is of: name that by --image", path);
		return false;
	}
	if (stat(ctl->flags.image, &st) < 0) {
		ctl_complain("%s: %s", ctl->flags.image, strerror(errno));
		return false;
	}
	if (strlen(key) >= sizeof(ret->key)) {
		ctl_complain("--cache-key has more than %zu bytes", sizeof(ret->key) - 1);
		return false;
	}
	ret->bytes = (uint64_t)st.st_size;
	ret->mtime_ns = st.st_mtim.tv_sec * INT64_C(1000000000) + st.st_mtim.tv_nsec;
	memcpy(ret->key, key, strlen(key) + 1);
	return true;
}

/* OFFSET:SIZE, in the order of the regions; without one, all of the image is the first. */
static bool
read_regions(const struct ctl *ctl, uint64_t image_bytes, struct regions *ret)
{
	ret->nr = ctl->nr_repeats;
	for (size_t i = 0; i < ret->nr; i++) {
		scoped_free char *text = xstrdup(ctl->repeats[i]);
		char *colon = strchr(text, ':');

		if (colon)
			*colon = '\0';
		if (!colon || num_parse_bytes(text, 0, INT64_MAX, &ret->rows[i].offset) < 0 ||
		    num_parse_bytes(colon + 1, 1, INT64_MAX, &ret->rows[i].bytes) < 0 ||
		    (ret->rows[i].offset | ret->rows[i].bytes) % HOTLIST_PAGE_BYTES != 0) {
			ctl_complain("--region: %s is no OFFSET:SIZE of whole pages, such as "
				     "0:3G",
			    ctl->repeats[i]);
			return false;
		}
	}
	if (ret->nr == 0) {
		ret->rows[0] = (struct hotlist_region){0, image_bytes};
		ret->nr = 1;
	}
	return true;
}

static int
decode(const struct ctl *ctl, const char *path, struct hotlist *ret, const char **ret_why)
{
	scoped_free unsigned char *bytes = NULL;
	struct regions regions;
	uint64_t dropped = 0, line = 0;
	size_t nr;
	int r;

	hotlist_init(ret);
	if (!read_file(path, &bytes, &nr))
		return -EIO;
	if (format_of(bytes, nr) == FORMAT_PAGERD)
		return hotlist_decode(ret, bytes, nr, ret_why);
	if (!identify(ctl, path, &ret->image) || !read_regions(ctl, ret->image.bytes, &regions))
		return -EIO;
	if (format_of(bytes, nr) == FORMAT_HPL1)
		r = hotlist_read_hpl1(ret, bytes, nr, regions.rows, regions.nr, ret_why);
	else
		r = hotlist_read_log(ret, (const char *)bytes, nr, &dropped, &line, ret_why);
	if (line > 0) {
		ctl_complain("%s: line %" PRIu64 " is no offset in the image", path, line);
		*ret_why = NULL;
		return -EIO;
	}
	if (dropped > 0)
		fprintf(stderr, "%s: %" PRIu64 " lines name no page of the image, or one again\n",
		    path, dropped);
	return r;
}

/* False after a complaint; then there is nothing to free. */
static bool
load(const struct ctl *ctl, const char *path, struct hotlist *ret)
{
	const char *why = NULL;
	int r = decode(ctl, path, ret, &why);

	if (r == 0)
		return true;
	if (r == -E2BIG)
		why = "it has more runs of pages than a hot list can have";
	if (why != NULL || r != -EIO) /* what is not EIO was not complained of */
		ctl_complain("%s: %s", path, why != NULL ? why : strerror(-r));
	hotlist_fini(ret);
	return false;
}

static bool
write_fd(int fd, const void *bytes, size_t nr)
{
	size_t done = 0;

	while (done < nr) {
		ssize_t n = write(fd, (const char *)bytes + done, nr - done);

		if (n <= 0)
			return false;
		done += (size_t)n;
	}
	return true;
}

/* In one piece; "-" is standard output. */
static enum exitcode
write_file(const char *path, const void *bytes, size_t nr)
{
	scoped_free char *temporary = xasprintf("%s.%d.new", path, (int)getpid());

	if (strcmp(path, "-") == 0) {
		fflush(stdout);
		if (write_fd(STDOUT_FILENO, bytes, nr))
			return EXITCODE_OK;
		ctl_complain("standard output: %s", strerror(errno));
		return EXITCODE_FAILED;
	}
	scoped_fd int fd = open(temporary, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
	if (fd >= 0 && write_fd(fd, bytes, nr) && rename(temporary, path) == 0)
		return EXITCODE_OK;
	ctl_complain("%s: %s", path, strerror(errno));
	if (fd >= 0)
		unlink(temporary);
	return EXITCODE_FAILED;
}

static bool
read_format(const struct ctl *ctl, enum format def, enum format *ret)
{
	const char *word = ctl->flags.format;

	*ret = !word			  ? def
	    : strcmp(word, "pagerd") == 0 ? FORMAT_PAGERD
	    : strcmp(word, "hpl1") == 0	  ? FORMAT_HPL1
					  : FORMAT_LOG;
	if (!word || *ret != FORMAT_LOG || strcmp(word, "log") == 0)
		return true;
	ctl_complain("--format is pagerd, hpl1 or log");
	return false;
}

static enum exitcode
write_list(const struct ctl *ctl, const struct hotlist *list, enum format format, const char *path)
{
	scoped_free void *bytes = NULL;
	const char *why = NULL;
	struct regions regions;
	size_t nr = 0;
	int r;

	if (!read_regions(ctl, list->image.bytes, &regions))
		return EXITCODE_USAGE;
	if (format == FORMAT_PAGERD)
		r = hotlist_encode(list, (unsigned char **)&bytes, &nr);
	else if (format == FORMAT_LOG)
		r = hotlist_write_log(list, (char **)&bytes, &nr);
	else
		r = hotlist_write_hpl1(
		    list, regions.rows, regions.nr, (unsigned char **)&bytes, &nr, &why);
	if (r == 0)
		return write_file(path, bytes, nr);
	ctl_complain("%s: %s", path, why != NULL ? why : strerror(-r));
	return EXITCODE_FAILED;
}

/* --- hotlist ---------------------------------------------------------------------- */

static json_t *
to_json(const char *path, const struct hotlist *list)
{
	json_t *json = json_object();

	json_object_set_new(json, "file", json_string(path));
	json_object_set_new(json, "image_bytes", json_integer((json_int_t)list->image.bytes));
	json_object_set_new(json, "image_mtime_ns", json_integer(list->image.mtime_ns));
	json_object_set_new(json, "cache_key", json_string(list->image.key));
	json_object_set_new(json, "pages", json_integer((json_int_t)list->nr_pages));
	json_object_set_new(json, "runs", json_integer((json_int_t)list->nr_runs));
	return json;
}

static void
print_list(const char *path, const struct hotlist *list)
{
	char a[TEXT_BYTES], b[TEXT_BYTES], c[TEXT_BYTES];

	printf("%s: %s of an image of %s, %s pages in %zu runs", path,
	    text_bytes(a, list->nr_pages * HOTLIST_PAGE_BYTES), text_bytes(b, list->image.bytes),
	    text_count(c, list->nr_pages), list->nr_runs);
	if (list->image.key[0] != '\0')
		printf(", cache key %s", list->image.key);
	putchar('\n');
}

static enum exitcode
show(const struct ctl *ctl)
{
	enum exitcode code = EXITCODE_OK;

	for (size_t i = 1; i < CTL_MAX_ARGS && ctl->args[i]; i++) {
		struct hotlist list;
		json_t *json;

		if (!load(ctl, ctl->args[i], &list)) {
			code = EXITCODE_FAILED;
			continue;
		}
		json = to_json(ctl->args[i], &list);
		if (ctl->json)
			ctl_print_json(json);
		else
			print_list(ctl->args[i], &list);
		json_decref(json);
		hotlist_fini(&list);
	}
	return code;
}

static bool
has_args(const struct ctl *ctl, const char *args, size_t min, size_t max)
{
	size_t n = 1;

	while (n < CTL_MAX_ARGS && ctl->args[n])
		n++;
	if (n > min && n <= max + 1)
		return true;
	ctl_complain("it is pagerctl hotlist %s %s", ctl->args[0], args);
	return false;
}

static enum exitcode
convert(const struct ctl *ctl)
{
	scoped_free unsigned char *bytes = NULL;
	struct hotlist list;
	enum format format;
	enum exitcode code;
	size_t nr;

	if (!has_args(ctl, "FROM TO", 2, 2))
		return EXITCODE_USAGE;
	if (!read_file(ctl->args[1], &bytes, &nr))
		return EXITCODE_FAILED;
	if (!read_format(
		ctl, format_of(bytes, nr) == FORMAT_PAGERD ? FORMAT_LOG : FORMAT_PAGERD, &format))
		return EXITCODE_USAGE;
	if (!load(ctl, ctl->args[1], &list))
		return EXITCODE_FAILED;
	code = write_list(ctl, &list, format, ctl->args[2]);
	hotlist_fini(&list);
	return code;
}

static enum exitcode
merge_into(const struct ctl *ctl, const struct hotlist *lists, size_t nr)
{
	const char *why = NULL;
	struct hotlist merged;
	enum exitcode code;
	enum format format;
	uint64_t least = nr;
	int r;

	if (ctl->flags.least && num_parse_u64(ctl->flags.least, 1, nr, &least) < 0) {
		ctl_complain("--least is a number from 1 to %zu, as many as there are lists", nr);
		return EXITCODE_USAGE;
	}
	if (!read_format(ctl, FORMAT_PAGERD, &format))
		return EXITCODE_USAGE;
	r = hotlist_merge(&merged, lists, nr, (size_t)least, &why);
	if (r < 0) {
		ctl_complain("they cannot be merged: %s", why != NULL ? why : strerror(-r));
		return EXITCODE_FAILED;
	}
	code = write_list(ctl, &merged, format, ctl->args[1]);
	if (code == EXITCODE_OK && strcmp(ctl->args[1], "-") != 0)
		print_list(ctl->args[1], &merged);
	hotlist_fini(&merged);
	return code;
}

static enum exitcode
merge(const struct ctl *ctl)
{
	struct hotlist lists[CTL_MAX_ARGS];
	enum exitcode code = EXITCODE_OK;
	size_t nr = 0;

	if (!has_args(ctl, "TO FROM...", 2, CTL_MAX_ARGS))
		return EXITCODE_USAGE;
	for (size_t i = 2; i < CTL_MAX_ARGS && ctl->args[i] && code == EXITCODE_OK; i++) {
		if (load(ctl, ctl->args[i], &lists[nr]))
			nr++;
		else
			code = EXITCODE_FAILED;
	}
	if (code == EXITCODE_OK)
		code = merge_into(ctl, lists, nr);
	for (size_t i = 0; i < nr; i++)
		hotlist_fini(&lists[i]);
	return code;
}

enum exitcode
ctl_hotlist(const struct ctl *ctl)
{
	if (strcmp(ctl->args[0], "show") == 0)
		return show(ctl);
	if (strcmp(ctl->args[0], "convert") == 0)
		return convert(ctl);
	if (strcmp(ctl->args[0], "merge") == 0)
		return merge(ctl);
	ctl_complain("hotlist can show, convert and merge, not %s", ctl->args[0]);
	return EXITCODE_USAGE;
}
