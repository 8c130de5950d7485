# SPDX-License-Identifier: GPL-2.0
"""Every row of the verdict, and the order of the rows."""

import pytest
import runs

from lab.judge import klog, ktap
from lab.judge.summary import kernel
from lab.judge.verdict import Boot, boot_state, decide, keeps_writes, sort_out
from lab.words import plural

MAIN = "prog.hugetlbfs_2.lost_write"
SPARE = "prog.memfd_2.lost_write"
CONTROL = "prog.alone.lost_write"
LOSS = "lost_migrations=9"
WARNING = klog.read("WARNING: CPU: 0 PID: 1 at mm/rmap.c:1 x+0x1/0x2\n")
PANIC = klog.read("Kernel panic - not syncing: Fatal exception\n")


def test(name: str, outcome: str, figures: str = "") -> ktap.Test:
    pairs = dict(pair.split("=") for pair in figures.split())
    return ktap.Test(name, outcome, "why" if outcome in ("inconclusive", "skip", "error") else "",
                     pairs)


test.__test__ = False                           # type: ignore[attr-defined]


def boot(variant: str, number: int, *tests: ktap.Test, state: str = "DONE",
         complaints: list[klog.Complaint] | None = None) -> Boot:
    program = ktap.Program("prog", 1, len(tests), list(tests))
    return Boot(variant, number, f"out/{variant}-{number}", 12.0, "tcg",
                ktap.Transcript([program], True), complaints or [], state == "TIMEOUT", 0, state)


LOSES = (test(MAIN, "fail", f"migrations=10 {LOSS}"), test(CONTROL, "pass", "migrations=10"))
KEEPS = (test(MAIN, "pass", "migrations=10 lost_migrations=0"),
         test(CONTROL, "pass", "migrations=10"), test(SPARE, "skip"))


def vulnerable(number: int = 1, *tests: ktap.Test, **more: object) -> Boot:
    return boot("vulnerable", number, *(tests or LOSES), **more)    # type: ignore[arg-type]


def fixed(number: int = 1, *tests: ktap.Test, **more: object) -> Boot:
    return boot("fixed", number, *(tests or KEEPS), **more)         # type: ignore[arg-type]


def verdict(left: list[Boot], right: list[Boot], wanted: int = 1) -> str:
    word, why = decide(left, right, wanted)
    assert why
    return word


def test_proved() -> None:
    assert verdict([vulnerable()], [fixed()]) == "PROVED"
    word, why = decide([vulnerable(1), vulnerable(2)], [fixed(1), fixed(2)], 2)
    assert word == "PROVED"
    assert "in 18 of 40 migrations, in each of its 2 boots" in why
    assert "the fixed one in none of 40" in why


def test_the_golden_runs_prove_it() -> None:
    boots = [runs.boot(variant, log=runs.golden("clean.console"))
             for variant in ("vulnerable", "fixed")]
    assert verdict(boots[:1], boots[1:]) == "PROVED"
    assert verdict(boots[:1], [boots[0]]) == "REGRESSED"


@pytest.mark.parametrize("tests", [
    [test(MAIN, "fail", f"migrations=10 {LOSS}")],
    [test(MAIN, "fail")],
    [*KEEPS, test("prog.other", "fail", "migrations=4")],
    # A program that counts a loss and yet says ok has a defect of its own.
    [test(MAIN, "pass", f"migrations=10 {LOSS}")],
    [test(MAIN, "inconclusive", f"migrations=10 {LOSS}")],
])
def test_regressed(tests: list[ktap.Test]) -> None:
    assert verdict([vulnerable()], [fixed(1, *tests)]) == "REGRESSED"


def test_regressed_in_one_boot_of_many() -> None:
    assert verdict([vulnerable(1), vulnerable(2)], [fixed(1), fixed(2, *LOSES)], 2) == "REGRESSED"


@pytest.mark.parametrize("state", ["CRASHED", "TIMEOUT", "INCOMPLETE"])
def test_a_loss_in_a_fixed_boot_counts_however_that_boot_ended(state: str) -> None:
    assert verdict([vulnerable()], [fixed(1, *LOSES, state=state)]) == "REGRESSED"


def test_a_mere_failure_in_a_crashed_fixed_boot_is_the_crash() -> None:
    failed = (test(MAIN, "fail"),)
    assert verdict([vulnerable()], [fixed(1, *failed, complaints=PANIC)]) == "CRASHED"
    assert verdict([vulnerable()], [fixed(1, *failed, state="TIMEOUT")]) == "REGRESSED"


