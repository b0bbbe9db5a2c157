# SPDX-License-Identifier: Apache-2.0
"""A real pagerd in a directory of its own, and a client of its admin socket.

    with pagerd.Pagerd() as pager:
        session = pager.create(image.path, id="a")
        guest = vmm.Vmm(image, socket=session["socket_path"])
        pager.wait("a", "serving")

Every wait is for an event: the readiness descriptor, a line of the log, an answer."""
import ctypes
import fcntl
import http.client
import json
import os
import re
import select
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time
import urllib.parse

import tap
import vmm

DEADLINE_S = vmm.DEADLINE_S
WORKER_UID = 64321
VERSION = open(os.path.join(vmm.TOP, "VERSION"), encoding="ascii").read().strip()
PR_SET_CHILD_SUBREAPER = 36
# What pagerd does by the clock is not to happen on a slow machine, but in tests about it.
OPTIONS = {"log_level": "debug", "hello_timeout": "2m", "handshake_timeout": "10m",
           "http_timeout": "2m", "open_timeout": "2m", "heartbeat_misses": 30, "record_settle": "10m"}


def program(name):
    return os.path.join(vmm.BUILD, name)


def dial(path, timeout=DEADLINE_S):
    """Waits while the backlog is full, which a connect() with a time-out does not."""
    s = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    s.connect(path)
    s.settimeout(timeout)
    return s


class UnixConnection(http.client.HTTPConnection):
    def __init__(self, path, timeout):
        super().__init__("pagerd", timeout=timeout)
        self.path = path

    def connect(self):
        self.sock = dial(self.path, self.timeout)


class ApiError(Exception):
    def __init__(self, status, body):
        super().__init__("%d %s" % (status, body))
        self.status = status
        self.body = body

    @property
    def code(self):
        return self.body.get("code") if isinstance(self.body, dict) else None


class Answer:
    def __init__(self, status, headers, text):
        self.status = status
        self.headers = headers
        self.text = text

    @property
    def json(self):
        return json.loads(self.text) if self.text else None


class Pending(threading.Thread):
    """A call that is under way.  end() gives its result or raises what it raised."""

    def __init__(self, function, *arguments, **keywords):
        super().__init__(daemon=True)
        self.call = lambda: function(*arguments, **keywords)
        self.result = self.error = None
        self.start()

    def run(self):
        try:
            self.result = self.call()
        except Exception as error:  # raised again by end()
            self.error = error

    def end(self, timeout=DEADLINE_S):
        self.join(timeout)
        if self.is_alive():
            raise TimeoutError("a call has not ended in %s s" % timeout)
        if self.error:
            raise self.error
        return self.result


class Log:
    """What pagerd writes, kept in order; wait() looks at all of it, or from a mark on."""

    def __init__(self, stream, tee=None):
        self.lines = []
        self.changed = threading.Condition()
        self.ended = False
        self.thread = threading.Thread(target=self._read, args=(stream, tee), daemon=True)
        self.thread.start()

    def _read(self, stream, tee):
        for raw in stream:
            line = raw.decode(errors="replace").rstrip("\n")
            with self.changed:
                self.lines.append(line)
                self.changed.notify_all()
            if tee:
                tee.write(raw)
                tee.flush()
        with self.changed:
            self.ended = True
            self.changed.notify_all()

    def mark(self):
        with self.changed:
            return len(self.lines)

    def find(self, pattern, since=0):
        with self.changed:
            return next((line for line in self.lines[since:] if re.search(pattern, line)), None)

    def wait(self, pattern, since=0, timeout=DEADLINE_S):
        end = time.monotonic() + timeout
        seen = since
        with self.changed:
            while True:
                for line in self.lines[seen:]:
                    if re.search(pattern, line):
                        return line
                seen = len(self.lines)
                left = end - time.monotonic()
                if self.ended or left <= 0:
                    raise TimeoutError("no line %r in the log, which ends in:\n%s"
                                       % (pattern, "\n".join(self.lines[-5:])))
                self.changed.wait(left)

    def text(self):
        with self.changed:
            return "\n".join(self.lines)


