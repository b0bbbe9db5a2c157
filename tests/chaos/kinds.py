# SPDX-License-Identifier: Apache-2.0
"""Every way to disturb a pager, one row each.  A row is used only if its probe, on a pager
of its own, finds that it is supported; otherwise the run says which is not, and why."""
import os
import signal
import time

import guests
import pagerd
from storm import API_ERRORS, HEARTBEAT_MS, TRIAL_MS, rest

PROBE_S = 30
# A session that is there at one crash after another is suspected of them, and held if it is
# alone with its worker at the next.  These crashes are nobody's fault, so after them everybody
# is given the time that acquits: a trial, and the heartbeat that follows it.
ACQUITTAL_S = (TRIAL_MS + HEARTBEAT_MS) / 1000 + 0.2
CRASHES_TO_SUSPECT = 3
POINT_PATIENCE_S = 1.5
LAP_S = 0.3


class Kind:
    def __init__(self, name, weight, probe, run):
        self.name, self.weight, self.probe, self.act = name, weight, probe, run

    def run(self, storm):
        self.act(storm)


# --- Probes: None, or why not ------------------------------------------------------

def served_guest(pager):
    image = pager.image(size="1M", seed=5)
    return pager.restore(image, "probe")


def probe_adoption(_):
    """Does a killed worker's session serve again, with its guest?"""
    with pagerd.Pagerd(log_level="info") as pager, served_guest(pager) as guest:
        guest.cmd("touch rand count=10")
        pid = pager.worker_pid()
        os.kill(pid, signal.SIGKILL)
        pagerd.wait_gone(pid)
        try:
            pager.until(lambda: pager.show("probe")["state"] == "serving", timeout=PROBE_S)
            guest.cmd("verify", timeout=PROBE_S)
        except (TimeoutError, guests.vmm.VmmError):
            return "a killed worker's session is %s after %d s" % (
                pager.show("probe")["state"], PROBE_S)
    return None


def probe_restart(sig):
    def probe(_):
        with pagerd.Pagerd(log_level="info") as pager, served_guest(pager) as guest:
            pager.process.send_signal(sig)
            pager.process.wait(PROBE_S)
            try:
                pager.start()
                pager.until(lambda: pager.show("probe")["state"] == "serving", timeout=PROBE_S)
                guest.cmd("verify", timeout=PROBE_S)
            except API_ERRORS + (TimeoutError, RuntimeError, guests.vmm.VmmError) as error:
                return "a new supervisor does not find the session: %s" % str(error)[:200]
        return None
    return probe


def probe_handoff(storm):
    if len(storm.all_versions) < 2:
        return "there is one version of the worker only"
    with pagerd.Pagerd(log_level="info", versions=storm.all_versions,
                       current=min(storm.all_versions)) as pager, served_guest(pager) as guest:
        status, code, text = pager.error_of("POST", "/sessions/probe/handoff",
                                            {"version": max(storm.all_versions)})
        if status != 200:
            return "handoff answers %s %s: %s" % (status, code, text)
        guest.cmd("verify", timeout=PROBE_S)
    return None


def probe_upgrade(storm):
    return None if len(storm.all_versions) > 1 else "there is one version of the worker only"


# --- Deaths of workers -------------------------------------------------------------

def victim(storm):
    """A worker, more likely one that serves many."""
    rows = [r for r in storm.workers.rows() if r["pid"] in storm.workers.by_pid]
    alive = [(storm.workers.by_pid[r["pid"]], r["sessions"] + 0.1) for r in rows]
    alive = [(w, n) for w, n in alive if not w.is_gone()]
    if not alive:
        return None
    return storm.rng.choices([w for w, _ in alive], [n for _, n in alive])[0]


def wait_replaced(storm, worker):
    """Until the supervisor has seen the death: its answer no longer names the process."""
    worker.is_gone(guests.PATIENCE_S)
    storm.pager.until(lambda: worker.pid not in [r["pid"] for r in storm.workers.rows()],
        "the supervisor has not noticed a death", guests.PATIENCE_S)


