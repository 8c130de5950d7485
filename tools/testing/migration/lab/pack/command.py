# SPDX-License-Identifier: GPL-2.0
"""Verbs of the lab that a package installs as commands of their own, with no repository around.

A command takes what its verb takes: options, and variables as `KERNEL=DIR`.  What the verb wants
most may also be said without a name: `pmd-share-audit ~/linux`, `pmd-share-audit /boot/vmlinuz`.
"""

import argparse
import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from lab import options
from lab.paths import REPO

# Beside the installed lab: which version the package is of.
VERSION = REPO / "VERSION"


@dataclass(frozen=True)
class Command:
    """A verb under the name that it is installed by."""

    name: str
    verb: str
    section: int                # of the manual, which also decides between bin/ and sbin/
    bare: str = ""              # the option whose value may be said alone
    file: str = ""              # and the one whose value that is if it is a file

    @property
    def folder(self) -> str:
        """Below /usr."""
        return "sbin" if self.section == 8 else "bin"

    def does(self) -> options.Verb:
        """The verb, without what is for who builds the selftests: the package has them."""
        verb = next(one for one in options.VERBS if one.name == self.verb)
        return dataclasses.replace(
            verb, takes=tuple(one for one in verb.takes if one is not options.HARNESS))


COMMANDS = (
    Command("pmd-share-audit", "audit", 1, "kernel", "image"),
    Command("pmd-share-test", "hosttest", 8),
)


def documents() -> Path:
    """Where the package has its documents."""
    return REPO.parent / "doc" / REPO.name


def load(name: str) -> Command:
    """The command `name`, which must be one."""
    return next(one for one in COMMANDS if one.name == name)


def version() -> str:
    """Of the package; what it says for none is for a lab that nobody has packed."""
    try:
        return VERSION.read_text(encoding="ascii").strip()
    except OSError:
        return "(not packaged)"


def named(command: Command, words: Sequence[str]) -> list[str]:
    """The words with what was said alone under its name."""
    valued = {f"--{one.name}" for one in command.does().takes if not one.switch}
    said: list[str] = []
    is_value = False
    for word in words:
        if command.bare and not is_value and word and not word.startswith("-") \
                and not options.VARIABLE.fullmatch(word):
            is_file = command.file and Path(word).expanduser().is_file()
            word = f"--{command.file if is_file else command.bare}={word}"
        is_value = not is_value and word in valued
        said.append(word)
    return said


def parser(command: Command) -> argparse.ArgumentParser:
    """For the help of the command alone: lab/cli.py reads what was said."""
    verb = command.does()
    bare = next((one for one in verb.takes if one.name == command.bare), None)
    made = argparse.ArgumentParser(
        prog=command.name, formatter_class=options.Help,
        usage=f"{command.name} [options]{f' [{bare.metavar}]' if bare else ''}",
        description=f"{verb.does[0].upper()}{verb.does[1:]}. "
                    + verb.text.replace("Documentation/", f"{documents()}/"),
        epilog=f"An option can also be written as its variable: "
               f"{verb.takes[0].variable}=value." + (
                   f"\n{bare.metavar} alone is the value of --{bare.name}"
                   + (f", a file that of --{command.file}" if command.file else "") + "."
                   if bare else "")
               + "\nExit status: 0 for success, 1 for a defect or a failed test, 2 for an error."
               + f"\n\nMore: man {command.name}")
    for option in verb.takes:
        option.add(made)
    made.add_argument("--version", action="store_true", help="say which version this is")
    return made
