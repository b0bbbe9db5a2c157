#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
# builds: plain asan
"""Clients of the admin socket that are wrong, slow, many, nosy or absent.  Every request
gets a clear error; a guest and the other clients do not notice."""
import json
import os
import select
import socket
import stat
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
import pagerd  # noqa: E402
import stage  # noqa: E402
import tap  # noqa: E402

CLIENT_UID = 64322
GROUP = 64300
HTTP_MAX_CLIENTS = 256


def read_all(connection):
    """What comes until the server hangs up."""
    data = b""
    try:
        while True:
            piece = connection.recv(65536)
            if not piece:
                break
            data += piece
    except ConnectionResetError:
        pass
    return data


def ask(pager, data):
    """The whole answer to bytes after which nothing more is sent."""
    with pager.raw() as connection:
        try:
            connection.sendall(data)
            connection.shutdown(socket.SHUT_WR)
        except OSError:  # it was told before it had said everything
            pass
        return read_all(connection)


def parts(answer):
    """(status, headers, body) of one answer."""
    head, _, body = answer.partition(b"\r\n\r\n")
    lines = head.decode(errors="replace").split("\r\n")
    status = int(lines[0].split()[1]) if lines[0].startswith("HTTP/1.") else 0
    return status, dict(line.split(": ", 1) for line in lines[1:]), body


def is_error(answer, status, code):
    """A JSON error after which the server hung up."""
    got, headers, body = parts(answer)
    if got != status or headers.get("Connection") != "close":
        return False
    error = json.loads(body)
    return error["code"] == code and len(error["error"]) > 10


def post(path, body, extra=b""):
    return b"POST %s HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n%s\r\n%s" % (
        path.encode(), len(body), extra, body)


def garbage():
    with stage.Stage() as on:
        for name, data in (
                ("zeros", b"\0" * 100 + b"\r\n\r\n"),
                ("a word", b"GARBAGE\r\n\r\n"),
                ("a TLS hello", bytes.fromhex("16030100c8010000c40303") + b"\xaa" * 190),
                ("another protocol", b"SSH-2.0-OpenSSH_9.2\r\n"),
                ("a negative length", b"POST /sessions HTTP/1.1\r\nContent-Length: -1\r\n\r\n"),
                ("two lengths", b"POST /sessions HTTP/1.1\r\nContent-Length: 1\r\n"
                                b"Content-Length: 2\r\n\r\n{}"),
                ("a bad chunk", b"POST /sessions HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nzz"),
                ("a header without end", b"GET /health HTTP/1.1\r\nno colon here\r\n\r\n"),
                ("CONNECT", b"CONNECT example.org:80 HTTP/1.1\r\n\r\n"),
                ("a star", b"OPTIONS * HTTP/1.1\r\n\r\n"),
                ("an escape", b"GET /sessions/%00 HTTP/1.1\r\nConnection: close\r\n\r\n"),
                ("half an escape", b"GET /sessions/%4 HTTP/1.1\r\nConnection: close\r\n\r\n")):
            answer = ask(on.pager, data)
            tap.ok(is_error(answer, 400, "bad-request"), "%s: 400, and why" % name, answer)
        tap.is_(ask(on.pager, b""), b"", "nothing is answered by nothing")
        tap.is_(ask(on.pager, b"GET /health HTTP/1.1\r\nHo"), b"", "nor is half a request")
        for version in (b"", b" HTTP/2.0", b" HTTP/0.9"):
            tap.is_(parts(ask(on.pager, b"GET /health" + version + b"\r\n\r\n"))[0], 505,
                    "GET /health%s: 505" % version.decode())
        tap.is_(parts(ask(on.pager, post("/drain", b"{}", b"Expect: 200-ok\r\n")))[0], 417,
                "an expectation that is not met: 417")
        tap.ok(on.is_neighbour_fine(), "the neighbour's guest works")
        on.as_before()


