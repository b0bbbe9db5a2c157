#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
# builds: plain asan tsan
"""A snapshotter that writes what is dirty, leaves empty what is removed and inherits the rest
has the guest's memory: of a guest that stands still and of one that runs, whoever dies."""
import functools
import os
import signal
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
import pagerd  # noqa: E402
import pages  # noqa: E402
import tap  # noqa: E402
import vmm  # noqa: E402


def standing(engine, **options):
    """Everything that can happen to a page, then a picture of a guest that stands still; and
    again from there."""
    with pagerd.Pagerd() as pager:
        image = pager.image(size="16M", seed=51, holes=200, zeros=50)
        options = dict({"track": 1}, **options)
        with pager.restore(image, "a", engine=engine, vcpus=2, regions=2, **options) as guest:
            what = "%s%s%s" % (engine, ", memfd" if "memfd" in options else "",
                               options.get("uffd_flags", "") if options["track"]
                               else ", registered by the worker")
            guest.cmd("touch rand count=1500 seed=1")
            first = pages.ask(pager, "a")
            tap.is_((first["tracking"], first["since"], first["picture"]),
                    ("write-protect", 0, None), what + ": writes are tracked")
            tap.is_(first["pages"]["dirty"], 0, "reading makes nothing dirty")
            tap.ok(first["pages"]["clean"] >= 1500, "what was read is clean", first["pages"])
            written = guest.cmd("write rand count=700 seed=2")["written"]
            tap.is_(pages.ask(pager, "a")["pages"]["dirty"], written, "each written page is dirty")
            guest.cmd("discard rand count=400 seed=3")
            guest.cmd("touch rand count=500 seed=4")
            guest.cmd("write rand count=200 seed=5")
            snapshot = pages.Snapshot(image)
            picture = pages.ask(pager, "a", new=True)
            tap.is_(picture["picture"], 1, "it is picture 1")
            since = pages.ask(pager, "a", since=1)["pages"]["dirty"]
            if "memfd" in options:
                tap.ok(since < picture["pages"]["dirty"], "what is removed stays dirty", since)
            else:
                tap.is_(since, 0, "nothing dirty since")
            snapshot.apply(picture, guest)
            tap.is_(snapshot.differs(guest), [], "the first snapshot is the guest's memory")
            guest.cmd("write rand count=300 seed=6")
            guest.cmd("discard rand count=100 seed=7")
            tap.is_(guest.cmd("verify")["wrong"], 0, "every page is right")
            second = pages.ask(pager, "a", new=True, since=1)
            tap.ok(0 < second["pages"]["dirty"] < 16 << 20 >> 12, "some are", second["pages"])
            tap.is_(second["since"], 1, "said to be relative to picture 1")
            snapshot.apply(second, guest)
            tap.is_(snapshot.differs(guest), [], "the second snapshot, on top of the first, too")
            tap.is_(guest.cmd("verify")["wrong"], 0, "right")
            tap.is_(pager.complete("a")["state"], "graduated", "it graduates")
            tap.is_(guest.cmd("write rand count=1000 seed=8")["wrong"], 0,
                    "and writes with nobody to let it")
            tap.is_(guest.cmd("verify")["wrong"], 0, "right")
            tap.is_(pager.error_of("GET", "/sessions/a/pages")[:2], (409, "ended"),
                    "nothing is known of its pages then")


def running(engine):
    """Pictures of a guest that runs, dirty pages read from it while it goes on; at last one of a
    guest that stands still.  Nothing that was written in between is missing."""
    with pagerd.Pagerd() as pager:
        image = pager.image(size="24M", seed=52, holes=100)
        with pager.restore(image, "a", engine=engine, vcpus=2, track=1) as guest:
            snapshot, last, sizes = pages.Snapshot(image), None, []
            guest.cmd("start rand write")
            for i in range(6):
                guest.cmd("pulse")
                guest.cmd("discard rand count=100 seed=%d" % i)
                picture = pages.ask(pager, "a", new=True, since=last)
                snapshot.apply(picture, guest)
                last = picture["picture"]
                sizes.append(picture["pages"]["dirty"])
            stopped = guest.cmd("stop")
            tap.ok(stopped["wrong"] == 0 and stopped["loops"] > 0, engine + ": it ran", stopped)
            picture = pages.ask(pager, "a", new=True, since=last)
            snapshot.apply(picture, guest)
            sizes.append(picture["pages"]["dirty"])
            tap.is_(snapshot.differs(guest), [], "the snapshot is the guest's memory: %s" % sizes)
            tap.is_(guest.cmd("verify")["wrong"], 0, "right")


