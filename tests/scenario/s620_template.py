#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
# builds: plain asan
"""Templates: registered, promoted, forked from; protected while forks live, whoever dies."""
import json
import os
import shutil
import signal
import subprocess
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
import pagerd  # noqa: E402
import tap  # noqa: E402
import vmm  # noqa: E402

SIZE = "4M"


def put(pager, name, path, **members):
    return pager.call("PUT", "/templates/" + name, dict(members, image=path))


def show(pager, name):
    return pager.call("GET", "/templates/" + name)


def do(pager, name, what):
    return pager.call("POST", "/templates/%s/%s" % (name, what))


def refused(pager, method, path, status, code, pattern, body=None):
    got = pager.error_of(method, path, body)
    tap.is_(got[:2], (status, code), "%s %s: %d %s" % (method, path, status, code))
    tap.like(got[2], pattern, "says why")


def fork(pager, image, name, template="t"):
    """A guest that is served: the VMM of a fork."""
    session = pager.call("POST", "/sessions", {"template": template, "id": name})
    guest = vmm.Vmm(image, socket=session["socket_path"])
    pager.wait(name, "serving")
    return guest


def restart(pager):
    pager.pulse = None
    pager.stop(signal.SIGKILL)
    pager.log.thread.join(pagerd.DEADLINE_S)
    pager.process.stderr.close()
    pager.start()


def reload(pager):
    mark = pager.log.mark()
    pager.process.send_signal(signal.SIGHUP)
    pager.log.wait("reload: done", mark)


def life():
    with pagerd.Pagerd() as pager:
        image = pager.image(size=SIZE, seed=5)
        tap.is_(pager.call("GET", "/templates"), {"templates": []}, "at first there are none")
        answer = pager.request("PUT", "/templates/t", {"image": image.path, "cache_key": "k"})
        tap.is_((answer.status, answer.json["state"]), (201, "registered"), "registered: 201")
        tap.is_(pager.request("PUT", "/templates/t", {"image": image.path, "cache_key": "k"}).status,
                200, "once more: 200")
        refused(pager, "POST", "/sessions", 409, "state", "template t is not promoted",
                {"template": "t"})
        tap.is_(do(pager, "t", "promote")["state"], "promoted", "promoted")
        tap.is_(do(pager, "t", "promote")["state"], "promoted", "twice is once")
        with fork(pager, image, "a") as a, fork(pager, image, "b") as b:
            shown = [pager.show(name) for name in "ab"]
            tap.is_([(s["template"], s["image"], s["cache_key"]) for s in shown],
                    [("t", image.path, "k")] * 2, "forks share image and key")
            for guest in (a, b):
                tap.is_(guest.cmd("verify")["wrong"], 0, "a fork's memory is the image's")
            tap.is_((show(pager, "t")["forks"], show(pager, "t")["sessions"]), (2, ["a", "b"]),
                    "they are counted and named")
            tap.is_(pager.call("GET", "/templates")["templates"][0]["forks"], 2, "in the list too")
            refused(pager, "POST", "/templates/t/demote", 409, "busy", "2 live forks: a, b")
            refused(pager, "DELETE", "/templates/t", 409, "busy", "2 live forks: a, b")
            refused(pager, "PUT", "/templates/t", 409, "state", "demote it before",
                    {"image": image.path, "cache_key": "another"})
            pager.close_session("a")
            refused(pager, "POST", "/templates/t/demote", 409, "busy", "1 live fork: b;")
            pager.complete("b")
            tap.is_(show(pager, "t")["forks"], 0, "one that has graduated needs it no more")
        tap.is_(do(pager, "t", "demote")["state"], "registered", "demoted")
        put(pager, "t", image.path, cache_key="another")
        tap.is_(show(pager, "t")["cache_key"], "another", "changed")
        tap.is_(pager.call("DELETE", "/templates/t")["state"], "removed", "deleted")
        refused(pager, "GET", "/templates/t", 404, "not-found", "there is no template t")
        refused(pager, "POST", "/sessions", 404, "not-found", "there is no template t",
                {"template": "t"})