def test_a_crash_of_the_vulnerable_kernel_does_not_hide_a_regression() -> None:
    assert verdict([vulnerable(1, complaints=PANIC)], [fixed(1, *LOSES)]) == "REGRESSED"


@pytest.mark.parametrize("complaints", [WARNING, PANIC])
def test_crashed_by_any_complaint_in_either_log(complaints: list[klog.Complaint]) -> None:
    assert verdict([vulnerable(1, complaints=complaints)], [fixed()]) == "CRASHED"
    assert verdict([vulnerable()], [fixed(1, complaints=complaints)]) == "CRASHED"
    _, why = decide([vulnerable()], [fixed(1, complaints=complaints)], 1)
    assert "fixed boot 1" in why and complaints[0].text in why


@pytest.mark.parametrize("state", ["CRASHED", "TIMEOUT", "INCOMPLETE"])
def test_a_boot_that_is_not_done(state: str) -> None:
    assert verdict([vulnerable(1, state=state)], [fixed()]) == state
    assert verdict([vulnerable()], [fixed(1, state=state)]) == state
    assert verdict([vulnerable(1), vulnerable(2, state=state)], [fixed(1), fixed(2)], 2) == state


def test_a_crash_is_told_before_a_timeout_and_that_before_a_loss() -> None:
    crashed, late, lost = (fixed(n, state=s) for n, s in
                           enumerate(("CRASHED", "TIMEOUT", "INCOMPLETE"), 1))
    left = [vulnerable(n) for n in (1, 2, 3)]
    assert verdict(left, [lost, late, crashed], 3) == "CRASHED"
    assert verdict(left, [lost, late, fixed(1)], 3) == "TIMEOUT"
    assert verdict(left, [lost, fixed(2), fixed(1)], 3) == "INCOMPLETE"


@pytest.mark.parametrize("left, right, wanted", [
    ([], [], 1),
    ([], [], 0),
    ([vulnerable()], [], 1),
    ([], [fixed()], 1),
    ([vulnerable(1), vulnerable(2)], [fixed(1)], 2),
    ([vulnerable(1)], [fixed(1), fixed(2)], 2),
    ([vulnerable(1), vulnerable(1)], [fixed(1), fixed(2)], 2),
    ([vulnerable(1)], [fixed(1), fixed(2)], 1),
    ([vulnerable(1), vulnerable(2), vulnerable(2)], [fixed(1), fixed(2)], 2),
    ([vulnerable(1)], [vulnerable(1, *KEEPS)], 1),
])
def test_boots_that_are_missing_or_too_many_are_lost(left: list[Boot], right: list[Boot],
                                                     wanted: int) -> None:
    assert verdict(left, right, wanted) == "INCOMPLETE"


SWAPOPS = klog.read("kernel BUG at include/linux/swapops.h:505!\n")


def test_a_vulnerable_kernel_may_die_of_its_defect() -> None:
    dead = vulnerable(2, test(MAIN, "pass", "migrations=10"), state="ENDED")
    dead.symptoms = SWAPOPS
    word, why = decide([vulnerable(1), dead], [fixed(1), fixed(2)], 2)
    assert word == "PROVED"
    assert "in each of its 2 boots (and died of it before a test could say so in 1 of these)" in why
    silent = vulnerable(2, test(MAIN, "skip"), state="ENDED")
    silent.symptoms = SWAPOPS
    assert verdict([vulnerable(1), silent], [fixed(1), fixed(2)], 2) == "PROVED"
    # Of what, if no symptom says so; and a fixed kernel has none to die of.
    assert verdict([vulnerable(1, state="ENDED")], [fixed(1)]) == "INCOMPLETE"
    late = fixed(1, state="ENDED")
    assert verdict([vulnerable(1)], [late]) == "INCOMPLETE"
    # At least once a test must have said what the boots that died are taken for.
    only = vulnerable(1, test(MAIN, "pass", "migrations=10"), state="ENDED")
    only.symptoms = SWAPOPS
    assert verdict([only], [fixed(1)]) == "INCONCLUSIVE"


