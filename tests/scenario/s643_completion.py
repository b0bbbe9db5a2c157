#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""What shells complete of pagerctl's command lines, and the words that it suggests and explains."""
import os
import shutil
import subprocess
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
import pagerd  # noqa: E402
import tap  # noqa: E402
import vmm  # noqa: E402

V = pagerd.VERSION
FILES = {"bash": "pagerctl.bash", "zsh": "_pagerctl", "fish": "pagerctl.fish"}
# Completes the words that are its arguments, the last of which is being typed.
BASH = """source %s
COMP_WORDS=("$@") COMP_CWORD=$(($# - 1))
_pagerctl
for word in "${COMPREPLY[@]}"; do printf '%%s\\n' "$word"; done
"""
# Types the words that are its arguments and a tabulator, in a zsh of its own; prints the line
# that this makes of each.
ZSH = """zmodload zsh/zpty
zpty z zsh -f -i
zpty -w z "unset zle_bracketed_paste; PS1= RPS1= LISTMAX=1000; fpath=(%s \\$fpath)
autoload -U compinit; compinit -u -D
tab() { zle expand-or-complete; zle -I; print -r -- \\"<\\$BUFFER>\\"; BUFFER= }
zle -N tab; bindkey '^I' tab; print -r -- '<re''ady>'"
zpty -r z out '*<ready>*'
for line; do
	zpty -w -n z "$line"$'\\t'
	zpty -r z out '*<*>*'
	out=${out##*<}
	print -r -- "${out%%%%>*}"
done
zpty -d z
"""


def path_of(shell):
    return os.path.join(vmm.TOP, "packaging", "completions", FILES[shell])


def run(*words):
    return subprocess.run(words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE, timeout=60, check=False, text=True)


def completed(*words):
    done = run("bash", "-c", BASH % path_of("bash"), "bash", pagerd.program("pagerctl"), *words)
    return done.stdout.split("\n")[:-1] if not done.stderr else done.stderr


def is_completed(words, wanted):
    tap.is_(completed(*words), wanted, "pagerctl %s<TAB>" % " ".join(words))


def committed():
    for shell, name in FILES.items():
        with open(path_of(shell), encoding="utf-8") as f:
            tap.ok(f.read() == run(pagerd.program("pagerctl"), "completion", shell).stdout,
                   "packaging/completions/%s is as it is generated" % name, "stale: run make docs")
        if shutil.which(shell):
            tap.is_(run(shell, "-n", path_of(shell)).stderr, "", "%s reads it" % shell)
        else:
            tap.skip("%s reads it" % shell, "there is no " + shell)


def words():
    is_completed(["ver"], ["versions"])
    is_completed(["res"], ["restore"])
    is_completed(["--js"], ["--json"])
    is_completed(["--json", "stat"], ["status", "stats"])
    is_completed(["show", "--wa"], ["--wait"])
    is_completed(["show", "x", "--wait", "s"], ["serving"])
    is_completed(["show", "x", "--wait", "=", "o"], ["opened"])
    is_completed(["drain", "--wait", "--ti"], ["--timeout"])
    is_completed(["restore", "--fallback", ""], ["file"])
    is_completed(["template", "pro"], ["promote"])
    is_completed(["help", "doc"], ["doctor"])
    is_completed(["completion", ""], ["bash", "zsh", "fish"])
    is_completed(["status", ""], [])
    is_completed(["create", "--id", ""], [])
    here = completed("create", vmm.TOP + "/VERS")
    tap.is_(here, [vmm.TOP + "/VERSION"], "files")


def names():
    with pagerd.Pagerd() as pager:
        image = pager.image(size="1M", seed=3)
        evil = "e$(touch evil)`x` y"
        for name in ("web1", "web2", evil, "gone"):
            pager.create(image.path, id=name)
        pager.close_session("gone")
        socket = ["--socket", pager.socket]
        is_completed(socket + ["show", "web"], ["web1", "web2"])
        is_completed(socket + ["close", "web1", ""], [])
        is_completed(socket + ["complete", "g"], [])
        is_completed(socket + ["show", "e"], [r"e\$\(touch\ evil\)\`x\`\ y"])
        tap.ok(not os.path.exists("evil"), "an id is never run")
        is_completed(socket + ["drain", ""], [V])
        is_completed(socket + ["handoff", "web1", ""], [V])
        is_completed(socket + ["handoff", "--to", ""], [V])
        tap.ok("controller=" in completed(*socket, "config", "controller"), "options")
        pager.call("PUT", "/templates/base", {"image": image.path})
        is_completed(socket + ["template", "show", "b"], ["base"])
        is_completed(socket + ["create", "--template", ""], ["base"])
        is_completed(["--socket", pager.dir + "/none", "show", ""], [])
        if shutil.which("fish"):
            done = run("fish", "--no-config", "-c", "function pagerctl; %s --socket %s $argv; end; "
                       "source %s; complete -C 'pagerctl show we'"
                       % (pagerd.program("pagerctl"), pager.socket, path_of("fish")))
            tap.is_([line.split("\t")[0] for line in done.stdout.split("\n")][:2],
                    ["web1", "web2"], "fish completes ids")
        else:
            tap.skip("fish completes ids", "there is no fish")


