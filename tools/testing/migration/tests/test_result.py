# SPDX-License-Identifier: GPL-2.0
"""What a run leaves behind: verdict.json, junit.xml and the text for a person."""

import dataclasses
import json
import os
import re
import xml.etree.ElementTree as ET
from datetime import datetime, timezone
from pathlib import Path

import pytest
from runs import boot, golden, run, told

from lab.errors import LabError
from lab.judge import summary
from lab.judge.summary import KernelSummary, Summary
from lab.judge.verdict import Boot
from lab.tell import page, result, rst, tables, text as terminal
from lab.tell.page import Proof
from lab.words import percent


def totals(boots: list[Boot]) -> KernelSummary:
    return summary.kernel("", (), boots)


def proved() -> Summary:
    return run([boot("vulnerable")], [boot("fixed")])


def regressed() -> Summary:
    text = golden("vulnerable.ktap")
    return run([boot("vulnerable")], [boot("fixed", text=text)])


INCONCLUSIVE = ("lab: start p\n1..2\n# p: calls=9 migrations=1 inconclusive=too-few\n"
                "ok 1 a # SKIP inconclusive: too few\nok 2 b\nlab: exit p 0\nlab: done\n")


def test_report_has_all_that_was_promised() -> None:
    report = told(proved())
    assert set(report) >= {"defect", "base", "arch", "accel", "verdict", "why", "debug", "started",
                           "seconds", "command", "source", "compiler", "variants"}
    assert report["verdict"] == "PROVED" and report["debug"] is False
    assert report["started"] == "2025-01-02T01:04:05+00:00"
    assert report["source"] == {"package": "linux-source-6.12", "version": "6.12.57-1"}
    variants = report["variants"]
    assert set(variants) == {"vulnerable", "fixed"}
    for variant in variants.values():
        assert set(variant) >= {
            "how", "places", "diff", "image", "initrd", "config", "boots", "tests", "failed",
            "skipped", "inconclusive", "calls", "migrations", "lost_migrations", "seconds", "runs",
            "by_test", "example"}
        assert set(variant["runs"][0]) >= {"folder", "state", "seconds", "accel", "tests", "failed",
                                           "migrations", "lost_migrations", "complaints"}
        assert len(variant["by_test"]) == 33


def test_report_counts() -> None:
    tests = boot("vulnerable").tests()
    made = run([boot("vulnerable", 1), boot("vulnerable", 2)], [boot("fixed", 1), boot("fixed", 2)],
               2)
    variant = told(made)["variants"]["vulnerable"]
    assert (variant["boots"], variant["tests"], variant["failed"], variant["skipped"]) == \
        (2, 66, 52, 8)
    for key in ("calls", "migrations", "lost_migrations"):
        assert variant[key] == 2 * sum(test.count(key) for test in tests
                                       if not test.is_control()) > 0
    assert variant["control_migrations"] == 2 * sum(
        test.count("migrations") for test in tests if test.is_control()) > 0
    assert variant["seconds"] == 22.5
    main = variant["by_test"]["hugetlb_pmd_migrate.hugetlbfs_migrate_pages_2.lost_write"]
    assert main == {"runs": 2, "failed": 2, "skipped": 0, "inconclusive": 0, "calls": 80,
                    "migrations": 80, "lost_migrations": 78, "control_migrations": 0,
                    "hot_calls": 0, "hot_moved": 0, "counted": None, "also": {}}


def test_hot_calls_are_summed() -> None:
    text = ("lab: start p\n1..1\n# p: calls=9 migrations=7 lost_migrations=0 control=no "
            "hot_calls=6 hot_moved=5\nok 1 a\nlab: exit p 0\nlab: done\n")
    sums = totals([boot("fixed", text=text), boot("fixed", text=text)])
    assert (sums.hot_calls, sums.hot_moved) == (12, 10)


