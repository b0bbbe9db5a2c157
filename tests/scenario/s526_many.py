#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
# builds: plain
# timeout: 120
"""Hundreds of sessions lose their worker at once: the next one is told of them little by little,
over a link that holds."""
import json
import os
import resource
import signal
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
import handshake  # noqa: E402
import pagerd  # noqa: E402
import tap  # noqa: E402

# Two frames for each are more than a link may queue when all are sent in one turn.
SESSIONS = 750
PAGES = 4


def create_all(pager, image):
    connection = pager.connect()
    guests = []
    for i in range(SESSIONS):
        connection.request("POST", "/sessions", body=json.dumps({"image": image, "id": "g%d" % i}))
        session = json.loads(connection.getresponse().read())
        memory = handshake.Memory(PAGES * handshake.PAGE)
        guests.append((memory, memory.connect(session["socket_path"])))
    connection.close()
    return guests


def nr_served(pager, adoptions):
    return sum(s["state"] == "serving" and s["adoptions"] == adoptions
               for s in pager.call("GET", "/sessions")["sessions"])


def one_death():
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    with pagerd.Pagerd(log_level="info") as pager:
        path = os.path.join(pager.images, "i")
        page = b"".join(b"%4095d\n" % i for i in range(PAGES))
        with open(path, "wb") as f:
            f.write(page)
        guests = create_all(pager, path)
        pager.until(lambda: nr_served(pager, 0) == SESSIONS, "not all are served")
        tap.is_(guests[7][0].page(1), page[4096:8192], "%d sessions are served" % SESSIONS)
        before = pager.worker_pid()
        os.kill(before, signal.SIGKILL)
        pager.until(lambda: nr_served(pager, 1) == SESSIONS, "not all are adopted")
        after = pager.worker_pid()
        tap.ok(after not in (None, before), "all are adopted by one worker")
        deaths = [line for line in pager.log.lines if "-> GONE on EXITED" in line]
        tap.is_(len(deaths), 1, "which no lost link has killed")
        wrong = [i for i in range(0, SESSIONS, 50) if guests[i][0].page(2) != page[8192:12288]]
        tap.is_(wrong, [], "and which answers their faults")
        for memory, connection in guests:
            connection.close()
            memory.close()


if __name__ == "__main__":
    tap.needs_root()
    tap.run(one_death)
