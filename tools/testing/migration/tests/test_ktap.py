# SPDX-License-Identifier: GPL-2.0
"""The KTAP reader against golden logs, and against each way in which output can be damaged."""

from collections import Counter

import pytest
from runs import golden

from lab.judge import ktap



def program(*lines: str, status: int = 0) -> ktap.Program:
    """One framed program that prints `lines`, as the reader sees it."""
    text = "\n".join(["lab: start prog", *lines, f"lab: exit prog {status}", "lab: done", ""])
    programs = ktap.read(text).programs
    assert len(programs) == 1
    return programs[0]


def outcomes(transcript: ktap.Transcript) -> Counter[str]:
    return Counter(test.outcome for test in transcript.tests())


def test_a_vulnerable_run() -> None:
    transcript = ktap.read(golden("vulnerable.ktap"))
    assert transcript.done and not transcript.problems()
    assert outcomes(transcript) == {"fail": 26, "pass": 3, "skip": 4}
    whole = transcript.programs[0]
    assert (whole.name, whole.status, whole.planned) == ("hugetlb_pmd_migrate", 1, 33)
    first = whole.tests[0]
    assert first.name == "hugetlb_pmd_migrate.hugetlbfs_migrate_pages_2.lost_write"
    assert first.count("migrations") == 40 and first.count("lost_migrations") == 39
    assert first.figures["trigger"] == "migrate_pages" and first.figures["control"] == "no"
    assert first.notes[0].startswith("lost: page 2 offset 0x184b98 wrote 0x2000000000003e2f ")
    # The notes of one test are not those of the next.
    assert sum(note.startswith("lost:") for test in whole.tests for note in test.notes) == \
        sum(min(3, test.count("lost_migrations")) for test in whole.tests)


def test_a_fixed_run() -> None:
    transcript = ktap.read(golden("fixed.ktap"))
    assert transcript.done and not transcript.problems()
    assert outcomes(transcript) == {"pass": 29, "skip": 4}
    assert sum(test.count("lost_migrations") for test in transcript.tests()) == 0
    skipped = [test for test in transcript.tests() if test.outcome == "skip"]
    assert skipped[0].reason.startswith("no removable memory block")


def test_nothing_at_all() -> None:
    assert ktap.read(golden("empty.ktap")) == ktap.Transcript([], False)


def test_cut_in_the_middle_of_a_test() -> None:
    transcript = ktap.read(golden("truncated-in-test.ktap"))
    assert not transcript.done
    assert outcomes(transcript) == {"pass": 11, "error": 1}
    last = transcript.tests()[-1]
    assert last.name.endswith("memfd_move_pages_2.lost_write") and last.reason
    assert transcript.programs[0].status is None
    assert any("33 tests planned, 11 came" in text for text in transcript.problems())


def test_cut_in_the_middle_of_a_line() -> None:
    """What is left of "ok 12 ..." is "ok 1": it must not be taken for a result."""
    transcript = ktap.read(golden("truncated-in-line.ktap"))
    assert not transcript.done
    assert outcomes(transcript) == {"pass": 11, "error": 1}
    assert any("cut line 'ok 1'" in text for text in transcript.problems())


def test_a_cut_exit_line_is_no_exit() -> None:
    """"lab: exit prog 1" without its newline may have been "lab: exit prog 139"."""
    transcript = ktap.read("lab: start prog\n1..1\nnot ok 1 a\nlab: exit prog 1")
    assert transcript.programs[0].status is None and transcript.problems()


def test_done_needs_no_newline() -> None:
    assert ktap.read("lab: start p\n1..1\nok 1 a\nlab: exit p 0\nlab: done").done
    assert not ktap.read("lab: start p\n1..1\nok 1 a\nlab: exit p 0\nlab: don").done


def test_interleaved_lines_make_no_pass() -> None:
    transcript = ktap.read(golden("interleaved.ktap"))
    assert outcomes(transcript) == {"pass": 28, "skip": 4, "error": 1}
    assert transcript.tests()[5].outcome == "error"
    assert any("result 6" in text for text in transcript.problems())


def test_a_result_hidden_in_another_line_is_missing() -> None:
    seen = program("1..2", "# lost: page 3 ofok 1 a", "ok 2 b")
    assert [test.name for test in seen.tests] == ["b"]
    assert any("1 is missing" in text for text in seen.problems)
    assert any("2 tests planned, 1 came" in text for text in seen.problems)


