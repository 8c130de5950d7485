# SPDX-License-Identifier: GPL-2.0
"""A vulnerable kernel that dies of its defect need not come to its end; a fixed one must."""

from pathlib import Path

import pytest
import runs

from lab import defect
from lab.guest import qemu
from lab.progress import Progress
from lab.trial import LAST_WORDS, Trial

BUG = "[    4.1] kernel BUG at include/linux/swapops.h:505!\n"
OTHER = "[    4.3] kernel BUG at mm/mmu_gather.c:102!\n"
OOPS = "[    4.2] Oops: invalid opcode: 0000 [#2] SMP\n[    4.2] ---[ end trace 0 ]---\n"
END = "[    4.2] ---[ end trace 0 ]---\n"
KTAP = "lab: start exec_temp_stack\nTAP version 13\n1..3\n"


@pytest.mark.parametrize(("name", "log", "said", "state"), [
    ("vulnerable", BUG, True, "ENDED"),
    ("vulnerable", BUG.rstrip("\n"), False, "INCOMPLETE"),            # half a line may be anything
    # Of two that die at once the second's BUG is lost in the first's; it ends nothing by itself.
    ("vulnerable", BUG + OOPS, True, "ENDED"),
    ("vulnerable", OOPS, False, "INCOMPLETE"),
    # What a damaged kernel says may be anything; what one says before that is of its own.
    ("vulnerable", BUG + END + OTHER, True, "ENDED"),
    ("vulnerable", OTHER + END + BUG, True, "CRASHED"),
    ("vulnerable", OTHER, False, "CRASHED"),
    ("fixed", BUG + END + OTHER, False, "CRASHED"),
    ("vulnerable", "", False, "INCOMPLETE"),
    ("fixed", BUG, False, "CRASHED"),
])
def test_a_boot_that_dies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, log: str,
                          said: bool, state: str) -> None:
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
    assert trial(tmp_path, name).boot(tmp_path / name, 1, Progress()).state == state
    assert graces == [LAST_WORDS]


def trial(folder: Path, name: str, of: str = "exec-temp-stack", tests: tuple[str, ...] = ()
          ) -> Trial:
    return runs.trial(folder, name, defect=defect.load(of), boots=5, tests=tests)


def both(folder: Path, of: str, *tests: str) -> list[Trial]:
    home = folder / f"{of}{len(tests)}"
    home.mkdir()
    return [trial(home, name, of, tests) for name in ("vulnerable", "fixed")]


def test_each_boot_of_a_kernel_that_dies_is_one_tests(tmp_path: Path) -> None:
    vulnerable, fixed = both(tmp_path, "exec-temp-stack")
    assert [vulnerable.tests(number) for number in range(1, 5)] == [
        ("-v", "compaction"), ("-v", "move_pages"), ("-v", "block_offline"),
        ("-v", "compaction")]
    assert fixed.tests(2) == ()
    assert both(tmp_path, "pmd-share-migrate")[0].tests(2) == ()
    for one in both(tmp_path, "exec-temp-stack", "-t", "exec"):
        assert one.tests(2) == ("-t", "exec")


def test_what_is_not_fatal_is_run_before_each_turn(tmp_path: Path) -> None:
    vulnerable, fixed = both(tmp_path, "pmd-share-split")
    others = ("-f", "hugetlb_pmd_notifier", "-f", "hugetlb_pmd_split")
    assert [vulnerable.tests(number) for number in (1, 2)] == [
        (*others, "-v", "churn_split"), (*others, "-v", "churn_split_user")]
    assert fixed.tests(1) == (*others, "-v", "churn_split", "-v", "churn_split_user")
    # The guest runs them in this order.
    assert fixed.defect.show.selftests[-1] == "hugetlb_pmd_churn"


def test_only_the_variants_that_are_about_the_defect_are_run(tmp_path: Path) -> None:
    for one in both(tmp_path, "pmd-share-move-pages"):
        words = one.tests(1)
        assert words[:2] == ("-v", "move_pages_shared") and len(words) == 6
    for one in both(tmp_path, "pmd-share-move-pages", "-t", "stays"):
        assert one.tests(1) == ("-t", "stays")


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
    for name in ("vulnerable", "fixed"):
        progress = Progress()
        trial(tmp_path, name).boot(tmp_path / name, 2, progress)
        progress.done()
    assert [" lab.args=-v,move_pages" in words for words in asked] == [True, False]
    said = capsys.readouterr().out
    assert "booting the vulnerable kernel, 2 of 5 (TCG), its turn is move_pages" in said
    assert "booting the fixed kernel, 2 of 5 (TCG)\n" in said
