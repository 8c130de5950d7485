# SPDX-License-Identifier: GPL-2.0
"""Writes what a run showed into Documentation/: of `make prove` from its verdict.json into proofs/,
of `make mutants` from its mutants.json into mutants/.

Nobody types a figure: a record is made by `make record`, one file a defect, version and
configuration, and another run of the same takes the place of the last.  What is written of a proof
can be read again, and is kept nowhere else.
"""

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lab.errors import LabError
from lab.paths import REPO

PROOFS = REPO / "Documentation" / "proofs"
MUTANTS = REPO / "Documentation" / "mutants"
_WIDTH = 80
_HEAD = (".. SPDX-License-Identifier: GPL-2.0", ".. Made by ``make record``; do not edit.")
# In a record, in this order; what a kernel said of itself may come in between.
_FIELDS = ("Repeat", "Source", "Vulnerable", "Fixed", "Compiler", "Guest", "Date")

Row = tuple[str, ...]


@dataclass(frozen=True)
class Record:
    """What a record says.  A table is its head and its rows; the field of a kernel has lines."""

    defect: str
    version: str
    debug: bool
    verdict: str
    why: str
    fields: dict[str, str]
    figures: list[Row]
    by_test: list[Row]


def last(out: Path) -> Path:
    """Write the record of the last run in `out`, a proof or one of mutants; returns its file."""
    began = {}
    for name in ("verdict.json", "mutants.json"):
        if (out / name).exists():
            began[str(_load(out / name)["started"])] = name
    return write_mutants(out) if began and began[max(began)] == "mutants.json" else write(out)


def _load(path: Path) -> dict[str, Any]:
    """The report of a run."""
    try:
        report: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except OSError as err:
        raise LabError(f"{path}: {err.strerror}: run make prove first, or name its OUT=") from err
    except ValueError as err:
        raise LabError(f"{path} cannot be read: run make prove again") from err
    return report


def _name(version: str, debug: bool) -> str:
    return f"{version}{'-debug' if debug else ''}.rst"


def _version(report: dict[str, Any]) -> str:
    return _name(report["source"]["version"], report["debug"])


def write(out: Path, folder: Path = PROOFS) -> Path:
    """Write the record of the last run in `out`; returns its file.

    LabError where there is no run, or one that is no proof: only what is PROVED is recorded.
    """
    path = out / "verdict.json"
    report = _load(path)
    if report["verdict"] != "PROVED":
        raise LabError(f"{path} says {report['verdict']}: only what is PROVED is recorded")
    dest: Path = folder / report["defect"] / _version(report)
    dest.parent.mkdir(parents=True, exist_ok=True)
    dest.write_text(text(report), encoding="utf-8")
    return dest


def write_mutants(out: Path, folder: Path = MUTANTS) -> Path:
    """Write the record of the last run of mutants in `out`; returns its file.

    Also what survived is recorded.  LabError where there is no run, one that did not come to its
    end, or one of a single mutant.
    """
    path = out / "mutants.json"
    report = _load(path)
    if any(row["status"] == "not run" for row in report["mutants"]):
        raise LabError(f"{path} is of a run that did not come to its end: make mutants RESUME=1 "
                       "goes on with it")
    if not report["whole"]:
        raise LabError(f"{path} is of one mutant only: run make mutants without MUTANT=")
    dest = folder / _version(report)
    dest.parent.mkdir(parents=True, exist_ok=True)
    dest.write_text(mutants_text(report), encoding="utf-8")
    return dest


def read(path: Path) -> Record:
    """What the record of a proof says.

    LabError where it is not as write() left it: a figure that was typed is none.
    """
    try:
        return _parse(path, path.read_text(encoding="utf-8").split("\n"))
    except OSError as err:
        raise LabError(f"{path}: {err.strerror}") from err
    except (IndexError, ValueError) as err:
        raise LabError(f"{path} is not as make record writes it ({err}): git checkout it, or make "
                       "the proof and the record again") from err


