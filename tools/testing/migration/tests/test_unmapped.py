# SPDX-License-Identifier: GPL-2.0
"""queue/unmapped/: the kernel's own check, as patches to send and as the witness of a proof."""

import dataclasses
import io
import os
import re
import subprocess
from pathlib import Path

import pytest
import runs
from conftest import FULL, NO_TREES, debian_files, debian_tree, make, refused, wanted
from test_series import too_wide
from trees import git, repository

from lab import arch, defect, fragment, options, trial
from lab.base import load
from lab.errors import LabError
from lab.guest import selftest
from lab.judge import klog, ktap, verdict
from lab.kernel import build, kconfig, testseries, unmapped, variant
from lab.kernel.source import Source, from_tree
from lab.paths import REPO
from lab.progress import Progress
from lab.verbs import guestrun, series

ROOM = unmapped.ROOM
BASES = unmapped.names()
OWN = sorted(ROOM.rglob("*.patch"))
# As 6.12 and 7.3 print it.
WARNINGS = ("WARNING: CPU: 1 PID: 71 at mm/debug_vm_unmapped.c:268 report+0x8a/0x90",
            "WARNING: mm/debug_vm_unmapped.c:268 at report+0x8a/0x90, CPU#1: hugetlb_pmd_mig/71")


def message(patch: Path) -> tuple[str, str]:
    head, rest = patch.read_text(encoding="utf-8").split("\n\n", 1)
    return series.subjects([head + "\n\n"])[0], rest.split("\n---\n", 1)[0]


def tree_of(base: str) -> Path:
    """A tree of a base that no package has; skips the test where there is none."""
    top = os.environ.get("TREES")
    if not top or not Path(top, base, "Makefile").is_file():
        pytest.skip(f"no tree of {base}: {NO_TREES}")
    return Path(top, base)


# ---- the room ------------------------------------------------------------------------------


def test_the_series_names_just_what_is_there() -> None:
    names = (ROOM / "series").read_text().split()
    assert {name for name in names if "/" not in name} == {path.name for path in OWN}
    assert sorted(path.name for path in ROOM.iterdir() if path.suffix != ".patch") == \
        sorted([*BASES, "cover-letter", "series"])
    assert {"6.12", "6.18", "7.3"} <= set(BASES)


def test_each_file_of_it_is_added_to_each_base() -> None:
    here = sorted(str(path.relative_to(REPO)) for path in REPO.glob("**/*vm_unmapped*.[ch]"))
    assert len(here) == 3
    for base in BASES:
        added = [path for patch in testseries.files(base, ROOM) for path in testseries.adds(patch)]
        assert set(here) < set(added) and len(set(added)) == len(added)


@pytest.mark.parametrize("patch", OWN, ids=lambda path: str(path.relative_to(ROOM)))
def test_a_patch_is_a_mail_that_reads_well(patch: Path) -> None:
    subject, log = message(patch)
    assert re.match(r"[\w/]+(: [\w/]+)*: [a-z]", subject) and len(subject) <= 75
    words = re.sub(r"[^\w.]+", "-", subject, flags=re.ASCII).strip("-.")
    assert patch.stem == f"{patch.name[:4]}-{words}"[:57].rstrip("-.")
    assert len(log.split()) > 30 and max(map(len, log.splitlines())) <= 72
    assert not re.search(r"(?im)^\s*[\w-]+-by:|^diff |\|\s+\d+ \+", log)
    for other in ROOM.glob(f"*/{patch.name}"):
        assert message(other) == (subject, log)


def test_what_the_kernels_document_names_is_counted() -> None:
    code = (REPO / "mm/debug_vm_unmapped.c").read_text(encoding="utf-8")
    listed = re.search(r"unmapped_names\[UNMAPPED_NR\] = \{(.+?)\};", code, re.S)
    assert listed
    names = set(re.findall(r'"(\w+)"', listed[1]))
    for patch in ROOM.glob("*/0001-*"):
        added = "\n".join(re.findall(r"(?m)^\+(.*)", patch.read_text(encoding="utf-8")))
        page = added[added.index("Checking migration"):]
        said = set(re.findall(r"``(\w+)``", page)) | set(re.findall(r"(?m)^(\w+)$", page))
        assert names - {"vmas"} <= said, names - said


# ---- make series ---------------------------------------------------------------------------


