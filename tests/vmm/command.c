/* SPDX-License-Identifier: Apache-2.0 */
/* The line protocol.  A command is answered by exactly one line.  One that has to wait
 * for the end of another is held back, so that a whole script can be piped in; but
 * status, rss, stop and quit are answered at once, ahead of what is under way, and
 * between start and stop a discard runs beside the vCPUs.  Every ok ends in cmd=NAME,
 * so that answers can be told apart. */
#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/num.h"
#include "tests/vmm/job.h"

#define MAX_WORDS 12

struct words {
	unsigned n;
	char *word[MAX_WORDS]; /* word[0] is the command */
};

static struct {
	struct job job;
	bool is_running;    /* vCPUs are at work on it */
	bool is_background; /* and stop is what ends it */
	bool is_stopping;
	bool is_discarding;
	char name[16]; /* of the command that the outcome answers */
	uint32_t next_version;
	uint64_t total_wrong;
	bool wants_pulse;
	uint64_t pulse_since[VMM_MAX_VCPUS];
} state = {.next_version = 1};

static void __attribute__((format(printf, 1, 2))) answer(const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	vprintf(fmt, ap);
	va_end(ap);
	putchar('\n');
	fflush(stdout);
}

/* --- Arguments ------------------------------------------------------------------ */

static void
split_words(struct words *w, char *line)
{
	char *save = NULL;
	char *word = strtok_r(line, " \t\r", &save);

	memset(w, 0, sizeof(*w));
	while (word != NULL && w->n < MAX_WORDS) {
		w->word[w->n++] = word;
		word = strtok_r(NULL, " \t\r", &save);
	}
}

/* The value of name=value, or NULL when the word is another one. */
static const char *
value_of(const char *word, const char *name)
{
	size_t n = strlen(name);

	return strncmp(word, name, n) == 0 && word[n] == '=' ? word + n + 1 : NULL;
}

static int
parse_order(struct order *o, const char *word)
{
	if (strcmp(word, "seq") == 0)
		o->kind = ORDER_SEQ;
	else if (strcmp(word, "rand") == 0)
		o->kind = ORDER_RAND;
	else if (strncmp(word, "stride:", 7) == 0)
		o->kind = ORDER_STRIDE;
	else
		return -EINVAL;
	return o->kind == ORDER_STRIDE ? num_parse_u64(word + 7, 1, UINT32_MAX, &o->stride) : 0;
}

static int
parse_vcpu(const struct vmm *vmm, struct job *job, const char *value)
{
	uint64_t index;
	int err;

	if (strcmp(value, "all") == 0)
		return 0;
	err = num_parse_u64(value, 0, vmm->options.nr_vcpus - 1, &index);
	if (err < 0)
		return err;
	job->first_vcpu = (uint32_t)index;
	job->nr_vcpus = 1;
	return 0;
}

static int
parse_job_word(const struct vmm *vmm, struct job *job, const char *word)
{
	bool is_endless = (job->flags & GUEST_F_ENDLESS) != 0;
	const char *value;

	if ((value = value_of(word, "count")) != NULL)
		return num_parse_u64(value, 1, UINT32_MAX, &job->count);
	if ((value = value_of(word, "seed")) != NULL)
		return num_parse_u64(value, 0, UINT64_MAX, &job->order.seed);
	if ((value = value_of(word, "vcpu")) != NULL)
		return parse_vcpu(vmm, job, value);
	if (is_endless && (value = value_of(word, "period")) != NULL)
		return num_parse_u64(value, 1, 60000000, &job->period_us);
	if (is_endless && (value = value_of(word, "burst")) != NULL)
		return num_parse_u64(value, 1, UINT32_MAX, &job->burst);
	if (is_endless && (value = value_of(word, "stalls")) != NULL)
		return num_parse_u64(value, 1, UINT32_MAX, &job->stall_us);
	if (strcmp(word, "noverify") == 0)
		job->flags |= GUEST_F_FIRST_ONLY;
	else if (strcmp(word, "each") == 0)
		job->flags |= GUEST_F_ALL_TOUCH;
	else if (strcmp(word, "write") == 0 && is_endless)
		job->flags |= GUEST_F_WRITE_SOME;
	else
		return -EINVAL;
	return 0;
}