def strike(storm, sig, name):
    worker = victim(storm)
    if worker is None:
        return None, None
    hit_at = time.monotonic()
    try:
        worker.kill(sig)
    except ProcessLookupError:  # a fault point was faster
        worker.is_killed = False
        return hit_at, worker
    storm.is_hit = True
    storm.result.kills[name] += 1
    return hit_at, worker


def kill_worker(sig, name):
    def act(storm):
        storm.provoke()
        rest(storm.rng.uniform(0, 0.015))
        hit_at, worker = strike(storm, sig, name)
        if worker is None:
            storm.settle(time.monotonic(), None)
            return
        wait_replaced(storm, worker)
        storm.settle(hit_at, storm.result.worker_waits)
        if sig != signal.SIGKILL:
            acquit(storm)
    return act


def acquit(storm):
    rest(ACQUITTAL_S)


def crash_again_and_again(storm):
    """The same guests are there each time: they are suspect, and nobody may wait for that."""
    storm.provoke()
    start = time.monotonic()
    for _ in range(CRASHES_TO_SUSPECT):
        storm.workers.look()
        worker = strike(storm, signal.SIGSEGV, "worker_crashes")[1]
        if worker is None:
            break
        wait_replaced(storm, worker)
        for guest in [g for g in storm.guests if not g.completing]:
            storm.guarded(guest, lambda g=guest: storm.wait_serving(g))
    storm.settle(start, storm.result.crash_waits)
    storm.result.counts["trials"] += sum(row["trial"] for row in storm.workers.rows())
    acquit(storm)


def kill_twice(storm):
    """The replacement dies too, while it starts or adopts."""
    storm.provoke()
    hit_at, first = strike(storm, signal.SIGKILL, "worker_twice")
    if first is None:
        storm.settle(time.monotonic(), None)
        return
    wait_replaced(storm, first)
    storm.workers.look()
    rest(storm.rng.uniform(0, 0.01))
    again = strike(storm, signal.SIGKILL, "worker_twice")[1]
    if again is not None:
        wait_replaced(storm, again)
    storm.settle(hit_at, storm.result.twice_waits)


def hang_worker(storm):
    """It stops where it is; only heartbeats tell."""
    storm.provoke()
    rest(storm.rng.uniform(0, 0.01))
    hit_at, worker = strike(storm, signal.SIGSTOP, "worker_hang")
    if worker is None:
        storm.settle(time.monotonic(), None)
        return
    if not worker.is_gone(HEARTBEAT_MS / 1000 * 6 + guests.PATIENCE_S):
        storm.result.fail("a stopped worker is not killed")
        worker.kill()
    wait_replaced(storm, worker)
    storm.settle(hit_at, storm.result.hang_waits)
    acquit(storm)


def strike_point(storm):
    """Provokes what passes the point at which a worker is to die, until it does."""
    armed = [w for w in storm.workers.alive() if w.point]
    if not armed:
        kill_worker(signal.SIGKILL, "worker")(storm)
        return
    worker = storm.rng.choice(armed)
    hit_at = time.monotonic()
    storm.provoke(worker.point)
    if not worker.is_gone(POINT_PATIENCE_S):
        # Too few passes: then at any other instant, with a replacement that has none.
        hit_at = time.monotonic()
        worker.kill()
        storm.result.kills["worker"] += 1
    else:
        storm.account_deaths()
        hit_at = max(hit_at, time.monotonic() - POINT_PATIENCE_S)
    storm.is_hit = True
    wait_replaced(storm, worker)
    storm.settle(hit_at, storm.result.worker_waits)


# --- Ends of the supervisor --------------------------------------------------------

def disarm(storm):
    """A worker that dies while no supervisor is there takes its sessions along: two failures
    at once, which is not what is tested here.  So none may be due to die at a point."""
    storm.workers.look()
    armed = [w for w in storm.workers.alive() if w.point or not w.is_known]
    while armed:
        hit_at = time.monotonic()
        for worker in armed:
            try:
                worker.kill()
                storm.result.kills["worker"] += 1
            except ProcessLookupError:
                worker.is_killed = False
            wait_replaced(storm, worker)
        storm.is_hit = True
        storm.settle(hit_at, storm.result.worker_waits)
        storm.workers.look()
        storm.account_deaths()
        armed = [w for w in storm.workers.alive() if w.point or not w.is_known]


