#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
# builds: plain asan
"""Nobody reads what pagerd writes: its loop goes on, and later it says what was lost."""
import fcntl
import os
import sys
import threading

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
import pagerd  # noqa: E402
import tap  # noqa: E402

PIPE_BYTES = 4096
# Each session that is made and closed leaves several lines of some 100 bytes.
SESSIONS = 40


class SlowLog(pagerd.Log):
    """Reads nothing until it is told."""

    def __init__(self, stream, tee=None):
        fcntl.fcntl(stream, fcntl.F_SETPIPE_SZ, PIPE_BYTES)
        self.may_read = threading.Event()
        super().__init__(stream, tee)

    def _read(self, stream, tee):
        self.may_read.wait()
        super()._read(stream, tee)


class SlowPagerd(pagerd.Pagerd):
    def start(self, timeout=pagerd.DEADLINE_S):
        usual, pagerd.Log = pagerd.Log, SlowLog
        try:
            super().start(timeout)
        finally:
            pagerd.Log = usual


def stuck():
    with SlowPagerd() as pager:
        try:
            image = pager.image(size="1M", seed=4)
            for i in range(SESSIONS):
                pager.create(image.path, id="s%d" % i)
                pager.close_session("s%d" % i)
            tap.is_(pager.call("GET", "/health")["status"], "ok",
                    "%d sessions came and went while nobody read the log" % SESSIONS)
            with pager.restore(image, "guest") as guest:
                tap.is_(guest.cmd("verify")["wrong"], 0, "a guest is served meanwhile")
            tap.is_(pager.log.lines, [], "nothing was read")
        finally:
            pager.log.may_read.set()
        pager.wait("guest", "closed")
        tap.ok(pager.log.wait(r"<4>pagerd: log: \d+ lines lost: nobody read them"),
               "once it is read the log says how many lines are missing")

        def is_said():
            # A pipe this small is full while its reader has not come to the line before.
            pager.create(image.path, id="last")
            pager.close_session("last")
            return pager.log.find("id=last")

        pager.until(is_said)
        tap.ok(True, "and goes on")


if __name__ == "__main__":
    tap.needs_root()
    tap.run(stuck)
