#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
# builds: plain asan
"""A worker dies, in every way and at every point, and another takes its sessions over:
no guest reads a wrong byte, and none is lost."""
import functools
import json
import os
import signal
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
import handshake  # noqa: E402
import pagerd  # noqa: E402
import tap  # noqa: E402
import vmm  # noqa: E402

V = pagerd.VERSION
MIB = 1 << 20
UFFD = "anon_inode:[userfaultfd]"
# A death at the Nth pass of a point of the first worker; the second one has no fault.
FILL_POINTS = [("FILL_AFTER_READ", 1), ("FILL_AFTER_READ", 60), ("FILL_AFTER_MARK", 1),
               ("FILL_AFTER_MARK", 90), ("FILL_AFTER_IOCTL", 1), ("FILL_AFTER_IOCTL", 90)]
COMPLETE_POINTS = [("POPULATE_CHUNK", 1), ("POPULATE_CHUNK", 7), ("COMPLETE_DETACH", 1),
                   ("COMPLETE_ANSWER", 1)]
# A guest that has not touched everything long before a completion has, however slow that is.
PACED = "start rand write period=5000 burst=2"


def is_served_again(pager, name, adoptions=1):
    """A worker's death is noticed a moment after it: what counts is the adoption."""
    pager.until(lambda: pager.show(name)["adoptions"] >= adoptions, "nobody adopts %s" % name)
    now = pager.wait(name, "serving")
    tap.is_((now["adoptions"], now["unserved_ms"]), (adoptions, 0), "%s is served again" % name)


def is_right(guest, what="every page is right"):
    answer = guest.cmd("verify")
    return tap.is_((answer["wrong"], guest.cmd("status")["total_wrong"]), (0, 0), what)


def two_versions(**options):
    new, worker = pagerd.other_version()
    return new, pagerd.Pagerd({V: pagerd.program("pager-worker"), new: worker}, current=V, **options)


# --- Ways to die -------------------------------------------------------------------

def signals():
    with pagerd.Pagerd() as pager:
        image = pager.image(in_memory=True, size="32M", seed=4, holes=100, zeros=100)
        guests = {}
        for i, engine in enumerate(vmm.engines() * 2):
            guests["g%d" % i] = pager.restore(image, "g%d" % i, engine=engine, vcpus=1 + 2 * (i % 2),
                                              regions=1 + i % 2)
        for guest in guests.values():
            guest.cmd("discard rand count=100 seed=3")
            guest.cmd("start rand write")
        for n, sig in enumerate((signal.SIGKILL, signal.SIGSEGV, signal.SIGSYS, signal.SIGABRT)):
            pid = pager.worker_pid()
            os.kill(pid, sig)
            tap.ok(pagerd.wait_gone(pid), "a worker dies by %s" % sig.name)
            for name, guest in guests.items():
                is_served_again(pager, name, n + 1)
                guest.cmd("pulse")
                guest.cmd("discard rand count=50 seed=%d touch" % n)
        for name, guest in guests.items():
            tap.is_(guest.cmd("stop")["wrong"], 0, "%s has read nothing wrong" % name)
            is_right(guest)
            tap.is_(pager.complete(name)["state"], "graduated", "and graduates")
            is_right(guest)
            guest.kill()


def hung():
    with pagerd.Pagerd(heartbeat_interval="100ms", heartbeat_misses=20) as pager:
        image = pager.image(size="16M", seed=7, holes=50)
        guests = {name: pager.restore(image, name, vcpus=2) for name in "abc"}
        for guest in guests.values():
            guest.cmd("start rand write")
        for n in range(2):
            pid = pager.worker_pid()
            os.kill(pid, signal.SIGSTOP)
            tap.ok(pagerd.wait_gone(pid), "a worker that stands still is killed")
            pager.log.wait(r"pid=%d: killed by SIGKILL: it does not answer heartbeats" % pid)
            for name, guest in guests.items():
                is_served_again(pager, name, n + 1)
                guest.cmd("pulse")
        for name, guest in guests.items():
            tap.is_(guest.cmd("stop")["wrong"], 0, "%s has read nothing wrong" % name)
            is_right(guest)
            guest.kill()


# --- Points to die at --------------------------------------------------------------

