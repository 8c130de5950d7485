# SPDX-License-Identifier: GPL-2.0
"""What it costs to migrate a huge page of a shared PMD table, on each form of a queue.

The forms are queue/<base>/series and those beside it, such as series.flush; the kernel as released
stands beside them.  All are built from one source and booted in turn, A B
A B, so that what the machine does meanwhile is spread over all.  In each guest
lab/guest/hugetlb_pmd_bench.c measures and prints sums.  Here they are divided, and told as the
median of all boots, with the least and the most.

With WITNESS=1 it is the cost of the check of lab.kernel.unmapped that is measured: on one form,
without it, with it while it is off, and while it is on.

The figures are no verdict: times under TCG say little, counts say more.
"""

import dataclasses
import json
import re
import shutil
import statistics
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from lab import provenance, trial
from lab.arch import Arch
from lab.errors import LabError
from lab.guest import qemu
from lab.judge.verdict import Boot
from lab.kernel import build, unmapped, variant
from lab.kernel.source import Source
from lab.kernel.variant import Variant
from lab.paths import HOME, replace
from lab.progress import Progress
from lab.tell import rst
from lab.trial import Trial
from lab.wanted import Wanted
from lab.words import plural

PROGRAM = HOME / "lab" / "guest" / "hugetlb_pmd_bench.c"

# Of one line: its figures by name; None is what that machine does not count.
Figures = dict[str, int | None]
# What is measured: "call", "asleep", sharers.
Key = tuple[str, str, int]


@dataclass(frozen=True)
class Column:
    """A figure of a table: a sum, divided by another and by `unit`."""

    title: str
    name: str
    per: str = ""
    unit: float = 1


@dataclass(frozen=True)
class Table:
    """What is told of one kind of measurement."""

    title: str
    columns: tuple[Column, ...]


def _counts(per: str) -> tuple[Column, ...]:
    return Column("CAL", "cal", per), Column("TLB", "tlb", per)


_MORE = (Column("faults", "faults", "moved"), Column("switches", "switches", "moved"))
# What is drawn as well.
PLOTTED = (Column("calls that moved the page, %", "moved", "calls", 0.01),
           Column("interrupts (CAL) for each page moved", "cal", "moved"),
           Column("faults of all for each page moved", "faults", "moved"))
TABLES = {
    "call": Table("A page is moved: calls that moved it, time of a call; the rest for each page "
                  "moved", (
        Column("moved %", "moved", "calls", 0.01), Column("ms", "us", "calls", 1000),
        *_counts("moved"), *_MORE)),
    "fork": Table("A child is forked, joins the table, and exits: for each child", (
        Column("ms", "us", "children", 1000), *_counts("children"))),
    "offline": Table("A memory block goes offline and online again: in all", (
        Column("pages", "pages"), Column("at first try %", "first", "", 0.01),
        Column("offline ms", "us", "", 1000), Column("online ms", "online_us", "", 1000),
        *_counts(""), Column("faults", "faults"), Column("switches", "switches"))),
}


def measure(figures: dict[str, str]) -> tuple[Key, Figures]:
    """One line of figures as the guest printed it; LabError where it is not whole."""
    text = " ".join(f"{name}={value}" for name, value in figures.items())
    what = figures.get("what", "")
    if what not in TABLES:
        raise LabError(f"the bench printed an unknown line: '{text}'")
    values: Figures = {}
    for name, value in figures.items():
        if name in ("what", "state"):
            continue
        if not re.fullmatch(r"-?[0-9]+|-", value):
            raise LabError(f"the bench printed {name}={value}, which is not a number: '{text}'")
        values[name] = None if value == "-" else int(value)
    needed = {"sharers", *(word for column in TABLES[what].columns
                           for word in (column.name, column.per) if word)}
    if lacks := sorted(needed - values.keys()):
        raise LabError(f"the bench printed no {lacks[0]}: '{text}'")
    return (what, figures.get("state", "hot" if what == "offline" else "asleep"),
            values.pop("sharers") or 0), values


