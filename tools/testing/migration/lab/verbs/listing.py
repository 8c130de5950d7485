# SPDX-License-Identifier: GPL-2.0
"""Names what there is: defects, in a line or two or in full, bases and mutants."""

import re
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from lab import arch, base, defect, mutant, readings
from lab.defect import Defect
from lab.errors import LabError
from lab.judge.summary import Summary
from lab.kernel import variant
from lab.paths import REPO
from lab.readings import Reading
from lab.tell import cells, record
from lab.words import plural, wrap

# A line has the width of the terminal, between these; in a pipe it is the longer one.
_LEAST, _MOST = 80, 100
_INDENT = 13


@dataclass(frozen=True)
class Record:
    """A recorded proof: its name, and why it is stale, or ""."""

    name: str
    run: Summary
    stale: str

    @property
    def reverted(self) -> bool:
        """Whether the kernel has the fix, and it was taken out to prove it."""
        return "revert.cocci" in self.run.variants["vulnerable"].how


def records(name: str, folder: Path = record.RECORDS) -> list[Record]:
    """The recorded proofs of a defect."""
    return [Record(path.stem, run, record.stale(run)) for path in
            sorted((folder / name).glob("*.json"), key=lambda path: _order(path.stem))
            for run in [record.load(path)]]


def _order(stem: str) -> tuple[list[int], str]:
    """6.6.150 is before 6.12.117, and 6.12.117 before 6.12.117-arm64."""
    version, _dash, _rest = stem.partition("-")
    return [int(word) for word in version.split(".") if word.isdecimal()], stem


def _width() -> int:
    return min(max(shutil.get_terminal_size((_MOST, 24)).columns, _LEAST), _MOST)


# ---- all of them -------------------------------------------------------------------------------


def overview() -> str:
    """Which defects there are, on two screens."""
    all_of_them = [defect.load(name) for name in defect.names()]
    kept = [one for each in all_of_them for one in records(each.name)]
    wide = max(len(one.name) for one in all_of_them)
    lines = [*_filled(f"{plural(len(all_of_them), 'defects')}. A version has one from `since` on, and "
                      "no more from `until` on. -: no version has a fix."), "",
             f"{'defect':{wide}}  since   until   what goes wrong"]
    for one in all_of_them:
        # Where it came back after a fix, this is not all.
        until = _numbers(one.fixed)[0] + "*" * (len(_numbers(one.fixed)) > 1) if one.fixed else \
            one.gone or "-"
        head = f"{one.name:{wide}}  {one.since:7} {until:7} "
        lines += wrap(one.title, head, " " * len(head), _width())
    lines += [f"* {one.name}: {one.versions()}" for one in all_of_them
              if len(_numbers(one.fixed)) > 1]
    unshown = [one.name for one in all_of_them if not one.show.selftests]
    shown = len({one.run.defect for one in kept})
    lines += ["", *_filled(
        f"For {shown} of them there are {plural(len(kept), 'records')} of proofs. "
        + old(kept)
        + " `make matrix PLAN=check` says which. "
        + (f"No selftest shows {' and '.join(unshown)}: make audit alone finds "
           f"{'it' if len(unshown) == 1 else 'them'}." if unshown else ""))]
    lines += ["", "make list DEFECT=NAME    all of one: what fixes and shows it, where it is proved",
              "make list BASE=5.15      what a version has, and which patches mend it:",
              *wrap(" ".join(base.names()), " " * 25, " " * 25, _width()),
              f"make list FULL=1         all of all, the bases, and {len(mutant.names())} mutants",
              "make audit KERNEL=DIR    what a kernel of yours has"]
    return "\n".join(lines)


def _numbers(fixed: str) -> list[str]:
    """The versions in what `fixed` says: "6.2, and anew in 6.19" has two."""
    return re.findall(r"\d+(?:\.\d+)+", fixed)


def old(some: Sequence[Record]) -> str:
    """How many records are older than the tests or patches of today, as a sentence."""
    stale = sum(bool(one.stale) for one in some)
    who = f"{stale} of them {'was' if stale == 1 else 'were'}" if 0 < stale < len(some) else \
        "It was" if len(some) == 1 else "All of them were"
    return who + (" made with selftests or patches that have changed since (stale)." if stale else
                  " made with the selftests and patches of today.")


