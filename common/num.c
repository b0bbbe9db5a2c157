/* SPDX-License-Identifier: Apache-2.0 */
#include "common/num.h"

#include <errno.h>
#include <stddef.h>
#include <string.h>

struct unit {
	const char *suffix;
	uint64_t factor;
};

/* The digits at the start of s; *end is what follows them. */
static int
parse_digits(const char *s, const char **end, uint64_t *ret)
{
	uint64_t value = 0;
	int r = 0;

	if (*s < '0' || *s > '9')
		return -EINVAL;
	for (; *s >= '0' && *s <= '9'; s++)
		if (__builtin_mul_overflow(value, 10, &value) ||
		    __builtin_add_overflow(value, (uint64_t)(*s - '0'), &value))
			r = -ERANGE; /* go on: garbage behind the digits is the better complaint */
	*end = s;
	*ret = value;
	return r;
}

static int
parse_scaled(const char *s, const struct unit *units, const uint64_t range[2], uint64_t *ret)
{
	const char *suffix;
	uint64_t value;

	int r = parse_digits(s, &suffix, &value);
	if (r == -EINVAL)
		return r;
	while (units->suffix && strcmp(units->suffix, suffix) != 0)
		units++;
	if (!units->suffix)
		return -EINVAL;
	if (r < 0 || __builtin_mul_overflow(value, units->factor, &value) || value < range[0] ||
	    value > range[1])
		return -ERANGE;
	*ret = value;
	return 0;
}

int
num_parse_u64(const char *s, uint64_t min, uint64_t max, uint64_t *ret)
{
	static const struct unit units[] = {{"", 1}, {NULL, 0}};

	return parse_scaled(s, units, (const uint64_t[]){min, max}, ret);
}

int
num_parse_bytes(const char *s, uint64_t min, uint64_t max, uint64_t *ret)
{
	static const struct unit units[] = {
	    {"", 1},
	    {"K", UINT64_C(1) << 10},
	    {"M", UINT64_C(1) << 20},
	    {"G", UINT64_C(1) << 30},
	    {NULL, 0},
	};

	return parse_scaled(s, units, (const uint64_t[]){min, max}, ret);
}

int
num_parse_ms(const char *s, uint64_t min, uint64_t max, uint64_t *ret)
{
	static const struct unit units[] = {
	    {"", 1000},
	    {"ms", 1},
	    {"s", 1000},
	    {"m", 60 * 1000},
	    {"h", 60 * 60 * 1000},
	    {NULL, 0},
	};

	return parse_scaled(s, units, (const uint64_t[]){min, max}, ret);
}
