/* SPDX-License-Identifier: Apache-2.0 */
/* What a worker says of an image, true or not, and what becomes of the session and of a VMM
 * that is only killed where it may be. */
#include <signal.h>
#include <sys/wait.h>

#include "tests/unit/session_rig.h"
#include "tests/unit/tap.h"

static void
close_now(struct life *life)
{
	session_close(life->session, SESSION_OUTCOME_CLOSED, "test");
	life_answer_close(life);
	ok(!session_is_live(life->session) && holds_nothing(life->session), "closed");
	life_drop(life);
}

static int
say(struct life *life, uint64_t number, uint32_t what, uint32_t error)
{
	struct ipc_msg msg = {.type = IPC_SESSION_IMAGE};

	msg.session_image.session = number;
	msg.session_image.what = what;
	msg.session_image.error = error;
	msg.session_image.offset = 8192;
	msg.session_image.pages = 1;
	return rig_say(life->worker, &msg, NULL);
}

static int
say_file(struct life *life, uint64_t bytes, uint64_t mtime_ns, uint64_t ctime_ns)
{
	struct ipc_msg msg = {.type = IPC_SESSION_IMAGE_FILE};

	msg.session_image_file.session = life->number;
	msg.session_image_file.bytes = bytes;
	msg.session_image_file.mtime_ns = mtime_ns;
	msg.session_image_file.ctime_ns = ctime_ns;
	return rig_say(life->worker, &msg, NULL);
}

static void
test_words(void)
{
	struct life life = life_open(0, "words");
	struct session *s = life.session;

	is_int(say(&life, life.number, IPC_IMAGE_POISONED, EIO), -EPROTO, "before a handshake");
	is_int(life_shake(&life, false), 0, "served");
	is_int(say(&life, life.number + 7, IPC_IMAGE_POISONED, EIO), -EPROTO, "of no session");
	is_int(say(&life, life.number, 99, EIO), -EPROTO, "what nobody knows");
	is_int(say(&life, life.number, IPC_IMAGE_POISONED, 5000), -EPROTO, "no errno");
	is_int(say(&life, life.number, IPC_IMAGE_HEALED, 0), 0, "healed without being ill");
	is_int(s->alarms, 0, "is no alarm");
	is_int(say(&life, life.number, IPC_IMAGE_POISONED, EIO), 0, "a poisoned page");
	ok(s->alarms == 1 && strstr(s->image_alarm, "offset 8192: Input/output error; the page is"),
	    "is: %s", s->image_alarm);
	is_str(s->reason, s->image_alarm, "which is why");
	is_int(say(&life, life.number, IPC_IMAGE_HOLDING, ESTALE), 0, "a kernel without poison");
	ok(s->alarms == 2 && strstr(s->image_alarm, "poisons no page"), "is another one");
	is_int(say(&life, life.number, IPC_IMAGE_HEALED, 0), 0, "healed");
	ok(s->image_alarm[0] == '\0' && s->reason[0] == '\0', "is the end of it");
	close_now(&life);
}

/* A worker that wants a VMM dead which nobody wants dead. */
static void
test_no_kill(enum image_policy policy, bool allowed)
{
	struct life life = life_serve(0, "no kill", true);
	struct session *s = life.session;

	s->flags = image_policy_flags(policy);
	s->sup->options.image_error_kill = allowed;
	is_int(say(&life, life.number, IPC_IMAGE_HOPELESS, EIO), 0, "hopeless, policy %s, %s",
	    image_policy_word(policy), allowed ? "allowed" : "not allowed");
	ok(s->killed[0] == '\0' && strstr(s->image_alarm, "is not killed"), "nobody is killed: %s",
	    s->image_alarm);
	s->sup->options.image_error_kill = false;
	close_now(&life);
}

static void
test_kill(void)
{
	struct life life = life_serve(0, "kill", true);
	struct session *s = life.session;
	siginfo_t info = {0};

	s->flags = image_policy_flags(IMAGE_KILL);
	s->sup->options.image_error_kill = true;
	is_int(say(&life, life.number, IPC_IMAGE_HOPELESS, EIO), 0, "hopeless, kill, allowed");
	is_int(say(&life, life.number, IPC_IMAGE_HOPELESS, EIO), 0, "and once more");
	is_int(waitid(P_PID, (id_t)life.vmm, &info, WEXITED | WNOWAIT), 0, "the VMM ends");
	ok(info.si_code == CLD_KILLED && info.si_status == SIGKILL, "by a SIGKILL");
	is_int(s->alarms, 1, "one alarm");
	session_vmm_exited(s);
	ok(strstr(s->reason, "was killed: the image could not be read at offset 8192") != NULL,
	    "the session says why: %s", s->reason);
	life_answer_close(&life);
	is_int(s->outcome, SESSION_OUTCOME_VMM_EXITED, "and ends with its VMM");
	life_drop(&life);
	s->sup->options.image_error_kill = false;
}

static void
test_file(void)
{
	struct life life = life_open(0, "file");
	struct session *s = life.session;
	const struct image *image = &s->image;
	uint64_t mtime = (uint64_t)image->mtime_ns, ctime = (uint64_t)image->ctime_ns;

	is_int(say_file(&life, image->bytes, mtime, ctime), 0, "the file as it was opened");
	ok(s->alarms == 0 && s->image_changed[0] == '\0', "is no news");
	is_int(say_file(&life, image->bytes, mtime, ctime + 1), 0, "another inode time");
	ok(s->alarms == 0 && s->image_changed[0] == '\0' && s->inode_noted, "is no alarm");
	is_int(say_file(&life, image->bytes, mtime + 1, ctime + 1), 0, "written to");
	ok(s->alarms == 1 && strstr(s->image_changed, "written to"), "is: %s", s->image_changed);
	is_int(say_file(&life, 1, mtime + 1, ctime + 1), 0, "and cut");
	is_int(s->alarms, 1, "is said once");
	close_now(&life);
}

int
main(void)
{
	if (geteuid() != 0) {
		skip(1, "needs root: makes userfaultfds");
		return done();
	}
	log_init("test_session_image", LOG_LEVEL_DEBUG);
	rig_start();
	test_words();
	test_no_kill(IMAGE_HOLD, true);
	test_no_kill(IMAGE_POISON, true);
	test_no_kill(IMAGE_KILL, false);
	test_kill();
	test_file();
	is_int(rig.sup.sessions.live, 0, "nothing lives on");
	rig_stop();
	return done();
}
