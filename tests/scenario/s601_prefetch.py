#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
# builds: plain asan
"""Hot lists at a restore: those that cannot be used, those that are replayed under fire, and
what switches them off.  Nothing about a list makes a restore fail or a guest read wrong."""
import os
import signal
import struct
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
import handshake  # noqa: E402
import holds  # noqa: E402
import hugepages  # noqa: E402
import pagerd  # noqa: E402
import tap  # noqa: E402
import vmm  # noqa: E402

PAGE = 4096
ENDED = r"session \d+ %s: prefetch (done|stopped|failed|interrupted)"


def make_list(pager, image, pages, name="list", **options):
    """A list of these pages, converted from one offset a line."""
    log, path = os.path.join(pager.images, "log"), os.path.join(pager.images, name)
    with open(log, "w", encoding="ascii") as f:
        f.writelines("%d\n" % (p * PAGE) for p in pages)
    arguments = [x for k, v in options.items() for x in ("--" + k.replace("_", "-"), v)]
    done = pager.ctl("hotlist", "convert", "--image", image.path, *arguments, log, path)
    os.unlink(log)
    if done.returncode != 0:
        raise RuntimeError(done.stderr)
    return path


def restored(pager, image, name, **members):
    """A guest whose prefetch is over, and the prefetch of its session then."""
    mark = pager.log.mark()
    guest = pager.restore(image, name, members=members)
    pager.log.wait(ENDED % name, since=mark)
    return guest, pager.show(name)["prefetch"]


def without(pager, image, name, reason, **members):
    """A session that is served without its list, and says why."""
    with pager.restore(image, name, members=members) as guest:
        prefetch = pager.show(name)["prefetch"]
        tap.is_((prefetch["state"], prefetch["filled"]), ("none", 0), "%s: no prefetch" % name)
        if reason:
            tap.like(prefetch["reason"], reason, "and it is said why")
        else:
            tap.is_(prefetch["reason"], None, "which is nothing to speak of")
        tap.is_(guest.cmd("touch rand count=50")["wrong"], 0, "the guest is served")


# --- Lists that cannot be used -----------------------------------------------------

def unusable():
    with pagerd.Pagerd() as pager:
        image = pager.image(size="8M", seed=3)
        path = make_list(pager, image, range(64))
        with open(path, "rb") as f:
            good = f.read()
        bad = os.path.join(pager.images, "bad")

        def put(data):
            with open(bad, "wb") as f:
                f.write(data)
            return bad

        without(pager, image, "none", None)
        without(pager, image, "missing", "No such file", hot_list=path + ".missing")
        without(pager, image, "damaged", "damaged: the checksum",
                hot_list=put(good[:60] + bytes([good[60] ^ 1]) + good[61:]))
        pager.log.wait("id=damaged: no hot list is replayed: .*/bad: it is damaged")
        without(pager, image, "short", "damaged: the checksum", hot_list=put(good[:-1]))
        without(pager, image, "empty", "is empty", hot_list=put(b""))
        without(pager, image, "other", "no hot list of pagerd", hot_list=put(b"0\n4096\n" * 20))
        without(pager, image, "future", "version that is not known",
                hot_list=put(good[:8] + struct.pack("<I", 2) + good[12:]))
        without(pager, image, "outside", "below no image root", hot_list="/etc/shadow")
        os.mkdir(os.path.join(pager.images, "sub"))
        without(pager, image, "directory", "is a directory",
                hot_list=os.path.join(pager.images, "sub"))
        os.symlink(path, os.path.join(pager.images, "link"))
        without(pager, image, "link", "symbolic link", hot_list=os.path.join(pager.images, "link"))
        without(pager, image, "off", None, hot_list=path, prefetch="off")
        os.utime(image.path)
        without(pager, image, "stale", "is stale: the image was changed", hot_list=path)
        small = pager.image("small", size="4M", seed=3)
        without(pager, small, "size", "is stale: .* another size", hot_list=path)


def by_key():
    """A cache key names contents: the same list serves a copy, and not another key's image."""
    with pagerd.Pagerd() as pager:
        image, copy = (pager.image(n, size="8M", seed=3) for n in ("one", "two"))
        path = make_list(pager, image, range(64), cache_key="k1")
        os.utime(copy.path, (1, 1))
        guest, prefetch = restored(pager, copy, "copy", hot_list=path, cache_key="k1")
        guest.kill()
        tap.is_(prefetch["filled"], 64, "a copy of another age with the same key")
        without(pager, image, "key", "is stale: .* another cache key", hot_list=path, cache_key="k2")
        without(pager, copy, "age", "is stale: the image was changed", hot_list=path)


