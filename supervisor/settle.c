/* SPDX-License-Identifier: Apache-2.0 */
#include "supervisor/settle.h"

bool
settle_step(struct settle *settle, uint64_t now_ns, uint64_t pages, uint64_t window_ns)
{
	uint64_t grown = pages > settle->since_pages ? pages - settle->since_pages : 0;

	if (settle->since_ns == 0 || pages < SETTLE_MIN_PAGES || grown * SETTLE_SHARE >= pages) {
		settle->since_ns = now_ns;
		settle->since_pages = pages;
		return false;
	}
	return now_ns - settle->since_ns >= window_ns;
}
