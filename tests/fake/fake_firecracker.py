#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""A Firecracker as its API socket shows it, whose VM is tests/vmm's.

    fake_firecracker.py SOCKET SCRIPT VMM [OPTION]...

The VM's commands come on stdin and its answers go to stdout, commands only while it runs; one
line on stderr for each request.  VMM with its options is started by PUT /snapshot/load, with
--socket or --file from the mem_backend, and touches memory before the load is answered, as
Firecracker's own devices do.  One request after the other, connections stay open, status codes
and sentences as Firecracker gives them; it exits after a load that failed.

SCRIPT is JSON:
    version     what it says it is, and which members of a load it knows
    balloon     false: no balloon; else {"hinting": bool, "run": HOW} with HOW one of
                "normal", "instant" (over before it can be asked), "stuck" (the guest never
                answers), "no-ack" (the run's end leaves host_cmd)
    host_cmd, guest_cmd, last_cmd     hinting counters that came with the snapshot
    fail_late   why a load fails whose memory is served already
    uid         the user that it becomes
    discard     pages that a hinting run gives back
    at          {"METHOD PATH": WHAT}, with WHAT "mute" (no answer ever), "half" (an answer cut
                short, then silence), "die", "hang-up", "garbage", "flood", "list" (JSON that
                is none of its own), "lie" (done, it says, and does nothing), or an error's text"""
import ctypes
import json
import os
import queue
import re
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import threading

STOP, DONE = 0, 1
PR_SET_PDEATHSIG = 1
LIBC = ctypes.CDLL(None, use_errno=True)
PAGE = 4096
LOAD_MEMBERS = {"snapshot_path", "mem_backend", "mem_file_path", "resume_vm",
                "enable_diff_snapshots"}
SINCE = {"network_overrides": (1, 12), "track_dirty_pages": (1, 13), "vsock_override": (1, 16),
         "clock_realtime": (1, 16)}
PRE_BOOT = "The requested operation is not supported before starting the microVM."
POST_BOOT = "The requested operation is not supported after starting the microVM."


class Fault(Exception):
    """Answered with 400.  fatal: and then it exits."""

    def __init__(self, text, fatal=False):
        super().__init__(text)
        self.fatal = fatal


def die_with_parent():
    """A VM is a part of the process of its Firecracker."""
    LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


class Guest:
    """The VM's process: its lines go through us."""

    def __init__(self, argv):
        self.errors = tempfile.TemporaryFile(mode="w+")
        self.process = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                        stderr=self.errors, preexec_fn=die_with_parent)
        self.running = threading.Event()
        self.asked = queue.Queue()
        self.answers = queue.Queue()
        self.expect()  # that it is ready
        threading.Thread(target=self.relay_answers, daemon=True).start()
        threading.Thread(target=self.relay_commands, daemon=True).start()

    def relay_answers(self):
        for line in self.process.stdout:
            try:
                self.asked.get_nowait()
            except queue.Empty:
                sys.stdout.buffer.write(line)
                sys.stdout.buffer.flush()
            else:
                self.answers.put(line.decode())
        self.answers.put("")

    def relay_commands(self):
        for line in sys.stdin.buffer:
            self.running.wait()
            self.send(line)
        self.process.stdin.close()

    def send(self, line):
        self.process.stdin.write(line)
        self.process.stdin.flush()

    def expect(self):
        self.asked.put(True)

    def ask(self, command):
        """Our own command, while the test has none under way."""
        self.expect()
        self.send(command.encode() + b"\n")
        return self.answers.get()

    def why(self):
        self.errors.seek(0)
        return self.errors.read()

    def memory(self):
        """Where guest memory begins: the first mapping that a userfaultfd watches."""
        with open("/proc/%d/smaps" % self.process.pid, encoding="ascii") as f:
            for line in f:
                if re.match(r"[0-9a-f]+-[0-9a-f]+ ", line):
                    start = int(line.split("-")[0], 16)
                elif line.startswith("VmFlags:") and " um" in line:
                    return start
        raise Fault("Cannot find guest memory")


    def read(self, address):
        """A page of it.  Absent ones are filled, which /proc/PID/mem would not wait for."""
        page = ctypes.create_string_buffer(PAGE)
        ours = (ctypes.c_size_t * 2)(ctypes.addressof(page), PAGE)
        theirs = (ctypes.c_size_t * 2)(address, PAGE)
        if LIBC.process_vm_readv(self.process.pid, ours, 1, theirs, 1, 0) != PAGE:
            raise Fault("Cannot read guest memory: %s" % os.strerror(ctypes.get_errno()))
        return page.raw


