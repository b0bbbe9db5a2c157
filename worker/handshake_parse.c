/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <inttypes.h>
#include <jansson.h>
#include <string.h>
#include <sys/random.h>

#include "worker/handshake.h"
#include "worker/reason.h"

#define refuse(reason, ...) reason_set((reason), HANDSHAKE_REASON_BYTES, __VA_ARGS__)

/* Left to itself, jansson opens /dev/urandom at its first object, which the sandbox
 * forbids, and falls back to the time, which a hostile peer can guess. */
static void
seed_hashes(void)
{
	static bool done;
	uint32_t seed = 0;

	if (done)
		return;
	while (seed == 0)
		if (getrandom(&seed, sizeof(seed), GRND_NONBLOCK) != (ssize_t)sizeof(seed))
			seed = 1; /* before the kernel has entropy: early boot */
	json_object_seed(seed);
	done = true;
}

/* 1 when found, 0 when absent, or -EINVAL and a reason. */
static int
get_u64(const json_t *object, size_t i, const char *name, uint64_t *ret, char *reason)
{
	const json_t *value = json_object_get(object, name);

	if (value == NULL)
		return 0;
	if (!json_is_integer(value))
		return refuse(reason, "region %zu: %s is not an integer", i, name);
	if (json_integer_value(value) < 0)
		return refuse(reason, "region %zu: %s is negative: %" JSON_INTEGER_FORMAT, i, name,
		    json_integer_value(value));
	*ret = (uint64_t)json_integer_value(value);
	return 1;
}

static int
need_u64(const json_t *object, size_t i, const char *name, uint64_t *ret, char *reason)
{
	int found = get_u64(object, i, name, ret, reason);

	if (found == 0)
		return refuse(reason, "region %zu: %s is missing", i, name);
	return found < 0 ? found : 0;
}

static int
parse_region(const json_t *object, size_t i, struct region *ret, char *reason)
{
	uint64_t page_size = 0;
	uint64_t page_size_kib = 0; /* bytes, despite the name */
	int has_size;
	int has_kib;

	if (!json_is_object(object))
		return refuse(reason, "region %zu: not an object", i);
	if (need_u64(object, i, "base_host_virt_addr", &ret->host_addr, reason) < 0 ||
	    need_u64(object, i, "size", &ret->size_bytes, reason) < 0 ||
	    need_u64(object, i, "offset", &ret->offset, reason) < 0)
		return -EINVAL;
	has_size = get_u64(object, i, "page_size", &page_size, reason);
	if (has_size < 0)
		return has_size;
	has_kib = get_u64(object, i, "page_size_kib", &page_size_kib, reason);
	if (has_kib < 0)
		return has_kib;
	if (has_size && has_kib && page_size != page_size_kib)
		return refuse(reason,
		    "region %zu: page_size %" PRIu64 " and page_size_kib %" PRIu64
		    " disagree (both are in bytes)",
		    i, page_size, page_size_kib);
	/* Firecracker 1.1 to 1.6 sends neither. */
	ret->page_bytes = has_size ? page_size : has_kib ? page_size_kib : PAGE_BYTES;
	return 0;
}

static int
parse_root(const json_t *root, struct region *r, uint32_t *ret_nr, char *reason)
{
	const json_t *array = json_is_array(root) ? root : json_object_get(root, "mappings");
	size_t n;

	if (!json_is_array(array))
		return refuse(reason, "neither an array of regions nor {\"mappings\": [...]}");
	n = json_array_size(array);
	if (n == 0)
		return refuse(reason, "no region: the array is empty");
	if (n > PAGEMAP_MAX_REGIONS)
		return refuse(reason, "%zu regions; at most %u are served", n, PAGEMAP_MAX_REGIONS);
	for (size_t i = 0; i < n; i++)
		if (parse_region(json_array_get(array, i), i, &r[i], reason) < 0)
			return -EINVAL;
	*ret_nr = (uint32_t)n;
	return 0;
}

int
handshake_parse(const char *json, size_t n, struct region *r, uint32_t *ret_nr, char *reason)
{
	json_error_t error;
	json_t *root;
	int rc;

	seed_hashes();
	root = json_loadb(json, n, JSON_REJECT_DUPLICATES, &error);
	if (root == NULL && json_error_code(&error) == json_error_numeric_overflow)
		return refuse(reason,
		    "a number is out of range (an address, size or offset is below 2^63): "
		    "%s, byte %d",
		    error.text, error.position);
	if (root == NULL)
		return refuse(reason, "not JSON: %s, byte %d", error.text, error.position);
	rc = parse_root(root, r, ret_nr, reason);
	json_decref(root);
	return rc;
}
