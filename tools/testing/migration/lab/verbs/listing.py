# SPDX-License-Identifier: GPL-2.0
"""Names what there is: defects, in a line or two or in full, bases and mutants."""

import re
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from lab import base, defect, mutant
from lab.defect import Defect
from lab.judge.summary import Summary
from lab.kernel import variant
from lab.paths import REPO
from lab.tell import record
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
        row("proved", f"not yet: make prove DEFECT={one.name} BASE=VERSION")
    if one.report:
        row("report", f"{one.report.relative_to(REPO)}, a mail to the maintainers")
    return "\n".join(lines)


def _mended(one: Defect) -> dict[str, list[Path]]:
    """By base, the patches of its queue that mend a defect."""
    found = {name: variant.mending(variant.series(name), one) for name in base.names()}
    return {name: patches for name, patches in found.items() if patches}


# ---- of a version ------------------------------------------------------------------------------


def of_base(name: str, wanted: Sequence[str] = ()) -> str:
    """What a version has, as far as numbers, queues and records say."""
    groups: dict[str, list[str]] = {}
    wide = max(map(len, wanted or defect.names()))
    out: dict[str, list[str]] = {}

    def put(group: str, one: Defect, more: str = "") -> None:
        head = f"  {one.name:{wide}}  "
        lines = groups.setdefault(group, [])
        lines += wrap(one.title, head, " " * len(head), _width())
        lines += wrap(more, " " * len(head), " " * len(head), _width()) if more else []
    counted: dict[str, int] = {}
    patches = variant.series(name)
    for one in (defect.load(each) for each in wanted or defect.names()):
        kept = [each for each in records(one.name) if _of(each, name)]
        proved = f"proved on {', '.join(each.name for each in kept)}" if kept else ""
        mend = variant.mending(patches, one)
        why = _without(one, name)
        if mend:
            group = f"queue/{name} mends"
            put(group, one, "; ".join(filter(None, [
                f"patch {', '.join(path.name[:4] for path in mend)}", proved])))
        elif why:
            group = why
            out.setdefault(why, []).append(one.name)
        elif had := [each for each in kept if each.reverted]:
            group = "has the fix"
            put(group, one, "the fix was taken out, and put back, to prove it: "
                + ", ".join(each.name for each in had))
        else:
            group = "nothing here"
            put(group, one, "; ".join(filter(None, [
                one.versions() if len(_numbers(one.fixed)) > 1 else "",
                "only slow: nothing is lost" if one.only_slow else "", proved])))
        counted[group] = counted.get(group, 0) + 1
    lines = [f"{name}: {source(name)}", *_filled(
        "This goes by version numbers, queues and records. A release of a branch may have more "
        "fixes, and so may a vendor's kernel: make audit KERNEL=DIR reads yours.")]
    for group, head in (
            (f"queue/{name} mends", f"which patches of queue/{name} mend (make series BASE={name} "
             "O=DIR SERIES=fixes writes them)"),
            ("nothing here", f"that {name} has by its number, and no patch of queue/{name} mends"),
            ("has the fix", f"that {name} had, and the release that was tried has the fix for")):
        if group in groups:
            lines += ["", *_filled(f"{plural(counted[group], 'defects')} {head}"), *groups[group]]
    for why, names in out.items():
        lines += ["", f"{plural(len(names), 'defects')}: {why}",
                  *wrap(" ".join(names), "  ", "  ", _width())]
    return "\n".join(lines)


def _without(one: Defect, name: str) -> str:
    """Why a version has not the defect, by its number; "" where it has it."""
    here = base.numbers(name)
    if here < base.numbers(one.since):
        return f"later than {name}"
    if one.fixed and here >= base.numbers(_numbers(one.fixed)[-1]):
        return f"fixed in {name} or before"
    return f"in code that {name} has no more" if one.gone and here >= base.numbers(one.gone) else ""


def _of(each: Record, name: str) -> bool:
    version = each.run.source["version"]
    return each.run.base == name or not each.run.base and f"{version}.".startswith(f"{name}.")


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
