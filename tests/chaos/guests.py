# SPDX-License-Identifier: Apache-2.0
"""The virtual machines of a chaos run: what each is made of, what it does all day, and
the proof, asked for after every kill, that it still runs and reads what it must."""
import subprocess
import time

import pagerd
import vmm

PATIENCE_S = 60
# Touches that take longer are told with their time.
STALL_US = 300

# From one page to 128 MiB.  Two regions lie around the gap below 4 GiB.  period and burst:
# so many pages each period, then rest; sixteen guests that never rest would measure the
# scheduler of two processors, and nothing else.
SHAPES = [
    {"size": "4K", "vcpus": 1, "regions": 1, "period": 3000, "burst": 1},
    {"size": "16M", "vcpus": 2, "regions": 2, "period": 2000, "burst": 2},
    {"size": "64M", "vcpus": 2, "regions": 1, "period": 2500, "burst": 2},
    {"size": "12K", "vcpus": 1, "regions": 2, "period": 3000, "burst": 1},
    {"size": "128M", "vcpus": 3, "regions": 2, "period": 3000, "burst": 2},
    {"size": "2M", "vcpus": 1, "regions": 1, "period": 1500, "burst": 2},
    {"size": "32M", "vcpus": 1, "regions": 1, "period": 1000, "burst": 1},
    {"size": "8M", "vcpus": 2, "regions": 2, "period": 4000, "burst": 8},
]
PAGE_BYTES = 4096


def pages_of(size):
    return int(size[:-1]) * {"K": 1 << 10, "M": 1 << 20}[size[-1]] // PAGE_BYTES


class Images:
    """One for each size: half of them with holes and zero pages, the large ones on tmpfs."""

    def __init__(self, pager):
        self.made = {}
        for i, size in enumerate(sorted({shape["size"] for shape in SHAPES}, key=pages_of)):
            has_gaps = i % 2
            self.made[size] = pager.image("%s.mem" % size, in_memory=pages_of(size) > 4096,
                                          size=size, seed=100 + i, holes=120 * has_gaps,
                                          zeros=80 * has_gaps)

    def __getitem__(self, size):
        return self.made[size]


class Lost(Exception):
    """A virtual machine that does not run any more, or was told a lie."""


