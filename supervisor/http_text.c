/* SPDX-License-Identifier: Apache-2.0 */
/* Percent-encoding and queries: pure. */
#include <errno.h>
#include <string.h>

#include "supervisor/http.h"

static int
hex(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	if (c >= 'a' && c <= 'f')
		return c - 'a' + 10;
	if (c >= 'A' && c <= 'F')
		return c - 'A' + 10;
	return -1;
}

int
http_percent_decode(const char *text, size_t n, char *buf, size_t bytes)
{
	size_t used = 0;

	for (size_t i = 0; i < n; i++) {
		int c = (unsigned char)text[i];

		if (c == '%') {
			if (n - i < 3 || hex(text[i + 1]) < 0 || hex(text[i + 2]) < 0)
				return -EINVAL;
			c = hex(text[i + 1]) * 16 + hex(text[i + 2]);
			i += 2;
		}
		if (c == '\0')
			return -EINVAL;
		if (used + 1 >= bytes)
			return -ENAMETOOLONG;
		buf[used++] = (char)c;
	}
	if (bytes == 0)
		return -ENAMETOOLONG;
	buf[used] = '\0';
	return (int)used;
}

int
http_query(const struct http_request *req, const char *key, char *buf, size_t bytes)
{
	size_t key_bytes = strlen(key);
	const char *pair = req->query;

	while (*pair) {
		size_t pair_bytes = strcspn(pair, "&");

		if (strcspn(pair, "=&") == key_bytes && strncmp(pair, key, key_bytes) == 0) {
			size_t skip = key_bytes + (pair_bytes > key_bytes);
			int r = http_percent_decode(pair + skip, pair_bytes - skip, buf, bytes);

			return r < 0 ? r : 1;
		}
		pair += pair_bytes + (pair[pair_bytes] == '&');
	}
	return 0;
}
