#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
# builds: plain asan
"""The graduation controller: who graduates when, what it counts, what stops it."""
import contextlib
import os
import re
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
import pagerd  # noqa: E402
import tap  # noqa: E402
import vmm  # noqa: E402

# At one byte a second a completion fills its first chunk and then stays under way.
NEVER_ENDING = "1"
OUTCOMES = ("graduated", "aborted", "failed", "gone")


def controlled(versions=None, **options):
    """A pagerd with the controller on, no age asked for, and no pressure looked at."""
    defaults = {"controller": "on", "controller_min_session_age": "0",
                "controller_scan_interval": "20ms", "controller_pressure": "0"}
    return pagerd.Pagerd(versions, **dict(defaults, **options))


def counts(pager):
    return pager.call("GET", "/stats")["controller"]


def change(pager, **options):
    """PATCH /config; returns which options are another now."""
    body = {name.replace("_", "-"): value for name, value in options.items()}
    return sorted(pager.call("PATCH", "/config", body)["changed"])


def until(pager, **wanted):
    """Until the controller's counts are these."""
    def is_so():
        now = counts(pager)
        return all(now[name] == value for name, value in wanted.items())
    try:
        pager.until(is_so)
    except TimeoutError:
        pass
    now = counts(pager)
    return tap.is_({name: now[name] for name in wanted}, wanted, "counted: %s" % wanted)


def adds_up(pager):
    now = counts(pager)
    return tap.is_(sum(now[name] for name in OUTCOMES) + now["in_flight"], now["attempts"],
                   "each attempt has one outcome")


def restore_all(pager, stack, image, names, **options):
    return {name: stack.enter_context(pager.restore(image, name, **options)) for name in names}


def all_right(guests):
    tap.is_([guest.cmd("verify")["wrong"] for guest in guests.values()], [0] * len(guests),
            "every guest has every page")


def attempts(pager):
    """(begins, session) of each line about an attempt that begins or ends one."""
    found = []
    for line in pager.log.text().splitlines():
        match = re.search(r"id=(\S+): controller: attempt \d+: (completing it|graduated|aborted|"
                          r"failed|over)", line)
        if match:
            found.append((match.group(2) == "completing it", match.group(1)))
    return found


def most_at_once(pager):
    now = most = 0
    for begins, _ in attempts(pager):
        now += 1 if begins else -1
        most = max(most, now)
    return most


def off_by_default():
    with pagerd.Pagerd(controller_min_session_age="0", controller_scan_interval="10ms") as pager:
        image = pager.image(in_memory=True, size="4M", seed=3)
        with pager.restore(image, "a"):
            for _ in range(20):
                pager.turn()
            now = counts(pager)
            tap.is_((now["enabled"], now["attempts"], pager.show("a")["state"]), (0, 0, "serving"),
                    "without being enabled it does nothing")
            tap.like(pager.ctl("status").stdout, r"(?m)^  controller  off$", "status says so")


def by_themselves():
    """max-concurrent of eight sessions, all of which graduate while their guests run."""
    names = ["s%d" % i for i in range(8)]
    with controlled(controller="off", controller_max_concurrent=3) as pager, \
            contextlib.ExitStack() as stack:
        image = pager.image(in_memory=True, size="16M", seed=4, holes=100, zeros=50)
        guests = restore_all(pager, stack, image, names)
        for guest in guests.values():
            guest.cmd("start rand write")
        tap.is_(change(pager, controller="on"), ["controller"], "switched on by PATCH")
        for name in names:
            pager.wait(name, "graduated")
        tap.ok(True, "all eight graduate by themselves")
        until(pager, attempts=8, graduated=8, in_flight=0, waiting=0)
        tap.is_([g.cmd("stop")["wrong"] for g in guests.values()], [0] * 8,
                "while their guests run and read nothing wrong")
        all_right(guests)
        tap.is_([name for begins, name in attempts(pager) if begins], names, "the oldest first")
        tap.ok(1 <= most_at_once(pager) <= 3, "never more than three at a time",
               attempts(pager))