def test_a_lost_not_is_found_out() -> None:
    """The harness says FAIL first; "ok" after that is half of a "not ok"."""
    seen = program("1..1", "#  RUN           a ...", "#          FAIL  a", "# x not ", "ok 1 a")
    assert seen.tests[0].outcome == "error"
    assert any("said FAIL and then 'ok'" in text for text in seen.problems)


def test_not_ok_after_ok_is_found_out() -> None:
    seen = program("1..1", "#  RUN           a ...", "#            OK  a", "not ok 1 a", status=1)
    assert seen.tests[0].outcome == "error" and seen.problems


def test_a_garbled_result_line_is_a_problem() -> None:
    seen = program("1..1", "ok one a")
    assert not seen.tests
    assert any("cannot read the result line 'ok one a'" in text for text in seen.problems)


def test_carriage_returns_and_nuls_do_not_matter() -> None:
    text = "lab: start p\r\r\n\0\0001..1\r\nok 1 \0a\r\nlab: exit p 0\r\nlab: done\r\n"
    transcript = ktap.read(text)
    assert transcript.done and not transcript.problems()
    assert [(test.name, test.outcome) for test in transcript.tests()] == [("a", "pass")]


def test_odd_separators_do_not_split_a_line() -> None:
    """str.splitlines() would make two lines of these, the second of them a result."""
    seen = program("1..1", "# said \x0bok 1 a", "# said \x85ok 1 a", "# said \u2028ok 1 a",
                   "ok 1 b")
    assert [test.name for test in seen.tests] == ["b"] and not seen.problems


@pytest.mark.parametrize("line, outcome, reason", [
    ("ok 1 a", "pass", ""),
    ("ok 1 - a", "pass", ""),
    ("not ok 1 a", "fail", ""),
    ("not ok 1 a #  one page differs", "fail", "one page differs"),
    ("ok 1 a # SKIP no node 1", "skip", "no node 1"),
    ("ok 1 a # skip no node 1", "skip", "no node 1"),
    ("ok 1 a # SKIP inconclusive: 3 of 20 moves", "inconclusive", "3 of 20 moves"),
    ("ok 1 a # XFAIL known", "xfail", "known"),
    ("not ok 1 a # TODO known", "xfail", "known"),
    ("ok 1 a # XPASS", "error", "passed, but was expected to fail"),
    ("not ok 1 a # error no memory", "error", "no memory"),
    ("not ok 1 a # SKIP cannot be both", "fail", "SKIP cannot be both"),
])
def test_directives(line: str, outcome: str, reason: str) -> None:
    test = program("1..1", line, status=1).tests[0]
    assert (test.name, test.outcome, test.reason) == ("a", outcome, reason)


def test_a_skip_without_a_name_takes_that_of_the_running_test() -> None:
    """The harness before 6.9 prints no name there."""
    seen = program("1..1", "#  RUN           f.v.a ...", "#            OK  f.v.a",
                   "ok 1 # SKIP no node 1")
    assert (seen.tests[0].name, seen.tests[0].outcome) == ("f.v.a", "skip") and not seen.problems


@pytest.mark.parametrize("line", ["ok 1 a # SKIP inconclusive: too-few", "ok 1 a # SKIP", "ok 1 a"])
def test_inconclusive_by_its_figures(line: str) -> None:
    seen = program("1..1", "# prog: calls=90 migrations=2 inconclusive=too-few-moves", line)
    assert (seen.tests[0].outcome, seen.tests[0].reason) == ("inconclusive", "too few moves")
    assert not seen.problems


def test_a_failure_stays_one_even_if_inconclusive() -> None:
    seen = program("1..1", "# prog: migrations=2 inconclusive=too-few", "not ok 1 a", status=1)
    assert seen.tests[0].outcome == "fail"


def test_figures_only_from_a_whole_line_of_them() -> None:
    seen = program("1..1", "# a.c:12:a:Expected 0 (0) == x=1 (1)", "# prog: migrations=3", "ok 1 a")
    assert seen.tests[0].figures == {"migrations": "3"}
    assert seen.tests[0].notes == ["a.c:12:a:Expected 0 (0) == x=1 (1)"]


