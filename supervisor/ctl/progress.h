/* SPDX-License-Identifier: Apache-2.0 */
/* How far the completion of a session is, for people. */
#ifndef SUPERVISOR_CTL_PROGRESS_H
#define SUPERVISOR_CTL_PROGRESS_H

#include <jansson.h>
#include <stddef.h>
#include <stdint.h>

#define PROGRESS_BYTES 768

/* "[####....]  37 %  190 MiB of 512 MiB  1.2 GiB/s  0.3 s left", from the members of a
 * session's progress; bar is its width, 0 for none.  Empty when nothing is known. */
void progress_text(
    char buf[PROGRESS_BYTES], const json_t *progress, uint64_t guest_bytes, size_t bar);
/* What is left for the bar on the terminal of stderr beside so many columns. */
size_t progress_bar_width(size_t columns);
/* Lines of the terminal of stderr. */
size_t progress_terminal_lines(void);

#endif
