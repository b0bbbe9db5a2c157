/* SPDX-License-Identifier: Apache-2.0 */
/* Memory pressure: what the kernel writes, and what it never would. */
#include "supervisor/psi.h"

#include <errno.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tests/unit/tap.h"

#define REST " avg60=0.00 avg300=0.00 total=0\n"
#define FULL "full avg10=9.99 avg60=0.00 avg300=0.00 total=0\n"

static const struct {
	const char *text;
	uint32_t want;
} good[] = {
    {"some avg10=0.00" REST FULL, 0},
    {"some avg10=0.01" REST FULL, 1},
    {"some avg10=0.10" REST FULL, 10},
    {"some avg10=1.00" REST FULL, 100},
    {"some avg10=12.34 avg60=5.00 avg300=1.00 total=123456\n" FULL, 1234},
    {"some avg10=99.99" REST FULL, 9999},
    {"some avg10=100.00" REST FULL, 10000},
    {"some avg10=5.00 ", 500},
    {FULL "some avg10=7.50" REST, 750},
    {"new avg10=1.00 avg60=1.00\nsome avg10=2.00" REST, 200},
};

static const char *const garbage[] = {
    "",
    "\n",
    "\n\n\n",
    "some",
    "some ",
    "some avg10=",
    "some avg10= ",
    "some avg10=1",
    "some avg10=1.",
    "some avg10=1.5",
    "some avg10=1.5 ",
    "some avg10=1.50",
    "some avg10=1.50\n",
    "some avg10=1.505 ",
    "some avg10=.50 ",
    "some avg10=-1.00 ",
    "some avg10=+1.00 ",
    "some avg10=1,00 ",
    "some avg10=1e1.00 ",
    "some avg10=nan ",
    "some avg10=100.01 ",
    "some avg10=999.99 ",
    "some avg10=1000.00 ",
    "some avg10=4294967296.00 ",
    "some avg10=99999999999999999999.00 ",
    "some  avg10=1.00 ",
    " some avg10=1.00 ",
    "Some avg10=1.00 ",
    "some avg60=1.00 avg10=1.00 ",
    "awesome avg10=1.00 ",
    FULL,
    "full avg10=1.00 some avg10=1.00 avg60=0.00\n",
    "MemTotal:        4030752 kB\nMemFree:         1234 kB\n",
    "\xff\xfe\x80 avg10=1.00 ",
};

static void
test_parse(void)
{
	for (size_t i = 0; i < sizeof(good) / sizeof(good[0]); i++) {
		uint32_t got = 77;

		is_int(psi_parse(good[i].text, &got), 0, "good %zu", i);
		is_int(got, good[i].want, "its value");
	}
	for (size_t i = 0; i < sizeof(garbage) / sizeof(garbage[0]); i++) {
		uint32_t got = 77;

		is_int(psi_parse(garbage[i], &got), -EINVAL, "garbage %zu", i);
		is_int(got, 77, "and nothing is said");
	}
}

/* Each prefix of a good text either says the same or nothing. */
static void
test_prefixes(void)
{
	const char *text = good[4].text;
	size_t whole = strlen("some avg10=12.34 ");
	char cut[256];

	for (size_t n = 0; n < strlen(text); n++) {
		uint32_t got = 1234;
		int r;

		snprintf(cut, sizeof(cut), "%.*s", (int)n, text);
		r = psi_parse(cut, &got);
		ok(r == (n < whole ? -EINVAL : 0) && got == 1234, "the first %zu bytes", n);
	}
}

static int
read_text(const char *path, const char *text, uint32_t *ret)
{
	FILE *file = fopen(path, "we");

	fputs(text, file);
	fclose(file);
	return psi_read(path, ret);
}

static void
test_files(void)
{
	char dir[] = "/tmp/test_psi.XXXXXX", path[64];
	uint32_t got = 77;

	if (!ok(mkdtemp(dir) != NULL, "a directory"))
		return;
	snprintf(path, sizeof(path), "%s/memory", dir);
	is_int(psi_read(path, &got), -ENOENT, "a kernel without it");
	is_int(read_text(path, good[4].text, &got), 0, "a file");
	is_int(got, 1234, "its value");
	is_int(read_text(path, "", &got), -EINVAL, "an empty file");
	is_int(psi_read(dir, &got), -EISDIR, "a directory");
	unlink(path);
	is_int(mkfifo(path, 0600), 0, "a FIFO that nobody writes to");
	is_int(psi_read(path, &got), -EINVAL, "does not make us wait");
	is_int(psi_read("/dev/zero", &got), -EINVAL, "nor what never ends");
	is_int(got, 1234, "none of them says anything");
	unlink(path);
	rmdir(dir);
	if (access("/proc/pressure/memory", R_OK) == 0)
		ok(psi_read("/proc/pressure/memory", &got) == 0 && got <= 100 * PSI_PERCENT,
		    "this kernel's own: %u", got);
	else
		skip(1, "this kernel has no /proc/pressure/memory");
}

int
main(void)
{
	test_parse();
	test_prefixes();
	test_files();
	return done();
}
