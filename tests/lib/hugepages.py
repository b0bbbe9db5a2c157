# SPDX-License-Identifier: Apache-2.0
"""Huge pages of 2 MiB, for as long as a test lasts.

    with hugepages.Reserved(8):
        ..."""
import tap

POOL = "/proc/sys/vm/nr_hugepages"
FREE = "/sys/kernel/mm/hugepages/hugepages-2048kB/free_hugepages"


class Reserved:
    """So many more than there were; skips where the kernel has none to give."""

    def __init__(self, count):
        self.count = count

    @staticmethod
    def add(count):
        """By so many, not to so many: other tests may do the same meanwhile."""
        with open(POOL, "r+", encoding="ascii") as f:
            before = int(f.read())
            f.seek(0)
            f.write(str(max(before + count, 0)))

    def __enter__(self):
        try:
            self.add(self.count)
            with open(FREE, encoding="ascii") as f:
                free = int(f.read())
        except OSError as error:
            raise tap.Skip("huge pages cannot be reserved: %s" % error) from error
        if free < self.count:
            self.add(-self.count)
            raise tap.Skip("only %d huge pages are free" % free)
        return self

    def __exit__(self, *exc):
        self.add(-self.count)
