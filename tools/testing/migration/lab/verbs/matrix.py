# SPDX-License-Identifier: GPL-2.0
"""Defects, bases and architectures in one matrix: proves what is missing or stale of it, here or on
many machines."""

import shlex
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from lab import base, defect, deps, provenance
from lab.errors import LabError
from lab.judge.summary import Summary
from lab.matrix import gnuparallel, hosts, job, plan, results, spread
from lab.matrix.hosts import Host
from lab.matrix.live import Table
from lab.matrix.plan import Kind, Work
from lab.matrix.results import Asked
from lab.matrix.spread import Run
from lab.progress import Progress
from lab.tell import cells, record, report
from lab.tell.cells import Cell, Note
from lab.words import plural, wrap

# What the dry run can be.
TEXT, JSON, CHECK = "1", "json", "check"
# Seconds after which it says that it is at work.
_LATE = 1.5
# What of this repository may have changes: nothing of it is sent.
_OURS = "tools/testing/migration/records"


@dataclass(frozen=True)
class Scope:
    """What was asked for."""

    defects: tuple[str, ...]    # none: all
    bases: tuple[str, ...]
    archs: tuple[str, ...]
    out: Path
    trees: Path | None
    hosts: Path | None
    boots: int                  # of each kernel
    least: int                  # of which a record must be: 0 where none were asked for
    debug: bool
    again: bool                 # also what has a verdict other than PROVED
    words: tuple[str, ...]      # for make prove, as variables
    given: tuple[str, ...]      # for make matrix


def run(scope: Scope, form: str, progress: Progress) -> int:
    """Prove what is missing; 0 only if the whole matrix is proved then.  With a form, only tell."""
    if scope.hosts:
        # Before all that takes a moment.
        hosts.read(scope.hosts)
    progress.step_late("looking at what is proved", _LATE)
    look = _look(scope, progress)
    progress.done()
    commit = provenance.git("rev-parse", "HEAD")
    if commit is None:
        raise LabError("this is no git repository: the matrix is proved by one commit of it")
    jobs = plan.work([cell for cell in look if _wants(cell, scope)
                      and not _bare(cell.base, scope)], record.proofs(), scope.boots, scope.debug)
    bare = sorted({cell.base for cell in look if _wants(cell, scope) and _bare(cell.base, scope)},
                  key=base.numbers)
    if form == JSON:
        print(plan.machine(commit, look, jobs, bare, scope.boots, scope.given))
        return 0
    if form == CHECK:
        print(_end(look, bare, scope))
        return 0 if plan.green(look) else 1
    if scope.hosts or not form:
        deps.ensure(progress, deps.MATRIX)
        gnuparallel.check()
    if form:
        named = bool(scope.defects) or len(jobs) == 1
        found = hosts.ask(scope.hosts, progress, _trees(scope, jobs)) if scope.hosts else []
        print(plan.told(commit, look, jobs, bare, scope.boots, found, named))
        return 0
    if jobs:
        if changes := provenance.git("status", "--porcelain", "--", ".", f":!{_OURS}"):
            raise LabError(f"{changes.splitlines()[0].split(maxsplit=1)[-1]} is in no commit, and "
                           "a commit is what hosts get: commit it, or put it away")
        made = hosts.ask(scope.hosts, progress, _trees(scope, jobs)) if scope.hosts else \
            [hosts.here()]
        _spread(scope, commit, jobs, made, progress)
    results.write(scope.out)
    look = _look(scope, progress)
    print(_end(look, bare, scope))
    return 0 if plan.green(look) else 1


def _wants(cell: Cell, scope: Scope) -> bool:
    return cell.wanted or scope.again and cell.state not in cells.GOOD


def _bare(name: str, scope: Scope) -> bool:
    """Whether the source of a base is not to be had."""
    return base.load(name).package is None and scope.trees is None


def _trees(scope: Scope, jobs: Sequence[Work]) -> list[Path]:
    """The trees that jobs need, as hosts have to have them."""
    names = dict.fromkeys(one.base for one in jobs if base.load(one.base).package is None)
    return [scope.trees / name for name in names] if scope.trees else []


def _look(scope: Scope, progress: Progress) -> list[Cell]:
    """The matrix as it is."""
    said: list[tuple[Summary, str]] = [
        (proof.run, proof.stale) for found in [report.gather(scope.out, tell=progress.update)]
        for proof in (*found.runs, *found.records)]
    names, units = scope.defects or defect.names(), cells.read(scope.out)
    made: list[Cell] = []
    for number, name in enumerate(names):
        progress.update(f"{number} of {len(names)} defects")
        made += cells.survey([defect.load(name)], scope.bases or base.names(),
                             scope.archs or cells.archs(), said, units, scope.debug, scope.least)
    return made