def measures(boot: Boot) -> dict[Key, Figures]:
    """All that a boot has measured; LabError where it did not come to its end, or failed."""
    console = str(Path(boot.folder) / "console.log")
    if boot.complaints:
        raise LabError(f"the {boot.variant} kernel said: {boot.complaints[0].text}", console)
    if boot.state != "DONE":
        problems = boot.transcript.problems()
        raise LabError(f"boot {boot.number} of the {boot.variant} kernel: {boot.state}"
                       + (f", {problems[0]}" if problems else ""), console)
    tests = boot.tests()
    if bad := [test for test in tests if test.outcome not in ("pass", "skip")]:
        raise LabError(f"boot {boot.number} of the {boot.variant} kernel: {bad[0].name} failed",
                       console)
    made = dict(measure(test.figures) for test in tests if test.outcome == "pass")
    if not made:
        raise LabError(f"the {boot.variant} kernel measured nothing: {tests[0].reason}", console)
    return made


@dataclass(frozen=True)
class Kind:
    """A kernel to compare."""

    variant: Variant
    options: tuple[str, ...] = ()
    cmdline: str = ""


def kinds(source: Source, witness: bool) -> tuple[Kind, ...]:
    """The kernels to compare; with the `witness` it is one form of the queue, three times."""
    forms = variants(source)
    if not witness:
        return tuple(map(Kind, forms))
    form = next((one for one in forms if one.name == "series"), forms[-1])
    checked = unmapped.added(source, form)
    return (Kind(form),
            Kind(dataclasses.replace(checked, name="check-off"), unmapped.OPTIONS),
            Kind(dataclasses.replace(checked, name="check-on"), unmapped.OPTIONS, unmapped.CMDLINE))


def variants(source: Source) -> tuple[Variant, ...]:
    """The kernels to compare: the release, and each form of the queue."""
    forms = [path.name for path in sorted((variant.QUEUE / source.base.name).glob("series*"))
             if re.fullmatch(r"series(\.\w+)?", path.name)]
    if not forms:
        raise LabError(f"there is no queue/{source.base.name}: nothing to compare")
    made = [variant.make("released", "as it is", "")]
    for form in forms:
        patches = variant.series(source.base.name, form)
        made.append(variant.make(form, f"queue/{source.base.name}/{form} "
                                       f"({plural(len(patches), 'patches')})",
                                 variant.queue_diff(source, patches)))
    return tuple(made)


def run(wanted: Wanted, arch: Arch, progress: Progress) -> dict[str, Any]:
    """Build, boot each kernel wanted.boots times in turn, and write bench.json to wanted.out."""
    started = datetime.now(timezone.utc)
    shown = dataclasses.replace(wanted.defect.show, selftests=(PROGRAM.stem,))
    wanted = dataclasses.replace(wanted, defect=dataclasses.replace(wanted.defect, show=shown))
    source = trial.find_source(wanted, progress)
    progress.step(f"making the variants of {source.version}")
    asked = kinds(source, trial.has_witness(wanted, source))
    ones = [kind.variant for kind in asked]
    progress.done("; ".join(f"{one.name}: {one.how}" for one in ones))
    initrd = trial.image(wanted, source, {}, arch, progress, PROGRAM)
    made = [build.kernel(source, kind.variant, arch, wanted.debug, progress, kind.options)
            for kind in asked]
    accel = qemu.choose_accel(wanted.accel, arch, made[0].image, initrd, progress)
    kernels = [Trial(_with(wanted, kind.cmdline), source, kind.variant, kernel, initrd, arch, accel)
               for kind, kernel in zip(asked, made)]
    home = wanted.out / f"{started:%Y%m%d-%H%M%S}-bench-{source.version}"
    origin = provenance.of_run(arch, (), [one.how for one in ones], (PROGRAM,))
    rounds: dict[str, list[dict[Key, Figures]]] = {one.name: [] for one in ones}
    try:
        for kernel in kernels:
            kernel.keep(home / kernel.name)
        for number in range(1, wanted.boots + 1):
            for kernel in kernels:
                boot = kernel.boot(home / kernel.name, number, progress)
                progress.done(boot.state)
                rounds[kernel.name].append(measures(boot))
    except KeyboardInterrupt:
        shutil.rmtree(home, ignore_errors=True)
        raise
    keys = dict.fromkeys(key for boots in rounds.values() for boot in boots for key in boot)
    measurements = [{"what": what, "state": state, "sharers": sharers,
                     "boots": {name: [boot[what, state, sharers] for boot in boots
                                      if (what, state, sharers) in boot]
                               for name, boots in rounds.items()}}
                    for what, state, sharers in keys]
    report = {
        "command": wanted.command, "source": source.identity, "arch": arch.name, "accel": accel,
        "compiler": made[0].identity["compiler"], "started": started.isoformat(),
        "rounds": wanted.boots, "witness": wanted.witness,
        "variants": {one.name: one.how for one in ones},
        "provenance": dataclasses.asdict(origin), "measurements": measurements,
        "tables": tables(measurements), "plots": plots(measurements)}
    replace(wanted.out / "bench.json", json.dumps(report, indent=1) + "\n")
    return report


