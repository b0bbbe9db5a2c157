#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
# builds: plain asan
"""pagerctl top on a terminal of 80 by 24, as a person uses it."""
import os
import re
import shlex
import shutil
import subprocess
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
import pagerd  # noqa: E402
import tap  # noqa: E402


LONG = "idle-with-a-name-that-is-long"


class Terminal:
    def __init__(self, pager, *command, columns=80, lines=24):
        self.pager = pager
        self.server = os.path.join(pager.dir, "tmux")
        self.tmux("-f", "/dev/null", "new-session", "-d", "-x", str(columns), "-y", str(lines),
                  "%s; echo ended=$?; cat" % shlex.join(command))

    def tmux(self, *arguments):
        return subprocess.run(["tmux", "-S", self.server] + list(arguments), check=False,
                              stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                              env=dict(os.environ, TERM="screen", LC_ALL="C.UTF-8")).stdout

    def screen(self):
        return self.tmux("capture-pane", "-p")

    def until(self, pattern, what):
        try:
            self.pager.until(lambda: re.search(pattern, self.screen()), what)
            tap.ok(True, what)
        except TimeoutError:
            tap.ok(False, what, self.screen())

    def close(self):
        self.tmux("kill-server")


def looked_at():
    with pagerd.Pagerd() as pager:
        image = pager.image(size="8M", seed=5)
        with pager.restore(image, "busy") as busy, pager.restore(image, LONG) as idle:
            idle.cmd("touch seq count=10")
            terminal = Terminal(pager, pagerd.program("pagerctl"), "--socket", pager.socket, "top")
            try:
                terminal.until(r"pagerd \S+ +up .* 2 sessions", "what it is of")
                terminal.until(r"version %s +ready +2 sessions +current" % re.escape(pagerd.VERSION),
                               "versions")
                terminal.until(r"sorted by faults", "sorted by faults at first")
                busy.cmd("touch rand count=1500")
                terminal.until(r"(?s)busy .*\[#+\.*\].*idle-", "the busy one on top, with its memory")
                for key, word in (("i", "id"), ("m", "memory"), ("p", "presence"), ("l", "latency")):
                    terminal.tmux("send-keys", key)
                    terminal.until("sorted by %s" % word, "%s sorts by %s" % (key, word))
                row = r"(?m)^%s +\S+ +serving +\d+ +\S+( [mnu]?s)? %s +\d+ %% +8 MiB$"
                for name in ("busy", LONG[:13]):
                    terminal.until(row % (name, r"\[[#.]+\]"), "a line for each session: " + name[:4])
                terminal.tmux("resize-window", "-x", "120", "-y", "10")
                terminal.until(r"(?m)^%s +\S+ +serving.*8 MiB$" % LONG, "it follows its window")
                for columns in ("64", "30"):
                    terminal.tmux("resize-window", "-x", columns, "-y", "12")
                    terminal.until(r"(?m)^SESSION.*\n(busy|idle-).*\n(busy|idle-).*\n\n",
                                   "a line for each, too, in %s columns" % columns)
                terminal.until("(?m)^q quit  sorted by latency", "and one for the keys")
                terminal.tmux("send-keys", "q")
                terminal.until(r"ended=0", "q quits, with success")
            finally:
                terminal.close()


def refused():
    with pagerd.Pagerd() as pager:
        answer = pager.ctl("top")
        tap.ok(answer.returncode != 0 and "needs a terminal" in answer.stderr,
               "without a terminal it says what is there instead")


if __name__ == "__main__":
    tap.needs_root()
    if not shutil.which("tmux"):
        print("1..0 # SKIP tmux is not installed: apt-get install tmux")
        sys.exit(0)
    if "ncursesw" not in subprocess.run(["ldd", pagerd.program("pagerctl")], check=True,
                                        stdout=subprocess.PIPE, text=True).stdout:
        print("1..0 # SKIP pagerctl was built without curses")
        sys.exit(0)
    tap.run(looked_at, refused)