def restarts():
    with pagerd.Pagerd() as pager:
        image = pager.image(size=SIZE, seed=5)
        put(pager, "t", image.path)
        put(pager, "u", image.path, hot_list="/x/y", prefetch="off")
        do(pager, "t", "promote")
        before = [show(pager, name) for name in "tu"]
        with fork(pager, image, "a") as guest:
            restart(pager)
            tap.is_(show(pager, "t"), dict(before[0], forks=1, sessions=["a"]),
                    "after a restart it is promoted and its fork is counted")
            tap.is_(show(pager, "u"), before[1], "the other is as it was")
            tap.is_(pager.show("a")["template"], "t", "the fork knows its template")
            refused(pager, "DELETE", "/templates/t", 409, "busy", "1 live fork: a;")
            os.kill(pager.worker_pid(), signal.SIGKILL)
            refused(pager, "POST", "/templates/t/demote", 409, "busy", "1 live fork: a;")
            tap.is_(guest.cmd("verify")["wrong"], 0, "which is right")
        pager.wait("a", "closed")
        pager.call("POST", "/shutdown", {"force": True})
        pager.process.wait(pagerd.DEADLINE_S)
        pager.log.thread.join(pagerd.DEADLINE_S)
        pager.process.stderr.close()
        shutil.rmtree(pager.run)
        pager.pulse = None
        pager.start()
        tap.is_([show(pager, name) for name in "tu"], before, "after a reboot all is as it was")
        fork(pager, image, "c").kill()


def unrecorded():
    """A session whose record is lost may be a fork: nobody knows."""
    with pagerd.Pagerd() as pager:
        image, other = pager.image(size=SIZE, seed=5), pager.image("other", size=SIZE)
        for name, path in (("t", image.path), ("o", other.path)):
            put(pager, name, path)
            do(pager, name, "promote")
        with fork(pager, image, "a"):
            state = os.path.join(pager.run, "state")
            for name in [n for n in os.listdir(state) if n.endswith(".json")]:
                with open(os.path.join(state, name), "w", encoding="ascii") as f:
                    f.write("{")
            restart(pager)
            for _ in range(2):
                tap.is_(show(pager, "t")["forks"], 1, "it counts")
                refused(pager, "POST", "/templates/t/demote", 409, "busy",
                        r"1 live fork: unrecorded-\d+ \(which may be one\)")
                restart(pager)
            tap.is_(do(pager, "o", "demote")["state"], "registered",
                    "it is no fork of another image")
        pager.until(lambda: show(pager, "t")["forks"] == 0)
        tap.is_(do(pager, "t", "demote")["state"], "registered", "its end frees the template")


def damaged():
    with pagerd.Pagerd() as pager:
        image = pager.image(size=SIZE)
        for name in "abcdef":
            put(pager, name, image.path)
        directory = os.path.join(pager.state, "templates")
        mode = os.stat(directory).st_mode & 0o7777
        tap.is_(mode, 0o700, "records are nobody else's to read")
        path = {name: os.path.join(directory, name + ".json") for name in "abcdefg"}
        with open(path["a"], "r+", encoding="ascii") as f:
            f.truncate(50)
        with open(path["b"], "w", encoding="ascii"):
            pass
        os.rename(path["c"], path["g"])
        os.unlink(path["d"])
        os.symlink(path["f"], path["d"])
        os.unlink(path["e"])
        os.mkdir(path["e"])
        with open(os.path.join(directory, "README"), "w", encoding="ascii") as f:
            f.write("not a record")
        restart(pager)
        states = {t["name"]: t["state"] for t in pager.call("GET", "/templates")["templates"]}
        tap.is_(states, {"a": "damaged", "b": "damaged", "d": "damaged", "e": "damaged",
                         "f": "registered", "g": "damaged"}, "what cannot be read is damaged")
        tap.ok(show(pager, "a")["reason"], "and says why")
        for method, tail, body in (("PUT", "", {"image": image.path}), ("DELETE", "", None),
                                   ("POST", "/promote", None), ("POST", "/demote", None)):
            refused(pager, method, "/templates/a" + tail, 409, "damaged",
                    "%s: .*; repair or remove the file" % path["a"], body)
        refused(pager, "POST", "/sessions", 409, "damaged", path["b"] + ": it is empty",
                {"template": "b"})
        tap.is_(do(pager, "f", "promote")["state"], "promoted", "others can be used")
        os.unlink(path["a"])
        os.rename(path["g"], path["c"])
        reload(pager)
        states = {t["name"]: t["state"] for t in pager.call("GET", "/templates")["templates"]}
        tap.is_(states, {"b": "damaged", "d": "damaged", "e": "damaged", "f": "promoted"},
                "a reload looks again at what was damaged, and only at that")
        put(pager, "a", image.path)
        restart(pager)
        tap.is_([show(pager, name)["state"] for name in "acf"],
                ["registered", "registered", "promoted"], "the rest is found by a restart")


