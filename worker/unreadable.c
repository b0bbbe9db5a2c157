/* SPDX-License-Identifier: Apache-2.0 */
#include "worker/unreadable.h"

#include "common/clock.h"
#include "worker/copylock.h"
#include "worker/fill.h"
#include "worker/iolane.h"
#include "worker/pager.h"
#include "worker/pause.h"
#include "worker/session.h"
#include "worker/uffd.h"

/* As long as a removal is on its way. */
#define AGAIN_NS (50 * NS_PER_US)

static enum fill_result
poison_locked(struct session *s, const struct run *page)
{
	enum fill_result result;
	struct fill fill;

	for (;;) {
		copylock_background(&s->copylock);
		result = fill_poison(s, page, &fill);
		copylock_background_done(&s->copylock);
		if (result != FILL_AGAIN || atomic_load(&s->stop))
			return result;
		session_count(s, COUNTER_FILL_AGAIN, 1);
		pause_ns(AGAIN_NS);
	}
}

/* False when the page has come, or gone, another way. */
static bool
poison(struct session *s, struct iolane_slot *slot, const struct run *page)
{
	struct unreadable *u = &s->unreadable;

	switch (poison_locked(s, page)) {
	case FILL_DONE:
		slot->is_poisoned = true;
		atomic_fetch_add(&u->poisoned, 1);
		session_post(s, SESSION_POST_IMAGE_POISONED);
		return true;
	case FILL_STALE:
		return false;
	case FILL_NO_RANGE:
		uffd_wake(s->uffd, run_host(page), page->region->page_bytes);
		return false;
	case FILL_GONE:
		session_post(s, SESSION_POST_GONE);
		return false;
	case FILL_AGAIN: /* only when the session stops */
	case FILL_NO_MEMORY:
		return true;
	case FILL_MAYBE:
	case FILL_BAD_SOURCE:
	case FILL_FAILED:
		if (!atomic_exchange(&u->is_helpless, true))
			session_post(s, SESSION_POST_IMAGE_HOLDING);
		return true;
	}
	return true;
}

bool
unreadable_page(struct session *s, struct iolane_slot *slot, const struct run *page, int error)
{
	struct unreadable *u = &s->unreadable;

	session_count(s, COUNTER_IMAGE_ERRORS, 1);
	atomic_store(&u->offset, run_offset(page));
	atomic_store(&u->error, error);
	atomic_store(&u->is_failing, true);
	/* Nobody waits for a poisoned one; that it is tried again is between us and the image. */
	if (slot->is_poisoned)
		return true;
	session_post(s, SESSION_POST_IMAGE_ALARM);
	if (++slot->failed < UNREADABLE_TRIES)
		return true;
	if ((s->flags & IPC_SESSION_IMAGE_POISON) != 0 && !atomic_load(&u->is_helpless))
		return poison(s, slot, page);
	/* Said at each try: it may have been said to nobody. */
	if ((s->flags & IPC_SESSION_IMAGE_KILL) != 0)
		session_post(s, SESSION_POST_IMAGE_HOPELESS);
	return true;
}

void
unreadable_over(struct session *s)
{
	if (atomic_exchange(&s->unreadable.is_failing, false))
		session_post(s, SESSION_POST_IMAGE_HEALED);
}

static void
tell(struct session *s, enum ipc_image what)
{
	struct ipc_msg msg = {.type = IPC_SESSION_IMAGE};
	struct ipc_session_image *m = &msg.session_image;

	m->session = s->number;
	m->what = (uint32_t)what;
	m->offset = atomic_load(&s->unreadable.offset);
	m->pages = atomic_load(&s->unreadable.poisoned);
	if (what != IPC_IMAGE_HEALED)
		m->error = (uint32_t)atomic_load(&s->unreadable.error);
	session_log(s, LOG_LEVEL_INFO, "image: what=%d offset=%llu poisoned=%u", (int)what,
	    (unsigned long long)m->offset, (unsigned)m->pages);
	pager_send(s->pager, &msg, NULL, 0);
}

void
unreadable_tell(struct session *s, unsigned posted)
{
	if (!s->is_known || (s->flags & IPC_SESSION_TELL_IMAGE) == 0)
		return;
	if (posted & SESSION_POST_IMAGE_HOLDING)
		tell(s, IPC_IMAGE_HOLDING);
	if (posted & SESSION_POST_IMAGE_POISONED)
		tell(s, IPC_IMAGE_POISONED);
	if (posted & SESSION_POST_IMAGE_HOPELESS)
		tell(s, IPC_IMAGE_HOPELESS);
	/* Another page may have failed since; then its heal is posted once more. */
	if ((posted & SESSION_POST_IMAGE_HEALED) && !atomic_load(&s->unreadable.is_failing))
		tell(s, IPC_IMAGE_HEALED);
}
