#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
# builds: plain asan
"""Fault points of common/fault.def, each where it strikes: the supervisor answers, the guest
waits at most, and every page is right in the end."""
import functools
import os
import re
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
import pagerd  # noqa: E402
import tap  # noqa: E402
import vmm  # noqa: E402

V = pagerd.VERSION
MIB = 1 << 20
# What has a scenario of its own: s180_*.py, s442_*.py, s510_*.py, s521_*.py, s527_*.py.
ELSEWHERE = {"EVENTS_AFTER_READ", "RECOVER_REMOVAL", "POPULATE_CHOSEN", "ADOPT_SESSION",
             "ADOPT_WAKE", "RELEASE_SESSION", "COMPLETE_ANSWER", "WORKER_START", "FILL_MEMORY",
             "PREFETCH_BEGIN", "WRITE_AFTER_MARK", "PICTURE_HELD", "PICTURE_TAKEN",
             "PICTURE_ANSWER", "CREATE_RECORD", "SPAWN_PIDFD", "ACCEPT_TELL",
             "LINK_MEMORY"}  # the last one in tests/unit/test_endpoint_faults.c
tried = set()


def fault(point, tail=""):
    """For the first worker alone."""
    tried.add(point)
    return point + tail + ";"


def spawn_fork():
    tried.add("SPAWN_FORK")
    with pagerd.Pagerd(env={"PAGER_FAULT": "SPAWN_FORK:1"}) as pager:
        image = pager.image(size="1M", seed=2)
        answer = pager.request("POST", "/sessions", {"image": image.path, "id": "a"})
        tap.is_((answer.status, answer.json["code"]), (503, "worker"), "SPAWN_FORK: no worker")
        tap.like(answer.json["error"], "cannot start a worker of version %s: Resource temp" % V,
                 "and why")
        tap.is_(answer.headers["Retry-After"], "1", "it may be tried again")
        tap.ok(pager.log.wait("the next start waits 100 ms"), "after a pause")
        tap.ok(pager.versions()[V]["retry_in_ms"] <= 100, "of which the list shows the rest")
        status, _, why = pager.error_of("POST", "/sessions", {"image": image.path, "id": "a"})
        tap.ok(status == 503 and "keep dying; the next start is in" in why or status == 201,
               "before that it is refused", why)
        pager.until(lambda: pager.error_of("POST", "/sessions", {
            "image": image.path, "id": "b"})[0] in (201, 409))
        with vmm.Vmm(image, socket=pager.show("b")["socket_path"]) as guest:
            tap.is_(guest.cmd("verify")["wrong"], 0, "then there is one")


def supervisor_link(nth):
    tried.add("LINK_SEND")
    with pagerd.Pagerd(env={"PAGER_FAULT": "LINK_SEND:%d" % nth}) as pager:
        served_and_graduated(pager, "LINK_SEND of the supervisor, message %d" % nth)


def worker_link(nth):
    with pagerd.Pagerd(worker_fault=fault("LINK_SEND", ":%d" % nth)) as pager:
        served_and_graduated(pager, "LINK_SEND of the worker, message %d" % nth)


def worker_link_in_handshake(nth):
    """The VMM's connection, or what it said, was only in the worker that lost its link."""
    with pagerd.Pagerd(worker_fault=fault("LINK_SEND", ":%d" % nth)) as pager:
        image = pager.image(size="4M", seed=nth)
        session = pager.create(image.path, id="a", handshake_timeout_ms=5000)
        with vmm.Vmm(image, socket=session["socket_path"], wait=False) as guest:
            status, code, why = pager.error_of("GET", "/sessions/a?wait=serving")
            what = "LINK_SEND of the worker, message %d" % nth
            if status == 200:
                guest.wait_ready()
                tap.is_(guest.cmd("verify")["wrong"], 0, what + ": another one serves")
            else:
                tap.is_((status, code), (409, "ended"), what + ": the handshake is lost")
                tap.like(why, "a worker died meanwhile, which may have had its connection",
                         "and the client is told")
        still_serves(pager, image)


def still_serves(pager, image):
    with pager.restore(image, "next") as guest:
        tap.is_(guest.cmd("verify")["wrong"], 0, "the next session is served")


def served_and_graduated(pager, what):
    """Whatever message is lost: the session is served, and can be completed."""
    image = pager.image(size="4M", seed=nth_seed(what), holes=100)
    session = pager.create(image.path, id="a")
    with vmm.Vmm(image, socket=session["socket_path"]) as guest:
        tap.is_(pager.wait("a", "serving")["state"], "serving", what)
        guest.cmd("write rand count=100")
        guest.cmd("discard rand count=100 seed=2")
        tap.is_(guest.cmd("verify")["wrong"], 0, "the guest is served")
        complete_at_last(pager)
        tap.is_(guest.cmd("verify")["wrong"], 0, "and graduates")


