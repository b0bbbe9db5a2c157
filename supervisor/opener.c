/* SPDX-License-Identifier: Apache-2.0 */
#include "supervisor/opener_impl.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/fd.h"
#include "common/scope.h"
#include "common/xalloc.h"
#include "supervisor/opener_order.h"
#include "supervisor/opener_storage.h"
#include "supervisor/process.h"
#include "supervisor/supervisor.h"
#include "supervisor/why.h"

/* --- In words -------------------------------------------------------------------- */

static const char *
path_of(const struct opening *opening)
{
	return opener_order_path(opening->order, opening->at, opening->nth);
}

static const char *
kind_of(const struct opening *opening)
{
	static const char *const kinds[] = {
	    [OPENER_IMAGE] = "image",
	    [OPENER_OVERLAYS] = "overlay",
	    [OPENER_RECORD] = "hot list",
	    [OPENER_HOT_LIST] = "hot list",
	};

	return kinds[opening->at];
}

/* --- Its end --------------------------------------------------------------------- */

void
opening_free(struct opening *opening)
{
	struct opener *opener = opening->opener;
	struct ev_loop *loop = opener->sup->loop;

	if (opening->state != OPENING_WAITING)
		opener->nr_running--;
	if (opening->is_stuck)
		opener->nr_stuck--;
	if (opening->pidfd >= 0)
		ev_io_stop(loop, &opening->exit);
	ev_timer_stop(loop, &opening->timer);
	fd_closep(&opening->pidfd);
	fd_closep(&opening->bytes_fd);
	fd_close_all(opening->fds, OPENER_PARTS);
	list_remove(&opening->link);
	free(opening->order);
	free(opening);
}

/* Tells who waits, once. */
void
opening_answer(struct opening *opening, int error, const char *why)
{
	struct opener_answer answer = {.error = error,
	    .why = why,
	    .image = opening->word.image,
	    .outcomes = opening->word.outcomes};
	opener_done_fn done = opening->done;

	opening->done = NULL;
	if (opening->state == OPENING_RUNNING)
		opening->state = OPENING_ENDING;
	memcpy(answer.fds, opening->fds, sizeof(answer.fds));
	memset(opening->fds, -1, sizeof(opening->fds));
	if (done)
		done(opening->arg, &answer);
	fd_close_all(answer.fds, OPENER_PARTS);
}

/* A session does without its hot list. */
void
opening_give_up(struct opening *opening, int error, const char *why)
{
	struct opener_outcome *list = &opening->word.outcomes[OPENER_HOT_LIST];

	if (opening->has_so_far) {
		list->error = error;
		snprintf(list->why, sizeof(list->why), "%s", why);
		error = 0;
	}
	opening_answer(opening, error, why);
}

static void
find_stuck(struct opening *opening)
{
	struct opener *opener = opening->opener;

	if (opening->is_stuck)
		return;
	opening->is_stuck = true;
	opener->nr_stuck++;
	if (opening->pidfd >= 0)
		process_kill(opening->pidfd);
	log_warning("opener: %s %s: its storage has not answered for ms=%" PRIu64
		    "; not waited for any longer, stuck=%u",
	    kind_of(opening), path_of(opening), opening->timeout_ms, opener->nr_stuck);
}

static void
on_timer(struct ev_loop *loop, ev_timer *timer, int revents)
{
	struct opening *opening = timer->data;
	struct opener *opener = opening->opener;
	char why[OPENER_WHY_BYTES];

	(void)loop;
	(void)revents;
	if (opening->failed != 0)
		snprintf(why, sizeof(why), "%s %s cannot be opened now: %s", kind_of(opening),
		    path_of(opening), strerror(-opening->failed));
	else
		snprintf(why, sizeof(why),
		    "%s %s has not been opened within %" PRIu64
		    " ms: %s; see to what is mounted there, then try again",
		    kind_of(opening), path_of(opening), opening->timeout_ms,
		    opening->state == OPENING_WAITING
			? "too many wait for storage that does not answer"
			: "its storage does not answer");
	if (opening->state == OPENING_WAITING) {
		opening_answer(opening, opening->failed != 0 ? opening->failed : -ETIMEDOUT, why);
		opening_free(opening);
		return;
	}
	find_stuck(opening);
	opening_give_up(opening, -ETIMEDOUT, why);
	opener_give(opener);
}

void
opening_ended(struct opening *opening)
{
	struct opener *opener = opening->opener;
	char why[OPENER_WHY_BYTES];

	if (opening->is_stuck)
		log_notice("opener: %s %s: what waited for its storage has ended after s=%.1f, "
			   "stuck=%u",
		    kind_of(opening), path_of(opening),
		    (double)(clock_now_ns() - opening->asked_ns) / (double)NS_PER_S,
		    opener->nr_stuck - 1);
	if (opening->done) {
		snprintf(why, sizeof(why), "the process that opened %s %s has died; try again",
		    kind_of(opening), path_of(opening));
		opening_give_up(opening, -EAGAIN, why);
	}
	opening_free(opening);
	opener_give(opener);
}

