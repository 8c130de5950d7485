# SPDX-License-Identifier: GPL-2.0
"""Tells a run on the terminal, at most 80 columns wide; paths and names are never broken."""

from pathlib import Path

from lab.judge.summary import Summary
from lab.tell import tables
from lab.words import percent, wrap


def summary(run: Summary, out: Path = Path("out")) -> str:
    """The result of a run, whose files are in `out`, for a person."""
    width = max(10, len(run.counts))
    lines = [*wrap(f"{run.defect}: {run.title}" if run.title else run.defect),
             *wrap(f"base {run.base}, {run.arch}, QEMU with {run.accel}"
                   + (", debug configuration" if run.debug else "")
                   + (f", tests of {run.tests}" if run.tests else "")), "",
             f"             boots   tests  failed  {run.counts:>{width}}  that {run.harm}"]
    spare: list[str] = []
    for name, one in run.variants.items():
        lines.append(f"{name:10}  {one.boots:6}  {one.tests:6}  {one.failed:6}  "
                     f"{one.migrations:{width}}  {one.lost_migrations:8}  "
                     f"({percent(one.lost_migrations, one.migrations)})")
        also = [*([f"{one.skipped} skipped of its tests"] if one.skipped else []),
                *([f"{one.inconclusive} inconclusive of its tests"] if one.inconclusive else []),
                *([f"its own checks say {said}"] if (said := tables.checks(one)) else [])]
        spare += wrap("; ".join([f"{name} kernel: {one.how}", *also]), "", "  ")
    lines += ["", *spare]
    # What the fixed kernel loses is the news, where it does.
    for name in reversed(run.variants):
        if lost := run.variants[name].example:
            head, *rest = tables.evidence(lost, name)
            lines += ["", head, *(f"  {line}" for line in rest)]
            break
    if wrong := tables.trouble(run):
        lines += ["", *(part for line in wrong for part in wrap(line, "", "    "))]
    lines += ["", *wrap(f"{run.verdict}: {run.why}", "", "  "), "",
              f"Results: {out}/verdict.json, {out}/junit.xml, and a folder a boot in {out}/",
              f"Repeat:  {run.command}"]
    return "\n".join(lines) + "\n"
