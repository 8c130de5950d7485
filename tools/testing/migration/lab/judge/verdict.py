# SPDX-License-Identifier: GPL-2.0
"""What a boot came to, and what all boots of both kernels prove.

A verdict other than PROVED never needs an excuse; PROVED needs every piece of evidence to be there.
"""

import dataclasses
import re
from collections.abc import Callable, Sequence, Set
from dataclasses import dataclass, field

from lab.judge.klog import Complaint, FATAL
from lab.judge.ktap import Test, Transcript
from lab.words import plural


@dataclass
class Boot:
    """One boot of one kernel.

    `variant` is "vulnerable" or "fixed", `number` counts from 1 in it, `folder` is where its logs
    are, `seconds` its wall-clock time, `accel` what QEMU used ("kvm" or "tcg").  `guest_exit` is
    the status QEMU ended with: 0 after a guest that powered itself off, None where QEMU had to be
    killed.  `state` is what boot_state() says.  `symptoms` are complaints that the defect itself
    makes, in a vulnerable kernel's log; they are not among `complaints`.  `ended_early` is a boot
    that the lab ended, since it had shown what it was to.
    """

    variant: str
    number: int
    folder: str
    seconds: float
    accel: str
    transcript: Transcript
    complaints: list[Complaint]
    timed_out: bool
    guest_exit: int | None
    state: str
    symptoms: list[Complaint] = field(default_factory=list)
    ended_early: bool = False

    def tests(self) -> list[Test]:
        return self.transcript.tests()


def sort_out(complaints: list[Complaint], symptoms: Sequence[str], fatal: Sequence[str] = ()
             ) -> tuple[list[Complaint], list[Complaint]]:
    """The complaints that no expression in `symptoms` matches, and those that one does.

    A kernel that one in `fatal` has happened to is damaged.  What it says after that comes of it,
    whatever it is, and is a symptom too.
    """
    died = next((number for number, one in enumerate(complaints) if _says(one, fatal)),
                len(complaints))
    expected = [one for number, one in enumerate(complaints)
                if number > died or _says(one, symptoms)]
    return [one for one in complaints if one not in expected], expected


def _says(complaint: Complaint, expressions: Sequence[str]) -> bool:
    return any(re.search(expression, complaint.text) for expression in expressions)


def boot_state(transcript: Transcript, complaints: list[Complaint], timed_out: bool,
               guest_exit: int | None, ended_early: bool = False) -> str:
    """DONE, CRASHED, ENDED, INCOMPLETE or TIMEOUT.

    CRASHED     the kernel panicked, oopsed or hit a BUG, whether or not it went on: what came after
                it says nothing, and a guest that hangs or falls silent after it does so because of
                it.
    ENDED       the lab ended it: a mutant that something saw, or a vulnerable kernel that died of
                its defect.  What came is evidence, and what did not come is none.
    TIMEOUT     the boot outlived its time; also where the tests had ended and the guest did not.
    INCOMPLETE  no end, no program, or output that is not whole: results are missing.
    DONE        everything came.  It says nothing of what the tests found, nor of milder complaints.
    """
    if any(complaint.kind in FATAL for complaint in complaints):
        return "CRASHED"
    if ended_early:
        return "ENDED"
    if timed_out:
        return "TIMEOUT"
    if not transcript.done or not transcript.programs or transcript.problems() or guest_exit != 0:
        return "INCOMPLETE"
    return "DONE"


def loses_writes(boot: Boot) -> bool:
    """A test failed in this boot, and by its own count because migrations lost writes, or did
    what else shows the defect.

    A test that fails for another reason (no memory, a failed mmap) is no evidence of the defect.
    """
    return any(test.outcome == "fail" and test.count("lost_migrations") > 0
               for test in boot.tests())


def dies_of_it(boot: Boot) -> bool:
    """The defect was fatal to the kernel, which did not come to its end after that."""
    return boot.state == "ENDED" and bool(boot.symptoms)


