# SPDX-License-Identifier: GPL-2.0
"""Loads defects/<name>/defect: what a defect is, what shows it, and what takes its cure out.

A race that is too narrow to be met in each boot may have an amplifier.cocci, which makes it wider
in the vulnerable and in the fixed kernel alike, and an [amplifier] that says how in words.

Such a file is INI. A defect that no selftest shows names none, and has an [audit]. One that shares
its selftests with another names those variants of them that are about it, or a selftest all of
whose variants are. A defect that nobody has fixed yet has no `upstream` and no `fixed`, and says in
`brought` which commit brought it: a patch of a queue mends it if it says so in its Fixes: line.

Beside the file a defect that is live in a kernel may have a report: a mail to those who maintain that
kernel, for `make series` to write beside the patches.  It says which patch it is about, and of which
queues: "Patch (6.12, 6.1):", and the subject on the next line, indented.

Beside [defect], [control], [amplifier] and [audit] the file may say what the tests of this defect
need that no other's do:

    [kernel]          one of these, or both
    add       files of this repository that both kernels get, at the same path; a C file is built in
    options   further lines for their .config, one a line
    [guest]
    nodes     MiB of memory that the kernel boots with, for each of the two nodes
    dimms     MiB for each node that are added by ACPI and movable; 0 for none
    cpu       features of the CPU beyond those of the lab's own
    virtio_mem   MiB of a virtio-mem device on node 0, of which nothing is plugged at first; the
              guest sets its size over QMP, on a serial line of its own
    cmdline   words to add to the kernel's command line
"""

import configparser
import dataclasses
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from lab.base import expressions
from lab.errors import LabError
from lab.paths import HOME, REPO

DEFECTS = HOME / "defects"

_KEYS: dict[str, set[str]] = {
    "defect": {"title", "since"},
    "control": {"files", "places", "removes"},
    "amplifier": {"files", "places", "does"},
    "queue": {"vulnerable"},
    "audit": {"files", "exist", "see"},
    "kernel": set(),
    "guest": set(),
}
_OPTIONAL: dict[str, set[str]] = {
    "defect": {"upstream", "fixed", "brought", "selftests", "variants", "symptoms", "fatal", "turns",
               "harm", "counts"},
    "kernel": {"add", "options"},
    "guest": {"nodes", "dimms", "cpu", "virtio_mem", "cmdline"},
}
# Sections that go with no file of their own.
_FREE = {"queue", "kernel", "guest"}
# Functions of shared PMD tables: a tree that shares none has them to no effect.
_SHARING = {"huge_pmd_share", "sharing_lock", "adjust_range_if_pmd_sharing_possible",
            "tlb_unshare_pmd_ptdesc"}


@dataclass(frozen=True)
class Machine:
    """The guest that a defect is shown on; memory in MiB, for node 0 and node 1.

    What the kernel boots with holds things that never move; a DIMM is added by ACPI and given to
    movable memory by the guest's init, so all huge pages in it can go offline.  Two DIMMs have to
    hold the GiB that shmat() reserves up to 5.17; QEMU takes of the host what is used.
    """

    nodes: tuple[int, int] = (256, 256)
    dimms: tuple[int, int] = (1024, 1024)
    cpu: str = ""               # features, "+pdpe1gb"
    virtio_mem: int = 0         # MiB of a device on node 0; none
    cmdline: str = ""


@dataclass(frozen=True)
class Amplifier:
    """What both kernels get so that a race is met in each boot of the vulnerable one."""

    rule: Path
    files: tuple[str, ...]          # that it is run on, those that a tree has
    places: tuple[str, ...]         # functions that it must change, as those of a control
    does: str                       # in words


