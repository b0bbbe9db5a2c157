/* SPDX-License-Identifier: Apache-2.0 */
/* Overlays in the worker: which pages are of them, and that faults, reads that wait and
 * completions put them into the guest. */
#include "worker/overlay.h"

#include <errno.h>
#include <sys/mman.h>
#include <unistd.h>

#include "common/fd.h"
#include "common/scope.h"
#include "tests/unit/tap.h"
#include "tests/unit/worker_rig.h"
#include "worker/image.h"
#include "worker/populate.h"

#define NR_PAGES   64U
#define HUGE_BYTES (UINT64_C(2) << 20)
#define MARK	   0xfe /* the byte of every overlay; no page of the image has it */
#define LENGTH(a)  (sizeof(a) / sizeof((a)[0]))

static struct rig rig;

static struct overlay_table *
open_overlays(struct overlay_row *rows, uint32_t nr, uint64_t image_bytes)
{
	struct overlay_table *table = NULL;
	int fds[OVERLAY_MAX], fd = -1;

	for (uint32_t i = 0; i < nr; i++) {
		unsigned char *bytes = malloc(rows[i].bytes);

		if (!bytes)
			abort();
		memset(bytes, MARK, rows[i].bytes);
		fds[i] = memfd_create("overlay", MFD_CLOEXEC);
		if (write(fds[i], bytes, rows[i].bytes) != (ssize_t)rows[i].bytes)
			abort();
		free(bytes);
	}
	if (overlay_create(rows, fds, nr, image_bytes, &fd) < 0 ||
	    overlay_open(fd, image_bytes, &table) < 0)
		abort();
	fd_close_all(fds, nr);
	fd_closep(&fd);
	return table;
}

/* --- Lookups --------------------------------------------------------------------- */

/* "N5 H2": five pages of the image, two of an overlay, from first on, nr at most. */
static const char *
clipped(const struct overlay_table *table, const struct region *region, uint64_t first, uint64_t nr)
{
	static const char letters[] = {
	    [OVERLAY_NONE] = 'N', [OVERLAY_HERE] = 'H', [OVERLAY_PART] = 'P'};
	static char text[256];
	size_t used = 0;

	text[0] = '\0';
	while (nr > 0 && used < sizeof(text) - 32) {
		struct run run = {region, first, nr};
		const void *src = NULL;
		enum overlay_kind kind = overlay_clip(table, &run, &src);

		if (run.nr == 0 || run.nr > nr || (kind == OVERLAY_HERE) != (src != NULL))
			return "nonsense";
		for (uint64_t i = 0; src && i < run_bytes(&run); i++)
			if (((const unsigned char *)src)[i] != MARK)
				return "wrong bytes";
		used += (size_t)snprintf(text + used, sizeof(text) - used, "%s%c%llu",
		    used ? " " : "", letters[kind], (unsigned long long)run.nr);
		first += run.nr;
		nr -= run.nr;
	}
	return text;
}

static void
test_lookups(void)
{
	struct overlay_row rows[] = {{0, 4096, 0}, {4096, 4096, 0}, {5 * 4096, 3 * 4096 + 1, 0},
	    {20 * 4096, 10, 0}, {21 * 4096, 2 * 4096, 0}, {63 * 4096, 4096, 0}};
	struct region region = {.size_bytes = NR_PAGES * RIG_PAGE, .page_bytes = RIG_PAGE};
	struct region late = {
	    .size_bytes = 32 * RIG_PAGE, .offset = 32 * RIG_PAGE, .page_bytes = RIG_PAGE};
	struct overlay_table *table = open_overlays(rows, LENGTH(rows), NR_PAGES * RIG_PAGE);

	is_str(clipped(table, &region, 0, NR_PAGES), "H1 H1 N3 H3 P1 N11 P1 H2 N40 H1",
	    "all of an image");
	is_str(clipped(table, &region, 2, 3), "N3", "between two");
	is_str(clipped(table, &region, 4, 2), "N1 H1", "into one");
	is_str(clipped(table, &region, 6, 1), "H1", "a page in the middle of one");
	is_str(clipped(table, &region, 7, 3), "H1 P1 N1", "out of one");
	is_str(clipped(table, &region, 23, 40), "N40", "up to one");
	is_str(clipped(table, &late, 0, 32), "N31 H1", "a region that begins later in the image");
	overlay_close(table);
}

