/* SPDX-License-Identifier: Apache-2.0 */
/* The record of a template: what is accepted can be written and is read as the same again,
 * what is refused says why and owns nothing. */
#include <stdlib.h>
#include <string.h>

#include "supervisor/json.h"
#include "supervisor/template_impl.h"

#define NAME "web-1.2_x"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void
expect(int held)
{
	if (!held)
		abort();
}

static int
is_same(const char *a, const char *b)
{
	return a && b ? strcmp(a, b) == 0 : a == b;
}

static void
check(const struct template *t)
{
	expect(strcmp(t->name, NAME) == 0);
	expect(t->state == TEMPLATE_REGISTERED || t->state == TEMPLATE_PROMOTED);
	expect(t->spec.image_path[0] == '/' && json_text_is_printable(t->spec.image_path));
	expect(strlen(t->spec.image_path) < TEMPLATE_MAX_PATH_BYTES);
	expect(!t->spec.cache_key ||
	    (t->spec.cache_key[0] && strlen(t->spec.cache_key) < SESSION_ID_BYTES));
	expect(!t->spec.hot_list || t->spec.hot_list[0] == '/');
	expect(t->image.bytes > 0 && t->image.mtime_ns >= 0);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct template t = {0}, again = {0};
	char why[512] = "", *text;

	if (template_decode((const char *)data, size, NAME, &t, why, sizeof(why)) < 0) {
		expect(why[0] != '\0' && !t.spec.image_path && !t.spec.cache_key);
		return 0;
	}
	check(&t);
	text = template_encode(&t);
	expect(text != NULL);
	expect(template_decode(text, strlen(text), NAME, &again, why, sizeof(why)) == 0);
	expect(again.state == t.state && memcmp(&again.image, &t.image, sizeof(t.image)) == 0 &&
	    again.spec.prefetch == t.spec.prefetch &&
	    is_same(again.spec.image_path, t.spec.image_path) &&
	    is_same(again.spec.cache_key, t.spec.cache_key) &&
	    is_same(again.spec.hot_list, t.spec.hot_list));
	free(text);
	template_spec_fini(&t.spec);
	template_spec_fini(&again.spec);
	return 0;
}
