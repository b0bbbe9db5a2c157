#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
# builds: plain asan
"""The descriptor store when not all goes well: what came back is not all of a session, its
record is lost, the manager does not read, its store is full."""
import os
import select
import signal
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
import pagerd  # noqa: E402
import tap  # noqa: E402
from manager import Managed, Manager, down  # noqa: E402

UFFD = "anon_inode:[userfaultfd]"
MAP = "/memfd:pagemap (deleted)"


def both_die(pager):
    worker = pager.worker_pid()
    down(pager)
    os.kill(worker, signal.SIGKILL)
    pagerd.wait_gone(worker)


def waiting_faults(manager, name):
    """Of a userfaultfd that the manager keeps, as the kernel says."""
    for other, fd in manager.kept:
        if other == name and os.readlink("/proc/self/fd/%d" % fd) == UFFD:
            with open("/proc/self/fdinfo/%d" % fd, encoding="ascii") as f:
                return int(next(line.split()[1] for line in f if line.startswith("total:")))
    return None


def is_frozen(pager, manager, name, guest):
    """Its guest asks for a page and waits, and is not given zeros."""
    guest.send("verify")
    pager.until(lambda: waiting_faults(manager, name) or
                select.select([guest.process.stdout], [], [], 0)[0])
    return not select.select([guest.process.stdout], [], [], 0)[0]


def too_little():
    """The userfaultfd came back, and something else did not."""
    manager = Manager()
    missing = {"a": ("session-1", MAP.__eq__, "page map"),
               "b": ("session-2", lambda link: link.startswith("/") and link != MAP, "image"),
               "c": ("session-3", lambda link: link.startswith("socket:"), "connection")}
    with Managed(manager) as pager:
        image = pager.image(size="2M", seed=3)
        guests = {name: pager.restore(image, name) for name in missing}
        manager.listen()
        both_die(pager)
        for name, (number, is_meant, _) in missing.items():
            tap.ok(manager.take(number, is_meant), "the manager loses a part of " + name)
        pager.start()
        for name, (_, _, what) in missing.items():
            session = pager.show(name)
            tap.is_(session["state"], "held", "without its %s a session is held" % what)
            tap.like(session["reason"], "kept too little of it: %s missing" % what, "and says why")
        tap.ok(pager.log.wait(r"<3>.*RECOVERING -> HELD on FOUND_PART"), "the log is loud")
        tap.ok(all(is_frozen(pager, manager, missing[name][0], guest)
                   for name, guest in guests.items()), "no guest reads zeros")
        tap.is_(pager.error_of("POST", "/sessions/a/retry", {})[:2], (409, "state"),
                "no worker can be given it")
        tap.is_(manager.names(), ["session-1", "session-2", "session-3"],
                "the manager holds it, too")
        down(pager)
        pager.start()
        tap.is_([pager.show(name)["state"] for name in missing], ["held"] * 3,
                "also after another restart")
        for name in ("b", "c"):
            guests[name].kill()
            tap.is_(pager.wait(name, "closed")["outcome"], "vmm-exited", name + "'s VMM is stopped")
        tap.is_(pager.close_session("a")["outcome"], "closed", "an operator closes a")
        tap.is_(manager.names(), [], "nothing is kept any more")
        with pager.restore(image, "next") as guest:
            tap.is_(guest.cmd("verify")["wrong"], 0, "others are served")
        guests["a"].kill()
    manager.close()


def record_lost():
    """Nobody knows what belongs into the memory that the manager has kept."""
    manager = Manager()
    with Managed(manager) as pager:
        image = pager.image(size="2M", seed=3)
        with pager.restore(image, "a") as guest, pager.restore(image, "gone") as gone:
            manager.listen()
            both_die(pager)
            gone.kill()
            for number in (1, 2):
                with open(os.path.join(pager.run, "state", "%d.json" % number), "w",
                          encoding="ascii") as f:
                    f.write("half a rec")
            pager.start()
            found = pager.call("GET", "/sessions")["sessions"]
            tap.is_([(s["id"], s["state"]) for s in found], [("unrecorded-1", "held")],
                    "it is held under another name, and what is gone is not")
            tap.is_((found[0]["vmm_pid"], found[0]["image"]), (guest.pid, image.path),
                    "with what the descriptors tell")
            tap.ok(is_frozen(pager, manager, "session-1", guest), "its guest reads no zeros")
            tap.is_(manager.names(), ["session-1"], "the manager holds on to it")
            session = pager.create(image.path, id="new")
            tap.is_(pager.show("new")["state"], "created", "others are made")
            tap.ok(session["socket_path"] != found[0]["socket_path"], "with sockets of their own")
            guest.kill()
            tap.is_(pager.wait("unrecorded-1", "closed")["outcome"], "vmm-exited", "it ends")
        tap.is_(manager.names(), [], "and so does what was kept")
    manager.close()


def manager_is_busy():
    manager = Manager()
    with Managed(manager) as pager:
        image = pager.image(size="1M", seed=3)
        manager.listen()
        manager.stuff()
        with pager.restore(image, "a") as first:
            with pager.restore(image, "b"):
                tap.ok(pager.log.wait(r"<4>.*fd store: the service manager cannot be told: .*"
                                      "sessions=2 are not kept"), "a manager that does not read")
            pager.wait("b", "closed")
            tap.is_(pager.call("GET", "/stats")["fd_store"],
                    {"limit": 100, "used": 0, "not_stored": 1}, "is counted")
            manager.wait_for(lambda names: names == ["session-1"])
            tap.ok(pager.log.wait("descriptors of all sessions are kept again"),
                   "is told once it reads")
            manager.stuff()
            first.kill()
            pager.wait("a", "closed")
            manager.wait_for(lambda names: names == [])
            tap.ok(True, "also what it need not keep")
            tap.is_(pager.call("GET", "/stats")["fd_store"]["used"], 0, "which is counted, too")
    manager.close()


def store_is_full():
    manager = Manager()
    with Managed(manager, room=9) as pager:
        image = pager.image(size="1M", seed=3)
        with pager.restore(image, "a") as first, pager.restore(image, "b"), \
                pager.restore(image, "c"):
            tap.is_(manager.names(), ["session-1", "session-2"], "two have room")
            tap.ok(pager.log.wait(r"<4>.*fd store: the service manager's store is full; "
                                  "sessions=1 are not kept"), "that the third has none is told")
            tap.like(pager.request("GET", "/metrics").text,
                     r'pagerd_fd_store_sessions_not_stored 1\n', "to monitoring as well")
            first.kill()
            pager.wait("a", "closed")
            tap.is_(manager.names(), ["session-2", "session-3"],
                    "it takes the place of one that ends")
            tap.ok(pager.log.wait("descriptors of all sessions are kept again"), "which is said")
    manager.close()


if __name__ == "__main__":
    tap.needs_root()
    tap.run(too_little, record_lost, manager_is_busy, store_is_full)
