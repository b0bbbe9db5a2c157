#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
# builds: plain asan
"""The supervisor ends, told to or not: guests are served on, and without guests nothing
stays behind."""
import functools
import http.client
import os
import signal
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
import pagerd  # noqa: E402
import tap  # noqa: E402
import vmm  # noqa: E402

V = pagerd.VERSION


def sockets_below(directory):
    return sorted(os.path.relpath(os.path.join(where, name), directory)
                  for where, _, names in os.walk(directory) for name in names if name != "lock")


def nothing_left(pager, pids):
    tap.ok(all(pagerd.wait_gone(pid) for pid in pids), "its workers have ended")
    tap.is_(pager.worker_pids(), [], "no process is left")
    tap.is_(sockets_below(pager.run), [], "nor a socket")


def without_sessions(sig):
    with pagerd.Pagerd() as pager:
        image = pager.image(size="1M", seed=2)
        with pager.restore(image, "a") as guest:
            guest.cmd("verify")
            pager.complete("a")
            pid = pager.worker_pid()
            tap.is_(pager.stop(sig), 0, "%s without sessions: exit code 0" % sig.name)
            nothing_left(pager, [pid])
            tap.is_(guest.cmd("verify")["wrong"], 0, "a guest that has graduated runs on")
        tap.ok(pager.log.find("pid=%d: exited with code 0, .*as it was told" % pid),
               "the worker was seen off")


def without_anything():
    with pagerd.Pagerd() as pager:
        tap.is_(pager.stop(), 0, "SIGTERM right after the start: exit code 0")
        nothing_left(pager, [])
        pager.start()
        tap.is_(pager.call("GET", "/health")["sessions"], 0, "it starts again where it was")


def with_guests(sig):
    with pagerd.Pagerd() as pager:
        image = pager.image(size="32M", seed=3, holes=100, zeros=50)
        guests = [pager.restore(image, "g%d" % i, engine=engine, vcpus=2)
                  for i, engine in enumerate(vmm.engines())]
        for guest in guests:
            guest.cmd("discard rand count=50 seed=9")
            guest.cmd("start rand write")
        pid = pager.worker_pid()
        code = pager.stop(sig)
        tap.is_(code, 0 if sig == signal.SIGTERM else -sig, "%s with guests" % sig.name)
        tap.is_(pager.worker_pids(), [pid], "their worker lives")
        for guest in guests:
            before = guest.cmd("status")["progress"]
            guest.wait_status(lambda s, n=before: s["progress"] > n)
            # Pages that it is writing to at that moment are left out.
            done = guest.cmd("discard rand count=200 seed=10")
            tap.is_(done["calls"] + done["skipped"], 200, "a guest runs and discards")
        tap.is_([g.cmd("stop")["wrong"] for g in guests], [0] * len(guests), "nothing wrong is read")
        tap.is_([g.cmd("verify")["wrong"] for g in guests], [0] * len(guests),
                "pages that were never touched are served, and right")
        status = pagerd.status_of(pid)
        tap.is_((status["Seccomp"], int(status["CapEff"], 16)), ("2", 0), "confined as ever")
        for guest in guests:
            guest.kill()


def told_with_guests():
    with pagerd.Pagerd() as pager:
        image = pager.image(size="1M", seed=3)
        with pager.restore(image, "a") as guest:
            pager.create(image.path, id="waiting")
            tap.is_(pager.stop(), 0, "SIGTERM with a session that waits for its VMM")
            tap.like(pager.log.text(), r"stopped; workers=1 keep sessions=2",
                     "neither that session ends nor the one with a guest")
            tap.is_([s for s in sockets_below(pager.run)
                     if not s.startswith(("workers/", "state/"))], ["sessions/waiting.sock"],
                    "where a VMM can still connect")
            tap.is_(guest.cmd("verify")["wrong"], 0, "the guest is served")


def clients_that_wait():
    """Who waits for an answer is hung up on; what it asked for is undone."""
    with pagerd.Pagerd(worker_fault="POPULATE_CHUNK:2!pause") as pager:
        image = pager.image(in_memory=True, size="64M", seed=4)
        with pager.restore(image, "a") as guest:
            pid = pager.worker_pid()
            pager.create(image.path, id="b")
            calls = [pagerd.Pending(pager.wait, "b", "serving"),
                     pagerd.Pending(pager.wait, "a", "closed"),
                     pagerd.Pending(pager.complete, "a")]
            pager.until(lambda: pagerd.is_stopped(pid))
            tap.is_(pager.stop(), 0, "SIGTERM with clients that wait, and a completion")
            for call in calls:
                try:
                    tap.ok(False, "they are hung up on", call.end())
                except (http.client.HTTPException, OSError) as error:
                    tap.ok(not isinstance(error, TimeoutError), "they are hung up on")
            os.kill(pid, signal.SIGCONT)
            tap.is_(guest.cmd("verify")["wrong"], 0, "the guest has all its memory")
            guest.cmd("write rand count=500")
            tap.is_(guest.cmd("discard rand count=200")["calls"], 200, "discards")
            tap.is_(guest.cmd("verify")["wrong"], 0, "and is right")


def told_twice():
    with pagerd.Pagerd({"9.0.0": os.path.join(vmm.BUILD, "tests", "fake", "fake_worker")},
                       start=False) as pager:
        pager.install_fake("9.1.0", "mute=drain")
        pager.start()
        image = pager.image(size="64K")
        pager.create(image.path, id="a")
        pager.close_session("a")
        pid = pager.worker_pid("9.1.0")
        pager.process.send_signal(signal.SIGTERM)
        pager.log.wait(r"pid=%d: DRAINING -> STOPPING" % pid)
        tap.is_(pager.process.poll(), None, "an idle worker that does not end is waited for")
        tap.is_(pager.stop(), 0, "unless it is told twice")
        tap.ok(pagerd.wait_gone(pid), "which the worker notices by its link")


def reload():
    with pagerd.Pagerd(start=False) as pager:
        config = os.path.join(pager.dir, "pagerd.conf")
        with open(config, "w", encoding="ascii") as f:
            f.write("max-sessions = 1\n")
        pager.options["config"] = config
        pager.start()
        image = pager.image(size="1M", seed=5)
        with pager.restore(image, "a") as guest:
            guest.cmd("start rand write")
            tap.is_(pager.error_of("POST", "/sessions", {"image": image.path})[:2], (503, "full"),
                    "one session is the limit")
            with open(config, "w", encoding="ascii") as f:
                f.write("max-sessions = 2\n")
            pager.process.send_signal(signal.SIGHUP)
            pager.log.wait("reload: ")
            tap.is_(pager.create(image.path)["state"], "created", "after a reload it is two")
            with open(config, "w", encoding="ascii") as f:
                f.write("max-sessions = many\n")
            pager.process.send_signal(signal.SIGHUP)
            pager.log.wait("<3>.*reload: .*max-sessions")
            tap.is_(pager.error_of("POST", "/sessions", {"image": image.path})[:2], (503, "full"),
                    "what is wrong is refused and changes nothing")
            tap.is_(guest.cmd("stop")["wrong"], 0, "the guest does not notice")


if __name__ == "__main__":
    tap.needs_root()
    tap.run(functools.partial(without_sessions, signal.SIGTERM),
            functools.partial(without_sessions, signal.SIGINT), without_anything,
            functools.partial(with_guests, signal.SIGTERM),
            functools.partial(with_guests, signal.SIGKILL), told_with_guests, clients_that_wait,
            told_twice, reload)
