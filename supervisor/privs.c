/* SPDX-License-Identifier: Apache-2.0 */
#include "supervisor/privs.h"

#include <errno.h>
#include <stddef.h>
#include <string.h>
#include <sys/capability.h>
#include <sys/prctl.h>

#include "common/log.h"

#define PRIV_MAX_CAPS 4

struct need {
	const char *doc;
	cap_value_t caps[PRIV_MAX_CAPS];
	size_t nr;
};

/* clang-format off */
#define NR_CAPS(...) (sizeof((cap_value_t[]){ __VA_ARGS__ }) / sizeof(cap_value_t))
static const struct need needs[PRIV_COUNT] = {
#define PRIV_NEED(NAME, doc, ...) [PRIV_##NAME] = { doc, { __VA_ARGS__ }, NR_CAPS(__VA_ARGS__) },
	PRIV_TABLE(PRIV_NEED)
#undef PRIV_NEED
};
/* clang-format on */

/* The sets of this process, as last written.  NULL before privs_init(): then nothing
 * was reduced and nothing needs to be raised. */
static cap_t sets;
static unsigned int held_count[PRIV_COUNT];

static bool
is_permitted(cap_value_t cap)
{
	cap_flag_value_t value = CAP_CLEAR;

	return sets == NULL ||
	    (cap_get_flag(sets, cap, CAP_PERMITTED, &value) == 0 && value == CAP_SET);
}

static int
set_effective(const struct need *need)
{
	for (size_t i = 0; i < need->nr; i++) {
		if (is_permitted(need->caps[i]) &&
		    cap_set_flag(sets, CAP_EFFECTIVE, 1, &need->caps[i], CAP_SET) < 0)
			return -errno;
	}
	return 0;
}

/* Makes the effective set what the held needs ask for, and nothing else. */
static int
apply(void)
{
	if (sets == NULL)
		return 0;
	if (cap_clear_flag(sets, CAP_EFFECTIVE) < 0)
		return -errno;
	for (enum priv need = PRIV_NONE + 1; need < PRIV_COUNT; need++) {
		int r = held_count[need] > 0 ? set_effective(&needs[need]) : 0;

		if (r < 0)
			return r;
	}
	return cap_set_proc(sets) < 0 ? -errno : 0;
}

/* Moves into wanted what is both permitted and in the need. */
static int
keep(cap_t wanted, const struct need *need)
{
	for (size_t i = 0; i < need->nr; i++) {
		if (is_permitted(need->caps[i]) &&
		    cap_set_flag(wanted, CAP_PERMITTED, 1, &need->caps[i], CAP_SET) < 0)
			return -errno;
	}
	return 0;
}

int
privs_init(void)
{
	cap_t wanted = cap_init();
	int r = 0;

	if (sets != NULL)
		cap_free(sets);
	sets = cap_get_proc();
	if (wanted == NULL || sets == NULL)
		r = -errno;
	for (enum priv need = PRIV_NONE + 1; r == 0 && need < PRIV_COUNT; need++)
		r = keep(wanted, &needs[need]);
	if (sets != NULL)
		cap_free(sets);
	sets = NULL;
	if (r < 0) {
		cap_free(wanted);
		return r;
	}
	sets = wanted;
	/* A capability in the ambient set would survive execve; one that is no longer
	 * inheritable leaves it by itself. */
	return apply();
}

int
privs_keep(const enum priv *kept, size_t nr)
{
	cap_t wanted;
	int r = 0;

	if (sets == NULL)
		return 0;
	wanted = cap_init();
	if (wanted == NULL)
		return -errno;
	for (size_t i = 0; r == 0 && i < nr; i++)
		r = keep(wanted, &needs[kept[i]]);
	if (r < 0) {
		cap_free(wanted);
		return r;
	}
	cap_free(sets);
	sets = wanted;
	return apply();
}

enum priv
priv_raise(enum priv need)
{
	int r;

	held_count[need]++;
	r = apply();
	if (r < 0)
		log_warning(
		    "privileges: cannot %s: %s; going on without", needs[need].doc, strerror(-r));
	return need;
}

void
priv_lower(enum priv *held)
{
	int r;

	if (*held == PRIV_NONE)
		return;
	held_count[*held]--;
	*held = PRIV_NONE;
	r = apply();
	/* Lowering needs no privilege: if it fails, we would go on with more than we
	 * said we hold. */
	if (r < 0)
		fatal("privileges: cannot be given back: %s", strerror(-r));
}

bool
priv_is_available(enum priv need)
{
	for (size_t i = 0; i < needs[need].nr; i++) {
		if (!is_permitted(needs[need].caps[i]))
			return false;
	}
	return true;
}

const char *
priv_doc(enum priv need)
{
	return needs[need].doc;
}

int
privs_drop_bounding(void)
{
	for (cap_value_t cap = 0; cap < cap_max_bits(); cap++) {
		if (cap_drop_bound(cap) < 0)
			return -errno;
	}
	return 0;
}

int
privs_drop_all(void)
{
	cap_t none = cap_init();
	int r = 0;

	if (none == NULL || cap_set_proc(none) < 0)
		r = -errno;
	if (none != NULL)
		cap_free(none);
	/* What a scope gives back later must not ask for them again. */
	if (r == 0 && sets != NULL)
		cap_clear(sets);
	return r;
}
