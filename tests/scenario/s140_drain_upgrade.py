#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Two versions at once: upgrade, drain, downgrade, and versions that cannot start."""
import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
import pagerd  # noqa: E402
import tap  # noqa: E402
import vmm  # noqa: E402

OLD = pagerd.VERSION
HANGS = "bad=hang on=start"
# What a worker may do instead of starting, and what is said of it.
BROKEN = (
    ("bad=die on=start", r"exited with code 3.*last words: \"fake: dying as my script says\""),
    ("bad=exit on=start", r"exited with code 0"),
    ("bad=crash on=start", r"killed by SIGSEGV"),
    (HANGS, r"killed by SIGKILL: it did not say HELLO in time"),
    ("bad=hang-up on=start", r"killed by SIGKILL: it let go of its link and did not exit"),
    ("bad=garbage on=start", r"malformed frame: not one flat msgpack array"),
    ("bad=stranger on=start", r"SESSION_COMPLETED before HELLO"),
    ("version=9.9.9", r"installed as 9\.7\.0 but is version 9\.9\.9"),
    ("protocol=7", r"speaks protocol 7, not 1"),
    ("sessions=3", r"HELLO that makes no sense"),
)


def rendezvous(pager):
    return sorted(os.listdir(os.path.join(pager.run, "workers")))


def upgrade(pager, version):
    return pager.call("POST", "/upgrade", {"version": version})


def live_upgrade():
    new, worker = pagerd.other_version()
    with pagerd.Pagerd({OLD: pagerd.program("pager-worker"), new: worker},
                       current=OLD) as pager:
        image = pager.image(size="32M", seed=3, holes=100)
        guest_a = pager.restore(image, "a", vcpus=2)
        late = pager.create(image.path, id="late")
        guest_a.cmd("start rand write")
        old_pid = pager.worker_pid(OLD)
        tap.is_(upgrade(pager, new), {"version": new, "previous": OLD}, "upgrade to %s" % new)
        rows = pager.versions()
        tap.is_([(rows[v]["state"], rows[v]["current"], rows[v]["draining"], rows[v]["sessions"])
                 for v in (OLD, new)],
                [("draining", False, True, 2), ("ready", True, False, 0)], "the old one drains")
        tap.is_(rows[OLD]["pid"], old_pid, "and is the same process")
        guest_c = pager.restore(image, "c")
        tap.is_([pager.show(i)["version"] for i in ("a", "late", "c")], [OLD, OLD, new],
                "a new session goes to the new one")
        with vmm.Vmm(image, socket=late["socket_path"]) as guest_late:
            tap.is_(pager.wait("late", "serving")["version"], OLD,
                    "a VMM that comes late is served by the old one")
            tap.is_(guest_late.cmd("verify")["wrong"], 0, "and right")
        pager.wait("late", "closed")
        sockets = rendezvous(pager)
        tap.is_(len(sockets), 2, "each worker has its own socket: %s" % sockets)
        tap.is_(pager.complete("a")["outcome"], "graduated", "its last session graduates")
        tap.ok(pagerd.wait_gone(old_pid), "then the old worker ends")
        pager.log.wait(r"v%s pid=%d: STOPPING -> GONE on EXITED" % (OLD.replace(".", r"\."), old_pid))
        pager.log.wait(r"pid=%d: exited with code 0, .*as it was told" % old_pid)
        pager.turn()
        tap.ok(not os.path.exists("/proc/%d" % old_pid), "is reaped")
        tap.is_(len(rendezvous(pager)), 1, "its socket is removed")
        row = pager.versions()[OLD]
        tap.is_((row["state"], row["pid"], row["installed"], row["retry_in_ms"]),
                ("not-running", None, True, 0), "and it is only installed")
        stopped = guest_a.cmd("stop")
        tap.ok(stopped["wrong"] == 0 and stopped["loops"] > 0, "the guest ran all along", stopped)
        tap.is_([g.cmd("verify")["wrong"] for g in (guest_a, guest_c)], [0, 0], "all is right")
        downgrade(pager, image, new, guest_c)
        guest_a.kill()
        guest_c.kill()


