# SPDX-License-Identifier: Apache-2.0
"""What GET /sessions/{id}/pages says, page by page, and what a snapshotter makes of it.

    picture = pages.ask(pager, "a", new=True)
    picture.state(7)                    # "dirty"
    snapshot = pages.Snapshot(image)
    snapshot.apply(picture, guest)
    snapshot.differs(guest)             # pages that are not as the guest has them"""
import ctypes
import struct

PAGE = 4096
MAGIC = b"PAGEMAP1"
KNOWS_WRITES, IS_NEW = 1, 2


class Picture:
    """runs: (image offset, guest address, bytes, page size, state), in order of the regions."""

    def __init__(self, json):
        self.json = json
        self.runs = []
        for region in json["regions"]:
            at, size = 0, region["page_size"]
            for state, count in region["runs"]:
                self.runs.append((region["offset"] + at, region["host_addr"] + at, count * size,
                                  size, state))
                at += count * size
            assert at == region["size"], region

    def __getitem__(self, name):
        return self.json[name]

    def of(self, *states):
        """Numbers of the 4 KiB pages of the image that are in one of these states."""
        return {page for offset, _, count, _, state in self.runs if state in states
                for page in range(offset // PAGE, (offset + count) // PAGE)}

    def state(self, page):
        return next(state for offset, _, count, _, state in self.runs
                    if offset <= page * PAGE < offset + count)


def ask(pager, session_id, new=False, since=None):
    query = "" if since is None else "?since=%d" % since
    return Picture(pager.call("POST" if new else "GET", pager.path(session_id, "/pages" + query)))


def ask_raw(pager, session_id):
    """The bitmaps, as (header, [region with its three sets of page numbers in it])."""
    connection = pager.connect()
    try:
        connection.request("GET", pager.path(session_id, "/pages?format=raw"))
        answer = connection.getresponse()
        data = answer.read()
        assert answer.status == 200, data
    finally:
        connection.close()
    magic, flags, count, picture, since, total = struct.unpack_from("<8sIIQQQ", data)
    assert magic == MAGIC and total == len(data), (magic, total, len(data))
    regions = []
    for i in range(count):
        names = "host_addr", "size", "offset", "page_size", "pages", "bitmap_at", "bitmap_bytes"
        region = dict(zip(names, struct.unpack_from("<7Q", data, 64 + 64 * i)))
        for b, name in enumerate(("present", "dirty", "empty")):
            start = region["bitmap_at"] + b * region["bitmap_bytes"]
            bits = int.from_bytes(data[start:start + region["bitmap_bytes"]], "little")
            region[name] = {n for n in range(region["pages"]) if bits >> n & 1}
            assert bits >> region["pages"] == 0, "bits behind the last page"
        regions.append(region)
    return {"flags": flags, "picture": picture, "since": since}, regions


class Iovec(ctypes.Structure):
    _fields_ = [("base", ctypes.c_void_p), ("len", ctypes.c_size_t)]


def memory(guest, addr, count):
    """Bytes of a guest.  What is absent is fetched from the pager, which /proc/PID/mem does not
    wait for."""
    libc = ctypes.CDLL(None, use_errno=True)
    buffer = ctypes.create_string_buffer(count)
    done = 0
    while done < count:
        part = min(count - done, 1 << 20)
        local = Iovec(ctypes.addressof(buffer) + done, part)
        remote = Iovec(addr + done, part)
        got = libc.process_vm_readv(guest.pid, ctypes.byref(local), 1, ctypes.byref(remote), 1, 0)
        if got <= 0:
            raise OSError(ctypes.get_errno(), "guest memory at %#x" % (addr + done))
        done += got
    return buffer.raw


class Snapshot:
    """Guest memory as it is put together: dirty pages from the guest, removed ones empty, all
    others as they were in the snapshot before, the first of which is the image."""

    def __init__(self, image):
        with open(image.path, "rb") as f:
            self.bytes = bytearray(f.read())
        self.picture = None

    def apply(self, picture, guest):
        self.picture = picture
        for offset, addr, count, _, state in picture.runs:
            if state in ("dirty", "present"):
                self.bytes[offset:offset + count] = memory(guest, addr, count)
            elif state == "removed":
                self.bytes[offset:offset + count] = bytes(count)

    def differs(self, guest):
        """Numbers of the pages that differ from what a guest that stands still has."""
        found = []
        for offset, addr, count, _, _ in self.picture.runs:
            data = memory(guest, addr, count)
            if data == self.bytes[offset:offset + count]:
                continue
            found += [(offset + at) // PAGE for at in range(0, count, PAGE)
                      if data[at:at + PAGE] != self.bytes[offset + at:offset + at + PAGE]]
        return found
