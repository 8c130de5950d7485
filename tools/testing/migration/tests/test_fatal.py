# SPDX-License-Identifier: GPL-2.0
"""A vulnerable kernel that dies of its defect need not come to its end; a fixed one must."""

from pathlib import Path

import conftest
import pytest

from lab import arch, base, defect
from lab.guest import qemu
from lab.kernel import build, variant
from lab.kernel.source import Source
from lab.progress import Progress
from lab.verbs import prove
from lab.wanted import Wanted

BUG = "[    4.1] kernel BUG at include/linux/swapops.h:505!\n"
OOPS = "[    4.2] Oops: invalid opcode: 0000 [#2] SMP\n[    4.2] ---[ end trace 0 ]---\n"
KTAP = "lab: start exec_temp_stack\nTAP version 13\n1..3\n"


@pytest.mark.parametrize(("name", "log", "said", "state"), [
    ("vulnerable", BUG, True, "ENDED"),
    ("vulnerable", BUG.rstrip("\n"), False, "INCOMPLETE"),            # half a line may be anything
    # Of two that die at once the second's BUG is lost in the first's; it ends nothing by itself.
    ("vulnerable", BUG + OOPS, True, "ENDED"),
    ("vulnerable", OOPS, False, "INCOMPLETE"),
    ("vulnerable", "", False, "INCOMPLETE"),
    ("fixed", BUG, False, "CRASHED"),
])
def test_a_boot_that_dies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, log: str,
                          said: bool, state: str) -> None:
    home = tmp_path / name
    home.mkdir()
    for file in ("config", "identity.json"):
        (home / file).write_text("")
    graces: list[float] = []

    def qemu_boot(_what: qemu.Guest, folder: Path, _limit: float, watch: object,
                  grace: float) -> qemu.Outcome:
        (folder / "console.log").write_text(log)
        (folder / "ktap.log").write_text(KTAP)
        graces.append(grace)
        enough = watch(log, KTAP)                                       # type: ignore[operator]
        assert enough is said
        return qemu.Outcome(None, False, 9.0, enough)

    monkeypatch.setattr(qemu, "boot", qemu_boot)
    one = variant.make(name, "as it is", "")
    source = Source(base.load("6.12"), "6.12.1", {}, "k", tmp_path)
    kernel = build.Kernel(tmp_path / "image", tmp_path / "config", {}, True, 0.0)
    made = prove.Prepared(source, (one,), {name: kernel}, tmp_path / "initrd", arch.load())
    boot = prove.boot(wanted(tmp_path), made, one, home, 1, "tcg", Progress())
    assert boot.state == state
    assert graces == [prove.LAST_WORDS]


def wanted(tmp_path: Path, name: str = "exec-temp-stack", tests: tuple[str, ...] = ()
           ) -> Wanted:
    return conftest.wanted(tmp_path, defect=defect.load(name), boots=5, accel="tcg", tests=tests)


def test_each_boot_of_a_kernel_that_dies_is_one_tests(tmp_path: Path) -> None:
    vulnerable, fixed = (variant.make(name, "", "") for name in ("vulnerable", "fixed"))
    mine = wanted(tmp_path)
    assert [prove.tests_of(mine, vulnerable, number) for number in range(1, 5)] == [
        ("-v", "compaction"), ("-v", "move_pages"), ("-v", "block_offline"),
        ("-v", "compaction")]
    assert prove.tests_of(mine, fixed, 2) == ()
    assert prove.tests_of(wanted(tmp_path, "pmd-share-migrate"), vulnerable, 2) == ()
    asked = wanted(tmp_path, tests=("-t", "exec"))
    assert prove.tests_of(asked, vulnerable, 2) == prove.tests_of(asked, fixed, 2) == ("-t", "exec")


def test_what_is_not_fatal_is_run_before_each_turn(tmp_path: Path) -> None:
    mine = wanted(tmp_path, "pmd-share-split")
    vulnerable, fixed = (variant.make(name, "", "") for name in ("vulnerable", "fixed"))
    others = ("-f", "hugetlb_pmd_notifier", "-f", "hugetlb_pmd_split")
    assert [prove.tests_of(mine, vulnerable, number) for number in (1, 2)] == [
        (*others, "-v", "churn_split"), (*others, "-v", "churn_split_user")]
    assert prove.tests_of(mine, fixed, 1) == (
        *others, "-v", "churn_split", "-v", "churn_split_user")
    # The guest runs them in this order.
    assert mine.defect.show.selftests[-1] == "hugetlb_pmd_churn"


def test_only_the_variants_that_are_about_the_defect_are_run(tmp_path: Path) -> None:
    mine = wanted(tmp_path, "pmd-share-move-pages")
    for name in ("vulnerable", "fixed"):
        words = prove.tests_of(mine, variant.make(name, "", ""), 1)
        assert words[:2] == ("-v", "move_pages_shared") and len(words) == 6
        asked = wanted(tmp_path, "pmd-share-move-pages", ("-t", "stays"))
        assert prove.tests_of(asked, variant.make(name, "", ""), 1) == ("-t", "stays")


def test_the_guest_and_the_user_are_told_whose_turn_it_is(
        tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
        ) -> None:
    asked = []

    def qemu_boot(what: qemu.Guest, folder: Path, *_rest: object) -> qemu.Outcome:
        for name in ("console.log", "ktap.log"):
            (folder / name).write_text("")
        asked.append(what.append)
        return qemu.Outcome(0, False, 9.0, False)

    monkeypatch.setattr(qemu, "boot", qemu_boot)
    source = Source(base.load("6.12"), "6.12.1", {}, "k", tmp_path)
    for one in (variant.make("vulnerable", "", ""), variant.make("fixed", "", "")):
        home = tmp_path / one.name
        home.mkdir()
        for file in ("config", "identity.json"):
            (home / file).write_text("")
        kernel = build.Kernel(tmp_path / "image", tmp_path / "config", {}, True, 0.0)
        made = prove.Prepared(source, (one,), {one.name: kernel}, tmp_path / "initrd",
                              arch.load())
        progress = Progress()
        prove.boot(wanted(tmp_path), made, one, home, 2, "tcg", progress)
        progress.done()
    assert [" lab.args=-v,move_pages" in words for words in asked] == [True, False]
    said = capsys.readouterr().out
    assert "booting the vulnerable kernel, 2 of 5 (TCG), its turn is move_pages" in said
    assert "booting the fixed kernel, 2 of 5 (TCG)\n" in said
