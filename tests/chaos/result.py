# SPDX-License-Identifier: Apache-2.0
"""What a chaos run has counted, and how it is told."""
import collections
import json
import os


def percentile(values, share):
    """The smallest value with at least that share at or below it; None without any."""
    if not values:
        return None
    ordered = sorted(values)
    return ordered[max(0, min(len(ordered) - 1, int(-(-share * len(ordered) // 1)) - 1))]


def ms(seconds):
    return None if seconds is None else round(seconds * 1000, 3)


def largest(values):
    return max(values) if values else None


class Result:
    def __init__(self, seed):
        self.seed = seed
        self.kills = collections.Counter()      # kind -> how many
        self.unavailable = {}                   # kind -> why
        self.counts = collections.Counter()
        self.wrong_bytes = 0
        self.lost_vms = 0
        self.leaked_fds = 0
        self.leaked_processes = 0
        self.leaked_sockets = 0
        self.worker_waits = []                  # the longest wait of any guest, for each kill
        self.guest_waits = []                   # the longest of each guest that waited at all
        self.hang_waits = []
        self.twice_waits = []                   # two kills, one right after the other
        self.crash_waits = []                   # the last of them makes everybody suspect
        self.supervisor_waits = []              # of everybody, around a supervisor's end
        self.quiet_waits = []                   # the same without a kill, as a measure of noise
        self.handoff_waits = []
        self.handoff_all_waits = []
        self.discard_waits = []                 # of madvise(), which sleeps until it is read
        self.recovery = []                      # from the kill until every session serves
        self.around = collections.defaultdict(list)   # before, during, after a supervisor's end
        self.failures = []                      # sentences; any makes the run fail
        self.interleavings = 0                  # pages removed and touched again, see interleave.py
        self.interleaving_kills = 0
        self.interleaving_seconds = 0.0
        self.seconds = 0.0

    def fail(self, text):
        self.failures.append(text)

    @property
    def nr_kills(self):
        return sum(self.kills.values())

    def rows(self):
        yield "seed", self.seed, ""
        yield "kills", self.nr_kills, ""
        yield "interleavings", self.interleavings, ""
        yield "wrong_bytes", self.wrong_bytes, "B"
        yield "lost_vms", self.lost_vms, ""
        yield "leaked_fds", self.leaked_fds, ""
        yield "leaked_processes", self.leaked_processes, ""
        yield "leaked_sockets", self.leaked_sockets, ""
        yield "stall_p50_ms", ms(percentile(self.worker_waits, 0.5)), "ms"
        yield "stall_p90_ms", ms(percentile(self.worker_waits, 0.9)), "ms"
        yield "stall_p99_ms", ms(percentile(self.worker_waits, 0.99)), "ms"
        yield "stall_max_ms", ms(largest(self.worker_waits)), "ms"
        yield "stall_guest_p50_ms", ms(percentile(self.guest_waits, 0.5)), "ms"
        yield "stall_guest_p99_ms", ms(percentile(self.guest_waits, 0.99)), "ms"
        yield "quiet_stall_p50_ms", ms(percentile(self.quiet_waits, 0.5)), "ms"
        yield "quiet_stall_max_ms", ms(largest(self.quiet_waits)), "ms"
        yield "recovery_p50_ms", ms(percentile(self.recovery, 0.5)), "ms"
        yield "recovery_max_ms", ms(largest(self.recovery)), "ms"
        yield "twice_stall_max_ms", ms(largest(self.twice_waits)), "ms"
        yield "crashes_stall_max_ms", ms(largest(self.crash_waits)), "ms"
        yield "hang_stall_max_ms", ms(largest(self.hang_waits)), "ms"
        yield "discard_stall_max_ms", ms(largest(self.discard_waits)), "ms"
        yield "handoff_stall_p50_ms", ms(percentile(self.handoff_waits, 0.5)), "ms"
        yield "handoff_stall_max_ms", ms(largest(self.handoff_waits)), "ms"
        yield "handoff_all_stall_p50_ms", ms(percentile(self.handoff_all_waits, 0.5)), "ms"
        yield "handoff_all_stall_max_ms", ms(largest(self.handoff_all_waits)), "ms"
        yield from self.around_rows()
        for name in sorted(self.counts):
            yield name, self.counts[name], ""
        for kind in sorted(self.kills):
            yield "kills_" + kind, self.kills[kind], ""
        yield "unavailable", self.unavailable, ""
        yield "failures", len(self.failures), ""
        yield "interleaving_kills", self.interleaving_kills, ""
        yield "interleaving_seconds", round(self.interleaving_seconds, 1), "s"
        yield "seconds", round(self.seconds, 1), "s"

    def supervisor_stall(self):
        """What the end of a supervisor adds to the longest wait for a page.  On few processors
        any of many laps has a wait of some milliseconds, whoever dies: so the laps with the
        end in them are held against those right before and after."""
        laps = self.around
        during = largest([x["max"] for x in laps["during"]])
        others = largest([x["max"] for when in ("before", "after") for x in laps[when]])
        if during is None or others is None:
            return during
        return max(0.0, during - others)

    def around_rows(self):
        """Fault latencies of one guest around the end of a supervisor."""
        laps = self.around
        yield "supervisor_kill_stall_max_ms", ms(self.supervisor_stall()), "ms"
        for when in ("before", "during", "after"):
            for what in ("p50", "p99", "max"):
                yield ("supervisor_%s_%s_ms" % (when, what),
                       ms(percentile([x[what] for x in laps[when]], 0.5)), "ms")
        for when in ("before", "during", "after"):
            yield ("supervisor_%s_worst_ms" % when,
                   ms(largest([x["max"] for x in laps[when]])), "ms")

    def write(self, path):
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "w", encoding="utf-8") as f:
            for name, value, unit in self.rows():
                f.write(json.dumps({"name": name, "value": value, "unit": unit}) + "\n")

    def show(self):
        for name, value, unit in self.rows():
            if name != "unavailable":
                print("%-40s %12s %s" % (name, "-" if value is None else value, unit))
        for kind, why in sorted(self.unavailable.items()):
            print("unavailable: %s: %s" % (kind, why))
        for text in self.failures:
            print("FAILED: " + text)