def test_a_loss_in_a_control_test_is_not_swallowed() -> None:
    text = ("lab: start p\n1..1\n# p: migrations=9 lost_migrations=2 control=yes\n"
            "not ok 1 a\nlab: exit p 1\nlab: done\n")
    sums = totals([boot("fixed", text=text)])
    assert (sums.migrations, sums.control_migrations, sums.lost_migrations) == (0, 9, 2)


def test_what_cannot_be_believed_does_not_look_like_a_pass() -> None:
    text = golden("interleaved.ktap")
    sums = totals([boot("fixed", text=text)])
    assert (sums.tests, sums.failed, sums.skipped) == (33, 1, 4)
    sums = totals([boot("fixed", text=INCONCLUSIVE)])
    assert (sums.tests, sums.failed, sums.inconclusive) == (2, 0, 1)


def test_complaints_and_problems_are_reported() -> None:
    log = golden("bug.console")
    text = golden("truncated-in-test.ktap")
    made = run([boot("vulnerable")], [boot("fixed", text=text, log=log)])
    one = told(made)["variants"]["fixed"]["runs"][0]
    assert one["state"] == "CRASHED"
    context = one["complaints"][0].pop("context")
    assert one["complaints"][0] == {"kind": "BUG", "line": 3,
                                    "text": "kernel BUG at include/linux/swapops.h:129!"}
    assert any("swapops.h:129" in line for line in context) and len(context) > 3
    assert any("33 tests planned" in problem for problem in one["problems"])


def test_example() -> None:
    assert summary.example([boot("fixed"), boot("vulnerable", 3)]) == {
        "folder": "out/vulnerable-3",
        "test": "hugetlb_pmd_migrate.hugetlbfs_migrate_pages_2.lost_write",
        "text": "lost: page 2 offset 0x184b98 wrote 0x2000000000003e2f found 0x2000000000003602 "
                "node 1->0 pfn 0x74c00->0x2f000 3.2 ms after the call",
        "page": 2, "offset": "0x184b98", "wrote": "0x2000000000003e2f",
        "found": "0x2000000000003602", "node_before": 1, "node_after": 0,
        "pfn_before": "0x74c00", "pfn_after": "0x2f000", "ms_after": 3.2}
    assert summary.example([boot("fixed")]) is None


def test_an_example_of_another_form_is_still_told() -> None:
    text = "lab: start p\n1..1\n# lost: something else\nnot ok 1 a\nlab: exit p 1\nlab: done\n"
    assert summary.example([boot("vulnerable", text=text)]) == {
        "folder": "out/vulnerable-1", "test": "a", "text": "lost: something else"}
    made = run([boot("vulnerable", text=text)], [boot("fixed")])
    assert "lost: something else" in terminal.summary(made)


def cases(made: Summary) -> dict[str, ET.Element]:
    """The testcases of the JUnit, by the name of the suite and their own."""
    found = {}
    for suite in ET.fromstring(result.junit(made)).findall("testsuite"):
        for case in suite.findall("testcase"):
            key = f"{suite.get('name')}/{case.get('name')}"
            assert key not in found
            found[key] = case
    return found


def red(made: Summary) -> dict[str, str]:
    """What a CI system shows in red: testcase and type."""
    return {key: str(child.get("type")) for key, case in cases(made).items()
            for child in case if child.tag in ("failure", "error")}


def test_junit_of_a_proof_is_green() -> None:
    """A test that fails on the vulnerable kernel is what should happen."""
    made = proved()
    assert red(made) == {}
    found = cases(made)
    assert "verdict/pmd-share-migrate on 6.12 is PROVED" in found
    loses = found["vulnerable boot 1/vulnerable kernel: some migrations lost writes"]
    assert "lost: page 2 offset 0x184b98" in (loses.findtext("system-out") or "")
    assert "fixed boot 1/fixed kernel: no migrations lost writes" in found
    one = "fixed boot 1/hugetlb_pmd_migrate.hugetlbfs_migrate_pages_2.lost_write"
    assert "migrations=" in (found[one].findtext("system-out") or "")
    assert not any(key.startswith("vulnerable boot 1/hugetlb") for key in found)


