# SPDX-License-Identifier: GPL-2.0
"""make steps: that what a step brings is named, and what only moved is not.  Nothing is built."""

import io
import json
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
import runs
from conftest import refused, wanted

from lab import arch, defect, trial
from lab.base import load as load_base
from lab.errors import LabError, NotBuilt
from lab.guest import initramfs, qemu, selftest
from lab.judge import klog, news
from lab.judge.news import Tried
from lab.judge.verdict import Boot
from lab.kernel import build, stepwise, variant
from lab.kernel.source import Source
from lab.progress import Progress
from lab.verbs import steps, steptable
from lab.wanted import STEP_DEFECTS

FIGURES = "# p: migrations=40 lost_migrations={}\n"


def ktap(*outcomes: str, lost: int = 0, end: bool = True) -> str:
    """What a selftest says, a result a word."""
    said = f"lab: start p\n1..{len(outcomes)}\n"
    for number, word in enumerate(outcomes, 1):
        said += f"#  RUN           p.{number} ...\n" + FIGURES.format(lost if word == "fail" else 0)
        said += {"pass": f"ok {number} p.{number}\n", "fail": f"not ok {number} p.{number}\n",
                 "skip": f"ok {number} p.{number} # SKIP no table is shared\n", "stuck": ""}[word]
    failed = int("fail" in outcomes) if set(outcomes) != {"skip"} else 4
    return said + (f"lab: exit p {failed}\nlab: done\n" if end else "")


PASS, LOSES, SKIPS = ktap("pass", "pass"), ktap("fail", "fail", lost=30), ktap("skip")
DIED, STUCK = ktap("pass", "stuck", end=False), ktap("stuck", end=False)
BUG, MOVED = "kernel BUG at mm/hugetlb.c:1213!\n", "kernel BUG at mm/hugetlb.c:1250!\n"
OOPS = "BUG: unable to handle kernel paging request at ffff888012345678\n"


def tried(number: int, *said: tuple[str, str]) -> Tried:
    return Tried(number, [runs.boot(f"step-{number:02}", boot, text, log)
                          for boot, (text, log) in enumerate(said, 1)])


# ---- what is new ---------------------------------------------------------------------------


@pytest.mark.parametrize(("one", "other"), [
    (BUG, MOVED),
    ("kernel BUG at /cache/x/tree/mm/hugetlb.c:7!\n", BUG),
    (OOPS, OOPS.replace("12345678", "deadbee0")),
    ("WARNING: CPU: 0 PID: 1 at mm/rmap.c:1 f+0x1/0x2\n",
     "WARNING: CPU: 3 PID: 77 at mm/rmap.c:9 f+0x10/0x20\n"),
    ("WARNING: mm/rmap.c:1 at f+0x1/0x2, CPU#1: a/1\n",
     "WARNING: mm/rmap.c:2 at f+0x3/0x4, CPU#0: b/22\n"),
    ("BUG: Bad page state in process a  pfn:1\n", "BUG: Bad page state in process b  pfn:2f\n"),
    ("BUG: KASAN: use-after-free in f+0x1/0x2\n", "BUG: KASAN: use-after-free in f+0x3/0x4\n"),
    ("general protection fault: 0000 [#1] SMP PTI\n", "general protection fault: 0000 [#2] SMP\n"),
    ("watchdog: BUG: soft lockup - CPU#1 stuck for 22s! [a:1]\n",
     "watchdog: BUG: soft lockup - CPU#0 stuck for 30s! [b:2]\n"),
    ("INFO: task a:1 blocked for more than 120 seconds.\n",
     "INFO: task b:2 blocked for more than 241 seconds.\n"),
])
def test_the_same_complaint_of_two_kernels(one: str, other: str) -> None:
    kinds = {news.kind(said) for log in (one, other) for said in klog.read(log)}
    assert len(kinds) == 1


def test_complaints_that_differ() -> None:
    logs = (BUG, "kernel BUG at include/linux/mm.h:546!\n", OOPS,
            "BUG: Bad page map in process a\n", "WARNING: CPU: 0 PID: 1 at mm/rmap.c:1 f+0x1/0x2\n",
            "WARNING: CPU: 0 PID: 1 at mm/hugetlb.c:1 f+0x1/0x2\n")
    assert len({news.kind(klog.read(log)[0]) for log in logs}) == len(logs)
    assert news.kind(klog.read(BUG)[0]) == "kernel BUG at mm/hugetlb.c"


def test_the_first_has_no_news_and_neither_has_one_like_it() -> None:
    assert news.news(tried(0, (DIED, BUG)), []) == []
    assert news.news(tried(1, (DIED, MOVED)), [tried(0, (DIED, BUG))]) == []