def test_two_lines_of_figures_are_a_problem() -> None:
    seen = program("1..1", "# prog: migrations=3", "# prog: migrations=90", "ok 1 a")
    assert seen.tests[0].count("migrations") == 3
    assert any("second line of figures" in text for text in seen.problems)


def test_a_figure_that_is_no_number_counts_nothing() -> None:
    test = ktap.Test("a", "pass", "", {"migrations": "3x", "lost_migrations": "-1", "calls": "07"})
    assert [test.count(key) for key in ("migrations", "lost_migrations", "calls", "none")] == \
        [0, 0, 7, 0]


def test_subtests_are_no_tests() -> None:
    seen = program("1..1", "    # Subtest: a", "    1..2", "    ok 1 x", "    ok 2 y", "ok 1 a")
    assert [(test.name, test.outcome) for test in seen.tests] == [("a", "pass")]
    assert seen.planned == 1 and not seen.problems


def test_a_failed_subtest_is_no_pass() -> None:
    seen = program("1..1", "    # Subtest: a", "    1..1", "    not ok 1 x", "ok 1 a")
    assert seen.tests[0].outcome == "error"
    assert any("within it: x failed" in text for text in seen.problems)


RUNNER = """\
# selftests: mm: run_vmtests.sh
# # ok 1 x.y # SKIP needs lent memory
# # 1..1
# ok 1 a # SKIP
# # 1..2
# # ok 1 x.y
# # not ok 2 x.z
# not ok 2 b # exit=1
# 1..2
not ok 1 selftests: mm: run_vmtests.sh # exit=1"""
KUNIT = """\
    KTAP version 1
    # Subtest: a
    1..1
        KTAP version 1
        # Subtest: b
        # module: m
        ok 1 c # SKIP no d
        # b: pass:0 fail:0 skip:1 total:1
        1..1
    ok 1 b
ok 1 a"""


@pytest.mark.parametrize("text, outcome, found", [
    (RUNNER, "fail", [("a", "skip", ["skip"]), ("b", "fail", ["pass", "fail"])]),
    (KUNIT, "pass", [("b", "pass", ["skip"])]),
])
def test_results_within_results(text: str, outcome: str, found: list[object]) -> None:
    """What the kernel's runner passes on, and what KUnit prints."""
    seen = program("1..1", *text.splitlines(), status=int(outcome == "fail"))
    assert not seen.problems
    [test] = seen.tests
    assert test.outcome == outcome
    assert [(one.name, one.outcome, [inner.outcome for inner in one.within])
            for one in test.within] == found


@pytest.mark.parametrize("lines, wrong", [
    (["    1..2", "    ok 1 x"], "2 tests planned, 1 came"),
    (["# # not ok 1 x", "# ok 1 y"], "y says ok, but within it: x failed"),
    (["        ok 1 x", "    not ok 1 y # exit=1"], "y failed: exit=1"),
    # No results and no plan.
    (["# 1..2 pages were moved", "# not ok that it is", "# ok 1st of all"], ""),
])
def test_what_is_within_must_have_passed(lines: list[str], wrong: str) -> None:
    seen = program("1..1", *lines, "ok 1 a")
    assert seen.tests[0].outcome == ("error" if wrong else "pass")
    assert not wrong or wrong in seen.tests[0].reason


def test_an_expected_failure_of_a_subtest_is_none() -> None:
    assert not program("1..1", "    not ok 1 x # TODO later", "ok 1 a").problems


