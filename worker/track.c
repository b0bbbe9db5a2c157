/* SPDX-License-Identifier: Apache-2.0 */
#include "worker/track.h"

#include <stdatomic.h>
#include <string.h>

#include "worker/session.h"
#include "worker/uffd.h"

/* All of it: what is filled with a protection that the kernel does not know there is refused for
 * ever. */
static bool
is_protectable(const struct session *s)
{
	for (uint32_t i = 0; i < s->regions.nr; i++) {
		const struct region *r = &s->regions.rows[i];

		if (!uffd_is_protectable(s->uffd, r->host_addr, r->size_bytes))
			return false;
	}
	return true;
}

/* In the VMM's place, which has only registered for missing pages.  Nothing is filled yet. */
static void
make_protectable(const struct session *s)
{
	for (uint32_t i = 0; i < s->regions.nr; i++) {
		const struct region *r = &s->regions.rows[i];
		int error = uffd_register_protection(s->uffd, r->host_addr, r->size_bytes);

		if (error < 0) {
			session_log(s, LOG_LEVEL_WARNING,
			    "region %u of %u cannot be registered for write protection: %s; its "
			    "writes are not tracked",
			    i, s->regions.nr, strerror(-error));
			return;
		}
	}
}

void
track_begin(struct session *s)
{
	s->is_tracked = is_protectable(s);
	if (!s->is_tracked && (s->flags & IPC_SESSION_TRACK) != 0) {
		make_protectable(s);
		s->is_tracked = is_protectable(s);
	}
	atomic_store(
	    &pagemap_track(&s->map)->tracking, s->is_tracked ? PAGEMAP_TRACKED : PAGEMAP_UNTRACKED);
	if (s->is_tracked)
		session_log(s, LOG_LEVEL_INFO, "its writes are tracked");
}

void
track_resume(struct session *s)
{
	/* Where tracking was lost some of the memory may still be protected: what is not known any
	 * more matters to a picture, how a page is filled does not change. */
	s->is_tracked = atomic_load(&pagemap_track(&s->map)->tracking) != PAGEMAP_UNTRACKED;
}

void
track_lose(struct session *s)
{
	if (s->is_tracked)
		atomic_store(&pagemap_track(&s->map)->tracking, PAGEMAP_LOST);
}