/* --- Giving ---------------------------------------------------------------------- */

static uint64_t
storage_of(struct opening *opening)
{
	if (!opening->knows_storage)
		opening->storage = opener_storage_of(path_of(opening));
	opening->knows_storage = true;
	return opening->storage;
}

/* How many processes are at that storage; only those that are stuck there, if asked for. */
static unsigned
count_of(const struct opener *opener, uint64_t storage, bool only_stuck)
{
	struct list *pos;
	unsigned n = 0;

	list_for_each(pos, &opener->all) {
		struct opening *other = list_entry(pos, struct opening, link);

		n += other->state != OPENING_WAITING && (other->is_stuck || !only_stuck) &&
		    storage_of(other) == storage;
	}
	return n;
}

static bool
has_room(struct opening *opening)
{
	const struct opener *opener = opening->opener;

	if (opener->link < 0 || opener->nr_running >= OPENER_MAX)
		return false;
	if (opener->nr_running < OPENER_MAX_OF_STORAGE || storage_of(opening) == 0)
		return true;
	return count_of(opener, opening->storage, false) < OPENER_MAX_OF_STORAGE;
}

static int
give(struct opening *opening)
{
	const struct opener_call call = {opening->number};
	scoped_fd int fd = opener_order_file(opening->order);
	const int fds[2] = {fd, opening->bytes_fd};
	int r;

	if (fd < 0)
		return fd;
	r = opener_send(opening->opener->link, &call, sizeof(call), fds,
	    opening->bytes_fd >= 0 ? 2 : 1, MSG_DONTWAIT);
	if (r < 0)
		return r;
	fd_closep(&opening->bytes_fd);
	opening->state = OPENING_RUNNING;
	opening->opener->nr_running++;
	return 0;
}

/* Nobody is called from here: who asks may be asking right now. */
void
opener_give(struct opener *opener)
{
	struct list *pos;

	list_for_each(pos, &opener->all) {
		struct opening *opening = list_entry(pos, struct opening, link);
		int r;

		if (opening->state != OPENING_WAITING || opening->failed != 0 || !has_room(opening))
			continue;
		r = give(opening);
		/* The link is full or broken: its next word or its end brings us back. */
		if (r == -EAGAIN || r == -EPIPE || r == -ECONNRESET || r == -ENOTCONN)
			return;
		if (r == 0)
			continue;
		opening->failed = r;
		ev_timer_stop(opener->sup->loop, &opening->timer);
		ev_timer_set(&opening->timer, 0.0, 0.0);
		ev_timer_start(opener->sup->loop, &opening->timer);
	}
}

/* --- Asking ---------------------------------------------------------------------- */

/* What is stuck already is not joined. */
static int
check_storage(struct opening *opening, char *why, size_t why_bytes)
{
	const struct opener *opener = opening->opener;

	if (opener->nr_stuck >= OPENER_MAX)
		return why_set(why, why_bytes, -ETIMEDOUT,
		    "%s %s: %u processes wait for storage that does not answer, which is the "
		    "limit; see to what is mounted",
		    kind_of(opening), path_of(opening), opener->nr_stuck);
	if (opener->nr_stuck < OPENER_MAX_OF_STORAGE || storage_of(opening) == 0 ||
	    count_of(opener, opening->storage, true) < OPENER_MAX_OF_STORAGE)
		return 0;
	return why_set(why, why_bytes, -ETIMEDOUT,
	    "%s %s is on storage that does not answer: %u processes wait for it, which is the "
	    "limit; see to what is mounted there, then try again",
	    kind_of(opening), path_of(opening), OPENER_MAX_OF_STORAGE);
}

static int
keep_bytes(struct opening *opening, const struct opener_request *request)
{
	size_t done = 0;

	if (request->bytes == NULL)
		return 0;
	opening->bytes_fd = memfd_create("list", MFD_CLOEXEC);
	if (opening->bytes_fd < 0)
		return -errno;
	while (done < request->nr_bytes) {
		ssize_t n = pwrite(opening->bytes_fd, (const char *)request->bytes + done,
		    request->nr_bytes - done, (off_t)done);

		if (n <= 0)
			return n < 0 ? -errno : -EIO;
		done += (size_t)n;
	}
	return 0;
}

static void
start_timer(struct opening *opening)
{
	struct ev_loop *loop = opening->opener->sup->loop;

	ev_now_update(loop);
	ev_timer_set(&opening->timer, (double)opening->timeout_ms / 1000.0, 0.0);
	ev_timer_start(loop, &opening->timer);
}

