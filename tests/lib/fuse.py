# SPDX-License-Identifier: Apache-2.0
"""A file system of one file whose storage does what a test wants: it answers, fails, or is
silent.  Speaks to /dev/fuse itself, so that it needs no library.

    fuse.needs()                        # before the first thread: takes a mount namespace
    with fuse.Image(pager, size="4M") as image:
        image.error = errno.ESTALE      # reads fail from now on
        image.pause()                   # reads get no answer
        image.pause(silent=True)        # nor do questions of how the file is
        image.hang()                    # nothing is answered: no path can be opened
        image.resume()
"""
import ctypes
import errno
import os
import struct
import threading

import tap
import vmm

CLONE_NEWNS = 0x20000
MS_NOSUID, MS_NODEV, MS_REC, MS_PRIVATE, MNT_DETACH = 2, 4, 0x4000, 1 << 18, 2
LOOKUP, FORGET, GETATTR, OPEN, READ, STATFS, RELEASE, FLUSH, INIT = 1, 2, 3, 14, 15, 17, 18, 25, 26
OPENDIR, RELEASEDIR, ACCESS, INTERRUPT, DESTROY, BATCH_FORGET = 27, 29, 34, 36, 38, 42
NO_ANSWER = (FORGET, INTERRUPT, BATCH_FORGET)
HANGING = (LOOKUP, OPEN, OPENDIR, ACCESS, STATFS)
FILE_NODE = 2
ASYNC_READ = 1  # as every library says: who waits can be killed
libc = ctypes.CDLL(None, use_errno=True)
is_ready = False


def check(result):
    if result < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def needs():
    """Skips where there is no FUSE.  What is mounted from now on goes with this process."""
    global is_ready
    if is_ready:
        return
    try:
        os.close(os.open("/dev/fuse", os.O_RDWR))
        check(libc.unshare(CLONE_NEWNS))
        check(libc.mount(None, b"/", None, MS_REC | MS_PRIVATE, None))
    except OSError as error:
        raise tap.Skip("no FUSE here: %s" % error) from None
    is_ready = True


