#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
# builds: plain asan
"""Storage on which nothing can be opened: who names it waits, and is told; nobody else is."""
import os
import select
import signal
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
import fuse  # noqa: E402
import pagerd  # noqa: E402
import tap  # noqa: E402

LIMIT = 8  # OPENER_MAX_OF_STORAGE


def children(pid):
    """The processes whose parent that is, without those that have ended."""
    found = []
    for name in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open("/proc/%s/stat" % name, encoding="utf-8", errors="replace") as f:
                head, _, tail = f.read().rpartition(")")
        except OSError:
            continue
        fields = tail.split()
        if int(fields[1]) == pid and fields[0] != "Z":
            found.append((int(name), head.partition("(")[2]))
    return found


def opener(pager):
    return next(pid for pid, name in children(pager.process.pid) if name == "pagerd-opener")


def stuck(pager):
    text = pager.request("GET", "/metrics").text
    return int(next(line.split()[1] for line in text.splitlines()
                    if line.startswith('pagerd_opens{state="stuck"}')))


def count_fds(pager, image):
    """As they are with an idle worker."""
    pager.create(image.path, id="first")
    pager.close_session("first")
    return pager.fds()


def set_patience(pager, value):
    pager.call("PATCH", "/config", {"open-timeout": value})


def all_is_freed(pager, fds, why):
    pager.until(lambda: not children(opener(pager)), "processes of the opener stay")
    pager.until(lambda: stuck(pager) == 0, "openings stay")
    pager.ok_fds(pager.process.pid, fds, why)


def others_go_on():
    """While an image cannot be opened everything else is as always."""
    fuse.needs()
    with pagerd.Pagerd(open_timeout="1h") as pager, fuse.Image(pager, size="4M", seed=1) as image:
        local = pager.image(size="4M", seed=2)
        fds = count_fds(pager, local)
        neighbour = pager.restore(local, "neighbour")
        image.hang()
        slow = pagerd.Pending(pager.create, image.path, id="slow")
        image.wait_held(1)
        tap.is_(pager.call("GET", "/health")["status"], "ok", "pagerd answers")
        tap.is_(neighbour.cmd("verify")["wrong"], 0, "faults are answered")
        with pager.restore(local, "b") as guest:
            tap.is_(guest.cmd("verify")["wrong"], 0, "others are created")
            tap.is_(pager.complete("b")["state"], "graduated", "and completed")
        tap.is_(pager.close_session("neighbour")["outcome"], "closed", "and closed")
        status, code, why = pager.error_of("POST", "/sessions", {"image": local.path, "id": "slow"})
        tap.is_((status, code), (409, "exists"), "its id is taken")
        tap.ok(slow.is_alive(), "and it waits all the while")
        image.resume()
        tap.is_(slow.end()["state"], "created", "when the storage answers it is created")
        pager.close_session("slow")
        neighbour.kill()
        all_is_freed(pager, fds, "nothing is left of it")


def client_leaves():
    """Who does not wait for the answer leaves nothing but a process that cannot be killed."""
    fuse.needs()
    with pagerd.Pagerd(open_timeout="1h") as pager, fuse.Image(pager, size="4M", seed=1) as image:
        local = pager.image(size="4M", seed=2)
        fds = count_fds(pager, local)
        image.hang()
        connection = pager.connect()
        connection.request("POST", "/sessions", '{"image": "%s", "id": "a"}' % image.path)
        image.wait_held(1)
        connection.close()
        pager.until(lambda: try_create(pager, local, "a"), "its id stays taken")
        tap.is_(pager.close_session("a")["outcome"], "closed", "its id can be had again")
        image.resume()
        all_is_freed(pager, fds, "nothing is left")


def try_create(pager, image, name):
    try:
        pager.create(image.path, id=name)
        return True
    except pagerd.ApiError as error:
        if error.code != "exists":
            raise
        return False


def told_in_time():
    """After open-timeout whoever asked is told, whatever it was that was to be opened."""
    fuse.needs()
    with pagerd.Pagerd() as pager, fuse.Image(pager, size="4M", seed=1) as image:
        local = pager.image(size="4M", seed=2)
        fds = count_fds(pager, local)
        image.hang()
        set_patience(pager, "1s")
        asked = [
            ("an image", "POST", "/sessions", {"image": image.path}),
            ("an overlay", "POST", "/sessions", {"image": local.path, "overlays": [
                {"offset": 0, "path": image.path}]}),
            ("a list to be recorded", "POST", "/sessions", {"image": local.path, "record": {
                "path": image.path}}),
            ("the image of a template", "PUT", "/templates/t", {"image": image.path}),
        ]
        for what, method, path, body in asked:
            status, code, why = pager.error_of(method, path, body)
            tap.is_((status, code), (504, "timeout"), what)
            tap.ok(image.path in why and "does not answer" in why, "is named: " + why)
        tap.is_([s["id"] for s in pager.call("GET", "/sessions")["sessions"]], ["first"],
                "no session is left")
        tap.is_(stuck(pager), len(asked), "and what waits is counted")
        session = pager.create(local.path, id="l", hot_list=image.path)
        tap.ok("does not answer" in session["prefetch"]["reason"],
               "a hot list that cannot be opened keeps nobody: " + session["prefetch"]["reason"])
        pager.close_session("l")
        pager.call("PATCH", "/config", {"backend": "file"})
        tap.is_(pager.error_of("POST", "/sessions", {"image": image.path})[:2], (504, "timeout"),
                "an image to be mapped")
        pager.call("PATCH", "/config", {"backend": "uffd"})
        image.resume()
        set_patience(pager, "2m")
        all_is_freed(pager, fds, "when the storage answers all of it is freed")
        tap.is_(pager.create(image.path, id="z")["state"], "created", "and can be used again")
        pager.close_session("z")


