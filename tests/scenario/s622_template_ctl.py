#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
# builds: plain asan
"""pagerctl template, and bringing an image into memory."""
import ctypes
import json
import os
import signal
import subprocess
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
import pagerd  # noqa: E402
import tap  # noqa: E402

MIB = 1 << 20
PAGE = 4096


def said(pager, *arguments):
    done = pager.ctl("template", *arguments)
    return done.returncode, done.stdout if done.returncode == 0 else done.stderr


def commands():
    with pagerd.Pagerd() as pager:
        image = pager.image(size="4M", seed=5)
        tap.is_(said(pager, "list"), (0, "no templates\n"), "at first there are none")
        code, text = said(pager, "add", "web", image.path, "--cache-key", "k", "--prefetch", "off",
                          "--hot-list", "/x/web.hot")
        tap.ok(code == 0 and "web is registered" in text, "add", text)
        tap.like(pager.ctl("create", "--template", "web").stderr, "is not promoted; promote it",
                 "it cannot be forked yet")
        tap.is_(said(pager, "promote", "web"), (0, "web is promoted\n"), "promote")
        done = pager.ctl("create", "--template", "web", "--id", "a")
        tap.like(done.stdout, "^id +a\n", "create --template")
        tap.like(pager.ctl("show", "a").stdout, "template +web", "show says what it is a fork of")
        tap.like(said(pager, "list")[1], r"web +promoted +1 +4 MiB +%s" % image.path, "list")
        text = said(pager, "show", "web")[1]
        for pattern in ("name +web\n", "state +promoted\n", "cache key +k\n", "prefetch +off\n",
                        "hot list +/x/web.hot\n", "forks +a\n"):
            tap.like(text, pattern, "show: %s" % pattern.strip())
        code, text = said(pager, "demote", "web")
        tap.ok(code == 6 and "1 live fork: a;" in text, "demote is refused: 6", (code, text))
        tap.is_(said(pager, "remove", "web")[0], 6, "so is remove")
        pager.ctl("close", "a")
        tap.is_(said(pager, "demote", "web"), (0, "web is demoted\n"), "demote")
        tap.is_(said(pager, "remove", "web"), (0, "web is removed\n"), "remove")
        tap.is_(said(pager, "show", "web")[0], 4, "what is not there: 4")
        relative = pager.ctl("template", "add", "r", "i", cwd=pager.images)
        tap.is_(relative.returncode, 0, "a path below the working directory")
        tap.is_(json.loads(pager.ctl("--json", "template", "list").stdout)["templates"][0]["image"],
                image.path, "is made absolute; for programs there is JSON")
        for bad in (["burn"], ["show"], ["list", "x"], ["add", "x"], ["warm"], []):
            tap.is_(pager.ctl("template", *bad).returncode, 2, "template %s: 2" % " ".join(bad))
        for bad in (["create"], ["create", "--template", "r", image.path]):
            tap.is_(pager.ctl(*bad).returncode, 2, "%s: 2" % " ".join(bad[:2]))
        done = pager.ctl("template", "add", "x", image.path, "--prefetch", "maybe")
        tap.ok(done.returncode == 1 and "on, off or sequential" in done.stderr,
               "prefetch is on, off or sequential", done)


# --- Warm --------------------------------------------------------------------------

libc = ctypes.CDLL(None, use_errno=True)
libc.mmap.restype = ctypes.c_void_p
libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int,
                      ctypes.c_long]


