#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
# builds: plain asan
"""Images that fail: what a session's policy makes of it, that a page is never anything but
its bytes, and that what is retried heals."""
import errno
import functools
import os
import signal
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
import fuse  # noqa: E402
import handshake  # noqa: E402
import pagerd  # noqa: E402
import tap  # noqa: E402

MIB = 1 << 20
WAITS = "the image cannot be read; the fault waits and is tried again"


def alarms(pager, session_id="a", n=1):
    pager.until(lambda: pager.show(session_id)["alarms"] >= n)
    return pager.show(session_id)


def ends(guest):
    """The exit status of a VMM that is about to end by itself."""
    return guest.process.wait(pagerd.DEADLINE_S)


def hold(error):
    """A file system that fails: the guest waits and its neighbour does not; then it heals."""
    fuse.needs()
    with pagerd.Pagerd() as pager, fuse.Image(pager, size="4M", seed=1) as image:
        image.error = error
        guest = pager.restore(image, "a", engine="threads", vcpus=2)
        guest.send("touch seq")
        session = alarms(pager, n=3)
        what = errno.errorcode[error]
        tap.is_(session["on_image_error"], "hold", what + ": hold is the default")
        tap.is_(session["image_alarm"], "%s: %s" % (WAITS, os.strerror(error)),
                "the session says so")
        tap.is_(session["reason"], session["image_alarm"], "and that this is its trouble")
        tap.ok(pager.log.find("<3>.*id=a: alarm: " + WAITS), "so does the log")
        status = guest.wait_status(lambda s: s["blocked"] >= 1)
        tap.is_(status["total_wrong"], 0, "its guest waits")
        with pager.restore(pager.image(size="2M", seed=2), "b") as other:
            tap.is_(other.cmd("verify")["wrong"], 0, "its neighbour does not")
        tap.like(pager.ctl("show", "a").stdout, "reason +" + WAITS, "pagerctl show tells")
        image.error = 0
        tap.is_(guest.answer()["wrong"], 0, "it heals: every page is right")
        pager.log.wait("id=a: its image can be read again: no page waits for it")
        session = pager.show("a")
        tap.is_((session["image_alarm"], session["reason"]), (None, None), "the alarm is over")
        tap.is_(pager.complete("a")["state"], "graduated", "it graduates")
        tap.is_(guest.cmd("verify")["wrong"], 0, "right")
        guest.kill()


def poison(in_memory):
    """A file that is cut: the VMM stops at the page, which has no byte but the image's."""
    with pagerd.Pagerd() as pager:
        image = pager.image(in_memory=in_memory, size="4M", seed=3)
        guest = pager.restore(image, "a", engine="threads",
                              members={"on_image_error": "poison"})
        guest.cmd("touch seq count=10")
        pid = pager.worker_pid()
        os.truncate(image.path, MIB)
        guest.send("touch seq")
        tap.ok(guest.stops_at_poison(), "poison: the VMM stops at the page")
        line = pager.log.wait("<3>.*id=a: alarm: the image cannot be read at offset 1048576: "
                              "Input/output error; the page is poisoned")
        tap.like(line, "pages=1", "one page, and the log says which")
        session = pager.wait("a", "closed")
        tap.is_((session["outcome"], session["on_image_error"]), ("vmm-exited", "poison"),
                "the session ends with it")
        tap.ok(session["alarms"] >= 2 and "poisoned" in session["image_alarm"],
               "and keeps why", session["image_alarm"])
        tap.is_(pager.worker_pid(), pid, "the worker lives")


def poison_heals():
    """A VMM that survives it: the page heals, and is what the image has."""
    fuse.needs()
    with pagerd.Pagerd(on_image_error="poison") as pager, \
            fuse.Image(pager, size="4M", seed=4) as image:
        image.error = errno.EIO
        with open(image.behind.path, "rb") as f:
            right = f.read(4096)
        session = pager.create(image.path, id="a")
        memory = handshake.Memory(4 * MIB)
        # Read by the kernel, which fails where a VMM would end.
        with memory.connect(session["socket_path"]):
            pager.wait("a", "serving")
            tap.is_(errno_of(memory.page, 0), errno.EFAULT, "touching the page fails")
            pager.log.wait("id=a: alarm: .*the page is poisoned")
            session = pager.show("a")
            tap.like(session["image_alarm"], "offset 0: Input/output error; the page is poisoned",
                     "poisoned")
            tap.is_(session["pages"]["present"], 0, "the page map says absent")
            status, code, why = pager.error_of("POST", "/sessions/a/complete")
            tap.is_((status, code), (500, "failed"), "it cannot be completed")
            tap.like(why, "cannot be read at offset", "which says why")
            image.error = 0
            pager.log.wait("id=a: its image can be read again", timeout=20)
            tap.is_(pager.show("a")["image_alarm"], None, "retried, it heals")
            tap.ok(memory.page(0) == right, "with the image's bytes")
            tap.is_(pager.complete("a")["state"], "graduated", "and is completed")
        memory.close()


