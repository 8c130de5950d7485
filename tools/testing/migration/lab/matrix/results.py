# SPDX-License-Identifier: GPL-2.0
"""Takes what jobs brought back, or refuses it: no result counts of another commit of the lab, of
other selftests or of another queue than those that asked."""

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lab.errors import LabError
from lab.judge.summary import Summary
from lab.matrix import job
from lab.paths import locked, replace
from lab.tell import cells, record
from lab.tell.cells import Note


@dataclass(frozen=True)
class Asked:
    """What all results of a run must be of."""

    commit: str
    boots: int
    debug: bool


def take(folder: Path, asked: Asked, unit: dict[str, Any], where: str, trouble: str, out: Path
         ) -> dict[str, Note]:
    """What came of each defect of a unit, whose results are in `folder`; runs go to OUT."""
    said: dict[str, Any] = {}
    why = trouble or "nothing came back"
    try:
        told = json.loads((folder / job.FILE).read_text(encoding="utf-8"))
        if told["commit"] == asked.commit:
            said = dict(told["said"])
        else:
            why = f"its results are of commit {str(told['commit'])[:12]}"
    except FileNotFoundError:
        pass
    except (OSError, ValueError, LookupError, TypeError) as err:
        why = f"its {job.FILE} cannot be read ({err})"
    return {name: _take(name, said.get(name), folder, asked, unit, where, why, out)
            for name in unit["defects"]}


def _take(name: str, said: Any, folder: Path, asked: Asked, unit: dict[str, Any], where: str,
          why: str, out: Path) -> Note:
    kind = said.get("said") if isinstance(said, dict) else None
    if kind == "none" and said.get("ground") == unit["defects"][name][1]:
        return Note("none", str(said["why"]), where, ground=said["ground"])
    if kind != "done":
        return Note("failed", str(said.get("why", why)) if kind else why, where)
    kept = folder / Path(str(said["folder"])).name
    try:
        if wrong := _wrong(record.load(kept / "verdict.json"), name, asked, unit):
            return Note("failed", wrong, where)
        text = (kept / "verdict.json").read_text(encoding="utf-8")
        dest = out / kept.name
        shutil.rmtree(dest, ignore_errors=True)
        shutil.move(kept, dest)
        # Where it was there is where it is here.
        replace(dest / "verdict.json", text.replace(
            json.dumps(str(said["was"]))[1:-1], json.dumps(str(dest))[1:-1]))
    except (LabError, OSError, KeyError) as err:
        return Note("failed", f"its result cannot be read: {err}", where)
    return Note("done", folder=kept.name, host=where)


def _wrong(run: Summary, name: str, asked: Asked, unit: dict[str, Any]) -> str:
    """Why a result is not of what was asked for; "" if it is."""
    origin = run.provenance
    if origin.lab != asked.commit or origin.dirty is not False:
        return (f"its result is of commit {str(origin.lab)[:12]}"
                f"{' with changes' if origin.dirty else ''}, not {asked.commit[:12]}")
    if (run.defect, run.arch, run.debug) != (name, unit["arch"], asked.debug) or \
            cells.base_of(run) != unit["base"]:
        return f"its result is of something else: {run.name()}"
    if origin.selftests != unit["defects"][name][0]:
        return "its result is of other selftests"
    if stale := record.stale(run):
        return f"its result is of other selftests or patches: {stale}"
    if min(kernel.boots for kernel in run.both()) < asked.boots and run.verdict == "PROVED":
        return f"its result is of fewer than {asked.boots} boots"
    return ""


def keep(base: str, arch: str, asked: Asked, notes: dict[str, Note], out: Path) -> None:
    """Keep what jobs said of a unit, beside what another run keeps of it at the same time."""
    with locked(out / cells.FOLDER / ".lock"):
        old = next((one for one in cells.read(out) if
                    (one.base, one.arch, one.debug) == (base, arch, asked.debug)), None)
        cells.write(cells.Unit(base, arch, asked.debug, asked.commit,
                               {**(old.notes if old else {}), **notes}), out)


def write(out: Path) -> list[Path]:
    """Record what jobs have proved, here or where OUT was brought from; the records that are new.

    A record that is as new stays, and what is stale is not recorded.
    """
    known = {run.name(): run for run in record.proofs()}
    made = []
    for unit in cells.read(out):
        for note in unit.notes.values():
            path = out / note.folder / "verdict.json"
            if note.said != "done" or not path.is_file():
                continue
            run = record.load(path)
            old = known.get(run.name())
            if run.verdict == "PROVED" and not record.stale(run) and \
                    (old is None or old.started < run.started):
                made.append(record.keep(run))
    return made
