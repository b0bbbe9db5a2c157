#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
# builds: plain asan
"""Workers that do not care for being drained: reported, and ended only once no session
lives with them."""
import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
import pagerd  # noqa: E402
import tap  # noqa: E402

DEAF, EMPTY = "0.0.8", "0.0.9"


def ignored():
    """Two that ignore it, of which one has a session: the other's deadline is the clock."""
    with pagerd.Pagerd(start=False, handshake_timeout="10m") as pager:
        for version in (DEAF, EMPTY):
            pager.install_fake(version, "mute=drain")
        pager.start()
        image = pager.image(size="1M")
        for version in (EMPTY, DEAF):
            pager.call("POST", "/upgrade", {"version": version})
        pager.create(image.path, id="a")
        deaf, empty = pager.worker_pid(DEAF), pager.worker_pid(EMPTY)
        pager.log.wait("v%s .*DRAINING -> STOPPING on EMPTY, deadline_ms=" % EMPTY)
        tap.is_(pager.call("POST", "/drain", {"version": DEAF})["sessions"], 1, "one has a session")
        pager.log.wait("v%s .*STOPPING -> KILLING on DEADLINE; it did not exit in time" % EMPTY)
        # Killing closes its link first, at which this one may exit by itself.
        line = pager.log.wait(r"v%s .*(killed by SIGKILL|exited with code)" % EMPTY)
        tap.like(line, "it did not exit in time", "the other is reported and ended in its time")
        tap.ok(pagerd.wait_gone(empty), "and gone")
        row = pager.versions()[DEAF]
        tap.is_((row["state"], row["pid"], row["sessions"]), ("draining", deaf, 1),
                "the one with a session lives on past that deadline")
        mark = pager.log.mark()
        pager.close_session("a")
        tap.is_(pager.log.find("v%s .*KILLING" % DEAF), None, "nothing has threatened it")
        pager.log.wait("v%s .*STOPPING -> KILLING on DEADLINE" % DEAF, mark)
        tap.ok(pagerd.wait_gone(deaf), "when the session has ended, so does its time")


def obeyed():
    """A real one with a guest, past the same deadline: it is not late, it has work."""
    with pagerd.Pagerd(start=False) as pager:
        pager.install_fake(EMPTY, "mute=drain")
        pager.start()
        image = pager.image(size="16M", seed=4)
        with pager.restore(image, "a") as guest:
            pid = pager.worker_pid()
            pager.call("POST", "/upgrade", {"version": EMPTY})
            pager.log.wait("v%s .*READY -> DRAINING on DRAIN; outdated" % pagerd.VERSION)
            pager.call("POST", "/drain", {"version": EMPTY})
            pager.log.wait("v%s .*: it did not exit in time, sessions_serving=0" % EMPTY)
            row = pager.versions()[pagerd.VERSION]
            tap.is_((row["state"], row["pid"]), ("draining", pid), "a worker with a guest drains on")
            tap.is_(guest.cmd("verify")["wrong"], 0, "and serves it")
            tap.is_(pager.complete("a")["state"], "graduated", "when the guest has graduated")
            tap.ok(pagerd.wait_gone(pid), "it exits")
            tap.like(pager.log.wait("v%s .*exited" % pagerd.VERSION), "exited with code 0",
                     "by itself")


if __name__ == "__main__":
    tap.needs_root()
    tap.run(ignored, obeyed)
