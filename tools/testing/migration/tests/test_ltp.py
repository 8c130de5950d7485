# SPDX-License-Identifier: GPL-2.0
"""The tests for LTP: their patches, how they are built and booted, and what is read of them.

What needs a tree of LTP takes that of $LTP; with FULL=1 it is built, and booted.
"""

import dataclasses
import json
import os
import re
import shutil
import subprocess
import tempfile
from pathlib import Path

import debian_guest
import pytest
from conftest import FULL, debian_tree, make, refused, wanted
from runs import boot, golden
from test_series import too_wide
from trees import git

from lab import arch, cli, defect, options
from lab.errors import LabError
from lab.guest import ltp, selftest
from lab.judge import ktap, ltp as judge
from lab.kernel import build, testseries
from lab.paths import REPO
from lab.progress import Progress
from lab.trial import prepare
from lab.verbs import mailing

# Where LTP and kirk are, these are builds and boots.
pytestmark = pytest.mark.alone
TREE = ltp.ROOM / "tree" / ltp.FOLDER
LOG = golden("ltp.txt")
# The files migrate_*.c that the tests for LTP are made of, and their headers.
ENGINE = ("crew", "guard", "hugetlb", "journal", "memory", "mount", "page", "round", "util",
          "writers")


# ---- what a test printed --------------------------------------------------------------------


def read(text: str) -> ktap.Transcript:
    return ktap.read(judge.as_ktap(text))


def test_a_failure_with_its_figures_and_its_commits() -> None:
    said = read(LOG)
    assert said.done and said.problems() == []
    lost, skipped, control = said.tests()
    assert (lost.name, lost.outcome) == ("hugetlbfs.migrate_pages", "fail")
    assert lost.reason == "2310 writes lost in 10 of 10 migrations"
    assert (lost.count("lost_migrations"), lost.count("migrations")) == (10, 10)
    assert judge.commits(lost.notes) == ["017b1660df89f5fb4bfe66c34e35f7d2031100c7",
                                         "dff11abe280b47c21b804a8ace318e0638bb9a49"]
    assert any(note.startswith("lost: page 0 offset 0x800 ") for note in lost.notes)
    assert skipped.outcome == "skip" and "table not shared" in skipped.reason
    assert control.outcome == "pass" and control.is_control() and judge.commits(control.notes) == []


def test_what_is_not_ltps_stays() -> None:
    text = "noise\r\nlab: start a\nlab: exit a 0\nlab: done"
    assert judge.as_ktap(text) == "noise\nlab: start a\nlab: exit a 0\nlab: done"
    assert judge.as_ktap("") == ""


@pytest.mark.parametrize(("change", "problem"), [
    (lambda text: text.replace("failed   1", "failed   2"), "4 tests planned, 3 came"),
    (lambda text: text.partition("Summary:")[0] + "lab: exit hugemigrate01 33\nlab: done", "no plan"),
    (lambda text: text.replace("exit hugemigrate01 33", "exit hugemigrate01 139"), "killed by sig"),
    (lambda text: text.replace("exit hugemigrate01 33", "exit hugemigrate01 0"), "exit status 0, "),
    (lambda text: text.partition("HINT")[0], "no exit status came"),
    (lambda text: re.sub(r".* TFAIL: .*\n", "", text).replace("failed   1", "failed   0"),
     "exit status 1, although no test failed"),
])
def test_what_is_not_whole_is_a_problem(change: object, problem: str) -> None:
    said = read(change(LOG))         # type: ignore[operator]
    assert any(problem in one for one in said.problems()), said.problems()


def test_each_prefix_of_a_log_can_be_read() -> None:
    """A boot is read while it goes on."""
    for end in range(len(LOG)):
        said = read(LOG[:end])
        assert not said.done or end >= len(LOG) - 1
        assert len(said.tests()) <= 4


def one(line: str, counts: str, status: int) -> ktap.Transcript:
    return read(f"lab: start t\n{line}\n\nSummary:\n{counts}\nlab: exit t {status}\nlab: done\n")


def counts(passed: int = 0, failed: int = 0, broken: int = 0, skipped: int = 0, warnings: int = 0
           ) -> str:
    return (f"passed   {passed}\nfailed   {failed}\nbroken   {broken}\nskipped  {skipped}\n"
            f"warnings {warnings}")


def test_a_test_that_cannot_run_is_skipped() -> None:
    said = one("t.c:475: TCONF: needs two NUMA nodes with memory: numa=fake=2 makes two of one",
               counts(skipped=1), 32)
    [skipped] = said.tests()
    assert said.problems() == [] and (skipped.name, skipped.outcome) == ("t", "skip")
    assert skipped.reason.startswith("needs two NUMA nodes")