/* In no list; NULL without memory. */
static struct opening *
opening_new(struct supervisor *sup, const struct opener_request *request)
{
	struct opener *opener = sup->opener;
	struct opening *opening = calloc(1, sizeof(*opening));

	if (opening == NULL)
		return NULL;
	list_init(&opening->link);
	opening->opener = opener;
	opening->number = opener->next_number++;
	opening->bytes_fd = opening->pidfd = -1;
	memset(opening->fds, -1, sizeof(opening->fds));
	opening->asked_ns = clock_now_ns();
	opening->timeout_ms =
	    request->timeout_ms ? request->timeout_ms : sup->options.open_timeout_ms;
	opening->order = opener_order_make(&sup->options.image_root, request);
	opening->at = opener_order_first(opening->order);
	ev_timer_init(&opening->timer, on_timer, 0.0, 0.0);
	opening->timer.data = opening;
	return opening;
}

int
opener_ask(struct supervisor *sup, const struct opener_request *request, opener_done_fn done,
    void *arg, struct opening **ret, char *why, size_t why_bytes)
{
	struct opener *opener = sup->opener;
	struct opening *opening = opening_new(sup, request);
	int r;

	*ret = NULL;
	if (opening == NULL)
		return why_set(why, why_bytes, -ENOMEM, "no memory to open anything");
	r = keep_bytes(opening, request);
	if (r < 0)
		why_set(why, why_bytes, r, "no memory to open anything: %s", strerror(-r));
	else
		r = check_storage(opening, why, why_bytes);
	if (r < 0) {
		opening_free(opening);
		return r;
	}
	opening->done = done;
	opening->arg = arg;
	list_add(&opener->all, &opening->link);
	start_timer(opening);
	opener_give(opener);
	*ret = opening;
	return 0;
}

void
opener_cancel(struct opening *opening)
{
	if (!opening)
		return;
	opening->done = NULL;
	if (opening->state == OPENING_WAITING) {
		opening_free(opening);
		return;
	}
	opening->state = OPENING_ENDING;
	if (opening->pidfd >= 0)
		process_kill(opening->pidfd);
}

int
opener_result(const struct opener_answer *answer, const char **ret_why)
{
	*ret_why = answer->why;
	if (answer->error < 0)
		return answer->error;
	for (unsigned part = 0; part < OPENER_HOT_LIST; part++) {
		*ret_why = answer->outcomes[part].why;
		if (answer->outcomes[part].error < 0)
			return answer->outcomes[part].error;
	}
	return 0;
}

bool
opener_writes(const struct supervisor *sup)
{
	struct list *pos;

	list_for_each(pos, &sup->opener->all) {
		const struct opening *opening = list_entry(pos, struct opening, link);

		if (opening->done && opening->order->writes)
			return true;
	}
	return false;
}

void
opener_count(const struct supervisor *sup, uint64_t *ret_running, uint64_t *ret_stuck)
{
	*ret_running = sup->opener->nr_running;
	*ret_stuck = sup->opener->nr_stuck;
}

/* --- Closing --------------------------------------------------------------------- */

/* A process has closed it and was answered, so the storage answers: now we can. */
static void
on_closed(void *arg, struct opener_answer *answer)
{
	int *fd = arg;

	if (answer->error == 0)
		fd_closep(fd);
	else if (answer->error != -ESHUTDOWN)
		log_warning("opener: a file stays open: %s", answer->why);
	free(fd);
}

/* A copy of fd in a socket, which the caller owns, or a negative errno. */
static int
put_in_box(int fd)
{
	int pair[2], r;

	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0)
		return -errno;
	r = opener_send(pair[0], "", 1, &fd, 1, MSG_DONTWAIT);
	fd_closep(&pair[0]);
	if (r < 0)
		fd_closep(&pair[1]);
	return r < 0 ? r : pair[1];
}

void
opener_close(struct supervisor *sup, int *fd, uint64_t dev, const char *path)
{
	const struct peer nobody = {0};
	const struct opener_request request = {.peer = &nobody, .image = path};
	struct opening *opening;

	if (*fd < 0 || sup->opener == NULL || path == NULL || !opener_storage_is_told(dev)) {
		fd_closep(fd);
		return;
	}
	opening = opening_new(sup, &request);
	if (opening != NULL)
		opening->bytes_fd = put_in_box(*fd);
	if (opening == NULL || opening->bytes_fd < 0) {
		if (opening != NULL)
			opening_free(opening);
		fd_closep(fd);
		return;
	}
	opening->order->closes = true;
	opening->done = on_closed;
	opening->arg = xcalloc(1, sizeof(int));
	*(int *)opening->arg = fd_take(fd);
	list_add(&sup->opener->all, &opening->link);
	opener_give(sup->opener);
}