def suffers_from_it(boot: Boot) -> bool:
    """A test failed, and the kernel says of itself what the defect makes it say: it died of the
    defect, or a part of it did and the rest came to its end."""
    return dies_of_it(boot) or (boot.state == "DONE" and bool(boot.symptoms)
                                and any(test.outcome == "fail" for test in boot.tests()))


def keeps_writes(test: Test) -> bool:
    """The test passed, pages really moved in it, and it lost nothing."""
    return (test.outcome == "pass" and test.count("migrations") > 0
            and test.count("lost_migrations") == 0)


def _name(boot: Boot) -> str:
    return f"{boot.variant} boot {boot.number}"


def _clean(boot: Boot) -> bool:
    return boot.state != "CRASHED" and not boot.complaints


def _first(boots: list[Boot], tell: Callable[[Boot], str]) -> str:
    """The first boot of those that went wrong, in words, and how many others did."""
    more = f" (and {plural(len(boots) - 1, 'more boots')})" if len(boots) > 1 else ""
    return f"{_name(boots[0])}: {tell(boots[0])}{more}"


def worst(complaints: Sequence[Complaint]) -> Complaint | None:
    """The first that a kernel does not survive, or the first of all."""
    return next((one for one in complaints if one.kind in FATAL), next(iter(complaints), None))


def _complaint(boot: Boot) -> str:
    said = worst(boot.complaints)
    return f"{said.kind} at line {said.line} of its log: {said.text}" if said else \
        "the kernel crashed"


def _timeout(boot: Boot) -> str:
    programs = boot.transcript.programs
    if boot.transcript.done:
        return f"the tests ended, but the guest did not in {boot.seconds:.0f} s"
    if not programs:
        return f"no test had begun after {boot.seconds:.0f} s"
    return f"not done after {boot.seconds:.0f} s, {plural(len(programs[-1].tests), 'tests')} " \
           f"into {programs[-1].name}"


def _incomplete(boot: Boot) -> str:
    if not boot.transcript.programs:
        return "the guest ran no test" if boot.transcript.done else "the guest said nothing"
    if problems := boot.transcript.problems():
        return problems[0]
    if not boot.transcript.done:
        return "the guest fell silent before its end"
    if boot.guest_exit is None:
        return "no status came from QEMU"
    return f"QEMU ended with status {boot.guest_exit}"


def _regression(boot: Boot, harm: str, counts: str) -> str:
    """The worst that a test of a fixed boot shows; "" for nothing."""
    for test in boot.tests():
        if lost := test.count("lost_migrations"):
            return f"{test.name} {harm} in {lost} of {plural(test.tries(), counts)}"
    for test in boot.tests():
        # A failure in a kernel that has crashed may be the crash's doing.
        if test.outcome == "fail" and _clean(boot):
            return f"{test.name} failed" + (f": {test.reason}" if test.reason else "")
    return ""


def _all_skipped(boot: Boot) -> bool:
    return not dies_of_it(boot) and all(test.outcome == "skip" for test in boot.tests())


def _skip_reason(boot: Boot) -> str:
    reasons = [test.reason for test in boot.tests() if test.reason]
    return f"all tests were skipped: {reasons[0]}" if reasons else "all tests were skipped"


def _missed(boot: Boot) -> bool:
    """Every test that ran had its chance to see the defect, and none did."""
    ran = [test for test in boot.tests() if test.outcome != "skip"]
    return (not dies_of_it(boot) and all(test.outcome in ("pass", "xfail") for test in ran)
            and any(test.count("migrations") > 0 for test in ran))


def _told_passes(boot: Boot, counts: str) -> str:
    passed = [test for test in boot.tests() if test.outcome == "pass"]
    counted = sum(test.count("migrations") for test in passed)
    return f"{plural(len(passed), 'tests')} passed with {plural(counted, counts)}, none failed"