@dataclass(frozen=True)
class Defect:
    """One way in which page migration loses track of a mapping."""

    name: str
    title: str
    upstream: tuple[str, ...]       # the commits that fix it: "sha subject"; none, and `brought`
    since: str                      # the first version that has the defect
    fixed: str                      # the first version that has the fix; "" if none has
    selftests: tuple[str, ...]      # names of the programs that show it, where there are any
    folder: Path
    control: Path | None            # control.cocci, where there is one
    control_files: tuple[str, ...]  # files that the control is run on, those that a tree has
    places: tuple[str, ...]         # functions that it must change, each that exists once; "a|b"
                                    # where b took over from a
    removes: str                    # the function whose call goes, once a place; "a|b" as above
    brought: str = ""               # where nobody has fixed it: the commit that it came with
    variants: tuple[str, ...] = ()  # of the selftests (their option -v) that are about this defect,
                                    # or a selftest itself (-f) where all of its are; those of all
                                    # selftests where none is named
    symptoms: tuple[str, ...] = ()  # what the defect makes a kernel say of itself: regular
                                    # expressions for complaints in a vulnerable kernel's log
    fatal: tuple[str, ...] = ()     # those of the symptoms after which it need not come to its end
    turns: tuple[str, ...] = ()     # where it is fatal: variants of the selftests (their option -v)
                                    # of which a boot of the vulnerable kernel runs one, in turn,
                                    # beside `variants`, which it does not die of
    harm: str = "lost writes"       # what a migration did that shows the defect
    counts: str = "migrations"      # what the selftests count as migrations, in their own word
    audit: Path | None = None       # audit.cocci, where there is one
    audit_files: tuple[str, ...] = ()   # files that it is run on, those that a tree has
    exist: tuple[str, ...] = ()     # functions without which a tree is not affected; "a|b" for a
                                    # function that was renamed
    see: tuple[str, ...] = ()       # functions that the rules must see where a tree has them
    amplifier: Amplifier | None = None
    machine: Machine = Machine()
    add: tuple[str, ...] = ()       # files of the repository that both kernels get
    options: tuple[str, ...] = ()   # further .config lines
    without: tuple[str, ...] = ()   # where not the released tree is the vulnerable one: the patches
                                    # of the queue that are not in it, without their numbers
    form: str = ""                  # or what another form of the queue makes: the name of its file
    before_own: bool = False        # or all that come before the first that mends the defect
    report: Path | None = None      # the mail that tells those who maintain a kernel that has it

    def arguments(self, turn: str = "") -> tuple[str, ...]:
        """Those of the selftests, for the variants that are about this defect; of its turns only
        `turn`, where one is named."""
        chosen = self.variants
        if turn or chosen:
            chosen += (turn,) if turn else self.turns
        # The fixture of a selftest has its name.
        return tuple(word for name in chosen
                     for word in ("-f" if name in self.selftests else "-v", name))

    def shared(self) -> bool:
        """Whether it is one of shared PMD tables: no code that shares them, no such defect."""
        return not _SHARING.isdisjoint(name for names in self.exist for name in names.split("|"))

    def versions(self) -> str:
        """Which versions have it, in words."""
        return f"since {self.since}, " + (f"fixed in {self.fixed}" if self.fixed else
                                          "fixed in no version yet")


def names() -> list[str]:
    """The names of all defects, sorted."""
    return sorted(path.parent.name for path in DEFECTS.glob("*/defect"))


