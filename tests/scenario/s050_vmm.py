#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
# builds: plain asan tsan
"""The test VMM by itself: what it calls right is right, and it sees what is wrong."""
import array
import ctypes
import fcntl
import json
import mmap
import os
import re
import select
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
import hugepages  # noqa: E402  pylint: disable=wrong-import-position
import vmm  # noqa: E402  pylint: disable=wrong-import-position

PAGE = 4096
UFFDIO_COPY = 0xc028aa03
points = failures = 0


def ok(held, what, detail=None):
    global points, failures
    points += 1
    failures += not held
    print("%s %d - %s" % ("ok" if held else "not ok", points, what))
    if not held and detail is not None:
        print("#   %s" % (detail,))


def clean(answer, **expected):
    return answer["wrong"] == 0 and all(answer[k] == v for k, v in expected.items())


def mkimage_cases(directory):
    path = os.path.join(directory, "made")
    argv = [vmm.program("mkimage"), "--seed", "1", "--size", "64M", "--holes", "900", path]
    ok(subprocess.run(argv, check=False).returncode == 0, "mkimage makes a file")
    before = os.stat(path)
    ok(before.st_size == 64 << 20 and before.st_blocks * 512 < 16 << 20, "with real holes")
    again = subprocess.run(argv, check=False, stderr=subprocess.PIPE)
    ok(again.returncode == 1 and b"--force" in again.stderr, "refuses to replace it")
    ok(os.stat(path).st_mtime_ns == before.st_mtime_ns, "and left it alone")
    with open(path, "rb"):  # its inode cannot be used again
        ok(subprocess.run(argv + ["--force"], check=False).returncode == 0, "unless forced")
        ok(os.stat(path).st_ino != before.st_ino, "by a new file")
    bad = subprocess.run(argv[:3] + ["--size", "5000", path + "2"], check=False,
                         stderr=subprocess.PIPE)
    ok(bad.returncode == 2 and not os.path.exists(path + "2"), "half a page is no size")


