#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
# builds: plain asan
"""Directories that are full or read-only: what cannot be written is refused and changes nothing,
what was there stays, and it works again once there is room."""
import ctypes
import errno
import os
import signal
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
import fuse  # noqa: E402
import pagerd  # noqa: E402
import tap  # noqa: E402
import vmm  # noqa: E402

PAGE = 4096
MS_RDONLY, MS_REMOUNT = 1, 32


class Small:
    """A file system of so many KiB on a directory."""

    def __init__(self, path, kib):
        fuse.needs()  # a mount namespace of our own
        self.path, self.kib = path, kib
        os.makedirs(path, exist_ok=True)
        self.mount(0)
        os.chmod(path, 0o755)

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        fuse.libc.umount2(self.path.encode(), fuse.MNT_DETACH)

    def mount(self, flags):
        fuse.check(fuse.libc.mount(b"pagerd-test", self.path.encode(), b"tmpfs",
                                   ctypes.c_ulong(flags), b"size=%dk" % self.kib))

    def read_only(self, on):
        """While nothing in it is open for writing."""
        self.mount(MS_REMOUNT | (MS_RDONLY if on else 0))

    def fill(self):
        """Leaves no room for a byte."""
        with open(os.path.join(self.path, "filler"), "wb", buffering=0) as f:
            try:
                while True:
                    f.write(bytes(PAGE))
            except OSError as error:
                if error.errno != errno.ENOSPC:
                    raise

    def free(self):
        os.unlink(os.path.join(self.path, "filler"))


def refused(pager, method, path, wanted, why, body=None):
    got = pager.error_of(method, path, body)
    tap.is_(got[:2], wanted, "%s %s: %d %s" % (method, path, *wanted))
    tap.like(got[2], why, "  says why")


def restart(pager, meanwhile=lambda: None):
    pager.pulse = None
    pager.stop(signal.SIGKILL)
    pager.log.thread.join(pagerd.DEADLINE_S)
    pager.process.stderr.close()
    meanwhile()
    pager.start()


def states(pager):
    return {t["name"]: t["state"] for t in pager.call("GET", "/templates")["templates"]}


def full_state():
    with pagerd.Pagerd(start=False) as pager, Small(pager.state, 64) as small:
        pager.start()
        image = pager.image(size="1M", seed=5)
        for name in "rpd":
            pager.call("PUT", "/templates/" + name, {"image": image.path})
        pager.call("POST", "/templates/p/promote")
        small.fill()
        why = "cannot be written in %s/templates: No space left on device" % pager.state
        full = (503, "full")
        refused(pager, "PUT", "/templates/new", full, "record of template new " + why,
                {"image": image.path})
        refused(pager, "PUT", "/templates/r", full, why + "; nothing has changed",
                {"image": image.path, "prefetch": "off"})
        refused(pager, "POST", "/templates/r/promote", full, why + "; nothing has changed")
        refused(pager, "POST", "/templates/p/demote", full, why + "; nothing has changed")
        tap.is_(states(pager), {"d": "registered", "p": "promoted", "r": "registered"},
                "nothing has changed")
        tap.is_(pager.call("GET", "/templates/r")["prefetch"], "on", "nor has a property")
        with pager.restore(image, "a") as guest:
            tap.is_(guest.cmd("verify")["wrong"], 0, "sessions are made and served")
        session = pager.call("POST", "/sessions", {"template": "p", "id": "fork"})
        tap.is_(session["template"], "p", "forks, too")
        restart(pager)
        tap.is_(states(pager), {"d": "registered", "p": "promoted", "r": "registered"},
                "a restart finds every record whole")
        tap.is_(pager.call("GET", "/templates/p")["sessions"], ["fork"], "and the fork")
        tap.is_(pager.call("DELETE", "/templates/d")["state"], "removed", "to forget takes no room")
        small.free()
        tap.is_(pager.call("POST", "/templates/r/promote")["state"], "promoted",
                "with room it goes on")
        tap.is_(sorted(os.listdir(os.path.join(pager.state, "templates"))),
                [".lock", "p.json", "r.json"], "no half of a record is left")


