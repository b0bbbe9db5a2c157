/* SPDX-License-Identifier: Apache-2.0 */
#include "supervisor/ctl/text.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "common/clock.h"

#define MAX_WORD 32U

const char *
text_bytes(char *buf, uint64_t bytes)
{
	static const char *const units[] = {"B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"};
	double value = (double)bytes;
	size_t unit = 0;

	/* 1023.95 would be written as 1024.0. */
	while (value >= 1023.95 && unit + 1 < sizeof(units) / sizeof(units[0])) {
		value /= 1024.0;
		unit++;
	}
	if (value >= 99.95 || value == (double)(uint64_t)value)
		snprintf(buf, TEXT_BYTES, "%.0f %s", value, units[unit]);
	else
		snprintf(buf, TEXT_BYTES, "%.1f %s", value, units[unit]);
	return buf;
}

const char *
text_nanos(char *buf, uint64_t nanos)
{
	uint64_t s = nanos / NS_PER_S;

	if (nanos < NS_PER_US)
		snprintf(buf, TEXT_BYTES, "%" PRIu64 " ns", nanos);
	else if (nanos < NS_PER_MS)
		snprintf(buf, TEXT_BYTES, "%" PRIu64 " us", nanos / NS_PER_US);
	else if (nanos < NS_PER_S)
		snprintf(buf, TEXT_BYTES, nanos < 100 * NS_PER_MS ? "%.1f ms" : "%.0f ms",
		    (double)nanos / (double)NS_PER_MS);
	else if (s < 60)
		snprintf(buf, TEXT_BYTES, "%.1f s", (double)nanos / (double)NS_PER_S);
	else if (s < 3600)
		snprintf(buf, TEXT_BYTES, "%" PRIu64 " min %" PRIu64 " s", s / 60, s % 60);
	else if (s < 86400)
		snprintf(buf, TEXT_BYTES, "%" PRIu64 " h %" PRIu64 " min", s / 3600, s / 60 % 60);
	else
		snprintf(buf, TEXT_BYTES, "%" PRIu64 " d %" PRIu64 " h", s / 86400, s / 3600 % 24);
	return buf;
}

const char *
text_count(char *buf, uint64_t count)
{
	char digits[24];
	int n = snprintf(digits, sizeof(digits), "%" PRIu64, count);
	char *p = buf;

	for (int i = 0; i < n; i++) {
		if (i && (n - i) % 3 == 0)
			*p++ = ' ';
		*p++ = digits[i];
	}
	*p = '\0';
	return buf;
}

const char *
text_percent(char *buf, uint64_t done, uint64_t total)
{
	unsigned percent = total ? (unsigned)((double)done / (double)total * 100.0) : 0;

	if (percent >= 100 && done < total)
		percent = 99;
	if (percent == 0 && done && total)
		percent = 1;
	snprintf(buf, TEXT_BYTES, "%u %%", percent > 100 ? 100 : percent);
	return buf;
}

void
text_bar(char *buf, size_t width, uint64_t done, uint64_t total)
{
	size_t full = total ? (size_t)((double)done / (double)total * (double)width) : 0;

	if (full > width)
		full = width;
	if (full == width && done < total && full)
		full--;
	buf[0] = '[';
	memset(buf + 1, '#', full);
	memset(buf + 1 + full, '.', width - full);
	buf[width + 1] = ']';
	buf[width + 2] = '\0';
}

void
text_make_printable(char *text)
{
	for (unsigned char *p = (unsigned char *)text; *p; p++) {
		if (*p < 0x20 || *p == 0x7f)
			*p = '?';
		else if (*p == 0xc2 && p[1] >= 0x80 && p[1] < 0xa0) {
			*p++ = '?';
			*p = '?';
		}
	}
}

bool
text_is_unreserved(char c)
{
	return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
	    c == '-' || c == '.' || c == '_' || c == '~';
}

size_t
text_width(const char *text)
{
	size_t n = 0;

	for (; *text; text++)
		n += ((unsigned char)*text & 0xc0) != 0x80;
	return n;
}

static unsigned
least(unsigned a, unsigned b)
{
	return a < b ? a : b;
}

unsigned
text_distance(const char *a, const char *b)
{
	unsigned d[MAX_WORD + 1][MAX_WORD + 1];
	size_t a_bytes = strnlen(a, MAX_WORD), b_bytes = strnlen(b, MAX_WORD);

	for (unsigned i = 0; i <= a_bytes; i++)
		d[i][0] = i;
	for (unsigned j = 0; j <= b_bytes; j++)
		d[0][j] = j;
	for (size_t i = 1; i <= a_bytes; i++)
		for (size_t j = 1; j <= b_bytes; j++) {
			d[i][j] = least(least(d[i - 1][j], d[i][j - 1]) + 1,
			    d[i - 1][j - 1] + (a[i - 1] != b[j - 1]));
			if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1])
				d[i][j] = least(d[i][j], d[i - 2][j - 2] + 1);
		}
	return d[a_bytes][b_bytes];
}

bool
text_is_near(const char *word, const char *name)
{
	size_t bytes = strlen(word);

	return (bytes >= 2 && strncmp(word, name, bytes) == 0) ||
	    text_distance(word, name) <= (strlen(name) > 4 ? 2U : 1U);
}

void
text_wrap(FILE *out, const char *text, size_t at, size_t indent, size_t columns)
{
	bool first = true;

	if (at < indent)
		at = (size_t)(fprintf(out, "%*s", (int)(indent - at), "") + (int)at);
	for (; *text; text += strspn(text, " ")) {
		size_t bytes = strcspn(text, " ");

		if (!first && at + 1 + bytes > columns) {
			fprintf(out, "\n%*s", (int)indent, "");
			at = indent;
		} else if (!first) {
			putc(' ', out);
			at++;
		}
		at += bytes;
		for (; bytes > 0; bytes--, text++)
			putc(*text == *TEXT_SPACE ? ' ' : *text, out);
		first = false;
	}
	putc('\n', out);
}
