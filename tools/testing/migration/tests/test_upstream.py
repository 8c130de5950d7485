# SPDX-License-Identifier: GPL-2.0
"""upstream/: the patches that add the tests and the document, as one would send them."""

import hashlib
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import LATER, debian_tree
from test_series import git, make

from lab.base import load
from lab.errors import LabError
from lab.guest import selftest
from lab.kernel import upstream, variant
from lab.kernel.source import Source
from lab.paths import REPO
from lab.verbs import series

ROOM = upstream.ROOM
BASES = upstream.names()
NAMES = (ROOM / "order").read_text().split()
# What a kernel gets of the repository: all files below these.
IN_TREE = ("Documentation/mm", "include", "lib", "mm", "tools/testing/selftests")
SELFTESTS = "tools/testing/selftests"


def edits(folder: Path, base: str) -> str:
    found = [folder / f"{base}.diff", folder / "edits.diff"]
    return next((path.read_text(encoding="utf-8") for path in found if path.exists()), "")


def touched(base: str) -> list[str]:
    """The files of the kernel itself that the series changes, what mends it included."""
    diffs = [path.read_text(encoding="utf-8") for path in variant.series(base)]
    diffs += [edits(ROOM / name, base) for name in NAMES]
    return sorted({path for diff in diffs for path in re.findall(r"(?m)^--- a/(\S+)$", diff)})


# ---- the room ------------------------------------------------------------------------------


def test_there_is_mainline_and_what_the_lab_builds_with() -> None:
    assert {"7.3", selftest.BASE} <= set(BASES)


def test_the_order_names_just_what_is_there() -> None:
    assert sorted(NAMES) == sorted(path.name for path in ROOM.iterdir() if path.is_dir())
    assert len(set(NAMES)) == len(NAMES)


def test_each_file_for_a_kernel_is_added_once() -> None:
    here = sorted(str(path.relative_to(REPO)) for folder in IN_TREE
                  for path in (REPO / folder).rglob("*")
                  if path.is_file() and (path.suffix in (".c", ".h", ".rst", ".sh")
                                         or path.name == ".kunitconfig"))
    assert sorted(path for name in NAMES for path in upstream.files(ROOM, name)) == \
        [path for path in here if Path(path).stem not in LATER]


@pytest.mark.parametrize("name", NAMES)
class TestMessage:
    """One changelog."""

    def test_it_reads_well_in_a_log(self, name: str) -> None:
        subject, empty, *log = (ROOM / name / "message").read_text(encoding="utf-8").splitlines()
        assert re.match(r"[\w/]+(: [\w/]+)*: [a-z]", subject) and len(subject) <= 75
        assert not subject.endswith(".") and empty == ""
        assert len(" ".join(log).split()) > 30
        # checkpatch wants the title of a commit on two lines, and takes 75 columns.  A Fixes: line is
        # one line, however long.
        for line in log:
            assert len(line) <= (75 if re.match(r"commit [0-9a-f]{12} ", line) else 72) or \
                re.fullmatch(r'Fixes: [0-9a-f]{12} \(".+"\)', line), line

    def test_it_has_nothing_that_the_sender_adds(self, name: str) -> None:
        text = (ROOM / name / "message").read_text(encoding="utf-8")
        assert not re.search(r"(?im)^\s*[\w-]+-by:|^---|^diff |\|\s+\d+ \+", text)

    def test_what_it_says_was_seen_is_on_record(self, name: str) -> None:
        """Each `n of m` is in a record of Documentation/proofs/."""
        text = (ROOM / name / "message").read_text(encoding="utf-8")
        records = " ".join(path.read_text(encoding="utf-8")
                           for path in (REPO / "Documentation" / "proofs").rglob("*.rst"))
        for figure in re.findall(r"\b\d+ of \d+\b", " ".join(text.split())):
            assert figure in records


# ---- the mails -----------------------------------------------------------------------------


@pytest.mark.parametrize("base", BASES)
def test_it_is_the_same_each_time(base: str, tmp_path: Path) -> None:
    for name in ("one", "two"):
        assert make(f"BASE={base}", f"O={tmp_path / name}").returncode == 0
    for path in (tmp_path / "one").iterdir():
        assert path.read_bytes() == (tmp_path / "two" / path.name).read_bytes()
    assert len(list((tmp_path / "one").iterdir())) == \
        len(variant.series(base)) + len(upstream.patches(base)) + 1 + len(series.reports(base))


