# SPDX-License-Identifier: GPL-2.0
"""Breaks a fixed kernel in one way at a time, and says whether anything sees it.

A mutant is killed by a boot in which a selftest fails or the kernel complains.  Such a boot is
ended soon after that: kernels with half a fix like to hang.  A boot that gives no result kills
nothing: the machine may have been slow.
"""

import dataclasses
import json
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path

from lab import booted, defect, provenance, trial
from lab.arch import Arch
from lab.booted import Booted
from lab.errors import LabError
from lab.guest import qemu
from lab.judge import summary as summaries
from lab.judge.klog import Complaint
from lab.judge.ktap import Transcript
from lab.judge.summary import Provenance
from lab.judge.verdict import Boot
from lab.kernel import build, unmapped, variant
from lab.kernel.source import Source
from lab.kernel.variant import Variant
from lab.mutant import MUTANTS, Mutant, load, names, unseen
from lab.paths import replace
from lab.progress import Progress
from lab.trial import Trial
from lab.wanted import Wanted
from lab.words import wrap

_REPORT = "mutants.json"

KILLED, SURVIVED, NO_RESULT = "killed", "survived", "no result"
NOT_OBSERVABLE, NOT_THERE, NOT_RUN = "not observable", "not there", "not run"


@dataclass
class Row:
    """A mutant of one kernel, and what became of it."""

    mutant: Mutant
    made: Variant | None = None             # None where the tree has no such place
    booted: Booted = field(default_factory=Booted)
    measure: Booted | None = None           # the kernel as it is, where its guest is its own
    status: str = NOT_RUN
    why: str = ""

    @property
    def boots(self) -> list[Boot]:
        """Its boots, none where it was not booted."""
        return self.booted.boots


def make(source: Source, fixed: Variant, mutant: Mutant) -> Variant | None:
    """The mutant of a fixed tree; None where its rule finds nothing.  Changes no tree.

    LabError where that is not to be expected, and where the rule changes another function than
    the mutant names, or not all that it does.
    """
    made = variant.edit(source, mutant.rule, mutant.files, f"the mutant {mutant.name}", fixed.diff)
    if made is None:
        if mutant.absent:
            return None
        raise LabError(f"mutants/{mutant.name} finds nothing in {source.version}, and does "
                       "not say why that may be: check the rule")
    changed = {place.function for place in made.places}
    wanted = {name for name, must in made.wanted(mutant.places).items() if must}
    if changed != wanted:
        raise LabError(f"mutants/{mutant.name} changes {', '.join(sorted(changed))} of "
                       f"{source.version} instead of {', '.join(sorted(wanted)) or 'nothing'}: "
                       "check the rule")
    return variant.make(mutant.name, f"{fixed.how}, and mutants/{mutant.name}", made.diff,
                        tuple(dict.fromkeys(map(str, made.places))))


# ---- what a boot says ----------------------------------------------------------------------


def failed(transcript: Transcript) -> dict[str, list[str]]:
    """The tests that failed in a boot, by their program."""
    # Of a guest that did not come to its end, the test that it was at gave no result: that says
    # nothing of the test.  In one that did, the program died.
    outcomes = ("fail", "error") if transcript.done else ("fail",)
    tests = {program.name: [test.name for test in program.tests if test.outcome in outcomes]
             for program in transcript.programs}
    return {program: some for program, some in tests.items() if some}


def seen(transcript: Transcript, complaints: list[Complaint]) -> bool:
    """Something saw the mutant, by what has come so far."""
    return bool(complaints or failed(transcript))


def kills(boot: Boot) -> bool:
    """Something saw the mutant in this boot."""
    return seen(boot.transcript, boot.complaints)


def witnesses(boots: Iterable[Boot]) -> list[str]:
    """What saw the mutant, in a few words each: of the tests which, of complaints what kind."""
    tests: dict[str, dict[str, None]] = {}
    kinds: dict[str, None] = {}
    for boot in boots:
        for program, some in failed(boot.transcript).items():
            tests.setdefault(program, {}).update(dict.fromkeys(some))
        # What comes after the first is often its consequence.
        kinds.update(dict.fromkeys(complaint.kind for complaint in boot.complaints[:1]))
    return [*(f"{program} ({len(some)} tests)" if len(some) > 1 else next(iter(some))
              for program, some in tests.items()),
            *(f"the kernel ({kind})" for kind in kinds)]