def _spread(scope: Scope, commit: str, jobs: Sequence[Work], among: Sequence[Host],
            progress: Progress) -> None:
    shares, last = plan.share(jobs, plan.kinds(among))
    progress.note(f"{plural(len(jobs), 'jobs')} of {commit[:12]} for "
                  f"{plural(len(among), 'hosts')}; expected: {plan.hours(last)}")
    table = Table(jobs)
    left = {one.name: one for one in jobs}
    # Which kinds of host have tried it.
    tried: dict[str, set[Kind]] = {name: set() for name in left}
    with spread.run(scope.out, commit, table) as made:
        try:
            while shares := _shares(left, among, tried):
                for kind, units in shares.items():
                    for one in units:
                        made.put(one.name, job.unit(
                            commit, one.name, one.base, one.arch, one.defects, scope.debug,
                            scope.words, str(scope.trees or "")))
                        tried[one.name].add(kind)
                spread.go(made, shares, lambda name: _taken(scope, made, left, name))
        except KeyboardInterrupt:
            for name in left:
                _kept(scope, made, left[name])
            table.note("ended: what was not done is missing, and make matrix goes on with it")
            raise


def _shares(left: dict[str, Work], among: Sequence[Host], tried: dict[str, set[Kind]]
            ) -> dict[Kind, list[Work]]:
    """Who does what is left: a kind of host that has not tried it yet."""
    groups: dict[tuple[Kind, ...], list[Work]] = {}
    for name, one in left.items():
        if fresh := tuple(kind for kind in plan.able(one, plan.kinds(among))
                          if kind not in tried[name]):
            groups.setdefault(fresh, []).append(one)
    # One group after another: two of them would give a host more than fits.
    return next((plan.share(units, fresh)[0] for fresh, units in groups.items()), {})


def _taken(scope: Scope, made: Run, left: dict[str, Work], name: str) -> None:
    """Keep what came back of a job; `left` has what did not."""
    one = left[name]
    notes = _took(scope, made, one)
    results.keep(one.base, one.arch, Asked(made.commit, scope.boots, scope.debug), notes, scope.out)
    results.write(scope.out)
    shutil.rmtree(made.results(name), ignore_errors=True)
    gone = {other: note for other, note in notes.items() if note.said == "failed"}
    made.table.ends(name, len(gone), next((note.why for note in gone.values()), ""))
    del left[name]
    if gone:
        left[name] = replace(one, defects=tuple(gone))


def _kept(scope: Scope, made: Run, one: Work) -> None:
    """Keep the proofs that a job on this machine had done when it was ended: they can be an hour of
    work.  Another host brings back nothing before its job is over."""
    notes = {name: note for name, note in _took(scope, made, one).items() if note.said != "failed"}
    if notes:
        results.keep(one.base, one.arch, Asked(made.commit, scope.boots, scope.debug), notes,
                     scope.out)
        results.write(scope.out)


def _took(scope: Scope, made: Run, one: Work) -> dict[str, Note]:
    """What came of each defect of a job."""
    unit = job.unit(made.commit, one.name, one.base, one.arch, one.defects, scope.debug,
                    scope.words, "")
    where, why = made.trouble.pop(one.name, (made.table.rows[one.name].where, ""))
    return results.take(made.results(one.name), Asked(made.commit, scope.boots, scope.debug), unit,
                        where, why, scope.out)


def _end(look: Sequence[Cell], bare: Sequence[str], scope: Scope) -> str:
    """The matrix in words, for its end."""
    lines = [f"{plural(len(look), 'cells')}: {plan.counted(look)}"]
    why: dict[str, list[str]] = {}
    for cell in look:
        if cell.state in cells.GOOD:
            continue
        reason = cell.why or ("no tree: TREES=DIR" if _bare(cell.base, scope) else "not tried")
        why.setdefault(f"{cell.state} ({reason})", []).append(
            f"{cell.defect} {cells.unit_name(cell.base, cell.arch, scope.debug)}")
    for reason, some in sorted(why.items(), key=lambda one: len(one[1])):
        lines += wrap(f"{reason}: {', '.join(some[:6])}"
                      + (f" and {len(some) - 6} more" if len(some) > 6 else ""),
                      first="  ", rest="      ", width=100)
    lines += plan.missing(look, bare)
    lines.append("GREEN: all that can be proved is proved, by the selftests and patches of today"
                 if plan.green(look) else "NOT GREEN")
    return "\n".join(lines)


def command(given: Sequence[str]) -> tuple[str, ...]:
    """Variables as a shell takes them."""
    return tuple(f"{name}={shlex.quote(value)}" for name, _equals, value in
                 (word.partition("=") for word in given))

