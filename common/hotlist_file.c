/* SPDX-License-Identifier: Apache-2.0 */
/* The file of a hot list.  Anybody may have written it: nothing in it is believed, and what
 * is accepted is what hotlist_encode() would have made. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/hotlist.h"
#include "common/leb128.h"
#include "common/scope.h"

#define MAGIC	       "pagerhot"
#define VERSION	       1U
#define HEADER_BYTES   56U
#define CHECKSUM_BYTES 8U

enum {
	AT_VERSION = 8,
	AT_RUNS_AT = 12,
	AT_IMAGE = 16,
	AT_MTIME = 24,
	AT_PAGES = 32,
	AT_RUNS = 40,
	AT_KEY = 48,
	AT_ZERO = 52
};

static void
put(unsigned char *at, uint64_t value, size_t bytes)
{
	for (size_t i = 0; i < bytes; i++)
		at[i] = (unsigned char)(value >> (8 * i));
}

static uint64_t
get(const unsigned char *at, size_t bytes)
{
	uint64_t value = 0;

	for (size_t i = 0; i < bytes; i++)
		value |= (uint64_t)at[i] << (8 * i);
	return value;
}

uint64_t
hotlist_checksum(const unsigned char *bytes, size_t nr_bytes)
{
	uint64_t sum = UINT64_C(0xcbf29ce484222325);

	for (size_t i = 0; i < nr_bytes; i++)
		sum = (sum ^ bytes[i]) * UINT64_C(0x100000001b3);
	return sum;
}

/* Small distances are small numbers in both directions. */
static uint64_t
zigzag(int64_t value)
{
	return (uint64_t)value << 1 ^ (value < 0 ? UINT64_MAX : 0);
}

static int64_t
unzigzag(uint64_t value)
{
	return (int64_t)(value >> 1 ^ ((value & 1) != 0 ? UINT64_MAX : 0));
}

/* --- Out -------------------------------------------------------------------------- */

static void
put_header(unsigned char *at, const struct hotlist *list, size_t key_bytes)
{
	memcpy(at, MAGIC, 8);
	put(at + AT_VERSION, VERSION, 4);
	put(at + AT_RUNS_AT, HEADER_BYTES + key_bytes, 4);
	put(at + AT_IMAGE, list->image.bytes, 8);
	put(at + AT_MTIME, (uint64_t)list->image.mtime_ns, 8);
	put(at + AT_PAGES, list->nr_pages, 8);
	put(at + AT_RUNS, list->nr_runs, 8);
	put(at + AT_KEY, key_bytes, 4);
	put(at + AT_ZERO, 0, 4);
	memcpy(at + HEADER_BYTES, list->image.key, key_bytes);
}

int
hotlist_encode(const struct hotlist *list, unsigned char **ret, size_t *ret_bytes)
{
	size_t key_bytes = strlen(list->image.key), used = HEADER_BYTES + key_bytes;
	size_t most = used + list->nr_runs * 2 * LEB128_MAX_BYTES + CHECKSUM_BYTES;
	unsigned char *bytes = malloc(most);
	uint64_t end = 0;

	if (bytes == NULL)
		return -ENOMEM;
	put_header(bytes, list, key_bytes);
	for (size_t i = 0; i < list->nr_runs; i++) {
		const struct hotlist_run *run = &list->runs[i];

		used += leb128_put(bytes + used, zigzag((int64_t)run->first - (int64_t)end));
		used += leb128_put(bytes + used, run->nr - 1);
		end = (uint64_t)run->first + run->nr;
	}
	put(bytes + used, hotlist_checksum(bytes, used), CHECKSUM_BYTES);
	*ret = bytes;
	*ret_bytes = used + CHECKSUM_BYTES;
	return 0;
}

/* --- In --------------------------------------------------------------------------- */

struct reader {
	struct hotlist *list;
	const unsigned char *at, *end; /* of what is left of the runs */
	const char *why;
};

static int
wrong(struct reader *reader, const char *why)
{
	reader->why = why;
	return -EINVAL;
}

static int
read_key(struct reader *reader, const unsigned char *bytes, size_t nr_bytes)
{
	uint64_t key_bytes = get(bytes + AT_KEY, 4);
	char *key = reader->list->image.key;

	if (key_bytes >= HOTLIST_KEY_BYTES || key_bytes > nr_bytes - HEADER_BYTES ||
	    get(bytes + AT_RUNS_AT, 4) != HEADER_BYTES + key_bytes)
		return wrong(reader, "its cache key does not fit");
	memcpy(key, bytes + HEADER_BYTES, key_bytes);
	key[key_bytes] = '\0';
	for (size_t i = 0; i < key_bytes; i++) {
		if ((unsigned char)key[i] < 0x20 || key[i] == 0x7f)
			return wrong(reader, "its cache key has a control character");
	}
	reader->at = bytes + HEADER_BYTES + key_bytes;
	reader->end = bytes + nr_bytes;
	return 0;
}

