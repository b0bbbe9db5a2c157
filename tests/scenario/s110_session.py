#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
# builds: plain asan tsan
"""Sessions from creation to close, served to guests of every shape."""
import functools
import json
import os
import shutil
import stat
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
import handshake  # noqa: E402
import hugepages  # noqa: E402
import pagerd  # noqa: E402
import tap  # noqa: E402
import vmm  # noqa: E402

MIB = 1 << 20
PAGE = 4096
OTHER_UID = 64323


def life(engine):
    with pagerd.Pagerd() as pager:
        image = pager.image(seed=7, size="64M", holes=150, zeros=100)
        session = pager.create(image.path, id="a", instance="vm 1", cache_key="k")
        tap.is_([session[k] for k in ("id", "instance", "state", "outcome", "reason", "version",
                                      "image", "image_bytes", "cache_key", "guest_bytes",
                                      "regions", "vmm_pid", "alarms")],
                ["a", "vm 1", "created", None, None, pagerd.VERSION, image.path, 64 * MIB, "k", 0,
                 [], None, 0], "%s: a new session" % engine)
        with vmm.Vmm(image, socket=session["socket_path"], engine=engine, vcpus=4,
                     regions=2) as guest:
            serving(pager, session, guest)
            work(pager, guest)
            ended(pager, guest)


def serving(pager, session, guest):
    now = pager.wait("a", "serving")
    tap.is_((now["state"], now["vmm_pid"], now["guest_bytes"]), ("serving", guest.pid, 64 * MIB),
            "the handshake makes it serving")
    regions = now["regions"]
    tap.is_([(r["size"], r["page_size"]) for r in regions], [(32 * MIB, PAGE)] * 2,
            "in two regions")
    tap.is_(sorted(r["offset"] for r in regions), [0, 32 * MIB], "side by side in the image")
    with open("/proc/%d/maps" % guest.pid, encoding="utf-8") as f:
        starts = [int(line.split("-")[0], 16) for line in f]
    tap.ok(all(r["host_addr"] in starts for r in regions), "at the VMM's addresses")
    tap.is_(now["pages"], {"absent": 16384, "filling": 0, "present": 0, "removed": 0,
                           "total": 16384}, "with no page yet")
    tap.ok(not os.path.exists(session["socket_path"]), "its socket is gone: it has its VMM")


def work(pager, guest):
    tap.is_(guest.cmd("touch rand count=2000 seed=3")["wrong"], 0, "touched at random")
    pages = pager.show("a")["pages"]
    tap.ok(2000 <= pages["present"] < 16384, "which fills what is touched and some around it",
           pages)
    counters = pager.show("a")["counters"]
    tap.ok(0 < counters["faults"] <= 2000 and counters["pages_demand"] > 0, "and is counted",
           counters)
    tap.is_(guest.cmd("write rand count=3000")["written"], 3000, "written")
    tap.is_(guest.cmd("discard rand count=500 seed=5")["discarded"], 500, "discarded")
    tap.is_(guest.cmd("discard 8000 400")["discarded"], 400, "discarded across the regions")
    pages = pager.show("a")["pages"]
    tap.ok(pages["removed"] > 0, "which the page map shows", pages)
    answer = guest.cmd("verify")
    tap.is_((answer["wrong"], answer["pages"]), (0, 16384), "every word of every page is right")
    # The guest goes on before the worker has marked the page that it waited for.
    pager.until(lambda: pager.show("a")["pages"]["present"] == 16384, "a page is not present")
    tap.is_(pager.show("a")["pages"],
            {"absent": 0, "filling": 0, "present": 16384, "removed": 0, "total": 16384},
            "then every page is present")
    total = pager.call("GET", "/stats")
    tap.is_(total["counters"]["faults"], pager.show("a")["counters"]["faults"],
            "the sum of all sessions is that of the only one")
    tap.is_((total["sessions"], total["versions"][pagerd.VERSION]["faults"]),
            (1, total["counters"]["faults"]), "by version as well")