def nth_seed(text):
    return sum(text.encode())


def complete_at_last(pager):
    """One that is interrupted by a worker's end says so and may be asked for again."""
    answers = []

    def is_done():
        answer = pager.request("POST", "/sessions/a/complete")
        answers.append((answer.status, answer.text[:200]))
        return answer.status == 200

    pager.until(is_done)
    tap.ok(all(status in (409, 500, 503) for status, _ in answers[:-1]),
           "a completion that is interrupted says so", answers)


def worker_hello():
    with pagerd.Pagerd(worker_fault=fault("WORKER_HELLO"), hello_timeout="500ms") as pager:
        image = pager.image(size="1M", seed=2)
        creating = pagerd.Pending(pager.create, image.path, id="a")
        pager.log.wait(r"child 1 .*: STARTING -> KILLING on DEADLINE; it did not say HELLO in time")
        tap.ok(True, "WORKER_HELLO: a worker that never says HELLO is killed")
        pager.call("PATCH", "/config", {"hello-timeout": "2m"})
        session = creating.end()
        with vmm.Vmm(image, socket=session["socket_path"]) as guest:
            tap.is_(guest.cmd("verify")["wrong"], 0, "and another one serves")


def handshake_read(action):
    with pagerd.Pagerd(worker_fault=fault("HANDSHAKE_READ", action)) as pager:
        image = pager.image(size="4M", seed=3)
        session = pager.create(image.path, id="a")
        with vmm.Vmm(image, socket=session["socket_path"]) as guest:
            if action == "!kill":
                tap.is_(pager.wait("a", "serving")["state"], "serving",
                        "HANDSHAKE_READ!kill: another worker reads it")
                tap.is_(guest.cmd("verify")["wrong"], 0, "and serves")
            else:
                status, code, why = pager.error_of("GET", "/sessions/a?wait=serving")
                tap.is_((status, code), (409, "ended"), "HANDSHAKE_READ fails")
                tap.like(why, "reading the connection failed: Input/output error", "and says so")


def fill(point, nth, engine):
    with pagerd.Pagerd(worker_fault=fault(point, ":%d!kill" % nth)) as pager:
        image = pager.image(size="16M", seed=4 + nth, holes=100, zeros=50)
        guest = pager.restore(image, "a", engine=engine, vcpus=2)
        with guest:
            pid = pager.worker_pid()
            guest.cmd("start rand write")
            tap.ok(pagerd.wait_gone(pid), "%s:%d, %s: the worker dies" % (point, nth, engine))
            before = guest.cmd("status")["progress"]
            guest.wait_status(lambda s: s["progress"] > before)
            guest.cmd("discard rand count=100 seed=%d" % nth)
            tap.is_(guest.cmd("stop")["wrong"], 0, "the guest goes on, and reads nothing wrong")
            tap.is_(guest.cmd("verify")["wrong"], 0, "every page is right")
            # What the dead worker left as filling is settled by the kernel's word.
            pages = pager.complete("a")["pages"]
            tap.is_((pages["filling"], pages["absent"]), (0, 0), "and settled in the end")
            tap.is_(guest.cmd("verify")["wrong"], 0, "by the right page")


def completion(point, nth):
    with pagerd.Pagerd(worker_fault=fault(point, ":%d!kill" % nth)) as pager:
        image = pager.image(in_memory=True, size="32M", seed=5 + nth, holes=50)
        with pager.restore(image, "a", vcpus=2) as guest:
            pid = pager.worker_pid()
            # It is not to have touched everything before the completion has come so far.
            guest.cmd("start rand write period=5000 burst=2")
            status, code, why = pager.error_of("POST", "/sessions/a/complete")
            tap.is_((status, code), (500, "failed"), "%s:%d: the worker dies" % (point, nth))
            tap.like(why, "its worker died|the link to its worker is lost", "the caller is told")
            tap.ok(pagerd.wait_gone(pid), "it is gone")
            complete_at_last(pager)
            tap.is_(guest.cmd("stop")["wrong"], 0, "the guest reads nothing wrong")
            tap.is_(guest.cmd("verify")["wrong"], 0, "every page is right")
            tap.is_(guest.cmd("discard rand count=50")["calls"], 50, "and its own")