def probe_guest(storm):
    """A guest with enough fresh pages for three laps."""
    fresh = [g for g in storm.guests if g.is_loaded and g.pages >= 8192]
    return storm.rng.choice(fresh) if fresh else None


def lap(storm, guest, when):
    if guest is None:
        return
    times = guest.ask("lap")
    if when is not None and times["samples"] > 0:
        storm.result.around[when].append(
            {"p50": times["p50_us"] / 1e6, "p99": times["p99_us"] / 1e6, "max": times["max_us"] / 1e6})


def end_supervisor(sig, name, is_hard):
    def act(storm):
        disarm(storm)
        if is_hard:
            storm.provoke()
        guest = probe_guest(storm) if not is_hard else None
        lap(storm, guest, None)
        rest(LAP_S if guest else storm.rng.uniform(0, 0.02))
        lap(storm, guest, "before")
        hit_at = time.monotonic()
        storm.end_supervisor(sig)
        storm.is_hit = True
        storm.result.kills[name] += 1
        rest(storm.rng.uniform(0, 0.05))
        storm.start_supervisor()
        storm.workers.look()
        if guest:
            rest(max(0.0, hit_at + LAP_S - time.monotonic()))
            lap(storm, guest, "during")
            rest(LAP_S)
            lap(storm, guest, "after")
        storm.settle(hit_at, storm.result.supervisor_waits)
    return act


def restart_then_worker(storm):
    """A worker dies while the new supervisor is still collecting what there is."""
    disarm(storm)
    storm.provoke()
    hit_at = time.monotonic()
    storm.end_supervisor(signal.SIGKILL)
    storm.is_hit = True
    storm.result.kills["supervisor"] += 1
    storm.start_supervisor()
    storm.workers.look()
    rest(storm.rng.uniform(0, 0.01))
    _, worker = strike(storm, signal.SIGKILL, "worker_after_restart")
    if worker is not None:
        wait_replaced(storm, worker)
    storm.settle(hit_at, storm.result.twice_waits)


# --- Moves -------------------------------------------------------------------------

def other(storm, version):
    return next(v for v in storm.versions if v != version)


def handoff(storm, guest):
    version = storm.pager.show(guest.name)["version"]
    storm.pager.call("POST", storm.pager.path(guest.name, "/handoff"),
                     {"version": other(storm, version)})