static void
test_huge_lookups(void)
{
	struct overlay_row rows[] = {{HUGE_BYTES - 4096, 8192, 0}, {3 * HUGE_BYTES, HUGE_BYTES, 0},
	    {5 * HUGE_BYTES + 8192, 1, 0}};
	struct region region = {.size_bytes = 8 * HUGE_BYTES, .page_bytes = HUGE_BYTES};
	struct overlay_table *table = open_overlays(rows, LENGTH(rows), 8 * HUGE_BYTES);

	is_str(clipped(table, &region, 0, 8), "P1 P1 N1 H1 N1 P1 N2",
	    "huge pages: a part, all and nothing");
	overlay_close(table);
}

static void
test_reads(void)
{
	struct overlay_row rows[] = {
	    {0, 4096, 0}, {2 * 4096, 10, 0}, {4 * 4096, 4097, 0}, {7 * 4096, 50, 0}};
	static unsigned char buf[8 * RIG_PAGE];
	unsigned wrong = 0;

	rig_open(&rig, NR_PAGES);
	int fd = rig_file(NULL, 8);
	rig_cut(fd, 7 * RIG_PAGE + 100);
	rig_image(&rig, fd, 7 * RIG_PAGE + 100);
	struct overlay_table *table = open_overlays(rows, LENGTH(rows), 7 * RIG_PAGE + 100);
	is_int(
	    overlay_read(table, rig.session.image, 0, sizeof(buf), buf), 0, "many pages at once");
	for (uint64_t i = 0; i < sizeof(buf); i++) {
		bool over = i < 4096 || (i >= 8192 && i < 8202) ||
		    (i >= 4 * 4096 && i < 5 * 4096 + 1) || (i >= 7 * 4096 && i < 7 * 4096 + 50);
		unsigned char of_image = i < 7 * 4096 + 100 ? rig_byte(i / 4096) : 0;

		wrong += buf[i] != (over ? MARK : of_image);
	}
	is_int(wrong, 0, "overlays, image and the zeros behind its end");
	rig_cut(rig.session.image->fd, 0);
	is_int(overlay_read(table, rig.session.image, 0, RIG_PAGE, buf), 0,
	    "a page that an overlay has all of does not need the image");
	ok(rig_page_is(buf, MARK), "and is right");
	is_int(overlay_read(table, rig.session.image, 2 * RIG_PAGE, RIG_PAGE, buf), -EIO,
	    "a page that it has a part of does");
	overlay_close(table);
	rig_close(&rig);
}

/* --- Into the guest -------------------------------------------------------------- */

static struct overlay_row rows[] = {
    {0, 4096, 0}, {5 * 4096, 2 * 4096 + 100, 0}, {40 * 4096, 10 * 4096, 0}, {60 * 4096, 1, 0}};

static bool
is_marked(uint64_t at)
{
	for (size_t i = 0; i < LENGTH(rows); i++)
		if (at >= rows[i].offset && at < rows[i].offset + rows[i].bytes)
			return true;
	return false;
}

static void
open_all(void)
{
	rig_open(&rig, NR_PAGES);
	/* Half of it is a hole. */
	int fd = rig_file(NULL, NR_PAGES / 2);
	rig_cut(fd, NR_PAGES * RIG_PAGE);
	rig_image(&rig, fd, NR_PAGES * RIG_PAGE);
	rig.session.overlays = open_overlays(rows, LENGTH(rows), NR_PAGES * RIG_PAGE);
}

static void
close_all(void)
{
	struct overlay_table *table = rig.session.overlays;

	rig_close(&rig);
	overlay_close(table);
}