def test_the_test_that_a_kernel_died_in_showed_the_defect() -> None:
    """It counts nothing any more; the fixed kernel must have passed that very test."""
    for outcome in ("fail", "error", "inconclusive"):
        dead = vulnerable(1, test(MAIN, outcome), state="ENDED")
        dead.symptoms = SWAPOPS
        word, why = decide([dead], [fixed(1)], 1)
        assert word == "PROVED" and "the vulnerable kernel died of it in its one boot, " in why
        assert "the fixed one lost writes in none of 20 migrations" in why
        other = fixed(1, test(SPARE, "pass", "migrations=10"))
        assert verdict([dead], [other]) == "INCONCLUSIVE"


def test_a_try_that_never_comes_back_is_one() -> None:
    """The test has not counted it when the kernel dies, and says that it is lost."""
    stuck = vulnerable(1, test(MAIN, "fail", "migrations=0 lost_migrations=1"))
    dead = vulnerable(2, test(MAIN, "error"), state="ENDED")
    dead.symptoms = SWAPOPS
    word, why = decide([stuck, dead], [fixed(1), fixed(2)], 2, "got stuck", "holes")
    assert word == "PROVED" and "the vulnerable kernel got stuck in 1 of 1 hole, in each" in why
    sums = kernel("", (), [stuck, dead])
    assert (sums.lost_migrations, sums.migrations, sums.by_test[MAIN].of()) == (1, 1, 1)
    bad = fixed(1, test(MAIN, "fail", "migrations=0 lost_migrations=1"))
    assert decide([vulnerable()], [bad], 1, "got stuck", "holes")[1].endswith(
        "got stuck in 1 of 1 hole")


def test_a_kernel_may_suffer_from_its_defect_and_live() -> None:
    """An oops takes one process with it, the test fails for that, and the guest ends as it should."""
    hurt = vulnerable(1, test(MAIN, "fail", "migrations=10"))
    assert verdict([hurt], [fixed(1)]) == "INCONCLUSIVE"
    hurt.symptoms = SWAPOPS
    word, why = decide([hurt], [fixed(1)], 1)
    assert word == "PROVED" and "the vulnerable kernel died of it in its one boot, " in why
    # To complain is not enough.
    fine = vulnerable(1, test(MAIN, "pass", "migrations=10"))
    fine.symptoms = SWAPOPS
    assert verdict([fine], [fixed(1)]) == "MISSED"


@pytest.mark.parametrize("left, right, word, why", [
    (LOSES, KEEPS, "PROVED", "the vulnerable kernel got stuck in 9 of 20 holes, in its one boot; the "
                             "fixed one in none of 20, and no log has a complaint"),
    (LOSES, LOSES, "REGRESSED", f"fixed boot 1: {MAIN} got stuck in 9 of 10 holes"),
    (KEEPS, KEEPS, "MISSED", "vulnerable boot 1: 2 tests passed with 20 holes, none failed"),
    ((test(MAIN, "fail", "migrations=1"),), KEEPS, "INCONCLUSIVE",
     f"vulnerable boot 1: {MAIN} failed, but no test counts holes that got stuck"),
    ((test(MAIN, "pass"),), KEEPS, "INCONCLUSIVE",
     "vulnerable boot 1: no test failed, and those that passed counted no holes"),
    (LOSES, (test(MAIN, "pass"),), "INCONCLUSIVE",
     "fixed boot 1: the tests that passed counted no holes"),
    (LOSES, (test(CONTROL, "pass", "migrations=1"),), "INCONCLUSIVE",
     "fixed boot 1: no test that shows it on the vulnerable kernel counted holes here"),
])
def test_a_verdict_speaks_in_the_words_of_its_defect(
        left: tuple[ktap.Test, ...], right: tuple[ktap.Test, ...], word: str, why: str) -> None:
    made = decide([vulnerable(1, *left)], [fixed(1, *right)], 1, "got stuck", "holes")
    assert made[0] == word and made[1].removesuffix(" (and 1 more boot)") == why


def test_one_of_what_is_counted() -> None:
    for words, one in (("tries", "try"), ("accesses", "access"), ("migrations", "migration"),
                       ("mprotect calls", "mprotect call"), ("patches", "patch")):
        assert (plural(1, words), plural(2, words)) == (f"1 {one}", f"2 {words}")


def test_missed() -> None:
    assert verdict([vulnerable(1, *KEEPS)], [fixed()]) == "MISSED"
    assert verdict([vulnerable(1), vulnerable(2, *KEEPS)], [fixed(1), fixed(2)], 2) == "MISSED"


