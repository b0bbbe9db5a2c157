#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
# builds: plain asan
"""Recording what a guest touches first, and filling that ahead at the next restore."""
import os
import signal
import subprocess
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
import pagerd  # noqa: E402
import tap  # noqa: E402

PAGE = 4096
MIB = 1 << 20
TOUCH = "touch rand count=%d seed=9"


def touched(guest, count):
    answer = guest.cmd(TOUCH % count)
    tap.is_(answer["wrong"], 0, "the guest touches %d pages" % count)
    return answer


def recorded(pager, image, name="rec", count=1500, **members):
    """Records a guest that touches so many pages; the session object afterwards."""
    members.setdefault("record", True)
    with pager.restore(image, name, members=members) as guest:
        touched(guest, count)
        pager.call("POST", pager.path(name, "/record"), {"stop": True})
        return pager.show(name)


def prefetched(pager, image, name, **members):
    """A guest whose prefetch is over, and its session then."""
    mark = pager.log.mark()
    guest = pager.restore(image, name, members=members)
    pager.log.wait(r"session \d+ %s: prefetch (done|stopped|failed)" % name, since=mark)
    return guest, pager.show(name)


def offsets(path):
    """What a list holds, as pagerctl writes it for others."""
    done = subprocess.run([pagerd.program("pagerctl"), "hotlist", "convert", path, "-"],
                          stdout=subprocess.PIPE, check=True, text=True)
    return [int(line) for line in done.stdout.split()]


# --- The whole way -----------------------------------------------------------------

