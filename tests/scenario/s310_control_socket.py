#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
# builds: plain asan
"""The control socket of a version, by a client that knows its wire form and nothing else;
and each way in which other pagers of that API are known to fail."""
import http.client
import json
import os
import signal
import socket
import stat
import sys
import urllib.parse

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
import handshake  # noqa: E402
import pagerd  # noqa: E402
import tap  # noqa: E402
import vmm  # noqa: E402

MIB = 1 << 20
# A completion that is stopped in its second chunk, with the whole worker, until SIGCONT.
PAUSE = "POPULATE_CHUNK:2!pause"
FAKE = "0.0.9"
STATS = """active_sessions cache_bytes cache_max cache_items cache_hits cache_misses cache_shards
cache_lookup_nanos cache_lookup_max_nanos cache_add_nanos cache_add_max_nanos faults
backing_bytes_read copies copy_errors active_faults max_concurrent_faults fault_nanos
fault_max_nanos read_page_nanos read_page_max_nanos backing_read_nanos backing_read_max_nanos
copy_nanos copy_max_nanos""".split()


class Connection(http.client.HTTPConnection):
    def __init__(self, path, timeout):
        super().__init__("unix", timeout=timeout)
        self.path = path

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self.path)


class Answer:
    def __init__(self, answer):
        self.status = answer.status
        self.type = (answer.getheader("Content-Type") or "").partition(";")[0]
        self.allow = answer.getheader("Allow")
        self.text = answer.read().decode()

    @property
    def json(self):
        return json.loads(self.text)


class Client:
    """One version's API."""

    def __init__(self, path):
        self.path = path

    def call(self, method, target, body=None, timeout=pagerd.DEADLINE_S):
        connection = Connection(self.path, timeout)
        try:
            data = body if body is None or isinstance(body, bytes) else json.dumps(body)
            connection.request(method, target, body=data)
            return Answer(connection.getresponse())
        finally:
            connection.close()

    def health(self):
        return self.call("GET", "/health").json

    def stats(self):
        return self.call("GET", "/stats").json

    def create(self, path, session_id=None, instance_id="vm", cache_key="key", **more):
        body = dict(more, instance_id=instance_id, backing_memory_path=path, cache_key=cache_key)
        if session_id is not None:
            body["session_id"] = session_id
        return self.call("POST", "/sessions", body)

    @staticmethod
    def of(session_id, what):
        return "/sessions/%s/%s" % (urllib.parse.quote(session_id, safe=""), what)

    def close(self, session_id):
        return self.call("POST", self.of(session_id, "close"))

    def complete(self, session_id, query=""):
        return self.call("POST", self.of(session_id, "complete") + query, timeout=None)

    def drain(self):
        return self.call("POST", "/drain")


def client_of(pager, version=pagerd.VERSION):
    return Client(os.path.join(pager.run, "uffd", version, "control.sock"))


def restore(pager, client, image, session_id, **options):
    made = client.create(image.path, session_id)
    guest = vmm.Vmm(image, socket=made.json["uffd_socket_path"], **options)
    pager.wait(session_id, "serving")
    return guest


def is_error(answer, status, what):
    """An error is a status and a line of plain text."""
    tap.ok((answer.status, answer.type) == (status, "text/plain") and
           answer.text.endswith("\n") and not answer.text.startswith("{"), what,
           (answer.status, answer.type, answer.text))


