# SPDX-License-Identifier: GPL-2.0
"""What is to be done for the matrix, what it costs, and which kind of host does what.

The unit of work is one base on one architecture, as its builds share objects.  What it costs comes
from earlier records: how long the boots of each defect took there, or on other bases.
"""

import dataclasses
import heapq
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from lab.judge.summary import Summary
from lab.matrix.hosts import Host
from lab.tell import cells
from lab.tell.cells import Cell
from lab.words import plural, wrap

# Seconds on two cores, without KVM, as all records are: a first kernel and its selftests from
# nothing, another kernel from its objects, and a boot of which no record says anything. The first
# make prove took 303 s and 467 s of CPU time (Documentation/lab.rst).
FIRST, NEXT, BOOT = 270.0, 45.0, 20.0
CPUS = 467 / 303
# What a kind of host is taken for, against those of the records. Nobody has measured it: it is for
# the plan alone, and to prefer one kind to another.
KVM, FOREIGN = 2.0, 0.5
# Of a host that is only supposed.
ANY = "any"


@dataclass(frozen=True)
class Work:
    """What is missing or stale of one base on one architecture."""

    base: str
    arch: str
    defects: tuple[str, ...]
    seconds: float              # on the clock
    cpu_seconds: float
    known: int                  # of how many of the defects a record says how long they take
    debug: bool = False

    @property
    def name(self) -> str:
        return cells.unit_name(self.base, self.arch, self.debug)


def work(wanted: Iterable[Cell], records: Sequence[Summary], boots: int, debug: bool) -> list[Work]:
    """The units of work, the longest first."""
    by_unit: dict[tuple[str, str], list[str]] = {}
    for cell in wanted:
        by_unit.setdefault((cell.base, cell.arch), []).append(cell.defect)
    made = []
    for (base, arch), names in by_unit.items():
        costs = [_boot(name, base, arch, records, debug) for name in names]
        seconds = FIRST + sum(2 * NEXT + boots * one for one, _known in costs)
        made.append(Work(base, arch, tuple(names), round(seconds, 1), round(seconds * CPUS, 1),
                         sum(known for _one, known in costs), debug))
    return sorted(made, key=lambda one: (-one.seconds, one.name))


def _boot(name: str, base: str, arch: str, records: Sequence[Summary], debug: bool
          ) -> tuple[float, bool]:
    """Seconds of a boot of both kernels, and whether a record says so."""
    of_it = [(run, sum(map(fmean, times))) for run in records if run.defect == name
             and run.debug == debug
             and (times := [kernel.boot_seconds for kernel in run.both() if kernel.boot_seconds])]
    same = [seconds for run, seconds in of_it
            if cells.base_of(run) == base and run.arch == arch]
    others = [seconds for _run, seconds in of_it]
    return fmean(same or others or [2 * BOOT]), bool(same)


# ---- hosts -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Kind:
    """Hosts that are as good as each other."""

    arch: str
    kvm: bool
    here: bool
    without: tuple[str, ...]    # the bases whose tree they do not have
    hosts: tuple[Host, ...]

    def told(self) -> str:
        names = [one.shown for one in self.hosts]
        return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")

    def speed(self, arch: str) -> float:
        """Against the hosts of the records."""
        if self.arch in (arch, ANY):
            return KVM if self.kvm else 1.0
        return FOREIGN


def kinds(hosts: Iterable[Host]) -> list[Kind]:
    """The hosts by their kind."""
    by_kind: dict[tuple[str, bool, bool, tuple[str, ...]], list[Host]] = {}
    for one in hosts:
        by_kind.setdefault((one.arch, one.kvm, one.here, one.without), []).append(one)
    return [Kind(*key, tuple(some)) for key, some in sorted(by_kind.items())]


def able(one: Work, among: Sequence[Kind]) -> list[Kind]:
    """Those that have the tree that a unit of work needs; all if none has it."""
    return [kind for kind in among if one.base not in kind.without] or list(among)


def share(units: Sequence[Work], among: Sequence[Kind]) -> tuple[dict[Kind, list[Work]], float]:
    """Which kind of host does which work, the longest first, and how long all of it takes.

    Each unit goes to where it ends first, by the speeds above: to a host that has its tree, of its
    own architecture if there is any, and there to one with KVM as long as those are not busy for
    longer.
    """
    free = {kind: [0.0] * sum(one.jobs for one in kind.hosts) for kind in among}
    found: dict[Kind, list[Work]] = {kind: [] for kind in among}
    last = 0.0
    for one in units:
        have = able(one, among)
        fit = [kind for kind in have if kind.arch == one.arch] or have
        ends = {kind: free[kind][0] + one.seconds / kind.speed(one.arch) for kind in fit}
        best = min(fit, key=lambda kind: (ends[kind], not kind.kvm))
        heapq.heapreplace(free[best], ends[best])
        found[best].append(one)
        last = max(last, ends[best])
    return {kind: some for kind, some in found.items() if some}, last


# ---- told ------------------------------------------------------------------------------------


