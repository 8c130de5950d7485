# SPDX-License-Identifier: GPL-2.0
"""Reads fragments of a kernel's .config: those in configs/, those of defects and those of bases.

There "# CONFIG_X is not set" is an option, and any other line that begins with "#" a comment.
"""

import re
from pathlib import Path

from lab.errors import LabError


def parse(text: str, where: str) -> dict[str, str]:
    """The options of a fragment or of a .config, by name without CONFIG_; "n" is one that is off.

    LabError for a line that is none.
    """
    options: dict[str, str] = {}
    for number, line in enumerate(text.splitlines(), 1):
        line = line.strip()
        if match := re.fullmatch(r"# CONFIG_(\w+) is not set", line):
            name, value = match[1], "n"
        elif match := re.fullmatch(r"CONFIG_(\w+)=(.*)", line):
            name, value = match[1], match[2]
        elif not line or line.startswith("#"):
            continue
        else:
            raise LabError(f"{where}:{number}: neither an option nor a comment: {line}")
        if name in options:
            raise LabError(f"{where}:{number}: CONFIG_{name} is there twice")
        options[name] = value
    return options


def line(name: str, value: str) -> str:
    """An option as a line of a .config."""
    return f"# CONFIG_{name} is not set" if value == "n" else f"CONFIG_{name}={value}"


def lines(path: Path) -> tuple[str, ...]:
    """The options of the fragment `path`, a line each, without its comments; none where there is
    no such file.  LabError where it says nothing."""
    if not path.exists():
        return ()
    try:
        options = parse(path.read_text(encoding="utf-8"), str(path))
    except UnicodeDecodeError as err:
        raise LabError(f"{path} cannot be read: {err}") from err
    if not options:
        raise LabError(f"{path} has no option in it: a fragment that asks for nothing can go")
    return tuple(line(name, value) for name, value in options.items())
