# SPDX-License-Identifier: GPL-2.0
"""Loads defects/<name>/: what a defect is, what shows it, and what takes its cure out.

All that the lab knows of a defect is in that folder.  No code of the lab names one, or a selftest.

    defect.toml       the keys below; the only file that must be there
    revert.cocci      takes the protection out of a kernel that has it; goes with [revert]
    audit.cocci       finds the defect in a kernel's source; goes with [audit]
    amplifier.cocci   makes a race that is too narrow to be met in each boot wider, in both kernels
                      alike; goes with [amplifier]
    config            a Kconfig fragment: what both kernels need beyond configs/base.config
    report            a mail to the maintainers of a kernel that has the defect today, which `make
                      series` writes beside the patches.  It says which patch it is about, and of
                      which queues: "Patch (6.12, 6.1):", and the subject on the next line, indented

The keys of defect.toml are strings if nothing else is said.  A list is one of strings.  Functions
and files are those of a kernel tree; in a list of functions, "a|b" says that b took over from a.

    title             what goes wrong, in a line
    since             the first version that has the defect
    upstream          a list: the commits that fix it, each "sha subject"
    fixed             the first version that has the fix
    gone              the first version that has neither the defect nor what protected from it, as its
                      code has gone; empty by default
    brought           "sha subject" of the commit that brought it, instead of upstream and fixed
                      where nobody has fixed it yet; or instead of upstream alone, where nobody
                      here knows which commit the fix was.  A patch of a queue mends it if it says
                      so in its Fixes: line
    patches           a list: the subjects of the patches of queues that mend it.  Goes with brought,
                      where its commit brought other defects as well, or not all of this one
    shares_tables     true where only a kernel that shares PMD tables can have it; false by default
    only_slow         true where migration takes longer or is refused, and nothing is lost, leaks or
                      dies: an audit tells it, and does not fail by it; false by default

    [show]            how it is shown.  No table: no selftest shows it, and there is an [audit]
    selftests         a list: the programs that show it
    ltp               a list: the tests of queue/ltp/ that show it
    variants          a list: variants of the selftests (their option -v) that are about this
                      defect, or a selftest itself (-f) where all of its are; by default those of
                      all selftests
    symptoms          a list: what the defect makes a kernel say of itself, as regular expressions
                      for complaints in a vulnerable kernel's log
    fatal             a list of such, too: those after which the kernel need not come to its end,
                      and whatever else it says comes of it
    witness           true where the kernel's own check (WITNESS=1) sees the defect in each boot of
                      the vulnerable kernel, with no writer and no race, where flushes are counted;
                      false by default
    turns             a list, where a kernel dies or gets stuck of the first: variants of which a
                      boot of the vulnerable kernel runs one, in turn, beside `variants`, which it
                      does not die of.  "a b" are two in one boot: for a that some of the kernels
                      which have the defect pass
    harm              what a migration did that shows the defect; "lost writes" by default
    counts            what the selftests count as migrations, in their own word; "migrations" by
                      default
    hidden            a list: architectures whose kernels have the defect, and on which no boot shows
                      it, "ARCH: why"
    needs             a list: options that no test can show it without, besides those that all
                      kernels of x86_64 have had for long: an architecture, or its kernels before
                      some version, may lack them (lab/arch.py)
    on_request        true where the selftests take minutes or the kernel may die of them: what runs
                      all selftests in a guest leaves `env` out, and they skip; false by default

    [revert]
    files             a list: files that the rule is run on, those that a tree has
    places            a list: functions that it must change, each that exists once
    removes           what goes, the function that is called or a variable, once a place; "a|b" as
                      above
    times             how often it goes a place; 1 by default

    [amplifier]
    files, places     as above
    does              in words, what it does

    [audit]
    files             as above
    exist             a list: functions without which a tree is not affected
    see               a list: functions that the rules must see where a tree has them
    absent            a list: "NAME: what is so", in words, of each in `exist` that is no function
                      but what the rules say of some code; told where they do not say it

    [binary]          what tells from the code of an image; goes with [audit]
    unaffected        a list of forms, as lab/binary/rules.py says: an image that fits one of them
                      cannot have the defect
    protected         a list of forms: one that fits one of them is protected
    vulnerable        a list of forms: one that fits one of them is vulnerable
    names             a list: "NAME = functions" for forms that name the same ones often
    look              what to look at where no form fits, or forms of two kinds do
    undecided         in words, why the code of an image cannot tell that it is protected; where it
                      says so, there is no `protected`

    [queue]           where not the released tree is the vulnerable one, one of these
    before_own        true: the queue up to the first patch that mends the defect; and the fixed one
                      is the queue up to the last that does
    without           a list: the queue without these patches, which are named without number
    form              what another form of the queue makes: "series.<form>"

    [kernel]          what both kernels get
    add               a list: files of this repository, at the same path; a C file is built in
    cmdline           words to add to the kernel's command line
    sizes             a list: options of the size of pages and addresses, "NAME=value", where a kernel
                      of the usual sizes does not have the defect.  The two kernels of this defect
                      get them, and none in which the tests of several defects run

    [guest]           the machine that the tests of this defect need
    nodes             two numbers: MiB of memory that the kernel boots with, for each node
    dimms             two numbers: MiB for each node that are added by ACPI and movable; 0 for none
    cpu               features of the CPU beyond those of the lab's own, "+pdpe1gb"
    virtio_mem        a number: MiB of a virtio-mem device on node 0, of which nothing is plugged at
                      first; the guest sets its size over QMP, on a serial line of its own
    eject             a number: MiB of a DIMM that is not there at first; the guest plugs it into a
                      node of its own over QMP, and ejects it.  Only where there are DIMMs
    slow              true where all CPUs are on node 0, and node 1 is slower: memory of node 0 is
                      demoted to it.  Only on machines that can say so
    virtual           true where the guest runs virtual machines of its own, which need CONFIG_KVM
    env               a list: "NAME=value" for the environment of the selftests, in a guest
"""

