# SPDX-License-Identifier: Apache-2.0
"""A client of tests/vmm: starts it, sends commands, reads answers.

    image = vmm.Image(path, seed=7, size="64M", holes=100)
    guest = vmm.Vmm(image, socket=path, vcpus=4)
    assert guest.cmd("touch rand")["wrong"] == 0
"""
import os
import select
import signal
import subprocess
import tempfile
import time

TOP = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
BUILD = os.path.join(TOP, os.environ.get("PAGERD_BUILD") or os.environ.get("B") or "build/plain")
DEADLINE_S = 240  # it ends what hangs, on the slowest machine; nothing is judged by it


class VmmError(Exception):
    pass


def program(name):
    return os.path.join(BUILD, "tests", "vmm", name)


def has_kvm():
    return os.access("/dev/kvm", os.R_OK | os.W_OK)


def engines():
    return ["threads", "kvm"] if has_kvm() else ["threads"]


class Image:
    """A file made by mkimage and the options that describe it."""

    def __init__(self, path, seed=1, size="64M", holes=0, zeros=0):
        self.path = path
        self.options = ["--seed", str(seed), "--size", str(size), "--holes", str(holes),
                        "--zeros", str(zeros)]
        subprocess.run([program("mkimage")] + self.options + ["--force", path], check=True)


def parse(line):
    """"ok a=1 b=x" as a dictionary, numbers as numbers.  Raises on an error line."""
    words = line.split()
    if not words or words[0] not in ("ok", "ready"):
        raise VmmError(line)
    answer = {}
    for word in words[1:]:
        key, _, value = word.partition("=")
        try:
            answer[key] = float(value) if "." in value else int(value)
        except ValueError:
            answer[key] = value
    return answer


class Vmm:
    """Exactly one of socket, private_pager, file and anon says where memory comes from.

    Other keyword arguments become options: vcpus=4 is --vcpus 4, uffd_flags="blocking" is
    --uffd-flags blocking."""

    def __init__(self, image, socket=None, private_pager=False, file=False, anon=False,
                 wait=True, user=None, executable=None, **options):
        argv = [executable or program("vmm")] + list(image.options)
        if socket:
            argv += ["--socket", socket]
        elif private_pager:
            argv += ["--private-pager", image.path]
        elif file:
            argv += ["--file", image.path]
        elif anon:
            argv += ["--anon"]
        for key, value in options.items():
            argv += ["--" + key.replace("_", "-"), str(value)]
        self.errors = tempfile.TemporaryFile(mode="w+")
        self.process = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                        stderr=self.errors, user=user, group=user,
                                        extra_groups=None if user is None else [])
        self.buffer = b""
        self.ready = None
        if wait:
            self.wait_ready()

    def wait_ready(self, timeout=DEADLINE_S):
        try:
            self.ready = self.answer(timeout)
        except VmmError as error:
            raise VmmError("%s: %s" % (error, self.stderr())) from None
        return self.ready

    @property
    def pid(self):
        return self.process.pid

    def send(self, command):
        self.process.stdin.write(command.encode() + b"\n")
        self.process.stdin.flush()

    def line(self, timeout=DEADLINE_S):
        end = time.monotonic() + timeout
        while b"\n" not in self.buffer:
            left = end - time.monotonic()
            if left <= 0 or not select.select([self.process.stdout], [], [], left)[0]:
                raise TimeoutError("no answer in %s s" % timeout)
            data = os.read(self.process.stdout.fileno(), 65536)
            if not data:
                raise VmmError("the VMM ended")
            self.buffer += data
        line, _, self.buffer = self.buffer.partition(b"\n")
        return line.decode()

    def answer(self, timeout=DEADLINE_S):
        return parse(self.line(timeout))

    def cmd(self, command, timeout=DEADLINE_S):
        self.send(command)
        return self.answer(timeout)

    def wait_status(self, is_reached, timeout=DEADLINE_S):
        """Asks until is_reached(status).  Not while an answer is outstanding that may come
        in between, unless the caller knows that it cannot."""
        end = time.monotonic() + timeout
        while time.monotonic() < end:
            status = self.cmd("status")
            if is_reached(status):
                return status
        raise TimeoutError("status never came: %s" % status)

    def stderr(self):
        self.errors.seek(0)
        return self.errors.read()

    def quit(self, timeout=DEADLINE_S):
        """The exit code.  Works while vCPUs are stuck."""
        if self.process.poll() is None:
            try:
                self.send("quit")
                self.process.stdin.close()
            except (BrokenPipeError, ValueError):
                pass
        return self.process.wait(timeout)

    def stops_at_poison(self, timeout=DEADLINE_S):
        """Waits for its end, which a SIGBUS must be; a sanitizer makes it a report."""
        return (self.process.wait(timeout) == -signal.SIGBUS or
                "Sanitizer: BUS" in self.stderr())

    def kill(self):
        self.process.kill()
        self.process.wait()

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.kill()
        for stream in (self.process.stdin, self.process.stdout, self.errors):
            try:
                stream.close()
            except BrokenPipeError:
                pass


class BarePager:
    """The bare fault loop for several guests, in one process: Vmm(image, socket=bare.socket)."""

    def __init__(self, image):
        self.directory = tempfile.TemporaryDirectory(prefix="bare-pager.")
        self.socket = os.path.join(self.directory.name, "socket")
        self.process = subprocess.Popen([program("bare_pager"), self.socket, image.path],
                                        stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        if self.process.stdout.readline() != b"ready\n":
            raise VmmError("bare_pager ended with %d" % self.process.wait())

    def quit(self):
        """The exit code.  Its guests have ended."""
        self.process.communicate()
        self.directory.cleanup()
        return self.process.returncode
