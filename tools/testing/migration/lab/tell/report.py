# SPDX-License-Identifier: GPL-2.0
"""Gathers all that was proved, of runs and of records, and writes it down as one page.

A run is a folder of OUT with a verdict.json, as `make prove` leaves it.
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path

from lab import base, defect
from lab.errors import LabError
from lab.judge.summary import Summary
from lab.paths import replace
from lab.tell import cells, page, record
from lab.tell.page import Proof
from lab.wanted import KERNELS


@dataclass(frozen=True)
class Gathered:
    """The runs, the newest first; the records; and the folders of runs that have no verdict."""

    runs: list[Proof]
    records: list[Proof]
    unfinished: list[str]


def write(out: Path, dest: Path | None = None, records: Path = record.RECORDS,
          runs: bool = True) -> Path:
    """Write the page on the runs in `out` and the records to `dest`, or to report.html in `out`;
    returns its path.

    With `runs` LabError where there is no run; and always where there is nothing, or a verdict.json
    or a record that cannot be read.
    """
    found = gather(out, records)
    if not found.runs and (runs or not found.records):
        raise LabError(f"there is no run in {out}: run make prove first, or name its OUT=")
    defects = [defect.load(name) for name in defect.names()]
    known = cells.survey(defects, base.names()[::-1], cells.archs(),
                         [(proof.run, proof.stale) for proof in (*found.runs, *found.records)],
                         cells.read(out))
    made = page.render(defects, base.names(), found.runs, found.records, found.unfinished,
                       datetime.now(timezone.utc), known)
    path = dest or out / "report.html"
    if path.is_dir():
        raise LabError(f"{path} is a folder: name a file with O=")
    replace(path, made)
    return path


def gather(out: Path, records: Path = record.RECORDS,
           tell: Callable[[str], None] = lambda _how: None) -> Gathered:
    """All runs in `out` and all records in `records`; `tell` is called with how far it is."""
    loaded: dict[tuple[str, ...], Summary] = {}
    unfinished = []
    for folder in sorted(path for path in [out, *out.glob("*")] if path.is_dir()):
        path = folder / "verdict.json"
        if path.is_file():
            run = record.load(path)
            # The last run is twice in OUT: at the top, and in a folder of its own.
            loaded.setdefault((run.started, run.name()), run)
        elif folder != out and any((folder / name).is_dir() for name in KERNELS):
            unfinished.append(folder.name)
    runs = sorted(loaded.values(), key=lambda run: run.started, reverse=True)
    kept = record.proofs(records)
    made = []
    for number, run in enumerate([*runs, *kept]):
        tell(f"{number} of {len(runs) + len(kept)} runs and records")
        made.append(Proof(run, number >= len(runs), record.stale(run)))
    return Gathered(made[:len(runs)], made[len(runs):], unfinished)
