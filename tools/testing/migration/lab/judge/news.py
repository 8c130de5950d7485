# SPDX-License-Identifier: GPL-2.0
"""What the boots of a kernel show that those of the kernel one step before it did not.

Two kernels complain of the same where what they say differs in lines of source, addresses, CPUs,
processes and numbers alone.  Of a boot counts what it said up to the first complaint that a kernel
does not survive: what comes after that is often its consequence, and another one each time.

That a kernel did not say something in so many boots does not mean that it cannot: most of this is a
matter of chance.  It is news all the same.  More boots make it surer.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from lab.judge.klog import FATAL, Complaint
from lab.judge.verdict import Boot
from lab.words import plural

# What is said of these is who was hit, and that is anybody who came by.
_ANYBODY = frozenset({"soft lockup", "hard lockup", "workqueue lockup", "hung task", "RCU stall",
                      "OOM"})
# A line of a source file; how far into a function; what comes after it is who was hit, or where in
# memory; then numbers and addresses.
_LINE = re.compile(r"(\.[chS]):\d+")
_INTO = re.compile(r"\+0x[0-9a-f]+/0x[0-9a-f]+")
_WHO = re.compile(r"(?: in process | \[#\d+\]|, CPU#| at addr |\bCPU: \d+ PID: \d+ ).*?"
                  r"(?=at \S+\.[chS]\b|$)")
_NUMBER = re.compile(r"\b(?:0x)?[0-9a-f]*\d[0-9a-f]*s?\b")
# Share of its migrations that lost writes, and how many more of them, that cannot be chance.
_TWICE, _MORE = 2, 10
_DECIDED = frozenset({"pass", "fail", "skip", "xfail"})


@dataclass(frozen=True)
class News:
    """Something that the step before had not; only what `counts` makes the verdict."""

    text: str
    counts: bool = True


@dataclass(frozen=True)
class Tried:
    """A step that was booted."""

    number: int
    boots: Sequence[Boot]

    def kinds(self) -> dict[str, str]:
        """What its boots complained of, each with the first that was said of it."""
        found: dict[str, str] = {}
        for boot in self.boots:
            found = _said(boot) | found
        return found

    def lost(self, program: str) -> tuple[int, int]:
        """Migrations of a selftest that lost writes, and all that it made."""
        tests = [test for boot in self.boots for one in boot.transcript.programs
                 if one.name == program for test in one.tests if not test.is_control()]
        return sum(test.count("lost_migrations") for test in tests), sum(
            test.tries() for test in tests)


def kind(complaint: Complaint) -> str:
    """What is the same in all complaints of one kind."""
    if complaint.kind in _ANYBODY:
        return complaint.kind
    text = _INTO.sub("", _LINE.sub(r"\1", complaint.text))
    text = _NUMBER.sub("", _WHO.sub("", text))
    text = re.sub(r"\s+", " ", text).strip(" :,!.")
    return text if complaint.kind in text else f"{complaint.kind}: {text}"


def _said(boot: Boot) -> dict[str, str]:
    found: dict[str, str] = {}
    for complaint in boot.complaints:
        found.setdefault(kind(complaint), complaint.text)
        if complaint.kind in FATAL:
            break
    if came_up(boot) and boot.state in ("TIMEOUT", "INCOMPLETE"):
        problems = boot.transcript.problems()
        found.setdefault(f"a boot that ends as {boot.state}",
                         problems[0] if problems else "the guest did not come to its end")
    return found


def came_up(boot: Boot) -> bool:
    """Whether the kernel came as far as the tests."""
    return bool(boot.transcript.programs) or boot.transcript.done


def news(this: Tried, before: Sequence[Tried]) -> list[News]:
    """What is new in a step; `before` are those that came up earlier, the last of them first.

    Nothing is new in the first.
    """
    if not before:
        return []
    return [*_complaints(this, before), *_failed(this, before), *_lost(this, before)]


def _complaints(this: Tried, before: Sequence[Tried]) -> list[News]:
    last = before[0]
    known = last.kinds()
    made = []
    for one, text in this.kinds().items():
        if one in known:
            continue
        times = sum(one in _said(boot) for boot in this.boots)
        told = [f"{one}, in {times} of {plural(len(this.boots), 'boots')}, and in none of "
                f"{len(last.boots)} of step {last.number}"]
        if had := next((step for step in before[1:] if one in step.kinds()), None):
            told.append(f"step {had.number} had it")
        if all(boot.state == "CRASHED" for boot in last.boots):
            told.append(f"step {last.number} crashed otherwise, perhaps before it could come to "
                        "this")
        made.append(News(f"{'; '.join(told)}: {text}"))
    return made


def _failed(this: Tried, before: Sequence[Tried]) -> list[News]:
    """Tests that failed, lost nothing, and had not failed when they gave a result the last time."""
    tests = [test for boot in this.boots for test in boot.tests()]
    lossy = {test.name for test in tests if test.count("lost_migrations")}
    # In a kernel that has crashed it may be the crash's doing.
    bad = {test.name: test.reason for boot in this.boots if boot.state != "CRASHED"
           for test in boot.tests() if test.outcome == "fail" and test.name not in lossy}
    made = []
    for name, reason in bad.items():
        had = _last(name, before)
        if had and "fail" not in _outcomes(name, had):
            made.append(News(f"{name} failed, and had not in step {had.number}"
                             + (f": {reason}" if reason else "")))
    return made


def _lost(this: Tried, before: Sequence[Tried]) -> list[News]:
    made = []
    for program in dict.fromkeys(one.name for boot in this.boots
                                 for one in boot.transcript.programs):
        lost, tries = this.lost(program)
        if not lost:
            continue
        names = dict.fromkeys(test.name for boot in this.boots for one in boot.transcript.programs
                              if one.name == program for test in one.tests
                              if test.count("lost_migrations"))
        new = {name: had for name in names if (had := _last(name, before))
               and not _losses(name, had)}
        if new and all(not step.lost(program)[0] for step in new.values()):
            steps = _listed(step.number for step in new.values())
            made.append(News(f"{program} lost writes in {lost} of {plural(tries, 'migrations')}, "
                             f"and in none in {steps}: {', '.join(new)}"))
            continue
        if new:
            made.append(News(f"{program} lost writes in tests that lost none before, where others "
                             f"did: {', '.join(new)}", False))
        old, of = before[0].lost(program)
        if old and lost * of >= _TWICE * old * tries and lost >= old + _MORE:
            made.append(News(f"{program} lost writes in {lost} of {plural(tries, 'migrations')}, "
                             f"and in {old} of {of} in step {before[0].number}", False))
    return made


def _listed(numbers: Iterable[int]) -> str:
    every = [str(number) for number in sorted(set(numbers))]
    return f"step{'s' if len(every) > 1 else ''} {', '.join(every)}"


def _last(name: str, before: Sequence[Tried]) -> Tried | None:
    """The last step in which a test gave a result: in a kernel that crashed it may not have."""
    return next((step for step in before if _DECIDED & _outcomes(name, step)), None)


def _outcomes(name: str, step: Tried) -> set[str]:
    return {test.outcome for boot in step.boots for test in boot.tests() if test.name == name}


def _losses(name: str, step: Tried) -> int:
    return sum(test.count("lost_migrations") for boot in step.boots for test in boot.tests()
               if test.name == name)
