#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
# builds: plain asan tsan
"""Graduation: while the guest runs, against other requests, and what comes after."""
import functools
import json
import os
import signal
import socket
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
import pagerd  # noqa: E402
import tap  # noqa: E402
import vmm  # noqa: E402

MIB = 1 << 20
# A completion that is stopped in its second chunk, with the whole worker, until SIGCONT.
PAUSE = "POPULATE_CHUNK:2!pause"


def registered(pid):
    """Mappings of a process that are registered with a userfaultfd."""
    with open("/proc/%d/smaps" % pid, encoding="utf-8") as f:
        return sum("um" in line.split() for line in f if line.startswith("VmFlags:"))


def while_running(engine):
    with pagerd.Pagerd() as pager:
        image = pager.image(in_memory=True, size="128M", seed=7, holes=100, zeros=100)
        pager.create(image.path, id="idle")
        before, worker = pager.fds(), pager.worker_pid()
        worker_before = pager.worker_fds(worker)
        with pager.restore(image, "a", engine=engine, vcpus=2, regions=2) as guest:
            tap.ok(registered(guest.pid) >= 2, "%s: memory is registered" % engine)
            guest.cmd("discard 100 50")
            guest.cmd("start rand write")
            completing = pagerd.Pending(pager.complete, "a")
            calls = 0
            while completing.is_alive():
                calls += guest.cmd("discard rand count=20 seed=%d" % calls)["calls"]
            done = completing.end()
            tap.is_((done["state"], done["outcome"], done["reason"]),
                    ("graduated", "graduated", None), "complete says that it graduated")
            tap.is_((done["pages"]["absent"], done["pages"]["filling"]), (0, 0), "nothing is absent")
            stopped = guest.cmd("stop")
            tap.ok(stopped["wrong"] == 0 and stopped["loops"] > 0 and calls > 0,
                   "the guest wrote, read and discarded all along", stopped)
            tap.is_(registered(guest.pid), 0, "nothing is registered any more")
            after(pager, guest)
            pager.ok_fds(pager.process.pid, before, "the supervisor holds no descriptor of it")
            pager.ok_fds(worker, worker_before, "nor does the worker")
            pager_is_gone(pager, guest, worker)


def after(pager, guest):
    tap.is_(guest.cmd("verify")["wrong"], 0, "every page is right")
    tap.is_(pager.complete("a")["state"], "graduated", "complete again: it has graduated")
    tap.is_(pager.wait("a", "graduated")["state"], "graduated", "wait=graduated says so as well")
    tap.is_(pager.close_session("a")["outcome"], "graduated", "and close changes nothing")
    tap.is_(pager.error_of("GET", "/sessions/a?wait=serving")[::2],
            (409, "session a has ended: graduated"), "it will not be serving any more")
    tap.is_(pager.versions()[pagerd.VERSION]["sessions"], 1, "the worker has the other one only")


def pager_is_gone(pager, guest, worker):
    pager.stop(signal.SIGKILL)
    os.kill(worker, signal.SIGKILL)
    tap.ok(pagerd.wait_gone(worker), "with no pager at all")
    guest.cmd("write rand count=500")
    tap.is_(guest.cmd("discard rand count=500 seed=77")["calls"], 500,
            "the guest discards without waiting for anybody")
    tap.is_(guest.cmd("verify")["wrong"], 0, "and all its memory is right")
    guest.cmd("start rand write")
    guest.cmd("discard rand count=200 seed=78")
    tap.is_(guest.cmd("stop")["wrong"], 0, "for as long as it runs")


def nothing_to_do():
    with pagerd.Pagerd() as pager:
        image = pager.image(in_memory=True, size="16M", seed=2)
        with pager.restore(image, "a") as guest:
            guest.cmd("verify")
            read = pager.show("a")["counters"]["image_bytes_read"]
            tap.is_(read, 16 * MIB, "a guest that has touched everything")
            done = pager.complete("a")
            tap.is_((done["state"], done["counters"]["image_bytes_read"]), ("graduated", read),
                    "graduates without a byte of the image being read")
            tap.is_(guest.cmd("verify")["wrong"], 0, "and is right")


