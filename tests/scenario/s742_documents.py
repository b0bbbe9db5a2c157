#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The documents say what is so: the OpenAPI file against what a running pagerd answers, manuals
and guides against the tables, commands and files that there are."""
import glob
import json
import os
import re
import subprocess
import sys
import urllib.parse

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
import pagerd  # noqa: E402
import tap  # noqa: E402
import vmm  # noqa: E402

V = pagerd.VERSION
README_LINES = 120
PAGES = ["README.md", "CONTRIBUTING.md", "packaging/doc/operators-guide.md",
         "packaging/doc/architecture.md", "packaging/fleet/README.md",
         "packaging/prometheus/pagerd.rules.yml"]


def read(name):
    with open(os.path.join(vmm.TOP, name), encoding="utf-8") as f:
        return f.read()


def manual(name):
    """Without the markup of words, so that they can be looked for."""
    return re.sub(r"\\[&e]|^\.\\\".*$", "", read("packaging/man/" + name), flags=re.M)


# --- The OpenAPI file ---------------------------------------------------------------


def raw(pager, path):
    """The answer to a request for what is no text."""
    connection = pager.connect()
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        return pagerd.Answer(answer.status, answer.headers, repr(answer.read()))
    finally:
        connection.close()


class Spec:
    """What the file says of each answer.  A member that it does not name is a mistake, too."""

    def __init__(self, yaml, jsonschema):
        self.tree = yaml.safe_load(read("packaging/openapi.yaml"))
        self.validator = jsonschema.Draft7Validator
        self.seen = set()

    def resolved(self, node):
        while isinstance(node, dict) and "$ref" in node:
            name = node["$ref"]
            node = self.tree
            for part in name.lstrip("#/").split("/"):
                node = node[part]
        return node

    def strict(self, node):
        node = self.resolved(node)
        if isinstance(node, list):
            return [self.strict(item) for item in node]
        if not isinstance(node, dict):
            return node
        out = {key: {name: self.strict(value) for name, value in value.items()}
               if key == "properties" else self.strict(value) for key, value in node.items()
               if key not in ("description", "example")}
        if "properties" in out:
            out.setdefault("additionalProperties", False)
        if out.pop("nullable", False):
            out = {"anyOf": [out, {"type": "null"}]}
        return out

    def complaints(self, node, value):
        found = self.validator(self.strict(node)).iter_errors(value)
        return ["%s: %s" % ("/".join(map(str, error.absolute_path)), error.message[:300])
                for error in found]

    def names(self, node):
        """Every reference below a node."""
        if isinstance(node, dict):
            found = {node["$ref"]} if "$ref" in node else set()
            return found.union(*(self.names(value) for value in node.values()))
        return set().union(*map(self.names, node)) if isinstance(node, list) else set()

    def whole(self):
        """References lead somewhere, nothing is left over, and operations have names of their own."""
        there = {"#/components/%s/%s" % (kind, name) for kind, rows in self.tree["components"].items()
                 for name in rows}
        tap.is_(self.names(self.tree) ^ there, set(), "every component is there and used")
        ids = [route["operationId"] for methods in self.tree["paths"].values()
               for method, route in methods.items() if method != "parameters"]
        tap.is_(sorted(i for i in ids if ids.count(i) > 1), [], "operationIds are unique")

    def route(self, method, path):
        for pattern, methods in self.tree["paths"].items():
            if re.fullmatch(re.sub(r"{\w+}", "[^/]+", pattern), path) and method.lower() in methods:
                return pattern, methods[method.lower()]
        return None, None

    def answers(self, pager, method, path, body=None, status=200):
        """One request and what is wrong with it or its answer, as a point.  Returns the answer."""
        answer = pager.request(method, path, body) if "raw" not in path else raw(pager, path)
        pattern, route = self.route(method, path.partition("?")[0])
        self.seen.add((method, pattern))
        wrong = [] if answer.status == status else ["it is %d" % answer.status]
        said = self.resolved(route["responses"].get(str(answer.status), route["responses"]["default"]))
        kind = answer.headers["Content-Type"].partition(";")[0]
        if kind not in said["content"]:
            wrong.append("a body of type " + kind)
        elif kind == "application/json":
            wrong += self.complaints(said["content"][kind]["schema"], answer.json)
        elif kind == "application/x-ndjson":
            for line in answer.text.splitlines():
                wrong += self.complaints(said["content"][kind]["schema"], json.loads(line))
        if body is not None and answer.status < 400:
            request = self.resolved(route["requestBody"])["content"]["application/json"]["schema"]
            wrong += ["request: " + text for text in self.complaints(request, body)]
        known = {self.resolved(p)["name"] for p in route.get("parameters", []) +
                 self.tree["paths"][pattern].get("parameters", [])}
        query = urllib.parse.parse_qs(path.partition("?")[2])
        wrong += ["query key " + key for key in query if key not in known]
        tap.ok(not wrong, "%s %s: %d as documented" % (method, path, status),
               "\n".join(wrong) + "\n" + answer.text[:2000])
        return answer


def create_of_every_kind(spec, pager, image):
    page = os.path.join(pager.images, "page")
    with open(page, "wb") as f:
        f.write(b"x" * 4096)
    spec.answers(pager, "POST", "/sessions", {
        "image": image.path, "id": "b", "instance": "vm", "cache_key": "k", "vmm_uid": 0,
        "vmm_gid": 0, "memfd": False, "track_writes": True, "handshake_timeout_ms": 60000,
        "cluster_min_bytes": 4096, "cluster_max_bytes": 65536, "on_image_error": "poison",
        "hot_list": image.path + ".hot", "prefetch": "sequential",
        "overlays": [{"offset": 4096, "path": page}]}, status=201)
    spec.answers(pager, "POST", "/sessions", {"image": image.path, "id": "c",
                                              "record": {"path": image.path + ".list"}}, status=201)
    for body, status in (({"image": image.path, "id": "b"}, 409), ({"image": "/etc/passwd"}, 403),
                         ({"nonsense": 1}, 400), ({"image": pager.images + "/none"}, 404)):
        spec.answers(pager, "POST", "/sessions", body, status=status)


def session_routes(spec, pager, image, other):
    with pager.restore(image, "a", members={"track_writes": True}) as guest:
        guest.cmd("touch rand count=200")
        create_of_every_kind(spec, pager, image)
        for path in ("/sessions", "/sessions/a", "/sessions/b", "/sessions/a?wait=serving&timeout=5s",
                     "/sessions/a?wait=serving&watch=1", "/sessions/a/pages",
                     "/sessions/a/pages?format=raw"):
            spec.answers(pager, "GET", path)
        spec.answers(pager, "GET", "/sessions/none", status=404)
        spec.answers(pager, "GET", "/sessions/b?wait=serving&timeout=1ms", status=504)
        spec.answers(pager, "POST", "/sessions/a/pages")
        spec.answers(pager, "POST", "/sessions/a/record")
        guest.cmd("touch rand count=300 seed=3")
        spec.answers(pager, "POST", "/sessions/a/record", {"stop": True})
        spec.answers(pager, "POST", "/sessions/a/retry", status=409)
        spec.answers(pager, "POST", "/sessions/a/handoff?timeout=30s", {"version": other})
        spec.answers(pager, "POST", "/handoff", {"version": V, "from": other})
        for path in ("/stats", "/versions", "/events?since=1&wait=1s", "/metrics"):
            spec.answers(pager, "GET", path)
        spec.answers(pager, "POST", "/shutdown", status=409)
        spec.answers(pager, "POST", "/sessions/b/complete", status=409)
        spec.answers(pager, "POST", "/sessions/a/complete?join=1&watch=1")
        spec.answers(pager, "POST", "/sessions/a/complete")
        tap.is_(guest.cmd("verify")["wrong"], 0, "the guest reads what it should")
    spec.answers(pager, "POST", "/sessions/b/close")
    spec.answers(pager, "POST", "/sessions/c/close")


def template_routes(spec, pager, image):
    spec.answers(pager, "PUT", "/templates/t", {"image": image.path, "cache_key": "k",
                                                "hot_list": image.path + ".hot",
                                                "prefetch": "off"}, status=201)
    spec.answers(pager, "PUT", "/templates/t", {"image": image.path})
    spec.answers(pager, "POST", "/sessions", {"template": "t"}, status=409)
    spec.answers(pager, "POST", "/templates/t/promote")
    spec.answers(pager, "POST", "/sessions", {"template": "t", "id": "fork"}, status=201)
    spec.answers(pager, "POST", "/templates/t/demote", status=409)
    for path in ("/templates", "/templates/t"):
        spec.answers(pager, "GET", path)
    spec.answers(pager, "POST", "/sessions/fork/close")
    spec.answers(pager, "POST", "/templates/t/demote")
    spec.answers(pager, "DELETE", "/templates/t")
    spec.answers(pager, "GET", "/templates/t", status=404)


def fleet_routes(spec, pager, image, other):
    spec.answers(pager, "GET", "/config")
    spec.answers(pager, "PATCH", "/config", {"controller-max-concurrent": "2", "backend": "file"})
    spec.answers(pager, "PATCH", "/config", {"run-dir": "/x"}, status=400)
    spec.answers(pager, "POST", "/sessions", {"image": image.path})
    spec.answers(pager, "POST", "/upgrade", {"version": other, "handoff": True})
    spec.answers(pager, "POST", "/upgrade", {"version": "9.9.9"}, status=404)
    spec.answers(pager, "POST", "/drain", {"version": other})
    spec.answers(pager, "POST", "/drain", {"version": "9.9.9"}, status=404)
    spec.answers(pager, "GET", "/health")
    spec.answers(pager, "POST", "/shutdown", {"force": True})


def openapi():
    try:
        import jsonschema
        import yaml
    except ImportError as why:
        raise tap.Skip("%s: apt-get install python3-jsonschema python3-yaml" % why)
    spec = Spec(yaml, jsonschema)
    spec.whole()
    other, path = pagerd.other_version()
    with pagerd.Pagerd() as pager:
        pager.install(other, path)
        image = pager.image(size="4M", seed=3, holes=50)
        session_routes(spec, pager, image, other)
        template_routes(spec, pager, image)
        fleet_routes(spec, pager, image, other)
    every = {(method.upper(), pattern) for pattern, methods in spec.tree["paths"].items()
             for method in methods if method != "parameters"}
    tap.is_(sorted(every - spec.seen), [], "every route was asked")


# --- Manuals ------------------------------------------------------------------------


def rows(name, word):
    """The rows WORD(a, "b", ...) of a table, as lists of their arguments."""
    text = re.sub(r"/\*.*?\*/", "", read(name), flags=re.S)
    found = re.findall(r"^%s\((.*)\)$" % word, text, re.M)
    return [[a.strip().strip('"') for a in re.findall(r'"(?:[^"\\]|\\.)*"|[^",]+', row)
             if a.strip()] for row in found]


def api_manual():
    text = manual("pagerd-api.7")
    plain = re.sub(r"\s+", " ", re.sub(r"^\.(?:It|Cm|Va|Li|Ar|Ns) ?| Ns | (?:Ar|Cm|Li) | , ", " ",
                                       text, flags=re.M))
    missing = []
    for row in rows("supervisor/api.def", "ROUTE"):
        method, path = row[0], row[1]
        stem = re.sub(r"{(\w+)}", r"\1", path).replace("/ ", "/")
        words = [w for w in stem.split("/") if w]
        at = text.replace(" Ns Ar ", "").replace(" Ns Cm ", "").replace("/ id", "/id")
        if not re.search(r"%s.*/%s" % (method, words[0]), at) or \
                not all(w in plain for w in words[1:]):
            missing.append(method + " " + path)
        for key in (row[4] if len(row) > 5 else "").split():
            if not re.search(r"\b%s\b ?(=|Ns)" % key, text):
                missing.append("%s %s?%s" % (method, path, key))
    tap.is_(missing, [], "pagerd-api(7) has every route and query key")
    source = "".join(read(os.path.relpath(f, vmm.TOP))
                     for f in glob.glob(os.path.join(vmm.TOP, "supervisor", "*.c")))
    codes = set(re.findall(r'\b[345]\d\d,\s*"([a-z]+(?:-[a-z]+)?)"', source))
    documented = set(re.findall(r"^\.It Li ([a-z-]+) Ta", read("packaging/man/pagerd-api.7"), re.M))
    tap.ok({"not-found", "untracked", "full"} <= codes, "the source has codes", codes)
    tap.is_((sorted(codes - documented), sorted(documented - codes)), ([], []),
            "and every code of an error")


def session_members():
    """What a session has, in the manual."""
    text = read("packaging/man/pagerd-api.7")
    words = set(re.findall(r"[a-z_0-9]+", text))
    with pagerd.Pagerd() as pager:
        image = pager.image(size="1M")
        pager.create(image.path, id="a")
        session = pager.show("a")
        told = {"/sessions/a": session, "/health": pager.call("GET", "/health"),
                "/versions": pager.call("GET", "/versions")["versions"][0]}
    # A counter is explained by metrics.md, where monitoring looks.
    for path, answer in told.items():
        tap.is_(sorted(set(answer) - words), [], "pagerd-api(7) has the members of " + path)


def ctl_manual():
    text = read("packaging/man/pagerctl.1")
    commands = {row[0] for row in rows("supervisor/ctl/command.def", "COMMAND")}
    missing = []
    for row in rows("supervisor/ctl/command.def", "FLAG"):
        name, users = row[1], row[-2].split()
        for command in users:
            # From the item of the command on to the next command's.
            at = [m.start() for m in re.finditer(r"^\.(It )?Cm %s\b" % command, text, re.M)]
            after = "".join(text[start:start + 6000].split("\n.It Cm ")[0] + "\n" + "\n".join(
                text[start:start + 6000].split("\n.It ")[:3]) for start in at)
            if "Fl -" + name not in after and not (
                    command == "restore" and "options of Cm create" in after):
                missing.append("%s --%s" % (command, name))
    tap.is_(missing, [], "pagerctl(1) has every option with its command")
    tap.ok(len(commands) > 20, "of %d commands" % len(commands))
    code = read("supervisor/ctl/help.c") + read("common/exitcode.h")
    listed = set(re.findall(r"^\.It (\d+)$", text, re.M))
    used = {n for n in re.findall(r"EXITCODE_\w+ = (\d+)", code) if int(n) < 10}
    tap.is_(sorted(used - listed), [], "and every exit status")


# --- Guides -------------------------------------------------------------------------


def readme():
    text = read("README.md")
    tap.ok(len(text.splitlines()) <= README_LINES, "README.md has at most %d lines" % README_LINES)
    first = re.search(r"```sh\n(.*?)```", text, re.S)
    tap.is_([line.split("#")[0].strip() for line in first.group(1).splitlines()],
            ["make demo", "make check"], "and begins with two commands")
    tap.ok(len(text[:first.start()].split()) <= 2, "right behind its title")


def mentioned():
    """Files, targets and commands that the guides name."""
    targets = set(re.findall(r"^([a-z-]+):", read("GNUmakefile"), re.M))
    ctl = pagerd.program("pagerctl")
    helps = {}
    for command in subprocess.run([ctl, "completion", "commands"], stdout=subprocess.PIPE, text=True,
                                  check=True).stdout.split():
        helps[command] = subprocess.run([ctl, "help", command], stdout=subprocess.PIPE, text=True,
                                        check=True).stdout
    for page in PAGES:
        text = read(page)
        code = re.findall(r"```\w*\n(.*?)```", text, re.S) + re.findall(r"`([^`\n]+)`", text)
        wrong = []
        for piece in code:
            wrong += ["make " + t for t in re.findall(r"^(?:\$ )?make ([a-z][a-z-]*)(?![\w=.-])", piece,
                                                      re.M) if t not in targets]
            for line in piece.replace("\\\n", " ").splitlines():
                match = re.search(r"\bpagerctl (?:--json )?([a-z]+)\b(.*)", line.split(" # ")[0])
                if not match:
                    continue
                command, rest = match.groups()
                flags = re.findall(r" --([a-z-]+)", rest)
                wrong += ["pagerctl " + command] if command not in helps else [
                    "pagerctl %s --%s" % (command, f) for f in flags if "--" + f not in helps[command]]
            if re.fullmatch(r"(packaging|supervisor|worker|common|ipc|tests|\.ci)/[\w./-]+", piece) and \
                    "NAME" not in piece and not os.path.exists(os.path.join(vmm.TOP, piece)):
                wrong.append(piece)
        tap.is_(wrong, [], "%s names what there is" % page)


def log_lines():
    """What the guide says that the log says, in the source of the log."""
    source = "".join(read(os.path.relpath(f, vmm.TOP)) for f in glob.glob(
        os.path.join(vmm.TOP, "supervisor", "*.c")))
    source = re.sub(r'"\s*(?:PRI\w+)?\s*"', "", source)
    rows_seen = re.findall(r"^\| `([^`]*…[^`]*|the [^`]*)` \|", read("packaging/doc/operators-guide.md"),
                           re.M)
    tap.ok(len(rows_seen) >= 2, "the guide quotes the log")
    for quoted in rows_seen:
        for part in (p.strip() for p in quoted.split("…")):
            tap.ok(part in source, "the log can say: " + part)


if __name__ == "__main__":
    tap.needs_root()
    tap.run(openapi, api_manual, session_members, ctl_manual, readme, mentioned, log_lines)