/* ORDER and what may follow it.  Answers when it fails. */
static bool
parse_job(const struct vmm *vmm, struct job *job, const struct words *w)
{
	unsigned i;

	job->order.nr_pages = vmm->memory.nr_pages;
	job->order.seed = 1;
	job->order.stride = 1;
	job->nr_vcpus = (uint32_t)vmm->options.nr_vcpus;
	if (w->n < 2 || parse_order(&job->order, w->word[1]) < 0) {
		answer("error %s: wants seq, rand or stride:N", w->word[0]);
		return false;
	}
	for (i = 2; i < w->n; i++) {
		if (parse_job_word(vmm, job, w->word[i]) < 0) {
			answer("error %s: cannot use '%s'", w->word[0], w->word[i]);
			return false;
		}
	}
	if (job->count == 0) {
		job->count = job->order.nr_pages;
		if (job->order.kind == ORDER_STRIDE)
			job->count = (job->count + job->order.stride - 1) / job->order.stride;
	}
	return true;
}

/* --- Jobs of the vCPUs ---------------------------------------------------------- */

static void
begin(struct vmm *vmm, const char *name, const struct job *job)
{
	state.job = *job;
	state.is_running = true;
	state.is_background = (job->flags & GUEST_F_ENDLESS) != 0;
	state.is_stopping = false;
	snprintf(state.name, sizeof(state.name), "%s", name);
	job_start(vmm, job);
}

static void
on_touch(struct vmm *vmm, const struct words *w)
{
	struct job job = {.command = GUEST_TOUCH};

	if (parse_job(vmm, &job, w))
		begin(vmm, "touch", &job);
}

static void
on_write(struct vmm *vmm, const struct words *w)
{
	struct job job = {.command = GUEST_WRITE};

	if (!parse_job(vmm, &job, w))
		return;
	if ((job.flags & (GUEST_F_ALL_TOUCH | GUEST_F_FIRST_ONLY)) != 0) {
		answer("error write: each and noverify are for touch");
		return;
	}
	job.version = state.next_version++;
	begin(vmm, "write", &job);
}

static void
on_verify(struct vmm *vmm, const struct words *w)
{
	struct job job = {
	    .command = GUEST_TOUCH,
	    .order = {.kind = ORDER_SEQ, .nr_pages = vmm->memory.nr_pages},
	    .count = vmm->memory.nr_pages,
	    .nr_vcpus = (uint32_t)vmm->options.nr_vcpus,
	};

	(void)w;
	begin(vmm, "verify", &job);
}

static void
on_start(struct vmm *vmm, const struct words *w)
{
	struct job job = {.command = GUEST_TOUCH, .flags = GUEST_F_ENDLESS, .burst = 1};

	if (!parse_job(vmm, &job, w))
		return;
	job.version = state.next_version;
	begin(vmm, "stop", &job);
	answer("ok vcpus=%" PRIu32 " cmd=start", job.nr_vcpus);
}

static void
on_stop(struct vmm *vmm, const struct words *w)
{
	(void)w;
	if (!state.is_background || state.is_stopping) {
		answer("error stop: nothing runs in the background");
		return;
	}
	state.is_stopping = true;
	job_stop(vmm, &state.job);
}

static void
answer_times(const struct job_outcome *o)
{
	const struct job_times *t = &o->times;

	printf(" p50_us=%.3f p99_us=%.3f max_us=%.3f wall_us=%.1f", t->p50_us, t->p99_us, t->max_us,
	    o->wall_us);
	printf(" p90_us=%.3f p999_us=%.3f mean_us=%.3f samples=%" PRIu64, t->p90_us, t->p999_us,
	    t->mean_us, t->samples);
	printf(" over_1ms=%" PRIu64 " over_5ms=%" PRIu64, t->over_1ms, t->over_5ms);
}

/* Powers of two in microseconds: "1:300,16:4" is 300 up to 1 us, 4 of 8 to 16 us. */
static void
answer_decades(const struct job_times *t)
{
	const char *separator = "";
	unsigned i;

	printf(" hist_us=");
	for (i = 0; i < sizeof(t->decades) / sizeof(t->decades[0]); i++) {
		if (t->decades[i] == 0)
			continue;
		printf("%s%llu:%" PRIu64, separator, 1ULL << i, t->decades[i]);
		separator = ",";
	}
	if (*separator == '\0')
		printf("-");
}

static void
answer_job(struct vmm *vmm)
{
	struct job_outcome o;

	state.is_running = false;
	state.is_background = false;
	job_collect(vmm, &state.job, &o);
	state.next_version += (uint32_t)o.passes + 1;
	state.total_wrong += o.wrong;
	if (state.wants_pulse) {
		state.wants_pulse = false;
		answer("error pulse: the job has ended");
	}
	if (o.error < 0) {
		answer(
		    "error %s: vcpu %" PRIu32 ": %s", state.name, o.error_vcpu, strerror(-o.error));
		return;
	}
	job_print_reports(vmm, &state.job);
	if (strcmp(state.name, "write") == 0)
		printf("ok written=%" PRIu64, o.written);
	else if (strcmp(state.name, "verify") == 0)
		printf("ok pages=%" PRIu64, o.visited);
	else if (strcmp(state.name, "stop") == 0)
		printf("ok loops=%" PRIu64 " passes=%" PRIu64 " written=%" PRIu64, o.visited,
		    o.passes, o.written);
	else
		printf("ok touched=%" PRIu64, o.visited);
	printf(" wrong=%" PRIu64, o.wrong);
	answer_times(&o);
	printf(" raced=%" PRIu64 " skipped=%" PRIu64, o.raced, o.skipped);
	answer_decades(&o.times);
	answer(" cmd=%s", state.name);
}

