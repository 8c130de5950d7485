# SPDX-License-Identifier: GPL-2.0
"""Runs the selftests on a machine that is in use: looks first, and sees that all is as it was.

What puts the machine back is what always does: the guardian of each selftest, a process of its own
(tools/testing/selftests/mm/migrate_guard.c), which lab/minder.py waits for however this process
ends.
Here it is only looked after.
"""

import contextlib
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType

from lab import defect
from lab.arch import Arch
from lab.errors import LabError
from lab.guest import selftest
from lab.host import needs, preflight, state
from lab.host.needs import Need
from lab.paths import INSTALLED, REPO
from lab.progress import Progress
from lab.verbs import kselftest

NAME = "pmd-share-test"
# Where a package has the selftests, beside what it has of the repository.
_PACKED = REPO.parent.parent / "libexec" / REPO.name
# Seconds between two looks at the clock.
_TICK = 1.0


@dataclass
class Outcome:
    """What came of a run, and the last line that says so."""

    status: str                             # passed, failed, skipped, refused, interrupted, error
    seconds: int = 0
    stream: kselftest.Stream = field(default_factory=kselftest.Stream)
    restored: str = "yes"                   # or "no"

    def line(self) -> str:
        """For a monitoring system: the words are always the same, and in this order."""
        by_test = defect.shown() if self.stream.failed else {}
        shown = sorted({one for name in self.stream.failed for one in by_test.get(name, [])})
        return (f"{NAME}: status={self.status} passed={len(self.stream.passed)} "
                f"failed={len(self.stream.failed)} skipped={len(self.stream.skipped)} "
                f"defects={','.join(shown) or 'none'} restored={self.restored} "
                f"seconds={self.seconds}")


def folder(arch: Arch, progress: Progress, harness: Path | None) -> Path:
    """Where run_kselftest.sh and the selftests are: those of the package, or built now."""
    if INSTALLED:
        if not (_PACKED / "run_kselftest.sh").is_file():
            raise LabError(f"there is no {_PACKED}/run_kselftest.sh: install the package again")
        return _PACKED
    return kselftest.install(arch, progress, harness=harness)


def listed() -> list[str]:
    """The selftests that folder() has: to name them, none needs to be built."""
    if not INSTALLED:
        return selftest.names()
    text = (_PACKED / "kselftest-list.txt").read_text(encoding="utf-8")
    return [line.partition(":")[2] for line in text.split()]


def plan(names: Sequence[str]) -> preflight.Plan:
    """What the selftests `names` would do here; all of them for none."""
    known = needs.load()
    tests = [known.get(name, Need(name, 60)) for name in listed() if not names or name in names]
    return preflight.plan(state.read(), tests, os.environ)


def run(home: Path, one: preflight.Plan, progress: Progress, tell: Callable[[str], None]
        ) -> Outcome:
    """Run what is planned; each line of KTAP goes to `tell`.

    Ctrl-C, SIGTERM and a terminal that is closed end it at once, and it is told of what was done
    until then.  LabError where the runner gave up.
    """
    began = time.monotonic()
    clock = _Clock(one, progress)
    outcome = Outcome("passed")
    names = tuple(test.name for test in one.tests)

    def line(text: str) -> None:
        clock.line(text)
        tell(text)
    try:
        with _signals(), clock.ticking():
            outcome.stream = kselftest.run(kselftest.command(home, names), {}, line,
                                           outcome.stream)
        outcome.status = "failed" if outcome.stream.failed else \
            "passed" if outcome.stream.passed else "skipped"
    except KeyboardInterrupt:
        outcome.status = "interrupted"
    finally:
        progress.stop()
    outcome.seconds = round(time.monotonic() - began)
    if left := state.changes(one.state, state.read()):
        outcome.restored = "no"
        for what in left:
            progress.note(f"not as it was: {what}")
    return outcome


@contextlib.contextmanager
def _signals() -> Iterator[None]:
    """Have SIGTERM and SIGHUP do what Ctrl-C does, once."""
    def stop(_number: int, _frame: FrameType | None) -> None:
        for number in before:
            signal.signal(number, signal.SIG_IGN)
        raise KeyboardInterrupt
    before = {number: signal.getsignal(number) for number in
              (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    for number in before:
        signal.signal(number, stop)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class _Clock:
    """Says which test runs, and for how long there is still to wait."""

    def __init__(self, one: preflight.Plan, progress: Progress) -> None:
        self._left = {test.name: test.seconds for test in one.tests}
        for test in one.skipped:
            self._left[test.name] = 0
        self._count, self._done = len(self._left), 0
        self._spent, self._expected = 0.0, 0
        self._name, self._began = "", 0.0
        self._progress = progress
        self._lock = threading.Lock()
        self._end = threading.Event()

    def line(self, text: str) -> None:
        """Look at a line of the runner's output."""
        words = text.split()
        with self._lock:
            if words[:3] == ["#", "selftests:", f"{kselftest.COLLECTION}:"]:
                self._name, self._began = words[3], time.monotonic()
                self._progress.step(f"{self._name} ({self._done + 1} of {self._count}), "
                                    f"about {preflight.duration(self.left())} left")
            elif words[:1] in (["ok"], ["not"]) and self._name:
                expected = self._left.pop(self._name, 0)
                # What is skipped says nothing of the pace.
                if "# SKIP" not in text:
                    self._spent += time.monotonic() - self._began
                    self._expected += expected
                self._done += 1
                self._progress.done("FAILED" if words[0] == "not" else
                                    "skipped" if "# SKIP" in text else "passed")
                self._name = ""

    def left(self) -> float:
        """Seconds: what was measured elsewhere, at the pace that this machine has shown."""
        pace = self._spent / self._expected if self._expected > 10 else 1.0
        running = time.monotonic() - self._began if self._name else 0.0
        now = max(0.0, self._left.get(self._name, 0) * pace - running)
        return now + pace * sum(seconds for name, seconds in self._left.items()
                                if name != self._name)

    @contextlib.contextmanager
    def ticking(self) -> Iterator[None]:
        """Go on saying it while a test says nothing."""
        thread = threading.Thread(target=self._tick, daemon=True)
        thread.start()
        try:
            yield
        finally:
            self._end.set()
            thread.join()

    def _tick(self) -> None:
        while not self._end.wait(_TICK):
            with self._lock:
                if self._name:
                    self._progress.update(f"about {preflight.duration(self.left())} left")


def brief(text: str) -> bool:
    """Whether a line of KTAP is for a person at a terminal: results, and what failed in them."""
    return not text.startswith("#") or text.startswith("# not ok")


def is_root() -> bool:
    """Whether the selftests would be allowed to do their work."""
    return os.geteuid() == 0


def to_terminal() -> bool:
    """Whether standard output is for a person."""
    return sys.stdout.isatty()
