# SPDX-License-Identifier: GPL-2.0
"""Tells what audits found: for a person, for programs, for NRPE and for Prometheus."""

import re
import shlex
import shutil
import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from lab.finding import NOT_AFFECTED, PROTECTED, SOURCE, UNKNOWN, VULNERABLE, Finding
from lab.paths import INSTALLED, REPO

# What a check of Nagios says with its exit status, and with its first word.
NRPE_OK, NRPE_CRITICAL, NRPE_UNKNOWN = 0, 2, 3
_NRPE = {NRPE_OK: "OK", NRPE_CRITICAL: "CRITICAL", NRPE_UNKNOWN: "UNKNOWN"}
# Of a version or a path, and of an error, so many characters fit.
_NRPE_NAME, _NRPE_WHY = 200, 900
# How one is audited, by who has the lab and by who has the package, which takes the same words.
COMMAND = "pmd-share-audit" if INSTALLED else "make audit"
# What to do, for who runs machines.
GUIDE = str(REPO.parent / "doc" / REPO.name / "hosts.rst") if INSTALLED \
    else "Documentation/hosts.rst"
_METRIC = "linux_page_migration_defect"
# A row that is VULNERABLE or unknown, for which the user has said so; or one that is VULNERABLE to
# what does no harm but to be slow, for which nobody has to.
ACCEPTED, ONLY_SLOW = "accepted", "only slow"
# What rows say, the worst first.
_WORDS = (VULNERABLE, UNKNOWN, ACCEPTED, ONLY_SLOW, PROTECTED, NOT_AFFECTED)
# Where a row has its text, and where a table and the lines above it have theirs.
_INDENT, _FROM, _NAME, _CELL, _NUMBER = 14, 8, 26, 14, 5


@dataclass(frozen=True)
class Audited:
    """A kernel that was looked at; with `error`, one that could not be."""

    path: str                       # of the tree or the image
    version: str = ""
    findings: Sequence[Finding] = ()
    error: str = ""
    tree: bool = True               # it is a tree, or a tree and an image
    also: dict[str, str] = field(default_factory=dict)      # banner, build id and the like
    runs: bool = False              # it is the one that runs here
    # Defects that its owner knows of and lives with: "name", or "name:VULNERABLE".
    accepted: frozenset[str] = frozenset()
    some: bool = False              # not all defects were asked for
    mend: str = ""                  # the command that writes what mends it, where there is one

    @property
    def read(self) -> bool:
        """Whether there was code to be looked at."""
        return not self.error and "missing" not in self.also

    @property
    def safe(self) -> bool:
        """Whether it has none of the defects for certain, but what is accepted."""
        return not self.error and not any(self.alarming(one) for one in self.findings)

    def named(self, found: Finding) -> bool:
        """Whether a row would say no good, and its owner has said so.

        Who lives with not knowing is not taken to live with the defect.
        """
        return f"{found.defect}:{VULNERABLE}" in self.accepted \
            and found.status in (VULNERABLE, UNKNOWN) \
            or found.defect in self.accepted and found.status == UNKNOWN

    def accepts(self, found: Finding) -> bool:
        """Whether a row would say no good, and is no alarm.

        Nobody has to accept one that is only slow: with no patch to be had, no check would ever be
        OK.
        """
        return self.named(found) \
            or found.only_slow and found.status in (VULNERABLE, UNKNOWN)

    def word(self, found: Finding) -> str:
        """What is told of a row: its status, or another word where it is no alarm."""
        if self.named(found):
            return ACCEPTED
        return ONLY_SLOW if found.only_slow and found.status == VULNERABLE else found.status

    def alarming(self, found: Finding) -> bool:
        """Whether a row says no good, and is not accepted."""
        return found.status in (VULNERABLE, UNKNOWN) and not self.accepts(found)


def report(one: Audited) -> dict[str, object]:
    """A kernel, for `make audit AUDIT=json`."""
    said: dict[str, object] = {"tree" if one.tree else "image": one.path}
    if one.error:
        return said | {"error": one.error}
    return said | {"version": one.version, "running": one.runs, **one.also,
                   **({"mend": one.mend} if one.mend else {}),
                   "defects": [{"defect": found.defect, "title": found.title,
                                "risk": found.risk,
                                "status": found.status, "accepted": one.accepts(found),
                                "only_slow": found.only_slow, "told": one.word(found),
                                "why": found.why, "places": list(found.places),
                                "apply": list(found.apply), "note": found.note,
                                "from": found.source}
                               for found in one.findings]}


