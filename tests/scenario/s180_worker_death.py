#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
# builds: plain asan
"""Workers that die: while they start, wait, serve, complete and drain.  The supervisor
stays, another worker takes over, and a guest at most waits."""
import functools
import json
import os
import re
import signal
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
import handshake  # noqa: E402
import pagerd  # noqa: E402
import tap  # noqa: E402
import vmm  # noqa: E402

V = pagerd.VERSION
MIB = 1 << 20


def kill(pid, sig=signal.SIGKILL):
    os.kill(pid, sig)
    if sig == signal.SIGKILL:
        pagerd.wait_gone(pid)


def starting():
    with pagerd.Pagerd(worker_fault="WORKER_START;") as pager:
        image = pager.image(size="1M", seed=2)
        session = pager.create(image.path, id="a")
        tap.is_(session["state"], "created", "the first worker dies at its start: another is tried")
        pager.log.wait(r"child 1 v%s pid=\d+: exited with code 70 .*the next start waits 100 ms" % V)
        with vmm.Vmm(image, socket=session["socket_path"]) as guest:
            tap.is_(guest.cmd("verify")["wrong"], 0, "and serves")


def crash_loop():
    """Every start fails: the pauses grow to their bound, and clients are told."""
    with pagerd.Pagerd(worker_fault="WORKER_START", spawn_backoff_max="300ms") as pager:
        image = pager.image(size="1M")
        call = pagerd.Pending(pager.error_of, "POST", "/sessions", {"image": image.path, "id": "a"})
        for ms in (100, 200, 300, 300):
            mark = pager.log.mark()
            pager.log.wait("the next start waits %d ms" % ms)
        row = pager.versions()[V]
        tap.ok(row["retry_in_ms"] <= 300, "the pauses grow: 100, 200, 300 and no longer",
               pager.log.lines[mark:])
        status, code, why = call.end()
        tap.is_((status, code), (503, "worker"), "the session is given up")
        tap.like(why, "worker after another died", "and why")
        status, code, why = pager.error_of("POST", "/sessions", {"image": image.path})
        tap.ok(status in (409, 503) and re.search("keep dying; the next start is in|no worker took",
                                                  why), "so is the next", why)
        tap.is_(pager.call("GET", "/health")["status"], "ok", "the supervisor is well")


def waiting():
    with pagerd.Pagerd() as pager:
        image = pager.image(size="4M", seed=3)
        first = pager.create(image.path, id="a")
        pid, mark = pager.worker_pid(), pager.log.mark()
        kill(pid)
        pager.log.wait("id=a: CREATED -> CREATED on WORKER_LOST", mark)
        pager.log.wait("id=a: CREATED -> CREATED on OPENED", mark)
        tap.ok(pager.worker_pid() != pid, "a worker dies with a session that waits for its VMM")
        tap.is_(pager.show("a")["socket_path"], first["socket_path"], "its socket is the same")
        with vmm.Vmm(image, socket=first["socket_path"]) as guest:
            tap.is_(pager.wait("a", "serving")["state"], "serving", "and leads to another worker")
            tap.is_(guest.cmd("verify")["wrong"], 0, "which serves")


def in_handshake():
    with pagerd.Pagerd() as pager:
        image = pager.image(size="4M", seed=3)
        session = pager.create(image.path, id="a")
        with handshake.Memory(4 * MIB) as memory:
            connection = memory.dial(session["socket_path"])
            pager.log.wait(r"id=a: VMM pid=\d+ has connected")
            kill(pager.worker_pid())
            pager.log.wait("id=a: CREATED -> CREATED on WORKER_LOST")
            handshake.send(connection, json.dumps(memory.regions()).encode(),
                           [memory.uffd])
            tap.is_(pager.wait("a", "serving")["state"], "serving",
                    "a worker dies between the connection and the handshake")
            pager.complete("a")
            with open(image.path, "rb") as f:
                tap.ok(memory.read() == f.read(), "the VMM has its memory all the same")
            connection.close()


