/* SPDX-License-Identifier: Apache-2.0 */
/* The life of a session as its client sees it. */
#include "common/clock.h"
#include "tests/unit/session_rig.h"

struct seen {
	struct session_wait wait;
	unsigned int calls;
	enum session_state state;
	bool until_over;
};

static bool
on_change(struct session_wait *wait)
{
	struct seen *seen = list_entry(wait, struct seen, wait);

	seen->calls++;
	seen->state = wait->session->state;
	if (seen->until_over && !session_is_over(wait->session))
		return false;
	session_wait_remove(wait);
	return true;
}

static void
wait_on(struct seen *seen, struct session *session, bool until_over)
{
	*seen = (struct seen){.wait.check = on_change, .until_over = until_over};
	list_init(&seen->wait.link);
	session_wait_add(session, &seen->wait);
}

static void
test_open(void)
{
	const struct session_request req = {.id = "a/b c",
	    .instance = "vm",
	    .image_path = rig.image,
	    .vmm_uid = geteuid(),
	    .vmm_gid = getegid(),
	    .memfd = true,
	    .cluster_min_bytes = 131072};
	struct session *session = NULL;
	struct seen seen;
	struct stat st;
	char path[128], key[128];

	is_int(rig_create(&req, &session), 0, "create (%s)", rig.why);
	is_int(session->state, SESSION_CREATED, "it is CREATED");
	ok(!session_is_opened(session), "nobody has it yet");
	wait_on(&seen, session, false);
	struct life life = life_of(&rig.workers[0], session);
	struct far_message m = rig_take(life.worker, IPC_SESSION_OPEN);
	const struct ipc_session_open *open = &m.msg.session_open;
	is_int(open->session, session->number, "SESSION_OPEN: number");
	is_str(open->name, "a/b c", "SESSION_OPEN: name");
	is_int(open->image_bytes, RIG_IMAGE_BYTES, "SESSION_OPEN: size");
	is_int(open->flags, IPC_SESSION_MEMFD | IPC_SESSION_TELL_IMAGE, "SESSION_OPEN: flags");
	is_int(open->cluster_min_bytes, 131072, "SESSION_OPEN: smallest cluster");
	is_int(open->cluster_max_bytes, 131072, "SESSION_OPEN: a default gives way");
	is_int(open->spin_us, 7, "SESSION_OPEN: spin");
	snprintf(path, sizeof(path), "%s/sessions/a-b-c.sock", rig.dir);
	is_str(session->socket_path, path, "the socket's name is harmless");
	ok(stat(path, &st) == 0 && S_ISSOCK(st.st_mode) && (st.st_mode & 0777) == 0600,
	    "only its owner may connect");
	stat(rig.image, &st);
	snprintf(key, sizeof(key), "%jx:%ju:%ju:%jd", (uintmax_t)st.st_dev, (uintmax_t)st.st_ino,
	    (uintmax_t)st.st_size, (intmax_t)st.st_mtim.tv_sec * 1000000000 + st.st_mtim.tv_nsec);
	is_str(session->cache_key, key, "the cache key is the image's identity");
	is_int(seen.calls, 0, "nothing has changed so far");
	is_int(rig_say_opened(life.worker, m.msg.seq, session->number, 0), 0, "SESSION_OPENED");
	ok(session_is_opened(session), "now somebody has it");
	is_int(seen.calls, 1, "and who waits was told");
	fd_close_all(m.fds, IPC_MAX_FDS);
	session_close(session, SESSION_OUTCOME_CLOSED, "closed by request");
	ok(access(path, F_OK) < 0, "the socket goes at once");
	ok(session_is_over(session) && session_is_live(session), "over, not gone");
	life_answer_close(&life);
	ok(!session_is_live(session) && holds_nothing(session), "gone, and it holds nothing");
	is_str(session_outcome_name(session->outcome), "closed", "outcome");
}

