#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
# builds: plain asan
"""Forks of a template share its hot list: one is recorded to it, the next ones replay it."""
import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
import pagerd  # noqa: E402
import tap  # noqa: E402
import vmm  # noqa: E402

COUNT = 1000


def fork(pager, image, name, **members):
    session = pager.call("POST", "/sessions", dict(members, template="t", id=name))
    guest = vmm.Vmm(image, socket=session["socket_path"])
    pager.wait(name, "serving")
    return guest


def ended(pager, name):
    """What came of its prefetch."""
    pager.log.wait(r"session \d+ (id=)?%s: prefetch (done|stopped|failed)" % name)
    return pager.show(name)["prefetch"]


def record(pager, image, name, **members):
    """The recording of a fork that has touched some pages."""
    with fork(pager, image, name, **members) as guest:
        if "record" not in members:
            pager.call("POST", pager.path(name, "/record"))
        guest.cmd("touch rand count=%d seed=7" % COUNT)
        pager.call("POST", pager.path(name, "/record"), {"stop": True})
        return pager.show(name)["recording"]


def shared():
    with pagerd.Pagerd(record_settle="10m", cluster_max="4K") as pager:
        image = pager.image(size="32M", seed=5)
        path = os.path.join(pager.images, "web.hot")
        pager.call("PUT", "/templates/t", {"image": image.path, "hot_list": path})
        pager.call("POST", "/templates/t/promote")
        with fork(pager, image, "none") as guest:
            tap.is_(guest.cmd("verify")["wrong"], 0, "without a list a fork does without")
        for name, members in (("now", {"record": True}), ("later", {"prefetch": "off"})):
            recording = record(pager, image, name, **members)
            tap.is_((recording["state"], recording["path"]), ("saved", path),
                    "%s: it is recorded to the template's list" % name)
        tap.ok(recording["pages"] >= COUNT // 2, "with what it touched", recording)
        with fork(pager, image, "warm") as guest:
            prefetch = ended(pager, "warm")
            tap.is_((prefetch["hot_list"], prefetch["state"]), (path, "done"),
                    "the next fork replays it")
            tap.ok(prefetch["filled"] >= COUNT // 2, "all of it", prefetch)
            tap.is_(guest.cmd("verify")["wrong"], 0, "and is right")
        pager.call("POST", "/sessions", {"template": "t", "id": "off", "prefetch": "off"})
        tap.is_(pager.show("off")["prefetch"]["mode"], "off", "one may do without")
        pager.close_session("off")


def a_crowd():
    """Many forks have one list: it is read once, and again when it is another."""
    with pagerd.Pagerd(cluster_max="4K", record_settle="10m") as pager:
        image = pager.image(size="8M", seed=5)
        path = os.path.join(pager.images, "web.hot")
        pager.call("PUT", "/templates/t", {"image": image.path, "hot_list": path})
        pager.call("POST", "/templates/t/promote")
        recording = record(pager, image, "first", record=True)
        number = 0

        def make():
            nonlocal number
            number += 1
            pager.call("POST", "/sessions", {"template": "t", "id": "f%d" % number})
            return pager.show("f%d" % number)["prefetch"]

        plans = [make() for _ in range(5)]
        tap.is_({(p["pages"], p["hot_list"]) for p in plans}, {(recording["pages"], path)},
                "a crowd of forks has the list")
        tap.is_((pager.log.text().count("hot list %s is new" % path),
                 pager.log.text().count("hot list %s is known" % path)), (1, 4),
                "which is checked and sorted once")
        with fork(pager, image, "last") as guest:
            tap.is_(ended(pager, "last")["state"], "done", "it is replayed")
            tap.is_(guest.cmd("verify")["wrong"], 0, "right")
        os.unlink(path)
        with open(path, "wb") as f:
            f.write(b"pagerhot")
        tap.like(make()["reason"], "it is cut short", "another file in its place is read")


def switched_off():
    with pagerd.Pagerd(record_settle="10m", cluster_max="4K") as pager:
        image = pager.image(size="32M", seed=5)
        path = os.path.join(pager.images, "web.hot")
        pager.call("PUT", "/templates/t",
                   {"image": image.path, "hot_list": path, "prefetch": "off"})
        pager.call("POST", "/templates/t/promote")
        record(pager, image, "a", record=True)
        pager.call("POST", "/sessions", {"template": "t", "id": "b"})
        tap.is_(pager.show("b")["prefetch"]["mode"], "off", "a template's forks do without")
        pager.close_session("b")
        with fork(pager, image, "c", prefetch="on"):
            tap.is_(ended(pager, "c")["state"], "done", "but for one that asks for it")
        with fork(pager, image, "d", prefetch="sequential") as guest:
            tap.is_(ended(pager, "d")["hot_list"], path, "or for the list and then all of it")
            tap.is_(guest.cmd("verify")["wrong"], 0, "right")


if __name__ == "__main__":
    tap.run(shared, a_crowd, switched_off)
