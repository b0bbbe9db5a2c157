# SPDX-License-Identifier: Apache-2.0
"""The workers of a chaos run: who runs, at which fault point it will die, and that it has."""
import os
import re
import select
import signal

POINTS = {
    # name: the largest number of the pass at which it strikes, drawn anew for each start
    "EVENTS_AFTER_READ": 600,
    "FILL_AFTER_READ": 600,
    "FILL_AFTER_MARK": 800,
    "FILL_AFTER_IOCTL": 800,
    "POPULATE_CHOSEN": 12,
    "POPULATE_CHUNK": 12,
    "COMPLETE_DETACH": 2,
    "HANDSHAKE_READ": 3,
    "ADOPT_SESSION": 6,
    "ADOPT_WAKE": 6,
    "RECOVER_REMOVAL": 3,
    "RELEASE_SESSION": 4,
}


def known_points(top):
    """The fault points that this tree has."""
    with open(os.path.join(top, "common", "fault.def"), encoding="utf-8") as f:
        return set(re.findall(r"^FAULT\((\w+)", f.read(), re.M))


def fault_plan(rng, points, length):
    """PAGER_WORKER_FAULT: a point for every other worker, so that a session which is handed
    on does not meet death after death."""
    words = []
    for i in range(length):
        name = rng.choice(points) if points and i % 2 else None
        # Early passes matter most: the first after an adoption is a different path.
        pass_number = name and int(1 + (POINTS[name] - 1) * rng.random() ** 3)
        words.append("%s:%d!kill" % (name, pass_number) if name else "")
    return ";".join(words)


class Worker:
    def __init__(self, pid, version):
        self.pid = pid
        self.version = version
        self.pidfd = os.pidfd_open(pid)
        self.is_killed = False     # by us
        self.is_known = False      # it has started, so its environment is its own
        self.point = None

    def know(self):
        with open("/proc/%d/environ" % self.pid, "rb") as f:
            environment = f.read()
        if b"PAGER_WORKER_FAULT=" in environment:
            return  # the supervisor's: it has not been executed yet
        self.is_known = True
        match = re.search(rb"PAGER_FAULT=(\w+):", environment)
        if match:
            self.point = match.group(1).decode()

    def is_gone(self, timeout=0):
        return self.pidfd < 0 or bool(select.select([self.pidfd], [], [], timeout)[0])

    def kill(self, sig=signal.SIGKILL):
        self.is_killed = True
        if self.pidfd < 0:
            raise ProcessLookupError
        signal.pidfd_send_signal(self.pidfd, sig)

    def close(self):
        os.close(self.pidfd)
        self.pidfd = -1


class Workers:
    """Those that have been seen and are not known to be dead."""

    def __init__(self, pager):
        self.pager = pager
        self.by_pid = {}

    def rows(self):
        """Every worker process, those of trials too, as the API tells of it."""
        return [dict(row, version=version["version"])
                for version in self.pager.call("GET", "/versions")["versions"]
                for row in version["workers"]]

    def look(self):
        for row in self.rows():
            pid = row["pid"]
            try:
                if pid and pid not in self.by_pid:
                    self.by_pid[pid] = Worker(pid, row["version"])
                if pid and row["state"] != "starting" and not self.by_pid[pid].is_known:
                    self.by_pid[pid].know()
            except (ProcessLookupError, FileNotFoundError):
                pass  # it has died meanwhile

    def take_dead(self):
        dead = [w for w in self.by_pid.values() if w.is_gone()]
        for worker in dead:
            del self.by_pid[worker.pid]
            worker.close()
        return dead

    def alive(self, version=None):
        return [w for w in self.by_pid.values()
                if not w.is_gone() and version in (None, w.version)]