class Image:
    """As vmm.Image, on storage of its own."""

    def __init__(self, pager, name="fused", **options):
        needs()
        self.behind = vmm.Image(os.path.join(pager.dir, name + ".behind"), **options)
        self.options = self.behind.options
        self.directory = os.path.join(pager.images, name)
        self.path = os.path.join(self.directory, "image")
        self.file = os.open(self.behind.path, os.O_RDONLY)
        self.error = 0
        self.is_bad = lambda offset, size: True  # which reads the two above are about
        self.reads = 0
        self.is_paused = self.is_silent = self.is_hung = False
        self.hanging = HANGING
        self.held = []
        self.changed = threading.Condition()
        os.mkdir(self.directory)
        self.fd = os.open("/dev/fuse", os.O_RDWR | os.O_CLOEXEC)
        data = "fd=%d,rootmode=40000,user_id=0,group_id=0,allow_other" % self.fd
        check(libc.mount(b"pagerd-test", self.directory.encode(), b"fuse", MS_NOSUID | MS_NODEV,
                         data.encode()))
        self.thread = threading.Thread(target=self._serve, daemon=True)
        self.thread.start()

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.close()

    def close(self):
        """Storage that is gone: what still waits for it, or has it open, gets an error."""
        self.resume()
        libc.umount2(self.directory.encode(), MNT_DETACH)

    def pause(self, silent=False):
        with self.changed:
            self.is_paused = True
            self.is_silent = silent

    def hang(self, closes=False):
        """closes: nor is it when a file is closed, for which even the end of a process waits."""
        with self.changed:
            self.is_paused = self.is_silent = self.is_hung = True
            self.hanging = HANGING + (FLUSH,) if closes else HANGING

    def resume(self):
        with self.changed:
            self.is_paused = False
            self.is_silent = False
            self.is_hung = False
            held, self.held = self.held, []
        for answer, arguments in held:
            answer(*arguments)

    def wait_held(self, n=1, timeout=vmm.DEADLINE_S):
        """Until n reads, or other questions, are without an answer."""
        with self.changed:
            if not self.changed.wait_for(lambda: len(self.held) >= n, timeout):
                raise TimeoutError("%d reads are held, not %d" % (len(self.held), n))

    def _answer(self, unique, error, data=b""):
        try:
            os.write(self.fd, struct.pack("<IiQ", 16 + len(data), -error, unique) + data)
        except OSError as failure:
            if failure.errno not in (errno.ENOENT, errno.ENODEV):  # interrupted, unmounted
                raise

    def _attr(self, node):
        st = os.fstat(self.file)
        mode = 0o100644 if node == FILE_NODE else 0o40755
        return struct.pack("<6Q10I", node, st.st_size if node == FILE_NODE else 0,
                           st.st_size // 512, int(st.st_atime), st.st_mtime_ns // 10**9,
                           st.st_ctime_ns // 10**9, 0, st.st_mtime_ns % 10**9,
                           st.st_ctime_ns % 10**9, mode, 1, 0, 0, 0, 4096, 0)

    def _read(self, unique, offset, size):
        if self.error and self.is_bad(offset, size):
            self._answer(unique, self.error)
        else:
            self._answer(unique, 0, os.pread(self.file, size, offset))

    def _on_read(self, unique, body):
        _, offset, size = struct.unpack_from("<QQI", body)
        with self.changed:
            self.reads += 1
            if self.is_paused and self.is_bad(offset, size):
                self.held.append((self._read, (unique, offset, size)))
                self.changed.notify_all()
                return
        self._read(unique, offset, size)

    def _tell_attr(self, unique, node):
        self._answer(unique, 0, struct.pack("<Q2I", 0, 0, 0) + self._attr(node))

    def _on_getattr(self, unique, node):
        with self.changed:
            if self.is_silent:
                self.held.append((self._tell_attr, (unique, node)))
                self.changed.notify_all()
                return
        self._tell_attr(unique, node)

    def _on(self, opcode, unique, node, body):
        with self.changed:
            if self.is_hung and opcode in self.hanging:
                self.held.append((self._on, (opcode, unique, node, body)))
                self.changed.notify_all()
                return
        if opcode == INIT:
            self._answer(unique, 0, struct.pack("<4I2H2I2HI7I", 7, 31, 65536, ASYNC_READ,
                                                64, 48, 65536, 1, 16, 0, 0, *[0] * 7))
        elif opcode == LOOKUP and body.rstrip(b"\0") == b"image":
            self._answer(unique, 0, struct.pack("<4Q2I", FILE_NODE, 0, 3600, 0, 0, 0) +
                         self._attr(FILE_NODE))
        elif opcode == LOOKUP:
            self._answer(unique, errno.ENOENT)
        elif opcode == GETATTR:
            self._on_getattr(unique, node)
        elif opcode in (OPEN, OPENDIR):
            self._answer(unique, 0, struct.pack("<QII", 0, 0, 0))
        elif opcode == READ:
            self._on_read(unique, body)
        elif opcode == STATFS:
            self._answer(unique, 0, struct.pack("<5Q4I6I", *[0] * 5, 4096, 255, 4096, 0, *[0] * 6))
        elif opcode in (RELEASE, RELEASEDIR, FLUSH, ACCESS, DESTROY):
            self._answer(unique, 0)
        elif opcode not in NO_ANSWER:
            self._answer(unique, errno.ENOSYS)

    def _serve(self):
        while True:
            try:
                request = os.read(self.fd, 65536 + 4096)
            except OSError as error:
                if error.errno in (errno.EINTR, errno.ENOENT):
                    continue
                return  # unmounted
            _, opcode, unique, node = struct.unpack_from("<IIQQ", request)
            self._on(opcode, unique, node, request[40:])
