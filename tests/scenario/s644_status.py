#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
# builds: plain asan
"""pagerctl status: sessions by state, versions that are to be emptied, and what needs somebody."""
import json
import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
import answers  # noqa: E402
import pagerd  # noqa: E402
import tap  # noqa: E402

V = pagerd.VERSION


def says(done, pattern, what):
    tap.like(done.stdout, "(?m)" + pattern, what)


def in_order():
    with pagerd.Pagerd() as pager:
        image = pager.image(size="4M", seed=3)
        for name in "ab":
            pager.create(image.path, id=name)
        with pager.restore(image, "c") as guest:
            guest.cmd("touch seq count=1024")
            done = pager.ctl("status")
            says(done, "^  sessions    3: 2 created, 1 serving$", "sessions by state")
            says(done, "^  controller  off$", "the controller")
            says(done, r"^%s +ready +\d+ +3 +current +-$" % V, "the version")
            tap.ok("needs attention" not in done.stdout, "all is in order", done.stdout)
            answer = json.loads(pager.ctl("--json", "status").stdout)
            tap.is_((answer["states"], answer["versions"]["versions"][0]["states"]),
                    ({"created": 2, "serving": 1},) * 2, "--json")
            version, worker = pagerd.other_version()
            pager.install(version, worker)
            tap.is_(pager.ctl("upgrade", version).returncode, 0, "after an upgrade")
            done = pager.ctl("status")
            says(done, r"^%s +draining +\d+ +3 +draining +\[#{20}\] 100 %%$" % V,
                 "the version that drains has a bar")
            says(done, r"^%s +ready +\d+ +0 +current +-$" % version, "the new one none")
            pager.ctl("config", "backend=file")
            says(pager.ctl("status"), "^  backend     file: no sessions are made", "the backend")


def out_of_order():
    with pagerd.Pagerd() as pager:
        path = os.path.join(pager.dir, "other.sock")
        row = {"installed": True, "current": False, "state": "ready", "pid": 7, "sessions": 0,
               "states": {}, "alarmed": 0, "draining": False, "sandbox": [], "retry_in_ms": 0}
        told = {
            "/health": {"status": "ok", "version": V, "uptime_ms": 5, "sessions": 16,
                        "workers": 2, "backend": "uffd"},
            "/stats": {"controller": {"enabled": 0}},
            "/versions": {"current": "0.0.2", "versions": [
                dict(row, version="0.0.2", current=True, sessions=16, alarmed=1,
                     states={"held": 14, "serving": 2, "odd": 3}),
                dict(row, version="0.0.1", installed=False, sessions=1, state="draining"),
                dict(row, version="0.0.0", retry_in_ms=1500)]},
            "/sessions": {"sessions": [{"id": "bad\033[2J", "state": "serving", "alarms": 1200},
                                       {"id": "torn", "state": "serving", "alarms": 1,
                                        "image_changed": "it was written to"},
                                       {"id": "short", "state": "serving", "alarms": 2,
                                        "reason": "a page cannot be filled"}] +
                          [{"id": "h%d" % i, "state": "held"} for i in range(14)] +
                          [{"id": "gone", "state": "closed", "outcome": "closed", "alarms": 1}]}}
        with answers.Answers(path, told) as server:
            done = pager.ctl("--socket", path, "status")
            tap.is_((done.returncode, done.stderr), (0, ""), "what is out of order")
            says(done, "^  sessions    16: 2 serving, 14 held$", "sessions by state")
            says(done, "^needs attention\n  0.0.1: it is not installed any more and has sessions\n"
                 "  0.0.0: its worker keeps dying; it is started again in 1.5 s\n", "versions first")
            says(done, r"^  bad\?\[2J: 1 200 alarms: its image could not be read for a while; pagerctl "
                 "show bad", "an image that could not be read")
            says(done, "^  torn: its image was modified in place: it was written to; pagerctl show "
                 "torn$", "one that was written to")
            says(done, "^  short: 2 alarms: a page cannot be filled; pagerctl show short$",
                 "and why, as long as it is so")
            says(done, "^  h0: held, its VM frozen: workers died with it; pagerctl retry h0$",
                 "a session that is held")
            says(done, "^  and 9 more; pagerctl sessions shows them$", "and not too many")
            tap.ok("gone" not in done.stdout, "what has ended needs nobody", done.stdout)
            told["/versions"] = {"current": None, "versions": []}
            says(pager.ctl("--socket", path, "status"), "^no version is installed", "no version")
            server.shutdown()


if __name__ == "__main__":
    tap.needs_root()
    tap.run(in_order, out_of_order)
