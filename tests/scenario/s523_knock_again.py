#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
# builds: plain asan
"""A new supervisor that cannot knock at a worker: it lives, and so does its VM, so it is
knocked at until it opens."""
import os
import signal
import socket
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
import pagerd  # noqa: E402
import tap  # noqa: E402

MORE_THAN_WAIT_THERE = 1000


def crowd(path):
    """Knocks until no more can wait."""
    waiting = []
    for _ in range(MORE_THAN_WAIT_THERE):
        s = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_NONBLOCK)
        waiting.append(s)
        try:
            s.connect(path)
        except BlockingIOError:
            return waiting
    raise RuntimeError("the backlog of %s is never full" % path)


def lose_supervisor(pager):
    pager.process.kill()
    pager.process.wait()
    pager.log.thread.join()
    pager.process.stderr.close()
    pager.pulse.close()
    pager.pulse = None


def knocked_again(hello_timeout, is_late):
    with pagerd.Pagerd() as pager:
        image = pager.image(size="4M", seed=41)
        with pager.restore(image, "a") as guest:
            pager.turn()
            guest.cmd("touch rand count=100")
            pid = pager.worker_pid()
            lose_supervisor(pager)
            os.kill(pid, signal.SIGSTOP)
            pager.options["hello_timeout"] = hello_timeout
            directory = os.path.join(pager.run, "workers")
            door = next(name for name in os.listdir(directory) if name.endswith(".sock"))
            waiting = crowd(os.path.join(directory, door))
            before = pager.log
            starting = pagerd.Pending(pager.start)
            while pager.log is before:
                starting.join(0.001)
            line = pager.log.wait(r"workers/.*\.sock: Resource temporarily unavailable")
            tap.like(line, "knocked at again$", "a worker that cannot be knocked at is not given up")
            pager.log.wait(r"has not told what it holds" if is_late else
                           r"FOUND -> FOUND on DEADLINE")
            for s in waiting:
                s.close()
            os.kill(pid, signal.SIGCONT)
            starting.end()
            pager.log.wait(r"recovery: done, workers=1 sessions=1 ended=0 lost=0")
            tap.is_(pager.wait("a", "serving")["state"], "serving",
                    "it is found %s, with its session" % ("late" if is_late else "in time"))
            tap.is_(pager.worker_pid(), pid, "and is the same")
            tap.is_(guest.cmd("verify")["wrong"], 0, "right")
            tap.is_(pager.complete("a")["state"], "graduated", "it can be told what to do")


def in_time():
    knocked_again("10m", False)


def late():
    knocked_again("600ms", True)


if __name__ == "__main__":
    tap.needs_root()
    tap.run(in_time, late)
