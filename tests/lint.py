#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The house rules that a compiler does not know.  `make lint` runs it on the files
that the makefile lists; every finding is one line, and any finding fails."""
import ast
import glob
import os
import re
import sys

FILE_LINES = 600
FUNCTION_LINES = 60
PARAMETERS = 7

# (what is forbidden, where it is allowed, why)
CALLS = [
    (r"\b(strcpy|strcat|sprintf|vsprintf|gets|strtok|atoi|atol|system|popen|alloca)\s*\(", [],
     "unbounded, unchecked or a shell"),
    (r"\b(u|nano|clock_nano)?sleep\s*\(", ["worker/"], "wait for an event"),
    (r"\b(v?fork|clone3?|posix_spawnp?)\s*\(", ["supervisor/process.c", "tests/"],
     "only supervisor/process.c makes processes"),
    (r"\bexec(l|le|lp|v|ve|vp|vpe|veat)\s*\(", ["supervisor/child_spawn.c", "tests/"],
     "only supervisor/child_spawn.c executes a program"),
    (r"\bwait(pid|id|3|4)?\s*\(", ["supervisor/child_reap.c", "supervisor/process.c", "tests/"],
     "only supervisor/child_reap.c reads exit statuses"),
    (r"\bcap_[a-z_]+\s*\(", ["supervisor/privs.c", "tests/"],
     "only supervisor/privs.c changes capabilities"),
    (r"\bqsort(_r)?\s*\(", ["supervisor/", "tests/"],
     "glibc's allocates and asks sysinfo(), which kills a confined worker"),
    (r"\bioctl\s*\(.*\bUFFDIO_[A-Z]+\b",
     ["worker/uffd.c", "worker/uffd_probe.c", "worker/selftest.c", "supervisor/ctl/doctor_kernel.c",
      "tests/"],
     "only worker/uffd.c talks to a userfaultfd; self-test and doctor make one of their own"),
    (r"\b(openat2|SYS_openat2|__NR_openat2)\b", ["supervisor/opener/image.c", "worker/sandbox", "tests/"],
     "only supervisor/opener/image.c opens what a client named"),
    (r"\blog_[a-z]+\(.*\\n\"", [], "the log ends its lines itself"),
    (r"\b(TODO|FIXME|XXX|HACK)\b", [], "do it or leave it out"),
    (r"\btypedef\s+(struct|union|enum)\b", [], "say struct"),
]
# room -> what it may include besides itself
ROOMS = {
    "common": [],
    "ipc": ["common"],
    "worker": ["common", "ipc"],
    "supervisor": ["common", "ipc"],
    "supervisor/ctl": ["common"],
}

findings = []


def found(path, line, text):
    findings.append("%s:%d: %s" % (path, line, text))


def without_comments(text, strings=True):
    """The same lines without comments and, if asked for, with empty strings."""
    def blank(match):
        token = match.group(0)
        if token[0] in "\"'":
            return token if strings else token[0] * 2
        return re.sub(r"[^\n]", " ", token)
    return re.sub(r'"(?:\\.|[^"\\\n])*"|\'(?:\\.|[^\'\\\n])*\'|/\*.*?\*/|//[^\n]*', blank, text,
                  flags=re.S)


def room_of(path):
    directory = os.path.dirname(path)
    return directory if directory in ROOMS else path.split("/")[0]


def check_calls(path, raw, text):
    code = without_comments(raw, strings=False)
    for pattern, allowed, why in CALLS:
        if any(path.startswith(a) for a in allowed):
            continue
        where = raw if "TODO" in pattern else text if "log_" in pattern else code
        for number, line in enumerate(where.splitlines(), 1):
            if re.search(pattern, line):
                found(path, number, "%s: %s" % (raw.splitlines()[number - 1].strip(), why))


def check_includes(path, text):
    room = room_of(path)
    if room not in ROOMS:
        return
    for number, line in enumerate(text.splitlines(), 1):
        match = re.match(r'\s*#\s*include\s+"([^"]+)"', line)
        if not match or "/" not in match.group(1):
            continue
        other = room_of(match.group(1))
        if other != room and other not in ROOMS[room]:
            found(path, number, "%s must not include %s" % (room, match.group(1)))


def check_functions(path, text):
    """Functions open and close with a brace in the first column."""
    lines = text.splitlines()
    start = None
    for number, line in enumerate(lines, 1):
        if line.startswith("{"):
            start = number
        elif line.startswith("}") and start:
            if number - start + 1 > FUNCTION_LINES:
                found(path, start, "a function of %d lines, more than %d" % (
                    number - start + 1, FUNCTION_LINES))
            head = signature(lines, start)
            if head.count(",") + 1 > PARAMETERS:
                found(path, start, "more than %d parameters" % PARAMETERS)
            start = None


def signature(lines, brace):
    """The parameter list that ends above the line of the brace."""
    head = ""
    for line in reversed(lines[max(0, brace - 8):brace - 1]):
        head = line + head
        if line and not line[0].isspace() and "(" in line:
            break
    # A parameter that is a function has commas of its own.
    head = head[head.find("(") + 1:]
    while re.search(r"\([^()]*\)", head):
        head = re.sub(r"\([^()]*\)", "", head)
    return head


def check_c(path):
    if not os.path.exists(path):
        found(path, 1, "listed in GNUmakefile but not there")
        return
    with open(path, encoding="utf-8") as f:
        raw = f.read()
    lines = raw.splitlines()
    if not lines or lines[0] != "/* SPDX-License-Identifier: Apache-2.0 */":
        found(path, 1, "the first line names the licence")
    if len(lines) > FILE_LINES:
        found(path, len(lines), "a file of %d lines, more than %d" % (len(lines), FILE_LINES))
    text = without_comments(raw)
    check_calls(path, raw, text)
    check_includes(path, text)
    if path.endswith(".def"):
        return
    check_functions(path, text)
    guard = re.sub(r"[^A-Z0-9]", "_", path.upper())
    if path.endswith(".h") and "#ifndef %s\n#define %s\n" % (guard, guard) not in raw:
        found(path, 1, "the guard is not %s" % guard)


def check_script(path):
    with open(path, encoding="utf-8") as f:
        raw = f.read()
    if "SPDX-License-Identifier: Apache-2.0" not in raw[:200]:
        found(path, 1, "the head names the licence")
    lines = raw.splitlines()
    if len(lines) > FILE_LINES:
        found(path, len(lines), "a file of %d lines, more than %d" % (len(lines), FILE_LINES))
    is_python = path.endswith(".py") or "python3" in (lines or [""])[0]
    if is_python:
        try:
            tree = ast.parse(raw, path)
        except SyntaxError as error:
            found(path, error.lineno or 1, str(error))
            return
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and getattr(
                    node.func, "attr", getattr(node.func, "id", "")) == "sleep":
                found(path, node.lineno, "a sleep: wait for an event")
        return
    for number, line in enumerate(lines, 1):
        if re.search(r"(^|[;&|]|\b(do|then)\b)\s*sleep\s", line.split("#")[0]):
            found(path, number, "a sleep: wait for an event")


def scripts():
    names = glob.glob("tests/**/*", recursive=True) + glob.glob("packaging/**/*", recursive=True)
    for path in sorted(names + [".ci/run"]):
        if not os.path.isfile(path) or "__pycache__" in path or "/corpus/" in path:
            continue
        with open(path, "rb") as f:
            if path.endswith((".py", ".sh")) or f.read(2) == b"#!":
                yield path


def main():
    for path in sys.argv[1:]:
        check_c(path)
    for path in scripts():
        check_script(path)
    listed = set(sys.argv[1:])
    for room in ("common", "ipc", "supervisor", "worker", "tests"):
        for path in glob.glob(room + "/**/*.c", recursive=True):
            if path not in listed:
                found(path, 1, "not listed in GNUmakefile")
    print("".join("%s\n" % f for f in findings), end="")
    sys.exit(1 if findings else 0)


if __name__ == "__main__":
    main()
