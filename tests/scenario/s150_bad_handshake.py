#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
# builds: plain asan
"""Handshakes that no VMM would send: each is refused with a reason for the client, and
the neighbour's guest does not notice."""
import json
import os
import re
import socket
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
import handshake  # noqa: E402
import pagerd  # noqa: E402
import stage  # noqa: E402
import tap  # noqa: E402
import vmm  # noqa: E402

MIB = 1 << 20
PAGE = 4096


class Hand:
    """One VMM that is about to misbehave: its memory, its connection."""

    def __init__(self, on, name, **members):
        self.session = on.pager.create(on.image.path, id=name, **members)
        self.memory = handshake.Memory(MIB)
        self.region = self.memory.regions()[0]
        self.uffd = self.memory.uffd
        self.socket = self.memory.dial(self.session["socket_path"])
        self.socket.settimeout(pagerd.DEADLINE_S)

    def say(self, words, fds=()):
        """Whoever is refused early may find the connection closed while it talks."""
        if not isinstance(words, bytes):
            words = json.dumps(words, separators=(",", ":")).encode()
        try:
            handshake.send(self.socket, words, list(fds))
        except (BrokenPipeError, ConnectionResetError):
            pass

    def regions(self, *changes):
        """The right region, changed once for each dictionary."""
        return [dict(self.region, **change) for change in changes]

    def is_hung_up(self):
        try:
            return self.socket.recv(1) == b""
        except ConnectionResetError:
            return True

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.socket.close()
        self.memory.close()


def refused(on, name, act, reason):
    """act(hand) says something wrong; the client hears the reason."""
    waiter = None
    with Hand(on, name) as hand:
        waiter = pagerd.Pending(on.pager.error_of, "GET", on.pager.path(name, "?wait=serving"))
        act(hand)
        status, code, why = waiter.end()
        session = on.pager.show(name)
        held = ((status, code, session["outcome"]) == (409, "ended", "refused")
                and re.search(reason, session["reason"]) and session["reason"] in why
                and not os.path.exists(session["socket_path"]) and hand.is_hung_up())
        tap.ok(held, "%s: %s" % (name, (why or "").partition("refused: ")[2][:90]),
               "%s %s %s\n%s %s" % (status, code, why, session, reason))


def with_regions(*changes):
    return lambda hand: hand.say(hand.regions(*changes), [hand.uffd])


def with_body(body):
    return lambda hand: hand.say(body, [hand.uffd])


def framing():
    with stage.Stage() as on:
        def truncated(hand):
            hand.say(json.dumps(hand.regions({})).encode()[:-5], [hand.uffd])
            hand.socket.shutdown(socket.SHUT_WR)

        def nothing(hand):
            hand.socket.shutdown(socket.SHUT_WR)

        def oversized(hand):
            hand.say(b"[", [hand.uffd])
            for _ in range(300):
                hand.say(b" " * 4096)

        def twice(hand):
            hand.say(json.dumps(hand.regions({})).encode() * 2, [hand.uffd])

        for name, act, reason in (
                ("truncated", truncated, r"closed the connection after \d+ bytes"),
                ("silent and gone", nothing, "closed the connection after 0 bytes"),
                ("oversized", oversized, "longer than 1048576 bytes"),
                ("garbage", with_body(b"\x00\xff\xfe garbage"), "byte 0 is 0x00, not the"),
                ("HTTP", with_body(b"GET / HTTP/1.1\r\n\r\n"), "byte 0 is 0x47, not the"),
                ("two values", twice, "data after the JSON value"),
                ("trailing", with_body(b"[{}]x"), "data after the JSON value: byte 4 is 0x78"),
                ("deep", with_body(b"[" * 100), "nested deeper than 32 levels"),
                ("many values", with_body(b"[" + b"0," * 70000), "more than 65536 values"),
                ("not JSON", with_body(b"[{]}"), "not JSON"),
                ("bad UTF-8", with_body(b'["\xff"]'), "not JSON"),
                ("NUL", with_body(b"[\0]"), "not JSON"),
                ("twice the same", with_body(b'[{"size":1,"size":2}]'), "not JSON: duplicate")):
            refused(on, name, act, reason)
        tap.ok(on.is_neighbour_fine(), "the neighbour's guest works")
        on.as_before()