def move_one(storm, guest):
    """While one of its vCPUs touches one page after another without rest, many of them absent:
    so its longest touch is the stall."""
    guest.unload()
    guest.ask("discard rand count=%d seed=%d" % (min(600, guest.pages // 2), storm.round))
    guest.ask("start rand write vcpu=0 seed=%d" % storm.rng.randrange(1 << 30))
    guest.is_loaded = True
    guest.ask("pulse")
    guest.ask("lap")
    try:
        handoff(storm, guest)
    except pagerd.ApiError as error:
        if not storm.has_excuse():
            raise guests.Lost("handoff: %s" % error) from None
        storm.result.counts["handoffs_cut"] += 1
    else:
        guest.ask("pulse")
        storm.result.counts["handoffs"] += 1
        if not storm.has_died():
            storm.result.handoff_waits.append(guest.ask("lap")["max_us"] / 1e6)
    guest.unload()
    guest.load()


def move(storm):
    """Sessions go from one version to another while they run.  Nothing dies."""
    able = [g for g in storm.guests if g.pages >= 512]
    for guest in storm.rng.sample(able, min(4, len(able))):
        storm.guarded(guest, lambda g=guest: move_one(storm, g))
    storm.settle(time.monotonic(), None)


def move_all(storm):
    """All that the current version does not serve, or all that it serves."""
    rows = storm.pager.call("GET", "/versions")
    target = storm.rng.choice(storm.versions)
    start = time.monotonic()
    storm.provoke()
    try:
        done = storm.pager.call("POST", "/handoff?timeout=%ds" % guests.PATIENCE_S,
                                {"version": target, "from": other(storm, target)})
        storm.result.counts["handoffs"] += done["moved"]
        storm.result.counts["handoffs_failed"] += done["failed"]
        if done["failed"] and not storm.has_excuse():
            storm.result.fail("handoff of all to %s: %s" % (target, done))
    except pagerd.ApiError as error:
        # Nothing runs of a version: then there is nothing to move from it.
        if error.status != 404 and not storm.has_excuse():
            storm.result.fail("handoff of all to %s, current %s: %s" % (
                target, rows["current"], error))
    storm.settle(start, None if storm.has_died() else storm.result.handoff_all_waits)


def kill_in_move(storm):
    """One of the two workers dies in the middle."""
    able = [g for g in storm.guests if not g.completing]
    moving = storm.rng.sample(able, min(3, len(able)))
    for guest in moving:
        guest.send(guest.discard_command())
    calls = [(g, pagerd.Pending(handoff, storm, g)) for g in moving]
    rest(storm.rng.uniform(0, 0.006))
    storm.workers.look()
    hit_at, worker = strike(storm, signal.SIGKILL, "worker_in_handoff")
    if worker is not None:
        wait_replaced(storm, worker)
    for guest, call in calls:
        try:
            call.end(guests.PATIENCE_S * 2)
            storm.result.counts["handoffs"] += 1
        except TimeoutError as error:
            storm.lose(guest, "handoff: %s" % error)
        except API_ERRORS:
            storm.result.counts["handoffs_cut"] += 1
    storm.settle(hit_at or time.monotonic(), None)


def upgrade(storm):
    """The other version becomes current; sessions of the outdated one graduate or stay."""
    rows = storm.pager.call("GET", "/versions")
    try:
        storm.pager.call("POST", "/upgrade", {"version": other(storm, rows["current"])})
        storm.result.counts["upgrades"] += 1
    except pagerd.ApiError as error:
        if not storm.has_excuse():
            storm.result.fail("upgrade: %s" % error)
        storm.is_hit = True
        storm.result.counts["upgrades_cut"] += 1
    storm.workers.look()
    storm.settle(time.monotonic(), None)


KINDS = [
    Kind("worker", 8, probe_adoption, kill_worker(signal.SIGKILL, "worker")),
    Kind("worker_segv", 0.5, probe_adoption, kill_worker(signal.SIGSEGV, "worker_segv")),
    Kind("worker_crashes", 0.4, probe_adoption, crash_again_and_again),
    Kind("worker_twice", 2, probe_adoption, kill_twice),
    Kind("worker_hang", 0.3, probe_adoption, hang_worker),
    Kind("worker_point", 8, probe_adoption, strike_point),
    Kind("supervisor", 3, probe_restart(signal.SIGKILL), end_supervisor(signal.SIGKILL, "supervisor", True)),
    Kind("supervisor_quiet", 1, probe_restart(signal.SIGKILL),
         end_supervisor(signal.SIGKILL, "supervisor", False)),
    Kind("supervisor_stop", 0.5, probe_restart(signal.SIGTERM),
         end_supervisor(signal.SIGTERM, "supervisor_stop", True)),
    Kind("restart_then_worker", 1, probe_restart(signal.SIGKILL), restart_then_worker),
    Kind("handoff", 2, probe_handoff, move),
    Kind("handoff_all", 1, probe_handoff, move_all),
    Kind("handoff_kill", 2, probe_handoff, kill_in_move),
    Kind("upgrade", 1, probe_upgrade, upgrade),
]
# What a run must have, or it has not tested what it is for.
REQUIRED = {"worker", "worker_point", "supervisor"}


def available(storm):
    """The rows that can be used.  Rows with one probe share its answer."""
    answers = {}
    usable = []
    for kind in KINDS:
        key = kind.probe if kind.probe.__name__ != "probe" else kind.name.partition("_then")[0]
        if key not in answers:
            answers[key] = kind.probe(storm)
        if answers[key] is None:
            usable.append(kind)
        else:
            storm.result.unavailable[kind.name] = answers[key]
    return usable
