# SPDX-License-Identifier: GPL-2.0
"""queue/tests/: the patches that add the tests and the document, as one would send them."""

import functools
import hashlib
import re
import shutil
import subprocess
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from fnmatch import fnmatchcase
from pathlib import Path

import pytest
from conftest import FULL, LATER, OF_FLUSH, debian_files, make, taken
from test_series import too_wide
from trees import git, repository

from lab import arch, defect
from lab.base import load
from lab.errors import LabError
from lab.guest import selftest
from lab.kernel import testseries, unmapped, variant
from lab.kernel.source import Source
from lab.paths import REPO
from lab.tell import rst
from lab.verbs import kselftest, mailing, series

ROOM = testseries.ROOM
BASES = testseries.names()
NEWEST = "7.3"
# get_maintainer.pl reads all of MAINTAINERS for each file that it is asked about.
ASKED = [pytest.param(base, marks=pytest.mark.skipif(
    base != NEWEST and not FULL, reason="asks MAINTAINERS of an older kernel: with FULL=1"))
    for base in BASES]
NAMES = [name for name, _part in testseries.listed()]
# As they are kept: for all bases, and those of one.
STORED = sorted(ROOM.rglob("*.patch"))
# What a kernel gets of the repository: all files below these.
IN_TREE = ("Documentation/mm", "include", "lib", "mm", "tools/testing/selftests")
SELFTESTS = "tools/testing/selftests"
# What a file for many versions says, or one that asks for a macro that some have.
MANY = rb"IN_TREE|(?m:^#ifn?def (?:VM_UFFD_RWP|pgtable_supports_soft_dirty)$)"
# Sections of MAINTAINERS, and the tests that are for those of migration.  The other ones of hugetlb
# are about how its page tables are shared, or about what it does on its own.
MIGRATION = "MEMORY MANAGEMENT - MIGRATION"
THP = "MEMORY MANAGEMENT - THP (TRANSPARENT HUGE PAGE)"
MIGRATES = ("exec_temp_stack", "hugetlb_pmd_migrate", "hugetlb_pmd_move_all", "hugetlb_pmd_poison",
            "migrate_cgroup", "migrate_compaction", "migrate_crew", "migrate_damon",
            "migrate_eject", "migrate_flush_pending", "migrate_guard", "migrate_hugetlb",
            "migrate_journal", "migrate_kinds", "migrate_kvm", "migrate_loop", "migrate_lost_write",
            "migrate_memory", "migrate_mount", "migrate_notifier", "migrate_page",
            "migrate_pinned_write", "migrate_poison", "migrate_qmp", "migrate_race",
            "migrate_round", "migrate_thp", "migrate_tiers", "migrate_timeline", "migrate_triggers",
            "migrate_util", "migrate_virtio_mem", "migrate_writers", "thp_cow_isolation",
            "thp_numa_notifier")


def where(patch: Path) -> str:
    return str(patch.relative_to(ROOM))


def message(patch: Path) -> tuple[str, str]:
    """Subject and changelog of a patch as it is kept, with the figures that it asks for."""
    head, rest = series.recorded(patch.read_text(encoding="utf-8"), patch.name).split("\n\n", 1)
    return series.subjects([head + "\n\n"])[0], rest.split("\n---\n", 1)[0]


def edits(patch: Path) -> str:
    """The diff of a patch as it is kept, without the files that it adds whole."""
    return "".join(re.findall(r"(?ms)^diff --git .*", patch.read_text(encoding="utf-8")))


def touched(base: str) -> list[str]:
    """The files of the kernel itself that the series changes, what fixes it included."""
    diffs = [edits(path) for path in [*variant.series(base), *testseries.files(base)]]
    return sorted({path for diff in diffs for path in re.findall(r"(?m)^--- a/(\S+)$", diff)})


# ---- the room ------------------------------------------------------------------------------


def test_there_is_mainline_and_what_the_lab_builds_with() -> None:
    assert {"7.3", selftest.BASE} <= set(BASES)


def test_the_series_names_just_what_is_there() -> None:
    assert set(NAMES) == {path.name for path in STORED}
    assert [name[:5] for name in NAMES] == [f"{number:04}-" for number in
                                            range(1, len(NAMES) + 1)]
    parts = [mailing.FIXES, *testseries.parts()]
    assert sorted(path.name for path in ROOM.iterdir() if path.suffix != ".patch"
                  and not path.name.startswith("changes.")) == \
        sorted([*BASES, "config", "cover-letter", "series",
                *(f"cover-letter.{part}" for part in parts)])
    # For all bases, for those that say so, or for all but these; but not for nobody.
    for name in NAMES:
        own = {path.parent.name for path in ROOM.glob(f"*/{name}")}
        assert not (ROOM / name).exists() or own != set(BASES), name


