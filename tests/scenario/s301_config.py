#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
# builds: plain asan
"""Options of a pagerd that runs: shown, read again by SIGHUP, changed by clients."""
import json
import os
import re
import signal
import subprocess
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
import pagerd  # noqa: E402
import tap  # noqa: E402

SOMEBODY = 64555


class Configured(pagerd.Pagerd):
    """With a configuration file that can be written anew."""

    def __init__(self, text, **options):
        super().__init__(start=False, **options)
        self.options["config"] = os.path.join(self.dir, "pagerd.conf")
        self.write(text)
        self.start()

    def write(self, text):
        with open(self.options["config"], "w", encoding="utf-8") as f:
            f.write(text)

    def reload(self, text, end="reload: done"):
        """The lines that a reload logs."""
        mark = self.log.mark()
        self.write(text)
        self.process.send_signal(signal.SIGHUP)
        self.log.wait(end, since=mark)
        return [re.sub(r"^<\d>pagerd: ", "", line) for line in self.log.lines[mark:]
                if "option" in line or "reload" in line]

    def config(self):
        return self.call("GET", "/config")["options"]

    def option(self, name):
        row = self.config()[name]
        return row["value"], row["source"]


def shown():
    with Configured("max-sessions = 77\nhello-timeout = 90s\n", hello_timeout="20s") as pager:
        options = pager.config()
        tap.is_(pager.option("max-sessions"), ("77", "file"), "from the file")
        tap.is_(pager.option("hello-timeout"), ("20s", "flag"), "from the command line")
        tap.is_(pager.option("tombstone-life"), ("10m", "default"), "from nowhere")
        tap.is_(options["image-root"]["value"], pager.roots, "a list")
        tap.is_(options["config"]["value"], pager.options["config"], "the file itself")
        can = {name: (row["reloadable"], row["settable"]) for name, row in options.items()}
        tap.is_([can[x] for x in ("run-dir", "image-root", "controller", "config")],
                [(False, False), (True, False), (True, True), (False, False)],
                "what may change by a reload and by a client")
        dumped = subprocess.run(pager.argv() + ["--dump-config"], stdout=subprocess.PIPE,
                                check=True, text=True).stdout
        keys = set(re.findall(r"(?m)^(?:# )?([a-z0-9-]+) =", dumped))
        tap.is_(sorted(set(options) - keys), ["config", "ready-fd"],
                "every key of the configuration file is there, and two flags")


def reloaded():
    with Configured("controller = off\ncontroller-max-concurrent = 2\n") as pager:
        said = pager.reload("controller = on\ncontroller-max-concurrent = 4\n"
                            "controller-min-session-age = 90s\nworker-user = nobody\n")
        tap.is_(said, ["option controller: off -> on, source=file; in force now",
                       "option controller-min-session-age: 10m -> 90s, source=file; in force now",
                       "option controller-max-concurrent: 2 -> 4, source=file; in force now",
                       "reload: done"], "what changed is said, old and new")
        pager.log.wait(r"controller: on, min_session_age_ms=90000 max_concurrent=4; completes")
        tap.is_(pager.call("GET", "/stats")["controller"]["enabled"], 1, "and is in force")
        tap.is_(pager.option("worker-user"), (str(pagerd.WORKER_UID), "flag"),
                "a flag goes before the file")
        said = pager.reload("controller = on\ncontroller-max-concurrent = 4\n")
        tap.is_(said, ["option controller-min-session-age: 90s -> 10m, source=default; in force now",
                       "reload: done"], "what is left out goes back to its default")
        said = pager.reload("controller = on\ncontroller-max-concurrent = 4\nhttp-max-clients = 9\n")
        tap.is_(said[:1], ["option http-max-clients: 256 -> 9, source=file; takes effect at the "
                           "next start only"], "what may not change is said and left")
        tap.is_(pager.option("http-max-clients"), ("256", "default"), "as it is")
        said = pager.reload("controller = on\ncontroller-max-concurrent = 4\n")
        tap.is_(said, ["reload: done"], "nothing changed, nothing is said")


