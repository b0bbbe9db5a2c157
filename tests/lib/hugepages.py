# SPDX-License-Identifier: Apache-2.0
"""Huge pages of 2 MiB.  The machine has one pool of them, so one test at a time has it.

    with hugepages.Reserved(24) as pool:    # skips where there are none to be had
        ...
        pool.resize(8)
    with hugepages.Lock():
        if hugepages.free() >= 16: ..."""
import fcntl
import os

import tap

DIRECTORY = "/sys/kernel/mm/hugepages/hugepages-2048kB"


def number(name):
    try:
        with open(os.path.join(DIRECTORY, name), encoding="ascii") as f:
            return int(f.read())
    except FileNotFoundError:
        return 0


def free():
    return number("free_hugepages")


class Lock:
    """Nobody else changes the pool, or takes from it, while it is held."""

    def __enter__(self):
        try:
            self.fd = os.open(DIRECTORY, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except FileNotFoundError:
            self.fd = -1
            return self
        fcntl.flock(self.fd, fcntl.LOCK_EX)
        return self

    def __exit__(self, *exc):
        if self.fd >= 0:
            os.close(self.fd)


class Reserved(Lock):
    """So many huge pages that nobody uses."""

    def __init__(self, pages):
        self.pages = pages

    def __enter__(self):
        super().__enter__()
        try:
            self.before = number("nr_hugepages")
            self.used = self.before - free()
            self.resize(self.pages)
        except BaseException:
            super().__exit__()
            raise
        return self

    def set(self, pages):
        with open(os.path.join(DIRECTORY, "nr_hugepages"), "w", encoding="ascii") as f:
            f.write("%d\n" % pages)

    def resize(self, pages):
        try:
            self.set(self.used + pages)
        except OSError as error:
            raise tap.Skip("no huge pages: %s" % error) from None
        got = number("nr_hugepages") - self.used
        if got < pages:
            self.set(self.before)
            raise tap.Skip("the kernel gives %d huge pages, not %d" % (got, pages))

    def __exit__(self, *exc):
        try:
            self.set(self.before)
        finally:
            super().__exit__(*exc)