def test_it_is_no_form_of_the_fix(tmp_path: Path) -> None:
    """And no base: what FORM= and BASE= offer is another thing."""
    for words, reason in ((["BASE=7.3", "FORM=tests"], "FORM=tests: there is no queue/7.3/series."),
                          (["BASE=tests"], "no series for tests: there are 2.6.34, ")):
        done = make("series", *words, f"O={tmp_path}/s")
        assert done.returncode != 0 and done.stderr.startswith(f"error: {reason}")
        assert not (tmp_path / "s").exists()


def test_what_is_kept_for_each_base_says_the_same() -> None:
    """Only the lines around it are others."""
    for name in NAMES:
        found = [(message(path), testseries.adds(path)) for path in STORED if path.name == name]
        assert not found or found.count(found[0]) == len(found), name


def test_what_could_be_for_all_bases_is() -> None:
    """The same patch is not kept once for each."""
    for name in NAMES:
        diffs = [re.sub(r"(?m)^@@ .*$", "@@", edits(path)) for path in STORED if path.name == name]
        assert len(set(diffs)) == len(diffs), name


def test_each_file_for_a_kernel_is_added_once() -> None:
    here = sorted(str(path.relative_to(REPO)) for folder in IN_TREE
                  for path in (REPO / folder).rglob("*")
                  if path.is_file() and (path.suffix in (".c", ".h", ".rst", ".sh")
                                         or path.name == ".kunitconfig"))
    # What is sent by itself.
    apart = {path for base in unmapped.names() for patch in testseries.files(base, unmapped.ROOM)
             if unmapped.ROOM in patch.parents for path in testseries.adds(patch)}
    for base in BASES:
        assert sorted(path for patch in testseries.files(base)
                      for path in testseries.adds(patch)) == \
            [path for path in here
             if Path(path).stem not in (*LATER, *OF_FLUSH) and path not in apart]


@pytest.mark.parametrize("name", LATER)
def test_what_comes_later_fails_on_what_is_sent_now(name: str) -> None:
    """No usual series fixes what it shows, and another form of the newest one does."""
    assert name in selftest.names()
    shown = [one for one in map(defect.load, defect.names()) if name in one.show.selftests]
    assert shown
    for one in shown:
        assert not any(variant.mending(variant.series(base), one) for base in BASES)
        assert variant.mending(variant.series("7.3", "series.flush"), one)


@pytest.mark.parametrize("patch", STORED, ids=where)
class TestPatch:
    """One patch as it is kept."""

    def test_it_is_a_mail(self, patch: Path) -> None:
        head = patch.read_text(encoding="utf-8").split("\n\n", 1)[0]
        assert re.fullmatch(r"From 0{40} Mon Sep 17 00:00:00 2001\nFrom: \S.* <\S+@\S+>\n"
                            r"Date: \w{3}, .+\nSubject: \[PATCH\] \S.*(\n \S.*)?", head)

    def test_its_name_is_its_subject(self, patch: Path) -> None:
        words = re.sub(r"[^\w.]+", "-", message(patch)[0], flags=re.ASCII).strip("-.")
        assert patch.stem == f"{patch.name[:4]}-{words}"[:57].rstrip("-.")

    def test_it_reads_well_in_a_log(self, patch: Path) -> None:
        subject, log = message(patch)
        assert re.match(r"[\w/]+(: [\w/]+)*: [a-z]", subject) and len(subject) <= 75
        assert not subject.endswith(".")
        assert len(log.split()) > 30
        # checkpatch wants the title of a commit on two lines, and takes 75 columns.  A Fixes: line
        # is one line, however long.
        for line in log.splitlines():
            assert len(line) <= (75 if re.match(r"commit [0-9a-f]{12} ", line) else 72) or \
                re.fullmatch(r'Fixes: [0-9a-f]{12} \(".+"\)', line), line

    def test_it_has_nothing_that_the_sender_adds(self, patch: Path) -> None:
        assert not re.search(r"(?im)^\s*[\w-]+-by:|^diff |\|\s+\d+ \+", message(patch)[1])

    def test_what_it_says_was_seen_is_on_record(self, patch: Path) -> None:
        """Each `n of m` is in a record, or in what is written about them."""
        records = " ".join([(REPO / "Documentation/proofs/index.rst").read_text(encoding="utf-8"),
                            *rst.pages().values()])
        for figure in re.findall(r"\b\d+ of \d+\b", " ".join(message(patch)[1].split())):
            assert figure in records

    def test_nothing_in_it_depends_on_the_patches_before(self, patch: Path) -> None:
        """No hash of a file, which an edit to an earlier patch would make another."""
        assert not re.search(r"(?m)^index |^new file", edits(patch))
        # GNU patch takes a hunk with less context on one side for one at the end of the file.
        for hunk in re.split(r"(?m)^@@ .*\n", edits(patch))[1:]:
            lines = re.match(r"(?m)(?:^[-+ ].*\n)+", hunk)
            assert lines
            kinds = "".join(line[0] for line in lines[0].splitlines())
            first, last = (len(side) - len(side.lstrip(" ")) for side in (kinds, kinds[::-1]))
            assert first == last or last < 3 and patch.parent != ROOM, patch