def in_zsh():
    if not shutil.which("zsh"):
        raise tap.Skip("there is no zsh")
    with pagerd.Pagerd() as pager:
        image = pager.image(size="1M", seed=3)
        for name in ("web1", "web2", "e$(x)"):
            pager.create(image.path, id=name)
        ctl = "pagerctl --socket %s " % pager.socket
        cases = {"ver": "versions ", "show web": "show web", "show w": "show web",
                 "drain ": "drain %s " % V, "show e": r"show e\$\(x\) ",
                 "create --prefetch seq": "create --prefetch sequential ",
                 "config controller-min": "config controller-min-session-age=",
                 "show web1 --wa": "show web1 --wait "}
        env = dict(os.environ, PATH="%s:%s" % (os.path.abspath(vmm.BUILD), os.environ["PATH"]),
                   TERM="xterm")
        done = subprocess.run(
            ["zsh", "-f", "-c", ZSH % os.path.dirname(path_of("zsh")), "zsh"] +
            [ctl + line for line in cases], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, timeout=60, check=False, text=True, env=env)
        for (line, wanted), got in zip(cases.items(), done.stdout.splitlines() + [""] * 9):
            tap.is_(got, ctl + wanted, "zsh: %s<TAB>" % line)


def meant():
    with pagerd.Pagerd() as pager:
        image = pager.image(size="1M", seed=3)
        for name in ("web-server-1", "database", "old-one"):
            pager.create(image.path, id=name)
        pager.close_session("old-one")
        for line, wanted in ((["show", "web-sever-1"], "web-server-1"), (["close", "databse"], "database"),
                             (["complete", "data"], "database"), (["retry", "databaes"], "database"),
                             (["drain", V[:-1] + "x"], V)):
            done = pager.ctl(*line)
            tap.is_(done.returncode, 4, " ".join(line) + ": 4")
            tap.like(done.stderr, r"(?m)^pagerctl: did you mean %s\?$" % wanted, "  and what is near")
        pager.call("PUT", "/templates/golden", {"image": image.path})
        tap.like(pager.ctl("template", "show", "goldne").stderr, "did you mean golden", "a template")
        for line in (["show", "nothing-like-it"], ["show", "old-on"],
                     ["create", pager.images + "/none"]):
            tap.ok("did you mean" not in pager.ctl(*line).stderr, "%s: nothing is" % line[1][:20])
        done = pager.ctl("help", "resotre")
        tap.is_(done.returncode, 2, "help of no command: 2")
        tap.like(done.stderr, "no command resotre; did you mean restore", "  and what is near")


def helps():
    commands = run(pagerd.program("pagerctl"), "completion", "commands").stdout.split()
    manual = open(os.path.join(vmm.TOP, "packaging", "man", "pagerctl.1"), encoding="utf-8").read()
    for command in commands:
        done = run(pagerd.program("pagerctl"), "help", command)
        tap.ok(done.returncode == 0 and done.stdout.startswith("pagerctl %s: " % command) and
               "\nusage: pagerctl %s" % command in done.stdout and "\nexit status\n" in done.stdout,
               "help %s" % command, done.stdout)
        tap.ok(max(len(line) for line in done.stdout.split("\n  $")[0].split("\n")) <= 80,
               "  in 80 columns", done.stdout)
        tap.is_(run(pagerd.program("pagerctl"), command, "--help").stdout, done.stdout,
                "  by --help, too")
        tap.ok("Cm %s" % command in manual, "  and pagerctl(1) has it")
    tap.ok("\nexamples\n  $ pagerctl restore" in run(pagerd.program("pagerctl"), "help",
                                                    "restore").stdout, "with examples")


if __name__ == "__main__":
    tap.needs_root()
    tap.run(committed, words, names, in_zsh, meant, helps)
