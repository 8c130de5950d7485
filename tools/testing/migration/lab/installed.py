# SPDX-License-Identifier: GPL-2.0
"""Where a command begins that a package has installed."""

import sys
from collections.abc import Sequence

from lab import cli
from lab.pack import command


def main(name: str, argv: Sequence[str] | None = None) -> int:
    """Run the command `name`; returns the exit status."""
    one = command.load(name)
    words = list(sys.argv[1:] if argv is None else argv)
    if {"-h", "--help"} & set(words):
        print(command.parser(one).format_help(), end="")
        return 0
    if "--version" in words:
        print(f"{name} {command.version()}")
        return 0
    return cli.main([one.verb, *command.named(one, words)])