def bad_requests():
    with pagerd.Pagerd() as pager:
        image = pager.image(size="1M")
        before = pager.fds()
        for members, status, why in (
                ({"prefetch": "maybe"}, 400, "must be on, off or sequential"),
                ({"prefetch": True}, 400, "must be a string"),
                ({"hot_list": 7}, 400, "must be a string"),
                ({"record": 7}, 400, "must be true, false or an object"),
                ({"record": {}}, 400, "\"path\" is missing"),
                ({"record": {"path": "x", "y": 1}}, 400, "no member \"y\""),
                ({"record": {"path": "here"}}, 400, "not absolute"),
                ({"record": {"path": "/etc/hot"}}, 403, "below no image root"),
                ({"record": {"path": pager.images + "/no/such"}}, 404, "No such file"),
                ({"record": {"path": image.path}}, 409, "is no hot list"),
                ({"record": {"path": "/dev/shm/../x"}}, 400, "has '..' in it")):
            got = pager.error_of("POST", "/sessions", dict(members, image=image.path, id="a"))
            tap.is_(got[0], status, "%s: %d" % (members, status))
            tap.like(got[2], why, "says so")
        pager.ok_fds(pager.process.pid, before, "nothing is left of them")
        tap.is_(sorted(os.listdir(pager.images)), ["i"], "not in the directory either")


def unwritable():
    """Where the client itself could not write, no list goes."""
    if os.geteuid() != 0:
        raise tap.Skip("takes root, to be somebody else")
    with pagerd.Pagerd(admin_group="0") as pager:
        image = pager.image(size="1M")
        os.chmod(pager.socket, 0o666)
        code = ("import http.client,os,socket,sys\n"
                "os.setgroups([0]); os.setresgid(12345, 12345, 12345)\n"
                "os.setresuid(12345, 12345, 12345)\n"
                "c = http.client.HTTPConnection('x'); c.sock = socket.socket(socket.AF_UNIX)\n"
                "c.sock.connect(sys.argv[1])\n"
                "c.request('POST', '/sessions', body=sys.argv[2])\n"
                "a = c.getresponse(); print(a.status, a.read().decode())\n")
        answer = pagerd.subprocess.run(
            [sys.executable, "-c", code, pager.socket,
             pagerd.json.dumps({"image": image.path, "record": True})],
            stdout=pagerd.subprocess.PIPE, check=True, text=True).stdout
        tap.like(answer, "^403 .*cannot be written by you", "a directory that is not theirs")


# --- Replaying ---------------------------------------------------------------------

def sequential():
    with pagerd.Pagerd() as pager:
        image = pager.image(size="16M", seed=3, holes=100)
        guest, prefetch = restored(pager, image, "a", prefetch="sequential")
        with guest:
            tap.is_((prefetch["mode"], prefetch["state"], prefetch["pages"]),
                    ("sequential", "done", 4096), "all of an image without a list")
            tap.is_(pager.show("a")["pages"]["absent"], 0, "is there")
            tap.is_(guest.cmd("verify")["wrong"], 0, "and right")
            tap.is_(prefetch["used"], None, "nothing was left out to judge by")
        path = make_list(pager, image, [9, 8, 7])
        guest, prefetch = restored(pager, image, "b", prefetch="sequential", hot_list=path)
        with guest:
            tap.is_(prefetch["pages"], 3, "with a list only what is in it")


def under_fire():
    """A guest that works and discards all the while; pages removed before stay so."""
    with pagerd.Pagerd() as pager:
        image = pager.image(size="32M", seed=4, holes=30)
        path = make_list(pager, image, list(range(8191, 0, -3)) + list(range(0, 8192, 5)))
        for i in range(3):
            name = "g%d" % i
            guest = pager.restore(image, name, members={"hot_list": path}, vcpus=2)
            with guest:
                guest.cmd("start rand write")
                guest.cmd("discard 0 1000")
                pager.log.wait(ENDED % name)
                answer = guest.cmd("stop")
                tap.ok(answer["wrong"] == 0, "it reads what it should", answer)
                tap.is_(guest.cmd("verify")["wrong"], 0, "all over")
                prefetch = pager.show(name)["prefetch"]
                total = sum(prefetch[k] for k in ("filled", "present", "left_out", "outside"))
                tap.is_((prefetch["state"], total), ("done", prefetch["pages"]),
                        "every page of the list is accounted for")


