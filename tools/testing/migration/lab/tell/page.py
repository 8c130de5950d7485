# SPDX-License-Identifier: GPL-2.0
"""The page that `make report` writes: one file, no script, nothing to be loaded from elsewhere.

Made by functions and not by templates: there are few kinds of elements, a type checker sees what
goes into them, html.text() is the one way in for text, and nothing more has to be installed.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from lab.defect import Defect
from lab.judge import timeline
from lab.judge.summary import Summary
from lab.tell import chart, figure, tables
from lab.tell.cells import Cell
from lab.tell.figure import Picture
from lab.tell.html import box, element, table, text
from lab.words import plural

STYLE = Path(__file__).with_suffix(".css")
# Even if something got through that should not, a browser is to load nothing and run nothing.
_POLICY = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"
TITLE = "Page migration that loses writes"

# A mark for each verdict, and what it means; what is not here is shown like INCOMPLETE.
VERDICTS = {
    "PROVED": ("\u2713", "every boot of the vulnerable kernel showed the defect, no boot of the "
                         "fixed one did though its tests could have, and no log has a complaint"),
    "MISSED": ("\u25cb", "the vulnerable kernel passed: the test did not see the defect"),
    "REGRESSED": ("\u2717", "the fixed kernel showed the defect or failed a test"),
    "INCONCLUSIVE": ("?", "too little was counted to say anything"),
    "CRASHED": ("!", "a kernel crashed or complained in its log"),
    "TIMEOUT": ("\u2026", "a guest outlived its time"),
    "INCOMPLETE": ("\u2205", "a guest fell silent, or results are missing"),
    "SKIPPED": ("\u2013", "no test could run; the reason is given"),
}
NOT_PROVED = "not proved"


@dataclass(frozen=True)
class Proof:
    """A run, or a record of one, which may speak of other tests or patches than those of today."""

    run: Summary
    recorded: bool = False
    stale: str = ""

    def key(self) -> tuple[str, str]:
        return self.run.defect, self.run.source["version"]


def render(defects: Sequence[Defect], bases: Sequence[str], runs: Sequence[Proof],
           records: Sequence[Proof], unfinished: Sequence[str], now: datetime,
           known: Sequence[Cell] = ()) -> str:
    """The whole page."""
    proofs = {_anchor(proof, number): proof for number, proof in enumerate([*runs, *records], 1)}
    parts = [_header(proofs, now), _matrix(defects, bases, proofs, known), _runs(proofs, unfinished),
             _records(proofs), _key()]
    style = STYLE.read_text(encoding="utf-8").partition("*/")[2].strip()
    return "\n".join([
        "<!DOCTYPE html>", '<html lang="en">', "<head>", '<meta charset="utf-8">',
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        '<meta name="color-scheme" content="light dark">',
        f"<title>{TITLE}: what is proved</title>", f"<style>\n{style}\n</style>", "</head>",
        "<body>", *parts, "</body>", "</html>", ""])


def _anchor(proof: Proof, number: int) -> str:
    return f"{'record' if proof.recorded else 'run'}-{number}"


def _header(proofs: dict[str, Proof], now: datetime) -> str:
    runs = sum(not proof.recorded for proof in proofs.values())
    lead = ("Each verdict here is about two kernels, built from one source, that differ in one "
            "protection and in nothing else. The same tests run on both. PROVED is a defect that "
            "is seen in every boot of the kernel without the protection, and in no boot of the one "
            "with it.")
    drawn = [element("a", text(proof.run.name()), href=f"#{anchor}-picture")
             for anchor, proof in proofs.items() if pictures(proof)]
    shown = (f"<p>What happens to writes during a migration, drawn from what a test saw: "
             f"{', '.join(drawn)}.</p>"
             if drawn else "")
    made = (f"Made by make report, {now:%Y-%m-%d %H:%M} UTC, from {plural(runs, 'runs')} and "
            f"{plural(len(proofs) - runs, 'records')}.")
    return (f"<header>\n<h1>{TITLE}</h1>\n<p>{lead}</p>\n{shown}\n"
            f'<p class="fine">{made}</p>\n</header>\n<main>')


# ---- the matrix ----------------------------------------------------------------------------


def _matrix(defects: Sequence[Defect], bases: Sequence[str], proofs: dict[str, Proof],
            known: Sequence[Cell]) -> str:
    versions = columns(bases, proofs.values())
    names = [one.name for one in defects]
    rows = [(one.name, one.title, _range(one))
            for one in sorted(defects, key=lambda one: not one.show.selftests)]
    # Of a defect that this tree does not know any more a run is still a run.
    rows += [(name, "", "") for name in
             dict.fromkeys(proof.run.defect for proof in proofs.values()) if name not in names]
    head = '<td class="corner"></td>' + "".join(element("th", text(version), scope="col")
                                                for version in versions)
    body = ""
    for name, title, note in rows:
        row = element("th", f"<b>{text(name)}</b> <span>{text(title)}</span> "
                            f'<span class="fine">{text(note)}</span>', scope="row")
        for version in versions:
            row += _cell({anchor: proof for anchor, proof in proofs.items()
                          if proof.key() == (name, version)})
        body += f"<tr>{row}</tr>\n"
    links = {(proof.run.started, proof.run.name(), proof.recorded): anchor
             for anchor, proof in proofs.items()}
    drawn = chart.draw(defects, known, VERDICTS, links) if known else ""
    lead = ("<p>A row is a defect, a column a kernel. Below a verdict are the migrations that did "
            "harm, or what else was counted, on the vulnerable kernel and then on the fixed one. "
            "What is stale was proved with other tests or patches than there are now.</p>")
    made = box('<table class="matrix">\n<caption>Defects and kernels</caption>\n'
               f"<thead><tr>{head}</tr></thead>\n<tbody>\n{body}</tbody></table>",
               "Defects and kernels")
    return ('<section>\n<h2 id="matrix">What is proved, of which kernel</h2>\n'
            f"{drawn}{lead}\n{made}</section>")


def _range(one: Defect) -> str:
    shown = "" if one.show.selftests else "; no test shows it, make audit finds it"
    return f"{one.versions()}{shown}"


def columns(bases: Sequence[str], proofs: Iterable[Proof]) -> list[str]:
    """The versions that anything is said of, and the bases of which nothing is, newest first."""
    versions = {proof.key()[1] for proof in proofs}
    bare = {name for name in bases
            if not any(f"{version}.".startswith(f"{name}.") for version in versions)}
    return sorted(versions | bare, key=_in_order, reverse=True)


def _in_order(version: str) -> tuple[list[int], str]:
    numbers = version.replace("-", ".").split(".")
    return [int(word) if word.isdecimal() else -1 for word in numbers], version


def _cell(proofs: dict[str, Proof]) -> str:
    """The newest run of each configuration, and its record if that says anything else."""
    said = []
    # The usual one first.
    for special in sorted({tuple(proof.run.special()) for proof in proofs.values()}):
        runs = {anchor: proof for anchor, proof in proofs.items()
                if tuple(proof.run.special()) == special and not proof.recorded}
        records = {anchor: proof for anchor, proof in proofs.items()
                   if tuple(proof.run.special()) == special and proof.recorded}
        newest = list(runs.items())[:1]
        same = [proof for proof in records.values() for _, run in newest
                if (proof.run.verdict, proof.run.why) == (run.run.verdict, run.run.why)]
        for anchor, proof in newest:
            said.append(_entry(anchor, proof, "run, recorded" if same else "run"))
        if len(runs) > 1:
            said.append(f'<div class="fine">{plural(len(runs) - 1, "older runs")}</div>')
        if not same:
            said += [_entry(anchor, proof, "recorded") for anchor, proof in records.items()]
    if not said:
        return f'<td class="none">{NOT_PROVED}</td>'
    return element("td", "".join(said))


def _entry(anchor: str, proof: Proof, origin: str) -> str:
    run = proof.run
    fine = [tables.harmed(one).partition(" (")[0] for one in run.both()]
    fine.append(", ".join([*run.special(),
                           plural(run.variants["vulnerable"].boots, "boots"), origin,
                           *(["stale"] if proof.stale else [])]))
    return element("div", verdict(run.verdict, f"#{anchor}")
                   + "".join(f'<span class="fine">{text(line)}</span>' for line in fine))


def verdict(word: str, link: str | None = None) -> str:
    """A verdict with its mark: told apart by word, mark and border as well as by colour."""
    mark = VERDICTS.get(word, VERDICTS["INCOMPLETE"])[0]
    return element("a" if link else "span", f'<span aria-hidden="true">{mark}</span> {text(word)}',
                   class_=f"verdict {'proved' if word == 'PROVED' else 'other'}", href=link)


# ---- runs and records ----------------------------------------------------------------------


def _runs(proofs: dict[str, Proof], unfinished: Sequence[str]) -> str:
    parts = [_article(anchor, proof) for anchor, proof in proofs.items() if not proof.recorded]
    if unfinished:
        parts.append("<p>Without a verdict, so interrupted or still at work: "
                     f"{text(', '.join(unfinished))}.</p>")
    if not parts:
        parts.append("<p>None: this page is of records alone. make prove adds one.</p>")
    return f'<section>\n<h2 id="runs">Runs</h2>\n{"".join(parts)}</section>'


def _records(proofs: dict[str, Proof]) -> str:
    parts = [_article(anchor, proof) for anchor, proof in proofs.items() if proof.recorded]
    if not parts:
        return ""
    lead = ("<p>Only what is PROVED is recorded, and a record has figures but no logs.</p>")
    return f'<section>\n<h2 id="records">Recorded proofs</h2>\n{lead}\n{"".join(parts)}</section>'


def _article(anchor: str, proof: Proof) -> str:
    run = proof.run
    parts = [f'<h3 id="{anchor}">{text(run.name())}</h3>',
             f"<p>{verdict(run.verdict)} {text(_sentence(run.why))}</p>"]
    if proof.stale:
        parts.append(f"<p><b>Stale</b>: {text(proof.stale)}.</p>")
    if trouble := tables.trouble(run):
        parts.append(element("ul", "".join(element("li", text(line)) for line in trouble)))
    parts.append(_pictures(anchor, proof))
    head, *rows = tables.figures(run)
    parts.append(table(head, rows, f"Figures of {run.name()}", class_="figures"))
    parts.append(_facts(tables.facts(run.report(), tables.kernels(run))))
    for title, *lines in tables.shown(run):
        parts.append(f"<h4>{text(title)}</h4>\n"
                     + box(element("pre", text("\n".join(lines))), title))
    head, *rows = tables.by_test(run)
    if rows:
        parts.append(f"<details><summary>{text(run.counts.capitalize())} that {text(run.harm)}, of "
                     f"all, by test</summary>\n{table(head, rows, f'Tests of {run.name()}')}"
                     "</details>")
    return element("article", "\n".join(part for part in parts if part)) + "\n"


def pictures(proof: Proof) -> list[Picture]:
    """What can be drawn of a run, both kernels of a test together, most processes first."""
    seen = [{one.test: one for one in timeline.load(kernel.timelines)}
            for kernel in proof.run.both()]
    tests = list(dict.fromkeys(name for kernel in seen for name in kernel))
    return sorted((Picture(test, seen[0].get(test), seen[1].get(test)) for test in tests),
                  key=lambda one: (one.vulnerable is None or one.fixed is None, -one.processes()))


def _pictures(anchor: str, proof: Proof) -> str:
    if proof.recorded:
        return ""
    seen = pictures(proof)
    if not seen:
        return '<p class="fine">No timeline: none of the tests of this run printed one.</p>'
    first, *others = (figure.draw(f"{anchor}-{number}", picture)
                      for number, picture in enumerate(seen, 1))
    lossy = any(one.window() for picture in seen for one in picture.timelines())
    title = "How writes are lost" if lossy else "One migration, as a test saw it"
    made = f'<h4 id="{anchor}-picture">{title}</h4>\n{first}'
    for picture, other in zip(seen[1:], others):
        made += (f"<details><summary>The same of {text(picture.short())}</summary>{other}"
                 "</details>")
    return made


def _sentence(said: str) -> str:
    return f"{said[:1].upper()}{said[1:]}."


def _facts(facts: Sequence[tuple[str, str]]) -> str:
    rows = ""
    for name, value in facts:
        first, *rest = value.split("\n")
        inside = text(first) + "".join(f"<br>{text(line)}" for line in rest)
        if name == "Repeat":
            inside = f"<code>{inside}</code>"
        rows += f"<dt>{text(name)}</dt><dd>{inside}</dd>\n"
    return f"<dl>\n{rows}</dl>"


def _key() -> str:
    rows = "".join(f"<dt>{verdict(word)}</dt><dd>{text(means)}</dd>\n"
                   for word, (_, means) in VERDICTS.items())
    rows += (f"<dt>{NOT_PROVED}</dt><dd>there is no run and no record of it: nothing is known, "
             "good or bad</dd>\n")
    return ('<section>\n<h2 id="verdicts">What the verdicts mean</h2>\n'
            f'<dl class="key">\n{rows}</dl>\n'
            "</section>\n</main>")