def _filled(text: str) -> list[str]:
    return wrap(text, width=_width())


# ---- one of them -------------------------------------------------------------------------------


def _arch(one: Defect) -> str:
    """What else `make prove` is to be told where only some kernels have the defect."""
    return "".join(f" ARCH={name}" for name in sorted(
        {arch.sizes(option.split("=")[0]) for option in one.kernel.sizes}) if name != arch.FIRST)


def detail(one: Defect) -> str:
    """All that the lab knows of a defect."""
    lines = [one.name, *wrap(one.title, "  ", "  ", _width())]

    def row(head: str, *texts: str) -> None:
        for text in texts:
            lines.extend(wrap(text, f"  {head:{_INDENT - 2}}", " " * _INDENT, _width()))
            head = ""
    row("versions", one.versions() + (f", its code went with {one.gone}" if one.gone else "")
        + ("; only slow: nothing is lost, leaks or dies" if one.only_slow else ""))
    row("risk", one.risk)
    row("fixed by", *one.upstream)
    row("came with", *filter(None, [one.brought]))
    row("shown by", ", ".join([*one.show.selftests, *(f"{name} of LTP" for name in one.show.ltp)])
        or "no selftest shows it: make audit finds it")
    row("", *(f"no boot shows it on {line}" for line in one.show.hidden))
    row("mended by", *(f"queue/{name}: {', '.join(path.name[:4] for path in patches)}"
                       for name, patches in _mended(one).items()))
    kept = records(one.name)
    row("proved", *(f"{how}: {', '.join(each.name for each in some)}" for how, some in (
        ("on kernels that have the fix, by taking it out and putting it back",
         [each for each in kept if each.reverted]),
        ("with and without patches of queue/", [each for each in kept if not each.reverted]))
        if some))
    if kept:
        row("", f"{plural(len(kept), 'records')}. {old(kept)}")
    elif one.show.selftests:
        row("proved", f"not yet: make prove DEFECT={one.name} BASE=VERSION{_arch(one)}")
    if one.report:
        row("report", f"{one.report.relative_to(REPO)}, a mail to the maintainers")
    return "\n".join(lines)


def _mended(one: Defect) -> dict[str, list[Path]]:
    """By base, the patches of its queue that mend a defect."""
    found = {name: variant.mending(variant.series(name), one) for name in base.names()}
    return {name: patches for name, patches in found.items() if patches}


# ---- of a version ------------------------------------------------------------------------------


def of_base(name: str, wanted: Sequence[str] = ()) -> str:
    """What the release of a version that was read has, and what its queue does about that."""
    read = readings.load().get(name)
    if read is None:
        raise LabError(f"{base.BASES / readings.FILE} has nothing of {name}")
    patches = variant.series(name)
    found: dict[str, list[str]] = {}
    counted: dict[str, int] = {}
    names: dict[str, list[str]] = {}
    wide = max(map(len, wanted or defect.names()))
    for one in (defect.load(each) for each in wanted or defect.names()):
        mend = variant.mending(patches, one)
        group, more = _stands(one, name, read, mend)
        if group not in _LONG:
            names.setdefault(group, []).append(one.name)
            continue
        head = f"  {one.name:{wide}}  "
        lines = found.setdefault(group, [])
        lines += wrap(one.title, head, " " * len(head), _width())
        lines += wrap(more, " " * len(head), " " * len(head), _width()) if more else []
        counted[group] = counted.get(group, 0) + 1
    lines = [f"{name}: {source(name)}", *_filled(
        f"This is what was read in the source of {read.release}. An earlier release lacks fixes that "
        "it has, a later one may have more, and a vendor's kernel has others: make audit KERNEL=DIR "
        "reads yours.")]
    for group, head in _LONG.items():
        if group in found:
            head = head.format(name=name, branch=base.branch(name), release=read.release)
            lines += ["", *_filled(f"{plural(counted[group], 'defects')} {head}"), *found[group]]
    for why, some in sorted(names.items()):
        lines += ["", *_filled(f"{plural(len(some), 'defects')}: {why}"),
                  *wrap(" ".join(some), "  ", "  ", _width())]
    return "\n".join(lines)