def summary(one: Audited, width: int = 0) -> str:
    """A kernel, for a person; no line of words is longer than `width`, or the terminal."""
    width = width or _terminal()
    if one.error:
        return f"{one.path}\n\n{one.error}"
    lines = [*_wrapped(f"Linux {one.version}: {counted(one)}{_mark(one)}", 0, width), ""]
    if why := one.also.get("missing"):
        lines += [*_wrapped(why, 0, width), ""]
    for what in one.also.get("how", "").splitlines():
        lines += _wrapped(what, 0, width)
    lines += [""] if "how" in one.also else []
    # A column that would say the same in each row is none.
    column = any(found.source != SOURCE for found in one.findings)
    for rows in _grouped(one):
        lines += _rows(one, rows, column, width)
    for note in dict.fromkeys(found.note for found in one.findings if found.apply and found.note):
        lines += ["", *_wrapped(note, 0, width)]
    lines += _then(one)
    return "\n".join(lines)


def _then(one: Audited) -> Iterator[str]:
    """What there is to be done, a command or a page a line."""
    if one.mend:
        yield from ("", f"To mend it: {one.mend}")
    if one.safe or not one.read:
        return
    if not one.mend:
        yield ""
    if not one.tree and any(found.status == UNKNOWN for found in one.findings):
        image = "" if one.path.startswith("/proc/") else f" IMAGE={shlex.quote(one.path)}"
        yield f"To have more of it told: {COMMAND} KERNEL=/path/to/its/source{image}"
    yield f"To live with it until then: {GUIDE}"


def _grouped(one: Audited) -> list[list[Finding]]:
    """The rows that are told together: the worst first, and what has one reason once."""
    groups: dict[object, list[Finding]] = {}
    for found in one.findings:
        # Each has places of its own, or is to be mended by itself.
        alone = found.places or found.status == VULNERABLE
        key = found.defect if alone else (one.word(found), found.source, found.status, found.why)
        groups.setdefault(key, []).append(found)
    return sorted(groups.values(), key=lambda rows: _WORDS.index(one.word(rows[0])))


def _rows(one: Audited, rows: Sequence[Finding], column: bool, width: int) -> Iterator[str]:
    """Rows that have nothing but their names apart."""
    found = rows[0]
    word = one.word(found)
    names = [row.defect for row in rows]
    if word == ACCEPTED:
        # What is accepted is said as well.
        word = found.status
        names.append("(accepted)" if len(rows) == 1 else "(all accepted)")
    head = f"{word:{_INDENT}}" + (f"{found.source:{_FROM}}" if column else "")
    first, *others = _wrapped(" ".join(names), len(head), width)
    yield head + first.lstrip()
    yield from others
    if found.status in (VULNERABLE, UNKNOWN) and found.title and len(rows) == 1:
        yield from _wrapped(found.title, _INDENT, width)
        if found.risk:
            yield from _wrapped(f"risk: {found.risk}", _INDENT, width)
    yield from (f"{'':{_INDENT}}{place}" for place in found.places)
    if found.status in (UNKNOWN, NOT_AFFECTED):
        yield from _wrapped(found.why, _INDENT, width)
    if numbers := _of_queue(found.apply):
        yield f"{'':{_INDENT}}to apply: {numbers}{', all or none' if found.note else ''}"
    elif found.apply:
        yield f"{'':{_INDENT}}to apply:"
        for what in found.apply:
            yield from _wrapped(what, _INDENT + 2, width)
    elif found.status == VULNERABLE:
        yield from _wrapped(found.note or "nothing here mends it", _INDENT, width)


def _of_queue(patches: Sequence[str]) -> str:
    """Patches of a queue by their numbers, "0001 to 0019 of queue/5.4"; "" where it is none."""
    named = [re.fullmatch(r"(.+)/(\d{4})-[^/]*\.patch", patch) for patch in patches]
    found = [match.group(1, 2) for match in named if match]
    if not found or len(found) < len(named):
        return ""
    folder, first, last = found[0][0], found[0][1], found[-1][1]
    return f"{first}{f' to {last}' if last != first else ''} of {folder}"


def _terminal() -> int:
    return max(40, shutil.get_terminal_size().columns)


def _wrapped(text: str, indent: int, width: int) -> list[str]:
    """Words in lines; what is longer than a line, as a path may be, is left whole."""
    return textwrap.wrap(text, width, initial_indent=" " * indent, subsequent_indent=" " * indent,
                         break_long_words=False, break_on_hyphens=False)


