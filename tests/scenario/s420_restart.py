# SPDX-License-Identifier: Apache-2.0
"""pagerd restarts while its workers serve: nobody notices."""
import json
import os
import signal
import socket
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
import pagerd
import tap
import vmm

WAYS = {"SIGTERM": signal.SIGTERM, "SIGKILL": signal.SIGKILL}


def down(pager, sig=signal.SIGKILL):
    pager.pulse = None
    code = pager.stop(sig)
    # What a killed pagerd was is reaped by now; its pipes are closed.
    pager.log.thread.join(pagerd.DEADLINE_S)
    pager.process.stderr.close()
    return code


def restart(pager, sig=signal.SIGKILL):
    down(pager, sig)
    pager.start()


def records(pager):
    return sorted(name for name in os.listdir(os.path.join(pager.run, "state"))
                  if name.endswith(".json"))


def beat(guest, laps=2000):
    """Until the guest has come so much further; its status then."""
    before = guest.cmd("status")["progress"]
    return guest.wait_status(lambda now: now["progress"] >= before + laps)


def under_load(sig):
    def case():
        with pagerd.Pagerd() as pager:
            image = pager.image(in_memory=True, size="64M", seed=9, holes=100, zeros=100)
            engines = vmm.engines()
            guests = [pager.restore(image, "g%d" % i, engine=engines[i % len(engines)], vcpus=2)
                      for i in range(4)]
            before = [pager.show("g%d" % i) for i in range(4)]
            worker = pager.worker_pid()
            for guest in guests[:3]:
                guest.cmd("start rand write")
            quiet = guests[3]
            lines = [("before", quiet.cmd("touch rand count=1000 seed=1"))]
            down(pager, WAYS[sig])
            tap.ok(not pagerd.wait_gone(worker, 0), "%s: the worker outlives pagerd" % sig)
            lines.append(("down", quiet.cmd("touch rand count=1000 seed=2")))
            tap.ok(all(beat(guest)["total_wrong"] == 0 for guest in guests[:3]),
                   "%s: every guest goes on" % sig)
            pager.start()
            lines.append(("after", quiet.cmd("touch rand count=1000 seed=3")))
            for name, answer in lines:
                tap.note("%s: faults %-6s p50=%s us p99=%s us max=%s us" % (
                    sig, name, answer["p50_us"], answer["p99_us"], answer["max_us"]))
            tap.ok(all(answer["wrong"] == 0 for _, answer in lines), "%s: no wrong byte" % sig)
            tap.is_(lines[1][1]["touched"], 1000, "%s: no fault waited for a supervisor" % sig)
            after = [pager.show("g%d" % i) for i in range(4)]
            for key in ("id", "state", "version", "socket_path", "image", "image_bytes", "cache_key",
                        "guest_bytes", "regions", "vmm_pid"):
                tap.is_([s[key] for s in after], [s[key] for s in before],
                        "%s: %s is as it was" % (sig, key))
            tap.ok(all(b["age_ms"] >= a["age_ms"] for a, b in zip(before, after)),
                   "%s: they have grown older, not younger" % sig)
            tap.ok(after[3]["counters"]["faults"] >= 1, "%s: with their counters" % sig)
            tap.is_(pager.worker_pid(), worker, "%s: it is the same worker" % sig)
            and_then(pager, image, guests, sig)
            for guest in guests:
                guest.kill()
    case.__name__ = "under_load_" + sig
    return case


