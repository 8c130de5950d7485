# SPDX-License-Identifier: GPL-2.0
"""Tells what an LTP test printed as KTAP, for all that reads that.

LTP prints a line a result, with where it comes from, and at its end what it has counted; and after
a failure which commits may be missing:

    hugemigrate01.c:371: TINFO: hugetlbfs.mbind: calls=10 migrations=10 lost_migrations=9
    hugemigrate01.c:374: TFAIL: hugetlbfs.mbind: 840 writes lost in 9 of 10 migrations
    ...
    HINT: You _MAY_ be missing kernel fixes:
    https://git.kernel.org/pub/scm/linux/kernel/git/torvalds/linux.git/commit/?id=017b1660df89...
    ...
    passed   2
    failed   5

A result that begins with a name and a colon is that of the case of this name.  A line of TINFO with
that name, and nothing else but figures, has the figures of the case.  What LTP says of the test as a
whole, such as TCONF for want of a second node, has the name of the test.
"""

import re
from collections.abc import Sequence

from lab.judge.verdict import Boot

_START = re.compile(r"lab: start (\S+)$")
_EXIT = re.compile(r"(.*)lab: exit (\S+) (\d+)$")
_LINE = re.compile(r"\S+\.[ch]:\d+: (TPASS|TFAIL|TBROK|TCONF|TWARN|TINFO|TDEBUG): (.*)$")
_CASE = re.compile(r"([\w.]+): (.*)$")
_FIGURES = re.compile(r"(?:[a-z][a-z0-9_]*=\S* ?)+$")
_COUNT = re.compile(r"(passed|failed|broken|skipped|warnings) +(\d+)$")
_COMMIT = re.compile(r"https?://\S*[?&]id=([0-9a-f]{12,40})$")
_NAMED = "fixed by "

# Of the exit status: TFAIL, TBROK and TWARN, and TCONF, which is none.
_FAILED, _SKIPPED = 1 | 2 | 4, 32
_KSFT_SKIP = 4


def commits(notes: list[str]) -> list[str]:
    """The commits that a failed test has named, from what it printed as KTAP tells it."""
    return [word for note in notes if note.startswith(_NAMED)
            for word in note.removeprefix(_NAMED).split(", ")]


def named(vulnerable: Sequence[Boot], upstream: Sequence[str], word: str, why: str
          ) -> tuple[str, str]:
    """The verdict, and why, with the commits that the vulnerable kernel lacks: the tests that
    failed have to have named each of `upstream`, in each boot."""
    for boot in vulnerable:
        said = {commit for test in boot.tests() if test.outcome == "fail"
                for commit in commits(test.notes)}
        for line in upstream:
            sha = line.split()[0]
            if not any(commit.startswith(sha) for commit in said):
                return "INCONCLUSIVE", (f"{boot.variant} boot {boot.number}: the tests failed, and "
                                        f"named the fix {sha} in none of their hints")
    shas = " and ".join(line.split()[0] for line in upstream)
    return word, f"{why}; the tests named {shas}"


def as_ktap(text: str) -> str:
    """The text with what LTP's tests printed as KTAP.

    What is not LTP's stays as it is, and what is missing stays missing: a test without its summary
    has no plan, and one whose summary counts more results than came has a plan for more.
    """
    out: list[str] = []
    block: list[str] = []
    name = ""
    lines = text.replace("\r", "").replace("\0", "").split("\n")
    partial = lines.pop()
    for line in lines:
        if start := _START.match(line):
            out += _told(name, block)
            name, block = start[1], []
            out.append(line)
        elif name and (end := _EXIT.match(line)) and end[2] == name:
            out += _told(name, block)
            out.append(f"{end[1]}lab: exit {name} {_status(int(end[3]), block)}")
            name, block = "", []
        elif name:
            block.append(line)
        else:
            out.append(line)
    return "\n".join([*out, *_told(name, block), partial])


def _status(status: int, block: list[str]) -> int:
    """The exit status that a test of the kernel's harness would have."""
    if status > 128:            # killed, as the shell says it
        return status
    if status & _FAILED:
        return 1
    if status == _SKIPPED:
        passed = any((line := _LINE.match(one)) and line[1] == "TPASS" for one in block)
        return 0 if passed else _KSFT_SKIP
    return status


def _told(name: str, block: list[str]) -> list[str]:
    """What a test printed, as KTAP."""
    named = ", ".join(dict.fromkeys(found[1] for line in block
                                    if (found := _COMMIT.match(line.strip()))))
    out: list[str] = []
    number = 0
    seen: set[str] = set()
    counts: dict[str, int] = {}
    for line in block:
        if count := _COUNT.match(line):
            counts[count[1]] = int(count[2])
            continue
        if not (found := _LINE.match(line)):
            if line.strip():
                out.append(f"# {line}")
            continue
        kind, said = found.groups()
        case = _CASE.match(said)
        if kind in ("TINFO", "TDEBUG"):
            figures = case and _FIGURES.match(case[2])
            plain = figures or said.startswith("lost: ")
            out.append(f"# {said}" if plain else f"# {kind}: {said}")
            continue
        if kind == "TWARN":
            out.append(f"# {kind}: {said}")
            continue
        number += 1
        own, text = (case[1], case[2]) if case else (name, said)
        # A test that is run twice has the results of its cases twice.
        if own in seen:
            own = f"{own}.{number}"
        seen.add(own)
        if kind == "TFAIL" and named:
            out.append(f"# {_NAMED}{named}")
        out.append({"TPASS": f"ok {number} {own} # {text}",
                    "TFAIL": f"not ok {number} {own} # {text}",
                    "TBROK": f"not ok {number} {own} # ERROR {text}",
                    "TCONF": f"ok {number} {own} # SKIP {text}"}[kind])
    if counts:
        planned = sum(counts.get(key, 0) for key in ("passed", "failed", "broken", "skipped"))
        out.append(f"1..{planned}")
        if counts.get("warnings"):
            # It could not put something back, or could not end as it should.
            out.append(f"not ok {number + 1} {name}.warnings # {counts['warnings']} warnings")
    return out