def _parse(path: Path, lines: list[str]) -> Record:
    title = lines[4]
    bar = "=" * len(title)
    _must(lines[:7] == [*_HEAD, "", bar, title, bar, ""], "its head")
    _must(lines[-1] == "", "its end")
    named = re.fullmatch(r"([\w-]+): (\S+?)(, DEBUG=1)?", title)
    if not named:
        raise ValueError("its title")
    defect, version, debug = named[1], named[2], bool(named[3])
    _must((path.parent.name, path.name) == (defect, _name(version, debug)), "its title or name")

    rest = lines[7:]
    told = re.fullmatch(r"([A-Z]+): (.+)\.", " ".join(rest[:rest.index("")]))
    if not told or told[1] != "PROVED" or wrap(told[0]) != rest[:rest.index("")]:
        raise ValueError("its verdict")
    rest = rest[rest.index("") + 1:]
    fields: dict[str, str] = {}
    for line in rest[:rest.index("")]:
        if field := re.fullmatch(r":([A-Z][^:]*): (.+)", line):
            _must(field[1] not in fields, f"two of :{field[1]}:")
            fields[field[1]] = field[2]
        else:
            _must(line.startswith("    ") and bool(fields), f"the line {line!r}")
            fields[list(fields)[-1]] += "\n" + line.strip()
    _must(tuple(name for name in fields if name in _FIELDS) == _FIELDS, "its fields")
    fields["Repeat"] = fields["Repeat"].removeprefix("``").removesuffix("``")

    figures, rest = _read_table(rest[rest.index("") + 1:])
    _must(figures[0] == ("", "vulnerable", "fixed"), "the head of its figures")
    _must(rest[0] == "" and rest[1].startswith("By test") and "" in rest[1:], "what follows")
    by_test, rest = _read_table(rest[rest.index("", 1) + 1:])
    _must(rest == [""], "what is behind its last table")
    return Record(defect, version, debug, told[1], told[2], fields, figures, by_test)


def _must(good: bool, what: str) -> None:
    if not good:
        raise ValueError(what)


def _read_table(lines: list[str]) -> tuple[list[Row], list[str]]:
    """The simple table that `lines` begin with, without its rules, and the lines behind it."""
    end = lines.index(lines[0], 3)
    columns = [match.span() for match in re.finditer("=+", lines[0])]
    rows = []
    for line in (lines[1], *lines[3:end]):
        cells = [line[start:stop].strip() for start, stop in columns]
        rows.append(tuple("" if cell == ".." else cell for cell in cells))
    _must(bool(columns) and table(rows[0], rows[1:]) == lines[:end + 1], "a table")
    return rows, lines[end + 1:]


def text(report: dict[str, Any]) -> str:
    """The record of one run, as reStructuredText."""
    source = report["source"]
    variants = report["variants"]
    lines = [*_head(report["defect"], report),
             *wrap(f"{report['verdict']}: {report['why']}."), "",
             f":Repeat: ``{command(report)}``",
             f":Source: {source_name(source)}",
             f":Vulnerable: {variants['vulnerable']['how']}",
             *(f"    {place}" for place in variants["vulnerable"]["places"]),
             f":Fixed: {variants['fixed']['how']}",
             *_symptoms(variants),
             f":Compiler: {report['compiler']}",
             f":Guest: {report['arch']}, QEMU with {report['accel']}",
             f":Date: {report['started'][:10]}", ""]
    head, *rows = figures(report)
    lines += table(head, rows)
    if any(variant["hot_calls"] for variant in variants.values()):
        lines += ["", "By test. Hot are the calls made while all writers write at full speed; one that",
                  "moved nothing was made again, with writers that rest now and then.", ""]
    else:
        lines += ["", "By test:", ""]
    head, *rows = by_test(report)
    lines += table(head, rows)
    return "\n".join(lines) + "\n"


def figures(report: dict[str, Any]) -> list[Row]:
    """The figures of a run, of both kernels: a head and rows."""
    return [("", "vulnerable", "fixed"),
            *_rows(report["variants"], report.get("harm", "lost writes"))]


