# SPDX-License-Identifier: GPL-2.0
"""Gathers all that was proved, of runs and of records, and writes it down as one page.

A run is a folder of OUT with a verdict.json, as `make prove` leaves it; a record is a file of
Documentation/proofs/.  What a verdict.json says is believed, but not that it is whole.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from lab import base, defect
from lab.errors import LabError
from lab.judge import timeline
from lab.tell import page, record, result
from lab.tell.figure import Picture
from lab.tell.page import Proof

KERNELS = ("vulnerable", "fixed")
# Boots of a run that did not go well, of which something is said.
_TOLD = 5


@dataclass(frozen=True)
class Gathered:
    """The runs, the newest first; the records; and the folders of runs that have no verdict."""

    runs: list[Proof]
    records: list[Proof]
    unfinished: list[str]


def write(out: Path, dest: Path | None = None, proofs: Path = record.PROOFS) -> Path:
    """Write the page on the runs in `out` to `dest`, or to report.html in `out`; returns its path.

    LabError where there is no run, or a verdict.json or a record that cannot be read.
    """
    found = gather(out, proofs)
    if not found.runs:
        raise LabError(f"there is no run in {out}: run make prove first, or name its OUT=")
    defects = [defect.load(name) for name in defect.names()]
    made = page.render(defects, base.names(), found.runs, found.records, found.unfinished,
                       datetime.now(timezone.utc))
    path = dest or out / "report.html"
    if path.is_dir():
        raise LabError(f"{path} is a folder: name a file with O=")
    result.replace(path, made)
    return path


def gather(out: Path, proofs: Path = record.PROOFS) -> Gathered:
    """All runs in `out` and all records in `proofs`."""
    loaded: dict[tuple[str, ...], Proof] = {}
    unfinished = []
    for folder in sorted(path for path in [out, *out.glob("*")] if path.is_dir()):
        path = folder / "verdict.json"
        if path.is_file():
            run = _run(path)
            # The last run is twice in OUT: at the top, and in a folder of its own.
            loaded.setdefault((run.started, run.defect, run.version, str(run.debug)), run)
        elif folder != out and any((folder / name).is_dir() for name in KERNELS):
            unfinished.append(folder.name)
    runs = sorted(loaded.values(), key=lambda run: run.started, reverse=True)
    records = [_record(record.read(path)) for path in sorted(proofs.glob("*/*.rst"))]
    return Gathered(runs, records, unfinished)


def _run(path: Path) -> Proof:
    """A run, from its verdict.json."""
    try:
        told: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        return _proof(told)
    except OSError as err:
        raise LabError(f"{path}: {err.strerror}") from err
    except (ValueError, LookupError, TypeError, AttributeError) as err:
        raise LabError(f"{path} cannot be read: run make prove again, or remove it") from err


def _proof(told: dict[str, Any]) -> Proof:
    source, variants = told["source"], told["variants"]
    facts = [("Repeat", str(told["command"])), ("Source", record.source_name(source)),
             ("Contents", f"sha256 {source['sha256']}" if "sha256" in source else ""),
             ("Git", _git(source)), *_made(variants),
             ("Compiler", str(told["compiler"])),
             ("Guest", f"{told['arch']}, QEMU with {told['accel']}"),
             ("Began", _when(str(told["started"])))]
    return Proof(
        defect=str(told["defect"]), version=str(source["version"]), debug=bool(told["debug"]),
        verdict=str(told["verdict"]), why=str(told["why"]), started=str(told["started"]),
        recorded=False, facts=[(name, value) for name, value in facts if value],
        figures=record.figures(told), by_test=record.by_test(told),
        examples=[result.example_lines(variants[name]["example"], name) for name in KERNELS
                  if variants[name]["example"]],
        trouble=_trouble(variants), pictures=_pictures(variants))


def _when(started: str) -> str:
    moment = datetime.fromisoformat(started).astimezone(timezone.utc)
    return f"{moment:%Y-%m-%d %H:%M} UTC"


def _git(source: dict[str, str]) -> str:
    if "git" not in source:
        return ""
    return ", ".join([source["git"], *([f"dirty: {source['dirty']}"] if "dirty" in source else [])])


def _made(variants: dict[str, Any]) -> list[tuple[str, str]]:
    """How each kernel was made, and what it said of itself that was to be expected of it."""
    facts = []
    for name in KERNELS:
        one = variants[name]
        facts.append((name.capitalize(), "\n".join([str(one["how"]), *map(str, one["places"])])))
        said = [run["symptoms"][0]["text"] for run in one["runs"] if run.get("symptoms")]
        if said:
            facts.append((f"The {name} kernel's own checks",
                          f"in {len(said)} of {one['boots']} boots: {said[0]}"))
    return facts


def _trouble(variants: dict[str, Any]) -> list[str]:
    """The boots that did not end well, each with what was wrong first."""
    lines = []
    for name in KERNELS:
        for number, run in enumerate(variants[name]["runs"], 1):
            wrong = [f"{said['kind']} at line {said['line']} of its log: {said['text']}"
                     for said in run["complaints"]] + [str(said) for said in run["problems"]]
            if wrong or run["state"] != "DONE":
                lines.append(f"{name} boot {number}: {run['state']}"
                             + (f"; {wrong[0]}" if wrong else ""))
    more = len(lines) - _TOLD
    return lines[:_TOLD] + ([f"and {more} more"] if more > 0 else [])


def _pictures(variants: dict[str, Any]) -> list[Picture]:
    """What can be drawn of a run, both kernels of a test together, most processes first."""
    seen = [{one.test: one for one in timeline.load(variants[name].get("timelines"))}
            for name in KERNELS]
    tests = list(dict.fromkeys(name for kernel in seen for name in kernel))
    pictures = [Picture(test, seen[0].get(test), seen[1].get(test)) for test in tests]
    return sorted(pictures, key=lambda one: (one.vulnerable is None or one.fixed is None,
                                             -one.processes()))


def _record(one: record.Record) -> Proof:
    fields = one.fields
    facts: Sequence[tuple[str, str]] = [(name, value.replace("``", ""))
                                        for name, value in fields.items()]
    return Proof(
        defect=one.defect, version=one.version, debug=one.debug, verdict=one.verdict, why=one.why,
        started=fields["Date"], recorded=True, facts=list(facts), figures=one.figures,
        by_test=one.by_test, examples=[], trouble=[], pictures=[])