def and_then(pager, image, guests, sig):
    """Everything works on the sessions that were found."""
    tap.is_(pager.complete("g0")["state"], "graduated", "%s: one graduates" % sig)
    tap.is_(guests[0].cmd("stop")["wrong"], 0, "%s: and reads nothing wrong" % sig)
    tap.is_(guests[0].cmd("verify")["wrong"], 0, "%s: all its memory is right" % sig)
    worker = pager.worker_pid()
    os.kill(worker, signal.SIGKILL)
    pagerd.wait_gone(worker)
    pager.until(lambda: pager.show("g1")["state"] == "serving" and
                pager.worker_pid() not in (None, worker), "g1 is not adopted")
    tap.ok(beat(guests[1])["total_wrong"] == 0, "%s: one is adopted when the worker dies" % sig)
    guests[2].kill()
    tap.is_(pager.wait("g2", "closed")["outcome"], "vmm-exited",
            "%s: the exit of a VMM is noticed" % sig)
    tap.is_(pager.close_session("g1")["outcome"], "closed", "%s: one is closed" % sig)
    with pager.restore(image, "new") as guest:
        tap.is_(guest.cmd("verify")["wrong"], 0, "%s: a new one is served" % sig)
    pager.wait("new", "closed")
    numbers = [int(name.split(".")[0]) for name in records(pager)]
    tap.is_(len(numbers), 1, "%s: records are of what lives" % sig)


def waiting(sig):
    """A session whose VMM connects while nobody is there."""
    def case():
        with pagerd.Pagerd() as pager:
            image = pager.image(size="4M", seed=3)
            path = pager.create(image.path, id="w", handshake_timeout_ms=600000)["socket_path"]
            down(pager, WAYS[sig])
            with vmm.Vmm(image, socket=path, wait=False) as guest:
                guest.send("touch rand count=100")
                pager.start()
                tap.is_(pager.wait("w", "serving")["state"], "serving",
                        "%s: a VMM that connected meanwhile is served" % sig)
                guest.wait_ready()
                tap.is_(guest.answer()["wrong"], 0, "%s: and reads what it should" % sig)
                tap.ok(not os.path.exists(path), "%s: its socket is gone by then" % sig)
    case.__name__ = "waiting_" + sig
    return case


def in_pieces():
    """A VMM that has said half of its handshake."""
    with pagerd.Pagerd() as pager:
        image = pager.image(size="1M", seed=3)
        pager.create(image.path, id="p", handshake_timeout_ms=600000)
        peer = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        peer.settimeout(pagerd.DEADLINE_S)
        mark = pager.log.mark()
        peer.connect(pager.show("p")["socket_path"])
        pager.log.wait(r"id=p: VMM pid=\d+ has connected", mark)
        peer.send(b"[{")
        restart(pager)
        tap.is_(pager.show("p")["state"], "created", "a handshake that has begun is found")
        peer.send(b"\"x\": 1}]")
        session = pager.wait("p", "closed")
        tap.is_(session["outcome"], "refused", "and goes on")
        peer.close()


def times_out():
    with pagerd.Pagerd() as pager:
        image = pager.image(size="1M", seed=3)
        pager.create(image.path, id="t", handshake_timeout_ms=2000)
        restart(pager)
        tap.is_(pager.wait("t", "closed")["outcome"], "timed-out", "a deadline goes on")


def completing():
    """The completion ends with the supervisor; it can be asked for again."""
    with pagerd.Pagerd(worker_fault="POPULATE_CHUNK:2!pause") as pager:
        image = pager.image(in_memory=True, size="512M", seed=5)
        with pager.restore(image, "c") as guest:
            worker = pager.worker_pid()
            asked = pagerd.Pending(pager.complete, "c")
            pager.until(lambda: pagerd.is_stopped(worker), "the worker never paused")
            down(pager)
            os.kill(worker, signal.SIGCONT)
            pager.start()
            try:
                asked.end()
                tap.ok(False, "who asked for it is told")
            except OSError:
                tap.ok(True, "who asked for it is told")
            state = pager.show("c")["state"]
            tap.ok(state in ("serving", "graduated"), "it is served, or was done", state)
            pager.until(lambda: pager.request(
                "POST", pager.path("c", "/complete")).status == 200, "it never completes")
            tap.is_(pager.show("c")["outcome"], "graduated", "asked for again, it graduates")
            tap.is_(guest.cmd("verify")["wrong"], 0, "with all memory right")