def by_test(report: dict[str, Any]) -> list[Row]:
    """The figures of each test: a head and rows; a column that says nothing of any is left out."""
    rows = _by_test(report["variants"])
    head = ("test", "vulnerable: lost", "fixed: lost", "fixed: hot calls that moved",
            "fixed: also counted")
    told = [column for column in range(len(head))
            if any(row[column] != "-" for row in rows)]
    return [tuple(row[column] for column in told) for row in (head, *rows)]


def source_name(source: dict[str, str]) -> str:
    """Which source it was, in a line."""
    if "package" in source:
        return f"{source['package']} {source.get('package_version', '')}".strip()
    return f"a tree of {source['version']}, contents sha256 {source['sha256'][:16]}"


def mutants_text(report: dict[str, Any]) -> str:
    """The record of a run of mutants, as reStructuredText."""
    rows = report["mutants"]

    def those(status: str) -> int:
        return sum(row["status"] == status for row in rows)

    seen = those("killed") + those("survived") + those("no result")
    # A report of before boots could be taken over has neither measure nor ran.
    booted = [report.get("measure", {}), *(row for row in rows if row["boots"])]
    ran = [one.get("ran", report["started"]) for one in booted]
    before = [began[:10] for began in ran if began != report["started"]]
    lines = [*_head("mutants", report),
             *wrap(f"Of {len(rows)} ways to break the fix, {those('not there')} are not there in "
                   f"this version, and {those('not observable')} cannot be seen in this guest. Of "
                   f"the other {seen}, the tests and the kernel's own checks saw "
                   f"{those('killed')}."), "",
             f":Repeat: ``{command(report)}``",
             f":Source: {source_name(report['source'])}",
             f":Fixed: {report['fixed']}",
             f":Compiler: {report['compiler']}",
             f":Guest: {report['arch']}, QEMU with {report['accel']}",
             f":Date: {report['started'][:10]}",
             *([f":Taken over: {len(before)} of {len(booted)} kernels were booted in an earlier "
                f"run, on {' and '.join(sorted(set(before)))}"] if before else []), ""]
    lines += table(("mutant", "", "boots", "by"), [
        (row["name"], row["status"],
         f"{row['killed']} of {row['boots']}" if row["boots"] else "-",
         ", ".join(row["by"]) or "-") for row in rows])
    lines += ["", "What they break", "===============", ""]
    for row in rows:
        told = [f"{row['breaks'][:1].upper()}{row['breaks'][1:]}."]
        if row["places"]:
            told.append("In " + ", ".join(f"``{place}``" for place in row["places"]) + ".")
        if row["complaint"]:
            told.append(f"The kernel says ``{row['complaint']}``.")
        if row["why"]:
            told.append(f"{row['status'].capitalize()}: {row['why']}.")
        lines += [row["name"], *(f"    {line}" for line in wrap(" ".join(told), _WIDTH - 4))]
    return "\n".join(lines) + "\n"


def _head(what: str, report: dict[str, Any]) -> list[str]:
    title = f"{what}: {report['source']['version']}" + (", DEBUG=1" if report["debug"] else "")
    bar = "=" * len(title)
    return [*_HEAD, "", bar, title, bar, ""]


def _symptoms(variants: dict[str, Any]) -> list[str]:
    """What a kernel said of itself that was to be expected of it."""
    lines = []
    for name, variant in variants.items():
        told = [run["symptoms"][0]["text"] for run in variant["runs"] if run.get("symptoms")]
        if told:
            same = told.count(told[0])
            more = f"; something else in {len(told) - same}" if same < len(told) else ""
            lines.append(f":The {name} kernel's own checks: in {same} of {variant['boots']} "
                         f"boots, ``{told[0]}``{more}")
    return lines


def wrap(sentence: str, width: int = _WIDTH) -> list[str]:
    """The lines of a sentence."""
    lines, line = [], ""
    for word in sentence.split():
        if line and len(line) + 1 + len(word) > width:
            lines.append(line)
            line = word
        else:
            line = f"{line} {word}".strip()
    return [*lines, line]


