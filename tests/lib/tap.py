# SPDX-License-Identifier: Apache-2.0
"""Points in the Test Anything Protocol.

    def a_case(): ...
        tap.is_(got, wanted, "what it should be")

    if __name__ == "__main__":
        tap.run(a_case, another_case)

An exception in a case is a failed point with its traceback; the next case runs."""
import os
import re
import sys
import traceback

points = 0
failures = 0


class Skip(Exception):
    """Raised in a case that cannot run here: the rest of it is one skipped point."""


def note(text):
    for line in str(text).splitlines():
        print("#   " + line)


def ok(held, what, detail=None):
    """One point.  detail is printed when it failed.  Returns whether it held."""
    global points, failures
    points += 1
    failures += not held
    print("%s %d - %s" % ("ok" if held else "not ok", points, str(what).replace("#", "\\#")))
    if not held:
        caller = sys._getframe(1)
        while caller.f_code.co_filename == __file__:
            caller = caller.f_back
        note("at %s:%d" % (os.path.basename(caller.f_code.co_filename), caller.f_lineno))
        if detail is not None:
            note(detail)
    sys.stdout.flush()
    return bool(held)


def is_(got, wanted, what):
    return ok(got == wanted, what, "got    %r\nwanted %r" % (got, wanted))


def like(text, pattern, what):
    return ok(text is not None and re.search(pattern, text), what,
              "got     %r\npattern %r" % (text, pattern))


def skip(what, why):
    global points
    points += 1
    print("ok %d - %s # SKIP %s" % (points, what, why))


def needs_root():
    """Ends the whole test, skipped, for who cannot start confined workers."""
    if os.geteuid() != 0:
        print("1..0 # SKIP needs root: workers run as a user of their own")
        sys.exit(0)


def run(*cases):
    for case in cases:
        # A functools.partial has no name of its own.
        name = getattr(case, "__name__", None) or "%s%r%s" % (
            case.func.__name__, case.args, case.keywords or "")
        try:
            case()
        except Skip as why:
            skip(name, why)
        except Exception:
            ok(False, name + " ran to its end", traceback.format_exc())
    print("1..%d" % points)
    sys.stdout.flush()
    sys.exit(1 if failures else 0)