@pytest.mark.parametrize("base", BASES)
def test_it_is_written_as_a_series_of_its_own(base: str, tmp_path: Path) -> None:
    made = series.write(base, tmp_path, unmapped.FORM)
    assert made.cover and not made.reports
    assert len(made.patches) == len((ROOM / "series").read_text().split())
    for number, patch in enumerate(made.patches, 1):
        assert f"{number}/{len(made.patches)}]" in patch.read_text(encoding="utf-8")
    letter = made.cover.read_text(encoding="utf-8")
    for fix in variant.series(base):
        assert message(fix)[0] not in letter
    # Where the letter names a patch by its number.
    assert "debug_vm_unmapped" in made.patches[1].read_text(encoding="utf-8")
    assert "Patch 2 lets migration look itself" in letter
    assert too_wide(letter) == []


def test_what_has_none_is_told_so(tmp_path: Path) -> None:
    assert refused("series", "BASE=4.14", "FORM=unmapped", f"O={tmp_path}/s") == \
        "error: FORM=unmapped: queue/unmapped has nothing for 4.14, only for 6.12, 6.18, 7.3"
    assert not (tmp_path / "s").exists()
    # It is not in any series of fixes.
    done = make("series", "BASE=7.3", f"O={tmp_path}/t")
    assert done.returncode == 0 and "debug_vm_unmapped" not in "".join(
        path.read_text(encoding="utf-8") for path in (tmp_path / "t").glob("*.patch"))


@pytest.mark.parametrize("base", BASES)
def test_git_am_takes_it_and_checkpatch_has_nothing_to_say(base: str, tmp_path: Path) -> None:
    tree = debian_files(base) if load(base).package else tree_of(base)
    mails = series.write(base, tmp_path / "mails", unmapped.FORM).patches
    texts = "".join(path.read_text(encoding="utf-8") for path in mails)
    repo = repository(tree, tmp_path / "linux",
                      ["MAINTAINERS", *re.findall(r"(?m)^--- a/(\S+)$", texts)])
    git(repo, "am", "-q", "-s", *mails)
    for name in testseries.adds(next(path for path in OWN if path.name.startswith("0001"))):
        assert (repo / name).read_bytes() == (REPO / name).read_bytes()
    # In any kernel the selftest is for the list of hugetlb, and in 6.12 all is for that of mm.
    quiet = "--ignore=FILE_PATH_CHANGES,GIT_COMMIT_ID,UNKNOWN_COMMIT_ID"
    for patch in mails:
        done = subprocess.run(
            ["perl", tree / "scripts/checkpatch.pl", "--strict", "--no-tree", "--terse",
             "--no-summary", "--no-signoff", quiet, patch], text=True, capture_output=True,
            check=False, cwd=tmp_path)
        assert done.stdout + done.stderr == "", patch


# ---- on top of any kernel ------------------------------------------------------------------


@pytest.mark.skipif(not FULL, reason="each form and each variant of a kernel: with FULL=1")
@pytest.mark.parametrize("base", BASES)
def test_it_fits_on_each_kernel_that_is_proved(base: str) -> None:
    """The released one, each form of the queue, without each protection, and with the tests."""
    source = debian_tree(base) if load(base).package else \
        from_tree(tree_of(base), base, Progress(io.StringIO()))
    diffs = {"as it is": variant.make("fixed", "as it is", "")}
    for form in ("series", *(path.name for path in (variant.QUEUE / base).glob("series.*"))):
        diffs[form] = variant.make("fixed", form, variant.queue_diff(
            source, variant.series(base, form)))
    if base in testseries.names():
        diffs["tests"] = testseries.applied(source)
    for one in map(defect.load, defect.names()):
        if one.revert and (one.show.selftests or one.audit):
            try:
                diffs[one.name] = variant.plan(source, one)[0]
            except LabError as err:
                # A base without the defect.
                assert "nothing to compare" in str(err)
    assert "pmd-share-migrate" in diffs
    for name, before in diffs.items():
        after = unmapped.added(source, before)
        assert after.key != before.key and after.how.endswith("and queue/unmapped"), name
        for path in ("mm/debug_vm_unmapped.c", "mm/rmap.c", "mm/migrate.c"):
            text = variant.text_of(source, after, path)
            assert "unmapped_look" in text or "unmapped_armed" in text, (name, path)
        assert "hugetlb_pmd_unmapped.c" not in after.diff, name
        assert after.diff.count("+++ b/mm/debug_vm_unmapped.c") == 1


# ---- as a witness --------------------------------------------------------------------------


def source_of(base: str) -> Source:
    return Source(load(base), f"{base}.1", {}, "k", Path("/nonexistent"))


def trial_of(folder: Path, witness: bool) -> trial.Trial:
    kernel = build.Kernel(folder / "image", folder / "config", {}, True, 0.0)
    return trial.Trial(wanted(folder), source_of("6.12"), variant.make("fixed", "as it is", ""),
                       kernel, folder / "initrd", arch.load(), "tcg", witness)