import dataclasses
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from lab import arch as arches, fragment, schema
from lab.binary import rules
from lab.errors import LabError
from lab.paths import HOME, REPO

DEFECTS = HOME / "defects"
FILE = "defect.toml"


@dataclass(frozen=True)
class Show:
    """How a defect is shown."""

    selftests: tuple[str, ...] = ()
    ltp: tuple[str, ...] = ()
    variants: tuple[str, ...] = ()
    symptoms: tuple[str, ...] = ()      # once loaded, what is fatal is among them
    fatal: tuple[str, ...] = ()
    witness: bool = False
    turns: tuple[str, ...] = ()
    harm: str = "lost writes"
    counts: str = "migrations"
    hidden: tuple[str, ...] = ()
    needs: tuple[str, ...] = ()
    on_request: bool = False

    def hides(self, arch: str) -> str:
        """Why no boot on an architecture shows it; "" if one does."""
        return next((one.partition(": ")[2] for one in self.hidden if one.startswith(f"{arch}: ")),
                    "")


@dataclass(frozen=True)
class Revert:
    """What takes the protection out of a kernel that has it."""

    rule: Path
    files: tuple[str, ...]
    places: tuple[str, ...]
    removes: str
    times: int = 1


@dataclass(frozen=True)
class Amplifier:
    """What both kernels get so that a race is met in each boot of the vulnerable one."""

    rule: Path
    files: tuple[str, ...]
    places: tuple[str, ...]
    does: str


@dataclass(frozen=True)
class Audit:
    """What finds the defect in a kernel's source."""

    rule: Path
    files: tuple[str, ...]
    exist: tuple[str, ...]
    see: tuple[str, ...]
    absent: tuple[str, ...] = ()

    def lacks(self, names: str) -> str:
        """What is told of a tree that has none of the functions `names`, one of `exist`."""
        said = dict(one.split(": ", 1) for one in self.absent)
        return said.get(names, f"there is no {names.split('|')[0]}()")


@dataclass(frozen=True)
class Binary:
    """What finds the defect in the code of a kernel image: forms, as lab/binary/rules.py says."""

    look: str
    unaffected: tuple[str, ...] = ()
    protected: tuple[str, ...] = ()
    vulnerable: tuple[str, ...] = ()
    undecided: str = ""
    names: tuple[str, ...] = ()


@dataclass(frozen=True)
class Queue:
    """What of a queue is in the vulnerable kernel: nothing of it by default."""

    before_own: bool = False
    without: tuple[str, ...] = ()
    form: str = ""


