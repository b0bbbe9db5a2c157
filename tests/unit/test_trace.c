/* SPDX-License-Identifier: Apache-2.0 */
/* The memory that recordings and plans are in: what is in it can be read by both sides, and
 * what another side could have made of it is refused or clipped. */
#include "common/trace.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/scope.h"
#include "tests/unit/tap.h"

#define SEALS (F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL)

static int
create(enum trace_kind kind, uint64_t room)
{
	int fd = -1;

	if (trace_create(kind, room, NULL, 0, &fd) < 0)
		abort();
	return fd;
}

static void
test_recording(void)
{
	scoped_fd int fd = create(TRACE_RECORDING, 3);
	struct trace theirs, ours;

	ok((fcntl(fd, F_GET_SEALS) & SEALS) == SEALS && ftruncate(fd, 0) < 0, "is sealed");
	is_int(trace_map(&theirs, fd, TRACE_RECORDING, true), 0, "mapped by a worker");
	is_int(trace_map(&ours, fd, TRACE_RECORDING, false), 0, "and by the supervisor");
	is_int(trace_nr(&ours), 0, "empty");
	for (uint32_t page = 7; page < 12; page++)
		trace_note(&theirs, page);
	is_int(trace_nr(&ours), 3, "holds what there is room for");
	ok(trace_word(&ours, 0) == 7 && trace_word(&ours, 2) == 9, "in order");
	atomic_store(&theirs.header->nr, UINT64_MAX);
	is_int(trace_nr(&ours), 3, "a number that is too large is clipped");
	trace_note(&theirs, 99);
	ok(trace_word(&ours, 2) == 9, "and nothing is written by it");
	trace_unmap(&theirs);
	trace_unmap(&ours);
	ok(ours.header == NULL, "unmapped");
	trace_unmap(&ours);
}

static void
test_plan(void)
{
	static const uint32_t words[] = {5, 1, 900, 40};
	scoped_fd int fd = -1;
	struct trace trace;

	is_int(trace_create(TRACE_PLAN, 4, words, 4, &fd), 0, "a plan");
	is_int(trace_map(&trace, fd, TRACE_PLAN, false), 0, "is mapped");
	ok(trace_nr(&trace) == 4 && trace_word(&trace, 3) == 40, "with its words");
	is_int(atomic_load(&trace.header->state), TRACE_WAITING, "and waits");
	trace_unmap(&trace);
}

static void
test_memory_is_there(void)
{
	const uint64_t room = TRACE_MAX_WORDS;
	scoped_fd int fd = create(TRACE_RECORDING, room);
	struct stat st;

	ok(fstat(fd, &st) == 0 && (uint64_t)st.st_blocks * 512 >= room * sizeof(uint32_t),
	    "no page of it is missing when it is written to");
}

/* What a worker could hand over in its place. */
static void
test_refused(void)
{
	scoped_fd int good = create(TRACE_RECORDING, 100), bare = memfd_create("x", MFD_CLOEXEC);
	scoped_fd int sealed = memfd_create("x", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	unsigned char page[TRACE_HEADER_BYTES];
	uint64_t wrong_room = 101;
	struct trace trace;
	int fd = -1;

	is_int(trace_map(&trace, good, TRACE_PLAN, false), -EPROTO, "one of another kind");
	if (ftruncate(bare, 8192) < 0 || ftruncate(sealed, 8192) < 0 ||
	    fcntl(sealed, F_ADD_SEALS, SEALS) < 0)
		abort();
	if (pread(good, page, sizeof(page), 0) < 0 || pwrite(bare, page, sizeof(page), 0) < 0 ||
	    ftruncate(bare, (off_t)(TRACE_HEADER_BYTES + 100 * sizeof(uint32_t))) < 0)
		abort();
	is_int(trace_map(&trace, bare, TRACE_RECORDING, false), -EPROTO, "a copy without seals");
	is_int(trace_map(&trace, sealed, TRACE_RECORDING, false), -EPROTO, "one without a header");
	is_int(trace_map(&trace, STDIN_FILENO, TRACE_RECORDING, false), -EPROTO, "no file at all");
	if (pwrite(good, &wrong_room, sizeof(wrong_room), offsetof(struct trace_header, room)) < 0)
		abort();
	is_int(
	    trace_map(&trace, good, TRACE_RECORDING, false), -EPROTO, "one that names more room");
	is_int(trace_create(TRACE_PLAN, 0, NULL, 0, &fd), -EINVAL, "none of no room");
	is_int(trace_create(TRACE_PLAN, TRACE_MAX_WORDS + 1, NULL, 0, &fd), -EINVAL, "of too much");
	is_int(fd, -1, "nothing was made");
}

static void
test_sample(void)
{
	uint64_t n = 0;

	for (uint64_t place = 0; place < 1280; place++)
		n += trace_is_left_out(place, 128);
	ok(n == 10 && trace_is_left_out(127, 128) && !trace_is_left_out(0, 128), "one in so many");
	ok(!trace_is_left_out(0, 0) && !trace_is_left_out(127, 0), "none of zero");
}

int
main(void)
{
	test_recording();
	test_plan();
	test_memory_is_there();
	test_refused();
	test_sample();
	return done();
}
