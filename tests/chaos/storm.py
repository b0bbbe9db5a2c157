# SPDX-License-Identifier: Apache-2.0
"""The run: guests that are born, work, graduate and die all the time, kills at random
instants, and the proof after each that nobody noticed."""
import http.client
import os
import select
import signal
import time

import guests
import pagerd
import workers
from guests import Guest, Lost, PATIENCE_S

# What a caller of the API meets while the supervisor dies.
API_ERRORS = (pagerd.ApiError, OSError, http.client.HTTPException)
LOG_LINES = 40
# Rounds that a guest runs on without a pager before it is verified for the last time.
AFTERLIFE_ROUNDS = 3
MAX_LOST = 3
# The end of a worker in the log.
DEATH = r"killed by SIG|ended, nobody knows|on LINK_LOST|lost its link"
HEARTBEAT_MS = 500
TRIAL_MS = 500


def rest(seconds):
    """The instants of kills are random, so here time itself is what is waited for."""
    select.select([], [], [], seconds)


def socket_paths():
    """What a link to socket:[INODE] is bound to."""
    with open("/proc/net/unix", encoding="utf-8") as f:
        rows = [line.split() for line in f]
    return {"socket:[%s]" % row[6]: "socket:" + row[7] for row in rows if len(row) > 7}