@pytest.mark.parametrize("asked, base, there", [
    ({}, "6.12", False), ({"witness": True}, "6.12", True), ({"debug": True}, "7.3", True),
    ({"debug": True}, "5.10", False), ({}, "5.10", False)])
def test_who_gets_it(asked: dict[str, bool], base: str, there: bool, tmp_path: Path) -> None:
    assert trial.has_witness(wanted(tmp_path, **asked), source_of(base)) is there


def test_who_asks_for_what_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(LabError, match="WITNESS=1: queue/unmapped has nothing for 5.10, only for "
                                       "6.12, 6.18, 7.3"):
        trial.has_witness(wanted(tmp_path, witness=True), source_of("5.10"))


@pytest.mark.parametrize("witness", [True, False])
def test_a_guest_arms_it_and_runs_its_test(witness: bool, tmp_path: Path) -> None:
    words = trial_of(tmp_path, witness).guest(()).append.split()
    assert (unmapped.CMDLINE in words) is witness
    run = next(word for word in words if word.startswith("lab.run="))
    assert run.endswith(",hugetlb_pmd_unmapped") is witness and "hugetlb_pmd_migrate" in run
    assert unmapped.selftests("6.12") == ("hugetlb_pmd_unmapped",)
    assert set(unmapped.selftests("6.12")) < set(selftest.names())


def test_the_kernel_of_the_whole_series_can_have_it(monkeypatch: pytest.MonkeyPatch,
                                                    tmp_path: Path) -> None:
    """Both ask for KUnit, and a fragment that asks for an option twice is refused."""
    base = load("7.3")
    source = Source(base, "7.3.1", {}, "k", tmp_path)
    asked: list[tuple[str, ...]] = []
    monkeypatch.setattr(trial, "find_source", lambda *_all: source)
    monkeypatch.setattr(testseries, "applied", lambda *_all: variant.Variant(
        "series", "", "", "k", ()))
    monkeypatch.setattr(testseries, "options", lambda *_all: fragment.lines(
        testseries.ROOM / "config"))
    monkeypatch.setattr(unmapped, "added", lambda _source, one: one)
    monkeypatch.setattr(build, "kernel", lambda *all_: asked.append(all_[-1]))
    guestrun._kernel(wanted(tmp_path, witness=True), "series", arch.load(), Progress(io.StringIO()))
    text = kconfig.request(base, arch.load(), tmp_path, True, asked[0]).text
    assert all(f"{option}\n" in text for option in unmapped.OPTIONS)


@pytest.mark.parametrize("verb", ["prove", "kselftest", "shell", "mutants", "bench"])
def test_it_can_be_asked_for(verb: str) -> None:
    assert options.parse([verb, "WITNESS=1"]).witness is True
    assert options.parse([verb]).witness is False


@pytest.mark.parametrize("said", WARNINGS)
def test_what_it_says_is_a_complaint_that_only_the_vulnerable_kernel_may_have(said: str) -> None:
    complaints = klog.read(f"[ 1.0] ------------[ cut here ]------------\n[ 1.0] {said}\n"
                           "[ 1.0] ---[ end trace 0000000000000000 ]---\n")
    assert [one.kind for one in complaints] == ["WARNING"]
    assert verdict.sort_out(complaints, (unmapped.SAID,)) == ([], complaints)


def test_a_witness_that_fails_its_own_tests_is_none(tmp_path: Path) -> None:
    good = ("[    2.1]     KTAP version 1\n[    2.1]     # Subtest: debug_vm_unmapped\n"
            "[    2.2]     ok 1 finds_anonymous_memory\n[    2.2] ok 1 debug_vm_unmapped\n")
    bad = good.replace("] ok 1 debug", "] not ok 1 debug")
    for witness, log, said in ((True, good, []), (False, bad, []),
                               (True, bad, [("KUnit", 4, "not ok 1 debug_vm_unmapped")])):
        complaints, _symptoms = trial_of(tmp_path, witness)._complaints(log)
        assert [(one.kind, one.line, one.text) for one in complaints] == said


def boots(saw: bool = False) -> list[verdict.Boot]:
    symptoms = klog.read(WARNINGS[0] + "\n") if saw else []
    return [dataclasses.replace(runs.boot(name, log=runs.golden("clean.console")),
                                symptoms=symptoms if name == "vulnerable" else [])
            for name in ("vulnerable", "fixed")]


