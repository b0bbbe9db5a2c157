/* SPDX-License-Identifier: Apache-2.0 */
/* pages: how the pages of a session are. */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <string.h>
#include <unistd.h>

#include "common/num.h"
#include "common/scope.h"
#include "common/xalloc.h"
#include "supervisor/ctl/ctl.h"
#include "supervisor/ctl/text.h"

#define PAGES_MS   UINT64_C(60000)
#define BAR_WIDTH  40
#define LAST_WORDS 5

static const char *const words[LAST_WORDS] = {"absent", "clean", "dirty", "present", "removed"};

static enum table_colour
colour_of(const char *word)
{
	if (strcmp(word, "dirty") == 0 || strcmp(word, "present") == 0)
		return TABLE_BUSY;
	return strcmp(word, "clean") == 0 ? TABLE_GOOD : TABLE_DIM;
}

static void
add_run(struct table *table, const json_t *region, uint64_t first, const json_t *run)
{
	uint64_t page_bytes = ctl_u64(region, "page_size");
	const char *word = json_string_value(json_array_get(run, 0));
	uint64_t nr = (uint64_t)json_integer_value(json_array_get(run, 1));
	char a[TEXT_BYTES], b[TEXT_BYTES];

	table_add(table, TABLE_PLAIN, "0x%" PRIx64, ctl_u64(region, "offset") + first * page_bytes);
	table_add(
	    table, TABLE_PLAIN, "0x%" PRIx64, ctl_u64(region, "host_addr") + first * page_bytes);
	table_add(table, TABLE_PLAIN, "%s", text_count(a, nr));
	table_add(table, TABLE_PLAIN, "%s", text_bytes(b, nr * page_bytes));
	table_add(table, colour_of(word ? word : ""), "%s", word ? word : "");
}

/* With --dirty only what must be written to a snapshot. */
static bool
is_shown(const struct ctl *ctl, const json_t *run)
{
	const char *word = json_string_value(json_array_get(run, 0));

	return !ctl->flags.dirty ||
	    (word != NULL && (strcmp(word, "dirty") == 0 || strcmp(word, "present") == 0));
}

static void
print_runs(const struct ctl *ctl, const json_t *json)
{
	static const char *const headers[] = {
	    ">IMAGE OFFSET", ">ADDRESS", ">PAGES", ">BYTES", "STATE", NULL};
	struct table table;
	const json_t *region, *run;
	size_t i, j;

	table_init(&table, headers);
	json_array_foreach(json_object_get(json, "regions"), i, region)
	{
		uint64_t first = 0;

		json_array_foreach(json_object_get(region, "runs"), j, run)
		{
			if (is_shown(ctl, run))
				add_run(&table, region, first, run);
			first += (uint64_t)json_integer_value(json_array_get(run, 1));
		}
	}
	if (table.nr_cells)
		table_print(&table, stdout, ctl->colour);
	table_fini(&table);
}

static const char *
tracking_text(const char *word)
{
	if (strcmp(word, "write-protect") == 0)
		return "writes are tracked";
	return strcmp(word, "lost") == 0
	    ? "writes are not tracked any more: a completion began to unregister memory"
	    : "writes are not tracked: present pages may be written or not";
}

static void
print_summary(const json_t *json)
{
	const json_t *pages = json_object_get(json, "pages");
	uint64_t total = ctl_u64(pages, "total"), since = ctl_u64(json, "since");
	char bar[BAR_WIDTH + 3], a[TEXT_BYTES], b[TEXT_BYTES];

	for (size_t i = 0; i < LAST_WORDS; i++) {
		uint64_t n = ctl_u64(pages, words[i]);

		if (n == 0)
			continue;
		text_bar(bar, BAR_WIDTH, n, total);
		printf("%-8s %s %5s  %s pages\n", words[i], bar, text_percent(a, n, total),
		    text_count(b, n));
	}
	printf("%s", tracking_text(ctl_text(json, "tracking")));
	if (strcmp(ctl_text(json, "tracking"), "write-protect") != 0)
		putchar('\n');
	else if (since != 0)
		printf("; dirty since picture %" PRIu64 "\n", since);
	else
		puts("; dirty since the image");
	if (ctl_u64(json, "picture"))
		printf("this is picture %" PRIu64 "; --since %" PRIu64 " tells what comes after\n",
		    ctl_u64(json, "picture"), ctl_u64(json, "picture"));
}

static int
write_all(int fd, const char *bytes, size_t n)
{
	while (n > 0) {
		ssize_t done = write(fd, bytes, n);

		if (done < 0 && errno == EINTR)
			continue;
		if (done <= 0)
			return done < 0 ? -errno : -EIO;
		bytes += done;
		n -= (size_t)done;
	}
	return 0;
}

/* What was asked for is there, or there is a complaint. */
static enum exitcode
save(const struct ctl *ctl, const char *bytes, size_t n)
{
	const char *path = ctl->flags.raw;
	bool is_stdout = strcmp(path, "-") == 0;
	scoped_fd int file =
	    is_stdout ? -1 : open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
	int r;

	if (!is_stdout && file < 0) {
		ctl_complain("%s: %s", path, strerror(errno));
		return EXITCODE_FAILED;
	}
	r = write_all(is_stdout ? STDOUT_FILENO : file, bytes, n);
	if (r == 0 && !is_stdout && close(fd_take(&file)) < 0)
		r = -errno;
	if (r < 0) {
		ctl_complain("%s: %s", path, strerror(-r));
		return EXITCODE_FAILED;
	}
	return EXITCODE_OK;
}

static enum exitcode
fetch_raw(const struct ctl *ctl, const char *method, const char *target)
{
	scoped_client struct client *client = NULL;
	enum exitcode code = ctl_start(ctl, method, target, NULL, &client);
	const char *body;
	size_t bytes;
	json_t *json;
	int r;

	if (code != EXITCODE_OK)
		return code;
	do
		r = client_run(&client, 1, PAGES_MS);
	while (r == -EINTR);
	if (r < 0)
		return ctl_complain_unreachable(ctl, r);
	if (client_result(client, &body, &bytes) == 200)
		return save(ctl, body, bytes);
	return ctl_finish(ctl, client, &json);
}

static enum exitcode
fetch(const struct ctl *ctl, const char *method, const char *target)
{
	json_t *json;
	enum exitcode code = ctl_call(ctl, method, target, NULL, PAGES_MS, &json);

	if (code != EXITCODE_OK)
		return code;
	if (ctl->json) {
		ctl_print_json(json);
	} else {
		print_runs(ctl, json);
		print_summary(json);
	}
	json_decref(json);
	return EXITCODE_OK;
}

enum exitcode
ctl_pages(const struct ctl *ctl)
{
	const struct ctl_flags *flags = &ctl->flags;
	const char *method = flags->take ? "POST" : "GET";
	scoped_free char *since = NULL, *rest = NULL, *target = NULL;
	uint64_t number;

	if (flags->since && num_parse_u64(flags->since, 0, INT64_MAX, &number) < 0) {
		ctl_complain("--since: %s is no number of a picture", flags->since);
		return EXITCODE_USAGE;
	}
	if (flags->raw && (flags->dirty || ctl->json)) {
		ctl_complain("--raw goes without --dirty and --json");
		return EXITCODE_USAGE;
	}
	since = flags->since ? xasprintf("&since=%s", flags->since) : xstrdup("");
	rest = xasprintf("/pages?format=%s%s", flags->raw ? "raw" : "json", since);
	target = ctl_session_target(ctl->args[0], rest);
	return flags->raw ? fetch_raw(ctl, method, target) : fetch(ctl, method, target);
}
