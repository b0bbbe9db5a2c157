#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
# builds: plain asan
"""A supervisor that is killed between giving a session to its worker and its record: nobody was
told of that session, and nothing is left of it."""
import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
import pagerd  # noqa: E402
import tap  # noqa: E402
import vmm  # noqa: E402


def unrecorded():
    with pagerd.Pagerd(env={"PAGER_FAULT": "CREATE_RECORD:2!kill"}) as pager:
        image = pager.image(size="1M", seed=71)
        session = pager.create(image.path, id="known")
        pager.wait("known", "opened")
        pid = pager.worker_pid()
        try:
            pager.create(image.path, id="unknown")
            tap.ok(False, "the supervisor dies")
        except OSError:
            tap.ok(True, "the supervisor dies")
        pager.process.wait()
        pager.log.thread.join()
        pager.process.stderr.close()
        sockets = os.path.join(pager.run, "sessions")
        tap.is_(sorted(os.listdir(sockets)), ["known.sock", "unknown.sock"], "in the middle")
        del pager.env["PAGER_FAULT"]
        pager.start()
        pager.log.wait(r"of which there is no record: closed")
        tap.is_(os.listdir(sockets), ["known.sock"], "the next one removes the socket")
        tap.is_(pager.error_of("GET", "/sessions/unknown")[0], 404, "nobody knows of it")
        with vmm.Vmm(image, socket=session["socket_path"]) as guest:
            tap.is_(pager.wait("known", "serving")["state"], "serving", "the other one waits on")
            tap.is_(guest.cmd("verify")["wrong"], 0, "and is served")
            tap.is_(pager.worker_pid(), pid, "by its worker")
        pager.create(image.path, id="unknown")
        tap.is_(sorted(os.listdir(sockets))[-1:], ["unknown.sock"], "the name is free")


if __name__ == "__main__":
    tap.needs_root()
    tap.run(unrecorded)