# ---- the mails -----------------------------------------------------------------------------


@pytest.mark.parametrize("base", BASES)
def test_it_is_the_same_each_time(base: str, tmp_path: Path) -> None:
    for name in ("one", "two"):
        assert make("series", f"BASE={base}", f"O={tmp_path / name}").returncode == 0
    files = [path for path in (tmp_path / "one").rglob("*") if path.is_file()]
    for path in files:
        assert path.read_bytes() == \
            (tmp_path / "two" / path.relative_to(tmp_path / "one")).read_bytes()
    assert len(files) == \
        len(variant.series(base)) + len(testseries.patches(base)) + 1 + len(series.reports(base))


def test_mainline_is_not_named_in_the_subject(tmp_path: Path) -> None:
    newest = series.write("7.3", tmp_path / "new").patches[0].read_text()
    older = series.write("6.12", tmp_path / "old").patches[0].read_text()
    total = len(variant.series("7.3")) + len(testseries.patches("7.3"))
    assert f"\nSubject: [PATCH 01/{total}] " in newest
    assert "\nSubject: [PATCH 6.12.y 01/" in older


@pytest.mark.parametrize("base", BASES)
def test_the_cover_letter(base: str, tmp_path: Path) -> None:
    made = series.write(base, tmp_path)
    assert made.cover
    text = made.cover.read_text(encoding="utf-8")
    assert not re.search(r"[{}]", text), "a placeholder is left"
    assert too_wide(text) == []
    said = " ".join(text.split())
    mails = [path.read_text(encoding="utf-8") for path in variant.series(base)]
    # It says what these are about.  Mainline has one of the older ones, and 6.12 lacks the bug of
    # another.
    assert "first seventeen patches" in said and len(mails) == 17
    assert "move_pages()" in series.subjects(mails)[0]
    assert "private mapping" in series.subjects(mails)[1] and "private mapping" in said
    assert "needs its lock" in series.subjects(mails)[2] and "without its lock" in said
    assert "look at the size" in series.subjects(mails)[3]
    assert "wait for page faults" in series.subjects(mails)[4] and "truncation leaves" in said
    assert "private copies" in series.subjects(mails)[5]
    assert "only PMD tables" in series.subjects(mails)[6] and "pages of 1 GiB" in said
    assert "mremap()" in series.subjects(mails)[7] and "mremap()" in said
    assert "flags and entries" in series.subjects(mails)[8] and "mprotect()" in said
    assert "without i_mmap_rwsem" in series.subjects(mails)[9] and "a memory error" in said
    assert "UFFDIO_POISON" in series.subjects(mails)[10] and "UFFDIO_POISON poisons" in said
    assert "4 GiB" in series.subjects(mails)[11] and "4 GiB of huge pages" in said
    rest = " ".join(series.subjects(mails)[12:])
    assert ("a private mapping locked" in said) == ("who has locked" in rest) == (base != NEWEST)
    assert ("memfd_pin_folios()" in said) == ("memfd" in rest) == (base == NEWEST)
    assert "mmu_gather" in rest and "pages of 16 KiB" in said
    assert rest.count("hugetlbfs") == 3 and "can miss who maps it" in said
    mails += [mail for _name, mail in testseries.patches(base)]
    for number, subject in enumerate(series.subjects(mails), 1):
        assert re.search(rf"(?m)^ +{number}\. {re.escape(subject)}$", text), subject
    assert max(map(len, text.splitlines())) <= 80
    assert "pmd-share lab <lab@invalid>" in text and "-by:" not in text


def test_a_queue_is_still_written(tmp_path: Path) -> None:
    names = [path.name for path in series.write("4.14", tmp_path).patches]
    assert names == [path.name for path in variant.series("4.14")]


