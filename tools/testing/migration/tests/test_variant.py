# SPDX-License-Identifier: GPL-2.0
"""Variants made from a queue, and work trees put from one into the other, also after a kill."""

import dataclasses
import os
import shutil
import subprocess
import sys
import types
from pathlib import Path

import pytest
from conftest import put, taken

from lab import defect
from lab.base import Base
from lab.defect import Defect, Kernel, Queue, Show
from lab.errors import LabError
from lab.kernel import variant
from lab.kernel.source import Source
from lab.kernel.tree import Tree

RMAP = "".join(f"/* line {number} */\n" for number in range(1, 30)) + "int protection;\n"
FILES = {
    "Makefile": "VERSION = 4\n",
    "mm/rmap.c": RMAP,
    "mm/other.c": "int other;\n",
    "mm/gone.c": "int gone;\n",
}
CHANGE = """\
From 0123456789abcdef Mon Sep 17 00:00:00 2001
Subject: [PATCH] mm: a mail is in front, with a line of its own:
--- nothing

diff --git a/mm/rmap.c b/mm/rmap.c
--- a/mm/rmap.c
+++ b/mm/rmap.c
@@ -3,3 +3,4 @@
 /* line 3 */
 /* line 4 */
+int added;
 /* line 5 */
@@ -20,3 +21,3 @@
 /* line 20 */
-/* line 21 */
+int changed;
 /* line 22 */
--\x20
2.30
"""
SECOND = """\
diff --git a/mm/rmap.c b/mm/rmap.c
--- a/mm/rmap.c
+++ b/mm/rmap.c
@@ -4,3 +4,4 @@
 /* line 4 */
 int added;
+int added_later;
 /* line 5 */
diff --git a/mm/new/new.c b/mm/new/new.c
new file mode 100644
--- /dev/null
+++ b/mm/new/new.c
@@ -0,0 +1 @@
+int new;
diff --git a/mm/gone.c b/mm/gone.c
deleted file mode 100644
--- a/mm/gone.c
+++ /dev/null
@@ -1 +0,0 @@
-int gone;
"""
DEFECT = Defect(name="astray", folder=Path("/nonexistent"), title="t", since="1", fixed="2",
                show=Show(selftests=("s",)))


