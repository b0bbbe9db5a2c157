#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
# builds: plain asan
"""Metrics: right for traffic that is known, never going back, read by the monitoring's own
tools."""
import json
import os
import re
import shutil
import signal
import subprocess
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
import pagerd  # noqa: E402
import tap  # noqa: E402
import vmm  # noqa: E402

V = pagerd.VERSION
ONE_PAGE = {"cluster_min_bytes": 4096, "cluster_max_bytes": 4096}
ROW = re.compile(r'^([a-z_]+)(?:\{(.*)\})? ([0-9.e+-]+)$')
LABEL = re.compile(r'([a-z]+)="([^"]*)"')
PACKAGING = os.path.join(vmm.TOP, "packaging")


class Scrape:
    def __init__(self, pager):
        answer = pager.request("GET", "/metrics")
        assert answer.status == 200, answer.text
        self.type = answer.headers["Content-Type"]
        self.text = answer.text
        self.rows, self.types = {}, {}
        for line in self.text.splitlines():
            if line.startswith("# TYPE "):
                _, _, name, kind = line.split()
                self.types[name] = kind
            elif not line.startswith("# HELP "):
                name, labels, value = ROW.match(line).groups()
                key = (name, tuple(sorted(LABEL.findall(labels or ""))))
                assert key not in self.rows, "twice: %s" % line
                self.rows[key] = float(value)

    def get(self, name, **labels):
        return self.rows[name, tuple(sorted(labels.items()))]

    def counting(self):
        """Rows that may only grow."""
        return {key: value for key, value in self.rows.items()
                if self.types.get(key[0]) == "counter" or
                self.types.get(re.sub(r"_(bucket|sum|count)$", "", key[0])) == "histogram"}


def grows(before, after):
    """The rows that went back or are gone."""
    later = after.counting()
    return [key for key, value in before.counting().items() if later.get(key, -1) < value]


def serving(scrape, version=V):
    return scrape.get("pagerd_sessions", state="SERVING", version=version)


def lives_of_sessions():
    with pagerd.Pagerd() as pager:
        first = Scrape(pager)
        tap.is_(first.get("pagerd_faults_total", version=V), 0, "before any session: zero, not nothing")
        image = pager.image(size="16M", seed=7)
        with pager.restore(image, "a", members=ONE_PAGE) as guest:
            guest.cmd("touch rand count=500")
            guest.cmd("discard rand count=20")
            # A removal is counted right after the guest may go on.
            pager.until(lambda: pager.show("a")["counters"]["pages_removed"] == 20)
            seen = Scrape(pager)
            own = pager.show("a")
            tap.is_(seen.get("pagerd_faults_total", version=V), own["counters"]["faults"],
                    "faults are those of the session")
            tap.is_(seen.get("pagerd_pages_filled_total", version=V, why="demand"),
                    own["counters"]["pages_demand"], "so are the pages filled for them")
            tap.is_(seen.get("pagerd_fault_seconds_count", version=V), own["counters"]["faults"],
                    "each fault is timed")
            tap.ok(seen.get("pagerd_fault_seconds_sum", version=V) > 0, "and takes time")
            tap.is_(seen.get("pagerd_pages_removed_total", version=V),
                    own["counters"]["pages_removed"], "removals are counted")
            tap.is_((serving(seen), seen.get("pagerd_pages", state="removed")),
                    (1, own["pages"]["removed"]), "one session is served, with its pages")
            pid = pager.worker_pid()
            os.kill(pid, signal.SIGKILL)
            pager.log.wait("id=a: ADOPTING -> SERVING")
            after = Scrape(pager)
            tap.is_(grows(seen, after), [], "a killed worker takes no count along")
            tap.is_((after.get("pagerd_adoption_stall_seconds_count"),
                     after.get("pagerd_session_events_total", event="ADOPTED"),
                     after.get("pagerd_worker_deaths_total", version=V)), (1, 1, 1),
                    "its death and the adoption are counted")
            tap.ok(0 < after.get("pagerd_adoption_stall_seconds_sum") < 60, "with the stall")
            pager.complete("a")
            tap.is_(guest.cmd("verify")["wrong"], 0, "the guest reads what it should")
        last = Scrape(pager)
        tap.is_(grows(after, last), [], "nor does the end of a session")
        tap.is_((serving(last), last.get("pagerd_sessions_ended_total", outcome="graduated")),
                (0, 1), "which is counted by its outcome")
        tap.ok(last.get("pagerd_background_fill_seconds_count", version=V) > 0,
               "fills of the completion are timed")
        tap.is_(last.get("pagerd_pages", state="present"), 0, "pages of the dead are not counted")


