#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Run one test as the reaper of everything it starts.

    keep.py TIMEOUT COMMAND...

Exits with the command's code, 124 after the timeout, 125 when the command left
processes behind.  Whatever is left is killed in every case: workers start sessions
of their own, so a process group would not hold them."""
import ctypes
import os
import select
import signal
import sys

PR_SET_CHILD_SUBREAPER = 36
GRACE_S = 60


def descendants(pid):
    """Every process below pid, nearest first, without zombies."""
    parents = {}
    for entry in os.listdir("/proc"):
        if not entry.isdigit():
            continue
        try:
            with open("/proc/%s/stat" % entry, encoding="utf-8", errors="replace") as f:
                fields = f.read().rpartition(")")[2].split()
        except OSError:
            continue
        if fields[0] != "Z":
            parents.setdefault(int(fields[1]), []).append(int(entry))
    found, queue = [], [pid]
    while queue:
        children = parents.get(queue.pop(0), [])
        found += children
        queue += children
    return found


def name_of(pid):
    try:
        with open("/proc/%d/cmdline" % pid, "rb") as f:
            return f.read().replace(b"\0", b" ").decode(errors="replace").strip()
    except OSError:
        return "?"


def wait_pidfd(pid, timeout):
    """True when pid ends in time."""
    try:
        fd = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        return bool(select.select([fd], [], [], timeout)[0])
    finally:
        os.close(fd)


def kill_all(pids, sig):
    for pid in pids:
        try:
            os.kill(pid, sig)
        except ProcessLookupError:
            pass


def become_reaper():
    """From now on an orphan below this process becomes its child."""
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def kill_descendants():
    left = descendants(os.getpid())
    while left:
        kill_all(left, signal.SIGKILL)
        for pid in left:
            wait_pidfd(pid, GRACE_S)
        left = descendants(os.getpid())


def main():
    timeout, command = float(sys.argv[1]), sys.argv[2:]
    become_reaper()
    # The runner ends a test by this signal: then the finally clause below cleans up.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    # A shell that runs us in the background ignores these, and so would every program below.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGQUIT, signal.SIG_DFL)
    code = 143
    try:
        pid = os.spawnvp(os.P_NOWAIT, command[0], command)
        if wait_pidfd(pid, timeout):
            code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
            if code < 0:
                print("# killed by %s" % signal.Signals(-code).name)
                code = 128 - code
            elif code == 127:
                print("# cannot run %s" % command[0])
        else:
            print("# no end after %g s" % timeout)
            for stuck in descendants(os.getpid()):
                print("# runs still: %d %s" % (stuck, name_of(stuck)))
            code = 124
            kill_all([pid], signal.SIGTERM)
            wait_pidfd(pid, GRACE_S)
    finally:
        if code == 0:
            # One that is about to end is not left behind.
            for p in descendants(os.getpid()):
                if not wait_pidfd(p, GRACE_S):
                    print("# left behind: %d %s" % (p, name_of(p)))
                    code = 125
        kill_descendants()
    sys.stdout.flush()
    sys.exit(code)


if __name__ == "__main__":
    main()