def huge_pages():
    """A list is of small pages, whatever the guest has: each huge page that one is in comes whole,
    once, and every page of the list is accounted for."""
    with hugepages.Reserved(8), pagerd.Pagerd() as pager:
        image = pager.image(size="16M", seed=4, holes=30)
        path = make_list(
            pager, image, [*range(1000, 1100), 5, 4095, 9, *range(2048, 2560)])
        guest = pager.restore(image, "a", hugepages="2M", engine="threads",
                              members={"hot_list": path})
        with guest:
            pager.log.wait(ENDED % "a")
            session = pager.show("a")
            prefetch = session["prefetch"]
            tap.is_((prefetch["state"], prefetch["pages"]), ("done", 615), "a list of 615 pages")
            tap.is_((session["pages"]["present"], session["pages"]["total"]), (5, 8),
                    "fills the five huge pages that they are in")
            tap.is_((prefetch["filled"] + prefetch["present"], prefetch["outside"]), (615, 0),
                    "every page of the list is accounted for")
            tap.is_(guest.cmd("verify")["wrong"], 0, "the guest is right")
        pagerd.wait_gone(guest.pid)


def overlays():
    with pagerd.Pagerd() as pager:
        image = pager.image(size="4M", seed=4, holes=100)
        over = os.path.join(pager.images, "over")
        with open(over, "wb") as f:
            f.write(b"y" * 5000)
        expected = bytearray(open(image.path, "rb").read())
        expected[8 * PAGE:8 * PAGE + 5000] = b"y" * 5000
        path = make_list(pager, image, [9, 500, 8, 7])
        members = {"hot_list": path, "overlays": [{"offset": 8 * PAGE, "path": over}]}
        session = pager.create(image.path, id="a", **members)
        with handshake.Memory(len(expected)) as memory, memory.connect(session["socket_path"]):
            pager.log.wait(ENDED % "a")
            tap.is_(pager.show("a")["prefetch"]["filled"], 4, "pages with an overlay are filled")
            tap.ok(memory.read() == bytes(expected), "with its bytes")


def completed():
    """A completion takes over: both end, and the memory is right."""
    with pagerd.Pagerd(prefetch_rate="128K") as pager:
        image = pager.image(size="16M", seed=4)
        path = make_list(pager, image, range(4096))
        with pager.restore(image, "a", members={"hot_list": path}) as guest:
            pager.until(lambda: pager.show("a")["prefetch"]["filled"] > 0)
            pager.complete("a")
            prefetch = pager.show("a")["prefetch"]
            tap.is_(prefetch["state"], "stopped", "the prefetch stopped")
            tap.ok(prefetch["filled"] < 4096, "before it was done", prefetch)
            tap.is_(guest.cmd("verify")["wrong"], 0, "the guest has everything")


def switched_off():
    """The host's switch stops what runs, and keeps others from beginning."""
    with pagerd.Pagerd(prefetch_rate="128K") as pager:
        image = pager.image(size="16M", seed=4)
        path = make_list(pager, image, range(4096))
        with pager.restore(image, "a", members={"hot_list": path}):
            pager.call("PATCH", "/config", {"prefetch": "off"})
            pager.log.wait(ENDED % "a")
            tap.is_(pager.show("a")["prefetch"]["state"], "stopped", "what runs stops")
            without(pager, image, "b", "option prefetch is off", hot_list=path)
            pager.call("PATCH", "/config", {"prefetch": "on"})
            without(pager, image, "c", "is recorded", hot_list=path, record=True)


