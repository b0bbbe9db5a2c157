# SPDX-License-Identifier: Apache-2.0
"""Threads that wait at a fault point with !hold.

    pager.until(lambda: holds.is_held(pid))
    holds.let_go(pid)"""
import ctypes
import os
import signal

SYS_RT_SIGTIMEDWAIT = "128"
SYS_TGKILL = 234
libc = ctypes.CDLL(None, use_errno=True)


def first_word(path):
    try:
        with open(path, encoding="ascii") as f:
            return f.read().split(" ", 1)[0].strip()
    except (FileNotFoundError, ProcessLookupError):
        return None


def is_held(pid):
    """The thread that waits at a fault point; None without."""
    for tid in os.listdir("/proc/%d/task" % pid):
        if first_word("/proc/%d/task/%s/syscall" % (pid, tid)) == SYS_RT_SIGTIMEDWAIT:
            return int(tid)
    return None


def let_go(pid):
    libc.syscall(SYS_TGKILL, pid, is_held(pid), signal.SIGUSR2)
