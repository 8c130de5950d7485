# SPDX-License-Identifier: GPL-2.0
"""Has spin try every order of the steps of each locking scheme, and says what it found.

model/README explains the model, model/pmd_sharing.pml, and what is looked for.

A bug is looked for by a run of its own, breadth first, so that its story is the shortest.  A scheme
that has to be clean is searched to the end, for all bugs and for deadlocks at once.  Starvation is
a cycle in which a migration gives up again and again, though nobody waits for ever.

What is too large for that is searched with a table that has some bits for each state, and not the
state.  States are taken for others then, and what follows them is left out: that nothing was found
says less.
"""

import re
import resource
import shutil
import signal
import subprocess
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from lab import steps
from lab.errors import LabError
from lab.paths import scratch_dir
from lab.progress import Progress
from lab.scheme import DEADLOCK, MODEL, STARVED, Run, Scheme

# Seconds of a CPU and MiB of a run, and of one that is said to be long.
_LIMIT, _LONG_LIMIT = 300, 3600
_MEMORY, _LONG_MEMORY = 2048, 8192
# Steps of a path: depth first they are many.
_DEPTH = 2_000_000
# Of a search with hashed states: the bits of the table, as a power of two, and minutes.
_BITS, _MINUTES = 33, 10
# Of the story of a cycle: it goes round after that.
_STORY = 16
# Who is there beside processes and migrations, by the parameter, in the order of init.
_OTHERS = {"POISON": "memory error", "GUP_THREAD": "second thread of process 0",
           "STORE_THREAD": "other CPU of process 0"}


@dataclass(frozen=True)
class Outcome:
    """What came of a run."""

    run: Run
    found: bool
    whole: bool                 # nothing was left out; if not, "not found" says nothing
    states: int
    mib: float
    seconds: float              # of a CPU
    factor: float               # bits of the table for each state, where states are hashed
    story: tuple[str, ...] = field(default=())

    def right(self) -> bool:
        """Whether it is what schemes.toml says."""
        return self.found if self.run.found else not self.found and (self.whole or self.run.hashed)


def check(run: Run) -> Outcome:
    """Do one search.  LabError where spin or the compiler is missing or fails."""
    parameters = [f"-D{key}={value}" for key, value in run.parameters.items()]
    parameters.append(f"-DLOOK_FOR={'BUG_' + run.bug if run.bug else '0'}")
    live = run.bug == STARVED
    # Breadth first takes the memory of all that is as near.
    shortest = run.found and not live and not run.long
    with scratch_dir("lab-model-") as folder:
        # Beside the model: spin takes the name of what it reads for its own files.
        shutil.copy(MODEL, folder / "model.pml")
        _call(folder, "spin", "-a", *parameters, "model.pml")
        # Who finds something is soon done, and the compiler takes longer.
        _call(folder, "gcc", "-O2" if run.long else "-O0" if shortest else "-O1", "-w",
              "-DBITSTATE" if run.hashed else "-DCOLLAPSE",
              f"-DMEMLIM={_LONG_MEMORY if run.long else _MEMORY}",
              *(("-DNFAIR=3",) if live else ("-DSAFETY",)), *(("-DBFS",) if shortest else ()),
              "-o", "pan", "pan.c")
        began = _cpu()
        # Where an assertion is looked for, who has been stopped by another bug is no deadlock.
        said = _call(folder, "./pan", f"-m{_DEPTH}", *(("-a", "-f") if live else ()),
                     *(("-E",) if run.bug and run.bug != DEADLOCK else ()),
                     *((f"-w{_BITS}", f"-Q{_MINUTES}") if run.hashed else ()),
                     cpu=_LONG_LIMIT if run.long else _LIMIT)
        seconds = _cpu() - began
        errors, states, mib, factor = (re.search(what, said) for what in (
            r"errors: (\d+)", r"([\d.e+]+) states, stored", r"([\d.]+)\s+total actual memory usage",
            r"hash factor: ([\d.]+)"))
        if not errors or not states:
            raise LabError(f"{run.scheme}: spin did not come to an end: {said.strip()[-200:]}")
        found = errors[1] != "0"
        story: tuple[str, ...] = ()
        if found:
            # Its exit status is that of the assertion that failed.
            told = _call(folder, "spin", *parameters, "-k", "model.pml.trail", "model.pml",
                         bad=True)
            story = story_of(told, run.parameters)
        return Outcome(run, found, "not completed" not in said and "too small" not in said,
                       int(float(states[1])), float(mib[1]) if mib else 0, seconds,
                       float(factor[1]) if factor else 0, story)


