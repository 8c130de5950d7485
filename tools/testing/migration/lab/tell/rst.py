# SPDX-License-Identifier: GPL-2.0
"""Renders records as reStructuredText for `make docs`.  Nothing of that is kept or read back."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from lab import arch as arches, base as bases, defect, scheme
from lab.judge.summary import Summary, special
from lab.tell import cells, plot, record, tables
from lab.tell.tables import Row
from lab.words import wrap

_HOT = ("Hot are the calls made while all writers write at full speed; one that moved nothing was "
        "made again, with writers that rest now and then.")


def pages(folder: Path = record.RECORDS) -> dict[str, str]:
    """All records in `folder` as pages, by their paths below Documentation/, without .rst."""
    kinds: dict[str, tuple[str, Callable[[Any], str]]] = {
        "mutants": ("mutants", mutants), "bench": ("bench", bench)}
    made = {}
    for path in sorted(folder.glob("*/*.json")):
        home, render = kinds.get(path.parent.name, (f"proofs/{path.parent.name}", None))
        made[f"{home}/{path.stem}"] = render(record.read(path)) if render else \
            proof(record.load(path))
    if runs := record.proofs(folder):
        made["proofs/boots"] = boots(runs)
    return made


def boots(runs: Sequence[Summary]) -> str:
    """How often each defect was booted on each base, and what was not."""
    title = "How often each was booted"
    lines = [".. SPDX-License-Identifier: GPL-2.0", "", title, "=" * len(title), "", *wrap(
        "Boots of each of the two kernels of a record, by base. In brackets are those of a record "
        "that is stale. \"none\" is what has no record, and \"-\" is where there is nothing to "
        "prove, as far as the lab knows without the source. Of DEBUG=1 and of other "
        "architectures only defects that have a record are told.")]
    said = [(run, record.stale(run)) for run in runs]
    for debug in (False, True):
        for name in sorted({run.arch for run in runs if run.debug == debug}):
            usual = name == arches.FIRST and not debug
            names = [one for one in defect.names() if usual or any(
                (run.defect, run.arch, run.debug) == (one, name, debug) and cells.counts(run)
                for run in runs)]
            if not names:       # all of another form, or of another kind of kernel
                continue
            known = cells.survey(list(map(defect.load, names)), bases.names(), [name], said,
                                 debug=debug)
            rows = [(one, *(_booted(cell) for cell in known if cell.defect == one))
                    for one in names]
            head = " ".join([name, *(["with DEBUG=1"] if debug else [])])
            lines += ["", head, "-" * len(head), "", *table(("defect", *bases.names()), rows)]
    return "\n".join(lines) + "\n"


def _booted(cell: cells.Cell) -> str:
    if not cell.run:
        return "-" if cell.state == cells.NONE else "none"
    least = min(kernel.boots for kernel in cell.run.both())
    return f"({least})" if cell.state == cells.STALE else str(least)


def proof(run: Summary) -> str:
    """The record of a proof."""
    lines = [*_head(run.defect, run.report(), f"{run.verdict}: {run.why}.", record.stale(run),
                    tables.kernels(run, "``")), "", *table(*_rows(tables.figures(run)))]
    for head, *rest in tables.shown(run):
        lines += ["", f"{head}::", "", *(f"    {line}" for line in rest)]
    hot = f" {_HOT}" if any(one.hot_calls for one in run.both()) else ""
    lines += ["", *wrap(f"By test, {run.counts} that {run.harm}, of all.{hot}"), "",
              *table(*_rows(tables.by_test(run)))]
    return "\n".join(lines) + "\n"


def mutants(told: dict[str, Any]) -> str:
    """The record of a run of mutants."""
    rows = told["mutants"]
    # Of the schemes of today: the model is of no version's source.
    modelled = scheme.mutants(scheme.load())

    def those(status: str) -> int:
        return sum(row["status"] == status for row in rows)

    def seen_by(row: dict[str, Any]) -> tuple[str, str, str]:
        kernel = [one for one in row["by"] if one.startswith("the kernel (")]
        tests = [one for one in row["by"] if one not in kernel]
        kinds = [one.removeprefix("the kernel (").removesuffix(")") for one in kernel]
        return (", ".join(tests) or "-", ", ".join(kinds) or "-",
                modelled.get(row["name"], "-"))

    seen = those("killed") + those("survived") + those("no result")
    facts = [("Fixed", told["fixed"])]
    if taken := told.get("taken_over"):
        facts.append(("Taken over", f"{taken['kernels']} of {taken['of']} kernels were booted in "
                                    f"an earlier run, on {' and '.join(taken['on'])}"))
    lines = [*_head("mutants", told,
                    f"Of {len(rows)} ways to break the fix, {those('not there')} are not there in "
                    f"this version, and {those('not observable')} cannot be seen in this guest. Of "
                    f"the other {seen}, the tests and the kernel's own checks saw "
                    f"{those('killed')}.", record.stale_mutants(told), facts), "",
             *table(("mutant", "", "boots", "by test", "by the kernel", "by the model"), [
                 (row["name"], row["status"],
                  f"{row['killed']} of {row['boots']}" if row["boots"] else "-",
                  *seen_by(row)) for row in rows]),
             "", "What they break", "===============", ""]
    for row in rows:
        said = [f"{row['breaks'][:1].upper()}{row['breaks'][1:]}."]
        if row["places"]:
            said.append("In " + ", ".join(f"``{place}``" for place in row["places"]) + ".")
        if row["complaint"]:
            said.append(f"The kernel says ``{row['complaint']}``.")
        if row["why"]:
            said.append(f"{row['status'].capitalize()}: {row['why']}.")
        lines += [row["name"], *wrap(" ".join(said), "    ", "    ")]
    return "\n".join(lines) + "\n"


def bench(told: dict[str, Any]) -> str:
    """The record of a bench."""
    lines = _head("bench of the check" if told.get("witness") else "bench", told,
                  "Each figure is the median of all boots, with the least and the most in brackets "
                  "where they differ. What is measured, and how, is in "
                  "Documentation/bench/index.rst."
                  + (" Times are those of TCG, and say little." if told["accel"] == "tcg" else ""),
                  record.stale_bench(told),
                  [*told["variants"].items(),
                   ("Boots", f"{told['rounds']} of each kernel, in turn")])
    if drawn := [plot.draw(one["title"], one["lines"], "sharers") for one in told.get("plots", ())]:
        lines += ["", ".. raw:: html", "", "    <p>", *(f"    {one}" for one in drawn), "    </p>"]
    for one in told["tables"]:
        lines += ["", *wrap(f"{one['title']}."), "",
                  *table(tuple(one["head"]), [tuple(row) for row in one["rows"]])]
    return "\n".join(lines) + "\n"


def _head(what: str, told: dict[str, Any], sentence: str, stale: str, facts: list[tuple[str, str]]
          ) -> list[str]:
    """What all records begin with, and the fields of a record."""
    title = ", ".join([f"{what}: {told['source']['version']}",
                       *special(told["arch"], bool(told.get("debug")), told["command"])])
    bar = "=" * len(title)
    said = [(name, f"``{text}``" if name == "Repeat" else text)
            for name, text in tables.facts(told, facts)]
    return [".. SPDX-License-Identifier: GPL-2.0", "", bar, title, bar, "", *wrap(sentence), "",
            *([*wrap(f"**Stale**: {stale}."), ""] if stale else []),
            *(line for name, text in said
              for line in f":{name}: {text}".replace("\n", "\n    ").split("\n"))]


def _rows(rows: list[Row]) -> tuple[Row, list[Row]]:
    return rows[0], rows[1:]


def table(head: Row, rows: list[Row]) -> list[str]:
    """A simple table; its first column may not be empty in rst, so that gets two dots."""
    cells = [tuple(cell or ".." for cell in row) for row in (head, *rows)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(head))]
    rule = " ".join("=" * width for width in widths)

    def line(row: tuple[str, ...]) -> str:
        return " ".join(f"{cell:{width}}" for cell, width in zip(row, widths)).rstrip()

    return [rule, line(cells[0]), rule, *(line(row) for row in cells[1:]), rule]
