#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
# builds: plain asan
"""pagerctl pause: the balloon gives back what the guest does not use and never fails a pause, the
VM is paused, a snapshot is written and restored from."""
import json
import os
import signal
import subprocess
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
import firecracker  # noqa: E402
import pagerd  # noqa: E402
import pages  # noqa: E402
import tap  # noqa: E402
import vmm  # noqa: E402

OK, FAILED, USAGE, UNREACHABLE, NOT_FOUND, TIMEOUT, CONFLICT = range(7)
STATUS = "GET /balloon/hinting/status"
START = "PATCH /balloon/hinting/start"
STOP = "PATCH /balloon/hinting/stop"
# The time may be over between two questions or during one.
LATE = "stopped: (the guest|Firecracker) had not answered in time"


def restored(pager, image, session_id="a", **script):
    """A Firecracker whose VM runs and is served."""
    fc = firecracker.Fake(pager, image, **script)
    done = pager.ctl("restore", *fc.restore(), "--id", session_id)
    if done.returncode != OK:
        fc.kill()
        raise RuntimeError(done.stderr)
    return fc


def pause(pager, fc, *words):
    return pager.ctl("--json", "pause", "--api-sock", fc.socket, *words)


def step(done, name):
    """(outcome, detail) of a step."""
    found = [(s["outcome"], s.get("detail")) for s in json.loads(done.stdout)["steps"]
             if s["step"] == name]
    return found[0] if found else None


def paused():
    with pagerd.Pagerd() as pager:
        image = pager.image(size="4M", seed=5)
        with restored(pager, image) as fc:
            done = pager.ctl("pause", "--api-sock", fc.socket)
            tap.is_((done.returncode, done.stderr), (OK, ""), "pause")
            tap.like(done.stdout, r"^the VM is paused after [\d.]+ [mu]s\n$", "  and says so")
            tap.is_(fc.requests()[-2:], ["GET /", "PATCH /vm"], "a look and a pause")
            tap.is_(fc.body("PATCH /vm"), {"state": "Paused"}, "Paused")
            again = pause(pager, fc, "--balloon")
            tap.is_((again.returncode, step(again, "pause")), (OK, None), "paused already: fine")
            tap.is_(step(again, "balloon"), ("skipped", "skipped: the VM is paused already"),
                    "whose balloon would not be answered")
        with firecracker.Fake(pager, image) as fc:
            done = pager.ctl("pause", "--api-sock", fc.socket)
            tap.is_(done.returncode, CONFLICT, "no VM")
            tap.like(done.stderr, "pause failed at firecracker: .*no VM that runs: it is Not star",
                     "  and says so")
        done = pager.ctl("pause", "--api-sock", fc.socket)
        tap.is_(done.returncode, UNREACHABLE, "no Firecracker")


def balloon_runs():
    """However a run looks, with counters of an earlier one in the snapshot."""
    old = {"host_cmd": 2, "guest_cmd": 0, "last_cmd": 2}
    acknowledged = {"host_cmd": 1, "guest_cmd": 0, "last_cmd": 7}
    midway = {"host_cmd": 3, "guest_cmd": 3, "last_cmd": 3}
    with pagerd.Pagerd() as pager:
        image = pager.image(size="4M", seed=5)
        for what, counters in (("no", {}), ("an old", old), ("an acknowledged", acknowledged),
                               ("a running", midway)):
            for run, polls in (("normal", 3), ("instant", 1), ("no-ack", 2)):
                with restored(pager, image, what + run, balloon={"hinting": True, "run": run},
                              discard=200, **counters) as fc:
                    mark = fc.log.mark()
                    done = pause(pager, fc, "--balloon", "--balloon-timeout", "2m")
                    tap.is_((done.returncode, json.loads(done.stdout)["drained"]), (OK, True),
                            "a %s run after %s earlier one" % (run, what))
                    tap.is_(fc.requests().count(STATUS), polls, "  asked until it was over")
                    tap.ok(STOP not in fc.requests() and fc.log.find("discarded: ok", mark),
                           "  and it needed no stop")
                    removed = pager.show(what + run)["pages"]["removed"]
                    tap.is_(removed, 200, "  what the guest gave back is known")