def test_mainline_is_not_named_in_the_subject(tmp_path: Path) -> None:
    newest = series.write("7.3", tmp_path / "new").patches[0].read_text()
    older = series.write("6.12", tmp_path / "old").patches[0].read_text()
    total = len(variant.series("7.3")) + len(upstream.patches("7.3"))
    assert f"\nSubject: [PATCH 1/{total}] " in newest
    assert "\nSubject: [PATCH 6.12 1/" in older


@pytest.mark.parametrize("base", BASES)
def test_the_cover_letter(base: str, tmp_path: Path) -> None:
    made = series.write(base, tmp_path)
    assert made.cover
    text = made.cover.read_text(encoding="utf-8")
    assert not re.search(r"[{}]", text), "a placeholder is left"
    mails = [path.read_text(encoding="utf-8") for path in variant.series(base)]
    # It says what these five are about.
    assert len(mails) == 5 and "first five patches" in text
    assert "move_pages()" in series.subjects(mails)[0]
    assert "private mapping" in series.subjects(mails)[1] and "private mapping" in text
    assert "mremap()" in series.subjects(mails)[2] and "mremap()" in text
    assert "flags and entries" in series.subjects(mails)[3] and "mprotect()" in text
    assert "userfaultfd poisons" in series.subjects(mails)[4] and "UFFDIO_POISON" in text
    mails += [mail for _name, mail in upstream.patches(base)]
    for number, subject in enumerate(series.subjects(mails), 1):
        assert re.search(rf"(?m)^ +{number}\. {re.escape(subject)}$", text), subject
    assert max(map(len, text.splitlines())) <= 80
    assert "pmd-share lab <lab@invalid>" in text and "-by:" not in text


def test_a_queue_is_still_written(tmp_path: Path) -> None:
    names = [path.name for path in series.write("4.14", tmp_path).patches]
    assert names == [path.name for path in variant.series("4.14")]


# ---- on the released sources ---------------------------------------------------------------


@pytest.fixture(scope="module")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], tuple[Path, Path]]:
    """Per base: a repository of the files that the series touches, and the lab's tree."""
    made: dict[str, tuple[Path, Path]] = {}

    def get(base: str) -> tuple[Path, Path]:
        if base not in made:
            tree = debian_tree(base).tree
            repo = tmp_path_factory.mktemp(f"linux-{base}")
            for path in [*touched(base), "MAINTAINERS"]:
                # As released: the lab's tree may be a variant just now.
                variant._State(tree).copy_pristine(path, repo / path)
            git(repo, "init", "-q")
            git(repo, "add", "-A", "-f")
            git(repo, "commit", "-qm", "released")
            made[base] = (repo, tree)
        repo, tree = made[base]
        git(repo, "checkout", "-q", "-f", "-B", "series", git(
            repo, "rev-list", "--max-parents=0", "--all").split()[0])
        git(repo, "clean", "-q", "-f", "-d", "-x")
        return repo, tree

    return get


@pytest.fixture
def applied(pristine: Callable[[str], tuple[Path, Path]], tmp_path: Path
            ) -> Callable[[str], tuple[Path, Path, tuple[Path, ...]]]:
    """Per base: that repository with the series applied, the tree, and the patches."""

    def get(base: str) -> tuple[Path, Path, tuple[Path, ...]]:
        repo, tree = pristine(base)
        patches = series.write(base, tmp_path / "mails").patches
        git(repo, "am", "-q", "-s", *patches)
        return repo, tree, patches

    return get


Applied = Callable[[str], tuple[Path, Path, tuple[Path, ...]]]


@pytest.mark.parametrize("base", BASES)
def test_git_am_takes_it_and_makes_what_is_here(base: str, applied: Applied) -> None:
    repo, _tree, patches = applied(base)
    log = git(repo, "log", "--format=%an <%ae>%n%s%n%b", f"-{len(patches)}")
    assert log.count("pmd-share lab <lab@invalid>") == len(patches)
    assert log.count("Signed-off-by: A <a@invalid>") == len(patches)
    for patch in patches:
        assert series.subjects([patch.read_text().replace(
            re.findall(r"\[PATCH.*?\]", patch.read_text())[0], "[PATCH]")])[0] in log
    changed = git(repo, "diff", "--name-status", f"HEAD~{len(patches)}", "HEAD").splitlines()
    added = sorted(line.split("\t")[1] for line in changed if line.startswith("A"))
    wanted = [(name, path) for name in NAMES for path in upstream.files(ROOM, name)
              if edits(ROOM / name, base) or not list((ROOM / name).glob("*.diff"))]
    assert added == sorted(path for _name, path in wanted)
    for path in added:
        whole, data = (REPO / path).read_bytes(), (repo / path).read_bytes()
        if b"IN_TREE" not in whole:
            assert data == whole
        else:
            # For one version: nothing new, and no question of which.
            assert set(data.split(b"\n")) < set(whole.split(b"\n"))
            assert not re.search(rb"IN_TREE|SINCE_|LINUX_VERSION|version\.h", data)
    assert sorted(line.split("\t")[1] for line in changed if line[0] == "M") == touched(base)


