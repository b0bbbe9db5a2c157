#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""What packages run and put where: the scripts of packaging/libexec against a pagerd that serves
guests, `make install` and `make uninstall`."""
import os
import shutil
import signal
import subprocess
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
import pagerd  # noqa: E402
import tap  # noqa: E402
import vmm  # noqa: E402

V = pagerd.VERSION
LIBEXEC = os.path.join(vmm.TOP, "packaging", "libexec")
# As on a host without systemd, with what the administrator has written in /etc/default/pagerd.
ENTER = """[ ! -d /run/systemd ] || mount -t tmpfs none /run/systemd
mount -t tmpfs none /etc/default
[ -z "$DEFAULTS" ] || echo "$DEFAULTS" >/etc/default/pagerd
exec "$@"
"""


class Host(pagerd.Pagerd):
    """The scripts are beside its workers, as packages install them."""

    def __init__(self, **options):
        super().__init__(**options)
        for name in os.listdir(LIBEXEC):
            shutil.copy(os.path.join(LIBEXEC, name), self.dir)

    def script(self, name, *words, defaults="", **env):
        path = "%s:%s" % (os.path.abspath(vmm.BUILD), os.environ["PATH"])
        return subprocess.run(
            ["unshare", "-m", "sh", "-c", ENTER, "sh", os.path.join(self.dir, name)] + list(words),
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            check=False, timeout=vmm.DEADLINE_S,
            env=dict(os.environ, PATH=path, PAGERD_SOCKET=self.socket, DEFAULTS=defaults, **env))

    def current(self):
        return self.call("GET", "/versions")["current"]

    def version_of(self, session):
        return self.show(session)["version"]


def says(done, code, what, stdout="^$", stderr="^$"):
    tap.ok(done.returncode == code, "%s: %d" % (what, code), done)
    tap.like(done.stdout, stdout, "  and says on stdout what it should")
    tap.like(done.stderr, stderr, "  and on stderr")


def installed():
    other, path = pagerd.other_version()
    with Host() as host:
        image = host.image(size="4M", seed=3)
        with host.restore(image, "a") as guest:
            says(host.script("worker-installed", V), 0, "the version that is current")
            host.install("0.0.1", path)
            says(host.script("worker-installed", "0.0.1"), 0, "an older one",
                 "^pagerd goes on with version %s of the worker, which is newer than 0.0.1$" % V)
            host.install(other + "-rc1", path)
            host.install(other, path)
            says(host.script("worker-installed", other, defaults="PAGERD_UPGRADE=none"), 0, "none")
            says(host.script("worker-installed", other, defaults="PAGERD_UPGRADE=perhaps"), 0,
                 "a word that is none", stderr="^PAGERD_UPGRADE=perhaps is not one of current, "
                 "handoff, none; nothing done$")
            tap.is_(host.current(), V, "so far nothing has changed")
            says(host.script("worker-installed", other), 0, "a newer one",
                 "^new sessions go to %s; they went to %s$" % (other, V))
            tap.is_((host.current(), host.version_of("a")), (other, V),
                    "is current, and the sessions stay")
            says(host.script("worker-installed", other + "-rc1"), 0, "its release candidate",
                 "^pagerd goes on with version %s of the worker, which is newer" % other)
            host.install_fake("9.0.0", "bad=die on=start")
            says(host.script("worker-installed", "9.0.0"), 0, "one that does not start", "^$",
                 r"(?s)nothing has changed.*pagerd goes on with version %s of the worker; "
                 "to try again: pagerctl upgrade 9.0.0$" % other)
            tap.is_(host.current(), other, "leaves the fleet as it was")
            host.call("POST", "/upgrade", {"version": V})
            says(host.script("worker-installed", other, defaults="PAGERD_UPGRADE=handoff"), 0,
                 "handoff", "1 session")
            tap.is_((host.current(), host.version_of("a")), (other, other), "moves the sessions, too")
            tap.is_(guest.cmd("verify")["wrong"], 0, "the guest reads what it should")
    with Host(start=False) as host:
        says(host.script("worker-installed", V), 0, "without a pagerd nothing is done")


def removing():
    other, path = pagerd.other_version()
    with Host() as host:
        image = host.image(size="4M", seed=4)
        host.create(image.path, id='odd "id", \\ x')
        with host.restore(image, "b") as guest:
            done = host.script("worker-removing", V)
            says(done, 1, "a version that serves is not removed", "^$",
                 r"^version %s of the worker still serves 2 sessions; not removed:\n  odd.*x\n  b\n"
                 r"Let them end .*or move them:\n  pagerctl handoff --from %s --to VERSION$" % (V, V))
            says(host.script("pagerd-removing"), 1, "nor is pagerd", "^$",
                 "^pagerd still serves 2 sessions; not removed:\n")
            os.kill(host.process.pid, signal.SIGSTOP)
            says(host.script("pagerd-removing", WANTS_S="1"), 1, "no answer is no permission", "^$",
                 "pagerd does not run, but its workers still serve")
            os.kill(host.process.pid, signal.SIGCONT)
            host.stop()
            says(host.script("worker-removing", V), 1, "nor one that serves without a pagerd", "^$",
                 r"does not run, but its workers still serve sessions; not removed\.\n"
                 r"Processes: \d+ \n")
            host.start()
            host.install(other, path)
            says(host.script("upgrade-settled", V), 0, "all is on one version: settled")
            says(host.script("upgrade-settled", other), 1, "not on the other",
                 r"^version %s still has 2 sessions\nnew sessions go to %s\n" % (V, V))
            guest.cmd("verify")
            host.complete("b")
        host.close_session('odd "id", \\ x')
        worker = host.worker_pid()
        says(host.script("worker-removing", V), 0, "the current version, when it is empty",
             "^new sessions go to %s; they went to %s$" % (other, V))
        tap.ok(not worker or pagerd.wait_gone(worker), "its worker has gone")
        shutil.rmtree(os.path.join(host.workers, V))
        says(host.script("upgrade-settled", other), 0, "the other has all there is")
        says(host.script("worker-removing", other), 0, "the last version", "^$",
             "^version %s is the last worker: new sessions will be refused$" % other)
        says(host.script("pagerd-removing"), 0, "pagerd, when nothing is served")
        host.stop()
        says(host.script("upgrade-settled", V), 1, "without a pagerd nothing is settled",
             r"new sessions go to \(pagerd does not answer\)", "does not answer")


def files_below(root):
    return sorted(os.path.relpath(os.path.join(directory, name), root)
                  for directory, _, names in os.walk(root) for name in names)


def make(*words):
    env = {k: v for k, v in os.environ.items() if k not in ("MAKEFLAGS", "MAKELEVEL", "MFLAGS")}
    build = os.path.relpath(vmm.BUILD, vmm.TOP) if vmm.BUILD.startswith(vmm.TOP) else vmm.BUILD
    return subprocess.run(["make", "-s", "-C", vmm.TOP, "--no-print-directory", "B=" + build,
                           "CC=" + pagerd.build_flags().partition(" -D")[0]] + list(words),
                          stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, text=True, check=False, env=env)


def made():
    """With the prefix that the build has: another would build it anew."""
    with pagerd.Pagerd(start=False) as host:
        root = os.path.join(host.dir, "root")
        done = make("install", "DESTDIR=" + root)
        tap.is_((done.returncode, done.stdout), (0, ""), "make install DESTDIR=")
        found = files_below(root)
        for name in ("usr/local/sbin/pagerd", "usr/local/bin/pagerctl", "etc/pagerd/pagerd.conf",
                     "usr/local/libexec/pagerd/workers/%s/pager-worker" % V,
                     "usr/local/share/man/man8/pagerd.8", "usr/local/lib/tmpfiles.d/pagerd.conf",
                     "usr/local/share/doc/pagerd/openapi.yaml"):
            tap.ok(name in found, "  brings " + name, found)
        with open(os.path.join(root, "usr/local/lib/systemd/system/pagerd.service"),
                  encoding="ascii") as f:
            tap.like(f.read(), r"(?m)^ExecStart=/usr/local/sbin/pagerd --config /etc/pagerd/",
                     "the unit starts what was installed")
        checked = subprocess.run(
            [os.path.join(root, "usr/local/sbin/pagerd"), "--worker-user", "64321", "--admin-group",
             "0", "--config", os.path.join(root, "etc/pagerd/pagerd.conf"), "--check-config"],
            stderr=subprocess.PIPE, text=True, check=False)
        tap.is_(checked.returncode, 0, "the configuration that is installed is right")
        config = os.path.join(root, "etc/pagerd/pagerd.conf")
        with open(config, "a", encoding="ascii") as f:
            f.write("max-sessions = 7\n")
        make("install", "DESTDIR=" + root)
        with open(config, encoding="ascii") as f:
            tap.like(f.read(), "max-sessions = 7", "installed again, it keeps the configuration")
        other = os.path.join(root, "usr/local/libexec/pagerd/workers/0.0.1")
        os.mkdir(other)
        done = make("uninstall", "DESTDIR=" + root)
        tap.is_((done.returncode, done.stdout), (0, ""), "make uninstall DESTDIR=")
        tap.is_(files_below(root), ["etc/default/pagerd", "etc/pagerd/pagerd.conf"],
                "leaves the configuration alone")
        tap.ok(os.path.isdir(other), "and other versions")
        os.rmdir(other)
        make("uninstall", "DESTDIR=" + root)
        tap.ok(not os.path.exists(os.path.join(root, "usr/local/libexec/pagerd")),
               "the last takes the directory along")


def told_of_mistakes():
    """--check-config, and what pagerd says at its start of what is not there."""
    with pagerd.Pagerd(start=False) as host:
        def check(*words):
            return subprocess.run([pagerd.program("pagerd"), "--check-config", "--worker-user",
                                   "64321"] + list(words), stdout=subprocess.PIPE,
                                  stderr=subprocess.PIPE, text=True, check=False)

        says(check("--image-root", host.images), 0, "what is right")
        for words, why in ((["--worker-user", "nobody-of-that-name"], "there is no such user"),
                           (["--worker-user", "root"], "a worker must not be root"),
                           (["--admin-group", "none-of-that-name"], "there is no such group"),
                           (["--image-root", "snapshots"], '"snapshots" is not an absolute path'),
                           (["--config", host.dir + "/none"], "No such file or directory")):
            says(check(*words), 2, " ".join(words), stderr=why)
        says(check("--image-root", host.dir + "/none"), 0, "a root that is not there is no mistake",
             stderr="image-root %s/none: No such file or directory; no image below it" % host.dir)
        host.roots.append(host.dir + "/later")
        host.start()
        host.log.wait("image-root .*/later: No such file or directory")
        os.mkdir(host.dir + "/later")
        mark = host.log.mark()
        host.process.send_signal(signal.SIGHUP)
        host.log.wait("reload: done", since=mark)
        host.turn()
        tap.is_(host.log.find("image-root", since=mark), None, "nor is it said once it is there")


def closed_descriptors():
    """Whatever is missing of 0, 1 and 2 at the start, no file or socket takes its number."""
    with pagerd.Pagerd(start=False) as host:
        ready_read, ready_write = os.pipe()
        process = subprocess.Popen(
            ["sh", "-c", 'exec "$@" 0<&- 1>&- 2>&-', "sh"] + host.argv() +
            ["--ready-fd", str(ready_write)], pass_fds=[ready_write])
        os.close(ready_write)
        try:
            tap.is_(os.read(ready_read, 1), b"\n", "pagerd starts without any")
            fds = pagerd.fds_of(process.pid)
            tap.is_([fds.get(n) for n in range(3)], ["/dev/null"] * 3, "and has none of its own there")
            image = host.image(size="1M")
            host.create(image.path, id="a")
            tap.is_(host.show("a")["state"], "created", "and serves")
            done = subprocess.run(["sh", "-c", 'exec "$@" 1>&-', "sh", pagerd.program("pagerctl"),
                                   "--socket", host.socket, "show", "a"], check=False,
                                  stderr=subprocess.PIPE, text=True)
            tap.is_(done.returncode, 1, "pagerctl without an output fails")
            tap.like(done.stderr, "the output could not be written", "and says why")
        finally:
            os.close(ready_read)
            process.kill()
            process.wait()


if __name__ == "__main__":
    tap.needs_root()
    tap.run(installed, removing, made, told_of_mistakes, closed_descriptors)
