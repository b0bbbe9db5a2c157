#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
# builds: plain asan
"""A worker that breaks the rules of the link, or of good behaviour, loses its life; the
supervisor answers on and another version's guest does not notice."""
import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
import pagerd  # noqa: E402
import stage  # noqa: E402
import tap  # noqa: E402
import vmm  # noqa: E402

FAKE = os.path.join(vmm.BUILD, "tests", "fake", "fake_worker")
# What it sends when a session is opened, and what its death is put down to.
MALFORMED = (
    ("short", "not one flat msgpack array"),
    ("long", "not one flat msgpack array"),
    ("bomb", "not one flat msgpack array"),
    ("garbage", "not one flat msgpack array"),
    ("type", "a field of the wrong type, range or length"),
    ("count", "wrong number of fields"),
    ("code", "unknown message code"),
    ("direction", "a message that this peer must not send"),
    ("fds", "wrong number of descriptors"),
    ("no-fds", "wrong number of descriptors"),
    ("truncated", "a frame or its descriptors cut short"),
)
LIES = (
    ("hello", "HELLO"),
    ("stranger", "SESSION_COMPLETED that makes no sense"),
    ("serving", "SESSION_SERVING that makes no sense"),
    ("alarms", "SESSION_ALARM that makes no sense"),
    ("flood", "PONG that makes no sense"),
)
DEATHS = (
    ("die", "exited with code 3"),
    ("exit", "exited with code 0"),
    ("crash", "killed by SIGSEGV"),
    ("hang-up", "it let go of its link and did not exit|it closed the link|killed by SIGKILL"),
)


def bad_stage(scripts, **options):
    """A stage whose pagerd has, besides the real version, one for each script."""
    options = dict({"spawn_backoff_max": "5ms", "current": pagerd.VERSION}, **options)
    on = stage.Stage(start=False, **options)
    for i, script in enumerate(scripts):
        on.pager.install_fake("9.%d.0" % i, script)
    on.pager.start()
    return on


def upgrade(pager, version):
    return pager.call("POST", "/upgrade", {"version": version})


def at_open(deeds):
    """Each worker that the session is given to does it, until its time is over."""
    with bad_stage(["bad=%s on=open" % deed for deed, _ in deeds]) as on:
        pager = on.pager
        for i, (deed, cause) in enumerate(deeds):
            version = "9.%d.0" % i
            upgrade(pager, version)
            mark = pager.log.mark()
            status, code, why = pager.error_of("POST", "/sessions", {
                "image": on.image.path, "id": deed, "handshake_timeout_ms": 300})
            # Whichever comes first: its time is over, or too many workers have died with it.
            tap.ok((status, code) in ((409, "ended"), (503, "worker")),
                   "%s: the session is given up" % deed, "%s %s" % (status, code))
            tap.like(why, "timed-out: no worker took it within 300 ms"
                     "|one worker after another died while it waited", "and its client told")
            tap.ok(pager.log.wait(r"child \d+ v%s pid=\d+: .*(%s)" % (version, cause), mark),
                   "the log names the worker and %s" % cause)
        # The neighbour's version has been draining since the first upgrade.
        tap.is_(pager.versions()[pagerd.VERSION]["pid"], on.worker, "the good worker is the same")
        tap.ok(on.is_neighbour_fine(), "its guest works")
        upgrade(pager, pagerd.VERSION)
        with pager.restore(on.image, "new") as guest:
            tap.is_(guest.cmd("verify")["wrong"], 0, "the good version serves new sessions")
        leftovers = [row["pid"] for v, row in pager.versions().items()
                     if row["pid"] and v[0] == "9"]
        tap.ok(all(pagerd.wait_gone(pid) for pid in leftovers), "no bad worker is left")


def malformed():
    at_open(MALFORMED)


def lies():
    at_open(LIES)


def deaths():
    at_open(DEATHS)


def one_after_another():
    with bad_stage(["bad=die on=open"]) as on:
        upgrade(on.pager, "9.0.0")
        status, code, why = on.pager.error_of("POST", "/sessions", {"image": on.image.path})
        tap.is_((status, code), (503, "worker"), "worker after worker dies of a session")
        tap.like(why, "one worker after another died while it waited for its VMM",
                 "it is not given to another for ever")


def refusals():
    """Rude, but within the rules."""
    with bad_stage(["error=24", "mute=open", "bad=talk on=open"]) as on:
        pager = on.pager
        upgrade(pager, "9.0.0")
        status, code, why = pager.error_of("POST", "/sessions", {"image": on.image.path})
        tap.is_((status, code), (503, "worker"), "a worker that will not take the session")
        tap.like(why, "worker v9.0.0 would not take it: Too many open files", "says why")
        upgrade(pager, "9.1.0")
        status, code, why = pager.error_of(
            "POST", "/sessions", {"image": on.image.path, "handshake_timeout_ms": 200})
        tap.is_((status, code), (409, "ended"), "one that never answers")
        tap.like(why, "timed-out: no worker took it within 200 ms", "is not waited for")
        upgrade(pager, "9.2.0")
        tap.is_(pager.create(on.image.path, id="talk")["state"], "created",
                "one that talks without end serves nevertheless")
        said = sum("line" in line and "of nonsense" in line for line in pager.log.lines)
        tap.ok(0 < said < 1000, "and does not fill the log", said)
        tap.ok(not any("\033" in line for line in pager.log.lines), "nor paint it")
        tap.ok(on.is_neighbour_fine(), "the neighbour's guest works")


def heartbeats():
    with bad_stage(["mute=ping", "bad=garbage on=ping", "bad=stranger on=ping"],
                   heartbeat_interval="30ms", heartbeat_misses=70) as on:
        pager = on.pager
        for version, cause in (("9.0.0", "it does not answer heartbeats"),
                               ("9.1.0", "malformed frame: not one flat msgpack array"),
                               ("9.2.0", "SESSION_COMPLETED that makes no sense")):
            upgrade(pager, version)
            pager.log.wait(r"v%s pid=\d+: READY -> KILLING on .*%s" % (version, cause))
            pager.log.wait(r"v%s pid=\d+: KILLING -> GONE on EXITED" % version)
            tap.ok(True, "at a heartbeat: %s" % cause)
        tap.ok(on.is_neighbour_fine(), "the neighbour's guest works")


def deaf_to_drain():
    with bad_stage(["mute=drain", "bad=garbage on=drain"]) as on:
        pager = on.pager
        upgrade(pager, "9.1.0")
        upgrade(pager, "9.0.0")
        pager.log.wait(r"v9.1.0 pid=\d+: KILLING -> GONE|v9.1.0 pid=\d+: .* -> GONE on EXITED")
        tap.ok(True, "one that answers a drain with garbage is gone")
        pid = pager.worker_pid("9.0.0")
        upgrade(pager, pagerd.VERSION)
        for case in (malformed, lies, deaths, one_after_another, refusals, heartbeats):
            case()  # while the time goes by that it has
        pager.log.wait(r"v9.0.0 pid=%d: STOPPING -> KILLING on DEADLINE" % pid)
        tap.ok(pagerd.wait_gone(pid), "one that ignores it is killed after its time")
        tap.ok(on.is_neighbour_fine(), "the neighbour's guest works")


if __name__ == "__main__":
    tap.needs_root()
    tap.run(deaf_to_drain)
