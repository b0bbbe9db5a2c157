#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
# builds: plain asan
"""Who follows the transitions sees each once, in order, or is told of a gap."""
import json
import os
import signal
import subprocess
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
import pagerd  # noqa: E402
import tap  # noqa: E402

KEPT = 1024


def of(events, session_id):
    return [(e["from"], e["event"], e["to"]) for e in events if e["id"] == session_id]


def in_order():
    with pagerd.Pagerd() as pager:
        start = pager.call("GET", "/events")
        tap.is_((start["events"], start["gap"], start["more"]), ([], False, False),
                "without since: no event, only the number to go on from")
        image = pager.image(size="1M", seed=5)
        with pager.restore(image, "a"):
            pager.complete("a")
        answer = pager.call("GET", "/events?since=%d" % start["last"])
        events = answer["events"]
        tap.is_(of(events, "a"), [("CREATED", "OPENED", "CREATED"), ("CREATED", "SHAKEN", "SERVING"),
                                  ("SERVING", "COMPLETE", "COMPLETING"),
                                  ("COMPLETING", "DETACHED", "GRADUATED")], "a session's life")
        tap.ok(any(e["kind"] == "worker" and e["to"] == "READY" for e in events), "and its worker's")
        numbers = [e["number"] for e in events]
        tap.is_(numbers, list(range(start["last"] + 1, answer["last"] + 1)), "numbers without a hole")
        waiting = pagerd.Pending(pager.call, "GET", "/events?since=%d&wait=1m" % answer["last"])
        pager.create(image.path, id="b")
        tap.is_(of(waiting.end()["events"], "b"), [("CREATED", "OPENED", "CREATED")],
                "who waits is answered by the first that comes")
        last = pager.call("GET", "/events")["last"]
        none = pager.call("GET", "/events?since=%d&wait=10ms" % last)
        tap.is_((none["events"], none["last"]), ([], last), "and at the end of its time without one")
        gone = pager.connect()
        gone.request("GET", "/events?since=%d&wait=1m" % last)
        gone.close()
        pager.close_session("b")
        tap.is_(pager.call("GET", "/health")["status"], "ok", "one that hangs up disturbs nobody")
        tap.is_(pager.error_of("GET", "/events?since=x")[:2], (400, "bad-request"), "no number")


def gaps():
    with pagerd.Pagerd(max_sessions=4) as pager:
        image = pager.image(size="64K", seed=6)
        first = pager.call("GET", "/events")["last"]
        while pager.call("GET", "/events")["last"] < first + KEPT + 10:
            pager.create(image.path, id="x")
            pager.close_session("x")
        answer = pager.call("GET", "/events?since=%d" % first)
        tap.is_((answer["gap"], answer["more"], len(answer["events"])), (True, True, 256),
                "what is not kept any more is a gap, and an answer is bounded")
        seen = 256
        while answer["more"]:
            answer = pager.call("GET", "/events?since=%d" % answer["last"])
            seen += len(answer["events"])
            tap.ok(not answer["gap"], "no gap in what is kept")
        tap.is_(seen, KEPT, "so many are kept")
        pager.stop(signal.SIGKILL)
        pager.start()
        again = pager.call("GET", "/events?since=%d" % answer["last"])
        tap.ok(again["gap"], "the next pagerd says that there is a gap")


def followed():
    with pagerd.Pagerd() as pager:
        image = pager.image(size="1M", seed=5)
        pager.create(image.path, id="early")
        with subprocess.Popen([pagerd.program("pagerctl"), "--socket", pager.socket, "--json",
                               "events", "--recent"], stdout=subprocess.PIPE, text=True) as ctl:
            def until(session_id, state):
                for line in ctl.stdout:
                    event = json.loads(line)
                    if (event["id"], event["to"]) == (session_id, state):
                        return True
                return False
            tap.ok(until("early", "CREATED"), "--recent begins with what was")
            with pager.restore(image, "late"):
                tap.ok(until("late", "SERVING"), "and goes on with what comes")
            tap.ok(until("late", "CLOSED"), "to the end")
            ctl.send_signal(signal.SIGINT)
            tap.is_(ctl.wait(), -signal.SIGINT, "an interrupt ends it")
        with subprocess.Popen([pagerd.program("pagerctl"), "--socket", pager.socket, "events",
                               "--recent"], stdout=subprocess.PIPE, text=True) as ctl:
            line = next(line for line in ctl.stdout if "late" in line)
            tap.like(line, r"^\d\d:\d\d:\d\d\.\d{3}  session +late +CREATED -> CREATED on OPENED",
                     "a line for people")
            ctl.kill()


if __name__ == "__main__":
    tap.needs_root()
    tap.run(in_order, gaps, followed)