def balloon_never_fails():
    """A stuck guest, and each request of it going wrong."""
    with pagerd.Pagerd() as pager:
        image = pager.image(size="4M", seed=5)
        hints = {"hinting": True, "run": "stuck"}
        for name, script, why, stops in (
                ("stuck", {}, LATE, True),
                ("old counters", {"host_cmd": 9, "guest_cmd": 0, "last_cmd": 9}, LATE, True),
                ("none", {"balloon": False}, "skipped: Firecracker says: Balloon error", False),
                ("no hinting", {"balloon": {"hinting": False}},
                 "skipped: the balloon has no free_page_hinting", False),
                ("old", {"version": "1.12.0"}, "the balloon has no free_page_hinting", False),
                ("refused", {"at": {START: "No"}}, "skipped: Firecracker says: No", False),
                ("lost", {"at": {START: "hang-up"}}, "stopped: Firecracker hung up", True),
                ("status", {"at": {STATUS: "No"}}, "stopped: Firecracker says: No", True),
                ("garbage", {"at": {STATUS: "garbage"}}, "stopped: what answers on", True),
                ("mute", {"at": {STATUS: "mute"}}, "stopped: Firecracker had not answered", True),
                ("no stop", {"at": {STOP: "No"}}, "could not be stopped: Firecracker says: No",
                 True)):
            with restored(pager, image, name, **dict({"balloon": hints}, **script)) as fc:
                limit = "2s" if name in ("stuck", "old counters", "mute", "no stop") else "2m"
                done = pause(pager, fc, "--balloon", "--balloon-timeout", limit)
                answer = json.loads(done.stdout)
                tap.is_((done.returncode, answer["paused"], answer["drained"]), (OK, True, False),
                        "balloon: %s" % name)
                tap.is_(step(done, "balloon")[0], "skipped", "  which is skipped")
                tap.like(step(done, "balloon")[1], why, "  and it is said")
                tap.is_((STOP in fc.requests(), fc.requests()[-1]), (stops, "PATCH /vm"),
                        "  %s" % ("it is stopped, then paused" if stops else "and paused"))


def snapshot():
    with pagerd.Pagerd() as pager:
        image = pager.image(size="4M", seed=5, holes=100)
        with restored(pager, image, discard=100) as fc:
            written = fc.cmd("write rand count=300")["written"]
            tap.is_(written, 300, "the guest has written")
            state, memory = (os.path.join(pager.images, n) for n in ("s.state", "s.mem"))
            words = ["--snapshot", state, "--mem", memory]
            done = pause(pager, fc, "--balloon", "--balloon-timeout", "2m", *words, "--resume")
            tap.is_((done.returncode, [s["step"] for s in json.loads(done.stdout)["steps"]]),
                    (OK, ["firecracker", "balloon", "pause", "snapshot", "resume"]),
                    "a snapshot in passing")
            tap.is_(fc.body("PUT /snapshot/create"), {
                "snapshot_type": "Full", "snapshot_path": state, "mem_file_path": memory},
                    "asked for as it should be")
            tap.is_(fc.cmd("verify")["wrong"], 0, "the guest goes on")
            with open(memory, "rb") as f, open(image.path, "rb") as g:
                one, other = f.read(), g.read()
            tap.is_(len(one), len(other), "its memory is written")
            same = sum(one[i:i + 4096] == other[i:i + 4096] for i in range(0, len(one), 4096))
            tap.ok(1024 - 300 - 100 <= same < 1024 - 250, "but for what it changed", same)
            for target, what in ((image.path, "the image that it is served from"),
                                 (os.path.join(pager.images, "link"), "another name of it")):
                if not os.path.exists(target):
                    os.link(image.path, target)
                mark = len(fc.requests())
                done = pause(pager, fc, "--snapshot", state, "--mem", target)
                tap.is_((done.returncode, fc.requests()[mark:]), (CONFLICT, ["GET /"]),
                        "a snapshot over %s is refused before the pause" % what)
                tap.like(done.stderr, "is the image of session a, whose memory it would change; the VM may",
                         "  and it is said why")
            still = pager.image("still", size="4M", seed=6)
            pager.call("PUT", "/templates/t", {"image": still.path})
            done = pause(pager, fc, "--snapshot", state, "--mem", still.path)
            tap.is_(done.returncode, CONFLICT, "nor is it written over the image of a template")
        with open(image.path, "rb") as g:
            tap.ok(g.read() == other, "nothing was written to it")


class Guest:
    """The process of a VM, for pages.memory()."""

    def __init__(self, fc):
        self.pid = fc.vmm_pid()


def is_memory_of(path, fc, pager, what):
    """Every page of the file is the guest's, which stands still."""
    guest = Guest(fc)
    with open(path, "rb") as f:
        data = f.read()
    wrong = []
    for region in pager.show("a")["regions"]:
        memory = pages.memory(guest, region["host_addr"], region["size"])
        wrong += [at // 4096 for at in range(0, len(memory), 4096)
                  if memory[at:at + 4096] !=
                  data[region["offset"] + at:region["offset"] + at + 4096]]
    tap.is_(wrong[:10], [], what)


