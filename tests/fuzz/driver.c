/* SPDX-License-Identifier: Apache-2.0 */
/* Runs a fuzz target without libFuzzer: every file of its corpus, then mutations of
 * them for so many seconds.  Any compiler will do, so this is what `make check` runs;
 * `make fuzz` links the same targets with clang's libFuzzer.
 *
 *	fuzz_NAME [-seconds=N] [-seed=N] [CORPUS_DIR | FILE]...
 *
 * An input that kills the program is written to crash-NAME in the working directory. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/fd.h"
#include "common/num.h"
#include "common/scope.h"

#define MAX_INPUT_BYTES 8192U
#define MAX_INPUTS	1024U
#define MAX_MUTATIONS	8U
#define CLOCK_STRIDE	256U /* runs between two looks at the clock */

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct input {
	uint8_t *data;
	size_t size;
};

static struct input corpus[MAX_INPUTS];
static size_t nr_corpus;
static uint64_t random_state;
static char crash_path[256];
/* What runs now, for the signal handler. */
static const uint8_t *volatile current_data;
static volatile size_t current_size;

static uint64_t
random_next(void)
{
	random_state ^= random_state << 13;
	random_state ^= random_state >> 7;
	random_state ^= random_state << 17;
	return random_state;
}

static size_t
random_below(size_t n)
{
	return (size_t)(random_next() % n);
}

static void
on_death(int sig)
{
	int fd = open(crash_path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);

	if (fd >= 0 && write(fd, current_data, current_size) == (ssize_t)current_size)
		(void)!write(2, "input saved\n", 12);
	signal(sig, SIG_DFL);
	raise(sig);
}

static void
run_one(const uint8_t *data, size_t size)
{
	current_data = data;
	current_size = size;
	LLVMFuzzerTestOneInput(data, size);
}

static void
corpus_add(const char *path)
{
	scoped_fd int fd = open(path, O_RDONLY | O_CLOEXEC);
	uint8_t buf[MAX_INPUT_BYTES];
	ssize_t n = fd < 0 ? -1 : read(fd, buf, sizeof(buf));

	if (n < 0 || nr_corpus == MAX_INPUTS)
		return;
	corpus[nr_corpus].data = malloc((size_t)n + 1);
	if (!corpus[nr_corpus].data)
		return;
	memcpy(corpus[nr_corpus].data, buf, (size_t)n);
	corpus[nr_corpus++].size = (size_t)n;
}

static int
by_name(const struct dirent **a, const struct dirent **b)
{
	return strcmp((*a)->d_name, (*b)->d_name);
}

static void
corpus_load(const char *path)
{
	struct dirent **entries;
	char name[4096];
	int n = scandir(path, &entries, NULL, by_name);

	if (n < 0) {
		if (errno == ENOTDIR)
			corpus_add(path);
		return;
	}
	for (int i = 0; i < n; i++) {
		snprintf(name, sizeof(name), "%s/%s", path, entries[i]->d_name);
		if (entries[i]->d_name[0] != '.')
			corpus_add(name);
		free(entries[i]);
	}
	free(entries);
}

static size_t
mutate_once(uint8_t *buf, size_t size)
{
	static const uint8_t interesting[] = {0x00, 0x01, 0x7f, 0x80, 0xff, 0x20, 0x5b, 0xdd};
	size_t at = size ? random_below(size) : 0;

	switch (random_below(6)) {
	case 0: /* flip a bit */
		if (size)
			buf[at] ^= (uint8_t)(1U << random_below(8));
		return size;
	case 1: /* a byte that parsers stumble over */
		if (size)
			buf[at] = interesting[random_below(sizeof(interesting))];
		return size;
	case 2: /* cut */
		return at;
	case 3: /* insert */
		if (size < MAX_INPUT_BYTES) {
			memmove(buf + at + 1, buf + at, size - at);
			buf[at] = (uint8_t)random_next();
			size++;
		}
		return size;
	case 4: /* double the tail */
		if (size - at <= MAX_INPUT_BYTES - size) {
			memcpy(buf + size, buf + at, size - at);
			size += size - at;
		}
		return size;
	default: /* take out */
		if (size) {
			memmove(buf + at, buf + at + 1, size - at - 1);
			size--;
		}
		return size;
	}
}

static void
run_mutation(void)
{
	static uint8_t buf[MAX_INPUT_BYTES];
	const struct input *base = &corpus[random_below(nr_corpus)];
	size_t size = base->size;

	memcpy(buf, base->data, size);
	for (size_t n = 1 + random_below(MAX_MUTATIONS); n; n--)
		size = mutate_once(buf, size);
	/* An exact heap copy, so that a read past the end is seen. */
	scoped_free uint8_t *exact = malloc(size ? size : 1);
	if (!exact)
		return;
	memcpy(exact, buf, size);
	run_one(exact, size);
}

static int
usage(const char *arg)
{
	fprintf(stderr, "%s: expected -seconds=N, -seed=N or a corpus\n", arg);
	return 2;
}

int
main(int argc, char **argv)
{
	static const int deaths[] = {SIGABRT, SIGSEGV, SIGBUS, SIGFPE, SIGILL};
	const char *slash = strrchr(argv[0], '/');
	uint64_t seconds = 1, seed = 1, runs = 0, deadline;

	snprintf(crash_path, sizeof(crash_path), "crash-%s", slash ? slash + 1 : argv[0]);
	for (int i = 1; i < argc; i++) {
		if (!strncmp(argv[i], "-seconds=", 9)) {
			if (num_parse_u64(argv[i] + 9, 0, 1000000, &seconds))
				return usage(argv[i]);
		} else if (!strncmp(argv[i], "-seed=", 6)) {
			if (num_parse_u64(argv[i] + 6, 1, UINT64_MAX, &seed))
				return usage(argv[i]);
		} else if (argv[i][0] == '-') {
			return usage(argv[i]);
		} else {
			corpus_load(argv[i]);
		}
	}
	for (size_t i = 0; i < sizeof(deaths) / sizeof(deaths[0]); i++)
		signal(deaths[i], on_death);
	random_state = seed * UINT64_C(0x9e3779b97f4a7c15);
	for (size_t i = 0; i < nr_corpus; i++)
		run_one(corpus[i].data, corpus[i].size);
	printf("%zu inputs of the corpus\n", nr_corpus);
	if (nr_corpus == 0) {
		fprintf(stderr, "no corpus: nothing to mutate\n");
		return 1;
	}
	deadline = clock_now_ns() + seconds * NS_PER_S;
	while (runs % CLOCK_STRIDE || clock_now_ns() < deadline) {
		run_mutation();
		runs++;
	}
	printf("%llu mutations\n", (unsigned long long)runs);
	for (size_t i = 0; i < nr_corpus; i++)
		free(corpus[i].data);
	return 0;
}