def test_missed_is_told_before_skipped() -> None:
    assert verdict([vulnerable(1, *KEEPS)], [fixed(1, test(MAIN, "skip"))]) == "MISSED"


def test_skipped() -> None:
    skipped = (test(MAIN, "skip"), test(SPARE, "skip"))
    assert verdict([vulnerable(1, *skipped)], [fixed()]) == "SKIPPED"
    assert verdict([vulnerable()], [fixed(1, *skipped)]) == "SKIPPED"
    assert verdict([vulnerable(1), vulnerable(2)], [fixed(1), fixed(2, *skipped)], 2) == "SKIPPED"
    assert "why" in decide([vulnerable()], [fixed(1, *skipped)], 1)[1]


@pytest.mark.parametrize("tests", [
    # A failure for another reason is no evidence of a lost write.
    [test(MAIN, "fail", "migrations=10 lost_migrations=0")],
    [test(MAIN, "fail")],
    [test(MAIN, "inconclusive"), test(CONTROL, "pass", "migrations=10")],
    [test(MAIN, "error"), test(CONTROL, "pass", "migrations=10")],
    [test(MAIN, "pass", "migrations=0")],
    # Contradicts itself: counted losses, and passed.
    [test(MAIN, "pass"), test(SPARE, "inconclusive", LOSS)],
])
def test_inconclusive_on_the_vulnerable_kernel(tests: list[ktap.Test]) -> None:
    assert verdict([vulnerable(1, *tests)], [fixed()]) == "INCONCLUSIVE"


@pytest.mark.parametrize("tests", [
    [*KEEPS, test("prog.other", "inconclusive")],
    [*KEEPS, test("prog.other", "error")],
    [test(MAIN, "pass", "migrations=0")],
    [test(MAIN, "xfail", "migrations=10")],
    # Only tests that pass on the vulnerable kernel too moved a page.
    [test(MAIN, "skip"), test(CONTROL, "pass", "migrations=10")],
    [test(MAIN, "pass", "migrations=0"), test(CONTROL, "pass", "migrations=10")],
])
def test_inconclusive_on_the_fixed_kernel(tests: list[ktap.Test]) -> None:
    assert verdict([vulnerable()], [fixed(1, *tests)]) == "INCONCLUSIVE"
    good = [vulnerable(1), vulnerable(2)]
    assert verdict(good, [fixed(1), fixed(2, *tests)], 2) == "INCONCLUSIVE"


@pytest.mark.parametrize("other, elsewhere, says", [
    (test("prog.other", "inconclusive"), "migrations=4", "PROVED"),
    # Where nothing moved, it saw nothing.
    (test("prog.other", "inconclusive"), "migrations=0", "INCONCLUSIVE"),
    (test("prog.other", "error"), "migrations=4", "INCONCLUSIVE"),
])
def test_a_test_that_does_not_show_the_defect_may_be_undecided_in_one_boot(
        other: ktap.Test, elsewhere: str, says: str) -> None:
    left = [vulnerable(1), vulnerable(2)]
    kept = test("prog.other", "pass", elsewhere)
    assert verdict(left, [fixed(1, *KEEPS, kept), fixed(2, *KEEPS, other)], 2) == says
    assert verdict(left, [fixed(1, *KEEPS, other), fixed(2, *KEEPS, other)], 2) == "INCONCLUSIVE"


def test_one_that_shows_the_defect_may_not() -> None:
    left = [vulnerable(1), vulnerable(2)]
    slow = (test(MAIN, "inconclusive", "migrations=2"), *KEEPS[1:],
            test("prog.other", "pass", "migrations=9"))
    assert verdict(left, [fixed(1), fixed(2, *slow)], 2) == "INCONCLUSIVE"


def test_each_test_that_loses_writes_must_be_seen_to_keep_them() -> None:
    """It may be skipped in one fixed boot, but not in all."""
    both = (*LOSES, test(SPARE, "fail", f"migrations=10 {LOSS}"))
    kept = (*KEEPS[:2], test(SPARE, "pass", "migrations=3"))
    word, why = decide([vulnerable(1, *both)], [fixed()], 1)
    assert word == "INCONCLUSIVE" and SPARE in why
    left = [vulnerable(1, *both), vulnerable(2, *both)]
    assert verdict(left, [fixed(1), fixed(2, *kept)], 2) == "PROVED"


