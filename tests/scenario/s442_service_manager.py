#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
# builds: plain asan
"""What is left over when something fails between two processes: a worker that cannot be watched,
words that the service manager has no room for, a recording whose every holder died."""
import os
import signal
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
import pagerd  # noqa: E402
import tap  # noqa: E402
from manager import Managed, Manager, down  # noqa: E402


def children_of(pid):
    """Without the process that opens files for it."""
    found = []
    for number in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open("/proc/%s/stat" % number, encoding="utf-8", errors="replace") as f:
                head, _, tail = f.read().rpartition(")")
        except OSError:
            continue
        fields = tail.split()
        if int(fields[1]) == pid and head.partition("(")[2] != "pagerd-opener":
            found.append((int(number), fields[0]))
    return found


def cannot_be_watched():
    """A worker without a pidfd is killed, and no zombie stays."""
    with pagerd.Pagerd(env={"PAGER_FAULT": "SPAWN_PIDFD:1"}) as pager:
        image = pager.image(size="1M", seed=3)
        status, _, why = pager.error_of("POST", "/sessions", {"image": image.path, "id": "a"})
        tap.is_(status, 503, "a worker that cannot be watched is not started")
        tap.like(why, "cannot start a worker", "which the client is told")
        pager.until(lambda: children_of(pager.process.pid) == [], "something of it stays")
        tap.ok(True, "nothing of it stays")
        pager.until(lambda: pager.error_of("POST", "/sessions", {"image": image.path, "id": "b"})
                    [0] < 400, "no worker is ever started")
        tap.is_([state for _, state in children_of(pager.process.pid) if state == "Z"], [],
                "the next one is, and none is a zombie")


def ready_waits():
    """Nobody reads when pagerd becomes ready."""
    manager = Manager()
    with Managed(manager, start=False) as pager:
        pager.start(stuffed=True)
        tap.ok(not manager.has_heard("READY=1"), "the manager has no room to be told")
        manager.wait_for(lambda _: manager.has_heard("READY=1"))
        tap.ok(True, "and is told once it has")
        heard = [text for text in manager.heard if not text.startswith("STATUS=nothing")]
        tap.ok(heard[0].startswith("STATUS=ready") and "READY=1" in heard[1:], "in order", heard)
        manager.stuff()
        pager.process.send_signal(signal.SIGHUP)
        pager.log.wait("reload: done")
        manager.heard.clear()
        manager.wait_for(lambda _: manager.has_heard("READY=1"))
        tap.ok(manager.has_heard("RELOADING=1"), "a reload as well")
    manager.close()


def recording_lost():
    manager = Manager()
    with Managed(manager) as pager:
        image = pager.image(size="4M", seed=3)
        with pager.restore(image, "a", members={"record": True}) as guest:
            guest.cmd("touch rand count=100")
            tap.is_(pager.show("a")["recording"]["state"], "running", "a session is recorded")
            manager.listen()
            worker = pager.worker_pid()
            down(pager)
            os.kill(worker, signal.SIGKILL)
            pagerd.wait_gone(worker)
            pager.start()
            tap.is_(pager.wait("a", "serving")["state"], "serving", "it outlives both")
            recording = pager.show("a")["recording"]
            tap.is_((recording["state"], recording["reason"]),
                    ("failed", "no worker holds what was recorded any more"),
                    "its recording does not, and says so")
            tap.is_(guest.cmd("verify")["wrong"], 0, "every page is right")
            again = pager.call("POST", "/sessions/a/record", {})
            tap.is_(again["recording"]["state"], "running", "it can be recorded again")
    manager.close()


if __name__ == "__main__":
    tap.needs_root()
    tap.run(cannot_be_watched, ready_waits, recording_lost)
