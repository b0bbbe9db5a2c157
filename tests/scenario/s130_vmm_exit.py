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
import stage  # noqa: E402
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


def silent(session, words):
    process = subprocess.Popen([sys.executable, "-c", SILENT_VMM, session["socket_path"], words],
                               stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    process.stdout.readline()
    return process


def never_connected():
    with stage.Stage() as on:
        session = on.pager.create(on.image.path, id="a", handshake_timeout_ms=1500)
        tap.is_(on.pager.wait("a", "closed")["outcome"], "timed-out",
                "a VMM that was killed before it connected is one that never came")
        tap.ok(not os.path.exists(session["socket_path"]), "its socket is gone")
        on.as_before()


def in_handshake():
    with stage.Stage() as on:
        for words in ("", "[", '[{"base_host_virt_addr":4096,"size":'):
            session = on.pager.create(on.image.path, id="a")
            process = silent(session, words)
            process.kill()
            process.wait()
            status, code, why = on.pager.error_of("GET", "/sessions/a?wait=serving")
            tap.is_((status, code), (409, "ended"), "killed after %d bytes" % len(words))
            # The worker may read the end of the connection before the supervisor hears of
            # the process's.
            tap.like(why, "refused: the VMM closed the connection after %d bytes, before|"
                     "vmm-exited: the VMM pid=%d exited" % (len(words), process.pid),
                     "the client is told")
            on.pager.wait("a", "closed")
            tap.ok(not os.path.exists(session["socket_path"]), "its socket is gone")
            process.stdin.close()
            process.stdout.close()
        on.as_before()


def serving():
    with stage.Stage() as on:
        guests = [on.pager.restore(on.image, "a%d" % i, engine=engine)
                  for i, engine in enumerate(vmm.engines() * 2)]
        for guest in guests:
            guest.cmd("start rand write")
        waiters = [pagerd.Pending(on.pager.wait, "a%d" % i, "closed")
                   for i in range(len(guests))]
        for guest in guests:
            guest.kill()
        ended = [w.end() for w in waiters]
        tap.is_([(s["state"], s["outcome"], s["reason"]) for s in ended],
                [("closed", "vmm-exited", "the VMM pid=%d exited" % g.pid) for g in guests],
                "%d VMMs killed while their guests work" % len(guests))
        tap.is_(on.pager.error_of("POST", "/sessions/a0/complete")[:2], (409, "state"),
                "nothing is left to complete")
        on.as_before()


def exits_by_itself():
    with stage.Stage() as on:
        guest = on.pager.restore(on.image, "a")
        tap.is_(guest.quit(), 0, "a VMM that exits")
        tap.is_(on.pager.wait("a", "closed")["outcome"], "vmm-exited", "is seen in the same way")
        on.as_before()


def completing():
    """Many times over, at whatever moment the kill finds the completion."""
    with stage.Stage() as on:
        outcomes = set()
        image = on.pager.image("big", in_memory=True, size="64M", seed=4)
        for i in range(8):
            guest = on.pager.restore(image, "a%d" % i)
            guest.cmd("start rand write")
            call = pagerd.Pending(on.pager.request, "POST", "/sessions/a%d/complete" % i)
            on.pager.log.wait("id=a%d: SERVING -> COMPLETING" % i)
            for _ in range(i):
                on.pager.turn()
            guest.kill()
            answer = call.end()
            session = on.pager.show("a%d" % i)
            outcomes.add((answer.status, session["outcome"]))
        tap.ok(outcomes <= {(409, "vmm-exited"), (200, "graduated")},
               "killed while completing: the caller is told", outcomes)
        on.as_before()


def connection_closed():
    """Older Firecrackers close the connection at once: that is not their end."""
    with stage.Stage() as on:
        session = on.pager.create(on.image.path, id="a")
        with vmm.Vmm(on.image, socket=session["socket_path"]) as guest:
            on.pager.wait("a", "serving")
            fds = [fd for fd, name in pagerd.fds_of(guest.pid).items() if name.startswith("socket")]
            tap.ok(fds, "the VMM holds its connection")
            shut_down(guest.pid, fds[0])
            tap.is_(guest.cmd("verify")["wrong"], 0, "shut down by the VMM, it is served on")
            tap.is_(on.pager.show("a")["state"], "serving", "and still a session")
        tap.is_(on.pager.wait("a", "closed")["outcome"], "vmm-exited", "until it exits")
        on.as_before()


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
