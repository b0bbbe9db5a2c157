#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
# builds: plain asan
"""A guest that discards without end costs its pager no memory and its neighbours nothing; and
memory that was given back stays given back when its session graduates."""
import functools
import os
import re
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
import pagerd  # noqa: E402
import stage  # noqa: E402
import tap  # noqa: E402
import vmm  # noqa: E402

PAGES = 4096
FLOODS = 4
# A thread that tried without pause would try thousands of times for each removal.
TRIES_A_REMOVAL = 20
KIB_AT_MOST = 8192


def kib_of(pid, name):
    return int(pagerd.status_of(pid)[name].split()[0])


def flood():
    with stage.Stage() as on:
        pager = on.pager
        image = pager.image("hostile", size="16M", seed=51)
        with pager.restore(image, "hostile", vcpus=2) as guest:
            # What one pass needs is there before it is measured.
            guest.cmd("start rand write")
            guest.cmd("discard rand count=%d seed=1" % PAGES)
            before = kib_of(on.worker, "VmRSS")
            threads = kib_of(on.worker, "Threads")
            calls, fine = 0, []
            for i in range(FLOODS):
                guest.send("discard rand count=%d seed=%d" % (PAGES, i))
                fine.append(on.is_neighbour_fine())
                calls += guest.answer()["calls"]
            grown = kib_of(on.worker, "VmRSS") - before
            tap.ok(all(fine), "the neighbour works on through %d removals" % calls)
            tap.ok(grown <= KIB_AT_MOST, "which cost the worker no memory", "%d KiB" % grown)
            tap.ok(kib_of(on.worker, "Threads") <= threads, "and no thread")
            tap.is_(guest.cmd("stop")["wrong"], 0, "nothing wrong was read")
            counters = pager.show("hostile")["counters"]
            tries = counters["fill_again"]
            tap.ok(0 < tries <= counters["pages_removed"] * TRIES_A_REMOVAL,
                   "a removal under way is waited for, not fought: %d tries, %d removals" % (
                       tries, counters["pages_removed"]))
            tap.is_(guest.cmd("verify")["wrong"], 0, "right")
        pager.wait("hostile", "closed")


def guest_kib(vm, regions):
    """Memory that the guest's ranges take, in KiB."""
    total, is_guest = 0, False
    with open("/proc/%d/smaps" % vm.pid, encoding="utf-8") as f:
        for line in f:
            mapping = re.match(r"([0-9a-f]+)-[0-9a-f]+ ", line)
            if mapping:
                start = int(mapping.group(1), 16)
                is_guest = any(0 <= start - r["host_addr"] < r["size"] for r in regions)
            elif line.startswith("Rss:") and is_guest:
                total += int(line.split()[1])
    return total


def deflated(engine):
    """Half of the memory is given back, a part of it after it was there."""
    with pagerd.Pagerd() as pager:
        image = pager.image(size="32M", seed=52)
        with pager.restore(image, "a", engine=engine) as guest:
            regions = pager.show("a")["regions"]
            tap.is_(guest_kib(guest, regions), 0, "nothing is there at first")
            guest.cmd("touch seq count=2000")
            guest.cmd("discard 1000 4096")
            done = pager.complete("a")
            tap.is_((done["state"], done["pages"]["removed"], done["pages"]["absent"]),
                    ("graduated", 4096, 0), "%s: it graduates with half of it given back" % engine)
            tap.is_(guest_kib(guest, regions), 4096 * 4, "the rest alone takes memory")
            tap.is_(guest.cmd("verify")["wrong"], 0, "and what was given back is zeros")


if __name__ == "__main__":
    tap.needs_root()
    tap.run(flood, *[functools.partial(deflated, engine) for engine in vmm.engines()])