def _doubt(boot: Boot, lossy: list[str], harm: str, counts: str, kept: Set[str] = frozenset()
           ) -> str:
    """Why a boot that is done, clean, and did run tests still proves nothing; "" if it does.

    `lossy` names the tests that showed the defect on the vulnerable kernel, `kept` those that a
    fixed one passed.  Of a selftest with many tests, each in many boots, one that has nothing to do
    with the defect may be too slow once: then it is enough that it passed in another boot.
    """
    tests = boot.tests()
    undecided = [test for test in tests if test.outcome == "error"
                 or test.outcome == "inconclusive"
                 and (test.name in lossy or test.name not in kept)]
    if boot.variant == "vulnerable":
        if loses_writes(boot) or suffers_from_it(boot):
            return ""
        if failed := [test for test in tests if test.outcome == "fail"]:
            return f"{failed[0].name} failed, but no test counts {counts} that {harm}"
        if undecided:
            return f"no test failed, and {undecided[0].name} is undecided: {undecided[0].reason}"
        return f"no test failed, and those that passed counted no {counts}"
    if undecided:
        return f"{undecided[0].name} is undecided: {undecided[0].reason}"
    if not any(keeps_writes(test) for test in tests):
        return f"the tests that passed counted no {counts}"
    if not any(keeps_writes(test) for test in tests if test.name in lossy):
        return f"no test that shows it on the vulnerable kernel counted {counts} here"
    return ""


