/* SPDX-License-Identifier: Apache-2.0 */
/* Templates: the table of their life, their record, and who counts as a fork. */
#include "supervisor/template_impl.h"

#include <errno.h>

#include "supervisor/opener/image.h"
#include "tests/unit/session_rig.h"

/* --- The table -------------------------------------------------------------------- */

static void
test_table(void)
{
	enum template_state next;

	for (unsigned int s = 0; s < TEMPLATE_REMOVED; s++)
		for (unsigned int e = 0; e < TEMPLATE_EVENT_COUNT; e++) {
			const char *no = template_fsm_refusal(s, e, &next);

			ok(no == NULL || (strlen(no) > 10 && strcmp(no, "is removed") != 0),
			    "%s, event %u: has a row%s%s", template_state_word(s), e,
			    no ? " that refuses: it " : "", no ? no : "");
			ok(no == NULL || next == s, "what is refused changes nothing");
			ok((next == TEMPLATE_REMOVED) == (no == NULL && e == TEMPLATE_EV_DELETE),
			    "only a deletion removes");
			ok(no != NULL || s != TEMPLATE_DAMAGED, "nothing is done to a damaged one");
		}
	for (unsigned int e = 0; e < TEMPLATE_EVENT_COUNT; e++)
		ok(template_fsm_refusal(TEMPLATE_REMOVED, e, NULL) != NULL,
		    "nothing follows a removal");
	ok(template_fsm_refusal(TEMPLATE_PROMOTED, TEMPLATE_EV_FORK, NULL) == NULL &&
		template_fsm_refusal(TEMPLATE_REGISTERED, TEMPLATE_EV_FORK, NULL) != NULL,
	    "only a promoted one is forked");
}

static void
test_names(void)
{
	static const struct {
		const char *name;
		bool want;
	} cases[] = {
	    {"a", true},
	    {"A.b_c-1", true},
	    {"-", true},
	    {"", false},
	    {".", false},
	    {"..", false},
	    {".a", false},
	    {"a/b", false},
	    {"a b", false},
	    {"a\n", false},
	    {"\xc3\xa4", false},
	};
	char longest[TEMPLATE_NAME_BYTES + 1];

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
		is_int(template_name_is_valid(cases[i].name), cases[i].want, "name \"%s\"",
		    cases[i].name);
	memset(longest, 'x', sizeof(longest));
	longest[TEMPLATE_NAME_BYTES] = '\0';
	ok(!template_name_is_valid(longest), "65 bytes are too many");
	ok(template_name_is_valid(longest + 1), "64 are not");
}

/* --- The record ------------------------------------------------------------------- */

static const char record[] =
    "{\"layout\":1,\"name\":\"t\",\"state\":\"promoted\",\"image\":\"/i\",\"image_bytes\":4096,"
    "\"image_ino\":\"ffffffffffffffff\",\"image_mtime_ns\":1,\"cache_key\":\"k\","
    "\"prefetch\":\"sequential\"}";

static int
decode(const char *text, size_t bytes, struct template *ret)
{
	rig.why[0] = '\0';
	memset(ret, 0, sizeof(*ret));
	return template_decode(text, bytes, "t", ret, rig.why, sizeof(rig.why));
}

static void
test_round_trip(void)
{
	struct template t, again;
	size_t bytes = strlen(record);
	char *text;

	is_int(decode(record, bytes, &t), 0, "a record");
	is_int(t.state, TEMPLATE_PROMOTED, "its state");
	ok(t.image.ino == UINT64_MAX && t.image.bytes == 4096 && t.image.mtime_ns == 1,
	    "the image's identity");
	ok(t.spec.hot_list == NULL && t.spec.prefetch == PREFETCH_SEQUENTIAL, "its switches");
	t.spec.hot_list = strdup("/hot \xff\xc3\xa4");
	text = template_encode(&t);
	is_int(decode(text, strlen(text), &again), 0, "is written and read again");
	ok(again.state == t.state && again.image.ino == t.image.ino &&
		again.spec.prefetch == t.spec.prefetch,
	    "as it was");
	is_str(again.spec.hot_list, "/hot ?\xc3\xa4", "as text that JSON can hold");
	free(text);
	template_spec_fini(&t.spec);
	template_spec_fini(&again.spec);
	for (size_t n = 0; n < bytes; n++)
		if (decode(record, n, &t) != -EINVAL)
			ok(false, "%zu bytes of it are refused", n);
	ok(true, "every part of it is refused");
}