static void
test_graduate(void)
{
	struct life life = life_serve(0, "g", false);
	struct session *s = life.session;
	struct pagemap_counts counts;
	struct session_progress progress;
	struct seen seen;

	is_int(s->guest_bytes, RIG_IMAGE_BYTES, "guest bytes");
	is_int(s->nr_regions, 1, "regions");
	is_int(s->vmm_pid, getpid(), "the VMM's pid");
	ok(s->uffd >= 0 && s->connection >= 0 && s->vmm_pidfd >= 0, "it holds duplicates");
	ok(access(s->socket_path, F_OK) < 0 && s->listener < 0, "no second VMM can connect");
	session_counts(s, &counts);
	ok(!session_progress(s, &counts, &progress), "no progress without a completion");
	wait_on(&seen, s, true);
	is_int(session_complete(s, rig.why, sizeof(rig.why)), 0, "complete");
	is_int(s->state, SESSION_COMPLETING, "COMPLETING");
	is_int(session_complete(s, rig.why, sizeof(rig.why)), -EBUSY, "one at a time");
	ok(session_progress(s, &counts, &progress) && progress.pages_total == 64 &&
		progress.pages_done == 0,
	    "progress: 64 pages are absent");
	struct far_message m = rig_take(life.worker, IPC_SESSION_COMPLETE);
	is_int(m.msg.session_complete.session, life.number, "SESSION_COMPLETE names it");
	is_int(
	    rig_say_completed(life.worker, m.msg.seq, life.number, IPC_COMPLETION_DETACHED, 0, ""),
	    0, "SESSION_COMPLETED");
	is_int(s->state, SESSION_GRADUATED, "GRADUATED");
	is_int(seen.calls, 2, "who waits was told of both changes");
	is_int(seen.state, SESSION_GRADUATED, "the last of them");
	is_str(session_outcome_name(s->outcome), "graduated", "outcome");
	ok(holds_nothing(s), "it holds nothing");
	is_int(session_complete(s, rig.why, sizeof(rig.why)), -EALREADY, "again: it has already");
	session_close(s, SESSION_OUTCOME_CLOSED, "late");
	is_int(s->outcome, SESSION_OUTCOME_GRADUATED, "a close changes nothing");
	ok(session_find(&rig.sup.sessions, "g") == s, "its tombstone can be found");
	life_drop(&life);
}

static void
test_completion_fails(void)
{
	struct life life = life_serve(0, "f", false);
	struct session *s = life.session;

	session_abort(s);
	session_complete(s, rig.why, sizeof(rig.why));
	struct far_message m = rig_take(life.worker, IPC_SESSION_COMPLETE);
	session_abort(s);
	struct far_message abort_msg = rig_take(life.worker, IPC_SESSION_ABORT);
	is_int(abort_msg.msg.seq, m.msg.seq, "an abort says which completion it stops");
	is_int(s->state, SESSION_COMPLETING, "until the worker says so");
	rig_say_completed(life.worker, m.msg.seq, life.number, IPC_COMPLETION_ABORTED, 0, "");
	is_int(s->state, SESSION_SERVING, "aborted: still served");
	is_int(s->completion, IPC_COMPLETION_ABORTED, "and known to be");
	is_str(s->completion_reason, "aborted", "in words too");
	session_complete(s, rig.why, sizeof(rig.why));
	is_str(s->completion_reason, "", "another attempt starts afresh");
	m = rig_take(life.worker, IPC_SESSION_COMPLETE);
	rig_say_completed(
	    life.worker, m.msg.seq, life.number, IPC_COMPLETION_FAILED, EIO, "bad\nimage\xff");
	is_int(s->state, SESSION_SERVING, "failed: still served");
	is_int(s->completion_error, EIO, "the errno");
	is_str(s->completion_reason, "bad?image?", "the reason, made printable");
	ok(s->uffd >= 0, "the userfaultfd is still held");
	session_complete(s, rig.why, sizeof(rig.why));
	m = rig_take(life.worker, IPC_SESSION_COMPLETE);
	session_close(s, SESSION_OUTCOME_CLOSED, "closed by request");
	rig_say_completed(life.worker, m.msg.seq, life.number, IPC_COMPLETION_DETACHED, 0, "");
	is_int(s->state, SESSION_GRADUATED, "a completion that was faster than a close wins");
	m = rig_take(life.worker, IPC_SESSION_CLOSE);
	is_int(rig_say_closed(life.worker, m.msg.seq, life.number), 0, "the answer is late");
	life_drop(&life);
}

static void
test_refused(void)
{
	struct life life = life_open(0, "r");

	is_int(rig_say_refused(life.worker, life.number, "region 0 overlaps\x1b[2J"), 0,
	    "SESSION_REFUSED");
	is_int(life.session->state, SESSION_CLOSED, "CLOSED");
	is_int(life.session->outcome, SESSION_OUTCOME_REFUSED, "outcome");
	is_str(life.session->reason, "region 0 overlaps?[2J", "the reason, made printable");
	ok(holds_nothing(life.session), "it holds nothing");
	life_drop(&life);
	life = life_create(0, "denied", geteuid());
	is_int(rig_say_opened(life.worker, life.open_seq, life.number, ENOMEM), 0, "denied");
	is_int(life.session->outcome, SESSION_OUTCOME_FAILED, "a worker would not take it");
	ok(strstr(life.session->reason, "memory") != NULL, "why: %s", life.session->reason);
	life_drop(&life);
}