def too_much():
    with stage.Stage() as on:
        for name, data, status in (
                ("a huge header", b"GET /health HTTP/1.1\r\nX: " + b"x" * 200000, 431),
                ("many headers", b"GET /health HTTP/1.1\r\n" + b"X: y\r\n" * 50000, 431),
                ("a long path", b"GET /" + b"x" * 15000 + b" HTTP/1.1\r\n\r\n", 414),
                ("a long query", b"GET /health?" + b"x" * 9000 + b" HTTP/1.1\r\n\r\n", 414),
                ("a body of 10 GB", b"POST /sessions HTTP/1.1\r\nContent-Length: 10000000000\r\n\r\n",
                 413),
                ("a chunk of 4 GB", b"POST /sessions HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n"
                 b"ffffffff\r\n" + b"x" * 5000000, 413),
                ("endless chunks", b"POST /sessions HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n"
                 + b"1000\r\n" + b"x" * 4096 + b"\r\n" + (b"400\r\n" + b"y" * 1024 + b"\r\n") * 3000,
                 413)):
            answer = ask(on.pager, data)
            tap.ok(is_error(answer, status, "too-large"), "%s: %d" % (name, status), answer[:300])
        status, code, why = on.pager.error_of("POST", "/sessions", b"[" * 60000)
        tap.is_((status, code), (400, "bad-request"), "JSON that is nested without end")
        tap.like(why, "the body is not JSON", "is no JSON")
        tap.ok(on.is_neighbour_fine(), "the neighbour's guest works")
        on.as_before()


def pipelined():
    with stage.Stage() as on:
        number = 500
        with on.pager.raw() as connection:
            requests = b"".join(b"GET /sessions/n%d HTTP/1.1\r\nHost: x\r\n\r\n" % i
                                for i in range(number))
            sending = pagerd.Pending(connection.sendall, requests)
            data = b""
            while data.count(b"HTTP/1.1 404 ") < number or not data.endswith(b"}\n"):
                data += connection.recv(65536)
            sending.end()
        order = [data.find(b"there is no session n%d;" % i) for i in range(number)]
        tap.ok(order == sorted(order) and order[0] > 0, "%d requests at once, in order" % number)
        body = json.dumps({"image": on.image.path, "id": "p"}).encode()
        answer = ask(on.pager, post("/sessions", body) + post("/sessions/p/close", b"")
                     + b"GET /sessions/p HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        tap.is_([line.split()[1] for line in answer.split(b"\n") if line.startswith(b"HTTP/1.1 ")],
                [b"201", b"200", b"200"], "create, close, show: each waits for the one before")
        tap.ok(b'"outcome": "closed"' in answer or b'"outcome":"closed"' in answer,
               "and sees what it did", answer[-500:])
        on.as_before()