def downgrade(pager, image, new, guest_c):
    tap.is_(upgrade(pager, OLD), {"version": OLD, "previous": new}, "back to %s" % OLD)
    with pager.restore(image, "d") as guest:
        tap.is_(pager.show("d")["version"], OLD, "which gets the new sessions")
        tap.is_(guest.cmd("verify")["wrong"], 0, "and serves them")
        tap.is_(guest_c.cmd("verify")["wrong"], 0, "%s keeps what it has" % new)
        pid = pager.worker_pid(new)
        pager.close_session("c")
        tap.ok(pagerd.wait_gone(pid), "until its last session is closed")
    tap.is_(upgrade(pager, OLD), {"version": OLD, "previous": OLD},
            "an upgrade to the current version changes nothing")


def drain_empty():
    with pagerd.Pagerd() as pager:
        image = pager.image(size="1M")
        tap.is_(pager.error_of("POST", "/drain", {"version": OLD})[:2], (404, "not-found"),
                "a version that does not run cannot be drained")
        pager.create(image.path, id="a")
        pager.close_session("a")
        pid = pager.worker_pid()
        tap.is_(pager.call("POST", "/drain", {"version": OLD}), {"version": OLD, "sessions": 0},
                "drain without sessions")
        tap.ok(pagerd.wait_gone(pid), "ends the worker at once")
        pager.log.wait("pid=%d: exited with code 0, .*as it was told" % pid)
        pager.turn()
        tap.is_(rendezvous(pager), [], "and its socket")
        tap.is_(pager.create(image.path, id="b")["state"], "created", "the next session starts it")
        tap.ok(pager.worker_pid() != pid, "anew")


def drain_with_sessions():
    with pagerd.Pagerd() as pager:
        image = pager.image(size="8M", seed=4)
        guests = [pager.restore(image, name) for name in "ab"]
        pid = pager.worker_pid()
        for _ in range(2):
            tap.is_(pager.call("POST", "/drain", {"version": OLD}),
                    {"version": OLD, "sessions": 2}, "drain with sessions")
        status, code, why = pager.error_of("POST", "/sessions", {"image": image.path})
        tap.is_((status, code), (503, "worker"), "a new session is refused meanwhile")
        tap.like(why, "version %s is draining; upgrade to another version or wait" % OLD,
                 "with the remedy")
        tap.is_([g.cmd("verify")["wrong"] for g in guests], [0, 0], "the sessions are served")
        pager.close_session("a")
        tap.is_(pager.versions()[OLD]["pid"], pid, "as long as there is one")
        guests[1].kill()
        tap.ok(pagerd.wait_gone(pid), "the worker ends with the last VMM")
        guests[0].kill()


def drain_while_starting():
    with pagerd.Pagerd({"9.1.0": os.path.join(vmm.BUILD, "tests", "fake", "fake_worker")},
                       hello_timeout="60s") as pager:
        pager.install_fake("9.2.0", "bad=hang on=start")
        call = pagerd.Pending(pager.error_of, "POST", "/upgrade", {"version": "9.2.0"})
        pager.log.wait("v9.2.0 pid=.*: upgrade: becomes current when it is ready")
        tap.is_(pager.error_of("POST", "/upgrade", {"version": "9.1.0"})[:2], (409, "busy"),
                "one upgrade at a time")
        pid = pager.worker_pid("9.2.0")
        tap.is_(pager.call("POST", "/drain", {"version": "9.2.0"})["sessions"], 0,
                "a version that is starting is drained")
        status, code, why = call.end()
        tap.is_((status, code), (500, "failed"), "its upgrade ends")
        tap.like(why, "told to drain before it was ready; nothing has changed", "for that reason")
        tap.ok(pagerd.wait_gone(pid), "so does the process")


def caller_hangs_up():
    with pagerd.Pagerd({"9.1.0": os.path.join(vmm.BUILD, "tests", "fake", "fake_worker")},
                       current="9.1.0") as pager:
        pager.install_fake("9.2.0", "")
        with pager.raw() as connection:
            body = b'{"version": "9.2.0"}'
            connection.sendall(b"POST /upgrade HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%s"
                               % (len(body), body))
            pager.log.wait("v9.2.0 pid=.*: STARTING")
        pager.log.wait("fleet: current version is 9.2.0, was 9.1.0")
        tap.ok(pager.versions()["9.2.0"]["current"], "an upgrade goes on without its caller")