def in_a_fill(engine, point, n):
    """Discards before the death, while nobody serves, and after it."""
    with pagerd.Pagerd(worker_fault="%s:%d!kill;" % (point, n)) as pager:
        image = pager.image(in_memory=True, size="16M", seed=9, holes=150, zeros=50)
        with pager.restore(image, "a", engine=engine, vcpus=3, regions=2) as guest:
            pid = pager.worker_pid()
            guest.cmd("discard 40 20")
            guest.cmd("discard rand count=30 seed=2 touch")
            answer = guest.cmd("touch rand count=3000 seed=5")
            tap.is_(answer["wrong"], 0, "%s: %s at pass %d" % (engine, point, n))
            tap.ok(pagerd.wait_gone(pid), "kills the worker")
            is_served_again(pager, "a")
            guest.cmd("write rand count=300")
            guest.cmd("discard rand count=200 seed=6")
            is_right(guest)
            tap.is_(pager.complete("a")["state"], "graduated", "it graduates")
            is_right(guest)


def in_a_completion(point, n):
    with pagerd.Pagerd(worker_fault="%s:%d!kill;" % (point, n)) as pager:
        image = pager.image(in_memory=True, size="32M", seed=9, holes=150, zeros=50)
        with pager.restore(image, "a", vcpus=2) as guest, pager.restore(image, "b") as other:
            guest.cmd("discard 40 20")
            guest.cmd(PACED)
            status, code, why = pager.error_of("POST", "/sessions/a/complete")
            tap.is_((status, code), (500, "failed"), "%s at pass %d: its caller is told" % (point, n))
            tap.like(why, "its worker died", "why")
            is_served_again(pager, "a")
            is_served_again(pager, "b")
            guest.cmd("discard rand count=200 seed=6 touch")
            tap.is_([pager.complete(x)["state"] for x in "ab"], ["graduated"] * 2, "said again")
            tap.is_(guest.cmd("stop")["wrong"], 0, "nothing wrong was read")
            is_right(guest)
            is_right(other)


def in_an_adoption():
    """One death after another: the first fill, the adoption, the wake-up, a fill again."""
    fault = "FILL_AFTER_IOCTL:9!kill;ADOPT_SESSION!kill;ADOPT_WAKE!kill;FILL_AFTER_MARK:3!kill;"
    with pagerd.Pagerd(worker_fault=fault) as pager:
        image = pager.image(in_memory=True, size="16M", seed=9, holes=150, zeros=50)
        with pager.restore(image, "a", vcpus=2) as guest, pager.restore(image, "b") as other:
            for each in (guest, other):
                each.send("touch rand count=2000 seed=5")
            tap.is_([each.answer()["wrong"] for each in (guest, other)], [0, 0],
                    "two guests and four workers that die")
            pager.log.wait("child 5 .*READY")
            for each in "ab":
                pager.wait(each, "serving")
            is_right(guest)
            is_right(other)


def sleeps_in_madvise(pid):
    for task in os.listdir("/proc/%d/task" % pid):
        with open("/proc/%d/task/%s/wchan" % (pid, task), encoding="ascii") as f:
            if "userfaultfd_event_wait" in f.read():
                return True
    return False


def discards_meanwhile():
    """Discarded while nobody reads: pages that were present, and pages that never were."""
    with pagerd.Pagerd(worker_fault=";ADOPT_SESSION!pause;") as pager:
        image = pager.image(size="16M", seed=9)
        with pager.restore(image, "a") as guest:
            guest.cmd("touch seq count=512")
            os.kill(pager.worker_pid(), signal.SIGKILL)
            pager.log.wait("child 2 .*READY")
            pid = pager.worker_pid()
            pager.until(lambda: pagerd.is_stopped(pid), "the adopter never paused")
            now = pager.show("a")
            tap.is_((now["state"], now["adoptions"]), ("adopting", 0), "while nobody serves it")
            guest.send("discard 480 64")
            pager.until(lambda: sleeps_in_madvise(guest.pid), "the balloon never waited")
            pager.until(lambda: pager.show("a")["unserved_ms"] > 0)
            os.kill(pid, signal.SIGCONT)
            tap.is_(guest.answer()["discarded"], 64, "a guest discards")
            is_served_again(pager, "a")
            is_right(guest, "which is zeros for ever")


# --- Other moments -----------------------------------------------------------------

