/* SPDX-License-Identifier: Apache-2.0 */
/* The memfd of overlays: what it holds, what seals it has, and that a table which somebody
 * else made is believed only when it is what we would have made. */
#include "common/overlay.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/pagemap.h"
#include "common/scope.h"
#include "tests/unit/tap.h"

#define IMAGE_BYTES (UINT64_C(64) << 20)
#define SEALS	    (F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE | F_SEAL_SEAL)
#define LENGTH(a)   (sizeof(a) / sizeof((a)[0]))

static int
file_of(uint64_t bytes, unsigned char byte)
{
	int fd = memfd_create("overlay", MFD_CLOEXEC);

	if (fd < 0 || ftruncate(fd, (off_t)bytes) < 0)
		abort();
	for (uint64_t at = 0; at < bytes; at += PAGE_BYTES)
		if (pwrite(fd, &byte, 1, (off_t)at) != 1)
			abort();
	if (bytes > 0 && pwrite(fd, &byte, 1, (off_t)bytes - 1) != 1)
		abort();
	return fd;
}

static int
create(struct overlay_row *rows, uint32_t nr, int *ret_fd)
{
	int fds[OVERLAY_MAX + 1] = {0}, r;

	for (uint32_t i = 0; i < nr; i++)
		fds[i] = file_of(rows[i].bytes, (unsigned char)(i + 1));
	*ret_fd = -1;
	r = overlay_create(rows, fds, nr, IMAGE_BYTES, ret_fd);
	for (uint32_t i = 0; i < nr; i++)
		fd_closep(&fds[i]);
	return r;
}

static void
test_good(void)
{
	struct overlay_row rows[] = {{0, 1, 0}, {4096, 8192, 0}, {16384, 5000, 0}};
	struct overlay_table table;
	scoped_fd int fd = -1;

	is_int(create(rows, 3, &fd), 0, "three overlays");
	ok((fcntl(fd, F_GET_SEALS) & SEALS) == SEALS, "are sealed");
	ok(pwrite(fd, "x", 1, 4096) < 0 && ftruncate(fd, 0) < 0, "cannot be changed");
	is_int(overlay_map(&table, fd, IMAGE_BYTES), 0, "can be mapped");
	ok(table.nr == 3 && memcmp(table.rows, rows, sizeof(rows)) == 0, "with the same table");
	ok(table.base[rows[0].data_at] == 1 && table.base[rows[1].data_at] == 2 &&
		table.base[rows[1].data_at + 8191] == 2 && table.base[rows[2].data_at] == 3 &&
		table.base[rows[2].data_at + 4999] == 3,
	    "and the bytes of each");
	ok(rows[0].data_at % PAGE_BYTES == 0 && rows[1].data_at % PAGE_BYTES == 0 &&
		rows[2].data_at % PAGE_BYTES == 0,
	    "which begin with a page");
	overlay_unmap(&table);
	ok(table.base == NULL && table.nr == 0, "nothing is left of it");
	is_int(
	    overlay_map(&table, fd, 16384 + 4999), -EPROTO, "an image that is too small for them");
	is_int(overlay_map(&table, fd, 16384 + 5000), 0, "one that is just large enough");
	overlay_unmap(&table);
}

static void
test_bad_rows(void)
{
	static const struct {
		struct overlay_row rows[2];
		uint32_t nr;
		const char *what;
	} cases[] = {
	    {{{0}}, 0, "none"},
	    {{{0, 0, 0}}, 1, "an empty one"},
	    {{{1, 1, 0}}, 1, "one that begins within a page"},
	    {{{IMAGE_BYTES, 1, 0}}, 1, "one behind the image"},
	    {{{UINT64_C(1) << 63, 1, 0}}, 1, "one far behind the image"},
	    {{{IMAGE_BYTES - 4096, 4097, 0}}, 1, "one that reaches beyond it"},
	    {{{0, OVERLAY_MAX_BYTES + 1, 0}}, 1, "one that is too large"},
	    {{{0, OVERLAY_MAX_BYTES, 0}, {IMAGE_BYTES - 4096, 1, 0}}, 2, "too much together"},
	    {{{0, 4097, 0}, {4096, 1, 0}}, 2, "one over the other"},
	    {{{4096, 1, 0}, {4096, 1, 0}}, 2, "two in one place"},
	    {{{4096, 1, 0}, {0, 1, 0}}, 2, "not in their order"},
	};

	for (size_t i = 0; i < LENGTH(cases); i++) {
		struct overlay_row rows[2] = {cases[i].rows[0], cases[i].rows[1]};
		scoped_fd int fd = -1;

		is_int(create(rows, cases[i].nr, &fd), -EINVAL, "%s", cases[i].what);
	}
}

static void
test_limits(void)
{
	struct overlay_row rows[OVERLAY_MAX + 1];
	struct overlay_table table;
	scoped_fd int fd = -1, large = -1;

	for (uint32_t i = 0; i <= OVERLAY_MAX; i++)
		rows[i] = (struct overlay_row){
		    i * 2 * PAGE_BYTES, OVERLAY_MAX_BYTES / OVERLAY_MAX / 16, 0};
	is_int(create(rows, OVERLAY_MAX + 1, &fd), -EINVAL, "one too many");
	is_int(create(rows, OVERLAY_MAX, &fd), 0, "as many as there may be");
	is_int(overlay_map(&table, fd, IMAGE_BYTES), 0, "are mapped");
	is_int(table.nr, OVERLAY_MAX, "all of them");
	overlay_unmap(&table);
	rows[0] = (struct overlay_row){0, OVERLAY_MAX_BYTES, 0};
	is_int(create(rows, 1, &large), 0, "as large as there may be");
	is_int(overlay_map(&table, large, IMAGE_BYTES), 0, "is mapped");
	ok(table.base[table.rows[0].data_at + OVERLAY_MAX_BYTES - 1] == 1, "to its end");
	overlay_unmap(&table);
}

