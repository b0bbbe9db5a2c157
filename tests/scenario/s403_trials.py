#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
# builds: plain asan
"""Which session kills workers: it is found and held, no guest waits for another's trial, and
deaths that come from outside make nobody suspect."""
import functools
import os
import re
import signal
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
import pagerd  # noqa: E402
import tap  # noqa: E402

V = pagerd.VERSION
NR_GUESTS = 16
AT_ONCE = 8           # workers that are started for suspects together
CRASHES_TO_SUSPECT = 3
NOT_SUSPECT = "not suspect any more"
ON_TRIAL = r"id=%s: suspected of killing workers: on trial with child (\d+)"


def restore_all(pager, image, names):
    guests = {name: pager.restore(image, name) for name in names}
    for guest in guests.values():
        guest.cmd("start rand write period=1000 burst=8")
    return guests


def workers(pager):
    """Of the version, without those on their way out."""
    return [row for row in pager.versions()[V]["workers"]
            if row["state"] in ("starting", "ready", "draining")]


def end_all(guests):
    wrong = {name: guest.cmd("stop")["wrong"] for name, guest in guests.items()}
    tap.is_(set(wrong.values()), {0}, "nobody has read anything wrong")
    verified = {guest.cmd("verify")["wrong"] for guest in guests.values()}
    tap.is_(verified, {0}, "and every page is right")
    for guest in guests.values():
        guest.kill()


def die(pager, sig):
    pid = pager.worker_pid()
    os.kill(pid, sig)
    pagerd.wait_gone(pid)


def is_served_again(pager, name, adoptions):
    pager.until(lambda: pager.show(name)["adoptions"] >= adoptions, "nobody adopts %s" % name)
    pager.wait(name, "serving")


def is_caught(pager, guests):
    """The first worker is killed; every other one dies of the poisonous session."""
    os.kill(pager.worker_pid(), signal.SIGKILL)
    pager.log.wait("id=poison: ADOPTING -> HELD on POISONED: worker after worker died with it")
    for name, guest in guests.items():
        if name != "poison":
            pager.wait(name, "serving")
            guest.cmd("pulse")
    tap.is_(pager.show("poison")["state"], "held", "of %d sessions the one is held" % len(guests))
    tap.is_({pager.show(n)["state"] for n in guests if n != "poison"}, {"serving"},
            "all others are served")
    tap.ok(not pager.log.find(NOT_SUSPECT), "long before anybody's trial is over")
    crashes = sum("killed by SIGABRT" in x and "sessions_serving=" in x for x in pager.log.lines)
    tap.is_(crashes, CRASHES_TO_SUSPECT + 2, "after so many crashes: three of all, one of a few, "
            "one of it alone")


def one_of_many(point):
    fault = ";" + 40 * ("%s=poison:0!crash;" % point)
    with pagerd.Pagerd(worker_fault=fault, trial_time="1h") as pager:
        image = pager.image(size="1M", seed=8, holes=10)
        guests = restore_all(pager, image, ["g%d" % i for i in range(NR_GUESTS - 1)] + ["poison"])
        is_caught(pager, guests)
        rows = workers(pager)
        tap.is_({(row["trial"], row["state"]) for row in rows}, {(True, "draining")},
                "%s: who is served is on trial" % point)
        tap.ok(len(rows) <= AT_ONCE + 2, "by few workers", rows)
        tap.is_(sum(row["sessions"] for row in rows), NR_GUESTS - 1, "all of them")
        pager.until(lambda: pager.versions()[V]["retry_in_ms"] == 0, "new sessions are refused")
        with pager.restore(image, "new"):
            tap.is_(sorted(row["trial"] for row in workers(pager))[:2], [False, True],
                    "who is new has nothing to do with it")
            tap.is_(pager.worker_pid() in [row["pid"] for row in rows], False,
                    "and another worker, which is the version's")
        tap.is_(pager.complete("g0")["state"], "graduated", "who is on trial can graduate")
        for name in guests:
            pager.close_session(name)
        pids = [row["pid"] for row in rows]
        tap.ok(all(pagerd.wait_gone(pid) for pid in pids), "with their sessions the workers go")
        told = [pager.log.wait(r"pid=%d: .*sessions_serving=" % pid) for pid in pids]
        tap.ok(all(x.endswith("as it was told") for x in told), "as they are told to", told)
        for guest in guests.values():
            guest.kill()


def many_of_many():
    """Those that are guilty do not hide behind each other."""
    point = "ADOPT_SESSION=poison:0!crash,ADOPT_WAKE=venom:0!crash"
    with pagerd.Pagerd(worker_fault=";" + 60 * (point + ";"), trial_time="1h") as pager:
        image = pager.image(size="1M", seed=8, holes=10)
        guests = restore_all(pager, image, ["a", "b", "poison", "c", "d", "venom", "e", "f", "g",
                                            "h", "i", "j"])
        os.kill(pager.worker_pid(), signal.SIGKILL)
        for name in ("poison", "venom"):
            pager.log.wait("id=%s: ADOPTING -> HELD on POISONED" % name)
        for name in "abcdefghij":
            pager.wait(name, "serving")
            guests[name].cmd("pulse")
        tap.is_(sorted(n for n in guests if pager.show(n)["state"] == "held"),
                ["poison", "venom"], "two of them, and nobody else, are held")
        tap.ok(not pager.log.find(NOT_SUSPECT), "without waiting for a trial")
        for name in ("poison", "venom"):
            guests.pop(name).kill()
        end_all(guests)