/* --- The background job while it runs -------------------------------------------- */

static void
on_pulse(struct vmm *vmm, const struct words *w)
{
	(void)w;
	if (!state.is_background || state.is_stopping || state.wants_pulse) {
		answer("error pulse: %s",
		    state.wants_pulse ? "one is awaited" : "nothing runs in the background");
		return;
	}
	state.wants_pulse = true;
	job_pulse(vmm, &state.job, state.pulse_since);
}

static void
answer_pulse(struct vmm *vmm)
{
	uint64_t visited;
	uint64_t wrong;

	if (!job_has_pulse(vmm, &state.job, state.pulse_since))
		return;
	state.wants_pulse = false;
	job_progress(vmm, &state.job, &visited, &wrong);
	answer("ok progress=%" PRIu64 " total_wrong=%" PRIu64 " cmd=pulse", visited,
	    state.total_wrong + wrong);
}

static void
on_lap(struct vmm *vmm, const struct words *w)
{
	struct job_outcome o = {.error = 0};

	(void)w;
	if (!state.is_background) {
		answer("error lap: nothing runs in the background");
		return;
	}
	job_lap(vmm, &state.job, &o.times);
	printf("ok");
	answer_times(&o);
	answer_decades(&o.times);
	answer(" cmd=lap");
}

static void
on_stalls(struct vmm *vmm, const struct words *w)
{
	const char *separator = "";
	struct vcpu_stall stall;
	uint64_t lost = 0;
	uint32_t i;

	(void)w;
	printf("ok stalls=");
	for (i = 0; i < vmm->options.nr_vcpus; i++) {
		while (vcpu_take_stall(&vmm->vcpus[i], &stall, &lost)) {
			printf("%s%" PRIu64 ":%" PRIu64, separator, stall.end_ns / 1000,
			    stall.ns / 1000);
			separator = ",";
		}
	}
	answer("%s lost=%" PRIu64 " cmd=stalls", *separator == '\0' ? "-" : "", lost);
}

int
command_timeout(void)
{
	return state.wants_pulse ? 1 : -1;
}

/* --- Discards ------------------------------------------------------------------- */

static int
parse_discard(const struct vmm *vmm, const struct words *w, struct balloon_order *o)
{
	uint64_t nr_pages = vmm->memory.nr_pages;
	unsigned nr_words;
	unsigned i;
	int err = 0;

	o->is_touched = w->n > 2 && strcmp(w->word[w->n - 1], "touch") == 0;
	nr_words = o->is_touched ? w->n - 1 : w->n;
	if (nr_words < 2)
		return -EINVAL;
	o->is_random = strcmp(w->word[1], "rand") == 0;
	if (!o->is_random) {
		if (nr_words != 3 || num_parse_u64(w->word[1], 0, nr_pages - 1, &o->start) < 0)
			return -EINVAL;
		return num_parse_u64(w->word[2], 1, nr_pages - o->start, &o->count);
	}
	for (i = 2; i < nr_words && err == 0; i++) {
		const char *count = value_of(w->word[i], "count");
		const char *seed = value_of(w->word[i], "seed");

		if (count != NULL)
			err = num_parse_u64(count, 1, nr_pages, &o->count);
		else if (seed != NULL)
			err = num_parse_u64(seed, 0, UINT64_MAX, &o->start);
		else
			err = -EINVAL;
	}
	return err == 0 && o->count == 0 ? -EINVAL : err;
}

static void
on_discard(struct vmm *vmm, const struct words *w)
{
	struct balloon_order order = {.is_random = false};
	uint64_t unit = vmm->memory.page_bytes / VMM_PAGE_BYTES;

	if (parse_discard(vmm, w, &order) < 0) {
		answer("error discard: wants START COUNT within %" PRIu64
		       " pages, or rand count=N [seed=S]",
		    vmm->memory.nr_pages);
		return;
	}
	if (order.count % unit != 0 || (!order.is_random && order.start % unit != 0)) {
		answer("error discard: whole huge pages only, multiples of %" PRIu64, unit);
		return;
	}
	state.is_discarding = true;
	balloon_post(&order);
}