class Storm:
    def __init__(self, rng, result, nr_guests, log_path):
        self.rng = rng
        self.result = result
        self.nr_guests = nr_guests
        self.log_path = log_path
        self.guests = []
        self.births = []           # (guest, the call that restores it)
        self.waiting = []          # (guest, session): created, its VMM has not come
        self.graduated = []        # (guest, the round in which it ends)
        self.next_guest = 0
        self.round = 0
        self.kind = "start"
        self.is_orphaned = False   # the supervisor has ended in this round
        self.is_hit = False        # something was killed in this round
        self.log_mark = 0          # where this round begins in the log of the supervisor
        self.points = sorted(workers.known_points(guests.vmm.TOP) & workers.POINTS.keys())
        self.pager = self.images = self.workers = None
        self.versions = None
        self.all_versions = {}     # version -> program

    # -- the pager under test

    def start_pager(self, versions, has_points):
        """Workers die every few hundred milliseconds here: the pause between their starts,
        made for a version that is broken, must not be what is measured."""
        self.versions = sorted(versions)
        self.has_points = has_points
        self.pager = pagerd.Pagerd(versions=versions, start=False, log_level="info",
                                   current=self.versions[0], spawn_backoff_max="1ms",
                                   heartbeat_interval="%dms" % HEARTBEAT_MS,
                                   trial_time="%dms" % TRIAL_MS, heartbeat_misses=3)
        self.images = guests.Images(self.pager)
        self.workers = workers.Workers(self.pager)
        self.start_supervisor()

    def start_supervisor(self):
        self.pager.env["PAGER_WORKER_FAULT"] = workers.fault_plan(
            self.rng, self.points if self.has_points else [], 2000)
        os.environ["PAGERD_TEST_LOG"] = self.log_path
        self.pager.start()
        self.log_mark = 0

    def end_supervisor(self, sig):
        self.is_orphaned = True
        self.pager.process.send_signal(sig)
        self.pager.process.wait(PATIENCE_S)
        self.pager.log.thread.join(PATIENCE_S)
        self.pager.process.stderr.close()
        if self.pager.pulse:
            self.pager.pulse.close()
            self.pager.pulse = None

    def start_guests(self):
        while len(self.guests) < self.nr_guests:
            self.restore()
            if self.result.failures:
                raise RuntimeError("a guest was not restored")

    # -- birth and death of guests

    def new_guest(self):
        shape = guests.SHAPES[self.next_guest % len(guests.SHAPES)]
        self.next_guest += 1
        return Guest(self, self.next_guest, shape)

    def adopt_child(self, guest):
        """A guest that has been restored."""
        guest.load()
        self.guests.append(guest)
        self.result.counts["sessions"] += 1

    def restore(self):
        guest = self.new_guest()
        try:
            guest.restore()
            self.adopt_child(guest)
        except API_ERRORS + (Lost, guests.vmm.VmmError, TimeoutError) as error:
            self.cut_birth(guest, error)

    def cut_birth(self, guest, error):
        """Its VM never ran.  Nobody's fault only if the round had a death in it."""
        self.result.counts["births_cut"] += 1
        state = guest.state() if self.pager.process.poll() is None else "no supervisor"
        if state == "created" and guest.vm is not None:
            # The connection went down with the worker that had accepted it, but the
            # session waits on: another VMM must be served.
            guest.kill()
            try:
                guest.connect(self.pager.show(guest.name))
                self.adopt_child(guest)
                self.result.counts["births_retried"] += 1
                return
            except API_ERRORS + (guests.vmm.VmmError, Lost, TimeoutError) as again:
                error = again
        if not self.has_excuse():
            self.result.fail(self.tell(guest, "it was not restored: %s" % error))
        guest.kill()
        self.forget(guest)

    def forget(self, guest):
        try:
            self.pager.close_session(guest.name)
        except API_ERRORS:
            pass

    def lose(self, guest, why):
        self.result.lost_vms += 1
        self.result.fail(self.tell(guest, why))
        guest.kill()
        self.forget(guest)
        if guest in self.guests:
            self.guests.remove(guest)
        self.graduated = [row for row in self.graduated if row[0] is not guest]
        if self.result.lost_vms >= MAX_LOST:
            raise RuntimeError("%d virtual machines were lost: enough" % self.result.lost_vms)

    def tell(self, guest, why):
        lines = self.pager.log.lines[-2000:]
        own = [x for x in lines if "id=%s:" % guest.name in x or "'%s'" % guest.name in x]
        try:
            session = self.pager.show(guest.name)
        except API_ERRORS as error:
            session = error
        return "seed=%d kill=%d round=%d kind=%s %s: %s\n  session: %s\n  its log:\n%s\n  the log:\n%s" % (
            self.result.seed, self.result.nr_kills, self.round, self.kind, guest, why, session,
            "\n".join("    " + x for x in own[-LOG_LINES:]),
            "\n".join("    " + x for x in lines[-LOG_LINES:]))

    def guarded(self, guest, function):
        """Whatever a guest is asked, it may turn out that it is lost."""
        if guest.vm is None:
            return None  # that has turned out before
        try:
            return function()
        except (Lost, guests.vmm.VmmError, TimeoutError, OSError) as error:
            self.lose(guest, str(error))
        except pagerd.ApiError as error:
            self.lose(guest, "the API says %s" % error)
        return None

    def retire(self, guest, how):
        self.guests.remove(guest)
        if how == "graduate":
            self.pager.complete(guest.name, "2m")
            self.enter_afterlife(guest)
            return
        guest.verify()
        if how == "close":
            guest.kill()
            self.forget(guest)
        else:
            guest.quit()
        self.pager.wait(guest.name, "closed", "%ds" % PATIENCE_S)
        self.result.counts["sessions_" + {"close": "closed", "quit": "restarted"}[how]] += 1

    def enter_afterlife(self, guest):
        guest.is_graduated = True
        self.result.counts["sessions_graduated"] += 1
        self.graduated.append((guest, self.round + AFTERLIFE_ROUNDS))

    def bury_graduated(self, is_all=False):
        for guest, end in [row for row in self.graduated if is_all or row[1] <= self.round]:
            self.graduated.remove((guest, end))
            self.guarded(guest, lambda g=guest: (g.verify(), g.quit()))

    def churn(self):
        """Between kills: somebody leaves, somebody comes."""
        self.bury_graduated()
        if len(self.guests) >= self.nr_guests and self.rng.random() < 0.6:
            guest = self.rng.choice(self.guests)
            how = self.rng.choice(["quit", "close", "graduate", "graduate"])
            if not self.try_retire(guest, how) and guest not in self.guests:
                self.guests.append(guest)
        while len(self.guests) < self.nr_guests:
            before = len(self.guests)
            self.restore()
            if len(self.guests) == before:
                break  # the round goes on with fewer
        for guest in self.guests:
            if not guest.is_loaded and not guest.outstanding:
                self.guarded(guest, guest.load)

    def try_retire(self, guest, how):
        """False when a worker died under it: it is served on and stays."""
        try:
            self.retire(guest, how)
            return True
        except pagerd.ApiError as error:
            if self.has_excuse() and guest.vm:
                self.result.counts["completions_cut"] += 1
                return False
            self.lose(guest, "%s: the API says %s" % (how, error))
        except (Lost, guests.vmm.VmmError, TimeoutError, OSError) as error:
            self.lose(guest, "%s: %s" % (how, error))
        return True

    # -- what is under way when the kill comes

    def provoke(self, point=None):
        for guest in list(self.guests):
            dice = self.rng.random()
            if dice < 0.25 or point in ("FILL_AFTER_READ",):
                guest.send(guest.discard_command())
            elif dice < 0.45 or (point and dice < 0.7):
                self.guarded(guest, lambda g=guest: (g.unload(), g.send(g.busy_command())))
        self.provoke_completion(point)
        if self.rng.random() < 0.5 or point == "HANDSHAKE_READ":
            for _ in range(self.rng.randrange(1, 4)):
                guest = self.new_guest()
                self.births.append((guest, pagerd.Pending(guest.restore)))
        if self.rng.random() < 0.4:
            guest = self.new_guest()
            try:
                self.waiting.append((guest, guest.create()))
            except API_ERRORS as error:
                if not self.has_excuse():
                    raise
                self.cut_birth(guest, error)

    def provoke_completion(self, point):
        share = 0.9 if point in ("POPULATE_CHOSEN", "POPULATE_CHUNK", "COMPLETE_DETACH") else 0.35
        able = [g for g in self.guests if not g.completing]
        if able and self.rng.random() < share:
            guest = self.rng.choice(able)
            guest.completing = pagerd.Pending(self.pager.complete, guest.name, "2m")

    def has_died(self):
        """Whether the log of this round names a death."""
        return self.is_hit or self.pager.log.find(DEATH, since=self.log_mark) is not None

    def has_excuse(self):
        """Whether a worker or the supervisor has died in this round: asked only when something
        went wrong, because workers die that nobody has seen yet."""
        if self.is_hit or any(w.is_gone() for w in self.workers.by_pid.values()):
            return True
        try:
            self.pager.log.wait(DEATH, since=self.log_mark, timeout=1)
        except TimeoutError:
            return False
        self.is_hit = True
        return True

    # -- after the kill

    def account_deaths(self):
        """Deaths that have not been counted: at a fault point, or for no reason at all."""
        dead = [w for w in self.workers.take_dead() if not w.is_killed]
        for worker in dead:
            if worker.point or not worker.is_known:
                self.result.kills["worker_at_" + (worker.point or "start").lower()] += 1
            elif not self.is_meant_to_end(worker):
                self.result.counts["unexpected_deaths"] += 1
                self.result.fail("worker %s pid=%d died by itself:\n%s" % (
                    worker.version, worker.pid, "\n".join(self.pager.log.lines[-LOG_LINES:])))
        return dead

    def is_meant_to_end(self, worker):
        """Drained and empty, it exits; and when it has no session as its supervisor ends."""
        if self.is_orphaned:
            return True  # had it any, their guests will tell
        try:
            return self.pager.log.wait(r"pid=%d: .*, sessions_serving=" % worker.pid,
                                       timeout=PATIENCE_S).endswith("; as it was told")
        except TimeoutError:
            return False

    def settle(self, hit_at, waits_into):
        """Everybody who was served must be served again and prove it."""
        for guest in list(self.guests) + [g for g, _ in self.graduated]:
            self.guarded(guest, guest.ask_for_life)
        self.end_completions()
        for guest in list(self.guests):
            self.guarded(guest, lambda g=guest: self.wait_serving(g))
        self.result.recovery.append(time.monotonic() - hit_at)
        self.end_births()
        longest = {}
        for guest in list(self.guests) + [g for g, _ in self.graduated]:
            for begin, end, took in self.guarded(guest, guest.prove_life) or []:
                if begin <= time.monotonic() and end >= hit_at:
                    longest[guest] = max(took, longest.get(guest, 0.0))
        if longest and waits_into is not None:
            waits_into.append(max(longest.values()))
            if waits_into is self.result.worker_waits:
                self.result.guest_waits += longest.values()
        self.result.counts["sessions_survived"] += len(self.guests)

    def wait_serving(self, guest):
        if not guest.is_graduated:
            self.pager.wait(guest.name, "serving", "%ds" % PATIENCE_S)

    def end_completions(self):
        for guest in [g for g in self.guests if g.completing]:
            call, guest.completing = guest.completing, None
            try:
                answer = call.end(PATIENCE_S * 3)
                if answer["state"] != "graduated":
                    self.lose(guest, "complete answers 200 and %s" % answer)
                    continue
            except TimeoutError as error:
                self.lose(guest, "complete: %s" % error)
                continue
            except API_ERRORS as error:
                self.result.counts["completions_cut"] += 1
                self.guarded(guest, lambda g=guest, e=error: self.after_cut_completion(g, e))
                continue
            self.guests.remove(guest)
            self.enter_afterlife(guest)

    def after_cut_completion(self, guest, error):
        """The caller was told that it failed, or lost the connection: in the first case it
        is served on, in the second either."""
        state = guest.state()
        if state == "unknown" and not isinstance(error, pagerd.ApiError):
            # It ended in the same moment as the supervisor, which takes its tombstones along.
            self.result.counts["tombstones_lost"] += 1
            if guest.is_registered():
                raise Lost("the new supervisor does not know it, its memory is still registered")
            state = "graduated"
        if state == "graduated":
            if isinstance(error, pagerd.ApiError) and error.status != 503:
                raise Lost("complete said %s but it has graduated" % error)
            self.guests.remove(guest)
            self.enter_afterlife(guest)
        elif not self.has_excuse():
            raise Lost("complete failed although nothing was killed: %s" % error)

    def end_births(self):
        births, self.births = self.births, []
        for guest, call in births:
            try:
                call.end(PATIENCE_S * 3)
                self.adopt_child(guest)
            except API_ERRORS + (guests.vmm.VmmError, Lost, TimeoutError) as error:
                self.cut_birth(guest, error)
        waiting, self.waiting = self.waiting, []
        for guest, session in waiting:
            # It was created before the death and its VMM comes after it: only another death
            # excuses a failure.
            mark = self.pager.log.mark()
            try:
                guest.connect(session)
                self.adopt_child(guest)
                self.result.counts["waiting_survived"] += 1
            except API_ERRORS + (guests.vmm.VmmError, Lost, TimeoutError) as error:
                if self.is_given_up(guest):
                    self.result.counts["waiting_given_up"] += 1
                    guest.kill()
                elif self.pager.log.find(DEATH, since=mark):
                    self.cut_birth(guest, error)
                else:
                    self.lose(guest, "it waited for its VMM when the kill came: %s" % error)

    def is_given_up(self, guest):
        """Its VM has not run, and pagerd says why it never will: by rule after several deaths,
        or because the worker and the supervisor died together."""
        try:
            reason = self.pager.show(guest.name)["reason"] or ""
        except API_ERRORS:
            return False
        return reason.startswith("one worker after another died") or (
            "died while no supervisor was there; its VMM had not been served yet" in reason)

    def shrink(self):
        """Back to the number of guests that was asked for."""
        while len(self.guests) > self.nr_guests:
            guest = self.guests[0]
            if not self.try_retire(guest, self.rng.choice(["quit", "close"])):
                self.guests.insert(0, guest)
                break

    # -- rounds

    def calm(self):
        """The same proof without a kill: what the waits are then."""
        start = time.monotonic()
        mark = self.pager.log.mark()
        for guest in list(self.guests):
            self.guarded(guest, guest.ask_for_life)
        worst = 0.0
        for guest in list(self.guests):
            for begin, _, took in self.guarded(guest, guest.prove_life) or []:
                if begin >= start:
                    worst = max(worst, took)
        if not self.pager.log.find(DEATH, since=mark):
            self.result.quiet_waits.append(worst)

    def run_round(self, kind):
        self.round += 1
        self.kind = kind.name
        self.is_hit = bool(self.account_deaths())
        self.is_orphaned = False
        self.log_mark = self.pager.log.mark()
        self.workers.look()
        self.churn()
        if self.round % 5 == 1:
            self.calm()
        self.workers.look()
        kind.run(self)
        self.workers.look()
        self.account_deaths()
        self.shrink()

    # -- the end

    def end_guests(self):
        self.is_hit = False
        self.log_mark = self.pager.log.mark()
        for guest in list(self.guests):
            self.guarded(guest, lambda g=guest: self.retire(g, "quit"))
        self.bury_graduated(is_all=True)

    def base_counts(self):
        """Descriptors of a supervisor with one fresh and idle worker, and of that worker."""
        while True:
            for worker in self.workers.alive():
                worker.kill()
                pagerd.wait_gone(worker.pid, PATIENCE_S)
            self.workers.take_dead()
            guest = self.new_guest()
            session = guest.create()
            self.workers.look()
            if all(w.is_known and not w.point for w in self.workers.alive()):
                break
            self.forget(guest)  # that one would die under it
        guest.connect(session)
        guest.verify()
        guest.quit()
        self.pager.wait(guest.name, "closed")
        pid = self.workers.alive()[0].pid
        fds = pagerd.fds_of
        self.pager.until(lambda: not any("pagemap" in t or "userfaultfd" in t or t.endswith(".mem") for t in
                                         list(fds(pid).values()) + list(self.supervisor_fds().values())),
                         "descriptors of a session that has ended", PATIENCE_S)
        paths = socket_paths()
        return tuple({n: paths.get(t, t) for n, t in fds(p).items()}
                     for p in (self.pager.process.pid, pid))

    def supervisor_fds(self):
        return pagerd.fds_of(self.pager.process.pid)

    def count_leaks(self, before, after):
        for who, old, new in zip(("supervisor", "worker"), before, after):
            if len(new) > len(old):
                self.result.leaked_fds += len(new) - len(old)
                self.result.fail("the %s held %d descriptors at the start and holds %d now:\n%s\n%s" % (
                    who, len(old), len(new), sorted(old.values()), sorted(new.values())))

    def stop(self):
        """Nothing may be left: no process, no socket."""
        code = self.pager.stop(signal.SIGTERM, PATIENCE_S)
        if code != 0:
            self.result.fail("pagerd ended with code %d" % code)
        for pid in self.pager.worker_pids():
            if not pagerd.wait_gone(pid, PATIENCE_S):
                self.result.leaked_processes += 1
                self.result.fail("worker %d is left" % pid)
        for directory, _, files in os.walk(self.pager.run):
            for name in files:
                if name.endswith(".sock"):
                    self.result.leaked_sockets += 1
                    self.result.fail("%s is left" % os.path.join(directory, name))

    def destroy(self):
        for guest in self.guests + [g for g, _ in self.graduated] + [g for g, _ in self.births]:
            guest.kill()
        if self.pager:
            self.pager.destroy()
