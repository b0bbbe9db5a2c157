/* SPDX-License-Identifier: Apache-2.0 */
#include "supervisor/ctl/progress.h"

#include <stdio.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "common/clock.h"
#include "supervisor/ctl/ctl.h"
#include "supervisor/ctl/text.h"

#define MAX_BAR	  50
#define TEXT_ROOM 60 /* of what stands beside the bar */

void
progress_text(char buf[PROGRESS_BYTES], const json_t *progress, uint64_t guest_bytes, size_t bar)
{
	uint64_t done = ctl_u64(progress, "pages_done"), total = ctl_u64(progress, "pages_total");
	char drawn[MAX_BAR + 4] = "", percent[TEXT_BYTES], a[TEXT_BYTES], b[TEXT_BYTES];
	char c[TEXT_BYTES], d[TEXT_BYTES], left[TEXT_BYTES + 16] = "";

	buf[0] = '\0';
	if (!progress || total == 0)
		return;
	if (json_is_integer(json_object_get(progress, "eta_ms")))
		snprintf(left, sizeof(left), "  %s left",
		    text_nanos(d, ctl_u64(progress, "eta_ms") * NS_PER_MS));
	if (bar > 0)
		text_bar(drawn, bar < MAX_BAR ? bar : MAX_BAR, done, total);
	snprintf(buf, PROGRESS_BYTES, "%s%s%5s  %s of %s  %s/s%s", drawn, *drawn ? " " : "",
	    text_percent(percent, done, total),
	    text_bytes(a, (uint64_t)((double)done / (double)total * (double)guest_bytes)),
	    text_bytes(b, guest_bytes), text_bytes(c, ctl_u64(progress, "bytes_per_second")), left);
}

static void
terminal_size(size_t *ret_columns, size_t *ret_lines)
{
	struct winsize size = {0};
	int r = ioctl(STDERR_FILENO, TIOCGWINSZ, &size);

	*ret_columns = r == 0 && size.ws_col ? size.ws_col : 80;
	*ret_lines = r == 0 && size.ws_row ? size.ws_row : 24;
}

size_t
progress_bar_width(size_t used)
{
	size_t columns, lines;

	terminal_size(&columns, &lines);
	used += TEXT_ROOM;
	if (columns < used + 4)
		return 4;
	return columns - used > MAX_BAR ? MAX_BAR : columns - used;
}

size_t
progress_terminal_lines(void)
{
	size_t columns, lines;

	terminal_size(&columns, &lines);
	return lines;
}