def bad_requests():
    with pagerd.Pagerd() as pager:
        for route in ("/upgrade", "/drain"):
            for body in ({}, {"version": 1}, {"version": ""}, {"version": "../0.1.0"},
                         {"version": "x" * 300}, {"version": "new"}, {"version": None},
                         {"version": OLD, "hurry": True}, [OLD], b"{", b"\xff\xfe"):
                status, code, why = pager.error_of("POST", route, body)
                tap.ok((status, code) == (400, "bad-request") and why,
                       "%s refuses %.40r" % (route, body), (status, code, why))
        status, code, why = pager.error_of("POST", "/upgrade", {"version": "7.7.7"})
        tap.is_((status, code), (404, "not-found"), "an upgrade to what is not installed")
        tap.like(why, "version 7.7.7 is not installed: %s/7.7.7/pager-worker" % pager.workers,
                 "names the place")


def broken_versions():
    with pagerd.Pagerd(start=False, current=OLD) as pager:
        for i, (script, _) in enumerate(BROKEN):
            pager.install_fake("9.%d.0" % i, script)
        pager.install("8.0.0", "/etc/passwd")
        pager.start()
        image = pager.image(size="8M", seed=5)
        guest = pager.restore(image, "a")
        guest.cmd("start rand write")
        pid = pager.worker_pid(OLD)
        before = pager.fds()
        for i, (script, reason) in enumerate(BROKEN):
            version = "9.%d.0" % i
            patience = "300ms" if script == HANGS else "2m"
            pager.call("PATCH", "/config", {"hello-timeout": patience})
            status, code, why = pager.error_of("POST", "/upgrade", {"version": version})
            tap.is_((status, code), (500, "failed"), "upgrade to a worker of %s" % script)
            tap.like(why, r"^version %s did not start: .*%s" % (version, reason), "says why")
            tap.like(why, "; nothing has changed$", "and that nothing has changed")
            pager.log.wait("upgrade: version %s did not start: .*; version %s stays current"
                           % (version, OLD))
        not_a_program(pager)
        rows = pager.versions()
        tap.is_([v for v, row in rows.items() if row["current"]], [OLD], "%s is current" % OLD)
        tap.is_([v for v, row in rows.items() if row["pid"]], [OLD], "and alone")
        tap.ok(all(rows["9.%d.0" % i]["retry_in_ms"] >= 0 for i in range(len(BROKEN))),
               "the others may be tried again")
        tap.is_((rows[OLD]["state"], rows[OLD]["pid"]), ("ready", pid), "its worker is the same")
        tap.is_(len(rendezvous(pager)), 1, "no socket is left of the others")
        pager.ok_fds(pager.process.pid, before, "nor a descriptor")
        tap.is_(guest.cmd("stop")["wrong"], 0, "the guest read nothing wrong")
        with pager.restore(image, "b") as other:
            tap.is_(pager.show("b")["version"], OLD, "a new session goes to %s" % OLD)
            tap.is_(other.cmd("verify")["wrong"], 0, "and is served")
        guest.kill()


def not_a_program(pager):
    target = os.path.join(pager.workers, "8.0.0", "pager-worker")
    status, code, why = pager.error_of("POST", "/upgrade", {"version": "8.0.0"})
    tap.is_((status, code), (500, "failed"), "upgrade to what is no program")
    tap.like(why, "cannot execute it: Exec format error", "says why")
    os.chmod(target, 0o757)
    tap.like(pager.error_of("POST", "/upgrade", {"version": "8.0.0"})[2],
             r"can be written by others \(mode 0757\); remove that permission",
             "what others can change is not started")
    os.chmod(target, 0o644)
    tap.is_(pager.error_of("POST", "/upgrade", {"version": "8.0.0"})[0], 404,
            "nor what is not executable")
    os.unlink(target)
    os.symlink(pagerd.program("pager-worker"), target)
    tap.is_(pager.error_of("POST", "/upgrade", {"version": "8.0.0"})[0], 404, "nor a link")


if __name__ == "__main__":
    tap.needs_root()
    tap.run(live_upgrade, drain_empty, drain_with_sessions, drain_while_starting,
            caller_hangs_up, bad_requests, broken_versions)