def read_only_state():
    with pagerd.Pagerd(start=False) as pager, Small(pager.state, 64) as small:
        pager.start()
        image = pager.image(size="1M", seed=5)
        pager.call("PUT", "/templates/t", {"image": image.path})
        pager.call("POST", "/templates/t/promote")
        fork = pager.call("POST", "/sessions", {"template": "t", "id": "fork"})
        restart(pager, lambda: small.read_only(True))
        why = "Read-only file system"
        refused(pager, "GET", "/templates", (503, "resources"),
                "there are no templates here: %s: %s" % (pager.state, why))
        refused(pager, "POST", "/sessions", (503, "resources"), why, {"template": "t"})
        tap.is_(pager.show("fork")["template"], "t", "a fork is still known")
        with vmm.Vmm(image, socket=fork["socket_path"]) as guest:
            tap.is_(guest.cmd("verify")["wrong"], 0, "and served")
            tell_and_mend(pager, small, why)


def tell_and_mend(pager, small, why):
    done = pager.ctl("doctor")
    tap.like(done.stdout, "(?m)^warn +templates +there are no templates here: .*%s" % why,
             "and pagerctl doctor says what is wrong")
    restart(pager, lambda: small.read_only(False))
    tap.is_(states(pager), {"t": "promoted"}, "once it can be written it is there again")
    refused(pager, "POST", "/templates/t/demote", (409, "busy"), "1 live fork: fork")
    done = pager.ctl("doctor")
    tap.ok("templates" not in done.stdout, "and doctor has nothing to say", done.stdout)


def damaged_record():
    with pagerd.Pagerd() as pager:
        image = pager.image(size="1M", seed=5)
        pager.call("PUT", "/templates/t", {"image": image.path})
        with open(os.path.join(pager.state, "templates", "t.json"), "w", encoding="ascii"):
            pass
        restart(pager)
        done = pager.ctl("doctor")
        tap.is_(done.returncode, 1, "a damaged record: doctor ends with 1")
        tap.like(done.stdout, "(?m)^fail +templates +1 whose record cannot be read, such as t: it "
                 "is empty", "and names it")


def full_images():
    """A recording that cannot be saved: the list that was there stays."""
    with pagerd.Pagerd(start=False) as pager, Small(pager.images, 6144) as small:
        pager.start()
        image = pager.image(size="4M", seed=5)
        path = image.path + ".hot"

        def record(count):
            with pager.restore(image, "a", members={"record": True}) as guest:
                guest.cmd("touch rand count=%d seed=3" % count)
                if count > 400:
                    small.fill()
                return pager.error_of("POST", "/sessions/a/record", {"stop": True})

        tap.is_(record(300)[0], 200, "a list is recorded")
        with open(path, "rb") as f:
            before = f.read()
        pager.wait("a", "closed")
        got = record(500)
        tap.is_(got[:2], (500, "failed"), "another finds no room")
        tap.like(got[2], "no hot list is saved to %s: .*No space left on device" % path,
                 "which is said")
        recording = pager.show("a")["recording"]
        tap.is_((recording["state"], recording["pages"]), ("failed", 500), "its session keeps it")
        small.free()
        with open(path, "rb") as f:
            tap.ok(f.read() == before, "the list that was there stays")
        tap.is_(sorted(os.listdir(pager.images)), ["i", "i.hot"], "and nothing else is left")
        pager.wait("a", "closed")
        small.read_only(True)
        got = pager.error_of("POST", "/sessions", {"image": image.path, "record": True})
        tap.is_(got[:2], (500, "failed"), "where nothing can be written none is begun")
        tap.like(got[2], "Read-only file system", "and it is said why")


if __name__ == "__main__":
    tap.needs_root()
    tap.run(full_state, read_only_state, damaged_record, full_images)
