#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
# builds: plain asan
"""Start, readiness, a worker on demand, and what confines that worker."""
import fcntl
import os
import select
import signal
import socket
import stat
import subprocess
import sys
import tempfile

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
import pagerd  # noqa: E402
import tap  # noqa: E402


def readiness():
    """--ready-fd is what pagerd.start() waits for; here the other protocol."""
    with tempfile.TemporaryDirectory() as directory:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
            path = os.path.join(directory, "notify")
            manager.bind(path)
            manager.settimeout(pagerd.DEADLINE_S)
            with pagerd.Pagerd(env={"NOTIFY_SOCKET": path}) as pager:
                said = [manager.recv(4096).decode(), manager.recv(4096).decode()]
                tap.like(said[0], r"^STATUS=ready; new sessions go to version %s$" % pagerd.VERSION,
                         "NOTIFY_SOCKET hears the status")
                tap.is_(said[1], "READY=1", "and READY=1")
                tap.ok(os.path.exists(pager.socket), "the admin socket is there by then")
                tap.is_(pager.stop(), 0, "SIGTERM ends it with 0")
                tap.is_(manager.recv(4096), b"STOPPING=1", "which NOTIFY_SOCKET hears, too")


def ready_fd():
    with pagerd.Pagerd(start=False) as pager:
        reader, writer = os.pipe()
        with subprocess.Popen(pager.argv() + ["--ready-fd", str(writer)], pass_fds=[writer],
                              stderr=subprocess.DEVNULL) as process:
            os.close(writer)
            tap.ok(select.select([reader], [], [], 30)[0], "--ready-fd becomes readable")
            tap.is_((os.read(reader, 10), os.read(reader, 10)), (b"\n", b""),
                    "by a newline, and is closed then")
            process.terminate()
        os.close(reader)


def sockets():
    with pagerd.Pagerd() as pager:
        modes = {name: oct(stat.S_IMODE(os.stat(os.path.join(pager.run, name)).st_mode))
                 for name in ("admin.sock", "sessions", "workers")}
        tap.is_(modes, {"admin.sock": "0o660", "sessions": "0o711", "workers": "0o711"},
                "modes of what is in the run directory")
        second = subprocess.run(pager.argv(), stderr=subprocess.PIPE, check=False, text=True)
        tap.is_(second.returncode, 70, "a second pagerd for the same directory does not start")
        tap.like(second.stderr, "another pagerd holds it; give this one another --run-dir",
                 "and says why")
        tap.is_(pager.call("GET", "/health")["status"], "ok", "the first is not disturbed")


def on_demand():
    with pagerd.Pagerd() as pager:
        row = pager.versions()[pagerd.VERSION]
        tap.is_((row["state"], row["pid"], row["current"], row["installed"]),
                ("not-running", None, True, True), "no worker before the first session")
        tap.is_(pager.worker_pids(), [], "and no process")
        image = pager.image(size="1M")
        session = pager.create(image.path, id="a")
        row = pager.versions()[pagerd.VERSION]
        tap.is_((row["state"], row["sessions"]), ("ready", 1), "the first session starts one")
        tap.is_(pager.worker_pids(), [row["pid"]], "which is this process")
        tap.ok({"no-new-privs", "no-caps", "seccomp", "own-uid"} <= set(row["sandbox"]),
               "it says how it is confined", row["sandbox"])
        tap.is_(session["state"], "created", "the session waits for its VMM")
        mode = os.stat(session["socket_path"]).st_mode
        tap.is_((stat.S_ISSOCK(mode), oct(stat.S_IMODE(mode))), (True, "0o600"),
                "on a socket that is its owner's alone")
        pager.create(image.path, id="b")
        tap.is_(len(pager.worker_pids()), 1, "a second session starts no second worker")


def confinement():
    with pagerd.Pagerd() as pager:
        image = pager.image(size="1M")
        with pager.restore(image, "a") as guest:
            pid = pager.worker_pid()
            tap.is_(guest.cmd("verify")["wrong"], 0, "a worker that serves:")
            confined(pager, pid)