def right_cases(engine, image):
    """Nothing is wrong: touches, own writes, discards, both at once."""
    with vmm.Vmm(image, private_pager=True, engine=engine, regions=2, vcpus=4) as g:
        pages = g.ready["pages"]
        ok(g.ready["engine"] == engine and g.ready["regions"] == 2, "%s is ready" % engine)
        ok(g.cmd("rss")["resident_pages"] == 0, "no page is there before it is touched")
        ok(clean(g.cmd("touch rand count=300 each"), touched=1200), "the same pages by each vCPU")
        ok(clean(g.cmd("touch stride:7 noverify"), touched=(pages + 6) // 7), "strided")
        a = g.cmd("touch rand")
        ok(clean(a, touched=pages, samples=pages), "every page at random")
        ok(0 < a["p50_us"] <= a["p99_us"] <= a["max_us"] <= a["wall_us"], "times make sense")
        ok(g.cmd("rss")["resident_pages"] == pages, "now every page is there")
        ok(clean(g.cmd("write rand count=500"), written=500), "write")
        ok(clean(g.cmd("verify"), pages=pages, raced=0), "own writes are kept")
        ok(g.cmd("discard %d 300" % (pages // 2 - 150))["discarded"] == 300,
           "discard over the border of the regions")
        ok(g.cmd("discard rand count=400 seed=5")["calls"] == 400, "discard single pages")
        ok(clean(g.cmd("write rand count=100 seed=5"), written=100), "write over discarded ones")
        ok(clean(g.cmd("verify"), pages=pages), "discarded pages read as zeros")
        g.cmd("start rand write")
        g.cmd("pulse")
        discarded = sum(g.cmd("discard rand count=500 seed=%d" % s)["discarded"] for s in range(4))
        a = g.cmd("stop")
        ok(discarded > 0 and a["loops"] > 0, "discards beside running vCPUs")
        ok(a["wrong"] == 0, "none of them read a wrong word")
        ok(clean(g.cmd("verify"), pages=pages), "nor afterwards")
        ok(g.cmd("status")["total_wrong"] == 0, "none in all")
        ok(g.quit() == 0, "quit")


def size_cases(engine, directory):
    one = vmm.Image(os.path.join(directory, "one"), seed=3, size=PAGE)
    with vmm.Vmm(one, private_pager=True, engine=engine) as g:
        ok(clean(g.cmd("touch rand"), touched=1), "%s: one page" % engine)
        g.cmd("write seq")
        ok(clean(g.cmd("verify"), pages=1), "written")
        g.cmd("discard 0 1")
        ok(clean(g.cmd("verify"), pages=1), "discarded")
    big = vmm.Image(os.path.join(directory, "big"), seed=3, size="5G", holes=995)
    for regions in (1, 2):
        with vmm.Vmm(big, private_pager=True, engine=engine, regions=regions) as g:
            ok(clean(g.cmd("touch stride:1024"), touched=1280), "5 GiB, regions=%d" % regions)
            g.cmd("write rand count=200 seed=8")
            g.cmd("discard %d 32" % (3 * 2**30 // PAGE - 16))
            g.cmd("discard %d 32" % (2**32 // PAGE - 16))
            ok(clean(g.cmd("touch rand count=400 seed=8"), touched=400), "writes far apart")
            ok(g.cmd("rss")["resident_pages"] < 3000, "and the rest is untouched")


def wrong_cases(engine, image, directory):
    """It must see what is wrong, and say where."""
    path = os.path.join(directory, "bad")
    shutil.copyfile(image.path, path)
    bad = vmm.Image.__new__(vmm.Image)
    bad.path, bad.options = path, image.options
    with open(path, "r+b") as f:
        at = next(n for n in range(100, 10000) if os.pread(f.fileno(), PAGE, n * PAGE).strip(b"\0"))
        f.seek(at * PAGE + 1603)
        byte = f.read(1)[0]
        f.seek(at * PAGE + 1603)
        f.write(bytes([byte ^ 0x10]))
    with vmm.Vmm(bad, private_pager=True, engine=engine, vcpus=2) as g:
        ok(g.cmd("touch rand")["wrong"] == 1, "%s: one wrong byte is seen" % engine)
        ok(re.search(r"page=%d word=200 expected=0x\w+ found=0x\w+" % at, g.stderr()) is not None,
           "and named")
        ok(g.cmd("write rand")["wrong"] == 1, "a write looks at what it replaces")
        ok(g.cmd("verify")["wrong"] == 0, "and mends it")
    # A pager that never learns of removals brings the image's bytes back.
    with vmm.Vmm(image, private_pager=True, engine=engine, uffd_flags="no-remove") as g:
        g.cmd("touch seq")
        g.cmd("write seq count=64")
        g.cmd("discard 0 64")
        ok(g.cmd("verify")["wrong"] > 512, "image bytes in discarded pages are seen")
    # The bound on the lines.
    other = vmm.Image.__new__(vmm.Image)
    other.path, other.options = image.path, ["--seed", "99"] + image.options[2:]
    with vmm.Vmm(other, private_pager=True, engine=engine, vcpus=8) as g:
        for _ in range(2):
            ok(g.cmd("verify")["wrong"] > 512 * 1000, "another seed is wrong everywhere")
        ok(g.stderr().count("wrong word") == 64, "which fills 64 lines and no more")


def stuck_cases(engine, image):
    """A pager that stands still: commands are answered, quit ends it."""
    with vmm.Vmm(image, private_pager=True, engine=engine, vcpus=3) as g:
        os.kill(g.ready["pager_pid"], signal.SIGSTOP)
        g.send("touch rand count=1000")
        status = g.wait_status(lambda s: s["blocked"] == 3)
        ok(status["state"] == "touch" and status["progress"] == 0, "%s: status says it" % engine)
        ok("rss_kib" in g.cmd("rss"), "rss is answered")
        g.send("verify")  # held back
        os.kill(g.ready["pager_pid"], signal.SIGCONT)
        ok(clean(g.answer(), touched=1000, cmd="touch"), "it goes on where it was")
        ok(clean(g.answer(), cmd="verify"), "and then with the next command")
        g.send("discard rand count=1")
        ok(g.answer()["discarded"] == 1, "a discard that is heard")
        os.kill(g.ready["pager_pid"], signal.SIGSTOP)
        g.send("discard rand count=1")
        ok(g.wait_status(lambda s: s["discarding"])["state"] == "idle", "a discard that is not")
        ok(g.quit() == 0, "quit does not wait for either")


def paced_cases(engine, image):
    """A guest that rests between its visits, and what it tells while it runs."""
    with vmm.Vmm(image, private_pager=True, engine=engine, vcpus=2) as g:
        g.cmd("start rand write period=500 burst=3 stalls=3600000000")
        ok(g.cmd("pulse")["progress"] >= 4, "%s: each vCPU has visited two pages" % engine)
        ok(g.cmd("stalls")["stalls"] == "-", "none of them took an hour")
        g.cmd("stop")
        g.cmd("start rand write period=500 burst=3 stalls=50000")
        g.cmd("pulse")
        os.kill(g.ready["pager_pid"], signal.SIGSTOP)
        g.wait_status(lambda s: s["blocked"] == 2)
        g.cmd("lap")
        before = time.monotonic()
        g.send("pulse")
        ok(not select.select([g.process.stdout], [], [], 0.1)[0], "a stuck guest has no pulse")
        waited = time.monotonic() - before
        os.kill(g.ready["pager_pid"], signal.SIGCONT)
        ok(g.answer()["cmd"] == "pulse", "until it goes on")
        stalls = [s.split(":") for s in str(g.cmd("stalls")["stalls"]).split(",")]
        # A busy machine may hold a guest up at other times too: those are not counted.
        held = [s for s in stalls if int(s[1]) > waited * 1e6 and
                before * 1e6 < int(s[0]) < time.monotonic() * 1e6 and
                int(s[0]) - int(s[1]) < before * 1e6]
        ok(len(held) == 2, "a stall of each vCPU, as long as it was, when it was", stalls)
        lap = g.cmd("lap")
        ok(lap["max_us"] > waited * 1e6 and lap["samples"] >= 2, "a lap holds the stall", lap)
        ok(g.cmd("discard rand count=8 touch")["touch_max_us"] > 0, "discarded and touched")
        ok(g.cmd("stop")["wrong"] == 0 and g.cmd("verify")["wrong"] == 0, "and all is right")


def mode_cases(engine, image):
    with vmm.Vmm(image, file=True, engine=engine, vcpus=2, regions=2) as g:
        ok(clean(g.cmd("touch rand")), "%s: the image mapped" % engine)
        g.cmd("write rand count=100")
        g.cmd("discard rand count=100 seed=2")
        ok(clean(g.cmd("verify")), "keeps writes and discards")
    with vmm.Vmm(image, anon=True, engine=engine) as g:
        ok(clean(g.cmd("touch rand")), "plain zero memory")
    with vmm.Vmm(image, private_pager=True, engine=engine, bare_populate="256K") as g:
        ok(g.ready["populate_us"] > 0, "populated in large chunks")
        ok(g.cmd("rss")["resident_pages"] == g.ready["pages"], "whole")
        ok(clean(g.cmd("verify")), "and right")


def hugepage_cases(engine, image):
    if hugepages.free() < 16:
        ok(True, "%s: huge pages # SKIP fewer than 16 are free" % engine)
        return
    with vmm.Vmm(image, private_pager=True, engine=engine, hugepages="2M", vcpus=2) as g:
        ok(clean(g.cmd("touch rand")), "%s: huge pages" % engine)
        g.cmd("write rand count=100")
        ok(g.cmd("discard rand count=2048")["calls"] == 4, "discarded whole")
        ok(clean(g.cmd("verify")), "and right")


def kvm_fault_case(image):
    """KVM reads guest memory in kernel mode; a descriptor for user mode cannot serve it."""
    with vmm.Vmm(image, private_pager=True, engine="kvm", uffd_flags="user-mode") as g:
        try:
            g.cmd("touch rand")
            ok(False, "a vCPU that fails is an error")
        except vmm.VmmError as error:
            ok("vcpu 0: Bad address" in str(error), "a vCPU that fails is an error")


def serve(uffd, regions, path, stop):
    """A pager in a few lines, to see that the descriptor works where it was sent."""
    with open(path, "rb") as f:
        image = mmap.mmap(f.fileno(), 0, prot=mmap.PROT_READ | mmap.PROT_WRITE,
                          flags=mmap.MAP_PRIVATE)
    source = ctypes.addressof(ctypes.c_char.from_buffer(image))
    poller = select.poll()
    poller.register(uffd, select.POLLIN)
    poller.register(stop, select.POLLIN)
    while not any(fd == stop for fd, _ in poller.poll()):
        try:
            message = os.read(uffd, 32)
        except BlockingIOError:
            continue
        if message[0] != 0x12:
            continue
        addr = struct.unpack_from("Q", message, 16)[0] & ~(PAGE - 1)
        for r in regions:
            offset = addr - r["base_host_virt_addr"]
            if 0 <= offset < r["size"]:
                fcntl.ioctl(uffd, UFFDIO_COPY, struct.pack(
                    "QQQQq", addr, source + r["offset"] + offset, PAGE, 0, 0))


def handshake_case(form, keys, image, directory):
    path = os.path.join(directory, form)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        listener.bind(path)
        listener.listen(1)
        with vmm.Vmm(image, socket=path, wait=False, regions=2, handshake=form) as g:
            conn, _ = listener.accept()
            size = 1 if form == "split1" else 65536
            data, ancillary, _, _ = conn.recvmsg(size, 64)
            fds = array.array("i")
            for level, kind, payload in ancillary:
                if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
                    fds.frombytes(payload)
            while True:
                try:
                    body = json.loads(data)
                    break
                except ValueError:
                    data += conn.recv(size)
            ok(len(fds) == 1, "%s: one descriptor" % form)
            ok(b" " not in data and b"\n" not in data, "compact")
            regions = body["mappings"] if form == "wrapped" else body
            ok([list(r) for r in regions] == [keys] * 2, "its fields in order")
            ok(all(r["base_host_virt_addr"] % 2**21 == 0 for r in regions), "2 MiB aligned")
            ok(regions[1]["offset"] == regions[0]["size"] and
               all(r.get("page_size", PAGE) == r.get("page_size_kib", PAGE) == PAGE
                   for r in regions), "offsets add up, page sizes agree")
            with open("/proc/self/fdinfo/%d" % fds[0], encoding="ascii") as f:
                info = f.read()
            ok("80000008" in info and int(re.search(r"flags:\s*(\d+)", info)[1], 8) & os.O_NONBLOCK,
               "asked for removals, non-blocking")
            stop_read, stop_write = os.pipe()
            server = threading.Thread(target=serve, args=(fds[0], regions, image.path, stop_read))
            server.start()
            g.wait_ready()
            ok(clean(g.cmd("touch rand count=50"), touched=50), "and can be served")
            conn.setblocking(False)
            try:
                rest = conn.recv(1)
            except BlockingIOError:
                rest = None
            ok(rest is None, "the connection stays open and silent")
            os.close(stop_write)
            server.join()
            for fd in (stop_read, fds[0]):
                os.close(fd)
            ok(g.quit() == 0, "quit")
        conn.setblocking(True)
        ok(conn.recv(1) == b"", "which closes it")
        conn.close()


def misuse_cases(image):
    for argv in (["--size", "4K"], ["--anon", "--seed", "1"], ["--anon", "--size", "5000"],
                 ["--anon", "--size", "4K", "--regions", "2"], ["--anon", "--size", "1M", "x"],
                 ["--anon", "--size", "1M", "--holes", "600", "--zeros", "600"]):
        done = subprocess.run([vmm.program("vmm")] + argv, check=False, stdin=subprocess.DEVNULL,
                              stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        ok(done.returncode == 2 and done.stderr and not done.stdout, "refuses %s" % " ".join(argv))
    with vmm.Vmm(image, anon=True, engine="threads") as g:
        for command in ("", "dance", "touch", "touch zigzag", "touch rand count=0", "stop",
                        "touch rand vcpu=1", "discard 99999999 1", "discard 0 0", "discard rand",
                        "write rand each"):
            try:
                g.cmd(command)
                ok(False, "refuses '%s'" % command)
            except vmm.VmmError as error:
                ok(str(error).startswith("error"), "refuses '%s'" % command)
        g.process.stdin.close()
        ok(g.process.wait(vmm.DEADLINE_S) == 0, "ends with its input")


def main():
    with tempfile.TemporaryDirectory() as directory:
        image = vmm.Image(os.path.join(directory, "image"), seed=7, size="32M", holes=150, zeros=100)
        mkimage_cases(directory)
        misuse_cases(image)
        for engine in vmm.engines():
            right_cases(engine, image)
            wrong_cases(engine, image, directory)
            size_cases(engine, directory)
            stuck_cases(engine, image)
            paced_cases(engine, image)
            mode_cases(engine, image)
            with hugepages.Lock():
                hugepage_cases(engine, image)
        if vmm.has_kvm():
            kvm_fault_case(image)
        else:
            ok(True, "kvm # SKIP /dev/kvm cannot be used")
        new = ["base_host_virt_addr", "size", "offset", "page_size", "page_size_kib"]
        for form, keys in (("new", new), ("wrapped", new), ("split1", new),
                           ("old4", new[:3] + new[4:]), ("old3", new[:3])):
            handshake_case(form, keys, image, directory)
    print("1..%d" % points)
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
