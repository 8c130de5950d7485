# SPDX-License-Identifier: GPL-2.0
"""Writes the result of a run: verdict.json for programs, junit.xml for CI.

A run on which somebody will base a decision must also say how to repeat it and what it was made of,
so both files carry the command, the source, the compiler and the folder of every boot.
"""

import json
import re
import xml.etree.ElementTree as ET
from pathlib import Path

from lab.judge.summary import BootSummary, Result, Summary
from lab.paths import replace
from lab.tell import tables

# What XML 1.0 can hold; a crashed guest's serial line holds anything.
_NOT_XML = re.compile(r"[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def write(run: Summary, out: Path) -> None:
    """Write verdict.json and junit.xml to the folder `out`, each in one piece.

    verdict.json comes last, so that whoever sees the new one finds the new JUnit beside it.
    Raises LabError where the folder cannot be written.
    """
    replace(out / "junit.xml", junit(run))
    replace(out / "verdict.json", json.dumps(run.report(), indent=2) + "\n")


def junit(run: Summary) -> str:
    """The run as JUnit XML: a testsuite a boot, and one for the verdict.

    Every testcase says what should be, so that a CI system is green exactly where the run is
    PROVED: a vulnerable kernel passes by losing writes (what its tests said is in system-out),
    a fixed one by passing its tests.
    """
    root = ET.Element("testsuites", {"name": f"{run.defect} on {run.base}",
                                     "time": f"{run.seconds:.1f}"})
    suite = _suite(root, "verdict", run.seconds or 0.0, {
        "defect": run.defect, "title": str(run.title), "base": str(run.base), "arch": run.arch,
        "accel": run.accel, "debug": str(run.debug).lower(), "command": run.command,
        "compiler": run.compiler, **{f"source.{key}": word for key, word in run.source.items()},
        **{name: one.how for name, one in run.variants.items()},
        **{f"{name}.checks": said for name, one in run.variants.items()
           if (said := tables.checks(one))}})
    suite.set("timestamp", run.started)
    said = f"{run.verdict}: {run.why}"
    _case(suite, f"{run.defect} on {run.base} is PROVED", "" if run.verdict == "PROVED" else said,
          run.verdict, "\n".join([said, *tables.trouble(run)]))
    for name, one in run.variants.items():
        for number, boot in enumerate(one.runs, 1):
            suite = _suite(root, f"{name} boot {number}", boot.seconds, {
                "folder": boot.folder, "accel": boot.accel, "state": boot.state,
                "image": one.image})
            _log_case(suite, name, boot)
            if name == "vulnerable":
                # On this kernel a failing test is what should happen: one testcase, which passes.
                _case(suite, f"vulnerable kernel: some {run.counts} {run.harm}",
                      "" if boot.evident else f"no test failed by {run.counts} that {run.harm}",
                      "MISSED" if boot.state == "DONE" else boot.state,
                      "\n".join(line for test in boot.results for line in _lines(test)))
            else:
                _fixed_cases(suite, run, boot)
    for node in (*root.findall("testsuite"), root):
        cases = list(node.iter("testcase"))
        node.set("tests", str(len(cases)))
        for key, tag in (("failures", "failure"), ("errors", "error"), ("skipped", "skipped")):
            node.set(key, str(sum(case.find(tag) is not None for case in cases)))
    ET.indent(root)
    return "<?xml version='1.0' encoding='utf-8'?>\n" + ET.tostring(root, encoding="unicode") + "\n"


def _element(parent: ET.Element, tag: str, text: str = "", **attributes: str) -> ET.Element:
    """A child of `parent`; its text and attributes lose what XML cannot hold."""
    child = ET.SubElement(parent, tag, {key: _NOT_XML.sub("?", value)
                                        for key, value in attributes.items()})
    child.text = _NOT_XML.sub("?", text) or None
    return child


def _suite(root: ET.Element, name: str, seconds: float, facts: dict[str, str]) -> ET.Element:
    suite = _element(root, "testsuite", name=name, time=f"{seconds:.1f}")
    properties = _element(suite, "properties")
    for key, value in facts.items():
        _element(properties, "property", name=key, value=value)
    return suite


def _case(suite: ET.Element, name: str, wrong: str = "", kind: str = "", detail: str = "",
          tag: str = "failure") -> None:
    """One testcase of `suite`; `wrong` is the message of its failure, "" for a pass."""
    case = _element(suite, "testcase", name=name, classname=suite.get("name", ""))
    if wrong:
        _element(case, tag, message=wrong, type=kind)
    if detail:
        _element(case, "system-out", detail)


def _log_case(suite: ET.Element, name: str, boot: BootSummary) -> None:
    context = [line for said in boot.complaints for line in (*said.context, "")]
    _case(suite, f"{name} kernel boots, ends, and its log is clean", boot.wrong(),
          "CRASHED" if boot.complaints else boot.state, "\n".join([*boot.problems, *context]))


def _fixed_cases(suite: ET.Element, run: Summary, boot: BootSummary) -> None:
    wrong, kind = "", ""
    if boot.lost_migrations:
        wrong, kind = f"{boot.lost_migrations} {run.counts} {run.harm}", "REGRESSED"
    elif not boot.evident:
        wrong, kind = f"no test passed that counted {run.counts}", "INCONCLUSIVE"
    _case(suite, f"fixed kernel: no {run.counts} {run.harm}", wrong, kind)
    for test in boot.results:
        detail = "\n".join(_lines(test))
        reason = test.reason or test.outcome
        if test.outcome == "fail" or test.lost:
            _case(suite, test.name, reason, "REGRESSED", detail)
        elif test.outcome in ("error", "inconclusive"):
            _case(suite, test.name, f"{test.outcome}: {reason}", test.outcome, detail, "error")
        elif test.outcome in ("skip", "xfail"):
            _case(suite, test.name, reason, test.outcome, detail, "skipped")
        else:
            _case(suite, test.name, detail=detail)


def _lines(test: Result) -> list[str]:
    head = f"{test.outcome:12} {test.name}" + (f": {test.reason}" if test.reason else "")
    return [head, *(f"    {line}" for line in test.told)]
