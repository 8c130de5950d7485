# SPDX-License-Identifier: GPL-2.0
"""The figures and facts of a run as rows and lines of text, for every form that has them."""

from datetime import datetime, timezone
from typing import Any

from lab.judge.summary import KernelSummary, Said, Summary, TestSummary, Trace
from lab.wanted import KERNELS
from lab.words import share, wrap

Row = tuple[str, ...]
# Of what boots say, and of boots that went wrong, so much is told.
_TOLD = 3
_TROUBLE = 5


def figures(run: Summary) -> list[Row]:
    """The figures of both kernels: a head and rows."""
    both = run.both()
    rows: list[tuple[str, list[str]]] = [
        ("boots", [str(one.boots) for one in both]),
        ("boots with a failed test", [str(one.failed_boots) for one in both]),
        ("tests that failed", [f"{one.failed} of {one.tests}" for one in both]),
        ("tests skipped", [str(one.skipped) for one in both]),
        (f"{run.counts} that {run.harm}", [harmed(one) for one in both]),
        (f"{run.counts} in tests that cannot show it", [str(one.control_migrations)
                                                        for one in both])]
    if any(one.hot_calls for one in both):
        rows.append(("hot calls that moved a page",
                     [share(one.hot_moved, one.hot_calls) if one.hot_calls else "-"
                      for one in both]))
    if any(one.first_seconds for one in both):
        rows.append(("seconds until it was seen", [_span(one.first_seconds, 1) for one in both]))
    rows.append(("seconds a boot", [_span(one.boot_seconds, 0) for one in both]))
    return [("", *KERNELS), *((name, *cells) for name, cells in rows)]


def harmed(one: KernelSummary) -> str:
    """How much of what was counted did harm."""
    return share(one.lost_migrations, one.migrations)


def _span(seconds: list[float] | None, digits: int) -> str:
    return f"{seconds[0]:.{digits}f} to {seconds[1]:.{digits}f}" if seconds else "-"


def by_test(run: Summary) -> list[Row]:
    """What did harm in each test: a head and rows; a column that says nothing is left out."""
    vulnerable, fixed = (one.by_test for one in run.both())
    # What all tests are called behind their variant, "lost_write", tells them not apart.
    names = dict.fromkeys((*vulnerable, *fixed))
    ends = {name.rsplit(".", 1)[-1] for name in names}
    once = len({name.rsplit(".", 1)[0] for name in names}) == len(names)
    rows = []
    for name in names:
        old, new = vulnerable.get(name), fixed.get(name)
        if new is None or new.idle() and (old is None or old.idle()):
            continue
        counts = any(one.of() for one in (old, new) if one)
        also = ", ".join(f"{key} {value}" for key, value in new.also.items())
        if name.count(".") < 2:
            short = name
        else:
            short = name.rsplit(".", 1)[0] if once or len(ends) == 1 else name.split(".", 1)[1]
        rows.append((short.removeprefix("hugetlb_pmd_"), _cell(old, counts), _cell(new, counts),
                     f"{new.hot_moved} of {new.hot_calls}" if new.hot_calls else "-", also or "-"))
    head = ("test", *KERNELS, "fixed: hot calls that moved", "fixed: also counted")
    told = [column for column in range(len(head)) if any(row[column] != "-" for row in rows)]
    return [tuple(row[column] for column in told) for row in (head, *rows)]


def _cell(test: TestSummary | None, counts: bool) -> str:
    """What a test lost on one of the kernels; `counts` if it counts anything."""
    if test is None:
        return "not run"
    if test.idle():
        return "skipped"
    # The kernel may have died in it before anything was counted.
    if not counts or test.failed and not test.of():
        return f"failed in {test.failed} of {test.runs} boots"
    return f"{test.lost_migrations} of {test.of()}"


def checks(one: KernelSummary, quote: str = '"') -> str:
    """What a kernel said of itself that was to be expected of it."""
    return _each(one.symptoms, one.boots, quote)