def descriptors():
    with stage.Stage() as on:
        def send(*fds):
            return lambda hand: hand.say(hand.regions({}), [f(hand) for f in fds])

        def in_two(hand):
            hand.say(b"[", [hand.uffd])
            hand.say(b"]", [hand.uffd])

        def uffd(hand):
            return hand.uffd

        kept = [handshake.userfaultfd(negotiate=False),
                handshake.userfaultfd(flags=os.O_CLOEXEC), os.memfd_create("m"),
                os.open("/dev/null", os.O_RDWR), os.eventfd(0), socket.socket().detach(),
                os.open("/", os.O_PATH), os.open("/dev/kvm", os.O_RDWR) if vmm.has_kvm() else -1]
        fresh, blocking = (lambda hand: kept[0]), (lambda hand: kept[1])
        no_uffd = "the descriptor is not a userfaultfd"
        for name, act, reason in [
                ("none", send(), "no descriptor came with the regions: send the userfaultfd by"),
                ("two", send(uffd, uffd), "2 descriptors; exactly 1 is wanted"),
                ("two in two messages", in_two, "2 descriptors; exactly 1 is wanted"),
                ("three", send(uffd, uffd, uffd), "3 descriptors; exactly 1 is wanted"),
                ("a hundred", send(*[uffd] * 100), "more than 3 descriptors in one message"),
                ("two hundred and fifty-three", send(*[uffd] * 253), "more than 3 descriptors"),
                ("without API", send(fresh), "the userfaultfd is not enabled: call UFFDIO_API"),
                ("blocking", send(blocking), "blocking, .*create it with O_NONBLOCK")] + [
                    ("no uffd %d" % fd, send(lambda hand, fd=fd: fd), no_uffd)
                    for fd in kept[2:] if fd >= 0]:
            refused(on, name, act, reason)
        for fd in kept:
            if fd >= 0:
                os.close(fd)
        tap.ok(on.is_neighbour_fine(), "the neighbour's guest works")
        on.as_before()


def numbers():
    """Regions that are no regions, or of no memory, or outside the image."""
    huge = {"page_size": 2 * MIB, "page_size_kib": 2 * MIB}
    cases = (
        ("empty", [], "no region: the array is empty"),
        ("zero size", [{"size": 0}], "region 0: size is 0"),
        ("zero address", [{"base_host_virt_addr": 0}], "base_host_virt_addr is 0"),
        ("negative", [{"offset": -4096}], "offset is negative: -4096"),
        ("odd address", [{"base_host_virt_addr": 4097}], "4097|0x1001 is not a multiple"),
        ("odd size", [{"size": 5000}], "size 0x1388 is not a multiple of its page size 4096"),
        ("odd offset", [{"offset": 17}], "offset 0x11 is not a multiple"),
        ("page size 8192", [{"page_size": 8192, "page_size_kib": 8192}], "neither 4096 nor 2097152"),
        ("page size 4", [{"page_size": 4, "page_size_kib": 4}], "page_size_kib is in bytes too"),
        ("page size 0", [{"page_size": 0, "page_size_kib": 0}], "page size 0 is neither"),
        ("disagreeing", [{"page_size": 2 * MIB}], "page_size 2097152 and page_size_kib 4096"),
        ("odd for its pages", [dict(huge, size=MIB)], "is not a multiple of its page size 2097152"),
        ("beyond the image", [{"size": 9 * MIB}], "image"),
        ("starts beyond it", [{"offset": 8 * MIB}], "image"),
        ("far beyond it", [{"offset": 2**62}], "image|wraps"),
        ("end of the world", [{"base_host_virt_addr": 2**63 - 4096, "size": 2**63 - 4096}],
         "wraps around|outside the address space"),
        ("around 2^64", [{"base_host_virt_addr": 2**64 - 4096, "size": 8192}], "out of range"),
        ("beyond 2^64", [{"size": 2**70}], "out of range"),
        ("same memory", [{"offset": 0}, {"offset": MIB}], "overlap in the VMM's memory"),
        ("same image", [{}, {"base_host_virt_addr": 1 << 40}], "overlap in the image"),
        ("by a page", [{"base_host_virt_addr": 1 << 40, "offset": 0},
                       {"base_host_virt_addr": (1 << 40) + MIB - PAGE, "offset": MIB}],
         "regions 0 and 1 overlap in the VMM's memory"),
        ("257", [{"base_host_virt_addr": (i + 1) << 32, "size": PAGE, "offset": i * PAGE}
                 for i in range(257)], "257 regions; at most 256 are served"),
        ("256 of them one", [{"base_host_virt_addr": 1 << 32, "size": PAGE, "offset": i * PAGE}
                             for i in range(256)], "regions 0 and 1 overlap in the VMM's memory"),
        ("10,000", [{"base_host_virt_addr": (i + 1) << 20, "size": PAGE, "offset": 0}
                    for i in range(10000)], "10000 regions; at most 256 are served"),
        ("a float", [{"size": 4096.0}], "size is not an integer"),
        ("a string", [{"size": "4096"}], "size is not an integer"),
        ("null", [{"base_host_virt_addr": None}], "base_host_virt_addr is not an integer"),
        ("true", [{"offset": True}], "offset is not an integer"),
    )
    with stage.Stage() as on:
        for name, changes, reason in cases:
            refused(on, name, with_regions(*changes), reason)
        for name, body, reason in (
                ("a number", [7], "region 0: not an object"),
                ("nested", [[{}]], "region 0: not an object"),
                ("no fields", [{}], "region 0: base_host_virt_addr is missing"),
                ("object", {}, "neither an array of regions nor"),
                ("wrapped number", {"mappings": 7}, "neither an array of regions nor")):
            refused(on, name, with_body(json.dumps(body).encode()), reason)
        tap.ok(on.is_neighbour_fine(), "the neighbour's guest works")
        on.as_before()