def judge(row: Row, here: str) -> tuple[str, str]:
    """What became of a mutant that was booted, and why; `here` is why it cannot be seen, or ""."""
    if any(kills(boot) for boot in row.boots):
        return KILLED, f"although {here}" if here else ""
    if here:
        return NOT_OBSERVABLE, here
    quiet = [boot for boot in row.boots if boot.state != "DONE"]
    if len(quiet) == len(row.boots):
        return NO_RESULT, f"all boots ended as {', '.join(sorted({one.state for one in quiet}))}"
    doubts = [f"{len(quiet)} of {len(row.boots)} boots gave no result"] if quiet else []
    undecided = sum(test.outcome == "inconclusive" for boot in row.boots for test in boot.tests())
    if undecided:
        doubts.append(f"{undecided} of its tests were inconclusive")
    return SURVIVED, "; ".join(filter(None, [row.mutant.survives, *doubts]))


def trouble(boot: Boot, tests: Sequence[str]) -> str:
    """Why a boot of the kernel as it is does not do as a measure for its mutants; "" if it does."""
    if boot.complaints:
        return f"{boot.complaints[0].kind}: {boot.complaints[0].text}"
    if some := failed(boot.transcript):
        return f"{next(iter(some.values()))[0]} failed"
    if boot.state != "DONE":
        return f"{boot.state}: {(boot.transcript.problems() or ['it did not come to its end'])[0]}"
    passed = {program.name for program in boot.transcript.programs
              if any(test.outcome == "pass" for test in program.tests)}
    if idle := [test for test in tests if test not in passed]:
        why = next((f": {test.reason}" for program in boot.transcript.programs
                    if program.name == idle[0] for test in program.tests if test.reason), "")
        return f"no test of {idle[0]} passed{why}"
    return ""


# ---- the run -------------------------------------------------------------------------------


@dataclass
class Run:
    """A whole run."""

    wanted: Wanted
    source: Source
    fixed: Variant
    arch: str
    accel: str
    compiler: str
    started: datetime
    seconds: float
    rows: list[Row]
    measure: Booted             # the fixed kernel, by which its mutants are judged
    provenance: Provenance
    whole: bool = False         # all mutants that there are, to the end

    def passed(self) -> bool:
        """Every mutant that something could see was seen."""
        return all(row.status in (KILLED, NOT_OBSERVABLE, NOT_THERE) for row in self.rows)