def versions():
    """An outdated version drains again, and what was made current stays so."""
    newer, program = pagerd.other_version()
    both = {pagerd.VERSION: pagerd.program("pager-worker"), newer: program}
    newest, third = pagerd.other_version(2)
    with pagerd.Pagerd(versions=both, current=pagerd.VERSION) as pager:
        image = pager.image(size="4M", seed=3)
        with pager.restore(image, "old") as guest:
            pager.call("POST", "/upgrade", {"version": newer})
            del pager.options["current"]
            pager.install(newest, third)
            old, new = pager.worker_pid(pagerd.VERSION), pager.worker_pid(newer)
            pager.create(image.path, id="new", handshake_timeout_ms=60000)
            restart(pager)
            rows = pager.versions()
            tap.ok(rows[newer]["current"], "current is what was made current, not the newest")
            tap.is_(rows[pagerd.VERSION]["state"], "draining", "the outdated version drains")
            tap.is_((rows[pagerd.VERSION].get("pid"), rows[newer].get("pid")), (old, new),
                    "both workers were found")
            pager.call("POST", "/sessions/old/handoff", {"version": newer})
            tap.is_(pager.show("old")["version"], newer, "a found session is moved")
            tap.ok(pagerd.wait_gone(old), "and the outdated worker exits with it")
            pager.until(lambda: pager.versions()[pagerd.VERSION]["state"] == "not-running")
            tap.is_(guest.cmd("verify")["wrong"], 0, "the guest's memory is right")


def lost():
    """A worker dies while nobody is there: what is lost is named, and nothing else."""
    newer, program = pagerd.other_version()
    both = {pagerd.VERSION: pagerd.program("pager-worker"), newer: program}
    with pagerd.Pagerd(versions=both, current=pagerd.VERSION) as pager:
        image = pager.image(size="4M", seed=3)
        with pager.restore(image, "a") as first, pager.restore(image, "b"):
            pager.create(image.path, id="waits")
            victim = pager.worker_pid()
            pager.call("POST", "/upgrade", {"version": newer})
            del pager.options["current"]
            with pager.restore(image, "c") as other:
                down(pager)
                os.kill(victim, signal.SIGKILL)
                pagerd.wait_gone(victim)
                first.kill()
                pager.start()
                tap.is_({s["id"]: (s["state"], s["outcome"])
                         for s in pager.call("GET", "/sessions")["sessions"]},
                        {"a": ("closed", "vmm-exited"), "b": ("closed", "failed"),
                         "waits": ("closed", "failed"), "c": ("serving", None)},
                        "one VMM had exited, two sessions are lost, one is not")
                pager.log.wait("recovery: done")
                lines = [line for line in pager.log.lines if "session lost" in line]
                tap.is_(len(lines), 2, "each loss is a line in the log")
                tap.ok(all(line.startswith("<3>") for line in lines), "of errors")
                tap.like(pager.show("b")["reason"], r"VMM pid=%s .*stop it" % r"\d+",
                         "which says what to do with which VMM")
                tap.like(pager.log.text(), r"recovery: done, .*sessions=1 ended=1 lost=2",
                         "and one line sums it up")
                tap.is_(other.cmd("verify")["wrong"], 0, "the other guest reads on")
                tap.is_(records(pager), ["4.json"], "records are of what lives")


def meanwhile():
    """A VMM that exits while nobody is there."""
    with pagerd.Pagerd() as pager:
        image = pager.image(size="4M", seed=3)
        with pager.restore(image, "x") as gone, pager.restore(image, "y") as stays:
            down(pager)
            gone.kill()
            beat(start(stays))
            pager.start()
            tap.is_(pager.wait("x", "closed")["outcome"], "vmm-exited", "its exit is known")
            tap.is_(pager.show("y")["state"], "serving", "the other is served")
            tap.is_(stays.cmd("stop")["wrong"], 0, "rightly")