def moved():
    other, path = pagerd.other_version()
    with pagerd.Pagerd() as pager:
        image = pager.image(size="4M", seed=8)
        with pager.restore(image, "a", members=ONE_PAGE) as guest:
            guest.cmd("touch rand count=100")
            before = Scrape(pager)
            pager.install(other, path)
            pager.call("POST", "/upgrade", {"version": other, "handoff": True})
            pager.wait("a", "serving")
            guest.cmd("verify")
            after = Scrape(pager)
            tap.is_(grows(before, after), [], "a hand-over takes nothing from the old version")
            tap.is_(after.get("pagerd_handover_stall_seconds_count"), 1, "it is timed")
            tap.is_(after.get("pagerd_faults_total", version=V) +
                    after.get("pagerd_faults_total", version=other),
                    pager.show("a")["counters"]["faults"], "each fault is one version's")
            tap.is_((serving(after), serving(after, other)), (0, 1), "and the session is the other's")


def restarted():
    with pagerd.Pagerd() as pager:
        image = pager.image(size="4M", seed=9)
        with pager.restore(image, "a", members=ONE_PAGE) as guest:
            guest.cmd("touch rand count=100")
            tap.ok(Scrape(pager).get("pagerd_faults_total", version=V) >= 100, "100 faults")
            pager.stop(signal.SIGKILL)
            pager.start()
            pager.wait("a", "serving")
            tap.is_(Scrape(pager).get("pagerd_faults_total", version=V), 0,
                    "the next supervisor does not count them again")
            guest.cmd("verify")
            tap.ok(Scrape(pager).get("pagerd_faults_total", version=V) > 0, "only what follows")


def bounded():
    """Labels name nothing that a client chooses, so the answer does not grow with sessions."""
    with pagerd.Pagerd() as pager:
        image = pager.image(size="1M", seed=10)
        few = Scrape(pager)
        for i in range(50):
            pager.create(image.path, id="secret-%d" % i)
        many = Scrape(pager)
        # Only the state of the worker is another one.
        tap.is_([len(s.rows) for s in (many, few)], [len(few.rows)] * 2,
                "as many rows with 50 sessions as with none")
        tap.ok("secret" not in many.text, "none names a session")


def tools():
    with pagerd.Pagerd() as pager:
        scrape = Scrape(pager)
    tap.is_(scrape.type, "text/plain; version=0.0.4; charset=utf-8", "says its format")
    with open(os.path.join(PACKAGING, "grafana", "pagerd.json"), encoding="utf-8") as f:
        dashboard = json.load(f)
    with open(os.path.join(PACKAGING, "prometheus", "pagerd.rules.yml"), encoding="utf-8") as f:
        rules = f.read()
    names = {re.sub(r"_(bucket|sum|count)$", "", name)
             if re.sub(r"_(bucket|sum|count)$", "", name) in scrape.types else name
             for name in re.findall(r"\bpagerd_[a-z_]+", rules + json.dumps(
                 [target["expr"] for panel in dashboard["panels"]
                  for target in panel.get("targets", [])]))}
    tap.is_(sorted(names - set(scrape.types)), [], "rules and dashboard name metrics that exist")
    promtool = shutil.which("promtool")
    if not promtool:
        tap.skip("promtool", "promtool is not installed: apt-get install prometheus")
        return
    checked = subprocess.run([promtool, "check", "metrics"], input=scrape.text, text=True,
                             capture_output=True, check=False)
    tap.is_((checked.returncode, checked.stderr), (0, ""), "promtool has no complaint")
    tested = subprocess.run([promtool, "test", "rules", "pagerd.rules.test.yml"], text=True,
                            cwd=os.path.join(PACKAGING, "prometheus"), capture_output=True,
                            check=False)
    tap.ok(tested.returncode == 0, "the alert rules do what their cases say")
    if tested.returncode != 0:
        tap.note(tested.stdout + tested.stderr)


if __name__ == "__main__":
    tap.needs_root()
    tap.run(lives_of_sessions, moved, restarted, bounded, tools)
