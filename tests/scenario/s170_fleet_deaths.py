#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
# builds: plain asan tsan
"""Deaths of workers, and what the fleet makes of their version."""
import ctypes
import os
import signal
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
import pagerd  # noqa: E402
import tap  # noqa: E402

SYS_PIDFD_GETFD = 438


def current_again():
    """A version that drained becomes current again, beside its draining worker; then its new
    worker dies.  The old one must not stand in the way of the next."""
    new, program = pagerd.other_version()
    versions = {pagerd.VERSION: pagerd.program("pager-worker"), new: program}
    with pagerd.Pagerd(versions=versions, current=pagerd.VERSION) as pager:
        image = pager.image(size="1M", seed=3)
        with pager.restore(image, "old") as old:
            draining = pager.worker_pid()
            pager.call("POST", "/upgrade", {"version": new})
            pager.call("POST", "/upgrade", {"version": pagerd.VERSION})
            waiting = pager.create(image.path, id="waiting")
            fresh = pager.worker_pid()
            tap.ok(fresh != draining, "a second worker of the version")
            os.kill(fresh, signal.SIGKILL)
            pagerd.wait_gone(fresh)
            with pagerd.vmm.Vmm(image, socket=waiting["socket_path"]) as guest:
                tap.is_(pager.wait("waiting", "serving")["version"], pagerd.VERSION,
                        "a third serves the session that waited")
                tap.is_(guest.cmd("verify")["wrong"], 0, "and its guest")
            tap.is_(pager.create(image.path, id="next")["version"], pagerd.VERSION, "and new ones")
            tap.is_(old.cmd("verify")["wrong"], 0, "the first goes on with its guest")


def drained_by_request():
    """What an operator drained takes nothing new, also after a death, until it has exited."""
    with pagerd.Pagerd() as pager:
        image = pager.image(size="1M", seed=3)
        with pager.restore(image, "a") as guest:
            pid = pager.worker_pid()
            pager.call("POST", "/drain", {"version": pagerd.VERSION})
            tap.is_(pager.error_of("POST", "/sessions", {"image": image.path})[0], 503,
                    "a drained version takes nothing new")
            os.kill(pid, signal.SIGKILL)
            pager.until(lambda: pager.worker_pid() not in (pid, None))
            pager.wait("a", "serving")
            tap.is_(guest.cmd("verify")["wrong"], 0, "its session is adopted when it dies")
            tap.is_(pager.error_of("POST", "/sessions", {"image": image.path})[0], 503,
                    "by a worker that takes nothing new either")
            pid = pager.worker_pid()
        tap.ok(pagerd.wait_gone(pid), "and exits with the last session")
        pager.until(lambda: pager.worker_pid() is None)
        tap.is_(pager.create(image.path, id="b")["state"], "created", "then the version is back")


def hung():
    """A worker that stands still is found out by its heartbeats and replaced."""
    with pagerd.Pagerd(heartbeat_interval="100ms", heartbeat_misses=20) as pager:
        image = pager.image(size="1M", seed=3)
        with pager.restore(image, "a", vcpus=2) as guest:
            guest.cmd("start rand write")
            pid = pager.worker_pid()
            os.kill(pid, signal.SIGSTOP)
            tap.ok(pagerd.wait_gone(pid), "it is killed although it serves")
            pager.log.wait(r"pid=%d: hung: heartbeats_missed=20, serving=1; killed" % pid)
            guest.cmd("pulse")
            guest.cmd("discard rand count=10")
            tap.ok(guest.cmd("stop")["wrong"] == 0 and guest.cmd("verify")["wrong"] == 0,
                   "and its guest runs on")
            pager.wait("a", "serving")


def killed_while_adopting():
    """Workers that are killed from outside in the middle of an adoption, again and again: the
    session is not what kills them."""
    with pagerd.Pagerd(worker_fault=";" + 9 * "ADOPT_WAKE:1!kill;", spawn_backoff_max="1ms") as pager:
        image = pager.image(size="1M", seed=3)
        with pager.restore(image, "a") as guest:
            guest.cmd("discard 7 20")
            os.kill(pager.worker_pid(), signal.SIGKILL)
            tap.is_(guest.cmd("verify")["wrong"], 0, "nine die and the tenth serves")
            pager.wait("a", "serving")
            tap.is_(pager.show("a").get("adoptions"), 1, "one adoption came to its end")
            tap.is_(pager.log.find("suspect|HELD|does not let go"), None, "nobody blames it")


def killed_while_starting_one():
    """A process that is to become a worker has a copy of each descriptor of its supervisor, for
    a moment.  It must not keep the next supervisor out."""
    with pagerd.Pagerd() as pager:
        lock = next(n for n, path in pagerd.fds_of(pager.process.pid).items()
                    if path.endswith("/run/lock"))
        pidfd = os.pidfd_open(pager.process.pid)
        copy = ctypes.CDLL(None, use_errno=True).syscall(SYS_PIDFD_GETFD, pidfd, lock, 0)
        tap.ok(copy >= 0, "a copy of the descriptor of the lock", ctypes.get_errno())
        tap.is_(pager.stop(signal.SIGKILL), -signal.SIGKILL, "the supervisor is killed")
        pager.start()
        tap.is_(pager.call("GET", "/health")["status"], "ok", "the next one starts")
        os.close(copy)
        os.close(pidfd)


if __name__ == "__main__":
    tap.needs_root()
    tap.run(current_again, drained_by_request, hung, killed_while_adopting,
            killed_while_starting_one)
