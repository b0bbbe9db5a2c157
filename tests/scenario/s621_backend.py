#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
# builds: plain asan
"""The backend is switched to the file: no sessions are made, those that live go on."""
import http.client
import json
import os
import signal
import socket
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
import pagerd  # noqa: E402
import tap  # noqa: E402
import vmm  # noqa: E402


def control_create(pager, image):
    """(status, text) of a creation on the socket of the version."""
    connection = http.client.HTTPConnection("unix", timeout=pagerd.DEADLINE_S)
    connection.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    connection.sock.connect(os.path.join(pager.run, "uffd", pagerd.VERSION, "control.sock"))
    try:
        connection.request("POST", "/sessions", body=json.dumps(
            {"instance_id": "c", "backing_memory_path": image, "cache_key": "k"}))
        answer = connection.getresponse()
        return answer.status, answer.read().decode()
    finally:
        connection.close()


def switched():
    with pagerd.Pagerd() as pager:
        image = pager.image(size="8M", seed=3, holes=50)
        pager.call("PUT", "/templates/t", {"image": image.path})
        tap.is_(pager.call("GET", "/health")["backend"], "uffd", "at first sessions are made")
        with pager.restore(image, "a") as guest:
            tap.is_(pager.show("a")["backend"], "uffd", "which say so")
            guest.cmd("start rand write")
            pager.call("PATCH", "/config", {"backend": "file"})
            tap.is_(pager.call("GET", "/health")["backend"], "file", "switched while it runs")
            answer = pager.request("POST", "/sessions", {"image": image.path, "id": "b"})
            tap.is_((answer.status, answer.json),
                    (200, {"backend": "file", "image": image.path, "template": None,
                           "image_bytes": os.path.getsize(image.path)}),
                    "a client is told what to map")
            with vmm.Vmm(image, file=True) as mapped:
                tap.is_(mapped.cmd("verify")["wrong"], 0, "and does")
            tap.is_([s["id"] for s in pager.call("GET", "/sessions")["sessions"]], ["a"],
                    "no session was made")
            tap.is_(pager.error_of("POST", "/sessions", {"template": "t"})[:2], (409, "state"),
                    "a template is promoted here, too")
            pager.call("POST", "/templates/t/promote")
            tap.is_(pager.call("POST", "/sessions", {"template": "t"})["template"], "t",
                    "then its image is what is told")
            tap.is_(pager.call("GET", "/templates/t")["forks"], 0, "which is no fork")
            for body, status in (({"image": "/etc/shadow"}, 403), ({"image": 1}, 400),
                                 ({"image": pager.images + "/none"}, 404)):
                tap.is_(pager.error_of("POST", "/sessions", body)[0], status,
                        "what is wrong is told: %d" % status)
            status, text = control_create(pager, image.path)
            tap.is_(status, 503, "the socket of a version says 503")
            tap.like(text, "switched to file", "and why")
            before = guest.cmd("status")["progress"]
            now = guest.wait_status(lambda now: now["progress"] > before)
            tap.is_(now["total_wrong"], 0, "the guest that was there works on")
            guest.cmd("stop")
            tap.is_(pager.complete("a")["state"], "graduated", "and graduates")
            tap.is_(guest.cmd("verify")["wrong"], 0, "right")
        pager.call("PATCH", "/config", {"backend": "uffd"})
        tap.is_(pager.create(image.path, id="d")["backend"], "uffd", "switched back")
        got = pager.error_of("PATCH", "/config", {"backend": "nbd"})
        tap.is_(got[0], 400, "another backend is refused")
        tap.like(got[2], '"nbd" is neither uffd nor file', "by name")


def by_file():
    with pagerd.Pagerd(start=False) as pager:
        config = os.path.join(pager.dir, "pagerd.conf")

        def write(backend):
            with open(config, "w", encoding="ascii") as f:
                f.write("backend = %s\n" % backend)
        write("file")
        pager.options["config"] = config
        pager.start()
        image = pager.image(size="1M")
        tap.is_(pager.create(image.path)["backend"], "file", "from the configuration file")
        write("uffd")
        mark = pager.log.mark()
        pager.process.send_signal(signal.SIGHUP)
        pager.log.wait("option backend: file -> uffd", mark)
        tap.is_(pager.create(image.path)["backend"], "uffd", "and by a reload")


def command_line():
    with pagerd.Pagerd() as pager:
        image = pager.image(size="1M")
        done = pager.ctl("config", "backend=file")
        tap.is_(done.stdout, "backend: uffd -> file\n", "pagerctl config backend=file")
        done = pager.ctl("create", image.path)
        tap.is_(done.returncode, 0, "pagerctl create")
        tap.like(done.stdout, "^backend +file: no session.*\nimage +%s\n$" % image.path,
                 "says what to map")
        tap.is_(json.loads(pager.ctl("--json", "create", image.path).stdout)["backend"], "file",
                "for programs, too")
        tap.like(pager.ctl("status").stdout, "backend +file: no sessions are made",
                 "pagerctl status says so")
        pager.ctl("config", "backend=uffd")
        tap.ok("backend" not in pager.ctl("status").stdout, "and nothing in normal times")


if __name__ == "__main__":
    tap.run(switched, by_file, command_line)
