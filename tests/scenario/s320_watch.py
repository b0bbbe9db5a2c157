#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
# builds: plain asan
"""Progress as it happens: streams, who joins, who leaves, and what pagerctl makes of it."""
import json
import os
import pty
import signal
import socket
import subprocess
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
import pagerd  # noqa: E402
import tap  # noqa: E402
import vmm  # noqa: E402

MIB = 1 << 20
# A completion that is stopped in its second chunk, with the whole worker, until SIGCONT.
PAUSE = "POPULATE_CHUNK:2!pause"
PROGRESS = {"state", "guest_bytes", "pages_done", "pages_total", "bytes_per_second", "eta_ms"}


class Stream:
    """The lines of an answer, as they come."""

    def __init__(self, pager, method, path):
        self.connection = pager.connect()
        self.connection.request(method, path)
        self.answer = self.connection.getresponse()

    def line(self):
        text = self.answer.readline()
        return json.loads(text) if text else None

    def rest(self):
        lines = []
        while True:
            line = self.line()
            if line is None:
                return lines
            lines.append(line)

    def leave(self):
        self.answer.close()
        self.connection.close()

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.leave()


def paused(pager, begin):
    """A guest whose completion, begun by begin(), stands still, and its worker."""
    image = pager.image(size="256M", seed=5)
    guest = pager.restore(image, "a")
    worker = pager.worker_pid()
    begun = begin()
    pager.until(lambda: pagerd.is_stopped(worker), "the worker never paused")
    return guest, worker, begun


def a_completion_line_by_line():
    with pagerd.Pagerd() as pager:
        image = pager.image(in_memory=True, size="1G", seed=7)
        with pager.restore(image, "a") as guest:
            with Stream(pager, "POST", "/sessions/a/complete?watch=1") as stream:
                tap.is_((stream.answer.status, stream.answer.getheader("Content-Type"),
                         stream.answer.getheader("Transfer-Encoding")),
                        (200, "application/x-ndjson", "chunked"), "a stream of JSON objects")
                lines = stream.rest()
            last, progress = lines.pop(), lines
            tap.ok(len(progress) > 1 and all(set(line) == PROGRESS for line in progress),
                   "lines of progress", progress)
            done = [line["pages_done"] for line in progress]
            tap.ok(done == sorted(set(done)), "each of which says something new", done)
            tap.ok(all(line["state"] == "completing" and line["pages_total"] == 262144 and
                       line["guest_bytes"] == 1024 * MIB for line in progress), "of its completion")
            tap.ok(any(line["bytes_per_second"] > 0 and line["eta_ms"] is not None
                       for line in progress[1:]), "with its rate and what is left", progress)
            tap.is_((last["status"], last["state"], last["session"]["outcome"]),
                    (200, "graduated", "graduated"), "the last line is the answer")
            tap.is_(guest.cmd("verify")["wrong"], 0, "every page is right")
        with Stream(pager, "POST", "/sessions/a/complete?watch=1") as stream:
            tap.is_([line["status"] for line in stream.rest()], [200],
                    "one that had graduated is one line")
        tap.is_(pager.error_of("POST", "/sessions/b/complete?watch=1")[:2], (404, "not-found"),
                "what cannot begin is an ordinary error")


def a_session_line_by_line():
    with pagerd.Pagerd() as pager:
        image = pager.image(size="16M", seed=7)
        session = pager.create(image.path, id="a")
        with Stream(pager, "GET", "/sessions/a?watch=1") as stream:
            tap.is_(stream.line()["state"], "created", "a watch begins with what is")
            with vmm.Vmm(image, socket=session["socket_path"]) as guest:
                now = stream.line()
                while now["state"] == "created":
                    now = stream.line()
                tap.is_((now["state"], now["pages_done"], now["pages_total"]), ("serving", 0, 4096),
                        "the handshake")
                guest.cmd("touch rand count=100")
                tap.ok(stream.line()["pages_done"] > 0, "the guest's faults")
            lines = stream.rest()
            tap.is_((lines[-1]["status"], lines[-1]["state"], lines[-1]["session"]["outcome"]),
                    (200, "closed", "vmm-exited"), "its end is the last line")
        with Stream(pager, "GET", "/sessions/a?watch=1&wait=graduated") as stream:
            line = stream.rest()[-1]
            tap.is_((line["status"], line["code"]), (409, "ended"),
                    "what will not come any more is an error in the last line")


