#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
# builds: plain asan tsan
"""GET and POST /sessions/{id}/pages: what they say, in which form, and to whom not."""
import json
import os
import select
import signal
import sys
import tempfile

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
import hugepages  # noqa: E402
import pagerd  # noqa: E402
import pages  # noqa: E402
import stage  # noqa: E402
import tap  # noqa: E402

PAGES = "/sessions/a/pages"


def untracked():
    """A VMM that has not registered for write protection: what is present is not known better."""
    with pagerd.Pagerd() as pager:
        image = pager.image(size="8M", seed=61, holes=100)
        with pager.restore(image, "a", regions=2) as guest:
            first = pages.ask(pager, "a")
            tap.is_((first["tracking"], first["picture"], first["since"]), ("none", None, 0),
                    "writes are not tracked")
            tap.is_([r["runs"] for r in first["regions"]], [[["absent", 1024]]] * 2,
                    "nothing was touched: one run for each region")
            guest.cmd("touch rand count=300 seed=1")
            guest.cmd("write rand count=200 seed=2")
            guest.cmd("discard 100 50")
            guest.cmd("discard 2000 48")
            pager.until(lambda: pages.ask(pager, "a")["pages"]["removed"] == 98)
            picture = pages.ask(pager, "a")
            shown = pager.show("a")["pages"]
            tap.is_({k: picture["pages"][k] for k in ("absent", "present", "removed", "total")},
                    {k: shown[k] for k in ("absent", "present", "removed", "total")},
                    "the same counts as the session's")
            tap.is_(picture.of("removed"), set(range(100, 150)) | set(range(2000, 2048)),
                    "the removed ones are those")
            snapshot = pages.Snapshot(image)
            snapshot.apply(picture, guest)
            tap.is_(snapshot.differs(guest), [], "a snapshot of all that is present is right")
            tap.is_(pager.error_of("POST", PAGES)[:2], (409, "untracked"), "no new picture")
            tap.is_(guest.cmd("verify")["wrong"], 0, "right")


def no_events(flag):
    """Features of the VMM's choice with which nothing can be known of writes."""
    with pagerd.Pagerd() as pager:
        image = pager.image(size="4M", seed=62)
        with pager.restore(image, "a", track=1, uffd_flags=flag) as guest:
            guest.cmd("touch rand count=300")
            guest.cmd("write rand count=100")
            picture = pages.ask(pager, "a")
            tap.is_(picture["tracking"], "none", "protected, but with %s: not tracked" % flag)
            snapshot = pages.Snapshot(image)
            snapshot.apply(picture, guest)
            tap.is_(snapshot.differs(guest), [], "a snapshot of all that is present is right")
            tap.is_(pager.error_of("POST", PAGES)[:2], (409, "untracked"), "no new picture")
            tap.is_(guest.cmd("verify")["wrong"], 0, "right")


def huge():
    with hugepages.Reserved(10), pagerd.Pagerd() as pager:
        image = pager.image(size="16M", seed=63, holes=300)
        with pager.restore(image, "a", hugepages="2M", track=1, engine="threads") as guest:
            guest.cmd("touch seq count=2048")
            guest.cmd("write seq count=600")
            picture = pages.ask(pager, "a", new=True)
            tap.is_([tuple(run) for run in picture["regions"][0]["runs"]],
                    [("dirty", 2), ("clean", 2), ("absent", 4)], "huge pages")
            guest.cmd("write seq count=10")
            guest.cmd("discard 1024 512")
            second = pages.ask(pager, "a", new=True, since=picture["picture"])
            tap.is_([tuple(run) for run in second["regions"][0]["runs"]],
                    [("dirty", 1), ("clean", 1), ("removed", 1), ("clean", 1), ("absent", 4)],
                    "since then")
            tap.is_(guest.cmd("verify")["wrong"], 0, "right")


