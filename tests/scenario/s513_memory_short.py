#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
# builds: plain asan
"""Fills without memory: they are tried again, the worker lives, and others go on."""
import functools
import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
import pagerd  # noqa: E402
import tap  # noqa: E402

MIB = 1 << 20
CGROUPS = "/sys/fs/cgroup/memory"


def a_moment(nth):
    """One fill says ENOMEM: nobody notices."""
    with pagerd.Pagerd(worker_fault="FILL_MEMORY:%d" % nth) as pager:
        image = pager.image(in_memory=True, size="8M", seed=1, holes=200)
        with pager.restore(image, "a") as guest:
            guest.cmd("touch seq count=500")
            tap.is_(pager.complete("a")["state"], "graduated", "fill %d has no memory" % nth)
            tap.is_(guest.cmd("verify")["wrong"], 0, "every page is right")
            session = pager.show("a")
            # Nobody waits for a neighbour of the page that faulted, so that is not even counted.
            tap.ok(session["counters"]["copy_errors"] <= 1 and session["alarms"] == 0,
                   "it was put off, which is no alarm", session)


def for_ever():
    """None succeeds: the guest waits, a completion waits and can be given up, nothing dies."""
    with pagerd.Pagerd(worker_fault="FILL_MEMORY:0") as pager:
        image = pager.image(size="4M", seed=2)
        guest = pager.restore(image, "a", engine="threads")
        pid = pager.worker_pid()
        guest.send("touch seq count=1")
        pager.until(lambda: pager.show("a")["alarms"] >= 1)
        session = pager.show("a")
        tap.like(session["reason"], "a page cannot be filled; the fault waits: Cannot allocate",
                 "after a while it is an alarm")
        status, code, _ = pager.error_of("POST", "/sessions/a/complete?timeout=300ms")
        tap.is_((status, code), (504, "timeout"), "a completion waits, and can be given up")
        tap.is_(guest.wait_status(lambda s: s["blocked"] == 1)["total_wrong"], 0,
                "its guest waits")
        tap.is_(pager.worker_pid(), pid, "the worker lives")
        tap.is_(pager.close_session("a")["outcome"], "closed", "and lets go of it")
        guest.kill()


class Group:
    """A control group whose memory is limited and that kills nobody: fills say ENOMEM."""

    def __init__(self, limit):
        self.path = os.path.join(CGROUPS, "pagerd-test.%d" % os.getpid())
        try:
            os.mkdir(self.path)
            self.write("memory.limit_in_bytes", limit)
            self.write("memory.oom_control", 1)
        except OSError as error:
            if os.path.isdir(self.path):
                os.rmdir(self.path)
            raise tap.Skip("no memory control group of the first kind: %s" % error) from None

    def write(self, name, value):
        with open(os.path.join(self.path, name), "w", encoding="ascii") as f:
            f.write("%s\n" % value)

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        os.rmdir(self.path)


def control_group():
    """The VMM's group is full: its pages are charged to it, and the kernel has none."""
    with Group(64 * MIB) as group, pagerd.Pagerd() as pager:
        image = pager.image(in_memory=True, size="32M", seed=3)
        other = pager.restore(image, "b", engine="threads")
        with pager.restore(image, "a", engine="threads") as guest:
            pid = pager.worker_pid()
            group.write("cgroup.procs", guest.pid)
            group.write("memory.limit_in_bytes", 4 * MIB)
            guest.send("touch seq")
            pager.until(lambda: pager.show("a")["alarms"] >= 1)
            tap.like(pager.show("a")["reason"], "Cannot allocate memory",
                     "a group that is full is an alarm")
            tap.is_(other.cmd("verify")["wrong"], 0, "a guest outside it is served")
            tap.is_(pager.complete("b")["state"], "graduated", "and completed")
            group.write("memory.limit_in_bytes", 256 * MIB)
            answer = guest.answer()
            tap.is_((answer["wrong"], answer["touched"]), (0, 32 * MIB // 4096),
                    "with room it goes on, every page right")
            tap.is_(pager.worker_pid(), pid, "the worker lives")
        pagerd.wait_gone(guest.pid)
        other.kill()


if __name__ == "__main__":
    tap.needs_root()
    tap.run(*[functools.partial(a_moment, n) for n in (1, 20, 300)], for_ever, control_group)
