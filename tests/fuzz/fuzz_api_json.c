/* SPDX-License-Identifier: Apache-2.0 */
/* Bodies of POST /sessions and PATCH /config: what is accepted is in range and can be
 * written again, what is refused has changed nothing. */
#include <stdlib.h>
#include <string.h>

#include "common/log.h"
#include "supervisor/api_config.h"
#include "supervisor/compat_api.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void
expect(int held)
{
	if (!held)
		abort();
}

static void
expect_name(const char *name, size_t max)
{
	expect(!name || (*name && strlen(name) <= max && json_text_is_printable(name)));
}

static void
expect_cluster(uint64_t bytes)
{
	expect(bytes == 0 || (bytes >= 4096 && bytes <= 2097152 && (bytes & (bytes - 1)) == 0));
}

static void
check(const struct api_create *create)
{
	json_t *json = json_object();
	char *text;

	expect(create->session.image_path != NULL);
	expect_name(create->session.image_path, 4095);
	expect_name(create->session.id, SESSION_ID_BYTES - 1);
	expect_name(create->session.instance, SESSION_ID_BYTES - 1);
	expect_name(create->session.cache_key, SESSION_ID_BYTES - 1);
	expect(create->vmm_uid < UINT32_MAX || create->vmm_uid == UINT64_MAX);
	expect(create->vmm_gid < UINT32_MAX || create->vmm_gid == UINT64_MAX);
	expect(create->session.handshake_timeout_ms <= 3600000);
	expect_cluster(create->session.cluster_min_bytes);
	expect_cluster(create->session.cluster_max_bytes);
	json_put_text(json, "image", create->session.image_path);
	text = json_dumps(json, JSON_COMPACT);
	expect(text != NULL && json_object_size(json) == 1);
	free(text);
	json_decref(json);
}

static char *
dump(const struct options *options)
{
	char *text = NULL;
	size_t bytes = 0;
	FILE *out = open_memstream(&text, &bytes);

	if (!out)
		abort();
	options_dump(options, out);
	fclose(out);
	return text;
}

/* As PATCH /config: a refusal says why and changes nothing. */
static void
check_config(json_t *json)
{
	char why[API_WHY_BYTES] = "";
	struct api_config config;
	struct options options;
	char *before, *after;
	int r;

	log_set_level(LOG_LEVEL_ERR);
	options_init(&options);
	before = dump(&options);
	r = api_config_read(json, &config, why, sizeof(why));
	if (r == 0) {
		expect(config.nr == json_object_size(json));
		r = options_change(&options, config.changes, config.nr, why, sizeof(why));
	}
	after = dump(&options);
	expect(r == 0 || (why[0] != '\0' && strcmp(before, after) == 0));
	free(before);
	free(after);
	options_fini(&options);
}

/* As POST /sessions on the socket of a version. */
static void
check_compat(const json_t *json)
{
	char why[API_WHY_BYTES] = "";
	struct compat_create create;

	if (compat_create_read(json, &create, why, sizeof(why)) < 0) {
		expect(why[0] != '\0');
		return;
	}
	expect(create.id && create.id[strspn(create.id, " ")] != '\0');
	expect(create.image_path[strspn(create.image_path, " ")] != '\0');
	expect(create.cache_key[strspn(create.cache_key, " ")] != '\0');
	expect(create.nr_overlays <= OVERLAY_MAX);
	for (size_t i = 0; i < create.nr_overlays; i++)
		expect(json_text_is_printable(create.overlays[i].path));
	expect(json_text_is_printable(create.id) && json_text_is_printable(create.image_path) &&
	    json_text_is_printable(create.cache_key));
}

/* What answers of ours are like: not deep, and without fractions. */
static bool
is_ours(json_t *json, unsigned depth)
{
	const char *name;
	json_t *value;
	size_t i;

	if ((json_is_object(json) || json_is_array(json)) && depth == 32)
		return false;
	json_object_foreach(json, name, value)
	{
		if (!is_ours(value, depth + 1))
			return false;
	}
	json_array_foreach(json, i, value)
	{
		if (!is_ours(value, depth + 1))
			return false;
	}
	return !json_is_real(json);
}

/* Our text is jansson's, as far as we write any. */
static void
check_text(json_t *json)
{
	struct json_text text = {0};
	char *want = json_dumps(json, JSON_COMPACT);

	json_text_put(&text, json_incref(json));
	expect(want != NULL && text.failed == !is_ours(json, 0));
	expect(
	    text.failed || (text.used == strlen(want) && memcmp(text.text, want, text.used) == 0));
	free(text.text);
	free(want);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	char why[API_WHY_BYTES] = "";
	struct api_create create;
	json_t *json, *any = json_object();
	char *text = malloc(size + 1), *out;

	if (!text)
		abort();
	memcpy(text, data, size);
	text[size] = '\0';
	/* Any bytes at all can be said in an answer. */
	json_put_text(any, "error", text);
	out = json_dumps(any, JSON_COMPACT);
	expect(out != NULL && json_object_size(any) == 1);
	free(out);
	json_decref(any);
	free(text);
	if (json_parse_object((const char *)data, size, &json, why, sizeof(why)) < 0) {
		expect(why[0] != '\0');
		return 0;
	}
	if (api_create_read(json, &create, why, sizeof(why)) == 0)
		check(&create);
	else
		expect(why[0] != '\0');
	check_text(json);
	check_config(json);
	check_compat(json);
	json_decref(json);
	return 0;
}