@pytest.mark.parametrize("base", BASES)
def test_each_diff_fits_without_fuzz(base: str, pristine: Callable[[str], tuple[Path, Path]]
                                     ) -> None:
    """And its index lines are right: it was made from these very files."""
    repo, _tree = pristine(base)
    diffs = [(path.name, path.read_text(encoding="utf-8")) for path in variant.series(base)]
    for name, diff in diffs + [(name, edits(ROOM / name, base)) for name in NAMES]:
        for path, old in re.findall(
                r"(?m)^diff --git a/(\S+) .*\nindex ([0-9a-f]+)\.\.[0-9a-f]+", diff):
            assert git(repo, "hash-object", path).startswith(old), (name, path)
        if not diff:
            continue
        patch = repo / ".git" / "edits"
        patch.write_text(diff)
        done = subprocess.run(["git", "apply", "--verbose", patch], cwd=repo, text=True,
                              capture_output=True, check=False)
        assert done.returncode == 0 and "offset" not in done.stderr, (name, done.stderr)
        for path, new in re.findall(
                r"(?m)^diff --git a/(\S+) .*\nindex [0-9a-f]+\.\.([0-9a-f]+)", diff):
            assert git(repo, "hash-object", path).startswith(new), (name, path)


@pytest.mark.parametrize("base", BASES)
def test_checkpatch_has_nothing_to_say(base: str, applied: Applied, tmp_path: Path) -> None:
    _repo, tree, patches = applied(base)
    for patch in patches:
        # There is no history here to find the commits in that a changelog names.
        done = subprocess.run(
            ["perl", tree / "scripts/checkpatch.pl", "--no-tree", "--strict", "--terse",
             "--no-summary", "--no-signoff", "--ignore", "UNKNOWN_COMMIT_ID", patch], cwd=tmp_path, text=True, capture_output=True, check=False)
        assert done.stdout + done.stderr == ""


@pytest.mark.parametrize("base", BASES)
def test_every_new_file_has_a_list(base: str, applied: Applied) -> None:
    repo, tree, patches = applied(base)
    for number in range(len(patches)):
        # At each step, for what that patch adds: who bisects may ask, too.
        git(repo, "checkout", "-q", f"series~{len(patches) - 1 - number}")
        added = git(repo, "diff", "--name-only", "--diff-filter=A", "HEAD~").split()
        for path in added:
            done = subprocess.run(
                ["perl", tree / "scripts/get_maintainer.pl", "--no-git", "--no-git-fallback",
                 "--no-tree", "--no-rolestats", "--no-m", "--no-r", "-f", path],
                cwd=repo, text=True, capture_output=True, check=False)
            assert done.returncode == 0, done.stderr
            assert "linux-mm@kvack.org" in done.stdout, path
            if path.startswith(SELFTESTS):
                assert "linux-kselftest@vger.kernel.org" in done.stdout, path


@pytest.mark.parametrize("base", BASES)
def test_what_maintainers_names_is_there_and_in_order(base: str, applied: Applied) -> None:
    repo, _tree, patches = applied(base)
    diff = git(repo, "diff", f"HEAD~{len(patches)}", "HEAD", "--", "MAINTAINERS")
    ours = re.findall(r"(?m)^\+F:\t(.+)$", diff)
    assert ours
    text = (repo / "MAINTAINERS").read_text(encoding="utf-8")
    for pattern in ours:
        assert list(repo.glob(pattern)), pattern
        before, _line, after = text.partition(f"F:\t{pattern}\n")
        # Some sections are in no order upstream either; but ours is not out of place in any.
        neighbours = [re.findall(r"F:\t(.+)\n\Z", before), re.findall(r"\AF:\t(.+)\n", after)]
        for side, name in zip("<>", neighbours):
            if name and name[0] in ours:
                assert (name[0] < pattern) == (side == "<"), pattern


# ---- a tree that is near -------------------------------------------------------------------


def near(repo: Path, base: str, version: str) -> Source:
    return Source(load(base), version, {}, "k", repo)


@pytest.mark.parametrize("base", BASES)
def test_a_tree_that_is_near_takes_it(base: str, pristine: Callable[[str], tuple[Path, Path]],
                                      tmp_path: Path) -> None:
    repo, _tree = pristine(base)
    copy = shutil.copytree(repo, tmp_path / "w" / "linux")
    path = copy / SELFTESTS / "mm" / "Makefile"
    path.write_text("# a line more\n" + path.read_text())
    series.check(near(copy, base, "7.3-next"))


