#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
# builds: plain asan
"""pagerctl against a real pagerd: every command for people and as JSON, exit codes, what
it says when something is wrong, and what it draws on a terminal."""
import json
import os
import pty
import select
import signal
import socket
import subprocess
import sys
import termios

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
import answers  # noqa: E402
import pagerd  # noqa: E402
import tap  # noqa: E402
import vmm  # noqa: E402

V = pagerd.VERSION
OK, FAILED, USAGE, UNREACHABLE, NOT_FOUND, TIMEOUT, CONFLICT = range(7)


def exits(done, code, what, stdout=None, stderr=None):
    """Points about the end of a command and what it said."""
    tap.ok(done.returncode == code, what, "%s\n%s%s" % (done.returncode, done.stdout, done.stderr))
    if stdout:
        tap.like(done.stdout, stdout, "  and prints it")
    if stderr:
        tap.like(done.stderr, "(?m)^pagerctl: .*(%s)" % stderr, "  and says why")
    elif code == OK:
        tap.is_(done.stderr, "", "  and complains of nothing")


def as_json(pager, *arguments):
    done = pager.ctl("--json", *arguments)
    try:
        return json.loads(done.stdout)
    except ValueError:
        return "no JSON: %r %r" % (done.stdout, done.stderr)


def for_people():
    with pagerd.Pagerd() as pager:
        image = pager.image(size="16M", seed=3, holes=100)
        exits(pager.ctl("status"), OK, "status",
              r"pagerd %s is ok on %s\n +up +.*\n +current +%s\n +workers +0\n +sessions +0\n"
              % (V, pager.socket, V))
        exits(pager.ctl("sessions"), OK, "sessions without any", "^no sessions\n$")
        exits(pager.ctl("create", "--id", "a/b c", "--instance=vm7", image.path), OK, "create",
              r"^id +a/b c\nversion +%s\nsocket +%s" % (V, pager.run))
        session = pager.show("a/b c")
        with vmm.Vmm(image, socket=session["socket_path"]) as guest:
            exits(pager.ctl("show", "a/b c", "--wait", "serving"), OK, "show --wait",
                  r"(?s)id +a/b c\ninstance +vm7\nstate +serving\n.*vmm pid +%d\n.*memory +16 MiB in "
                  r"4 096 pages\npresent +\[[.#]+\] \d+ %%" % guest.pid)
            guest.cmd("touch rand count=300")
            exits(pager.ctl("sessions"), OK, "sessions",
                  r"^ID +STATE .*IMAGE\na/b c +serving +%s +16 MiB +\d+ %% +300 " % V)
            exits(pager.ctl("versions"), OK, "versions",
                  r"VERSION +STATE .*\n%s +ready +%d +1 +current +no-new-privs,no-caps,seccomp"
                  % (V, pager.worker_pid()))
            exits(pager.ctl("stats"), OK, "stats", r"COUNTER +TOTAL +%s\nfaults +300 +300\n" % V)
            exits(pager.ctl("complete", "a/b c"), OK, "complete",
                  r"^a/b c has graduated: 16 MiB in [\d.]+ m?s\n$")
            exits(pager.ctl("complete", "a/b c"), OK, "complete again",
                  r"^a/b c has graduated: 16 MiB\n$")
            tap.is_(guest.cmd("verify")["wrong"], 0, "the guest has all its memory")
        exits(pager.ctl("sessions"), OK, "sessions with an ended one",
              "^no sessions\n1 ended lately; --all shows them\n$")
        exits(pager.ctl("sessions", "--all"), OK, "sessions --all", r"\na/b c +graduated ")
        pager.create(image.path, id="z")
        exits(pager.ctl("close", "z"), OK, "close", "^z has ended: closed\n$")
        exits(pager.ctl("upgrade", V), OK, "upgrade",
              "^new sessions go to %s; they went to %s\n$" % (V, V))
        exits(pager.ctl("drain", V), OK, "drain",
              r"^%s drains; it exits with the last of its sessions, which are 0\n$" % V)
        exits(pager.ctl("config"), OK, "config", r"(?m)^max-sessions +4096 +default ")


