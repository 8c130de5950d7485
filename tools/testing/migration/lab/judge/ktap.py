# SPDX-License-Identifier: GPL-2.0
"""Reads KTAP: what the guest writes on its own serial line, and what the kernel's runner prints.

The guest's init frames each test program ("lab: start", "lab: exit", "lab: done"), so that an end
can be told from silence.  Whatever is not beyond doubt is a problem of the program, never a pass:
a result whose line was cut or run together with another is missing, and a missing result shows in
the plan, in the numbering and in the program's exit status.

The format is Documentation/dev-tools/ktap.rst and tools/testing/selftests/kselftest_harness.h.
Results within a result are indented, as those of KUnit, or behind a "# " for each level, as
run_kselftest.sh and run_vmtests.sh pass on what a program prints.

The kernel's kunit_parser.py knows no figures, no frame and no exit status, and old trees lack it.
"""

import re
from dataclasses import dataclass, field

from lab.words import plural

_RUN = re.compile(r"#\s+RUN\s+(\S+) \.\.\.$")
# The harness says OK or FAIL once before the result itself: a second witness for each result.
_CLAIM = re.compile(r"#\s+(OK|FAIL)\s+(\S+)$")
_RESULT = re.compile(r"(not )?ok (\d+)(?:$| (?:- )?(.*)$)")
_LOOKS_LIKE_RESULT = re.compile(r"(not )?ok\b")
# One level of a result or a plan that is within another result.
_NESTED = re.compile(r"(?:# | {4}|\s+)"
                     r"((?:# |\s)*(?:(?:not )?ok \d+(?: .*)?|1\.\.\d+(?: +# SKIP.*)?))$")
_PLAN = re.compile(r"1\.\.(\d+)(?:\s+# SKIP ?(.*))?$")
_TOTALS = re.compile(r"# Totals: ((?:[a-z]+:\d+ ?)+)$")
_FIGURES = re.compile(r"# \S+:((?: [a-z][a-z0-9_]*=\S*)+) *$")
_START = re.compile(r"lab: start (\S+)$")
_EXIT = re.compile(r"lab: exit (\S+) (\d+)$")
_DONE = "lab: done"

# KSFT_SKIP of kselftest.h: the program as a whole could not run here.
_EXIT_SKIP = 4


@dataclass
class Test:
    """One result.

    `outcome` is pass, fail, skip, inconclusive, xfail or error.  "error" is a test that said
    nothing that can be believed: its result never came, contradicts what the test said before, or
    is an "# error" or "# XPASS".  `notes` are the lines it printed, without their "# "; `within`
    the results within this one.
    """

    name: str
    outcome: str
    reason: str = ""
    figures: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    within: list["Test"] = field(default_factory=list)

    def is_control(self) -> bool:
        """The test says that it cannot show the defect, and is there to show that it does not."""
        return self.figures.get("control") == "yes"

    def count(self, key: str) -> int:
        """The figure `key` as a number; 0 where the test did not print it, or printed no number."""
        value = self.figures.get(key, "")
        return int(value) if re.fullmatch(r"[0-9]+", value) else 0

    def tries(self) -> int:
        """How many migrations it made.  A test counts those that came back; one that it never came
        back from it says to be lost, though the kernel died before the first of them was done."""
        return max(self.count("migrations"), self.count("lost_migrations"))


@dataclass
class Program:
    """What one test program printed.

    `status` is its exit status, None where no "lab: exit" line came; `planned` the number in its
    plan, None where it printed none.  `problems` is empty only for output that is whole and does
    not contradict itself.
    """

    name: str
    status: int | None = None
    planned: int | None = None
    tests: list[Test] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)


@dataclass
class Transcript:
    """All that came on the line; `done` says that the guest's init reached its end."""

    programs: list[Program] = field(default_factory=list)
    done: bool = False

    def tests(self) -> list[Test]:
        """The tests of all programs, in the order in which they ran."""
        return [test for program in self.programs for test in program.tests]

    def problems(self) -> list[str]:
        """The problems of all programs, each with the name of its program."""
        return [f"{program.name}: {text}" for program in self.programs for text in program.problems]


def _outcome(failed: bool, directive: str, inconclusive: bool) -> tuple[str, str]:
    """Outcome and reason of a result from its "not", its directive and the test's own figures."""
    word, _, rest = directive.partition(" ")
    word = word.upper().rstrip(":")
    rest = rest.strip()
    if word == "XPASS":
        return "error", rest or "passed, but was expected to fail"
    if failed:
        if word in ("XFAIL", "TODO"):
            return "xfail", rest
        if word == "ERROR":
            return "error", rest
        return "fail", directive
    if word == "SKIP" and rest.lower().startswith("inconclusive"):
        return "inconclusive", rest.partition(":")[2].strip() or rest
    if inconclusive:
        return "inconclusive", rest if word == "SKIP" else directive
    if word == "SKIP":
        return "skip", rest
    if word in ("XFAIL", "TODO"):
        return "xfail", rest
    return "pass", directive