def resident(path):
    """Bytes of the file in the page cache, by its owner's mincore()."""
    size = os.path.getsize(path)
    with open(path, "rb") as f:
        at = libc.mmap(None, size, 1, 1, f.fileno(), 0)
    pages = (ctypes.c_ubyte * (size // PAGE))()
    if at is None or libc.mincore(ctypes.c_void_p(at), ctypes.c_size_t(size), pages) != 0:
        raise OSError(ctypes.get_errno(), "mincore")
    libc.munmap(ctypes.c_void_p(at), ctypes.c_size_t(size))
    return sum(p & 1 for p in pages) * PAGE


def drop(path):
    """Out of the page cache; a file system that keeps it there cannot be tested."""
    with open(path, "r+b") as f:
        os.fsync(f.fileno())
        os.posix_fadvise(f.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    if resident(path) > os.path.getsize(path) // 8:
        raise tap.Skip("the page cache cannot be dropped here")


def make(pager, path, size=32 * MIB):
    """Bytes everywhere but in a hole of 8 MiB."""
    with open(path, "wb") as f:
        f.write(os.urandom(MIB) * (size // MIB))
        libc.fallocate(f.fileno(), 3, ctypes.c_long(8 * MIB), ctypes.c_long(8 * MIB))
    pager.call("PUT", "/templates/w", {"image": path})


def warm():
    with pagerd.Pagerd() as pager:
        path = os.path.join(pager.images, "w")
        make(pager, path)
        has_hole = os.stat(path).st_blocks * 512 < 32 * MIB
        data = 24 * MIB if has_hole else 32 * MIB
        drop(path)
        answer = json.loads(pager.ctl("--json", "template", "warm", "w").stdout)
        tap.ok(answer["warm"] and answer["resident_after"] == answer["data_bytes"] == data,
               "what the image has is read", answer)
        tap.ok(answer["resident_before"] < data // 8, "it had not been in memory", answer)
        tap.ok(resident(path) >= data, "it is in memory now", resident(path))
        tap.ok(not has_hole or resident(path) < 32 * MIB, "a hole costs no memory", resident(path))
        done = pager.ctl("template", "warm", "w")
        tap.is_(done.returncode, 0, "for people")
        tap.like(done.stdout, r"^w is warm: %d MiB in .*, of which %d MiB had been in memory\n$"
                 % (data // MIB, data // MIB), "it says how much was there")
        tap.is_(pager.ctl("template", "warm", "none").returncode, 4, "no such template: 4")
        os.truncate(path, MIB)
        done = pager.ctl("template", "warm", "w")
        tap.ok(done.returncode == 6 and "has changed" in done.stderr, "a changed image: 6", done)
        os.unlink(path)
        done = pager.ctl("template", "warm", "w")
        tap.ok(done.returncode == 1 and "No such file" in done.stderr, "a lost one: 1", done)


def on_a_terminal():
    """The bar, and an interrupt."""
    with pagerd.Pagerd() as pager:
        path = os.path.join(pager.images, "w")
        make(pager, path, 256 * MIB)
        drop(path)
        master, slave = os.openpty()
        child = subprocess.Popen(
            [pagerd.program("pagerctl"), "--socket", pager.socket, "template", "warm", "w"],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=slave, text=True)
        os.close(slave)
        seen = b""
        try:
            while piece := os.read(master, 4096):
                if not seen:
                    child.send_signal(signal.SIGINT)
                seen += piece
        except OSError:  # its last holder has closed the terminal
            pass
        os.close(master)
        out = child.communicate(timeout=pagerd.DEADLINE_S)[0]
        tap.like(seen.decode(), r"\rw \[[#.]+\] +\d+ %", "there is a bar")
        # It may have been done before it heard of the signal.
        tap.ok((child.returncode == 130 and "interrupted" in seen.decode()) or
               (child.returncode == 0 and "is warm" in out), "it stops when it is interrupted",
               (child.returncode, out, seen))


def as_somebody():
    if os.geteuid() != 0:
        raise tap.Skip("takes root, to be somebody else")
    with pagerd.Pagerd() as pager:
        path = os.path.join(pager.images, "w")
        make(pager, path, 4 * MIB)
        os.chmod(pager.socket, 0o666)
        for mode, code in ((0o644, 0), (0o600, 1)):
            os.chmod(path, mode)
            done = pager.ctl("template", "warm", "w", user=12345, group=12345, extra_groups=[])
            tap.is_(done.returncode, code, "another user, mode %o: %d" % (mode, code))
        tap.like(done.stderr, "you may not read .*; run this as a user who may", "says so")


if __name__ == "__main__":
    tap.run(commands, warm, on_a_terminal, as_somebody)
