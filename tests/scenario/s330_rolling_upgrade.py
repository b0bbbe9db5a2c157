#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
# timeout: 600
# serial
"""A rolling upgrade as an operator does it: sessions live on three versions, the controller
graduates them, the old workers drain to zero and go.  Nothing is lost on the way."""
import concurrent.futures
import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
sys.dont_write_bytecode = True
import pagerd  # noqa: E402
import tap  # noqa: E402
import vmm  # noqa: E402

SESSIONS = 100
SIZE = "64M"
OLD = pagerd.VERSION


def restore_some(pager, image, first, nr):
    guests = {}
    for i in range(first, first + nr):
        name = "vm%d" % i
        guest = pager.restore(image, name, engine="threads")
        tap_wrong(guest.cmd("touch rand count=64 seed=%d" % (i + 1)))
        guest.cmd("write rand count=16 seed=%d" % (i + 1))
        guests[name] = guest
    return guests


wrong = [0]


def tap_wrong(answer):
    wrong[0] += answer["wrong"]


def graduate(pager, names):
    """Waits for the controller, which does it by itself."""
    with concurrent.futures.ThreadPoolExecutor(max_workers=16) as pool:
        return list(pool.map(
            lambda name: pager.call("GET", pager.path(name, "?wait=graduated&timeout=9m"),
                                    timeout=600)["outcome"], names))


def hundred_sessions():
    second, third = pagerd.other_version(1), pagerd.other_version(2)
    workers = {OLD: pagerd.program("pager-worker"), second[0]: second[1], third[0]: third[1]}
    with pagerd.Pagerd(workers, current=OLD, log_level="notice", controller_min_session_age="0s",
                       controller_max_concurrent=4, controller_scan_interval="1s") as pager:
        image = pager.image(size=SIZE, seed=5, holes=100)
        before = pager.fds()
        guests = restore_some(pager, image, 0, 34)
        pager.call("POST", "/upgrade", {"version": second[0]})
        guests.update(restore_some(pager, image, 34, 33))
        pager.call("POST", "/upgrade", {"version": third[0]})
        guests.update(restore_some(pager, image, 67, 33))
        tap.is_([pager.versions()[v]["sessions"] for v in (OLD, second[0], third[0])],
                [34, 33, 33], "a hundred sessions live on three versions")
        old_pids = [pager.worker_pid(OLD), pager.worker_pid(second[0])]
        busy = list(guests.values())[::10]
        for guest in busy:
            guest.cmd("start rand write")
        pager.call("PATCH", "/config", {"controller": "on"})
        tap.is_(graduate(pager, guests), ["graduated"] * SESSIONS, "every one graduates")
        for pid in old_pids:
            tap.ok(pagerd.wait_gone(pid), "the old worker %d has gone" % pid)
        for guest in busy:
            tap_wrong(guest.cmd("stop"))
        for guest in guests.values():
            tap_wrong(guest.cmd("verify"))
        tap.is_(wrong[0], 0, "no guest ever reads a wrong byte")
        pager.call("POST", "/drain", {"version": third[0]})
        pager.log.wait(r"v%s pid=\d+: STOPPING -> GONE" % third[0].replace(".", r"\."))
        pager.turn()  # its socket goes after that line
        tap.is_(pager.worker_pids(), [], "no worker process is left")
        tap.is_(os.listdir(os.path.join(pager.run, "sessions")), [], "no session's socket")
        tap.is_(os.listdir(os.path.join(pager.run, "workers")), [], "no worker's socket")
        tap.ok(pager.fds() <= before, "no descriptor: %d, %d before" % (pager.fds(), before))
        for guest in guests.values():
            guest.quit()


if __name__ == "__main__":
    tap.run(hundred_sessions)
