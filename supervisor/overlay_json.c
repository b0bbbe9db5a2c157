/* SPDX-License-Identifier: Apache-2.0 */
/* Overlays in requests, answers and records: pure. */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "common/pagemap.h"
#include "common/scope.h"
#include "common/xalloc.h"
#include "supervisor/json.h"
#include "supervisor/overlay.h"

#define MAX_IMAGE_BYTES (PAGEMAP_MAX_PAGES * PAGE_BYTES)
#define MAX_PATH_BYTES	4095U

#define LENGTH(array) (sizeof(array) / sizeof((array)[0]))

/* What is wrong with one of them, and which it is. */
static int
blame(size_t i, const char *what, char *why, size_t why_bytes)
{
	snprintf(why, why_bytes, "overlay %zu: %s", i + 1, what);
	return -EINVAL;
}

static int
read_one(const json_t *json, const struct json_member *members, size_t nr_members, void *ret,
    char *why, size_t why_bytes)
{
	if (!json_is_object(json)) {
		snprintf(why, why_bytes, "it must be an object");
		return -EINVAL;
	}
	return json_read_members(json, members, nr_members, ret, why, why_bytes);
}

int
overlays_read(const json_t *list, const char *offset_name, struct overlay_request *ret, char *why,
    size_t why_bytes)
{
	const struct json_member members[] = {
	    {offset_name, JSON_KIND_U64, true, offsetof(struct overlay_request, offset), 0,
		MAX_IMAGE_BYTES},
	    {"path", JSON_KIND_TEXT, true, offsetof(struct overlay_request, path), 1,
		MAX_PATH_BYTES},
	};
	char what[192];
	size_t i;
	const json_t *json;

	if (json_array_size(list) > OVERLAY_MAX) {
		snprintf(why, why_bytes, "%zu overlays are more than %u, which is the limit",
		    json_array_size(list), OVERLAY_MAX);
		return -EINVAL;
	}
	json_array_foreach(list, i, json)
	{
		int r = read_one(json, members, LENGTH(members), &ret[i], what, sizeof(what));

		if (r < 0)
			return blame(i, what, why, why_bytes);
	}
	return 0;
}

json_t *
overlays_json(const struct overlays *overlays)
{
	json_t *list = json_array();

	for (size_t i = 0; i < overlays->nr; i++) {
		const struct overlay_file *file = &overlays->files[i];
		json_t *json = json_object();

		json_put_u64(json, "offset", file->offset);
		json_put_u64(json, "bytes", file->bytes);
		json_put_text(json, "path", file->path);
		json_array_append_new(list, json);
	}
	return list;
}

void
overlays_put_file(json_t *json, const char *name, const struct overlays *overlays)
{
	char file[40]; /* JSON's integers are too small for these two */

	snprintf(file, sizeof(file), "%" PRIx64 ":%" PRIx64, overlays->dev, overlays->ino);
	json_put_text(json, name, file);
}

/* In a record. */
struct loaded {
	uint64_t offset, bytes;
	const char *path;
};

static const struct json_member loaded_members[] = {
    {"offset", JSON_KIND_U64, true, offsetof(struct loaded, offset), 0, MAX_IMAGE_BYTES},
    {"bytes", JSON_KIND_U64, true, offsetof(struct loaded, bytes), 1, OVERLAY_MAX_BYTES},
    {"path", JSON_KIND_TEXT, true, offsetof(struct loaded, path), 0, MAX_PATH_BYTES},
};

static int
load_all(const json_t *list, struct overlays *ret, char *why, size_t why_bytes)
{
	const json_t *json;
	char what[192];
	size_t i;

	ret->files = xcalloc(json_array_size(list), sizeof(ret->files[0]));
	json_array_foreach(list, i, json)
	{
		struct loaded loaded = {0};
		int r = read_one(
		    json, loaded_members, LENGTH(loaded_members), &loaded, what, sizeof(what));

		if (r < 0)
			return blame(i, what, why, why_bytes);
		ret->files[i] =
		    (struct overlay_file){loaded.offset, loaded.bytes, xstrdup(loaded.path)};
		ret->nr = i + 1;
	}
	return 0;
}

int
overlays_load(
    const json_t *list, const char *file, struct overlays *ret, char *why, size_t why_bytes)
{
	int end = 0, r;

	*ret = (struct overlays){.fd = -1};
	if (json_array_size(list) == 0)
		return 0;
	if (json_array_size(list) > OVERLAY_MAX || file == NULL ||
	    sscanf(file, "%" SCNx64 ":%" SCNx64 "%n", &ret->dev, &ret->ino, &end) != 2 ||
	    file[end] != '\0') {
		snprintf(why, why_bytes, "\"overlays\" or \"overlays_file\" makes no sense");
		return -EINVAL;
	}
	r = load_all(list, ret, why, why_bytes);
	if (r < 0)
		overlays_free(ret);
	return r;
}