static void
test_short_file(void)
{
	struct overlay_row row = {0, 8192, 0};
	scoped_fd int file = file_of(8191, 1), fd = -1;

	is_int(overlay_create(&row, &file, 1, IMAGE_BYTES, &fd), -EBUSY,
	    "a file that became shorter since it was looked at");
	ok(fd == -1, "leaves nothing");
}

/* --- Tables of others ------------------------------------------------------------ */

/* What an attacker may write: bytes is the size of the file, seals what is sealed. */
static int
forge(const struct overlay_header *header, uint64_t bytes, unsigned seals)
{
	int fd = memfd_create("forged", MFD_CLOEXEC | MFD_ALLOW_SEALING);

	if (fd < 0 || ftruncate(fd, (off_t)bytes) < 0)
		abort();
	if (bytes >= sizeof(*header) &&
	    pwrite(fd, header, sizeof(*header), 0) != (ssize_t)sizeof(*header))
		abort();
	if (fcntl(fd, F_ADD_SEALS, seals) < 0)
		abort();
	return fd;
}

static const struct overlay_header good = {
    .magic = OVERLAY_MAGIC,
    .layout = OVERLAY_LAYOUT,
    .nr = 2,
    .rows = {{4096, 100, 4096}, {8192, 4097, 8192}},
};

#define GOOD_BYTES (8192 + 8192)

static int
map_forged(const struct overlay_header *header, uint64_t bytes, unsigned seals)
{
	scoped_fd int fd = forge(header, bytes, seals);
	struct overlay_table table;
	int r = overlay_map(&table, fd, IMAGE_BYTES);

	if (r < 0 && (table.base != NULL || table.nr != 0))
		abort();
	overlay_unmap(&table);
	return r;
}

static void
test_seals_and_sizes(void)
{
	static const unsigned seals[] = {F_SEAL_SHRINK, F_SEAL_GROW, F_SEAL_WRITE};
	scoped_fd int pipe_end = -1, file = file_of(GOOD_BYTES, 1);
	struct overlay_table table;
	int fds[2];

	is_int(map_forged(&good, GOOD_BYTES, SEALS), 0, "one that somebody else made as we do");
	for (size_t i = 0; i < LENGTH(seals); i++)
		is_int(map_forged(&good, GOOD_BYTES, SEALS & ~seals[i]), -EPROTO,
		    "one without the seal 0x%x", seals[i]);
	is_int(map_forged(&good, GOOD_BYTES, SEALS & ~(unsigned)F_SEAL_SEAL), -EPROTO,
	    "one that could be sealed more");
	is_int(map_forged(&good, GOOD_BYTES - 4096, SEALS), -EPROTO, "a page less");
	is_int(map_forged(&good, GOOD_BYTES - 1, SEALS), -EPROTO, "a byte less");
	is_int(map_forged(&good, GOOD_BYTES + 4096, SEALS), -EPROTO, "a page more");
	is_int(map_forged(&good, OVERLAY_HEADER_BYTES, SEALS), -EPROTO, "the table alone");
	is_int(map_forged(&good, 0, SEALS), -EPROTO, "nothing");
	is_int(map_forged(&good, UINT64_C(1) << 40, SEALS), -EPROTO, "a terabyte");
	is_int(overlay_map(&table, file, IMAGE_BYTES), -EPROTO, "a file without seals");
	if (pipe(fds) < 0)
		abort();
	pipe_end = fds[0];
	close(fds[1]);
	is_int(overlay_map(&table, pipe_end, IMAGE_BYTES), -EPROTO, "a pipe");
	is_int(overlay_map(&table, -1, IMAGE_BYTES), -EPROTO, "nothing at all");
}

static void
test_hostile_tables(void)
{
#define WITH(change, what)                                                      \
	do {                                                                    \
		struct overlay_header h = good;                                 \
		change;                                                         \
		is_int(map_forged(&h, GOOD_BYTES, SEALS), -EPROTO, "%s", what); \
	} while (0)
	WITH(h.magic++, "another magic");
	WITH(h.layout++, "another layout");
	WITH(h.nr = 0, "no row");
	WITH(h.nr = 1, "a row less than there are bytes for");
	WITH(h.nr = OVERLAY_MAX + 1, "more rows than there may be");
	WITH(h.nr = UINT32_MAX, "rows without end");
	WITH(h.rows[0].data_at = 0, "bytes in the table");
	WITH(h.rows[0].data_at = 8192, "bytes of another row");
	WITH(h.rows[1].data_at = GOOD_BYTES, "bytes behind the file");
	WITH(h.rows[1].data_at = UINT64_MAX, "bytes nowhere");
	WITH(h.rows[1].offset = 4096, "a row over another");
	WITH(h.rows[1].offset = 8193, "a row within a page");
	WITH(h.rows[1].offset = IMAGE_BYTES, "a row behind the image");
	WITH(h.rows[1].offset = UINT64_MAX - 4095, "a row at the end of all numbers");
	WITH(h.rows[1].bytes = 0, "a row of nothing");
	WITH(h.rows[1].bytes = 8193, "a row of more than there is");
	WITH(h.rows[1].bytes = 4096, "a row of less than there is");
	WITH(h.rows[1].bytes = UINT64_MAX, "a row of everything");
	WITH(h.rows[1].bytes = UINT64_MAX - 8191, "a row that wraps around");
#undef WITH
}

int
main(void)
{
	test_good();
	test_bad_rows();
	test_limits();
	test_short_file();
	test_seals_and_sizes();
	test_hostile_tables();
	return done();
}
