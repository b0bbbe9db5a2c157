#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
# builds: plain
"""The probes that pagerd(8) names are in the programs."""
import os
import re
import shutil
import subprocess
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
import pagerd  # noqa: E402
import tap  # noqa: E402
import vmm  # noqa: E402


def probes(name):
    notes = subprocess.run(["readelf", "-n", pagerd.program(name)], check=True, text=True,
                           stdout=subprocess.PIPE).stdout
    return {"%s:%s" % pair for pair in re.findall(r"Provider: (\w+)\s+Name: (\w+)", notes)}


def documented():
    with open(os.path.join(vmm.TOP, "packaging", "man", "pagerd.8.in"), encoding="utf-8") as f:
        section = f.read().partition(".Sh PROBES")[2].partition("\n.Sh ")[0]
    named = set(re.findall(r"pagerd:\w+", re.sub(r"\.Bd.*?\.Ed", "", section, flags=re.S)))
    tap.is_(probes("pager-worker") | probes("pagerd"), named, "each that is named, and no other")
    tap.ok("pagerd:fault_begin" in probes("pager-worker"), "faults are the worker's")


if __name__ == "__main__":
    if not shutil.which("readelf"):
        print("1..0 # SKIP readelf is not installed: apt-get install binutils")
        sys.exit(0)
    if "-DHAVE_SDT=1" not in pagerd.build_flags():
        print("1..0 # SKIP built without <sys/sdt.h>: apt-get install systemtap-sdt-dev")
        sys.exit(0)
    tap.run(documented)