def changed():
    with pagerd.Pagerd() as pager:
        image = pager.image(size=SIZE, seed=5)
        put(pager, "t", image.path)
        do(pager, "t", "promote")
        before = os.stat(image.path)
        with open(image.path, "r+b") as f:
            f.truncate(1 << 20)
        refused(pager, "POST", "/sessions", 409, "changed", "has another size since",
                {"template": "t"})
        with open(image.path, "r+b") as f:
            f.truncate(before.st_size)
        os.utime(image.path, ns=(before.st_atime_ns, before.st_mtime_ns + 1))
        refused(pager, "POST", "/sessions", 409, "changed", "was written to since",
                {"template": "t"})
        shutil.copyfile(image.path, image.path + ".2")
        os.utime(image.path + ".2", ns=(before.st_atime_ns, before.st_mtime_ns))
        os.rename(image.path + ".2", image.path)
        refused(pager, "POST", "/sessions", 409, "changed", "is another file since",
                {"template": "t"})
        refused(pager, "PUT", "/templates/t", 409, "state", "demote it", {"image": image.path})
        tap.is_(pager.call("GET", "/sessions")["sessions"], [], "no session was made")
        do(pager, "t", "demote")
        put(pager, "t", image.path)
        do(pager, "t", "promote")
        tap.is_(pager.call("POST", "/sessions", {"template": "t"})["template"], "t",
                "registered again it can be forked")


def bad_requests():
    with pagerd.Pagerd() as pager:
        image = pager.image(size=SIZE)
        body = {"image": image.path}
        for name, status in ((".x", 400), ("%2e%2e", 400), ("a%2Fb", 400), ("a%20b", 400),
                             ("x" * 65, 400), ("x" * 64, 201), ("A.b_c-1", 201)):
            tap.is_(pager.request("PUT", "/templates/" + name, body).status, status,
                    "%s: %d" % (name[:8], status))
        for body, status, why in (
                ({}, 400, '"image" is missing'),
                ({"image": "i"}, 400, "is not absolute"),
                ({"image": "/etc/shadow"}, 403, "below no image root"),
                ({"image": pager.images + "/none"}, 404, "No such file"),
                ({"image": image.path, "hot_list": "x"}, 400, "hot list x is not absolute"),
                ({"image": image.path, "prefetch": 1}, 400, "must be a string"),
                ({"image": image.path, "prefetch": "x"}, 400, "on, off or sequential"),
                ({"image": image.path, "cache_key": ""}, 400, "1 to 127"),
                ({"image": image.path, "overlays": []}, 400, "no member")):
            got = pager.error_of("PUT", "/templates/t", body)
            tap.ok(got[0] == status and why in (got[2] or ""), "%d: %s" % (status, why), got)
        for body, why in (({}, '"image" is missing, or "template"'),
                          ({"template": "t", "image": image.path}, "exclude each other"),
                          ({"template": "t", "cache_key": "k"}, '"cache_key" is the template'),
                          ({"template": "t", "hot_list": "/h"}, '"hot_list" is the template'),
                          ({"template": ""}, "1 to 64 bytes"),
                          ({"template": 1}, "must be a string")):
            got = pager.error_of("POST", "/sessions", body)
            tap.ok(got[0] == 400 and why in got[2], "no session: %s" % why, got)
        tap.is_(pager.error_of("POST", "/templates/none/promote")[0], 404, "none to promote: 404")
        tap.is_(pager.error_of("DELETE", "/templates/none")[0], 404, "none to delete: 404")
        tap.is_(sorted(os.listdir(os.path.join(pager.state, "templates"))),
                sorted([".lock", "A.b_c-1.json", "x" * 64 + ".json"]), "no other record was written")