@pytest.mark.parametrize("base", BASES)
def test_one_that_is_not_is_told_where(base: str, pristine: Callable[[str], tuple[Path, Path]],
                                       tmp_path: Path) -> None:
    repo, _tree = pristine(base)
    copy = shutil.copytree(repo, tmp_path / "w" / "linux")
    path = copy / SELFTESTS / "mm" / "run_vmtests.sh"
    path.write_text(path.read_text().replace('CATEGORY="migration"', 'CATEGORY="moving"'))
    with pytest.raises(LabError, match=r"upstream/000\d-\S+-add-hugetlb_pmd_migrate\.patch "
                                       r"does not apply to 7\.4\.0 at \S+/run_vmtests\.sh, hunk 2 "
                                       r"of 2 \(line \d+\), nor does its reverse"):
        series.check(near(copy, base, "7.4.0"))


def test_one_that_has_it_is_told_so(applied: Applied, tmp_path: Path) -> None:
    repo, _tree, patches = applied("7.3")
    copy = shutil.copytree(repo, tmp_path / "w" / "linux")
    git(copy, "checkout", "-q", f"HEAD~{len(patches) - 1}")
    with pytest.raises(LabError, match=r"7\.3/0001-\S+ does not apply to 7\.4\.0 at .*: its "
                                       r"reverse does, so this tree has it already"):
        series.check(near(copy, "7.3", "7.4.0"))


def test_one_that_has_the_first_test_is_told_so(applied: Applied, tmp_path: Path) -> None:
    """And not what mends the kernel, which comes before it."""
    repo, _tree, patches = applied("7.3")
    copy = shutil.copytree(repo, tmp_path / "w" / "linux")
    queue = len(variant.series("7.3"))
    git(copy, "checkout", "-q", f"HEAD~{len(patches) - queue - 1}")
    git(copy, "checkout", "-q", "-b", "vendor")
    git(copy, "revert", "--no-edit", *(f"HEAD~{number}" for number in range(1, queue + 1)))
    with pytest.raises(LabError, match=r"upstream/0001-\S+ does not apply to 7\.4\.0 at .*: its "
                                       r"reverse does, so this tree has it already"):
        series.check(near(copy, "7.3", "7.4.0"))


# ---- what is wrong in the room -------------------------------------------------------------


@pytest.fixture
def room(tmp_path: Path) -> Path:
    """A small one that is right."""
    (tmp_path / "one").mkdir()
    (tmp_path / "order").write_text("one\n")
    (tmp_path / "date").write_text("Sat, 21 Nov 2026 15:00:00 +0000\n")
    (tmp_path / "one" / "message").write_text("mm: add a line\n\nIt was missing.\n")
    (tmp_path / "one" / "files").write_text("COPYING\n")
    (tmp_path / "one" / "7.3.diff").write_text(
        "diff --git a/a b/a\nindex 1..2 100644\n--- a/a\n+++ b/a\n@@ -1 +1,2 @@\n 1\n+2\n")
    return tmp_path


def test_a_small_one(room: Path) -> None:
    assert upstream.names(room) == ["7.3"]
    [(name, mail)] = upstream.patches("7.3", room)
    assert name == "0001-mm-add-a-line.patch"
    data = (REPO / "COPYING").read_bytes()
    blob = hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()[:12]
    assert f"\nnew file mode 100644\nindex {'0' * 12}..{blob}\n" in mail
    assert mail.index("b/COPYING\n") < mail.index("b/a\n")
    assert "\n---\n" in mail and " create mode 100644 COPYING\n" in mail
    assert upstream.patches("6.12", room) == []


def test_a_file_for_many_versions_is_added_for_one(room: Path, monkeypatch: pytest.MonkeyPatch
                                                   ) -> None:
    repo = room / "repo"
    repo.mkdir()
    monkeypatch.setattr(upstream, "REPO", repo)
    (repo / "COPYING").write_text("""\
#ifndef IN_TREE
#define SINCE_6_6 asks
#endif
#if SINCE_6_6
new
#else
old
#endif

#if !SINCE_7_10
not yet
#endif
""")
    [(_name, mail)] = upstream.patches("7.3", room)
    assert "@@ -0,0 +1,3 @@\n+new\n+\n+not yet\n" in mail
    data = b"new\n\nnot yet\n"
    assert hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()[:12] in mail
    (repo / "COPYING").write_text("#ifndef IN_TREE\n")
    with pytest.raises(LabError, match="unifdef failed on COPYING: .*EOF"):
        upstream.patches("7.3", room)
    monkeypatch.setenv("PATH", "/nonexistent")
    with pytest.raises(LabError, match="apt install unifdef"):
        upstream.patches("7.3", room)


