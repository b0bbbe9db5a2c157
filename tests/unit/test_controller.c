/* SPDX-License-Identifier: Apache-2.0 */
/* What the controller decides: tables of facts at a time that the test chooses. */
#include "supervisor/controller_plan.h"

#include "common/clock.h"
#include "tests/unit/tap.h"

#define MAX_FACTS 9
#define NOW	  1000
#define S(n)	  ((uint64_t)(n)*NS_PER_S)

/* Seconds; 0 stands for never.  The letters of want are the verdicts of the facts in the
 * order in which they are written: - leave, y young, b backing off, w wait, s start, r run,
 * a abort. */
struct fact {
	const char *kind; /* s serving, o outdated, x told to stop, n neither */
	unsigned serving, stayed, started;
};

struct row {
	const char *name;
	struct fact facts[MAX_FACTS];
	const char *want;
	unsigned abort; /* when the next one is late */
	unsigned max;	/* of those under way; 0 means 1 */
	unsigned age;
	bool is_off, is_paused;
};

/* clang-format off */
static const struct row rows[] = {
    {.name = "nothing at all", .want = ""},
    {.name = "one session", .facts = {{"s", 10, 0, 0}}, .want = "s", .abort = NOW + 60},
    {.name = "off", .facts = {{"s", 10, 0, 0}, {"so", 10, 0, 0}}, .want = "--", .is_off = true},
    {.name = "paused", .facts = {{"s", 10, 0, 0}, {"so", 10, 0, 0}}, .want = "ww", .is_paused = true},
    {.name = "not serving", .facts = {{"n", 10, 0, 0}, {"no", 10, 0, 0}}, .want = "--"},

    /* Order. */
    {.name = "the oldest first",
	.facts = {{"s", 30, 0, 0}, {"s", 10, 0, 0}, {"s", 20, 0, 0}},
	.want = "wsw", .abort = NOW + 60},
    {.name = "an outdated one before an older one",
	.facts = {{"s", 10, 0, 0}, {"so", 500, 0, 0}, {"s", 20, 0, 0}},
	.want = "wsw", .abort = NOW + 60},
    {.name = "the oldest of the outdated ones",
	.facts = {{"so", 30, 0, 0}, {"s", 10, 0, 0}, {"so", 20, 0, 0}, {"so", 25, 0, 0}},
	.want = "wwsw", .abort = NOW + 60},
    {.name = "of equals the one created first",
	.facts = {{"s", 10, 0, 0}, {"s", 10, 0, 0}, {"s", 10, 0, 0}},
	.want = "sww", .abort = NOW + 60},
    {.name = "outdated ones, then the rest",
	.facts = {{"s", 10, 0, 0}, {"so", 500, 0, 0}, {"s", 20, 0, 0}, {"so", 400, 0, 0}},
	.want = "ssws", .max = 3, .abort = NOW + 60},

    /* Places. */
    {.name = "a place is taken",
	.facts = {{"n", 10, 0, 990}, {"s", 10, 0, 0}},
	.want = "rw", .abort = 990 + 60},
    {.name = "one of two places is taken",
	.facts = {{"n", 10, 0, 990}, {"s", 20, 0, 0}, {"s", 10, 0, 0}},
	.want = "rws", .max = 2, .abort = 990 + 60},
    {.name = "more places than sessions",
	.facts = {{"s", 10, 0, 0}, {"s", 20, 0, 0}},
	.want = "ss", .max = 100, .abort = NOW + 60},
    {.name = "fewer places than before",
	.facts = {{"n", 10, 0, 990}, {"n", 10, 0, 980}, {"n", 10, 0, 985}, {"s", 10, 0, 0}},
	.want = "rrrw", .max = 2, .abort = 980 + 60},
    {.name = "what others complete takes no place",
	.facts = {{"n", 10, 0, 0}, {"n", 10, 0, 0}, {"s", 10, 0, 0}},
	.want = "--s", .abort = NOW + 60},
    {.name = "one that is being stopped keeps its place",
	.facts = {{"nx", 10, 0, 900}, {"s", 10, 0, 0}},
	.want = "rw"},
    {.name = "and so does one that is late",
	.facts = {{"n", 10, 0, 940}, {"s", 10, 0, 0}},
	.want = "aw"},
    {.name = "a pause stops nothing that is under way",
	.facts = {{"n", 10, 0, 990}, {"s", 10, 0, 0}},
	.want = "rw", .max = 2, .is_paused = true, .abort = 990 + 60},

    /* Age, counted from serving. */
    {.name = "too young by a second",
	.facts = {{"s", NOW - 99, 0, 0}}, .want = "y", .age = 100},
    {.name = "just old enough",
	.facts = {{"s", NOW - 100, 0, 0}}, .want = "s", .age = 100, .abort = NOW + 60},
    {.name = "no age is asked for",
	.facts = {{"s", NOW, 0, 0}}, .want = "s", .abort = NOW + 60},
    {.name = "an outdated one must be old enough, too",
	.facts = {{"so", NOW - 99, 0, 0}, {"s", NOW - 100, 0, 0}},
	.want = "ys", .age = 100, .abort = NOW + 60},
    {.name = "one that was served after this moment",
	.facts = {{"s", NOW + 5, 0, 0}}, .want = "y", .age = 100},

    /* Failures; the back-off is 30 seconds. */
    {.name = "failed a moment ago", .facts = {{"s", 10, NOW, 0}}, .want = "b"},
    {.name = "failed nearly long enough ago", .facts = {{"s", 10, NOW - 29, 0}}, .want = "b"},
    {.name = "failed long enough ago",
	.facts = {{"s", 10, NOW - 30, 0}}, .want = "s", .abort = NOW + 60},
    {.name = "the failed one lets the others pass",
	.facts = {{"so", 10, NOW - 1, 0}, {"s", 500, 0, 0}},
	.want = "bs", .abort = NOW + 60},
    {.name = "failed in the future", .facts = {{"s", 10, NOW + 5, 0}}, .want = "b"},
    {.name = "young and failed", .facts = {{"s", NOW - 1, NOW, 0}}, .want = "y", .age = 100},

    /* Timeout: 60 seconds. */
    {.name = "not late yet", .facts = {{"n", 10, 0, NOW - 59}}, .want = "r", .abort = NOW + 1},
    {.name = "just late", .facts = {{"n", 10, 0, NOW - 60}}, .want = "a"},
    {.name = "told to stop already", .facts = {{"nx", 10, 0, NOW - 100}}, .want = "r"},
    {.name = "the earliest deadline counts",
	.facts = {{"n", 10, 0, NOW - 5}, {"n", 10, 0, NOW - 50}, {"n", 10, 0, NOW - 70}},
	.want = "rra", .max = 3, .abort = NOW + 10},
    {.name = "paused or not, late is late",
	.facts = {{"n", 10, 0, NOW - 60}}, .want = "a", .is_paused = true},
    {.name = "off stops what is under way, once",
	.facts = {{"n", 10, 0, NOW - 1}, {"nx", 10, 0, NOW - 1}, {"s", 10, 0, 0}},
	.want = "ar-", .is_off = true},
    {.name = "begun in the future", .facts = {{"n", 10, 0, NOW + 5}}, .want = "r", .abort = NOW + 65},

    {.name = "everything together",
	.facts = {{"s", 10, 0, 0}, {"so", 950, 0, 0}, {"so", 20, NOW - 1, 0}, {"no", 1, 0, NOW - 61},
	    {"no", 1, 0, NOW - 1}, {"so", 30, NOW - 40, 0}, {"so", 25, 0, 0}, {"n", 1, 0, 0},
	    {"s", 5, 0, 0}},
	.want = "wybarss-w", .max = 4, .age = 100, .abort = NOW + 59},
};
/* clang-format on */