def in_a_drain():
    new, pager = two_versions()
    with pager:
        image = pager.image(size="16M", seed=7)
        with pager.restore(image, "a") as guest, pager.restore(image, "b") as other:
            guest.cmd("start rand write")
            pager.call("POST", "/upgrade", {"version": new})
            pid = pager.worker_pid(V)
            os.kill(pid, signal.SIGKILL)
            pagerd.wait_gone(pid)
            for name in "ab":
                is_served_again(pager, name)
                tap.is_(pager.show(name)["version"], V, "by the version that drains")
            row = pager.versions()[V]
            tap.is_((row["draining"], row["sessions"]), (True, 2), "which drains on")
            with pager.restore(image, "c"):
                tap.is_(pager.show("c")["version"], new, "a new session goes to the current one")
            tap.is_(pager.complete("a")["state"], "graduated", "the first graduates")
            tap.is_(guest.cmd("stop")["wrong"], 0, "its guest has read nothing wrong")
            is_right(guest)
            is_right(other)
            pid = pager.worker_pid(V)
            pager.close_session("b")
            tap.ok(pagerd.wait_gone(pid), "with the last session the adopter goes")
            pager.log.wait("pid=%d: exited with code 0, .*as it was told" % pid)


def version_is_gone():
    new, pager = two_versions()
    with pager:
        image = pager.image(size="16M", seed=7)
        with pager.restore(image, "a", vcpus=2) as guest:
            guest.cmd("start rand write")
            pager.call("POST", "/upgrade", {"version": new})
            os.rename(os.path.join(pager.workers, V), os.path.join(pager.dir, "removed"))
            os.kill(pager.worker_pid(V), signal.SIGKILL)
            is_served_again(pager, "a")
            tap.is_(pager.show("a")["version"], new, "a version that is not installed any more: "
                    "the current one adopts")
            tap.is_(guest.cmd("stop")["wrong"], 0, "the guest has read nothing wrong")
            is_right(guest)


def last_words():
    """A worker that dies when it is told to let go has let go."""
    with pagerd.Pagerd(worker_fault="RELEASE_SESSION=a!kill;") as pager:
        image = pager.image(size="4M", seed=7)
        with pager.restore(image, "a"), pager.restore(image, "b") as other:
            tap.is_(pager.close_session("a")["outcome"], "closed", "a worker dies of a close")
            is_served_again(pager, "b")
            is_right(other)


# --- Handshakes --------------------------------------------------------------------

def in_a_handshake():
    with pagerd.Pagerd(worker_fault="HANDSHAKE_READ!kill;HANDSHAKE_READ!kill;") as pager:
        image = pager.image(size="4M", seed=3)
        with pager.restore(image, "a") as guest:
            tap.ok(pager.log.find("child 3 "), "two workers die in the middle of a handshake")
            tap.is_(pager.show("a")["adoptions"], 0, "the third one ends it")
            is_right(guest)