def test_junit_of_a_regression() -> None:
    made = regressed()
    bad = red(made)
    assert bad.pop("verdict/pmd-share-migrate on 6.12 is PROVED") == "REGRESSED"
    assert bad.pop("fixed boot 1/fixed kernel: no migrations lost writes") == "REGRESSED"
    assert len(bad) == 26 and set(bad.values()) == {"REGRESSED"}


def test_junit_of_a_vulnerable_kernel_that_keeps_its_writes() -> None:
    text = golden("fixed.ktap")
    assert red(run([boot("vulnerable", text=text)], [boot("fixed")])) == {
        "verdict/pmd-share-migrate on 6.12 is PROVED": "MISSED",
        "vulnerable boot 1/vulnerable kernel: some migrations lost writes": "MISSED"}


def test_junit_of_a_warning() -> None:
    made = run([boot("vulnerable", log=golden("warning.console"))], [boot("fixed")])
    assert red(made) == {
        "verdict/pmd-share-migrate on 6.12 is PROVED": "CRASHED",
        "vulnerable boot 1/vulnerable kernel boots, ends, and its log is clean": "CRASHED"}
    case = cases(made)["vulnerable boot 1/vulnerable kernel boots, ends, and its log is clean"]
    assert "__unmap_hugepage_range" in (case.findtext("system-out") or "")


def test_junit_of_a_silent_guest() -> None:
    bad = red(run([boot("vulnerable")], [boot("fixed", text="")]))
    assert bad["verdict/pmd-share-migrate on 6.12 is PROVED"] == "INCOMPLETE"
    assert bad["fixed boot 1/fixed kernel boots, ends, and its log is clean"] == "INCOMPLETE"


def test_junit_of_an_inconclusive_test() -> None:
    bad = red(run([boot("vulnerable")], [boot("fixed", text=INCONCLUSIVE)]))
    assert bad["fixed boot 1/a"] == "inconclusive"
    assert bad["verdict/pmd-share-migrate on 6.12 is PROVED"] == "INCONCLUSIVE"


def test_junit_of_a_pass_that_counts_a_loss() -> None:
    text = ("lab: start p\n1..1\n# p: migrations=9 lost_migrations=1\nok 1 a\n"
            "lab: exit p 0\nlab: done\n")
    assert red(run([boot("vulnerable")], [boot("fixed", text=text)])) == dict.fromkeys(
        ("verdict/pmd-share-migrate on 6.12 is PROVED", "fixed boot 1/a",
         "fixed boot 1/fixed kernel: no migrations lost writes"), "REGRESSED")


def test_junit_counts_itself() -> None:
    root = ET.fromstring(result.junit(regressed()))
    for node in (root, *root.findall("testsuite")):
        found = list(node.iter("testcase"))
        assert node.get("tests") == str(len(found))
        for key, tag in (("failures", "failure"), ("errors", "error"), ("skipped", "skipped")):
            assert node.get(key) == str(sum(case.find(tag) is not None for case in found))
    assert root.get("failures") == "28" and root.get("skipped") == "4"


def test_junit_stays_xml_whatever_the_guest_prints() -> None:
    text = "lab: start p\n1..1\n# \x01\x1b[31m <b>&\ud800\uffff ]]>\nnot ok 1 a\x02\n" \
           "lab: exit p 1\nlab: done\n"
    made = run([boot("vulnerable", text=text)], [boot("fixed", text=text)])
    found = cases(made)
    assert "<b>&" in (found["fixed boot 1/a?"].findtext("system-out") or "")