static void
test_bad_records(void)
{
	static const struct {
		const char *old, *new, *says;
	} cases[] = {
	    {"\"layout\":1", "\"layout\":2", "\"layout\" must be from 1 to 1"},
	    {"\"t\"", "\"u\"", "of another template"},
	    {"\"promoted\"", "\"damaged\"", "\"state\""},
	    {"\"promoted\"", "\"removed\"", "\"state\""},
	    {"\"promoted\"", "1", "\"state\" must be a string"},
	    {"\"/i\"", "\"i\"", "not absolute"},
	    {"\"/i\"", "\"\"", "1 to 4095"},
	    {"4096", "0", "\"image_bytes\""},
	    {"\"ffffffffffffffff\"", "\"0x1\"", "\"image_ino\""},
	    {"\"ffffffffffffffff\"", "\"01\"", "\"image_ino\""},
	    {"\"ffffffffffffffff\"", "\"-1\"", "\"image_ino\""},
	    {"_ns\":1", "_ns\":-1", "\"image_mtime_ns\""},
	    {"\"k\"", "\"\"", "\"cache_key\""},
	    {"sequential", "maybe", "\"prefetch\" is no mode"},
	    {"tial\"", "tial\",\"hot_list\":\"h\"", "not absolute"},
	    {"tial\"", "tial\",\"more\":1", "no member \"more\""},
	    {",\"prefetch\":\"sequential\"", "", "\"prefetch\" is missing"},
	    {"tial\"}", "tial\"}}", "not JSON"},
	};
	struct template t;
	char text[512];

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		const char *at = strstr(record, cases[i].old);

		snprintf(text, sizeof(text), "%.*s%s%s", (int)(at - record), record, cases[i].new,
		    at + strlen(cases[i].old));
		ok(decode(text, strlen(text), &t) == -EINVAL && strstr(rig.why, cases[i].says),
		    "%s -> %s: %s", cases[i].old, cases[i].new, rig.why);
	}
}

/* --- Forks ------------------------------------------------------------------------ */

static int
put(const char *name, const char *cache_key)
{
	const struct template_request req = {rig.image, cache_key, NULL, PREFETCH_ON};
	struct image image = {.fd = -1};
	bool is_new;
	int r = image_open(
	    &rig.sup.options.image_root, &rig.peer, rig.image, &image, rig.why, sizeof(rig.why));

	fd_closep(&image.fd);
	if (r == 0)
		r = template_put(&rig.sup, name, &req, &image, &is_new, rig.why, sizeof(rig.why));
	return r;
}

static int
act(const char *name, enum template_event event)
{
	enum template_state state;

	return template_do(&rig.sup, name, event, &state, rig.why, sizeof(rig.why));
}

static int
fork_of(const char *name, struct session **ret)
{
	const struct session_request req = {
	    .template = name, .vmm_uid = geteuid(), .vmm_gid = getegid()};

	return rig_create(&req, ret);
}

static size_t
count(const char *name)
{
	const struct template *template;

	template_find(&rig.sup, name, &template, rig.why, sizeof(rig.why));
	return template_forks(&rig.sup, template, NULL, 0);
}

/* A session is a fork for as long as its worker may have it. */
static void
test_forks(void)
{
	struct session *session;

	is_int(put("t", "k"), 0, "a template");
	is_int(put("t", NULL), 0, "another key");
	is_int(put("t", "k"), 0, "and back");
	is_int(fork_of("t", &session), -EOPNOTSUPP, "is forked once it is promoted");
	is_int(act("t", TEMPLATE_EV_PROMOTE), 0, "promoted");
	is_int(put("t", "other"), -EOPNOTSUPP, "what is promoted is not changed");
	is_int(put("t", "k"), 0, "nor is it by what it is");
	is_int(fork_of("t", &session), 0, "a fork");
	is_str(session->cache_key, "k", "has the key");
	struct life life = life_of(&rig.workers[0], session);
	life_take_open(&life);
	is_int((intmax_t)count("t"), 1, "is counted");
	is_int(act("t", TEMPLATE_EV_DEMOTE), -EBUSY, "and protects it: %s", rig.why);
	session_close(session, SESSION_OUTCOME_CLOSED, "test");
	is_int(session->state, SESSION_CLOSING, "it is closing");
	is_int(act("t", TEMPLATE_EV_DELETE), -EBUSY, "its worker may still have it");
	struct far_message m = rig_take(life.worker, IPC_SESSION_CLOSE);
	rig_say_closed(life.worker, m.msg.seq, life.number);
	is_int((intmax_t)count("t"), 0, "a tombstone does not count");
	is_int(act("t", TEMPLATE_EV_DEMOTE), 0, "demoted");
	life_drop(&life);
}

