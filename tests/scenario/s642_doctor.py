#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
# builds: plain asan
"""pagerctl doctor: what it finds of a host and of a pagerd, and its remedies."""
import json
import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
import answers  # noqa: E402
import pagerd  # noqa: E402
import tap  # noqa: E402

OK, FAILED, USAGE = range(3)


def findings(done):
    return [(f["check"], f["result"], f["detail"], f["remedy"] or "")
            for f in json.loads(done.stdout)["findings"]]


def has(done, check, result, detail, remedy=""):
    tap.ok(any(c == check and r == result and detail in d and remedy in m
               for c, r, d, m in findings(done)),
           "%s: %s: %s" % (result, check, detail), findings(done))


def healthy():
    with pagerd.Pagerd(max_sessions=64) as pager:
        done = pager.ctl("doctor")
        tap.ok(done.returncode == OK and not done.stderr, "nothing fails here", done.stdout)
        for check in ("kernel", "userfaultfd", "vmm", "pagerd", "workers", "sessions", "limits",
                      "images"):
            tap.like(done.stdout, r"(?m)^ok +%s +\S" % check, "%s is well" % check)
        tap.like(done.stdout, r"\n(guests can be restored; \d to look at|all is well)\n$",
                 "and it ends with what that means")
        as_json = pager.ctl("--json", "doctor")
        tap.is_((as_json.returncode, json.loads(as_json.stdout)["ok"]), (OK, True), "--json")
        has(as_json, "pagerd", "ok", "%s, process %d" % (pagerd.VERSION, pager.process.pid))
        has(as_json, "images", "ok", pager.images)


class Confined(pagerd.Pagerd):
    """As in a unit that hides a directory from it."""

    def argv(self):
        return ["unshare", "-m", "sh", "-c", 'mount -t tmpfs none "$1" && shift && exec "$@"', "sh",
                self.images] + super().argv() + ["--image-root", self.images + "/deep"]


def hidden():
    with Confined(start=False) as pager:
        deep = pager.images + "/deep"
        os.mkdir(deep)
        pager.start()
        pager.log.wait("image-root %s: No such file or directory" % deep)
        done = pager.ctl("--json", "doctor")
        has(done, "images", "warn", "image root %s is there, but not for pagerd" % deep, "ProtectHome=")
        has(done, "images", "ok", "image root " + pager.images)


def away():
    with pagerd.Pagerd() as pager:
        nowhere = pager.ctl("--socket", pager.dir + "/none", "--json", "doctor")
        tap.is_((nowhere.returncode, json.loads(nowhere.stdout)["ok"]), (FAILED, False),
                "no pagerd: 1")
        has(nowhere, "pagerd", "fail", "there is no socket", "systemctl start pagerd")
        pager.stop()
        done = pager.ctl("--json", "doctor")
        tap.is_(done.returncode, FAILED, "one that has ended: 1")
        has(done, "pagerd", "fail", "", "systemctl start pagerd")
        done = pager.ctl("doctor", "--vmm-uid", "root")
        tap.is_(done.returncode, USAGE, "--vmm-uid is a number")


def in_a_bad_way():
    with pagerd.Pagerd() as pager:
        path = os.path.join(pager.dir, "other.sock")
        session = {"outcome": None, "version": "0.0.1", "image": "/i"}
        told = {
            "/health": {"status": "ok", "version": "0.0.1\033[31m", "uptime_ms": 5,
                        "pid": os.getpid()},
            "/versions": {"current": "", "versions": [
                {"version": "0.0.1", "installed": False, "sessions": 2, "retry_in_ms": 0},
                {"version": "0.0.2", "installed": True, "sessions": 0, "retry_in_ms": 900}]},
            "/sessions": {"sessions": [
                dict(session, id="frozen", state="held"),
                dict(session, id="unread", state="serving", alarms=3),
                dict(session, id="torn", state="serving", alarms=1, image_changed="written to"),
                dict(session, id="old", state="held", outcome="closed")]},
            "/templates": {"templates": [
                {"name": "good", "state": "promoted"},
                {"name": "bad", "state": "damaged", "reason": "it is empty"}]},
            "/config": {"options": {
                "image-root": {"value": ["/no/such/root"]}, "backend": {"value": "file"},
                "max-sessions": {"value": "4000000"}}}}
        with answers.Answers(path, told) as server:
            done = pager.ctl("--socket", path, "--json", "doctor")
            tap.is_(done.returncode, FAILED, "all of it wrong: 1")
            for row in (("pagerd", "warn", "an upgrade has not been finished", "restart"),
                        ("pagerd", "warn", "its backend is file", "backend=uffd"),
                        ("images", "warn", "image root /no/such/root: No such file"),
                        ("limits", "warn", "too few for max-sessions=4 000 000", "LimitNOFILE="),
                        ("workers", "fail", "no version is installed"),
                        ("workers", "warn", "0.0.1 serves 2 sessions and is no longer installed"),
                        ("workers", "fail", "the worker of version 0.0.2 keeps dying"),
                        ("sessions", "fail", "1 frozen because workers died with them, such as fro",
                         "pagerctl retry"),
                        ("sessions", "fail", "1 whose image could not be read, such as unread"),
                        ("sessions", "fail", "1 whose image was modified under them, such as torn",
                         "restore them again"),
                        ("templates", "fail", "1 whose record cannot be read, such as bad: it is e",
                         "systemctl reload pagerd")):
                has(done, *row)
            tap.ok("\033" not in pager.ctl("--socket", path, "doctor").stdout,
                   "a terminal is told nothing by it")
            told["/config"]["options"] = {"image-root": {"value": []}}
            has(pager.ctl("--socket", path, "--json", "doctor"), "images", "fail",
                "pagerd has no image root")
            told.clear()
            has(pager.ctl("--socket", path, "--json", "doctor"), "pagerd", "fail", "no answer on")
            server.shutdown()


if __name__ == "__main__":
    tap.needs_root()
    tap.run(healthy, hidden, away, in_a_bad_way)
