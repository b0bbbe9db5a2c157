# SPDX-License-Identifier: Apache-2.0
"""What must not be disturbed while a scenario does something bad.

    with stage.Stage(handshake_timeout="1s") as on:
        ...
        on.as_before()"""
import pagerd
import tap


class Stage:
    """A pagerd with a neighbour whose guest works all along, and the counts to return to."""

    def __init__(self, **options):
        self.pager = pagerd.Pagerd(**options)

    def __enter__(self):
        try:
            return self.set_up()
        except BaseException:
            self.pager.destroy()
            raise

    def set_up(self):
        pager = self.pager
        self.image = pager.image(size="8M", seed=3, holes=100)
        self.neighbour = pager.restore(self.image, "neighbour")
        self.neighbour.cmd("start rand write")
        self.worker = pager.worker_pid(self.version())
        self.before = pager.fds(), pager.worker_fds(self.worker)
        return self

    def version(self):
        return self.pager.show("neighbour")["version"]

    def is_neighbour_fine(self):
        """It works and has read nothing wrong so far."""
        before = self.neighbour.cmd("status")
        return self.neighbour.wait_status(
            lambda now: now["progress"] > before["progress"])["total_wrong"] == 0

    def as_before(self):
        pager = self.pager
        pager.ok_fds(pager.process.pid, self.before[0], "the supervisor's descriptors are as before")
        pager.ok_fds(self.worker, self.before[1], "and the worker's")
        tap.is_(pager.worker_pid(self.version()), self.worker, "the worker is the same")
        with pager.restore(self.image, "next") as guest:
            tap.is_(guest.cmd("verify")["wrong"], 0, "and serves the next one")
        pager.wait("next", "closed")

    def __exit__(self, kind, error, trace):
        if not error:
            answer = self.neighbour.cmd("stop")
            tap.ok(answer["wrong"] == 0 and answer["loops"] > 0, "the neighbour worked on", answer)
            tap.is_(self.neighbour.cmd("verify")["wrong"], 0, "and is right")
        self.neighbour.kill()
        self.pager.__exit__(kind, error, trace)