static int
read_header(struct reader *reader, const unsigned char *bytes, size_t nr_bytes)
{
	struct hotlist_image *image = &reader->list->image;

	image->bytes = get(bytes + AT_IMAGE, 8);
	image->mtime_ns = (int64_t)get(bytes + AT_MTIME, 8);
	if (image->bytes == 0 || image->bytes > HOTLIST_MAX_PAGES * HOTLIST_PAGE_BYTES)
		return wrong(reader, "no image has the size that it names");
	if (get(bytes + AT_ZERO, 4) != 0)
		return wrong(reader, "its reserved field is not zero");
	return read_key(reader, bytes, nr_bytes);
}

static int
read_run(struct reader *reader, bool is_first, uint64_t *end)
{
	struct hotlist *list = reader->list;
	uint64_t distance, nr, first;
	size_t runs = list->nr_runs;
	int r;

	if (!leb128_get(&reader->at, reader->end, &distance) ||
	    !leb128_get(&reader->at, reader->end, &nr))
		return wrong(reader, "a run is cut short or not in its shortest form");
	if (nr >= UINT32_MAX || distance > HOTLIST_MAX_PAGES * 2)
		return wrong(reader, "a run is beyond the image");
	first = *end + (uint64_t)unzigzag(distance);
	r = hotlist_add(list, first, nr + 1);
	if (r == -EINVAL)
		return wrong(
		    reader, "a run is beyond the image, or there are more pages than it has");
	if (r == 0 && !is_first && list->nr_runs == runs)
		return wrong(reader, "two runs could be one");
	*end = first + nr + 1;
	return r;
}

static int
read_runs(struct reader *reader, uint64_t nr, uint64_t pages)
{
	uint64_t end = 0;
	int r = 0;

	if (nr > HOTLIST_MAX_RUNS || nr > (uint64_t)(reader->end - reader->at) / 2)
		return wrong(reader, "it names more runs than it has");
	for (uint64_t i = 0; i < nr && r == 0; i++)
		r = read_run(reader, i == 0, &end);
	if (r == 0 && reader->at != reader->end)
		return wrong(reader, "there is something behind its last run");
	if (r == 0 && reader->list->nr_pages != pages)
		return wrong(reader, "it has not the number of pages that it names");
	return r;
}

int
hotlist_decode(
    struct hotlist *ret, const unsigned char *bytes, size_t nr_bytes, const char **ret_why)
{
	struct reader reader = {.list = ret};
	size_t body = nr_bytes - CHECKSUM_BYTES;
	int r;

	hotlist_init(ret);
	if (nr_bytes < 8 || memcmp(bytes, MAGIC, 8) != 0)
		r = wrong(&reader, "it is no hot list of pagerd");
	else if (nr_bytes > HOTLIST_MAX_BYTES)
		r = wrong(&reader, "it is larger than any hot list");
	else if (nr_bytes < HEADER_BYTES + CHECKSUM_BYTES)
		r = wrong(&reader, "it is cut short");
	else if (get(bytes + AT_VERSION, 4) != VERSION)
		r = wrong(&reader, "it is of a version that is not known here");
	else if (get(bytes + body, CHECKSUM_BYTES) != hotlist_checksum(bytes, body))
		r = wrong(&reader, "it is damaged: the checksum is wrong");
	else
		r = read_header(&reader, bytes, body);
	if (r == 0)
		r = read_runs(&reader, get(bytes + AT_RUNS, 8), get(bytes + AT_PAGES, 8));
	if (r < 0)
		hotlist_fini(ret);
	*ret_why = reader.why;
	return r;
}

static int
read_all(int fd, unsigned char *bytes, size_t most, size_t *ret)
{
	size_t done = 0;

	while (done < most) {
		ssize_t n = pread(fd, bytes + done, most - done, (off_t)done);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		if (n == 0)
			break;
		done += (size_t)n;
	}
	*ret = done;
	return 0;
}

int
hotlist_read(int fd, unsigned char **ret, size_t *ret_bytes, const char **ret_why)
{
	scoped_free unsigned char *bytes = NULL;
	struct stat st;
	int r;

	*ret_why = "it is larger than any hot list";
	if (fstat(fd, &st) < 0)
		return -errno;
	if (st.st_size < 0 || (uint64_t)st.st_size > HOTLIST_MAX_BYTES)
		return -EINVAL;
	/* One byte more, so that a file that grows meanwhile is not taken for whole. */
	bytes = malloc((size_t)st.st_size + 1);
	if (bytes == NULL)
		return -ENOMEM;
	r = read_all(fd, bytes, (size_t)st.st_size + 1, ret_bytes);
	if (r < 0)
		return r;
	*ret = bytes;
	bytes = NULL;
	return 0;
}
