/* SPDX-License-Identifier: Apache-2.0 */
/* The system calls of a worker. */
#ifndef WORKER_SANDBOX_FILTER_H
#define WORKER_SANDBOX_FILTER_H

#include <stdint.h>

/* The sanitizers' runtimes need a little more: see the lists. */
#ifndef __has_feature
#define __has_feature(x) 0
#endif
#if defined(__SANITIZE_ADDRESS__) || __has_feature(address_sanitizer)
#define UNDER_ASAN 1
#else
#define UNDER_ASAN 0
#endif
#if defined(__SANITIZE_THREAD__) || __has_feature(thread_sanitizer)
#define UNDER_TSAN 1
#else
#define UNDER_TSAN 0
#endif

/* Loads the allow-list for every thread of this process; a call that is not on it
 * meets default_action (SCMP_ACT_...).  0, or a negative errno with the step that
 * failed in *ret_step. */
int sandbox_filter_load(uint32_t default_action, const char **ret_step);

#endif
