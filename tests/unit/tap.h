/* SPDX-License-Identifier: Apache-2.0 */
/* TAP for the unit tests: a line for each check, the plan at the end, and an exit code
 * that is 0 only when something ran and nothing failed.  Each check returns whether it
 * held; its last arguments are a printf format and what belongs to it. */
#ifndef TESTS_UNIT_TAP_H
#define TESTS_UNIT_TAP_H

#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static unsigned tap_run, tap_failed;

static inline __attribute__((format(printf, 3, 4))) bool
tap_check(bool held, int line, const char *fmt, ...)
{
	va_list ap;

	printf("%s %u - ", held ? "ok" : "not ok", ++tap_run);
	va_start(ap, fmt);
	vprintf(fmt, ap);
	va_end(ap);
	if (!held)
		printf(" (line %d)", line);
	putchar('\n');
	tap_failed += !held;
	fflush(stdout); /* before a fork, and before a crash */
	return held;
}

static inline bool
tap_is_int(intmax_t got, intmax_t want, int line, const char *name)
{
	if (got == want)
		return tap_check(true, line, "%s", name);
	return tap_check(false, line, "%s: got %jd, want %jd", name, got, want);
}

static inline bool
tap_is_str(const char *got, const char *want, int line, const char *name)
{
	if (got && strcmp(got, want) == 0)
		return tap_check(true, line, "%s", name);
	return tap_check(
	    false, line, "%s: got \"%s\", want \"%s\"", name, got ? got : "(null)", want);
}

static inline const char *__attribute__((format(printf, 1, 2))) tap_name(const char *fmt, ...)
{
	static char name[512];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(name, sizeof(name), fmt, ap);
	va_end(ap);
	return name;
}

#define ok(cond, ...) tap_check((cond), __LINE__, __VA_ARGS__)
#define is_int(got, want, ...) \
	tap_is_int((intmax_t)(got), (intmax_t)(want), __LINE__, tap_name(__VA_ARGS__))
#define is_str(got, want, ...) tap_is_str((got), (want), __LINE__, tap_name(__VA_ARGS__))
#define skip(n, ...)	       tap_skip((n), tap_name(__VA_ARGS__))

/* Counts n checks that cannot run here, and says why. */
static inline void
tap_skip(unsigned n, const char *reason)
{
	while (n--)
		printf("ok %u # SKIP %s\n", ++tap_run, reason);
}

/* return done(); at the end of main(). */
static inline int
done(void)
{
	printf("1..%u\n", tap_run);
	if (tap_failed)
		printf("# %u of %u failed\n", tap_failed, tap_run);
	return tap_run == 0 || tap_failed ? EXIT_FAILURE : EXIT_SUCCESS;
}

#endif