def refused(path):
    """Whether nobody listens."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as s:
        try:
            s.connect(path)
        except (FileNotFoundError, ConnectionRefusedError):
            return True
    return False


def routes():
    with pagerd.Pagerd() as pager:
        client = client_of(pager)
        mode = os.stat(client.path)
        tap.is_((stat.S_ISSOCK(mode.st_mode), oct(stat.S_IMODE(mode.st_mode))), (True, "0o660"),
                "an installed version has its socket from the start")
        tap.is_(client.health(), {"version": pagerd.VERSION, "draining": False,
                                  "active_sessions": 0}, "GET /health")
        stats = client.stats()
        tap.is_(set(stats), set(STATS) | {"version", "draining"}, "GET /stats has every field")
        tap.ok(all(type(stats[name]) is int for name in STATS), "which are whole numbers")
        image = pager.image(size="16M", seed=3)
        made = client.create(image.path, "web/1 a", "inst", extra={"unknown": ["member"]})
        tap.is_((made.status, made.type), (200, "application/json"), "POST /sessions")
        tap.is_(made.json, {"session_id": "web/1 a", "pager_version": pagerd.VERSION,
                            "uffd_socket_path": os.path.join(pager.run, "sessions", "web-1-a.sock")},
                "what it answers; the socket's name is safe")
        tap.is_(client.create(image.path, instance_id="inst2").json["session_id"], "inst2",
                "session_id defaults to instance_id")
        tap.is_(client.create(image.path, "  ", "inst3").json["session_id"], "inst3",
                "also when it is blank")
        with vmm.Vmm(image, socket=made.json["uffd_socket_path"]) as guest:
            pager.wait("web/1 a", "serving")
            guest.cmd("touch rand count=500")
            stats, health = client.stats(), client.health()
            tap.ok(0 < stats["faults"] <= 500 and stats["copies"] > 0 and
                   stats["backing_bytes_read"] > 0 and stats["fault_nanos"] > 0,
                   "work is counted", stats)
            tap.is_((health["active_sessions"], stats["active_sessions"]), (3, 3),
                    "so are sessions")
            done = client.complete("web/1 a")
            tap.is_((done.status, done.text), (204, ""), "POST …/complete")
            tap.is_(guest.cmd("verify")["wrong"], 0, "the VM has all its memory")
        for session_id, what in (("inst2", "POST …/close"), ("inst2", "again"), ("never", "of nothing")):
            closed = client.close(session_id)
            tap.is_((closed.status, closed.text), (204, ""), what)
        client.close("inst3")
        tap.is_(client.health()["active_sessions"], 0, "no session is left")
        tap.is_(client.drain().status, 204, "POST /drain")


def errors():
    with pagerd.Pagerd() as pager:
        client = client_of(pager)
        image = pager.image(size="1M")
        good = {"session_id": "s", "instance_id": "i", "backing_memory_path": image.path,
                "cache_key": "k"}
        for change, what in (({"backing_memory_path": None}, "no path"),
                             ({"backing_memory_path": " "}, "a blank path"),
                             ({"cache_key": None}, "no key"), ({"cache_key": ""}, "an empty key"),
                             ({"cache_key": "\t"}, "a blank key"),
                             ({"session_id": None, "instance_id": None}, "no id"),
                             ({"session_id": "", "instance_id": " "}, "blank ids"),
                             ({"session_id": 7}, "an id that is no string"),
                             ({"session_id": "x" * 128}, "an id that is too long"),
                             ({"overlays": {}}, "overlays that are no list"),
                             ({"backing_memory_path": image.path + "x"}, "no such image")):
            body = {k: v for k, v in dict(good, **change).items() if v is not None}
            is_error(client.call("POST", "/sessions", body), 400, "400: " + what)
        is_error(client.call("POST", "/sessions", b"{"), 400, "400: no JSON")
        is_error(client.call("POST", "/sessions", b" " * (MIB + 1)), 413, "413: above 1 MiB")
        tap.is_(client.call("POST", "/sessions", dict(good, pad="x" * (MIB - 300))).status, 200,
                "a body of almost 1 MiB")
        is_error(client.create(image.path, "s"), 409, "409: a live id")
        is_error(client.create(image.path, "o", overlays=[{"guest_memory_offset": 0, "path": "/x"}]),
                 403, "403: an overlay below no image root")
        tap.is_(client.create(image.path, "o", overlays=[]).status, 200, "but for none of them")
        is_error(client.complete("never"), 404, "404: completing what never was")
        is_error(client.complete("s"), 409, "409: completing what waits for its VMM")
        is_error(client.complete("s", "?timeout=soon"), 400, "400: a deadline that is none")
        is_error(client.call("GET", "/metrics"), 404, "404: no such route")
        wrong = client.call("GET", "/sessions")
        is_error(wrong, 405, "405: not for GET")
        tap.is_(wrong.allow, "POST", "which names what it is for")
        raw = pager.raw()
        raw.close()
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as raw:
            raw.settimeout(pagerd.DEADLINE_S)
            raw.connect(client.path)
            raw.sendall(b"nonsense\r\n\r\n")
            answer = b"".join(iter(lambda: raw.recv(65536), b""))
            tap.ok(answer.startswith(b"HTTP/1.1 400 ") and b"text/plain" in answer and
                   b"{" not in answer, "400: what is no HTTP", answer)
        client.close("s")
        is_error(client.complete("s"), 409, "409: completing what was closed")
        tap.is_(client.create(image.path, "s").status, 200, "whose id is free again")


def draining():
    with pagerd.Pagerd() as pager:
        client = client_of(pager)
        image = pager.image(size="16M", seed=5)
        with restore(pager, client, image, "a") as guest:
            pid = pager.worker_pid()
            tap.is_(client.drain().status, 204, "a drain is answered at once")
            tap.is_(client.health(), {"version": pagerd.VERSION, "draining": True,
                                      "active_sessions": 1}, "and shows")
            tap.ok(client.stats()["draining"] is True, "in the counters too")
            is_error(client.create(image.path, "b"), 503, "503: no new session")
            tap.is_(guest.cmd("touch rand count=100")["wrong"], 0, "the old one is served")
            tap.is_(client.drain().status, 204, "once more")
            tap.is_(client.complete("a").status, 204, "its last session leaves")
            tap.ok(pagerd.wait_gone(pid), "then its worker exits")
            pager.log.wait("STOPPING -> GONE on EXITED")
            tap.is_(client.complete("a").status, 204, "what it has done is still known")
            tap.is_(client.health()["draining"], False,
                    "the current version keeps its socket for the next worker")
            tap.is_(guest.cmd("verify")["wrong"], 0, "the VM has all its memory")


def versions():
    with pagerd.Pagerd(start=False) as pager:
        pager.install_fake(FAKE, "")
        pager.start()
        image = pager.image(size="1M")
        old, new = client_of(pager, FAKE), client_of(pager)
        tap.is_((old.health()["version"], new.health()["version"]), (FAKE, pagerd.VERSION),
                "each installed version has a socket")
        tap.is_(pager.worker_pids(), [], "and no worker yet")
        made = old.create(image.path, "a").json
        tap.is_(made["pager_version"], FAKE, "a session goes to the version that was asked")
        tap.is_(pager.show("a")["version"], FAKE, "though it is not the current one")
        tap.is_(new.create(image.path, "b").json["pager_version"], pagerd.VERSION,
                "and another to the other")
        is_error(new.create(image.path, "a"), 409, "an id is one, whatever the version")
        tap.is_((old.health()["active_sessions"], new.health()["active_sessions"]), (1, 1),
                "each counts its own")
        tap.is_(new.close("a").status, 204, "but finds any")
        tap.is_(pager.show("a")["state"], "closed", "so that nobody takes it for unknown")
        pid = pager.worker_pid(FAKE)
        old.drain()
        tap.ok(pagerd.wait_gone(pid), "drained: the old one exits")
        pager.log.wait("control v%s: removed" % FAKE)
        tap.ok(refused(old.path) and not os.path.exists(os.path.dirname(old.path)),
               "and its socket goes with it")
        tap.is_(pager.call("POST", "/upgrade", {"version": FAKE})["previous"], pagerd.VERSION,
                "an upgrade to it")
        tap.is_(old.health(), {"version": FAKE, "draining": False, "active_sessions": 0},
                "brings its socket back")
        tap.is_(new.health()["draining"], True, "while the other one drains")
        is_error(new.create(image.path, "c"), 503, "503: it takes no more")
        new.close("b")
        pager.log.wait("control v%s: removed" % pagerd.VERSION)
        tap.is_(old.create(image.path, "c").status, 200, "and this one does")
        pager.stop()
        tap.is_(os.listdir(os.path.join(pager.run, "uffd")), [], "nothing is left of a pagerd")


def installed_later():
    with pagerd.Pagerd() as pager:
        pager.install_fake(FAKE, "")
        later = client_of(pager, FAKE)
        tap.ok(refused(later.path), "a version that is installed later")
        pager.process.send_signal(signal.SIGHUP)
        pager.log.wait("control v%s: listening" % FAKE)
        tap.is_(later.health()["version"], FAKE, "has its socket after a reload")
        os.unlink(os.path.join(pager.workers, FAKE, "pager-worker"))
        pager.process.send_signal(signal.SIGHUP)
        pager.log.wait("control v%s: removed" % FAKE)
        tap.ok(refused(later.path), "and none when it is removed again")


def after_a_crash():
    with pagerd.Pagerd() as pager:
        client = client_of(pager)
        stale = os.path.join(pager.run, "uffd", "0.0.1")
        os.mkdir(stale)
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as s:
            s.bind(os.path.join(stale, "control.sock"))
        pager.stop(signal.SIGKILL)
        tap.ok(os.path.exists(client.path) and refused(client.path), "what a crash leaves behind")
        pager.start()
        tap.is_(client.health()["version"], pagerd.VERSION, "is replaced by the next pagerd")
        tap.ok(not os.path.exists(stale), "or removed")


class Paused:
    """A completion that stands still in the middle of a chunk."""

    def __init__(self, pager, client, query=""):
        self.image = pager.image(size="256M", seed=5, holes=50)
        self.guest = restore(pager, client, self.image, "a")
        self.worker = pager.worker_pid()
        self.call = pagerd.Pending(client.complete, "a", query)
        pager.until(lambda: pagerd.is_stopped(self.worker), "the worker never paused")

    def go_on(self):
        os.kill(self.worker, signal.SIGCONT)


def the_outcome_is_decided_once():
    """Success must not be reported as failure because the teardown was faster."""
    with pagerd.Pagerd() as pager:
        client = client_of(pager)
        image = pager.image(size="16M", seed=5)
        for i in range(10):
            with restore(pager, client, image, "s%d" % i) as guest:
                calls = [pagerd.Pending(client.complete, "s%d" % i) for _ in range(4)]
                statuses = sorted(call.end().status for call in calls)
                if statuses[0] != 204 or set(statuses) - {204, 409}:
                    tap.ok(False, "four at once", statuses)
                if client.complete("s%d" % i).status != 204 or guest.cmd("verify")["wrong"]:
                    tap.ok(False, "it has graduated")
        tap.ok(True, "four completions at once, ten times: each 204 or 409, then 204 for ever")
        pid = pager.worker_pid()
        os.kill(pid, signal.SIGKILL)
        pager.log.wait("killed by SIGKILL")
        tap.is_(client.complete("s3").status, 204, "also when its worker is gone")


def a_deadline_and_a_hang_up_abort():
    with pagerd.Pagerd(worker_fault=PAUSE) as pager:
        client = client_of(pager)
        paused = Paused(pager, client, "?timeout=2s")
        with paused.guest as guest:
            is_error(client.complete("a"), 409, "409: one runs already")
            # Begun later, so over later.
            pager.error_of("GET", "/sessions/a?wait=graduated&timeout=2100ms")
            paused.go_on()
            is_error(paused.call.end(), 504, "504: the caller's deadline passed")
            tap.is_(pager.show("a")["state"], "serving", "and it is served")
            with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as raw:
                raw.connect(client.path)
                raw.sendall(b"POST /sessions/a/complete HTTP/1.1\r\nHost: x\r\n\r\n")
                mark = pager.log.mark()
                pager.log.wait("id=a: SERVING -> COMPLETING", 0)
            line = pager.log.wait("id=a: COMPLETING -> (SERVING|GRADUATED)", mark)
            tap.like(line, "SERVING on STAYED", "a caller who hangs up aborts it")
            tap.is_(guest.cmd("touch rand count=2000")["wrong"], 0, "the guest is served")
            tap.is_(client.complete("a").status, 204, "and can be completed")
            tap.is_(guest.cmd("verify")["wrong"], 0, "every page is right")


def a_failure_means_still_served():
    with pagerd.Pagerd() as pager:
        client = client_of(pager)
        image = pager.image(size="16M", seed=5)
        with restore(pager, client, image, "a"):
            os.truncate(image.path, 8 * MIB)
            failed = client.complete("a")
            is_error(failed, 500, "500: the image cannot be read")
            tap.is_(pager.show("a")["state"], "serving", "and it is served")
            tap.is_(client.health()["active_sessions"], 1, "which is counted")


def completion_while_faults_wait_for_a_removal():
    """Fills are put off while a removal is pending: the sweep must not wait for quiet."""
    with pagerd.Pagerd() as pager:
        client = client_of(pager)
        image = pager.image(size="64M", seed=7, holes=100)
        with restore(pager, client, image, "a", vcpus=2) as guest:
            guest.cmd("start rand write")
            call = pagerd.Pending(client.complete, "a")
            rounds = 0
            while call.is_alive():
                guest.cmd("discard rand count=50 seed=%d" % rounds)
                rounds += 1
            tap.is_((call.end().status, rounds > 0), (204, True),
                    "a completion against a guest that faults and discards without end")
            tap.is_(guest.cmd("stop")["wrong"], 0, "which read nothing wrong")
            tap.is_(guest.cmd("verify")["wrong"], 0, "and has every page")


def graduated_is_not_unknown():
    """404 is taken for "detached": it must mean that nobody knows, and nothing else."""
    with pagerd.Pagerd() as pager:
        client = client_of(pager)
        image = pager.image(size="1M")
        with restore(pager, client, image, "a"), restore(pager, client, image, "b") as other:
            tap.is_([client.complete("a").status for _ in range(3)], [204] * 3,
                    "one that has graduated is always 204")
            tap.is_(client.complete("c").status, 404, "one that never was is 404")
            other.kill()
            pager.wait("b", "closed")
            is_error(client.complete("b"), 409, "one that ended otherwise is neither")
            tap.is_((client.close("a").status, client.complete("a").status), (204, 204),
                    "closing it takes nothing back")


def a_fault_during_the_sweep_is_answered():
    with pagerd.Pagerd() as pager:
        client = client_of(pager)
        image = pager.image(in_memory=True, size="1G", seed=7)
        with restore(pager, client, image, "a") as guest:
            call = pagerd.Pending(client.complete, "a")
            pager.log.wait("id=a: SERVING -> COMPLETING")
            answered = 0
            while call.is_alive():
                guest.cmd("touch rand count=20 seed=%d" % answered)
                if pager.show("a")["state"] == "completing":
                    answered += 1
            tap.is_(call.end().status, 204, "a completion of 1 GiB")
            tap.ok(answered > 0, "answers the guest's faults meanwhile", answered)
            tap.is_(guest.cmd("verify")["wrong"], 0, "every page is right")


def a_discard_during_the_sweep_is_kept():
    with pagerd.Pagerd(worker_fault=PAUSE) as pager:
        client = client_of(pager)
        paused = Paused(pager, client)
        with paused.guest as guest:
            guest.send("discard 0 30000")
            guest.wait_status(lambda status: status["discarding"])
            paused.go_on()
            tap.is_((paused.call.end().status, guest.answer()["discarded"]), (204, 30000),
                    "a completion with a discard in its middle")
            tap.is_(guest.cmd("verify")["wrong"], 0,
                    "what was discarded reads as zeros, not as the image")


def present_pages_are_not_read_again():
    with pagerd.Pagerd() as pager:
        client = client_of(pager)
        image = pager.image(size="16M", seed=2)
        with restore(pager, client, image, "a") as guest:
            guest.cmd("touch seq count=3072")
            read = client.stats()["backing_bytes_read"]
            tap.ok(read >= 12 * MIB, "three quarters are there", read)
            tap.is_(client.complete("a").status, 204, "a completion")
            tap.is_(client.stats()["backing_bytes_read"], 16 * MIB, "reads the rest and no more")
            tap.is_(guest.cmd("verify")["wrong"], 0, "every page is right")


def nobody_is_leaked():
    with pagerd.Pagerd() as pager:
        client = client_of(pager)
        image = pager.image(size="1M")
        client.create(image.path, "warm")
        client.close("warm")
        before, worker = pager.fds(), pager.worker_fds(pager.worker_pid())
        guest = restore(pager, client, image, "a")
        guest.kill()
        tap.is_(pager.wait("a", "closed")["outcome"], "vmm-exited", "a VMM that exits is seen")
        pager.call("PATCH", "/config", {"handshake-timeout": "1s"})
        path = client.create(image.path, "b").json["uffd_socket_path"]
        tap.is_(pager.wait("b", "closed")["outcome"], "timed-out", "one that never comes times out")
        tap.ok(not os.path.exists(path), "and its socket is removed")
        tap.is_(client.health()["active_sessions"], 0, "no session is left")
        pager.ok_fds(pager.process.pid, before, "nor a descriptor in the supervisor")
        pager.ok_fds(pager.worker_pid(), worker, "nor in the worker")
        tap.is_(client.create(image.path, "a").status, 200, "the ids are free")


def a_session_has_a_health_of_its_own():
    with pagerd.Pagerd() as pager:
        client = client_of(pager)
        image = pager.image(size="1M")
        path = client.create(image.path, "a").json["uffd_socket_path"]
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as s:
            s.connect(path)
            handshake.send(s, b"[]", [])
            s.shutdown(socket.SHUT_WR)
            now = pager.wait("a", "closed")
        tap.is_((client.call("GET", "/health").status, now["outcome"]), (200, "refused"),
                "the pager is well, and this session is not")
        tap.ok(now["reason"], "and says why", now["reason"])


def all_is_possible_during_a_completion():
    with pagerd.Pagerd(worker_fault=PAUSE) as pager:
        client = client_of(pager)
        paused = Paused(pager, client)
        with paused.guest:
            tap.is_((client.health()["active_sessions"], client.stats()["active_sessions"]), (1, 1),
                    "health and counters")
            tap.is_(pager.show("a")["state"], "completing", "status")
            is_error(client.complete("a"), 409, "409: a second completion")
            is_error(client.create(paused.image.path, "a"), 409, "409: a second session of its id")
            closing = pagerd.Pending(client.close, "a")
            pager.log.wait("id=a: COMPLETING -> CLOSING on CLOSE")
            paused.go_on()
            tap.is_(closing.end().status, 204, "a close ends it")
            is_error(paused.call.end(), 409, "409: whose caller is told")


def the_default_key_is_the_image():
    with pagerd.Pagerd() as pager:
        one, two = pager.image(size="1M"), pager.image("copy", size="1M")
        keys = [pager.create(path, id=name)["cache_key"]
                for name, path in (("a", one.path), ("b", one.path), ("c", two.path))]
        tap.ok(keys[0] == keys[1] != keys[2], "forks of one image share it, others do not", keys)
        client = client_of(pager)
        client.create(one.path, "d", cache_key="mine")
        tap.is_(pager.show("d")["cache_key"], "mine", "a key that is given is taken")


def who_gives_up_leaves_nothing():
    """Their clients give up after 10 s and try again with the same id."""
    with pagerd.Pagerd(start=False) as pager:
        pager.install_fake(FAKE, "mute=open")
        pager.start()
        client = client_of(pager, FAKE)
        image = pager.image(size="1M")
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as raw:
            raw.connect(client.path)
            body = json.dumps({"instance_id": "a", "backing_memory_path": image.path,
                               "cache_key": "k"}).encode()
            raw.sendall(b"POST /sessions HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%s"
                        % (len(body), body))
            pager.log.wait("id=a: CREATED for")
        pager.log.wait("id=a: CREATED -> CLOSING on CLOSE: its client left before it was told")
        ended = pager.wait("a", "closed")
        tap.is_(ended["outcome"], "closed", "a create whose client has left is undone")


if __name__ == "__main__":
    tap.needs_root()
    tap.run(routes, errors, draining, versions, installed_later, after_a_crash,
            the_outcome_is_decided_once, a_deadline_and_a_hang_up_abort,
            a_failure_means_still_served, completion_while_faults_wait_for_a_removal,
            graduated_is_not_unknown, a_fault_during_the_sweep_is_answered,
            a_discard_during_the_sweep_is_kept, present_pages_are_not_read_again,
            nobody_is_leaked, a_session_has_a_health_of_its_own,
            all_is_possible_during_a_completion, the_default_key_is_the_image,
            who_gives_up_leaves_nothing)