def slow_but_right():
    """Cut anywhere, the descriptor with any part: that is a stream."""
    with stage.Stage() as on:
        for name in ("first byte", "last byte", "middle"):
            with Hand(on, name) as hand:
                words = json.dumps(hand.regions({})).encode()
                at = {"first byte": 0, "last byte": len(words) - 1, "middle": 70}[name]
                for i in range(len(words)):
                    hand.say(words[i:i + 1], [hand.uffd] if i == at else [])
                tap.is_(on.pager.wait(name, "serving")["state"], "serving",
                        "byte by byte, the descriptor with the %s" % name)
                hand.say(b"and another thing " * 1000, [hand.uffd])
                hand.say(b"!", [hand.uffd] * 50)
                tap.is_(on.pager.show(name)["state"], "serving",
                        "what it says later is not listened to")
                tap.is_(on.pager.close_session(name)["outcome"], "closed", "closed")
        on.as_before()


def many_regions():
    """As many as are served, in no order: each page at a place of its own."""
    with stage.Stage() as on:
        with Hand(on, "a") as hand, open(on.image.path, "rb") as image:
            order = [(i * 77 + 5) % 256 for i in range(256)]
            hand.say(hand.regions(*[{"base_host_virt_addr": hand.memory.address + i * PAGE,
                                     "size": PAGE, "offset": place * PAGE}
                                    for i, place in enumerate(order)]), [hand.uffd])
            tap.is_(len(on.pager.wait("a", "serving")["regions"]), 256, "256 regions are served")
            tap.is_(on.pager.complete("a")["state"], "graduated", "and filled")
            memory = hand.memory.read()
            held = [memory[i * PAGE:(i + 1) * PAGE] == os.pread(image.fileno(), PAGE, place * PAGE)
                    for i, place in enumerate(order)]
            tap.is_(held, [True] * 256, "each with its own page of the image")
        on.as_before()


def never_sent():
    with stage.Stage() as on:
        with Hand(on, "silent", handshake_timeout_ms=2000) as hand:
            status, code, why = on.pager.error_of("GET", "/sessions/silent?wait=serving")
            tap.is_((status, code), (409, "ended"), "one that connects and says nothing")
            tap.like(why, "timed-out: no VMM shook hands on its socket within 2000 ms", "times out")
            tap.ok(hand.is_hung_up(), "its connection is closed")
        with Hand(on, "half", handshake_timeout_ms=2000) as hand:
            hand.say(json.dumps(hand.regions({})).encode()[:50], [hand.uffd])
            tap.is_(on.pager.wait("half", "closed")["outcome"], "timed-out", "half a handshake too")
            tap.ok(hand.is_hung_up(), "its connection is closed")
        on.as_before()


def second_connection():
    with stage.Stage() as on:
        with Hand(on, "a") as first:
            first.say(b" ")
            others = [first.memory.dial(first.session["socket_path"]) for _ in range(3)]
            for other in others:
                other.settimeout(pagerd.DEADLINE_S)
            tap.is_([other.recv(1) for other in others], [b""] * 3,
                    "while one VMM shakes hands others are hung up on")
            on.pager.log.wait("second connection refused")
            first.say(first.regions({}), [first.uffd])
            tap.is_(on.pager.wait("a", "serving")["state"], "serving", "the first is served")
            try:
                first.memory.dial(first.session["socket_path"])
                tap.ok(False, "afterwards nobody can connect")
            except FileNotFoundError:
                tap.ok(True, "afterwards nobody can connect")
            for other in others:
                other.close()
        on.pager.close_session("a")
        on.as_before()


def memory_that_is_not_there():
    """Right in every number, but the kernel knows no such registered memory: its guest would get
    zeros there, and nobody would know."""
    with stage.Stage() as on:
        for name, change, where in (
                ("unmapped", {"base_host_virt_addr": 0x10000}, "0x10000"),
                ("end not registered", {"size": 2 * MIB}, "0x[0-9a-f]+000"),
                ("no user's", {"base_host_virt_addr": 1 << 48}, None)):
            refused(on, name, with_regions(change),
                    "region 0: its memory at %s is not registered" % where if where else
                    "region 0: its memory .*(none of a process|is not registered)")
        on.as_before()


def memory_that_goes_away():
    """Unregistered, by the VMM itself, once its handshake is over."""
    with stage.Stage() as on:
        with Hand(on, "a") as hand:
            hand.say(hand.regions({}), [hand.uffd])
            on.pager.wait("a", "serving")
            handshake.fcntl.ioctl(hand.uffd, handshake.UFFDIO_UNREGISTER, handshake.struct.pack(
                "<QQ", hand.memory.address, MIB))
            status, code, why = on.pager.error_of("POST", "/sessions/a/complete")
            tap.is_((status, code), (500, "failed"), "it cannot be completed")
            tap.like(why, "guest memory at 0x[0-9a-f]+ is not registered", "which says why")
            tap.is_(on.pager.close_session("a")["outcome"], "closed", "and it can be closed")
        on.as_before()


if __name__ == "__main__":
    tap.needs_root()
    tap.run(framing, descriptors, numbers, slow_but_right, many_regions, never_sent, second_connection,
            memory_that_is_not_there, memory_that_goes_away)
