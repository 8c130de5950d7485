# SPDX-License-Identifier: GPL-2.0
"""How numbers, names and sentences are written, in whatever form they are told."""

import textwrap

WIDTH = 80


def singular(word: str) -> str:
    """One of what a plural names: tries, accesses, migrations."""
    for end, one in (("ies", "y"), ("sses", "ss"), ("tches", "tch"), ("s", "")):
        if word.endswith(end):
            return word.removesuffix(end) + one
    return word


def plural(number: int, word: str) -> str:
    """A number of what `word` names, which is a plural: "1 boot", "2 boots"."""
    return f"{number} {singular(word) if number == 1 else word}"


def percent(part: int, whole: int) -> str:
    """A share that says 100 % only for all and 0 % only for none; "-" of nothing."""
    if not whole:
        return "-"
    if 0 < part < whole:
        return f"{min(max(100 * part / whole, 0.01), 99.99):.2f} %"
    return f"{100 * part // whole} %"


def share(part: int, whole: int) -> str:
    """So many of so many, and what part that is where it is any."""
    return f"{part} of {whole}" + (f" ({percent(part, whole)})" if part else "")


def wrap(text: str, first: str = "", rest: str = "", width: int = WIDTH) -> list[str]:
    """The lines of a text; names and paths are never broken."""
    return textwrap.wrap(text, width, initial_indent=first, subsequent_indent=rest,
                         break_long_words=False, break_on_hyphens=False)

