/* SPDX-License-Identifier: Apache-2.0 */
#include "supervisor/controller.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "common/clock.h"
#include "common/scope.h"
#include "common/xalloc.h"
#include "supervisor/child.h"
#include "supervisor/controller_plan.h"
#include "supervisor/psi.h"
#include "supervisor/supervisor.h"

enum stop_cause { STOP_NONE, STOP_LATE, STOP_OFF };

/* One completion that we began, until its outcome is decided. */
struct controller_attempt {
	struct list link; /* controller.attempts */
	struct session_wait wait;
	struct controller *controller;
	uint64_t number; /* for the log */
	uint64_t started_ns;
	enum stop_cause stop; /* why we asked it to stop */
};

static const char *const names[] = {
#define COUNT(NAME, ident, KIND, doc) [CONTROLLER_COUNT_##NAME] = #ident,
#include "supervisor/controller.def"
#undef COUNT
};

const char *
controller_count_name(enum controller_count count)
{
	return names[count];
}

#define attempt_log(attempt, level, fmt, ...)                                                  \
	session_log((attempt)->wait.session, (level), "controller: attempt %" PRIu64 ": " fmt, \
	    (attempt)->number, __VA_ARGS__)

/* --- The outcome ------------------------------------------------------------------ */

/* What became of it, for a session that is neither being completed nor closing. */
static enum controller_count
classify(const struct session *session)
{
	if (session->state == SESSION_GRADUATED)
		return CONTROLLER_COUNT_GRADUATED;
	if (!session_is_live(session) || session->completion == IPC_COMPLETION_GONE)
		return CONTROLLER_COUNT_GONE;
	return session->completion == IPC_COMPLETION_ABORTED ? CONTROLLER_COUNT_ABORTED
							     : CONTROLLER_COUNT_FAILED;
}

static void
tell_outcome(const struct controller_attempt *attempt, enum controller_count outcome)
{
	const struct session *session = attempt->wait.session;
	uint64_t backoff_ms = attempt->controller->sup->options.controller_failure_backoff_ms;
	uint64_t took_ms = (clock_now_ns() - attempt->started_ns) / NS_PER_MS;
	const char *word = session_outcome_name(session->outcome);
	const char *reason = attempt->stop == STOP_LATE ? "it took too long"
	    : outcome == CONTROLLER_COUNT_ABORTED	? "somebody else stopped it"
							: session->completion_reason;

	if (outcome == CONTROLLER_COUNT_GRADUATED)
		attempt_log(attempt, LOG_LEVEL_INFO,
		    "graduated, took_ms=%" PRIu64 "; needs no pager", took_ms);
	else if (outcome == CONTROLLER_COUNT_GONE)
		attempt_log(attempt, LOG_LEVEL_INFO,
		    "over, took_ms=%" PRIu64 ": the session has ended (%s); nothing is left to do",
		    took_ms, word ? word : "its VMM exits");
	else if (attempt->stop == STOP_OFF)
		attempt_log(attempt, LOG_LEVEL_INFO,
		    "aborted, took_ms=%" PRIu64 ": the controller was switched off; still served",
		    took_ms);
	else
		attempt_log(attempt, LOG_LEVEL_WARNING,
		    "%s, took_ms=%" PRIu64 ": %s; %s, left alone for backoff_ms=%" PRIu64,
		    names[outcome], took_ms, reason,
		    session->state == SESSION_SERVING ? "still served" : "its memory is held",
		    backoff_ms);
}

static void
attempt_free(struct controller_attempt *attempt)
{
	session_wait_remove(&attempt->wait);
	list_remove(&attempt->link);
	free(attempt);
}