def in_pieces():
    """The VMM has said one half when the worker dies, and says the other one to the next."""
    with pagerd.Pagerd() as pager:
        image = pager.image(size="4M", seed=3)
        session = pager.create(image.path, id="a")
        with handshake.Memory(4 * MIB) as memory, memory.dial(session["socket_path"]) as vm:
            text = json.dumps(memory.regions()).encode()
            cuts = [0, 1, len(text) // 2, len(text) - 1, len(text)]
            for i, (start, end) in enumerate(zip(cuts, cuts[1:])):
                pid, mark = pager.worker_pid(), pager.log.mark()
                handshake.send(vm, text[start:end], [memory.uffd] if i == 0 else [])
                if end == len(text):
                    break
                pager.until(lambda p=pid: UFFD in pagerd.fds_of(p).values(), "it was not heard")
                os.kill(pid, signal.SIGKILL)
                pager.log.wait("id=a: CREATED -> CREATED on OPENED", mark)
            tap.is_(pager.wait("a", "serving")["state"], "serving",
                    "a handshake in four pieces, to four workers")
            pager.complete("a")
            with open(image.path, "rb") as f:
                tap.ok(memory.read() == f.read(), "and all memory is right")


def many_pieces():
    with pagerd.Pagerd() as pager:
        image = pager.image(size="64M", seed=3)
        session = pager.create(image.path, id="a")
        with handshake.Memory(64 * MIB) as memory, memory.dial(session["socket_path"]) as vm:
            # Longer than a socket holds: it has to be read while it is being sent.
            text = json.dumps(memory.regions()).encode().replace(b",", b"," + b" " * 150000)
            handshake.send(vm, text[:1], [memory.uffd])
            vm.settimeout(pagerd.DEADLINE_S)
            vm.sendall(text[1:])
            tap.is_(pager.wait("a", "serving")["state"], "serving",
                    "a handshake of %d bytes" % len(text))
        session = pager.create(image.path, id="b")
        with handshake.Memory(64 * MIB) as memory, memory.dial(session["socket_path"]) as vm:
            text = json.dumps(memory.regions()).encode().replace(b",", b"," + b" " * 300)
            vm.settimeout(pagerd.DEADLINE_S)
            handshake.send(vm, text[:1], [memory.uffd])
            for i in range(1, len(text)):
                vm.send(text[i:i + 1])
            tap.is_(pager.wait("b", "serving")["state"], "serving", "one in %d pieces" % len(text))


# --- A session that kills workers --------------------------------------------------

def held(pager, guests):
    """Until the poisonous one is held and the others are served."""
    os.kill(pager.worker_pid(), signal.SIGKILL)
    pager.log.wait("id=poison: ADOPTING -> HELD on POISONED: worker after worker died with it")
    for name, guest in guests.items():
        if name != "poison":
            pager.wait(name, "serving")
            guest.cmd("pulse")
    now = pager.show("poison")
    tap.is_(now["state"], "held", "a session that kills every worker that adopts it is held")
    tap.like(now["reason"], "worker after worker died with it", "and says why")
    tap.ok(now["unserved_ms"] > 0, "nobody serves it", now["unserved_ms"])
    tap.is_([pager.show(n)["state"] for n in guests if n != "poison"],
            ["serving"] * (len(guests) - 1), "the others are served")


def poison():
    # The one that serves first, five that die of it, and then some that can bear it.
    fault = ";" + 5 * "ADOPT_SESSION=poison:0!crash;"
    with pagerd.Pagerd(worker_fault=fault) as pager:
        image = pager.image(size="16M", seed=8, holes=100)
        guests = {name: pager.restore(image, name, vcpus=2)
                  for name in ("a", "poison", "b", "c")}
        for guest in guests.values():
            guest.cmd("start rand write")
        held(pager, guests)
        tap.is_(pager.error_of("POST", "/sessions/poison/complete")[:2], (409, "state"),
                "it cannot be completed")
        tap.is_(pager.error_of("POST", "/sessions/poison/handoff", {"version": V})[:2],
                (409, "state"), "or moved")
        tap.is_(pager.error_of("POST", "/sessions/a/retry")[:2], (409, "state"),
                "what is not held is not retried")
        answers = [pager.ctl("retry", "poison")]
        while answers[-1].returncode and len(answers) < 6:
            tap.like(answers[-1].stderr, "worker after worker died with it", "held again")
            answers.append(pager.ctl("retry", "poison"))
        tap.is_((answers[-1].returncode, answers[-1].stdout, answers[-1].stderr),
                (0, "poison is serving on %s\n" % V, ""), "an operator retries until it serves")
        for name, guest in guests.items():
            pager.wait(name, "serving")
            tap.is_(guest.cmd("stop")["wrong"], 0, "%s has read nothing wrong" % name)
            is_right(guest)
            guest.kill()


def poison_is_closed():
    with pagerd.Pagerd(worker_fault=";" + 20 * "ADOPT_SESSION=poison:0!crash;") as pager:
        image = pager.image(size="4M", seed=8)
        guests = {name: pager.restore(image, name) for name in ("poison", "a")}
        guests["a"].cmd("start rand")
        held(pager, guests)
        status, code, why = pager.error_of("POST", "/sessions/poison/retry")
        tap.is_((status, code), (500, "failed"), "retried, and held again")
        tap.like(why, "worker after worker died with it", "which is said")
        pager.wait("a", "serving")
        count = list(pagerd.fds_of(pager.process.pid).values()).count
        tap.is_(count(UFFD), 2, "its memory is held")
        tap.is_(pager.close_session("poison")["outcome"], "closed", "it is closed")
        pager.until(lambda: list(pagerd.fds_of(pager.process.pid).values()).count(UFFD) == 1)
        tap.ok(True, "then its memory is let go")
        tap.is_(guests["a"].cmd("stop")["wrong"], 0, "the other guest has read nothing wrong")
        for guest in guests.values():
            guest.kill()


if __name__ == "__main__":
    tap.needs_root()
    tap.run(signals, hung,
            *[functools.partial(in_a_fill, vmm.engines()[i % len(vmm.engines())], *p)
              for i, p in enumerate(FILL_POINTS)],
            *[functools.partial(in_a_completion, *p) for p in COMPLETE_POINTS],
            in_an_adoption, discards_meanwhile, in_a_drain, version_is_gone, last_words,
            in_a_handshake, in_pieces, many_pieces, poison, poison_is_closed)