def errno_of(call, *arguments):
    try:
        call(*arguments)
    except OSError as error:
        return error.errno
    return 0


def kill():
    """Only where the configuration allows it."""
    with pagerd.Pagerd(image_error_kill="on") as pager:
        image = pager.image(size="4M", seed=5)
        other = pager.restore(pager.image("j", size="2M", seed=6), "b")
        guest = pager.restore(image, "a", members={"on_image_error": "kill"})
        os.truncate(image.path, MIB)
        guest.send("touch seq")
        tap.is_(ends(guest), -signal.SIGKILL, "kill: the VMM is killed")
        pager.log.wait("<3>.*id=a: alarm: the image could not be read at offset .*: Input/output "
                       "error; its VMM pid=%d is killed" % guest.pid)
        session = pager.wait("a", "closed")
        tap.is_(session["outcome"], "vmm-exited", "its session ends")
        tap.like(session["reason"], "pid=%d was killed: the image could not be read at offset"
                 % guest.pid, "and says who did it")
        tap.is_(other.cmd("verify")["wrong"], 0, "its neighbour lives")
        other.kill()


def kill_is_not_allowed():
    with pagerd.Pagerd() as pager:
        image = pager.image(size="2M", seed=7)
        status, code, why = pager.error_of("POST", "/sessions", {
            "image": image.path, "id": "a", "on_image_error": "kill"})
        tap.is_((status, code), (403, "forbidden"), "a client may not ask for it")
        tap.like(why, "administrator allows it with --image-error-kill on", "says how")
        done = pager.ctl("create", "--on-image-error", "kill", "--id", "a", image.path)
        tap.ok(done.returncode == 1 and "--image-error-kill on" in done.stderr, "nor by pagerctl",
               done)
        answer = pager.request("PATCH", "/config", {"image-error-kill": "on"})
        tap.is_(answer.status, 400, "nor allow it to itself")
        answer = pager.request("PATCH", "/config", {"on-image-error": "kill"})
        tap.ok(answer.status == 400 and "needs --image-error-kill on" in answer.text,
               "nor by the default", answer.text)


def words():
    with pagerd.Pagerd(on_image_error="poison") as pager:
        image = pager.image(size="1M", seed=8)
        tap.is_(pager.create(image.path, id="a")["on_image_error"], "poison", "the default")
        tap.is_(pager.create(image.path, id="b", on_image_error="hold")["on_image_error"], "hold",
                "a session's own")
        answer = pager.error_of("POST", "/sessions", {"image": image.path, "on_image_error": "x"})
        tap.is_(answer[:2], (400, "bad-request"), "no such policy")
        tap.like(answer[2], "hold, poison or kill", "says which there are")
        done = pager.ctl("create", "--on-image-error", "hold", "--id", "c", image.path)
        tap.is_((done.returncode, pager.show("c")["on_image_error"]), (0, "hold"), "pagerctl's")
    for value in ("x", "kill"):
        with pagerd.Pagerd(start=False, on_image_error=value) as pager:
            try:
                pager.start()
                tap.ok(False, "--on-image-error %s is refused" % value)
            except RuntimeError as error:
                tap.like(str(error), "--on-image-error", "--on-image-error %s is refused" % value)


def survives(who):
    """The policy and the trouble outlive a worker and a supervisor."""
    with pagerd.Pagerd(image_error_kill="on") as pager:
        image = pager.image(size="4M", seed=9)
        guest = pager.restore(image, "a", members={"on_image_error": "kill"})
        if who == "worker":
            pid = pager.worker_pid()
            os.kill(pid, signal.SIGKILL)
            pager.log.wait("id=a: adopted by worker")
        else:
            pager.process.kill()
            pager.process.wait()
            pager.start()
        tap.is_(pager.show("a")["on_image_error"], "kill", "%s: the policy is kept" % who)
        os.truncate(image.path, MIB)
        guest.send("touch seq")
        tap.is_(ends(guest), -signal.SIGKILL, "and is followed")
        tap.like(pager.wait("a", "closed")["reason"], "was killed: the image", "and told")


def alarm_is_of_its_worker():
    """What one worker could not read, its successor reads: the alarm goes with it."""
    fuse.needs()
    with pagerd.Pagerd() as pager, fuse.Image(pager, size="2M", seed=10) as image:
        image.error = errno.EIO
        guest = pager.restore(image, "a", engine="threads")
        guest.send("touch seq")
        alarms(pager)
        image.error = 0
        os.kill(pager.worker_pid(), signal.SIGKILL)
        pager.log.wait("id=a: adopted by worker")
        tap.is_(guest.answer()["wrong"], 0, "the next worker reads it")
        tap.is_(pager.show("a")["image_alarm"], None, "and the alarm is over")
        guest.kill()


if __name__ == "__main__":
    tap.needs_root()
    part = functools.partial
    tap.run(part(hold, errno.EIO), part(hold, errno.ESTALE), part(poison, True),
            part(poison, False), poison_heals, kill, kill_is_not_allowed, words,
            part(survives, "worker"), part(survives, "supervisor"), alarm_is_of_its_worker)
