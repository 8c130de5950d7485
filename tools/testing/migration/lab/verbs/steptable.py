# SPDX-License-Identifier: GPL-2.0
"""A run of `make steps` in the forms in which it is told: a line a step, a verdict, and JSON."""

import dataclasses
from collections import Counter
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from lab.booted import Booted
from lab.judge import news, summary as summaries
from lab.judge.news import News, Tried
from lab.judge.summary import Provenance
from lab.judge.verdict import Boot
from lab.kernel.source import Source
from lab.kernel.stepwise import Step
from lab.verbs.mutants import failed
from lab.wanted import Wanted
from lab.words import wrap

REPORT = "steps.json"
_SUBJECT = 38


@dataclass
class Row:
    """A step, and what became of it."""

    step: Step
    subject: str
    seconds: float | None = None            # that its build took; None before, and from the cache
    done: bool = False                      # it was built, or not, and booted, or not
    error: str = ""                         # why it does not build
    log: str = ""                           # of that
    booted: Booted = field(default_factory=Booted)
    same: int | None = None                 # the step whose image it has, and whose boots
    news: list[News] = field(default_factory=list)

    @property
    def boots(self) -> list[Boot]:
        """Its boots, none where it was not booted."""
        return self.booted.boots

    @property
    def number(self) -> int:
        """How many patches it has."""
        return self.step.number

    def down(self) -> list[Boot]:
        """Those of its boots in which it did not come as far as the tests."""
        return [boot for boot in self.boots if not news.came_up(boot)]

    def tried(self) -> Tried:
        """What the next step is compared with."""
        return Tried(self.number, self.boots)

    def wrong(self) -> list[str]:
        """What makes the verdict, in words."""
        if self.error:
            return [f"it does not build: {self.error}"]
        return [*([f"it did not boot in {len(self.down())} of {len(self.boots)}: "
                   f"{_said(self.down()[0])}"] if self.down() else []),
                *(one.text for one in self.news if one.counts)]

    def outcomes(self) -> Counter[str]:
        """How many of its tests had which result, in all boots."""
        return Counter(test.outcome for boot in self.boots for test in boot.tests())


@dataclass
class Run:
    """A whole run."""

    wanted: Wanted
    source: Source
    queue: str                  # "queue/4.18/series"
    arch: str
    started: datetime
    rows: list[Row]
    provenance: Provenance
    accel: str = ""             # "" until a kernel was built
    compiler: str = ""
    seconds: float = 0.0
    whole: bool = False         # it came to its end

    def trouble(self) -> list[tuple[int, str]]:
        """What is against each step, by its number."""
        found = [(row.number, text) for row in self.rows for text in row.wrong()]
        if self.whole and not found and not any(
                row.outcomes()[word] for row in self.rows for word in ("pass", "fail", "error")):
            found.append((self.rows[-1].number, f"no test ran in any step{self._why_not()}"))
        return found

    def _why_not(self) -> str:
        return next((f": {test.reason}" for row in self.rows for boot in row.boots
                     for test in boot.tests() if test.reason), "")

    def passed(self) -> bool:
        """Each step builds, boots, and has nothing that the one before it had not."""
        return self.whole and not self.trouble()


def utc(moment: datetime) -> str:
    """As JSON holds it."""
    return moment.isoformat(timespec="seconds")


def _said(boot: Boot) -> str:
    """What was wrong first in a boot; "" for nothing."""
    return summaries.boot(boot).wrong()


HEAD = (f"{'step':>4}  {'patch':{_SUBJECT}}  {'built':>6}  {'booted':>6}  {'pass':>4} {'fail':>4} "
        f"{'died':>4}  {'lost writes':>12}  said first")