def decide(vulnerable: list[Boot], fixed: list[Boot], wanted: int,
           harm: str = "lost writes", counts: str = "migrations", witness: str = "",
           sees: bool = False) -> tuple[str, str]:
    """The verdict of a run of `wanted` boots of each kernel, and why, in one sentence.

    `counts` is what the tests count as migrations, in the defect's own word, and `harm` what such
    a one does that shows the defect; tests count that as lost_migrations.  `witness` is what the
    kernel's own check says, as an expression for symptoms, where both kernels have one, and `sees`
    whether it sees this defect in each boot.

    The first row that fits is the verdict.  What a fixed kernel did wrong comes first: it is news
    whatever happened to the other boots.  Then come the boots that cannot be read as results, then
    what the results say, the definite before the vague.

    1. REGRESSED     a test of a fixed boot counted harm, whatever else its log says; or failed
                     in a boot whose log is clean
    2. CRASHED       a boot of either kernel crashed, or its log has a complaint of any kind
    3. TIMEOUT       a boot of either kernel outlived its time
    4. INCOMPLETE    a boot of either kernel is incomplete, or fewer or more came than were wanted
    5. MISSED        in a vulnerable boot every test that ran passed, and pages did move
    6. SKIPPED       in a boot of either kernel no test ran
    7. INCONCLUSIVE  in a vulnerable boot no failed test counted harm; in a fixed one a test was
                     undecided that showed the defect on the vulnerable kernel, or that passed in
                     no other fixed boot; or none that showed it passed and counted any; or such a
                     test did so in no fixed boot at all; or the kernel's own check sees this
                     defect, and said nothing in a vulnerable boot: that it says nothing of the
                     fixed kernel means nothing then
    8. PROVED        none of these
    """
    whole = vulnerable
    if witness:
        # That the kernel's check saw it does not make a failed test one that counted harm.
        vulnerable = [dataclasses.replace(boot, symptoms=[
            one for one in boot.symptoms if not re.search(witness, one.text)])
            for boot in vulnerable]
    boots = vulnerable + fixed

    if bad := [boot for boot in fixed if _regression(boot, harm, counts)]:
        return "REGRESSED", _first(bad, lambda boot: _regression(boot, harm, counts))
    if bad := [boot for boot in boots if not _clean(boot)]:
        return "CRASHED", _first(bad, _complaint)
    if bad := [boot for boot in boots if boot.state == "TIMEOUT"]:
        return "TIMEOUT", _first(bad, _timeout)
    if bad := [boot for boot in boots if boot.state != "DONE" and not dies_of_it(boot)]:
        return "INCOMPLETE", _first(bad, _incomplete)
    for name, came in (("vulnerable", vulnerable), ("fixed", fixed)):
        # A boot counted twice must not make up for one that is missing.
        distinct = len({boot.number for boot in came if boot.variant == name})
        if wanted < 1 or distinct != wanted or len(came) != wanted:
            return "INCOMPLETE", \
                f"{plural(wanted, 'boots')} of the {name} kernel wanted, {distinct} came"

    if bad := [boot for boot in vulnerable if _missed(boot)]:
        return "MISSED", _first(bad, lambda boot: _told_passes(boot, counts))
    if bad := [boot for boot in boots if _all_skipped(boot)]:
        return "SKIPPED", _first(bad, _skip_reason)

    # A kernel that died of the defect did so in the tests that it did not come to the end of.
    lossy = list(dict.fromkeys(test.name for boot in vulnerable for test in boot.tests()
                               if test.outcome == "fail" and test.count("lost_migrations") > 0
                               or suffers_from_it(boot) and test.outcome not in ("pass", "skip")))
    kept = {test.name for boot in fixed for test in boot.tests() if keeps_writes(test)}
    if bad := [boot for boot in boots if _doubt(boot, lossy, harm, counts, kept)]:
        return "INCONCLUSIVE", _first(bad, lambda boot: _doubt(boot, lossy, harm, counts, kept))
    if open_tests := [name for name in lossy if name not in kept]:
        return "INCONCLUSIVE", f"{open_tests[0]} shows it on the vulnerable kernel, and " \
                               f"counted no {counts} on the fixed one"
    if witness and sees and (bad := [boot for boot in whole if not _speaks(boot, witness)]):
        return "INCONCLUSIVE", _first(
            bad, lambda _boot: "the kernel's own check (debug_vm_unmapped) sees this defect, and "
            "said nothing of it: it is off, or broken")

    def told(kernel: list[Boot]) -> list[Test]:
        return [test for boot in kernel for test in boot.tests() if not test.is_control()]

    lost = sum(test.count("lost_migrations") for test in told(vulnerable))
    tries = [sum(test.tries() for test in told(kernel)) for kernel in (vulnerable, fixed)]
    untold = sum(suffers_from_it(boot) and not loses_writes(boot) for boot in vulnerable)
    if untold == wanted:
        return "PROVED", (
            f"the vulnerable kernel died of it in {_every(wanted)}, before a test could say more; "
            f"the fixed one {harm} in none of {plural(tries[1], counts)}, "
            f"and {_logs(whole, witness)}")
    died = f" (and died of it before a test could say so in {untold} of these)" if untold else ""
    return "PROVED", (
        f"the vulnerable kernel {harm} in {lost} of {plural(tries[0], counts)}, in "
        f"{_every(wanted)}{died}; the fixed one in none of {tries[1]}, and "
        f"{_logs(whole, witness)}")


def _logs(vulnerable: list[Boot], witness: str) -> str:
    """What the logs say where all is proved: nothing, but for the kernel's own check.

    `witness` is what that says, as an expression for symptoms, where both kernels have one.
    """
    if not witness:
        return "no log has a complaint"
    saw = sum(_speaks(boot, witness) for boot in vulnerable)
    if not saw:
        return "no log has a complaint, also not of the kernel's own check (debug_vm_unmapped)"
    of = _every(saw) if saw == len(vulnerable) else f"{saw} of its {len(vulnerable)} boots"
    return "no log has a complaint but what the kernel's own check (debug_vm_unmapped) says of " \
           f"the vulnerable one, in {of}"


def _speaks(boot: Boot, witness: str) -> bool:
    return any(re.search(witness, one.text) for one in boot.symptoms)


def _every(wanted: int) -> str:
    return "its one boot" if wanted == 1 else f"each of its {wanted} boots"
