/* SPDX-License-Identifier: Apache-2.0 */
/* What pagerctl makes of a Firecracker's answers, and what it asks. */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "supervisor/ctl/balloon.h"
#include "supervisor/ctl/firecracker.h"
#include "tests/unit/tap.h"

#define NONE (-1)

/* What is read after the start was answered, in order, and what it means. */
static void
test_balloon(void)
{
	static const struct {
		const char *what;
		struct {
			int host, guest;
			enum balloon_progress progress;
		} looks[5];
	} cases[] = {
	    {"a run", {{2, NONE, BALLOON_WAITS}, {2, 2, BALLOON_RUNS}, {1, 0, BALLOON_OVER}}},
	    {"a fast one", {{1, 0, BALLOON_OVER}}},
	    {"one of a guest that was asked before",
		{{3, 0, BALLOON_WAITS}, {3, 3, BALLOON_RUNS}, {1, 0, BALLOON_OVER}}},
	    {"after a run that a snapshot cut", {{4, 3, BALLOON_WAITS}, {4, 4, BALLOON_RUNS}}},
	    {"a guest that has seen more than it is asked", {{4, 9, BALLOON_WAITS}}},
	    {"an end that is not acknowledged",
		{{5, 0, BALLOON_WAITS}, {5, 5, BALLOON_RUNS}, {5, 0, BALLOON_OVER}}},
	    {"another run in between",
		{{5, 5, BALLOON_RUNS}, {6, 0, BALLOON_WAITS}, {6, 6, BALLOON_RUNS},
		    {6, 0, BALLOON_OVER}}},
	    {"a counter that has wrapped",
		{{INT32_MAX, 0, BALLOON_WAITS}, {INT32_MAX, INT32_MAX, BALLOON_RUNS}}},
	    {"nonsense", {{0, 0, BALLOON_WAITS}, {-7, -7, BALLOON_WAITS}}},
	};

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct balloon_run run = {0};
		bool right = true;

		for (size_t j = 0; j < 5 && (cases[i].looks[j].host || j < 1); j++)
			right = right &&
			    balloon_look(&run, cases[i].looks[j].host, cases[i].looks[j].guest) ==
				cases[i].looks[j].progress;
		ok(right, "balloon: %s", cases[i].what);
	}
}

static void
test_conclude(void)
{
	struct fc fc = {.socket_path = "/fc.sock"};
	struct answer fault = {400, json_pack("{ss}", "fault_message", "No such thing")};
	struct answer bare = {500, NULL}, odd = {400, json_pack("[s]", "x")};

	is_int(fc_conclude(&fc, &(struct answer){204, NULL}), EXITCODE_OK, "204");
	is_int(fc_conclude(&fc, &fault), EXITCODE_FAILED, "400");
	is_str(fc.why, "Firecracker says: No such thing", "  with its words");
	is_int(fc_conclude(&fc, &bare), EXITCODE_FAILED, "500 and nothing else");
	is_str(fc.why, "Firecracker answered 500 without a reason", "  says so");
	is_int(fc_conclude(&fc, &odd), EXITCODE_FAILED, "a body that is no object");
	is_int(fc_conclude(&fc, &(struct answer){-ETIMEDOUT, NULL}), EXITCODE_TIMEOUT, "no answer");
	is_int(
	    fc_conclude(&fc, &(struct answer){-ENOENT, NULL}), EXITCODE_UNREACHABLE, "no socket");
	is_str(fc.why, "Firecracker does not answer on /fc.sock: No such file or directory",
	    "  is named");
	json_decref(fault.json);
	json_decref(odd.json);
}

static void
test_load_body(void)
{
	json_t *extra =
	    json_pack("{s:b, s:s}", "track_dirty_pages", true, "snapshot_path", "/evil");
	json_t *body = fc_load_body("/s", "Uffd", "/u.sock", extra);
	char *text = json_dumps(body, JSON_COMPACT | JSON_SORT_KEYS);

	is_str(text,
	    "{\"mem_backend\":{\"backend_path\":\"/u.sock\",\"backend_type\":\"Uffd\"},"
	    "\"resume_vm\":false,\"snapshot_path\":\"/s\",\"track_dirty_pages\":true}",
	    "a load, whose own members stay");
	ok(fc_load_body("/\xff", "File", "/m", NULL) == NULL, "a path that is not UTF-8");
	free(text);
	json_decref(body);
	json_decref(extra);
}

static void
is_path(const char *path, const char *jail, const char *wanted, const char *what)
{
	char *got = fc_path(path, jail);

	is_str(got, wanted, "%s", what);
	free(got);
}

static void
test_path(void)
{
	char template[] = "/tmp/test_firecracker.XXXXXX", file[64], inner[64], other[64];
	const char *dir = mkdtemp(template);

	snprintf(file, sizeof(file), "%s/f", dir);
	snprintf(inner, sizeof(inner), "%s/jail", dir);
	snprintf(other, sizeof(other), "%s/jail/new", dir);
	close(open(file, O_CREAT | O_RDWR | O_CLOEXEC, 0600));
	mkdir(inner, 0700);
	is_path(file, NULL, file, "a path");
	is_path(other, NULL, other, "one of a file that is not there yet");
	is_path(other, inner, "/new", "in a jail");
	is_path(file, inner, file, "outside it");
	is_path(file, "/", file, "a jail that is none");
	is_path(file, "/nowhere", file, "one that is not there");
	is_path("/no/such/dir/f", inner, "/no/such/dir/f", "what only Firecracker can see");
	is_path("/new", NULL, "/new", "below the root");
	snprintf(other, sizeof(other), "%s/jailed", dir);
	is_path(other, inner, other, "beside the jail, with its name in front");
	if (chdir(dir) == 0)
		is_path("f", NULL, file, "a relative path");
	unlink(file);
	rmdir(inner);
	rmdir(dir);
}

int
main(void)
{
	test_balloon();
	test_conclude();
	test_load_body();
	test_path();
	return done();
}