@dataclass(frozen=True)
class Kernel:
    """What both kernels get."""

    add: tuple[str, ...] = ()
    cmdline: str = ""
    sizes: tuple[str, ...] = ()
    options: tuple[str, ...] = ()       # the lines of `config`


@dataclass(frozen=True)
class Machine:
    """The guest that a defect is shown on; memory in MiB, for node 0 and node 1.

    What the kernel boots with holds things that never move; a DIMM is added by ACPI and given to
    movable memory by the guest's init, so all huge pages in it can go offline.  Two DIMMs have to
    hold the GiB that shmat() reserves up to 5.17; QEMU takes of the host what is used.
    """

    nodes: tuple[int, int] = (256, 256)
    dimms: tuple[int, int] = (1024, 1024)
    cpu: str = ""
    virtio_mem: int = 0                 # none
    env: tuple[str, ...] = ()
    slow: bool = False
    virtual: bool = False
    eject: int = 0                      # none


@dataclass(frozen=True)
class Defect:
    """One way in which page migration loses track of a mapping."""

    name: str
    folder: Path
    title: str
    since: str
    risk: str = ""                      # for who runs a kernel: who can do it, and what harm it is
    upstream: tuple[str, ...] = ()
    fixed: str = ""
    gone: str = ""
    brought: str = ""
    patches: tuple[str, ...] = ()
    shares_tables: bool = False
    only_slow: bool = False
    show: Show = Show()
    revert: Revert | None = None
    amplifier: Amplifier | None = None
    audit: Audit | None = None
    binary: Binary | None = None
    queue: Queue = Queue()
    kernel: Kernel = Kernel()
    guest: Machine = Machine()
    report: Path | None = None          # the mail, where there is one

    def arguments(self, turn: str = "") -> tuple[str, ...]:
        """Those of the selftests, for the variants that are about this defect; of its turns only
        `turn`, where one is named."""
        chosen = self.show.variants
        if turn or chosen:
            turns = (turn,) if turn else self.show.turns
            chosen += tuple(dict.fromkeys(name for one in turns for name in one.split()))
        # The fixture of a selftest has its name.
        return tuple(word for name in chosen
                     for word in ("-f" if name in self.show.selftests else "-v", name))

    def versions(self) -> str:
        """Which versions have it, in words."""
        return f"since {self.since}, " + (f"fixed in {self.fixed}" if self.fixed else
                                          "fixed in no version yet")


# Tables that go with a rule of the same name, and those that do not.
_RULES: dict[str, type[Revert | Amplifier | Audit]] = {
    "revert": Revert, "amplifier": Amplifier, "audit": Audit}
_FREE: dict[str, type[Show | Queue | Kernel | Machine | Binary]] = {
    "show": Show, "queue": Queue, "kernel": Kernel, "guest": Machine,
    "binary": Binary}


def shown() -> dict[str, list[str]]:
    """By selftest, the names of the defects that it shows."""
    found: dict[str, list[str]] = {}
    for name in names():
        for test in load(name).show.selftests:
            found.setdefault(test, []).append(name)
    return found


def names() -> list[str]:
    """The names of all defects, sorted."""
    return sorted(path.parent.name for path in DEFECTS.glob(f"*/{FILE}"))


def load(name: str) -> Defect:
    """The defect `name`; LabError where there is none or its files say too little or too much."""
    if name not in names():
        raise LabError(f"no defect {name}: there are {', '.join(names()) or 'none'}")
    folder = DEFECTS / name
    path = folder / FILE
    said = schema.read(path)
    tables: dict[str, object] = {}
    for table in sorted(key for key, value in said.items() if isinstance(value, dict)):
        if table not in _RULES and table not in _FREE:
            raise LabError(f"{path}: [{table}]: there is no such table, only "
                           f"{', '.join(f'[{one}]' for one in (*_RULES, *_FREE))}")
        if not said[table]:
            raise LabError(f"{path}: [{table}] is empty")
    for table, rule_of in _RULES.items():
        rule = folder / f"{table}.cocci"
        if rule.exists() != (table in said):
            there, lacks = (rule.name, f"[{table}]") if rule.exists() else (f"[{table}]", rule.name)
            raise LabError(f"{path}: there is {there} and no {lacks}: one goes with the other")
        if table in said:
            tables[table] = schema.fill(rule_of, path, table, said.pop(table), rule=rule)
    for table, part in _FREE.items():
        if part is Binary and table not in said:
            continue
        given = {"options": fragment.lines(folder / "config")} if part is Kernel else {}
        tables[table] = schema.fill(part, path, table, said.pop(table, {}), **given)
    report = folder / "report"
    one = schema.fill(Defect, path, "", said, name=name, folder=folder,
                      report=report if report.exists() else None,
                      **{table: tables.get(table) for table in (*_RULES, *_FREE)})
    _check(path, one)
    # What a kernel dies of it may say as well.
    return dataclasses.replace(one, show=dataclasses.replace(
        one.show, symptoms=one.show.fatal + one.show.symptoms))