def one_instant():
    """A guest writes pages in order: at any instant the dirty ones are the first so many."""
    with pagerd.Pagerd() as pager:
        image = pager.image(in_memory=True, size="128M", seed=53)
        with pager.restore(image, "a", engine="threads", track=1) as guest:
            guest.send("write seq count=20000")
            bad, sizes = [], []
            while not sizes or sizes[-1] < 20000:
                picture = pages.ask(pager, "a")
                dirty = picture.of("dirty")
                sizes.append(len(dirty))
                if dirty and max(dirty) != len(dirty) - 1:
                    bad.append((len(dirty), max(dirty)))
            tap.is_(bad, [], "%d pictures while it wrote, each of one instant" % len(sizes))
            tap.is_(guest.answer()["wrong"], 0, "right")


def dies(point, nth, new=True):
    """The worker dies in the middle; the next picture has everything since the image."""
    with pagerd.Pagerd(worker_fault="%s:%d!kill;" % (point, nth)) as pager:
        image = pager.image(size="8M", seed=54, holes=100)
        with pager.restore(image, "a", vcpus=2, track=1) as guest:
            guest.cmd("touch rand count=500 seed=1")
            guest.cmd("write rand count=150 seed=2")
            guest.cmd("discard rand count=50 seed=3")
            if point.startswith("PICTURE"):
                status, code, why = pager.error_of("POST", "/sessions/a/pages")
                tap.is_((status, code), (503, "worker"), "%s: no picture" % point)
                tap.like(why, "ask again", "and why")
            guest.cmd("write rand count=150 seed=4")
            guest.cmd("touch rand count=300 seed=5")
            pager.log.wait("adopted by worker")
            tap.is_(pager.wait("a", "serving")["adoptions"], 1, "%s:%d: adopted" % (point, nth))
            snapshot = pages.Snapshot(image)
            picture = pages.ask(pager, "a", new=new)
            tap.is_((picture["tracking"], picture["since"]), ("write-protect", 0),
                    "writes are tracked, since the image")
            snapshot.apply(picture, guest)
            tap.is_(snapshot.differs(guest), [], "nothing that was written is missing")
            guest.cmd("write rand count=100 seed=6")
            snapshot.apply(pages.ask(pager, "a", new=new), guest)
            tap.is_(snapshot.differs(guest), [], "nor after that")
            tap.is_(guest.cmd("verify")["wrong"], 0, "right")


def dies_since(point, is_confirmed):
    """The same with a second picture, which starts from the first or from the image."""
    with pagerd.Pagerd(worker_fault="%s:2!kill;" % point) as pager:
        image = pager.image(size="8M", seed=57, holes=100)
        with pager.restore(image, "a", vcpus=2, track=1) as guest:
            snapshot = pages.Snapshot(image)
            guest.cmd("write rand count=400 seed=1")
            snapshot.apply(pages.ask(pager, "a", new=True), guest)
            guest.cmd("write rand count=200 seed=2")
            guest.cmd("discard rand count=100 seed=3")
            query = "?since=1" if is_confirmed else ""
            tap.is_(pager.error_of("POST", "/sessions/a/pages" + query)[:2], (503, "worker"),
                    "%s, second picture%s: none" % (point, query))
            pager.log.wait("adopted by worker")
            pager.wait("a", "serving")
            guest.cmd("write rand count=50 seed=4")
            answer = pager.request("GET", "/sessions/a/pages?since=1")
            if is_confirmed or point == "PICTURE_HELD":
                tap.is_((answer.status, answer.json["since"]), (200, 1), "asked again, since 1")
                picture = pages.ask(pager, "a", new=True, since=1)
                tap.ok(picture["pages"]["dirty"] < 500, "not all over again", picture["pages"])
            else:
                tap.is_(answer.json["code"], "stale", "1 is not the last, which nobody got")
                picture = pages.ask(pager, "a", new=True)
            snapshot.apply(picture, guest)
            tap.is_(snapshot.differs(guest), [], "nothing that was written is missing")
            tap.is_(guest.cmd("verify")["wrong"], 0, "right")


def storm(engine):
    """Workers die at any time under a guest that runs; pictures start from one another."""
    with pagerd.Pagerd() as pager:
        image = pager.image(size="16M", seed=58, holes=100)
        with pager.restore(image, "a", engine=engine, vcpus=2, track=1) as guest:
            snapshot, last = pages.Snapshot(image), None
            guest.cmd("start rand write")
            for i in range(8):
                mark = pager.log.mark()
                asked = pagerd.Pending(pages.ask, pager, "a", new=True, since=last)
                os.kill(pager.worker_pid(), signal.SIGKILL)
                pager.log.wait("adopted by worker", mark)
                try:
                    picture = asked.end()
                    snapshot.apply(picture, guest)
                    last = picture["picture"]
                except pagerd.ApiError as error:
                    # A picture that nobody got: everything since the last that was confirmed.
                    if error.code == "stale":
                        last = None
                    elif error.status != 503:
                        raise
                guest.cmd("discard rand count=50 seed=%d" % i)
                guest.cmd("pulse")
            stopped = guest.cmd("stop")
            tap.ok(stopped["wrong"] == 0 and stopped["loops"] > 0, engine + ": it ran", stopped)
            pager.wait("a", "serving")
            snapshot.apply(pages.ask(pager, "a", new=True, since=last), guest)
            tap.is_(snapshot.differs(guest), [], "the snapshot is the guest's memory")
            tap.is_(pager.show("a")["adoptions"], 8, "after eight deaths")
            tap.is_(guest.cmd("verify")["wrong"], 0, "right")


