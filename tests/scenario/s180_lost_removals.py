#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
# builds: plain asan tsan
"""Workers that die when they have read a removal and not applied it: the kernel tells it
once, and the image's bytes must not come back."""
import functools
import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
import pagerd  # noqa: E402
import tap  # noqa: E402
import vmm  # noqa: E402


def restored(pager, image, engine):
    guest = pager.restore(image, "a", engine=engine, vcpus=2, regions=2)
    return guest, pager.worker_pid()


def adopted(pager, dead):
    tap.ok(pagerd.wait_gone(dead), "the worker died")
    pager.until(lambda: pager.worker_pid() not in (dead, None))
    tap.is_(pager.wait("a", "serving")["state"], "serving", "and the session is adopted")


def never_touched(engine):
    with pagerd.Pagerd(worker_fault="EVENTS_AFTER_READ:1!kill;") as pager:
        image = pager.image(size="8M", seed=11)
        guest, worker = restored(pager, image, engine)
        with guest:
            guest.cmd("discard 300 500")
            adopted(pager, worker)
            tap.is_(guest.cmd("verify")["wrong"], 0, "%s: pages that were never touched" % engine)


def cut_short(point, events, engine):
    """Pages that a dead worker left as filling; written and discarded under the next one,
    which dies with that removal, the last of its events."""
    fault = "%s:1!kill;EVENTS_AFTER_READ:%d!kill;;" % (point, events)
    with pagerd.Pagerd(worker_fault=fault) as pager:
        image = pager.image(size="8M", seed=12)
        guest, worker = restored(pager, image, engine)
        with guest:
            guest.send("touch seq count=1 vcpu=0")
            adopted(pager, worker)
            guest.answer()
            worker = pager.worker_pid()
            guest.cmd("discard 0 1")
            adopted(pager, worker)
            tap.is_(guest.cmd("verify")["wrong"], 0, "%s: the page of a fill cut short: %s" % (
                engine, point))


def who_recovers_dies_too(engine):
    """The removal is in the page map's keeping until it has been applied."""
    with pagerd.Pagerd(worker_fault="EVENTS_AFTER_READ:1!kill;RECOVER_REMOVAL!kill;") as pager:
        image = pager.image(size="8M", seed=14)
        guest, worker = restored(pager, image, engine)
        with guest:
            guest.cmd("discard 40 70")
            pager.until(lambda: len([x for x in pager.log.lines if "killed by SIGKILL" in x]) == 2)
            tap.ok(pagerd.wait_gone(worker), "the worker dies, and the one after it")
            tap.is_(pager.wait("a", "serving")["state"], "serving", "a third serves")
            tap.is_(guest.cmd("verify")["wrong"], 0, "%s: and has heard of the removal" % engine)


def many(engine):
    """More removals than one read gives, from a guest that runs."""
    with pagerd.Pagerd(worker_fault="EVENTS_AFTER_READ:40!kill;EVENTS_AFTER_READ:25!kill;;") as pager:
        image = pager.image(size="8M", seed=13, holes=100)
        guest, _ = restored(pager, image, engine)
        with guest:
            guest.cmd("start rand write")
            for i in range(6):
                guest.cmd("discard rand count=60 seed=%d" % i)
            guest.cmd("pulse")
            pager.wait("a", "serving")
            tap.is_(guest.cmd("stop")["wrong"], 0, "%s: while it runs" % engine)
            tap.is_(guest.cmd("verify")["wrong"], 0, "and at the end")


if __name__ == "__main__":
    tap.needs_root()
    tap.run(*[functools.partial(case, engine) for engine in vmm.engines() for case in (
        never_touched, who_recovers_dies_too, functools.partial(cut_short, "FILL_AFTER_IOCTL", 1),
        functools.partial(cut_short, "FILL_AFTER_MARK", 2), many)])
