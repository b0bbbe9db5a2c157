#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
# builds: plain asan
"""pagerctl restore: a Firecracker loads a snapshot and its memory is served, or it is said which
step failed and why, and no session is left."""
import json
import os
import signal
import socket
import subprocess
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
import firecracker  # noqa: E402
import pagerd  # noqa: E402
import tap  # noqa: E402

OK, FAILED, USAGE, UNREACHABLE, NOT_FOUND, TIMEOUT, CONFLICT = range(7)
VMM_UID = 64322


def fails(done, code, what, why):
    tap.ok(done.returncode == code, what, "%s\n%s%s" % (done.returncode, done.stdout, done.stderr))
    tap.like(done.stderr, "(?m)^pagerctl: restore failed at .*(%s)" % why, "  and says why")


def start(pager, *words):
    return subprocess.Popen([pagerd.program("pagerctl"), "--socket", pager.socket] + list(words),
                            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def served():
    with pagerd.Pagerd() as pager:
        image = pager.image(size="16M", seed=5, holes=100)
        with firecracker.Fake(pager, image) as fc:
            done = pager.ctl("restore", *fc.restore(), "--id", "a")
            tap.is_((done.returncode, done.stderr), (OK, ""), "restore")
            tap.like(done.stdout, r"^a runs after [\d.]+ m?s, served by %s\n$" % pagerd.VERSION,
                     "  and says what it has done")
            tap.is_(fc.requests(), ["GET /", "PUT /snapshot/load", "PATCH /vm"],
                    "a look, a load, a resume")
            session = pager.show("a")
            tap.is_(session["state"], "serving", "the session serves")
            tap.is_(fc.body("PUT /snapshot/load"), {
                "snapshot_path": fc.state, "resume_vm": False, "mem_backend": {
                    "backend_type": "Uffd", "backend_path": session["socket_path"]}},
                    "the load names state, backend and socket, and nothing that is new")
            tap.is_(fc.cmd("verify")["wrong"], 0, "the guest reads its memory")
            again = pager.ctl("restore", *fc.restore(), "--id", "b")
            fails(again, CONFLICT, "a Firecracker with a VM is refused",
                  "has a VM already, which is Running; a snapshot needs a fresh one")
            tap.is_([s["id"] for s in pager.call("GET", "/sessions")["sessions"]], ["a"],
                    "before a session is made")


def paused_as_json():
    with pagerd.Pagerd() as pager:
        image = pager.image(size="4M", seed=5)
        with firecracker.Fake(pager, image, version="1.16.0") as fc:
            done = pager.ctl("--json", "restore", *fc.restore(), "--no-resume", "--load",
                             '{"track_dirty_pages": true, "network_overrides": []}')
            answer = json.loads(done.stdout)
            tap.is_((done.returncode, done.stderr, answer["restored"], answer["backend"],
                     answer["firecracker"]), (OK, "", True, "uffd", "1.16.0"), "--json")
            tap.is_([(s["step"], s["outcome"]) for s in answer["steps"]],
                    [(s, "done") for s in ("firecracker", "session", "load", "serve")],
                    "the steps that there were")
            tap.ok(all(s["nanos"] > 0 for s in answer["steps"]) and
                   answer["nanos"] >= max(s["nanos"] for s in answer["steps"]), "with their times",
                   answer)
            tap.is_(fc.body("PUT /snapshot/load")["track_dirty_pages"], True, "--load is passed on")
            fc.send("verify")
            tap.is_(pager.show(answer["id"])["state"], "serving", "it serves")
            tap.ok("PATCH /vm" not in fc.requests(), "--no-resume")
            with pagerd.dial(fc.socket) as api:
                api.sendall(b'PATCH /vm HTTP/1.1\r\nContent-Length: 19\r\n\r\n'
                            b'{"state":"Resumed"}')
            tap.is_(fc.answer()["wrong"], 0, "the guest waited for the resume")


def of_another_user():
    with pagerd.Pagerd() as pager:
        image = pager.image(size="4M", seed=5)
        with firecracker.Fake(pager, image, uid=VMM_UID,
                              options=["--uffd-flags", "user-mode,syscall"]) as fc:
            done = pager.ctl("restore", *fc.restore(), "--id", "a")
            tap.is_((done.returncode, done.stderr), (OK, ""),
                    "the session is for the user who runs Firecracker")
            tap.ok(pager.log.find("id=a: CREATED for uid=%d " % VMM_UID), "whose socket it is")
            tap.is_(fc.cmd("verify")["wrong"], 0, "the guest reads its memory")


def in_a_jail():
    with pagerd.Pagerd() as pager:
        image = pager.image(size="4M", seed=5)
        with firecracker.Fake(pager, image, at={"PUT /snapshot/load": "as told"}) as fc:
            pager.ctl("restore", *fc.restore(), "--jail", fc.directory)
            body = fc.body("PUT /snapshot/load")
            tap.is_(body["snapshot_path"], "/vm.state", "--jail: paths are those of Firecracker")
            tap.like(body["mem_backend"]["backend_path"], "^%s/" % pager.run,
                     "what is not below it is as it is")


def no_session(pager, what="  and leaves no session"):
    live = [s["id"] for s in pager.call("GET", "/sessions")["sessions"] if not s["outcome"]]
    tap.is_(live, [], what)


def failing_steps():
    with pagerd.Pagerd() as pager:
        image = pager.image(size="4M", seed=5)
        short = pager.image("short", size="2M", seed=5)
        pager.create(image.path, id="s")  # starts the worker, which takes its time
        pager.close_session("s")
        for what, script, code, why in (
                ("GET /", "mute", TIMEOUT, "firecracker: Firecracker had not answered in time"),
                ("GET /", "garbage", UNREACHABLE, "firecracker: what answers on .* is not Fire"),
                ("GET /", "half", TIMEOUT, "firecracker: Firecracker had not answered in time"),
                ("GET /", "flood", UNREACHABLE, "firecracker: what answers on .* is not Fire"),
                ("GET /", "hang-up", UNREACHABLE, "firecracker: Firecracker hung up before"),
                ("PUT /snapshot/load", "mute", TIMEOUT,
                 "load: Firecracker had neither loaded the snapshot in time nor connected"),
                ("PUT /snapshot/load", "half", TIMEOUT, "load: Firecracker had neither loaded"),
                ("PUT /snapshot/load", "die", UNREACHABLE, "load: Firecracker hung up before"),
                ("PUT /snapshot/load", "bad \033[31mcolour", FAILED,
                 r"load: Firecracker says: bad \?\[31mcolour; session s is closed"),
                ("PATCH /vm", "Vcpu error", FAILED, "resume: Firecracker says: Vcpu error"),
                ("PATCH /vm", "die", UNREACHABLE, "resume: Firecracker hung up")):
            with firecracker.Fake(pager, image, at={what: script}) as fc:
                limit = "2s" if code == TIMEOUT else "2m"
                fails(pager.ctl("restore", *fc.restore(), "--id", "s", "--timeout", limit), code,
                      "%s: %.9r" % (what, script), why)
                no_session(pager)
        with firecracker.Fake(pager, image) as fc:
            words = fc.restore()
            os.unlink(fc.state)
            done = pager.ctl("--json", "restore", *words, "--id", "s")
            answer = json.loads(done.stdout)
            tap.is_((answer["restored"], answer["failed_step"], answer["closed"], answer["id"]),
                    (False, "load", True, "s"), "a failure as JSON")
            tap.like(answer["error"], "Failed to open snapshot file", "  with what Firecracker says")
            tap.is_(fc.process.wait(pagerd.DEADLINE_S), 148, "  which exits")
        for i in range(5):
            with firecracker.Fake(pager, image, fail_late="Invalid vCPU state") as fc:
                fails(pager.ctl("restore", *fc.restore(), "--id", "s"), FAILED,
                      "a load that fails late ends Firecracker and so the session",
                      "load: Firecracker says: .*: Invalid vCPU state; .*session s is closed")
        with firecracker.Fake(pager, image) as fc:
            words = fc.restore()
            words[words.index("--image") + 1] = short.path
            fails(pager.ctl("restore", *words, "--id", "s"), CONFLICT,
                  "a handshake that pagerd refuses", "load: session s has ended: refused")
            no_session(pager)
        with firecracker.Fake(pager, image) as fc:
            words = fc.restore()
            words[words.index("--image") + 1] = "/etc/passwd"
            fails(pager.ctl("restore", *words), FAILED, "an image that is no image",
                  "session: .*below no image root")
            tap.is_(fc.requests(), ["GET /"], "  before Firecracker is asked to load")
        fails(pager.ctl("restore", *words), UNREACHABLE, "no Firecracker",
              "firecracker: Firecracker does not answer on .*: Connection refused")


def usage():
    with pagerd.Pagerd() as pager:
        for words, why in (
                (["--snapshot", "/s", "--image", "/i"], "restore needs --api-sock PATH"),
                (["--api-sock", "/a", "--image", "/i"], "restore needs --snapshot STATE"),
                (["--api-sock", "/a", "--snapshot", "/s"], "restore needs --image MEM or --template"),
                (["--template", "t"], "restore takes --image or --template, and not both"),
                (["--fallback", "nfs"], "--fallback is file"),
                (["--timeout", "0"], "--timeout must be more than 0"),
                (["--vmm-uid", "root"], "root is no number"),
                (["--load", "[]"], "--load: it is no JSON object"),
                (["--load", "{"], "--load: "),
                (["--load", '{"resume_vm": true}'], "--load: resume_vm is for pagerctl to say")):
            words = (words if "/i" in words or "/s" in words else
                     words + ["--api-sock", "/a", "--snapshot", "/s", "--image", "/i"])
            done = pager.ctl("restore", *words)
            tap.is_(done.returncode, USAGE, " ".join(words[:2]))
            tap.like(done.stderr, "^pagerctl: .*%s" % why, "  and says why")


def pagerd_away():
    """It does not answer, or is restarted between the session and the load."""
    with pagerd.Pagerd() as pager:
        image = pager.image(size="4M", seed=5)
        with firecracker.Fake(pager, image) as fc:
            words = ["--socket", pager.dir + "/none", "restore", *fc.restore()]
            fails(pager.ctl(*words), UNREACHABLE, "no pagerd",
                  "session: pagerd does not answer on .*/none: No such file")
            done = pager.ctl(*words, "--fallback", "file")
            tap.is_(done.returncode, OK, "no pagerd, with --fallback file")
            tap.like(done.stdout, "^the VM runs after .*, on the file backend: it has no session\n",
                     "  and says so")
            tap.is_(fc.body("PUT /snapshot/load")["mem_backend"],
                    {"backend_type": "File", "backend_path": image.path}, "  maps the file")
            tap.is_(fc.cmd("verify")["wrong"], 0, "  and the guest reads its memory")
        with firecracker.Fake(pager, image, at={"PUT /snapshot/load": "mute"}) as fc:
            process = start(pager, "restore", *fc.restore(), "--id", "a")
            fc.wait("PUT /snapshot/load")
            pager.process.kill()
            pager.process.wait()
            pager.start()
            process.send_signal(signal.SIGINT)
            out, err = process.communicate(timeout=pagerd.DEADLINE_S)
            tap.is_((process.returncode, out), (130, ""), "interrupted: 130")
            tap.like(err, "restore failed at load: it was interrupted; session a is closed",
                     "  and closes the session with the pagerd that there is now")
            no_session(pager)


def falls_back():
    with pagerd.Pagerd() as pager:
        image = pager.image(size="4M", seed=5)
        with firecracker.Fake(pager, image, at={"PUT /snapshot/load": "die"}) as first:
            process = start(pager, "--json", "restore", *first.restore(), "--id", "a",
                            "--fallback", "file")
            first.process.wait(pagerd.DEADLINE_S)
            pager.wait("a", "closed")
            with firecracker.Fake(pager, image) as fc:
                out, err = process.communicate(timeout=pagerd.DEADLINE_S)
                answer = json.loads(out)
                tap.is_((process.returncode, err, answer["backend"]), (OK, "", "file"),
                        "--fallback file goes on with a Firecracker that is started again")
                tap.like(answer["fallback_from"], "^load: Firecracker hung up", "  and says why")
                tap.is_(fc.cmd("verify")["wrong"], 0, "  and the guest reads its memory")
        no_session(pager)
        with firecracker.Fake(pager, image, at={"PATCH /vm": "Vcpu error"}) as fc:
            done = pager.ctl("restore", *fc.restore(), "--id", "b", "--fallback", "file")
            tap.is_(done.returncode, FAILED, "one that lives and has a VM cannot fall back")
            tap.like(done.stderr, "restore failed at resume: Firecracker says: Vcpu error; "
                     "session b is closed", "  and what failed first is told")


def switched_to_file():
    """pagerd answers that the file backend is to be used; with a template it knows the file."""
    with pagerd.Pagerd(backend="file") as pager:
        image = pager.image(size="4M", seed=5)
        pager.call("PUT", "/templates/t", {"image": image.path})
        pager.call("POST", "/templates/t/promote")
        for words in (["--image", image.path], ["--template", "t"]):
            with firecracker.Fake(pager, image) as fc:
                words = ["restore", "--api-sock", fc.socket, "--snapshot", fc.state] + words
                fails(pager.ctl(*words), CONFLICT, "switched to file, %s" % words[-2],
                      "session: pagerd is switched to the file backend")
                done = pager.ctl(*words, "--fallback", "file")
                tap.ok(done.returncode == OK and "on the file backend" in done.stdout,
                       "  with --fallback file it is what happens", done.stderr)
                tap.is_(fc.body("PUT /snapshot/load")["mem_backend"],
                        {"backend_type": "File", "backend_path": image.path}, "  with its file")
                tap.is_(fc.cmd("verify")["wrong"], 0, "  and the guest reads its memory")
        pager.ctl("config", "backend=uffd")
        with firecracker.Fake(pager, image, at={"PUT /snapshot/load": "die"}) as fc:
            words = ["restore", "--api-sock", fc.socket, "--snapshot", fc.state, "--template", "t"]
            done = pager.ctl("--socket", pager.dir + "/none", *words, "--fallback", "file")
            tap.like(done.stderr, "no fallback: only pagerd knows the image of template t",
                     "a template without pagerd")
        with firecracker.Fake(pager, image) as fc:
            words = ["restore", "--api-sock", fc.socket, "--snapshot", fc.state, "--template", "t"]
            done = pager.ctl(*words, "--id", "fork")
            tap.is_((done.returncode, done.stderr), (OK, ""), "a template is restored")
            tap.is_((pager.show("fork")["template"], fc.cmd("verify")["wrong"]), ("t", 0),
                    "  as a fork of it")


def another_server():
    """An answer that only looks like pagerd's."""
    with pagerd.Pagerd() as pager:
        image = pager.image(size="4M", seed=5)
        path = os.path.join(pager.dir, "other")
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(path)
            listener.listen(8)
            for words, code, why in (
                    (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}", UNREACHABLE,
                     "session: what answers on .* is not pagerd"),
                    (b"HTTP/1.1 200 OK\r\nContent-Length: 18\r\n\r\n{\"backend\":\"file\"}", CONFLICT,
                     "session: pagerd is switched to the file backend")):
                with firecracker.Fake(pager, image) as fc:
                    process = subprocess.Popen(
                        [pagerd.program("pagerctl"), "--socket", path, "restore"] + fc.restore(),
                        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
                    connection, _ = listener.accept()
                    connection.recv(4096)
                    connection.sendall(words)
                    connection.close()
                    done = process.communicate(timeout=pagerd.DEADLINE_S)
                    tap.is_(process.returncode, code, "%.60r" % words[-20:])
                    tap.like(done[1], why, "  and says why")


if __name__ == "__main__":
    tap.needs_root()
    tap.run(served, paused_as_json, of_another_user, in_a_jail, failing_steps, usage, pagerd_away,
            falls_back, switched_to_file, another_server)
