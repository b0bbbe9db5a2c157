/* SPDX-License-Identifier: Apache-2.0 */
/* The record of a template: pure. */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/pagemap.h"
#include "common/xalloc.h"
#include "supervisor/json.h"
#include "supervisor/template_impl.h"

#define LAYOUT 1U

#define LENGTH(array) (sizeof(array) / sizeof((array)[0]))

struct parsed {
	const char *name, *state, *image, *ino, *cache_key, *hot_list, *prefetch;
	uint64_t layout, bytes, mtime_ns;
};

/* clang-format off */
#define MEMBER(name, kind, required, member, min, max) \
	{ name, JSON_KIND_##kind, required, offsetof(struct parsed, member), min, max }
static const struct json_member members[] = {
	MEMBER("layout", U64, true, layout, LAYOUT, LAYOUT),
	MEMBER("name", TEXT, true, name, 1, TEMPLATE_NAME_BYTES - 1),
	MEMBER("state", TEXT, true, state, 1, 32),
	MEMBER("image", TEXT, true, image, 1, TEMPLATE_MAX_PATH_BYTES - 1),
	MEMBER("image_bytes", U64, true, bytes, 1, PAGEMAP_MAX_PAGES * PAGE_BYTES),
	MEMBER("image_ino", TEXT, true, ino, 1, 16),
	MEMBER("image_mtime_ns", U64, true, mtime_ns, 0, INT64_MAX),
	MEMBER("cache_key", TEXT, false, cache_key, 1, SESSION_ID_BYTES - 1),
	MEMBER("hot_list", TEXT, false, hot_list, 1, TEMPLATE_MAX_PATH_BYTES - 1),
	MEMBER("prefetch", TEXT, true, prefetch, 1, 16),
};
/* clang-format on */

char *
template_encode(const struct template *template)
{
	json_t *json = json_object();
	char ino[17]; /* JSON's integers are too small for it */
	char *text;

	snprintf(ino, sizeof(ino), "%" PRIx64, template->image.ino);
	json_put_u64(json, "layout", LAYOUT);
	json_put_text(json, "name", template->name);
	json_put_text(json, "state", template_state_word(template->state));
	json_put_text(json, "image", template->spec.image_path);
	json_put_u64(json, "image_bytes", template->image.bytes);
	json_put_text(json, "image_ino", ino);
	json_put_u64(json, "image_mtime_ns",
	    template->image.mtime_ns < 0 ? 0 : (uint64_t) template->image.mtime_ns);
	if (template->spec.cache_key)
		json_put_text(json, "cache_key", template->spec.cache_key);
	if (template->spec.hot_list)
		json_put_text(json, "hot_list", template->spec.hot_list);
	json_put_text(json, "prefetch", prefetch_mode_word(template->spec.prefetch));
	text = json_dumps(json, JSON_INDENT(1));
	json_decref(json);
	return text;
}

static int
wrong(char *why, size_t why_bytes, const char *what)
{
	snprintf(why, why_bytes, "%s", what);
	return -EINVAL;
}

static int
read_state(const char *word, enum template_state *ret)
{
	static const enum template_state kept[] = {TEMPLATE_REGISTERED, TEMPLATE_PROMOTED};

	for (size_t i = 0; i < LENGTH(kept); i++)
		if (strcmp(word, template_state_word(kept[i])) == 0) {
			*ret = kept[i];
			return 0;
		}
	return -EINVAL;
}

/* As it is written, so that each record has one text. */
static int
read_ino(const char *text, uint64_t *ret)
{
	char again[17], *end;

	*ret = strtoull(text, &end, 16);
	snprintf(again, sizeof(again), "%" PRIx64, *ret);
	return strcmp(text, again) == 0 ? 0 : -EINVAL;
}

static int
fill(const struct parsed *p, const char *name, struct template *ret, char *why, size_t why_bytes)
{
	if (strcmp(p->name, name) != 0)
		return wrong(why, why_bytes, "it is of another template");
	if (read_state(p->state, &ret->state) < 0)
		return wrong(why, why_bytes, "\"state\" is none that a record has");
	if (read_ino(p->ino, &ret->image.ino) < 0)
		return wrong(why, why_bytes, "\"image_ino\" is no inode");
	if (!prefetch_mode_read(p->prefetch, &ret->spec.prefetch))
		return wrong(why, why_bytes, "\"prefetch\" is no mode");
	if (p->image[0] != '/' || (p->hot_list && p->hot_list[0] != '/'))
		return wrong(why, why_bytes, "\"image\" or \"hot_list\" is not absolute");
	snprintf(ret->name, sizeof(ret->name), "%s", name);
	ret->image.bytes = p->bytes;
	ret->image.mtime_ns = (int64_t)p->mtime_ns;
	ret->spec.image_path = xstrdup(p->image);
	ret->spec.cache_key = p->cache_key ? xstrdup(p->cache_key) : NULL;
	ret->spec.hot_list = p->hot_list ? xstrdup(p->hot_list) : NULL;
	return 0;
}

int
template_decode(const char *text, size_t bytes, const char *name, struct template *ret, char *why,
    size_t why_bytes)
{
	struct parsed parsed = {0};
	json_t *json = NULL;
	int r = json_parse_object(text, bytes, &json, why, why_bytes);

	if (r < 0)
		return r;
	r = json_read_members(json, members, LENGTH(members), &parsed, why, why_bytes);
	if (r == 0)
		r = fill(&parsed, name, ret, why, why_bytes);
	json_decref(json);
	return r;
}
