# SPDX-License-Identifier: GPL-2.0
"""Says what is going on: which step, how far, how long so far."""

import resource
import sys
import time
from typing import TextIO


def spent() -> float:
    """Seconds of CPU time so far, of this process and of what it started: QEMU and compilers."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_CHILDREN, resource.RUSAGE_SELF)]
    return sum(one.ru_utime + one.ru_stime for one in used)


class Progress:
    """One line a step; on a terminal that line is rewritten as the step goes on.

    Where the output is no terminal (CI), a step prints its start, a line each `interval` seconds
    with how far it is, and its end.
    """

    def __init__(self, stream: TextIO | None = None, interval: float = 15.0) -> None:
        self.stream = stream if stream is not None else sys.stdout
        self.interval = interval
        self.began = time.monotonic()
        self._tty = self.stream.isatty()
        self._what = ""
        self._how = ""
        self._step_began = 0.0
        self._shown = 0.0
        self._late = 0.0

    def _clock(self) -> str:
        seconds = int(time.monotonic() - self.began)
        return f"[{seconds // 60:2d}:{seconds % 60:02d}]"

    def _write(self, text: str, end: str) -> None:
        lead = "\r\x1b[K" if self._tty else ""
        self.stream.write(f"{lead}{self._clock()} {text}{end}")
        self.stream.flush()

    def step(self, what: str) -> None:
        """Begin a step; `what` is a few words such as 'building the fixed kernel'."""
        self._begin(what)
        self._write(what, "" if self._tty else "\n")

    def step_late(self, what: str, seconds: float) -> None:
        """The same, and nothing is said of it at all if it ends within so many seconds."""
        self._begin(what)
        self._late = seconds

    def _begin(self, what: str) -> None:
        self._what, self._how, self._late = what, "", 0.0
        self._step_began = self._shown = time.monotonic()

    def update(self, how: str) -> None:
        """Say how far the step is, such as '312 of 1007 objects'.  Cheap: call it often."""
        now = time.monotonic()
        if now - self._shown < (self._late or (0.2 if self._tty else self.interval)):
            return
        self._late = 0.0
        self._shown, self._how = now, how
        self._write(f"{self._what}: {how}", "" if self._tty else "\n")

    def done(self, result: str = "done") -> None:
        """End the step with its result and how long it took."""
        took = time.monotonic() - self._step_began
        if not self._late:
            self._write(f"{self._what}: {result} ({took:.0f} s)", "\n")
        self._what, self._late = "", 0.0

    def note(self, text: str) -> None:
        """A line by itself; a step that is going on is shown again after it."""
        self._write(text, "\n")
        if self._what and self._tty and not self._late:
            self._write(f"{self._what}: {self._how}" if self._how else self._what, "")

    def stop(self) -> None:
        """Leave the terminal at the start of a line (before an error message)."""
        if self._what and self._tty and not self._late:
            self.stream.write("\n")
            self.stream.flush()
        self._what, self._late = "", 0.0