static void
test_timeout(void)
{
	const struct session_request req = {.id = "t",
	    .image_path = rig.image,
	    .vmm_uid = geteuid(),
	    .vmm_gid = getegid(),
	    .handshake_timeout_ms = 1};
	struct session *session = NULL;

	is_int(rig_create(&req, &session), 0, "create with a short patience");
	struct life life = life_of(&rig.workers[0], session);
	life_take_open(&life);
	rig_say_opened(life.worker, life.open_seq, life.number, 0);
	wait_for(session->state == SESSION_CLOSING);
	is_int(session->outcome, SESSION_OUTCOME_TIMED_OUT, "outcome");
	ok(strstr(session->reason, "within 1 ms") != NULL, "why: %s", session->reason);
	life_answer_close(&life);
	is_int(session->state, SESSION_CLOSED, "CLOSED");
	life_drop(&life);
}

static void
test_names(void)
{
	struct session *session = NULL;
	struct session_request req = {
	    .id = "n/1", .image_path = rig.image, .vmm_uid = geteuid(), .vmm_gid = getegid()};
	char longest[SESSION_ID_BYTES + 1];
	struct life a = life_open(0, "n/1");

	is_int(rig_create(&req, &session), -EEXIST, "a live id is refused");
	ok(strstr(rig.why, "n/1") != NULL, "by name: %s", rig.why);
	struct life b = life_open(0, "n:1");
	ok(strstr(b.session->socket_path, "/n-1-") != NULL, "names that collide get a suffix: %s",
	    b.session->socket_path);
	memset(longest, '/', sizeof(longest) - 1);
	longest[sizeof(longest) - 1] = '\0';
	req.id = longest;
	is_int(rig_create(&req, &session), -EINVAL, "an id of 128 bytes is refused");
	longest[SESSION_ID_BYTES - 1] = '\0';
	struct life c = life_open(0, longest);
	ok(strlen(c.session->socket_path) < 108 && access(c.session->socket_path, F_OK) == 0,
	    "an id of 127 bytes gets a shorter name");
	req.id = "";
	is_int(rig_create(&req, &session), -EINVAL, "an empty id is refused");
	req.id = "a\nb";
	is_int(rig_create(&req, &session), -EINVAL, "a control character is refused");
	req.id = NULL;
	is_int(rig_create(&req, &session), 0, "an id is made up (%s)", rig.why);
	struct life d = life_of(&rig.workers[0], session);
	life_take_open(&d);
	ok(session->id[0] == 's' && session_find(&rig.sup.sessions, session->id) == session,
	    "and can be found: %s", session->id);
	struct life *lives[] = {&a, &b, &c, &d};
	for (size_t i = 0; i < 4; i++) {
		session_close(lives[i]->session, SESSION_OUTCOME_CLOSED, "test");
		life_answer_close(lives[i]);
		life_drop(lives[i]);
	}
	struct life again = life_open(0, "n/1");
	ok(session_find(&rig.sup.sessions, "n/1") == again.session,
	    "the id of a tombstone can be used again");
	session_close(again.session, SESSION_OUTCOME_CLOSED, "test");
	life_answer_close(&again);
	ok(session_find(&rig.sup.sessions, "n/1") == again.session, "the newest is found");
	life_drop(&again);
}

