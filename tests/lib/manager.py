# SPDX-License-Identifier: Apache-2.0
"""A service manager that keeps descriptors, played as systemd does it: NOTIFY_SOCKET, FDSTORE,
LISTEN_FDS.

    manager = Manager()
    with Managed(manager) as pager:
        ...
    manager.close()
"""
import array
import ctypes
import os
import select
import signal
import socket
import subprocess
import sys
import tempfile
import time

import pagerd

# Puts the kept descriptors where they are expected, then becomes pagerd.
WRAPPER = """
import os, sys
kept = [int(fd) for fd in sys.argv[1].split(",") if fd]
high = [os.dup2(fd, 500 + i) for i, fd in enumerate(kept)]
for fd in kept:
    os.close(fd)
for i, fd in enumerate(high):
    os.dup2(fd, 3 + i, inheritable=True)
    os.close(fd)
os.environ["LISTEN_PID"] = str(os.getpid())
os.execv(sys.argv[2], sys.argv[2:])
"""


KCMP = {"x86_64": 312, "aarch64": 272}.get(os.uname().machine)


def is_same(a, b):
    r = ctypes.CDLL(None).syscall(KCMP, os.getpid(), os.getpid(), 0, a, b) if KCMP else 1
    return r == 0


class Manager:
    def __init__(self):
        self.dir = tempfile.mkdtemp(prefix="pagerd-test.")
        self.path = os.path.join(self.dir, "notify")
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(self.path)
        self.socket.setblocking(False)
        self.kept = []  # (name, fd)
        self.heard = []  # every other text
        self.polled = 0

    def stuff(self):
        """Sends itself what nobody needs, until its socket takes no more."""
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as s:
            s.setblocking(False)
            while True:
                try:
                    s.sendto(b"STATUS=nothing", self.path)
                except BlockingIOError:
                    return

    def wait_for(self, is_reached, timeout=pagerd.DEADLINE_S):
        """Reads what comes until is_reached(names)."""
        end = time.monotonic() + timeout
        while not is_reached(self.names()):
            left = end - time.monotonic()
            if left <= 0 or not select.select([self.socket], [], [], left)[0]:
                raise TimeoutError("the manager keeps %s" % self.names())

    def take(self, name, is_meant):
        """Lets go of one of the descriptors of that name: what readlink(2) says is_meant()."""
        for i, (other, fd) in enumerate(self.kept):
            if other == name and is_meant(os.readlink("/proc/self/fd/%d" % fd)):
                os.close(fd)
                del self.kept[i]
                return True
        return False

    def has_heard(self, start):
        return any(text.startswith(start) for text in self.heard)

    def listen(self):
        """Reads what has come."""
        while True:
            try:
                text, ancillary, _, _ = self.socket.recvmsg(
                    4096, socket.CMSG_SPACE(64), socket.MSG_CMSG_CLOEXEC)
            except BlockingIOError:
                return self
            fds = array.array("i")
            for _, _, data in ancillary:
                fds.frombytes(data)
            told = dict(line.split("=", 1) for line in text.decode().splitlines())
            if "FDSTOREREMOVE" in told:
                for _, fd in [k for k in self.kept if k[0] == told["FDNAME"]]:
                    os.close(fd)
                self.kept = [k for k in self.kept if k[0] != told["FDNAME"]]
            elif "FDSTORE" not in told:
                self.heard.append(text.decode())
            else:
                self.polled += told.get("FDPOLL") != "0"
                for fd in fds:
                    self.keep(told["FDNAME"], fd)

    def keep(self, name, fd):
        """One of those that are the same open file, whatever they are called."""
        if any(is_same(fd, other) for _, other in self.kept):
            os.close(fd)
        else:
            self.kept.append((name, fd))

    def forget(self):
        """As at the end of a unit that was stopped."""
        self.listen()
        for _, fd in self.kept:
            os.close(fd)
        self.kept = []

    def names(self):
        return sorted(set(name for name, _ in self.listen().kept))

    def close(self):
        self.forget()
        self.socket.close()
        os.unlink(self.path)
        os.rmdir(self.dir)


class Managed(pagerd.Pagerd):
    def __init__(self, manager, room=100, **options):
        self.manager = manager
        super().__init__(env={"NOTIFY_SOCKET": manager.path, "FDSTORE": str(room)}, **options)

    def argv(self):
        kept = self.manager.listen().kept
        self.env["LISTEN_FDS"] = str(len(kept))
        self.env["LISTEN_FDNAMES"] = ":".join(name for name, _ in kept)
        fds = ",".join(str(fd) for _, fd in kept)
        return [sys.executable, "-c", WRAPPER, fds] + super().argv()

    def start(self, timeout=pagerd.DEADLINE_S, stuffed=False):
        """stuffed: the manager has no room for a word when pagerd starts."""
        manager = self.manager
        kept = [fd for _, fd in self.manager.listen().kept]
        popen = subprocess.Popen

        # The readiness descriptor has to be above what is handed over.
        class Popen(popen):
            def __init__(self, argv, **keywords):
                low = keywords["pass_fds"][0]
                high = os.dup2(low, 400, inheritable=False)
                argv[argv.index("--ready-fd") + 1] = str(high)
                keywords["pass_fds"] = [high] + kept
                if stuffed:
                    manager.stuff()
                try:
                    super().__init__(argv, **keywords)
                finally:
                    os.close(high)

        subprocess.Popen = Popen
        try:
            super().start(timeout)
        finally:
            subprocess.Popen = popen


def down(pager, sig=signal.SIGKILL):
    pager.pulse = None
    pager.stop(sig)
    pager.log.thread.join(pagerd.DEADLINE_S)
    pager.process.stderr.close()