def test_the_verdict_names_it() -> None:
    for saw, witness, said in (
            (True, unmapped.SAID, "and no log has a complaint but what the kernel's own check "
             "(debug_vm_unmapped) says of the vulnerable one, in its one boot"),
            (False, unmapped.SAID, "and no log has a complaint, also not of the kernel's own check "
             "(debug_vm_unmapped)"),
            (False, "", "and no log has a complaint")):
        left, right = boots(saw)
        word, why = verdict.decide([left], [right], 1, witness=witness)
        assert word == "PROVED" and why.endswith(said), why


@pytest.mark.parametrize("saw, witness, sees, word", [
    ((True, True), True, True, "PROVED"),
    ((True, False), True, True, "INCONCLUSIVE"),
    ((False, False), True, True, "INCONCLUSIVE"),
    # A defect that it does not see, and kernels without it.
    ((False, False), True, False, "PROVED"),
    ((False, False), False, True, "PROVED"),
])
def test_a_witness_that_has_to_see_it_and_is_silent_is_broken(
        saw: tuple[bool, bool], witness: bool, sees: bool, word: str) -> None:
    left = [dataclasses.replace(boots(one)[0], number=number) for number, one in enumerate(saw, 1)]
    right = [dataclasses.replace(boots()[1], number=number) for number in (1, 2)]
    said = unmapped.SAID if witness else ""
    came, why = verdict.decide(left, right, 2, witness=said, sees=sees)
    assert came == word, why
    if word == "INCONCLUSIVE":
        assert why.startswith(f"vulnerable boot {1 + saw.index(False)}: the kernel's own check ")
        assert "said nothing of it: it is off, or broken" in why
    # What the tests say comes first, and so does a complaint.
    passes = [dataclasses.replace(one, variant="vulnerable") for one in right]
    assert verdict.decide(passes, right, 2, witness=said, sees=sees)[0] == "MISSED"
    bad = dataclasses.replace(right[0], complaints=klog.read(WARNINGS[1] + "\n"))
    assert verdict.decide(left, [bad, right[1]], 2, witness=said, sees=sees)[0] == "CRASHED"


def test_whose_defects_it_sees() -> None:
    """Those of which the changelog says that the check reports them, and no other is proved by
    it."""
    [log] = {message(path)[1] for path in ROOM.glob("*/0001-*")}
    would, would_not = log.split("It would not have reported")
    for one in map(defect.load, defect.names()):
        if one.show.witness:
            assert any(line.split()[0] in would for line in one.upstream), one.name
            assert one.show.selftests and not one.show.fatal, one.name
    assert [unmapped.sees(defect.load("pmd-share-migrate"), arch.load(name))
            for name in ("x86_64", "arm64")] == [True, False]
    assert "a4a118f2eead" in would_not and not defect.load("pmd-share-flush").show.witness


@pytest.mark.parametrize("witness", [unmapped.SAID, ""])
def test_a_test_that_counts_nothing_need_not_count_because_of_it(witness: str) -> None:
    """Beside tests that count what was lost, one only fails, and the kernel's check has spoken."""
    [left, right] = boots(saw=True)
    count = "lab: start x\nTAP version 13\n1..2\n# x: migrations=9 lost_migrations={}\n" \
        "{} 1 a\n{} 2 b\n# Totals: pass:{} fail:{} xfail:0 xpass:0 skip:0 error:0\n" \
        "lab: exit x {}\nlab: done\n"
    left = dataclasses.replace(left, transcript=ktap.read(
        count.format(9, "not ok", "not ok", 0, 2, 1)))
    right = dataclasses.replace(right, transcript=ktap.read(count.format(0, "ok", "ok", 2, 0, 0)))
    word, why = verdict.decide([left], [right], 1, witness=witness)
    # What a defect makes the kernel say is another matter: all that failed showed it.
    assert word == ("PROVED" if witness else "INCONCLUSIVE"), why


def test_it_says_in_how_many_boots() -> None:
    left = [dataclasses.replace(boots(saw=number == 2)[0], number=number) for number in (1, 2)]
    right = [dataclasses.replace(boots()[1], number=number) for number in (1, 2)]
    word, why = verdict.decide(left, right, 2, witness=unmapped.SAID)
    assert word == "PROVED" and "says of the vulnerable one, in 1 of its 2 boots" in why


def test_a_fixed_kernel_of_which_it_says_something_is_not_proved() -> None:
    left, right = boots(saw=True)
    right = dataclasses.replace(right, complaints=klog.read(WARNINGS[1] + "\n"))
    word, why = verdict.decide([left], [right], 1, witness=unmapped.SAID)
    assert word == "CRASHED" and "mm/debug_vm_unmapped.c" in why