def test_its_options_are_read_as_all_are(tmp_path: Path) -> None:
    source = Source(load("7.3"), "7.3.1", {}, "k", tmp_path / "tree")
    (tmp_path / "config").write_text("# Why.\nCONFIG_A=y\n# CONFIG_B is not set\nCONFIG_C=4\n")
    assert testseries.options(source, arch.load(), tmp_path) == \
        ("CONFIG_A=y", "# CONFIG_B is not set", "CONFIG_C=4")
    (tmp_path / "config").write_text("CONFIG_A\n")
    with pytest.raises(LabError, match="config:1: neither an option nor a comment: CONFIG_A"):
        testseries.options(source, arch.load(), tmp_path)


# ---- on the released sources ---------------------------------------------------------------


# What tests ask for and mm's config does not, and why.
NOT_IN_CONFIG = {
    "BLK_DEV_LOOP": "the changelog says so", "FAILSLAB": "the changelog says so",
    "FAIL_PAGE_ALLOC": "the changelog says so",
    "KVM": "the changelog says so",
    "FAULT_INJECTION_DEBUG_FS": "goes with it", "CROSS_MEMORY_ATTACH": "the default",
    "SCHED_DEBUG": "the default, and gone since 6.15", "DEBUG_VM_UNMAPPED": "another series",
    "HUGETLB_PMD_PAGE_TABLE_SHARING": "no prompt"}
# Without the second the first is left out, without a word.
NEEDS = {"MEMORY_HOTREMOVE": "MEMORY_HOTPLUG", "ACPI_HOTPLUG_MEMORY": "MEMORY_HOTPLUG",
         "VIRTIO_MEM": "MEMORY_HOTREMOVE", "HWPOISON_INJECT": "DEBUG_FS",
         "CMA_DEBUGFS": "DEBUG_FS", "CPUSETS": "CGROUPS", "DAMON_PADDR": "DAMON",
         "DAMON_SYSFS": "DAMON", "DMA_CMA": "CMA"}


@pytest.mark.parametrize("base", BASES)
def test_the_config_asks_for_what_the_tests_need(base: str) -> None:
    """A test says what it needs where it skips."""
    config = f"{SELFTESTS}/mm/config"
    diffs = "".join(edits(path) for path in testseries.files(base))
    asked = set(re.findall(r"(?m)^\+?CONFIG_(\w+)=[my]$", "".join(
        [(debian_files(base) / config).read_text(encoding="utf-8"),
         *re.findall(rf"(?ms)^diff --git a/{config} .*?(?=^diff |\Z)", diffs)])))
    needed = set(re.findall(r"\bCONFIG_(\w+)", "".join(
        path.read_text(encoding="utf-8") for path in (REPO / SELFTESTS / "mm").glob("*.[ch]"))))
    assert needed - asked == set(NOT_IN_CONFIG)
    assert {one for one in asked & set(NEEDS) if NEEDS[one] not in asked} == set()


@pytest.fixture(scope="module")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], tuple[Path, Path]]:
    """Per base: a repository of the files that the series touches, and the released files."""
    made: dict[str, tuple[Path, Path]] = {}

    def get(base: str) -> tuple[Path, Path]:
        if base not in made:
            tree = debian_files(base)
            repo = repository(tree, tmp_path_factory.mktemp(f"linux-{base}"),
                              [*touched(base), "MAINTAINERS"])
            git(repo, "tag", "released")
            made[base] = (repo, tree)
        repo, tree = made[base]
        at(repo, "released")
        return repo, tree

    return get


def at(repo: Path, commit: str) -> None:
    """Bring a repository there, whatever a test has made of it."""
    git(repo, "checkout", "-q", "-f", "-B", "series", commit)
    git(repo, "clean", "-q", "-f", "-d", "-x")


@pytest.fixture(scope="module")
def applied(pristine: Callable[[str], tuple[Path, Path]], tmp_path_factory: pytest.TempPathFactory
            ) -> Callable[[str], tuple[Path, Path, tuple[Path, ...]]]:
    """Per base: that repository with the series applied, the released files, and the patches."""
    made: dict[str, tuple[Path, ...]] = {}

    def get(base: str) -> tuple[Path, Path, tuple[Path, ...]]:
        repo, tree = pristine(base)
        if base not in made:
            patches = series.write(base, tmp_path_factory.mktemp(f"mails-{base}")).patches
            git(repo, "am", "-q", "-s", *patches)
            git(repo, "tag", "applied")
            made[base] = patches
        at(repo, "applied")
        return repo, tree, made[base]

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
    assert added == sorted(path for patch in testseries.files(base)
                           for path in testseries.adds(patch))
    for path in added:
        whole, data = (REPO / path).read_bytes(), (repo / path).read_bytes()
        if not re.search(MANY, whole):
            assert data == whole
        else:
            # For one version: nothing new, and no question of which.
            assert set(data.split(b"\n")) < set(whole.split(b"\n"))
            assert not re.search(MANY + rb"|SINCE_|LINUX_VERSION|version\.h", data)
    assert sorted(line.split("\t")[1] for line in changed if line[0] == "M") == touched(base)