def who_joins():
    with pagerd.Pagerd(worker_fault=PAUSE) as pager:
        guest, worker, call = paused(pager, lambda: pagerd.Pending(pager.complete, "a"))
        with guest:
            tap.is_(pager.error_of("POST", "/sessions/a/complete")[:2], (409, "busy"),
                    "a second completion is refused")
            joined = pagerd.Pending(pager.call, "POST", "/sessions/a/complete?join=1")
            stream = Stream(pager, "POST", "/sessions/a/complete?join=1&watch=1")
            tap.is_(stream.line()["state"], "completing", "or joins the first")
            with Stream(pager, "POST", "/sessions/a/complete?join=1&watch=1") as leaving:
                leaving.line()
            pager.turn()
            os.kill(worker, signal.SIGCONT)
            tap.is_(call.end()["outcome"], "graduated",
                    "who joined and left has not aborted it")
            tap.is_(joined.end()["outcome"], "graduated", "and the outcome is that of all")
            with stream:
                tap.is_(stream.rest()[-1]["status"], 200, "of who watched, too")
            tap.is_(guest.cmd("verify")["wrong"], 0, "every page is right")


def who_leaves():
    with pagerd.Pagerd(worker_fault=PAUSE) as pager:
        guest, worker, stream = paused(
            pager, lambda: Stream(pager, "POST", "/sessions/a/complete?watch=1"))
        with guest:
            joined = pagerd.Pending(pager.error_of, "POST", "/sessions/a/complete?join=1")
            pager.turn()
            stream.leave()
            pager.turn()
            os.kill(worker, signal.SIGCONT)
            pager.log.wait("id=a: COMPLETING -> SERVING on STAYED")
            tap.is_(pager.show("a")["state"], "serving", "who began it and leaves aborts it")
            status, code, why = joined.end()
            tap.is_((status, code), (500, "failed"), "and who joined is told")
            tap.like(why, "aborted; the session is serving", "why")
            tap.is_(pager.complete("a")["state"], "graduated", "it can be completed again")
            tap.is_(guest.cmd("verify")["wrong"], 0, "every page is right")


def who_does_not_read():
    """A stream whose client sleeps holds up nothing, and costs no more than a line or two."""
    with pagerd.Pagerd() as pager:
        image = pager.image(size="64M", seed=3)
        with pager.restore(image, "a") as guest, pager.raw() as sleeper:
            sleeper.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
            sleeper.sendall(b"GET /sessions/a?watch=1 HTTP/1.1\r\nHost: x\r\n\r\n")
            guest.cmd("touch rand count=2000")
            tap.is_(pager.complete("a")["state"], "graduated", "a completion beside a sleeper")
            text = b""
            while b'"status":200' not in text:
                text += sleeper.recv(65536)
            tap.ok(b'"outcome":"graduated"' in text, "which finds the end when it wakes")


def ctl_complete():
    with pagerd.Pagerd() as pager:
        image = pager.image(size="512M", seed=3)
        with pager.restore(image, "a b") as guest, pager.restore(image, "c") as other:
            with Terminal(pager, "complete", "a b") as terminal:
                tap.is_(terminal.end(), 0, "pagerctl complete on a terminal")
            tap.like(terminal.text, r"a b \[#+\.+\]  +\d+ %  .* of 512 MiB  .*/s", "draws a bar")
            tap.like(terminal.text, r"a b has graduated: 512 MiB in [0-9.]+ m?s\r\n$",
                     "and wipes it at the end")
            done = pager.ctl("complete", "c", "--json")
            tap.is_((done.returncode, json.loads(done.stdout)["outcome"], done.stderr),
                    (0, "graduated", ""), "--json is the session alone")
            again = pager.ctl("complete", "c", "--join")
            tap.is_((again.returncode, again.stdout), (0, "c has graduated: 512 MiB\n"),
                    "one that had graduated")
            tap.is_([g.cmd("verify")["wrong"] for g in (guest, other)], [0, 0],
                    "every page is right")
        missing = pager.ctl("complete", "x")
        tap.is_((missing.returncode, missing.stdout), (4, ""), "4: no such session")
        tap.like(missing.stderr, "there is no session x", "said on stderr")
        pager.create(image.path, id="d")
        tap.is_(pager.ctl("complete", "d").returncode, 6, "6: not in this state")