class Reader:
    """Reads the results of one level, a line at a time: of a program, or of what ran several."""

    def __init__(self, name: str) -> None:
        self.program = Program(name)
        self._running: str | None = None
        self._claim: tuple[bool, str] | None = None
        self._figures: dict[str, str] = {}
        self._notes: list[str] = []
        self._within: Reader | None = None
        self._numbers: list[int] = []
        self._totals: dict[str, int] = {}
        self._bailed = False
        self._skipped = False

    def _problem(self, text: str) -> None:
        self.program.problems.append(text)

    def _reset(self) -> None:
        self._running = self._claim = None
        self._figures, self._notes, self._within = {}, [], None

    def _abandon(self, why: str) -> None:
        """A test began and never gave a result: keep what it said, as an error."""
        if self._running is not None:
            self.program.tests.append(Test(self._running, "error", f"no result: {why}",
                                           self._figures, self._notes))
            self._problem(f"{self._running} gave no result: {why}")
        self._reset()

    def line(self, line: str) -> Test | None:
        """Take one whole line; returns the result that it is, where it is one of this level."""
        if nested := _NESTED.match(line):
            self._within = self._within or Reader("")
            self._within.line(nested[1])
            return None
        run, claim = _RUN.match(line), _CLAIM.match(line)
        plan, figures = _PLAN.match(line), _FIGURES.match(line)
        if run:
            self._abandon("the next test began")
            self._running = run[1]
        elif claim:
            self._claim = (claim[1] == "FAIL", claim[2])
        elif plan:
            self._plan(int(plan[1]), plan[2])
        elif figures:
            self._read_figures(figures[1].split())
        elif totals := _TOTALS.match(line):
            self._totals = {key: int(value) for key, value in
                            (pair.split(":") for pair in totals[1].split())}
        elif result := _RESULT.match(line):
            return self._result(result[1] is not None, int(result[2]), result[3] or "")
        elif _LOOKS_LIKE_RESULT.match(line):
            self._problem(f"cannot read the result line '{line}'")
        elif line.startswith("Bail out!"):
            self._bailed = True
            self._problem(line)
        elif line.strip():
            self._notes.append(line[2:] if line.startswith("# ") else line)
        return None

    def _plan(self, planned: int, skip_reason: str | None) -> None:
        if self.program.planned is not None:
            self._problem(f"a second plan: {self.program.planned} tests, then {planned}")
            return
        self.program.planned = planned
        if planned == 0:
            # "1..0 # SKIP reason": the program could not run.  It must show as skipped, since
            # no test at all would look like a program that says nothing.
            self._skipped = True
            self.program.tests.append(Test(self.program.name, "skip", skip_reason or ""))

    def _read_figures(self, pairs: list[str]) -> None:
        if self._figures:
            self._problem(f"a second line of figures in {self._running or 'a test'}")
            return
        for pair in pairs:
            key, _, value = pair.partition("=")
            self._figures[key] = value

    def _result(self, failed: bool, number: int, rest: str) -> Test:
        name, directive = rest.strip(), ""
        if mark := re.search(r"(?:^|\s)#\s*", rest):
            name, directive = rest[:mark.start()].strip(), rest[mark.end():].strip()
        # Before 6.9 the harness prints "ok 3 # SKIP reason", without the test's name.
        name = name or self._running or f"test {number}"
        outcome, reason = _outcome(failed, directive, "inconclusive" in self._figures)
        if outcome == "inconclusive":
            reason = self._figures.get("inconclusive", "").replace("-", " ") or reason
        doubt = ""
        if self._running is not None and name != self._running:
            doubt = f"result {number} is that of {name}, but {self._running} was running"
        elif self._claim and self._claim[1] == name and outcome != "xfail" \
                and self._claim[0] != (outcome in ("fail", "error")):
            doubt = (f"{name} said {'FAIL' if self._claim[0] else 'OK'} "
                     f"and then '{'not ok' if failed else 'ok'}'")
        elif outcome == "pass" and self._within and (wrong := self._within.wrong()):
            doubt = f"{name} says ok, but within it: {wrong}"
        if doubt:
            self._problem(doubt)
            outcome, reason = "error", doubt
        if any(test.name == name for test in self.program.tests):
            self._problem(f"two results for {name}")
        self._numbers.append(number)
        within = self._within.program.tests if self._within else []
        made = Test(name, outcome, reason, self._figures, self._notes, within)
        self.program.tests.append(made)
        self._reset()
        return made

    def wrong(self) -> str:
        """Why what is around these results cannot have passed; "" if it can."""
        tests, planned = self.program.tests, self.program.planned
        for test in tests:
            if test.outcome in ("fail", "error"):
                return f"{test.name} failed" + (f": {test.reason}" if test.reason else "")
        # A plan of none is a skip, and counts as a result.
        return f"{plural(planned, 'tests')} planned, {len(tests)} came" \
            if planned is not None and len(tests) < planned else ""

    def end(self, status: int | None) -> Program:
        """The program ended with `status`, or its output just stops (None)."""
        self.program.status = status
        last_words = f"; its last words: '{self._notes[-1]}'" if self._notes else ""
        self._abandon("its output ends there" if status is None
                      else f"the program ended with status {status}")
        if status is None:
            self._problem("no exit status came: its output ends early")
        if self.program.planned is None:
            self._problem(f"no plan{last_words}")
        self._check_count()
        self._check_totals()
        if status is not None:
            self._check_status(status)
        return self.program

    def _check_count(self) -> None:
        planned, numbers = self.program.planned, self._numbers
        if planned is not None and planned != len(numbers):
            self._problem(f"{plural(planned, 'tests')} planned, {len(numbers)} came")
        if numbers != list(range(1, len(numbers) + 1)):
            missing = sorted(set(range(1, max(numbers) + 1)) - set(numbers))
            twice = sorted({n for n in numbers if numbers.count(n) > 1})
            what = ", ".join([f"{n} is missing" for n in missing] +
                             [f"{n} came twice" for n in twice])
            self._problem(f"results are not numbered in order: {what or numbers}")

    def _check_totals(self) -> None:
        """The harness counts for itself; what it counted must be what came."""
        if not self._totals or self._bailed or self._skipped:
            return
        tests = self.program.tests
        # A test that was given up or doubted above already is a problem of its own.
        if any(test.outcome == "error" for test in tests):
            return
        # Pass and skip together: an "ok" with an inconclusive figure is a pass to the harness only.
        for keys, outcomes in ((("pass", "skip"), ("pass", "skip", "inconclusive")),
                               (("fail",), ("fail",)), (("xfail",), ("xfail",))):
            counted = sum(self._totals.get(key, 0) for key in keys)
            came = sum(test.outcome in outcomes for test in tests)
            if counted != came:
                self._problem(f"it counted {counted} {' or '.join(keys)}, {came} came")

    def _check_status(self, status: int) -> None:
        outcomes = {test.outcome for test in self.program.tests}
        if status > 128:            # as a shell reports it
            self._problem(f"killed by signal {status - 128}")
        elif status == 0 and "fail" in outcomes:
            self._problem("exit status 0, although a test failed")
        elif status == _EXIT_SKIP and outcomes == {"skip"}:
            pass
        elif status != 0 and not outcomes & {"fail", "error"}:
            self._problem(f"exit status {status}, although no test failed")


