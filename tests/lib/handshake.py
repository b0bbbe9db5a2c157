# SPDX-License-Identifier: Apache-2.0
"""Guest memory without a guest: a mapping of this process, its userfaultfd, and the
handshake.  For measures of the control path and for handshakes that no VMM would send."""
import array
import ctypes
import fcntl
import json
import os
import socket
import struct

libc = ctypes.CDLL(None, use_errno=True)
libc.mmap.restype = ctypes.c_void_p
libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int,
                      ctypes.c_long]
libc.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]

PROT_READ_WRITE = 3
MAP_PRIVATE_ANON_NORESERVE = 0x4022
SYS_USERFAULTFD = 323
UFFDIO_API = 0xC018AA3F
UFFDIO_REGISTER = 0xC020AA00
UFFDIO_UNREGISTER = 0x8010AA01
UFFD_API = 0xAA
EVENT_REMOVE = 0x8
MISSING = 1
PAGE = 4096


def userfaultfd(flags=os.O_CLOEXEC | os.O_NONBLOCK, negotiate=True):
    fd = libc.syscall(SYS_USERFAULTFD, flags)
    if fd < 0:
        raise OSError(ctypes.get_errno(), "userfaultfd")
    if negotiate:
        fcntl.ioctl(fd, UFFDIO_API, struct.pack("<QQQ", UFFD_API, EVENT_REMOVE, 0))
    return fd


class Memory:
    """size bytes of registered memory and its userfaultfd."""

    def __init__(self, size, flags=os.O_CLOEXEC | os.O_NONBLOCK):
        self.size = size
        self.address = libc.mmap(None, size, PROT_READ_WRITE, MAP_PRIVATE_ANON_NORESERVE, -1, 0)
        if self.address in (None, ctypes.c_void_p(-1).value):
            raise OSError(ctypes.get_errno(), "mmap")
        self.uffd = userfaultfd(flags)
        fcntl.ioctl(self.uffd, UFFDIO_REGISTER,
                    struct.pack("<QQQQ", self.address, size, MISSING, 0))

    def regions(self):
        return [{"base_host_virt_addr": self.address, "size": self.size, "offset": 0,
                 "page_size": PAGE, "page_size_kib": PAGE}]

    @staticmethod
    def dial(path):
        s = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        s.connect(path)
        return s

    def connect(self, path):
        """Does the handshake as Firecracker does and returns the socket."""
        s = self.dial(path)
        send(s, json.dumps(self.regions()).encode(), [self.uffd])
        return s

    def read(self):
        """All of it.  Every page that is missing is a fault of this thread."""
        return ctypes.string_at(self.address, self.size)

    def page(self, n):
        """One page, read by the kernel: other threads run while it is missing.  Raises OSError
        with EFAULT where a read of ours would end us."""
        reading, writing = os.pipe()
        try:
            if libc.write(writing, ctypes.c_void_p(self.address + n * PAGE),
                          ctypes.c_size_t(PAGE)) < 0:
                raise OSError(ctypes.get_errno(), "page %d" % n)
            return os.read(reading, PAGE)
        finally:
            os.close(reading)
            os.close(writing)

    def close(self):
        if self.address is not None:
            os.close(self.uffd)
            libc.munmap(self.address, self.size)
            self.address = None

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.close()


def send(s, body, fds):
    """One message with descriptors, and after it what did not fit into the socket.  The other
    end may refuse it before it has come: what it says to the client is looked at, not this."""
    control = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
    try:
        rest = body[s.sendmsg([body], control):]
        if rest:
            s.sendall(rest)
    except (BrokenPipeError, ConnectionResetError):
        pass