static bool
page_is_right(uint64_t page)
{
	unsigned char of_image = page < NR_PAGES / 2 ? rig_byte(page) : 0;

	for (uint64_t i = page * RIG_PAGE; i < (page + 1) * RIG_PAGE; i++)
		if (rig.memory[i] != (is_marked(i) ? MARK : of_image))
			return false;
	return true;
}

static void
test_faults(uint32_t max_pages)
{
	unsigned wrong = 0;

	open_all();
	cluster_init(&rig.session.cluster, 1, max_pages);
	rig_serve(&rig);
	for (uint64_t i = 0; i < NR_PAGES; i++) {
		uint64_t page = (i * 27 + 3) % NR_PAGES;
		struct guest guest;

		guest_touch(&guest, rig.memory + page * RIG_PAGE);
		guest_join(&guest);
		wrong += !page_is_right(page);
	}
	is_int(wrong, 0, "faults, clusters of up to %u pages", max_pages);
	is_int(rig_counter(&rig, COUNTER_IMAGE_BYTES_READ), (32 + 10 + 1) * RIG_PAGE,
	    "they count as bytes of the image");
	ok(rig_counter(&rig, COUNTER_IO_FAULTS) == 2, "two pages had to be put together");
	rig_stop(&rig);
	close_all();
}

static void
test_removed(void)
{
	struct guest guest;

	open_all();
	rig_serve(&rig);
	guest_discard(&guest, rig.memory + 40 * RIG_PAGE, RIG_PAGE);
	guest_join(&guest);
	guest_touch(&guest, rig.memory + 40 * RIG_PAGE);
	is_int(guest_join(&guest), 0, "a page that the guest gave back is zeros");
	close_all();
}

static void
test_populate(void)
{
	unsigned wrong = 0;
	char why[256] = "";

	open_all();
	is_int(populate(&rig.session, 0, why, sizeof(why)), 0, "a completion%s", why);
	rig_serve(&rig); /* what is a hole of the image is settled, and not there */
	for (uint64_t page = 0; page < NR_PAGES; page++)
		wrong += !page_is_right(page);
	is_int(wrong, 0, "fills in every page");
	ok(rig_all(&rig, 0, NR_PAGES, PAGE_PRESENT), "and marks it");
	close_all();
}

/* --- Where they come from -------------------------------------------------------- */

static void
test_claims(void)
{
	struct overlay_row row = {0, 4096, 0};
	scoped_fd int file = rig_file(NULL, 1);
	int fd = -1, got;
	struct pager *pager = &rig.pager;
	struct ipc_session_open open = {.session = 7,
	    .image_bytes = RIG_PAGE,
	    .flags = IPC_SESSION_HAS_OVERLAYS,
	    .cluster_min_bytes = 4096,
	    .cluster_max_bytes = 4096};
	int fds[3] = {-1, -1, -1};

	rig_open(&rig, NR_PAGES);
	if (overlay_create(&row, &file, 1, RIG_PAGE, &fd) < 0)
		abort();
	is_int(
	    session_open(pager, &open, fds), -EPROTO, "flags that promise overlays, and none came");
	pager_keep_overlays(pager, 8, fd_dup(fd));
	is_int(session_open(pager, &open, fds), -EPROTO, "those of another session");
	pager_keep_overlays(pager, 7, fd_dup(file));
	is_int(session_open(pager, &open, fds), -EPROTO, "what is no overlays");
	is_int(pager->overlays_fd, -1, "which are kept for nobody else");
	pager_keep_overlays(pager, 7, fd_dup(fd));
	got = pager_claim_overlays(pager, 7);
	ok(got >= 0 && pager_claim_overlays(pager, 7) == -1, "they are claimed once");
	fd_closep(&got);
	fd_closep(&fd);
	rig_close(&rig);
}

int
main(void)
{
	test_lookups();
	test_huge_lookups();
	test_reads();
	test_faults(1);
	test_faults(16);
	test_removed();
	test_populate();
	test_claims();
	return done();
}
