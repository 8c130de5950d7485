# SPDX-License-Identifier: GPL-2.0
"""Has spin try every order of the steps of each locking scheme, and says what it found.

model/README explains the model, model/pmd_sharing.pml, and what is looked for.

A bug is looked for by a run of its own, breadth first, so that its story is the shortest.  A scheme
that has to be clean is searched to the end, for all bugs and for deadlocks at once.  Starvation is
a cycle in which a migration gives up again and again, though nobody waits for ever.
"""

import re
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from lab.errors import LabError
from lab.progress import Progress
from lab.scheme import DEADLOCK, MODEL, STARVED, Run, Scheme

# Seconds and MiB of a run, and of one that is said to be long.
_LIMIT, _LONG_LIMIT = 300, 3600
_MEMORY, _LONG_MEMORY = 2048, 8192
# Steps of a path: depth first they are many.
_DEPTH = 2_000_000
# Of the story of a cycle: it goes round after that.
_STORY = 16


@dataclass(frozen=True)
class Outcome:
    """What came of a run."""

    run: Run
    found: bool
    whole: bool                 # nothing was left out; if not, "not found" says nothing
    states: int
    mib: float
    seconds: float
    story: tuple[str, ...] = field(default=())

    def right(self) -> bool:
        """Whether it is what schemes.toml says."""
        return self.found if self.run.found else not self.found and self.whole


def check(run: Run) -> Outcome:
    """Do one search.  LabError where spin or the compiler is missing or fails."""
    parameters = [f"-D{key}={value}" for key, value in run.parameters.items()]
    parameters.append(f"-DLOOK_FOR={'BUG_' + run.bug if run.bug else '0'}")
    live = run.bug == STARVED
    shortest = run.found and not live and run.bug != DEADLOCK
    folder = Path(tempfile.mkdtemp(prefix="lab-model-"))
    try:
        # Beside the model: spin takes the name of what it reads for its own files.
        shutil.copy(MODEL, folder / "model.pml")
        _call(folder, "spin", "-a", *parameters, "model.pml")
        _call(folder, "gcc", "-O2" if run.long else "-O1", "-w", "-DCOLLAPSE",
              f"-DMEMLIM={_LONG_MEMORY if run.long else _MEMORY}",
              *(("-DNFAIR=3",) if live else ("-DSAFETY",)), *(("-DBFS",) if shortest else ()),
              "-o", "pan", "pan.c")
        began = time.monotonic()
        # Where an assertion is looked for, who has been stopped by another bug is no deadlock.
        said = _call(folder, "./pan", f"-m{_DEPTH}", *(("-a", "-f") if live else ()),
                     *(("-E",) if run.bug and run.bug != DEADLOCK else ()),
                     limit=_LONG_LIMIT if run.long else _LIMIT)
        seconds = time.monotonic() - began
        errors, states, mib = (re.search(what, said) for what in (
            r"errors: (\d+)", r"(\d+) states, stored", r"([\d.]+)\s+total actual memory usage"))
        if not errors or not states:
            raise LabError(f"{run.scheme}: spin did not come to an end: {said.strip()[-200:]}")
        found = errors[1] != "0"
        story: tuple[str, ...] = ()
        if found:
            # Its exit status is that of the assertion that failed.
            told = _call(folder, "spin", *parameters, "-k", "model.pml.trail", "model.pml",
                         bad=True)
            story = _story(told, int(run.parameters.get("N", "2")))
        return Outcome(run, found, "not completed" not in said and "too small" not in said,
                       int(states[1]), float(mib[1]) if mib else 0, seconds, story)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _call(folder: Path, *words: str, limit: float = 120, bad: bool = False) -> str:
    try:
        done = subprocess.run(words, cwd=folder, text=True, capture_output=True, timeout=limit,
                              check=False)
    except FileNotFoundError as err:
        raise LabError(f"{words[0]} is not installed: apt install {words[0]}") from err
    except subprocess.TimeoutExpired as err:
        raise LabError(f"{words[0]} did not come to its end within {limit:.0f} s") from err
    if done.returncode != 0 and not bad:
        raise LabError(f"{words[0]} failed: {(done.stdout + done.stderr).strip()[-300:]}")
    return done.stdout


def _story(told: str, processes: int) -> tuple[str, ...]:
    """What each did on the way, in words: the model prints its number before each step."""
    lines: list[str] = []
    for line in told.splitlines():
        if step := re.match(r"\s*(\d+): (.*)", line):
            # init is 0; the first migration moves the last of the two pages.
            who = int(step[1]) - 1
            page = processes + 1 - who
            said = (f"process {who}" if who < processes else f"migration of page {page}") \
                + f": {step[2]}"
            if not lines or lines[-1] != said:
                lines.append(said)
    return tuple(lines[:_STORY] + ([f"... and {len(lines) - _STORY} steps more"]
                                   if len(lines) > _STORY else []))


def run(schemes: Iterable[Scheme], long: bool, progress: Progress, tell: bool) -> list[Outcome]:
    """Do all runs of `schemes`, those that take minutes only if `long`; `tell` the stories."""
    outcomes = []
    for scheme in schemes:
        for one in scheme.runs:
            if one.long and not long:
                continue
            what = f"{one.bug or 'any bug'}{' with ' if one.what else ''}{one.what}"
            progress.step(f"{scheme.name}: looking for {what}")
            outcome = check(one)
            progress.done(f"{'found' if outcome.found else 'not found'}, {outcome.states} states")
            outcomes.append(outcome)
            for line in outcome.story if tell else ():
                progress.note(f"  {line}")
    return outcomes


def summary(schemes: Iterable[Scheme], outcomes: list[Outcome]) -> str:
    """A table, a line a run, and at its end whether all came out as it has to."""
    lines = []
    for scheme in schemes:
        of_it = [one for one in outcomes if one.run.scheme == scheme.name]
        if not of_it:
            continue
        lines += ["", f"{scheme.name}: {scheme.versions}"]
        for one in of_it:
            what = one.run.bug or "any bug or deadlock"
            result = "found" if one.found else "none" if one.whole else "not searched to the end"
            lines.append(f"  {what:20} {one.run.what:24} {result:6} {one.states:>10} states "
                         f"{one.mib:6.0f} MiB {one.seconds:5.1f} s"
                         f"{'' if one.right() else '   WRONG: see model/schemes.toml'}")
    wrong = sum(not one.right() for one in outcomes)
    lines += ["", f"{len(outcomes)} runs, {wrong} not as model/schemes.toml says"]
    return "\n".join(lines)