def command(report: dict[str, Any]) -> str:
    """The command, with a path that is nobody's own."""
    given: str = report["command"]
    return re.sub(r"KERNEL=\S+", f"KERNEL=/path/to/{report['source']['version']}", given)


def _share(part: int, whole: int) -> str:
    return f"{part} of {whole}" + (f" ({100 * part / whole:.2f} %)" if whole and part else "")


def _rows(variants: dict[str, Any], harm: str) -> list[Row]:
    both = [variants["vulnerable"], variants["fixed"]]

    def seconds(variant: dict[str, Any]) -> str:
        all_of_them = [run["seconds"] for run in variant["runs"]]
        return f"{min(all_of_them):.0f} to {max(all_of_them):.0f}"

    def first(variant: dict[str, Any]) -> str:
        seen = [run["first_ms"] / 1000 for run in variant["runs"] if run.get("first_ms")]
        return f"{min(seen):.1f} to {max(seen):.1f}" if seen else "-"

    return [
        ("boots", *(str(one["boots"]) for one in both)),
        ("boots with a failed test",
         *(str(sum(1 for run in one["runs"] if run["failed"])) for one in both)),
        ("tests that failed", *(f"{one['failed']} of {one['tests']}" for one in both)),
        ("tests skipped", *(str(one["skipped"]) for one in both)),
        (f"migrations that {harm}",
         *(_share(one["lost_migrations"], one["migrations"]) for one in both)),
        ("migrations in tests that cannot show it",
         *(str(one["control_migrations"]) for one in both)),
        *([("hot calls that moved a page",
            *(_share(one["hot_moved"], one["hot_calls"]) if one["hot_calls"] else "-"
              for one in both))] if any(one["hot_calls"] for one in both) else []),
        *([("seconds until it was seen", *(first(one) for one in both))]
          if any(first(one) != "-" for one in both) else []),
        ("seconds a boot", *(seconds(one) for one in both)),
    ]


def _by_test(variants: dict[str, Any]) -> list[Row]:
    vulnerable, fixed = variants["vulnerable"]["by_test"], variants["fixed"]["by_test"]
    rows = []
    # What all tests are called behind their variant, "lost_write", tells them not apart.
    names = dict.fromkeys((*vulnerable, *fixed))
    ends = {name.rsplit(".", 1)[-1] for name in names}
    once = len({name.rsplit(".", 1)[0] for name in names}) == len(names)
    for name in names:
        old, new = vulnerable.get(name), fixed.get(name)
        if new is None or new["skipped"] == new["runs"] and (
                old is None or old["skipped"] == old["runs"]):
            continue
        counts = any(one["migrations"] or one["control_migrations"] for one in (old, new) if one)
        lost = [_lost(one, counts) for one in (old, new)]
        also = ", ".join(f"{key} {value}" for key, value in new.get("also", {}).items()) or "-"
        hot = f"{new['hot_moved']} of {new['hot_calls']}" if new["hot_calls"] else "-"
        short = name.rsplit(".", 1)[0] if once or len(ends) == 1 else name.split(".", 1)[1]
        rows.append((short.removeprefix("hugetlb_pmd_"), *lost, hot, also))
    return rows


def _lost(test: dict[str, Any] | None, counts: bool) -> str:
    """What a test lost on one of the kernels; `counts` if it counts migrations."""
    if test is None:
        return "not run"
    if test["skipped"] == test["runs"]:
        return "skipped"
    if not counts:
        return f"failed in {test['failed']} of {test['runs']} boots"
    return f"{test['lost_migrations']} of {test['migrations'] or test['control_migrations']}"


def table(head: Row, rows: list[Row]) -> list[str]:
    """A simple table; its first column may not be empty in rst, so that gets two dots."""
    cells = [tuple(cell or ".." for cell in row) for row in (head, *rows)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(head))]
    rule = " ".join("=" * width for width in widths)

    def line(row: tuple[str, ...]) -> str:
        return " ".join(f"{cell:{width}}" for cell, width in zip(row, widths)).rstrip()

    return [rule, line(cells[0]), rule, *(line(row) for row in cells[1:]), rule]