class Pagerd:
    """Options become flags: handshake_timeout="1s" is --handshake-timeout 1s.  versions maps
    a version to the program that is its worker."""

    def __init__(self, versions=None, start=True, env=None, roots=(), worker_fault=None, **options):
        # Workers outlive pagerd: what it leaves behind becomes our child, so that we see it end.
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
        self.dir = tempfile.mkdtemp(prefix="pagerd-test.")
        os.chmod(self.dir, 0o755)
        self.run = os.path.join(self.dir, "run")
        self.state = os.path.join(self.dir, "state")
        self.workers = os.path.join(self.dir, "workers")
        self.images = os.path.join(self.dir, "images")
        os.mkdir(self.workers)
        os.mkdir(self.images)
        for version, path in (versions or {VERSION: program("pager-worker")}).items():
            self.install(version, path)
        self.roots = [self.images, "/dev/shm"] + list(roots)
        self.options = options
        self.env = dict(os.environ, **(env or {}))
        if worker_fault:
            self.env["PAGER_WORKER_FAULT"] = worker_fault
        self.process = None
        self.log = None
        self.pulse = None
        self.memory = None
        self.failures_before = tap.failures
        if start:
            self.start()

    def install(self, version, path):
        directory = os.path.join(self.workers, version)
        os.mkdir(directory)
        target = os.path.join(directory, "pager-worker")
        shutil.copy(path, target)
        os.chmod(target, 0o755)
        return target

    def install_fake(self, version, script):
        """A version whose worker does what the script says: tests/fake/fake_worker.c."""
        target = self.install(version, os.path.join(vmm.BUILD, "tests", "fake", "fake_worker"))
        with open(target, "ab") as f:
            f.write(b"\nfake: %s\n" % script.encode())

    def image(self, name="i", in_memory=False, **options):
        """An image on disk or, what is faster for large ones, on tmpfs."""
        if in_memory and not self.memory:
            self.memory = tempfile.mkdtemp(prefix="pagerd-test.", dir="/dev/shm")
            os.chmod(self.memory, 0o755)
        return vmm.Image(os.path.join(self.memory if in_memory else self.images, name), **options)

    def argv(self):
        argv = [program("pagerd"), "--run-dir", self.run, "--worker-dir", self.workers,
                "--worker-user", str(WORKER_UID), "--state-dir", self.state]
        for root in self.roots:
            argv += ["--image-root", root]
        options = dict(OPTIONS, **self.options)
        for key, value in options.items():
            argv += ["--" + key.replace("_", "-"), str(value)]
        return argv

    def start(self, timeout=DEADLINE_S):
        ready_read, ready_write = os.pipe()
        tee = None
        if os.environ.get("PAGERD_TEST_LOG"):
            tee = open(os.environ["PAGERD_TEST_LOG"], "ab")
        self.process = subprocess.Popen(
            self.argv() + ["--ready-fd", str(ready_write)], stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, env=self.env,
            pass_fds=[ready_write])
        os.close(ready_write)
        self.log = Log(self.process.stderr, tee)
        try:
            if not select.select([ready_read], [], [], timeout)[0] or not os.read(ready_read, 1):
                self.log.thread.join(DEADLINE_S)
                raise RuntimeError("pagerd is not ready:\n" + self.log.text())
        finally:
            os.close(ready_read)

    @property
    def socket(self):
        return os.path.join(self.run, "admin.sock")

    def connect(self, timeout=DEADLINE_S):
        return UnixConnection(self.socket, timeout)

    def raw(self):
        """A bare connection, for input that no HTTP client would send."""
        return dial(self.socket)

    def request(self, method, path, body=None, timeout=DEADLINE_S):
        """The answer, whatever it says.  body is bytes, or what becomes JSON."""
        data = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
        connection = self.connect(timeout)
        try:
            connection.request(method, path, body=data)
            answer = connection.getresponse()
            return Answer(answer.status, answer.headers, answer.read().decode())
        finally:
            connection.close()

    def call(self, method, path, body=None, timeout=DEADLINE_S):
        """The parsed answer; ApiError for 4xx and 5xx."""
        answer = self.request(method, path, body, timeout)
        if answer.status >= 400:
            raise ApiError(answer.status, answer.json)
        return answer.json

    def error_of(self, method, path, body=None, timeout=DEADLINE_S):
        """(status, code, sentence) of an answer that is an error, (status, None, None) else."""
        answer = self.request(method, path, body, timeout)
        parsed = answer.json if answer.status >= 400 else {}
        return answer.status, parsed.get("code"), parsed.get("error")

    @staticmethod
    def path(session_id, tail=""):
        return "/sessions/" + urllib.parse.quote(session_id, safe="") + tail

    def create(self, image, **members):
        return self.call("POST", "/sessions", dict(members, image=image))

    def show(self, session_id):
        return self.call("GET", self.path(session_id))

    def wait(self, session_id, state, timeout="%ds" % (DEADLINE_S // 2)):
        return self.call("GET", self.path(session_id, "?wait=%s&timeout=%s" % (state, timeout)))

    def close_session(self, session_id):
        return self.call("POST", self.path(session_id, "/close"))

    def complete(self, session_id, timeout=None):
        return self.call("POST", self.path(
            session_id, "/complete" + ("?timeout=" + timeout if timeout else "")))

    def until(self, is_reached, what="it never came", timeout=DEADLINE_S):
        """Asks pagerd for its health until is_reached().  For what is no event to anybody:
        each answer comes from a later turn of its loop than the one before."""
        end = time.monotonic() + timeout
        while not is_reached():
            if time.monotonic() > end:
                raise TimeoutError(what)
            self.turn()

    def turn(self):
        """One request and its answer, on a connection that stays."""
        try:
            self._ask_health()
        except OSError:  # pagerd hangs up on who is idle for long
            self.pulse.close()
            self._ask_health()

    def _ask_health(self):
        if not self.pulse:
            self.pulse = self.connect()
        self.pulse.request("GET", "/health")
        self.pulse.getresponse().read()

    def worker_fds(self, pid):
        """Descriptors of a worker that has closed what it said it is done with, as far as can be
        told: it closes some after it has said so."""
        counts = []
        while len(counts) < 20 or len(set(counts[-20:])) > 1:
            self.turn()
            counts.append(len(fds_of(pid)))
        return counts[-1]

    def ok_fds(self, pid, count, what):
        """A point: the process comes to have no more descriptors than that.  It may have fewer:
        one was still on its way out when they were counted."""
        try:
            self.until(lambda: len(fds_of(pid)) <= count)
            return tap.ok(True, what)
        except TimeoutError:
            return tap.ok(False, what, "wanted %d, got %s" % (count, fds_of(pid)))

    def restore(self, image, session_id, **options):
        """A guest that is being served: the VMM of a new session."""
        members = options.pop("members", {})
        session = self.create(image.path, id=session_id, **members)
        guest = vmm.Vmm(image, socket=session["socket_path"], **options)
        self.wait(session_id, "serving")
        return guest

    def versions(self):
        return {row["version"]: row for row in self.call("GET", "/versions")["versions"]}

    def worker_pid(self, version=VERSION):
        return self.versions()[version].get("pid")

    def fds(self):
        """Descriptors that the supervisor holds, once it has attended to everything."""
        for _ in range(3):
            self.turn()
        return len(fds_of(self.process.pid))

    def ctl(self, *arguments, timeout=DEADLINE_S, **keywords):
        return subprocess.run([program("pagerctl"), "--socket", self.socket] + list(arguments),
                              stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                              stderr=subprocess.PIPE, timeout=timeout, check=False, text=True,
                              **keywords)

    def stop(self, sig=signal.SIGTERM, timeout=DEADLINE_S):
        self.process.send_signal(sig)
        return self.process.wait(timeout)

    def worker_pids(self):
        """Every process whose program is one of our workers."""
        found = []
        for name in os.listdir("/proc"):
            if name.isdigit():
                try:
                    exe = os.readlink("/proc/%s/exe" % name)
                except OSError:
                    continue
                if exe.startswith(self.workers + "/"):
                    found.append(int(name))
        return found

    def tell_failures(self):
        if self.log and tap.failures > self.failures_before:
            tap.note("the end of pagerd's log:\n" + "\n".join(self.log.lines[-60:]))

    def destroy(self):
        if self.pulse:
            self.pulse.close()
        if self.process and self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        for pid in self.worker_pids():
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
        if self.log:
            self.log.thread.join(DEADLINE_S)
            self.process.stderr.close()
        for directory in filter(None, (self.dir, self.memory)):
            shutil.rmtree(directory, ignore_errors=True)

    def __enter__(self):
        return self

    def __exit__(self, kind, error, trace):
        if error and not isinstance(error, tap.Skip) and self.log:
            self.failures_before = -1
        self.destroy()
        self.tell_failures()


def fds_of(pid):
    """What the descriptors of a process are, by number."""
    found = {}
    for name in os.listdir("/proc/%d/fd" % pid):
        try:
            found[int(name)] = os.readlink("/proc/%d/fd/%s" % (pid, name))
        except FileNotFoundError:
            pass
    return found


def status_of(pid):
    """/proc/PID/status as a dictionary."""
    with open("/proc/%d/status" % pid, encoding="utf-8") as f:
        return {key: value.strip() for key, _, value in (line.partition(":") for line in f)}


def is_stopped(pid):
    return status_of(pid)["State"].startswith("T")


def other_version(steps=1):
    """The worker built as the next version (or a later one): its number and where it is."""
    major, minor, patch = VERSION.split(".")
    version = "%s.%s.%d" % (major, minor, int(patch) + steps)
    directory = os.path.join(vmm.BUILD, "v" + version)
    target = os.path.join(directory, "pager-worker")
    os.makedirs(directory, exist_ok=True)
    # Spelt as `make check` does, which has built it already: other flags would be another build.
    if directory.startswith(vmm.TOP + "/"):
        directory = os.path.relpath(directory, vmm.TOP)
    env = {k: v for k, v in os.environ.items() if k not in ("MAKEFLAGS", "MAKELEVEL", "MFLAGS")}
    with open(target + ".lock", "w", encoding="ascii") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        subprocess.run(["make", "-s", "-C", vmm.TOP, "--no-print-directory", "-j2",
                        os.path.join(directory, "pager-worker"), "VERSION=" + version,
                        "B=" + directory, "CC=" + build_flags().partition(" -D")[0]] + sanitizers(),
                       check=True, env=env, stdout=subprocess.DEVNULL)
    return version, target


def build_flags():
    """The command that compiled the build under test."""
    with open(os.path.join(vmm.BUILD, "flags"), encoding="utf-8") as f:
        return f.read()


def sanitizers():
    """As the build under test has them."""
    match = re.search(r"-fsanitize=([a-z,]+)", build_flags())
    return ["SANITIZE=" + match.group(1)] if match else []


def wait_gone(pid, timeout=DEADLINE_S):
    """Until the process has ended.  True when it has."""
    try:
        fd = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        return bool(select.select([fd], [], [], timeout)[0])
    finally:
        os.close(fd)
