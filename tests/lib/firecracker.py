# SPDX-License-Identifier: Apache-2.0
"""Starts tests/fake/fake_firecracker.py.

    fc = firecracker.Fake(pager, image, version="1.14.0")
    pager.ctl("restore", *fc.restore(), "--id", "a")
    fc.cmd("verify")           # a command of tests/vmm, answered while the VM runs
    fc.wait("PATCH /vm")       # a request that it has got"""
import json
import os
import subprocess
import sys

import pagerd
import vmm

PROGRAM = os.path.join(vmm.TOP, "tests", "fake", "fake_firecracker.py")


class Fake(vmm.Vmm):
    """Its methods are those of a Vmm.  Keywords are the script's members."""

    def __init__(self, pager, image, name="fc", options=(), **script):
        self.image = image
        self.directory = os.path.join(pager.dir, name)
        self.socket = os.path.join(self.directory, "api.sock")
        self.state = os.path.join(self.directory, "vm.state")
        if not os.path.exists(self.directory):
            os.mkdir(self.directory)
        if os.path.exists(self.socket):
            os.unlink(self.socket)
        with open(self.state, "w", encoding="ascii") as f:
            f.write("state")
        script.setdefault("version", "1.14.0")
        self.buffer = b""
        self.process = subprocess.Popen(
            [sys.executable, PROGRAM, self.socket, json.dumps(script), vmm.program("vmm")] +
            image.options + list(options), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        self.errors = self.process.stderr
        self.log = pagerd.Log(self.process.stderr)
        self.wait("^listens$")

    def wait(self, pattern, since=0):
        return self.log.wait(pattern, since)

    def requests(self):
        """What it was asked, without the bodies."""
        mark = self.log.mark()
        with pagerd.dial(self.socket) as api:
            api.sendall(b"GET /version HTTP/1.1\r\n\r\n")
            self.wait("^GET /version", mark)
        return [" ".join(line.split()[:2]) for line in self.log.text().splitlines()
                if line.startswith(("GET ", "PUT ", "PATCH ")) and "/version" not in line]

    def restore(self):
        """The arguments of pagerctl restore."""
        return ["--api-sock", self.socket, "--snapshot", self.state, "--image", self.image.path]

    def vmm_pid(self):
        line = self.log.find(r"^vmm \d+$")
        return int(line.split()[1]) if line else None

    def kill(self):
        super().kill()
        if self.vmm_pid():
            pagerd.wait_gone(self.vmm_pid())

    def stderr(self):
        return self.log.text()

    def body(self, request):
        """The JSON of the last such request."""
        lines = [line for line in self.log.text().splitlines() if line.startswith(request + " ")]
        return json.loads(lines[-1][len(request) + 1:])


class Real:
    """A Firecracker program, as yet without a VM."""

    def __init__(self, pager, program):
        self.socket = os.path.join(pager.dir, "real.sock")
        self.process = subprocess.Popen([program, "--api-sock", self.socket],
                                        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                        stderr=subprocess.STDOUT)
        self.log = pagerd.Log(self.process.stdout)
        pager.until(lambda: os.path.exists(self.socket), "it never listened")

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.process.kill()
        self.process.wait()
