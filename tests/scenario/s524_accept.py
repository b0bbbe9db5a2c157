#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
# builds: plain asan
"""The connection of a VMM is the supervisor's from the first moment: no worker that dies takes
it along, whether it was about to hear of it, had just heard or was not there at all."""
import os
import signal
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
import pagerd  # noqa: E402
import tap  # noqa: E402
import vmm  # noqa: E402


def served(pager, guest, what):
    tap.is_(pager.wait("a", "serving")["state"], "serving", what)
    guest.wait_ready()
    tap.is_(guest.cmd("verify")["wrong"], 0, "and reads what it must")


def connected(pager, image):
    """A VMM that has connected, as the supervisor knows."""
    session = pager.create(image.path, id="a")
    pid = pager.worker_pid()
    os.kill(pid, signal.SIGSTOP)
    guest = vmm.Vmm(image, socket=session["socket_path"], wait=False)
    pager.until(lambda: pager.show("a")["vmm_pid"] == guest.pid, "nobody accepts", 20)
    return pid, guest


def unheard():
    """The worker is killed before it has looked at its link."""
    with pagerd.Pagerd() as pager:
        image = pager.image(size="4M", seed=61)
        pid, guest = connected(pager, image)
        with guest:
            tap.ok(True, "a VMM is accepted while its worker stands still")
            os.kill(pid, signal.SIGKILL)
            served(pager, guest, "which dies: another one serves it")


def heard_late():
    with pagerd.Pagerd() as pager:
        image = pager.image(size="4M", seed=62)
        pid, guest = connected(pager, image)
        with guest:
            os.kill(pid, signal.SIGCONT)
            served(pager, guest, "which goes on: it serves it")
            tap.is_(pager.worker_pid(), pid, "itself")


def no_supervisor():
    """It connects while there is none, and waits for the next."""
    with pagerd.Pagerd() as pager:
        image = pager.image(size="4M", seed=63)
        session = pager.create(image.path, id="a")
        pager.turn()
        pid = pager.worker_pid()
        pager.process.kill()
        pager.process.wait()
        pager.log.thread.join()
        pager.process.stderr.close()
        pager.pulse.close()
        pager.pulse = None
        with vmm.Vmm(image, socket=session["socket_path"], wait=False) as guest:
            pager.start()
            served(pager, guest, "a VMM that comes between two supervisors is served")
            tap.is_(pager.worker_pid(), pid, "by the worker that had its session")


def second():
    """Whoever comes after it is refused, and the first one is served on."""
    with pagerd.Pagerd() as pager:
        image = pager.image(size="4M", seed=64)
        session = pager.create(image.path, id="a")
        first, other = (pagerd.dial(session["socket_path"]) for _ in range(2))
        pager.log.wait(r"session 1 a: second connection refused")
        tap.is_(other.recv(1), b"", "a second VMM is refused")
        first.setblocking(False)
        try:
            first.recv(1)
            tap.ok(False, "the first is still heard")
        except BlockingIOError:
            tap.ok(True, "the first is still heard")
        other.close()
        first.close()
        pager.log.wait(r"handshake refused")
        tap.ok(True, "and what it does not say is told")


def second_after_restart():
    """The next supervisor finds the first, and takes nobody else for it."""
    with pagerd.Pagerd() as pager:
        image = pager.image(size="4M", seed=65)
        session = pager.create(image.path, id="a")
        with pagerd.dial(session["socket_path"]) as first:
            pager.log.wait(r"id=a: VMM pid=\d+ has connected")
            first.send(b"[{")
            pager.stop(signal.SIGKILL)
            pager.pulse = None
            pager.log.thread.join(pagerd.DEADLINE_S)
            pager.process.stderr.close()
            pager.start()
            tap.is_(pager.show("a")["state"], "created", "its session is found")
            with vmm.Vmm(image, socket=session["socket_path"], wait=False) as other:
                pager.log.wait(r"session 1 a: second connection refused")
                tap.is_(pager.show("a")["vmm_pid"], os.getpid(), "its VMM is the first")
                other.kill()
            first.send(b'"x": 1}]')
            tap.is_(pager.wait("a", "closed")["outcome"], "refused",
                    "which is heard, and the second one's exit ends nothing")


if __name__ == "__main__":
    tap.needs_root()
    tap.run(unheard, heard_late, no_supervisor, second, second_after_restart)