def slow():
    """A request must be complete in time, however busily it comes."""
    with stage.Stage(http_timeout="1500ms") as on:
        for name, data in (("header", b"GET /health HTTP/1.1\r\nX: " + b"x" * 4000),
                           ("body", post("/sessions", b"x" * 4000)[:-4000] + b" " * 3999)):
            with on.pager.raw() as connection:
                begin = time.monotonic()
                answer = b""
                for byte in data:
                    # One byte, then as long as a slow client takes, unless there is an answer.
                    if select.select([connection], [], [], 0.01)[0]:
                        answer = read_all(connection)
                        break
                    connection.send(bytes([byte]))
                took = time.monotonic() - begin
                tap.ok(is_error(answer, 408, "timeout"), "a %s byte by byte: 408" % name, answer)
                tap.ok(took > 1.4, "after its time", took)
        with on.pager.raw() as connection:
            tap.is_(read_all(connection), b"", "who says nothing is hung up on")
        with on.pager.raw() as connection:
            connection.sendall(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n")
            answer = read_all(connection)
            tap.is_((parts(answer)[0], answer.count(b"HTTP/1.1")), (200, 1),
                    "who has been answered and asks no more as well")
        tap.is_(on.pager.error_of("GET", "/sessions/neighbour?wait=closed&timeout=2s")[0], 504,
                "who waits for an answer is not slow")
        on.as_before()


def does_not_read():
    """What is not read is not kept without bound."""
    with stage.Stage(http_timeout="2s") as on:
        with on.pager.raw() as connection:
            connection.setblocking(False)
            sent = 0
            try:
                while sent < 64 << 20:
                    sent += connection.send(b"GET /stats HTTP/1.1\r\nHost: x\r\n\r\n" * 1000)
            except BlockingIOError:
                pass
            tap.ok(sent < 8 << 20, "a client that asks and never reads is stopped by its socket",
                   sent)
            tap.is_(on.pager.call("GET", "/health")["status"], "ok", "others are answered")
            rss = int(pagerd.status_of(on.pager.process.pid)["VmRSS"].split()[0])
            tap.ok(rss < 200 << 10, "the supervisor stays small", "%d KiB" % rss)
            poller = select.poll()
            poller.register(connection, select.POLLHUP)
            tap.ok(poller.poll(pagerd.DEADLINE_S * 1000), "in the end it is hung up on")
        on.as_before()


def crowd():
    """More than are served at one time: they wait, and the idle ones go."""
    with stage.Stage(http_timeout="2s", http_max_clients=HTTP_MAX_CLIENTS) as on:
        idle = [on.pager.raw() for _ in range(300)]
        held = sum(name.startswith("socket") for name in
                   pagerd.fds_of(on.pager.process.pid).values())
        tap.ok(held < HTTP_MAX_CLIENTS + 40, "300 idle connections are not all accepted", held)
        tap.is_(on.pager.call("GET", "/health")["status"], "ok", "one that asks is answered")
        tap.ok(on.is_neighbour_fine(), "the neighbour's guest works")
        for connection in idle:
            connection.close()
        for i in range(200):
            with on.pager.raw() as connection:
                connection.sendall(b"POST /sessions HTTP/1.1\r\nContent-Length: 9\r\n\r\n{"[:i])
        on.as_before()


def routes():
    with stage.Stage() as on:
        for method, path in (("GET", "/"), ("GET", "/session"), ("GET", "/sessions/"),
                             ("GET", "/sessions/a/b"), ("POST", "/sessions/a/explode"),
                             ("GET", "/health/"), ("GET", "//health"), ("GET", "/Health"),
                             ("GET", "/../health"), ("POST", "/sessions/a/close/now")):
            answer = on.pager.request(method, path, b"{}" if method == "POST" else None)
            tap.ok((answer.status, answer.json["code"]) == (404, "no-route")
                   and path in answer.json["error"], "%s %s: no such route" % (method, path),
                   answer.text)
        for method, path, allow in (("POST", "/health", {"GET", "HEAD"}),
                                    ("DELETE", "/sessions", {"POST", "GET", "HEAD"}),
                                    ("PUT", "/sessions/a", {"GET", "HEAD"}),
                                    ("GET", "/sessions/a/close", {"POST"}),
                                    ("GET", "/upgrade", {"POST"}), ("PATCH", "/drain", {"POST"}),
                                    ("OPTIONS", "/versions", {"GET", "HEAD"})):
            answer = on.pager.request(method, path)
            tap.ok((answer.status, answer.json["code"]) == (405, "method")
                   and allow <= set(answer.headers["Allow"].split(", ")),
                   "%s %s: not with this method" % (method, path),
                   "%s %s" % (answer.headers["Allow"], answer.text))
        head = on.pager.request("HEAD", "/health")
        tap.is_((head.status, head.text), (200, ""), "HEAD has no body")
        tap.ok(int(head.headers["Content-Length"]) > 20, "but says how long it would be")
        tap.is_(on.pager.error_of("GET", "/health?x=1")[:2], (400, "bad-request"),
                "a query that means nothing is refused")
        tap.is_(on.pager.request("POST", "/sessions/neighbour/close?x=1").status, 400,
                "so that a typing error does no harm")
        on.as_before()


def members():
    with stage.Stage() as on:
        image = on.image.path
        big = "x" * 5000
        for what, body in (
                ("nothing", {}), ("a list", []), ("text", "image"), ("null", None),
                ("a number for image", {"image": 7}), ("null for image", {"image": None}),
                ("an empty path", {"image": ""}), ("a path without end", {"image": "/" + big}),
                ("a relative path", {"image": "images/i"}), ("NUL", {"image": image + "\0"}),
                ("a line break", {"image": image + "\n"}), ("C1", {"image": image + "\x85"}),
                ("a number for id", {"image": image, "id": 1}),
                ("a long instance", {"image": image, "instance": big}),
                ("a long key", {"image": image, "cache_key": big}),
                ("text for vmm_uid", {"image": image, "vmm_uid": "0"}),
                ("a negative vmm_uid", {"image": image, "vmm_uid": -1}),
                ("vmm_uid 2^32-1", {"image": image, "vmm_uid": 2**32 - 1}),
                ("vmm_gid 2^64", {"image": image, "vmm_gid": 2**64}),
                ("half a vmm_uid", {"image": image, "vmm_uid": 0.5}),
                ("a number for memfd", {"image": image, "memfd": 1}),
                ("no time", {"image": image, "handshake_timeout_ms": 0}),
                ("too much time", {"image": image, "handshake_timeout_ms": 3600001}),
                ("text for time", {"image": image, "handshake_timeout_ms": "5s"}),
                ("an odd cluster", {"image": image, "cluster_min_bytes": 5000}),
                ("a small cluster", {"image": image, "cluster_min_bytes": 2048}),
                ("a large cluster", {"image": image, "cluster_max_bytes": 4 << 20}),
                ("clusters upside down", {"image": image, "cluster_min_bytes": 65536,
                                          "cluster_max_bytes": 4096})):
            status, code, why = on.pager.error_of("POST", "/sessions", json.dumps(body).encode())
            tap.ok((status, code) == (400, "bad-request") and why, "%s: %s" % (what, why))
        status, code, why = on.pager.error_of("POST", "/sessions", {"imgae": image})
        tap.like(why, 'there is no member "imgae"', "a member that there is not is named")
        for what, body in (("no JSON", b"{'image': 1}"), ("half of it", b'{"image": "'),
                           ("more than it", b'{"image": "/x"} {}'), ("bad UTF-8", b'{"\xff": 1}'),
                           ("one member twice", b'{"image": "/x", "image": "/y"}')):
            status, code, why = on.pager.error_of("POST", "/sessions", body)
            tap.ok((status, code) == (400, "bad-request") and "JSON" in why, "%s: %s" % (what, why))
        on.as_before()


def images():
    """What is no image, or none of ours."""
    with stage.Stage() as on:
        pager = on.pager
        place = lambda name: os.path.join(pager.images, name)  # noqa: E731
        os.mkfifo(place("fifo"))
        os.mknod(place("zero"), 0o666 | stat.S_IFCHR, os.makedev(1, 5))
        os.mknod(place("disk"), 0o666 | stat.S_IFBLK, os.makedev(7, 0))
        os.mkdir(place("dir"))
        os.symlink(on.image.path, place("link"))
        os.symlink("/etc", place("etc"))
        os.symlink("/etc/shadow", place("shadow"))
        os.symlink(pager.images, place("self"))
        open(place("empty"), "wb").close()
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(place("socket"))
        enormous = True
        with open(place("enormous"), "wb") as f:
            try:
                os.truncate(f.fileno(), (16 << 40) + 4096)
            except OSError:
                enormous = False
        for path, status, code, reason in (
                ("/etc/passwd", 403, "forbidden", "below no image root; move it there or add"),
                ("/etc/shadow", 403, "forbidden", "below no image root"),
                ("/proc/self/mem", 403, "forbidden", "below no image root"),
                (pager.images, 403, "forbidden", "below no image root"),
                (pager.images + "-more/i", 403, "forbidden", "below no image root"),
                (place("../../etc/shadow"), 400, "bad-request", r"has '\.\.' in it"),
                (place("dir/../i"), 400, "bad-request", r"has '\.\.' in it"),
                (place("link"), 403, "forbidden", "leads over a symbolic link"),
                (place("shadow"), 403, "forbidden", "leads over a symbolic link"),
                (place("etc/passwd"), 403, "forbidden", "leads over a symbolic link"),
                (place("self/i"), 403, "forbidden", "leads over a symbolic link"),
                (place("dir"), 400, "bad-request", "is a directory"),
                (place("fifo"), 400, "bad-request", "is a FIFO, not a regular file"),
                (place("zero"), 400, "bad-request", "is a device, not a regular file"),
                (place("disk"), 400, "bad-request", "is a device, not a regular file"),
                (place("socket"), 400, "bad-request", "is a socket, not a regular file"),
                (place("empty"), 400, "bad-request", "is empty"),
                (place("none"), 404, "not-found", "No such file"),
                (place("i/more"), 404, "not-found", "Not a directory"),
                (place("x" * 300), 400, "bad-request", "File name too long"),
                (place("enormous"), 400, "bad-request", "larger than 16 TiB")):
            if path.endswith("enormous") and not enormous:
                tap.skip("a file of more than 16 TiB", "the file system has none")
                continue
            got = pager.error_of("POST", "/sessions", {"image": path})
            tap.ok(got[:2] == (status, code), "%.60s: %s" % (path.replace(pager.dir, ""), code), got)
            tap.like(got[2], reason, "because %s" % reason)
        odd = pager.images.replace("/images", "//./images/.") + "/./i"
        session = pager.create(odd, id="odd")
        tap.is_(session["image"], odd, "a path that is only oddly spelt is taken")
        pager.close_session("odd")
        tap.ok(on.is_neighbour_fine(), "the neighbour's guest works")
        on.as_before()


def as_user(pager, data, groups=()):
    """(status, body) of what another user asks, (None, what went wrong) if it cannot."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(reader)
        try:
            os.setgroups(list(groups))
            os.setresgid(CLIENT_UID, CLIENT_UID, CLIENT_UID)
            os.setresuid(CLIENT_UID, CLIENT_UID, CLIENT_UID)
            answer = ask(pager, data)
        except OSError as error:
            answer = type(error).__name__.encode()
        os.write(writer, answer)
        os._exit(0)
    os.close(writer)
    with open(reader, "rb") as f:
        answer = f.read()
    os.waitpid(pid, 0)
    status, _, body = parts(answer)
    return (status, json.loads(body)) if status else (None, answer.decode())


def create_as_user(pager, path, groups=(GROUP,), **members):
    body = json.dumps(dict(members, image=path)).encode()
    return as_user(pager, post("/sessions", body, b"Connection: close\r\n"), groups=groups)


def other_users():
    """A file is opened for the client: what it may not read it is not served."""
    with stage.Stage(admin_group=str(GROUP)) as on:
        pager = on.pager
        os.chmod(pager.run, 0o711)
        tap.like(as_user(pager, b"")[1], "^PermissionError$", "a stranger cannot connect")
        mine = pager.image("mine", size="64K").path
        secret = pager.image("secret", size="64K").path
        shared = pager.image("shared", size="64K").path
        hidden = os.path.join(pager.images, "hidden")
        os.mkdir(hidden)
        os.link(mine, os.path.join(hidden, "i"))
        os.chmod(hidden, 0o700)
        os.chmod(secret, 0o600)
        os.chown(shared, 0, 64399)
        os.chmod(shared, 0o640)
        status, session = create_as_user(pager, mine, id="mine")
        tap.is_(status, 201, "a member of admin-group creates a session")
        st = os.stat(session["socket_path"])
        tap.is_((st.st_uid, oct(stat.S_IMODE(st.st_mode))), (CLIENT_UID, "0o600"),
                "whose socket is its own")
        for path, name in ((secret, "a file of root's"), (shared, "one of another group's"),
                           (os.path.join(hidden, "i"), "one in a directory that is closed to it")):
            status, answer = create_as_user(pager, path)
            tap.is_((status, answer["code"]), (403, "forbidden"), name)
            tap.like(answer["error"], "may not be read by you; only what the client itself can read",
                     "is not served to it")
        status, answer = create_as_user(pager, shared, groups=(GROUP, 64399))
        tap.is_(status, 201, "but to who is in that group, too")
        for member in ("vmm_uid", "vmm_gid"):
            status, answer = create_as_user(pager, mine, **{member: 0})
            tap.is_((status, answer["code"]), (403, "forbidden"), "a %s of root's is refused" % member)
        status, answer = create_as_user(pager, mine, vmm_uid=CLIENT_UID, vmm_gid=GROUP)
        tap.is_(status, 201, "its own are not")
        tap.is_(pager.create(secret)["state"], "created", "root reads what it likes")
        tap.ok(on.is_neighbour_fine(), "the neighbour's guest works")


if __name__ == "__main__":
    tap.needs_root()
    tap.run(garbage, too_much, pipelined, slow, does_not_read, crowd, routes, members, images,
            other_users)