def _check(path: Path, one: Defect) -> None:
    """LabError where what the keys of a defect say does not go together."""
    show = one.show
    if one.gone and not re.fullmatch(r"\d+\.\d+(\.\d+)?", one.gone):
        raise LabError(f"{path}: gone must be a version, such as 5.13")
    if (bool(one.upstream), bool(one.brought)) not in ((True, False), (False, True)) \
            or one.upstream and not one.fixed:
        raise LabError(f"{path}: it must have upstream and fixed or, where nobody has fixed it "
                       "yet, brought and neither of them; brought and fixed where it is not known "
                       "which commit the fix was")
    if one.patches and not one.brought:
        raise LabError(f"{path}: patches goes with brought: a commit of mainline is named in a "
                       "patch")
    if not show.selftests and show != Show():
        raise LabError(f"{path}: [show] selftests is missing, without which nothing else in "
                       "[show] means anything")
    if not show.selftests and not one.audit:
        raise LabError(f"{path}: there is no [show] and no [audit]: nothing finds the defect")
    if one.audit:
        for said in one.audit.absent:
            if not re.fullmatch(r"\w+: \S.*", said) or said.split(":")[0] not in one.audit.exist:
                raise LabError(f"{path}: [audit] absent: {said}: it must be NAME: what is so, with "
                               "one of exist")
    if one.binary and not one.audit:
        raise LabError(f"{path}: there is [binary] and no [audit]: what finds the "
                       "defect in an image goes with what finds it in a source")
    if one.binary:
        _check_binary(path, one.binary)
    schema.expressions(path, "[show] fatal", show.fatal)
    schema.expressions(path, "[show] symptoms", show.symptoms)
    for line in show.hidden:
        machine, _colon, why = line.partition(": ")
        if machine not in arches.names() or not why:
            raise LabError(f"{path}: [show] hidden: {line} is not ARCH: why, with ARCH one of "
                           f"{', '.join(arches.names())}")
    for option in show.needs:
        if not any(option in (*row.drop, *dict(row.later)) for row in
                   map(arches.load, arches.names())):
            raise LabError(f"{path}: [show] needs: no architecture of lab/arch.py lacks {option}")
    if show.turns and not show.fatal and not show.symptoms:
        raise LabError(f"{path}: [show] turns are for a kernel that dies or gets stuck of its first "
                       "test: fatal or symptoms say how, or all tests can run in each boot")
    if sum(map(bool, (one.queue.before_own, one.queue.without, one.queue.form))) > 1:
        raise LabError(f"{path}: [queue] must have one of before_own, without and form")
    if one.queue.form and not re.fullmatch(r"series\.\w+", one.queue.form):
        raise LabError(f"{path}: [queue] form must be the name of a file: series.<form>")
    for file in one.kernel.add:
        if not (REPO / file).is_file():
            raise LabError(f"{path}: [kernel] add: there is no {file} in this repository")
    for option in one.kernel.sizes:
        if not re.fullmatch(r"\w+=\w+", option) or not arches.sizes(option.split("=")[0]):
            raise LabError(f"{path}: [kernel] sizes: {option} is not NAME=value, with NAME an option "
                           "of the size of pages or addresses (lab/arch.py)")
    for variable in one.guest.env:
        # It comes to the guest as a part of a word of the kernel's command line.
        if not re.fullmatch(r"\w+=[^\s,]+", variable):
            raise LabError(f"{path}: [guest] env: {variable} is not NAME=value, without a blank or "
                           "a comma")