def test_a_crash_is_news_in_one_boot_of_several() -> None:
    [one] = news.news(tried(2, (PASS, ""), (DIED, BUG)), [tried(1, (PASS, ""), (PASS, ""))])
    assert one.counts and one.text == \
        "kernel BUG at mm/hugetlb.c, in 1 of 2 boots, and in none of 2 of step 1: " + BUG.strip()


def test_what_came_back_and_what_may_have_been_hidden_is_said() -> None:
    [one] = news.news(tried(3, (DIED, BUG)), [tried(2, (DIED, OOPS)), tried(1, (DIED, MOVED))])
    assert "step 1 had it" in one.text and "step 2 crashed otherwise" in one.text


def test_what_comes_of_a_crash_is_none() -> None:
    warns = "WARNING: CPU: 0 PID: 1 at kernel/exit.c:1 do_exit+0x1/0x2\n"
    before = [tried(1, (DIED, BUG))]
    assert news.news(tried(2, (DIED, BUG + "---[ end trace 1 ]---\n" + warns)), before) == []
    assert len(news.news(tried(2, (DIED, warns + "---[ end trace 1 ]---\n" + BUG)), before)) == 1


def test_a_boot_that_hangs_is_news() -> None:
    late = Tried(2, [runs.boot("step-02", 1, STUCK, "", True, None)])
    [one] = news.news(late, [tried(1, (PASS, ""))])
    assert one.counts and one.text.startswith("a boot that ends as TIMEOUT, in 1 of 1 boot")


def test_lost_writes_that_are_new_and_those_that_are_more() -> None:
    [one] = news.news(tried(2, (LOSES, "")), [tried(1, (PASS, ""))])
    assert one.counts and one.text == \
        "p lost writes in 60 of 80 migrations, and in none in step 1: p.1, p.2"
    # In a table that nobody shared nothing could be lost.
    [one] = news.news(tried(2, (ktap("fail", lost=3), "")), [tried(1, (SKIPS, ""))])
    assert one.counts
    # Which tests see it is a matter of chance as long as some do.
    [one] = news.news(tried(2, (LOSES, "")), [tried(1, (ktap("fail", "pass", lost=29), ""))])[:1]
    assert not one.counts and one.text.endswith("where others did: p.2")
    [one] = news.news(tried(2, (LOSES, "")), [tried(1, (ktap("fail", "fail", lost=3), ""))])
    assert not one.counts and one.text == \
        "p lost writes in 60 of 80 migrations, and in 6 of 80 in step 1"
    assert news.news(tried(2, (LOSES, "")), [tried(1, (LOSES, ""))]) == []


def test_a_test_is_compared_with_its_last_result() -> None:
    # Step 1 crashed before it came to p.2.
    died, early = tried(1, (DIED, BUG)), tried(0, (ktap("pass", "fail", lost=9), ""))
    assert news.news(tried(2, (ktap("pass", "fail", lost=9), "")), [died, early]) == []
    assert news.news(tried(2, (ktap("pass", "fail", lost=9), "")), [died]) == []
    [one] = news.news(tried(2, (ktap("pass", "fail", lost=9), "")), [died, tried(0, (PASS, ""))])
    assert one.counts and "in none in step 0: p.2" in one.text


def test_a_test_that_fails_and_lost_nothing() -> None:
    [one] = news.news(tried(2, (ktap("pass", "fail"), "")), [tried(1, (PASS, ""))])
    assert one.counts and one.text == "p.2 failed, and had not in step 1"
    crashed = tried(2, (ktap("pass", "fail"), BUG))
    assert [one.text[:10] for one in news.news(crashed, [tried(1, (PASS, ""))])] == ["kernel BUG"]


# ---- which steps there are -----------------------------------------------------------------


@pytest.mark.parametrize(("first", "last", "says"), [
    (4, None, r"FROM=4: queue/6.12 has the steps 0 \(as released\) to 3"),
    (None, 4, r"TO=4: queue/6.12 has the steps 0 \(as released\) to 3"),
    (3, 2, "FROM=3 comes after TO=2"),
])
def test_steps_that_are_not_there(first: int | None, last: int | None, says: str) -> None:
    with pytest.raises(LabError, match=says):
        stepwise.bounds(first, last, "6.12", 3)