def test_too_few_migrations_are_inconclusive() -> None:
    said = one("t.c:380: TCONF: a.b: inconclusive: only 1 of 44 calls moved a page, with all writing",
               counts(skipped=1), 32)
    [test] = said.tests()
    assert (test.name, test.outcome) == ("a.b", "inconclusive")


def test_a_broken_test_is_an_error() -> None:
    said = one("t.c:270: TBROK: a writer is gone, or does not answer", counts(broken=1), 2)
    [broken] = said.tests()
    assert broken.outcome == "error" and "a writer is gone" in broken.reason
    assert boot("fixed", text="").state == "INCOMPLETE"


def test_a_warning_is_no_pass() -> None:
    said = one("t.c:1: TPASS: a: good\nt.c:2: TWARN: cannot unmount", counts(passed=1, warnings=1), 4)
    assert [test.outcome for test in said.tests()] == ["pass", "fail"]
    assert said.problems() == ["t: 1 test planned, 2 came"]


def test_cases_that_run_twice_are_two() -> None:
    said = one("t.c:1: TPASS: a: good\nt.c:1: TPASS: a: good", counts(passed=2), 0)
    assert said.problems() == [] and [test.name for test in said.tests()] == ["a", "a.2"]


def test_a_proof_names_the_fixes() -> None:
    upstream = defect.load("pmd-share-migrate").upstream
    whole = boot("vulnerable", text=judge.as_ktap(LOG))
    assert judge.named([whole], upstream, "PROVED", "so it is") == (
        "PROVED", "so it is; the tests named 017b1660df89 and dff11abe280b")
    less = boot("vulnerable", 2, text=judge.as_ktap(re.sub(r".*id=dff11.*\n", "", LOG)))
    word, why = judge.named([whole, less], upstream, "PROVED", "so it is")
    assert word == "INCONCLUSIVE" and "vulnerable boot 2" in why and "dff11abe280b" in why


# ---- the tests ------------------------------------------------------------------------------


def test_the_tests_name_what_fixes_their_defect() -> None:
    shown = {name: one for one in map(defect.load, defect.names()) for name in one.show.ltp}
    assert sorted(shown) == ltp.names()
    for name, what in shown.items():
        tags = re.findall(r'\{"linux-git", "([0-9a-f]{40})"\}', (TREE / f"{name}.c").read_text())
        assert [tag[:12] for tag in tags] == [line.split()[0] for line in what.upstream]
        # The whole of each is what the queue says as well.
        queues = "".join(path.read_text() for path in (REPO / "queue").glob("[0-9]*/*.patch"))
        assert all(tag in queues for tag in tags)


def test_nothing_is_kept_twice() -> None:
    """The engine is that of the selftests, and the folder has what only LTP has."""
    sources = [path for name, _part in testseries.listed(ltp.ROOM)
               for path in testseries.sources(ltp.ROOM / name)]
    assert sorted(sources) == ltp.sources()
    assert sorted(path for path in sources if path.is_relative_to(TREE)) == sorted(TREE.iterdir())
    assert {path.name for path in sources if path.parent == REPO / selftest.FOLDER} == {
        "migrate_timeline.h", *(f"migrate_{what}.{kind}" for what in ENGINE for kind in "ch")}


@pytest.mark.parametrize("what", ENGINE)
def test_the_engine_needs_no_more_of_the_kernel(what: str, tmp_path: Path) -> None:
    """Than the two small headers have, with LTP's warnings."""
    for path in ltp.sources():
        shutil.copy(path, tmp_path)
    subprocess.run(["gcc", "-c", "-O2", "-fno-strict-aliasing", "-Wall", "-W", "-Werror",
                    "-Wold-style-definition", "-Wno-unused-parameter", "-std=gnu99", "-pthread",
                    f"migrate_{what}.c", "-o", "out.o"], cwd=tmp_path, check=True)


# ---- the patches ----------------------------------------------------------------------------


