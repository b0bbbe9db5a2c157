#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
# timeout: 900
"""The model of a page, tests/model/page.pml, in every history that it has; and the same with
one thing put into the wrong order, which it must notice."""
import concurrent.futures
import os
import re
import shutil
import subprocess
import sys
import tempfile

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
import tap  # noqa: E402
import vmm  # noqa: E402

MODEL = os.path.join(vmm.TOP, "tests", "model", "page.pml")
SAFE = ["-DVISITS=2", "-DDISCARDS=1", "-DKILLS=2"]
# Fills that are refused for no reason double the states.
SHORT = ["-DVISITS=2", "-DDISCARDS=1", "-DKILLS=0", "-DREFUSALS=1"]
# Turns for everybody cost a state for each thread.
FAIR = ["-DVISITS=1", "-DDISCARDS=1", "-DKILLS=1", "-DENDS"]
WRONG_BYTES, WAITS, FOR_EVER = "assertion violated", "invalid end state", "acceptance cycle"
# What is wrong, what the model must say of it, and of which histories.
WRONG = [
    ("PRESENT_FIRST", "present is marked before the page is there", WRONG_BYTES, SAFE),
    ("FAULT_FIRST", "a fault is answered before the removal of its batch is applied", WRONG_BYTES, SAFE),
    ("NO_LOCK", "the background copies without the copy lock", WRONG_BYTES, SAFE),
    ("FORGET_FIRST", "an event is forgotten before it is applied", WRONG_BYTES, SAFE),
    ("NO_WAKE_OF_ADOPTED", "who adopts wakes nobody", WAITS, SAFE),
    ("NO_WAKE_AFTER_UNREGISTER", "who begins to wait as the range goes is not woken", WAITS, SAFE),
    ("UNMARK_OF_ANOTHER", "who fills in vain calls absent what another is filling", WRONG_BYTES,
     SHORT),
    ("BLIND_RETRY", "a fill is tried again and no event is read", FOR_EVER, FAIR),
]


def run(command, directory, timeout=600):
    done = subprocess.run(command, cwd=directory, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, check=False, text=True, timeout=timeout)
    return done.returncode, done.stdout


def search(defines, is_fair):
    """All histories of the model: (what was wrong or None, how many states, all that was said)."""
    with tempfile.TemporaryDirectory() as directory:
        said = ""
        for command in (
                # Spin's own preprocessing would leave line numbers in the middle of inlines.
                ["cpp", "-P", "-undef", "-nostdinc", "-I" + vmm.TOP, "-x", "c"] + defines +
                [MODEL, "page.pml"],
                ["spin", "-a", "page.pml"],
                ["cc", "-O1", "-w", "-o", "pan", "pan.c"] +
                ([] if is_fair else ["-DSAFETY", "-DNOFAIR"]),
                ["./pan", "-m100000"] + (["-a", "-f"] if is_fair else [])):
            code, out = run(command, directory)
            said += out
            if code != 0:
                return "%s: exit code %d" % (command[0], code), 0, said
    found = re.search(r"^pan:1: (%s|%s|%s|.*)" % (WRONG_BYTES, WAITS, FOR_EVER), out, re.M)
    states = re.search(r"(\d+) states, stored", out)
    if not found and ("errors: 0" not in out or "max search depth too small" in out):
        return "no verdict", 0, said
    return found and found.group(1), int(states.group(1)) if states else 0, said


def holds(what, defines, is_fair):
    wrong, states, said = search(defines, is_fair)
    return wrong is None and states > 1000, "%s, in %d states" % (what, states), said


def notices(name, what, want, defines):
    wrong, _, said = search(defines + ["-DWRONG_" + name], defines is FAIR)
    return wrong == want, "noticed: %s: %s" % (what, want), said


def model():
    if not shutil.which("spin"):
        raise tap.Skip("spin is not installed")
    jobs = [(holds, "no wrong byte and nobody who waits for ever, whoever dies when", SAFE, False),
            (holds, "nor where fills are refused", SHORT, False),
            (holds, "with turns for everybody each history ends", FAIR, True)]
    jobs += [(notices,) + row for row in WRONG]
    with concurrent.futures.ThreadPoolExecutor(max_workers=2) as pool:
        for held, what, said in pool.map(lambda job: job[0](*job[1:]), jobs):
            tap.ok(held, what, said[-3000:])


if __name__ == "__main__":
    tap.run(model)