def test_steps_that_are_there() -> None:
    assert stepwise.bounds(None, None, "6.12", 3) == range(4)
    assert stepwise.bounds(2, 2, "6.12", 3) == range(2, 3)
    assert stepwise.patches("4.18", "") == variant.series("4.18")
    assert stepwise.patches("4.18", "unshare")[-1].parent.name == "4.18"
    with pytest.raises(LabError, match="FORM=nonesuch: there is no queue/4.18/series.nonesuch"):
        stepwise.patches("4.18", "nonesuch")
    with pytest.raises(LabError, match="^there is no queue/4.20/series"):
        stepwise.patches("4.20", "")


@pytest.mark.parametrize(("words", "says"), [
    (("FROM=x",), "FROM=x: a whole number of 0 or more"),
    (("TO=-1",), "TO=-1: a whole number of 0 or more"),
    (("FROM=3", "TO=2"), "FROM=3 comes after TO=2"),
    (("DEFECT=nonesuch",), "no defect nonesuch"),
    (("DEFECT=pmd-share-arm64-flush",), "no selftest shows pmd-share-arm64-flush"),
    (("DEFECT=thp-cow-isolation,pmd-share-migrate",), "cannot run in the same guest"),
    (("WITNESS=1",), "WITNESS= means nothing to steps"),
    (("RESUME=yes",), "RESUME=yes: 0 or 1"),
])
def test_bad_input_is_one_line(tmp_path: Path, words: tuple[str, ...], says: str) -> None:
    out = tmp_path / "out"
    assert says in refused("steps", f"OUT={out}", *words, LAB_CACHE=str(tmp_path / "cache"))
    assert not out.exists()


def test_what_is_run_at_each_step() -> None:
    one, words = steps.asked()
    assert one.show.selftests == ("hugetlb_pmd_migrate", "hugetlb_pmd_poison", "hugetlb_pmd_churn")
    assert words[:4] == ("-f", "hugetlb_pmd_migrate", "-f", "hugetlb_pmd_poison")
    walkers = defect.load(STEP_DEFECTS[1])
    assert words[5::2] == walkers.show.turns and set(words[4::2]) == {"-v"}
    assert set(one.guest.env) == {"HUGETLB_PMD_CHURN=1", "HUGETLB_PMD_MIGRATE_OFFLINE=1"}
    # Nobody's symptoms are to be expected, and nobody else's options.
    assert one.show.symptoms == one.show.fatal == one.kernel.options == ()
    assert steps.asked(("pmd-share-migrate",))[1] == ()
    assert steps.asked(("pmd-share-gup",))[0].amplifier is None


# ---- a run ---------------------------------------------------------------------------------


