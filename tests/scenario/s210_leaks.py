#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
# builds: plain asan
"""A thousand sessions come and go: descriptors, threads, mappings and memory return."""
import json
import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
import handshake  # noqa: E402
import pagerd  # noqa: E402
import tap  # noqa: E402

SESSIONS = 1000
WARM_UP = 100
SIZE = 16 * 4096
GROWTH_KIB = 2048


class Client:
    """One connection for all requests: what is measured is sessions, not connections."""

    def __init__(self, pager):
        self.connection = pager.connect()

    def call(self, method, path, body=None):
        data = None if body is None else json.dumps(body)
        self.connection.request(method, path, body=data)
        answer = self.connection.getresponse()
        return answer.status, json.loads(answer.read())


def one(client, image, i):
    """A session and its end, of five kinds in turn."""
    kind = i % 5
    if kind == 3 and i % 50 != 3:  # a completion waits until nobody else wants the processor
        kind = 2
    status, session = client.call("POST", "/sessions", {"image": image.path})
    path = "/sessions/" + session["id"]
    assert status == 201, session
    if kind == 0:  # nobody comes
        return client.call("POST", path + "/close")[1]["outcome"] == "closed"
    with handshake.Memory(SIZE) as memory:
        with memory.dial(session["socket_path"]) as connection:
            if kind == 1:  # nonsense
                handshake.send(connection, b"[7]", [memory.uffd, memory.uffd])
                return client.call("GET", path + "?wait=serving")[0] == 409
            handshake.send(connection, json.dumps(memory.regions()).encode(), [memory.uffd])
            if client.call("GET", path + "?wait=serving")[0] != 200:
                return False
            if kind == 2:  # faults
                memory.read()
            if kind == 3:  # graduation
                return client.call("POST", path + "/complete")[1]["outcome"] == "graduated"
            return client.call("POST", path + "/close")[1]["outcome"] == "closed"


def measure(pager, pid):
    status = pagerd.status_of(pid)
    with open("/proc/%d/maps" % pid, encoding="utf-8") as f:
        # A sanitizer maps memory as it likes; files and memfds are ours.
        mappings = len([line for line in f if not sanitized() or line.split()[4] != "0"])
    return {"threads": int(status["Threads"]), "mappings": mappings,
            "private_kib": int(status["RssAnon"].split()[0])}


def settle(pager, worker):
    """The last threads of the last sessions are ending."""
    pager.until(lambda: pagerd.status_of(worker)["Threads"] == "1")


def forget(pager):
    """The outcomes of what has ended."""
    pager.call("PATCH", "/config", {"tombstone-life": "0"})
    pager.until(lambda: pager.call("GET", "/sessions") == {"sessions": []})
    pager.call("PATCH", "/config", {"tombstone-life": "10m"})


def failed(pager, client, image, number):
    """Those of so many sessions that did not go as they should."""
    found = []
    for i in range(number):
        if not one(client, image, i):
            found.append(i)
        if i % WARM_UP == WARM_UP - 1:
            forget(pager)
    return found


def come_and_go():
    with pagerd.Pagerd(log_level="warning") as pager:
        image = pager.image(size=SIZE)
        client = Client(pager)
        tap.is_(failed(pager, client, image, WARM_UP), [], "%d to warm up" % WARM_UP)
        worker = pager.worker_pid()
        pids = {"supervisor": pager.process.pid, "worker": worker}
        settle(pager, worker)
        fds = {"supervisor": pager.fds(), "worker": pager.worker_fds(worker)}
        before = {name: measure(pager, pid) for name, pid in pids.items()}
        tap.is_(failed(pager, client, image, SESSIONS), [], "%d sessions" % SESSIONS)
        settle(pager, worker)
        for name, pid in pids.items():
            pager.ok_fds(pid, fds[name], "the %s's descriptors are as before" % name)
            after = measure(pager, pid)
            tap.is_(after["threads"], before[name]["threads"], "its threads")
            tap.ok(after["mappings"] <= before[name]["mappings"] + 8, "its mappings",
                   "%s %s" % (before[name], after))
            grown = after["private_kib"] - before[name]["private_kib"]
            tap.ok(grown < GROWTH_KIB or sanitized(), "its memory has grown by %d KiB" % grown)
        tap.is_(pager.call("GET", "/sessions"), {"sessions": []}, "no session is remembered")
        tap.is_(os.listdir(os.path.join(pager.run, "sessions")), [], "no socket is left")
        tap.is_(pager.worker_pid(), worker, "it was one worker all along")


def sanitized():
    """A sanitizer keeps freed memory for a while."""
    return bool(pagerd.sanitizers())


def idle_memory():
    """What one session costs that nobody touches."""
    with pagerd.Pagerd(log_level="warning") as pager:
        image = pager.image(size=SIZE)
        client = Client(pager)
        pager.create(image.path, id="first")
        worker = pager.worker_pid()
        before = [measure(pager, pid)["private_kib"] for pid in (pager.process.pid, worker)]
        number = 200
        memories = []
        for i in range(number):
            session = client.call("POST", "/sessions", {"image": image.path, "id": "s%d" % i})[1]
            memory = handshake.Memory(SIZE)
            memories.append((memory, memory.connect(session["socket_path"])))
        for i in range(number):
            assert client.call("GET", "/sessions/s%d?wait=serving" % i)[0] == 200
        after = [measure(pager, pid)["private_kib"] for pid in (pager.process.pid, worker)]
        for name, a, b in zip(("supervisor", "worker"), before, after):
            tap.ok(b - a < 128 * number or sanitized(), "%d idle sessions cost the %s %d KiB"
                   % (number, name, b - a))
        health = pager.call("GET", "/health")
        tap.is_((health["sessions"], health["workers"]), (number + 1, 1), "all in one worker")
        for memory, connection in memories:
            connection.close()
            memory.close()


if __name__ == "__main__":
    tap.needs_root()
    tap.run(come_and_go, idle_memory)
