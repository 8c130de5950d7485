# SPDX-License-Identifier: GPL-2.0
"""Loads mutants/<name>/: a way to break a fix, and what is to see it.

The folder has a rule of coccinelle, rule.cocci, unless it has that of another, and perhaps config,
a Kconfig fragment with what its tests need beyond what the defects ask for that they show.  All
mutants, and the kernel that they are compared with, have the options of each.  mutant.toml has
these keys; a list is one of strings:

    breaks    what it breaks, in words
    files     a list: files of a kernel tree that the rule is run on
    places    a list: functions that it must change, each that exists; "a|b" where b took over
              from a
    rule_of   the mutant whose rule it has, where other tests in another guest are to see that
    tests     a list: the selftests to run; what they need in the kernel is said by the defects that
              they show, and all mutants and the kernel that they are compared with have all of it
    arguments a list: arguments for these, where not all that they have is about it
    absent    why it finds nothing in some versions, where that is so
    since     the first version that has what the tests need.  Before, it is as if it found nothing,
              and no kernel has its options
    survives  what it takes to see it that is not there, where that is known

    [guest]   the machine that its tests need, with the keys that a defect's has; by default the
              one of all mutants

    [[unseen]]    any number of these, where nothing can see it, however good the tests
    where     a list: conditions that must all hold, each an architecture, an accelerator,
              "before 4.20" or "without DEBUG=1"; without it, everywhere
    why       the reason
"""

import re
from dataclasses import dataclass
from pathlib import Path

from lab import arch as arches, fragment, schema
from lab.arch import Arch
from lab.defect import Machine
from lab.errors import LabError
from lab.guest import qemu
from lab.paths import HOME

MUTANTS = HOME / "mutants"
_FILE = "mutant.toml"

_BEFORE = re.compile(r"before (\d+(?:\.\d+)+)")
_NO_DEBUG = "without DEBUG=1"


@dataclass(frozen=True)
class Unseen:
    """Where nothing can see a mutant."""

    why: str
    where: tuple[str, ...] = ()


@dataclass(frozen=True)
class Mutant:
    """One way to break the fix."""

    name: str
    rule: Path
    breaks: str
    files: tuple[str, ...]
    places: tuple[str, ...]
    tests: tuple[str, ...]
    arguments: tuple[str, ...] = ()
    absent: str = ""
    since: str = ""
    survives: str = ""
    unseen: tuple[Unseen, ...] = ()
    options: tuple[str, ...] = ()
    guest: Machine | None = None

    def lacks(self, version: str, arch: Arch) -> str:
        """Why nothing is to be asked of a kernel `version` for it; "" if something is."""
        if self.guest and self.guest.slow and not arch.tiers:
            return f"no machine of {arch.name} says that memory is slower"
        if self.guest and self.guest.virtual and not arch.virtual:
            return f"no guest on {arch.name} runs virtual machines here"
        return self.absent if self.since and _numbers(version) < _numbers(self.since) else ""


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split("."))


def names() -> list[str]:
    """The names of all mutants, sorted."""
    return sorted(path.parent.name for path in MUTANTS.glob(f"*/{_FILE}"))


def load(name: str) -> Mutant:
    """The mutant `name`; LabError where there is none or its file says too little or too much."""
    if name not in names():
        raise LabError(f"no mutant {name}: there are {', '.join(names()) or 'none'}")
    path = MUTANTS / name / _FILE
    said = schema.read(path)
    unseen = schema.tables(Unseen, path, "unseen", said.pop("unseen", []))
    for one in unseen:
        for where in one.where:
            if where not in {_NO_DEBUG, *qemu.ACCELS, *arches.names()} \
                    and not _BEFORE.fullmatch(where):
                raise LabError(f"{path}: [unseen] where: {where}: where is that?")
    guest = said.pop("guest", None)
    if "since" in said and not said.get("absent"):
        raise LabError(f"{path}: since is there and no absent, which says why")
    of = said.pop("rule_of", None)
    if of is not None and of not in names():
        raise LabError(f"{path}: rule_of: there is no mutant {of}")
    rule = (path.parent if of is None else MUTANTS / str(of)) / "rule.cocci"
    if not rule.is_file():
        raise LabError(f"{path}: there is no {rule.name} "
                       f"{'beside it' if of is None else f'of {of}'}")
    return schema.fill(Mutant, path, "", said, name=name, rule=rule, unseen=unseen,
                       options=fragment.lines(path.parent / "config"),
                       guest=None if guest is None else schema.fill(Machine, path, "guest", guest))


def unseen(mutant: Mutant, version: str, arch: str, accel: str, debug: bool) -> str:
    """Why nothing can see the mutant in such a guest; "" where something can."""
    def holds(where: str) -> bool:
        before = _BEFORE.fullmatch(where)
        return where in (arch, accel) or where == _NO_DEBUG and not debug \
            or before is not None and _numbers(version) < _numbers(before[1])

    for one in mutant.unseen:
        if all(map(holds, one.where)):
            return one.why
    return ""