static bool
on_check(struct session_wait *wait)
{
	struct controller_attempt *attempt = list_entry(wait, struct controller_attempt, wait);
	struct session *session = wait->session;
	enum controller_count outcome;

	if (session->state == SESSION_COMPLETING || session->state == SESSION_CLOSING)
		return false;
	outcome = classify(session);
	tell_outcome(attempt, outcome);
	/* It did nothing wrong: no back-off for when we are switched on again. */
	if (outcome == CONTROLLER_COUNT_ABORTED && attempt->stop == STOP_OFF)
		session->stayed_ns = 0;
	attempt->controller->totals[outcome]++;
	controller_kick(attempt->controller);
	attempt_free(attempt);
	return true;
}

/* --- Beginning and stopping ------------------------------------------------------- */

/* Each attempt gets the same share, so that all together stay below the rate. */
static uint64_t
rate_share(const struct options *options)
{
	uint64_t share = options->controller_rate_bytes / options->controller_max_concurrent;

	return options->controller_rate_bytes > 0 && share == 0 ? 1 : share;
}

static struct controller_attempt *
attempt_new(struct controller *controller, struct session *session, uint64_t now_ns)
{
	struct controller_attempt *attempt = xcalloc(1, sizeof(*attempt));

	attempt->controller = controller;
	attempt->wait.check = on_check;
	attempt->wait.session = session;
	attempt->started_ns = now_ns;
	attempt->number = ++controller->totals[CONTROLLER_COUNT_ATTEMPTS];
	list_init(&attempt->wait.link);
	list_add(&controller->attempts, &attempt->link);
	return attempt;
}

/* True when something changed. */
static bool
start(struct controller *controller, const struct controller_fact *fact, uint64_t now_ns)
{
	const struct options *options = &controller->sup->options;
	struct session *session = fact->subject;
	uint64_t rate_bytes = rate_share(options);
	struct controller_attempt *attempt;
	char why[256];
	int r = session_complete_paced(session, rate_bytes, why, sizeof(why));

	/* Telling its waits, which comes first, may have changed it. */
	if (r == -EALREADY || r == -EBUSY || r == -EINVAL)
		return false;
	attempt = attempt_new(controller, session, now_ns);
	if (r < 0) {
		attempt_log(attempt, LOG_LEVEL_WARNING,
		    "not begun: %s; left alone for backoff_ms=%" PRIu64, why,
		    options->controller_failure_backoff_ms);
		controller->totals[CONTROLLER_COUNT_FAILED]++;
		attempt_free(attempt);
		return true;
	}
	session_wait_add(session, &attempt->wait);
	attempt_log(attempt, LOG_LEVEL_INFO,
	    "completing it, version=%s%s served_ms=%" PRIu64 " rate_bytes=%" PRIu64,
	    session->version, fact->is_outdated ? " (outdated)" : "",
	    (now_ns - session->serving_ns) / NS_PER_MS, rate_bytes);
	return true;
}

static struct controller_attempt *
find_attempt(const struct controller *controller, const struct session *session)
{
	const struct list *pos;

	list_for_each(pos, &controller->attempts) {
		struct controller_attempt *attempt =
		    list_entry(pos, struct controller_attempt, link);

		if (attempt->wait.session == session)
			return attempt;
	}
	return NULL;
}

static void
stop(struct controller *controller, struct session *session)
{
	const struct options *options = &controller->sup->options;
	struct controller_attempt *attempt = find_attempt(controller, session);

	if (!attempt)
		return;
	if (!options->controller) {
		attempt->stop = STOP_OFF;
	} else {
		attempt->stop = STOP_LATE;
		attempt_log(attempt, LOG_LEVEL_WARNING,
		    "not complete within timeout_ms=%" PRIu64 "; aborting it",
		    options->controller_completion_timeout_ms);
	}
	session_abort(session);
}

/* --- What there is to decide by --------------------------------------------------- */