def forms():
    """Bitmaps say the same as runs; HEAD says nothing; pagerctl says all of it."""
    with pagerd.Pagerd() as pager:
        image = pager.image(size="9M", seed=64, holes=100)
        with pager.restore(image, "a", track=1, regions=2) as guest:
            guest.cmd("touch rand count=700 seed=1")
            guest.cmd("write rand count=300 seed=2")
            guest.cmd("discard rand count=200 seed=3")
            picture = pages.ask(pager, "a")
            head, regions = pages.ask_raw(pager, "a")
            tap.is_(head, {"flags": pages.KNOWS_WRITES, "picture": 0, "since": 0}, "bitmaps")
            page_of = {name: {r["offset"] // 4096 + n for r in regions for n in r[name]}
                       for name in ("present", "dirty", "empty")}
            tap.is_(page_of["present"], picture.of("clean", "dirty"), "present ones")
            tap.is_(page_of["dirty"], picture.of("dirty"), "dirty ones")
            tap.is_(page_of["empty"], picture.of("removed"), "empty ones")
            tap.is_([(r["host_addr"], r["size"]) for r in regions],
                    [(r["host_addr"], r["size"]) for r in picture["regions"]], "regions")
            answer = pager.request("HEAD", PAGES)
            tap.is_((answer.status, answer.text), (200, ""), "HEAD has no body")
            ctl_forms(pager, picture)


def ctl_forms(pager, picture):
    done = pager.ctl("--json", "pages", "a")
    tap.is_(json.loads(done.stdout), picture.json, "pagerctl --json")
    done = pager.ctl("pages", "a", "--dirty")
    tap.like(done.stdout, r"(?m)^ +0x[0-9a-f]+ +0x7[0-9a-f]+ +1 +4 KiB +dirty$", "pagerctl --dirty")
    tap.ok("clean" in done.stdout and not [
        line for line in done.stdout.splitlines() if line.endswith("  clean")],
        "shows no clean run, but how many there are", done.stdout[-400:])
    with tempfile.TemporaryDirectory() as directory:
        path = os.path.join(directory, "bits")
        done = pager.ctl("pages", "a", "--raw", path)
        tap.is_((done.returncode, done.stdout), (0, ""), "pagerctl --raw")
        with open(path, "rb") as f:
            tap.is_(f.read(8), pages.MAGIC, "writes the bitmaps")
        done = pager.ctl("pages", "b", "--raw", path + "2")
        tap.ok(done.returncode == 4 and not os.path.exists(path + "2"), "nothing of nobody", done)
    done = pager.ctl("pages", "a", "--new")
    tap.like(done.stdout, "this is picture 1; --since 1 tells", "pagerctl --new")
    done = pager.ctl("--json", "pages", "a", "--since", "1")
    tap.is_(json.loads(done.stdout)["pages"]["dirty"], 0, "pagerctl --since")


def refusals():
    with pagerd.Pagerd() as pager:
        image = pager.image(size="2M", seed=65)
        tap.is_(pager.error_of("GET", "/sessions/none/pages")[:2], (404, "not-found"), "nobody")
        pager.create(image.path, id="b")
        tap.is_(pager.error_of("GET", "/sessions/b/pages")[:2], (409, "state"), "no VMM yet")
        with pager.restore(image, "a", track=1) as guest:
            for query in ("format=xml", "format=", "since=x", "since=-1", "since=", "new=1",
                          "since=1&since=1", "format=raw%00"):
                tap.is_(pager.error_of("GET", PAGES + "?" + query)[:2], (400, "bad-request"), query)
            tap.is_(pager.error_of("GET", PAGES + "?since=1")[:2], (409, "stale"), "no such picture")
            tap.is_(pages.ask(pager, "a", since=0)["since"], 0, "since the image")
            tap.is_(pager.error_of("POST", PAGES, {"x": 1})[:2], (400, "bad-request"), "a member")
            tap.is_(pager.error_of("PUT", PAGES)[:2], (405, "method"), "PUT")
            tap.is_(guest.cmd("verify")["wrong"], 0, "right")
        pager.wait("a", "closed")
        tap.is_(pager.error_of("GET", PAGES)[:2], (409, "ended"), "ended")


def without_worker():
    """A worker that does not answer, and one that goes away meanwhile."""
    with pagerd.Pagerd(heartbeat_interval="60s") as pager:
        image = pager.image(size="2M", seed=66)
        with pager.restore(image, "a", track=1) as guest:
            guest.cmd("write rand count=100")
            before = pager.fds()
            pid = pager.worker_pid()
            os.kill(pid, signal.SIGSTOP)
            pager.until(lambda: pagerd.is_stopped(pid))
            asked = [ask_on_its_own(pager, "POST"), ask_on_its_own(pager, "GET")]
            # The loop hears them in an order of its own.
            second = select.select(asked, [], [], pagerd.DEADLINE_S)[0]
            tap.is_(len(second), 1, "one asks, another is answered at once")
            tap.like(second[0].recv(4096).decode(), "^HTTP/1.1 409 (?s:.*)\"busy\"",
                     "and told to come again")
            asked.remove(second[0])
            tap.is_(pager.call("GET", "/health")["status"], "ok", "pagerd waits for nobody")
            os.kill(pid, signal.SIGKILL)
            tap.like(asked[0].recv(4096).decode(), "^HTTP/1.1 503 (?s:.*)ask again",
                     "its worker dies: no picture")
            asked[0].close()
            second[0].close()
            pager.log.wait("adopted by worker")
            pager.wait("a", "serving")
            tap.is_(pages.ask(pager, "a", new=True)["pages"]["dirty"], 100, "asked again")
            hang_up_early(pager)
            pager.ok_fds(pager.process.pid, before, "no descriptor is left behind")
            tap.is_(guest.cmd("verify")["wrong"], 0, "right")


def ask_on_its_own(pager, method):
    """A connection whose request pagerd has got."""
    connection = pager.raw()
    connection.sendall(b"%s %s HTTP/1.1\r\nHost: x\r\n\r\n" % (method.encode(), PAGES.encode()))
    for _ in range(3):
        pager.turn()
    return connection


def hang_up_early(pager):
    """Before the answer, which comes to nobody."""
    pid = pager.worker_pid()
    os.kill(pid, signal.SIGSTOP)
    ask_on_its_own(pager, "GET").close()
    for _ in range(3):
        pager.turn()
    asked = ask_on_its_own(pager, "GET")
    os.kill(pid, signal.SIGCONT)
    asked.recv(4096)  # a picture, or that the worker is still busy with the other one
    asked.close()
    pager.until(lambda: pager.error_of("GET", PAGES)[0] == 200)
    tap.ok(True, "who hangs up is forgotten")


def slow_reader():
    """An answer of megabytes that nobody reads costs nobody else anything."""
    with stage.Stage() as on:
        pager = on.pager
        image = pager.image("big", in_memory=True, size="512M", seed=67, holes=1000)
        with pager.restore(image, "a", engine="threads",
                           members={"cluster_max_bytes": 4096}) as guest:
            guest.cmd("touch stride:2 count=65536 noverify")
            connection = ask_on_its_own(pager, "GET")
            tap.ok(connection.recv(4096).startswith(b"HTTP/1.1 200 OK"), "an answer begins")
            picture = pages.ask(pager, "a")
            tap.is_((picture["pages"]["present"], len(picture.runs)), (65536, 131072),
                    "another gets all of it meanwhile")
            tap.ok(on.is_neighbour_fine(), "and the neighbour works")
            rest = b""
            while piece := connection.recv(1 << 20):
                rest += piece
                if rest.endswith(b"0\r\n\r\n"):
                    break
            tap.ok(rest.rstrip().endswith(b"}\n\r\n0") and len(rest) > 1 << 20,
                   "the slow one gets it in the end, too", rest[-80:])
            connection.close()
        pager.wait("a", "closed")
        on.as_before()


def large():
    """16 GiB: four million pages."""
    with pagerd.Pagerd() as pager:
        image = pager.image("large", in_memory=True, size="16G", seed=68, holes=1000)
        with pager.restore(image, "a", engine="threads", track=1) as guest:
            guest.cmd("write rand count=2000")
            picture = pages.ask(pager, "a", new=True)
            tap.is_((picture["pages"]["total"], picture["pages"]["dirty"]), (1 << 22, 2000),
                    "four million pages, 2000 written")
            guest.cmd("write rand count=10")
            tap.is_(pages.ask(pager, "a", since=1)["pages"]["dirty"], 10, "10 since")


if __name__ == "__main__":
    tap.needs_root()
    tap.run(untracked, lambda: no_events("no-remove"), lambda: no_events("wp-async"), huge, forms, refusals, without_worker, slow_reader, large)
