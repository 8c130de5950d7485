# SPDX-License-Identifier: GPL-2.0
"""Empties the functions of a C file in which no rule of coccinelle can match.

Of the two hundred functions of mm/hugetlb.c, the audits look at a few, and coccinelle looks for
each rule in all of them.  A rule can only match where the names are that it has.  So a function
that has none of those of any rule keeps its head, its braces and its lines, and nothing in between:
all that is found is found in the line in which it is.
"""

import re
from collections.abc import Iterable

_NAME = re.compile(r"[A-Za-z_]\w*")
_VARIABLE = re.compile(r"(\w+)\s*(?:=\s*\{([^}]*)\}|=~\s*\"([^\"]*)\")")
_STRING = re.compile(r"\"[^\"]*\"")
# A rule about a whole function.
_FUNCTION = re.compile(r"(\w+)(?:@\w+)?\([^;{}]*\)\s*\{")
# What names nothing: words of C, and of coccinelle in the body of a rule.
_NO_NAMES = frozenset(
    "any auto bool break case char const continue default do double else enum exists extern float "
    "for forall goto if inline int long register return short signed sizeof static strict struct "
    "switch typedef union unsigned void volatile when while".split())
_IF, _ELSE, _ENDIF = (re.compile(rf"\s*#\s*{word}") for word in ("if", "el", "endif"))


def names(rules: Iterable[tuple[str, str]]) -> re.Pattern[str] | None:
    """What finds the names of rules, each of them the text of its variables and of its body.

    None where a rule names nothing: it may match anywhere.
    """
    found: set[str] = set()
    for variables, body in rules:
        stand_for = {name: _alternatives(one_of, like)
                     for name, one_of, like in _VARIABLE.findall(variables)}
        free = set(_NAME.findall(_STRING.sub("", re.sub(r"\{[^}]*\}", "", variables))))
        if function := _FUNCTION.match(body):
            words = {function[1]}
        else:
            words = set(_NAME.findall(_STRING.sub("", body))) - _NO_NAMES
        own: set[str | None] = {rf"\b{name}\b" for name in words - free}
        own |= {one for name in words for one in stand_for.get(name, ())}
        if not own or None in own:
            return None
        found |= {one for one in own if one}
    return re.compile("|".join(sorted(found)))


def _alternatives(one_of: str, like: str) -> set[str | None]:
    """What finds the names that a variable may stand for; None is for any."""
    if one_of:
        return {rf"\b{name}\b" for name in _NAME.findall(one_of)}
    # Whether it begins with that or has it elsewhere does not matter here.
    return {part if re.fullmatch(r"\w+", part) else None for part in like.strip("^$").split("|")}


def cut(text: str, wanted: re.Pattern[str]) -> str:
    """`text` of a C file, with nothing in the functions in which `wanted` finds nothing.

    A function is what has its braces at the beginning of a line, as the kernel's have.
    """
    lines = text.split("\n")
    at = 0
    while at < len(lines):
        if lines[at] != "{":
            at += 1
            continue
        start = head = at
        at = next((number for number in range(start, len(lines)) if lines[number].startswith("}")),
                  len(lines))
        if lines[at:at + 1] != ["}"]:
            continue
        while head and not lines[head - 1].startswith(("}", "#")) and lines[head - 1].strip():
            head -= 1
        if not wanted.search("\n".join(lines[head:at])) and _whole(lines[start:at]):
            lines[start + 1:at] = [""] * (at - start - 1)
    return "\n".join(lines)


def _whole(lines: Iterable[str]) -> bool:
    """Whether what the preprocessor is asked here begins and ends here."""
    depth = 0
    for line in lines:
        if _ENDIF.match(line):
            depth -= 1
        elif _IF.match(line):
            depth += 1
        elif _ELSE.match(line) and not depth:
            return False
        if depth < 0:
            return False
    return not depth
