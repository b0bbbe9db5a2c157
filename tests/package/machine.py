# SPDX-License-Identifier: Apache-2.0
"""A minimal Debian of its own, booted with its own systemd as PID 1.

    with machine.Machine(directory) as debian:
        debian.run("apt-get", "install", "-y", "pagerd")

The bootstrapped tree is made once and kept as a tarball; each machine is a fresh copy.  What
runs in it is entered by nsenter, so it belongs to no unit of the machine."""
import os
import re
import select
import shutil
import signal
import socket
import subprocess
import time

SUITE = "bookworm"
MIRROR = "http://deb.debian.org/debian"
PATIENCE_S = 120
# Not on nspawn's list: it is the host of pagerd that is played here.  Without kcmp() systemd
# takes two descriptors of one file for the same and keeps only one of them.
SYSTEM_CALLS = ("userfaultfd process_madvise seccomp landlock_create_ruleset landlock_add_rule"
                " landlock_restrict_self kcmp")
LOCAL_ONLY = ["-o", "Dir::Etc::sourcelist=/etc/apt/sources.list.d/local.list",
              "-o", "Dir::Etc::sourceparts=-", "-o", "APT::Get::List-Cleanup=0"]


class MachineError(Exception):
    pass


def bootstrap(cache):
    """The tarball of the tree, with apt's lists in it."""
    tar = os.path.join(cache, "base-%s.tar" % SUITE)
    if os.path.exists(tar):
        return tar
    os.makedirs(cache, exist_ok=True)
    partial = tar + ".partial.tar"
    subprocess.run(["mmdebstrap", "--quiet", "--variant=minbase", "--skip=cleanup/apt",
                    "--include=systemd,systemd-sysv", SUITE, partial, MIRROR], check=True)
    os.rename(partial, tar)
    return tar


class Machine:
    def __init__(self, cache):
        self.cache = cache
        self.root = os.path.join(cache, "tree")
        self.archives = os.path.join(cache, "archives")
        self.console = open(os.path.join(cache, "console.log"), "wb")
        self.process = None
        self.leader = None
        shutil.rmtree(self.root, ignore_errors=True)
        os.makedirs(self.root)
        os.makedirs(self.archives, exist_ok=True)
        os.makedirs(self.path("/srv/apt"))
        subprocess.run(["tar", "-C", self.root, "-xf", bootstrap(cache)], check=True)
        with open(self.path("/etc/apt/sources.list.d/local.list"), "w", encoding="ascii") as f:
            f.write("deb [trusted=yes] file:/srv/apt ./\n")

    def path(self, inside):
        return self.root + inside

    # -- packages

    def publish(self, *packages):
        """Puts them into the machine's own archive, besides what is there."""
        for package in packages:
            shutil.copy(package, self.path("/srv/apt"))
        with open(self.path("/srv/apt/Packages"), "wb") as f:
            subprocess.run(["dpkg-scanpackages", "--multiversion", "."], stdout=f,
                           stderr=subprocess.DEVNULL, cwd=self.path("/srv/apt"), check=True)

    def fetch(self, *names):
        """What the packages depend on, from the network unless an earlier run fetched it:
        the machine has none."""
        shutil.copy("/etc/resolv.conf", self.path("/etc/resolv.conf"))
        into = self.path("/var/cache/apt/archives")
        for name in os.listdir(self.archives):
            shutil.copy(os.path.join(self.archives, name), into)
        for words in (["update"] + LOCAL_ONLY, ["install", "-y", "--download-only"] + list(names)):
            subprocess.run(["chroot", self.root, "apt-get", "-q"] + words, check=True,
                           stdout=self.console, stderr=self.console,
                           env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"})
        for name in os.listdir(into):
            if name.endswith(".deb"):
                shutil.copy(os.path.join(into, name), self.archives)

    def update(self):
        self.run("apt-get", "-q", "update", *LOCAL_ONLY)

    def apt(self, *words, check=True):
        return self.run("apt-get", "-q", "-y", *words, check=check)

    # -- life

    def boot(self):
        """Until its systemd says that it has booted."""
        path = os.path.join(self.cache, "notify")
        if os.path.exists(path):
            os.unlink(path)
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify:
            notify.bind(path)
            binds = ["--bind=" + dev for dev in ("/dev/kvm",) if os.path.exists(dev)]
            self.process = subprocess.Popen(
                ["systemd-nspawn", "--quiet", "--directory=" + self.root, "--boot",
                 "--register=no", "--keep-unit", "--machine=pagerd-package-test",
                 "--private-network", "--notify-ready=yes", "--console=pipe",
                 "--system-call-filter=" + SYSTEM_CALLS] + binds,
                stdin=subprocess.DEVNULL, stdout=self.console, stderr=self.console,
                env=dict(os.environ, NOTIFY_SOCKET=path, SYSTEMD_NSPAWN_UNIFIED_HIERARCHY="1"))
            ready = False
            while not (ready and self.leader):
                if not select.select([notify], [], [], PATIENCE_S)[0]:
                    raise MachineError("it does not boot; see " + self.console.name)
                text = notify.recv(4096).decode()
                match = re.search(r"^X_NSPAWN_LEADER_PID=(\d+)$", text, re.M)
                self.leader = int(match.group(1)) if match else self.leader
                ready = ready or re.search(r"^READY=1$", text, re.M)

    def enter(self, *argv):
        """The command that runs argv inside."""
        return ["nsenter", "--target", str(self.leader), "--all", "--root",
                "--wdns=/", "env", "-i",
                "PATH=/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL=C.UTF-8", "HOME=/root",
                "DEBIAN_FRONTEND=noninteractive"] + list(argv)

    def run(self, *argv, check=True, timeout=PATIENCE_S):
        done = subprocess.run(self.enter(*argv), stdin=subprocess.DEVNULL, text=True,
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False,
                              timeout=timeout)
        self.console.write(("\n$ %s\n%s[%d]\n" % (" ".join(argv), done.stdout,
                                                   done.returncode)).encode())
        self.console.flush()
        if check and done.returncode != 0:
            raise MachineError("%s ended with %d:\n%s" % (" ".join(argv), done.returncode,
                                                           done.stdout[-3000:]))
        return done

    def until(self, pattern, *argv):
        """Asks by argv until the answer is like pattern.  False: it never was."""
        end = time.monotonic() + PATIENCE_S
        while not re.search(pattern, self.text(*argv)):
            if time.monotonic() > end:
                return False
        return True

    def text(self, *argv, **options):
        return self.run(*argv, **options).stdout.strip()

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        if self.process and self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(30)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        self.console.close()
