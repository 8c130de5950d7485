# SPDX-License-Identifier: GPL-2.0
"""Runs the rules of several audits on a tree, and has coccinelle read each file only once.

To start spatch and to parse a file takes longer than to look for anything in it, and most audits
look at the same few files.  So the rules of all audits that name a file are put into one, with a
prefix to the name of each, and what they match is printed; a rule that several have is there once.
What none of them can match is left out of the file (lab/kernel/cut.py).  The Python of each audit
runs here, afterwards, in the order in which spatch would have run it: rule by rule, and for each of
them sorted by what its variables stand for.

An audit whose rules depend on what another of its rules found in another file is run by itself, and
so are those of a file on which that fails: then it is known which of them it was.
"""

import ast
import hashlib
import heapq
import os
import re
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lab.kernel import cut, spatch
from lab.paths import scratch_dir

_HEAD = re.compile(r"@([^@].*)@\s*")
_NAME = re.compile(r"(\w+)(.*)")
_INPUT = re.compile(r"(\w+)\s*<<\s*(\w+)\.(\w+);")
# What a rule prints begins so: spatch may say more.
_MARK = "\x01"
# What the scripts of a file's rules are: they say what was matched.
_SAY = f"""
def say(number, *what):
    print({_MARK!r} + ascii((number, [
        [(one.file, one.line, one.column, one.line_end, one.column_end, one.current_element)
         for one in part] if isinstance(part, (list, tuple)) else str(part) for part in what])))
"""


@dataclass(frozen=True)
class Place:
    """A position, as a script of coccinelle has it: all of it are strings, as there."""

    file: str
    line: str
    column: str
    line_end: str
    column_end: str
    current_element: str


@dataclass(frozen=True)
class _Pattern:
    """A rule that matches code, without its name."""

    flags: str                      # " exists", " depends on other"
    variables: str
    body: str


@dataclass(frozen=True)
class _Script:
    """Python that is run for each match of some rule."""

    names: tuple[str, ...]          # what it calls them
    inputs: tuple[tuple[str, str], ...]     # of which rule, which variable
    code: str


@dataclass(frozen=True)
class _Audit:
    """A file of rules, taken to pieces."""

    first: str                      # Python that is run before any match
    patterns: dict[str, _Pattern]   # by name
    scripts: tuple[_Script, ...]
    last: str                       # and after all
    # Whether no rule asks what another matched.
    free: bool


@dataclass(frozen=True)
class Wanted:
    """A file of rules, and the files of a tree to run it on."""

    rule: Path
    files: tuple[str, ...]


_Match = tuple[int, list[Any]]      # the number of what was to be said, and the values


def find(tree: Path, wanted: Sequence[Wanted]) -> list[list[str] | spatch.Failed]:
    """The lines that each of the rules prints of its files in `tree`, or how coccinelle failed."""
    audits = {one.rule: _take_apart(one.rule) for one in wanted}
    together = [one for one in wanted
                if (audit := audits[one.rule]) and (audit.free or len(one.files) == 1)]
    jobs: dict[str, tuple[Path, ...]] = {}
    for one in together:
        for name in one.files:
            jobs[name] = (*jobs.get(name, ()), one.rule)
    # What takes longest is begun first.
    names = sorted(jobs, key=lambda name: len(jobs[name]), reverse=True)

    def answer(one: Wanted) -> list[str] | spatch.Failed:
        audit = audits[one.rule]
        if audit and one in together and all(found[name] for name in one.files):
            try:
                return _replay(audit, one, [found[name][one.rule] for name in one.files])
            # Python of a rule: whatever it is that it did wrong, spatch will say it.
            except Exception:
                pass
        try:
            return spatch.find(one.rule, tree, one.files)
        except spatch.Failed as err:
            return err

    # spatch has one thread.
    with ThreadPoolExecutor(max_workers=os.cpu_count() or 2) as pool:
        found = dict(zip(names, pool.map(
            lambda name: _matches(tree, name, {rule: audits[rule] for rule in jobs[name]}),
            names)))
        return list(pool.map(answer, wanted))


def _take_apart(rule: Path) -> _Audit | None:
    """The pieces of a file of rules; None where it has a form that is not known here."""
    lines = rule.read_text(encoding="utf-8").splitlines()
    first, last = "", ""
    patterns: dict[str, _Pattern] = {}
    scripts: list[_Script] = []
    at = 0
    while at < len(lines):
        head = _HEAD.fullmatch(lines[at])
        at += 1
        if not head:
            if lines[at - 1].strip() and not lines[at - 1].startswith("//"):
                return None
            continue
        try:
            middle = lines.index("@@", at)
        except ValueError:
            return None
        end = next((number for number in range(middle + 1, len(lines))
                    if _HEAD.fullmatch(lines[number])), len(lines))
        variables = "\n".join(lines[at:middle])
        body = "\n".join(line for line in lines[middle + 1:end] if not line.startswith("//"))
        at = end
        if head[1] == "initialize:python":
            first = body
        elif head[1] == "finalize:python":
            last = body
        elif head[1] == "script:python":
            inputs = [_INPUT.fullmatch(line.strip()) for line in variables.splitlines()]
            if not inputs or not all(one and one[2] in patterns for one in inputs):
                return None
            scripts.append(_Script(tuple(one[1] for one in inputs if one),
                                   tuple((one[2], one[3]) for one in inputs if one), body))
        elif (name := _NAME.fullmatch(head[1])) and name[1] not in patterns:
            patterns[name[1]] = _Pattern(name[2], variables, body.strip())
        else:
            return None
    free = not any("depends" in one.flags or re.search(r"\w\.\w", one.variables)
                   for one in patterns.values())
    return _Audit(first, patterns, tuple(scripts), last, free)