class Machine:
    """All that builds and boots, but for the compiler and QEMU."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder, self.out = folder, folder / "out"
        self.said: dict[int, tuple[str, str]] = {}      # by step: KTAP and log; PASS by default
        self.broken: dict[int, str] = {}
        self.image: dict[int, str] = {}                 # those that are not their own
        self.booted: list[int] = []
        self.lines: list[str] = []
        self.stops_at = self.hours = 0
        self.source = Source(load_base("6.12"), "6.12.117", {"version": "6.12.117"}, "k", folder)
        for name in ("image", "config", "initrd"):
            (folder / name).write_text(name)
        (folder / "6.12").mkdir()
        patches = [folder / "6.12" / f"000{number}-x.patch" for number in (1, 2, 3)]
        for number, patch in enumerate(patches, 1):
            patch.write_text(f"From 0\nSubject: [PATCH] mm: the {number}. of\n three\n\nText.\n")
        programs = selftest.Built({name: folder for name in selftest.names()}, "6.12.1", folder)
        for place, name, stand_in in (
                (trial, "find_source", lambda *_: self.source),
                (variant, "series", lambda _base, form="series": patches * (form == "series")),
                (variant, "queue_diff", lambda _source, some: f"diff of {len(some)}"),
                (build, "kernel", self.kernel), (qemu, "boot", self.boot),
                (qemu, "choose_accel", lambda *_: "tcg"), (qemu, "version", lambda _: "QEMU 7.2"),
                (selftest, "build", lambda *_, **_more: programs),
                (initramfs, "initramfs", lambda *_given: folder / "initrd"),
                (steps, "datetime", self)):
            monkeypatch.setattr(place, name, stand_in)

    def now(self, zone: timezone) -> datetime:
        """Each run begins an hour after the last."""
        self.hours += 1
        return datetime(2026, 1, 2, tzinfo=zone) + timedelta(hours=self.hours)

    def kernel(self, _source: Source, one: variant.Variant, *_more: object) -> build.Kernel:
        number = int(one.name.removeprefix("step-"))
        if number in self.broken:
            raise NotBuilt(f"the kernel could not be built: {self.broken[number]}", "/log")
        return build.Kernel(self.folder / "image", self.folder / "config", {
            "compiler": "gcc 12", "diff": one.key,
            "image_sha256": self.image.get(number, f"{number}")}, False, 1.0)

    def boot(self, _what: qemu.Guest, folder: Path, _limit: float,
             watch: Callable[[str, str], bool], _grace: float) -> qemu.Outcome:
        number = int(folder.parent.name.removeprefix("step-"))
        self.booted.append(number)
        if len(self.booted) == self.stops_at:
            raise KeyboardInterrupt
        text, log = self.said.get(number, (PASS, ""))
        (folder / "ktap.log").write_text(text)
        (folder / "console.log").write_text(log)
        ended = watch(log, text)
        late = "lab: done" not in text and not log
        return qemu.Outcome(None if late or ended else 0, late, 9.0, ended)

    def run(self, first: int | None = None, last: int | None = None, resume: bool = False,
            **changes: object) -> steptable.Run:
        self.booted.clear()
        self.lines.clear()
        one, words = steps.asked()
        asked = wanted(self.out, **({"defect": one, "tests": words, "command": "make steps"}
                                    | changes))
        return steps.run(asked, first, last, arch.load(), Progress(io.StringIO()),
                         self.lines.append, resume)

    def report(self) -> Any:
        return json.loads((self.out / "steps.json").read_text())

    def told(self, run: steptable.Run) -> str:
        return " ".join(steptable.summary(run, self.out).split())


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    return Machine(tmp_path, monkeypatch)


def test_steps_that_hold(machine: Machine) -> None:
    machine.said = {0: (LOSES, BUG), 1: (LOSES, MOVED)}
    run = machine.run()
    assert run.passed() and machine.booted == [0, 1, 2, 3]
    assert [line.split()[0] for line in machine.lines] == ["step", "0", "1", "2", "3"]
    assert "(as released)" in machine.lines[1] and "mm: the 1. of three" in machine.lines[2]
    assert "60 of 80  kernel BUG at mm/hugetlb.c:1213!" in machine.lines[1]
    assert "NEW" not in "".join(machine.lines)
    told = machine.told(run)
    assert "Steps 0 to 3 of queue/6.12/series on 6.12.117" in told
    assert "OK: each step builds and boots" in told and "NOT OK" not in told
    report = machine.report()
    assert (report["passed"], report["whole"], report["trouble"]) == (True, True, [])
    assert report["provenance"]["series"] == ["queue/6.12/series, patches 1 to 3"]
    row = report["steps"][1]
    assert (row["how"], row["patch"]) == ("queue/6.12 (patches 1 to 1)", "0001-x.patch")
    assert (row["tests_failed"], row["lost_migrations"], row["migrations"]) == (2, 60, 80)
    assert row["runs"][0]["failed_tests"] == {"p": ["p.1", "p.2"]}
    home = Path(row["folder"])
    assert (home / "variant.diff").read_text() == "diff of 1"
    assert (home.parent / "steps.json").read_text() == (machine.out / "steps.json").read_text()


def test_a_new_crash_is_named(machine: Machine) -> None:
    machine.said = {2: (DIED, BUG), 3: (DIED, MOVED)}
    run = machine.run()
    assert not run.passed()
    assert machine.lines[3].endswith("kernel BUG at mm/hugetlb.c:1213!  <- NEW")
    assert "NEW" not in machine.lines[4]
    [one] = machine.report()["trouble"]
    assert one["step"] == 2 and one["why"].startswith("kernel BUG at mm/hugetlb.c, in 1 of 1 boot")
    told = machine.told(run)
    assert "NOT OK: there is news in step 2" in told and "step 2, mm: the 2. of three: ker" in told
    assert f"see {machine.out}" in told


def test_a_kernel_that_has_crashed_is_ended(machine: Machine) -> None:
    hangs = "INFO: task a:1 blocked for more than 120 seconds.\n"
    machine.said = {0: (DIED, BUG), 1: (DIED, hangs)}
    boots: list[Boot] = [row.boots[0] for row in machine.run(last=1).rows]
    assert [boot.ended_early for boot in boots] == [True, False]


def test_a_step_that_does_not_build(machine: Machine) -> None:
    machine.broken = {1: "mm/hugetlb.c:7: error: x"}
    machine.said = {0: (DIED, BUG), 2: (DIED, MOVED)}
    run = machine.run()
    assert not run.passed() and machine.booted == [0, 2, 3]
    assert " NO " in machine.lines[2] and machine.lines[2].endswith("error: x")
    # What comes after it is compared with what booted before it.
    assert [one["step"] for one in machine.report()["trouble"]] == [1]
    row = machine.report()["steps"][1]
    assert (row["built"], row["done"], row["log"], row["runs"]) == (False, True, "/log", [])
    assert "it does not build: the kernel could not be built: mm/hugetlb.c:7" in machine.told(run)


def test_no_step_builds(machine: Machine) -> None:
    machine.broken = dict.fromkeys(range(4), "error: x")
    run = machine.run()
    assert not run.passed() and "NOT OK: there is news in steps 0, 1, 2, 3" in machine.told(run)


def test_another_error_of_the_machine_stops_the_run(machine: Machine,
                                                    monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_given: object) -> None:
        raise LabError("the disk is full")
    monkeypatch.setattr(build, "kernel", full)
    with pytest.raises(LabError, match="the disk is full"):
        machine.run()


@pytest.mark.parametrize(("said", "why"), [
    (("", ""), "it did not boot in 1 of 1: the guest did not come to its end"),
    (("", "Kernel panic - not syncing: No init\n"),
     "it did not boot in 1 of 1: panic: Kernel panic - not syncing: No init"),
])
def test_a_step_that_does_not_boot(machine: Machine, said: tuple[str, str], why: str) -> None:
    machine.said = {1: said, 2: said}
    assert [(one["step"], one["why"]) for one in (machine.run(), machine.report())[1]["trouble"]] \
        == [(1, why), (2, why)]
    assert " 0/1 " in machine.lines[2]


def test_the_same_image_is_not_booted_again(machine: Machine) -> None:
    machine.image = {2: "1"}
    machine.said = {1: (LOSES, BUG), 2: (PASS, "never seen")}
    run = machine.run()
    assert machine.booted == [0, 1, 3] and run.rows[2].same == 1
    assert " same " in machine.lines[3] and "60 of 80" in machine.lines[3]
    assert [one["step"] for one in machine.report()["trouble"]] == [1, 1]
    assert machine.report()["steps"][2]["same_image_as"] == 1


def test_no_test_that_ran_is_no_success(machine: Machine) -> None:
    machine.said = dict.fromkeys(range(4), (SKIPS, ""))
    run = machine.run()
    assert not run.passed()
    assert "NOT OK: no test ran in any step: no table is shared" in machine.told(run)


def test_some_steps(machine: Machine) -> None:
    machine.said = {2: (DIED, BUG)}
    run = machine.run(2, 3)
    # It is the first.
    assert run.passed() and machine.booted == [2, 3]
    assert "Steps 2 to 3" in machine.told(run) and "as released" not in machine.told(run)
    with pytest.raises(LabError, match="TO=7: queue/6.12 has the steps 0"):
        machine.run(2, 7)
    with pytest.raises(LabError, match="FORM=flush: there is no queue/6.12/series.flush"):
        machine.run(form="flush")


def test_a_run_goes_on_where_another_was_interrupted(machine: Machine) -> None:
    machine.said, machine.stops_at = {1: (DIED, BUG)}, 3
    with pytest.raises(KeyboardInterrupt):
        machine.run()
    assert machine.booted == [0, 1, 2] and not machine.report()["whole"]
    [home] = machine.out.glob("*-steps-*")
    # What was half done is gone.
    assert sorted(path.name for path in home.iterdir()) == ["step-00", "step-01", "steps.json"]
    machine.stops_at = 0
    run = machine.run(resume=True)
    assert run.whole and machine.booted == [2, 3]
    assert [one["step"] for one in machine.report()["trouble"]] == [1]
    assert machine.report()["steps"][1]["folder"].startswith(str(home))
    machine.run(resume=True)
    assert machine.booted == []
    # Not what other boots, or other tests, would show.
    machine.run(resume=True, boots=2)
    assert machine.booted == [0, 0, 1, 1, 2, 2, 3, 3]
    machine.run(resume=True, tests=("-t", "x"))
    assert machine.booted == [0, 1, 2, 3]
    machine.run()
    assert machine.booted == [0, 1, 2, 3]


def test_what_gave_no_result_is_booted_again(machine: Machine) -> None:
    machine.said = {1: (STUCK, "")}
    assert not machine.run().passed()
    del machine.said[1]
    assert machine.run(resume=True).passed() and machine.booted == [1]


def test_who_is_interrupted_at_once_leaves_nothing(machine: Machine) -> None:
    machine.stops_at = 1
    with pytest.raises(KeyboardInterrupt):
        machine.run()
    assert not machine.out.exists()
