#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
# builds: plain asan
"""A restore in trouble: a load that never ends leaves time for the file backend, a hot list that
cannot be used is complained of, and a Firecracker that talks nonsense fails at the step it is at."""
import json
import os
import signal
import subprocess
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
import answers  # noqa: E402
import firecracker  # noqa: E402
import pagerd  # noqa: E402
import tap  # noqa: E402

OK, FAILED, USAGE, UNREACHABLE, NOT_FOUND, TIMEOUT, CONFLICT = range(7)
LOAD, RESUME = "PUT /snapshot/load", "PATCH /vm"


def stuck_load():
    """All of the time is used up by a load that hangs; its Firecracker is replaced, as whoever
    keeps it would, and has the same time for the file."""
    with pagerd.Pagerd() as pager:
        image = pager.image(size="4M", seed=5)
        with firecracker.Fake(pager, image, "first", at={LOAD: "mute"}) as first, \
                firecracker.Fake(pager, image, "second") as second:
            process = subprocess.Popen(
                [pagerd.program("pagerctl"), "--socket", pager.socket, "--json", "restore",
                 *first.restore(), "--id", "a", "--fallback", "file", "--timeout", "6s"],
                stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
            first.wait(LOAD)
            first.process.send_signal(signal.SIGSTOP)
            tap.is_(pager.wait("a", "closed")["outcome"], "closed", "a load that hangs is given up")
            os.rename(second.socket, first.socket)
            first.process.kill()
            out, err = process.communicate(timeout=pagerd.DEADLINE_S)
            answer = json.loads(out)
            tap.is_((process.returncode, err, answer["backend"]), (OK, "", "file"),
                    "and the file backend has its time yet")
            tap.like(answer["fallback_from"], "^load: Firecracker had neither loaded .* in time",
                     "  it is said why")
            tap.is_(second.cmd("verify")["wrong"], 0, "  and the guest reads its memory")
            second.socket = first.socket


def nonsense():
    with pagerd.Pagerd() as pager:
        image = pager.image(size="4M", seed=5)
        for what, script, code, why in (
                (LOAD, "garbage", UNREACHABLE, "load: what answers on .* is not Firecracker"),
                (LOAD, "flood", UNREACHABLE, "load: what answers on .* is not Firecracker"),
                (LOAD, "hang-up", UNREACHABLE, "load: Firecracker hung up before"),
                (LOAD, "lie", TIMEOUT, "serve: the session was not served in time"),
                (RESUME, "mute", TIMEOUT, "resume: Firecracker had not answered in time"),
                (RESUME, "half", TIMEOUT, "resume: Firecracker had not answered in time"),
                (RESUME, "garbage", UNREACHABLE, "resume: what answers on .* is not Firecracker"),
                (RESUME, "flood", UNREACHABLE, "resume: what answers on .* is not Firecracker"),
                ("GET /", "list", UNREACHABLE, "firecracker: what answers on .* is not Fire"),
                ("GET /", "lie", UNREACHABLE, "firecracker: what answers on .* is not Fire")):
            with firecracker.Fake(pager, image, at={what: script}) as fc:
                done = pager.ctl("restore", *fc.restore(), "--id", "s", "--timeout",
                                 "4s" if code == TIMEOUT else "2m")
                tap.is_(done.returncode, code, "%s: %s" % (what, script))
                tap.like(done.stderr, "(?m)^pagerctl: restore failed at " + why, "  and says why")
                live = [s["id"] for s in pager.call("GET", "/sessions")["sessions"]
                        if not s["outcome"]]
                tap.is_(live, [], "  and leaves no session")


def hot_lists():
    with pagerd.Pagerd() as pager:
        image = pager.image(size="4M", seed=5)
        bad = os.path.join(pager.images, "bad.hot")
        with open(bad, "wb") as f:
            f.write(b"pagerhot" + b"x" * 100)
        done = pager.ctl("create", "--id", "c", "--hot-list", bad, image.path)
        tap.is_((done.returncode, done.stderr),
                (OK, "pagerctl: no hot list is replayed: %s: it is of a version that is not known "
                 "here\n" % bad), "create complains of a list that cannot be used")
        for words in (["--prefetch", "off", "--hot-list", bad], ["--record"], []):
            done = pager.ctl("create", *words, image.path)
            tap.is_((done.returncode, done.stderr), (OK, ""), "and of nothing: %s" % words[:2])
        with firecracker.Fake(pager, image) as fc:
            done = pager.ctl("restore", *fc.restore(), "--id", "r", "--hot-list", bad + ".none")
            tap.is_(done.returncode, OK, "a restore goes on without its list")
            tap.like(done.stderr, r"^pagerctl: no hot list is replayed: .*bad\.hot\.none: No such "
                     r"file or directory\n$", "  and says so")
            tap.is_(fc.cmd("verify")["wrong"], 0, "  and the guest is right")
        with firecracker.Fake(pager, image) as fc:
            done = pager.ctl("--json", "restore", *fc.restore(), "--id", "j", "--hot-list", bad)
            steps = {s["step"]: s["detail"] for s in json.loads(done.stdout)["steps"]}
            tap.is_((done.returncode, done.stderr), (OK, ""), "--json says it in the step")
            tap.like(steps["session"], "; no hot list is replayed: .*not known here$", "  session")


def many_sessions():
    """A snapshot over an image is refused however long the list of sessions is."""
    with pagerd.Pagerd() as pager:
        image = pager.image(size="4M", seed=5)
        path = os.path.join(pager.dir, "other.sock")
        session = {"id": "x" * 100, "outcome": None, "image": "/none/" + "y" * 3900}
        told = {"/sessions": {"sessions": [session] * 5000 + [
            {"id": "last", "outcome": None, "image": image.path}]}, "/templates": {"templates": []}}
        with firecracker.Fake(pager, image) as fc, answers.Answers(path, told) as server:
            pager.ctl("restore", *fc.restore())
            done = pager.ctl("--socket", path, "pause", "--api-sock", fc.socket, "--snapshot",
                             os.path.join(pager.dir, "s"), "--mem", image.path)
            tap.is_(done.returncode, CONFLICT, "a list of 20 MB is read to its end")
            tap.like(done.stderr, "is the image of session last, whose memory", "  and it is in it")
            server.shutdown()


if __name__ == "__main__":
    tap.needs_root()
    tap.run(stuck_load, nonsense, hot_lists, many_sessions)
