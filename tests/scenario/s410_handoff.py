#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
# builds: plain asan tsan
"""Sessions move from version to version while their guests run: one, all, back and forth,
against everything else that may happen to them."""
import json
import os
import re
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
import pagerd  # noqa: E402
import tap  # noqa: E402
import vmm  # noqa: E402

OLD = pagerd.VERSION
MOVES = 50


def two_versions(**options):
    new, worker = pagerd.other_version()
    return new, pagerd.Pagerd({OLD: pagerd.program("pager-worker"), new: worker}, current=OLD,
                              **options)


def move(pager, name, version, query=""):
    return pager.call("POST", pager.path(name, "/handoff" + query), {"version": version})


def error_of_move(pager, name, version, query=""):
    return pager.error_of("POST", pager.path(name, "/handoff" + query), {"version": version})


def is_right(guest, what):
    answer = guest.cmd("verify")
    return tap.is_((answer["wrong"], guest.cmd("status")["total_wrong"]), (0, 0), what)


def median(values):
    return sorted(values)[len(values) // 2] if values else 0.0


def note_waits(pager, name, guest):
    """What a move costs: told, not judged, since the machine may be busy with other tests."""
    unserved = [float(m) for m in re.findall(
        r"id=%s: adopted by .*unserved_ms=([\d.]+)" % name, pager.log.text())]
    told = str(guest.cmd("stalls")["stalls"]) if guest else "-"
    touches = [int(pair.split(":")[1]) / 1e3 for pair in told.split(",") if pair != "-"]
    tap.note("%s: nobody served it for p50 %.1f ms, max %.1f ms; longest touch %.1f ms" % (
        name, median(unserved), max(unserved), max(touches, default=0.0)))


# --- Back and forth ----------------------------------------------------------------

def back_and_forth():
    new, pager = two_versions()
    with pager:
        image = pager.image(in_memory=True, size="64M", seed=3, holes=100, zeros=50)
        engines = vmm.engines()
        # One stays, so that the version that drains is not ended and started each time.
        anchor = pager.restore(image, "anchor")
        tap.is_(move(pager, "anchor", new)["version"], new, "a session moves to a version that "
                "was not running")
        idle = pager.restore(image, "idle", engine=engines[0])
        busy = pager.restore(image, "busy", engine=engines[-1], vcpus=3, regions=2)
        busy.cmd("start rand write period=500 burst=2 stalls=300")
        for n in range(MOVES):
            version = (new, OLD)[n % 2]
            now = [move(pager, name, version) for name in ("idle", "busy")]
            if [s["version"] for s in now] != [version] * 2:
                tap.ok(False, "move %d" % n, now)
            busy.cmd("discard rand count=10 seed=%d touch" % n)
            busy.cmd("pulse")
            idle.cmd("touch rand count=20 seed=%d" % n)
        tap.is_([pager.show(n)["adoptions"] for n in ("idle", "busy")], [MOVES] * 2,
                "%d moves each" % MOVES)
        note_waits(pager, "busy", busy)
        note_waits(pager, "idle", None)
        tap.is_(busy.cmd("stop")["wrong"], 0, "a busy guest has read nothing wrong")
        for name, guest in (("busy", busy), ("idle", idle), ("anchor", anchor)):
            is_right(guest, "every page of %s is right" % name)
            tap.is_(pager.complete(name)["state"], "graduated", "and it graduates")
            is_right(guest, "as it was")
            guest.kill()
        pager.log.wait(r"v%s .*exited with code 0, .*as it was told" % re.escape(new))


def to_a_worker_that_ends():
    """Alone, it takes the version that drains along each time it leaves."""
    new, pager = two_versions()
    with pager:
        image = pager.image(size="8M", seed=3)
        with pager.restore(image, "a", vcpus=2) as guest:
            guest.cmd("start rand write")
            for n in range(10):
                move(pager, "a", (new, OLD)[n % 2])
                guest.cmd("pulse")
            tap.is_(pager.show("a")["adoptions"], 10, "ten moves")
            tap.is_(guest.cmd("stop")["wrong"], 0, "nothing wrong was read")
            is_right(guest, "every page is right")
            pid = pager.worker_pid(new)
            tap.ok(pid is None or pagerd.wait_gone(pid), "the version that drains has ended")


# --- Everything at once ------------------------------------------------------------

def upgrade_moves_all():
    new, pager = two_versions()
    with pager:
        image = pager.image(in_memory=True, size="16M", seed=4, holes=100)
        guests = {"g%d" % i: pager.restore(image, "g%d" % i, vcpus=1 + i % 2) for i in range(9)}
        for guest in guests.values():
            guest.cmd("start rand write period=2000 burst=2 stalls=300")
        pager.create(image.path, id="late")
        pid = pager.worker_pid(OLD)
        answer = pager.ctl("--json", "upgrade", new, "--handoff")
        tap.is_((answer.returncode, json.loads(answer.stdout)),
                (0, {"version": new, "previous": OLD, "moved": 9, "failed": 0, "left": 1,
                     "reason": None}), "an upgrade with hand-over moves all that are served")
        tap.is_({pager.show(n)["version"] for n in guests}, {new}, "to the new version")
        for name, guest in guests.items():
            guest.cmd("pulse")
        note_waits(pager, "g0", guests["g0"])
        note_waits(pager, "g8", guests["g8"])
        tap.is_(pager.show("late")["version"], OLD, "who waits for its VMM stays")
        pager.close_session("late")
        tap.ok(pagerd.wait_gone(pid), "when it has gone the old version is gone")
        pager.log.wait("pid=%d: exited with code 0, .*as it was told" % pid)
        tap.is_(pager.versions()[OLD]["state"], "not-running", "and only installed")
        for _ in range(2):
            answer = pager.ctl("handoff", "--to", OLD, "--from", new)
            tap.is_((answer.returncode, answer.stdout), (0, "9 sessions moved to %s\n" % OLD), "back")
            tap.is_(pager.call("POST", "/handoff", {"version": new}),
                    {"version": new, "from": None, "moved": 9, "failed": 0, "left": 0,
                     "reason": None}, "and forth")
        for guest in guests.values():
            tap.is_(guest.cmd("stop")["wrong"], 0, "nothing wrong was read")
            is_right(guest, "every page is right")
            guest.kill()


def caller_hangs_up():
    new, pager = two_versions()
    with pager:
        image = pager.image(size="8M", seed=4)
        guests = [pager.restore(image, name) for name in "ab"]
        with pager.raw() as connection:
            body = json.dumps({"version": new, "handoff": True}).encode()
            connection.sendall(b"POST /upgrade HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%s"
                               % (len(body), body))
            pager.log.wait("v%s pid=.*: STARTING" % new)
        pager.log.wait("handoff to v%s: over, moved=2 failed=0 left=0" % new)
        tap.is_([pager.show(n)["version"] for n in "ab"], [new] * 2,
                "an upgrade moves the sessions without its caller")
        for guest in guests:
            is_right(guest, "every page is right")
            guest.kill()


# --- Races -------------------------------------------------------------------------

def races():
    new, pager = two_versions()
    with pager:
        image = pager.image(in_memory=True, size="16M", seed=5, holes=100)
        names = ["r%d" % i for i in range(12)]
        guests = {name: pager.restore(image, name) for name in names}
        for guest in guests.values():
            guest.cmd("start rand write period=2000 burst=1")
        calls = []
        for n, name in enumerate(names):
            verbs = [lambda x=name: pager.error_of("POST", pager.path(x, "/complete")),
                     lambda x=name: pager.error_of("POST", pager.path(x, "/close"))]
            calls.append((name, pagerd.Pending(error_of_move, pager, name, new)))
            calls.append((name, pagerd.Pending(verbs[n % 2])))
            calls.append((name, pagerd.Pending(error_of_move, pager, name, OLD)))
        calls.append((None, pagerd.Pending(pager.error_of, "POST", "/handoff", {"version": new})))
        answers = [(name, call.end()) for name, call in calls]
        bad = [(name, a) for name, a in answers
               if a[0] != 200 and a[1] not in ("state", "ended", "busy", "failed")]
        tap.is_(bad, [], "moves, completions and closes at once: each has an answer")
        for n, name in enumerate(names):
            now = pager.show(name)
            if n % 2 == 0 and now["outcome"] is None:
                pager.wait(name, "serving")
                tap.is_(pager.complete(name)["state"], "graduated", "what lost the race can be "
                        "completed")
            elif n % 2 == 0:
                tap.is_(now["outcome"], "graduated", "%s graduated" % name)
            else:
                tap.is_(now["outcome"], "closed", "%s is closed" % name)
        for n, name in enumerate(names):
            if n % 2 == 0:
                tap.is_(guests[name].cmd("stop")["wrong"], 0, "nothing wrong was read")
                is_right(guests[name], "every page is right")
            guests[name].kill()


def vmm_exits():
    new, pager = two_versions()
    with pager:
        image = pager.image(size="4M", seed=5)
        guests = {name: pager.restore(image, name) for name in "abcd"}
        calls = []
        for name, guest in guests.items():
            calls.append(pagerd.Pending(error_of_move, pager, name, new))
            guest.kill()
        answers = [call.end() for call in calls]
        tap.ok(all(a[0] == 200 or a[1] in ("ended", "state") for a in answers),
               "VMMs that exit while they are moved", answers)
        tap.is_([pager.wait(n, "closed")["outcome"] for n in guests], ["vmm-exited"] * 4,
                "are gone as ever")
        tap.is_(pager.call("GET", "/health")["sessions"], 0, "nothing is left")


# --- What goes wrong ---------------------------------------------------------------

def refused():
    new, pager = two_versions()
    with pager:
        image = pager.image(size="4M", seed=6)
        pager.create(image.path, id="late")
        with pager.restore(image, "a") as guest:
            tap.is_(error_of_move(pager, "x", new)[:2], (404, "not-found"), "no such session")
            tap.is_(error_of_move(pager, "a", "9.9.9")[:2], (404, "not-found"), "no such version")
            status, code, why = error_of_move(pager, "late", new)
            tap.is_((status, code), (409, "state"), "one that waits for its VMM")
            tap.is_(why, "session late is created; only one that is serving can be moved", "is told")
            now = move(pager, "a", OLD)
            tap.is_((now["version"], now["adoptions"]), (OLD, 0), "where it is already: nothing")
            for body in ({}, {"version": 1}, {"version": "new"}, {"version": new, "hurry": True},
                         {"version": new, "from": OLD}, [new], b"{"):
                tap.is_(pager.error_of("POST", "/sessions/a/handoff", body)[:2],
                        (400, "bad-request"), "%.40r" % (body,))
            for body in ({}, {"from": OLD}, {"version": new, "from": "x"}, {"version": OLD,
                         "from": OLD}, {"version": new, "session": "a"}):
                tap.is_(pager.error_of("POST", "/handoff", body)[:2], (400, "bad-request"),
                        "%.50r" % (body,))
            tap.is_(pager.error_of("POST", "/handoff", {"version": "9.9.9"})[:2],
                    (404, "not-found"), "all to no such version")
            tap.is_(pager.error_of("POST", "/sessions/a/handoff?timeout=x", {"version": new})[:2],
                    (400, "bad-request"), "no duration")
            for arguments in (("handoff",), ("handoff", "a"), ("handoff", "a", new, "--to", new),
                              ("handoff", "--from", OLD), ("retry",)):
                tap.is_(pager.ctl(*arguments).returncode, 2, "pagerctl %s" % " ".join(arguments))
            tap.is_(pager.ctl("handoff", "x", new).returncode, 4, "no such session: 4")
            tap.is_(pager.ctl("handoff", "late", new).returncode, 6, "in the wrong state: 6")
            answer = pager.ctl("handoff", "a", new)
            tap.is_((answer.returncode, answer.stdout), (0, "a is serving on %s\n" % new), "done: 0")
            is_right(guest, "the guest noticed nothing")
        pager.close_session("late")


def target_does_not_start():
    _, pager = two_versions()
    with pager:
        image = pager.image(size="4M", seed=6)
        pager.install_fake("9.1.0", "bad=die on=start")
        pager.install_fake("9.2.0", "bad=hang on=start")
        with pager.restore(image, "a") as guest:
            pid = pager.worker_pid(OLD)
            for version, patience in (("9.1.0", "2m"), ("9.2.0", "300ms")):
                pager.call("PATCH", "/config", {"hello-timeout": patience})
                status, code, why = error_of_move(pager, "a", version)
                tap.is_((status, code), (500, "failed"), "a version that does not start")
                tap.like(why, "version %s did not start: .*; session a is serving on version %s"
                         % (version, OLD), "says why, and where the session is")
                tap.is_(pager.error_of("POST", "/handoff", {"version": version})[:2],
                        (500, "failed"), "nor does it for all")
            now = pager.show("a")
            tap.is_((now["state"], now["adoptions"], pager.worker_pid(OLD)), ("serving", 0, pid),
                    "nothing has changed")
            is_right(guest, "the guest noticed nothing")


def target_dies():
    """Once, in the adoption; another takes its place."""
    new, pager = two_versions(worker_fault=";ADOPT_SESSION!kill;ADOPT_WAKE!kill;")
    with pager:
        image = pager.image(size="4M", seed=6)
        with pager.restore(image, "a") as guest:
            guest.cmd("start rand write")
            now = move(pager, "a", new)
            tap.is_((now["version"], now["state"]), (new, "serving"), "two adopters die, not a third")
            tap.is_(guest.cmd("stop")["wrong"], 0, "nothing wrong was read")
            is_right(guest, "every page is right")


def target_always_dies():
    # Three crashes make it suspect, and one more on its trial is enough.
    new, pager = two_versions(worker_fault=";" + 4 * "ADOPT_SESSION:0!crash;")
    with pager:
        image = pager.image(size="4M", seed=6)
        with pager.restore(image, "a") as guest:
            status, code, why = error_of_move(pager, "a", new)
            tap.is_((status, code), (500, "failed"), "a version that adopts nothing")
            tap.like(why, "session a is held: worker after worker died with it", "is found out")
            tap.is_(pager.show("a")["state"], "held", "nothing is lost")
            tap.is_(pager.call("POST", "/sessions/a/retry", {"version": OLD})["version"], OLD,
                    "and the old version takes it back")
            is_right(guest, "every page is right")


def source_dies():
    new, pager = two_versions(worker_fault="RELEASE_SESSION=b!kill;")
    with pager:
        image = pager.image(size="4M", seed=6)
        guests = {name: pager.restore(image, name) for name in "abc"}
        for guest in guests.values():
            guest.cmd("start rand write")
        answer = pager.call("POST", "/handoff", {"version": new})
        tap.is_((answer["moved"], answer["failed"]), (3, 0), "the old worker dies of the second")
        tap.is_({pager.show(n)["version"] for n in guests}, {new}, "all are moved all the same")
        for guest in guests.values():
            tap.is_(guest.cmd("stop")["wrong"], 0, "nothing wrong was read")
            is_right(guest, "every page is right")
            guest.kill()


def source_hangs():
    """It is told to let go and does not: in the end it is killed."""
    new, pager = two_versions(worker_fault="RELEASE_SESSION!pause;", heartbeat_interval=0)
    with pager:
        image = pager.image(size="4M", seed=6)
        with pager.restore(image, "a") as guest, pager.restore(image, "b") as other:
            status, code, _ = error_of_move(pager, "a", new, "?timeout=300ms")
            tap.is_((status, code), (504, "timeout"), "a worker does not let go in time")
            tap.is_(pager.show("a")["state"], "moving", "it is on its way")
            tap.is_(error_of_move(pager, "a", new)[:2], (409, "state"), "once is enough")
            pager.log.wait("it does not let go of a session")
            pager.log.wait("handoff to v%s: over, moved=1 failed=0 left=0" % new)
            tap.is_([pager.wait(n, "serving")["version"] for n in "ab"], [new, OLD],
                    "the worker is killed, and each has another")
            is_right(guest, "every page is right")
            is_right(other, "of both")


def target_hangs():
    new, pager = two_versions(worker_fault=";ADOPT_SESSION!pause;", heartbeat_interval="100ms",
                              heartbeat_misses=20)
    with pager:
        image = pager.image(size="4M", seed=6)
        with pager.restore(image, "a") as guest:
            guest.cmd("start rand write")
            tap.is_(move(pager, "a", new)["version"], new, "a worker that adopts hangs: another does")
            pager.log.wait("killed by SIGKILL: it does not answer heartbeats")
            tap.is_(guest.cmd("stop")["wrong"], 0, "nothing wrong was read")
            is_right(guest, "every page is right")


if __name__ == "__main__":
    tap.needs_root()
    tap.run(back_and_forth, to_a_worker_that_ends, upgrade_moves_all, caller_hangs_up, races,
            vmm_exits, refused, target_does_not_start, target_dies, target_always_dies,
            source_dies, source_hangs, target_hangs)