def line(row: Row) -> str:
    """What became of a step."""
    name = row.subject if len(row.subject) <= _SUBJECT else f"{row.subject[:_SUBJECT - 2]}.."
    built = "NO" if row.error else "cache" if row.seconds is None else f"{row.seconds:.0f} s"
    if row.same is not None:
        built = "same"
    start = f"{row.number:4}  {name:{_SUBJECT}}  {built:>6}"
    if row.error:
        return f"{start}  {'-':>6}  {'-':>4} {'-':>4} {'-':>4}  {'-':>12}  {row.error}"
    counts, sums = row.outcomes(), summaries.kernel("", (), row.boots)
    first = next((boot.complaints[0].text for boot in row.boots if boot.complaints), "") or next(
        (text for boot in row.boots if (text := _said(boot))), "-")
    booted = f"{len(row.boots) - len(row.down())}/{len(row.boots)}"
    return (f"{start}  {booted:>6}  {counts['pass']:4} {counts['fail']:4} {counts['error']:4}  "
            f"{f'{sums.lost_migrations} of {sums.migrations}':>12}  {first}"
            + ("  <- NEW" if row.wrong() else ""))


def report(run: Run) -> dict[str, object]:
    """The run as steps.json holds it."""
    return {
        "base": run.source.base.name, "queue": run.queue, "arch": run.arch, "accel": run.accel,
        "debug": run.wanted.debug, "boots": run.wanted.boots, "whole": run.whole,
        "passed": run.passed(), "tests": list(run.wanted.programs()),
        "arguments": list(run.wanted.tests), "started": utc(run.started),
        "seconds": round(run.seconds, 1), "command": run.wanted.command,
        "source": dict(run.source.identity), "compiler": run.compiler,
        "provenance": dataclasses.asdict(run.provenance),
        "trouble": [{"step": number, "why": why} for number, why in run.trouble()],
        "steps": [_row(row) for row in run.rows]}


def _row(row: Row) -> dict[str, object]:
    counts, sums = row.outcomes(), summaries.kernel("", (), row.boots)
    told = row.booted.report()
    return {
        "name": row.step.variant.name, "step": row.number, "subject": row.subject,
        "patch": row.step.patch.name if row.step.patch else None, "how": row.step.variant.how,
        "done": row.done, "built": row.done and not row.error, "error": row.error, "log": row.log,
        "build_seconds": row.seconds, "same_image_as": row.same,
        "booted": len(row.boots) - len(row.down()), "boots": len(row.boots),
        **{f"tests_{word}": counts[outcome] for word, outcome in (
            ("passed", "pass"), ("failed", "fail"), ("died", "error"), ("skipped", "skip"),
            ("inconclusive", "inconclusive"))},
        "migrations": sums.migrations, "lost_migrations": sums.lost_migrations,
        "kinds": row.tried().kinds(), "news": [dataclasses.asdict(one) for one in row.news],
        "wrong": row.wrong(), **told,
        "runs": [summaries.boot_report(boot) | {"failed_tests": failed(boot.transcript)}
                 for boot in row.boots]}


def summary(run: Run, out: Path) -> str:
    """The result for a person; names are never broken."""
    lines = [*wrap(f"Steps {run.rows[0].number} to {run.rows[-1].number} of {run.queue} on "
                   f"{run.source.version}: {run.arch}, QEMU with {run.accel or 'nothing'}"
                   + (", debug configuration" if run.wanted.debug else "")), ""]
    for row in run.rows:
        # What is only told stands beside what counts.
        also = [f"also, and not counted: {one.text}" for one in row.news if not one.counts]
        for text in (*row.wrong(), *also):
            lines += wrap(f"step {row.number}, {row.subject}: {text}", "", "    ")
        folder = row.log or row.booted.folder
        if row.wrong() and folder:
            lines.append(f"    see {folder}")
    if lines[-1]:
        lines.append("")
    trouble = run.trouble()
    steps = sorted({number for number, _why in trouble})
    if run.passed():
        said = "OK: each step builds and boots, and none has a crash, a complaint, a failed test " \
               "or lost writes that the step before it had not"
        if not run.rows[0].number:
            said += ". Step 0 is the kernel as released"
    elif any(row.wrong() for row in run.rows):
        said = f"NOT OK: there is news in {'step' if len(steps) == 1 else 'steps'} " \
               f"{', '.join(map(str, steps))}"
    else:
        said = f"NOT OK: {trouble[0][1] if trouble else 'the run did not come to its end'}"
    return "\n".join([*lines, *wrap(said, "", "  "), "",
                      f"Results: {out}/{REPORT}, and a folder a step in {out}/",
                      f"Repeat:  {run.wanted.command}"]) + "\n"
