# SPDX-License-Identifier: GPL-2.0
"""Loads bases/<name>.conf: where a kernel's source comes from, and what differs in its build.

Such a file is INI with one section, [base], and at most these keys, each of them optional:

    package   Debian's source package; without it the base is only used for KERNEL= trees
    suites    suites that have the package, main archive or security; without it the machine's own
              apt sources
    drop      options of the lab's fragments that this base does not have, one a line
    add       further lines for its .config, one a line ("CONFIG_X=n" for off: "#" is a comment)
    cflags    KCFLAGS that it needs to be built with a modern compiler
    cmdline   words to add to the kernel's command line
    noise     what this version's kernels say of themselves now and then, whatever the variant:
              regular expressions for complaints, one a line; they are told, and count for nothing
"""

import configparser
import re
from dataclasses import dataclass
from pathlib import Path

from lab.errors import LabError
from lab.paths import HOME

BASES = HOME / "bases"

_KEYS = {"package", "suites", "drop", "add", "cflags", "cmdline", "noise"}


@dataclass(frozen=True)
class Base:
    """A kernel version that the lab knows how to get, configure and build."""

    name: str                   # "6.12"
    package: str | None         # "linux-source-6.12"; None: no package, for KERNEL= trees only
    suites: tuple[str, ...]     # () = the machine's own apt sources
    drop: tuple[str, ...]       # options of the fragments to leave out, "CONFIG_X=y"
    add: tuple[str, ...]        # further .config lines
    cflags: str
    cmdline: str
    noise: tuple[str, ...] = ()


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split("."))


def names() -> list[str]:
    """The names of all bases, oldest version first."""
    return sorted((path.stem for path in BASES.glob("*.conf")
                   if re.fullmatch(r"2\.6\.\d+|\d+\.\d+", path.stem)), key=_numbers)


def load(name: str) -> Base:
    """The base `name`; LabError where there is none or its file has something wrong in it."""
    if name not in names():
        raise LabError(f"no base {name}: there are {', '.join(names()) or 'none'}")
    return _read(BASES / f"{name}.conf")


def for_version(version: str) -> Base:
    """The base for a tree of kernel `version` ("6.8.1"): the nearest at or below it.

    LabError where the version is older than every base.
    """
    # What 2.6.34 was to 2.6.33, 4.4 is to 4.3.  It is nearest to nothing but itself: too much was
    # another in the ten years before 4.4.
    parts = 3 if version.startswith("2.6.") else 2
    wanted = _numbers(".".join(version.split(".")[:parts]))
    below = [name for name in names() if _numbers(name) == wanted
             or _numbers(name) < wanted and not name.startswith("2.6.")]
    if not below:
        raise LabError(f"no base for kernel {version}: the lab knows {', '.join(names())} and "
                       "what comes after them; name the one to build it as with BASE=")
    return load(below[-1])


def _read(path: Path) -> Base:
    parser = configparser.ConfigParser(interpolation=None)
    try:
        parser.read_string(path.read_text(encoding="utf-8"), source=str(path))
    except (configparser.Error, UnicodeDecodeError) as err:
        raise LabError(f"{path} cannot be read: {' '.join(str(err).split())}") from err
    if parser.sections() != ["base"]:
        raise LabError(f"{path} must have one section, [base]: it has {parser.sections()}")
    text = parser["base"]
    if strange := sorted(set(text) - _KEYS):
        raise LabError(f"{path}: unknown: {', '.join(strange)}")
    package = text.get("package", "").strip() or None
    suites = tuple(text.get("suites", "").split())
    if suites and package is None:
        raise LabError(f"{path}: suites without a package")
    return Base(
        name=path.stem,
        package=package,
        suites=suites,
        drop=_lines(path, "drop", text.get("drop", "")),
        add=_lines(path, "add", text.get("add", "")),
        cflags=" ".join(text.get("cflags", "").split()),
        cmdline=" ".join(text.get("cmdline", "").split()),
        noise=expressions(path, "noise", text.get("noise", "")),
    )


def expressions(path: Path, key: str, text: str) -> tuple[str, ...]:
    """The regular expressions in a value, one a line; LabError for a line that is none."""
    lines = tuple(line.strip() for line in text.splitlines() if line.strip())
    for line in lines:
        try:
            re.compile(line)
        except re.error as err:
            raise LabError(f"{path}: {key}: {line}: {err}") from err
    return lines


def _lines(path: Path, key: str, text: str) -> tuple[str, ...]:
    """The options in a value, one a line; LabError for a line that is none."""
    lines = tuple(line.strip() for line in text.splitlines() if line.strip())
    for line in lines:
        if not re.fullmatch(r"CONFIG_\w+=.+", line):
            raise LabError(f"{path}: {key}: not an option: {line}")
    return lines
