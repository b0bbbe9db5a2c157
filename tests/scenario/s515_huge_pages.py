#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
# builds: plain asan
# serial
"""Guest memory of huge pages: faults, holes, removals, completion, a worker's death, and a
pool of huge pages that runs dry."""
import ctypes
import fcntl
import functools
import os
import signal
import struct
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
import handshake  # noqa: E402
import pagerd  # noqa: E402
import tap  # noqa: E402
import vmm  # noqa: E402
from hugepages import Reserved  # noqa: E402

MIB = 1 << 20
HUGE = 2 * MIB
SMALL = HUGE // 4096  # pages in one
MAP_HUGETLB = 0x40000
MADV_DONTNEED = 4
KEEP_SIZE, PUNCH_HOLE = 1, 2


class Memory(handshake.Memory):
    """The same in huge pages."""

    def __init__(self, size):
        self.size = size
        self.address = handshake.libc.mmap(
            None, size, handshake.PROT_READ_WRITE,
            handshake.MAP_PRIVATE_ANON_NORESERVE | MAP_HUGETLB, -1, 0)
        if self.address in (None, ctypes.c_void_p(-1).value):
            raise OSError(ctypes.get_errno(), "mmap")
        self.uffd = handshake.userfaultfd()
        fcntl.ioctl(self.uffd, handshake.UFFDIO_REGISTER,
                    struct.pack("<QQQQ", self.address, size, handshake.MISSING, 0))

    def regions(self):
        return [dict(region, page_size=HUGE, page_size_kib=HUGE) for region in super().regions()]

    def discard(self, offset, size):
        handshake.libc.madvise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
        if handshake.libc.madvise(self.address + offset, size, MADV_DONTNEED) != 0:
            raise OSError(ctypes.get_errno(), "madvise")


def punch(path, offset, size):
    """Makes a hole."""
    with open(path, "r+b") as f:
        call = handshake.libc.fallocate
        call.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_long, ctypes.c_long]
        if call(f.fileno(), PUNCH_HOLE | KEEP_SIZE, offset, size) != 0:
            raise tap.Skip("no holes here: %s" % os.strerror(ctypes.get_errno()))