@pytest.fixture(name="tree")
def _tree(tmp_path: Path) -> Path:
    """What the patches change of LTP, as much of it as they show."""
    top = tmp_path / "ltp"
    for name, text in (
            ("include/tst_test.h", "\n"), ("configure.ac", "\n"), ("VERSION", "20260529\n"),
            ("runtest/hugetlb", "hugemmap05_2 hugemmap05 -s\nhugemmap05_3 hugemmap05 -s -m\n\n"
             "hugeshmat01 hugeshmat01 -i 5\nhugeshmat02 hugeshmat02 -i 5\n"
             "hugeshmat03 hugeshmat03 -i 5\n"),
            ("runtest/mm", "thp02 thp02\nthp03 thp03\nthp04 thp04\n\nvma01 vma01\nvma02 vma02\n"),
            ("testcases/kernel/mem/.gitignore", "/ksm/ksm06\n/ksm/ksm07\n/mem/mem02\n"
             "/mmapstress/mmap-corruption01\n/mmapstress/mmapstress01\n/mmapstress/mmapstress02\n")):
        (top / name).parent.mkdir(parents=True, exist_ok=True)
        (top / name).write_text(text)
    git(top, "init", "-q")
    git(top, "add", "-A")
    git(top, "commit", "-qm", "LTP")
    return top


def test_the_letter_is_within_its_width() -> None:
    """Also where there is no tree of LTP.  The list of patches is all that is put in."""
    assert "{shortlog}" in (text := ltp.COVER.read_text(encoding="utf-8"))
    assert too_wide(text) == [] and too_wide(f"A letter\n\n{'x' * 76}\n") == ["x" * 76]


def test_the_series_applies_with_git_am(tree: Path, tmp_path: Path) -> None:
    out = tmp_path / "series"
    done = make("series", "SERIES=ltp", f"O={out}", f"LTP={tree}")
    assert done.returncode == 0, done.stderr
    mails = sorted(out.glob("000[1-9]-*.patch"))
    assert [re.search(r"(?m)^Subject: (\[.*?\])", mail.read_text())[1]      # type: ignore[index]
            for mail in mails] == ["[PATCH 1/3]", "[PATCH 2/3]", "[PATCH 3/3]"]
    letter = (out / "0000-cover-letter.patch").read_text()
    assert f"base-commit: {git(tree, 'rev-parse', 'HEAD').strip()}" in letter
    assert too_wide(letter) == []
    assert (out / mailing.RECIPIENTS).read_text() == "--to=ltp@lists.linux.it\n"
    git(tree, "am", "-q", *map(str, mails))
    assert {path.name for path in (tree / ltp.FOLDER).iterdir()} == \
        {path.name for path in ltp.sources()}
    for name in ltp.names():
        assert f"\n{name} {name}\n" in "".join(
            (tree / "runtest" / file).read_text() for file in ("mm", "hugetlb"))
    for path in ltp.sources():
        assert (tree / ltp.FOLDER / path.name).read_bytes() == path.read_bytes()
    # What is built is ignored.
    for name in ltp.names():
        (tree / ltp.FOLDER / name).write_text("")
    assert git(tree, "status", "--porcelain") == ""


def test_each_step_builds_what_it_has() -> None:
    """The Makefile finds the tests by itself, so no patch names one that a later one adds."""
    makefile = (TREE / "Makefile").read_text()
    assert not any(name in makefile for name in ltp.names())


def test_a_tree_that_it_does_not_apply_to(tree: Path, tmp_path: Path) -> None:
    (tree / "runtest/mm").write_text("other\n")
    with pytest.raises(LabError, match="0003-.*thpmigrate01.patch does not apply to this LTP"):
        ltp.check(tree)
    git(tree, "commit", "-qam", "other")
    out = tmp_path / "series"
    assert "does not apply" in refused("series", "SERIES=ltp", f"O={out}", f"LTP={tree}")
    assert not out.exists()


def test_bad_input_is_one_line(tree: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str],
                               monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LAB_CACHE", str(tmp_path / "cache"))
    for words, says in (
            (("prove", "HARNESS=ltp"), "name LTP's source with LTP=/path/to/ltp: git clone https:"),
            (("prove", "HARNESS=ltp", "LTP=/nonesuch"), "no such folder: /nonesuch"),
            (("prove", "HARNESS=ltp", f"LTP={tmp_path}"), "is no source of LTP"),
            (("prove", f"LTP={tree}"), "LTP= goes with HARNESS=ltp"),
            (("prove", f"HARNESS={tree}", f"LTP={tree}"), "leave LTP= out"),
            (("prove", f"HARNESS={tree}", "DEFECT=pmd-share-flush"),
             "no test of LTP shows pmd-share-flush: they show pmd-share-migrate, thp-cow-isolation"),
            (("mutants", "HARNESS=ltp"), "HARNESS=ltp is for prove and shell"),
            (("bench", f"HARNESS={tree}"), "is for prove and shell"),
            (("selftests", "HARNESS=ltp", f"DEST={tmp_path}/x"), "no such folder: ltp"),
            (("series", "SERIES=ltp", "BASE=6.12", f"O={tmp_path}/s"), "is for no kernel"),
            (("series", "SERIES=fixes", f"LTP={tree}", "BASE=6.12", f"O={tmp_path}/s"),
             "LTP= goes with SERIES=ltp")):
        assert cli.main(words) == cli.ERROR
        [line] = capsys.readouterr().err.splitlines()
        assert line.startswith("error: ") and says in line, (words, line)


