/* SPDX-License-Identifier: Apache-2.0 */
#include "common/version.h"

#include <stddef.h>
#include <string.h>

static bool
is_digit(char c)
{
	return c >= '0' && c <= '9';
}

static bool
is_letter(char c)
{
	return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
}

bool
version_is_valid(const char *s)
{
	size_t n = strlen(s);

	if (n >= VERSION_BYTES || !is_digit(s[0]))
		return false;
	for (size_t i = 0; i < n; i++)
		if (!is_digit(s[i]) && !is_letter(s[i]) && !strchr(".+~-", s[i]))
			return false;
	return true;
}

/* The rank of a character that is no digit: '~' before the end, the end (and a digit)
 * before letters, letters before the rest. */
static int
rank(const char *s, const char *end)
{
	if (s == end || is_digit(*s))
		return 0;
	if (*s == '~')
		return -1;
	return is_letter(*s) ? (unsigned char)*s : (unsigned char)*s + 256;
}

/* Compares the numbers at *a and *b, of any length, and moves past them. */
static int
compare_numbers(const char **a, const char *a_end, const char **b, const char *b_end)
{
	int first = 0;

	while (*a < a_end && **a == '0')
		(*a)++;
	while (*b < b_end && **b == '0')
		(*b)++;
	while (*a < a_end && *b < b_end && is_digit(**a) && is_digit(**b)) {
		if (!first)
			first = **a - **b;
		(*a)++;
		(*b)++;
	}
	if (*a < a_end && is_digit(**a))
		return 1;
	if (*b < b_end && is_digit(**b))
		return -1;
	return first;
}

static int
compare_parts(const char *a, const char *a_end, const char *b, const char *b_end)
{
	while (a < a_end || b < b_end) {
		while ((a < a_end && !is_digit(*a)) || (b < b_end && !is_digit(*b))) {
			int diff = rank(a, a_end) - rank(b, b_end);

			if (diff)
				return diff;
			a++;
			b++;
		}
		int diff = compare_numbers(&a, a_end, &b, b_end);
		if (diff)
			return diff;
	}
	return 0;
}

/* Where the suffix starts: the last '-', or the end. */
static const char *
suffix_of(const char *s)
{
	const char *dash = strrchr(s, '-');

	return dash ? dash : s + strlen(s);
}

int
version_compare(const char *a, const char *b)
{
	const char *a_suffix = suffix_of(a), *b_suffix = suffix_of(b);
	int diff = compare_parts(a, a_suffix, b, b_suffix);

	if (diff)
		return diff;
	return compare_parts(
	    a_suffix, a_suffix + strlen(a_suffix), b_suffix, b_suffix + strlen(b_suffix));
}