static struct controller_config
read_config(const struct controller *controller)
{
	const struct options *options = &controller->sup->options;

	return (struct controller_config){
	    .enabled = options->controller,
	    .paused = controller->is_paused,
	    .min_age_ns = options->controller_min_session_age_ms * NS_PER_MS,
	    .max_concurrent = options->controller_max_concurrent,
	    .timeout_ns = options->controller_completion_timeout_ms * NS_PER_MS,
	    .backoff_ns = options->controller_failure_backoff_ms * NS_PER_MS,
	};
}

static bool
is_outdated(const struct session *session)
{
	return strcmp(session->version, session->sup->fleet.current) != 0 ||
	    (session->child && child_is_draining(session->child));
}

static struct controller_fact
read_fact(const struct controller *controller, struct session *session)
{
	const struct controller_attempt *attempt = NULL;

	if (session->state == SESSION_COMPLETING || session->state == SESSION_CLOSING)
		attempt = find_attempt(controller, session);
	return (struct controller_fact){
	    .subject = session,
	    .is_serving = session->state == SESSION_SERVING,
	    .is_outdated = is_outdated(session),
	    .is_stopping =
		attempt && (attempt->stop != STOP_NONE || session->state == SESSION_CLOSING),
	    .number = session->number,
	    .serving_ns = session->serving_ns,
	    .stayed_ns = session->stayed_ns,
	    .started_ns = attempt ? attempt->started_ns : 0,
	};
}

/* One fact for each live session, which the caller frees; NULL without memory. */
static struct controller_fact *
read_facts(const struct controller *controller, size_t *ret_nr)
{
	const struct sessions *sessions = &controller->sup->sessions;
	struct controller_fact *facts = calloc(sessions->live + 1, sizeof(*facts));
	struct list *pos;
	size_t n = 0;

	list_for_each(pos, &sessions->all) {
		struct session *session = list_entry(pos, struct session, link);

		if (facts && session_is_live(session))
			facts[n++] = read_fact(controller, session);
	}
	*ret_nr = n;
	return facts;
}

/* Says each change once. */
static void
look_at_pressure(struct controller *controller)
{
	const struct options *options = &controller->sup->options;
	const char *path = options->controller_pressure_file;
	uint32_t value = 0;
	bool is_asked = options->controller && options->controller_pressure > 0;
	int r = is_asked ? psi_read(path, &value) : 0;
	bool is_high = value > options->controller_pressure * PSI_PERCENT;

	if (r < 0 && !controller->is_blind)
		log_warning("controller: memory pressure: %s: %s; never pausing for it", path,
		    r == -EINVAL ? "not in the kernel's form" : strerror(-r));
	else if (is_asked && is_high != controller->is_paused)
		log_notice("controller: memory pressure some avg10=%" PRIu32 ".%02" PRIu32
			   " threshold=%" PRIu64 "; %s",
		    value / PSI_PERCENT, value % PSI_PERCENT, options->controller_pressure,
		    is_high ? "paused, what is under way goes on" : "goes on");
	else if (controller->is_paused && !is_high)
		log_notice("controller: memory pressure is not looked at any more");
	controller->is_blind = r < 0;
	controller->is_paused = r == 0 && is_asked && is_high;
}

static void
note_switch(struct controller *controller)
{
	const struct options *options = &controller->sup->options;

	if (controller->was_enabled == options->controller)
		return;
	controller->was_enabled = options->controller;
	if (options->controller)
		log_notice("controller: on, min_session_age_ms=%" PRIu64 " max_concurrent=%" PRIu64
			   "; completes sessions by itself",
		    options->controller_min_session_age_ms, options->controller_max_concurrent);
	else
		log_notice("controller: off; %s",
		    list_is_empty(&controller->attempts)
			? "nothing was under way"
			: "what is under way is aborted and goes on being served");
}

/* --- The loop --------------------------------------------------------------------- */