def write(tree: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        path = tree / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        os.utime(path, (1000, 1000))


def read(tree: Path) -> dict[str, str]:
    return {str(path.relative_to(tree)): path.read_text()
            for path in sorted(tree.rglob("*")) if path.is_file()}


@pytest.fixture
def source(tmp_path: Path) -> Source:
    tree = tmp_path / "work" / "tree"
    write(tree, FILES)
    base = Base(name="4.14", package=None, suites=(), drop=(), add=(), cflags="", cmdline="")
    return taken(Source(base=base, version="4.14.67", identity={}, key="k", tree=tree))


def changed(source: Source, name: str, content: str | bytes | None) -> Source:
    """The source with another file, or without it."""
    path = source.tree / name
    if content is None:
        path.unlink()
    elif isinstance(content, str):
        path.write_text(content)
    else:
        path.write_bytes(content)
    return taken(source)


def pristine(source: Source) -> None:
    put(source, variant.make("pristine", "as it is", ""))


@pytest.fixture
def queue(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(variant, "QUEUE", tmp_path / "queue")
    folder = tmp_path / "queue" / "4.14"
    folder.mkdir(parents=True)
    (folder / "0001-change.patch").write_text(CHANGE)
    (folder / "0002-second.patch").write_text(SECOND)
    (folder / "series").write_text("# in this order\n0001-change.patch\n\n0002-second.patch # b\n")
    return folder


def fixed_files() -> dict[str, str]:
    text = RMAP.replace("/* line 5 */", "int added;\nint added_later;\n/* line 5 */") \
               .replace("/* line 21 */", "int changed;")
    files = {**FILES, "mm/rmap.c": text, "mm/new/new.c": "int new;\n"}
    del files["mm/gone.c"]
    return files


def test_a_queue_makes_the_fixed_variant(source: Source, queue: Path) -> None:
    vulnerable, fixed = variant.plan(source, DEFECT)
    assert (vulnerable.name, vulnerable.how, vulnerable.diff) == ("vulnerable", "as it is", "")
    assert (fixed.name, fixed.how) == ("fixed", "queue/4.14 (2 patches)")
    assert vulnerable.key != fixed.key
    assert read(source.tree) == FILES, "plan() changed the tree"
    put(source, fixed)
    assert read(source.tree) == fixed_files()
    put(source, vulnerable)
    assert read(source.tree) == FILES


def test_a_part_of_the_queue_can_be_the_vulnerable_one(source: Source, queue: Path) -> None:
    part = dataclasses.replace(DEFECT, queue=Queue(without=("second",)))
    vulnerable, fixed = variant.plan(source, part)
    assert vulnerable.how == "queue/4.14 (without 1 of its 2 patches)"
    assert fixed == variant.plan(source, DEFECT)[1]
    put(source, vulnerable)
    files = read(source.tree)
    assert "int added;" in files["mm/rmap.c"] and "int added_later;" not in files["mm/rmap.c"]
    with pytest.raises(LabError, match="in 4.14: its queue has no third, which"):
        variant.plan(source, dataclasses.replace(DEFECT, queue=Queue(without=("second", "third"))))


def test_a_queue_that_has_not_what_would_be_left_out() -> None:
    """There the tree has it, or nothing has; but each of these names is that of some patch."""
    known = {path.stem.partition("-")[2] for path in variant.QUEUE.glob("*/*.patch")}
    for name in defect.names():
        assert set(defect.load(name).queue.without) <= known, name
    with pytest.raises(LabError, match="its queue has no hugetlb-take-PMD-sharing-into") as caught:
        variant._with_it(variant.series("4.19"), defect.load("pmd-share-flush"))
    assert str(caught.value).startswith(f"{variant.NOTHING} pmd-share-flush in 4.19: ")


def test_another_form_of_the_queue_can_be_the_fixed_one(source: Source, queue: Path) -> None:
    with pytest.raises(LabError, match="FORM=other: there is no queue/4.14/series.other"):
        variant.plan(source, DEFECT, "other")
    (queue / "series.other").write_text("0001-change.patch\n")
    vulnerable, fixed = variant.plan(source, DEFECT, "other")
    assert (vulnerable.how, fixed.how) == ("as it is", "queue/4.14/series.other (1 patch)")
    assert fixed.diff != variant.plan(source, DEFECT)[1].diff
    with pytest.raises(LabError, match="is a defect of that form"):
        variant.plan(source, dataclasses.replace(DEFECT, queue=Queue(form="series.other")),
                     "other")


def test_the_form_that_fixes_it_need_not_be_named(source: Source, queue: Path) -> None:
    ours = dataclasses.replace(DEFECT, upstream=(), brought="c" * 12 + " mm: fourth",
                               queue=Queue(before_own=True))
    with pytest.raises(LabError, match="queue/4.14 has no patches that would add it"):
        variant.plan(source, ours)
    with open(queue / "0003-third.patch", "w", encoding="utf-8") as patch:
        patch.write(f'Fixes: {"c" * 12} ("mm: fourth")\n\n' + SECOND)
    (queue / "series.other").write_text("0001-change.patch\n0003-third.patch\n")
    vulnerable, fixed = variant.plan(source, ours)
    assert (vulnerable.how, fixed.how) == ("queue/4.14/series.other (patches 1 to 1)",
                                           "queue/4.14/series.other (patches 1 to 2)")
    # Who asks for the form has all of it.
    asked = variant.plan(source, ours, "other")
    assert asked[0] == vulnerable and asked[1].diff == fixed.diff
    assert asked[1].how == "queue/4.14/series.other (2 patches)"


def test_another_form_of_the_queue_can_be_the_vulnerable_one(source: Source, queue: Path) -> None:
    # The fixes of the queue say nothing of a defect that only the other form has.
    form = dataclasses.replace(DEFECT, queue=Queue(form="series.other"),
                               upstream=("b" * 12 + " mm: third",))
    (queue / "series.other").write_text("0001-change.patch\n")
    vulnerable, fixed = variant.plan(source, form)
    assert (vulnerable.how, fixed.how) == ("queue/4.14/series.other (1 patch)",
                                           "queue/4.14 (2 patches)")
    (queue / "series.other").write_text("0003-none.patch\n")
    with pytest.raises(LabError, match="queue/4.14/series.other names 0003-none.patch"):
        variant.plan(source, form)


def test_without_another_form_the_released_tree_has_it(source: Source, queue: Path) -> None:
    form = dataclasses.replace(DEFECT, queue=Queue(form="series.other"),
                               upstream=("b" * 12 + " mm: third",))
    # But a queue that mends something else says nothing of it.
    with pytest.raises(LabError, match="queue/4.14 has no patches that would add it"):
        variant.plan(source, form)
    second = queue / "0002-second.patch"
    second.write_text(f"[ Replaces commit {'b' * 12} (\"mm: third\"). ]\n\n{SECOND}")
    vulnerable, fixed = variant.plan(source, form)
    assert (vulnerable.how, vulnerable.diff) == ("as it is", "")
    assert fixed.how == "queue/4.14 (2 patches)" and fixed.diff


def test_what_is_before_its_own_patch_can_be_the_vulnerable_one(source: Source, queue: Path) -> None:
    own = dataclasses.replace(DEFECT, queue=Queue(before_own=True))
    # Without a commit that mends it, all patches are its own.
    assert variant.plan(source, own)[0].how == "as it is"
    second = sorted(queue.glob("*.patch"))[1]
    second.write_text("commit " + "a" * 40 + " upstream.\n\n" + second.read_text())
    vulnerable, fixed = variant.plan(source, dataclasses.replace(
        own, upstream=("a" * 12 + " mm: second",)))
    assert (vulnerable.how, fixed.how) == ("queue/4.14 (patches 1 to 1)",
                                           "queue/4.14 (patches 1 to 2)")


def test_what_comes_after_its_own_patches_is_no_part_of_the_proof(source: Source, queue: Path
                                                                  ) -> None:
    first, second = sorted(queue.glob("*.patch"))[:2]
    first.write_text("commit " + "a" * 40 + " upstream.\n\n" + first.read_text())
    second.write_text("commit " + "b" * 40 + " upstream.\n\n" + second.read_text())
    one = dataclasses.replace(DEFECT, upstream=("a" * 12 + " mm: first",),
                              queue=Queue(before_own=True))
    vulnerable, fixed = variant.plan(source, one)
    assert (vulnerable.how, fixed.how) == ("as it is", "queue/4.14 (patches 1 to 1)")
    both = variant.plan(source, one, whole=True)
    assert both[0] == vulnerable and both[1].how == "queue/4.14 (2 patches)"
    assert both[1].diff != fixed.diff
    # What needs more of the queue for its vulnerable tree has all of it in the fixed one.
    other = variant.plan(source, dataclasses.replace(one, queue=Queue()))
    assert other[1] == both[1]


def test_the_plan_is_the_same_whatever_state_the_tree_is_in(source: Source, queue: Path) -> None:
    before = variant.plan(source, DEFECT)
    put(source, before[1])
    assert variant.plan(source, DEFECT) == before


def test_order_of_the_series_counts(source: Source, queue: Path) -> None:
    (queue / "series").write_text("0002-second.patch\n0001-change.patch\n")
    with pytest.raises(LabError, match="4.14/0002-second.patch does not apply"):
        variant.plan(source, DEFECT)


def test_a_queue_about_something_else_mends_nothing(source: Source, queue: Path) -> None:
    other = dataclasses.replace(DEFECT, upstream=("0123456789ab mm: first",))
    with pytest.raises(LabError, match="nothing to compare"):
        variant.plan(source, dataclasses.replace(DEFECT, upstream=("ba9876543210 mm: other",)))
    (queue / "0001-change.patch").write_text("commit 0123456789abcdef upstream.\n\n" + CHANGE)
    assert variant.plan(source, other)[1].how == "queue/4.14 (2 patches)"


@pytest.mark.parametrize("says, mends", [
    ("commit 0123456789abcdef upstream.", True),
    ("[ Upstream this is commit 0123456789ab", True),
    ("[ This is a part of commit 0123456789ab", True),
    ("Fixes: 0123456789ab", False),
    ("commit ba9876543210 upstream.\n\n[ Mended by commit 0123456789ab", False),
])
def test_a_commit_that_is_mentioned_mends_nothing(queue: Path, says: str, mends: bool) -> None:
    patch = queue / "0001-change.patch"
    patch.write_text(f"{says}\n\n{CHANGE}")
    other = dataclasses.replace(DEFECT, upstream=("0123456789ab mm: first", "aaaaaaaaaaaa mm: b"))
    assert variant.mending([patch], other) == ([patch] if mends else [])


@pytest.mark.parametrize(("says", "mends"), [
    ("Fixes: 111111111111 (\"mm: third\")", True), ("As since 111111111111 (\"mm: third\").", False),
    ("Fixes: 222222222222 (\"mm: third\")", False), ("", False)])
def test_a_patch_mends_what_nobody_has_fixed_if_it_says_so(queue: Path, says: str, mends: bool
                                                           ) -> None:
    patch = queue / "0001-change.patch"
    patch.write_text(f"Subject: x\n\n{says}\n\n{CHANGE}")
    other = dataclasses.replace(DEFECT, fixed="", brought="111111111111 mm: third")
    assert variant.mending([patch], other) == ([patch] if mends else [])


@pytest.mark.parametrize(("subject", "mends"), [
    ("hugetlb: do not lose a page", True), ("hugetlb: do not\n lose a page", True),
    ("hugetlb: do not lose a page\n twice", False), ("mm: hugetlb: do not lose a page", False)])
def test_a_defect_can_name_the_patches_that_mend_it(queue: Path, subject: str, mends: bool) -> None:
    """One commit has brought two defects, and a patch for the other says the same of it."""
    patch, other = queue / "0001-change.patch", queue / "0002-other.patch"
    patch.write_text(f"Subject: [PATCH] {subject}\n\nFixes: 222222222222\n\n{CHANGE}")
    other.write_text(f"Subject: [PATCH] hugetlb: another\n\nFixes: 111111111111\n\n{CHANGE}")
    ours = dataclasses.replace(DEFECT, fixed="", brought="111111111111 mm: third",
                               patches=("hugetlb: do not lose a page",))
    assert variant.mending([patch, other], ours) == ([patch] if mends else [])


def test_neither_queue_nor_rule_is_an_error(source: Source, queue: Path) -> None:
    (queue / "series").unlink()
    with pytest.raises(LabError, match="nothing to compare.*4.14.67.*queue/4.14"):
        variant.plan(source, DEFECT)
    (queue / "series").write_text("# nothing yet\n")
    with pytest.raises(LabError, match="nothing to compare"):
        variant.plan(source, DEFECT)


def test_a_series_that_names_no_file_is_an_error(source: Source, queue: Path) -> None:
    (queue / "series").write_text("0003-lost.patch\n")
    with pytest.raises(LabError, match="0003-lost.patch.*no such file"):
        variant.plan(source, DEFECT)


def test_a_patch_that_does_not_apply_is_named_with_its_hunk(source: Source, queue: Path) -> None:
    # git's own patch would take this one with fuzz: only the outer context line differs.
    source = changed(source, "mm/rmap.c", RMAP.replace("/* line 20 */", "/* line XX */"))
    with pytest.raises(LabError) as caught:
        variant.plan(source, DEFECT)
    assert "4.14/0001-change.patch does not apply to 4.14.67 at mm/rmap.c, hunk 2 of 2" \
        in str(caught.value)
    assert "nor does its reverse" in str(caught.value)


def test_a_patch_the_tree_has_already_is_said_to_be_there(source: Source, queue: Path) -> None:
    source = changed(source, "mm/rmap.c", fixed_files()["mm/rmap.c"].replace(
        "int added_later;\n", ""))
    with pytest.raises(LabError, match="0001-change.patch .* has it already"):
        variant.plan(source, DEFECT)


def test_what_a_tree_has_of_a_queue_is_left_out(source: Source, queue: Path) -> None:
    """Either patch, or both: the second changes a line beside one of the first."""
    first, second = patches = variant.series("4.14")
    assert variant.there_already(source, patches) == []
    made = {have: variant.queue_diff(source, have) for have in ((first,), (first, second))}
    for have, diff in made.items():
        put(source, variant.make("vendor", "x", diff))
        vendor = taken(source)
        assert variant.there_already(vendor, patches) == list(have)
        put(vendor, variant.make("released", "x", ""))
        for name in ("mm/rmap.c", "mm/gone.c"):
            (source.tree / name).write_text(FILES[name])
        (source.tree / "mm/new/new.c").unlink(missing_ok=True)
        source = taken(source)
    with pytest.raises(LabError, match="there is no patch for 4.14.67"):
        variant.queue_diff(source, [])


def test_what_neither_applies_nor_reverses_is_an_error(source: Source, queue: Path) -> None:
    text = fixed_files()["mm/rmap.c"].replace("/* line 20 */", "/* line XX */")
    source = changed(source, "mm/rmap.c", text)
    with pytest.raises(LabError, match="0001-change.patch does not apply .* nor does its reverse"):
        variant.there_already(source, variant.series("4.14"))


def test_the_reverse_of_a_patch_that_takes_back_another_says_nothing(source: Source, queue: Path
                                                                     ) -> None:
    """It applies to a tree with neither: that is not to have it."""
    before, after = (" /* line 10 */\n /* line 11 */\n", " /* line 12 */\n /* line 13 */\n")
    file = "--- a/mm/rmap.c\n+++ b/mm/rmap.c\n"
    (queue / "0003-bring.patch").write_text(
        f"{file}@@ -10,4 +10,5 @@\n{before}+int extra;\n{after}"
        "diff --git a/mm/b.c b/mm/b.c\nnew file mode 100644\n--- /dev/null\n+++ b/mm/b.c\n"
        "@@ -0,0 +1 @@\n+int b;\n")
    (queue / "0004-take.patch").write_text(
        f"{file}@@ -10,5 +10,4 @@\n{before}-int extra;\n{after}")
    (queue / "series").write_text(
        "0001-change.patch\n0003-bring.patch\n0004-take.patch\n")
    patches = variant.series("4.14")
    put(source, variant.make("vendor", "x", variant.queue_diff(source, patches[:1])))
    with pytest.raises(LabError, match="0001-change.patch .* has it already"):
        variant.there_already(taken(source), patches)


def test_what_goes_out_after_others_is_said_in_the_series(queue: Path) -> None:
    series = queue / "series"
    assert variant.after("4.14") == {} and variant.after("2.6.34") == {}
    series.write_text("0001-change.patch\n0002-second.patch # after 0001\n")
    assert variant.after("4.14") == {"0002-second.patch": ("0001",)}
    assert [path.name for path in variant.series("4.14")][1] == "0002-second.patch"
    series.write_text("0001-change.patch # after 0002\n0002-second.patch\n")
    with pytest.raises(LabError, match="0001-change.patch # after 0002: no patch before it"):
        variant.after("4.14")
    series.write_text("0001-change.patch # with 0002\n0002-second.patch\n")
    assert variant.after("4.14") == {"0001-change.patch": ("0002",)}
    series.write_text("0001-change.patch\n0002-second.patch # with 0001\n")
    with pytest.raises(LabError, match="0002-second.patch # with 0001: no patch behind it"):
        variant.after("4.14")


def test_a_patch_for_a_file_that_is_not_there_names_the_file(source: Source, queue: Path) -> None:
    source = changed(source, "mm/rmap.c", None)
    with pytest.raises(LabError, match="0001-change.patch.*mm/rmap.c"):
        variant.plan(source, DEFECT)


def test_a_patch_cannot_reach_out_of_the_tree(source: Source, queue: Path) -> None:
    (queue / "0001-change.patch").write_text(CHANGE.replace("mm/rmap.c", "../rmap.c"))
    with pytest.raises(LabError, match=r"outside the kernel tree: \.\./rmap\.c"):
        variant.plan(source, DEFECT)
    (queue / "0001-change.patch").write_text(SECOND.replace("mm/new/new.c", "mm/../../new.c"))
    with pytest.raises(LabError, match=r"outside the kernel tree: mm/\.\./\.\./new\.c"):
        variant.plan(source, DEFECT)


def test_a_removed_line_that_looks_like_a_header_is_none(source: Source, queue: Path) -> None:
    source = changed(source, "mm/rmap.c", "-- a/etc/passwd\nint x;\n")
    (queue / "0001-change.patch").write_text(
        "--- a/mm/rmap.c\n+++ b/mm/rmap.c\n@@ -1,2 +1 @@\n--- a/etc/passwd\n int x;\n")
    (queue / "series").write_text("0001-change.patch\n")
    fixed = variant.plan(source, DEFECT)[1]
    with source.kept.scratch(source.pristine) as scratch:
        assert not scratch.apply(fixed.diff)
        changes = source.kept.changes(source.pristine, scratch.state())
    assert [(one.path, one.line, one.removed) for one in changes] == [
        ("mm/rmap.c", 1, ("-- a/etc/passwd",))]
    put(source, fixed)
    assert (source.tree / "mm/rmap.c").read_text() == "int x;\n"


def test_bytes_that_are_no_utf8_and_form_feeds_survive(source: Source, queue: Path) -> None:
    path = source.tree / "mm/rmap.c"
    content = RMAP.encode().replace(
        b"/* line 12 */", b"/* \xe9\x0c\x85 \r */").replace(b"line 20", b"line \xe9")
    source = changed(source, "mm/rmap.c", content)
    (queue / "0001-change.patch").write_bytes(CHANGE.encode().replace(b"line 20", b"line \xe9"))
    _vulnerable, fixed = variant.plan(source, DEFECT)
    put(source, fixed)
    assert b"/* \xe9\x0c\x85 \r */" in path.read_bytes() and b"int added;" in path.read_bytes()
    pristine(source)
    assert path.read_bytes() == content


def test_a_repository_above_the_cache_changes_nothing(source: Source, queue: Path) -> None:
    # There git apply would pass over every file in silence.
    subprocess.run(["git", "init", "-q", str(source.tree.parent.parent)], check=True)
    put(source, variant.plan(source, DEFECT)[1])
    assert read(source.tree) == fixed_files()


def test_only_what_differs_gets_a_new_time(source: Source, queue: Path) -> None:
    vulnerable, fixed = variant.plan(source, DEFECT)

    def times() -> dict[str, int]:
        return {name: (source.tree / name).stat().st_mtime_ns for name in read(source.tree)}

    old = times()
    with open(source.tree / "mm/rmap.c", encoding="ascii") as reader:
        put(source, fixed)
        # Whoever reads it just then gets the one or the other, never half of it.
        assert reader.read() == RMAP
    first = times()
    assert first["mm/rmap.c"] > old["mm/rmap.c"]
    assert first["mm/other.c"] == old["mm/other.c"] and first["Makefile"] == old["Makefile"]
    put(source, fixed)
    assert times() == first, "nothing to do, and yet make would rebuild"
    # An object built now from the fixed file must be older than the file that comes back.
    built = source.tree.parent / "rmap.o"
    built.touch()
    put(source, vulnerable)
    assert times()["mm/rmap.c"] >= built.stat().st_mtime_ns
    assert times()["mm/other.c"] == old["mm/other.c"]


def test_somebody_elses_change_is_not_overwritten(source: Source, queue: Path) -> None:
    vulnerable, fixed = variant.plan(source, DEFECT)
    put(source, fixed)
    (source.tree / "mm/rmap.c").write_text("int mine;\n")
    for wanted in (vulnerable, fixed):
        with pytest.raises(LabError, match="changed by something else"):
            put(source, wanted)
    assert (source.tree / "mm/rmap.c").read_text() == "int mine;\n"


def test_a_kill_while_files_are_changed_is_made_good(source: Source, queue: Path) -> None:
    vulnerable, fixed = variant.plan(source, DEFECT)
    put(source, fixed)
    times = {name: (source.tree / name).stat().st_mtime_ns for name in read(source.tree)}
    # As git leaves it, half way from the one to the other.
    (source.tree.parent / "changing").touch()
    (source.tree.parent / "git/index.lock").write_text("half")
    write(source.tree, {"mm/gone.c": "int g", "mm/litter/x.c": "int x;\n"})
    (source.tree / "mm/new/new.c").unlink()
    put(source, fixed)
    assert read(source.tree) == fixed_files()
    assert {name for name, time in times.items()
            if (source.tree / name).stat().st_mtime_ns != time} == {"mm/new/new.c"}
    assert not (source.tree.parent / "changing").exists()
    (source.tree.parent / "changing").touch()
    put(source, vulnerable)
    assert read(source.tree) == FILES


def killed_after(lines: int, source: Source, wanted: variant.Variant) -> bool:
    """put() in a child that dies at once before so many lines of its work; False if it lived."""
    child = os.fork()
    if child == 0:
        left = lines

        def trace(frame: types.FrameType, event: str, _arg: object) -> object:
            nonlocal left
            if frame.f_code.co_filename not in (variant.__file__, tree_file):
                return trace
            if event == "line":
                left -= 1
                if left < 0:
                    os._exit(9)
            return trace

        tree_file = sys.modules[Tree.__module__].__file__
        sys.settrace(trace)
        put(source, wanted)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9


@pytest.mark.slow
def test_a_kill_at_any_line_is_made_good_by_the_next_put(source: Source, queue: Path) -> None:
    vulnerable, fixed = variant.plan(source, DEFECT)
    series = (queue / "series").read_text()
    (queue / "series").write_text("0001-change.patch\n")
    half = variant.plan(source, DEFECT)[1]
    (queue / "series").write_text(series)
    half_files = {**FILES, "mm/rmap.c": fixed_files()["mm/rmap.c"].replace("int added_later;\n",
                                                                          "")}
    for begin, wanted, files in ((vulnerable, fixed, fixed_files()), (fixed, vulnerable, FILES),
                                 (fixed, half, half_files)):
        lines = 0
        while True:
            put(source, begin)
            alive = not killed_after(lines, source, wanted)
            if lines % 10 == 0:
                assert variant.plan(source, DEFECT) == (vulnerable, fixed), lines
            put(source, wanted)
            assert read(source.tree) == files, lines
            if alive:
                break
            lines += 1
        assert lines > 60, "the child was hardly ever killed"


def test_files_of_ours_go_into_both_kernels(source: Source, queue: Path, tmp_path: Path,
                                            monkeypatch: pytest.MonkeyPatch) -> None:
    assert queue
    repo = tmp_path / "repo"
    write(repo, {"lib/play.c": "int play;\n", "lib/play.h": "int header;\n"})
    write(source.tree, {"lib/Makefile": "obj-y += a.o\n"})
    source = taken(source)
    monkeypatch.setattr(variant, "REPO", repo)
    ours = {"lib/play.c": "int play;\n", "lib/play.h": "int header;\n",
            "lib/Makefile": "obj-y += a.o\nobj-y += play.o\n"}
    wanted = dataclasses.replace(DEFECT, kernel=Kernel(add=("lib/play.c", "lib/play.h")))
    vulnerable, fixed = variant.plan(source, wanted)
    before = read(source.tree)
    put(source, vulnerable)
    assert read(source.tree) == {**FILES, **ours}
    put(source, fixed)
    assert read(source.tree) == {**fixed_files(), **ours}
    pristine(source)
    assert read(source.tree) == before


def test_a_file_of_ours_never_takes_the_place_of_the_kernels(source: Source, queue: Path,
                                                             tmp_path: Path,
                                                             monkeypatch: pytest.MonkeyPatch
                                                             ) -> None:
    assert queue
    write(tmp_path / "repo", {"mm/other.c": "int ours;\n"})
    write(source.tree, {"mm/Makefile": "\n"})
    source = taken(source)
    monkeypatch.setattr(variant, "REPO", tmp_path / "repo")
    with pytest.raises(LabError, match="has a mm/other.c of its own"):
        variant.plan(source, dataclasses.replace(DEFECT, kernel=Kernel(add=("mm/other.c",))))


@pytest.mark.usefixtures("queue")
def test_no_tree_is_changed_without_its_lock(source: Source) -> None:
    """Another run may be building from it."""
    _vulnerable, fixed = variant.plan(source, DEFECT)
    before = read(source.tree)
    with pytest.raises(RuntimeError, match="is not locked"):
        variant.put(source, fixed)
    assert read(source.tree) == before
    put(source, fixed)
    assert read(source.tree) != before


# ---- a tree that shares no PMD table -------------------------------------------------------

UNSHARED = """\
config HUGETLB_PMD_PAGE_TABLE_SHARING
\tdef_bool HUGETLB_PAGE
\tdepends on ARCH_WANT_HUGE_PMD_SHARE && SPLIT_PMD_PTLOCKS
"""
SHARED = """\
diff --git a/fs/Kconfig b/fs/Kconfig
--- a/fs/Kconfig
+++ b/fs/Kconfig
@@ -1,3 +1,3 @@
 config HUGETLB_PMD_PAGE_TABLE_SHARING
 \tdef_bool HUGETLB_PAGE
-\tdepends on ARCH_WANT_HUGE_PMD_SHARE && SPLIT_PMD_PTLOCKS
+\tdepends on ARCH_WANT_HUGE_PMD_SHARE && SMP
"""
SPLIT = """\
void hugetlb_split(void)
{
\tint before;

\tunshare();
}
"""
# What coccinelle is told to take out.
RULE = "@@ @@\n- unshare();\n"


def sharing(source: Source, tmp_path: Path, shares: bool = True) -> tuple[Source, Defect]:
    """A tree as 6.6.72 and later, and a defect of which it has the protection."""
    write(source.tree, {"fs/Kconfig": UNSHARED, "mm/Kconfig": "config NUMA\n", "mm/h.c": SPLIT})
    rule = tmp_path / "revert.cocci"
    rule.write_text(RULE)
    return taken(source), dataclasses.replace(
        DEFECT, shares_tables=shares,
        revert=defect.Revert(rule, ("mm/h.c",), ("hugetlb_split",), "unshare"))


@pytest.mark.skipif(not shutil.which("spatch"), reason="no spatch: apt install coccinelle")
def test_a_queue_that_has_tables_shared_again(source: Source, queue: Path, tmp_path: Path) -> None:
    """What the tree has and does not need, is needed with the queue: it is what is compared."""
    source, one = sharing(source, tmp_path)
    (queue / "0003-shared.patch").write_text(SHARED)
    (queue / "series").write_text("0001-change.patch\n0003-shared.patch\n")
    vulnerable, fixed = variant.plan(source, one)
    assert fixed.how == "queue/4.14 (2 patches)"
    assert vulnerable.how == "queue/4.14 (2 patches), and revert.cocci (1 place)"
    assert vulnerable.places == ("mm/h.c:5 hugetlb_split",)
    for made, has in ((fixed, True), (vulnerable, False)):
        put(source, made)
        files = read(source.tree)
        assert "&& SMP" in files["fs/Kconfig"] and "int changed" in files["mm/rmap.c"]
        assert ("unshare()" in files["mm/h.c"]) is has
        # The state that the tree is in is not what is asked about.
        assert variant.plan(source, one) == (vulnerable, fixed)


@pytest.mark.skipif(not shutil.which("spatch"), reason="no spatch: apt install coccinelle")
def test_a_tree_that_shares_no_table(source: Source, queue: Path, tmp_path: Path) -> None:
    source, one = sharing(source, tmp_path)
    for series in ("0001-change.patch\n", ""):
        (queue / "series").write_text(series)
        with pytest.raises(LabError, match="nothing to compare for astray in 4.14.67: "
                           "no PMD table is shared"):
            variant.plan(source, one)
    # Another defect does not ask for shared tables.
    source, one = sharing(source, tmp_path, shares=False)
    assert variant.plan(source, one)[1].how == "as it is"