def image_read_once():
    """A cold page whose read fails once: the fault waits, the next try succeeds."""
    # The first pass is the look at the page cache, which is empty; the second is the read.
    with pagerd.Pagerd(worker_fault=fault("IMAGE_READ", ":2")) as pager:
        image = pager.image(size="4M", seed=6)
        with pager.restore(image, "a") as guest:
            drop_cache(image)
            if guest.cmd("touch seq count=1")["wrong"] or not pager.show("a")["alarms"]:
                tap.skip("an image read that fails once", "the page cache keeps the image")
                return
            session = pager.show("a")
            tap.is_((session["alarms"], session["counters"]["image_errors"]), (1, 1),
                    "IMAGE_READ: a read that fails once is an alarm")
            tap.ok(pager.log.find("<3>.*id=a: alarm: the image cannot be read; the fault waits"),
                   "in the log")
            tap.is_(guest.cmd("verify")["wrong"], 0, "and the page is right, not zeros")


def drop_cache(image):
    with open(image.path, "rb") as f:
        os.fsync(f.fileno())
        os.posix_fadvise(f.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def image_read_for_ever():
    """No read ever succeeds: the guest is held, never given zeros."""
    with pagerd.Pagerd(worker_fault=fault("IMAGE_READ", ":0")) as pager:
        image = pager.image(size="4M", seed=6)
        guest = pager.restore(image, "a")
        guest.send("touch seq count=1")
        pager.until(lambda: pager.show("a")["alarms"] >= 2)
        status = guest.wait_status(lambda s: s["blocked"] == 1)
        tap.is_((status["progress"], status["total_wrong"]), (0, 0),
                "no read succeeds: the guest waits")
        session = pager.show("a")
        tap.ok(session["counters"]["image_errors"] >= 2, "it is tried again", session["counters"])
        tap.like(session["reason"], "the image cannot be read; the fault waits and is tried again",
                 "anybody who asks is told")
        status, code, why = pager.error_of("POST", "/sessions/a/complete")
        tap.is_((status, code), (500, "failed"), "a completion fails")
        tap.like(why, "the image cannot be read at offset 0: Input/output error; the session is "
                 "serving", "and says where")
        tap.is_(pager.show("a")["state"], "serving", "the session is held")
        tap.is_(guest.cmd("status")["blocked"], 1, "and its guest, still")
        tap.is_(pager.close_session("a")["outcome"], "closed", "it can be closed")
        guest.kill()


def truncated_image(in_memory):
    """No fault point: the file is cut and made whole again under a running guest."""
    with pagerd.Pagerd() as pager:
        image = pager.image(in_memory=in_memory, size="8M", seed=7)
        where = "tmpfs" if in_memory else "disk"
        with open(image.path, "rb") as f:
            content = f.read()
        with pager.restore(image, "a") as guest:
            guest.cmd("touch seq count=10")
            with open(image.path, "r+b") as f:
                f.truncate(MIB)
                guest.send("touch seq")
                pager.until(lambda: pager.show("a")["alarms"] >= 1)
                tap.is_(guest.cmd("status")["blocked"], 1, "an image on %s is cut: its guest waits"
                        % where)
                status, code, why = pager.error_of("POST", "/sessions/a/complete")
                tap.is_((status, code), (500, "failed"), "a completion fails")
                tap.like(why, "the image cannot be read at offset", "and says why")
                f.write(content)
            answer = guest.answer()
            tap.is_((answer["wrong"], answer["touched"]), (0, 2048),
                    "whole again: it goes on, every page right")
            tap.is_(pager.complete("a")["state"], "graduated", "and graduates")
            tap.is_(guest.cmd("verify")["wrong"], 0, "right")


def every_point():
    with open(os.path.join(vmm.TOP, "common", "fault.def"), encoding="utf-8") as f:
        points = set(re.findall(r"^FAULT\((\w+)", f.read(), re.M))
    tap.ok(points <= tried | ELSEWHERE, "every fault point is tried", points - tried - ELSEWHERE)
    with pagerd.Pagerd(start=False, env={"PAGER_FAULT": "NO_SUCH_POINT"}) as pager:
        try:
            pager.start()
            tap.ok(False, "one that there is not is refused")
        except RuntimeError as error:
            tap.like(str(error), "PAGER_FAULT", "one that there is not is refused")


if __name__ == "__main__":
    tap.needs_root()
    part = functools.partial
    tap.run(spawn_fork, worker_hello,
            *[part(supervisor_link, n) for n in (1, 2, 3)],
            *[part(worker_link, n) for n in (1, 2, 6)],
            *[part(worker_link_in_handshake, n) for n in (3, 4, 5)],
            part(handshake_read, "!kill"), part(handshake_read, ":0!err"),
            *[part(fill, point, nth, engine) for nth, engine in zip((1, 3, 40), vmm.engines() * 2)
              for point in ("FILL_AFTER_READ", "FILL_AFTER_MARK", "FILL_AFTER_IOCTL")],
            part(completion, "POPULATE_CHUNK", 1), part(completion, "POPULATE_CHUNK", 20),
            part(completion, "COMPLETE_DETACH", 1),
            image_read_once, image_read_for_ever, part(truncated_image, True),
            part(truncated_image, False), every_point)