def counted(all_cells: Sequence[Cell]) -> str:
    """How many cells are in which state."""
    states: dict[str, int] = {}
    for cell in all_cells:
        states[cell.state] = states.get(cell.state, 0) + 1
    order = ("PROVED", *sorted(states.keys() - {"PROVED", cells.MISSING, cells.STALE, cells.NONE}),
             cells.STALE, cells.MISSING, cells.NONE)
    return ", ".join(f"{states.get(state, 0)} {state}" for state in order)


def hours(seconds: float) -> str:
    return f"{seconds / 3600:.1f} h" if seconds >= 3600 else f"{seconds / 60:.0f} min"


def told(commit: str, all_cells: Sequence[Cell], units: Sequence[Work], bare: Sequence[str],
         boots: int, hosts: Sequence[Host], named: bool = True) -> str:
    """A dry run, in words: what all of it comes to, and then each job, where `named` with its
    defects."""
    lines = [f"The matrix at {commit[:12]}: {plural(len(all_cells), 'cells')}, "
             f"{counted(all_cells)}", *_total(units, boots)]
    if units:
        lines += _expected(units, hosts)
    elif bare:
        lines.append("0 jobs: nothing can run without TREES=")
    else:
        lines.append("0 jobs: nothing is missing or stale")
    lines += missing(all_cells, bare)
    if not units:
        return "\n".join(lines)
    wide = max(len(one.name) for one in units)
    head = f"{'job':{wide}}  {'proofs':>6}  {'CPU time':>8}  {'time':>8}"
    lines += ["", f"{head}  of" if named else head]
    for one in units:
        row = (f"{one.name:{wide}}  {len(one.defects):6}  {hours(one.cpu_seconds):>8}  "
               f"{hours(one.seconds):>8}")
        first, *rest = wrap(" ".join(one.defects), width=50)
        lines += [f"{row}  {first}", *(" " * (wide + 30) + line for line in rest)] if named \
            else [row]
    if not named:
        lines.append("With DEFECT=, or BASE= and ARCH=, the defects of a job are named, too")
    return "\n".join(lines)


def _total(units: Sequence[Work], boots: int) -> list[str]:
    if not units:
        return []
    proofs, known = sum(len(one.defects) for one in units), sum(one.known for one in units)
    return [f"{plural(len(units), 'jobs')}, {plural(proofs, 'proofs')} with "
            f"{plural(boots, 'boots')} of each kernel, "
            f"{hours(sum(one.cpu_seconds for one in units))} of CPU time",
            f"Records say how long {known} of these proofs take; the others are reckoned "
            "from other bases"]


def _expected(units: Sequence[Work], hosts: Sequence[Host]) -> list[str]:
    """How long it takes: on the hosts that there are, or on so many."""
    if not hosts:
        return ["Expected: " + "; ".join(
            f"{hours(share(units, kinds(_like(number)))[1])} on {plural(number, 'hosts')}"
            for number in (1, 2, 4, 8, 16) if number <= max(1, 2 * len(units) - 1))
            + ", if they are like those of the records"]
    shares, last = share(units, kinds(hosts))
    return [f"Expected: {hours(last)}", "", *(one.told() for one in hosts),
            *(f"  {kind.told()}: {' '.join(one.name for one in some)}"
              for kind, some in shares.items())]


def _like(number: int) -> list[Host]:
    """So many hosts of which nothing is known, each of which runs one job at a time."""
    one = Host("", "", ANY, False, 0, 1)
    return [dataclasses.replace(one, login=str(at)) for at in range(number)]


def missing(all_cells: Sequence[Cell], bare: Sequence[str]) -> list[str]:
    """What no job is made for, and why."""
    if not bare:
        return []
    left = sum(cell.base in bare and cell.state not in cells.GOOD for cell in all_cells)
    return ["", f"No package has the source of {', '.join(bare)} ({plural(left, 'cells')}): "
            f"TREES=DIR names a folder with their trees, as DIR/{bare[0]}"]


def machine(commit: str, all_cells: Sequence[Cell], units: Sequence[Work], bare: Sequence[str],
            boots: int, words: Sequence[str]) -> str:
    """The plan for a CI system that has its own runners."""
    jobs: list[dict[str, Any]] = [{
        "name": one.name, "base": one.base, "arch": one.arch, "defects": list(one.defects),
        "seconds": one.seconds, "cpu_seconds": one.cpu_seconds,
        "command": " ".join(["make", "matrix", f"BASE={one.base}", f"ARCH={one.arch}", *words])}
        for one in units]
    return json.dumps({
        "commit": commit, "green": green(all_cells), "boots": boots, "jobs": jobs,
        "no_tree": list(bare),
        "cells": [{"defect": cell.defect, "base": cell.base, "arch": cell.arch,
                   "state": cell.state, "why": cell.why} for cell in all_cells]}, indent=1)


def green(all_cells: Sequence[Cell]) -> bool:
    """Whether all that can be proved is, by what there is today."""
    return all(cell.state in cells.GOOD for cell in all_cells)