def run(wanted: Wanted, only: str, arch: Arch, progress: Progress, resume: bool = False
        ) -> Run:
    """Break, build, boot and judge; write the results under wanted.out, anew after each mutant.

    `wanted.defect` is the one whose fixed kernel is broken, and whose guest is booted.  `only`
    names one mutant, "" is all of them.  To `resume` is to boot no kernel that a run in wanted.out
    has booted already.  LabError where the fixed kernel itself fails: what a mutant did would mean
    nothing.
    """
    started, began = datetime.now(timezone.utc), time.monotonic()
    rows = [Row(load(name)) for name in ([only] if only else names())]
    source = trial.find_source(wanted, progress)
    progress.step(f"making the mutants of {source.version}")
    # For the tests of all mutants, whichever is asked for: all kernels find each other's objects.
    every = [one for one in map(load, names()) if not one.lacks(source.version, arch)]
    needs = defect.asking(
        defect.together(wanted.defect, {test for one in every for test in one.tests}),
        (option for one in every for option in one.options))
    _vulnerable, fixed = variant.plan(source, needs, wanted.form, whole=True)
    witness = trial.has_witness(wanted, source)
    if witness:
        fixed = unmapped.added(source, fixed)
    # All of them before the first is built: a rule that needs a look is to say so at once.
    for row in rows:
        progress.update(row.mutant.name)
        lacks = row.mutant.lacks(source.version, arch)
        row.made = None if lacks else make(source, fixed, row.mutant)
        if row.made is None:
            row.status, row.why = NOT_THERE, lacks or row.mutant.absent
    progress.done(f"{sum(row.made is not None for row in rows)} of {len(rows)}")

    # That of a mutant which is not there may be one of newer kernels, and not pass on this one.
    there_are = [row for row in rows if row.made] or rows
    tests = tuple(dict.fromkeys(test for row in there_are for test in row.mutant.tests))
    # Of those in a guest of their own that one is asked which has it.
    usual = tuple(dict.fromkeys(test for row in there_are if not row.mutant.guest
                                for test in row.mutant.tests))
    initrd = trial.image(wanted, source, dict.fromkeys(tests, "a mutant"), arch, progress)
    options = unmapped.options(needs.kernel.options) if witness else needs.kernel.options
    kernel = build.kernel(source, fixed, arch, wanted.debug, progress, options)
    accel = qemu.choose_accel(wanted.accel, arch, kernel.image, initrd, progress)
    home = wanted.out / f"{started:%Y%m%d-%H%M%S}-mutants-{source.version}"
    there = booted.earlier(wanted.out, _REPORT) if resume else {}

    def boots(one: Variant, some: tuple[str, ...], tell: Callable[[Boot], str],
              mutant: Mutant | None = None) -> Booted:
        """Boot `one`, which is `mutant` or, if that has a guest of its own, its measure."""
        image = kernel if one is fixed else build.kernel(source, one, arch, wanted.debug, progress,
                                                         options)
        guest = needs.guest
        if mutant and mutant.guest:
            guest = dataclasses.replace(mutant.guest, env=guest.env + mutant.guest.env)
        # The defect's own symptoms are what a mutant is to show.
        asked = dataclasses.replace(
            wanted, tests=mutant.arguments if mutant else (), defect=dataclasses.replace(
                needs, guest=guest,
                show=dataclasses.replace(needs.show, selftests=some, symptoms=(), fatal=())))
        name = f"{one.name}-for-{mutant.name}" if mutant and one is fixed else one.name
        it = Trial(asked, source, one, image, initrd, arch, accel, witness)
        identity = booted.identity(it)
        taken = booted.take_over(there.get(name, []), identity, it)
        if taken and any(kills(boot) or boot.state == "DONE" for boot in taken.boots):
            told = "; ".join(dict.fromkeys(tell(boot) for boot in taken.boots))
            progress.note(f"the {name} kernel was booted in the run of {taken.ran}: {told}")
            return taken
        new = Booted(identity, str(home / name), _utc(started))
        it.keep(home / name)
        for number in range(1, wanted.boots + 1):
            new.boots.append(it.boot(home / name, number, progress,
                                     None if one is fixed else seen))
            progress.done(tell(new.boots[-1]))
        return new

    def passes(some: tuple[str, ...]) -> Callable[[Boot], str]:
        def tell(boot: Boot) -> str:
            if why := trouble(boot, some):
                raise LabError(f"the fixed kernel itself does not pass, so its mutants would show "
                               f"nothing: {why}", f"{boot.folder}/console.log")
            return "passed"
        return tell

    origin = provenance.of_run(arch, tests, [fixed.how], MUTANTS.rglob("*.cocci"))
    made = Run(wanted, source, fixed, arch.name, accel, kernel.identity["compiler"], started, 0.0,
               rows, boots(fixed, usual, passes(usual)) if usual else Booted(), origin)

    def save() -> None:
        made.seconds = time.monotonic() - began
        text = json.dumps(report(made), indent=2) + "\n"
        replace(home / _REPORT, text)
        replace(wanted.out / _REPORT, text)

    todo: list[tuple[Row, Variant, str]] = []
    # Those that change the same files next to each other: less to compile.
    for row in sorted(rows, key=lambda row: (_files(row), row.mutant.name)):
        if row.made is None:
            continue
        here = unseen(row.mutant, source.version, arch.name, accel, wanted.debug)
        if here and not only:
            # Its boots would say nothing.  Whoever doubts that can name it.
            row.status, row.why = NOT_OBSERVABLE, here
        else:
            todo.append((row, row.made, here))
    save()
    took: list[float] = []
    for number, (row, one, here) in enumerate(todo, 1):
        # Until a mutant has shown what one takes: as much as the fixed kernel.
        each = sum(took) / len(took) if took else sum(boot.seconds for boot in made.measure.boots)
        progress.note(f"mutant {number} of {len(todo)}, {row.mutant.name}: about "
                      f"{each * (len(todo) - number + 1) / 60:.0f} min to go")
        since = time.monotonic()
        if row.mutant.guest:
            row.measure = boots(fixed, row.mutant.tests, passes(row.mutant.tests), row.mutant)
        row.booted = boots(one, row.mutant.tests, _came_of, row.mutant)
        row.status, row.why = judge(row, here)
        if row.booted.ran == _utc(started):
            took.append(time.monotonic() - since)
        save()
    made.whole = not only
    save()
    return made