def changes():
    """A diff: the image, what the guest wrote, and nothing where it gave memory back."""
    with pagerd.Pagerd() as pager:
        image = pager.image(size="8M", seed=5, holes=100)
        with firecracker.Fake(pager, image, discard=200) as fc:
            pager.ctl("restore", *fc.restore(), "--id", "a", "--cluster-max", "4K")
            state, memory = (os.path.join(pager.images, n) for n in ("d.state", "d.mem"))
            words = ["--snapshot", state, "--mem", memory, "--diff", "--id", "a", "--resume"]
            drain = ["--balloon", "--balloon-timeout", "2m"]
            fc.cmd("touch rand count=900 seed=1")
            fc.cmd("write rand count=300 seed=2")
            done = pause(pager, fc, *words, *drain)
            tap.is_((done.returncode, [s["step"] for s in json.loads(done.stdout)["steps"]]),
                    (OK, ["firecracker", "balloon", "base", "pause", "pages", "snapshot",
                          "resume"]), "--diff")
            tap.is_(step(done, "pages"), ("done", "800 KiB that the VM gave back are empty"),
                    "  which knows what was given back")
            tap.is_(fc.body("PUT /snapshot/create")["snapshot_type"], "Diff", "  asked for")
            absent = pager.show("a")["pages"]["absent"]
            tap.ok(absent > 500, "  and does not fill the guest's memory", absent)
            is_memory_of(memory, fc, pager, "it is the guest's memory")
            fc.cmd("write seq count=100")
            fc.cmd("write rand count=200 seed=3")
            done = pause(pager, fc, *words, *drain)
            tap.ok(done.returncode == OK and "of a snapshot before" in step(done, "base")[1],
                   "another, over the first", done.stdout)
            is_memory_of(memory, fc, pager, "it is the guest's memory, written and given back again")
            tap.is_(fc.cmd("verify")["wrong"], 0, "the guest is right")


def changes_refused():
    with pagerd.Pagerd() as pager:
        image = pager.image(size="4M", seed=5)
        with open(os.path.join(pager.images, "page"), "wb") as f:
            f.write(bytes(4096))
        memory = os.path.join(pager.images, "d.mem")
        words = ["--snapshot", os.path.join(pager.images, "s"), "--mem", memory, "--diff"]
        with restored(pager, image) as fc:
            done = pager.ctl("pause", "--api-sock", fc.socket, *words)
            tap.is_(done.returncode, NOT_FOUND, "no session of that process")
            tap.like(done.stderr, "no session serves process %d: name it by --id" % fc.pid, "  said")
            with open(memory, "wb") as f:
                f.write(b"something else")
            done = pager.ctl("pause", "--api-sock", fc.socket, *words, "--id", "a")
            tap.is_(done.returncode, CONFLICT, "a file of another size")
            tap.like(done.stderr, "d.mem is not of the image's size; the VM may be running", "  said")
            tap.is_(os.path.getsize(memory), 14, "  and left alone")
            os.unlink(memory)
            tap.ok("PATCH /vm" not in fc.requests()[3:], "nothing was paused for it")
        with restored(pager, image, "b", at={"PUT /snapshot/create": "Disk is full"}) as fc:
            done = pager.ctl("pause", "--api-sock", fc.socket, *words, "--id", "b")
            tap.is_((done.returncode, os.path.exists(memory)), (FAILED, False),
                    "a copy that became no snapshot is gone")
            with open(memory, "wb") as f:
                f.truncate(4 << 20)
            done = pager.ctl("pause", "--api-sock", fc.socket, *words, "--id", "b")
            tap.like(done.stderr, "d.mem is a snapshot no more", "one that was there is not, and said")
            os.unlink(memory)
        with firecracker.Fake(pager, image) as fc:
            pager.ctl("restore", *fc.restore(), "--id", "c", "--overlay",
                      "64K:" + os.path.join(pager.images, "page"))
            done = pager.ctl("pause", "--api-sock", fc.socket, *words, "--id", "c")
            tap.is_((done.returncode, os.path.exists(memory)), (CONFLICT, False),
                    "a session with overlays")