def for_programs():
    with pagerd.Pagerd() as pager:
        image = pager.image(size="4M", seed=3)
        answer = as_json(pager, "create", image.path, "--id", "a", "--cluster-min", "4K",
                         "--cluster-max", "128K", "--handshake-timeout", "1m", "--cache-key", "k")
        tap.is_((answer["id"], answer["state"], answer["cache_key"]), ("a", "created", "k"),
                "--json create is the session")
        with vmm.Vmm(image, socket=answer["socket_path"]) as guest:
            tap.is_(as_json(pager, "show", "a", "--wait=serving")["state"], "serving", "--json show")
            tap.is_([s["id"] for s in as_json(pager, "sessions")["sessions"]], ["a"],
                    "--json sessions")
            status = as_json(pager, "status")
            tap.is_((status["health"]["status"], status["versions"]["current"]), ("ok", V),
                    "--json status")
            tap.is_(as_json(pager, "versions")["versions"][0]["version"], V, "--json versions")
            tap.ok("faults" in as_json(pager, "stats")["counters"], "--json stats")
            done = as_json(pager, "complete", "a")
            tap.is_((done["id"], done["outcome"]), ("a", "graduated"), "--json complete")
            tap.is_(guest.cmd("verify")["wrong"], 0, "the guest has all its memory")
        tap.is_(as_json(pager, "close", "a")["outcome"], "graduated", "--json close")
        tap.is_(as_json(pager, "upgrade", V), {"version": V, "previous": V}, "--json upgrade")
        tap.is_(as_json(pager, "drain", V)["version"], V, "--json drain")
        failed = pager.ctl("--json", "show", "nobody")
        tap.is_((failed.returncode, json.loads(failed.stdout)["code"]), (NOT_FOUND, "not-found"),
                "an error is JSON, too")
        tap.like(failed.stderr, "^pagerctl: there is no session nobody", "besides the sentence")


def exit_codes():
    with pagerd.Pagerd() as pager:
        image = pager.image(size="4M", seed=3)
        pager.install_fake("9.0.0", "bad=die on=start")
        pager.create(image.path, id="a")
        for words, code, why in (
                (["create", "/etc/passwd"], FAILED, "below no image root"),
                (["create", pager.images], FAILED, "below no image root"),
                (["upgrade", "9.0.0"], FAILED, "dying as my script says.*; nothing has changed"),
                (["show", "x"], NOT_FOUND, "no session x"),
                (["close", "x"], NOT_FOUND, "no session x"),
                (["complete", "x"], NOT_FOUND, "no session x"),
                (["create", pager.images + "/none"], NOT_FOUND, "No such file"),
                (["upgrade", "7.7.7"], NOT_FOUND, "version 7.7.7 is not installed"),
                (["drain", "7.7.7"], NOT_FOUND, "no worker of version 7.7.7 runs"),
                (["show", "a", "--wait", "serving", "--timeout", "50ms"], TIMEOUT,
                 "session a is created, not serving, when the time was over"),
                (["drain", V, "--wait", "--timeout", "50ms"], TIMEOUT, "still has 1 session"),
                (["complete", "a"], CONFLICT, "waits for its VMM"),
                (["create", image.path, "--id", "a"], CONFLICT, "session a exists"),
                (["show", "a", "--wait", "happy"], FAILED, '"wait" must be')):
            exits(pager.ctl(*words), code, "%s: %d" % (" ".join(words[:2]), code), stderr=why)
        pager.close_session("a")
        exits(pager.ctl("show", "a", "--wait", "serving"), CONFLICT, "show of an ended session: 6",
              stderr="session a has ended: closed")


def drained():
    with pagerd.Pagerd() as pager:
        image = pager.image(size="1M", seed=3)
        for name in "ab":
            pager.create(image.path, id=name)
        process = subprocess.Popen([pagerd.program("pagerctl"), "--socket", pager.socket, "drain",
                                    V, "--wait"], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                                   text=True)
        tap.like(process.stderr.readline(), "^a: created$", "drain --wait names who is left")
        pager.close_session("a")
        pager.close_session("b")
        out, err = process.communicate(timeout=pagerd.DEADLINE_S)
        tap.is_((process.returncode, out), (OK, "%s is drained; its worker has exited\n" % V),
                "and ends when the worker has")