@pytest.mark.parametrize("spare", [test(SPARE, "fail", "migrations=4"),
                                   test(SPARE, "inconclusive", f"migrations=4 {LOSS}")])
def test_only_a_failure_with_losses_is_evidence(spare: ktap.Test) -> None:
    # Beside real evidence it is none, so that the fixed kernel need not answer it ...
    assert verdict([vulnerable(1, *LOSES, spare)], [fixed()]) == "PROVED"
    # ... and a boot that has nothing else proves nothing, whatever the other boots show.
    left = [vulnerable(1), vulnerable(2, spare)]
    assert verdict(left, [fixed(1), fixed(2)], 2) == "INCONCLUSIVE"


@pytest.mark.parametrize("outcome, figures, kept", [
    ("pass", "migrations=1", True), ("pass", "migrations=0", False), ("pass", "", False),
    ("pass", "migrations=1 lost_migrations=1", False), ("fail", "migrations=1", False)])
def test_keeps_writes(outcome: str, figures: str, kept: bool) -> None:
    assert keeps_writes(test(MAIN, outcome, figures)) is kept


def test_why_names_the_worst_complaint() -> None:
    assert "Fatal exception" in decide([vulnerable(1, complaints=WARNING + PANIC)], [fixed()], 1)[1]


@pytest.mark.parametrize("text, done, late, status, words", [
    ("", False, True, None, "no test had begun after 12 s"),
    ("lab: start p\n1..2\nok 1 a\n", False, True, None, "not done after 12 s, 1 test into p"),
    ("lab: done\n", True, True, None, "the tests ended, but the guest did not"),
    ("", False, False, 0, "the guest said nothing"),
    ("lab: done\n", True, False, 0, "the guest ran no test"),
    ("lab: start p\n1..1\nok 1 a\nlab: exit p 0\n", False, False, 0,
     "the guest fell silent before its end"),
    ("lab: start p\n1..2\nok 1 a\nlab: exit p 0\nlab: done\n", True, False, 0,
     "p: 2 tests planned, 1 came"),
    ("lab: start p\n1..1\nok 1 a\nlab: exit p 0\nlab: done\n", True, False, None,
     "no status came from QEMU"),
    ("lab: start p\n1..1\nok 1 a\nlab: exit p 0\nlab: done\n", True, False, 3,
     "QEMU ended with status 3"),
])
def test_why_a_boot_is_not_done(text: str, done: bool, late: bool, status: int | None,
                                words: str) -> None:
    bad = runs.boot("fixed", text=text, late=late, status=status, seconds=12.0)
    assert bad.transcript.done is done
    word, why = decide([vulnerable()], [bad], 1)
    assert (word, why[:len("fixed boot 1: ")]) == (bad.state, "fixed boot 1: ")
    assert words in why


def test_why_gives_the_reason_of_a_failure() -> None:
    failed = ktap.Test(MAIN, "fail", "one page differs")
    assert decide([vulnerable()], [fixed(1, *KEEPS, failed)], 1)[1].endswith("one page differs")
    passes = decide([vulnerable(1, *KEEPS)], [fixed()], 1)[1]
    assert passes.endswith("2 tests passed with 20 migrations, none failed")


def test_why_counts_no_other_boot_where_there_is_none() -> None:
    assert "more boot" not in decide([vulnerable()], [fixed(1, state="INCOMPLETE")], 1)[1]


def test_why_names_the_boot_and_counts_the_others() -> None:
    right = [fixed(1), fixed(2, state="INCOMPLETE"), fixed(3, state="INCOMPLETE")]
    _, why = decide([vulnerable(n) for n in (1, 2, 3)], right, 3)
    assert why.startswith("fixed boot 2: ") and "(and 1 more boot)" in why


WHOLE = ktap.read("lab: start p\n1..1\nok 1 a\nlab: exit p 0\nlab: done\n")
CUT = ktap.read("lab: start p\n1..1\nok 1 a\n")
HOLED = ktap.read("lab: start p\n1..2\nok 1 a\nlab: exit p 0\nlab: done\n")
IDLE = ktap.read("lab: done\n")


