/* SPDX-License-Identifier: Apache-2.0 */
/* Makes a snapshot memory file whose every page follows from a seed. */
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/exitcode.h"
#include "common/num.h"
#include "common/scope.h"
#include "tests/vmm/image.h"

struct request {
	struct pattern pattern;
	uint64_t size_bytes;
	bool force;
	const char *path;
};

static const struct option long_options[] = {
    {"seed", required_argument, NULL, 'n'},
    {"size", required_argument, NULL, 'b'},
    {"holes", required_argument, NULL, 'h'},
    {"zeros", required_argument, NULL, 'z'},
    {"force", no_argument, NULL, 'f'},
    {NULL, 0, NULL, 0},
};

static int
set_option(struct request *r, int option)
{
	switch (option) {
	case 'n':
		return num_parse_u64(optarg, 0, UINT64_MAX, &r->pattern.seed);
	case 'b':
		return num_parse_bytes(
		    optarg, PATTERN_PAGE_BYTES, UINT64_C(1) << 44, &r->size_bytes);
	case 'h':
		return num_parse_u64(optarg, 0, 1000, &r->pattern.holes_permille);
	case 'z':
		return num_parse_u64(optarg, 0, 1000, &r->pattern.zeros_permille);
	case 'f':
		r->force = true;
		return 0;
	default:
		return -EINVAL;
	}
}

static int
parse_request(struct request *r, int argc, char **argv)
{
	int option;

	while ((option = getopt_long(argc, argv, "", long_options, NULL)) != -1) {
		if (set_option(r, option) < 0)
			return -EINVAL;
	}
	if (optind + 1 != argc || r->size_bytes == 0 || r->size_bytes % PATTERN_PAGE_BYTES != 0 ||
	    r->pattern.holes_permille + r->pattern.zeros_permille > 1000)
		return -EINVAL;
	r->path = argv[optind];
	return 0;
}

/* Always a new file: one that a session still maps is not changed under it. */
static int
open_new(const struct request *r, int *ret_fd)
{
	struct stat st;
	int fd;

	if (r->force && lstat(r->path, &st) == 0 && S_ISREG(st.st_mode) && unlink(r->path) < 0)
		return -errno;
	fd = open(r->path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
	if (fd < 0)
		return -errno;
	*ret_fd = fd;
	return 0;
}

int
main(int argc, char **argv)
{
	struct request r = {.path = NULL};
	scoped_fd int fd = -1;
	int err;

	if (parse_request(&r, argc, argv) < 0) {
		fputs(
		    "usage: mkimage --seed N --size BYTES[K|M|G] [--holes PERMILLE] [--zeros PERMILLE]"
		    " [--force] PATH\n"
		    "The size is a multiple of 4096; the permilles are at most 1000 together.\n",
		    stderr);
		return EXITCODE_USAGE;
	}
	err = open_new(&r, &fd);
	if (err == 0) {
		err = image_write(fd, &r.pattern, r.size_bytes);
		if (err < 0)
			unlink(r.path);
	}
	if (err < 0) {
		fprintf(stderr, "mkimage: %s: %s%s\n", r.path, strerror(-err),
		    err == -EEXIST ? "; --force replaces a file" : "");
		return EXITCODE_FAILED;
	}
	return EXITCODE_OK;
}
