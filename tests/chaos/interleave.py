# SPDX-License-Identifier: Apache-2.0
"""Many short meetings: small guests whose every page is touched, written, removed, touched
again and copied in the background by all of them at once, while workers are killed.

An interleaving is one page that was removed and touched again right away, beside a vCPU that
faults and writes, a completion that copies, and the next kill."""
import os
import random
import time

import guests
import pagerd
import vmm
from storm import API_ERRORS, rest

# Few pages, so that everybody meets on each.  The last spans two regions.
SHAPES = [{"size": "256K", "regions": 1}, {"size": "1M", "regions": 1},
          {"size": "4M", "regions": 1}, {"size": "2M", "regions": 2}]
REMOVALS = 200          # of a guest in a round, at most
KILL_SHARE = 0.7        # of the rounds
COMPLETE_SHARE = 0.4    # of the guests in a round
ROUNDS_UNVERIFIED = 8
PATIENCE_S = 60


class Small:
    """A guest and its session."""

    def __init__(self, owner, shape):
        self.owner = owner
        owner.number += 1
        self.name = "i%d" % owner.number
        self.removals = min(REMOVALS, guests.pages_of(shape["size"]))
        engines = vmm.engines()
        self.vm = owner.pager.restore(
            owner.images[shape["size"]], self.name, vcpus=1, regions=shape["regions"],
            engine=engines[owner.number % len(engines)])
        self.vm.cmd("start rand write seed=%d" % owner.rng.randrange(1 << 30))
        self.completing = None

    def begin(self):
        rng = self.owner.rng
        self.vm.send("discard rand count=%d seed=%d touch" % (
            self.removals, rng.randrange(1 << 30)))
        if not self.completing and rng.random() < COMPLETE_SHARE:
            self.completing = pagerd.Pending(self.owner.pager.complete, self.name)

    def end(self):
        """Returns how many pages were removed and touched again."""
        return self.vm.answer(PATIENCE_S)["discarded"]

    def has_left(self):
        """Whether its completion has succeeded: then it needs no pager any more."""
        call, self.completing = self.completing, None
        try:
            return bool(call) and call.end(PATIENCE_S)["state"] == "graduated"
        except API_ERRORS:  # it was cut by a kill, and serves on
            return False

    def verify(self):
        """Every byte.  Returns how many are wrong."""
        wrong = self.vm.cmd("stop", timeout=PATIENCE_S)["wrong"]
        wrong += self.vm.cmd("verify", timeout=PATIENCE_S)["wrong"]
        return wrong * 8

    def quit(self):
        self.vm.__exit__()


class Interleaver:
    def __init__(self, seed, result, wanted):
        self.rng = random.Random(seed)
        self.result = result
        self.wanted = wanted
        self.number = 0
        self.pager = self.images = None
        self.guests = []

    def kill(self):
        rest(self.rng.uniform(0, 0.01))
        for pid in self.pager.worker_pids():
            os.kill(pid, 9)
            self.result.interleaving_kills += 1

    def replace(self, index):
        guest = self.guests[index]
        wrong = guest.verify()
        if wrong:
            self.result.wrong_bytes += wrong
            self.result.fail("interleavings: %d wrong bytes in %s:\n%s" % (
                wrong, guest.name, guest.vm.stderr()[-2000:]))
        guest.quit()
        self.guests[index] = Small(self, SHAPES[index])

    def round(self, number):
        for guest in self.guests:
            guest.begin()
        if self.rng.random() < KILL_SHARE:
            self.kill()
        for guest in self.guests:
            self.result.interleavings += guest.end()
        for i, guest in enumerate(self.guests):
            if guest.has_left() or (number + 2 * i) % ROUNDS_UNVERIFIED == 0:
                self.replace(i)

    def lose(self, error):
        self.result.lost_vms += 1
        self.result.fail("interleavings: a guest is lost: %s: %s\n%s" % (
            type(error).__name__, error, "\n".join(self.pager.log.lines[-40:])))

    def run(self):
        start = time.monotonic()
        with pagerd.Pagerd(log_level="notice", spawn_backoff_max="1ms") as self.pager:
            self.images = {s["size"]: self.pager.image(
                s["size"] + ".mem", in_memory=True, size=s["size"], seed=70 + i, holes=100 * (i % 2),
                zeros=80 * (i % 2)) for i, s in enumerate(SHAPES)}
            try:
                self.guests = [Small(self, shape) for shape in SHAPES]
                number = 0
                while self.result.interleavings < self.wanted and not self.result.failures:
                    number += 1
                    self.round(number)
                for i in range(len(self.guests)):
                    self.replace(i)
            except API_ERRORS + (vmm.VmmError, TimeoutError, guests.Lost) as error:
                self.lose(error)
            finally:
                for guest in self.guests:
                    guest.quit()
        self.result.interleaving_seconds = time.monotonic() - start
