#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
# builds: plain asan
"""Overlays: a session sees them in place of parts of its image, whatever becomes of its
worker, of pagerd and of the files; and nobody else does."""
import ctypes
import http.client
import json
import os
import signal
import socket
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
import handshake  # noqa: E402
import hugepages  # noqa: E402
import pagerd  # noqa: E402
import tap  # noqa: E402
import vmm  # noqa: E402

PAGE = 4096
MIB = 1 << 20
HUGE = 2 * MIB
SIZE = 2 * MIB
MAP_HUGETLB = 0x40000
MADV_DONTNEED = 4
MAX_BYTES = 4 * MIB


def text(seed, size):
    """Bytes that are nowhere else."""
    return bytes((seed * 37 + 11 + i % 253 + i // 4096) % 255 + 1 for i in range(size))


# Offset and size: pages, a part of one, more than a page and a part, the end of the image.
PLACES = ((0, PAGE), (3 * PAGE, 1), (16 * PAGE, 5000), (64 * PAGE, 20 * PAGE), (84 * PAGE, 100),
          (SIZE - PAGE, PAGE))


class Files:
    """The overlays of PLACES, and what a session that has them must see."""

    def __init__(self, pager, image, places=PLACES, seed=1):
        with open(image.path, "rb") as f:
            self.image = f.read()
        self.rows = []
        seen = bytearray(self.image)
        for i, (offset, size) in enumerate(places):
            path = os.path.join(pager.images, "o%d.%d" % (seed, i))
            data = text(seed + i, size)
            with open(path, "wb") as f:
                f.write(data)
            seen[offset:offset + size] = data
            self.rows.append((offset, size, path))
        self.seen = bytes(seen)

    def request(self, name="offset"):
        # Not in their order: that is pagerd's business.
        return [{name: offset, "path": path} for offset, _, path in reversed(self.rows)]

    def shown(self):
        return [{"offset": o, "bytes": n, "path": p} for o, n, p in self.rows]

    def destroy(self):
        for _, size, path in self.rows:
            with open(path, "r+b") as f:
                f.write(b"\xee" * size)
            os.unlink(path)


class Guest(handshake.Memory):
    """Memory of a session."""

    def __init__(self, pager, session, size=SIZE):
        super().__init__(size)
        self.connect(session["socket_path"]).close()
        pager.wait(session["id"], "serving")

    def part(self, start, size):
        return ctypes.string_at(self.address + start, size)

    def discard(self, start, size):
        if handshake.libc.madvise(ctypes.c_void_p(self.address + start), ctypes.c_size_t(size),
                                  MADV_DONTNEED) != 0:
            raise OSError(ctypes.get_errno(), "madvise")


def same(got, wanted, what):
    """A point that does not print megabytes."""
    wrong = [p for p in range(0, len(wanted), PAGE) if got[p:p + PAGE] != wanted[p:p + PAGE]]
    return tap.ok(len(got) == len(wanted) and not wrong, what,
                  "wrong pages: %s" % [p // PAGE for p in wrong[:20]])


def make(pager, image, files, name):
    return pager.create(image.path, id=name, overlays=files.request())


# --- What a session sees -----------------------------------------------------------

def is_seen(pager, image, what):
    files = Files(pager, image)
    before = pager.fds(), pager.worker_fds(pager.worker_pid())
    session = make(pager, image, files, "a")
    tap.is_(session["overlays"], files.shown(), "%s: the session shows its overlays" % what)
    with Guest(pager, session) as guest, Guest(pager, pager.create(image.path, id="b")) as other:
        # From the middle on, so that clusters run into overlays and out of them.
        for start in (SIZE // 2, 0):
            same(guest.part(start, SIZE // 2), files.seen[start:start + SIZE // 2],
                 "%s: faults from %d on see them" % (what, start))
        same(other.read(), files.image, "%s: another session of the image does not" % what)
        counters = pager.show("a")["counters"]
        tap.ok(counters["image_bytes_read"] >= 20 * PAGE and counters["faults"] > 0,
               "%s: they count as bytes of the image" % what, counters)
        guest.discard(64 * PAGE, 4 * PAGE)
        same(guest.part(64 * PAGE, 5 * PAGE), bytes(4 * PAGE) + files.seen[68 * PAGE:69 * PAGE],
             "%s: what the guest gave back is zeros" % what)
        tap.is_(pager.complete("a")["state"], "graduated", "%s: it graduates" % what)
    with Guest(pager, make(pager, image, files, "c")) as guest:
        tap.is_(pager.complete("c")["state"], "graduated", "%s: without a fault" % what)
        same(guest.read(), files.seen, "%s: a completion puts them in place" % what)
    with open(image.path, "rb") as f:
        same(f.read(), files.image, "%s: the image is as it was" % what)
    pager.close_session("b")
    tap.is_(pager.show("c")["overlays"], files.shown(), "%s: its tombstone shows them" % what)
    pager.ok_fds(pager.process.pid, before[0], "%s: pagerd holds nothing of them" % what)
    pager.ok_fds(pager.worker_pid(), before[1], "%s: nor does the worker" % what)
    files.destroy()


def seen():
    with pagerd.Pagerd() as pager:
        first = pager.image("first", size="1M")
        with Guest(pager, pager.create(first.path, id="anchor"), MIB):
            for options, what in (({}, "on disk"), ({"in_memory": True}, "in memory")):
                image = pager.image("i", size=str(SIZE), seed=4, holes=300, **options)
                is_seen(pager, image, what)


def real_guest():
    """The guest knows what its pages must be: here the overlay has it and the image not."""
    with pagerd.Pagerd() as pager:
        image = pager.image(size="8M", seed=5, holes=100)
        path = os.path.join(pager.images, "part")
        with open(image.path, "r+b") as f:
            f.seek(MIB)
            part = f.read(MIB - 1000)
            f.seek(MIB)
            f.write(text(9, len(part)))
        with open(path, "wb") as f:
            f.write(part)
        overlays = [{"offset": MIB, "path": path}]
        for engine in vmm.engines():
            with pager.restore(image, "a", engine=engine, vcpus=2,
                               members={"overlays": overlays}) as guest:
                guest.cmd("start rand write")
                guest.cmd("pulse")
                tap.is_(pager.complete("a")["state"], "graduated", "%s: completed" % engine)
                tap.is_((guest.cmd("stop")["wrong"], guest.cmd("verify")["wrong"]), (0, 0),
                        "%s: under load and after it every page is right" % engine)
        with pager.restore(image, "without") as guest:
            tap.ok(guest.cmd("verify")["wrong"] > 0, "without the overlay its pages are wrong")


def files_do_not_matter():
    with pagerd.Pagerd() as pager:
        image = pager.image(size=str(SIZE), seed=4)
        files = Files(pager, image)
        session = make(pager, image, files, "a")
        files.destroy()
        with Guest(pager, session) as guest:
            same(guest.read(), files.seen, "files that were changed and removed after the creation")


# --- What becomes of workers and of pagerd -----------------------------------------

def kill_worker(pager, name):
    adoptions, pid = pager.show(name)["adoptions"], pager.worker_pid()
    os.kill(pid, signal.SIGKILL)
    pagerd.wait_gone(pid)
    pager.until(lambda: pager.show(name)["adoptions"] > adoptions)
    pager.wait(name, "serving")


def restart(pager):
    pager.pulse = None
    pager.stop(signal.SIGKILL)
    pager.log.thread.join(pagerd.DEADLINE_S)
    pager.process.stderr.close()
    pager.start()


def pieces(files, n):
    """n different parts of the memory, each with a bit of everything."""
    step = PAGE * n
    return [[(p, files.seen[p:p + PAGE]) for p in range(i * PAGE, SIZE, step)] for i in range(n)]


def is_piece(guest, piece, what):
    wrong = [p // PAGE for p, wanted in piece if guest.part(p, PAGE) != wanted]
    tap.ok(not wrong, what, "wrong pages: %s" % wrong[:20])


def survives():
    new, worker = pagerd.other_version()
    old = pagerd.VERSION
    with pagerd.Pagerd({old: pagerd.program("pager-worker"), new: worker}, current=old,
                       cluster_max="4K") as pager:
        image = pager.image(size=str(SIZE), seed=4, holes=200)
        files = Files(pager, image)
        waits = make(pager, image, files, "waits")
        with Guest(pager, make(pager, image, files, "a")) as guest:
            parts = pieces(files, 6)
            is_piece(guest, parts[0], "before")
            kill_worker(pager, "a")
            is_piece(guest, parts[1], "after its worker was killed")
            moved = pager.call("POST", pager.path("a", "/handoff"), {"version": new})
            tap.is_(moved["version"], new, "it is handed over")
            is_piece(guest, parts[2], "after a hand-over")
            pager.call("POST", pager.path("a", "/handoff"), {"version": old})
            shown = pager.show("a")
            restart(pager)
            for key in ("overlays", "image", "version"):
                tap.is_(pager.show("a")[key], shown[key], "after a restart: the same " + key)
            is_piece(guest, parts[3], "after a restart of pagerd")
            kill_worker(pager, "a")
            is_piece(guest, parts[4], "after both")
            tap.is_(pager.complete("a")["state"], "graduated", "it graduates")
            same(guest.read(), files.seen, "and every page is right")
        with Guest(pager, waits) as guest:
            same(guest.read(), files.seen, "one that waited for its VMM all the while is right")


def record_is_damaged():
    """Without its record a session is kept, and with its overlays."""
    with pagerd.Pagerd(cluster_max="4K") as pager:
        image = pager.image(size=str(SIZE), seed=4)
        files = Files(pager, image)
        with Guest(pager, make(pager, image, files, "a")) as guest:
            parts = pieces(files, 2)
            is_piece(guest, parts[0], "before")
            state = os.path.join(pager.run, "state")
            for name in [n for n in os.listdir(state) if n.endswith(".json")]:
                with open(os.path.join(state, name), "w", encoding="ascii") as f:
                    f.write("{")
            restart(pager)
            found = pager.call("GET", "/sessions")["sessions"]
            tap.is_([[o["bytes"] for o in s["overlays"]] for s in found],
                    [[n for _, n, _ in files.rows]], "a session without a record has overlays")
            kill_worker(pager, found[0]["id"])
            is_piece(guest, parts[1], "and its next worker knows them")


# --- Huge pages --------------------------------------------------------------------

class HugeGuest(Guest):
    def __init__(self, pager, session, size):
        self.size = size
        self.address = handshake.libc.mmap(
            None, size, handshake.PROT_READ_WRITE,
            handshake.MAP_PRIVATE_ANON_NORESERVE & ~0x4000 | MAP_HUGETLB, -1, 0)
        if self.address in (None, ctypes.c_void_p(-1).value):
            raise tap.Skip("no huge pages: %s" % os.strerror(ctypes.get_errno()))
        self.uffd = handshake.userfaultfd()
        handshake.fcntl.ioctl(self.uffd, handshake.UFFDIO_REGISTER, handshake.struct.pack(
            "<QQQQ", self.address, size, handshake.MISSING, 0))
        self.connect(session["socket_path"]).close()
        pager.wait(session["id"], "serving")

    def regions(self):
        return [dict(super().regions()[0], page_size=HUGE, page_size_kib=HUGE)]


def huge():
    size = 4 * HUGE
    places = ((HUGE - PAGE, 3 * PAGE), (2 * HUGE + 12 * PAGE, 77), (3 * HUGE, HUGE))
    with hugepages.Reserved(8), pagerd.Pagerd() as pager:
        image = pager.image(size=str(size), seed=4, holes=100)
        files = Files(pager, image, places)
        with HugeGuest(pager, make(pager, image, files, "a"), size) as guest:
            same(guest.read(), files.seen, "huge pages: faults")
        with HugeGuest(pager, make(pager, image, files, "b"), size) as guest:
            pager.complete("b")
            same(guest.read(), files.seen, "huge pages: a completion")


# --- The other socket, and bad requests --------------------------------------------

class Control:
    """The control socket of a version: its wire form is in pagerd-api(7)."""

    def __init__(self, pager):
        self.path = os.path.join(pager.run, "uffd", pagerd.VERSION, "control.sock")

    def create(self, image, name, overlays):
        connection = http.client.HTTPConnection("unix", timeout=pagerd.DEADLINE_S)
        connection.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        connection.sock.connect(self.path)
        try:
            connection.request("POST", "/sessions", body=json.dumps(
                {"session_id": name, "instance_id": name, "backing_memory_path": image,
                 "cache_key": "k", "overlays": overlays}))
            answer = connection.getresponse()
            return answer.status, answer.read().decode()
        finally:
            connection.close()


def control_socket():
    with pagerd.Pagerd() as pager:
        image = pager.image(size=str(SIZE), seed=4)
        files = Files(pager, image)
        status, body = Control(pager).create(image.path, "a", files.request("guest_memory_offset"))
        tap.is_(status, 200, "a session with overlays")
        with Guest(pager, {"id": "a", "socket_path": json.loads(body)["uffd_socket_path"]}) as guest:
            same(guest.read(), files.seen, "sees them")
        tap.is_(pager.show("a")["overlays"], files.shown(), "and the admin socket shows them")


def bad_requests(pager, image):
    """(overlays with OFFSET for the name of the offset, status of both sockets, sentence)"""
    def put(name, size):
        path = os.path.join(pager.images, name)
        with open(path, "wb") as f:
            f.truncate(size)
        return path

    page, large, empty = put("page", PAGE), put("large", MAX_BYTES), put("empty", 0)
    link, missing = os.path.join(pager.images, "link"), os.path.join(pager.images, "missing")
    os.symlink(page, link)
    size = os.path.getsize(image.path)

    def at(offset, path=page):
        return {"OFFSET": offset, "path": path}

    return (
        ([at(100)], 400, 400, "offset 100, which is no multiple of 4096"),
        ([at(size)], 400, 400, "goes beyond the image, which has %d bytes" % size),
        ([at(size - PAGE, put("two", PAGE + 1))], 400, 400, "goes beyond the image"),
        ([at(1 << 44)], 400, 400, "goes beyond the image"),
        ([at((1 << 44) + PAGE)], 400, 400, "overlay 1: .*must be from 0 to"),
        ([at(0), at(0)], 400, 400, "lies over .* at offset 0 of 4096 bytes"),
        ([at(PAGE), at(0, put("over", PAGE + 1))], 400, 400, "lies over"),
        ([at(0, large), at(MAX_BYTES)], 400, 400, "more than %d bytes together" % MAX_BYTES),
        ([at(i * PAGE) for i in range(65)], 400, 400, "65 overlays are more than 64|0 to 64 elem"),
        ([at(0, missing)], 404, 400, "overlay at offset 0: .*/missing: No such file"),
        ([at(0, empty)], 400, 400, "overlay at offset 0: .* is empty"),
        ([at(0, pager.images)], 403, 403, "is below no image root"),
        ([at(0, "/etc/shadow")], 403, 403, "overlay at offset 0: /etc/shadow is below no image"),
        ([at(0, link)], 403, 403, "leads over a symbolic link"),
        ([at(0, "page")], 400, 400, "is not absolute"),
        ([at(0, pager.images + "/../images/page")], 400, 400, "has '..' in it"),
        ([{"OFFSET": 0}], 400, 400, "overlay 1: the member \"path\" is missing"),
        ([{"path": page}], 400, 400, "overlay 1: the member \".*offset\" is missing"),
        ([at(0), dict(at(PAGE), more=1)], 400, 400, "overlay 2: there is no member \"more\""),
        ([at(-4096)], 400, 400, "must be from 0"),
        ([at("0")], 400, 400, "must be a whole number"),
        ([at(0, 7)], 400, 400, "must be a string"),
        ([7], 400, 400, "overlay 1: it must be an object"),
        ({}, 400, 400, "must be a list"))


def renamed(overlays, name):
    if isinstance(overlays, dict):
        return overlays
    return [{name if k == "OFFSET" else k: v for k, v in row.items()}
            if isinstance(row, dict) else row for row in overlays]


def refusals():
    with pagerd.Pagerd() as pager:
        image = pager.image(size="8M", seed=4)
        pager.create(image.path, id="anchor")
        before = pager.fds()
        control = Control(pager)
        for overlays, status, compat, why in bad_requests(pager, image):
            got = pager.error_of("POST", "/sessions", {
                "image": image.path, "id": "a", "overlays": renamed(overlays, "offset")})
            tap.ok(got[0] == status, "%d: %s" % (status, why), got)
            tap.like(got[2], why, "says so")
            answer = control.create(image.path, "a", renamed(overlays, "guest_memory_offset"))
            tap.ok(answer[0] == compat, "control socket: %d" % compat, answer)
            tap.like(answer[1], why, "says so")
        pager.ok_fds(pager.process.pid, before, "nothing is left of them")
        overlays = [{"offset": i * 2 * PAGE, "path": os.path.join(pager.images, "page")}
                    for i in range(64)]
        tap.is_(len(pager.create(image.path, id="a", overlays=overlays)["overlays"]), 64,
                "64 overlays")
        large = [{"offset": 4 * MIB, "path": os.path.join(pager.images, "large")}]
        tap.is_(pager.create(image.path, id="b", overlays=large)["overlays"][0]["bytes"],
                MAX_BYTES, "4 MiB of them")
        tap.is_(pager.create(image.path, id="c", overlays=[])["overlays"], [], "none of them")


def unreadable():
    """What the client itself may not read it cannot have put into a guest."""
    if os.geteuid() != 0:
        raise tap.Skip("takes root, to be somebody else")
    with pagerd.Pagerd(admin_group="0") as pager:
        image = pager.image(size="1M")
        path = os.path.join(pager.images, "secret")
        with open(path, "wb") as f:
            f.write(b"secret")
        os.chmod(path, 0o600)
        os.chmod(pager.socket, 0o666)
        code = ("import http.client,json,os,socket,sys\n"
                "os.setgroups([0]); os.setresgid(12345, 12345, 12345)\n"
                "os.setresuid(12345, 12345, 12345)\n"
                "c = http.client.HTTPConnection('x'); c.sock = socket.socket(socket.AF_UNIX)\n"
                "c.sock.connect(sys.argv[1])\n"
                "c.request('POST', '/sessions', body=sys.argv[2])\n"
                "a = c.getresponse(); print(a.status, a.read().decode())\n")
        answer = pagerd.subprocess.run(
            [sys.executable, "-c", code, pager.socket, json.dumps(
                {"image": image.path, "overlays": [{"offset": 0, "path": path}]})],
            stdout=pagerd.subprocess.PIPE, check=True, text=True).stdout
        tap.like(answer, "^403 .*overlay at offset 0: .*secret may not be read by you",
                 "a file that only others may read")


def command_line():
    with pagerd.Pagerd() as pager:
        image = pager.image(size=str(SIZE), seed=4)
        files = Files(pager, image)
        options = [x for o, _, p in files.rows for x in ("--overlay", "%d:%s" % (o, p))]
        done = pager.ctl("create", "--id", "a", *options, image.path)
        tap.is_(done.returncode, 0, "pagerctl create --overlay, again and again")
        with Guest(pager, pager.show("a")) as guest:
            same(guest.read(), files.seen, "its guest sees them")
        tap.like(pager.ctl("show", "a").stdout, r"overlays +4096 bytes at image offset 0x0 +/.*o1\.0",
                 "pagerctl show names them")
        relative = pager.ctl("create", "--overlay", "4K:o1.0", image.path, cwd=pager.images)
        tap.is_(relative.returncode, 0, "a path below the working directory, an offset of 4K")
        for bad in ("7", ":/x", "4K:", "-1:/x", "x:/y"):
            done = pager.ctl("create", "--overlay", bad, image.path)
            tap.ok(done.returncode == 2 and "is no OFFSET:PATH" in done.stderr,
                   "%s is none" % bad, done)


if __name__ == "__main__":
    tap.run(seen, real_guest, files_do_not_matter, survives, record_is_damaged, huge,
            control_socket, refusals, unreadable, command_line)