def _each(said: list[Said], boots: int, quote: str) -> str:
    """What was said, each once and in how many boots."""
    told = [one for one in said[:_TOLD] if one.text is not None]
    more = sum(one.boots for one in said) - sum(one.boots for one in told)
    return "; ".join([f"in {one.boots} of {boots} boots {quote}{one.text}{quote}" for one in told]
                     + ([f"in {more} something else"] if more else []))


def trouble(run: Summary) -> list[str]:
    """The boots that did not go well, those that did so in the same way together."""
    lines = [f"{name} kernel: {one.state if one.state != 'DONE' else 'complaints'} in {one.boots} "
             f"of {run.variants[name].boots} boots, see {one.folder}: {one.text}"
             for name in KERNELS for one in run.variants[name].trouble]
    return [*lines[:_TROUBLE], *([f"and {len(lines) - _TROUBLE} more"]
                                 if len(lines) > _TROUBLE else [])]


def evidence(told: dict[str, Any], kernel: str) -> list[str]:
    """One lost write in plain words; its first line is its head."""
    lines = [f"One lost write, on the {kernel} kernel", f"in test  {told['test']}",
             *([f"of boot  {told['folder']}"] if "folder" in told else [])]
    if "wrote" not in told:
        return [*lines, *wrap(str(told["text"]))]
    return [
        *lines,
        f"Huge page {told['page']} was migrated from node {told['node_before']} "
        f"to node {told['node_after']},",
        f"from PFN {told['pfn_before']} to PFN {told['pfn_after']}.",
        f"At offset {told['offset']} of the page, one process last wrote",
        f"    {told['wrote']}",
        f"but {told['ms_after']} ms after the call the page held an older one",
        f"    {told['found']}",
        "No error was reported: the write is simply gone."]


def trace(said: Trace, kernel: str) -> list[str]:
    """What a kernel said of itself; its first line is its head."""
    return [f"What the {kernel} kernel said first, without its registers",
            *([f"of boot  {said.folder}"] if said.folder else []), *said.lines]


def shown(run: Summary) -> list[list[str]]:
    """What the boots of both kernels have to show: lost writes, and what the kernels said."""
    return [lines for name, one in run.variants.items() for lines in (
        *([evidence(one.example, name)] if one.example else []),
        *([trace(one.trace, name)] if one.trace else []))]


def facts(told: dict[str, Any], own: list[tuple[str, str]]) -> list[tuple[str, str]]:
    """What a report or a record says of how it was made, names and values; a value may have several
    lines.  `own` is what reports of its kind alone say."""
    source, made = told["source"], told.get("provenance") or {}
    dirty = f", dirty: {source['dirty']}" if "dirty" in source else ""
    began = datetime.fromisoformat(told["started"])
    said = [
        ("Repeat", told["command"]),
        ("Source", " ".join(source.get(key, "") for key in ("package", "package_version")).strip()
         or f"a tree of {source['version']}"),
        ("Contents", f"sha256 {source['sha256']}" if "sha256" in source
         else f"git tree {source['tree']}" if "tree" in source else ""),
        ("Git", f"{source['git']}{dirty}" if "git" in source else ""), *own,
        ("Compiler", told["compiler"]),
        ("Guest", f"{told['arch']}, {made.get('qemu') or 'QEMU'} with {told['accel']}"),
        ("Made with", f"lab {made['lab']}{', with changes' if made['dirty'] else ''}"
         if made.get("lab") else ""),
        # Of old records only the day is known.
        ("Date", f"{began.astimezone(timezone.utc):%Y-%m-%d %H:%M} UTC" if began.tzinfo else
         told["started"])]
    return [(name, value) for name, value in said if value]


def kernels(run: Summary, quote: str = '"') -> list[tuple[str, str]]:
    """How the kernels of a run were made, what they said of themselves, and why tests were skipped,
    as facts."""
    return [fact for name, one in run.variants.items() for fact in (
        (name.capitalize(), "\n".join([one.how, *one.places])),
        (f"The {name} kernel's own checks", checks(one, quote)),
        (f"Skipped on the {name} kernel", _each(one.skips or [], one.boots, quote)))]