def test_a_tree_in_the_environment_is_for_who_asks_for_ltp(tree: Path, tmp_path: Path) -> None:
    words = ("series", "BASE=4.14", f"O={tmp_path}/s")
    assert make(*words, LTP=str(tree)).returncode == 0
    said = options.parse(["prove", f"LTP?={tree}"])
    assert cli._harness(None, said.ltp, said) == (None, None)
    said = options.parse(["prove", f"LTP?={tree}", "HARNESS=ltp"])
    assert cli._harness(said.harness, said.ltp, said) == (None, tree)


# ---- with LTP itself -------------------------------------------------------------------------


@pytest.fixture(scope="module", name="real")
def _real() -> Path:
    if not FULL:
        pytest.skip("builds LTP: with FULL=1")
    if not os.environ.get("LTP"):
        pytest.skip(f"needs a tree of LTP: LTP=/path/to/ltp, a clone of {ltp.HOME}")
    return ltp.find(Path(os.environ["LTP"]))


@pytest.mark.parametrize("name", arch.names())
def test_it_builds_static(real: Path, name: str) -> None:
    row = arch.load(name)
    if shutil.which(row.compiler) is None:
        pytest.skip(f"no {row.compiler}")
    before = git(real, "status", "--porcelain")
    built = ltp.build(real, row, Progress())
    assert sorted(built) == ltp.names()
    assert git(real, "status", "--porcelain") == before
    if row.native:
        for program in built.values():
            said = subprocess.run([program, "-h"], text=True, capture_output=True, check=False)
            assert said.returncode == 0 and "017b1660df89" in said.stderr + said.stdout or \
                "829ae0f81ce0" in said.stderr + said.stdout


def test_make_check_of_ltp_is_clean(real: Path, tmp_path: Path) -> None:
    """With its checkpatch.pl, and its own checker where $SPARSE_SRC has the source of sparse."""
    tree = tmp_path / "ltp"
    git(tmp_path, "clone", "-q", str(real), str(tree))
    git(tree, "am", "-q", *map(str, mailing.write("", tmp_path / "s", ltp.NAME)[0].patches))
    home = tree / ltp.FOLDER
    for path in sorted([*home.glob("*.c"), *home.glob("*.h")]):
        done = subprocess.run(
            [tree / "scripts/checkpatch.pl", "-f", "--root", tree, path], text=True,
            capture_output=True, check=False, env={**os.environ, "CHECKPATCH_CONFIG_DIR": str(tree)})
        assert done.stdout.strip() == "", done.stdout
    sparse = os.environ.get("SPARSE_SRC")
    if not sparse:
        pytest.skip("checkpatch.pl is content; needs $SPARSE_SRC, the source of sparse, for the rest")
    for words in (["make", "autotools"], ["./configure"],
                  ["make", "-C", "tools/sparse", f"SPARSE_SRC={sparse}"], ["make", "-C", "lib"]):
        subprocess.run(words, cwd=tree, check=True, capture_output=True)
    done = subprocess.run(["make", "-C", str(home), "check"], text=True, capture_output=True,
                          check=True)
    told = [line for line in (done.stdout + done.stderr).splitlines()
            if not line.startswith(("make", "CHECK "))]
    assert told == []


@pytest.fixture(name="kirk")
def _kirk() -> Path:
    """The source of kirk, the runner that LTP's users have."""
    kirk = Path(os.environ.get("KIRK", "/nonexistent"))
    if not (kirk / "kirk").is_file():
        pytest.skip("needs the source of kirk: KIRK=/path/to/kirk")
    return kirk


def install(tree: Path, home: Path) -> None:
    """Lay the tests and LTP's lists out as `make install` of LTP does."""
    tests = home / "testcases/bin"
    tests.mkdir(parents=True)
    for name, path in ltp.build(tree, arch.load(), Progress()).items():
        shutil.copy(path, tests / name)
        (tests / name).chmod(0o755)
    shutil.copytree(tree / "runtest", home / "runtest")
    git(home, "init", "-q")
    for _name, text in ltp.patches():
        subprocess.run(["git", "apply", "--include=runtest/*", "-"], input=text, text=True,
                       cwd=home, check=True)