def start(guest):
    guest.cmd("start rand")
    return guest


def alone():
    """The last VMM exits while nobody is there: the worker waits to tell."""
    with pagerd.Pagerd() as pager:
        image = pager.image(size="4M", seed=3)
        with pager.restore(image, "x") as gone:
            worker = pager.worker_pid()
            down(pager)
            gone.kill()
            pager.start()
            tap.is_(pager.wait("x", "closed")["outcome"], "vmm-exited", "its exit is known")
            tap.is_(pager.worker_pid(), worker, "from the worker that was left alone")


def again_and_again():
    """Restart after restart: nothing is left over."""
    with pagerd.Pagerd() as pager:
        image = pager.image(size="4M", seed=3)
        with pager.restore(image, "a") as guest:
            guest.cmd("start rand write")
            pager.create(image.path, id="w", handshake_timeout_ms=60000)
            restart(pager)
            worker = pager.worker_pid()
            before = pager.fds(), pager.worker_fds(worker)
            for i in range(6):
                restart(pager, list(WAYS.values())[i % 2])
            pager.ok_fds(pager.process.pid, before[0], "pagerd holds what it held")
            pager.ok_fds(worker, before[1], "so does the worker")
            tap.is_(pager.worker_pids(), [worker], "there is one worker")
            tap.is_(len(os.listdir(os.path.join(pager.run, "workers"))), 1, "one rendezvous")
            tap.is_(records(pager), ["1.json", "2.json"], "and two records")
            tap.is_(pager.create(image.path, id="n")["id"], "n", "another session")
            tap.is_(records(pager)[-1], "3.json", "has the next number")
            for name in ("n", "w"):
                pager.close_session(name)
            tap.is_(beat(guest)["total_wrong"], 0, "the guest has read nothing wrong")
            tap.is_(pager.complete("a")["state"], "graduated", "and graduates")
            tap.is_(records(pager), [], "no record is left")
            tap.is_(os.listdir(os.path.join(pager.run, "sessions")), [], "nor a socket")
            down(pager, signal.SIGTERM)
            tap.ok(pagerd.wait_gone(worker), "an idle worker goes with pagerd")
            tap.is_(os.listdir(os.path.join(pager.run, "workers")), [], "and its socket")


def damaged():
    """A record that cannot be read is not guessed at; the VM is served."""
    with pagerd.Pagerd() as pager:
        image = pager.image(size="4M", seed=3)
        with pager.restore(image, "a") as guest, pager.restore(image, "b"):
            pager.create(image.path, id="w")
            down(pager)
            state = os.path.join(pager.run, "state")
            with open(os.path.join(state, "1.json"), "r+b") as f:
                f.truncate(40)
            os.unlink(os.path.join(state, "3.json"))
            with open(os.path.join(state, "9.json"), "w", encoding="ascii") as f:
                json.dump({"layout": 1, "number": 9, "surprise": True}, f)
            pager.start()
            for number in (1, 9):
                tap.ok(pager.log.wait(r"^<3>.*state/%d\.json: .*session %d" % (number, number)),
                       "record %d is named in the log" % number)
            listed = pager.call("GET", "/sessions")["sessions"]
            tap.is_([s["id"] for s in listed], ["unrecorded-1", "b"], "the oldest comes first")
            found = {s["id"]: s["state"] for s in listed}
            tap.is_(found, {"unrecorded-1": "serving", "b": "serving"},
                    "its session is served under a name that says so")
            tap.ok(pager.log.wait(r"^<3>.*holds session 3, of which there is no record"),
                   "one that no VM has come to is closed, and named")
            tap.is_(pager.complete("unrecorded-1")["state"], "graduated", "it can be completed")
            tap.is_(guest.cmd("verify")["wrong"], 0, "with all memory right")
            pager.create(image.path, id="n")
            tap.is_(records(pager), ["10.json", "2.json"],
                    "numbers go on above every one that was seen")