@pytest.mark.parametrize("base", BASES)
def test_each_series_of_selftests_has_its_category(base: str, applied: Applied) -> None:
    """run_vmtests.sh runs what tests hugetlb alone with the kernel's own tests of it."""
    repo, _tree, _patches = applied(base)
    text = (repo / SELFTESTS / "mm/run_vmtests.sh").read_text(encoding="utf-8")
    found = {category: set(names.replace("\\", " ").split()) for names, category in re.findall(
        r'(?m)^for test in ([^;]+); do\n.*\n\t\tCATEGORY="(\w+)" run_test', text)}
    tests = {part: {Path(path).stem for patch in testseries.files(base, part=part)
                    for path in testseries.adds(patch)} & set(selftest.names())
             for part in testseries.parts()}
    assert found == {"migration": tests["selftests"] | tests["device"],
                     "hugetlb": tests["hugetlb"]}
    assert set(found) == set(kselftest.CATEGORIES)


def test_the_letter_counts_the_kunit_cases() -> None:
    text = (REPO / "mm/tests/hugetlb_pmd_share_kunit.c").read_text(encoding="utf-8")
    number = len(re.findall(r"(?m)^\tKUNIT_CASE", text))
    assert f" in {number} cases," in (ROOM / "cover-letter.kunit").read_text(encoding="utf-8")


def places(text: str, hunk: str) -> int:
    """In how many places of a file a hunk could go."""
    old = [line[1:] for line in hunk.splitlines() if line[:1] in " -"]
    lines = text.splitlines()
    return sum(lines[at:at + len(old)] == old for at in range(len(lines) - len(old) + 1))


@pytest.mark.parametrize("base", BASES)
def test_each_diff_fits_without_fuzz(base: str, pristine: Callable[[str], tuple[Path, Path]]
                                     ) -> None:
    """Those that mend the kernel to the line, and their index lines are right: they were made from
    these very files.  The others come after them, and some are for all bases: a hunk of theirs
    may be some lines off, and then there is one place alone where it can go.
    """
    repo, _tree = pristine(base)
    for patch in [*variant.series(base), *testseries.files(base)]:
        diff, mends = edits(patch), patch.parent.name == base and patch.parent.parent != ROOM
        for path, old in re.findall(
                r"(?m)^diff --git a/(\S+) .*\nindex ([0-9a-f]+)\.\.[0-9a-f]+", diff):
            assert git(repo, "hash-object", path).startswith(old), (patch, path)
        if not diff:
            continue
        for part in re.split(r"(?m)^(?=diff --git )", diff)[1:]:
            path = re.findall(r"(?m)^--- a/(.+)$", part)[0]
            text = (repo / path).read_text(encoding="utf-8")
            file = repo / ".git" / "edits"
            file.write_text(part)
            done = subprocess.run(["git", "apply", "--verbose", file], cwd=repo, text=True,
                                  capture_output=True, check=False)
            assert done.returncode == 0, (patch, done.stderr)
            if "offset" not in done.stderr:
                continue
            assert not mends, (patch, done.stderr)
            for hunk in re.split(r"(?m)^@@ .*\n", part)[1:]:
                assert places(text, hunk) == 1, (patch, hunk)
        for path, new in re.findall(
                r"(?m)^diff --git a/(\S+) .*\nindex [0-9a-f]+\.\.([0-9a-f]+)", diff):
            assert git(repo, "hash-object", path).startswith(new), (patch, path)


@pytest.mark.parametrize("base", BASES)
def test_checkpatch_has_nothing_to_say(base: str, applied: Applied, tmp_path: Path) -> None:
    """With the newest checkpatch.pl of all, with an older one of what is for that base alone."""
    _repo, tree, patches = applied(base)
    kept = [*variant.series(base), *testseries.files(base)]
    assert len(kept) == len(patches)
    if base != NEWEST and not FULL:
        patches = tuple(patch for patch, file in zip(patches, kept) if file.parent != ROOM)

    def said(patch: Path) -> str:
        # There is no history here to find the commits in that a changelog names.
        done = subprocess.run(
            ["perl", tree / "scripts/checkpatch.pl", "--no-tree", "--strict", "--terse",
             "--no-summary", "--no-signoff", "--ignore",
             # The other one takes a pointer on the stack for a lock that needs a comment.
             "UNKNOWN_COMMIT_ID,UNCOMMENTED_DEFINITION", patch],
            cwd=tmp_path, text=True, capture_output=True, check=False)
        # It asks this of a patch that leaves MAINTAINERS as it is.  That the files are in the
        # right sections all the same is tested below.
        asks = r"\S+: WARNING: added, .+, does MAINTAINERS need updating\?\n"
        return re.sub(asks, "", done.stdout + done.stderr)

    # It has one thread.
    with ThreadPoolExecutor(max_workers=2) as pool:
        assert "".join(pool.map(said, patches)) == ""


