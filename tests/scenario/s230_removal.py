#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
# builds: plain asan tsan
"""Discards against everything that fills: faults, clusters, reads of a cold image,
completions.  A page once discarded is zero, whatever was on its way to it."""
import functools
import os
import signal
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
import pagerd  # noqa: E402
import tap  # noqa: E402
import vmm  # noqa: E402

ROUNDS = 12


def drop_cache(image):
    with open(image.path, "rb") as f:
        os.fsync(f.fileno())
        os.posix_fadvise(f.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def against_faults(engine, size, **members):
    with pagerd.Pagerd() as pager:
        image = pager.image(size=size, seed=21, holes=100, zeros=50)
        drop_cache(image)
        what = "%s, %s%s" % (engine, size, ", clusters of %d" % members["cluster_min_bytes"]
                             if members else "")
        guest = pager.restore(image, "a", engine=engine, vcpus=3, regions=2, members=members)
        with guest:
            guest.cmd("start rand write")
            discarded = 0
            for i in range(ROUNDS):
                drop_cache(image)
                discarded += guest.cmd("discard rand count=300 seed=%d" % i)["discarded"]
                discarded += guest.cmd("discard %d 64" % (i * 30))["discarded"]
            stopped = guest.cmd("stop")
            tap.ok(stopped["wrong"] == 0 and stopped["loops"] > 0,
                   "%s: faults against discards of %d pages" % (what, discarded), stopped)
            tap.is_(guest.cmd("verify")["wrong"], 0, "every page is right")
            counters = pager.show("a")["counters"]
            tap.ok(counters["pages_removed"] > 0, "removals were seen: %d, faults that waited "
                   "for the disk: %d" % (counters["pages_removed"], counters["io_faults"]))
            tap.is_(pager.complete("a")["state"], "graduated", "it graduates")
            tap.is_(guest.cmd("verify")["wrong"], 0, "right")


def against_completion(engine, cold):
    """Again and again, with a guest that has seen little and one that has seen much."""
    with pagerd.Pagerd() as pager:
        image = pager.image(in_memory=not cold, size="32M", seed=22, holes=50)
        what = "%s, %s image" % (engine, "cold" if cold else "warm")
        outcomes, calls, wrong = [], 0, 0
        for i in range(3):
            guest = pager.restore(image, "a%d" % i, engine=engine, vcpus=2)
            with guest:
                if i % 2:
                    guest.cmd("touch rand count=4000 seed=%d" % i)
                    guest.cmd("write rand count=1000 seed=%d" % i)
                if cold:
                    drop_cache(image)
                guest.cmd("start rand write")
                completing = pagerd.Pending(pager.complete, "a%d" % i)
                while completing.is_alive():
                    calls += guest.cmd("discard rand count=100 seed=%d" % calls)["calls"]
                outcomes.append(completing.end()["outcome"])
                # It may not know yet that nobody listens any more.
                calls += guest.cmd("discard rand count=100 seed=%d" % calls)["calls"]
                wrong += guest.cmd("stop")["wrong"]
                wrong += guest.cmd("verify")["wrong"]
        tap.is_(outcomes, ["graduated"] * 3, "%s: completions against %d discards" % (what, calls))
        tap.is_(wrong, 0, "nothing wrong is read, then or later")


def whole_memory():
    """All of it at once, before and after it was there, and while it is being completed."""
    with pagerd.Pagerd() as pager:
        image = pager.image(size="16M", seed=23)
        with pager.restore(image, "a", vcpus=2) as guest:
            guest.cmd("discard 0 4096")
            # The guest goes on when the event is read, moments before the page map says so.
            pager.until(lambda: pager.show("a")["pages"]["removed"] == 4096)
            tap.ok(True, "all pages are discarded unseen")
            tap.is_(guest.cmd("verify")["wrong"], 0, "all are zero")
            tap.is_(pager.show("a")["counters"]["image_bytes_read"], 0, "the image was not read")
            guest.cmd("write seq")
            guest.cmd("discard 0 4096")
            tap.is_(guest.cmd("verify")["wrong"], 0, "written and discarded: zero again")
            done = pager.complete("a")
            tap.is_((done["state"], done["counters"]["image_bytes_read"]), ("graduated", 0),
                    "there is nothing to complete")
            tap.is_(guest.cmd("verify")["wrong"], 0, "right")


def aborted():
    """A completion that is stopped half-way, with discards before, during and after."""
    with pagerd.Pagerd(worker_fault="POPULATE_CHUNK:30!pause") as pager:
        image = pager.image(in_memory=True, size="128M", seed=24)
        with pager.restore(image, "a", vcpus=2) as guest:
            pid = pager.worker_pid()
            guest.cmd("discard rand count=500 seed=1")
            connection = pager.raw()
            connection.sendall(b"POST /sessions/a/complete HTTP/1.1\r\nHost: x\r\n\r\n")
            pager.until(lambda: pagerd.is_stopped(pid))
            guest.send("discard rand count=500 seed=2")  # waits: nobody reads its events
            guest.wait_status(lambda s: s["discarding"])
            connection.close()
            for _ in range(3):
                pager.turn()
            os.kill(pid, signal.SIGCONT)
            tap.is_(guest.answer()["calls"], 500, "discards that had to wait")
            pager.log.wait("id=a: COMPLETING -> SERVING on STAYED")
            guest.cmd("discard rand count=500 seed=3")
            tap.is_(guest.cmd("verify")["wrong"], 0, "an aborted completion, discards all along")
            tap.is_(pager.complete("a")["state"], "graduated", "completed in the end")
            tap.is_(guest.cmd("verify")["wrong"], 0, "right")


if __name__ == "__main__":
    tap.needs_root()
    part = functools.partial
    tap.run(*[part(against_faults, engine, "24M") for engine in vmm.engines()],
            part(against_faults, "threads", "24M", cluster_min_bytes=2 << 20,
                 cluster_max_bytes=2 << 20),
            part(against_faults, "threads", "2M"),
            *[part(against_completion, engine, cold) for engine in vmm.engines()
              for cold in (False, True)],
            whole_memory, aborted)