def worker_dies():
    """In the middle: the adopter goes on where it was, and with what its VM has."""
    with pagerd.Pagerd(prefetch_rate="2M") as pager:
        image = pager.image(size="8M", seed=4)
        path = make_list(pager, image, range(2047, -1, -1))
        with pager.restore(image, "a", members={"hot_list": path}) as guest:
            pager.until(lambda: pager.show("a")["prefetch"]["filled"] > 100)
            os.kill(pager.worker_pid(), signal.SIGKILL)
            pager.log.wait("id=a: adopted by")
            pager.log.wait(ENDED % "a")
            prefetch = pager.show("a")["prefetch"]
            tap.is_((prefetch["state"], prefetch["left_out"]), ("done", 2048 // 128), "it is done")
            tap.ok(prefetch["filled"] + prefetch["present"] in range(2030, 2033),
                   "nothing is counted twice", prefetch)
            tap.is_(guest.cmd("verify")["wrong"], 0, "the guest is right")


def worker_dies_at_its_begin():
    with pagerd.Pagerd(worker_fault="PREFETCH_BEGIN=a!kill;") as pager:
        image = pager.image(size="8M", seed=7)
        path = make_list(pager, image, range(0, 2048, 2))
        mark = pager.log.mark()
        with pager.restore(image, "a", members={"hot_list": path}) as guest:
            # It may die before it has said that it serves: then the next one is given the VMM anew.
            pager.log.wait(r"child 2 v\S+ pid=\d+: HELLO", since=mark)
            pager.log.wait(ENDED % "a", since=mark)
            prefetch = pager.show("a")["prefetch"]
            tap.is_((prefetch["filled"], prefetch["left_out"]), (1024 - 1024 // 128, 1024 // 128),
                    "a worker that dies as it begins: the next one fills it all")
            tap.is_(guest.cmd("verify")["wrong"], 0, "every page right")


def ends_at_once():
    """A thread that fills ahead runs when nobody else wants to; but who closes a session, or moves
    it, does not wait for that."""
    with pagerd.Pagerd(worker_fault="PREFETCH_BEGIN=a!hold") as pager:
        image = pager.image(size="8M", seed=7)
        path = make_list(pager, image, range(2048))
        with pager.restore(image, "a", members={"hot_list": path}):
            pid = pager.worker_pid()
            pager.until(lambda: holds.is_held(pid), "no prefetch has begun")
            thread = holds.is_held(pid)
            if os.sched_getscheduler(thread) != os.SCHED_IDLE:
                raise tap.Skip("pagerd may not give its workers RLIMIT_NICE here")
            tap.ok(True, "it has the lowest priority")
            closing = pagerd.Pending(pager.close_session, "a")
            pager.until(lambda: os.sched_getscheduler(thread) == os.SCHED_OTHER, "it stays")
            holds.let_go(pid)
            tap.is_(closing.end()["outcome"], "closed", "closed meanwhile, it ends like any other")


def supervisor_restarts():
    with pagerd.Pagerd(prefetch_rate="2M") as pager:
        image = pager.image(size="8M", seed=4)
        path = make_list(pager, image, range(2048))
        with pager.restore(image, "a", members={"hot_list": path}) as guest:
            pager.stop(signal.SIGKILL)
            pager.start()
            prefetch = pager.wait("a", "serving")["prefetch"]
            tap.is_((prefetch["hot_list"], prefetch["pages"]), (path, 2048), "it is found again")
            os.kill(pager.worker_pid(), signal.SIGKILL)
            pager.log.wait("id=a: adopted by")
            pager.log.wait(ENDED % "a")
            tap.is_(pager.show("a")["prefetch"]["state"], "done", "and an adopter ends it")
            tap.is_(guest.cmd("verify")["wrong"], 0, "the guest is right")


def template():
    """Forks share its list: one that is recorded writes it, the next replays it."""
    with pagerd.Pagerd() as pager:
        image = pager.image(size="8M", seed=4)
        path = os.path.join(pager.images, "t.list")

        def fork(name, **members):
            session = pager.call("POST", "/sessions", dict(members, template="t", id=name))
            guest = vmm.Vmm(image, socket=session["socket_path"])
            pager.wait(name, "serving")
            return guest

        pager.call("PUT", "/templates/t", {"image": image.path, "hot_list": path})
        pager.call("POST", "/templates/t/promote")
        with fork("a", record=True) as guest:
            guest.cmd("touch rand count=300")
        pager.wait("a", "closed")
        tap.is_(pager.show("a")["recording"]["path"], path, "a fork records to its template's list")
        with fork("b"):
            pager.log.wait(ENDED % "b")
            prefetch = pager.show("b")["prefetch"]
            tap.is_((prefetch["hot_list"], prefetch["filled"]), (path, 300), "and another replays it")
            again = pager.call("POST", pager.path("b", "/record"))["recording"]["path"]
            tap.is_(again, path, "or records to it later")
        with fork("c", prefetch="off"):
            tap.is_(pager.show("c")["prefetch"]["state"], "none", "unless a fork is told not to")
        pager.wait("c", "closed")
        pager.wait("b", "closed")
        pager.call("POST", "/templates/t/demote")
        pager.call("PUT", "/templates/t", {"image": image.path, "hot_list": path, "prefetch": "off"})
        pager.call("POST", "/templates/t/promote")
        with fork("d"):
            tap.is_(pager.show("d")["prefetch"]["mode"], "off", "or the template is")


def unreadable():
    """An image that cannot be read fails the prefetch, and nothing else."""
    with pagerd.Pagerd(worker_fault="IMAGE_READ:0!err") as pager:
        image = pager.image(size="1M", seed=4)
        path = make_list(pager, image, range(16))
        session = pager.create(image.path, id="a", hot_list=path)
        with handshake.Memory(1 << 20) as memory, memory.connect(session["socket_path"]):
            pager.log.wait(ENDED % "a")
            session = pager.show("a")
            tap.is_((session["state"], session["prefetch"]["state"]), ("serving", "failed"),
                    "the session is served on")
            tap.like(session["prefetch"]["reason"], "Input/output", "the reason is there")
            tap.is_(session["pages"]["absent"], 256, "no page of anything else")


if __name__ == "__main__":
    tap.run(unusable, by_key, bad_requests, unwritable, sequential, under_fire, huge_pages,
            overlays, completed, switched_off, worker_dies, worker_dies_at_its_begin,
            ends_at_once, supervisor_restarts, template, unreadable)