class Firecracker:
    def __init__(self, path, script, vmm):
        self.path, self.script, self.vmm = path, script, vmm
        self.state = "Not started"
        self.guest = None
        balloon = script.get("balloon", {"hinting": True, "run": "normal"})
        self.balloon = balloon or None
        self.host_cmd = script.get("host_cmd", STOP)
        self.guest_cmd = script.get("guest_cmd")
        self.last_cmd = script.get("last_cmd", 1)
        self.steps = []
        self.version = tuple(int(n) for n in self.script["version"].split(".")[:2])
        self.routes = {
            ("GET", "/"): self.instance, ("GET", "/version"): self.get_version,
            ("PUT", "/snapshot/load"): self.load, ("PUT", "/snapshot/create"): self.create,
            ("PATCH", "/vm"): self.patch_vm, ("GET", "/balloon"): self.get_balloon,
            ("GET", "/balloon/hinting/status"): self.hinting_status,
            ("PATCH", "/balloon/hinting/start"): self.hinting_start,
            ("PATCH", "/balloon/hinting/stop"): self.hinting_stop,
        }

    # --- What it answers ------------------------------------------------------------

    def instance(self, _body):
        return {"id": "anonymous-instance", "state": self.state, "app_name": "Firecracker",
                "vmm_version": self.script["version"]}

    def get_version(self, _body):
        return {"firecracker_version": self.script["version"]}

    def load(self, body):
        if self.state != "Not started":
            raise Fault(POST_BOOT)
        known = LOAD_MEMBERS | {name for name, since in SINCE.items() if self.version >= since}
        unknown = sorted(set(body) - known)
        if unknown:
            raise Fault("An error occurred when deserializing the json body of a request: unknown "
                        "field `%s`." % unknown[0])
        prefix = "Load snapshot error: Failed to restore from snapshot: "
        if not os.path.isfile(body["snapshot_path"]):
            raise Fault(prefix + "Failed to get snapshot state from file: Failed to open snapshot "
                        "file: No such file or directory (os error 2)", fatal=True)
        backend = body["mem_backend"]
        self.start_guest("--socket" if backend["backend_type"] == "Uffd" else "--file",
                         backend["backend_path"], prefix)
        if self.script.get("fail_late"):
            raise Fault(prefix + self.script["fail_late"], fatal=True)
        self.state = "Paused"
        if body.get("resume_vm"):
            self.resume()

    def start_guest(self, option, path, prefix):
        if option == "--socket":
            self.say("connects %s" % path)
        self.guest = Guest(self.vmm + [option, path])
        self.say("vmm %d" % self.guest.process.pid)
        if not self.guest.answers.get().startswith("ready"):
            self.guest.process.wait()
            raise Fault(prefix + "Failed to load guest memory: " + self.guest.why().strip(),
                        fatal=True)
        if "wrong=0" not in self.guest.ask("touch seq count=2"):
            raise Fault(prefix + "guest memory is wrong", fatal=True)

    def resume(self):
        self.state = "Running"
        self.guest.running.set()

    def patch_vm(self, body):
        if not self.guest:
            raise Fault(PRE_BOOT)
        if body["state"] == "Resumed":
            self.resume()
        elif body["state"] == "Paused":
            self.guest.running.clear()
            self.state = "Paused"
        else:
            raise Fault("An error occurred when deserializing the json body of a request: unknown "
                        "variant `%s`" % body["state"])

    # --- Snapshots ------------------------------------------------------------------

    def create(self, body):
        if self.state != "Paused":
            raise Fault("Create snapshot error: Cannot take a snapshot of a running microVM")
        with open(body["snapshot_path"], "wb") as f:
            f.write(b"state")
        size = self.guest_bytes()
        base = self.guest.memory()
        diff = body.get("snapshot_type", "Full") == "Diff"
        with open("/proc/%d/pagemap" % self.guest.process.pid, "rb", buffering=0) as pages:
            out = os.open(body["mem_file_path"], os.O_RDWR | os.O_CREAT, 0o644)
            # A file of the same size is what a Diff is merged into.
            if os.fstat(out).st_size != size:
                os.ftruncate(out, 0)
                os.ftruncate(out, size)
            for offset in range(0, size, PAGE):
                if diff and not self.is_resident(pages, base + offset):
                    continue
                os.pwrite(out, self.guest.read(base + offset), offset)
            os.close(out)

    @staticmethod
    def is_resident(pages, address):
        pages.seek(address // PAGE * 8)
        return struct.unpack("<Q", pages.read(8))[0] >> 63

    def guest_bytes(self):
        size = self.vmm[self.vmm.index("--size") + 1]
        number, unit = re.fullmatch(r"(\d+)([KMG]?)", size).groups()
        return int(number) << {"": 0, "K": 10, "M": 20, "G": 30}[unit]

    # --- The balloon ----------------------------------------------------------------

    def get_balloon(self, _body):
        if not self.balloon:
            raise Fault("Balloon error: Device not found.")
        answer = {"amount_mib": 0, "deflate_on_oom": True, "stats_polling_interval_s": 0}
        if self.version >= (1, 14):
            answer["free_page_hinting"] = self.balloon["hinting"]
            answer["free_page_reporting"] = False
        return answer

    def needs_hinting(self):
        if not self.balloon or not self.balloon["hinting"] or self.version < (1, 14):
            raise Fault("Balloon error: Hinting is not enabled.")

    def hinting_start(self, body):
        self.needs_hinting()
        self.last_cmd += 1
        self.host_cmd = self.last_cmd
        run = self.balloon["run"]
        end = (STOP, self.host_cmd if run == "no-ack" or not body["acknowledge_on_stop"] else DONE)
        started = (self.host_cmd, self.host_cmd)
        # What each later question finds: (guest_cmd, host_cmd).
        self.steps = {"normal": [(self.guest_cmd, self.host_cmd), started, end],
                      "no-ack": [started, end], "instant": [], "stuck": []}[run]
        if run == "instant":
            self.guest_cmd, self.host_cmd = end
        if run != "stuck" and self.script.get("discard"):
            answer = self.guest.ask("discard 64 %d" % self.script["discard"])
            self.say("discarded: %s" % answer.strip())

    def hinting_status(self, _body):
        self.needs_hinting()
        if self.steps:
            self.guest_cmd, self.host_cmd = self.steps.pop(0)
        return {"host_cmd": self.host_cmd, "guest_cmd": self.guest_cmd}

    def hinting_stop(self, _body):
        self.needs_hinting()
        self.host_cmd = DONE
        self.steps = []

    # --- The wire -------------------------------------------------------------------

    @staticmethod
    def say(text):
        sys.stderr.write(text + "\n")
        sys.stderr.flush()

    @staticmethod
    def reply(connection, status, body=None):
        text = b"" if body is None else json.dumps(body).encode()
        head = "HTTP/1.1 %d \r\nServer: Firecracker API\r\nConnection: keep-alive\r\n" % status
        if body is not None:
            head += "Content-Type: application/json\r\nContent-Length: %d\r\n" % len(text)
        connection.sendall(head.encode() + b"\r\n" + text)

    def misbehave(self, connection, what):
        if what == "die":
            os._exit(1)
        if what == "hang-up":
            connection.shutdown(socket.SHUT_RDWR)
        elif what == "garbage":
            connection.sendall(b"220 mail.example.org ESMTP\r\n")
        elif what == "flood":
            connection.sendall(b"HTTP/1.1 200 \r\nContent-Length: 99999999999\r\n\r\n")
            while connection.send(b"x" * 65536):
                pass
        elif what == "list":
            self.reply(connection, 200, [1, {"state": "Running"}])
        elif what == "lie":
            self.reply(connection, 204)
        elif what in ("mute", "half"):
            if what == "half":
                connection.sendall(b"HTTP/1.1 200 \r\nContent-Len")
            connection.recv(1)  # until the client hangs up
        else:
            self.reply(connection, 400, {"fault_message": what})

    def answer(self, connection, method, path, body):
        handler = self.routes.get((method, path))
        fatal = False
        self.say("%s %s %s" % (method, path, body.decode(errors="replace")))
        what = self.script.get("at", {}).get("%s %s" % (method, path))
        if what:
            self.misbehave(connection, what)
            return
        try:
            if not handler:
                raise Fault("Invalid request method and/or path: %s %s." % (method, path))
            result = handler(json.loads(body) if body else None)
        except Fault as fault:
            self.reply(connection, 400, {"fault_message": str(fault)})
            fatal = fault.fatal
        else:
            self.reply(connection, 204 if result is None else 200, result)
        if fatal:
            os._exit(148)

    def serve(self, connection):
        stream = connection.makefile("rb")
        while True:
            line = stream.readline().decode().split()
            if len(line) < 2:
                return
            length = 0
            for raw in stream:
                header = raw.decode().strip().lower()
                if not header:
                    break
                if header.startswith("content-length:"):
                    length = int(header.split(":")[1])
            self.answer(connection, line[0], line[1], stream.read(length))

    def main(self):
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(self.path)
            if "uid" in self.script:
                os.setgroups([])
                os.setgid(self.script["uid"])
                os.setuid(self.script["uid"])
            listener.listen(10)
            self.say("listens")
            while True:
                connection, _ = listener.accept()
                with connection:
                    try:
                        self.serve(connection)
                    except (BrokenPipeError, ConnectionResetError):
                        pass


if __name__ == "__main__":
    Firecracker(sys.argv[1], json.loads(sys.argv[2]), sys.argv[3:]).main()