def acquitted():
    with pagerd.Pagerd(trial_time="1h", heartbeat_interval="50ms", heartbeat_misses=200) as pager:
        image = pager.image(size="1M", seed=8)
        guests = restore_all(pager, image, "abc")
        for n in range(CRASHES_TO_SUSPECT):
            tap.ok(not pager.log.find("on trial"), "crash %d" % (n + 1))
            die(pager, signal.SIGABRT)
            for name in guests:
                is_served_again(pager, name, n + 1)
        numbers = {re.search(ON_TRIAL % name, pager.log.wait(ON_TRIAL % name)).group(1)
                   for name in guests}
        tap.is_(len(numbers), 3, "three that were there are on trial, with a worker each")
        tap.ok(not pager.log.find(NOT_SUSPECT), "for an hour")
        pager.ctl("config", "trial-time=1ms")
        for name in guests:
            pager.log.wait(r"id=%s: its worker survived it: %s" % (name, NOT_SUSPECT))
        tap.is_([pager.show(name)["adoptions"] for name in guests], [CRASHES_TO_SUSPECT] * 3,
                "or less, as long as the option says; nobody has to move again")
        mark = pager.log.mark()
        os.kill(workers(pager)[0]["pid"], signal.SIGABRT)
        pager.log.wait(r"adopted by worker", mark)
        tap.ok(not pager.log.find("on trial", mark), "who was acquitted is adopted as any other")
        tap.is_(sorted(row["trial"] for row in workers(pager)), [False, True, True],
                "by the version's worker")
        end_all(guests)


def killed_from_outside():
    """Again and again, within moments of each adoption: no session can do that."""
    with pagerd.Pagerd() as pager:
        image = pager.image(size="1M", seed=8)
        guests = restore_all(pager, image, "ab")
        for n in range(45):
            die(pager, signal.SIGTERM if n % 9 == 8 else signal.SIGKILL)
            for name in guests:
                is_served_again(pager, name, n + 1)
        tap.ok(not pager.log.find("on trial|HELD"), "after 45 kills nobody is suspect")
        tap.is_([row["trial"] for row in workers(pager)], [False], "and there is one worker")
        end_all(guests)


def killed_as_it_starts():
    """Which says nothing of the version: no pause, which would double each time."""
    with pagerd.Pagerd(worker_fault=";" + 12 * "WORKER_START!kill;") as pager:
        image = pager.image(size="1M", seed=8)
        guests = restore_all(pager, image, "ab")
        os.kill(pager.worker_pid(), signal.SIGKILL)
        for name in guests:
            is_served_again(pager, name, 1)
        died = sum("killed by SIGKILL" in x and "sessions_serving=" in x for x in pager.log.lines)
        tap.is_(died, 13, "twelve workers in a row are killed as they start")
        tap.ok(not pager.log.find("on trial|HELD"), "nobody is suspect of it")
        end_all(guests)


def none_starts():
    """What is started together and fails together is one failure: the pause doubles once."""
    # The last of them: the others are with the worker by then, and suspect, too.
    fault = ";" + 3 * "ADOPT_SESSION=d!crash;" + 4 * "WORKER_START;"
    with pagerd.Pagerd(worker_fault=fault) as pager:
        image = pager.image(size="1M", seed=8)
        guests = restore_all(pager, image, "abcd")
        os.kill(pager.worker_pid(), signal.SIGKILL)
        for name in guests:
            is_served_again(pager, name, 1)
        failed = [re.search(r"the next start waits (\d+) ms", x) for x in pager.log.lines
                  if re.search("exited with code [1-9]", x)]
        tap.is_(len(failed), 4, "four workers that are started for suspects fail")
        tap.is_({int(m.group(1)) <= 800 for m in failed if m}, {True}, "and count as one")
        end_all(guests)


def restarted():
    """A later supervisor does not know of trials: it takes one worker for the version's."""
    fault = ";" + 40 * "ADOPT_SESSION=poison:0!crash;"
    with pagerd.Pagerd(worker_fault=fault, trial_time="1h") as pager:
        image = pager.image(size="1M", seed=8)
        guests = restore_all(pager, image, ["a", "b", "poison", "c"])
        is_caught_alone(pager, guests)
        pids = {row["pid"] for row in workers(pager)}
        pager.env.pop("PAGER_WORKER_FAULT")
        pager.close_session("poison")
        guests.pop("poison").kill()
        before = {name: pager.show(name)["adoptions"] for name in guests}
        pager.stop(signal.SIGKILL)
        pager.start()
        now = {name: pager.wait(name, "serving")["adoptions"] for name in guests}
        tap.is_(now, before, "all are served on")
        rows = workers(pager)
        tap.is_({row["pid"] for row in rows}, pids, "by the worker that it had")
        tap.is_(sorted(row["state"] for row in rows), ["draining"] * 2 + ["ready"],
                "one of which is the version's, and the others drain")
        end_all(guests)
        for name in "abc":
            pager.wait(name, "closed")
        pager.until(lambda: len(workers(pager)) == 1, "they do not exit")
        tap.ok(True, "until they are empty")


def is_caught_alone(pager, guests):
    os.kill(pager.worker_pid(), signal.SIGKILL)
    pager.log.wait("id=poison: ADOPTING -> HELD on POISONED")
    for name in guests:
        if name != "poison":
            pager.wait(name, "serving")


if __name__ == "__main__":
    tap.needs_root()
    tap.run(functools.partial(one_of_many, "ADOPT_SESSION"),
            functools.partial(one_of_many, "ADOPT_WAKE"), many_of_many,
            acquitted, killed_from_outside, killed_as_it_starts, none_starts, restarted)
