/* SPDX-License-Identifier: Apache-2.0 */
#include "supervisor/opener_order.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "common/scope.h"
#include "common/xalloc.h"
#include "supervisor/overlay.h"

static size_t
length(const char *text)
{
	return text ? strlen(text) + 1 : 0;
}

/* Puts a text behind those that are there; its place, or 0 for none. */
static uint32_t
put(struct opener_order *order, const char *text)
{
	uint32_t at = order->bytes;

	if (!text)
		return 0;
	memcpy((char *)order + at, text, length(text));
	order->bytes += (uint32_t)length(text);
	return at;
}

struct opener_order *
opener_order_make(const struct options_list *roots, const struct opener_request *request)
{
	size_t bytes = sizeof(struct opener_order) + length(request->image) +
	    length(request->record) + length(request->hot_list);
	struct opener_order *order;

	for (size_t i = 0; i < roots->nr; i++)
		bytes += length(roots->items[i]);
	for (size_t i = 0; i < request->nr_overlays; i++)
		bytes += length(request->overlays[i].path);
	order = xcalloc(1, bytes);
	order->bytes = offsetof(struct opener_order, texts);
	order->peer = *request->peer;
	order->writes = request->bytes != NULL;
	order->looks = request->looks;
	order->nr_roots = (uint32_t)roots->nr;
	order->roots_at = order->bytes;
	for (size_t i = 0; i < roots->nr; i++)
		put(order, roots->items[i]);
	order->paths_at[OPENER_IMAGE] = put(order, request->image);
	order->paths_at[OPENER_RECORD] = put(order, request->record);
	order->paths_at[OPENER_HOT_LIST] = put(order, request->hot_list);
	order->nr_overlays = (uint32_t)request->nr_overlays;
	for (size_t i = 0; i < request->nr_overlays; i++) {
		uint32_t at = put(order, request->overlays[i].path);

		order->overlay_offsets[i] = request->overlays[i].offset;
		if (i == 0)
			order->paths_at[OPENER_OVERLAYS] = at;
	}
	return order;
}

enum opener_part
opener_order_first(const struct opener_order *order)
{
	enum opener_part part = OPENER_IMAGE;

	while (part < OPENER_HOT_LIST && order->paths_at[part] == 0)
		part++;
	return part;
}

const char *
opener_order_path(const struct opener_order *order, enum opener_part part, uint32_t nth)
{
	const char *path = opener_text(order, order->paths_at[part]);

	for (; nth > 0; nth--)
		path += strlen(path) + 1;
	return path;
}

int
opener_order_file(const struct opener_order *order)
{
	scoped_fd int fd = memfd_create("order", MFD_CLOEXEC);
	ssize_t n = fd < 0 ? -1 : pwrite(fd, order, order->bytes, 0);

	if (n < 0)
		return -errno;
	return n == (ssize_t)order->bytes ? fd_take(&fd) : -EIO;
}
