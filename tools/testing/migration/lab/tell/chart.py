# SPDX-License-Identifier: GPL-2.0
"""The first picture of the page of make report: defects down, bases across, and in each cell the
architectures, each with what is known of it and a link to what says so."""

from collections.abc import Mapping, Sequence

from lab.defect import Defect
from lab.tell import cells
from lab.tell.cells import Cell
from lab.tell.html import box, element, text
from lab.words import plural

# Marks of what is no verdict, and what they mean; what has a verdict has the mark of that.
MARKS = {
    cells.STALE: ("\u21bb", "shown with other selftests or patches than there are now, or with too "
                            "few boots"),
    cells.MISSING: ("\u25a1", "nobody has run it"),
    cells.NONE: ("\u00b7", "no selftest shows the defect, the base is older than it, or nothing "
                           "fixes it or takes the fix out"),
}
_CLASS = {"PROVED": "proved", cells.STALE: "stale", cells.MISSING: "missing", cells.NONE: "nothing"}
TITLE = "Defects, bases and architectures"


def draw(defects: Sequence[Defect], known: Sequence[Cell], verdicts: Mapping[str, tuple[str, str]],
         links: Mapping[tuple[str, str, bool], str]) -> str:
    """The picture.

    `verdicts` has the mark and the meaning of each verdict, `links` where on the page a run is, by
    when it began, its name, and whether it is a record.
    """
    bases = list(dict.fromkeys(cell.base for cell in known))
    place: dict[tuple[str, str], list[Cell]] = {}
    for cell in known:
        place.setdefault((cell.defect, cell.base), []).append(cell)
    head = '<td class="corner"></td>' + "".join(element("th", text(name), scope="col")
                                                for name in bases)
    body = ""
    # Those that no selftest shows come last.
    for one in sorted(defects, key=lambda one: not one.show.selftests):
        row = "".join(element("td", "".join(_chip(cell, verdicts, links)
                                            for cell in place.get((one.name, base), [])))
                      for base in bases)
        body += f"<tr>{element('th', text(one.name), scope='row')}{row}</tr>\n"
    made = box(f'<table class="chart">\n<caption>{TITLE}</caption>\n<thead><tr>{head}</tr></thead>'
               f"\n<tbody>\n{body}</tbody></table>", TITLE)
    return f"{_count(known)}\n{made}{_legend(known, verdicts)}"


def _chip(cell: Cell, verdicts: Mapping[str, tuple[str, str]],
          links: Mapping[tuple[str, str, bool], str]) -> str:
    """An architecture in a cell."""
    link = None
    if cell.run:
        link = next((f"#{links[key]}" for recorded in (False, True)
                     if (key := (cell.run.started, cell.run.name(), recorded)) in links), None)
    mark = (MARKS | dict(verdicts)).get(cell.state, ("?", ""))[0]
    said = f"{cell.defect} on {cell.base}, {cell.arch}: {cell.state}"
    return element("a" if link else "span",
                   f'<span aria-hidden="true">{mark}</span> {text(cell.arch)}'
                   f'<span class="unseen"> {text(cell.state)}</span>',
                   class_=f"chip {_CLASS.get(cell.state, 'other')}", href=link,
                   title=f"{said}: {cell.why}" if cell.why else said)


def _count(known: Sequence[Cell]) -> str:
    """In words, whether all is well."""
    wrong = [cell for cell in known if cell.state not in cells.GOOD]
    good = sum(cell.state == "PROVED" for cell in known)
    if not wrong:
        return f"<p>Each of the {plural(good, 'cells')} that can be proved is.</p>"
    parts = [plural(good, "cells") + (" is" if good == 1 else " are") + " proved"]
    for state in dict.fromkeys(cell.state for cell in wrong):
        parts.append(f"{sum(cell.state == state for cell in wrong)} {state}")
    return (f"<p>{text(', '.join(parts))}: what is missing or stale is proved by "
            "<code>make matrix</code>.</p>")


def _legend(known: Sequence[Cell], verdicts: Mapping[str, tuple[str, str]]) -> str:
    """What the marks mean, of those that are there."""
    states = [state for state in (*verdicts, *MARKS) if any(cell.state == state for cell in known)]
    items = "".join(element("li", element("span", (MARKS | dict(verdicts))[state][0],
                                          class_=f"chip {_CLASS.get(state, 'other')}")
                            + f" {text(state)}: {text((MARKS | dict(verdicts))[state][1])}")
                    for state in states)
    return f'<ul class="marks fine">{items}</ul>\n'