def wrong_states():
    with pagerd.Pagerd() as pager:
        image = pager.image(in_memory=True, size="1M", seed=2)
        tap.is_(pager.error_of("POST", "/sessions/x/complete"),
                (404, "not-found", "there is no session x; the list of sessions has those that "
                 "there are"), "an unknown session")
        pager.create(image.path, id="a")
        status, code, why = pager.error_of("POST", "/sessions/a/complete")
        tap.is_((status, code), (409, "state"), "one that waits for its VMM")
        tap.like(why, "waits for its VMM; wait until it is serving", "with the remedy")
        pager.close_session("a")
        status, code, why = pager.error_of("POST", "/sessions/a/complete")
        tap.is_((status, code), (409, "state"), "one that was closed")
        tap.like(why, "has ended: closed by request", "and why")
        for bad in ("timeout=never", "timeout=", "rate=1"):
            tap.is_(pager.error_of("POST", "/sessions/a/complete?" + bad)[:2],
                    (400, "bad-request"), "?%s is refused" % bad)
        tap.is_(pager.error_of("POST", "/sessions/a/complete", {"timeout": 1})[:2],
                (400, "bad-request"), "so is a member of the body")


class Paused:
    """A completion that stands still in the middle of a chunk."""

    def __init__(self, pager, size="256M", begin=True):
        self.pager = pager
        self.image = pager.image(in_memory=True, size=size, seed=5, holes=50)
        self.guest = pager.restore(self.image, "a")
        self.worker = pager.worker_pid()
        self.call = pagerd.Pending(pager.error_of, "POST", "/sessions/a/complete") if begin else None
        if begin:
            self.wait()

    def wait(self):
        self.pager.until(lambda: pagerd.is_stopped(self.worker), "the worker never paused")

    def go_on(self):
        os.kill(self.worker, signal.SIGCONT)


def concurrent():
    with pagerd.Pagerd(worker_fault=PAUSE) as pager:
        paused = Paused(pager)
        with paused.guest as guest:
            now = pager.show("a")
            tap.is_(now["state"], "completing", "a completion under way")
            progress = now["progress"]
            tap.ok(0 < progress["pages_done"] < progress["pages_total"] == 65536,
                   "shows how far it is", progress)
            tap.is_(pager.error_of("POST", "/sessions/a/complete")[:2], (409, "busy"),
                    "a second one is refused")
            tap.is_(pager.wait("a", "serving")["state"], "completing",
                    "who waits for serving has it")
            waiter = pagerd.Pending(pager.wait, "a", "graduated")
            paused.go_on()
            tap.is_(paused.call.end()[0], 200, "the first one is not disturbed")
            tap.is_(waiter.end()["state"], "graduated", "nor who waits for it")
            tap.ok("progress" not in pager.show("a"), "then there is no progress to show")
            tap.is_(guest.cmd("verify")["wrong"], 0, "every page is right")


def hang_up():
    with pagerd.Pagerd(worker_fault=PAUSE) as pager:
        paused = Paused(pager, begin=False)
        with paused.guest as guest:
            connection = pager.raw()
            connection.sendall(b"POST /sessions/a/complete HTTP/1.1\r\nHost: x\r\n\r\n")
            paused.wait()
            connection.close()
            for _ in range(3):
                pager.turn()
            tap.is_(pager.show("a")["state"], "completing", "its caller has hung up")
            paused.go_on()
            pager.log.wait("id=a: COMPLETING -> SERVING on STAYED")
            tap.is_(pager.show("a")["state"], "serving", "that aborts it")
            pages = pager.show("a")["pages"]
            tap.ok(0 < pages["present"] < pages["total"], "what was filled stays", pages)
            tap.is_(guest.cmd("touch rand count=5000")["wrong"], 0, "the guest is served")
            tap.is_(pager.complete("a")["state"], "graduated", "and can be completed again")
            tap.is_(guest.cmd("verify")["wrong"], 0, "every page is right")