static void
test_limits(void)
{
	struct session *session = NULL;
	struct session_request req = {
	    .image_path = rig.image, .vmm_uid = geteuid(), .vmm_gid = getegid()};

	rig.sup.options.max_sessions = 0;
	is_int(rig_create(&req, &session), -ENOSPC, "max-sessions holds");
	ok(strstr(rig.why, "max-sessions") != NULL, "and is named: %s", rig.why);
	rig.sup.options.max_sessions = 4096;
	rig.sup.max_held = 1;
	struct life only = life_open(0, "only");
	is_int(rig_create(&req, &session), -EMFILE, "none is begun that there is no room for");
	ok(strstr(rig.why, "LimitNOFILE") != NULL, "says so: %s", rig.why);
	rig.sup.max_held = 0;
	session_close(only.session, SESSION_OUTCOME_CLOSED, "test");
	life_answer_close(&only);
	life_drop(&only);
	req.cluster_min_bytes = 5000;
	is_int(rig_create(&req, &session), -EINVAL, "a cluster is a power of two");
	req.cluster_min_bytes = 8192;
	req.cluster_max_bytes = 4096;
	is_int(rig_create(&req, &session), -EINVAL, "bounds in order");
	req.cluster_min_bytes = req.cluster_max_bytes = 0;
	req.vmm_uid = 12345;
	rig.peer.uid = 54321;
	is_int(rig_create(&req, &session), -EPERM, "another user's VMM is root's business");
	rig.peer.uid = geteuid();
	req.vmm_uid = geteuid();
	req.image_path = "/etc/shadow";
	is_int(rig_create(&req, &session), -EXDEV, "the image must be below a root");
	req.image_path = rig.image;
	char *dir = rig.sup.options.run_dir;
	char deep[] = "/tmp/a-run-directory-whose-name-goes-on-and-on-and-on-so-that-no-socket-"
		      "of-any-session-can-have-a-path-in-it";
	rig.sup.options.run_dir = deep;
	is_int(rig_create(&req, &session), -ENAMETOOLONG, "a run directory that is too long");
	ok(strstr(rig.why, "--run-dir") != NULL, "says so: %s", rig.why);
	rig.sup.options.run_dir = dir;
	struct child *child = fleet_next_child;
	fleet_next_child = NULL;
	is_int(rig_create(&req, &session), -EAGAIN, "no worker, no session");
	ok(strstr(rig.why, "no worker") != NULL, "says so: %s", rig.why);
	fleet_next_child = child;
	is_int(rig.sup.sessions.live, 0, "none of them counts");
}

/* A worker that cannot count must not make the totals wrap. */
static void
test_numbers(void)
{
	uint64_t sums[COUNTER_COUNT], before[COUNTER_COUNT];
	struct life life = life_serve(0, "c", false);
	struct pagemap map = {0};

	sessions_counters(&rig.sup.sessions, NULL, before);
	pagemap_map(&map, life.map, true);
	/* The first set, however many there are. */
	_Atomic uint64_t *counters = (void *)map.header->counters;
	atomic_store(&counters[COUNTER_FAULTS], UINT64_MAX);
	atomic_store(&counters[COUNTER_COPIES], 41);
	atomic_store(&counters[COUNTER_FAULT_MAX_NANOS], UINT64_MAX);
	atomic_store(&counters[COUNTER_FAULTS_ACTIVE], 3);
	pagemap_unmap(&map);
	sessions_counters(&rig.sup.sessions, NULL, sums);
	is_int(sums[COUNTER_FAULTS], INT64_MAX, "a sum saturates");
	is_int(sums[COUNTER_FAULT_MAX_NANOS], INT64_MAX, "so does a maximum");
	is_int(sums[COUNTER_COPIES], before[COUNTER_COPIES] + 41, "others count");
	sessions_counters(&rig.sup.sessions, "0.1.0", sums);
	is_int(sums[COUNTER_COPIES], 41, "also for its version");
	sessions_counters(&rig.sup.sessions, "9.9.9", sums);
	is_int(sums[COUNTER_COPIES], 0, "not for another one");
	session_close(life.session, SESSION_OUTCOME_CLOSED, "test");
	life_answer_close(&life);
	sessions_counters(&rig.sup.sessions, NULL, sums);
	is_int(sums[COUNTER_COPIES], before[COUNTER_COPIES] + 41, "they outlive the session");
	is_int(sums[COUNTER_FAULTS_ACTIVE], 0, "but nothing is active any more");
	rig.sup.options.tombstone_life_ms = 0;
	sessions_sweep(&rig.sup.sessions);
	ok(session_find(&rig.sup.sessions, "c") == NULL, "a tombstone falls");
	ok(list_is_empty(&rig.sup.sessions.all) && rig.sup.sessions.dead == 0, "as do all");
	sessions_counters(&rig.sup.sessions, NULL, sums);
	is_int(sums[COUNTER_COPIES], before[COUNTER_COPIES] + 41, "they outlive the tombstone");
	rig.sup.options.tombstone_life_ms = 60000;
	life_drop(&life);
}

/* The worker says that so many pages of it are present. */
static void
fill_pages(const struct life *life, unsigned int n)
{
	struct pagemap map = {0};

	pagemap_map(&map, life->map, true);
	for (unsigned int i = 0; i < n; i++)
		atomic_store(&map.pages[i], PAGE_PRESENT);
	pagemap_unmap(&map);
}

