#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
# builds: plain asan tsan
"""Removals at chosen instants of whatever fills: between a copy's choice of a page and its
ioctl, with the fault of the same page, of several guests at once, of pages in every state.
Threads are held where it matters; nothing here depends on luck."""
import functools
import os
import signal
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
import pagerd  # noqa: E402
import tap  # noqa: E402
import vmm  # noqa: E402
from holds import first_word, is_held, let_go  # noqa: E402


def discards(guest, command):
    """Sends it and waits until its removal is queued: its thread sleeps until it is read."""
    guest.send(command)
    guest.wait_status(lambda s: s["discarding"])
    tasks = "/proc/%d/task" % guest.pid
    while not any(first_word("%s/%s/wchan" % (tasks, tid)) == "userfaultfd_event_wait_completion"
                  for tid in os.listdir(tasks)):
        guest.wait_status(lambda s: True)


def completing_at(pager, point):
    """A session whose completion is about to fill everything, held at the point."""
    image = pager.image(size="8M", seed=31)
    guest = pager.restore(image, "a")
    pid = pager.worker_pid()
    call = pagerd.Pending(pager.complete, "a")
    pager.until(lambda: is_held(pid), "nobody comes to %s" % point)
    return guest, pid, call


def between_choice_and_copy():
    """The chunk was chosen, its pages are removed and the removal is over, then it is copied."""
    with pagerd.Pagerd(worker_fault="POPULATE_CHOSEN:1!hold") as pager:
        guest, pid, call = completing_at(pager, "POPULATE_CHOSEN")
        with guest:
            done = guest.cmd("discard 0 40")
            tap.is_(done["calls"], 1, "madvise returns while a copy is under way")
            pager.until(lambda: pager.show("a")["pages"]["removed"] == 40)
            tap.ok(is_held(pid), "and before it is made")
            let_go(pid)
            tap.is_(call.end()["state"], "graduated", "the completion goes on")
            tap.is_(guest.cmd("verify")["wrong"], 0, "the copy passes over what was removed")


def between_mark_and_ioctl():
    """The pages are marked, the removal has begun and nobody has read it."""
    with pagerd.Pagerd(worker_fault="FILL_AFTER_MARK:1!hold") as pager:
        guest, pid, call = completing_at(pager, "FILL_AFTER_MARK")
        with guest:
            discards(guest, "discard 3 2")
            tap.ok(pager.show("a")["pages"]["removed"] == 0, "the removal waits for the copy")
            let_go(pid)
            tap.is_(guest.answer()["calls"], 1, "for one chunk, not for the completion")
            tap.is_(call.end()["state"], "graduated", "the kernel refuses that copy; it is made again")
            tap.is_(guest.cmd("verify")["wrong"], 0, "what was removed is zeros")


def between_mark_and_ioctl_killed():
    with pagerd.Pagerd(worker_fault="FILL_AFTER_MARK:1!hold;") as pager:
        guest, pid, call = completing_at(pager, "FILL_AFTER_MARK")
        with guest:
            discards(guest, "discard 3 2")
            os.kill(pid, signal.SIGKILL)
            tap.is_(guest.answer()["calls"], 1, "killed there: another reads the removal")
            try:
                call.end()
            except pagerd.ApiError as error:
                tap.is_(error.status, 500, "the completion failed")
            tap.is_(pager.wait("a", "serving")["pages"]["removed"], 2, "which is known")
            tap.is_(pager.complete("a")["state"], "graduated", "it graduates")
            tap.is_(guest.cmd("verify")["wrong"], 0, "right")


def between_ioctl_and_mark():
    """The pages are there and not marked: the removal is read after that, whatever comes."""
    with pagerd.Pagerd(worker_fault="FILL_AFTER_IOCTL:1!hold") as pager:
        guest, pid, call = completing_at(pager, "FILL_AFTER_IOCTL")
        with guest:
            discards(guest, "discard 3 2")
            let_go(pid)
            guest.answer()
            tap.is_(call.end()["state"], "graduated", "removed between a copy and its mark")
            tap.is_(guest.cmd("verify")["wrong"], 0, "right")


