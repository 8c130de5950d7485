# SPDX-License-Identifier: GPL-2.0
"""What is known of each defect on each base and architecture: one cell of the matrix.

A cell is proved only by a record or a run that was made with the selftests and patches of today.
What says nothing is missing, and what says something of other tests or patches is stale: neither
is ever green.  Where there is nothing to prove, the cell says why.

What jobs of `make matrix` say that is no verdict is kept in OUT/matrix/, a file for each base and
architecture: that there is nothing to compare, or why no verdict came.
"""

import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lab import arch as arches, base as bases, provenance
from lab.defect import FILE, Defect, why_not
from lab.errors import LabError
from lab.judge.summary import Summary, witness
from lab.kernel import variant
from lab.paths import replace

# States of a cell that are no verdict.
MISSING, STALE, NONE = "missing", "stale", "nothing to prove"
GOOD = ("PROVED", NONE)
FOLDER = "matrix"


@dataclass(frozen=True)
class Cell:
    """A defect on a base and an architecture, and what is known of it."""

    defect: str
    base: str
    arch: str
    state: str                  # a verdict, or one of the above
    why: str = ""
    run: Summary | None = None  # what says so

    @property
    def wanted(self) -> bool:
        """Whether a run would make it known."""
        return self.state in (MISSING, STALE)


@dataclass(frozen=True)
class Note:
    """What a job said of a cell: "done", with the folder of its run in OUT, "none", with what it
    was decided by, or "failed"."""

    said: str
    why: str = ""
    host: str = ""
    folder: str = ""
    ground: str = ""


@dataclass
class Unit:
    """All that jobs said of one base on one architecture."""

    base: str
    arch: str
    debug: bool
    commit: str = ""
    notes: dict[str, Note] = field(default_factory=dict)

    def name(self) -> str:
        return unit_name(self.base, self.arch, self.debug)


def unit_name(base: str, arch: str, debug: bool = False) -> str:
    """The name of a unit of work, and of its file."""
    return f"{base}-{arch}{'-debug' if debug else ''}"


def survey(defects: Sequence[Defect], on: Sequence[str], archs: Sequence[str],
           said: Iterable[tuple[Summary, str]], units: Iterable[Unit] = (), debug: bool = False,
           boots: int = 0) -> list[Cell]:
    """All cells, in order.

    `said` are runs and records, each with why it is stale, or "".  One of fewer than `boots` boots
    is not enough.
    """
    known: dict[tuple[str, str, str], list[tuple[Summary, str]]] = {}
    for run, stale in said:
        name = base_of(run)
        if name and run.debug == debug and counts(run):
            known.setdefault((run.defect, name, run.arch), []).append((run, stale))
    notes = {(name, unit.base, unit.arch): note for unit in units if unit.debug == debug
             for name, note in unit.notes.items()}
    return [_cell(one, base, arch, known.get((one.name, base, arch), []),
                  notes.get((one.name, base, arch)), boots, why)
            for one in defects for base in on for arch in archs
            for why in [nothing(one, base, arch)]]


def _cell(one: Defect, base: str, arch: str, said: Sequence[tuple[Summary, str]],
          note: Note | None, boots: int, why: str) -> Cell:
    # What is of today first, and of that the newest.
    for run, stale in sorted(said, key=lambda pair: (not pair[1], pair[0].started), reverse=True):
        if run.verdict == "MISSED" and one.show.hides(arch):
            continue
        few = min(kernel.boots for kernel in run.both()) < boots
        if stale:
            return Cell(one.name, base, arch, STALE, stale, run)
        if few and run.verdict == "PROVED":
            return Cell(one.name, base, arch, STALE, f"proved with fewer than {boots} boots", run)
        return Cell(one.name, base, arch, run.verdict, run.why, run)
    if why:
        return Cell(one.name, base, arch, NONE, why)
    if note and note.said == "none" and note.ground == ground(one, base):
        return Cell(one.name, base, arch, NONE, note.why)
    why = f"{note.host}: {note.why}" if note and note.said == "failed" else ""
    return Cell(one.name, base, arch, MISSING, why)


def counts(run: Summary) -> bool:
    """Whether a run is of all tests, of the usual form of the fix, of the usual kind of kernel, and
    of what a commit has."""
    return run.provenance.dirty is not True and not run.tests and not witness(run.command) \
        and not arches.load(run.arch).unusual(run.command) \
        and not re.search(r"\b(TESTS|FORM)=", run.command)


def base_of(run: Summary) -> str:
    """The base of a run: of its kernel's version, where it is not recorded; "" for none."""
    try:
        return run.base or bases.for_version(run.source["version"]).name
    except (LabError, ValueError):
        return ""


def nothing(one: Defect, base: str, arch: str) -> str:
    """Why there is nothing to prove of a defect on a base and an architecture, as far as this
    repository alone can tell; "" where it cannot."""
    if not one.show.selftests:
        return "no selftest shows it"
    if why := bases.load(base).unproved if base in bases.names() else "":
        return f"nothing is proved of {base}: {why}"
    if why := one.show.hides(arch):
        return f"no boot shows it on {arch}: {why}"
    row = arches.load(arch)
    if why := row.too_old(base) or why_not(one, row, base):
        return why
    forms = [path.name for path in (variant.QUEUE / base).glob("series*")]
    # A form of the fix may bring it to where it was not, and so may what a stable branch took since
    # its first release.
    if bases.numbers(base) < bases.numbers(one.since) and one.queue.form not in forms \
            and not bases.late(base):
        return f"it came with {one.since}"
    if one.gone and bases.numbers(base) >= bases.numbers(one.gone):
        return f"its code went with {one.gone}"
    if one.revert is None and one.queue.form not in forms and not any(
            variant.mending(variant.series(base, form), one) for form in forms):
        return f"nothing takes a fix out of {base}, and queue/{base} puts none in"
    return ""


def ground(one: Defect, base: str) -> str:
    """A hash of what decides whether there is anything to compare, beside the tree."""
    lists = sorted(f"queue/{base}/{path.name}" for path in (variant.QUEUE / base).glob("series*"))
    return provenance.queue(lists, [*provenance.rules_of(one), one.folder / FILE])


# ---- what jobs said --------------------------------------------------------------------------


def read(out: Path) -> list[Unit]:
    """What jobs said, as OUT has it.  LabError for a file that cannot be read."""
    units = []
    for path in sorted((out / FOLDER).glob("*.json")):
        try:
            told: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
            units.append(Unit(told["base"], told["arch"], bool(told["debug"]), told["commit"],
                              {name: Note(**note) for name, note in told["notes"].items()}))
        except (OSError, ValueError, LookupError, TypeError, AttributeError) as err:
            raise LabError(f"{path} cannot be read: remove it, and run make matrix again") from err
    return units


def write(unit: Unit, out: Path) -> None:
    """Keep what jobs said of a unit."""
    told = {"base": unit.base, "arch": unit.arch, "debug": unit.debug, "commit": unit.commit,
            "notes": {name: vars(note) for name, note in sorted(unit.notes.items())}}
    replace(out / FOLDER / f"{unit.name()}.json", json.dumps(told, indent=1) + "\n")


def archs() -> list[str]:
    """The architectures in the order in which cells show them."""
    return sorted(arches.names(), key=lambda name: (name != arches.FIRST, name))
