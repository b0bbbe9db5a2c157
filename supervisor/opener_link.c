/* SPDX-License-Identifier: Apache-2.0 */
/* The link to the opener, and its life. */
#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "common/fd.h"
#include "common/scope.h"
#include "common/xalloc.h"
#include "supervisor/opener/job.h"
#include "supervisor/opener_impl.h"
#include "supervisor/process.h"
#include "supervisor/supervisor.h"
#include "supervisor/why.h"

/* One that died is replaced after this pause. */
#define RESTART_S 0.1
/* At our end: it touches no storage, so it goes at once. */
#define STOP_MS	     2000
#define WORDS_A_TURN 64
#define WORDS_MAX    4096

static void hear(struct opener *opener, unsigned words);

/* What it said last may still be on its way. */
static void
on_exit_opening(struct ev_loop *loop, ev_io *io, int revents)
{
	struct opening *opening = io->data;

	(void)revents;
	ev_io_stop(loop, io);
	if (opening->done && opening->opener->link >= 0)
		hear(opening->opener, WORDS_MAX);
	opening_ended(opening);
}

/* --- What is said ---------------------------------------------------------------- */

static struct opening *
find(const struct opener *opener, uint64_t number)
{
	struct list *pos;

	list_for_each(pos, &opener->all) {
		struct opening *opening = list_entry(pos, struct opening, link);

		if (opening->number == number && opening->state != OPENING_WAITING)
			return opening;
	}
	return NULL;
}

static void
on_begun(struct opening *opening, int *fd)
{
	if (opening->pidfd >= 0 || *fd < 0)
		return;
	opening->pidfd = fd_take(fd);
	ev_io_init(&opening->exit, on_exit_opening, opening->pidfd, EV_READ);
	opening->exit.data = opening;
	ev_io_start(opening->opener->sup->loop, &opening->exit);
	if (!opening->done)
		process_kill(opening->pidfd);
}

static void
on_at(struct opening *opening, const struct opener_word *word)
{
	if (word->part >= OPENER_PARTS || opening->order->paths_at[word->part] == 0 ||
	    (word->nth > 0 && word->nth >= opening->order->nr_overlays))
		return;
	opening->at = (enum opener_part)word->part;
	opening->nth = word->nth;
	opening->knows_storage = false;
}

/* Moves what the word brings into the opening. */
static void
take(struct opening *opening, const struct opener_word *word, int *fds, size_t nr_fds)
{
	size_t next = 0;

	for (unsigned part = 0; part < OPENER_PARTS; part++) {
		struct opener_outcome *outcome = &opening->word.outcomes[part];

		if (opening->has_so_far && part != OPENER_HOT_LIST)
			continue;
		*outcome = word->outcomes[part];
		outcome->why[sizeof(outcome->why) - 1] = '\0';
		if (!outcome->has_fd)
			continue;
		if (next < nr_fds)
			opening->fds[part] = fd_take(&fds[next++]);
		else
			outcome->error = why_set(outcome->why, sizeof(outcome->why), -EMFILE,
			    "pagerd may open no more files; raise its LimitNOFILE");
	}
	if (!opening->has_so_far)
		opening->word.image = word->image;
}

static void
on_outcomes(struct opening *opening, const struct opener_word *word, int *fds, size_t nr_fds)
{
	struct opener *opener = opening->opener;

	if (opening->done) {
		take(opening, word, fds, nr_fds);
		opening->has_so_far = true;
	}
	if (word->kind != OPENER_DONE)
		return;
	opening_answer(opening, 0, "");
	if (opening->pidfd >= 0)
		return;
	/* For its pidfd there was no room in our table: this is all that we learn of its end. */
	opening_free(opening);
	opener_give(opener);
}

static void
on_word(
    struct opener *opener, const struct opener_word *word, size_t bytes, int *fds, size_t nr_fds)
{
	struct opening *opening = find(opener, word->number);

	/* One whose end was noticed first. */
	if (!opening)
		return;
	switch (word->kind) {
	case OPENER_BEGUN:
		on_begun(opening, &fds[0]);
		return;
	case OPENER_AT:
		on_at(opening, word);
		return;
	case OPENER_FAILED:
		/* One that has begun has a process, whose end is awaited. */
		if (opening->pidfd >= 0)
			return;
		opening_answer(
		    opening, word->error, "no process could be made to open it; try again");
		opening_free(opening);
		opener_give(opener);
		return;
	case OPENER_SO_FAR:
	case OPENER_DONE:
		if (bytes == sizeof(*word))
			on_outcomes(opening, word, fds, nr_fds);
		return;
	default:
		return;
	}
}

static void
hear(struct opener *opener, unsigned words)
{
	while (words-- > 0) {
		int fds[OPENER_MAX_FDS] = {-1, -1, -1, -1};
		size_t nr_fds = OPENER_MAX_FDS;
		struct opener_word word;
		int n =
		    opener_receive(opener->link, &word, sizeof(word), fds, &nr_fds, MSG_DONTWAIT);

		if (n == -EAGAIN)
			return;
		if (n >= (int)OPENER_SHORT_BYTES)
			on_word(opener, &word, (size_t)n, fds, nr_fds);
		fd_close_all(fds, OPENER_MAX_FDS);
		if (n <= 0) {
			/* One that has not ended says what we cannot hear: another starts. */
			ev_io_stop(opener->sup->loop, &opener->words);
			process_kill(opener->pidfd);
			return;
		}
	}
}

