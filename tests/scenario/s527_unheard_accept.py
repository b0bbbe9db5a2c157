#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
# builds: plain asan
"""A worker that serves a new VMM and dies before it has said so: the next one is given the same
handshake, and must not take the memory for new."""
import functools
import os
import signal
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
import pagerd  # noqa: E402
import pages  # noqa: E402
import tap  # noqa: E402
import vmm  # noqa: E402

SYS_RT_SIGTIMEDWAIT = b"128"


def nr_held(pid):
    """Threads that wait at a fault point with !hold."""
    n = 0
    for tid in os.listdir("/proc/%d/task" % pid):
        with open("/proc/%d/task/%s/syscall" % (pid, tid), "rb") as f:
            n += f.read().split(b" ", 1)[0].strip() == SYS_RT_SIGTIMEDWAIT
    return n


def begun(pager, image, **options):
    """A guest whose worker serves it and is about to say so."""
    session = pager.create(image.path, id="a")
    pid = pager.worker_pid()
    guest = vmm.Vmm(image, socket=session["socket_path"], **options)
    pager.until(lambda: nr_held(pid) > 0, "it is not accepted")
    tap.is_(pager.show("a")["state"], "created", "a VMM is served and nobody knows")
    return guest, pid


def killed(pager, pid):
    os.kill(pid, signal.SIGKILL)
    tap.is_(pager.wait("a", "serving")["state"], "serving", "its worker dies: another serves")


def with_a_fault_read(engine):
    """The kernel tells a fault once."""
    with pagerd.Pagerd(worker_fault="ACCEPT_TELL!hold,FILL_AFTER_READ!hold;") as pager:
        image = pager.image(size="4M", seed=71)
        guest, pid = begun(pager, image, engine=engine)
        with guest:
            guest.send("touch seq count=1")
            pager.until(lambda: nr_held(pid) == 2, "its fault is not read")
            killed(pager, pid)
            tap.is_(guest.answer()["wrong"], 0,
                    "%s: who waited for an answer of the dead one is woken" % engine)
            tap.is_(guest.cmd("verify")["wrong"], 0, "right")


def with_a_removal_read(engine):
    """And a removal, too."""
    with pagerd.Pagerd(worker_fault="ACCEPT_TELL!hold,EVENTS_AFTER_READ!hold;") as pager:
        image = pager.image(size="4M", seed=72)
        guest, pid = begun(pager, image, engine=engine)
        with guest:
            guest.cmd("discard 100 50")
            pager.until(lambda: nr_held(pid) == 2, "it is not read")
            tap.ok(True, "a removal is read and not applied")
            killed(pager, pid)
            tap.is_(pager.show("a")["pages"]["removed"], 50, "the next one has heard of it")
            tap.is_(guest.cmd("verify")["wrong"], 0, "%s: the image's bytes stay dead" % engine)


def with_writes_tracked(engine):
    """A page that is protected stays so, or is dirty."""
    with pagerd.Pagerd(worker_fault="ACCEPT_TELL!hold;") as pager:
        image = pager.image(size="4M", seed=73)
        guest, pid = begun(pager, image, engine=engine, track=1)
        with guest:
            guest.cmd("touch seq count=64")
            killed(pager, pid)
            guest.cmd("write seq count=64")
            picture = pages.ask(pager, "a")
            tap.is_(sorted(set(range(64)) - picture.of("dirty")), [],
                    "%s: no write is missed" % engine)
            snapshot = pages.Snapshot(image)
            snapshot.apply(picture, guest)
            tap.is_(snapshot.differs(guest), [], "a snapshot is the guest's memory")


if __name__ == "__main__":
    tap.needs_root()
    tap.run(*[functools.partial(case, engine) for engine in vmm.engines() for case in (
        with_a_fault_read, with_a_removal_read, with_writes_tracked)])
