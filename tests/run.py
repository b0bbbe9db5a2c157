#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Run the tests and count their points.

    run.py [--jobs N] [--only REGEX] --build NAME=DIR [--unit NAME]... [--fuzz NAME]...
           [--doc FILE=COMMAND]... [--build NAME=DIR ...]

--unit, --fuzz and --doc belong to the --build before them.  Scenarios are found:
every tests/scenario/s*.py runs in each build that its head names in a line
"# builds: plain asan tsan" (without one: plain), with PAGERD_BUILD=DIR.  A line
"# timeout: SECONDS" raises the limit, "# serial" keeps other tests away.

Every test prints TAP.  The last line is "N passed, N failed, N skipped"."""
import argparse
import concurrent.futures
import glob
import os
import re
import subprocess
import sys
import time

TOP = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
KEEP = os.path.join(TOP, "tests", "lib", "keep.py")
# For what hangs: a machine that is busy may take many times as long as one that is not.
UNIT_TIMEOUT_S = 180
SCENARIO_TIMEOUT_S = 300
FUZZ_SECONDS = 3
SUMMARY_LINES = 12
# A sanitized program is several times slower.
SLOWER = {"asan": 2, "tsan": 3}
SANITIZER_ENV = {
    "ASAN_OPTIONS": "abort_on_error=1:detect_stack_use_after_return=1",
    "UBSAN_OPTIONS": "print_stacktrace=1:abort_on_error=1",
    "TSAN_OPTIONS": "halt_on_error=1:second_deadlock_stack=1",
}


class Test:
    def __init__(self, build, directory, kind, name, command, timeout, serial=False):
        self.build, self.kind, self.name = build, kind, name
        self.directory, self.command, self.serial = directory, command, serial
        self.timeout = timeout * SLOWER.get(build, 1)
        self.passed = self.failed = 0
        self.skips = []
        self.log = ""
        self.seconds = 0.0

    def label(self):
        return "%-5s %-8s %s" % (self.build, self.kind, self.name)

    def run(self):
        env = dict(os.environ, PAGERD_BUILD=self.directory, **SANITIZER_ENV)
        command = [sys.executable, KEEP, str(self.timeout)] + self.command
        if self.build == "tsan" and randomisation_bits() > 28:
            # The shadow of older ThreadSanitizers collides with mappings this far apart.
            command = ["setarch", "-R"] + command
        start = time.monotonic()
        done = subprocess.run(command, cwd=TOP, env=env, stdin=subprocess.DEVNULL,
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False)
        self.seconds = time.monotonic() - start
        self.log = done.stdout.decode(errors="replace")
        if self.kind in ("fuzz", "doc"):
            self.passed, self.failed = (1, 0) if done.returncode == 0 else (0, 1)
        else:
            self.count(done.returncode)
        return self

    def count(self, code):
        """Points of the TAP in the log; a broken end of the program is one more."""
        plan, seen = None, 0
        for line in self.log.splitlines():
            match = re.match(r"1\.\.(\d+)(?:\s*# SKIP\b\s*(.*))?", line, re.I)
            if match:
                plan = int(match.group(1))
                if plan == 0 and seen == 0:
                    self.skips.append(match.group(2) or "no reason given")
                continue
            match = re.match(r"(not )?ok\b(.*)", line)
            if not match:
                continue
            seen += 1
            skip = re.search(r"# SKIP\b\s*(.*)", match.group(2), re.I)
            if match.group(1):
                self.failed += 1
            elif skip:
                self.skips.append(skip.group(1) or "no reason given")
            else:
                self.passed += 1
        if plan is None or (plan != seen and not (plan == 0 and self.skips)):
            self.failed += 1
            self.log += "\n# planned %s points, saw %d\n" % (plan, seen)
        if code:
            self.failed = max(self.failed, 1)
            self.log += "\n# exit code %d\n" % code


def randomisation_bits():
    try:
        with open("/proc/sys/vm/mmap_rnd_bits", encoding="ascii") as f:
            return int(f.read())
    except OSError:
        return 0


def scenario_head(path):
    builds, timeout, serial = ["plain"], SCENARIO_TIMEOUT_S, False
    with open(path, encoding="utf-8") as f:
        for line in f.readlines()[:30]:
            if line.startswith("# builds:"):
                builds = line.split(":", 1)[1].split()
            elif line.startswith("# timeout:"):
                timeout = int(line.split(":", 1)[1])
            elif line.strip() == "# serial":
                serial = True
    return builds, timeout, serial


class BuildOption(argparse.Action):
    def __call__(self, parser, namespace, value, option_string=None):
        name, _, directory = value.partition("=")
        namespace.builds.append((name, os.path.join(TOP, directory)))


class ItemOption(argparse.Action):
    def __call__(self, parser, namespace, value, option_string=None):
        if not namespace.builds:
            parser.error("%s needs a --build before it" % option_string)
        namespace.items.append(namespace.builds[-1] + (self.dest, value))


def make_item(build, directory, kind, value):
    if kind == "doc":
        path, _, command = value.partition("=")
        script = '%s | diff -u --label "%s (committed)" --label "%s (generated)" %s - ||' \
            ' { echo "stale: run make docs"; exit 1; }' % (command, path, path, path)
        return Test(build, directory, kind, path, ["sh", "-c", script], UNIT_TIMEOUT_S)
    program = os.path.join(directory, "tests", kind, value)
    if kind == "fuzz":
        corpus = os.path.join(TOP, "tests", "fuzz", "corpus", value)
        return Test(build, directory, kind, value,
                    [program, "-seconds=%d" % FUZZ_SECONDS, corpus], UNIT_TIMEOUT_S)
    return Test(build, directory, kind, value, [program], UNIT_TIMEOUT_S)


def collect(args):
    tests = [make_item(*item) for item in args.items]
    for path in sorted(glob.glob(os.path.join(TOP, "tests", "scenario", "s*.py"))):
        builds, timeout, serial = scenario_head(path)
        for build, directory in args.builds:
            if build in builds:
                tests.append(Test(build, directory, "scenario", os.path.basename(path)[:-3],
                                  [sys.executable, path], timeout, serial))
    if args.only:
        tests = [t for t in tests if re.search(args.only, t.label())]
    return tests


def report(test, number, total):
    state = "FAILED" if test.failed else "ok" if test.passed else "skip"
    print("[%*d/%d] %-6s %-44s %4d points %6.1f s" % (
        len(str(total)), number, total, state, test.label(), test.passed, test.seconds))
    if test.failed:
        told = [x for x in test.log.splitlines() if x.strip() and not x.startswith("ok ")]
        print("".join("    | %s\n" % line for line in told[-200:]), end="")
    for reason in test.skips:
        print("         skipped: %s" % reason)
    sys.stdout.flush()


def complaints(test):
    """What went wrong in few lines: the end of a long output is all that some see of it."""
    told = [x for x in test.log.splitlines() if x.strip() and not x.startswith("ok ")]
    points = [i for i, line in enumerate(told) if line.startswith("not ok")]
    if not points:
        return told[-SUMMARY_LINES:]
    return [told[i] for i in range(len(told))
            if any(0 <= i - at < 4 for at in points)][:SUMMARY_LINES]


def main():
    parser = argparse.ArgumentParser()
    parser.set_defaults(builds=[], items=[])
    parser.add_argument("--jobs", type=int, default=min(4, os.cpu_count() or 1))
    parser.add_argument("--only", default="")
    parser.add_argument("--build", action=BuildOption)
    for kind in ("unit", "fuzz", "doc"):
        parser.add_argument("--" + kind, action=ItemOption)
    args = parser.parse_args()
    tests = collect(args)
    done = []
    start = time.monotonic()
    with concurrent.futures.ThreadPoolExecutor(max_workers=args.jobs) as pool:
        running = [pool.submit(t.run) for t in tests if not t.serial]
        for future in concurrent.futures.as_completed(running):
            done.append(future.result())
            report(done[-1], len(done), len(tests))
    for test in tests:
        if test.serial:
            done.append(test.run())
            report(test, len(done), len(tests))
    failed = sum(t.failed for t in done)
    print("%d programs in %.0f s" % (len(done), time.monotonic() - start))
    for test in sorted((t for t in done if t.failed), key=Test.label):
        print("failed: %s" % test.label())
        print("".join("    | %s\n" % line[:200] for line in complaints(test)), end="")
    print("%d passed, %d failed, %d skipped" % (
        sum(t.passed for t in done), failed, sum(len(t.skips) for t in done)))
    return 1 if failed or not done else 0


if __name__ == "__main__":
    sys.exit(main())
