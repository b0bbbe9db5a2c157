#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
# builds: plain asan
"""Files that change under a session: one that is modified in place is an alarm, one that is
replaced is not, and its old bytes are served."""
import functools
import os
import signal
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
import fuse  # noqa: E402
import pagerd  # noqa: E402
import tap  # noqa: E402

MIB = 1 << 20
ALARM = "<3>.*id=%s: alarm: its image .* was modified in place: "


def changed(pager, session_id="a"):
    return pager.show(session_id)["image_changed"]


def written():
    """Bytes in the middle, the size as it was.  Every session of the file is told, once."""
    with pagerd.Pagerd() as pager:
        image = pager.image(size="4M", seed=1)
        a, b = (pager.restore(image, name) for name in "ab")
        other = pager.restore(pager.image("other", size="1M", seed=2), "c")
        tap.is_(changed(pager), None, "as it was opened")
        a.cmd("verify")
        with open(image.path, "r+b") as f:
            f.seek(1 << 20)
            f.write(b"x")
        for name in "ab":
            pager.log.wait(ALARM % name + "it was written to")
            session = pager.show(name)
            tap.is_((session["image_changed"], session["alarms"]),
                    ("it was written to since it was opened", 1), "session %s has an alarm" % name)
        mark = pager.log.mark()
        os.utime(image.path, (1, 1))
        pager.create(image.path, id="new")
        tap.is_(changed(pager, "new"), None, "a later session has the file as it is now")
        os.truncate(image.path, 2 << 20)
        pager.log.wait(ALARM % "new" + "its size went from 4194304 to 2097152")
        tap.ok(not pager.log.find(ALARM % "[ab]", mark), "the others were told once")
        tap.is_(changed(pager, "c"), None, "another file's session was not")
        tap.like(pager.ctl("show", "a").stdout, "image file +it was written to",
                 "pagerctl show tells")
        tap.like(pager.ctl("status").stdout, "  a: its image was modified in place: it was written to "
                 "since it was opened; pagerctl show a", "and status what needs somebody")
        for guest in (a, b, other):
            guest.kill()


def replaced():
    """By a rename, and then removed: the one that was opened is served to its end."""
    with pagerd.Pagerd() as pager:
        image = pager.image(size="4M", seed=3)
        guest = pager.restore(image, "a")
        guest.cmd("touch rand count=100")
        newer = pager.image("newer", size="4M", seed=4)
        os.rename(newer.path, image.path)
        pager.log.wait("<6>.*id=a: the inode of its image .* has changed")
        tap.is_(guest.cmd("verify")["wrong"], 0, "replaced: the old bytes are served")
        session = pager.show("a")
        tap.is_((session["image_changed"], session["alarms"]), (None, 0), "which is no alarm")
        newer.path = image.path
        with pager.restore(newer, "b") as other:
            tap.is_(other.cmd("verify")["wrong"], 0, "a new session has the new ones")
        os.unlink(image.path)
        tap.is_(pager.complete("a")["state"], "graduated", "removed: it graduates")
        tap.is_(guest.cmd("verify")["wrong"], 0, "right")
        guest.kill()


def unseen(who):
    """While a worker or the supervisor was not there: the next one compares with what was
    opened at the creation."""
    with pagerd.Pagerd() as pager:
        image = pager.image(size="4M", seed=5)
        guest = pager.restore(image, "a")
        if who == "worker":
            # Stopped, it looks at nothing.
            pid = pager.worker_pid()
            os.kill(pid, signal.SIGSTOP)
        else:
            pager.process.kill()
            pager.process.wait()
        with open(image.path, "r+b") as f:
            f.write(b"x")
        if who == "worker":
            os.kill(pid, signal.SIGKILL)
            pager.log.wait("id=a: adopted by worker")
        else:
            pager.start()
        pager.log.wait(ALARM % "a" + "it was written to")
        tap.is_(changed(pager), "it was written to since it was opened",
                "modified without its %s: noticed" % who)
        guest.kill()


def on_slow_storage():
    """Of storage that nobody can be kept from waiting for, it is seen at the next read."""
    fuse.needs()
    with pagerd.Pagerd() as pager, fuse.Image(pager, size="4M", seed=6) as image:
        guest = pager.restore(image, "a", engine="threads")
        pager.log.wait("SESSION_IMAGE_FILE")
        with open(image.behind.path, "r+b") as f:
            f.seek(4 * MIB - 1)
            f.write(b"x")
        # Reads go on until the next look is due.
        guest.cmd("start seq period=100000 burst=4")
        pager.log.wait(ALARM % "a" + "it was written to")
        tap.is_(changed(pager), "it was written to since it was opened", "seen at a read")
        guest.kill()


if __name__ == "__main__":
    tap.needs_root()
    tap.run(written, replaced, on_slow_storage, functools.partial(unseen, "worker"),
            functools.partial(unseen, "supervisor"))