def snapshot_fails():
    with pagerd.Pagerd() as pager:
        image = pager.image(size="4M", seed=5)
        state, memory = (os.path.join(pager.images, n) for n in ("s.state", "s.mem"))
        words = ["--snapshot", state, "--mem", memory]
        create = "PUT /snapshot/create"
        for name, what, code, why in (
                ("refused", "Disk is full", FAILED, "Firecracker says: Disk is full"),
                ("mute", "mute", TIMEOUT, "Firecracker had not answered in time"),
                ("dies", "die", UNREACHABLE, "Firecracker hung up before")):
            with restored(pager, image, name, at={create: what}) as fc:
                done = pager.ctl("pause", "--api-sock", fc.socket, *words, "--timeout",
                                 "2s" if code == TIMEOUT else "2m")
                tap.is_(done.returncode, code, "a snapshot that fails: %s" % name)
                tap.like(done.stderr, "pause failed at snapshot: %s.*; the VM is paused" % why,
                         "  and says what state the VM is in")
        with restored(pager, image, "again", at={create: "Disk is full"}) as fc:
            done = pause(pager, fc, *words, "--resume")
            answer = json.loads(done.stdout)
            tap.is_((done.returncode, answer["paused"], answer["failed_step"]),
                    (FAILED, False, "snapshot"), "with --resume the VM runs again")
            tap.is_(fc.cmd("verify")["wrong"], 0, "  and it does")
        with restored(pager, image, "alone") as fc:
            with open(memory, "ab"):
                pass
            done = pager.ctl("--socket", pager.dir + "/none", "pause", "--api-sock", fc.socket,
                             *words)
            tap.is_(done.returncode, UNREACHABLE, "a file that is there, and nobody to ask")
            tap.like(done.stderr, "pagerd does not say whether it serves it; name a new file",
                     "  is not written over")


def interrupted():
    with pagerd.Pagerd() as pager:
        image = pager.image(size="4M", seed=5)
        with restored(pager, image, balloon={"hinting": True, "run": "stuck"}) as fc:
            process = subprocess.Popen(
                [pagerd.program("pagerctl"), "pause", "--api-sock", fc.socket, "--balloon",
                 "--balloon-timeout", "1m"], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                text=True)
            fc.wait(STATUS)
            process.send_signal(signal.SIGTERM)
            out, err = process.communicate(timeout=pagerd.DEADLINE_S)
            tap.is_((process.returncode, out), (143, ""), "interrupted: 143")
            tap.like(err, "pause failed at balloon: it was interrupted; the VM may be running",
                     "  and says so")
            tap.ok(STOP in fc.requests() and fc.requests()[-1] != "PATCH /vm",
                   "  the hinting is stopped and nothing is paused", fc.requests())


def usage():
    with pagerd.Pagerd() as pager:
        for words, why in ((["--balloon"], "pause needs --api-sock PATH"),
                           (["--api-sock", "/a", "--mem", "/m"], "a snapshot needs both"),
                           (["--api-sock", "/a", "--snapshot", "/m"], "a snapshot needs both"),
                           (["--api-sock", "/a", "--resume"], "--resume needs --snapshot STATE"),
                           (["--api-sock", "/a", "--diff"], "--diff needs --snapshot STATE"),
                           (["--api-sock", "/a", "--id", "x"], "--id needs --diff"),
                           (["--api-sock", "/a", "--balloon-timeout", "1s"], "needs --balloon"),
                           (["--api-sock", "/a", "--timeout", "0s"], "must be more than 0")):
            done = pager.ctl("pause", *words)
            tap.is_(done.returncode, USAGE, "pause " + " ".join(words))
            tap.like(done.stderr, why, "  and says why")


def real():
    """With a Firecracker and a snapshot: FIRECRACKER=program FIRECRACKER_STATE= FIRECRACKER_MEM=."""
    program, state, memory = (os.environ.get(n) for n in (
        "FIRECRACKER", "FIRECRACKER_STATE", "FIRECRACKER_MEM"))
    if not program or not state or not memory:
        raise tap.Skip("FIRECRACKER, FIRECRACKER_STATE and FIRECRACKER_MEM name none")
    if not vmm.has_kvm():
        raise tap.Skip("no KVM")
    with pagerd.Pagerd(roots=[os.path.dirname(os.path.realpath(memory))]) as pager:
        with firecracker.Real(pager, program) as fc:
            done = pager.ctl("--json", "restore", "--api-sock", fc.socket, "--snapshot", state,
                             "--image", memory, "--id", "real")
            tap.is_(done.returncode, OK, "a real Firecracker is restored")
            tap.note(done.stdout + done.stderr)
            tap.is_(pager.show("real")["state"], "serving", "and served")
            out = [os.path.join(pager.dir, n) for n in ("state", "mem")]
            done = pause(pager, fc, "--balloon", "--snapshot", out[0], "--mem", out[1])
            tap.is_(done.returncode, OK, "and paused, and its snapshot written")
            tap.note(done.stdout + done.stderr)
            tap.is_(os.path.getsize(out[1]), os.path.getsize(memory), "in whole")


if __name__ == "__main__":
    tap.needs_root()
    tap.run(paused, balloon_runs, balloon_never_fails, snapshot, changes, changes_refused,
            snapshot_fails, interrupted, usage, real)