static void
on_words(struct ev_loop *loop, ev_io *io, int revents)
{
	(void)loop;
	(void)revents;
	hear(io->data, WORDS_A_TURN);
}

/* --- Life ------------------------------------------------------------------------ */

static void on_exit_opener(struct ev_loop *loop, ev_io *io, int revents);

static int
spawn(struct opener *opener)
{
	int pair[2], pidfd = -1, r;

	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0)
		return -errno;
	scoped_fd int spare = fd_dup(pair[0]);
	r = spare < 0 ? spare : process_fork_watched(&spare, &pidfd);
	if (r == 1) {
		fd_closep(&pair[0]);
		opener_loop(pair[1]);
	}
	fd_closep(&pair[1]);
	if (r < 0) {
		fd_closep(&pair[0]);
		return r;
	}
	opener->link = pair[0];
	opener->pidfd = pidfd;
	ev_io_init(&opener->words, on_words, opener->link, EV_READ);
	ev_io_init(&opener->exit, on_exit_opener, opener->pidfd, EV_READ);
	opener->words.data = opener->exit.data = opener;
	ev_io_start(opener->sup->loop, &opener->words);
	ev_io_start(opener->sup->loop, &opener->exit);
	return 0;
}

static void
close_link(struct opener *opener)
{
	if (opener->link < 0)
		return;
	ev_io_stop(opener->sup->loop, &opener->words);
	ev_io_stop(opener->sup->loop, &opener->exit);
	fd_closep(&opener->link);
}

static void
restart_later(struct opener *opener)
{
	ev_timer_set(&opener->restart, RESTART_S, 0.0);
	ev_timer_start(opener->sup->loop, &opener->restart);
}

static void
on_restart(struct ev_loop *loop, ev_timer *timer, int revents)
{
	struct opener *opener = timer->data;
	int r = spawn(opener);

	(void)loop;
	(void)revents;
	if (r < 0) {
		log_err("opener: cannot be started again: %s; nothing can be opened until it is",
		    strerror(-r));
		restart_later(opener);
		return;
	}
	opener_give(opener);
}

/* Of what it was given the processes live on, but cannot tell us anything. */
static void
fail_running(struct opener *opener)
{
	struct list *pos;
	bool again = true;

	/* Who is told may cancel any other. */
	while (again) {
		again = false;
		list_for_each(pos, &opener->all) {
			struct opening *opening = list_entry(pos, struct opening, link);

			if (opening->state == OPENING_WAITING ||
			    (opening->pidfd >= 0 && !opening->done))
				continue;
			if (opening->pidfd >= 0)
				process_kill(opening->pidfd);
			opening_give_up(
			    opening, -EAGAIN, "the process that opens files has died; try again");
			if (opening->pidfd < 0)
				opening_free(opening);
			again = true;
			break;
		}
	}
}

static void
on_exit_opener(struct ev_loop *loop, ev_io *io, int revents)
{
	struct opener *opener = io->data;

	(void)loop;
	(void)revents;
	hear(opener, WORDS_MAX);
	close_link(opener);
	process_reap(opener->pidfd);
	fd_closep(&opener->pidfd);
	log_err("opener: has died; started again");
	fail_running(opener);
	restart_later(opener);
}

int
opener_start(struct supervisor *sup)
{
	struct opener *opener = xcalloc(1, sizeof(*opener));
	int r;

	opener->sup = sup;
	opener->link = opener->pidfd = -1;
	opener->next_number = 1;
	list_init(&opener->all);
	ev_timer_init(&opener->restart, on_restart, 0.0, 0.0);
	opener->restart.data = opener;
	sup->opener = opener;
	r = spawn(opener);
	if (r < 0)
		log_err("opener: cannot be started: %s; not starting", strerror(-r));
	return r;
}

void
opener_stop(struct supervisor *sup)
{
	struct opener *opener = sup->opener;

	if (opener == NULL)
		return;
	while (!list_is_empty(&opener->all)) {
		struct opening *opening = list_entry(opener->all.next, struct opening, link);

		/* One that writes may have begun. */
		if (opening->pidfd >= 0 && !opening->order->writes)
			process_kill(opening->pidfd);
		opening_answer(opening, -ESHUTDOWN, "pagerd stops");
		opening_free(opening);
	}
	close_link(opener);
	ev_timer_stop(sup->loop, &opener->restart);
	if (opener->pidfd >= 0) {
		struct pollfd p = {.fd = opener->pidfd, .events = POLLIN};

		if (poll(&p, 1, STOP_MS) != 1)
			process_kill(opener->pidfd);
		process_reap(opener->pidfd);
	}
	fd_closep(&opener->pidfd);
	free(opener);
	sup->opener = NULL;
}
