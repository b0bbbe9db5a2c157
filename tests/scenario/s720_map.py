#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
# builds: plain asan
"""pagerctl map: the picture is that of the pages."""
import os
import re
import sys
import xml.etree.ElementTree as ElementTree

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
import pagerd  # noqa: E402
import tap  # noqa: E402

PAGES = 1024
ROW = re.compile(r"^ *([0-9a-f]+)  ([.=#x]+)$", re.M)


def pictures():
    with pagerd.Pagerd() as pager:
        image = pager.image(size="4M", seed=5)
        with pager.restore(image, "a", members={"cluster_max_bytes": 4096}) as guest:
            guest.cmd("touch seq count=256")
            guest.cmd("discard 0 64")
            pager.until(lambda: pager.show("a")["counters"]["pages_removed"] == 64)
            answer = pager.ctl("map", "a")
            tap.is_(answer.returncode, 0, "pagerctl map")
            rows = ROW.findall(answer.stdout)
            cells = "".join(cells for _, cells in rows)
            tap.is_(cells, "x" * 64 + "#" * 192 + "." * (PAGES - 256), "a character for each page")
            tap.is_([int(offset, 16) for offset, _ in rows],
                    [i * len(rows[0][1]) * 4096 for i in range(len(rows))], "offsets at the margin")
            tap.like(answer.stdout, r"absent 3 MiB .*present 768 KiB .*removed 256 KiB", "a legend")
            tap.ok("\033" not in answer.stdout, "no colour where nobody looks")
            where = os.path.join(pager.dir, "map")
            # The library of fonts keeps what it has read to the end.
            env = dict(os.environ)
            env["ASAN_OPTIONS"] = env.get("ASAN_OPTIONS", "") + ":detect_leaks=0"
            svg = pager.ctl("map", "a", "--picture", where + ".svg", env=env)
            if "built without cairo" in svg.stderr:
                tap.skip("pictures in files", "built without cairo")
                return
            tap.is_(svg.returncode, 0, "an SVG")
            root = ElementTree.parse(where + ".svg").getroot()
            tap.ok(len(list(root.iter("{http://www.w3.org/2000/svg}path"))) +
                   len(list(root.iter("{http://www.w3.org/2000/svg}rect"))) >= PAGES,
                   "with a square for each page")
            tap.is_(pager.ctl("map", "a", "--picture", where + ".png", env=env).returncode, 0, "a PNG")
            with open(where + ".png", "rb") as f:
                tap.is_(f.read(8), b"\x89PNG\r\n\x1a\n", "which is one")
            bad = pager.ctl("map", "a", "--picture", where + ".gif")
            tap.ok(bad.returncode != 0 and ".svg or .png" in bad.stderr, "no other kind")
            bad = pager.ctl("map", "a", "--picture", "/nowhere/map.png")
            tap.ok(bad.returncode != 0 and "/nowhere/map.png" in bad.stderr, "nor elsewhere")
            # Large enough that a character is more than a page.
            guest.cmd("touch seq")
        big = pager.image("big", size="64M", seed=6)
        with pager.restore(big, "b") as guest:
            guest.cmd("touch seq")
            answer = pager.ctl("map", "b")
            tap.is_(set("".join(cells for _, cells in ROW.findall(answer.stdout))), {"#"},
                    "a large one fits, too")
            tap.ok(answer.stdout.count("\n") <= 24, "on a screen")
        tap.is_(pager.ctl("map", "nobody").returncode, pager.ctl("show", "nobody").returncode,
                "of no session there is none")



if __name__ == "__main__":
    tap.needs_root()
    tap.run(pictures)
