# SPDX-License-Identifier: GPL-2.0
"""Tells the result of a run: out/verdict.json for programs, out/junit.xml for CI, text for people.

A run on which somebody will base a decision must also say how to repeat it and what it was made of,
so both files carry the command, the source, the compiler and the folder of every boot.
"""

import json
import os
import re
import tempfile
import textwrap
import xml.etree.ElementTree as ET
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from lab.errors import LabError
from lab.judge import timeline
from lab.judge.ktap import Test
from lab.judge.verdict import Boot, dies_of_it, keeps_writes, loses_writes, suffers_from_it

_WIDTH = 80
_EXAMPLE = re.compile(
    r"lost: page (?P<page>\d+) offset (?P<offset>\S+) wrote (?P<wrote>\S+) found (?P<found>\S+) "
    r"node (?P<node_before>-?\d+)->(?P<node_after>-?\d+) "
    r"pfn (?P<pfn_before>\S+)->(?P<pfn_after>\S+) (?P<ms_after>\d+(?:\.\d+)?) ms after the call")
# What XML 1.0 can hold; a crashed guest's serial line holds anything.
_NOT_XML = re.compile(r"[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


@dataclass
class VariantRun:
    """One of the two kernels of a run: how it was made, from what it was booted, what came.

    `how` and `places` are those of lab.variant; `diff`, `image`, `initrd` and `config` are paths.
    """

    how: str
    places: Sequence[str]
    diff: str | Path
    image: str | Path
    initrd: str | Path
    config: str | Path
    boots: list[Boot]


@dataclass
class Run:
    """A whole run.

    `command` repeats it; `source` is the identity that lab.source gives; `started` has a time zone;
    `seconds` is all of it, builds included; `verdict` and `why` are those of lab.verdict.decide().
    """

    defect: str
    title: str
    base: str
    arch: str
    accel: str
    debug: bool
    command: str
    source: dict[str, str]
    compiler: str
    started: datetime
    seconds: float
    vulnerable: VariantRun
    fixed: VariantRun
    verdict: str
    why: str
    harm: str = "lost writes"
    counts: str = "migrations"


def totals(boots: Sequence[Boot]) -> dict[str, int | float]:
    """The sums over `boots`: tests by outcome, calls, migrations, and how many lost writes.

    A test whose result cannot be believed counts as failed, so that what is left after failed,
    skipped and inconclusive did pass.  Calls and migrations of the tests that cannot show the
    defect are left out, or the share of those that lost writes would say little.  Hot calls are
    those with writers at full speed, before any call that had to be made again.
    """
    tests = [test for boot in boots for test in boot.tests()]
    return {"boots": len(boots), **_counts(tests),
            "seconds": round(sum(boot.seconds for boot in boots), 1)}


def _counts(tests: Sequence[Test]) -> dict[str, int]:
    outcomes = [test.outcome for test in tests]
    counts = {"tests": len(tests), "failed": outcomes.count("fail") + outcomes.count("error"),
              "skipped": outcomes.count("skip"), "inconclusive": outcomes.count("inconclusive")}
    for key in _COUNTED:
        counts[key] = sum(test.count(key) for test in tests if not test.is_control())
    counts["control_migrations"] = sum(test.count("migrations") for test in tests
                                       if test.is_control())
    # What cannot happen, and must be seen if it does.
    counts["lost_migrations"] += sum(test.count("lost_migrations") for test in tests
                                     if test.is_control())
    return counts


def example(boots: Sequence[Boot]) -> dict[str, str | int | float] | None:
    """The first lost write that a test told of, field by field; None where there is none.

    A "lost:" line that does not have the known form still gives its boot, test and text.
    """
    for boot in boots:
        for test in boot.tests():
            for note in test.notes:
                if not note.startswith("lost:"):
                    continue
                told: dict[str, str | int | float] = {
                    "folder": boot.folder, "test": test.name, "text": note}
                if match := _EXAMPLE.match(note):
                    for key, value in match.groupdict().items():
                        whole = key in ("page", "node_before", "node_after")
                        told[key] = (int(value) if whole else
                                     float(value) if key == "ms_after" else value)
                return told
    return None


_COUNTED = ("calls", "migrations", "lost_migrations", "hot_calls", "hot_moved")
# What some tests have done besides migrating: programs run, THPs that were in the way and those that
# were moved, writes of a device.
_ALSO = ("execs", "thps", "moved", "device_writes")
# Not a sum: how long it took until a test saw the defect, in milliseconds.
_FIRST = "first_ms"


def _also_counted(tests: Sequence[Test]) -> dict[str, int]:
    """Sums of what else the tests counted, of those things that say how much was done."""
    return {key: sum(test.count(key) for test in tests) for key in _ALSO
            if any(key in test.figures for test in tests)}


def _by_test(boots: Sequence[Boot]) -> dict[str, dict[str, Any]]:
    """For each test, in the order in which they first ran, its sums over all boots."""
    groups: dict[str, list[Test]] = {}
    for boot in boots:
        for test in boot.tests():
            groups.setdefault(test.name, []).append(test)
    sums: dict[str, dict[str, Any]] = {}
    for name, tests in groups.items():
        counts = _counts(tests)
        del counts["tests"]
        sums[name] = {"runs": len(tests), **counts, "also": _also_counted(tests)}
    return sums


def boot_report(boot: Boot) -> dict[str, object]:
    """One boot, as the JSON of a run holds it."""
    counts = totals([boot])
    return {
        "folder": boot.folder, "state": boot.state, "seconds": round(boot.seconds, 1),
        "accel": boot.accel, "guest_exit": boot.guest_exit, "timed_out": boot.timed_out,
        "ended_early": boot.ended_early,
        **{key: counts[key] for key in ("tests", "failed", "skipped", "inconclusive",
                                        "migrations", "lost_migrations")},
        _FIRST: min((test.count(_FIRST) for test in boot.tests() if test.count(_FIRST)),
                    default=None),
        "complaints": [{"kind": c.kind, "line": c.line, "text": c.text} for c in boot.complaints],
        "symptoms": [{"kind": c.kind, "line": c.line, "text": c.text} for c in boot.symptoms],
        "problems": boot.transcript.problems(),
    }


def _variant_report(variant: VariantRun) -> dict[str, object]:
    return {
        "how": variant.how, "places": list(variant.places), "diff": str(variant.diff),
        "image": str(variant.image), "initrd": str(variant.initrd), "config": str(variant.config),
        **totals(variant.boots),
        "runs": [boot_report(boot) for boot in variant.boots],
        "by_test": _by_test(variant.boots),
        "example": example(variant.boots),
        "timelines": timeline.report(variant.boots),
    }


def _utc(moment: datetime) -> str:
    return moment.astimezone(timezone.utc).isoformat(timespec="seconds")


def report(run: Run) -> dict[str, object]:
    """The run as verdict.json holds it."""
    return {
        "defect": run.defect, "title": run.title, "harm": run.harm, "counts": run.counts,
        "base": run.base, "arch": run.arch,
        "accel": run.accel, "verdict": run.verdict, "why": run.why, "debug": run.debug,
        "started": _utc(run.started), "seconds": round(run.seconds, 1), "command": run.command,
        "source": dict(run.source), "compiler": run.compiler,
        "variants": {"vulnerable": _variant_report(run.vulnerable),
                     "fixed": _variant_report(run.fixed)},
    }


def _element(parent: ET.Element, tag: str, text: str = "", **attributes: str) -> ET.Element:
    """A child of `parent`; its text and attributes lose what XML cannot hold."""
    child = ET.SubElement(parent, tag, {key: _NOT_XML.sub("?", value)
                                        for key, value in attributes.items()})
    child.text = _NOT_XML.sub("?", text) or None
    return child


def _test_lines(test: Test) -> list[str]:
    figures = " ".join(f"{key}={value}" for key, value in test.figures.items())
    head = f"{test.outcome:12} {test.name}" + (f": {test.reason}" if test.reason else "")
    return [head, *([f"    {figures}"] if figures else []), *(f"    {note}" for note in test.notes)]


def _case(suite: ET.Element, name: str, wrong: str = "", kind: str = "", detail: str = "",
          tag: str = "failure") -> None:
    """One testcase of `suite`; `wrong` is the message of its failure, "" for a pass."""
    case = _element(suite, "testcase", name=name, classname=suite.get("name", ""))
    if wrong:
        _element(case, tag, message=wrong, type=kind)
    if detail:
        _element(case, "system-out", detail)


def _log_case(suite: ET.Element, boot: Boot) -> None:
    wrong = ""
    if boot.complaints:
        wrong = f"{boot.complaints[0].kind} at line {boot.complaints[0].line} of its log: " \
                f"{boot.complaints[0].text}"
    elif boot.state != "DONE" and not dies_of_it(boot):
        wrong = (boot.transcript.problems() or ["the guest did not come to its end"])[0]
    kind = "CRASHED" if boot.complaints else boot.state
    context = [line for c in boot.complaints for line in (*c.context, "")]
    _case(suite, f"{boot.variant} kernel boots, ends, and its log is clean", wrong, kind,
          "\n".join([*boot.transcript.problems(), *context]))


def _vulnerable_cases(suite: ET.Element, boot: Boot) -> None:
    """On this kernel a failing test is what should happen: one testcase, which passes then."""
    shown = loses_writes(boot) or suffers_from_it(boot)
    wrong = "" if shown else "no test failed because of lost writes"
    kind = "MISSED" if boot.state == "DONE" else boot.state
    detail = "\n".join(line for test in boot.tests() for line in _test_lines(test))
    _case(suite, "vulnerable kernel loses writes", wrong, kind, detail)


def _fixed_cases(suite: ET.Element, boot: Boot) -> None:
    lost = totals([boot])["lost_migrations"]
    wrong, kind = "", ""
    if lost:
        wrong, kind = f"{lost} migrations lost writes", "REGRESSED"
    elif not any(keeps_writes(test) for test in boot.tests()):
        wrong, kind = "no test passed in which a page moved", "INCONCLUSIVE"
    _case(suite, "fixed kernel loses no writes", wrong, kind)
    for test in boot.tests():
        detail = "\n".join(_test_lines(test))
        reason = test.reason or test.outcome
        if test.outcome == "fail" or test.count("lost_migrations"):
            _case(suite, test.name, reason, "REGRESSED", detail)
        elif test.outcome in ("error", "inconclusive"):
            _case(suite, test.name, f"{test.outcome}: {reason}", test.outcome, detail, "error")
        elif test.outcome in ("skip", "xfail"):
            _case(suite, test.name, reason, test.outcome, detail, "skipped")
        else:
            _case(suite, test.name, detail=detail)


def _count_cases(node: ET.Element) -> None:
    cases = list(node.iter("testcase"))
    node.set("tests", str(len(cases)))
    for key, tag in (("failures", "failure"), ("errors", "error"), ("skipped", "skipped")):
        node.set(key, str(sum(case.find(tag) is not None for case in cases)))


def junit(run: Run) -> str:
    """The run as JUnit XML: a testsuite a boot, and one for the verdict.

    Every testcase says what should be, so that a CI system is green exactly where the run is
    PROVED: a vulnerable kernel passes by losing writes (what its tests said is in system-out),
    a fixed one by passing its tests.
    """
    root = ET.Element("testsuites", {"name": f"{run.defect} on {run.base}",
                                     "time": f"{run.seconds:.1f}"})
    suite = _element(root, "testsuite", name="verdict", time=f"{run.seconds:.1f}",
                     timestamp=_utc(run.started))
    properties = _element(suite, "properties")
    for name, value in (("defect", run.defect), ("title", run.title), ("base", run.base),
                        ("arch", run.arch), ("accel", run.accel), ("debug", str(run.debug).lower()),
                        ("command", run.command), ("compiler", run.compiler),
                        *((f"source.{key}", value) for key, value in run.source.items()),
                        ("vulnerable", run.vulnerable.how), ("fixed", run.fixed.how)):
        _element(properties, "property", name=name, value=value)
    _case(suite, f"{run.defect} on {run.base} is PROVED",
          "" if run.verdict == "PROVED" else f"{run.verdict}: {run.why}", run.verdict,
          f"{run.verdict}: {run.why}")
    for variant in (run.vulnerable, run.fixed):
        for boot in variant.boots:
            suite = _element(root, "testsuite", name=f"{boot.variant} boot {boot.number}",
                             time=f"{boot.seconds:.1f}")
            properties = _element(suite, "properties")
            for name, value in (("folder", boot.folder), ("accel", boot.accel),
                                ("state", boot.state), ("image", str(variant.image))):
                _element(properties, "property", name=name, value=value)
            _log_case(suite, boot)
            if boot.variant == "vulnerable":
                _vulnerable_cases(suite, boot)
            else:
                _fixed_cases(suite, boot)
    for node in (*root.findall("testsuite"), root):
        _count_cases(node)
    ET.indent(root)
    return "<?xml version='1.0' encoding='utf-8'?>\n" + ET.tostring(root, encoding="unicode") + "\n"


def replace(path: Path, text: str) -> None:
    """Put `text` in `path` so that a reader finds the old file or the new one, never half."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{path.name}-", dir=path.parent)
        try:
            with os.fdopen(handle, "w", encoding="utf-8") as stream:
                stream.write(text)
                os.fchmod(stream.fileno(), 0o644)
            os.replace(name, path)
        except BaseException:
            os.unlink(name)
            raise
    except OSError as err:
        raise LabError(f"cannot write {path} ({err.strerror}): "
                       "free some space, or make the folder writable") from err


def write(run: Run, out: Path) -> None:
    """Write verdict.json and junit.xml to the folder `out`, each in one piece.

    verdict.json comes last, so that whoever sees the new one finds the new JUnit beside it.
    Raises LabError where the folder cannot be written.
    """
    replace(out / "junit.xml", junit(run))
    replace(out / "verdict.json", json.dumps(report(run), indent=2) + "\n")


def _percent(part: int | float, whole: int | float) -> str:
    """A share that says 100 % only for all and 0 % only for none."""
    if not whole:
        return "-"
    if 0 < part < whole:
        return f"{min(max(100 * part / whole, 0.1), 99.9):.1f} %"
    return f"{100 * part / whole:.0f} %"


def _wrap(text: str, first: str = "", rest: str = "") -> list[str]:
    return textwrap.wrap(text, _WIDTH, initial_indent=first, subsequent_indent=rest,
                         break_long_words=False, break_on_hyphens=False)


def example_lines(told: dict[str, str | int | float], kernel: str) -> list[str]:
    """One lost write in plain words."""
    lines = [f"One lost write, on the {kernel} kernel",
             f"  in test  {told['test']}", f"  of boot  {told['folder']}"]
    if "wrote" not in told:
        return [*lines, *_wrap(str(told["text"]), "  ", "  ")]
    return [
        *lines,
        f"  Huge page {told['page']} was migrated from node {told['node_before']} "
        f"to node {told['node_after']},",
        f"  from PFN {told['pfn_before']} to PFN {told['pfn_after']}.",
        f"  At offset {told['offset']} of it, a process that maps it wrote last",
        f"      {told['wrote']}",
        f"  but {told['ms_after']} ms after the call there was found",
        f"      {told['found']}",
        "  No error was reported: the write is simply gone.",
    ]


def _trouble(run: Run, limit: int = 5) -> list[str]:
    """The boots that did not end well, each with its state and its first complaint."""
    boots = [boot for boot in (*run.vulnerable.boots, *run.fixed.boots)
             if (boot.state != "DONE" and not dies_of_it(boot)) or boot.complaints]
    lines: list[str] = []
    for boot in boots[:limit]:
        lines += _wrap(f"{boot.variant} boot {boot.number}: {boot.state}, see {boot.folder}")
        what = [c.text if c.text.startswith(c.kind) else f"{c.kind}: {c.text}"
                for c in boot.complaints] or boot.transcript.problems()
        for text in what[:2]:
            lines += _wrap(text, "    ", "      ")
    if len(boots) > limit:
        lines.append(f"and {len(boots) - limit} more")
    return lines


def summary(run: Run, out: Path = Path("out")) -> str:
    """The result for a person, at most 80 columns wide (paths and names are never broken)."""
    lines = _wrap(f"{run.defect}: {run.title}" if run.title else run.defect)
    lines += _wrap(f"base {run.base}, {run.arch}, QEMU with {run.accel}"
                   + (", debug configuration" if run.debug else ""))
    lines += ["", f"             boots   tests  failed  {run.counts:>10}  that {run.harm}"]
    spare: list[str] = []
    for name, variant in (("vulnerable", run.vulnerable), ("fixed", run.fixed)):
        sums = totals(variant.boots)
        lines.append(f"{name:10}  {sums['boots']:6}  {sums['tests']:6}  {sums['failed']:6}  "
                     f"{sums['migrations']:{max(10, len(run.counts))}}  {sums['lost_migrations']:8}  "
                     f"({_percent(sums['lost_migrations'], sums['migrations'])})")
        untold = [f"{sums[key]} {key} of its tests" for key in ("skipped", "inconclusive")
                  if sums[key]]
        told = [boot.symptoms[0].text for boot in variant.boots if boot.symptoms]
        if told:
            same = told.count(told[0])
            untold.append(f"its own checks say \"{told[0]}\" in {same} of {sums['boots']} boots"
                          + (f", something else in {len(told) - same}"
                             if same < len(told) else ""))
        spare += _wrap(f"{name} kernel: {variant.how}"
                       + (f"; {', '.join(untold)}" if untold else ""), "", "  ")
    lines += ["", *spare]
    # What the fixed kernel loses is the news, where it does.
    for name, variant in (("fixed", run.fixed), ("vulnerable", run.vulnerable)):
        if lost := example(variant.boots):
            lines += ["", *example_lines(lost, name)]
            break
    if trouble := _trouble(run):
        lines += ["", *trouble]
    lines += ["", *_wrap(f"{run.verdict}: {run.why}", "", "  "), "",
              f"Results: {out}/verdict.json, {out}/junit.xml, and a folder a boot in {out}/",
              f"Repeat:  {run.command}"]
    return "\n".join(lines) + "\n"