def read(text: str) -> Transcript:
    """Read all that came on the KTAP line; never raises, whatever the text is.

    CRs (the line is a tty) and NULs (a serial line that was cut) are dropped.  A last line without
    its newline is not believed: "ok 1" may have been "ok 12", and an exit status 1 have been 139.
    """
    lines = text.replace("\r", "").replace("\0", "").split("\n")
    partial = lines.pop()
    transcript = Transcript()
    reader: Reader | None = None

    def close(status: int | None) -> None:
        nonlocal reader
        if reader is not None:
            transcript.programs.append(reader.end(status))
        reader = None

    for line in lines:
        if start := _START.match(line):
            close(None)
            reader = Reader(start[1])
            if any(program.name == start[1] for program in transcript.programs):
                reader.program.problems.append("it ran twice in one boot")
        # Not only at the start of a line: a program that died left half a line behind.
        elif (end := _EXIT.search(line)) and reader and end[1] == reader.program.name:
            if end.start() > 0:
                reader.program.problems.append(f"cut line '{line[:end.start()]}'")
            close(int(end[2]))
        elif line == _DONE:
            close(None)
            transcript.done = True
        elif reader:
            reader.line(line)
        elif _RESULT.match(line) or _EXIT.match(line):
            reader = Reader("(unnamed)")
            reader.program.problems.append(f"'{line}' came outside of any program")
            reader.line(line)
    if partial == _DONE:
        close(None)
        transcript.done = True
    elif reader:
        if partial:
            reader.program.problems.append(f"cut line '{partial}'")
        close(None)
    return transcript