static const char letters[] = {
    [CONTROLLER_LEAVE] = '-',
    [CONTROLLER_YOUNG] = 'y',
    [CONTROLLER_BACKING_OFF] = 'b',
    [CONTROLLER_WAIT] = 'w',
    [CONTROLLER_START] = 's',
    [CONTROLLER_RUN] = 'r',
    [CONTROLLER_ABORT] = 'a',
};

static size_t
make_facts(const struct row *row, struct controller_fact *facts)
{
	size_t n = 0;

	for (; n < MAX_FACTS && row->facts[n].kind; n++) {
		const struct fact *f = &row->facts[n];

		facts[n] = (struct controller_fact){
		    .subject = &facts[n],
		    .is_serving = strchr(f->kind, 's') != NULL,
		    .is_outdated = strchr(f->kind, 'o') != NULL,
		    .is_stopping = strchr(f->kind, 'x') != NULL,
		    .number = n + 1,
		    .serving_ns = S(f->serving),
		    .stayed_ns = S(f->stayed),
		    .started_ns = S(f->started),
		};
	}
	return n;
}

static struct controller_config
config_of(const struct row *row)
{
	return (struct controller_config){
	    .enabled = !row->is_off,
	    .paused = row->is_paused,
	    .min_age_ns = S(row->age),
	    .max_concurrent = row->max ? row->max : 1,
	    .timeout_ns = S(60),
	    .backoff_ns = S(30),
	};
}

