#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
# builds: plain asan
"""VMMs that are killed, in every state of their session."""
import os
import socket
import subprocess
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
import pagerd  # noqa: E402
import tap  # noqa: E402
import vmm  # noqa: E402

# Connects, says half a handshake, and stays until it is killed.
SILENT_VMM = """
import socket, sys
s = socket.socket(socket.AF_UNIX)
s.connect(sys.argv[1])
s.send(sys.argv[2].encode())
print("connected", flush=True)
sys.stdin.read()
"""


class Bench:
    """A pagerd with a neighbour whose guest works all along, and the counts to return to."""

    def __init__(self, **options):
        self.pager = pagerd.Pagerd(**options)

    def __enter__(self):
        pager = self.pager
        self.image = pager.image(size="8M", seed=3, holes=100)
        self.neighbour = pager.restore(self.image, "neighbour")
        self.neighbour.cmd("start rand write")
        self.worker = pager.worker_pid()
        self.before = pager.fds(), pager.worker_fds(self.worker)
        return self

    def as_before(self):
        pager = self.pager
        pager.ok_fds(pager.process.pid, self.before[0], "the supervisor's descriptors are as before")
        pager.ok_fds(self.worker, self.before[1], "and the worker's")
        tap.is_(pager.worker_pid(), self.worker, "the worker is the same")
        with pager.restore(self.image, "next") as guest:
            tap.is_(guest.cmd("verify")["wrong"], 0, "and serves the next one")
        pager.wait("next", "closed")

    def __exit__(self, kind, error, trace):
        if not error:
            answer = self.neighbour.cmd("stop")
            tap.ok(answer["wrong"] == 0 and answer["loops"] > 0, "the neighbour worked on", answer)
            tap.is_(self.neighbour.cmd("verify")["wrong"], 0, "and is right")
        self.neighbour.kill()
        self.pager.__exit__(kind, error, trace)


def silent(session, words):
    process = subprocess.Popen([sys.executable, "-c", SILENT_VMM, session["socket_path"], words],
                               stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    process.stdout.readline()
    return process


def never_connected():
    with Bench(handshake_timeout="100ms") as bench:
        session = bench.pager.create(bench.image.path, id="a", handshake_timeout_ms=100)
        tap.is_(bench.pager.wait("a", "closed")["outcome"], "timed-out",
                "a VMM that was killed before it connected is one that never came")
        tap.ok(not os.path.exists(session["socket_path"]), "its socket is gone")
        bench.as_before()


def in_handshake():
    with Bench() as bench:
        for words in ("", "[", '[{"base_host_virt_addr":4096,"size":'):
            session = bench.pager.create(bench.image.path, id="a")
            process = silent(session, words)
            process.kill()
            process.wait()
            status, code, why = bench.pager.error_of("GET", "/sessions/a?wait=serving")
            tap.is_((status, code), (409, "ended"), "killed after %d bytes" % len(words))
            tap.like(why, "refused: the VMM closed the connection after %d bytes, before the JSON "
                     "value was complete" % len(words), "the client is told")
            tap.ok(not os.path.exists(session["socket_path"]), "its socket is gone")
            process.stdin.close()
            process.stdout.close()
        bench.as_before()


def serving():
    with Bench() as bench:
        guests = [bench.pager.restore(bench.image, "a%d" % i, engine=engine)
                  for i, engine in enumerate(vmm.engines() * 2)]
        for guest in guests:
            guest.cmd("start rand write")
        waiters = [pagerd.Pending(bench.pager.wait, "a%d" % i, "closed")
                   for i in range(len(guests))]
        for guest in guests:
            guest.kill()
        ended = [w.end() for w in waiters]
        tap.is_([(s["state"], s["outcome"], s["reason"]) for s in ended],
                [("closed", "vmm-exited", "the VMM pid=%d exited" % g.pid) for g in guests],
                "%d VMMs killed while their guests work" % len(guests))
        tap.is_(bench.pager.error_of("POST", "/sessions/a0/complete")[:2], (409, "state"),
                "nothing is left to complete")
        bench.as_before()


def exits_by_itself():
    with Bench() as bench:
        guest = bench.pager.restore(bench.image, "a")
        tap.is_(guest.quit(), 0, "a VMM that exits")
        tap.is_(bench.pager.wait("a", "closed")["outcome"], "vmm-exited", "is seen in the same way")
        bench.as_before()


def completing():
    """Many times over, at whatever moment the kill finds the completion."""
    with Bench() as bench:
        outcomes = set()
        image = bench.pager.image("big", in_memory=True, size="64M", seed=4)
        for i in range(8):
            guest = bench.pager.restore(image, "a%d" % i)
            guest.cmd("start rand write")
            call = pagerd.Pending(bench.pager.request, "POST", "/sessions/a%d/complete" % i)
            bench.pager.log.wait("id=a%d: SERVING -> COMPLETING" % i)
            for _ in range(i):
                bench.pager.turn()
            guest.kill()
            answer = call.end()
            session = bench.pager.show("a%d" % i)
            outcomes.add((answer.status, session["outcome"]))
        tap.ok(outcomes <= {(409, "vmm-exited"), (200, "graduated")},
               "killed while completing: the caller is told", outcomes)
        bench.as_before()


def connection_closed():
    """Older Firecrackers close the connection at once: that is not their end."""
    with Bench() as bench:
        session = bench.pager.create(bench.image.path, id="a")
        with vmm.Vmm(bench.image, socket=session["socket_path"]) as guest:
            bench.pager.wait("a", "serving")
            fds = [fd for fd, name in pagerd.fds_of(guest.pid).items() if name.startswith("socket")]
            tap.ok(fds, "the VMM holds its connection")
            shut_down(guest.pid, fds[0])
            tap.is_(guest.cmd("verify")["wrong"], 0, "shut down by the VMM, it is served on")
            tap.is_(bench.pager.show("a")["state"], "serving", "and still a session")
        tap.is_(bench.pager.wait("a", "closed")["outcome"], "vmm-exited", "until it exits")
        bench.as_before()


def shut_down(pid, number):
    """The connection of another process, by a duplicate of its descriptor."""
    pidfd = os.pidfd_open(pid)
    fd = pagerd.ctypes.CDLL(None, use_errno=True).syscall(438, pidfd, number, 0)
    os.close(pidfd)
    with socket.socket(fileno=fd) as s:
        s.shutdown(socket.SHUT_RDWR)


if __name__ == "__main__":
    tap.needs_root()
    tap.run(never_connected, in_handshake, serving, exits_by_itself, completing, connection_closed)
