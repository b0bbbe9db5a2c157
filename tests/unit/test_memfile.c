/* SPDX-License-Identifier: Apache-2.0 */
/* The memory file of a snapshot: the copy of an image, and pictures of pages, wrong ones too. */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/clock.h"
#include "supervisor/ctl/memfile.h"
#include "tests/unit/tap.h"

#define PAGE   4096
#define NR     16
#define BYTES  ((uint64_t)NR * PAGE)
#define REGION "\"page_size\":4096,\"offset\":0,\"size\":65536,\"runs\":"

static char dir[] = "/tmp/test_memfile.XXXXXX";
static char image[64], file[64];
static const uid_t nobody[2] = {65534, 65534};

static uint64_t
soon(void)
{
	return clock_now_ns() + 60 * NS_PER_S;
}

/* The number that each page is filled with, a letter for each, '.' for 0. */
static const char *
content(const char *path)
{
	static char text[NR + 1];
	char page[PAGE];
	int fd = open(path, O_RDONLY | O_CLOEXEC);

	for (int i = 0; i < NR; i++) {
		text[i] = '!';
		if (pread(fd, page, PAGE, (off_t)i * PAGE) == PAGE &&
		    memcmp(page, page + 1, PAGE - 1) == 0)
			text[i] = page[0] ? page[0] : '.';
	}
	close(fd);
	return text;
}

/* 'a', 'b', … with holes at pages 3, 4 and the last. */
static void
make_image(void)
{
	int fd = open(image, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	char page[PAGE];

	for (int i = 0; i < NR - 1; i++) {
		memset(page, 'a' + i, PAGE);
		if (i != 3 && i != 4 && pwrite(fd, page, PAGE, (off_t)i * PAGE) != PAGE)
			abort();
	}
	if (ftruncate(fd, BYTES) < 0)
		abort();
	close(fd);
}

static void
test_open(void)
{
	struct stat st;
	bool made;
	int fd = memfile_open(file, image, BYTES, nobody, soon(), &made);

	ok(fd >= 0 && made, "a copy is made");
	is_str(content(file), "abc..fghijklmno.", "of all of it");
	ok(fstat(fd, &st) == 0 && (geteuid() || st.st_uid == nobody[0]), "for the user");
	ok(st.st_blocks < (blkcnt_t)(BYTES / 512), "with its holes");
	close(fd);
	fd = memfile_open(file, image, BYTES, nobody, soon(), &made);
	ok(fd >= 0 && !made, "one that is there");
	close(fd);
	is_int(memfile_open(file, image, BYTES + 1, nobody, soon(), &made), -EFBIG, "another size");
	ok(!made && access(file, F_OK) == 0, "  is left alone");
	unlink(file);
	is_int(memfile_open(file, image, BYTES + 1, nobody, soon(), &made), -EFBIG,
	    "an image of another size");
	ok(made && access(file, F_OK) < 0, "  leaves no file");
	is_int(memfile_open(file, "/none", BYTES, nobody, soon(), &made), -ENOENT, "no image");
	ok(access(file, F_OK) < 0, "  leaves no file");
	is_int(memfile_open(dir, image, BYTES, nobody, soon(), &made), -EISDIR, "a directory");
}

static int
apply(int fd, const char *text, uint64_t *ret)
{
	json_t *json = json_loads(text, 0, NULL);
	int r = memfile_empty(fd, BYTES, json, ret);

	json_decref(json);
	return r;
}

static void
test_empty(void)
{
	static const char *const wrong[] = {
	    "{}",
	    "[]",
	    "{\"regions\":[]}",
	    "{\"regions\":[7]}",
	    "{\"regions\":[{" REGION "[]}]}",
	    "{\"regions\":[{" REGION "[[\"removed\",15]]}]}",
	    "{\"regions\":[{" REGION "[[\"removed\",17]]}]}",
	    "{\"regions\":[{" REGION "[[\"removed\",-1],[\"clean\",17]]}]}",
	    "{\"regions\":[{" REGION "[[\"removed\",9223372036854775807]]}]}",
	    "{\"regions\":[{" REGION "[[\"removed\",16],[\"removed\",1]]}]}",
	    "{\"regions\":[{" REGION "[[7,16]]}]}",
	    "{\"regions\":[{" REGION "[[\"removed\",16]]},{" REGION "[[\"clean\",1]]}]}",
	    "{\"regions\":[{\"page_size\":0,\"offset\":0,\"size\":65536,\"runs\":[[\"removed\",16]]}]}",
	    "{\"regions\":[{\"offset\":4096,\"page_size\":4096,\"size\":65536,\"runs\":[]}]}",
	};
	uint64_t bytes = 0;
	bool made;
	int fd = memfile_open(file, image, BYTES, nobody, soon(), &made);

	for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++)
		is_int(apply(fd, wrong[i], &bytes), -EPROTO, "no picture: %s", wrong[i]);
	is_str(content(file), "abc..fghijklmno.", "none of them changes anything");
	is_int(apply(fd,
		   "{\"regions\":[{" REGION "[[\"absent\",5],[\"removed\",2],[\"dirty\",8],"
		   "[\"removed\",1]]}]}",
		   &bytes),
	    0, "a picture");
	is_int(bytes, 3 * PAGE, "  of three removed pages");
	is_str(content(file), "abc....hijklmno.", "  which are empty, and no others");
	is_int(lseek(fd, 0, SEEK_END), BYTES, "the size is as before");
	close(fd);
	unlink(file);
}

int
main(void)
{
	if (!mkdtemp(dir))
		return 1;
	snprintf(image, sizeof(image), "%s/image", dir);
	snprintf(file, sizeof(file), "%s/file", dir);
	make_image();
	test_open();
	test_empty();
	unlink(image);
	rmdir(dir);
	return done();
}
