# SPDX-License-Identifier: GPL-2.0
"""Loads model/steps.toml: which lines of which kernels a step of the model stands for.

The top of that file says what its keys mean.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from lab import schema
from lab.errors import LabError
from lab.paths import HOME

STEPS = HOME / "model" / "steps.toml"

_AT = re.compile(r"(\S+\.c):(\d+)-(\d+) (\w+)")


@dataclass(frozen=True)
class Place:
    """A function of one version that does a step, and what it calls for it, in this order."""

    base: str
    at: str                     # file:first-last function
    calls: tuple[str, ...]

    def parts(self) -> tuple[str, tuple[int, int], str]:
        """The file, its first and last line, and the function."""
        found = _AT.fullmatch(self.at)
        assert found
        return found[1], (int(found[2]), int(found[3])), found[4]


@dataclass(frozen=True)
class Steps:
    """All of them."""

    versions: dict[str, str]                # of the sources that the lines are of, by base
    places: dict[str, tuple[Place, ...]]    # by the step of the model

    def of(self, words: Iterable[str], bases: Sequence[str]) -> list[str]:
        """Where the functions are in `bases` that are named in `words` as function(), a line
        each."""
        named = dict.fromkeys(name for word in words for name in re.findall(r"(\w+)\(\)", word))
        made = []
        for name in named:
            found = [f"{file}:{first}-{last} ({self.versions[place.base]})"
                     for place in dict.fromkeys(one for some in self.places.values()
                                                for one in some if one.base in bases)
                     for file, (first, last), function in [place.parts()] if function == name]
            if found:
                made.append(f"{name}(): {', '.join(found)}")
        return made


def load(path: Path = STEPS) -> Steps:
    """What the file says; LabError where it is wrong."""
    said = schema.read(path)
    versions = said.pop("versions", {})
    if not isinstance(versions, dict) or not all(isinstance(one, str) for one in versions.values()):
        raise LabError(f"{path}: [versions] must be a table of strings")
    places = {step: schema.tables(Place, path, step, some) for step, some in said.items()}
    for step, some in places.items():
        for one in some:
            if not _AT.fullmatch(one.at):
                raise LabError(f"{path}: [{step}] at: {one.at}: not file.c:first-last function")
            if one.base not in versions:
                raise LabError(f"{path}: [{step}] base: {one.base} is not in [versions]")
    return Steps(versions, places)
