/* SPDX-License-Identifier: Apache-2.0 */
/* Unsigned LEB128 numbers of at most 64 bits. */
#ifndef COMMON_LEB128_H
#define COMMON_LEB128_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define LEB128_MAX_BYTES 10U

/* Returns how many bytes it took. */
static inline size_t
leb128_put(unsigned char *at, uint64_t value)
{
	size_t n = 0;

	for (; value >= 0x80; value >>= 7)
		at[n++] = (unsigned char)(value | 0x80);
	at[n++] = (unsigned char)value;
	return n;
}

/* Reads one from *at, which moves behind it, and below end.  False when it is cut short, larger
 * than 64 bits, or longer than it need be. */
static inline bool
leb128_get(const unsigned char **at, const unsigned char *end, uint64_t *ret)
{
	uint64_t value = 0;

	for (unsigned shift = 0; shift < 64 && *at < end; shift += 7) {
		unsigned char byte = *(*at)++;

		if (shift == 63 && byte > 1)
			return false;
		value |= (uint64_t)(byte & 0x7f) << shift;
		if (byte < 0x80) {
			*ret = value;
			return byte != 0 || shift == 0;
		}
	}
	return false;
}

#endif