# How a defect may stand in a version, where more than its name is told.
_LONG = {
    "mended": "that {release} has, and queue/{name} mends (make series BASE={name} O=DIR SERIES=fixes "
              "writes the patches)",
    "left": "that {release} has, and no patch of queue/{name} mends",
    "brought": "that {release} cannot have, but whose code comes with queue/{name}",
    "more": "that {release} has the fix for, and that patches of queue/{name} are about as well",
    "fixed": "that {branch} had by its number, and {release} has the fix for",
}


def _stands(one: Defect, name: str, read: Reading, mend: Sequence[Path]) -> tuple[str, str]:
    """How a defect stands in a version: a key of _LONG and what more there is to say, or else in
    words why the version does not have it, and ""."""
    released = read.released.get(one.name)
    if released is None:
        return f"nobody has read the source of {name} for", ""
    queue = read.queue.get(one.name, released)
    kept = [each for each in records(one.name) if _of(each, name)]
    patch = f"patch {', '.join(path.name[:4] for path in mend)}" if mend else ""
    slow = "only slow: nothing is lost" if one.only_slow else ""
    proved = ", ".join(each.name for each in kept if not each.reverted)
    out = ", ".join(each.name for each in kept if each.reverted)
    tried = [f"proved on {proved}" if proved else "",
             f"the fix was taken out, and put back, to prove it: {out}" if out else ""]
    group, more = "", [patch]
    if released == queue == readings.VULNERABLE:
        group, more = "left", [slow, *_forms(one, name)]
    elif released == readings.VULNERABLE:
        group = "mended"
    elif released == readings.NOT_AFFECTED and queue != released:
        if not mend and queue == readings.PROTECTED:
            return (f"{read.release} does not have their code; queue/{name} brings it, and it is "
                    "right", "")
        group, more = "brought", [patch or f"{slow}, and not mended"]
    elif mend:
        group = "more"
    why = _without(one, base.branch(name))
    if not group and not why:
        if released == readings.NOT_AFFECTED:
            return f"{read.release} does not have what they need", ""
        group = "fixed"
    if group:
        return group, "; ".join(filter(None, [*more, *tried]))
    if released == readings.PROTECTED and why == _later(base.branch(name)):
        why = f"{why}, and what {read.release} has of that code is right"
    return why, ""


def _forms(one: Defect, name: str) -> list[str]:
    """What other forms of a queue mend a defect, to review."""
    return [f"FORM={path.name.partition('.')[2]} has patches to review"
            for path in sorted((variant.QUEUE / name).glob("series.*"))
            if variant.mending(variant.series(name, path.name), one)]


def _without(one: Defect, name: str) -> str:
    """Why the first release of a version has not the defect, by its number; "" where it has it."""
    here = base.numbers(name)
    if here < base.numbers(one.since):
        return _later(name)
    if one.fixed and here >= base.numbers(_numbers(one.fixed)[-1]):
        return f"fixed in {name} or before"
    return f"in code that {name} has no more" if one.gone and here >= base.numbers(one.gone) else ""


def _later(name: str) -> str:
    return f"later than {name}"


def _of(each: Record, name: str) -> bool:
    return cells.base_of(each.run) == name


def source(name: str) -> str:
    """Where the source of a base comes from."""
    row = base.load(name)
    if row.package is None:
        return "no package has its source: KERNEL=DIR names a tree"
    where = " and ".join(row.suites) if row.suites else "this machine's apt sources"
    return f"{row.package} from {where}"


# ---- all of all --------------------------------------------------------------------------------


def full() -> str:
    """Defects in full, bases and mutants."""
    lines = ["Defects (DEFECT=)", ""]
    for name in defect.names():
        lines += [detail(defect.load(name)), ""]
    lines.append("Bases (BASE=)")
    lines += [f"  {name:8} {source(name)}" for name in base.names()]
    for kind, done in (("mutants", "Tried"), ("bench", "Measured")):
        said = record.versions(kind)
        lines += ["", f"{done} by make {kind}: {', '.join(said) or 'nothing'}"]
    lines += ["", "Mutants (MUTANT=)"]
    for name in mutant.names():
        lines += [f"  {name}", *wrap(mutant.load(name).breaks, "      ", "      ", _width())]
    return "\n".join(lines)