def round_trip():
    with pagerd.Pagerd() as pager:
        image = pager.image(size="32M", seed=5, holes=50)
        session = recorded(pager, image)
        recording = session["recording"]
        tap.is_(recording["state"], "saved", "the list is saved")
        tap.is_(recording["path"], image.path + ".hot", "beside the image")
        tap.is_(recording["pages"], 1500, "with every page that was touched")
        tap.is_(session["prefetch"]["state"], "none", "nothing was prefetched meanwhile")
        guest, session = prefetched(pager, image, "next")
        with guest:
            p = session["prefetch"]
            tap.is_((p["mode"], p["state"], p["hot_list"]), ("on", "done", image.path + ".hot"),
                    "the next restore finds it")
            tap.is_((p["pages"], p["filled"] + p["present"] + p["left_out"], p["outside"]),
                    (1500, 1500, 0), "and every page is accounted for")
            tap.is_(p["left_out"], 1500 // 128, "a few are left to faults")
            before = pager.show("next")["counters"]["faults"]
            touched(guest, 1500)
            p = pager.show("next")["prefetch"]
            faults = pager.show("next")["counters"]["faults"] - before
            tap.ok(faults <= 1500 // 128 + 8, "the others fault no more", faults)
            tap.is_((p["asked_for"], p["used"], p["wasted"]),
                    (p["left_out"], p["filled"], 0), "so all of them count as used")
            tap.is_(guest.cmd("verify")["wrong"], 0, "the guest reads what it should")
        pager.wait("next", "closed")
        p = pager.show("next")["prefetch"]
        tap.is_((p["state"], p["used"]), ("done", p["filled"]), "the end keeps the numbers")
        tap.is_(pager.call("GET", "/stats")["prefetch"]["filled"], p["filled"], "so do the sums")


def order():
    """The order of the first touches, each page once; neighbours that nobody touched are not in it."""
    with pagerd.Pagerd() as pager:
        image = pager.image(size="8M", seed=2)
        path = os.path.join(pager.images, "my.list")
        with pager.restore(image, "a", members={"record": {"path": path}}) as guest:
            guest.cmd("touch seq count=200")
            answer = pager.call("POST", pager.path("a", "/record"), {"stop": True})
        tap.is_(answer["recording"]["path"], path, "at the path that was asked for")
        tap.is_(offsets(path), [i * PAGE for i in range(200)], "in the order of the touches")
        with pager.restore(image, "b", members={"record": {"path": path}}) as guest:
            guest.cmd("touch stride:7 count=50")
            guest.cmd("touch seq count=100")
            pager.call("POST", pager.path("b", "/record"), {"stop": True})
        got = offsets(path)
        tap.ok(len(got) == len(set(got)) and got[:3] == [0, 7 * PAGE, 14 * PAGE],
               "the next recording takes its place", got[:10])
        tap.is_(sorted(os.listdir(pager.images)), ["i", "my.list"], "and nothing else is left there")


# --- When it ends ------------------------------------------------------------------

def settles():
    """Convergence, not a time: a recording whose guest goes on goes on, too."""
    with pagerd.Pagerd() as pager:
        image = pager.image(size="32M", seed=5)
        with pager.restore(image, "a", members={"record": True}) as guest:
            touched(guest, 1000)
            pager.call("PATCH", "/config", {"record-settle": "200ms"})
            pager.log.wait(r"id=a: hot list saved to .*pages=1000: it has settled")
            guest.cmd("touch seq count=2000")
            tap.is_(pager.show("a")["recording"]["pages"], 1000, "what comes later is not in it")
        with pager.restore(image, "b", members={"record": True, "prefetch": "off"}) as guest:
            guest.cmd("touch seq count=20")
            mark = pager.log.mark()
            with pager.restore(image, "c", members={
                    "record": {"path": image.path + ".c"}}) as other:
                touched(other, 100)
                pager.log.wait("id=c: hot list saved", since=mark)
            tap.is_(pager.show("b")["recording"]["state"], "running",
                    "a guest that has hardly begun has not settled")


def is_full():
    with pagerd.Pagerd(record_limit=300) as pager:
        image = pager.image(size="8M", seed=5)
        with pager.restore(image, "a", members={"record": True}) as guest:
            touched(guest, 1000)
            pager.log.wait("id=a: hot list saved to .*pages=300: it is full")


def ends_with_its_session():
    with pagerd.Pagerd() as pager:
        image = pager.image(size="8M", seed=5)
        guest = pager.restore(image, "a", members={"record": True})
        touched(guest, 300)
        guest.kill()
        pager.wait("a", "closed")
        tap.is_(pager.show("a")["recording"]["state"], "saved", "with its VMM")
        tap.is_(len(offsets(image.path + ".hot")), 300, "every page")
        with pager.restore(image, "b", members={"record": {"path": image.path + ".b"}}) as guest:
            touched(guest, 300)
            pager.complete("b")
        tap.is_(pager.show("b")["recording"]["pages"], 300, "when it graduates")
        pager.create(image.path, id="c", record={"path": image.path + ".c"})
        pager.close_session("c")
        recording = pager.show("c")["recording"]
        tap.is_(recording["state"], "failed", "no list of a guest that never came")
        tap.like(recording["reason"], "touched nothing", "and it is said why")
        tap.ok(not os.path.exists(image.path + ".c"), "there is no file")


def on_request():
    """pagerctl record, on a session that is served already, again and again."""
    with pagerd.Pagerd() as pager:
        image = pager.image(size="16M", seed=5)
        path = os.path.join(pager.images, "later")
        with pager.restore(image, "a") as guest:
            guest.cmd("touch seq count=100")
            done = pager.ctl("record", "a", "--out", path)
            tap.is_(done.returncode, 0, "begins")
            touched(guest, 500)
            tap.is_(pager.error_of("POST", pager.path("a", "/record"), {})[:2], (409, "state"),
                    "not twice at a time")
            done = pager.ctl("record", "a", "--stop")
            tap.ok(done.returncode == 0 and path in done.stdout, "ends", done.stdout)
            first = len(offsets(path))
            tap.ok(400 <= first <= 500, "with what was touched meanwhile", first)
            pager.ctl("record", "a", "--out", path)
            guest.cmd("touch seq count=3000")
            pager.ctl("record", "a", "--stop")
            tap.ok(len(offsets(path)) > 1500, "and once more")
            tap.is_(guest.cmd("verify")["wrong"], 0, "the guest is right")
        status = pager.error_of("POST", pager.path("a", "/record"), {})[0]
        tap.is_(status, 409, "not after its end")
        tap.is_(pager.error_of("POST", pager.path("none", "/record"), {})[0], 404, "no session")


# --- Deaths ------------------------------------------------------------------------

def worker_dies():
    """What was recorded is in memory that the supervisor has, too; an adopter goes on."""
    with pagerd.Pagerd() as pager:
        image = pager.image(size="16M", seed=5)
        with pager.restore(image, "a", members={"record": True}) as guest:
            touched(guest, 700)
            mark = pager.log.mark()
            os.kill(pager.worker_pid(), signal.SIGKILL)
            pager.log.wait("id=a: adopted by", since=mark)
            touched(guest, 1400)
            pager.call("POST", pager.path("a", "/record"), {"stop": True})
            tap.is_(pager.show("a")["recording"]["pages"], 1400, "both parts are in the list")


def supervisor_dies():
    with pagerd.Pagerd() as pager:
        image = pager.image(size="16M", seed=5)
        path = os.path.join(pager.images, "list")
        with pager.restore(image, "a", members={"record": {"path": path}}) as guest:
            touched(guest, 500)
            pager.stop(signal.SIGKILL)
            touched(guest, 900)
            pager.start()
            tap.is_(pager.wait("a", "serving")["recording"]["state"], "running", "it is found again")
            touched(guest, 1200)
            os.kill(pager.worker_pid(), signal.SIGKILL)
            pager.log.wait("id=a: adopted by")
            touched(guest, 1300)
        pager.wait("a", "closed")
        tap.is_(len(offsets(path)), 1300, "and nothing is missing")


def old_worker():
    """One whose HELLO does not say that it can is not told: it would take it for garbage."""
    pager = pagerd.Pagerd(start=False, current="0.1.0")
    pager.install_fake("0.1.0", "")
    with pager:
        pager.start()
        image = pager.image(size="1M")
        pager.create(image.path, id="a", record=True, prefetch="sequential")
        pager.log.wait("id=a: worker v0.1.0 does not record it: it is too old")
        pager.create(image.path, id="b", prefetch="sequential")
        pager.log.wait("id=b: worker v0.1.0 does not prefetch for it: it is too old")
        got = pager.error_of("POST", pager.path("b", "/record"), {})
        tap.is_(got[:2], (409, "state"), "to record one is refused")
        tap.like(got[2], "too old to record", "with the reason")
        tap.ok(not pager.log.find("LINK_LOST"), "its link holds")


if __name__ == "__main__":
    tap.run(round_trip, order, settles, is_full, ends_with_its_session, on_request, worker_dies,
            supervisor_dies, old_worker)
