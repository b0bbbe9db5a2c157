#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
# builds: plain
# timeout: 600
"""A short run of tests/chaos: twenty kills of every kind, and nobody notices."""
import json
import os
import subprocess
import sys
import tempfile

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
import tap  # noqa: E402
import vmm  # noqa: E402

KILLS = 20


def smoke():
    with tempfile.TemporaryDirectory() as directory:
        output = os.path.join(directory, "chaos.json")
        done = subprocess.run([os.path.join(vmm.TOP, "tests", "chaos", "run"), "--smoke",
                               "--kills", str(KILLS), "--output", output],
                              stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                              stderr=subprocess.STDOUT, check=False, text=True, errors="replace")
        with open(output, encoding="utf-8") as f:
            found = {row["name"]: row["value"] for row in map(json.loads, f)}
    tap.note("seed %s: %d kills, %d sessions, stall p50 %s ms, max %s ms" % (
        found["seed"], found["kills"], found["sessions"], found["stall_p50_ms"],
        found["stall_max_ms"]))
    for name in ("wrong_bytes", "lost_vms", "leaked_fds", "leaked_processes", "leaked_sockets"):
        tap.is_(found[name], 0, name)
    for kind, why in sorted(found["unavailable"].items()):
        tap.skip(kind, why)
    if done.returncode == 2:
        tap.is_(found["failures"], 0, "what could be run did not fail")
        return
    tap.ok(found["kills"] >= KILLS, "%d kills" % KILLS, found["kills"])
    tap.ok(done.returncode == 0, "the run is content", done.stdout)


if __name__ == "__main__":
    tap.needs_root()
    tap.run(smoke)