def drains_by_itself():
    """Its worker may exit between two questions: it need not be told what it does."""
    with pagerd.Pagerd() as pager:
        path = os.path.join(pager.dir, "other.sock")
        for row in ({"state": "draining", "draining": True}, {"state": "stopping", "draining": False}):
            told = {"/versions": {"versions": [dict(row, version=V, pid=7, sessions=1)]},
                    "/sessions": {"sessions": []}}
            with answers.Answers(path, told) as server:
                exits(pager.ctl("--socket", path, "drain", V, "--wait", "--timeout", "1ms"), TIMEOUT,
                      "drain --wait of what is %s" % row["state"], stderr="it goes on draining")
                server.shutdown()
            os.unlink(path)


def usage():
    with pagerd.Pagerd() as pager:
        for words, why in (
                ([], "say what to do; pagerctl --help lists the commands"),
                (["statsu"], "no command statsu; did you mean status"),
                (["verisons"], "did you mean versions"),
                (["sess"], "did you mean sessions"),
                (["frobnicate"], "no command frobnicate; pagerctl --help lists them"),
                (["complete", "a", "--timout=5s"], "no option --timout; did you mean --timeout"),
                (["status", "--jsn"], "no option --jsn; did you mean --json"),
                (["status", "--frobnicate"], "status has no option --frobnicate"),
                (["status", "-v"], "options are long, such as --json"),
                (["close"], "close needs an argument: pagerctl close ID"),
                (["close", "a", "b"], "close takes only ID; there is no place for b"),
                (["versions", "x"], "versions takes no arguments"),
                (["status", "--json=yes"], "--json takes no value"),
                (["show", "a", "--wait"], "--wait needs a value: --wait STATE"),
                (["show", "a", "--timeout", "5s"], "--timeout needs --wait"),
                (["complete", "a", "--timeout", "soon"], "soon is no duration"),
                (["create", "/x", "--cluster-min", "3x"], "3x is no size"),
                (["create", "/x", "--vmm-uid", "root"], "root is no number")):
            exits(pager.ctl(*words), USAGE, "pagerctl %s: 2" % " ".join(words), stderr=why)
    helped = subprocess.run([pagerd.program("pagerctl"), "--help"], stdout=subprocess.PIPE,
                            text=True, check=False)
    tap.is_(helped.returncode, OK, "--help")
    missing = [c for c in ("status", "versions", "sessions", "create", "show", "close", "complete",
                           "drain", "upgrade", "stats") if "\n  %s " % c not in helped.stdout]
    tap.is_(missing, [], "lists every command")
    version = subprocess.run([pagerd.program("pagerctl"), "--version"], stdout=subprocess.PIPE,
                             text=True, check=False)
    tap.is_(version.stdout, "pagerctl %s\n" % V, "--version")