/* Pages are counted again when the count is old; each who asks by its own measure. */
static void
test_recount(void)
{
	struct life life = life_serve(0, "p", false);
	struct session *s = life.session;

	is_int(s->last_counts.absent, 64, "at first all is absent");
	fill_pages(&life, 5);
	session_refresh_counts(s, NS_PER_S);
	is_int(s->last_counts.present, 5, "what was never counted is");
	fill_pages(&life, 7);
	s->counted_ns = clock_now_ns();
	session_refresh_counts(s, 3600 * NS_PER_S);
	is_int(s->last_counts.present, 5, "a count that is not old stays");
	s->counted_ns -= NS_PER_S;
	session_refresh_counts(s, NS_PER_S);
	is_int(s->last_counts.present, 7, "an old one does not");
	session_close(s, SESSION_OUTCOME_CLOSED, "test");
	fill_pages(&life, 9);
	life_answer_close(&life);
	is_int(s->last_counts.present, 9, "an ended one keeps its last");
	s->counted_ns = 0;
	session_refresh_counts(s, 0);
	is_int(s->last_counts.present, 9, "for ever");
	life_drop(&life);
}

/* One that takes longer than a turn of the loop may is counted part by part. */
static void
test_recount_large(void)
{
	struct life life = life_serve(0, "p", false);
	struct session *s = life.session;
	struct pagemap_counts counts;
	uint64_t bytes = s->guest_bytes;

	fill_pages(&life, 5);
	s->guest_bytes = UINT64_C(1) << 40;
	session_counts(s, &counts);
	is_int(counts.present, 0, "its pages are those that were counted last");
	s->part_counts = (struct pagemap_counts){.absent = 1, .present = 1};
	s->part_pages = 2;
	session_refresh_counts(s, 0);
	ok(s->last_counts.present == 4 && s->last_counts.absent == 60 && s->part_pages == 0,
	    "a count goes on from where it had come to");
	session_refresh_counts(s, 0);
	is_int(s->last_counts.present, 5, "and begins anew");
	s->guest_bytes = bytes;
	session_close(s, SESSION_OUTCOME_CLOSED, "test");
	life_answer_close(&life);
	life_drop(&life);
}

static void
leak_turn(unsigned int i, const char *id)
{
	if (i % 4 == 0) {
		struct life life = life_open(0, id);

		rig_say_refused(life.worker, life.number, "test");
		life_drop(&life);
		return;
	}
	struct life life = life_serve(0, id, false);
	if (i % 4 == 1) {
		session_close(life.session, SESSION_OUTCOME_CLOSED, "test");
		struct far_message m = rig_take(life.worker, IPC_SESSION_CLOSE);
		rig_say_closed(life.worker, m.msg.seq, life.number);
	} else if (i % 4 == 2) {
		session_complete(life.session, rig.why, sizeof(rig.why));
		struct far_message m = rig_take(life.worker, IPC_SESSION_COMPLETE);
		rig_say_completed(
		    life.worker, m.msg.seq, life.number, IPC_COMPLETION_DETACHED, 0, "");
	} else {
		struct rig_worker *worker = life.worker;
		fleet_next_child = NULL;
		sessions_on_child_gone(&rig.sup.sessions, &worker->child, "test");
		fleet_next_child = &worker->child;
		session_close(life.session, SESSION_OUTCOME_CLOSED, "test");
	}
	if (session_is_live(life.session))
		ok(false, "%s has ended", id);
	life_drop(&life);
}

static void
test_leaks(void)
{
	int before = fd_count();
	char id[32];

	for (unsigned int i = 0; i < 1000 && !rig.timed_out; i++) {
		snprintf(id, sizeof(id), "leak-%u", i);
		leak_turn(i, id);
	}
	is_int(rig.sup.sessions.live, 0, "1000 sessions have come and gone");
	is_int(fd_count(), before, "and no descriptor stayed");
}

int
main(void)
{
	if (geteuid() != 0) {
		skip(1, "needs root: makes userfaultfds");
		return done();
	}
	log_init("test_session", LOG_LEVEL_DEBUG);
	rig_start();
	test_open();
	test_graduate();
	test_completion_fails();
	test_refused();
	test_timeout();
	test_names();
	test_limits();
	test_numbers();
	test_recount();
	test_recount_large();
	test_leaks();
	rig_stop();
	return done();
}