def ctl_interrupted():
    with pagerd.Pagerd(worker_fault=PAUSE) as pager:
        def begin():
            return subprocess.Popen([pagerd.program("pagerctl"), "--socket", pager.socket,
                                     "complete", "a"], stdout=subprocess.PIPE,
                                    stderr=subprocess.PIPE, text=True)
        guest, worker, process = paused(pager, begin)
        with guest:
            tap.is_(pager.ctl("complete", "a").returncode, 6, "6: one runs already")
            late = pager.ctl("complete", "a", "--join", "--timeout", "50ms")
            tap.is_((late.returncode, late.stdout), (5, ""), "5: joined, and out of time")
            process.send_signal(signal.SIGINT)
            _, said = process.communicate(timeout=pagerd.DEADLINE_S)
            tap.is_(process.returncode, 128 + signal.SIGINT, "interrupted")
            tap.like(said, "interrupted: a goes on being served", "it says what that means")
            os.kill(worker, signal.SIGCONT)
            pager.log.wait("id=a: COMPLETING -> SERVING on STAYED")
            tap.is_(guest.cmd("touch rand count=1000")["wrong"], 0, "which is true")


class Terminal:
    """pagerctl on a terminal."""

    def __init__(self, pager, *arguments):
        self.master, slave = pty.openpty()
        self.process = subprocess.Popen(
            [pagerd.program("pagerctl"), "--socket", pager.socket] + list(arguments),
            stdin=subprocess.DEVNULL, stdout=slave, stderr=slave)
        os.close(slave)
        self.text = ""

    def read(self):
        try:
            data = os.read(self.master, 65536)
        except OSError:  # the last one has closed it
            return False
        self.text += data.decode()
        return bool(data)

    def shows(self, words):
        while words not in self.text and self.read():
            pass

    def end(self):
        while self.read():
            pass
        return self.process.wait(pagerd.DEADLINE_S)

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.process.kill()
        self.process.wait()
        os.close(self.master)


def ctl_drain():
    with pagerd.Pagerd() as pager:
        image = pager.image(size="64M", seed=3)
        with pager.restore(image, "a b"), pager.restore(image, "c") as other:
            late = pager.ctl("drain", pagerd.VERSION, "--wait", "--timeout", "10ms")
            tap.is_(late.returncode, 5, "5: out of time")
            tap.like(late.stderr, "still has 2 sessions; it goes on draining", "and says so")
            with subprocess.Popen([pagerd.program("pagerctl"), "--socket", pager.socket, "drain",
                                   pagerd.VERSION, "--wait"], stdout=subprocess.PIPE,
                                  stderr=subprocess.PIPE, text=True) as plain, \
                 Terminal(pager, "drain", pagerd.VERSION, "--wait") as terminal:
                lines = [plain.stderr.readline(), plain.stderr.readline()]
                tap.is_(sorted(lines), ["a b: serving\n", "c: serving\n"],
                        "without a terminal: a line for each session that is left")
                terminal.shows("c  serving")
                pager.complete("a b")
                tap.is_(ended(plain), "a b: graduated\n", "and for each that leaves")
                other.kill()
                tap.is_(ended(plain), "c: vmm-exited\n", "however it does")
                tap.is_((plain.wait(pagerd.DEADLINE_S), plain.stdout.read()),
                        (0, "%s is drained; its worker has exited\n" % pagerd.VERSION),
                        "until its worker has exited")
                tap.is_(terminal.end(), 0, "on a terminal")
                tap.like(terminal.text, r"a b  serving\r\nc  serving\r\n.*\x1b\[2A\r\x1b\[J",
                         "a live line for each")
                tap.like(terminal.text, "is drained; its worker has exited\r\n$", "to its end")
        tap.is_(pager.versions()[pagerd.VERSION]["state"], "not-running", "the version is reaped")
        again = pager.ctl("drain", pagerd.VERSION, "--wait")
        tap.is_((again.returncode, again.stderr), (0, ""), "waiting for what has come true")
        tap.is_(pager.ctl("drain", "9.9.9", "--wait").returncode, 4, "4: no such version")


def ended(process):
    """The next line that is not about progress."""
    while True:
        line = process.stderr.readline()
        if " %  " not in line:
            return line


if __name__ == "__main__":
    tap.needs_root()
    tap.run(a_completion_line_by_line, a_session_line_by_line, who_joins, who_leaves,
            who_does_not_read, ctl_complete, ctl_interrupted, ctl_drain)