def confined(pager, pid):
    status = pagerd.status_of(pid)
    uid = str(pagerd.WORKER_UID)
    tap.is_(status["Uid"].split(), [uid] * 4, "four uids, its own")
    tap.is_(status["Gid"].split(), [uid] * 4, "four gids")
    tap.is_(status["Groups"], "", "no group besides")
    for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"):
        tap.is_(int(status[name], 16), 0, "%s is empty" % name)
    tap.is_(status["NoNewPrivs"], "1", "no_new_privs")
    tap.is_(status["Seccomp"], "2", "a seccomp filter")
    mine = 1 << signal.SIGUSR1 - 1
    tap.is_(int(status["SigBlk"], 16) & ~mine, 0, "no signal is blocked but its own")
    for task in os.listdir("/proc/%d/task" % pid):
        with open("/proc/%d/task/%s/status" % (pid, task), encoding="utf-8") as f:
            text = f.read()
        tap.ok("Seccomp:\t2" in text and "CapEff:\t" + "0" * 16 in text,
               "thread %s is confined as well" % ("of the loop" if int(task) == pid else "of faults"))
    descriptors(pager, pid)
    tap.is_(os.stat("/proc/%d/maps" % pid).st_uid, 0,
            "not dumpable: in /proc it belongs to root")
    tap.is_(os.readlink("/proc/%d/cwd" % pid), "/", "in the root directory")
    tap.is_(os.getpgid(pid), pid, "in a process group of its own")
    with open("/proc/%d/environ" % pid, "rb") as f:
        tap.is_(f.read(), b"", "with an empty environment")
    with open("/proc/%d/cmdline" % pid, "rb") as f:
        tap.is_(f.read(), b"pager-worker\0--log-level=debug\0", "and these arguments")
    with open("/proc/%d/limits" % pid, encoding="ascii") as f:
        tap.like(f.read(), r"Max core file size\s+0\s+0", "no core file")


def descriptors(pager, pid):
    """Sockets, pipes, anonymous inodes, memfds: nothing leads into the file system but
    the image, which is open for reading."""
    fds = pagerd.fds_of(pid)
    tap.is_((fds[0], fds[1], fds[2][:5]), ("/dev/null", "/dev/null", "pipe:"),
            "standard input and output lead nowhere, stderr is a pipe")
    paths = {fd: name for fd, name in fds.items()
             if fd > 2 and name.startswith("/") and not name.startswith("/memfd:")}
    tap.is_(list(paths.values()), [os.path.join(pager.images, "i")],
            "of its descriptors one is a path: the image")
    for fd in paths:
        with open("/proc/%d/fdinfo/%d" % (pid, fd), encoding="ascii") as f:
            flags = int(next(line for line in f if line.startswith("flags:")).split()[1], 8)
        tap.is_(flags & os.O_ACCMODE, os.O_RDONLY, "read-only")
    kinds = [name.split(":")[0] for fd, name in fds.items() if fd > 4]
    tap.is_(kinds.count("anon_inode") >= 3 and "socket" in kinds, True,
            "the rest is of the session: %s" % sorted(set(kinds)))


def inherited_nothing():
    """Whoever starts pagerd may leave descriptors open in it."""
    with open("/etc/passwd", encoding="utf-8") as leaked:
        fd = fcntl.fcntl(leaked, fcntl.F_DUPFD, 30)
        os.set_inheritable(fd, True)
        with pagerd.Pagerd(start=False) as pager:
            reader, writer = os.pipe()
            pager.process = subprocess.Popen(pager.argv() + ["--ready-fd", str(writer)],
                                             pass_fds=[writer, fd], stderr=subprocess.DEVNULL)
            os.close(writer)
            os.read(reader, 1)
            os.close(reader)
            os.close(fd)
            image = pager.image(size="1M")
            pager.create(image.path, id="a")
            tap.ok("/etc/passwd" in pagerd.fds_of(pager.process.pid).values(),
                   "pagerd was started with a stray descriptor")
            tap.ok("/etc/passwd" not in pagerd.fds_of(pager.worker_pid()).values(),
                   "which its worker does not have")


if __name__ == "__main__":
    tap.needs_root()
    tap.run(readiness, ready_fd, sockets, on_demand, confinement, inherited_nothing)