def counted(one: Audited) -> str:
    """How many rows say what, the worst first: "2 VULNERABLE, 26 protected"."""
    said = [one.word(found) for found in one.findings]
    return ", ".join(f"{said.count(word)} {word}" for word in _WORDS if word in said)


def _mark(one: Audited) -> str:
    return " (runs here)" if one.runs else ""


def table(kernels: Sequence[Audited], width: int = 0) -> str:
    """Several kernels, those of which all is the same as one: in a table, a column each, or one
    after the other where that would be wider than `width`, or the terminal."""
    width = width or _terminal()
    groups: dict[object, list[Audited]] = {}
    for one in kernels:
        groups.setdefault(_column(one), []).append(one)
    lines: list[str] = []
    for number, alike in enumerate(groups.values(), 1):
        head = f"{f'[{number}]':{_NUMBER}}"
        for one in alike:
            lines.append(f"{head}{one.path}{_mark(one)}")
            if not one.error:
                lines.append(f"{'':{_NUMBER}}Linux {one.version}")
            head = f"{'':{_NUMBER}}"
        lines += _wrapped(alike[0].error or counted(alike[0]), _NUMBER, width)
    read = [(number, alike[0]) for number, alike in enumerate(groups.values(), 1)
            if not alike[0].error]
    if read:
        # The last column has no blanks behind it.
        fits = _NAME + _CELL * len(read) - (_CELL - len(NOT_AFFECTED)) <= width
        lines += ["", *(_cells(read) if fits else _blocks(read, width))]
        worst = min((one for one in kernels if not one.error), key=lambda one: (
            not any(one.word(found) == VULNERABLE for found in one.findings), not one.runs))
        lines += ["", f"For places and patches: {_alone(worst)}"]
    return "\n".join(lines)


def _column(one: Audited) -> object:
    """What a column has; of what cannot be read each has its own."""
    return (one.path, one.error) if one.error else tuple(
        (found.defect, one.word(found), found.source) for found in one.findings)


def _alone(one: Audited) -> str:
    """The command that looks at one of several alone."""
    return f"{COMMAND} {'KERNEL' if one.tree else 'IMAGE'}={shlex.quote(one.path)}"


def _cells(read: Sequence[tuple[int, Audited]]) -> Iterator[str]:
    """A row a defect."""
    yield f"{'':{_NAME}}" + "".join(
        f"{f'[{number}]':{_CELL}}" for number, _one in read).rstrip()
    yield f"{'from':{_NAME}}" + "".join(
        f"{','.join(sorted({found.source for found in one.findings})):{_CELL}}"
        for _number, one in read).rstrip()
    for row, found in enumerate(read[0][1].findings):
        yield f"{found.defect:{_NAME}}" + "".join(
            f"{one.word(one.findings[row]):{_CELL}}" for _number, one in read).rstrip()


def _blocks(read: Sequence[tuple[int, Audited]], width: int) -> Iterator[str]:
    """What is not good of each kernel by its names, and what is unknown of all of them once."""
    of_all = [found.defect for row, found in enumerate(read[0][1].findings)
              if all(one.word(one.findings[row]) == UNKNOWN for _number, one in read)]
    for number, one in read:
        head = f"{f'[{number}]':{_NUMBER}}"
        for word in _WORDS:
            names = [found.defect for found in one.findings if one.word(found) == word
                     and (word != UNKNOWN or found.defect not in of_all)]
            if not names or word in (PROTECTED, NOT_AFFECTED):
                continue
            head += f"{word:{_INDENT}}"
            first, *others = _wrapped(" ".join(names), len(head), width)
            yield head + first.lstrip()
            yield from others
            head = f"{'':{_NUMBER}}"
        if head.strip():
            yield f"{head}nothing else" if of_all else f"{head}nothing"
    if of_all:
        head = f"{'all':{_NUMBER}}{UNKNOWN:{_INDENT}}"
        first, *others = _wrapped(" ".join(of_all), len(head), width)
        yield head + first.lstrip()
        yield from others