def ended(pager, guest):
    closed = pager.close_session("a")
    tap.is_((closed["state"], closed["outcome"], closed["reason"]),
            ("closed", "closed", "closed by request"), "close ends it")
    tap.is_(pager.show("a")["pages"]["present"], 16384, "its numbers can still be asked for")
    tap.is_(pager.close_session("a")["outcome"], "closed", "a second close changes nothing")
    tap.is_(pager.error_of("POST", "/sessions/b/close")[:2], (404, "not-found"),
            "of one that never was it is an error")
    tap.is_([s["id"] for s in pager.call("GET", "/sessions")["sessions"]], ["a"],
            "the list shows the ended one, too")
    tap.is_(guest.cmd("verify")["wrong"], 0, "the guest has all its pages and runs on")


def sizes(engine):
    with pagerd.Pagerd() as pager:
        one = pager.image("one", seed=3, size=PAGE)
        with pager.restore(one, "one", engine=engine) as guest:
            tap.is_(guest.cmd("touch rand")["wrong"], 0, "%s: one page" % engine)
            guest.cmd("write seq")
            tap.is_(guest.cmd("verify")["wrong"], 0, "written")
            guest.cmd("discard 0 1")
            tap.is_(guest.cmd("verify")["wrong"], 0, "discarded")
        odd = pager.image("odd", seed=4, size=513 * PAGE)
        with pager.restore(odd, "odd", engine=engine, regions=2) as guest:
            tap.is_(guest.cmd("verify")["wrong"], 0, "an odd number of pages")
        big = pager.image("big", seed=5, size="5G", holes=995)
        with pager.restore(big, "big", engine=engine, regions=2, vcpus=2) as guest:
            regions = pager.show("big")["regions"]
            tap.is_(sorted((r["offset"] >> 30, r["size"] >> 30) for r in regions),
                    [(0, 3), (3, 2)], "5 GiB around the gap")
            tap.is_(guest.cmd("touch stride:1024")["wrong"], 0, "touched all over")
            guest.cmd("write rand count=200 seed=8")
            guest.cmd("discard %d 32" % (3 * 2**30 // PAGE - 16))
            tap.is_(guest.cmd("touch rand count=400 seed=8")["wrong"], 0, "written far apart")
            pages = pager.show("big")["pages"]
            tap.ok(pages["total"] == 5 << 18 and pages["absent"] > pages["total"] // 2,
                   "and most of it is not there", pages)
            tap.ok(pager.close_session("big")["outcome"] == "closed", "closed")


def handshake_forms():
    with pagerd.Pagerd() as pager:
        image = pager.image(seed=2, size="4M", holes=200)
        for form in ("new", "wrapped", "old4", "old3", "split1"):
            with pager.restore(image, form, handshake=form, regions=2) as guest:
                tap.is_(guest.cmd("verify")["wrong"], 0, "handshake as in %s" % form)
        with hugepages.Lock():
            if hugepages.free() < 2:
                tap.skip("huge pages", "fewer than 2 are free")
                return
            with pager.restore(image, "huge", hugepages="2M") as guest:
                tap.is_(guest.cmd("verify")["wrong"], 0, "huge pages")
                guest.cmd("discard rand count=512")
                tap.is_(guest.cmd("verify")["wrong"], 0, "discarded whole")


def clusters():
    with pagerd.Pagerd() as pager:
        image = pager.image(seed=2, size="16M")
        for least, most in ((4096, 4096), (2 * MIB, 2 * MIB)):
            name = "from %d to %d" % (least, most)
            with pager.restore(image, name, members={
                    "cluster_min_bytes": least, "cluster_max_bytes": most}) as guest:
                tap.is_(guest.cmd("touch rand count=64 seed=9")["wrong"], 0, "clusters " + name)
                # The last one is noted right after the guest may go on.
                pager.until(lambda n=name: pager.show(n)["pages"]["filling"] == 0)
                present = pager.show(name)["pages"]["present"]
                tap.ok(present == 64 if most == PAGE else present >= 512,
                       "fill that much", present)
                tap.is_(guest.cmd("verify")["wrong"], 0, "and nothing wrong")


def names():
    ids = ("a/b", "../../etc/passwd", ".", "..", "a b", "%2f", "a%b", "a?b#c", "größe", "x" * 127,
           "y" * 126 + "/", "..........", "\"quoted\\", "a-b", "a:b")
    with pagerd.Pagerd() as pager:
        image = pager.image(seed=2, size="64K")
        before = pager.fds()
        sessions = {i: pager.create(image.path, id=i) for i in ids}
        tap.is_([s["id"] for s in pager.call("GET", "/sessions")["sessions"]], list(ids),
                "%d ids that are hard to spell" % len(ids))
        paths = [s["socket_path"] for s in sessions.values()]
        tap.is_(len(set(paths)), len(ids), "a socket for each")
        root = os.path.join(pager.run, "sessions")
        tap.ok(all(os.path.dirname(p) == root and stat.S_ISSOCK(os.lstat(p).st_mode)
                   for p in paths), "in the directory for them", paths)
        for i in ids:
            with vmm.Vmm(image, socket=sessions[i]["socket_path"], engine="threads") as guest:
                held = pager.wait(i, "serving")["id"] == i and guest.cmd("verify")["wrong"] == 0
            tap.ok(held and pager.wait(i, "closed")["outcome"] == "vmm-exited", "%r is served" % i)
        tap.is_(os.listdir(root), [], "no socket is left")
        worker_fds = 7  # the link's, the worker's socket, pidfd and stderr among them
        tap.ok(pager.fds() <= before + worker_fds, "nor a descriptor")
        for bad in ("", "x" * 128, "a\nb", "a\0b", "\x7f", 7, None, ["a"]):
            status, code, why = pager.error_of("POST", "/sessions", {"image": image.path, "id": bad})
            tap.ok((status, code) == (400, "bad-request") and '"id"' in why or "body" in why,
                   "the id %r is refused" % (bad if bad != "x" * 128 else "x..."), why)


def choices_of_id():
    with pagerd.Pagerd() as pager:
        image = pager.image(size="64K")
        made = [pager.create(image.path)["id"] for _ in range(3)]
        tap.is_(len(set(made)), 3, "ids that are made up differ: %s" % made)
        tap.is_(pager.create(image.path, instance="vm7")["id"], "vm7", "the instance is an id")
        again = pager.error_of("POST", "/sessions", {"image": image.path, "id": "vm7"})
        tap.is_(again[:2], (409, "exists"), "a live id is refused")
        tap.like(again[2], "session vm7 exists .created.; close it first", "by name")
        pager.close_session("vm7")
        tap.is_(pager.create(image.path, id="vm7")["state"], "created",
                "an ended one may be used again")
        tap.is_(pager.show("vm7")["state"], "created", "and then means the new session")


def waits():
    with pagerd.Pagerd() as pager:
        image = pager.image(seed=4, size="1M")
        session = pager.create(image.path, id="a")
        tap.is_(pager.wait("a", "opened")["state"], "created", "wait=opened is there at once")
        status, code, why = pager.error_of("GET", "/sessions/a?wait=serving&timeout=50ms")
        tap.is_((status, code), (504, "timeout"), "wait=serving without a VMM times out")
        tap.like(why, "session a is created, not serving, when the time was over", "with a reason")
        tap.is_(pager.error_of("GET", "/sessions/a?wait=serving&timeout=0")[0], 504,
                "a timeout of 0 does not wait")
        waiters = [pagerd.Pending(pager.wait, "a", "serving") for _ in range(3)]
        over = pagerd.Pending(pager.error_of, "GET", "/sessions/a?wait=graduated&timeout=1m")
        with vmm.Vmm(image, socket=session["socket_path"]) as guest:
            tap.is_([w.end()["state"] for w in waiters], ["serving"] * 3, "all who wait are told")
            closing = pagerd.Pending(pager.wait, "a", "closed")
            pager.close_session("a")
            tap.is_(closing.end()["outcome"], "closed", "wait=closed hears of a close")
            tap.is_(over.end()[:2], (409, "ended"), "wait=graduated hears that it never will be")
            tap.like(over.end()[2], "session a has ended: closed: closed by request", "and why")
            tap.is_(pager.error_of("GET", "/sessions/a?wait=serving")[:2], (409, "ended"),
                    "wait on an ended session says so at once")
            guest.kill()
        for bad in ("wait=happy", "wait=", "wait=serving&timeout=soon", "wait=serving&timeout=2h",
                    "wait=serving&wait=closed", "hurry=1"):
            tap.is_(pager.error_of("GET", "/sessions/a?" + bad)[:2], (400, "bad-request"),
                    "?%s is refused" % bad)


def handshake_timeout():
    with pagerd.Pagerd(handshake_timeout="100ms", tombstone_life="1h") as pager:
        image = pager.image(size="1M")
        session = pager.create(image.path, id="a")
        status, code, why = pager.error_of("GET", "/sessions/a?wait=serving&timeout=30s")
        tap.is_((status, code), (409, "ended"), "a session without a VMM ends")
        tap.like(why, "timed-out: no VMM shook hands on its socket within 100 ms", "and says why")
        tap.is_(pager.show("a")["outcome"], "timed-out", "as its outcome does")
        tap.ok(not os.path.exists(session["socket_path"]), "its socket is removed")
        own = pager.create(image.path, id="b", handshake_timeout_ms=60000)
        with vmm.Vmm(image, socket=own["socket_path"]) as guest:
            tap.is_(pager.wait("b", "serving")["state"], "serving",
                    "a session may bring a time of its own")
            tap.is_(guest.cmd("verify")["wrong"], 0, "and is served")


def tombstones():
    with pagerd.Pagerd(tombstone_life="0s") as pager:
        image = pager.image(size="64K")
        pager.create(image.path, id="a")
        pager.close_session("a")
        pager.until(lambda: pager.error_of("GET", "/sessions/a")[0] == 404)
        tap.is_(pager.call("GET", "/sessions"), {"sessions": []},
                "an ended session is forgotten after its time")


def limit():
    with pagerd.Pagerd(max_sessions=2) as pager:
        image = pager.image(size="64K")
        for name in "ab":
            pager.create(image.path, id=name)
        answer = pager.request("POST", "/sessions", {"image": image.path, "id": "c"})
        tap.is_((answer.status, answer.json["code"], answer.headers["Retry-After"]),
                (503, "full", "1"), "more than max-sessions are refused")
        pager.close_session("a")
        tap.is_(pager.create(image.path, id="c")["state"], "created", "until one ends")


def owners():
    with pagerd.Pagerd() as pager:
        image = pager.image(seed=9, size="1M")
        session = pager.create(image.path, id="a", vmm_uid=OTHER_UID, vmm_gid=OTHER_UID)
        st = os.stat(session["socket_path"])
        tap.is_((st.st_uid, st.st_gid), (OTHER_UID, OTHER_UID), "a socket for another user's VMM")
        # Where anybody may execute it, wherever the checkout is.
        executable = shutil.copy(vmm.program("vmm"), pager.dir)
        with vmm.Vmm(image, socket=session["socket_path"], engine="threads", executable=executable,
                     uffd_flags="user-mode,syscall", user=OTHER_UID) as guest:
            tap.is_(pager.wait("a", "serving")["vmm_pid"], guest.pid, "which connects")
            tap.is_(guest.cmd("verify")["wrong"], 0, "and is served")
        pager.create(image.path, id="b", vmm_uid=OTHER_UID)
        with handshake.Memory(MIB) as memory:
            connection = memory.connect(pager.show("b")["socket_path"])
            why = pager.error_of("GET", "/sessions/b?wait=closed")
            closed = pager.show("b")
            tap.is_((why[0], closed["outcome"]), (200, "refused"), "another user's VMM is refused")
            tap.like(closed["reason"], r"^uid 0 connected \(pid %d\), not the VMM's uid %d$"
                     % (os.getpid(), OTHER_UID), "with both users named")
            connection.close()


def memfds():
    with pagerd.Pagerd() as pager:
        image = pager.image(size="1M")
        session = pager.create(image.path, id="a", memfd=True)
        memfd = os.memfd_create("memory")
        with handshake.Memory(MIB) as memory:
            connection = memory.dial(session["socket_path"])
            handshake.send(connection, json.dumps(memory.regions()).encode(),
                           [memory.uffd, memfd])
            tap.is_(pager.wait("a", "serving")["state"], "serving", "a VMM with a memfd")
            connection.close()
        os.close(memfd)
        pager.create(image.path, id="b", memfd=True)
        with handshake.Memory(MIB) as memory:
            connection = memory.connect(pager.show("b")["socket_path"])
            why = pager.error_of("GET", "/sessions/b?wait=serving")
            tap.like(why[2], "exactly 2 are wanted, the userfaultfd and the memfd",
                     "one that leaves it out is told")
            connection.close()


if __name__ == "__main__":
    tap.needs_root()
    tap.run(*[functools.partial(case, engine) for engine in vmm.engines()
              for case in (life, sizes)],
            handshake_forms, clusters, names, choices_of_id, waits, handshake_timeout,
            tombstones, limit, owners, memfds)
