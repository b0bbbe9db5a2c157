#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
# builds: plain asan
"""The list of a session that pagerd ends is written before pagerd does."""
import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
import pagerd  # noqa: E402
import tap  # noqa: E402

SESSIONS = 20


def saved_at_the_end():
    with pagerd.Pagerd(record_settle="10m") as pager:
        image = pager.image(size="4M", seed=1)
        paths = [os.path.join(pager.images, "%d.hot" % i) for i in range(SESSIONS)]
        guests = [pager.restore(image, "s%d" % i, members={"record": {"path": path}})
                  for i, path in enumerate(paths)]
        for guest in guests:
            guest.cmd("touch seq count=100")
        pager.call("POST", "/shutdown", {"force": True})
        tap.is_(pager.process.wait(pagerd.DEADLINE_S), 0, "pagerd ends")
        tap.is_([path for path in paths if not os.path.exists(path)], [], "and has written each list")
        tap.is_(sorted(os.listdir(pager.images)),
                sorted(["i"] + [os.path.basename(path) for path in paths]), "and nothing else")
        for guest in guests:
            guest.kill()


if __name__ == "__main__":
    tap.needs_root()
    tap.run(saved_at_the_end)