def places():
    names = ["s%d" % i for i in range(8)]
    with controlled(controller_rate=NEVER_ENDING, controller="off",
                    controller_max_concurrent=3) as pager, contextlib.ExitStack() as stack:
        image = pager.image(in_memory=True, size="2M", seed=4)
        guests = restore_all(pager, stack, image, names)
        change(pager, controller="on")
        until(pager, in_flight=3, waiting=5, attempts=3)
        states = [pager.show(name)["state"] for name in names]
        tap.is_(states, ["completing"] * 3 + ["serving"] * 5, "three of eight are under way")
        tap.ok(pager.show("s0")["progress"]["pages_total"] == 512, "and show their progress")
        tap.like(pager.ctl("status").stdout, r"(?m)^  controller  on: 3 under way, 5 waiting; 0 "
                 r"graduated, 0 failed$", "status says so")
        tap.is_(pager.error_of("POST", "/sessions/s0/complete")[:2], (409, "busy"),
                "a client's completion of one of them is refused")
        change(pager, controller_max_concurrent=5)
        until(pager, in_flight=5, waiting=3, attempts=5)
        change(pager, controller_max_concurrent=1)
        until(pager, in_flight=5, waiting=3)
        pager.close_session("s0")
        guests.pop("s0")
        until(pager, in_flight=4, gone=1, waiting=3)
        guests.pop("s1").kill()
        pager.wait("s1", "closed")
        until(pager, in_flight=3, gone=2, waiting=3)
        adds_up(pager)
        change(pager, controller="off")
        until(pager, in_flight=0, aborted=3, enabled=0)
        tap.is_([pager.show(name)["state"] for name in guests], ["serving"] * 6,
                "switched off it stops what was under way, and all are served")
        tap.is_([g.cmd("touch rand count=200")["wrong"] for g in guests.values()], [0] * 6,
                "their guests notice nothing")
        change(pager, controller="on", controller_rate=0, controller_max_concurrent=2)
        for name in guests:
            pager.wait(name, "graduated")
        tap.ok(True, "switched on again, none of those backs off: all graduate")
        all_right(guests)
        adds_up(pager)


def outdated_first():
    """A session of the outdated version goes before one that has been served longer."""
    other, worker = pagerd.other_version()
    with controlled({pagerd.VERSION: pagerd.program("pager-worker"), other: worker},
                    controller="off", current=pagerd.VERSION) as pager:
        image = pager.image(in_memory=True, size="8M", seed=4)
        young = pager.create(image.path, id="young-outdated")
        old_worker = pager.worker_pid()
        pager.call("POST", "/upgrade", {"version": other})
        with pager.restore(image, "old-current") as current, \
                vmm.Vmm(image, socket=young["socket_path"]) as outdated:
            pager.wait("young-outdated", "serving")
            tap.is_([pager.show(i)["version"] for i in ("young-outdated", "old-current")],
                    [pagerd.VERSION, other], "one session of each version")
            change(pager, controller="on")
            for name in ("young-outdated", "old-current"):
                pager.wait(name, "graduated")
            tap.is_(attempts(pager), [(True, "young-outdated"), (False, "young-outdated"),
                                      (True, "old-current"), (False, "old-current")],
                    "the outdated one first, then the other")
            tap.ok(pagerd.wait_gone(old_worker), "the worker of the old version is gone")
            all_right({"a": current, "b": outdated})


def at_once():
    """A version that becomes outdated is looked at without waiting for the next scan."""
    other, worker = pagerd.other_version()
    for event in ("drain", "upgrade"):
        with controlled({pagerd.VERSION: pagerd.program("pager-worker"), other: worker},
                        controller_scan_interval="1h", current=pagerd.VERSION,
                        controller_max_concurrent=4) as pager, contextlib.ExitStack() as stack:
            image = pager.image(in_memory=True, size="4M", seed=4)
            guests = restore_all(pager, stack, image, ["a", "b"])
            pid = pager.worker_pid()
            tap.is_(counts(pager)["attempts"], 0, "%s: the next scan is an hour away" % event)
            version = pagerd.VERSION if event == "drain" else other
            pager.call("POST", "/" + event, {"version": version})
            for name in guests:
                pager.wait(name, "graduated")
            tap.ok(pagerd.wait_gone(pid), "its sessions graduate at once and it is gone")
            all_right(guests)


