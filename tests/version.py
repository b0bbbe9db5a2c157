#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""VERSION discipline: what a worker is made of does not change under the same version.

A worker is installed under its version and runs until its last session has gone.  Two
different workers of one version would overwrite each other on disk, and nobody could tell
which of them serves a VM.  So every change of the code in worker/ or ipc/ asks for a new
VERSION, once for any number of changes until the next release of it."""
import os
import subprocess
import sys

TOP = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
CODE = ["worker/*.c", "worker/*.h", "worker/*.def", "ipc/*.c", "ipc/*.h", "ipc/*.def"]


def git(*arguments):
    done = subprocess.run(["git", "-C", TOP] + list(arguments), stdout=subprocess.PIPE,
                          stderr=subprocess.DEVNULL, check=False, text=True)
    return done.stdout.strip() if done.returncode == 0 else None


def main():
    if git("rev-parse", "--is-shallow-repository") != "false":
        print("version: not checked, this is not a complete git checkout")
        return 0
    if git("diff", "--name-only", "HEAD", "--", "VERSION"):
        return 0  # it is being raised in this very change
    base = git("log", "-1", "--format=%H", "--", "VERSION")
    changed = (git("diff", "--name-only", base, "--", *CODE) or "").split()
    if not changed:
        return 0
    with open(os.path.join(TOP, "VERSION"), encoding="ascii") as f:
        version = f.read().strip()
    print("version: %s changed since VERSION became %s (%s): a worker of that version may be "
          "running somewhere.\nRaise VERSION, so that the new worker is installed beside the "
          "old one and not over it, and say in CHANGES.md what is new." % (
              changed[0] if len(changed) == 1
              else "%s and %d more" % (changed[0], len(changed) - 1), version, base[:9]))
    return 1


if __name__ == "__main__":
    sys.exit(main())
