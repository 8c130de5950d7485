# SPDX-License-Identifier: GPL-2.0
"""Loads bases/<name>.toml: where a kernel's source comes from, and what differs in its build.

Each of the keys is optional; a list is one of strings:

    package   Debian's source package; without it the base is only used for KERNEL= trees
    suites    a list: suites that have the package, main archive or security; without it the
              machine's own apt sources
    drop      a list: options of the lab's fragments that this base does not have, "CONFIG_X"
    cflags    KCFLAGS that it needs to be built with a modern compiler
    cmdline   words to add to the kernel's command line
    unproved  why nothing is proved of it: a base of which some files alone can be compiled, in
              words that follow "nothing is proved of 4.4: "
    noise     a list: what this version's kernels say of themselves now and then, whatever the
              variant, as regular expressions for complaints; they are told, and count for nothing

bases/<name>.config is a Kconfig fragment: what the kernels of this base need on top of the lab's
own.

A stable branch takes so many fixes that the patches for an early release do not fit a late one.  A
base whose name has three parts, bases/4.14.325.toml, is for the trees of its branch from that
release on, and has a queue of its own.  It is built as the branch is, bases/4.14.toml: a key that
its own file does not have is as it is there, but for the package, and so is the fragment.
"""

import re
from dataclasses import dataclass

from lab import fragment, schema
from lab.errors import LabError
from lab.paths import HOME

BASES = HOME / "bases"


@dataclass(frozen=True)
class Base:
    """A kernel version that the lab knows how to get, configure and build."""

    name: str                       # "6.12"
    package: str | None = None      # "linux-source-6.12"; None: no package, for KERNEL= trees only
    suites: tuple[str, ...] = ()    # none: the machine's own apt sources
    drop: tuple[str, ...] = ()
    add: tuple[str, ...] = ()       # the lines of <name>.config
    cflags: str = ""
    cmdline: str = ""
    noise: tuple[str, ...] = ()
    unproved: str = ""


def numbers(version: str) -> tuple[int, ...]:
    """A version to compare: (2, 6, 34) is before (6, 12)."""
    return tuple(int(part) for part in version.split("."))


def names() -> list[str]:
    """The names of all bases, oldest version first."""
    return sorted((path.stem for path in BASES.glob("*.toml")
                   if re.fullmatch(r"\d+\.\d+(\.\d+)?", path.stem)), key=numbers)


def branch(name: str) -> str:
    """The branch of a base or a version: "4.14" for "4.14", "4.14.325" and "4.14.67".

    2.6.34 was to 2.6.33 what 4.4 is to 4.3.
    """
    return ".".join(name.split(".")[:3 if name.startswith("2.6.") else 2])


def late(name: str) -> bool:
    """Whether a base is for the late releases of a branch."""
    return name != branch(name)


def load(name: str) -> Base:
    """The base `name`; LabError where there is none or its files have something wrong in them."""
    if name not in names():
        raise LabError(f"no base {name}: there are {', '.join(names()) or 'none'}")
    path = BASES / f"{name}.toml"
    said = schema.read(path)
    add = fragment.lines(BASES / f"{name}.config")
    if late(name):
        like = load(branch(name))
        theirs = {"drop": list(like.drop), "cflags": like.cflags, "cmdline": like.cmdline,
                  "noise": list(like.noise)}
        said = {key: value for key, value in theirs.items() if value} | said
        add = add or like.add
    one = schema.fill(Base, path, "", said, name=name, add=add)
    if one.suites and one.package is None:
        raise LabError(f"{path}: suites without a package")
    for option in one.drop:
        if not re.fullmatch(r"CONFIG_\w+", option):
            raise LabError(f"{path}: drop: {option} is not the name of an option, CONFIG_X")
    schema.expressions(path, "noise", one.noise)
    return one


def for_version(version: str) -> Base:
    """The base for a tree of kernel `version` ("6.8.1"): the nearest at or below it.

    LabError where the version is older than every base.
    """
    # Of an image, the release says more: "6.1.0-18-amd64".
    wanted = numbers(re.split(r"[^\d.]", version)[0].strip("."))
    own = numbers(branch(".".join(map(str, wanted))))

    def fits(name: str) -> bool:
        # A late release is no guide to another branch, which is older in all but its number.
        if late(name):
            return numbers(branch(name)) == own and numbers(name) <= wanted
        # 2.6.34 is nearest to nothing but itself: too much was another in the ten years before 4.4.
        return numbers(name) == own or numbers(name) < own and not name.startswith("2.6.")

    below = [name for name in names() if fits(name)]
    if not below:
        raise LabError(f"no base for kernel {version}: the lab knows {', '.join(names())} and "
                       "what comes after them; name the one to build it as with BASE=")
    return load(below[-1])