def old_enough():
    with controlled(controller_min_session_age="1h") as pager:
        image = pager.image(in_memory=True, size="4M", seed=4)
        with pager.restore(image, "a") as guest:
            for _ in range(20):
                pager.turn()
            until(pager, young=1, waiting=0, attempts=0)
            tap.is_(change(pager, controller_min_session_age="10ms"),
                    ["controller-min-session-age"], "another age, live")
            tap.is_(pager.wait("a", "graduated")["state"], "graduated", "is old enough")
            until(pager, young=0, graduated=1)
            tap.is_(guest.cmd("verify")["wrong"], 0, "and right")


def rate():
    """Two at a time share 4 MiB a second: 2 MiB each take a second at least."""
    with controlled(controller="off", controller_rate="4M", controller_max_concurrent=2) as pager, \
            contextlib.ExitStack() as stack:
        image = pager.image(in_memory=True, size="2M", seed=4)
        guests = restore_all(pager, stack, image, ["a", "b"])
        change(pager, controller="on")
        for name in guests:
            pager.wait(name, "graduated")
            line = pager.log.wait(r"id=%s: controller: attempt \d+: graduated, took_ms=\d+" % name)
            took = int(re.search(r"took_ms=(\d+)", line).group(1))
            tap.ok(took >= 990, "%s keeps to its share of the rate" % name, line)
        all_right(guests)


def too_slow():
    with controlled(controller_rate=NEVER_ENDING, controller_completion_timeout="100ms",
                    controller_failure_backoff="1h") as pager:
        image = pager.image(in_memory=True, size="2M", seed=4)
        with pager.restore(image, "a") as guest:
            pager.log.wait(r"id=a: controller: attempt 1: not complete within timeout_ms=100; abort")
            pager.log.wait(r"id=a: controller: attempt 1: aborted, took_ms=\d+: it took too long; "
                           r"still served, left alone for backoff_ms=3600000")
            until(pager, attempts=1, aborted=1, in_flight=0, backing_off=1)
            tap.is_(pager.show("a")["state"], "serving", "out of time: still served")
            tap.is_(guest.cmd("verify")["wrong"], 0, "and right")
            change(pager, controller_rate="0", controller_failure_backoff="100ms")
            tap.is_(pager.wait("a", "graduated")["state"], "graduated",
                    "with another rate and back-off it graduates")
            adds_up(pager)


def fails_then_heals():
    """The end of an image is missing for a while."""
    with controlled(controller="off", controller_failure_backoff="1h") as pager, \
            contextlib.ExitStack() as stack:
        image = pager.image("cut", in_memory=True, size="2M", seed=4)
        whole = pager.image("whole", in_memory=True, size="2M", seed=9)
        guests = restore_all(pager, stack, image, ["a"])
        guests.update(restore_all(pager, stack, whole, ["b"]))
        with open(image.path, "r+b") as f:
            f.seek(1 << 20)
            rest = f.read()
            f.truncate(1 << 20)
        change(pager, controller="on")
        pager.log.wait(r"id=a: controller: attempt \d+: failed, took_ms=\d+: the image cannot be "
                       r"read at offset \d+: .*; still served, left alone for "
                       r"backoff_ms=3600000")
        pager.wait("b", "graduated")
        tap.ok(True, "one that fails does not keep the others waiting")
        until(pager, attempts=2, failed=1, graduated=1, backing_off=1, waiting=0)
        for _ in range(20):
            pager.turn()
        until(pager, attempts=2, backing_off=1)
        tap.is_(pager.show("a")["state"], "serving", "the failed one is served and left alone")
        with open(image.path, "r+b") as f:
            f.seek(1 << 20)
            f.write(rest)
        change(pager, controller_failure_backoff="100ms")
        tap.is_(pager.wait("a", "graduated")["state"], "graduated", "healed, it graduates")
        until(pager, failed=1, graduated=2, backing_off=0, in_flight=0)
        adds_up(pager)
        all_right(guests)


