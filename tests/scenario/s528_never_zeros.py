#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
# builds: plain asan
"""Zeros are for what is a hole, or was discarded: not for what was a hole once, and not for
memory that the worker asks the kernel about."""
import ctypes
import fcntl
import os
import struct
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
import handshake  # noqa: E402
import pagerd  # noqa: E402
import tap  # noqa: E402
import vmm  # noqa: E402

PAGE = 4096
ASKED_ADDR = 0x10000
MAP_FIXED_NOREPLACE = 0x100000


def rewritten():
    """An image that is rewritten in place, its time of modification set to what it was, while a
    session of the old one lives: the next session's holes are its own."""
    with pagerd.Pagerd() as pager:
        image = pager.image(size="4M", seed=81, holes=700)
        newer = pager.image("newer", size="4M", seed=82)
        guest = pager.restore(image, "a")
        with pager.restore(image, "b"):
            tap.is_(pager.complete("b")["state"], "graduated", "the holes of an image are known")
        before = os.stat(image.path)
        with open(newer.path, "rb") as f, open(image.path, "r+b") as g:
            g.write(f.read())
        os.utime(image.path, ns=(before.st_atime_ns, before.st_mtime_ns))
        after = os.stat(image.path)
        tap.is_((after.st_ino, after.st_size, after.st_mtime_ns),
                (before.st_ino, before.st_size, before.st_mtime_ns), "it is rewritten in place")
        newer.path = image.path
        with pager.restore(newer, "c") as other:
            tap.is_(other.cmd("verify")["wrong"], 0, "a session that comes after that has its bytes")
        guest.kill()


class LowMemory(handshake.Memory):
    """As far down as a process may map it."""

    def __init__(self, size):
        self.size = size
        self.address = handshake.libc.mmap(
            ASKED_ADDR, size, handshake.PROT_READ_WRITE,
            handshake.MAP_PRIVATE_ANON_NORESERVE | MAP_FIXED_NOREPLACE, -1, 0)
        if self.address != ASKED_ADDR:
            raise tap.Skip("nothing can be mapped there: errno %d" % ctypes.get_errno())
        self.uffd = handshake.userfaultfd()
        fcntl.ioctl(self.uffd, handshake.UFFDIO_REGISTER,
                    struct.pack("<QQQQ", self.address, size, handshake.MISSING, 0))


def asked_about():
    """Where the worker asks whether a VMM lives, it cannot serve it as well."""
    with pagerd.Pagerd() as pager:
        image = pager.image(size="64K", seed=83)
        memory = LowMemory(16 * PAGE)
        session = pager.create(image.path, id="a")
        with memory.connect(session["socket_path"]):
            ended = pager.wait("a", "closed")
            tap.is_((ended["state"], ended.get("outcome")), ("closed", "refused"),
                    "guest memory there is refused")
            tap.like(ended["reason"], "0x10000", "and why")
        memory.close()


if __name__ == "__main__":
    tap.needs_root()
    tap.run(rewritten, asked_about)