def unanswered():
    """A picture that its client never got: told again by who does not say that he has it."""
    with pagerd.Pagerd() as pager:
        image = pager.image(size="4M", seed=55)
        with pager.restore(image, "a", track=1) as guest:
            written = guest.cmd("write rand count=100 seed=1")["written"]
            pages.ask(pager, "a", new=True)
            more = guest.cmd("write rand count=150 seed=1")["written"]
            tap.ok(more > written, "more is written")
            tap.is_(pages.ask(pager, "a", since=1)["pages"]["dirty"], more,
                    "dirty since picture 1: what was written since")
            guest.cmd("discard 0 1024")
            guest.cmd("write rand count=30 seed=2")
            tap.is_(pages.ask(pager, "a", since=1)["pages"]["dirty"], 30, "thrown away, 30 written")
            second = pages.ask(pager, "a", new=True)
            tap.is_((second["picture"], second["since"], second["pages"]["dirty"]), (2, 0, 30),
                    "without since: relative to the image")
            guest.cmd("write rand count=40 seed=2")
            tap.is_(pages.ask(pager, "a")["pages"]["dirty"], 40, "with what was dirty before")
            for since in (1, 3, 77):
                status, code, _ = pager.error_of("POST", "/sessions/a/pages?since=%d" % since)
                tap.is_((status, code), (409, "stale"), "not the last picture: %d" % since)
            third = pages.ask(pager, "a", new=True, since=2)
            tap.is_((third["picture"], third["since"]), (3, 2), "since 2 is confirmed")
            guest.cmd("write rand count=7 seed=9")
            fourth = pages.ask(pager, "a", new=True)
            tap.is_((fourth["picture"], fourth["since"]), (4, 2), "and is the base from then on")
            tap.ok(fourth["pages"]["dirty"] >= third["pages"]["dirty"], "3 is not confirmed")
            tap.is_(guest.cmd("verify")["wrong"], 0, "right")


def handed_over():
    """By hand-over and by a supervisor that starts again, tracking goes on."""
    following, program = pagerd.other_version()
    with pagerd.Pagerd() as pager:
        image = pager.image(size="4M", seed=56)
        with pager.restore(image, "a", members={"track_writes": True}) as guest:
            guest.cmd("write rand count=100 seed=1")
            pages.ask(pager, "a", new=True)
            pager.install(following, program)
            pager.call("POST", "/upgrade", {"version": following, "handoff": True})
            tap.is_(pager.wait("a", "serving")["version"], following, "handed over")
            guest.cmd("write rand count=50 seed=2")
            picture = pages.ask(pager, "a", new=True, since=1)
            tap.is_((picture["pages"]["dirty"], picture["picture"]), (50, 2), "since picture 1")
            pager.process.kill()
            pager.process.wait()
            guest.cmd("write rand count=60 seed=2")
            pager.start()
            pager.wait("a", "serving")
            tap.is_(pages.ask(pager, "a", since=2)["pages"]["dirty"], 60, "without a supervisor")
            tap.is_(guest.cmd("verify")["wrong"], 0, "right")


if __name__ == "__main__":
    tap.needs_root()
    part = functools.partial
    tap.run(*[part(standing, engine) for engine in vmm.engines()],
            part(standing, "threads", memfd=1, members={"memfd": True}),
            part(standing, "threads", uffd_flags="wp-unpopulated"),
            *[part(standing, engine, track=0, members={"track_writes": True})
              for engine in vmm.engines()],
            *[part(running, engine) for engine in vmm.engines()],
            one_instant, unanswered, handed_over,
            *[part(dies, *at) for at in (
                ("WRITE_AFTER_MARK", 40), ("FILL_AFTER_READ", 300), ("FILL_AFTER_MARK", 200),
                ("FILL_AFTER_IOCTL", 200), ("EVENTS_AFTER_READ", 250), ("PICTURE_HELD", 1),
                ("PICTURE_TAKEN", 1), ("PICTURE_ANSWER", 1))],
            *[part(dies_since, point, is_confirmed) for is_confirmed in (False, True)
              for point in ("PICTURE_HELD", "PICTURE_TAKEN", "PICTURE_ANSWER")],
            *[part(storm, engine) for engine in vmm.engines()])