def life(in_memory, engine):
    """A guest's whole life: reads, writes, a balloon, a worker's death, completion."""
    with Reserved(24), pagerd.Pagerd() as pager:
        image = pager.image(in_memory=in_memory, size="32M", seed=2, zeros=100)
        options = {"hugepages": "2M", "engine": engine, "vcpus": 2, "regions": 2}
        with pager.restore(image, "a", **options) as guest:
            what = "%s, %s" % ("in memory" if in_memory else "on disk", engine)
            regions = pager.show("a")["regions"]
            tap.is_({r["page_size"] for r in regions}, {HUGE}, what + ": huge pages")
            tap.is_(guest.cmd("touch rand count=3000")["wrong"], 0, "faults are served")
            guest.cmd("write rand count=500")
            tap.ok(guest.cmd("discard rand count=%d seed=3" % (4 * SMALL))["calls"] >= 1,
                   "a balloon takes pages away")
            tap.is_(guest.cmd("verify")["wrong"], 0, "they are zeros, the rest is right")
            guest.cmd("discard rand count=%d seed=4" % (3 * SMALL))
            pager.until(lambda: pager.show("a")["pages"]["removed"] > 0)
            tap.ok(True, "the page map says so")
            guest.cmd("start rand write")
            os.kill(pager.worker_pid(), signal.SIGKILL)
            pager.log.wait("id=a: adopted by worker")
            tap.is_(guest.cmd("stop")["wrong"], 0, "its worker dies: the guest goes on")
            session = pager.complete("a")
            tap.is_((session["state"], session["pages"]["absent"]), ("graduated", 0),
                    "it is completed")
            tap.is_(session["pages"]["total"], 32 * MIB // HUGE, "page by huge page")
            tap.is_(guest.cmd("verify")["wrong"], 0, "right to the last word")
            guest.cmd("discard rand count=%d seed=5" % SMALL)
            tap.is_(guest.cmd("verify")["wrong"], 0, "on its own, too")
        pagerd.wait_gone(guest.pid)


def holes():
    """A hole of a whole huge page is filled with zeros that are read from nowhere."""
    with Reserved(8), pagerd.Pagerd() as pager:
        image = pager.image(size="16M", seed=6, holes=0)
        for hole in (1, 3, 4):
            punch(image.path, hole * HUGE, HUGE)
        with open(image.path, "rb") as f:
            right = f.read()
        session = pager.create(image.path, id="a")
        memory = Memory(16 * MIB)
        with memory.connect(session["socket_path"]):
            pager.wait("a", "serving")
            done = pager.complete("a")
            counters = done["counters"]
            tap.is_((counters["pages_zeroed"], counters["pages_background"]), (3, 5),
                    "three holes, five pages of data")
            tap.is_(counters["image_bytes_read"], 5 * HUGE, "and no hole was read")
            tap.ok(memory.read() == right, "every byte is right")
        memory.close()


def rounded():
    """The kernel rounds a removal to whole huge pages, and so does the page map."""
    with Reserved(4), pagerd.Pagerd() as pager:
        image = pager.image(size="8M", seed=7)
        with open(image.path, "rb") as f:
            right = f.read()
        session = pager.create(image.path, id="a")
        memory = Memory(8 * MIB)
        with memory.connect(session["socket_path"]):
            pager.wait("a", "serving")
            memory.page(0)
            memory.discard(0, 2 * HUGE - 4096)
            # The call returns when its event has been read, which is before the map knows.
            pager.until(lambda: pager.show("a")["pages"]["removed"] > 0)
            tap.is_(pager.show("a")["pages"]["removed"], 1, "of one and a bit, one is removed")
            tap.ok(memory.read() == bytes(HUGE) + right[HUGE:], "the other is the image's")
        memory.close()


def pool_runs_dry():
    """More memory than there are huge pages.  The kernel then says of a page that it is there
    already: believed, it would become zeros.  The fault waits until there is one."""
    with Reserved(2) as pool, pagerd.Pagerd() as pager:
        image = pager.image(size="16M", seed=8)
        small = pager.image("small", size="2M", seed=9)
        with pager.restore(image, "a", hugepages="2M", engine="threads") as guest, \
                pager.restore(small, "b") as other:
            pid = pager.worker_pid()
            guest.send("touch seq")
            pager.until(lambda: pager.show("a")["alarms"] >= 1)
            session = pager.show("a")
            tap.like(session["reason"], "cannot be filled", "no huge page is left: an alarm")
            tap.is_(session["pages"]["present"], 2, "two pages are there, and no third")
            tap.is_(guest.cmd("status")["blocked"], 1, "the guest waits")
            tap.is_(other.cmd("verify")["wrong"], 0, "its neighbour does not")
            status, code, _ = pager.error_of("POST", "/sessions/a/complete?timeout=300ms")
            tap.is_((status, code), (504, "timeout"), "a completion waits, and can be given up")
            faults = pager.show("a")["counters"]["faults"]
            tap.ok(faults < 10000, "nobody spins", faults)
            pool.resize(8)
            tap.is_(guest.answer()["wrong"], 0, "with more of them it goes on, right")
            tap.is_(pager.complete("a")["state"], "graduated", "and graduates")
            tap.is_(guest.cmd("verify")["wrong"], 0, "right to the last word")
            tap.is_(pager.worker_pid(), pid, "the worker lives")
        pagerd.wait_gone(guest.pid)


def killed(point, nth):
    """A worker that dies in a fill leaves a page of which the map says neither."""
    with Reserved(10), pagerd.Pagerd(worker_fault="%s:%d!kill;" % (point, nth)) as pager:
        image = pager.image(size="16M", seed=20 + nth)
        with pager.restore(image, "a", hugepages="2M", engine="threads") as guest:
            pid = pager.worker_pid()
            guest.send("touch seq")
            tap.ok(pagerd.wait_gone(pid), "%s:%d: the worker dies" % (point, nth))
            tap.is_(guest.answer()["wrong"], 0, "the guest goes on, right")
            session = pager.complete("a")
            tap.is_((session["state"], session["pages"]["filling"]), ("graduated", 0),
                    "it is completed")
            tap.is_(guest.cmd("verify")["wrong"], 0, "right to the last word")
        pagerd.wait_gone(guest.pid)


def unreadable():
    """A huge page that cannot be read is poisoned as a whole."""
    with Reserved(4), pagerd.Pagerd(on_image_error="poison") as pager:
        image = pager.image(size="8M", seed=10)
        with pager.restore(image, "a", hugepages="2M", engine="threads") as guest:
            guest.cmd("touch seq count=100")
            os.truncate(image.path, 3 * MIB)
            guest.send("touch seq")
            tap.ok(guest.stops_at_poison(), "a huge page that is cut is poisoned")
            pager.log.wait("cannot be read at offset %d: .*; the page is poisoned" % HUGE)


if __name__ == "__main__":
    tap.needs_root()
    part = functools.partial
    tap.run(*[part(life, in_memory, engine) for in_memory in (True, False)
              for engine in vmm.engines()], holes, rounded, pool_runs_dry,
            part(killed, "FILL_AFTER_MARK", 2), part(killed, "FILL_AFTER_IOCTL", 2),
            part(killed, "FILL_AFTER_IOCTL", 5), unreadable)