def test_a_diff_for_all_other_bases(room: Path) -> None:
    (room / "one" / "6.12.diff").write_text((room / "one" / "7.3.diff").read_text())
    (room / "one" / "7.3.diff").rename(room / "one" / "edits.diff")
    assert upstream.names(room) == ["6.12"]
    assert len(upstream.patches("6.12", room)) == 1


def test_what_has_no_diff_for_a_base_is_not_in_its_series(room: Path) -> None:
    shutil.copytree(room / "one", room / "two")
    (room / "two" / "files").unlink()
    (room / "two" / "7.3.diff").rename(room / "two" / "6.12.diff")
    (room / "order").write_text("one\ntwo\n")
    assert len(upstream.patches("7.3", room)) == len(upstream.patches("6.12", room)) == 1


@pytest.mark.parametrize("path, text, reason", [
    ("one/message", "mm: no changelog\n", "a subject on one line, an empty line and a changelog"),
    ("one/message", "mm: two\nlines\n\nText.\n", "a subject on one line"),
    ("one/files", "no/such/file\n", "names no/such/file, and there is no such file"),
    ("one/files", "../x\n", "outside the repository: ../x"),
    ("one/files", "COPYING a\n", "a is in `files` and in a diff"),
    ("one/7.3.diff", "--- a/a\n+++ b/a\n", "is wanted"),
    ("order", "one\ntwo\n", "two/message is missing"),
])
def test_what_is_wrong_is_told_in_one_line(room: Path, path: str, text: str, reason: str) -> None:
    (room / path).write_text(text)
    with pytest.raises(LabError, match=re.escape(reason)) as caught:
        upstream.patches("7.3", room)
    assert "\n" not in str(caught.value)


# ---- it builds -----------------------------------------------------------------------------


def _complete(repo: Path, tree: Path) -> None:
    """Add what the mm selftests are built with, but for what the series brings or changes."""
    for part in (f"{SELFTESTS}/mm", f"{SELFTESTS}/x86/check_cc.sh", f"{SELFTESTS}/lib.mk",
                 f"{SELFTESTS}/kselftest.h", f"{SELFTESTS}/kselftest_harness.h",
                 "tools/include/uapi", "tools/arch/x86/include/uapi", "mm/gup_test.h"):
        found = [tree / part] if (tree / part).is_file() else (tree / part).rglob("*")
        for path in found:
            name = str(path.relative_to(tree))
            dest = repo / name
            if path.is_file() and not dest.exists() and not (REPO / name).exists():
                dest.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(path, dest)


@pytest.mark.parametrize("base", BASES)
def test_each_step_builds_its_selftest(base: str, pristine: Callable[[str], tuple[Path, Path]],
                                       tmp_path: Path) -> None:
    """With the folder's Makefile as the patch leaves it, dynamically linked, without a warning."""
    repo, tree = pristine(base)
    patches = series.write(base, tmp_path / "mails").patches
    _complete(repo, tree)
    out = tmp_path / "out"
    out.mkdir()
    built = []
    for patch in patches:
        git(repo, "am", "-q", patch)
        added = git(repo, "diff", "--name-only", "--diff-filter=A", "HEAD~").split()
        tests = [Path(path).stem for path in added
                 if path.startswith(f"{SELFTESTS}/mm/") and Path(path).stem in selftest.names()]
        if not tests:
            continue
        done = subprocess.run(["make", "-C", repo / SELFTESTS / "mm", f"OUTPUT={out}",
                               "ARCH=x86_64", "USERCFLAGS=-Werror",
                               *(str(out / name) for name in tests)],
                              text=True, capture_output=True, check=False)
        assert done.returncode == 0, f"{patch.name}\n{done.stdout}{done.stderr}"
        built += tests
        listed = subprocess.run(["make", "-s", "-C", repo / SELFTESTS / "mm", f"OUTPUT={out}",
                                 "ARCH=x86", "--eval=ours: ; @echo $(TEST_GEN_FILES)", "ours"],
                                text=True, capture_output=True, check=True).stdout
        # `make kselftest` at the top says x86.
        assert {str(out / name) for name in built} <= set(listed.split())
        script = (repo / SELFTESTS / "mm" / "run_vmtests.sh").read_text()
        for name in built:
            assert re.search(rf"\b{name}\b", script)
    assert sorted(built) == [name for name in selftest.names() if name not in LATER]