@pytest.mark.parametrize("transcript, complaints, timed_out, status, state", [
    (WHOLE, [], False, 0, "DONE"),
    (WHOLE, WARNING, False, 0, "DONE"),
    (WHOLE, PANIC, False, 0, "CRASHED"),
    (CUT, PANIC, False, 0, "CRASHED"),
    (CUT, PANIC, True, None, "CRASHED"),
    (CUT, WARNING, True, None, "TIMEOUT"),
    (CUT, [], True, None, "TIMEOUT"),
    (WHOLE, [], True, None, "TIMEOUT"),
    (ktap.read(""), [], True, None, "TIMEOUT"),
    (ktap.read(""), [], False, 0, "INCOMPLETE"),
    (CUT, [], False, 0, "INCOMPLETE"),
    (HOLED, [], False, 0, "INCOMPLETE"),
    (IDLE, [], False, 0, "INCOMPLETE"),
    (WHOLE, [], False, 1, "INCOMPLETE"),
    (WHOLE, [], False, None, "INCOMPLETE"),
    # Everything came, but not the guest's own word that it was everything.
    (ktap.Transcript(WHOLE.programs, False), [], False, 0, "INCOMPLETE"),
])
def test_boot_state(transcript: ktap.Transcript, complaints: list[klog.Complaint],
                    timed_out: bool, status: int | None, state: str) -> None:
    assert boot_state(transcript, complaints, timed_out, status) == state


@pytest.mark.parametrize("transcript, complaints, state", [
    (CUT, [], "ENDED"),
    (CUT, WARNING, "ENDED"),
    (WHOLE, [], "ENDED"),
    # What the kernel did says more than what the lab did.
    (CUT, PANIC, "CRASHED"),
])
def test_state_of_a_boot_that_the_lab_ended(transcript: ktap.Transcript,
                                            complaints: list[klog.Complaint], state: str) -> None:
    assert boot_state(transcript, complaints, False, None, True) == state


def test_a_boot_that_was_ended_proves_nothing() -> None:
    assert verdict([vulnerable(1, state="ENDED")], [fixed()]) == "INCOMPLETE"
    assert verdict([vulnerable()], [fixed(1, state="ENDED")]) == "INCOMPLETE"


@pytest.mark.parametrize("log, state", [
    ("bug", "CRASHED"), ("oops", "CRASHED"), ("kasan", "CRASHED"), ("bad-page", "CRASHED"),
    ("panic", "CRASHED"), ("warning", "DONE"), ("lockdep", "DONE"), ("hung-task", "DONE"),
    ("rcu-stall", "DONE"), ("soft-lockup", "DONE"), ("clean", "DONE"),
])
def test_a_golden_log_beside_whole_results(log: str, state: str) -> None:
    """Whatever the state, only the clean log goes with PROVED."""
    found = klog.read(runs.golden(f"{log}.console"))
    assert boot_state(WHOLE, found, False, 0) == state
    word = verdict([vulnerable()], [fixed(1, complaints=found, state=state)])
    assert word == ("PROVED" if log == "clean" else "CRASHED")


def test_a_symptom_is_no_complaint_and_nothing_else_becomes_one() -> None:
    log = klog.read("[    1.0] pagealloc: memory corruption\n[    1.1] Call Trace:\n"
                    "[    4.0] ------------[ cut here ]------------\n"
                    "[    4.0] WARNING: CPU: 0 PID: 1 at mm/rmap.c:1 f+0x1/0x2\n")
    assert len(log) == 2
    rest, symptoms = sort_out(log, ("pagealloc: memory corruption",))
    assert [one.text for one in symptoms] == [log[0].text] and rest == [log[1]]
    assert sort_out(log, ()) == (log, [])


def test_what_comes_after_a_fatal_one_comes_of_it() -> None:
    before, fatal, after = klog.read(
        "[    1.0] WARNING: CPU: 0 PID: 1 at mm/rmap.c:1 f+0x1/0x2\n"
        "[    1.0] ---[ end trace 0 ]---\n"
        "[    2.0] kernel BUG at mm/hugetlb.c:7255!\n[    2.1] ---[ end trace 0 ]---\n"
        "[    3.0] kernel BUG at mm/mmu_gather.c:102!\n[    3.1] ---[ end trace 0 ]---\n")
    what = ("kernel BUG at mm/hugetlb",)
    assert sort_out([before, fatal, after], what, what) == ([before], [fatal, after])
    assert sort_out([before, fatal, after], what) == ([before, after], [fatal])
    assert sort_out([before, after], what, what) == ([before, after], [])