/* The order in which facts come in must not matter: rotate puts another one first. */
static void
check(const struct row *row, size_t rotate)
{
	struct controller_fact facts[MAX_FACTS], rotated[MAX_FACTS];
	struct controller_config config = config_of(row);
	struct controller_plan plan;
	size_t n = make_facts(row, facts);
	char got[MAX_FACTS + 1] = "";
	uint64_t sum = 0;

	for (size_t i = 0; i < n; i++)
		rotated[i] = facts[(i + rotate) % n];
	controller_plan(&config, S(NOW), rotated, n, &plan);
	for (size_t i = 0; i < n; i++)
		got[rotated[i].number - 1] = letters[rotated[i].verdict];
	is_str(got, row->want, "%s (%zu)", row->name, rotate);
	is_int(plan.abort_ns, S(row->abort), "and when it next is late");
	for (size_t v = 0; v < CONTROLLER_VERDICTS; v++) {
		uint64_t want = 0;

		for (const char *p = row->want; *p; p++)
			want += *p == letters[v];
		if (plan.nr[v] != want)
			is_int(plan.nr[v], want, "counted: %c", letters[v]);
		sum += plan.nr[v];
	}
	is_int(sum, n, "every one is counted");
}

/* Those that start do so in the order of their turn. */
static void
test_turns(void)
{
	static const struct row row = {.facts = {{"s", 10, 0, 0}, {"so", 40, 0, 0}, {"s", 5, 0, 0},
					   {"so", 30, 0, 0}, {"s", 5, 0, 0}},
	    .max = 10};
	struct controller_fact facts[MAX_FACTS];
	struct controller_config config = config_of(&row);
	struct controller_plan plan;
	size_t n = make_facts(&row, facts);
	char got[MAX_FACTS + 1] = "";

	controller_plan(&config, S(NOW), facts, n, &plan);
	for (size_t i = 0; i < n; i++)
		got[i] = (char)('0' + facts[i].number);
	is_str(got, "42351", "the order of their turn");
}

/* Time passes, in one step for each second, until all have graduated: never more than two
 * at a time, and each waits for its age and its back-off. */
static void
test_passing_time(void)
{
	struct controller_config config = {.enabled = true,
	    .min_age_ns = S(20),
	    .max_concurrent = 2,
	    .timeout_ns = S(60),
	    .backoff_ns = S(30)};
	struct controller_fact facts[6] = {0};
	struct controller_plan plan;
	unsigned graduated = 0, failures = 0, most = 0;
	uint64_t now;
	bool kept = true;

	for (size_t i = 0; i < 6; i++)
		facts[i] = (struct controller_fact){
		    .is_serving = true, .number = i + 1, .serving_ns = S(100 + i)};
	for (now = 100; now < 1000 && graduated < 6; now++) {
		controller_plan(&config, S(now), facts, 6, &plan);
		for (size_t i = 0; i < 6; i++) {
			struct controller_fact *f = &facts[i];

			if (f->verdict == CONTROLLER_START) {
				kept &= S(now) - f->serving_ns >= S(20) &&
				    (f->stayed_ns == 0 || S(now) - f->stayed_ns >= S(30));
				f->started_ns = S(now);
				f->is_serving = false;
			} else if (f->started_ns && S(now) - f->started_ns >= S(7)) {
				/* The third one fails at its first attempt. */
				bool fails = f->number == 3 && failures == 0;

				f->started_ns = 0;
				f->is_serving = fails;
				f->stayed_ns = fails ? S(now) : 0;
				failures += fails;
				graduated += !fails;
			}
		}
		most = plan.nr[CONTROLLER_RUN] + plan.nr[CONTROLLER_START] > most
		    ? (unsigned)(plan.nr[CONTROLLER_RUN] + plan.nr[CONTROLLER_START])
		    : most;
	}
	is_int(graduated, 6, "all graduate");
	is_int(failures, 1, "one after a failure");
	is_int(most, 2, "two at a time");
	ok(kept, "each at its time");
	/* 120 and 121 begin the first two; the third fails at 134 or so and waits for 164. */
	ok(now > 170 && now < 180, "in the time that this takes: %u s", (unsigned)now - 100);
}

int
main(void)
{
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++)
		for (size_t rotate = 0; rotate == 0 || rotate < strlen(rows[i].want); rotate++)
			check(&rows[i], rotate);
	test_turns();
	test_passing_time();
	return done();
}