def _check_binary(path: Path, binary: Binary) -> None:
    if bool(binary.protected) == bool(binary.undecided):
        raise LabError(f"{path}: [binary] must have protected, or undecided that says why it has "
                       "none")
    for form in binary.unaffected + binary.protected + binary.vulnerable:
        try:
            rules.parse(form, binary.names)
        except LabError as err:
            raise LabError(f"{path}: [binary] {err}") from err


def environment(tests: Iterable[str] | None = None) -> tuple[str, ...]:
    """What the selftests `tests` want in their environment in a guest, as the defects say that they
    show; for None, what all want that do not have to be asked for."""
    shown = None if tests is None else set(tests)
    return tuple(dict.fromkeys(
        variable for one in map(load, names())
        if (not one.show.on_request if shown is None else shown & set(one.show.selftests))
        for variable in one.guest.env))


def together(first: Defect, tests: Iterable[str]) -> Defect:
    """`first`, with a kernel and a guest in which all the selftests `tests` can run.

    What a selftest needs is what the defects say that it shows.  LabError where two of them want
    different guests, or the same option with different values.
    """
    shown = set(tests)
    return joined(first, (one for one in map(load, names())
                          if one.name != first.name and shown & set(one.show.selftests)), shown)


def joined(first: Defect, others: Iterable[Defect], tests: Iterable[str]) -> Defect:
    """The same for what `others` say of the selftests `tests`, and nobody else."""
    shown = set(tests)
    add, env = dict.fromkeys(first.kernel.add), dict.fromkeys(first.guest.env)
    options = {name: (value, first) for name, value in _options(first).items()}
    for one in others:
        programs = " ".join(sorted(shown & set(one.show.selftests)))
        both = f"{programs} cannot run in the same guest as the other selftests: " \
               f"defects/{one.name} and defects/"
        if dataclasses.replace(one.guest, env=first.guest.env) != first.guest:
            raise LabError(f"{both}{first.name} differ in [guest]")
        if one.kernel.cmdline != first.kernel.cmdline:
            raise LabError(f"{both}{first.name} differ in [kernel] cmdline")
        add |= dict.fromkeys(one.kernel.add)
        env |= dict.fromkeys(one.guest.env)
        for name, value in _options(one).items():
            have, whose = options.setdefault(name, (value, one))
            if have != value:
                raise LabError(f"{both}{whose.name} differ in config, "
                               f"{fragment.line(name, value)} and {fragment.line(name, have)}")
    return dataclasses.replace(
        first,
        kernel=dataclasses.replace(first.kernel, add=tuple(add), options=tuple(
            fragment.line(name, value) for name, (value, _whose) in options.items())),
        guest=dataclasses.replace(first.guest, env=tuple(env)))


def asking(one: Defect, more: Iterable[str]) -> Defect:
    """`one`, with more options for its kernels, lines of .config; all in an order of their own, so
    that the kernels of two defects with the same options are built in the same folder.

    LabError where it asks for another value of one of them.
    """
    if not (more := tuple(more)):
        return one
    options = _options(one)
    for line in dict.fromkeys(more):
        for name, value in fragment.parse(line, "an option").items():
            if options.setdefault(name, value) != value:
                raise LabError(f"defects/{one.name}/config says "
                               f"{fragment.line(name, options[name])}, which {line} contradicts")
    return dataclasses.replace(one, kernel=dataclasses.replace(one.kernel, options=tuple(
        fragment.line(name, value) for name, value in sorted(options.items()))))


def sized(one: Defect) -> Defect:
    """`one`, with kernels of the sizes that it takes."""
    return asking(one, (fragment.line(*option.split("=")) for option in one.kernel.sizes))


def why_not(one: Defect, arch: arches.Arch, version: str) -> str:
    """Why a version's kernels of an architecture cannot show a defect; "" if they can."""
    on = [name for name, value in (option.split("=") for option in one.kernel.sizes)
          if value != "n"]
    return arch.why_not((*one.show.needs, *on), version)


def _options(one: Defect) -> dict[str, str]:
    return fragment.parse("\n".join(one.kernel.options), f"defects/{one.name}/config")
