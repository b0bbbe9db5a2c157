/* SPDX-License-Identifier: Apache-2.0 */
/* Strict numbers from text: no sign, no space, nothing after. */
#ifndef COMMON_NUM_H
#define COMMON_NUM_H

#include <stdint.h>

/* 0; -EINVAL when it is not a decimal number, -ERANGE when it is out of range. */
int num_parse_u64(const char *s, uint64_t min, uint64_t max, uint64_t *ret);

/* A size: a number with an optional K, M, G (powers of 1024).  As above. */
int num_parse_bytes(const char *s, uint64_t min, uint64_t max, uint64_t *ret);

/* A duration to milliseconds: a number with ms, s, m or h; bare means seconds. */
int num_parse_ms(const char *s, uint64_t min, uint64_t max, uint64_t *ret);

#endif
