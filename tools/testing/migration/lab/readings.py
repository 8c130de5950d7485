# SPDX-License-Identifier: GPL-2.0
"""Loads bases/read.toml: what the source of a release of each base says of each defect, read by hand.

Numbers cannot say that: a release of a stable branch has fixes that came after its first one.  The
tests hold what make audit says of these sources to it.

    defects     a list: the columns

and for each base a table, ["5.15"], whose keys are strings:

    release     the release that was read
    released    a letter a column: V for vulnerable, p for protected, - for not affected
    queue       the same with the patches of queue/<base>; goes with that folder
"""

from dataclasses import dataclass

from lab import base, schema
from lab.errors import LabError

FILE = "read.toml"
VULNERABLE, PROTECTED, NOT_AFFECTED = LETTERS = ("V", "p", "-")


@dataclass(frozen=True)
class Reading:
    """What was read in the source of a base."""

    release: str                # "5.15.215"
    released: dict[str, str]    # a letter for each defect
    queue: dict[str, str]       # the same with its queue; none where there is no queue


@dataclass(frozen=True)
class _Row:
    release: str
    released: str
    queue: str = ""


def load() -> dict[str, Reading]:
    """By base, what was read; LabError where the file has something wrong in it."""
    path = base.BASES / FILE
    said = schema.read(path)
    names = said.pop("defects", ())

    def row(name: str, key: str, letters: str) -> dict[str, str]:
        found = letters.split()
        if len(found) != len(names) or not {*found} <= {*LETTERS}:
            raise LabError(f"{path}: [{name}] {key} must have one of {' '.join(LETTERS)} for each "
                           f"of {len(names)} defects")
        return dict(zip(names, found, strict=True))

    rows = {name: schema.fill(_Row, path, name, of_it) for name, of_it in said.items()}
    return {name: Reading(one.release, row(name, "released", one.released),
                          row(name, "queue", one.queue) if one.queue else {})
            for name, one in rows.items()}
