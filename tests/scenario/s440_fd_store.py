# SPDX-License-Identifier: Apache-2.0
"""The service manager keeps descriptors: pagerd and a worker die, and nothing is lost."""
import os
import signal
import socket
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
import pagerd
import tap
from manager import Managed, Manager, down


def nothing_is_lost():
    manager = Manager()
    with Managed(manager) as pager:
        image = pager.image(size="8M", seed=3, holes=100)
        pager.create(image.path, id="w", handshake_timeout_ms=60000)
        # The image's own bytes: the guest sees no difference, adopters have to have them.
        overlay = os.path.join(pager.images, "overlay")
        with open(image.path, "rb") as f, open(overlay, "wb") as g:
            f.seek(1 << 20)
            g.write(f.read(1 << 20))
        members = {"overlays": [{"offset": 1 << 20, "path": overlay}]}
        with pager.restore(image, "a", vcpus=2) as first, \
                pager.restore(image, "b", members=members) as second, \
                pager.restore(image, "gone") as gone:
            tap.is_(manager.names(), ["session-2", "session-3", "session-4"],
                    "what is served is kept")
            count = [len([1 for name, _ in manager.kept if name == "session-%d" % n])
                     for n in (2, 3)]
            tap.is_((count, manager.polled), ([4, 5], 0),
                    "four descriptors, one more with overlays, and nobody polls them")
            first.cmd("start rand write")
            first.cmd("discard rand count=50 seed=9")
            worker = pager.worker_pid()
            down(pager)
            os.kill(worker, signal.SIGKILL)
            pagerd.wait_gone(worker)
            gone.kill()
            pager.start()
            found = {s["id"]: (s["state"], s["outcome"])
                     for s in pager.call("GET", "/sessions")["sessions"]}
            tap.is_((found["w"], found["gone"][1]), (("closed", "failed"), "vmm-exited"),
                    "what was not kept is lost, and who has exited has")
            for name in ("a", "b"):
                tap.is_(pager.wait(name, "serving")["state"], "serving", name + " is adopted")
            tap.ok(pager.log.wait("recovery: done, workers=0 sessions=2 ended=1 lost=1"),
                   "the log says so")
            before = first.cmd("status")["progress"]
            status = first.wait_status(lambda s: s["progress"] > before + 500)
            tap.is_(status["total_wrong"], 0, "the guest goes on")
            tap.is_(first.cmd("stop")["wrong"], 0, "and reads nothing wrong")
            tap.is_([g.cmd("verify")["wrong"] for g in (first, second)], [0, 0],
                    "nor is anything else")
            tap.is_(manager.names(), ["session-2", "session-3"], "the store holds what lives")
            tap.is_(pager.complete("a")["state"], "graduated", "one graduates")
            tap.is_(manager.names(), ["session-3"], "and is kept no more")
            down(pager)
            pager.start()
            tap.is_(pager.show("b")["state"], "serving", "with its worker a session is found")
            kinds = list(pagerd.fds_of(pager.process.pid).values())
            tap.is_((kinds.count("anon_inode:[userfaultfd]"),
                     kinds.count("/memfd:pagemap (deleted)")), (1, 1),
                    "what was handed over in vain is closed")
            pager.close_session("b")
            tap.is_(manager.names(), [], "nothing is kept for nobody")
    manager.close()


def kept_anew():
    """The unit was stopped, and its descriptors let go of: they come from the workers again."""
    manager = Manager()
    with Managed(manager) as pager:
        image = pager.image(size="4M", seed=3, holes=100)
        with pager.restore(image, "a") as first, pager.restore(image, "b") as second:
            worker = pager.worker_pid()
            down(pager, signal.SIGTERM)
            manager.forget()
            pager.start()
            tap.is_([len([1 for name, _ in manager.listen().kept if name == "session-%d" % n])
                     for n in (1, 2)], [4, 4], "all of both is kept, though they share the image")
            down(pager)
            pager.start()
            tap.is_(len(manager.listen().kept), 8, "and once, however often pagerd starts")
            down(pager)
            os.kill(worker, signal.SIGKILL)
            pagerd.wait_gone(worker)
            pager.start()
            for name in ("a", "b"):
                tap.is_(pager.wait(name, "serving")["state"], "serving", name + " is adopted")
            tap.is_([g.cmd("verify")["wrong"] for g in (first, second)], [0, 0],
                    "and its memory is right")
    manager.close()


def socket_is_passed():
    """The manager listens on the admin socket: clients wait while there is no pagerd."""
    manager = Manager()
    with Managed(manager, start=False) as pager:
        os.mkdir(pager.run)
        os.chmod(pager.run, 0o711)
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as admin:
            admin.bind(pager.socket)
            os.chmod(pager.socket, 0o660)
            admin.listen(8)
            manager.kept.append(("admin", os.dup(admin.fileno())))
            client = pagerd.dial(pager.socket)
            client.sendall(b"GET /health HTTP/1.1\r\nHost: pagerd\r\nConnection: close\r\n\r\n")
            pager.start()
            tap.like(client.recv(65536).decode(), r"^HTTP/1.1 200 ", "who came before is answered")
            client.close()
            inode = os.stat(pager.socket).st_ino
            image = pager.image(size="1M", seed=3)
            with pager.restore(image, "a") as guest:
                down(pager, signal.SIGTERM)
                tap.is_(os.stat(pager.socket).st_ino, inode, "the socket stays where it is")
                late = pagerd.dial(pager.socket)
                late.sendall(b"GET /sessions/a HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
                pager.start()
                tap.like(late.recv(65536).decode(), r'"state":"serving"', "who waited is answered")
                late.close()
                tap.is_(guest.cmd("verify")["wrong"], 0, "and the guest is served")
    manager.close()


def strangers():
    """What is handed over is not what it should be."""
    manager = Manager()
    with Managed(manager) as pager:
        image = pager.image(size="1M", seed=3)
        with pager.restore(image, "a"):
            worker = pager.worker_pid()
            manager.listen()
            spoiled = [fd for name, fd in manager.kept]
            uffd = next(fd for fd in spoiled
                        if os.readlink("/proc/self/fd/%d" % fd) == "anon_inode:[userfaultfd]")
            down(pager)
            null = os.open("/dev/null", os.O_RDONLY)
            os.dup2(null, uffd, inheritable=False)
            manager.kept += [("session-77", os.dup(null)), ("else", null)]
            os.kill(worker, signal.SIGKILL)
            pagerd.wait_gone(worker)
            pager.start()
            tap.is_(pager.show("a")["outcome"], "failed", "half of a session is none")
            tap.ok(pager.log.wait("kept too little of it: userfaultfd missing"), "and is named")
            tap.is_(manager.names(), ["else"], "what nobody needs goes, what is not ours stays")
    manager.close()


if __name__ == "__main__":
    tap.needs_root()
    tap.run(nothing_is_lost, kept_anew, socket_is_passed, strangers)
