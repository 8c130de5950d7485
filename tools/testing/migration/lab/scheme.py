# SPDX-License-Identifier: GPL-2.0
"""Loads model/schemes.toml: the ways in which kernels lock, and what is to be found in each.

The top of that file says what its keys mean.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lab import schema
from lab.errors import LabError
from lab.paths import HOME

MODEL = HOME / "model" / "pmd_sharing.pml"
SCHEMES = HOME / "model" / "schemes.toml"

# What spin itself finds, not an assertion of the model.
DEADLOCK, STARVED = "DEADLOCK", "STARVED"


@dataclass(frozen=True)
class Claim:
    """What a version's source has to look like for the parameters of a scheme to be right."""

    base: str
    file: str
    function: str
    calls: tuple[str, ...]      # in this order
    never: tuple[str, ...] = ()
    series: str = ""            # of the queue, applied to that source


@dataclass(frozen=True)
class Run:
    """One search: of `bug`, or of all bugs and of deadlocks where it is ""."""

    scheme: str
    bug: str
    found: bool                 # what is to come out
    parameters: dict[str, str]
    what: str                   # what is switched on, in words
    long: bool
    hashed: bool                # too large to keep all states: see lab/verbs/model.py


@dataclass(frozen=True)
class Scheme:
    """A way in which kernels lock."""

    name: str
    versions: str
    runs: tuple[Run, ...]
    claims: tuple[Claim, ...] = ()
    bases: tuple[str, ...] = ()         # of steps.toml, whose functions do its steps


def mutants(schemes: Iterable[Scheme]) -> dict[str, str]:
    """What is found in each mutant of the lab that the model has, by its name."""
    return {scheme.name.rpartition(" with ")[2]: scheme.runs[0].bug
            for scheme in schemes if " with " in scheme.name}


def unsaid(path: Path = SCHEMES) -> dict[str, str]:
    """Why the model has not the other mutants of the lab, by their names."""
    said = schema.read(path).get("unsaid", {})
    if not isinstance(said, dict) or not all(isinstance(why, str) and why for why in said.values()):
        raise LabError(f"{path}: [unsaid] must be a table of strings")
    return said


def load(path: Path = SCHEMES) -> list[Scheme]:
    """The schemes, and after them those with a mutation; LabError where the file is wrong."""
    text = schema.read(path)
    bugs = set(re.findall(r"(?m)^#define BUG_(\w+)\s+\d", MODEL.read_text(encoding="utf-8")))
    known = set(re.findall(r"(?m)^#ifndef (\w+)$", MODEL.read_text(encoding="utf-8")))
    text.pop("unsaid", None)
    mutants = text.pop("mutants", {})
    schemes = [_scheme(path, name, table, bugs, known) for name, table in text.items()]
    for name, table in mutants.items():
        where = f"{path}, mutants.{name}"
        _keys(where, table, {"scheme", "set", "finds"}, {"scheme", "set", "finds"})
        if table["scheme"] not in text:
            raise LabError(f"{where}: there is no scheme {table['scheme']}")
        schemes.append(_scheme(path, f"{table['scheme']} with {name}", {
            "versions": f"the mutant {name}",
            "bases": text[table["scheme"]].get("bases", []),
            "set": text[table["scheme"]]["set"],
            "finds": {table["finds"]: table["set"]}}, bugs, known))
    return schemes


def _keys(where: str, table: dict[str, Any], wanted: set[str], allowed: set[str]) -> None:
    if wrong := sorted((wanted - set(table)) | (set(table) - allowed)):
        raise LabError(f"{where}: missing or unknown: {', '.join(wrong)}")


def _scheme(path: Path, name: str, table: dict[str, Any], bugs: set[str], known: set[str]
            ) -> Scheme:
    where = f"{path}, {name}"
    _keys(where, table, {"versions", "set"},
          {"versions", "bases", "set", "finds", "clean", "moves", "claims"})
    bases = table.get("bases", [])
    if not isinstance(bases, list) or not all(isinstance(one, str) for one in bases):
        raise LabError(f"{where}: bases must be a list of strings")

    def run(bug: str, found: bool, extra: dict[str, Any]) -> Run:
        options = {key: str(value) for key, value in extra.items()
                   if key not in ("long", "hashed")}
        parameters = {**table["set"], **options}
        if strange := sorted(set(parameters) - known):
            raise LabError(f"{where}: the model has no parameter {', '.join(strange)}")
        if bug and bug not in bugs:
            raise LabError(f"{where}: the model has no bug {bug}")
        if bug == STARVED:
            parameters["RETRIES"] = "1"
        return Run(name, bug, found, parameters,
                   " ".join(f"{key}={value}" for key, value in options.items()),
                   bool(extra.get("long") or extra.get("hashed")), bool(extra.get("hashed")))

    runs = [run(bug, True, extra) for bug, some in table.get("finds", {}).items()
            for extra in (some if isinstance(some, list) else [some])]
    runs += [run("", False, extra) for extra in table.get("clean", [])]
    runs += [run(STARVED, False, extra) for extra in table.get("moves", [])]
    return Scheme(name, table["versions"], tuple(runs),
                  schema.tables(Claim, path, f"{name}.claims", table.get("claims", [])),
                  tuple(bases))
