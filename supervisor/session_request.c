/* SPDX-License-Identifier: Apache-2.0 */
/* A request that outlives the call that brought it. */
#include <stdlib.h>
#include <string.h>

#include "common/xalloc.h"
#include "supervisor/session_impl.h"

/* Its texts, once. */
#define TEXTS(X)          \
	X(id)             \
	X(instance)       \
	X(template)       \
	X(image_path)     \
	X(cache_key)      \
	X(version)        \
	X(on_image_error) \
	X(record_path)    \
	X(hot_list)

void
session_request_copy(struct session_request *to, const struct session_request *from)
{
	struct overlay_request *overlays = NULL;

	*to = *from;
#define COPY(member) to->member = from->member ? xstrdup(from->member) : NULL;
	TEXTS(COPY)
#undef COPY
	if (from->nr_overlays > 0)
		overlays = xcalloc(from->nr_overlays, sizeof(*overlays));
	for (size_t i = 0; i < from->nr_overlays; i++)
		overlays[i] = (struct overlay_request){
		    from->overlays[i].offset, xstrdup(from->overlays[i].path)};
	to->overlays = overlays;
}

static void
drop(const char *text)
{
	free((void *)(uintptr_t)text);
}

void
session_request_free(struct session_request *request)
{
#define DROP(member) drop(request->member);
	TEXTS(DROP)
#undef DROP
	for (size_t i = 0; i < request->nr_overlays; i++)
		drop(request->overlays[i].path);
	free((void *)(uintptr_t)request->overlays);
	*request = (struct session_request){0};
}