def idle():
    with pagerd.Pagerd() as pager:
        image = pager.image(size="1M", seed=3)
        pager.create(image.path, id="a")
        pager.close_session("a")
        before = pager.fds()
        pid = pager.worker_pid()
        kill(pid)
        pager.log.wait(r"pid=%d: killed by SIGKILL" % pid)
        tap.is_(pager.versions()[V]["pid"], None, "a worker without sessions dies")
        tap.ok(pager.fds() < before, "the supervisor lets go of it")
        with pager.restore(image, "b") as guest:
            tap.is_(guest.cmd("verify")["wrong"], 0, "the next session starts another")


def serving(engine):
    with pagerd.Pagerd() as pager:
        image = pager.image(size="32M", seed=4, holes=100, zeros=100)
        guests = [pager.restore(image, name, engine=engine, vcpus=2) for name in "abc"]
        for guest in guests:
            guest.cmd("discard rand count=100 seed=3")
            guest.cmd("start rand write")
        for i in range(3):
            mark, pid = pager.log.mark(), pager.worker_pid()
            kill(pid)
            for name in "abc":
                pager.log.wait("<4>.*id=%s: SERVING -> ADOPTING on WORKER_LOST" % name, mark)
                pager.wait(name, "serving")
            tap.ok(pager.worker_pid() != pid, "%s: the worker is killed, time %d" % (engine, i + 1))
            for guest in guests:
                before = guest.cmd("status")["progress"]
                guest.wait_status(lambda s, n=before: s["progress"] > n)
            # Pages that they are writing to at that moment are left out.
            done = [g.cmd("discard rand count=20 seed=%d" % i) for g in guests]
            tap.is_([d["calls"] + d["skipped"] for d in done], [20] * 3, "guests run and discard")
        stopped = [g.cmd("stop") for g in guests]
        tap.is_([s["wrong"] for s in stopped], [0] * 3, "they have read nothing wrong")
        tap.is_([g.cmd("verify")["wrong"] for g in guests], [0] * 3, "and all memory is right")
        tap.is_([pager.complete(n)["state"] for n in "abc"], ["graduated"] * 3, "they graduate")
        tap.is_([g.cmd("verify")["wrong"] for g in guests], [0] * 3, "with every page right")
        for guest in guests:
            guest.kill()


def nobody_adopts():
    """Without a worker a guest waits.  It is not given zeros."""
    with pagerd.Pagerd() as pager:
        image = pager.image(size="32M", seed=5)
        program = os.path.join(pager.workers, V, "pager-worker")
        guest = pager.restore(image, "a", vcpus=2)
        other = pager.restore(image, "b")
        guest.cmd("write rand count=500")
        pid = pager.worker_pid()
        os.rename(program, program + ".away")
        kill(pid)
        pager.log.wait("<4>.*id=a: SERVING -> ADOPTING on WORKER_LOST: worker v%s died: killed by "
                       "SIGKILL" % V)
        tap.is_([pager.show(n)["state"] for n in "ab"], ["adopting"] * 2,
                "nobody can take the sessions")
        kinds = list(pagerd.fds_of(pager.process.pid).values())
        tap.ok(kinds.count("anon_inode:[userfaultfd]") >= 2, "the supervisor holds their memory",
               kinds)
        guest.send("verify")
        status = guest.wait_status(lambda s: s["blocked"] == 2)
        tap.is_((status["state"], status["total_wrong"]), ("verify", 0),
                "the guest waits, and has read nothing wrong")
        tap.is_(pager.error_of("POST", "/sessions/a/complete")[:2], (409, "state"),
                "it cannot be completed meanwhile")
        tap.is_(pager.close_session("b")["outcome"], "closed", "but it can be closed")
        pager.until(lambda: list(pagerd.fds_of(pager.process.pid).values()).count(
            "anon_inode:[userfaultfd]") == kinds.count("anon_inode:[userfaultfd]") - 1)
        tap.ok(True, "which lets go of its memory")
        os.rename(program + ".away", program)
        tap.is_(pager.wait("a", "serving")["state"], "serving", "until there is a worker")
        answer = guest.answer()
        tap.is_((answer["wrong"], answer["pages"]), (0, 8192), "then the guest goes on, right")
        guest.kill()
        other.kill()
        tap.is_(pager.wait("a", "closed")["outcome"], "vmm-exited", "and ends as ever")


