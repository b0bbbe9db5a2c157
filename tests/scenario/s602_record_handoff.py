#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
# builds: plain
"""A session moves to another version while it is recorded, or while its list is replayed."""
import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
import pagerd  # noqa: E402
import tap  # noqa: E402

NEXT, NEXT_WORKER = pagerd.other_version()


def start(**options):
    return pagerd.Pagerd(versions={pagerd.VERSION: pagerd.program("pager-worker"), NEXT: NEXT_WORKER},
                         current=pagerd.VERSION, **options)


def recorded():
    with start() as pager:
        image = pager.image(size="16M", seed=5)
        with pager.restore(image, "a", members={"record": True}) as guest:
            tap.is_(guest.cmd("touch rand count=700 seed=9")["wrong"], 0, "some pages on one version")
            session = pager.call("POST", pager.path("a", "/handoff"), {"version": NEXT})
            tap.is_(session["version"], NEXT, "it moves")
            tap.is_(guest.cmd("touch rand count=1400 seed=9")["wrong"], 0, "as many on the other")
            session = pager.call("POST", pager.path("a", "/record"), {"stop": True})
            tap.is_(session["recording"]["pages"], 1400, "the list has all of them")
            tap.is_(guest.cmd("verify")["wrong"], 0, "the guest is right")


def replayed():
    with start(prefetch_rate="2M") as pager:
        image = pager.image(size="8M", seed=5)
        with pager.restore(image, "a", members={"prefetch": "sequential"}) as guest:
            pager.until(lambda: pager.show("a")["prefetch"]["filled"] > 0)
            pager.call("POST", pager.path("a", "/handoff"), {"version": NEXT})
            pager.log.wait("session 1 a: prefetch done")
            prefetch = pager.show("a")["prefetch"]
            tap.is_((prefetch["state"], prefetch["filled"] + prefetch["present"]), ("done", 2048),
                    "the other version ends it, and nothing is counted twice")
            tap.is_(guest.cmd("verify")["wrong"], 0, "the guest is right")


if __name__ == "__main__":
    tap.run(recorded, replayed)