def refused():
    good = "controller = on\nmax-sessions = 9\n"
    with Configured(good) as pager:
        before = pager.config()
        for text, why in (
                ("max-sessions = 5\ncontroller = maybe\n", ':2: controller: "maybe" is neither on nor off'),
                ("max-sessions = 5\nnonsense = 1\n", ':2: there is no key "nonsense"'),
                ("max-sessions = 5\nmax-sessions = 6\n", ":2: max-sessions is given twice"),
                ("max-sessions = 5\ncluster-min = 1M\n", "--cluster-min is larger than --cluster-max"),
                ("max-sessions = 5\n\0", "not a text file")):
            said = pager.reload(text, end="nothing changed")
            tap.ok(len(said) == 1 and why in said[0] and said[0].startswith("reload: "),
                   "refused: " + why, said)
        os.unlink(pager.options["config"])
        mark = pager.log.mark()
        pager.process.send_signal(signal.SIGHUP)
        pager.log.wait("reload: --config: cannot read .*: No such file.*; nothing changed", since=mark)
        tap.is_(pager.config(), before, "a bad file changes nothing at all")
        pager.reload("controller = on\nmax-sessions = 10\n")
        tap.is_(pager.option("max-sessions"), ("10", "file"), "and a good one still does")


def changed():
    with Configured("max-sessions = 9\ncontroller-rate = 64M\n") as pager:
        answer = pager.call("PATCH", "/config", {
            "controller": True, "max-sessions": 12, "controller-rate": "64M", "log-level": "info"})
        tap.is_(answer, {"changed": {
            "controller": {"old": "off", "new": "on"}, "max-sessions": {"old": "9", "new": "12"},
            "log-level": {"old": "debug", "new": "info"}}}, "several at once, of each type")
        pager.log.wait(r"config: uid=0 pid=\d+ changed options=3; until the next reload")
        tap.is_([pager.option(x) for x in ("controller", "max-sessions", "controller-rate")],
                [("on", "api"), ("12", "api"), ("64M", "api")], "are there, from the api")
        mark = pager.log.mark()
        pager.turn()
        pager.call("PATCH", "/config", {"log-level": "debug"})
        pager.log.wait("config: uid=0", since=mark)
        said = pager.reload("max-sessions = 9\ncontroller-rate = 64M\n")
        tap.is_(said, ["option max-sessions: 12 -> 9, source=file; in force now",
                       "option controller: on -> off, source=default; in force now",
                       "reload: done"], "until a reload, which goes back to the file")
        tap.is_(pager.option("controller-rate"), ("64M", "file"), "and to its sources")
        tap.is_(pager.call("PATCH", "/config", {}), {"changed": {}}, "nothing to change")


def wrong():
    with Configured("max-sessions = 9\n") as pager:
        before = pager.config()
        for body, why in (
                ({"nonsense": 1}, 'there is no option "nonsense"'),
                ({"Controller": "on"}, 'there is no option "Controller"'),
                ({"run-dir": "/x"}, '"run-dir" cannot be changed like this: set it in the config'
                                    'uration file and restart'),
                ({"image-root": "/"}, '"image-root" cannot be changed like this: set it in the '
                                      'configuration file and reload'),
                ({"config": "/x"}, '"config" cannot be changed like this: it is a flag'),
                ({"controller": "maybe"}, 'controller: "maybe" is neither on nor off'),
                ({"controller": None}, '"controller" must be a string, a whole number, true or'),
                ({"controller": ["on"]}, '"controller" must be a string'),
                ({"controller": {}}, '"controller" must be a string'),
                ({"max-sessions": 1.5}, '"max-sessions" must be a string'),
                ({"max-sessions": 0}, 'max-sessions: "0" is out of range: 1 to 1000000'),
                ({"max-sessions": -1}, 'max-sessions: "-1" is not a decimal number'),
                ({"max-sessions": True}, 'max-sessions: "on" is not a decimal number'),
                ({"hello-timeout": "5 s"}, 'hello-timeout: "5 s" is not a duration'),
                ({"log-level": "info\n"}, "log-level: a value cannot hold a control character"),
                ({"cluster-min": "128K"}, "--cluster-min is larger than --cluster-max"),
                ({"x" * 200: 1}, 'there is no option "xxxx')):
            status, code, said = pager.error_of("PATCH", "/config", dict({"max-sessions": 50}, **body))
            tap.ok((status, code) == (400, "bad-request") and why in said, "refused: " + why, said)
        for body in (b"[]", b"{", b'{"controller":"on","controller":"off"}', b"controller=on"):
            tap.is_(pager.error_of("PATCH", "/config", body)[:2], (400, "bad-request"),
                    "refused: %r" % body)
        many = {"x%d" % i: 1 for i in range(5000)}
        tap.is_(pager.error_of("PATCH", "/config", many)[:2], (400, "bad-request"), "refused: many")
        tap.is_(pager.error_of("PATCH", "/config?now=1", {})[:2], (400, "bad-request"), "a query")
        tap.is_(pager.error_of("PUT", "/config", {})[:2], (405, "method"), "another method")
        tap.is_(pager.config(), before, "and nothing has changed")


