#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
# builds: plain asan
"""Holes of an image: zeros that are read from nowhere and take no memory."""
import functools
import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
import pagerd  # noqa: E402
import tap  # noqa: E402

KIB = 1 << 10
MIB = 1 << 20
PAGE = 4096


def anonymous(pid):
    """Bytes of memory of its own that a process has: a zero page is nobody's."""
    return int(pagerd.status_of(pid)["RssAnon"].split()[0]) * KIB


def data_pages(image):
    """Pages of the file that are not in a hole."""
    pages, at, end = 0, 0, os.path.getsize(image.path)
    with open(image.path, "rb") as f:
        while at < end:
            try:
                start = os.lseek(f.fileno(), at, os.SEEK_DATA)
            except OSError:
                break
            at = os.lseek(f.fileno(), start, os.SEEK_HOLE)
            pages += (at - start) // PAGE
    return pages


def completed(in_memory):
    with pagerd.Pagerd() as pager:
        image = pager.image(in_memory=in_memory, size="64M", seed=1, holes=900)
        data = data_pages(image)
        where = "in memory" if in_memory else "on disk"
        if data > 64 * MIB // PAGE // 2:
            raise tap.Skip("this file system keeps no holes")
        # Its own memory does not change once it is ready: the threads are there.
        with pager.restore(image, "a", engine="threads") as guest:
            before = anonymous(guest.pid)
            session = pager.complete("a")
            counters = session["counters"]
            tap.is_(counters["image_bytes_read"], data * PAGE,
                    "%s: a completion reads what is data, and nothing else" % where)
            tap.is_((counters["pages_zeroed"], counters["pages_background"]),
                    (64 * MIB // PAGE - data, data), "and fills the rest with zeros")
            took = anonymous(guest.pid) - before
            tap.ok(data * PAGE <= took <= data * PAGE + MIB, "which take no memory",
                   "%d bytes of memory for %d of data" % (took, data * PAGE))
            tap.is_(guest.cmd("verify")["wrong"], 0, "every page is right")


def faulted():
    with pagerd.Pagerd() as pager:
        image = pager.image(size="16M", seed=2, holes=900)
        data = data_pages(image)
        with pager.restore(image, "a", engine="threads") as guest:
            # Once a completion has begun, the holes are known.
            pager.error_of("POST", "/sessions/a/complete?timeout=1ms")
            before = pager.show("a")["counters"]
            tap.is_(guest.cmd("verify")["wrong"], 0, "faults: every page is right")
            after = pager.show("a")["counters"]
            read = after["image_bytes_read"]
            tap.ok(read <= data * PAGE, "no hole was read", (read, data * PAGE))
            tap.ok(before["image_bytes_read"] <= read, "what was read stays read")


if __name__ == "__main__":
    tap.needs_root()
    tap.run(functools.partial(completed, True), functools.partial(completed, False), faulted)