def test_write(tmp_path: Path) -> None:
    out = tmp_path / "new" / "out"
    result.write(proved(), out)
    assert sorted(path.name for path in out.iterdir()) == ["junit.xml", "verdict.json"]
    assert json.loads((out / "verdict.json").read_text()) == \
        told(proved())
    assert ET.parse(out / "junit.xml").getroot().tag == "testsuites"
    assert (out / "verdict.json").stat().st_mode & 0o777 == 0o644


def test_write_replaces_whole_files_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A write that fails half-way leaves the last run's files, and no others."""
    result.write(proved(), tmp_path)
    before = {path.name: path.read_text() for path in tmp_path.iterdir()}

    def full(*_: object) -> None:
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(LabError, match="No space left on device.*free some space"):
        result.write(regressed(), tmp_path)
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == before


def test_write_to_what_is_no_folder(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("")
    with pytest.raises(LabError, match="cannot write"):
        result.write(proved(), tmp_path / "out")


def test_summary_of_a_proof() -> None:
    text = terminal.summary(proved())
    lines = text.splitlines()
    assert all(len(line) <= 80 for line in lines), max(lines, key=len)
    table = {line.split()[0]: line.split() for line in lines if line.split("  ")[0] in
             ("vulnerable", "fixed")}
    sums = totals([boot("vulnerable")])
    assert table["vulnerable"][1:6] == ["1", "33", "26", str(sums.migrations),
                                        str(sums.lost_migrations)]
    assert table["fixed"][1:4] == ["1", "33", "0"] and table["fixed"][5:] == ["0", "(0", "%)"]
    for piece in ("page 2", "0x184b98", "0x2000000000003e2f", "0x2000000000003602",
                  "from node 1 to node 0", "from PFN 0x74c00 to PFN 0x2f000", "3.2 ms after",
                  "out/vulnerable-1", "hugetlb_pmd_migrate.hugetlbfs_migrate_pages_2.lost_write",
                  "revert.cocci (2 places)", "out/verdict.json", "out/junit.xml",
                  "make prove BASE=6.12", "on the vulnerable kernel", "4 skipped"):
        assert piece in text, piece
    assert "\nPROVED: the vulnerable kernel lost writes" in text


def test_summary_of_a_regression_shows_the_fixed_kernel() -> None:
    text = terminal.summary(regressed())
    assert "One lost write, on the fixed kernel" in text and "out/fixed-1" in text
    assert "\nREGRESSED: fixed boot 1" in text


def test_summary_of_a_crash_names_it_and_where_to_look() -> None:
    log = golden("bug.console")
    text = terminal.summary(run([boot("vulnerable")], [boot("fixed", log=log)]))
    assert "fixed kernel: CRASHED in 1 of 1 boots, see out/fixed-1: BUG: kernel BUG at\n" \
           "    include/linux/swapops.h:129!" in text
    assert "\nCRASHED: fixed boot 1" in text


def test_summary_of_a_run_with_nothing_in_it() -> None:
    text = terminal.summary(run([], []), Path("/tmp/x"))
    assert "\nINCOMPLETE: " in text and "(-)" in text and "/tmp/x/verdict.json" in text


def test_summary_of_many_bad_boots_is_short() -> None:
    left = [boot("vulnerable", n, text="") for n in range(1, 21)]
    right = [boot("fixed", n) for n in range(1, 21)]
    text = terminal.summary(run(left, right, 20))
    assert text.count("INCOMPLETE in ") == 1
    assert "vulnerable kernel: INCOMPLETE in 20 of 20 boots, see out/vulnerable-1: " in text
    left = [boot("vulnerable", n, log=f"kernel BUG at mm/rmap.c:{n}!\n") for n in range(1, 21)]
    text = terminal.summary(run(left, right, 20))
    assert text.count("CRASHED in 1 of 20 boots, see ") == 5 and "and 15 more" in text


def test_boots_that_say_the_same_are_told_once() -> None:
    logs = [f"WARNING: CPU: {n} PID: {90 + n} at mm/rmap.c:7 f+0x{n}b/0x2\n" for n in range(1, 4)]
    left = [boot("vulnerable", n, log=log) for n, log in enumerate(logs, 1)]
    left.append(boot("vulnerable", 4, log="WARNING: CPU: 1 PID: 91 at mm/rmap.c:8 f+0x1b/0x2\n"))
    made = run(left, [boot("fixed", n) for n in range(1, 5)], 4)
    assert [line.partition(", see ")[0] for line in tables.trouble(made)] == [
        "vulnerable kernel: complaints in 3 of 4 boots",
        "vulnerable kernel: complaints in 1 of 4 boots"]


def test_summary_says_what_was_run() -> None:
    made = proved()
    assert "debug" not in terminal.summary(made)
    text = terminal.summary(dataclasses.replace(made, debug=True))
    assert "debug configuration" in text and "INCOMPLETE" not in text and "CRASHED" not in text
    assert text.startswith(f"{made.defect}: {made.title}\n")


@pytest.mark.parametrize("part, whole, text", [
    (0, 0, "-"), (0, 9, "0 %"), (9, 9, "100 %"), (1, 3, "33.33 %"),
    (1, 100000, "0.01 %"), (99999, 100000, "99.99 %"),
])
def test_percent_rounds_to_all_or_none_only_for_all_or_none(part: int, whole: int,
                                                            text: str) -> None:
    assert percent(part, whole) == text


def test_summary_names_a_warning_in_a_boot_that_came_to_its_end() -> None:
    log = golden("warning.console")
    text = terminal.summary(run([boot("vulnerable", log=log)], [boot("fixed")]))
    assert "vulnerable kernel: complaints in 1 of 1 boots, see out/vulnerable-1: WARNING:" in text
    assert "CPU: 2 PID: 96" in text


# ---- all forms -----------------------------------------------------------------------------


HARM, COUNTS = "left an entry behind", "tries"
BUG = "kernel BUG at include/linux/swapops.h:505!"


def deaths() -> Summary:
    """Of three boots two die of a BUG that is to be expected, one of a lockup; each in a test."""
    left = []
    stuck = "watchdog: BUG: soft lockup - CPU#1 stuck for 23s! [exec:9]\n"
    for number, log in enumerate((f"{BUG}\n", f"{BUG}\n", stuck), 1):
        one = boot("vulnerable", number, "lab: start p\n1..1\n# p: migrations=7 lost_migrations=1\n"
                   "not ok 1 a\nlab: exit p 1\nlab: done\n", log)
        one.symptoms, one.complaints, one.state = one.complaints, [], "ENDED"
        left.append(one)
    text = "lab: start p\n1..1\n# p: migrations=9\nok 1 a\nlab: exit p 0\nlab: done\n"
    made = run(left, [boot("fixed", n, text) for n in (1, 2, 3)], 3, harm=HARM, counts=COUNTS)
    assert made.verdict == "PROVED"
    return made


def forms(made: Summary) -> dict[str, str]:
    """All forms of a run, as words with one space between."""
    html = page.render([], [], [Proof(made)], [], [], datetime.now(timezone.utc))
    said = {"text": terminal.summary(made), "rst": rst.proof(made).replace("``", '"'), "html":
            re.sub("<style>.*?</style>|<[^>]+>", " ", html, flags=re.DOTALL).replace("&quot;", '"'),
            "junit": result.junit(made).replace("&quot;", '"')}
    return {name: " ".join(words.split()) for name, words in said.items()}


@pytest.mark.parametrize("name", ["text", "rst", "html", "junit"])
def test_all_forms_say_the_same(name: str) -> None:
    said = forms(deaths())[name]
    assert f'in 2 of 3 boots "{BUG}"; in 1 of 3 boots "watchdog: BUG: soft lockup - CPU#1' in said
    assert "in 3 of 3" not in said and said.count("soft lockup") == 1
    # The harm and the word are the defect's own.
    assert f"the vulnerable kernel {HARM} in 3 of 21 {COUNTS}" in said.lower()
    assert f"{COUNTS} {HARM}" in said or f"{COUNTS} that {HARM}" in said
    # The page has words of its own around it.
    said = said.partition("What the verdicts mean")[0].partition(" Runs ")[2] or said
    assert not re.search(r"\bmigrations\b(?!=)|lost writes", said)
    # To die of the defect is no trouble.
    assert "ENDED in" not in said and "did not come to its end" not in said


@pytest.mark.parametrize("name", ["text", "html", "junit"])
def test_all_forms_say_what_went_wrong(name: str) -> None:
    log = golden("bug.console")
    right = [boot("fixed", 1, log=log), boot("fixed", 2), boot("fixed", 3, log=log)]
    said = forms(run([boot("vulnerable", n) for n in (1, 2, 3)], right, 3))[name]
    assert "fixed kernel: CRASHED in 2 of 3 boots, see out/fixed-1: BUG: kernel BUG at " \
           "include/linux/swapops.h:129!" in said
    assert "out/fixed-3: BUG" not in said


def test_a_test_that_the_kernel_died_in_has_failed() -> None:
    dead = boot("vulnerable", text="lab: start p\n1..1\n#  RUN           p.a ...\n", log=BUG)
    alive = boot("fixed", text="lab: start p\n1..1\n# p: migrations=9\nok 1 p.a\n"
                 "lab: exit p 0\nlab: done\n")
    assert tables.by_test(run([dead], [alive]))[1] == ("p.a", "failed in 1 of 1 boots", "0 of 9")


def test_a_regression_names_the_harm() -> None:
    text = "lab: start p\n1..1\n# p: migrations=9 lost_migrations=2\nnot ok 1 a\nlab: exit p 1\n" \
           "lab: done\n"
    made = run([boot("vulnerable", text=text)], [boot("fixed", text=text)], harm=HARM,
               counts=COUNTS)
    for said in forms(made).values():
        assert f"REGRESSED: fixed boot 1: a {HARM} in 2 of 9 {COUNTS}" in said \
            or f"Fixed boot 1: a {HARM} in 2 of 9 {COUNTS}" in said
        assert "lost writes in" not in said


# ---- from JSON -----------------------------------------------------------------------------


@pytest.mark.parametrize("made", [proved(), regressed(), deaths(), run([], [])], ids=str)
def test_a_summary_comes_back_from_json(made: Summary) -> None:
    assert Summary.load(told(made)) == made


def test_what_an_older_lab_wrote_is_read() -> None:
    """It said LOST, and of what boots said together it said nothing."""
    made = run([boot("vulnerable")], [boot("fixed", text="")])
    old = told(made)
    assert (old["verdict"], old["variants"]["fixed"]["runs"][0]["state"]) == ("INCOMPLETE",) * 2
    old["verdict"] = old["variants"]["fixed"]["runs"][0]["state"] = "LOST"
    for variant in old["variants"].values():
        for key in ("failed_boots", "boot_seconds", "first_seconds", "symptoms", "trouble"):
            del variant[key]
        for run_ in variant["runs"]:
            for said in run_["complaints"]:
                del said["context"]
    for key in ("harm", "counts", "provenance"):
        del old[key]
    assert Summary.load(old) == made


@pytest.mark.parametrize("path, value", [
    (("verdict",), 1), (("variants",), []), (("variants", "fixed"), None), (("debug",), "no"),
    (("source",), {"version": 6}), (("variants", "fixed", "by_test"), {"a": 1}),
    (("variants", "fixed", "runs"), [{}]), (("variants", "fixed", "boots"), "1")])
def test_what_no_lab_wrote_is_not_believed(path: tuple[str, ...], value: object) -> None:
    made = told(proved())
    inner = made
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = value
    with pytest.raises((LookupError, TypeError, ValueError)):
        Summary.load(made)