def maintainers(repo: Path, tree: Path, *words: str) -> str:
    """What get_maintainer.pl prints of a file."""
    done = subprocess.run(
        ["perl", tree / "scripts/get_maintainer.pl", "--no-git", "--no-git-fallback",
         "--no-tree", "--no-rolestats", *words],
        cwd=repo, text=True, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def sections(repo: Path, tree: Path, path: str) -> dict[str, str]:
    """The sections of MAINTAINERS that a file is in, and what they say."""
    said = maintainers(repo, tree, "--sections", "-f", path)
    found = re.split(r"(?m)^(?![A-Z]:\t)(.+)\n(?=[A-Z]:\t)", said)[1:]
    return dict(zip(found[::2], found[1::2]))


@pytest.fixture(scope="module")
def added(applied: Applied) -> Callable[[str], dict[str, dict[str, str]]]:
    """Per base: the sections of each file that a patch adds, with the tree as it is after that one.

    Who bisects may ask get_maintainer.pl, too.  It reads all of MAINTAINERS each time.
    """
    @functools.cache
    def get(base: str) -> dict[str, dict[str, str]]:
        repo, tree, patches = applied(base)
        found = {}
        for number in reversed(range(len(patches))):
            git(repo, "checkout", "-q", f"series~{number}")
            paths = git(repo, "diff", "--name-only", "--diff-filter=A", "HEAD~").split()
            with ThreadPoolExecutor(max_workers=2) as pool:
                found |= dict(zip(paths, pool.map(lambda path: sections(repo, tree, path), paths)))
        return found

    return get


@pytest.mark.parametrize("base", ASKED)
def test_every_new_file_has_a_list(base: str, added: Callable[[str], dict[str, dict[str, str]]]
                                   ) -> None:
    """In the newest kernel's; with FULL=1 also in the older one's, of which else only the order
    of the lines and the files that they name are looked at."""
    assert added(base)
    for path, found in added(base).items():
        lists = re.findall(r"(?m)^L:\t(\S+)", "".join(found.values()))
        assert "linux-mm@kvack.org" in lists, path
        if path.startswith(SELFTESTS):
            assert "linux-kselftest@vger.kernel.org" in lists, path


def test_what_is_said_of_lists_is_what_mails_go_to(applied: Applied) -> None:
    """That of one file: to ask it for each takes long."""
    repo, tree, _patches = applied(NEWEST)
    path = f"{SELFTESTS}/mm/hugetlb_pmd_migrate.c"
    said = "".join(sections(repo, tree, path).values())
    lists = set(re.findall(r"(?m)^L:\t(\S+)", said))
    assert len(lists) > 2 and lists == {
        re.findall(r"\S+@\S+", line)[0]
        for line in maintainers(repo, tree, "--no-m", "--no-r", "-f", path).splitlines()}


@pytest.mark.parametrize("base", ASKED)
def test_every_selftest_goes_to_those_who_know_its_subject(
        base: str, applied: Applied, added: Callable[[str], dict[str, dict[str, str]]]) -> None:
    """The reviewers of hugetlb for all that is about hugetlb, at the step that adds it.  FULL=1
    asks the older kernel, too."""
    files = added(base)
    repo, _tree, _patches = applied(base)
    has = re.findall(r"(?m)^MEMORY MANAGEMENT - (\w+)", (repo / "MAINTAINERS").read_text())
    # All of it is in one section in older kernels.
    assert {"MIGRATION", "THP"} <= set(has) or not has
    for path, found in files.items():
        if not path.startswith(SELFTESTS):
            continue
        name = Path(path).stem
        assert ("HUGETLB SUBSYSTEM" in found) == name.startswith("hugetlb"), path
        if has:
            assert (MIGRATION in found) == (name in MIGRATES), path
            assert (THP in found) == name.startswith("thp"), path


@pytest.mark.parametrize("base", ASKED)
def test_one_more_test_of_shared_tables_needs_no_line(base: str, applied: Applied) -> None:
    """FULL=1 asks the older kernel, too."""
    repo, tree, _patches = applied(base)
    for name in (*LATER, "hugetlb_pmd_new"):
        path = f"{SELFTESTS}/mm/{name}.c"
        assert not (repo / path).exists()
        (repo / path).touch()
        assert "HUGETLB SUBSYSTEM" in sections(repo, tree, path), path


@pytest.mark.parametrize("base", BASES)
def test_what_maintainers_names_is_there_and_in_order(base: str, applied: Applied) -> None:
    repo, _tree, patches = applied(base)
    diff = git(repo, "diff", f"HEAD~{len(patches)}", "HEAD", "--", "MAINTAINERS")
    ours = set(re.findall(r"(?m)^\+F:\t(.+)$", diff))
    assert ours
    seen = 0
    for section in re.split(r"\n\n+", (repo / "MAINTAINERS").read_text(encoding="utf-8")):
        names = re.findall(r"(?m)^F:\t(.+)$", section)
        for at, pattern in enumerate(names):
            if pattern not in ours:
                continue
            seen += 1
            assert list(repo.glob(pattern)), pattern
            # Some sections are in no order upstream either; but ours is not out of place in any.
            around = names[max(at - 1, 0):at + 2]
            assert around == sorted(around), around
            # And it says nothing that another line of the section says.
            for other in names[:at] + names[at + 1:]:
                assert not fnmatchcase(pattern, f"{other}*" if other.endswith("/") else other), (
                    pattern, other)
    assert seen == len(re.findall(r"(?m)^\+F:", diff))


# ---- a tree that is near -------------------------------------------------------------------


def near(repo: Path, base: str, version: str) -> Source:
    return taken(Source(load(base), version, {}, "k", repo), repo.parent / "work")


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
    with pytest.raises(LabError, match=r"tests/000\d-\S+-add-hugetlb_pmd_migrate\.patch "
                                       r"does not apply to 7\.4\.0 at \S+/run_vmtests\.sh, hunk 2 "
                                       r"of 2 \(line \d+\), nor does its reverse"):
        series.check(near(copy, base, "7.4.0"))


def test_what_a_tree_has_is_left_out(applied: Applied, tmp_path: Path) -> None:
    repo, _tree, patches = applied("7.3")
    copy = shutil.copytree(repo, tmp_path / "w" / "linux")
    git(copy, "checkout", "-q", f"HEAD~{len(patches) - 1}")
    wanted, have = series.check(near(copy, "7.3", "7.4.0"))
    assert have == [variant.series("7.3")[0].name] and have[0] not in wanted
    assert len(wanted) == len(patches) - 1


def test_the_first_test_of_a_tree_is_left_out(applied: Applied, tmp_path: Path) -> None:
    """And not the fixes of the kernel, which come before it."""
    repo, _tree, patches = applied("7.3")
    copy = shutil.copytree(repo, tmp_path / "w" / "linux")
    queue = len(variant.series("7.3"))
    git(copy, "checkout", "-q", f"HEAD~{len(patches) - queue - 1}")
    git(copy, "checkout", "-q", "-b", "vendor")
    git(copy, "revert", "--no-edit", *(f"HEAD~{number}" for number in range(1, queue + 1)))
    wanted, have = series.check(near(copy, "7.3", "7.4.0"))
    assert len(have) == 1 and have[0].startswith("0002-") and have[0] not in wanted
    assert len(wanted) == len(patches) - 1


# ---- what is wrong in the room -------------------------------------------------------------

MAIL = """\
From 0000000000000000000000000000000000000000 Mon Sep 17 00:00:00 2001
From: A <a@invalid>
Date: Sat, 21 Nov 2026 15:00:00 +0000
Subject: [PATCH] mm: add a line

It was missing.
---
Adds: COPYING

diff --git a/a b/a
--- a/a
+++ b/a
@@ -1 +1,2 @@
 1
+2
"""
ONE = "0001-mm-add-a-line.patch"


@pytest.fixture
def room(tmp_path: Path) -> Path:
    """A small one that is right."""
    (tmp_path / "7.3").mkdir()
    (tmp_path / "series").write_text(f"{ONE} one\n")
    (tmp_path / ONE).write_text(MAIL)
    return tmp_path


def test_a_small_one(room: Path) -> None:
    assert testseries.names(room) == ["7.3"]
    [(name, mail)] = testseries.patches("7.3", room)
    assert name == ONE and testseries.adds(room / ONE) == ["COPYING"]
    data = (REPO / "COPYING").read_bytes()
    blob = hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()[:12]
    assert f"\nnew file mode 100644\nindex {'0' * 12}..{blob}\n" in mail
    assert mail.index("b/COPYING\n") < mail.index("b/a\n") and "Adds:" not in mail
    assert "\nIt was missing.\n---\n COPYING |" in mail
    assert " create mode 100644 COPYING\n" in mail
    assert testseries.patches("6.12", room) == []


def test_a_file_for_many_versions_is_added_for_one(room: Path, monkeypatch: pytest.MonkeyPatch
                                                   ) -> None:
    repo = room / "repo"
    repo.mkdir()
    monkeypatch.setattr(testseries, "REPO", repo)
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
    [(_name, mail)] = testseries.patches("7.3", room)
    assert "@@ -0,0 +1,3 @@\n+new\n+\n+not yet\n" in mail
    data = b"new\n\nnot yet\n"
    assert hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()[:12] in mail
    (repo / "COPYING").write_text("#ifndef IN_TREE\n")
    with pytest.raises(LabError, match="unifdef failed on COPYING: .*EOF"):
        testseries.patches("7.3", room)
    monkeypatch.setenv("PATH", "/nonexistent")
    with pytest.raises(LabError, match="apt install unifdef"):
        testseries.patches("7.3", room)


def test_a_file_for_many_versions_goes_to_ltp_as_it_is(room: Path,
                                                       monkeypatch: pytest.MonkeyPatch) -> None:
    """Its tests run on all of them."""
    repo = room / "repo"
    repo.mkdir()
    monkeypatch.setattr(testseries, "REPO", repo)
    (repo / "COPYING").write_text("#ifndef IN_TREE\nold\n#endif\n")
    (room / ONE).write_text(MAIL.replace("Adds: COPYING\n", "Adds: LICENCE from COPYING\n"))
    [(_name, mail)] = testseries.patches("7.3", room)
    assert "+#ifndef IN_TREE\n+old\n+#endif\n" in mail


def test_a_base_may_have_its_own(room: Path) -> None:
    (room / "6.12").mkdir()
    assert testseries.files("6.12", room) == testseries.files("7.3", room) == [room / ONE]
    (room / "6.12" / ONE).write_text(MAIL.replace("+2", "+3"))
    [(_name, mail)] = testseries.patches("6.12", room)
    assert "\n 1\n+3\n" in mail
    assert "\n 1\n+2\n" in testseries.patches("7.3", room)[0][1]


def test_what_is_for_one_base_is_not_in_the_series_of_another(room: Path) -> None:
    (room / "6.12").mkdir()
    (room / "6.12" / "0002-mm-more.patch").write_text(MAIL.replace("Adds: COPYING\n", ""))
    (room / "series").write_text(f"{ONE}\n0002-mm-more.patch\n")
    assert len(testseries.patches("7.3", room)) == 1
    [_one, (_name, mail)] = testseries.patches("6.12", room)
    assert "COPYING" not in mail and "\n---\n a |" in mail


def test_files_alone_are_enough(room: Path) -> None:
    (room / ONE).write_text(MAIL.partition("\ndiff")[0])
    [(_name, mail)] = testseries.patches("7.3", room)
    assert mail.count("diff --git") == 1


@pytest.mark.parametrize("text, reason", [
    (MAIL.replace("---\nAdds", "Adds"), "is wanted, then `---`, lines `Adds: <path>`"),
    (MAIL.replace("Adds: ", ""), "is wanted, then `---`, lines `Adds: <path>`"),
    (MAIL.replace("diff --git a/a b/a", "diff --git a b"), "`diff --git a/... b/...` is wanted"),
    (MAIL.replace("COPYING", "a"), "a is in `Adds:` and in the diff"),
    (MAIL.replace("COPYING", "../a"), "a file outside the repository: ../a"),
    (MAIL.replace("COPYING", "none"), "adds none, and there is no such file"),
    (MAIL.partition("Adds")[0], "neither files nor a diff"),
])
def test_a_patch_that_is_not_right(room: Path, text: str, reason: str) -> None:
    (room / ONE).write_text(text)
    with pytest.raises(LabError, match=re.escape(reason)):
        testseries.patches("7.3", room)


def test_parts(room: Path) -> None:
    (room / "0002-mm-more.patch").write_text(MAIL)
    (room / "series").write_text(f"{ONE} one\n0002-mm-more.patch\n")
    assert testseries.parts(room) == ["one", "selftests"]
    assert [path.name for path in testseries.files("7.3", room, "selftests")] == \
        ["0002-mm-more.patch"]
    assert len(testseries.files("7.3", room)) == 2
    (room / "series").write_text(f"{ONE} one two\n")
    with pytest.raises(LabError, match="a name, and perhaps a part, is wanted: 0001-mm"):
        testseries.patches("7.3", room)


def test_a_patch_that_is_not_there(room: Path) -> None:
    (room / "series").write_text(f"{ONE}\n0002-none.patch\n")
    with pytest.raises(LabError, match="names 0002-none.patch, and there is no such patch"):
        testseries.patches("7.3", room)
    (room / "series").unlink()
    with pytest.raises(LabError, match="series is missing"):
        testseries.patches("7.3", room)