def hung():
    """A worker that does not answer is not killed: it may hold what nobody else has."""
    with pagerd.Pagerd() as pager:
        image = pager.image(size="4M", seed=3)
        with pager.restore(image, "a") as guest:
            worker = pager.worker_pid()
            down(pager)
            os.kill(worker, signal.SIGSTOP)
            pager.options["hello_timeout"] = "300ms"
            pager.start()
            tap.ok(pager.log.wait("has not told what it holds"), "pagerd is ready without it")
            tap.is_(pager.show("a")["state"], "adopting", "and says that it does not know")
            tap.ok(pagerd.is_stopped(worker), "it lives")
            status, code, _ = pager.error_of("POST", "/sessions/a/complete")
            tap.is_((status, code), (409, "state"), "nothing can be done with it yet")
            os.kill(worker, signal.SIGCONT)
            tap.is_(pager.wait("a", "serving")["state"], "serving", "once it answers it is found")
            tap.is_(guest.cmd("verify")["wrong"], 0, "and nothing was lost")


def stranger():
    """Only the supervisor's user is let in, and who is there is checked."""
    with pagerd.Pagerd() as pager:
        image = pager.image(size="4M", seed=3)
        with pager.restore(image, "a") as guest:
            workers = os.path.join(pager.run, "workers")
            path = os.path.join(workers, os.listdir(workers)[0])
            down(pager)
            os.chmod(path, 0o666)
            child = os.fork()
            if child == 0:
                os.setuid(12345)
                s = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
                s.settimeout(pagerd.DEADLINE_S)
                s.connect(path)
                os._exit(0 if s.recv(100) == b"" else 1)
            tap.is_(os.waitpid(child, 0)[1], 0, "another user is hung up on")
            fake = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            fake.bind(os.path.join(workers, "9.9.9.7.sock"))
            fake.listen(1)
            dead = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            dead.bind(os.path.join(workers, "9.9.9.8.sock"))
            dead.close()
            pager.start()
            tap.ok(pager.log.wait(r"child 7 v9\.9\.9 .*not trusted"),
                   "a socket that no worker listens to is left alone")
            tap.ok(not os.path.exists(os.path.join(workers, "9.9.9.8.sock")), "a dead one goes")
            tap.is_(pager.show("a")["state"], "serving", "the worker is found")
            tap.is_(guest.cmd("verify")["wrong"], 0, "and serves")
            fake.close()


def shutdown():
    with pagerd.Pagerd() as pager:
        image = pager.image(size="4M", seed=3)
        with pager.restore(image, "a"):
            status, code, text = pager.error_of("POST", "/shutdown")
            tap.is_((status, code), (409, "busy"), "it is refused while a session lives")
            tap.like(text, r"1 sessions live.*: a;", "which it names")
            answer = pager.ctl("shutdown")
            tap.ok(answer.returncode != 0 and "a;" in answer.stderr, "pagerctl says the same",
                   answer.stderr)
            tap.is_(pager.show("a")["state"], "serving", "nothing has changed")
            worker = pager.worker_pid()
            answer = pager.ctl("shutdown", "--force")
            tap.is_((answer.returncode, answer.stdout),
                    (0, "pagerd shuts down; sessions ended: 1\n"), "by force it is done")
            tap.is_(pager.process.wait(pagerd.DEADLINE_S), 0, "pagerd ends")
            tap.ok(pagerd.wait_gone(worker), "and the worker")
            tap.is_(records(pager), [], "no record is left")
            for name in ("sessions", "workers"):
                tap.is_(os.listdir(os.path.join(pager.run, name)), [], "nor a socket in " + name)
            tap.ok(not os.path.exists(pager.socket), "nor that of pagerd")


if __name__ == "__main__":
    tap.needs_root()
    tap.run(*[case(sig) for case in (under_load, waiting) for sig in WAYS], in_pieces, times_out,
            completing, versions, lost, meanwhile, alone, again_and_again, damaged, hung, stranger,
            shutdown)