def load(name: str) -> Defect:
    """The defect `name`; LabError where there is none or its file says too little or too much."""
    if name not in names():
        raise LabError(f"no defect {name}: there are {', '.join(names()) or 'none'}")
    folder = DEFECTS / name
    path = folder / "defect"
    parser = configparser.ConfigParser(interpolation=None)
    try:
        parser.read_string(path.read_text(encoding="utf-8"), source=str(path))
    except (configparser.Error, UnicodeDecodeError) as err:
        raise LabError(f"{path} cannot be read: {' '.join(str(err).split())}") from err

    rules = {name: folder / f"{name}.cocci" for name in ("control", "amplifier", "audit")}
    control, audit = rules["control"], rules["audit"]
    wanted = {"defect"} | {name for name, file in rules.items() if file.exists()}
    if set(parser.sections()) - _FREE != wanted:
        pairs = ", ".join(f"[{rule}] goes with {rule}.cocci" for rule in sorted(rules))
        raise LabError(f"{path} has the sections {sorted(parser.sections())}, it must have "
                       f"{sorted(wanted)} ({pairs}), and may have {', '.join(sorted(_FREE))}")
    wanted |= set(parser.sections())
    for section in sorted(wanted):
        have = set(parser[section]) - _OPTIONAL.get(section, set())
        if have != _KEYS[section]:
            raise LabError(f"{path}, section [{section}]: missing or unknown: "
                           f"{', '.join(sorted(have ^ _KEYS[section]))}")
        for key in sorted(parser[section]):
            if not parser[section][key].strip():
                raise LabError(f"{path}, section [{section}]: {key} is empty")

    text = parser["defect"]
    if {"upstream", "fixed", "brought"} & set(text) not in ({"upstream", "fixed"}, {"brought"}):
        raise LabError(f"{path}, section [defect]: it must have upstream and fixed or, where nobody "
                       "has fixed it yet, brought and neither of them")
    if "variants" in text and "selftests" not in text:
        raise LabError(f"{path} names variants, and no selftests that have them")
    if "selftests" not in text and "audit" not in wanted:
        raise LabError(f"{path} names no selftests and has no [audit]: nothing finds the defect")
    fatal, symptoms = (expressions(path, key, text.get(key, "")) for key in ("fatal", "symptoms"))
    turns = tuple(text.get("turns", "").split())
    if turns and not fatal:
        raise LabError(f"{path}: turns are for a kernel that dies of its first test: fatal says "
                       "how, or all tests can run in each boot")
    control_files: tuple[str, ...] = ()
    places: tuple[str, ...] = ()
    removes = ""
    if "control" in wanted:
        control_files = tuple(parser["control"]["files"].split())
        places = tuple(parser["control"]["places"].split())
        removes = parser["control"]["removes"].strip()
    amplifier = None
    if "amplifier" in wanted:
        said = parser["amplifier"]
        amplifier = Amplifier(rules["amplifier"], tuple(said["files"].split()),
                              tuple(said["places"].split()), " ".join(said["does"].split()))
    audit_files: tuple[str, ...] = ()
    exist: tuple[str, ...] = ()
    see: tuple[str, ...] = ()
    if "audit" in wanted:
        see = tuple(parser["audit"]["see"].split())
        audit_files = tuple(parser["audit"]["files"].split())
        exist = tuple(parser["audit"]["exist"].split())
    without: tuple[str, ...] = ()
    form = ""
    before_own = False
    if "queue" in wanted:
        value = parser["queue"]["vulnerable"].split()
        before_own = value == ["before", "its", "own"]
        if len(value) == 1 and value[0].startswith("series."):
            form = value[0]
        elif value[0] == "without" and len(value) > 1:
            without = tuple(value[1:])
        elif not before_own:
            raise LabError(f"{path}: [queue] vulnerable must be: without <patches, without number>; "
                           "or: before its own; or: series.<form>")
    report = folder / "report"
    add: tuple[str, ...] = ()
    options: tuple[str, ...] = ()
    if "kernel" in wanted:
        add = tuple(parser["kernel"].get("add", "").split())
        options = tuple(line.strip() for line in parser["kernel"].get("options", "").splitlines()
                        if line.strip())
        if not add and not options:
            raise LabError(f"{path}: [kernel] says neither add nor options")
        for file in add:
            if not (REPO / file).is_file():
                raise LabError(f"{path}: [kernel] add: there is no {file} in this repository")
    return Defect(
        name=name,
        title=text["title"].strip(),
        upstream=tuple(line.strip() for line in text.get("upstream", "").splitlines()
                       if line.strip()),
        since=text["since"].strip(),
        fixed=text.get("fixed", "").strip(),
        brought=text.get("brought", "").strip(),
        selftests=tuple(text.get("selftests", "").split()),
        variants=tuple(text.get("variants", "").split()),
        folder=folder,
        control=control if "control" in wanted else None,
        control_files=control_files,
        places=places,
        removes=removes,
        symptoms=fatal + symptoms,
        fatal=fatal,
        turns=turns,
        harm=" ".join(text.get("harm", "lost writes").split()),
        counts=" ".join(text.get("counts", "migrations").split()),
        audit=audit if "audit" in wanted else None,
        audit_files=audit_files,
        exist=exist,
        see=see,
        amplifier=amplifier,
        machine=_machine(path, dict(parser["guest"]) if "guest" in wanted else {}),
        add=add,
        options=options,
        without=without,
        form=form,
        before_own=before_own,
        report=report if report.exists() else None,
    )


def together(first: Defect, tests: Iterable[str]) -> Defect:
    """`first`, with a kernel and a guest in which all the selftests `tests` can run.

    What a selftest needs is what the defects say that it shows.  LabError where two of them want
    different guests, or the same option with different values.
    """
    shown = set(tests)
    others = [one for one in map(load, names())
              if one.name != first.name and shown & set(one.selftests)]
    add = dict.fromkeys(first.add)
    options = {line.partition("=")[0]: (line, first) for line in first.options}
    for one in others:
        both = f"{' '.join(sorted(shown & set(one.selftests)))} cannot run in the same guest as " \
               f"the other selftests: defects/{one.name} and defects/"
        if one.machine != first.machine:
            raise LabError(f"{both}{first.name} differ in [guest]")
        add |= dict.fromkeys(one.add)
        for line in one.options:
            have, whose = options.setdefault(line.partition("=")[0], (line, one))
            if have != line:
                raise LabError(f"{both}{whose.name} differ in [kernel] options, {line} and {have}")
    return dataclasses.replace(first, add=tuple(add),
                               options=tuple(line for line, _whose in options.values()))


def _machine(path: Path, text: dict[str, str]) -> Machine:
    """The guest that a [guest] section asks for."""
    def two(key: str, otherwise: tuple[int, int]) -> tuple[int, int]:
        words = text.get(key, "").split()
        if not words:
            return otherwise
        if len(words) != 2 or not all(word.isdecimal() for word in words):
            raise LabError(f"{path}: [guest] {key} must be two numbers, in MiB: one for each node")
        return int(words[0]), int(words[1])

    virtio = text.get("virtio_mem", "0").strip()
    if not virtio.isdecimal():
        raise LabError(f"{path}: [guest] virtio_mem must be a number, in MiB")
    return Machine(nodes=two("nodes", Machine.nodes), dimms=two("dimms", Machine.dimms),
                   cpu=text.get("cpu", "").strip(), virtio_mem=int(virtio),
                   cmdline=" ".join(text.get("cmdline", "").split()))
