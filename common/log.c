/* SPDX-License-Identifier: Apache-2.0 */
/* One line is one write(), so lines of several threads or processes on the same pipe
 * do not mix.  A line is lost, and its caller never blocks, where the pipe does not (a worker's)
 * or log_drop_when_full() was asked for. */
#include "common/log.h"

#include <errno.h>
#include <poll.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/exitcode.h"

#define LINE_BYTES    2048U /* below PIPE_BUF: a line is written whole or not at all */
#define LIMIT_DEFAULT 10U   /* lines a second */

static const char *log_name = "pagerd";
static _Atomic int log_max = LOG_LEVEL_NOTICE;
static bool is_terminal;	 /* a person reads it: no levels */
static bool drops;		 /* instead of waiting for whoever reads */
static unsigned long nr_dropped; /* since the last line that got through */

static const struct {
	const char *word;
	enum log_level level;
} level_words[] = {
    {"err", LOG_LEVEL_ERR},
    {"warning", LOG_LEVEL_WARNING},
    {"notice", LOG_LEVEL_NOTICE},
    {"info", LOG_LEVEL_INFO},
    {"debug", LOG_LEVEL_DEBUG},
};

void
log_init(const char *name, enum log_level max)
{
	log_name = name;
	is_terminal = isatty(STDERR_FILENO) == 1;
	log_set_level(max);
}

void
log_set_level(enum log_level max)
{
	atomic_store_explicit(&log_max, (int)max, memory_order_relaxed);
}

int
log_level_parse(const char *word)
{
	for (size_t i = 0; i < sizeof(level_words) / sizeof(*level_words); i++)
		if (strcmp(word, level_words[i].word) == 0)
			return (int)level_words[i].level;
	return -EINVAL;
}

void
log_drop_when_full(void)
{
	drops = true;
}

static bool
is_enabled(enum log_level level)
{
	return (int)level <= atomic_load_explicit(&log_max, memory_order_relaxed);
}

/* Texts of peers end up in lines: a control character must not forge another line
 * or drive the terminal of the person who reads it. */
static void
defuse(char *s, size_t n)
{
	for (size_t i = 0; i < n; i++)
		if ((unsigned char)s[i] < 0x20 || s[i] == 0x7f)
			s[i] = '?';
}

static size_t
clip(int n, size_t room)
{
	if (n < 0)
		return 0;
	return (size_t)n < room ? (size_t)n : room - 1;
}

static void
put_line(const char *line, size_t bytes)
{
	while (write(STDERR_FILENO, line, bytes) < 0 && errno == EINTR)
		;
}

/* A pipe that says it can be written to takes PIPE_BUF bytes at once. */
static bool
is_full(void)
{
	struct pollfd out = {.fd = STDERR_FILENO, .events = POLLOUT};

	return poll(&out, 1, 0) == 0;
}

/* One thread logs where this is asked for. */
static bool
is_dropped(void)
{
	char line[128];
	unsigned long n = nr_dropped;

	if (!drops)
		return false;
	if (is_full()) {
		nr_dropped++;
		return true;
	}
	if (n == 0)
		return false;
	nr_dropped = 0;
	put_line(line,
	    clip(snprintf(line, sizeof(line), "<%d>%s: log: %lu lines lost: nobody read them\n",
		     (int)LOG_LEVEL_WARNING, log_name, n),
		sizeof(line)));
	return is_full();
}

void
log_va(enum log_level level, const char *fmt, va_list ap)
{
	int saved = errno;
	char line[LINE_BYTES];

	if (!is_enabled(level))
		return;
	int head = is_terminal ? snprintf(line, sizeof(line), "%s: ", log_name)
			       : snprintf(line, sizeof(line), "<%d>%s: ", (int)level, log_name);
	size_t used = clip(head, sizeof(line) - 1);
	size_t room = sizeof(line) - used - 1; /* keeps a byte for the newline */
	size_t text = clip(vsnprintf(line + used, room, fmt, ap), room);
	defuse(line + used, text);
	used += text;
	line[used++] = '\n';
	if (!is_dropped())
		put_line(line, used);
	errno = saved;
}

void
log_at(enum log_level level, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	log_va(level, fmt, ap);
	va_end(ap);
}

void
fatal(const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	log_va(LOG_LEVEL_ERR, fmt, ap);
	va_end(ap);
	_exit(EXITCODE_FATAL);
}

bool
log_limit_take(struct log_limit *limit, uint64_t now_ns)
{
	uint32_t burst = limit->burst ? limit->burst : LIMIT_DEFAULT;

	if (limit->window_ns == 0 || now_ns >= limit->window_ns + NS_PER_S) {
		limit->window_ns = now_ns;
		limit->used = 0;
	}
	if (limit->used < burst) {
		limit->used++;
		return true;
	}
	limit->dropped += limit->dropped < UINT32_MAX;
	return false;
}

void
log_limited(struct log_limit *limit, enum log_level level, const char *fmt, ...)
{
	int saved = errno;
	va_list ap;

	if (!is_enabled(level))
		return;
	bool pass = log_limit_take(limit, clock_now_ns());
	if (pass && limit->dropped) {
		log_at(level, "swallowed %u lines like the next one", limit->dropped);
		limit->dropped = 0;
	}
	errno = saved;
	if (!pass)
		return;
	va_start(ap, fmt);
	log_va(level, fmt, ap);
	va_end(ap);
}