def vmm_exits_meanwhile():
    with pagerd.Pagerd() as pager:
        image = pager.image(size="4M", seed=5)
        program = os.path.join(pager.workers, V, "pager-worker")
        guest = pager.restore(image, "a")
        os.rename(program, program + ".away")
        kill(pager.worker_pid())
        pager.log.wait("id=a: SERVING -> ADOPTING")
        guest.kill()
        tap.is_(pager.wait("a", "closed")["outcome"], "vmm-exited",
                "a VMM that exits while nobody serves it")
        tap.is_(pager.call("GET", "/health")["sessions"], 0, "is not waited for")


def completing():
    with pagerd.Pagerd(worker_fault="POPULATE_CHUNK:3!kill;") as pager:
        image = pager.image(in_memory=True, size="64M", seed=6, holes=50)
        with pager.restore(image, "a", vcpus=2) as guest:
            # It is not to have touched everything before the completion has come so far.
            guest.cmd("start rand write period=5000 burst=2")
            status, code, why = pager.error_of("POST", "/sessions/a/complete")
            tap.is_((status, code), (500, "failed"), "a worker dies in a completion")
            tap.like(why, "its worker died|the link to its worker is lost", "its caller is told")
            pager.log.wait("id=a: ADOPTING -> SERVING on ADOPTED")
            tap.is_(pager.show("a")["state"], "serving", "the session is served again")
            tap.is_(pager.complete("a")["state"], "graduated", "and can be completed")
            tap.is_(guest.cmd("stop")["wrong"], 0, "the guest has read nothing wrong")
            tap.is_(guest.cmd("verify")["wrong"], 0, "and every page is right")


def draining():
    new, worker = pagerd.other_version()
    with pagerd.Pagerd({V: pagerd.program("pager-worker"), new: worker}, current=V) as pager:
        image = pager.image(size="8M", seed=7)
        with pager.restore(image, "a") as guest:
            guest.cmd("start rand write")
            pager.call("POST", "/upgrade", {"version": new})
            pid = pager.worker_pid(V)
            mark = pager.log.mark()
            kill(pid)
            pager.log.wait("id=a: ADOPTING -> SERVING on ADOPTED", mark)
            session = pager.wait("a", "serving")
            tap.ok(session["version"] in (V, new), "a draining worker dies: v%s adopts its session"
                   % session["version"])
            tap.is_(guest.cmd("stop")["wrong"], 0, "the guest has read nothing wrong")
            tap.is_(guest.cmd("verify")["wrong"], 0, "and is right")
            pid = pager.worker_pid(session["version"])
            pager.complete("a")
        rows = pager.versions()
        tap.is_(rows[new]["current"], True, "v%s is current, as it was" % new)
        if session["version"] == V:
            tap.ok(pagerd.wait_gone(pid), "the one that adopted drains and ends")
        else:
            tap.is_(rows[V]["pid"], None, "v%s is gone" % V)


def hung():
    with pagerd.Pagerd(heartbeat_interval="100ms", heartbeat_misses=20) as pager:
        image = pager.image(size="4M", seed=7)
        with pager.restore(image, "a") as guest:
            guest.cmd("touch rand count=100")
            pid, mark = pager.worker_pid(), pager.log.mark()
            kill(pid, signal.SIGSTOP)
            pager.log.wait(r"<3>.*pid=%d: hung: heartbeats_missed=20, serving=1; killed" % pid)
            tap.ok(pagerd.wait_gone(pid), "a worker that hangs is killed")
            pager.log.wait("id=a: ADOPTING -> SERVING on ADOPTED", mark)
            tap.is_(guest.cmd("verify")["wrong"], 0, "and another one serves")
            tap.ok(pager.worker_pid() != pid, "which is a new one")


if __name__ == "__main__":
    tap.needs_root()
    tap.run(starting, crash_loop, waiting, in_handshake, idle,
            *[functools.partial(serving, e) for e in vmm.engines()],
            nobody_adopts, vmm_exits_meanwhile, completing, draining, hung)