def _with(wanted: Wanted, cmdline: str) -> Wanted:
    """The same with more on the command line of the kernel."""
    kernel = wanted.defect.kernel
    words = " ".join(filter(None, [kernel.cmdline, cmdline]))
    return dataclasses.replace(wanted, defect=dataclasses.replace(
        wanted.defect, kernel=dataclasses.replace(kernel, cmdline=words)))


def cell(column: Column, boots: list[Figures]) -> str:
    """Median, and where boots differ the least and the most of them; "-" where there is nothing."""
    values = of_boots(column, boots)
    if not values:
        return "-"
    low, middle, high = (_number(value) for value in (min(values), statistics.median(values),
                                                      max(values)))
    return middle if low == high else f"{middle} ({low}..{high})"


def of_boots(column: Column, boots: list[Figures]) -> list[float]:
    """What the column says of each boot that counted it."""
    values = []
    for figures in boots:
        value, per = figures[column.name], figures[column.per] if column.per else 1
        if value is not None and per:
            values.append(value / per / column.unit)
    return values


def _number(value: float) -> str:
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}".removesuffix(".0")


def tables(measurements: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """What was measured, as tables: title, head and rows of each."""
    made: list[dict[str, Any]] = []
    for what, one in TABLES.items():
        rows = [[f"{row['state']}, {row['sharers']}", name,
                 *(cell(column, boots) for column in one.columns)]
                for row in measurements if row["what"] == what
                for name, boots in row["boots"].items()]
        if rows:
            made.append({"title": one.title, "rows": rows, "head": [
                "sharers", "kernel", *(column.title for column in one.columns)]})
    return made


def plots(measurements: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """What is drawn: how the figures of PLOTTED grow with those who share, on each kernel."""
    made: list[dict[str, Any]] = []
    rows = [row for row in measurements if row["what"] == "call"]
    for state in dict.fromkeys(row["state"] for row in rows):
        for column in PLOTTED:
            lines: dict[str, list[tuple[int, float]]] = {}
            for row in rows:
                for name, boots in row["boots"].items():
                    values = of_boots(column, boots) if row["state"] == state else []
                    if values:
                        lines.setdefault(name, []).append((row["sharers"],
                                                           statistics.median(values)))
            if any(len(points) > 1 for points in lines.values()):
                made.append({"title": f"{column.title}, {state}", "lines": lines})
    return made


def summary(report: dict[str, Any]) -> str:
    """What is told on the terminal."""
    lines = [f"{report['source']['version']}, {report['arch']}, QEMU with {report['accel']}; "
             f"median of {report['rounds']} boots (least..most)", ""]
    for one in report["tables"]:
        lines += [f"{one['title']}.", "",
                  *rst.table(tuple(one["head"]), [tuple(row) for row in one["rows"]]), ""]
    return "\n".join(lines)
