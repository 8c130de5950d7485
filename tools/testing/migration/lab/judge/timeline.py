# SPDX-License-Identifier: GPL-2.0
"""One migration as a test saw it: where the page was, how long the call took, and of some writes of
each process when they were made and whether they are in the page that is in use.

A test that keeps a timeline prints it among its notes, times in microseconds from the call:

    timeline call=1 page=0 node=1->0 pfn=0x178200->0x138400 call_us=5731 hot=yes lost_words=384
        writers=1                                                       (one line)
    timeline writer=1 cpu=3 faults=0 writes=8192 kept=-412:256,-300:512 lost=15:768

and verdict.json holds the same lines, so there is one reader for both.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from lab.judge.verdict import Boot

# What is kept of a run: so many tests of each kernel, and of each no more than this.
TESTS, WRITERS, WRITES = 4, 8, 64
_CALL = re.compile(
    r"timeline call=(?P<call>\d{1,9}) page=(?P<page>\d{1,9}) "
    r"node=(?P<node_before>\d{1,9})->(?P<node_after>\d{1,9}) "
    r"pfn=(?P<pfn_before>0x[0-9a-f]{1,16})->(?P<pfn_after>0x[0-9a-f]{1,16}) "
    r"call_us=(?P<call_us>\d{1,9}) hot=(?P<hot>yes|no) lost_words=(?P<lost_words>\d{1,9}) "
    r"writers=(?P<writers>\d{1,2})$")
_WRITER = re.compile(
    r"timeline writer=(?P<number>\d{1,2}) cpu=(?P<cpu>\d{1,9}) faults=(?P<faults>\d{1,9}) "
    r"writes=(?P<writes>\d{1,18}) kept=(?P<kept>\S*) lost=(?P<lost>\S*)$")
_WRITE = re.compile(r"(-?\d{1,9}):(\d{1,18})$")


@dataclass(frozen=True)
class Write:
    """A write of which the fate is known; `us` from the beginning of the call."""

    us: int
    number: int
    lost: bool


@dataclass(frozen=True)
class Pause:
    """A time in which a process made far fewer writes than it could: it waited."""

    begin: int
    end: int


@dataclass(frozen=True)
class Writer:
    """A process that writes to the page.  `writes` is how many it made, most of which are not in
    `known`; `faults` is how many page faults it took meanwhile, for whatever reason."""

    number: int
    cpu: int
    faults: int
    writes: int
    known: tuple[Write, ...]

    @cached_property
    def lost(self) -> tuple[Write, ...]:
        return tuple(write for write in self.known if write.lost)

    def pauses(self, shortest: float) -> list[Pause]:
        """Where, between two known writes, it wrote nothing for `shortest` microseconds or more.

        Between two known writes others were made.  What those take is told by the median of all
        such pairs; what is left is the pause.
        """
        pairs = list(zip(self.known, self.known[1:]))
        if not pairs:
            return []
        speeds = sorted((b.us - a.us) / (b.number - a.number) for a, b in pairs)
        usual = speeds[len(speeds) // 2]
        return [Pause(a.us, b.us) for a, b in pairs
                if b.us - a.us - usual * (b.number - a.number) >= shortest]


@dataclass(frozen=True)
class Timeline:
    """One migration of one test.  `hot` is a call with all writers at full speed; `lost_words` is
    what the test found to be wrong in the page."""

    test: str
    call: int
    page: int
    node_before: int
    node_after: int
    pfn_before: str
    pfn_after: str
    call_us: int
    hot: bool
    lost_words: int
    writers: tuple[Writer, ...]

    def window(self) -> tuple[int, int] | None:
        """From the first write known to be lost to the last; None where none is."""
        lost = [write.us for writer in self.writers for write in writer.lost]
        return (min(lost), max(lost)) if lost else None

    def span(self) -> tuple[int, int]:
        """From the first moment that is known of to the last."""
        times = [0, self.call_us, *(write.us for writer in self.writers for write in writer.known)]
        return min(times), max(times)


def lines_of(notes: Sequence[str]) -> list[str]:
    """The lines among a test's notes that are a timeline."""
    return [note for note in notes if note.startswith("timeline ")]


def read(test: str, lines: Sequence[str]) -> Timeline | None:
    """The timeline in `lines`; None where there is none that is whole and free of contradictions.

    A picture is made of it, and half a picture would be a wrong one.
    """
    head = _CALL.match(lines[0]) if lines else None
    if not head or not 0 < len(lines) - 1 == int(head["writers"]) <= WRITERS:
        return None
    writers = []
    for number, line in enumerate(lines[1:], 1):
        writer = _writer(line)
        if writer is None or writer.number != number:
            return None
        writers.append(writer)
    made = Timeline(
        test=test, call=int(head["call"]), page=int(head["page"]),
        node_before=int(head["node_before"]), node_after=int(head["node_after"]),
        pfn_before=head["pfn_before"], pfn_after=head["pfn_after"], call_us=int(head["call_us"]),
        hot=head["hot"] == "yes", lost_words=int(head["lost_words"]), writers=tuple(writers))
    # Nothing to draw; or writes seen to be lost in a page that was found to have them all.
    if not any(writer.known for writer in writers) or (made.window() and not made.lost_words):
        return None
    return made


def _writer(line: str) -> Writer | None:
    match = _WRITER.match(line)
    if not match:
        return None
    known = []
    for key in ("kept", "lost"):
        for text in filter(None, match[key].split(",")):
            write = _WRITE.match(text)
            if not write:
                return None
            known.append(Write(int(write[1]), int(write[2]), key == "lost"))
    known.sort(key=lambda write: write.number)
    if len(known) > WRITES or any(a.number == b.number or a.us > b.us
                                  for a, b in zip(known, known[1:])):
        return None
    if known and not 0 < known[0].number <= known[-1].number <= int(match["writes"]):
        return None
    return Writer(int(match["number"]), int(match["cpu"]), int(match["faults"]),
                  int(match["writes"]), tuple(known))


def report(boots: Sequence[Boot]) -> list[dict[str, Any]]:
    """What verdict.json holds of the timelines of all boots of a kernel: of each of the first few
    tests one, from the first boot in which it lost a write, or else from the first that has any."""
    found: dict[str, tuple[bool, dict[str, Any]]] = {}
    for boot in boots:
        for test in boot.tests():
            lines = lines_of(test.notes)
            made = read(test.name, lines)
            if made is None:
                continue
            lossy = made.window() is not None
            if test.name not in found or lossy and not found[test.name][0]:
                found[test.name] = lossy, {"test": test.name, "folder": boot.folder, "lines": lines}
    return [told for _, told in list(found.values())[:TESTS]]


def load(reported: object) -> list[Timeline]:
    """The timelines of a kernel in a verdict.json; those that cannot be read are left out."""
    made = []
    for told in reported if isinstance(reported, list) else []:
        if isinstance(told, dict) and isinstance(told.get("lines"), list):
            one = read(str(told.get("test", "")), [str(line) for line in told["lines"]])
            if one is not None:
                made.append(one)
    return made[:TESTS]