@pytest.mark.parametrize("lines, status, problem", [
    (["1..2", "ok 1 a"], 0, "2 tests planned, 1 came"),
    (["1..1", "ok 1 a", "ok 2 b"], 0, "1 test planned, 2 came"),
    (["ok 1 a"], 0, "no plan"),
    (["/bin/prog: not found"], 127, "no plan; its last words: '/bin/prog: not found'"),
    (["1..1", "1..2", "ok 1 a"], 0, "a second plan"),
    (["1..2", "ok 1 a", "ok 1 b"], 0, "1 came twice"),
    (["1..2", "ok 2 a", "ok 1 b"], 0, "not numbered in order"),
    (["1..2", "ok 1 a", "ok 2 a"], 0, "two results for a"),
    (["1..1", "not ok 1 a"], 0, "exit status 0, although a test failed"),
    (["1..1", "ok 1 a"], 1, "exit status 1, although no test failed"),
    (["1..1", "ok 1 a"], 4, "exit status 4, although no test failed"),
    (["1..1", "ok 1 a"], 139, "killed by signal 11"),
    (["1..1", "ok 1 a # SKIP"], 1, "exit status 1, although no test failed"),
    (["1..1", "lab: exit other 0", "ok 1 a"], 4, "exit status 4, although no test failed"),
    (["1..1", "Bail out! no hugepages"], 1, "Bail out! no hugepages"),
    (["1..1", "ok 1 a", "# Totals: pass:0 fail:1 xfail:0 xpass:0 skip:0 error:0"], 0,
     "it counted 1 fail, 0 came"),
    (["1..2", "#  RUN           a ...", "#  RUN           b ...", "ok 2 b"], 0,
     "a gave no result"),
    (["1..1", "#  RUN           a ...", "ok 1 b"], 0, "result 1 is that of b, but a was running"),
])
def test_what_does_not_fit_is_a_problem(lines: list[str], status: int, problem: str) -> None:
    assert any(problem in text for text in program(*lines, status=status).problems)


def test_a_program_that_cannot_run_here_is_a_skip() -> None:
    seen = program("TAP version 13", "1..0 # SKIP needs two nodes", status=4)
    assert [(test.name, test.outcome, test.reason) for test in seen.tests] == \
        [("prog", "skip", "needs two nodes")]
    assert not seen.problems


def test_half_a_line_before_the_frame() -> None:
    transcript = ktap.read("lab: start p\n1..1\nok 1 hugelab: exit p 139\nlab: done\n")
    assert transcript.done and transcript.programs[0].status == 139
    assert not transcript.tests()
    assert any("cut line 'ok 1 huge'" in text for text in transcript.problems())


def test_two_programs() -> None:
    transcript = ktap.read("lab: start p\n1..1\nok 1 a\nlab: exit p 0\n"
                           "lab: start q\n1..1\nnot ok 1 b\nlab: exit q 1\nlab: done\n")
    assert [(p.name, p.status) for p in transcript.programs] == [("p", 0), ("q", 1)]
    assert [test.name for test in transcript.tests()] == ["a", "b"] and not transcript.problems()


def test_a_program_without_an_end_before_the_next() -> None:
    transcript = ktap.read("lab: start p\n1..1\nok 1 a\nlab: start q\n1..1\nok 1 b\n"
                           "lab: exit q 0\nlab: done\n")
    assert transcript.programs[0].status is None
    assert any("p: no exit status" in text for text in transcript.problems())


def test_a_guest_that_rebooted_is_a_problem() -> None:
    once = "lab: start p\n1..1\nok 1 a\nlab: exit p 0\n"
    assert any("ran twice" in text for text in ktap.read(once * 2 + "lab: done\n").problems())


@pytest.mark.parametrize("line", ["ok 1 a", "not ok 1 a", "lab: exit p 0"])
def test_results_outside_of_a_program_are_a_problem(line: str) -> None:
    assert any("outside" in text for text in ktap.read(f"{line}\nlab: done\n").problems())


def test_an_expected_failure_says_fail_first() -> None:
    """The harness prints FAIL before it looks at what was expected."""
    seen = program("1..1", "#  RUN           a ...", "#          FAIL  a", "ok 1 a # XFAIL known")
    assert seen.tests[0].outcome == "xfail" and not seen.problems


def test_what_one_test_said_is_not_held_against_another() -> None:
    seen = program("1..2", "#          FAIL  a", "ok 1 b", "ok 2 c")
    assert [test.outcome for test in seen.tests] == ["pass", "pass"]


def test_results_without_any_name() -> None:
    seen = program("1..2", "ok 1", "ok 2")
    assert [test.name for test in seen.tests] == ["test 1", "test 2"] and not seen.problems


def test_totals_after_a_bail_out_are_no_second_problem() -> None:
    seen = program("1..1", "Bail out! x", "# Totals: pass:1 fail:0 xfail:0 xpass:0 skip:0 error:0",
                   status=1)
    assert not any("it counted" in text for text in seen.problems)


def test_any_beginning_of_a_run_is_no_whole_run() -> None:
    """Wherever the output is cut, it is never taken for a whole one."""
    text = golden("fixed.ktap")
    for end in range(0, len(text) - len("\r\n"), 7):
        cut = ktap.read(text[:end])
        assert not cut.done, end