static void
answer_discard(const struct balloon_outcome *o)
{
	state.is_discarding = false;
	if (o->error < 0) {
		answer("error discard: %s", strerror(-o->error));
		return;
	}
	answer("ok discarded=%" PRIu64 " skipped=%" PRIu64 " calls=%" PRIu64
	       " wall_us=%.1f max_us=%.1f touch_max_us=%.1f cmd=discard",
	    o->discarded, o->skipped, o->calls, (double)o->wall_ns / 1000.0,
	    (double)o->max_ns / 1000.0, (double)o->touch_max_ns / 1000.0);
}

/* --- Questions ------------------------------------------------------------------ */

static void
on_rss(struct vmm *vmm, const struct words *w)
{
	uint64_t resident = 0;
	int err = memory_resident(&vmm->memory, &resident);
	FILE *f = fopen("/proc/self/statm", "re");
	uint64_t size;
	uint64_t rss = 0;

	(void)w;
	if (f != NULL && fscanf(f, "%" SCNu64 " %" SCNu64, &size, &rss) != 2)
		err = -EIO;
	if (f != NULL)
		fclose(f);
	if (err < 0)
		answer("error rss: %s", strerror(-err));
	else
		answer(
		    "ok rss_kib=%" PRIu64 " resident_pages=%" PRIu64 " cmd=rss", rss * 4, resident);
}

static void
on_status(struct vmm *vmm, const struct words *w)
{
	const char *what = "idle";
	uint64_t visited = 0;
	uint64_t wrong = 0;

	(void)w;
	if (state.is_running) {
		what = state.is_background && !state.is_stopping ? "background" : state.name;
		job_progress(vmm, &state.job, &visited, &wrong);
	}
	answer("ok state=%s vcpus=%" PRIu64 " running=%" PRIu32 " blocked=%" PRIu32
	       " progress=%" PRIu64 " discarding=%d total_wrong=%" PRIu64 " cmd=status",
	    what, vmm->options.nr_vcpus, vcpus_running(vmm), vcpus_blocked(vmm), visited,
	    state.is_discarding, state.total_wrong + wrong);
}

static void
on_quit(struct vmm *vmm, const struct words *w)
{
	(void)vmm;
	(void)w;
	answer("ok cmd=quit");
	/* A vCPU may sleep in a fault for ever: nothing is waited for. */
	_exit(0);
}

/* By itself it does nothing: it is answered when what came before it has ended. */
static void
on_wait(struct vmm *vmm, const struct words *w)
{
	(void)vmm;
	(void)w;
	answer("ok cmd=wait");
}

static const struct {
	const char *name;
	void (*run)(struct vmm *vmm, const struct words *w);
	bool is_prompt;		   /* answered at once, whatever is under way */
	bool goes_with_background; /* possible between start and stop */
} commands[] = {
    {"touch", on_touch, false, false},
    {"write", on_write, false, false},
    {"verify", on_verify, false, false},
    {"start", on_start, false, false},
    {"stop", on_stop, true, true},
    {"pulse", on_pulse, true, true},
    {"lap", on_lap, true, true},
    {"stalls", on_stalls, true, true},
    {"discard", on_discard, false, true},
    {"wait", on_wait, false, true},
    {"rss", on_rss, true, true},
    {"status", on_status, true, true},
    {"quit", on_quit, true, true},
};

static bool
run_command(struct vmm *vmm, size_t i, const struct words *w)
{
	bool is_background = state.is_background && !state.is_stopping;

	if (!commands[i].is_prompt && (state.is_discarding || (state.is_running && !is_background)))
		return false;
	if (!commands[i].goes_with_background && is_background)
		answer("error %s: busy until stop", w->word[0]);
	else
		commands[i].run(vmm, w);
	return true;
}

bool
command_line(struct vmm *vmm, const char *line)
{
	char copy[VMM_MAX_LINE];
	struct words w;
	size_t i;

	snprintf(copy, sizeof(copy), "%s", line);
	split_words(&w, copy);
	if (w.n == 0) {
		answer("error: an empty line");
		return true;
	}
	for (i = 0; i < sizeof(commands) / sizeof(commands[0]); i++) {
		if (strcmp(w.word[0], commands[i].name) == 0)
			return run_command(vmm, i, &w);
	}
	answer("error: unknown command '%s'", w.word[0]);
	return true;
}

void
command_done(struct vmm *vmm)
{
	struct balloon_outcome discarded;

	if (balloon_take(&discarded))
		answer_discard(&discarded);
	if (state.wants_pulse)
		answer_pulse(vmm);
	if (state.is_running && vcpus_running(vmm) == 0)
		answer_job(vmm);
}
