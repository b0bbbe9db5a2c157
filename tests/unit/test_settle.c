/* SPDX-License-Identifier: Apache-2.0 */
/* When a recording has settled: by how it grows, not by how long it has run. */
#include "supervisor/settle.h"

#include "tests/unit/tap.h"

#define MS	  UINT64_C(1000000)
#define WINDOW_NS (1000 * MS)
#define STEP_NS	  (50 * MS)

/* Goes on at pages a step; returns the step at which it settled, or 0 after most. */
static unsigned
run(struct settle *settle, uint64_t *now_ns, uint64_t *pages, uint64_t step_pages, unsigned most)
{
	for (unsigned i = 1; i <= most; i++) {
		*now_ns += STEP_NS;
		*pages += step_pages;
		if (settle_step(settle, *now_ns, *pages, WINDOW_NS))
			return i;
	}
	return 0;
}

static void
test_burst(void)
{
	struct settle settle = {0};
	uint64_t now = 5 * MS, pages = 0;

	is_int(run(&settle, &now, &pages, 0, 10000), 0, "a guest that has not begun");
	is_int(run(&settle, &now, &pages, 1000, 20), 0, "a burst");
	is_int(run(&settle, &now, &pages, 0, 100), 20, "settles a window after its end");
}

static void
test_trickle(void)
{
	struct settle settle = {0};
	uint64_t now = MS, pages = 0;

	run(&settle, &now, &pages, 1000, 20);
	/* 20000 pages: a share is 312 of them. */
	is_int(
	    run(&settle, &now, &pages, 10, 100), 20, "a trickle behind it does not keep it open");
	settle = (struct settle){0};
	pages = 0;
	run(&settle, &now, &pages, 1000, 20);
	is_int(run(&settle, &now, &pages, 20, 60), 0, "a stream does");
}

/* The longer it has run, the less what a window adds. */
static void
test_steady(void)
{
	struct settle settle = {0};
	uint64_t now = MS, pages = 0;
	unsigned settled = run(&settle, &now, &pages, 100, 10000);

	ok(settled > 60 * 20 && settled < 70 * 20, "one rate for ever settles after 64 windows: %u",
	    settled);
}

static void
test_few(void)
{
	struct settle settle = {0};
	uint64_t now = MS, pages = 0;

	run(&settle, &now, &pages, 1, SETTLE_MIN_PAGES - 1);
	is_int(
	    run(&settle, &now, &pages, 0, 1000), 0, "what a VMM touches by itself is too little");
	run(&settle, &now, &pages, 1, 1);
	is_int(run(&settle, &now, &pages, 0, 1000), 20, "one page more is enough");
}

static void
test_lies(void)
{
	struct settle settle = {0};

	ok(!settle_step(&settle, MS, 1000, WINDOW_NS), "some");
	ok(!settle_step(&settle, 2 * MS, 500, WINDOW_NS), "fewer than before is no growth");
	ok(settle_step(&settle, MS + WINDOW_NS, 500, WINDOW_NS), "and settles");
}

int
main(void)
{
	test_burst();
	test_trickle();
	test_steady();
	test_few();
	test_lies();
	return done();
}
