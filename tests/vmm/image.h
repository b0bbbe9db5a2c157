/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TESTS_VMM_IMAGE_H
#define TESTS_VMM_IMAGE_H

#include <stdint.h>

#include "tests/vmm/pattern.h"

/* Writes size_bytes of pattern into an empty file; what is a hole stays one.
 * 0 or a negative errno. */
int image_write(int fd, const struct pattern *pattern, uint64_t size_bytes);

#endif
