#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
# builds: plain asan
"""Storage that does not answer: only who needs its pages waits for it."""
import os
import signal
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
import fuse  # noqa: E402
import handshake  # noqa: E402
import pagerd  # noqa: E402
import tap  # noqa: E402

MIB = 1 << 20
PAGE = 4096


def others_are_served():
    """A guest stuck with every vCPU: neighbours are created, served, completed and closed."""
    fuse.needs()
    with pagerd.Pagerd(heartbeat_interval="200ms", heartbeat_misses=50) as pager, \
            fuse.Image(pager, size="16M", seed=1) as image:
        local = pager.image(size="8M", seed=2, holes=100)
        neighbour = pager.restore(local, "neighbour")
        guest = pager.restore(image, "a", engine="threads", vcpus=8)
        pid = pager.worker_pid()
        image.pause()
        guest.send("touch rand seed=3")
        image.wait_held(1)
        tap.is_(guest.wait_status(lambda s: s["blocked"] == 8)["total_wrong"], 0,
                "eight vCPUs wait for storage that is silent")
        tap.is_(neighbour.cmd("verify")["wrong"], 0, "a neighbour is served")
        with pager.restore(local, "b") as other:
            other.cmd("touch rand count=1000")
            tap.is_(pager.complete("b")["state"], "graduated", "another is created and completed")
            tap.is_(other.cmd("verify")["wrong"], 0, "right")
        tap.is_(pager.close_session("neighbour")["outcome"], "closed", "and one is closed")
        # Longer than the worker may leave heartbeats unanswered, on the wall clock of the log.
        mark = pager.log.mark()
        for _ in range(5):
            pager.log.wait("PONG", mark)
            mark = pager.log.mark()
        tap.is_(pager.worker_pid(), pid, "the worker answers heartbeats")
        status, code, why = pager.error_of("POST", "/sessions/a/complete?timeout=200ms")
        tap.is_((status, code), (504, "timeout"), "its own completion can be given up")
        image.resume()
        tap.is_(guest.answer()["wrong"], 0, "when it answers, the guest goes on")
        tap.is_(pager.complete("a")["state"], "graduated", "and graduates")
        tap.is_(guest.cmd("verify")["wrong"], 0, "right")
        guest.kill()
        neighbour.kill()


def other_pages_are_served():
    """Of one image the storage of some pages is silent: the others come."""
    fuse.needs()
    with pagerd.Pagerd() as pager, fuse.Image(pager, size="16M", seed=4) as image:
        image.is_bad = lambda offset, size: offset < 8 * MIB
        image.pause()
        memory = handshake.Memory(16 * MIB)
        session = pager.create(image.path, id="a")
        with open(image.behind.path, "rb") as f:
            right = f.read()
        with memory.connect(session["socket_path"]):
            pager.wait("a", "serving")
            # Each of these is stuck with a page, and a read, of its own.
            stuck = [pagerd.Pending(memory.page, n * 256) for n in range(8)]
            image.wait_held(8)
            pages = range(2048, 4096, 64)
            tap.ok(all(memory.page(n) == right[n * PAGE:][:PAGE] for n in pages),
                   "eight pages wait for storage that is silent, the rest comes")
            image.resume()
            tap.ok(all(stuck[n].end() == right[n * 256 * PAGE:][:PAGE] for n in range(8)),
                   "and they come at last")
            pager.close_session("a")
        memory.close()


def worker_dies_meanwhile():
    """Storage that answers nothing at all: the sessions of others are adopted, and served."""
    fuse.needs()
    with pagerd.Pagerd(heartbeat_interval="200ms", heartbeat_misses=50) as pager, \
            fuse.Image(pager, size="4M", seed=6) as image:
        stuck = pager.restore(image, "a", engine="threads")
        neighbour = pager.restore(pager.image(size="8M", seed=7), "b", engine="threads")
        image.pause(silent=True)
        stuck.send("touch seq")
        image.wait_held(1)
        os.kill(pager.worker_pid(), signal.SIGKILL)
        pager.log.wait("id=b: adopted by worker")
        tap.is_(neighbour.cmd("verify")["wrong"], 0, "the neighbour is served")
        mark = pager.log.mark()
        for _ in range(10):
            pager.log.wait("PONG", mark)
            mark = pager.log.mark()
        pid = pager.worker_pid()
        with pager.restore(pager.image("new", size="1M", seed=8), "c") as guest:
            tap.is_(guest.cmd("verify")["wrong"], 0, "and so is a new one")
        tap.is_(pager.worker_pid(), pid, "by a worker that lives")
        image.resume()
        tap.is_(stuck.answer()["wrong"], 0, "when the storage answers, so is the other")
        stuck.kill()
        neighbour.kill()


def silent_after_its_answer():
    """A page that was read is the guest's, whatever else the storage keeps to itself."""
    fuse.needs()
    with pagerd.Pagerd() as pager, fuse.Image(pager, size="4M", seed=9) as image:
        guest = pager.restore(image, "a", engine="threads")
        image.is_silent = True
        os.kill(pager.worker_pid(), signal.SIGKILL)
        pager.log.wait("id=a: adopted by worker")
        tap.is_(guest.cmd("verify")["wrong"], 0, "the guest goes on")
        image.wait_held(1)
        image.resume()
        guest.kill()


def closed_while_it_waits():
    """Neither a session nor pagerd nor its worker is kept from its end."""
    fuse.needs()
    with pagerd.Pagerd() as pager, fuse.Image(pager, size="4M", seed=5) as image:
        guest = pager.restore(image, "a", engine="threads", vcpus=2)
        image.pause()
        guest.send("touch seq")
        image.wait_held(1)
        guest.kill()
        tap.is_(pager.wait("a", "closed")["outcome"], "vmm-exited", "its VMM's exit is noticed")
        pid = pager.worker_pid()
        os.kill(pid, signal.SIGKILL)
        tap.ok(pagerd.wait_gone(pid), "its worker can be killed")


if __name__ == "__main__":
    tap.needs_root()
    tap.run(others_are_served, other_pages_are_served, worker_dies_meanwhile,
            silent_after_its_answer, closed_while_it_waits)