def test_kirk_finds_and_runs_them(real: Path, kirk: Path) -> None:
    """As an ordinary user, so that they skip: the machine may be at work."""
    # Not in pytest's folder, which it keeps from other users.
    with tempfile.TemporaryDirectory(prefix="lab-kirk-") as folder:
        home = Path(folder)
        home.chmod(0o777)
        install(real, home)
        done = subprocess.run(
            ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "/usr/bin/python3",
             "-B", kirk / "kirk", "-n", "--run-suite", "hugetlb", "mm", "--run-pattern", "migrate01$",
             "--tmp-dir", folder], text=True, capture_output=True, check=False, cwd=folder,
            env={**os.environ, "LTPROOT": folder, "TMPDIR": folder, "HOME": folder})
        assert re.findall(r"(?m)^(\w+): (\w+) ", done.stdout) == [
            ("hugemigrate01", "skip"), ("thpmigrate01", "skip")], done.stdout + done.stderr


# One boot, and what mmdebstrap takes.
KIRK_LIMIT = 400.0
# Python's asyncio, which kirk is written with, needs sockets.
SOCKETS = ("CONFIG_NET=y", "CONFIG_UNIX=y")
# The report in one line, since the guest has one file for all.
KIRK_SCRIPT = """#!/bin/sh
cd /kirk || exit
./kirk -n -d /tmp --run-suite hugetlb mm --run-pattern 'migrate01$' -o /tmp/report
echo "kirk: exit $?"
python3 -c 'import json; print("kirk: report", json.dumps(json.load(open("/tmp/report"))))'
"""


@pytest.mark.slow
def test_kirk_on_two_nodes(real: Path, kirk: Path, tmp_path: Path) -> None:
    """In a Debian that has LTP and kirk, with either kernel: what does kirk say?"""
    debian_guest.needed()
    debian_tree("6.12")

    def add(root: Path) -> None:
        install(real, root / "opt/ltp")
        shutil.copytree(kirk, root / "kirk", ignore=shutil.ignore_patterns(".git", "doc"))
        (root / "kirk.sh").write_text(KIRK_SCRIPT)
        (root / "kirk.sh").chmod(0o755)
    file_system = debian_guest.initrd(tmp_path, add, "/kirk.sh 2>&1")
    for kernel in prepare(wanted(REPO / "out"), arch.load(), Progress()):
        kernel = dataclasses.replace(kernel, kernel=build.kernel(
            kernel.source, kernel.variant, kernel.arch, False, Progress(),
            kernel.defect.kernel.options + SOCKETS))
        said = debian_guest.said(kernel, file_system, tmp_path / kernel.name, KIRK_LIMIT)
        assert "kirk: report {" in said, said
        words = dict(re.findall(r"(?m)^(\w+): (\w+) ", said))
        report = {one["test_fqn"]: one["test"] for one in
                  json.loads(said.partition("kirk: report ")[2].splitlines()[0])["results"]}
        test = report["hugemigrate01"]
        assert words["thpmigrate01"] == "skip" and report["thpmigrate01"]["result"] == "conf", said
        if kernel.name == "vulnerable":
            assert words["hugemigrate01"] == test["result"] == "fail" and test["failed"] > 0, said
            for line in defect.load("pmd-share-migrate").upstream:
                assert f"id={line.split()[0]}" in test["log"], test["log"]
        else:
            assert words["hugemigrate01"] == test["result"] == "pass" and test["passed"] > 0, said


@pytest.mark.parametrize(("base", "what"), [
    ("6.12", "pmd-share-migrate"), ("6.12", "thp-cow-isolation"), ("4.18", "pmd-share-migrate"),
    ("4.4", "pmd-share-migrate")])
def test_a_proof(real: Path, base: str, what: str, tmp_path: Path) -> None:
    tree = Path(os.environ.get("TREES", ""), base)
    words = [] if base == "6.12" else [f"KERNEL={tree}"]
    if words and not (os.environ.get("TREES") and tree.is_dir()):
        pytest.skip(f"needs a tree of {base}: TREES=DIR")
    done = make("prove", "HARNESS=ltp", f"LTP={real}", f"BASE={base}", f"DEFECT={what}",
                f"OUT={tmp_path}", *words)
    assert done.returncode == 0, done.stdout + done.stderr
    # Where the lines are broken depends on the figures.
    said = " ".join(done.stdout.split())
    assert "PROVED: " in said and "the tests named" in said
    assert "only what the selftests prove" in refused("record", f"OUT={tmp_path}")