def _cpu() -> float:
    """Seconds of a CPU that this process's children have had: others may use the machine."""
    return resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime


def _call(folder: Path, *words: str, bad: bool = False, cpu: int = 120) -> str:
    """What a program says that takes `cpu` seconds of a CPU at most; others may have it, too."""
    try:
        done = subprocess.run(
            words, cwd=folder, text=True, capture_output=True, check=False,
            preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_CPU, (cpu, cpu + 1)))
    except FileNotFoundError as err:
        raise LabError(f"{words[0]} is not installed: apt install {words[0]}") from err
    if done.returncode == -signal.SIGXCPU:
        raise LabError(f"{words[0]} did not come to its end within {cpu} s of a CPU")
    if done.returncode != 0 and not bad:
        raise LabError(f"{words[0]} failed: {(done.stdout + done.stderr).strip()[-300:]}")
    return done.stdout


def story_of(told: str, parameters: Mapping[str, str]) -> tuple[str, ...]:
    """What each did on the way, in words: the model prints its number before each step."""
    # In the order in which init runs them: it is 0. The first migration moves the last page.
    who = ["init", *(f"process {number}" for number in range(int(parameters.get("N", "2")))),
           *(f"migration of page {1 - number}"
             for number in range(int(parameters.get("WALKERS", "1")))),
           *(what for key, what in _OTHERS.items() if parameters.get(key, "0") != "0")]
    lines: list[str] = []
    for line in told.splitlines():
        if step := re.match(r"\s*(\d+): (.*)", line):
            said = f"{who[int(step[1])]}: {step[2]}"
            if not lines or lines[-1] != said:
                lines.append(said)
    return tuple(lines[:_STORY] + ([f"... and {len(lines) - _STORY} steps more"]
                                   if len(lines) > _STORY else []))


def run(schemes: Iterable[Scheme], long: bool, progress: Progress, tell: bool) -> list[Outcome]:
    """Do all runs of `schemes`, those that take minutes only if `long`; `tell` the stories, and
    where in the kernel what they name is."""
    outcomes, places = [], steps.load()
    for scheme in schemes:
        for one in scheme.runs:
            if one.long and not long:
                continue
            what = f"{one.bug or 'any bug'}{' with ' if one.what else ''}{one.what}"
            progress.step(f"{scheme.name}: looking for {what}")
            outcome = check(one)
            progress.done(f"{'found' if outcome.found else 'not found'}, {outcome.states} states")
            outcomes.append(outcome)
            if tell:
                for line in (*outcome.story, *places.of(outcome.story, scheme.bases)):
                    progress.note(f"  {line}")
                if outcome.story and not scheme.bases:
                    progress.note("  (steps.toml has no lines of these versions)")
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
            result = "found" if one.found else "none" if one.whole else "none seen" \
                if one.run.hashed else "not searched to the end"
            lines.append(f"  {what:20} {one.run.what:24} {result:9} {one.states:>10} states "
                         f"{one.mib:6.0f} MiB {one.seconds:5.1f} s"
                         f"{f' (hashed, factor {one.factor:.0f})' if one.run.hashed else ''}"
                         f"{'' if one.right() else '   WRONG: see model/schemes.toml'}")
    wrong = sum(not one.right() for one in outcomes)
    lines += ["", f"{len(outcomes)} runs, {wrong} not as model/schemes.toml says"]
    return "\n".join(lines)
