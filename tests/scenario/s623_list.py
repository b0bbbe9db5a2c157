#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
# builds: plain asan
"""The list of many sessions is told piece by piece: nobody waits for it, and nothing that
happens meanwhile spoils it."""
import json
import os
import socket
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
import pagerd  # noqa: E402
import tap  # noqa: E402

NUMBER = 600


def fill(pager, image, first, number):
    """That many sessions that wait for their VMM, on one connection."""
    connection = pager.connect()
    for i in range(first, first + number):
        connection.request("POST", "/sessions", body=json.dumps(
            {"image": image.path, "id": "s%d" % i}).encode())
        if connection.getresponse().read() is None:
            raise RuntimeError("no answer")
    connection.close()


def reader(pager, request=b"GET /sessions HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"):
    """A client that has asked for the list and has not read it, with a small buffer."""
    s = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    s.connect(pager.socket)
    s.settimeout(pagerd.DEADLINE_S)
    s.sendall(request)
    return s


def rest(s):
    """What is left of the answer; hangs up."""
    data = b""
    with s:
        while piece := s.recv(1 << 16):
            data += piece
    return data


def unchunked(answer):
    head, _, body = answer.partition(b"\r\n\r\n")
    if b"chunked" not in head:
        return body
    whole = b""
    while True:
        size, _, body = body.partition(b"\r\n")
        n = int(size, 16)
        if n == 0:
            return whole
        whole, body = whole + body[:n], body[n + 2:]


def ids(answer):
    return [s["id"] for s in json.loads(unchunked(answer))["sessions"]]


def many():
    with pagerd.Pagerd(log_level="notice", tombstone_life="0", handshake_timeout="10m") as pager:
        image = pager.image(size="1M")
        fill(pager, image, 0, NUMBER)
        wanted = ["s%d" % i for i in range(NUMBER)]
        tap.is_([s["id"] for s in pager.call("GET", "/sessions")["sessions"]], wanted,
                "%d sessions, in their order" % NUMBER)
        before = pager.fds()
        slow = reader(pager)
        first = slow.recv(1)
        tap.is_(first, b"H", "a client has begun to read")
        tap.is_(pager.call("GET", "/health")["sessions"], NUMBER, "others are answered")
        for i in (1, NUMBER // 2, NUMBER - 1):
            pager.close_session("s%d" % i)
        fill(pager, image, NUMBER, 3)
        pager.until(lambda: pager.call("GET", "/health")["sessions"] == NUMBER)
        got = ids(first + rest(slow))
        tap.is_(len(got), len(set(got)), "nobody is told twice")
        tap.is_([i for i in got if i in wanted], [i for i in wanted if i in got], "in order")
        gone = {"s1", "s%d" % (NUMBER // 2), "s%d" % (NUMBER - 1)}
        tap.ok(set(wanted) - gone <= set(got), "who lived all the while is there",
               set(wanted) - gone - set(got))
        tap.ok(set(got) <= set(wanted), "who came later is not", set(got) - set(wanted))
        hasty = [reader(pager) for _ in range(20)]
        for s in hasty:
            s.recv(1)
            s.close()
        pager.ok_fds(pager.process.pid, before, "who hangs up in the middle leaves nothing")
        old = rest(reader(pager, b"GET /sessions HTTP/1.0\r\n\r\n"))
        tap.is_(len(ids(old)), NUMBER, "for HTTP/1.0 the end of the connection is the end")
        head = rest(reader(pager, b"HEAD /sessions HTTP/1.1\r\nConnection: close\r\n\r\n"))
        tap.like(head.decode(), r"(?s)^HTTP/1.1 200 .*\r\n\r\n$", "HEAD has no body")
        tap.ok(b"Content-Length" not in head, "nor is one made to be measured", head)
        waiting = reader(pager)
        waiting.recv(1)
        tap.is_(pager.stop(), 0, "pagerd stops in the middle of it")


if __name__ == "__main__":
    tap.run(many)