CLIENT = """import http.client, os, socket, sys
os.setgroups([0]); os.setresgid(12345, 12345, 12345); os.setresuid(12345, 12345, 12345)
c = http.client.HTTPConnection("x"); c.sock = socket.socket(socket.AF_UNIX)
c.sock.connect(sys.argv[1])
c.request(sys.argv[2], sys.argv[3], body=sys.argv[4])
a = c.getresponse(); print(a.status, a.read().decode())
"""


def not_readable():
    """A template gives nobody what they could not read themselves."""
    if os.geteuid() != 0:
        raise tap.Skip("takes root, to be somebody else")
    with pagerd.Pagerd(admin_group="0") as pager:
        image = pager.image(size=SIZE)
        os.chmod(image.path, 0o600)
        os.chmod(pager.socket, 0o666)
        put(pager, "t", image.path)
        do(pager, "t", "promote")
        for method, path, body in (("POST", "/sessions", {"template": "t"}),
                                   ("PUT", "/templates/u", {"image": image.path})):
            answer = subprocess.run(
                [sys.executable, "-c", CLIENT, pager.socket, method, path, json.dumps(body)],
                stdout=subprocess.PIPE, check=True, text=True).stdout
            tap.like(answer, "^403 .*may not be read by you", "%s %s by another user" % (
                method, path))
        tap.is_([t["name"] for t in pager.call("GET", "/templates")["templates"]], ["t"],
                "nothing was registered")


def state_directory():
    """Without it there are no templates, and everything else."""
    with pagerd.Pagerd() as pager:
        image = pager.image(size=SIZE)
        put(pager, "t", image.path)
        second = pagerd.Pagerd(start=False)
        second.state = pager.state
        with second:
            second.start()
            second.log.wait("another pagerd holds %s" % pager.state)
            refused(second, "GET", "/templates", 503, "resources", "another pagerd holds")
            refused(second, "PUT", "/templates/u", 503, "resources", "another --state-dir",
                    {"image": image.path})
            refused(second, "POST", "/sessions", 503, "resources", "another pagerd holds",
                    {"template": "t"})
            tap.is_(second.create(second.image(size=SIZE).path)["state"], "created",
                    "sessions are made")
        tap.is_(do(pager, "t", "promote")["state"], "promoted", "its owner goes on")
        os.chmod(os.path.join(pager.state, "templates"), 0o777)
        restart(pager)
        tap.is_(os.stat(os.path.join(pager.state, "templates")).st_mode & 0o7777, 0o700,
                "a mode that lets others in is put right")
        tap.is_(show(pager, "t")["state"], "promoted", "and the template is there")
    with pagerd.Pagerd(start=False) as pager:
        with open(pager.state, "w", encoding="ascii"):
            pass
        pager.start()
        refused(pager, "GET", "/templates", 503, "resources", "Not a directory")
    if os.geteuid() == 0:
        with pagerd.Pagerd(start=False) as pager:
            os.mkdir(pager.state)
            os.mkdir(os.path.join(pager.state, "templates"))
            os.chown(os.path.join(pager.state, "templates"), 12345, 12345)
            pager.start()
            refused(pager, "GET", "/templates", 503, "resources", "belongs to another user")


if __name__ == "__main__":
    tap.run(life, restarts, unrecorded, damaged, changed, bad_requests, not_readable,
            state_directory)