ASK = """
import http.client, os, socket, sys
os.setgid({0}); os.setuid({0})
c = http.client.HTTPConnection("x")
c.sock = socket.socket(socket.AF_UNIX)
c.sock.connect(sys.argv[1])
c.request(sys.argv[2], "/config", body=sys.argv[3])
print(c.getresponse().status)
""".format(SOMEBODY)


def somebody(pager, method, body=""):
    """The status that a user without any right gets who was let in by the socket's mode."""
    return int(subprocess.run([sys.executable, "-c", ASK, pager.socket, method, body],
                              stdout=subprocess.PIPE, check=True, text=True).stdout)


def permission():
    with pagerd.Pagerd() as pager:
        os.chmod(pager.socket, 0o666)
        tap.is_(somebody(pager, "GET"), 200, "whoever is let in may look")
        tap.is_(somebody(pager, "PATCH", '{"controller": "on"}'), 403, "but not change")
        tap.is_(pager.call("GET", "/stats")["controller"]["enabled"], 0, "which did nothing")


def pagerctl():
    with Configured("max-sessions = 9\n") as pager:
        done = pager.ctl("config")
        tap.is_((done.returncode, done.stderr), (0, ""), "pagerctl config")
        rows = {line.split()[0]: line.split()[1:] for line in done.stdout.splitlines()}
        tap.is_([rows[x] for x in ("OPTION", "max-sessions", "controller", "admin-group")],
                [["VALUE", "SOURCE", "CHANGES"], ["9", "file", "now"], ["off", "default", "now"],
                 ["-", "default", "by", "restart"]], "prints a table")
        tap.like(done.stdout, r"(?m)^image-root +/\S+, /\S+ +flag +by reload$", "and lists")
        done = pager.ctl("config", "controller=on", "controller-rate=1M", "max-sessions=9")
        tap.is_((done.returncode, done.stdout), (
            0, "controller: off -> on\ncontroller-rate: 0 -> 1M\n"), "changes options")
        done = pager.ctl("config", "controller=on")
        tap.is_((done.returncode, done.stdout),
                (0, "nothing changed: the options are like that already\n"), "says so if it did not")
        done = pager.ctl("--json", "config", "controller=off")
        tap.is_(json.loads(done.stdout), {"changed": {"controller": {"old": "on", "new": "off"}}},
                "or gives the JSON")
        for words, code, why in (
                (["nonsense=1"], 1, 'there is no option "nonsense"; nothing has changed'),
                (["run-dir=/x", "controller=on"], 1, '"run-dir" cannot be changed like this'),
                (["controller"], 2, "controller is not of the form NAME=VALUE"),
                (["=on"], 2, "=on is not of the form NAME=VALUE"),
                (["controller=on", "controller=off"], 2, "controller is given twice"),
                (["x=\udcff"], 2, "is not UTF-8")):
            done = pager.ctl("config", *words, errors="replace")
            tap.ok(done.returncode == code and why in done.stderr and done.stdout == "",
                   "refused: " + why, (done.returncode, done.stderr))
        tap.is_(pager.option("controller"), ("off", "api"), "and nothing changed")
        status = json.loads(pager.ctl("--json", "status").stdout)
        tap.is_((sorted(status), status["controller"]["enabled"]),
                (["controller", "health", "states", "versions"], 0), "status has the controller")
        tap.like(pager.ctl("stats").stdout, r"(?m)^CONTROLLER +COUNT\nenabled +0\n", "so has stats")


if __name__ == "__main__":
    tap.needs_root()
    tap.run(shown, reloaded, refused, changed, wrong, permission, pagerctl)