def unreachable():
    with pagerd.Pagerd() as pager:
        ctl = pagerd.program("pagerctl")

        def run(path, **env):
            return subprocess.run([ctl, "status"] + (["--socket", path] if path else []),
                                  stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                                  check=False, env=dict(os.environ, **env), timeout=30)

        exits(run(os.path.join(pager.dir, "none")), UNREACHABLE, "no socket: 3",
              stderr="pagerd does not answer on .*: No such file or directory; is it running")
        exits(run("/" + "x" * 200), UNREACHABLE, "a path that is no socket's: 3",
              stderr="File name too long")
        exits(run(None, PAGERD_SOCKET=pager.socket), OK, "$PAGERD_SOCKET names the socket")
        exits(run(pager.socket, PAGERD_SOCKET="/none"), OK, "--socket goes before it")
        path = os.path.join(pager.dir, "other")
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(path)
            exits(run(path), UNREACHABLE, "nobody listens: 3", stderr="Connection refused")
            listener.listen(8)
            for words, why in ((b"", "hung up before it had answered"),
                               (b"220 mail.example.org ESMTP\r\n", "is not pagerd"),
                               (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello", "is not pagerd"),
                               (b"HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\n{", "hung up")):
                process = subprocess.Popen([ctl, "--socket", path, "status"],
                                           stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
                connection, _ = listener.accept()
                connection.recv(4096)
                connection.sendall(words)
                connection.close()
                out, err = process.communicate(timeout=pagerd.DEADLINE_S)
                tap.is_((process.returncode, out), (UNREACHABLE, ""), "answered %.20r: 3" % words)
                tap.like(err, why, "  and says why")
        with open("/dev/full", "w", encoding="ascii") as full:
            done = subprocess.run([ctl, "--socket", pager.socket, "status"], stdout=full,
                                  stderr=subprocess.PIPE, text=True, check=False)
        tap.is_(done.returncode, FAILED, "output that cannot be written: 1")
        tap.like(done.stderr, "the output could not be written", "  and says so")


class Terminal:
    """A command whose output and errors are a terminal's."""

    def __init__(self, pager, *words, **env):
        self.master, slave = pty.openpty()
        termios.tcsetwinsize(slave, (24, 100))
        self.process = subprocess.Popen(
            [pagerd.program("pagerctl"), "--socket", pager.socket] + list(words),
            stdin=subprocess.DEVNULL, stdout=slave, stderr=slave,
            env=dict({k: v for k, v in os.environ.items() if k != "NO_COLOR"},
                     TERM="xterm", **env))
        os.close(slave)
        self.text = ""

    def read(self):
        """Something more, or False at the end."""
        if not select.select([self.master], [], [], 30)[0]:
            raise TimeoutError("the terminal is silent after %r" % self.text)
        try:
            data = os.read(self.master, 65536)
        except OSError:
            return False
        self.text += data.decode()
        return bool(data)

    def until(self, text):
        while text not in self.text and self.read():
            pass
        return text in self.text

    def end(self):
        while self.read():
            pass
        os.close(self.master)
        return self.process.wait(pagerd.DEADLINE_S)


def colours():
    with pagerd.Pagerd() as pager:
        image = pager.image(size="1M")
        pager.create(image.path, id="a")
        for env, painted in (({}, True), ({"NO_COLOR": "1"}, False), ({"NO_COLOR": ""}, True)):
            terminal = Terminal(pager, "versions", **env)
            terminal.end()
            tap.is_("\033[32m" in terminal.text, painted, "a terminal with %s: %s" % (
                env or "nothing", "colours" if painted else "none"))
        tap.ok("\033" not in pager.ctl("versions").stdout, "a pipe: none")


def progress():
    with pagerd.Pagerd(worker_fault="POPULATE_CHUNK:40!pause") as pager:
        image = pager.image(in_memory=True, size="64M", seed=4)
        with pager.restore(image, "a") as guest:
            pid = pager.worker_pid()
            terminal = Terminal(pager, "complete", "a")
            tap.ok(terminal.until("#"), "complete draws a bar on a terminal", terminal.text)
            tap.like(terminal.text, r"a \[#+\.+\] +\d+ %  [\d.]+ MiB of 64 MiB", "with how far it is")
            pager.until(lambda: pagerd.is_stopped(pid))
            os.kill(pid, signal.SIGCONT)
            tap.is_(terminal.end(), OK, "to the end")
            tap.like(terminal.text, r"\r\033\[Ka has graduated: 64 MiB in .*s\r\n$",
                     "which wipes it")
            tap.is_(guest.cmd("verify")["wrong"], 0, "the guest has all its memory")


def interrupted():
    with pagerd.Pagerd(worker_fault="POPULATE_CHUNK:40!pause") as pager:
        image = pager.image(in_memory=True, size="256M", seed=4)
        with pager.restore(image, "a") as guest:
            pid = pager.worker_pid()
            process = subprocess.Popen([pagerd.program("pagerctl"), "--socket", pager.socket,
                                        "complete", "a"], stdout=subprocess.PIPE,
                                       stderr=subprocess.PIPE, text=True)
            pager.until(lambda: pagerd.is_stopped(pid))
            process.send_signal(signal.SIGINT)
            out, err = process.communicate(timeout=pagerd.DEADLINE_S)
            tap.is_((process.returncode, out), (130, ""), "complete is interrupted: 130")
            tap.like(err, "pagerctl: interrupted: a goes on being served", "and says what follows")
            for _ in range(3):
                pager.turn()
            os.kill(pid, signal.SIGCONT)
            pager.log.wait("id=a: COMPLETING -> SERVING on STAYED")
            tap.is_(guest.cmd("touch rand count=1000")["wrong"], 0, "which is true")


if __name__ == "__main__":
    tap.needs_root()
    tap.run(for_people, for_programs, exit_codes, drained, drains_by_itself, usage, unreachable, colours, progress,
            interrupted)