def nrpe(kernels: Sequence[Audited]) -> tuple[str, int]:
    """What a Nagios plugin says, and its exit status: 0, 2 for critical, 3 for unknown.

    The first line has how many, for graphs, too: version 2 of NRPE sends 1024 bytes in all.  The
    others have the names, the worst first.
    """
    unread = [one for one in kernels if one.error]
    named = {word: [(one, [found.defect for found in one.findings if one.word(found) == word])
                    for one in kernels] for word in (VULNERABLE, UNKNOWN)}
    bad, blind = (sum(len(defects) for _one, defects in named[status])
                  for status in (VULNERABLE, UNKNOWN))
    accepted, slow = (sum(one.word(found) == word for one in kernels for found in one.findings)
                      for word in (ACCEPTED, ONLY_SLOW))
    # What may be slow at worst is told, and is no alarm.
    alarm = any(one.alarming(found) for one in kernels for found in one.findings)
    exits = NRPE_CRITICAL if bad else NRPE_UNKNOWN if alarm or unread else NRPE_OK
    what = f"{len(kernels)} kernels" if len(kernels) > 1 else _called(kernels[0])[-_NRPE_NAME:]
    counts = ", ".join(f"{count} {said}" for count, said in (
        (bad, VULNERABLE), (blind, UNKNOWN), (len(unread), "cannot be read")) if count)
    but = ", ".join(f"{count} {said}" for count, said in (
        (blind, UNKNOWN), (accepted, ACCEPTED), (slow, ONLY_SLOW)) if count)
    none = "none of those asked for" if any(one.some for one in kernels) else "none of the defects"
    first = _nrpe(exits, f"{what}: {counts}" if exits else
                  f"{what} {'have' if len(kernels) > 1 else 'has'} {none}"
                  + (f" but {but}" if but else ""))
    # What follows the bar is for graphs, which know a figure by its name.
    lines = [f"{first} | vulnerable={bad} unknown={blind} accepted={accepted} slow={slow} "
             f"unread={len(unread)}"]
    for status, rows in named.items():
        lines += [_line(f"{_called(one)}{_mark(one)} {status}: {' '.join(defects)}")
                  for one, defects in rows if defects]
        if status == VULNERABLE:
            lines += [_line(f"{one.path} cannot be read") for one in unread]
    return "\n".join(lines), exits


def nrpe_error(why: str) -> tuple[str, int]:
    """The same where nothing could be looked at: that is no alarm, and nobody is safe either."""
    return _nrpe(NRPE_UNKNOWN, why[:_NRPE_WHY]), NRPE_UNKNOWN


def _called(one: Audited) -> str:
    return one.version or one.path


def _nrpe(exits: int, text: str) -> str:
    return f"MIGRATION {_NRPE[exits]} - {_line(text)}"


def _line(text: str) -> str:
    """One line, and no bar: that begins what is for graphs, on each of them."""
    return " ".join(text.replace("|", "/").split())


def prometheus(kernels: Sequence[Audited]) -> str:
    """For the textfile collector of Prometheus' node exporter: 1 for the status that is true."""
    lines = [f"# HELP {_METRIC} Status of a defect of page migration in a kernel.",
             f"# TYPE {_METRIC} gauge"]
    for one in kernels:
        for found in one.findings:
            labels = {"kernel": one.version, "path": one.path, "defect": found.defect,
                      "status": found.status.lower().replace(" ", "_"), "from": found.source}
            said = ",".join(f'{name}="{_escaped(value)}"' for name, value in labels.items())
            lines.append(f"{_METRIC}{{{said}}} 1")
    lines += [f"# HELP {_METRIC}_accepted A defect that is accepted, and not protected.",
              f"# TYPE {_METRIC}_accepted gauge"]
    lines += [f'{_METRIC}_accepted{{kernel="{_escaped(one.version)}",path="{_escaped(one.path)}",'
              f'defect="{found.defect}"}} 1'
              for one in kernels for found in one.findings if one.accepts(found)]
    lines += [f"# HELP {_METRIC}_only_slow A defect that is there, and does no more than be slow.",
              f"# TYPE {_METRIC}_only_slow gauge"]
    lines += [f'{_METRIC}_only_slow{{kernel="{_escaped(one.version)}",path="{_escaped(one.path)}",'
              f'defect="{found.defect}"}} 1'
              for one in kernels for found in one.findings
              if found.only_slow and found.status == VULNERABLE]
    lines += [f"# HELP {_METRIC}_running Whether a kernel is the one that runs.",
              f"# TYPE {_METRIC}_running gauge"]
    lines += [f'{_METRIC}_running{{kernel="{_escaped(one.version)}",path="{_escaped(one.path)}"}} '
              f'{int(one.runs)}' for one in kernels if not one.error]
    lines += [f"# HELP {_METRIC}_read Whether a kernel, and its code, could be read.",
              f"# TYPE {_METRIC}_read gauge"]
    lines += [f'{_METRIC}_read{{path="{_escaped(one.path)}"}} {int(one.read)}'
              for one in kernels]
    return "\n".join(lines)


def _escaped(text: str) -> str:
    return text.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")