class Guest:
    """A VMM and its session.  Commands may be outstanding while others are sent: answers
    are told apart by the command's name."""

    def __init__(self, storm, number, shape):
        self.storm = storm
        self.pager = storm.pager
        self.rng = storm.rng
        self.name = "g%d" % number
        self.shape = shape
        self.pages = pages_of(shape["size"])
        engines = vmm.engines()
        self.engine = engines[number // len(SHAPES) % len(engines)]
        self.vm = None
        self.is_live = False       # its session has said that it serves
        self.is_graduated = False
        self.is_loaded = False     # the background job runs
        self.outstanding = {}      # command name -> when it was sent
        self.wrong_words = 0
        self.completing = None

    def __str__(self):
        return "%s (%s, %d regions, %d vcpus, %s)" % (
            self.name, self.shape["size"], self.shape["regions"], self.shape["vcpus"], self.engine)

    # -- birth

    def create(self):
        """503 means later: it is what a client gets while the next start of a worker waits."""
        deadline = time.monotonic() + PATIENCE_S
        while True:
            try:
                return self.pager.create(self.storm.images[self.shape["size"]].path,
                                         id=self.name, handshake_timeout_ms=600000)
            except pagerd.ApiError as error:
                if error.status != 503 or time.monotonic() > deadline:
                    raise
                self.storm.result.counts["creates_repeated"] += 1

    def connect(self, session):
        self.vm = vmm.Vmm(self.storm.images[self.shape["size"]], socket=session["socket_path"],
                          vcpus=self.shape["vcpus"], regions=self.shape["regions"],
                          engine=self.engine)
        self.pager.wait(self.name, "serving", "%ds" % PATIENCE_S)
        self.is_live = True

    def restore(self):
        self.connect(self.create())
        return self

    # -- work

    def send(self, command):
        name = command.split()[0]
        self.vm.send(command)
        self.outstanding[name] = (time.monotonic(), command)

    def collect(self, timeout=PATIENCE_S):
        """The answers to all that is outstanding, by the command's name."""
        answers = {}
        deadline = time.monotonic() + timeout
        while self.outstanding:
            try:
                answer = self.vm.answer(max(0.001, deadline - time.monotonic()))
            except TimeoutError:
                raise Lost("no answer in %g s to: %s; %s" % (timeout, "; ".join(
                    c for _, c in self.outstanding.values()), self.tell_status())) from None
            except vmm.VmmError as error:
                raise Lost("the VMM says: %s %s" % (error, self.vm.stderr()[-500:])) from None
            name = answer["cmd"]
            if name == "stop":
                self.is_loaded = False
            if self.outstanding.pop(name, None) is None:
                raise Lost("an answer to nothing: %s" % answer)
            answers[name] = answer
        return answers

    def ask(self, command, timeout=PATIENCE_S):
        self.send(command)
        return self.collect(timeout)[command.split()[0]]

    def tell_status(self):
        """What its threads do, when it does not answer."""
        try:
            self.vm.send("status")
            end = time.monotonic() + 2
            while time.monotonic() < end:
                line = self.vm.line(2)
                if "cmd=status" in line:
                    return line
        except (TimeoutError, OSError, vmm.VmmError) as error:
            return "no status: %s" % error
        return "no status"

    def load(self):
        """Touches, checks and rewrites its pages from now on."""
        self.ask("start rand write seed=%d period=%d burst=%d stalls=%d" % (
            self.rng.randrange(1 << 30), self.shape["period"], self.shape["burst"], STALL_US))
        self.is_loaded = True

    def unload(self):
        if self.is_loaded:
            self.ask("stop")

    def discard_command(self):
        """A few pages here and there, or a run of them."""
        if self.rng.random() < 0.3 and self.pages > 64:
            count = self.rng.randrange(2, min(512, self.pages // 4))
            return "discard %d %d touch" % (self.rng.randrange(self.pages - count), count)
        return "discard rand count=%d seed=%d touch" % (
            self.rng.randrange(1, min(48, self.pages) + 1), self.rng.randrange(1 << 30))

    def busy_command(self):
        """A job that is under way when the kill comes."""
        count = self.rng.randrange(1, min(6000, self.pages) + 1)
        return "%s %s count=%d seed=%d" % (
            self.rng.choice(["touch", "write"]), self.rng.choice(["rand", "rand", "seq"]), count,
            self.rng.randrange(1 << 30))

    # -- proof

    def ask_for_life(self):
        """The first half of a proof, so that all guests are asked before any is waited for."""
        if not self.outstanding.keys() & {"touch", "write", "verify"}:
            if not self.is_loaded:
                self.load()
            self.send("pulse")
            if "discard" not in self.outstanding:
                self.send(self.discard_command())

    def prove_life(self):
        """Every vCPU has begun and ended a visit since it was asked, and a discard was read
        and its pages were served again.  Returns the long waits for one page, each as
        (not before, not after, seconds)."""
        waits = []
        sent = min([when for when, _ in self.outstanding.values()], default=0)
        answers = self.collect()
        for name in answers.keys() & {"touch", "write", "verify"}:
            waits.append((sent, time.monotonic(), answers[name]["max_us"] / 1e6))
            self.ask_for_life()
            answers.update(self.collect())
        if "discard" in answers:
            self.storm.result.discard_waits.append(answers["discard"]["max_us"] / 1e6)
        if "pulse" in answers:
            self.see_wrong(answers["pulse"]["total_wrong"])
        told = str(self.ask("stalls")["stalls"])
        for pair in [] if told == "-" else told.split(","):
            end, took = pair.split(":")
            waits.append(((int(end) - int(took)) / 1e6, int(end) / 1e6, int(took) / 1e6))
        return waits

    def see_wrong(self, words):
        if words > self.wrong_words:
            self.storm.result.wrong_bytes += (words - self.wrong_words) * 8
            self.wrong_words = words
            self.unload()  # only then are they described
            self.storm.result.fail(self.storm.tell(self, "wrong words: %d\n%s" % (
                words, self.vm.stderr()[-2000:])))

    def verify(self):
        """Every byte of every page."""
        self.unload()
        self.send("verify")
        self.collect(60)
        self.see_wrong(self.ask("status")["total_wrong"])

    # -- death

    def kill(self):
        if self.vm:
            self.vm.kill()
            self.vm.__exit__()
            self.vm = None

    def quit(self):
        try:
            self.vm.quit(PATIENCE_S)
        except subprocess.TimeoutExpired:
            raise Lost("the VMM does not quit") from None
        self.kill()

    def is_registered(self):
        """Whether its memory still needs a pager."""
        with open("/proc/%d/smaps" % self.vm.pid, encoding="utf-8") as f:
            return any("um" in line.split() for line in f if line.startswith("VmFlags:"))

    def state(self):
        try:
            return self.pager.show(self.name)["state"]
        except pagerd.ApiError as error:
            return "unknown" if error.status == 404 else "error %s" % error