def bounded():
    """So many wait for one storage, no more; others have room."""
    fuse.needs()
    with pagerd.Pagerd() as pager, fuse.Image(pager, size="4M", seed=1) as image:
        local = pager.image(size="4M", seed=2)
        fds = count_fds(pager, local)
        image.hang()
        set_patience(pager, "100ms")
        waiting = [pagerd.Pending(pager.error_of, "POST", "/sessions", {"image": image.path})
                   for _ in range(LIMIT)]
        tap.ok(all(one.end()[:2] == (504, "timeout") for one in waiting), "as many as may")
        tap.is_(stuck(pager), LIMIT, "are stuck")
        set_patience(pager, "1h")
        status, code, why = pager.error_of("POST", "/sessions", {"image": image.path})
        tap.ok((status, code) == (504, "timeout") and "%d processes wait" % LIMIT in why,
               "one more is refused at once: " + why)
        tap.is_(pager.create(local.path, id="l")["state"], "created", "other storage is open to all")
        pager.close_session("l")
        image.resume()
        all_is_freed(pager, fds, "nothing is left of them")
        tap.is_(pager.create(image.path, id="z")["state"], "created", "and it can be used again")
        pager.close_session("z")


def opener_dies():
    """Another takes its place."""
    fuse.needs()
    with pagerd.Pagerd(open_timeout="1h") as pager, fuse.Image(pager, size="4M", seed=1) as image:
        local = pager.image(size="4M", seed=2)
        fds = count_fds(pager, local)
        image.hang()
        slow = pagerd.Pending(pager.error_of, "POST", "/sessions", {"image": image.path})
        image.wait_held(1)
        first = opener(pager)
        os.kill(first, signal.SIGKILL)
        status, code, why = slow.end()
        tap.ok((status, code) == (503, "worker") and "try again" in why, "who waited is told: " + why)
        tap.is_(pager.create(local.path, id="l")["state"], "created", "others are created")
        tap.ok(opener(pager) != first, "by another opener")
        pager.close_session("l")
        image.resume()
        all_is_freed(pager, fds, "nothing is left")


def closed_meanwhile():
    """Nobody waits for storage that is to be told that a file is closed."""
    fuse.needs()
    with pagerd.Pagerd() as pager, fuse.Image(pager, size="4M", seed=3) as image:
        local = pager.image(size="4M", seed=2)
        fds = count_fds(pager, local)
        pager.create(image.path, id="a")
        image.hang(closes=True)
        pager.close_session("a")
        image.wait_held(1)
        tap.is_(pager.create(local.path, id="c")["state"], "created", "others are created")
        pager.close_session("c")
        tap.ok(pager.fds() > fds, "the file stays open")
        image.resume()
        all_is_freed(pager, fds, "until the storage answers")


def signals_of(pid):
    """Those that it has not taken yet."""
    with open("/proc/%d/status" % pid, encoding="utf-8") as f:
        lines = dict(line.split(":", 1) for line in f)
    mask = int(lines["SigPnd"], 16) | int(lines["ShdPnd"], 16)
    return [number for number in range(1, 65) if mask >> (number - 1) & 1]


def pagerd_dies():
    """What waits for storage ends as soon as that lets it, though nobody counts it any more."""
    fuse.needs()
    with pagerd.Pagerd(open_timeout="1h") as pager, fuse.Image(pager, size="4M", seed=1) as image:
        image.hang()
        connection = pager.connect()
        connection.request("POST", "/sessions", '{"image": "%s", "id": "a"}' % image.path)
        image.wait_held(1)
        first = opener(pager)
        (job, _), = children(first)
        first, end = os.pidfd_open(first), os.pidfd_open(job)
        pager.stop(signal.SIGKILL)
        tap.ok(select.select([first], [], [], pagerd.DEADLINE_S)[0], "the opener ends with pagerd")
        tap.is_(signals_of(job), [signal.SIGKILL], "what waits is killed")
        image.resume()
        tap.ok(select.select([end], [], [], pagerd.DEADLINE_S)[0], "and ends")
        os.close(first)
        os.close(end)
        connection.close()
        pager.start()
        tap.is_(pager.create(image.path, id="a")["state"], "created", "its id can be had again")
        pager.close_session("a")


def restarted_meanwhile():
    """pagerd is started again with a session whose storage is silent."""
    fuse.needs()
    with pagerd.Pagerd() as pager, fuse.Image(pager, size="4M", seed=3) as image:
        local = pager.image(size="4M", seed=2)
        guest = pager.restore(image, "a", engine="threads")
        neighbour = pager.restore(local, "b")
        image.hang()
        guest.send("touch seq")
        image.wait_held(1)
        for how in (signal.SIGKILL, signal.SIGTERM):
            pager.stop(how)
            pager.start()
            tap.is_(sorted(s["id"] for s in pager.call("GET", "/sessions")["sessions"]
                           if s["state"] == "serving"), ["a", "b"], "both sessions are found")
            tap.is_(neighbour.cmd("verify")["wrong"], 0, "the neighbour is served")
        tap.is_(pager.create(local.path, id="c")["state"], "created", "others are created")
        pager.close_session("c")
        image.resume()
        tap.is_(guest.answer()["wrong"], 0, "when the storage answers, the guest goes on")
        guest.kill()
        neighbour.kill()


if __name__ == "__main__":
    tap.needs_root()
    tap.run(others_go_on, client_leaves, told_in_time, bounded, opener_dies, closed_meanwhile,
            pagerd_dies, restarted_meanwhile)