def _utc(moment: datetime) -> str:
    return moment.isoformat(timespec="seconds")


def _came_of(boot: Boot) -> str:
    """A boot of a mutant in a few words."""
    if kills(boot):
        return f"{', '.join(witnesses([boot]))}{'; ended there' if boot.ended_early else ''}"
    return "survived" if boot.state == "DONE" else boot.state


def _files(row: Row) -> list[str]:
    """The files that a mutant changes."""
    return sorted({place.split(":")[0] for place in row.made.places}) if row.made else []


# ---- telling it ----------------------------------------------------------------------------


def report(run: Run) -> dict[str, object]:
    """The run as mutants.json holds it."""
    return {
        "base": run.source.base.name, "arch": run.arch, "accel": run.accel,
        "debug": run.wanted.debug, "boots": run.wanted.boots, "whole": run.whole,
        "passed": run.passed(), "started": _utc(run.started),
        "seconds": round(run.seconds, 1), "command": run.wanted.command,
        "source": dict(run.source.identity), "fixed": run.fixed.how, "compiler": run.compiler,
        "provenance": dataclasses.asdict(run.provenance), "taken_over": _taken_over(run),
        "measure": run.measure.report() | {"name": run.fixed.name},
        "mutants": [_row(row) for row in run.rows],
    }


def _taken_over(run: Run) -> dict[str, object] | None:
    """How many kernels an earlier run had booted, and on which days."""
    ran = [one.ran for one in (run.measure, *(row.booted for row in run.rows), *(
        row.measure for row in run.rows if row.measure)) if one.boots]
    before = [began[:10] for began in ran if began != _utc(run.started)]
    return {"kernels": len(before), "of": len(ran), "on": sorted(set(before))} if before else None


def _row(row: Row) -> dict[str, object]:
    complaint = next((boot.complaints[0].text for boot in row.boots if boot.complaints), "")
    return {
        "name": row.mutant.name, "breaks": row.mutant.breaks, "status": row.status, "why": row.why,
        "places": list(row.made.places) if row.made else [], "tests": list(row.mutant.tests),
        "boots": len(row.boots), "killed": sum(kills(boot) for boot in row.boots),
        "by": witnesses(row.boots), "complaint": complaint, **row.booted.report(),
        **({"measure": row.measure.report() | {"name": f"fixed-for-{row.mutant.name}"}}
           if row.measure else {}),
        "runs": [summaries.boot_report(boot) | {"failed_tests": failed(boot.transcript)}
                 for boot in row.boots],
    }


def summary(run: Run, out: Path) -> str:
    """The result for a person; names are never broken."""
    lines = [f"Mutants of {run.source.version}: {run.arch}, QEMU with {run.accel}"
             + (", debug configuration" if run.wanted.debug else ""), ""]
    width = max(len(row.mutant.name) for row in run.rows)
    for status in (KILLED, SURVIVED, NO_RESULT, NOT_OBSERVABLE, NOT_THERE):
        for row in (row for row in run.rows if row.status == status):
            count = f"{sum(kills(boot) for boot in row.boots)} of {len(row.boots)}"
            lines.append(f"{status:14}  {row.mutant.name:{width}}  "
                         f"{count if status == KILLED else ''}".rstrip())
            told = [*([f"by {', '.join(witnesses(row.boots))}"] if status == KILLED else []),
                    *([row.why] if row.why else []),
                    *([f"booted in the run of {row.booted.ran}"]
                      if row.boots and row.booted.ran != _utc(run.started) else [])]
            for text in told:
                lines += wrap(text, " " * 16, " " * 16)
    alive = sum(row.status in (SURVIVED, NO_RESULT) for row in run.rows)
    dead = sum(row.status == KILLED for row in run.rows)
    lines += ["", f"{dead} of the {dead + alive} that could be seen here were killed",
              "", f"Results: {out}/mutants.json, and a folder a boot in {out}/",
              f"Repeat:  {run.wanted.command}"]
    return "\n".join(lines) + "\n"
