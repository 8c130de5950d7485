# SPDX-License-Identifier: GPL-2.0
"""The table that is shown while jobs run: a line a job, where it runs, since when, what it said.

On a terminal the table is rewritten where it stands; elsewhere each change is a line.
"""

import shutil
import sys
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TextIO

from lab.matrix.plan import Work

WAITS, RUNS, DONE, LOST = "waits", "runs", "done", "missing"
# Seconds between two looks of the table, and between two lines where it is none.
_OFTEN, _SELDOM = 0.5, 60.0


@dataclass
class Row:
    """A job."""

    work: Work
    state: str = WAITS
    where: str = ""
    since: float = 0.0
    at: str = ""                # the defect that is being proved
    verdicts: dict[str, str] = field(default_factory=dict)

    def text(self, now: float) -> str:
        """Its line."""
        count: dict[str, int] = {}
        for word in self.verdicts.values():
            count[word] = count.get(word, 0) + 1
        said = ", ".join(f"{number} {word}" for word, number in count.items())
        clock = f"{int(now - self.since) // 60:4}:{int(now - self.since) % 60:02}" \
            if self.state == RUNS else ""
        doing = f"{self.at} ..." if self.state == RUNS and self.at else ""
        return (f"{self.work.name:18} {self.state:8} {len(self.verdicts):2}/"
                f"{len(self.work.defects):<2} {self.where:20.20} {clock:7} "
                f"{'; '.join(filter(None, [said, doing]))}").rstrip()


class Table:
    """All jobs."""

    def __init__(self, units: Iterable[Work], stream: TextIO | None = None) -> None:
        self.stream = stream or sys.stdout
        self.rows = {one.name: Row(one) for one in units}
        self.tty = self.stream.isatty()
        self._lines = 0
        self._shown = 0.0
        self._began = time.monotonic()

    def begins(self, name: str, where: str) -> None:
        """A job begins, perhaps for another time and elsewhere."""
        row = self.rows[name]
        if row.state == RUNS:
            self.note(f"{name}: nothing came from {row.where}, another host tries it")
        row.state, row.where, row.since = RUNS, where, time.monotonic()
        row.at, row.verdicts = "", {}
        self._say(f"{name}: begins on {where}")

    def proves(self, name: str, defect: str) -> None:
        self.rows[name].at = defect

    def said(self, name: str, defect: str, word: str, why: str) -> None:
        """What came of a defect."""
        row = self.rows[name]
        row.verdicts[defect] = word
        row.at = ""
        took = int(time.monotonic() - row.since)
        self._say(f"{name}: {defect}: {word}{f': {why}' if why else ''} "
                  f"({row.where}, {took // 60}:{took % 60:02})")

    def ends(self, name: str, missing: int, why: str = "") -> None:
        """A job is over, and so many of its results are missing."""
        row = self.rows[name]
        row.state, row.at = LOST if missing else DONE, ""
        if missing:
            self.note(f"{name}: {missing} of {len(row.work.defects)} results are missing"
                      + (f" ({row.where or 'no host'}: {why})" if why else ""))
        else:
            self._say(f"{name}: done ({row.where})")

    def _say(self, text: str) -> None:
        if not self.tty:
            self._line(text)

    def note(self, text: str) -> None:
        """A line that stays."""
        self._up()
        self._line(text)
        self.show(True)

    def _line(self, text: str) -> None:
        seconds = int(time.monotonic() - self._began)
        self.stream.write(f"[{seconds // 60:2d}:{seconds % 60:02d}] {text}\n")
        self.stream.flush()
        self._shown = time.monotonic()

    def show(self, always: bool = False) -> None:
        """Bring what is seen up to date.  Cheap: call it often."""
        now = time.monotonic()
        if not self.tty:
            if now - self._shown >= _SELDOM:
                running = [row for row in self.rows.values() if row.state == RUNS]
                for row in running:
                    self._line(row.text(now))
            return
        if not always and now - self._shown < _OFTEN:
            return
        self._shown = now
        size = shutil.get_terminal_size()
        self._up()
        # Those that run are what a screen is for, where it is too small for all.
        order = {RUNS: 0, LOST: 1, WAITS: 2, DONE: 3}
        rows = list(self.rows.values())
        if len(rows) > size.lines - 2:
            rows = sorted(rows, key=lambda row: order[row.state])[:size.lines - 2]
        for row in rows:
            self.stream.write(row.text(now)[:size.columns - 1] + "\x1b[K\n")
        self.stream.flush()
        self._lines = len(rows)

    def _up(self) -> None:
        if self.tty and self._lines:
            self.stream.write(f"\x1b[{self._lines}A\x1b[J")
            self._lines = 0
