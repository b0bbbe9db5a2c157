/* SPDX-License-Identifier: Apache-2.0 */
/* Overlays as pagerd knows them: in records, which may be damaged, and from workers, which
 * may lie. */
#include "supervisor/overlay.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include "common/fd.h"
#include "common/scope.h"
#include "supervisor/json.h"
#include "supervisor/session.h"
#include "tests/unit/tap.h"

#define IMAGE_BYTES (UINT64_C(1) << 20)
#define LENGTH(a)   (sizeof(a) / sizeof((a)[0]))

static char why[256];

static int
load(const char *text, const char *file, struct overlays *ret)
{
	json_t *list = json_loads(text, 0, NULL);
	int r;

	if (!list)
		abort();
	why[0] = '\0';
	r = overlays_load(list, file, ret, why, sizeof(why));
	json_decref(list);
	return r;
}

static void
test_record(void)
{
	struct overlays overlays;
	json_t *json = json_object();

	is_int(load("[{\"offset\":4096,\"bytes\":7,\"path\":\"/a\"},"
		    "{\"offset\":8192,\"bytes\":4096,\"path\":\"\"}]",
		   "1f:ffffffffffffffff", &overlays),
	    0, "two overlays of a record");
	ok(overlays.nr == 2 && overlays.files[0].offset == 4096 && overlays.files[0].bytes == 7 &&
		strcmp(overlays.files[0].path, "/a") == 0 && overlays.files[1].bytes == 4096 &&
		overlays.files[1].path[0] == '\0',
	    "are read");
	ok(overlays.fd == -1 && overlays.dev == 0x1f && overlays.ino == UINT64_MAX,
	    "with the file that they are in, and without a descriptor");
	json_put(json, "overlays", overlays_json(&overlays));
	overlays_put_file(json, "file", &overlays);
	scoped_free char *text = json_dumps(json, JSON_COMPACT);
	is_str(text,
	    "{\"overlays\":[{\"offset\":4096,\"bytes\":7,\"path\":\"/a\"},"
	    "{\"offset\":8192,\"bytes\":4096,\"path\":\"\"}],\"file\":\"1f:ffffffffffffffff\"}",
	    "and written as they were");
	json_decref(json);
	overlays_free(&overlays);
	is_int(load("[]", NULL, &overlays), 0, "none");
	ok(overlays.nr == 0 && overlays.files == NULL, "are none");
}

static void
test_damaged_record(void)
{
#define ONE "[{\"offset\":0,\"bytes\":1,\"path\":\"/a\"}]"
	static const struct {
		const char *list, *file;
	} cases[] = {
	    {ONE, NULL},
	    {ONE, ""},
	    {ONE, "1:"},
	    {ONE, "1:2 "},
	    {ONE, "x:y"},
	    {"[7]", "1:2"},
	    {"[{}]", "1:2"},
	    {"[{\"offset\":0,\"bytes\":0,\"path\":\"/a\"}]", "1:2"},
	    {"[{\"offset\":0,\"bytes\":4194305,\"path\":\"/a\"}]", "1:2"},
	    {"[{\"offset\":-1,\"bytes\":1,\"path\":\"/a\"}]", "1:2"},
	    {"[{\"offset\":0,\"bytes\":1,\"path\":null}]", "1:2"},
	    {"[{\"offset\":0,\"bytes\":1,\"path\":\"/a\"},{\"offset\":0}]", "1:2"},
	    {"[{\"offset\":0,\"bytes\":1,\"path\":\"/a\",\"more\":1}]", "1:2"},
	};

	for (size_t i = 0; i < LENGTH(cases); i++) {
		struct overlays overlays;

		is_int(load(cases[i].list, cases[i].file, &overlays), -EINVAL, "%s in %s",
		    cases[i].list, cases[i].file ? cases[i].file : "nothing");
		ok(why[0] != '\0' && overlays.nr == 0 && overlays.files == NULL, "says why: %s",
		    why);
	}
}

/* What pagerd had made before it was started again. */
static int
make(uint64_t offset, uint64_t bytes)
{
	struct overlay_row row = {offset, bytes, 0};
	scoped_fd int file = memfd_create("file", MFD_CLOEXEC);
	int fd = -1;

	if (file < 0 || ftruncate(file, (off_t)bytes) < 0 ||
	    overlay_create(&row, &file, 1, IMAGE_BYTES, &fd) < 0)
		abort();
	return fd;
}

static void
test_taken(void)
{
	struct session session = {.image.bytes = IMAGE_BYTES, .overlays.fd = -1};
	int fd = make(4096, 100), again, other = make(4096, 100);

	again = fd_dup(fd);
	is_int(overlays_take(&session, &fd), 0, "a session without a record");
	ok(fd == -1 && session.overlays.fd >= 0 && session.overlays.nr == 1 &&
		session.overlays.files[0].offset == 4096 && session.overlays.files[0].bytes == 100,
	    "gets the overlays that its worker has");
	fd_closep(&session.overlays.fd);
	is_int(overlays_take(&session, &other), -EPROTO, "another file of the same table");
	ok(session.overlays.fd == -1 && other >= 0, "is not taken");
	session.overlays.files[0].bytes++;
	is_int(overlays_take(&session, &again), -EPROTO, "another table");
	session.overlays.files[0].bytes--;
	session.image.bytes = 4096;
	is_int(overlays_take(&session, &again), -EPROTO, "an image that has no place for them");
	session.image.bytes = IMAGE_BYTES;
	is_int(overlays_take(&session, &again), 0, "the file of the record");
	ok(session.overlays.fd >= 0 && again == -1, "is taken");
	overlays_free(&session.overlays);
	fd_closep(&other);
	other = open("/dev/zero", O_RDONLY | O_CLOEXEC);
	is_int(overlays_take(&session, &other), -EPROTO, "a device");
	ok(session.overlays.nr == 0, "leaves nothing");
	fd_closep(&other);
}

int
main(void)
{
	test_record();
	test_damaged_record();
	test_taken();
	return done();
}