def before_the_last_check():
    """Everything is filled; the removal comes with the copy lock held, before unregistering."""
    with pagerd.Pagerd(worker_fault="COMPLETE_DETACH:1!hold") as pager:
        guest, pid, call = completing_at(pager, "COMPLETE_DETACH")
        with guest:
            discards(guest, "discard 0 50")
            let_go(pid)
            tap.is_(guest.answer()["calls"], 1, "a removal as the range is unregistered")
            tap.is_(call.end()["state"], "graduated", "is read all the same")
            tap.is_(guest.cmd("verify")["wrong"], 0, "right")


def one_batch(engine):
    """A page is faulted, then removed, and the worker reads both at once."""
    with pagerd.Pagerd() as pager:
        image = pager.image(size="4K", seed=32)
        with pager.restore(image, "a", engine=engine) as guest:
            pid = pager.worker_pid()
            os.kill(pid, signal.SIGSTOP)
            guest.cmd("start seq")
            discards(guest, "discard 0 1")
            os.kill(pid, signal.SIGCONT)
            guest.answer()
            guest.cmd("pulse")
            tap.is_(guest.cmd("stop")["wrong"], 0, "%s: a fault and a removal in one batch" % engine)
            tap.is_(pager.show("a")["counters"]["image_bytes_read"], 0,
                    "the removal counts first: the image was not read")
            tap.is_(guest.cmd("verify")["wrong"], 0, "zeros")


def two_guests(fault):
    """Removals of both are queued before either is read; and the worker may die of the first."""
    with pagerd.Pagerd(worker_fault=fault) as pager:
        image = pager.image(size="4M", seed=33)
        with pager.restore(image, "a") as a, pager.restore(image, "b") as b:
            for guest in (a, b):
                guest.cmd("touch seq count=300")
            pid = pager.worker_pid()
            os.kill(pid, signal.SIGSTOP)
            discards(a, "discard 200 300")
            discards(b, "discard 100 150")
            os.kill(pid, signal.SIGCONT)
            what = "two guests' removals, " + (fault or "read by one worker")
            tap.is_([g.answer()["calls"] for g in (b, a)], [1, 1], what)
            for name, guest, count in (("a", a, 300), ("b", b, 150)):
                pager.wait(name, "serving")
                pager.until(lambda n=name, c=count: pager.show(n)["pages"]["removed"] == c,
                            "removed pages of " + name)
                tap.is_(guest.cmd("verify")["wrong"], 0, "%s has its own and no other" % name)


def every_state():
    """One removal over pages that are absent, left as filling by a dead worker, present and
    removed before; then the same again."""
    with pagerd.Pagerd(worker_fault="FILL_AFTER_MARK:1!kill;") as pager:
        image = pager.image(size="4M", seed=34)
        members = {"cluster_min_bytes": 4096, "cluster_max_bytes": 4096}
        with pager.restore(image, "a", members=members) as guest:
            pid = pager.worker_pid()
            guest.cmd("discard 600 10")
            guest.send("touch seq count=1")  # page 0: its fill is cut short
            tap.ok(pagerd.wait_gone(pid), "a worker died in a fill")
            guest.answer()
            guest.cmd("touch seq count=20")
            for _ in range(2):
                guest.cmd("discard 0 1024")
                pager.until(lambda: pager.show("a")["pages"]["removed"] == 1024, "all of it")
            tap.is_(guest.cmd("verify")["wrong"], 0, "removed from every state, and again")
            # The last fill is noted right after the guest may go on.
            pager.until(lambda: pager.show("a")["pages"]["present"] == 1024,
                        "not all of it is back as zeros")


if __name__ == "__main__":
    tap.needs_root()
    part = functools.partial
    tap.run(between_choice_and_copy, between_mark_and_ioctl, between_mark_and_ioctl_killed,
            between_ioctl_and_mark, before_the_last_check,
            *[part(one_batch, engine) for engine in vmm.engines()],
            part(two_guests, None), part(two_guests, "EVENTS_AFTER_READ:1!kill;"), every_state)
