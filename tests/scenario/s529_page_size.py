#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
# builds: plain asan
"""A VMM that says another page size than its memory has: its handshake is refused, and says why.
Served all the same, its guest would stop at a fault that nobody can answer, or read zeros."""
import ctypes
import fcntl
import os
import struct
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
import handshake  # noqa: E402
import hugepages  # noqa: E402
import pagerd  # noqa: E402
import stage  # noqa: E402
import tap  # noqa: E402

PAGE = 4096
HUGE = 2 << 20
SIZE = 2 * HUGE
MAP_HUGETLB = 0x40000


class Memory(handshake.Memory):
    """At an address that huge pages could have, of pages of either size."""

    def __init__(self, is_huge, says):
        self.says = says
        self.room = handshake.libc.mmap(
            None, SIZE + HUGE, handshake.PROT_READ_WRITE,
            handshake.MAP_PRIVATE_ANON_NORESERVE | (MAP_HUGETLB if is_huge else 0), -1, 0)
        if self.room in (None, ctypes.c_void_p(-1).value):
            raise tap.Skip("no huge pages: %s" % os.strerror(ctypes.get_errno()))
        self.size = SIZE
        self.address = (self.room + HUGE - 1) // HUGE * HUGE
        self.uffd = handshake.userfaultfd()
        fcntl.ioctl(self.uffd, handshake.UFFDIO_REGISTER,
                    struct.pack("<QQQQ", self.address, SIZE, handshake.MISSING, 0))

    def regions(self):
        return [dict(region, page_size=self.says, page_size_kib=self.says)
                for region in super().regions()]

    def close(self):
        os.close(self.uffd)
        handshake.libc.munmap(self.room, SIZE + HUGE)
        self.address = None


def refused(on, memory, why):
    session = on.pager.create(on.image.path, id="liar")
    with memory, memory.connect(session["socket_path"]):
        got = on.pager.error_of("GET", "/sessions/liar?wait=serving")
        tap.is_(got[:2], (409, "ended"), "its handshake is refused")
        tap.like(got[2], why, "and it is said why")
        tap.is_(on.pager.show("liar")["outcome"], "refused", "which its session keeps")
        tap.ok(on.is_neighbour_fine(), "a neighbour's guest works on")


def small_said_to_be_huge():
    with stage.Stage() as on:
        refused(on, Memory(False, HUGE),
                "region 0: its memory has pages of 4096 bytes, and not of the 2097152")
        on.as_before()


def huge_said_to_be_small():
    with hugepages.Reserved(4), stage.Stage() as on:
        refused(on, Memory(True, PAGE),
                "region 0: its memory has larger pages than the 4096 bytes")
        on.as_before()


def second_of_two():
    """Every region is looked at, and named by its number."""
    with stage.Stage() as on:
        session = on.pager.create(on.image.path, id="liar")
        with Memory(False, PAGE) as memory, memory.dial(session["socket_path"]) as connection:
            first = memory.regions()[0]
            regions = [dict(first, size=HUGE),
                       dict(first, base_host_virt_addr=memory.address + HUGE, size=HUGE, offset=HUGE,
                            page_size=HUGE, page_size_kib=HUGE)]
            handshake.send(connection, pagerd.json.dumps(regions).encode(), [memory.uffd])
            tap.like(on.pager.error_of("GET", "/sessions/liar?wait=serving")[2],
                     "region 1: its memory has pages of 4096 bytes", "the second of two regions")
        on.as_before()


def truth():
    """Nothing is filled by the question, and who says what is so is served."""
    with hugepages.Reserved(4), pagerd.Pagerd() as pager:
        image = pager.image(size=str(SIZE), seed=3)
        with open(image.path, "rb") as f:
            right = f.read()
        for name, is_huge, says in (("small", False, PAGE), ("huge", True, HUGE)):
            session = pager.create(image.path, id=name)
            with Memory(is_huge, says) as memory, memory.connect(session["socket_path"]):
                pages = pager.wait(name, "serving")["pages"]
                tap.is_((pages["absent"], pages["total"]), (SIZE // says,) * 2,
                        "%s pages: all are absent" % name)
                tap.ok(memory.read() == right, "and come from the image")
                pager.close_session(name)


if __name__ == "__main__":
    tap.needs_root()
    tap.run(small_said_to_be_huge, huge_said_to_be_small, second_of_two, truth)