def half_close():
    with pagerd.Pagerd() as pager:
        image = pager.image(in_memory=True, size="64M", seed=5)
        with pager.restore(image, "a") as guest, pager.raw() as connection:
            connection.sendall(b"POST /sessions/a/complete HTTP/1.1\r\nHost: x\r\n\r\n")
            connection.shutdown(socket.SHUT_WR)
            answer = b"".join(iter(lambda: connection.recv(65536), b""))
            tap.ok(answer.startswith(b"HTTP/1.1 200 "), "who only stopped sending is answered",
                   answer)
            body = json.loads(answer.partition(b"\r\n\r\n")[2])
            tap.is_(body["state"], "graduated", "after the graduation")
            tap.is_(guest.cmd("verify")["wrong"], 0, "every page is right")


def timeouts():
    with pagerd.Pagerd() as pager:
        image = pager.image(in_memory=True, size="256M", seed=5)
        with pager.restore(image, "a") as guest:
            status, code, why = pager.error_of("POST", "/sessions/a/complete?timeout=1ms")
            tap.is_((status, code, why), (504, "timeout", "session a was not complete in time; it "
                                          "is still served"), "out of time")
            tap.is_(pager.show("a")["state"], "serving", "which is true")
            tap.is_(guest.cmd("touch rand count=5000")["wrong"], 0, "the guest is served")
            tap.is_(pager.complete("a", timeout="1m")["state"], "graduated", "in time")
            tap.is_(guest.cmd("verify")["wrong"], 0, "every page is right")


def close_meanwhile():
    with pagerd.Pagerd(worker_fault=PAUSE) as pager:
        paused = Paused(pager)
        with paused.guest:
            closing = pagerd.Pending(pager.close_session, "a")
            pager.log.wait("id=a: COMPLETING -> CLOSING on CLOSE")
            tap.is_(pager.error_of("POST", "/sessions", {"image": paused.image.path, "id": "a"})[:2],
                    (409, "exists"), "its id is not free before the worker has let go")
            paused.go_on()
            tap.is_(closing.end()["outcome"], "closed", "a close ends a completion")
            status, code, why = paused.call.end()
            tap.is_((status, code), (409, "ended"), "whose caller is told")
            tap.like(why, "session a has ended: closed: closed by request", "why")
        still_fine(pager)


def vmm_killed_meanwhile():
    with pagerd.Pagerd(worker_fault=PAUSE) as pager:
        pager.create(pager.image(in_memory=True, size="64K").path, id="idle")
        before = pager.fds()
        paused = Paused(pager)
        with paused.guest as guest:
            guest.kill()
            pager.log.wait("id=a: COMPLETING -> CLOSING on VMM_EXITED")
            paused.go_on()
            status, code, why = paused.call.end()
            tap.is_((status, code), (409, "ended"), "the VMM is killed: the caller is told")
            tap.like(why, "session a has ended: vmm-exited: the VMM pid=%d exited" % guest.pid,
                     "why")
            tap.is_(pager.wait("a", "closed")["outcome"], "vmm-exited", "so is who asks later")
        pager.ok_fds(pager.process.pid, before, "no descriptor of it is left")
        still_fine(pager)


def still_fine(pager):
    image = pager.image("next", seed=8, size="16M")
    with pager.restore(image, "next") as guest:
        guest.cmd("touch rand count=100")
        tap.is_(pager.complete("next")["state"], "graduated", "the next session is as ever")
        tap.is_(guest.cmd("verify")["wrong"], 0, "and right")


def many_at_once():
    with pagerd.Pagerd() as pager:
        image = pager.image(in_memory=True, size="64M", seed=6, holes=300)
        guests = [pager.restore(image, "g%d" % i, vcpus=1 + i % 2) for i in range(4)]
        for guest in guests:
            guest.cmd("start rand write")
        calls = [pagerd.Pending(pager.complete, "g%d" % i) for i in range(4)]
        tap.is_([c.end()["state"] for c in calls], ["graduated"] * 4, "four sessions at once")
        tap.is_([g.cmd("stop")["wrong"] for g in guests], [0] * 4, "their guests read nothing wrong")
        tap.is_([g.cmd("verify")["wrong"] for g in guests], [0] * 4, "and have every page")
        for guest in guests:
            guest.kill()


if __name__ == "__main__":
    tap.needs_root()
    tap.run(*[functools.partial(while_running, engine) for engine in vmm.engines()],
            nothing_to_do, wrong_states, concurrent, hang_up, half_close, timeouts,
            close_meanwhile, vmm_killed_meanwhile, many_at_once)