static bool
apply(struct controller *controller, const struct controller_fact *facts, size_t nr_facts,
    uint64_t now_ns)
{
	bool changed = false;

	for (size_t i = 0; i < nr_facts; i++) {
		if (facts[i].verdict == CONTROLLER_ABORT)
			stop(controller, facts[i].subject);
		else if (facts[i].verdict == CONTROLLER_START)
			changed |= start(controller, &facts[i], now_ns);
	}
	return changed;
}

/* Until the next scan, or until an attempt is late if that comes before. */
static void
arm(struct controller *controller, uint64_t now_ns, uint64_t abort_ns)
{
	const struct options *options = &controller->sup->options;
	uint64_t wait_ns = options->controller_scan_interval_ms * NS_PER_MS;

	if (abort_ns != 0 && abort_ns < now_ns + wait_ns)
		wait_ns = abort_ns > now_ns ? abort_ns - now_ns : 0;
	ev_now_update(controller->sup->loop);
	ev_timer_set(&controller->timer, (double)wait_ns / (double)NS_PER_S, 0.);
	ev_timer_start(controller->sup->loop, &controller->timer);
}

bool
controller_step(struct controller *controller)
{
	scoped_free struct controller_fact *facts = NULL;
	struct controller_config config;
	struct controller_plan plan;
	uint64_t now_ns = clock_now_ns();
	size_t nr_facts;
	bool changed;

	if (!controller->due || controller->sup->stopping)
		return false;
	controller->due = false;
	ev_timer_stop(controller->sup->loop, &controller->timer);
	note_switch(controller);
	look_at_pressure(controller);
	if (!controller->was_enabled && list_is_empty(&controller->attempts))
		return false;
	facts = read_facts(controller, &nr_facts);
	if (!facts) {
		log_warning("controller: no memory to look at the sessions; later");
		arm(controller, now_ns, 0);
		return false;
	}
	config = read_config(controller);
	controller_plan(&config, now_ns, facts, nr_facts, &plan);
	changed = apply(controller, facts, nr_facts, now_ns);
	arm(controller, now_ns, plan.abort_ns);
	return changed;
}

static void
on_timer(struct ev_loop *loop, ev_timer *timer, int revents)
{
	(void)loop;
	(void)revents;
	controller_kick(timer->data);
}

void
controller_init(struct controller *controller, struct supervisor *sup)
{
	*controller = (struct controller){.sup = sup, .due = true};
	list_init(&controller->attempts);
	ev_timer_init(&controller->timer, on_timer, 0., 0.);
	controller->timer.data = controller;
}

void
controller_fini(struct controller *controller)
{
	if (!controller->sup)
		return;
	ev_timer_stop(controller->sup->loop, &controller->timer);
	while (!list_is_empty(&controller->attempts))
		attempt_free(
		    list_entry(controller->attempts.next, struct controller_attempt, link));
	controller->sup = NULL;
}

void
controller_counts(const struct controller *controller, uint64_t ret[CONTROLLER_COUNTS])
{
	struct controller_config config = read_config(controller);
	struct controller_plan plan;
	size_t nr_facts;
	scoped_free struct controller_fact *facts = read_facts(controller, &nr_facts);

	memcpy(ret, controller->totals, sizeof(controller->totals));
	controller_plan(&config, clock_now_ns(), facts, nr_facts, &plan);
	ret[CONTROLLER_COUNT_ENABLED] = config.enabled;
	ret[CONTROLLER_COUNT_PAUSED] = config.paused;
	ret[CONTROLLER_COUNT_IN_FLIGHT] = plan.nr[CONTROLLER_RUN] + plan.nr[CONTROLLER_ABORT];
	/* What is about to be begun waits, too. */
	ret[CONTROLLER_COUNT_WAITING] = plan.nr[CONTROLLER_WAIT] + plan.nr[CONTROLLER_START];
	ret[CONTROLLER_COUNT_YOUNG] = plan.nr[CONTROLLER_YOUNG];
	ret[CONTROLLER_COUNT_BACKING_OFF] = plan.nr[CONTROLLER_BACKING_OFF];
}
