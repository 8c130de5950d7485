# SPDX-License-Identifier: GPL-2.0
"""The kernels that somebody meets who bisects a queue: with none of its patches, with the first,
with the first two, and so on.

The kernel with none is the one that was released, also where that has a protection which a proof
takes out: whoever applies the queue begins there.  None has an amplifier, which nobody meets.
"""

from dataclasses import dataclass
from pathlib import Path

from lab.errors import LabError
from lab.kernel import variant
from lab.kernel.source import Source
from lab.kernel.variant import Variant


@dataclass(frozen=True)
class Step:
    """The kernel with the first `number` patches of a queue."""

    number: int
    patch: Path | None          # the last of them; None in the kernel as released
    variant: Variant


def patches(base: str, form: str) -> list[Path]:
    """Those of queue/<base>, in order; `form` names another form of it.  LabError for none."""
    file = f"series.{form}" if form else "series"
    found = variant.series(base, file)
    if not found:
        raise LabError((f"FORM={form}: " if form else "") + f"there is no queue/{base}/{file}, so "
                       "there are no steps")
    return found


def bounds(first: int | None, last: int | None, base: str, most: int) -> range:
    """The steps from `first` to `last`, all by default.

    LabError where a queue of `most` patches has none of that number.
    """
    begin, end = first or 0, most if last is None else last
    if first is not None and last is not None and begin > end:
        raise LabError(f"FROM={first} comes after TO={last}")
    for variable, number in (("FROM", begin), ("TO", end)):
        if number > most:
            raise LabError(f"{variable}={number}: queue/{base} has the steps 0 (as released) to "
                           f"{most}")
    return range(begin, end + 1)


def steps(source: Source, form: str, numbers: range, add: tuple[str, ...] = ()) -> list[Step]:
    """The kernels of `source` with so many patches each; `add` are files of this repository that
    all get.  Changes no tree.

    LabError where a patch does not apply to those before it, as it is (no fuzz).
    """
    every = patches(source.base.name, form)
    queue = f"queue/{source.base.name}" + (f"/series.{form}" if form else "")
    made = []
    for number in numbers:
        how = f"{queue} (patches 1 to {number})" if number else "as it is"
        diff = variant.queue_diff(source, every[:number]) if number else ""
        one = variant.make(f"step-{number:02}", how, variant.with_files(source, add, diff))
        made.append(Step(number, every[number - 1] if number else None, one))
    return made