class _Together:
    """The rules of several audits as one, for a file that all of them look at."""

    def __init__(self, audits: Mapping[Path, _Audit]) -> None:
        self.audits = audits
        # None where one of them may match anywhere.
        self.names = cut.names((one.variables, one.body) for audit in audits.values()
                               for one in audit.patterns.values())
        known: dict[tuple[str, str, str], str] = {}
        said: dict[tuple[tuple[str, str], ...], int] = {}
        # Each rule, and what is said of it right after it: what coccinelle has to keep for later,
        # it looks for anew with each of the rules in between.
        parts: dict[str, list[str]] = {}
        # Which number each script of an audit waits for.
        self.numbers: dict[Path, list[int]] = {}
        for number, (rule, audit) in enumerate(audits.items()):
            names: dict[str, str] = {}
            for name, one in audit.patterns.items():
                flags = re.sub(r"\w+", lambda word: names.get(word[0], word[0]), one.flags)
                names[name] = new = known.setdefault(
                    (flags, one.variables, one.body), f"r{number}_{name}")
                parts.setdefault(new, [f"@{new}{flags}@\n{one.variables}\n@@\n{one.body}\n"])
            self.numbers[rule] = []
            for script in audit.scripts:
                inputs = tuple((names[name], variable) for name, variable in script.inputs)
                if inputs not in said:
                    said[inputs] = len(said)
                    last = max((name for name, _variable in inputs), key=list(parts).index)
                    parts[last].append(_says(said[inputs], inputs))
                self.numbers[rule].append(said[inputs])
        self.text = "\n".join((f"@initialize:python@\n@@\n{_SAY}",
                               *(text for part in parts.values() for text in part)))


def _says(number: int, inputs: Sequence[tuple[str, str]]) -> str:
    """A script that says what `inputs` are, under a number."""
    asked = "\n".join(f"v{at} << {name}.{variable};"
                      for at, (name, variable) in enumerate(inputs))
    values = ", ".join(f"v{at}" for at in range(len(inputs)))
    return f"@script:python@\n{asked}\n@@\nsay({number}, {values})\n"


# A tree before and after a patch has most files twice.
_KNOWN: dict[tuple[str, str, str], dict[Path, list[list[list[Any]]]]] = {}


def _matches(tree: Path, name: str, audits: Mapping[Path, _Audit | None]
             ) -> dict[Path, list[list[list[Any]]]]:
    """What the scripts of each audit are to be run with for a file; {} where coccinelle failed."""
    rules = _Together({rule: audit for rule, audit in audits.items() if audit})
    try:
        key = (name, hashlib.sha256((tree / name).read_bytes()).hexdigest(), rules.text)
    except OSError:
        return {}
    if key not in _KNOWN:
        try:
            lines = _lines(tree, name, rules)
        except spatch.Failed:
            return {}
        found: dict[int, list[list[Any]]] = {}
        for line in lines:
            if line.startswith(_MARK):
                number, values = ast.literal_eval(line[1:])
                found.setdefault(number, []).append(values)
        _KNOWN[key] = {rule: [found.get(number, []) for number in rules.numbers.get(rule, [])]
                       for rule in rules.audits}
    return _KNOWN[key]


def _lines(tree: Path, name: str, rules: _Together) -> list[str]:
    """What the rules print of a file, or of what is left of it."""
    with scratch_dir("lab-audit-") as folder:
        rule, rest = folder / "together.cocci", folder / name
        rule.write_text(rules.text, encoding="utf-8")
        if rules.names is None:
            return spatch.find(rule, tree, [name])
        text = (tree / name).read_text(encoding="utf-8", errors="surrogateescape")
        rest.parent.mkdir(parents=True)
        rest.write_text(cut.cut(text, rules.names), encoding="utf-8", errors="surrogateescape")
        return spatch.find(rule, folder, [name])


def _replay(audit: _Audit, wanted: Wanted, found: Sequence[list[list[list[Any]]]]) -> list[str]:
    """What the Python of an audit prints, with what was found in each file for each script."""
    lines: list[str] = []
    space: dict[str, Any] = {"print": lambda *what: lines.extend(" ".join(
        str(one) for one in what).splitlines())}

    def run(code: str, kind: str) -> None:
        exec(compile(code, f"{wanted.rule} ({kind})", "exec"), space)

    run(audit.first, "initialize")
    for number, script in enumerate(audit.scripts):
        code = compile(script.code, f"{wanted.rule} (script)", "exec")
        # Variables by name, and places by file: that is how spatch compares two matches.
        order = sorted(range(len(script.inputs)), key=lambda at: script.inputs[at][1])

        def key(values: list[Any]) -> list[str]:
            return [one[0][0] if isinstance(one, list) and one else str(one)
                    for one in map(values.__getitem__, order)]

        for values in heapq.merge(*(one[number] for one in found), key=key):
            space.update(zip(script.names, map(_value, values)))
            exec(code, space)
    run(audit.last, "finalize")
    return lines


def _value(said: Any) -> Any:
    return [Place(*one) for one in said] if isinstance(said, list) else said