/* While a worker may yet tell of forks none is let go. */
static void
test_recovery(void)
{
	is_int(act("t", TEMPLATE_EV_PROMOTE), 0, "promoted again");
	rig.sup.recovery.is_running = true;
	is_int(act("t", TEMPLATE_EV_DEMOTE), -EBUSY, "during a recovery nothing is demoted: %s",
	    rig.why);
	rig.sup.recovery.is_running = false;
	is_int(act("t", TEMPLATE_EV_DEMOTE), 0, "after it it is");
}

/* What is not written has not happened. */
static void
test_no_room(void)
{
	const struct template *template;
	int dir = rig.sup.templates->dir;

	rig.sup.templates->dir = open("/proc/self", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	ok(act("t", TEMPLATE_EV_PROMOTE) < 0, "a promotion that cannot be written: %s", rig.why);
	ok(put("u", NULL) < 0, "a registration: %s", rig.why);
	close(rig.sup.templates->dir);
	rig.sup.templates->dir = dir;
	is_int(template_find(&rig.sup, "u", &template, rig.why, sizeof(rig.why)), -ENOENT,
	    "is not there");
	is_int(act("t", TEMPLATE_EV_DEMOTE), 0, "nothing has changed");
	is_int(put("t", "new"), 0, "what can be written is changed");
}

/* One more than there may be: which of them counts nobody can say. */
static void
test_too_many_records(void)
{
	int dir = fd_dup(rig.sup.templates->dir);
	int fd = openat(dir, "more.json", O_WRONLY | O_CREAT | O_CLOEXEC, 0600);

	templates_close(&rig.sup);
	templates_open(&rig.sup);
	ok(act("n0", TEMPLATE_EV_PROMOTE) == -ENODEV && strstr(rig.why, "more than 1024 records"),
	    "too many records: %s", rig.why);
	is_int(unlinkat(dir, "more.json", 0), 0, "one is removed");
	close(fd);
	close(dir);
	templates_close(&rig.sup);
	templates_open(&rig.sup);
	is_int((intmax_t)rig.sup.templates->nr, TEMPLATE_MAX, "then they are there");
}

static void
test_limit(void)
{
	char name[32];
	int r = 0;

	for (unsigned int i = 0; r == 0 && i <= TEMPLATE_MAX; i++) {
		snprintf(name, sizeof(name), "n%u", i * 7919 % 10007);
		r = put(name, NULL);
	}
	is_int(r, -ENOSPC, "there is a limit: %s", rig.why);
	is_int((intmax_t)rig.sup.templates->nr, TEMPLATE_MAX, "which is reached");
	for (size_t i = 1; i < rig.sup.templates->nr; i++)
		if (strcmp(rig.sup.templates->all[i - 1]->name, rig.sup.templates->all[i]->name) >=
		    0)
			ok(false, "they are in order");
	test_too_many_records();
	while (r != 0 && rig.sup.templates->nr > 0)
		if (act(rig.sup.templates->all[0]->name, TEMPLATE_EV_DELETE) < 0)
			abort();
	ok(true, "and all are deleted");
}

int
main(void)
{
	char state[96], path[160];

	log_init("test_template", LOG_LEVEL_ERR);
	test_table();
	test_names();
	test_round_trip();
	test_bad_records();
	rig_start();
	snprintf(state, sizeof(state), "%s/state", rig.dir);
	rig.sup.options.state_dir = state;
	templates_open(&rig.sup);
	test_forks();
	test_recovery();
	test_no_room();
	test_limit();
	templates_close(&rig.sup);
	snprintf(path, sizeof(path), "%s/templates/.lock", state);
	unlink(path);
	snprintf(path, sizeof(path), "%s/templates", state);
	ok(rmdir(path) == 0 && rmdir(state) == 0, "no record is left behind");
	rig_stop();
	return done();
}
