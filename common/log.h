/* SPDX-License-Identifier: Apache-2.0 */
/* The log: lines on stderr, with the <N> prefix that the journal understands unless that
 * is a terminal.
 * A format is lower case, object first, consequence last, key=value for what a
 * machine may want, and never ends in a newline.  errno is preserved.
 * Not for the fault path: a page fault is counted, never logged. */
#ifndef COMMON_LOG_H
#define COMMON_LOG_H

#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>

enum log_level {
	LOG_LEVEL_ERR = 3,     /* somebody must act; data or sessions were lost */
	LOG_LEVEL_WARNING = 4, /* we coped, but it should not happen */
	LOG_LEVEL_NOTICE = 5,  /* life cycle; the default */
	LOG_LEVEL_INFO = 6,    /* one line for each session */
	LOG_LEVEL_DEBUG = 7,   /* each message; never each page */
};

/* name goes in front of every line ("pagerd", "pager-worker"); borrowed for ever. */
void log_init(const char *name, enum log_level max);
void log_set_level(enum log_level max);

/* From now on a line is lost while nobody reads stderr, and the next that gets through says how
 * many were.  For a process of one thread whose loop must not wait. */
void log_drop_when_full(void);

/* The level that a word of --log-level names, or -EINVAL. */
int log_level_parse(const char *word);

void log_at(enum log_level level, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
void log_va(enum log_level level, const char *fmt, va_list ap)
    __attribute__((format(printf, 2, 0)));

#define log_err(...)	 log_at(LOG_LEVEL_ERR, __VA_ARGS__)
#define log_warning(...) log_at(LOG_LEVEL_WARNING, __VA_ARGS__)
#define log_notice(...)	 log_at(LOG_LEVEL_NOTICE, __VA_ARGS__)
#define log_info(...)	 log_at(LOG_LEVEL_INFO, __VA_ARGS__)
#define log_debug(...)	 log_at(LOG_LEVEL_DEBUG, __VA_ARGS__)

/* Logs and exits with EXITCODE_FATAL.  Only before READY and for a broken invariant of ours. */
void fatal(const char *fmt, ...) __attribute__((format(printf, 1, 2), noreturn));

/* A budget for lines that a peer can cause: so many a second, then silence, then
 * one line that says how many were swallowed. */
struct log_limit {
	uint64_t window_ns; /* start of the current second, CLOCK_MONOTONIC */
	uint32_t used;	    /* lines in it */
	uint32_t dropped;   /* since the last line that got through */
	uint32_t burst;	    /* lines a second; 0 means 10 */
};

/* Takes a line from the budget at a time; false: swallow it. */
bool log_limit_take(struct log_limit *limit, uint64_t now_ns);

/* Logs within the budget. */
void log_limited(struct log_limit *limit, enum log_level level, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));

#endif
