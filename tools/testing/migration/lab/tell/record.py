# SPDX-License-Identifier: GPL-2.0
"""Keeps what runs showed, as data: what of it outlives its logs, and what it was made with.

Nobody types a figure: a record is made by `make record` of the last run in OUT, one file a defect,
version, architecture, form of the queue (FORM=), with or without the kernel's own check (WITNESS=1)
and configuration in records/, and another run of the same takes the place of the last.
`make docs` renders them, and a record of other tests or patches than there are today is stale.
"""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from lab import arch, defect, provenance
from lab.errors import LabError
from lab.judge.summary import Provenance, Summary, command, form, witness
from lab.paths import HOME, replace

RECORDS = HOME / "records"
# Folders of RECORDS that are no defect's.
_OTHER = ("mutants", "bench")
_BENCH = "hugetlb_pmd_bench"


def last(out: Path, folder: Path = RECORDS) -> Path:
    """Write the record of the last run in `out`, a proof, one of mutants, or a bench; returns its
    file.  LabError where there is no run, or one that is none to be recorded."""
    began = {}
    for name in ("verdict.json", "mutants.json", "bench.json"):
        if (out / name).exists():
            began[str(read(out / name)["started"])] = name
    kind = began[max(began)] if began else "verdict.json"
    return {"verdict.json": write, "mutants.json": write_mutants, "bench.json": write_bench}[kind](
        out, folder)


def read(path: Path) -> dict[str, Any]:
    """The report of a run, or a record."""
    try:
        report: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except OSError as err:
        raise LabError(f"{path}: {err.strerror}: run make prove first, or name its OUT=") from err
    except ValueError as err:
        raise LabError(f"{path} cannot be read: run make prove again, or remove it") from err
    return report


def load(path: Path) -> Summary:
    """The summary of a run, or the record of one."""
    told = read(path)
    try:
        return Summary.load(told)
    except (ValueError, LookupError, TypeError, AttributeError) as err:
        raise LabError(f"{path} cannot be read: run make prove again, or remove it") from err


def proofs(folder: Path = RECORDS) -> list[Summary]:
    """All recorded proofs."""
    return [load(path) for path in sorted(folder.glob("*/*.json"))
            if path.parent.name not in _OTHER]


def versions(what: str, folder: Path = RECORDS) -> list[str]:
    """The versions that there are records of, of a defect, of mutants or of bench, and which of
    them are stale, in words."""
    asked = {"mutants": stale_mutants, "bench": stale_bench}.get(what)
    return [path.stem + (" (stale)" if (asked(read(path)) if asked else stale(load(path))) else "")
            for path in sorted((folder / what).glob("*.json"))]


def write(out: Path, folder: Path = RECORDS) -> Path:
    """Write the record of the last proof in `out`: only what is PROVED is recorded."""
    path = out / "verdict.json"
    run = load(path)
    if run.verdict != "PROVED":
        raise LabError(f"{path} says {run.verdict}: only what is PROVED is recorded")
    if run.tests:
        raise LabError(f"{path} is of the tests of {run.tests}: only what the selftests prove is "
                       "recorded")
    return keep(run, folder)


def keep(run: Summary, folder: Path = RECORDS) -> Path:
    """Write the record of a proof; returns its file."""
    return _put(folder / run.defect, run.record())


def write_mutants(out: Path, folder: Path = RECORDS) -> Path:
    """Write the record of the last run of mutants in `out`; also what survived is recorded.

    LabError for one that did not come to its end, or one of a single mutant.
    """
    path = out / "mutants.json"
    told = read(path)
    if any(row["status"] == "not run" for row in told["mutants"]):
        raise LabError(f"{path} is of a run that did not come to its end: make mutants RESUME=1 "
                       "goes on with it")
    if not told["whole"]:
        raise LabError(f"{path} is of one mutant only: run make mutants without MUTANT=")
    told["mutants"] = [_without(row, "runs", "identity", "folder") for row in told["mutants"]]
    return _put(folder / "mutants", _without(told, "measure", "seconds", "whole"))


def write_bench(out: Path, folder: Path = RECORDS) -> Path:
    """Write the record of the last bench in `out`."""
    return _put(folder / "bench", read(out / "bench.json"))


def _without(told: dict[str, Any], *names: str) -> dict[str, Any]:
    return {name: value for name, value in told.items() if name not in names}


def _put(folder: Path, told: dict[str, Any]) -> Path:
    version = told["source"]["version"]
    told["command"] = command(told["command"], version)
    if "path" in told["source"]:
        # Where the tree was is of no use to others, and no business of theirs.
        told["source"]["path"] = f"/path/to/{version}"
    other = form(told["command"])
    # A bench says it by itself.
    checked = told.get("witness") or witness(told["command"])
    path = folder / (f"{version}{arch.tag(told['arch'])}{f'-{other}' if other else ''}"
                     f"{'-debug' if told.get('debug') else ''}"
                     f"{'-check' if checked else ''}{_kind(told)}.json")
    replace(path, dump(told) + "\n")
    return path


def _kind(told: dict[str, Any]) -> str:
    """What tells a kernel with pages or addresses of another size from the usual one."""
    return "".join(f"-{word.replace('=', '-')}"
                   for word in arch.load(told["arch"]).unusual(told["command"]))


def dump(told: Any, indent: str = "") -> str:
    """JSON for people to compare: what has no more in it, or fits, is one line."""
    line = json.dumps(told)
    inside = list(told.values() if isinstance(told, dict) else told) \
        if isinstance(told, (dict, list)) else []
    deep = any(one and isinstance(one, (dict, list)) for one in inside)
    if len(indent + line) <= 100 or not deep:
        return line
    more = indent + " "
    heads = [f"{json.dumps(name)}: " if isinstance(told, dict) else "" for name in told]
    lines = ",\n".join(f"{more}{head}{dump(one, more)}" for head, one in zip(heads, inside))
    return f"{line[0]}\n{lines}\n{indent}{line[-1]}"


# ---- what a record speaks of -----------------------------------------------------------------


def stale(run: Summary) -> str:
    """Why a proof says nothing of the tests and kernels that there are now; "" if it does."""
    if run.defect not in defect.names():
        return "there is no such defect any more"
    one = defect.load(run.defect)
    return provenance.stale(run.provenance, one.show.selftests, provenance.rules_of(one))


def stale_mutants(told: dict[str, Any]) -> str:
    """The same of a run of mutants."""
    tests: Iterable[str] = (test for row in told["mutants"] for test in row.get("tests") or ())
    return provenance.stale(_provenance(told), tests, (HOME / "mutants").rglob("*.cocci"))


def stale_bench(told: dict[str, Any]) -> str:
    """The same of a bench, whose program is none of the selftests."""
    return provenance.stale(_provenance(told), (), (HOME / "lab" / "guest").glob(f"{_BENCH}.c"))


def _provenance(told: dict[str, Any]) -> Provenance:
    return Provenance(**(told.get("provenance") or {}))