def always_failing():
    """Whoever fails again and again is tried again, and counted each time."""
    with controlled(worker_fault="IMAGE_READ:0", controller_failure_backoff="100ms") as pager:
        image = pager.image(size="1M", seed=4)
        with pager.restore(image, "a"):
            pager.log.wait(r"id=a: controller: attempt 3: failed")
            pager.turn()
            now = counts(pager)
            tap.ok(now["failed"] >= 3 and now["graduated"] == 0, "tried three times", now)
            tap.is_(most_at_once(pager), 1, "one after the other")
            change(pager, controller="off")
            adds_up(pager)


def worker_dies():
    with controlled(controller_rate=NEVER_ENDING) as pager:
        image = pager.image(in_memory=True, size="2M", seed=4)
        with pager.restore(image, "a"):
            until(pager, in_flight=1)
            os.kill(pager.worker_pid(), 9)
            pager.log.wait(r"id=a: controller: attempt 1: failed, took_ms=\d+: ")
            until(pager, in_flight=0, failed=1)
            adds_up(pager)


class Pressure:
    """A file in the form of /proc/pressure/memory."""

    def __init__(self):
        self.path = os.path.join(vmm.BUILD, "pressure.%d" % os.getpid())

    def write(self, text):
        with open(self.path + ".new", "w", encoding="ascii") as f:
            f.write(text)
        os.rename(self.path + ".new", self.path)

    def set(self, percent):
        self.write("some avg10=%.2f avg60=0.00 avg300=0.00 total=1\n"
                   "full avg10=0.00 avg60=0.00 avg300=0.00 total=0\n" % percent)

    def __enter__(self):
        self.set(0)
        return self

    def __exit__(self, *exc):
        os.unlink(self.path)


def pressure():
    with Pressure() as file:
        file.set(10.01)
        with controlled(controller_pressure=10, controller_pressure_file=file.path) as pager, \
                contextlib.ExitStack() as stack:
            image = pager.image(in_memory=True, size="2M", seed=4)
            guests = restore_all(pager, stack, image, ["a"])
            pager.log.wait(r"controller: memory pressure some avg10=10.01 threshold=10; paused")
            for _ in range(20):
                pager.turn()
            until(pager, paused=1, waiting=1, attempts=0)
            tap.like(pager.ctl("status").stdout, "on, paused by memory pressure: 0 under way, 1 w",
                     "status says so")
            file.set(10)
            tap.is_(pager.wait("a", "graduated")["state"], "graduated", "no more than the threshold")
            pager.log.wait(r"controller: memory pressure some avg10=10.00 threshold=10; goes on")
            file.set(99.99)
            pager.log.wait(r"some avg10=99.99 threshold=10; paused")
            guests.update(restore_all(pager, stack, image, ["b"]))
            until(pager, paused=1, waiting=1, attempts=1)
            change(pager, controller_pressure=0)
            tap.is_(pager.wait("b", "graduated")["state"], "graduated", "0: it is ignored")
            until(pager, paused=0)
            said = [x for x in pager.log.text().splitlines() if "memory pressure some" in x]
            tap.is_(len(said), 3, "each change was said once")
            all_right(guests)


def no_pressure_to_read():
    for what, text in (("is not there", None), ("holds garbage", "some avg10=much\n")):
        with Pressure() as file, controlled(
                controller="off", controller_pressure=10,
                controller_pressure_file=file.path) as pager:
            if text:
                file.write(text)
            else:
                os.rename(file.path, file.path + ".away")
            image = pager.image(in_memory=True, size="2M", seed=4)
            with pager.restore(image, "a"):
                change(pager, controller="on")
                tap.is_(pager.wait("a", "graduated")["state"], "graduated",
                        "a pressure file that %s stops nothing" % what)
                pager.log.wait(r"controller: memory pressure: .*; never pausing for it")
                for _ in range(20):
                    pager.turn()
                said = [x for x in pager.log.text().splitlines() if "never pausing" in x]
                tap.is_(len(said), 1, "and is said once")
            if not text:
                os.rename(file.path + ".away", file.path)


if __name__ == "__main__":
    tap.needs_root()
    tap.run(off_by_default, by_themselves, places, outdated_first, at_once, old_enough, rate,
            too_slow, fails_then_heals, always_failing, worker_dies, pressure, no_pressure_to_read)
