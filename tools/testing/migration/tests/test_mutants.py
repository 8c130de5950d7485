# SPDX-License-Identifier: GPL-2.0
"""make mutants: that each rule breaks what it says, and that a survivor is never called dead.

Trees are cut down to the files that the rules look at.
"""

import dataclasses
import difflib
import io
import json
import re
import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any, TextIO

import pytest
import runs
from conftest import FULL, debian_files, put, refused, taken, wanted
from test_queue import released_tree
from trees import some

from lab import arch, defect, mutant, trial
from lab.base import load as load_base
from lab.booted import Booted
from lab.errors import LabError
from lab.guest import initramfs, qemu, selftest
from lab.judge import klog, ktap
from lab.judge.verdict import Boot
from lab.kernel import build, unmapped, variant
from lab.kernel.source import Source
from lab.paths import REPO
from lab.progress import Progress
from lab.tell import record, rst
from lab.trial import Enough, Trial
from lab.verbs import mutants

ALL = [mutant.load(name) for name in mutant.names()]
DEFECT = defect.load("pmd-share-migrate")
FILES = sorted({name for one in ALL for name in one.files} | {"Makefile"})

UNMAP, MIGRATE, BOTH = {"try_to_unmap_one"}, {"try_to_migrate_one"}, \
    {"try_to_unmap_one", "try_to_migrate_one"}
UNSHARE, NOTE = {"huge_pmd_unshare"}, {"tlb_unshare_pmd_ptdesc"}
ADJUST, ZAP, PROTECT = {"adjust_range_if_pmd_sharing_possible"}, {"__unmap_hugepage_range"}, \
    {"hugetlb_change_protection"}
RANGE = {"flush_tlb_mm_range"}
NOWHERE: set[str] = set()
HUGETLB, ALL_PMDS = {"unmap_and_move_huge_page"}, {"hugetlb_unshare_pmds"}
MREMAP = {"move_hugetlb_page_tables"}
MOVED = {"migrate_huge_page_move_mapping"}
HUGE = {"set_pmd_migration_entry"}
# What each rule must change, so that one that silently stops matching is seen.
BASES = ("4.18", "5.10", "6.1", "6.12")
THERE: dict[str, tuple[set[str], ...]] = {
    "batch-not-flushed": (NOWHERE, NOWHERE, NOWHERE, {"migrate_pages_batch"}),
    "demoted-not-flushed": (NOWHERE, NOWHERE, NOWHERE, {"migrate_pages_batch"}),
    "continue-for-break": (NOWHERE, UNMAP, MIGRATE, MIGRATE),
    "file-lock-taken-again": (NOWHERE, HUGETLB, HUGETLB, HUGETLB),
    "flush-leaves-cpus-out": (NOWHERE, RANGE, RANGE, RANGE),
    "flush-one-page": (NOWHERE, NOTE, NOTE, NOTE),
    "kvm-not-told": (NOWHERE, NOWHERE, MIGRATE, MIGRATE),
    "kvm-of-one-sharer-told": (NOWHERE, NOWHERE, MIGRATE, MIGRATE),
    "kvm-told-of-one-page": (NOWHERE, UNMAP, BOTH, BOTH),
    # Of series.flush alone: see test_a_rule_for_another_form.
    "hole-zeroed-under-file-lock": (NOWHERE, NOWHERE, NOWHERE, NOWHERE),
    "size-not-looked-at": (NOWHERE, NOWHERE, NOWHERE, NOWHERE),
    "truncation-does-not-wait": (NOWHERE, NOWHERE, NOWHERE, NOWHERE),
    "uffd-size-not-looked-at": (NOWHERE, NOWHERE, NOWHERE, NOWHERE),
    "mapcount-dropped-for-every-sharer": (NOWHERE, UNMAP, BOTH, BOTH),
    "mprotect-flushes-own-range": (PROTECT, PROTECT, PROTECT, PROTECT),
    "moved-not-flushed": (NOWHERE, NOWHERE, MREMAP, MREMAP),
    "migrated-not-flushed": (UNMAP | HUGE, UNMAP | HUGE, MIGRATE | HUGE, MIGRATE | HUGE),
    "no-cache-flush": (NOWHERE, UNMAP, BOTH, BOTH),
    "no-invalidate-before-copy": (NOWHERE, UNMAP, BOTH, NOWHERE),
    "no-tlb-flush": (NOWHERE, UNMAP, BOTH, BOTH),
    "no-unshare": (NOWHERE, UNMAP, BOTH, BOTH),
    "no-unshare-to-migrate": (NOWHERE, NOWHERE, MIGRATE, MIGRATE),
    "notifier-range-not-widened": (NOWHERE, UNMAP, BOTH, BOTH),
    "pinned-page-migrated": (MOVED | {"migrate_page_move_mapping"},
                             MOVED | {"migrate_page_move_mapping"},
                             MOVED | {"folio_migrate_mapping"},
                             MOVED | {"folio_migrate_mapping", "__migrate_folio"}),
    "punch-not-flushed": ({"unmap_shared_entry"}, NOWHERE, NOWHERE, NOWHERE),
    "fork-copies-to-shared": ({"copy_hugetlb_page_range"}, NOWHERE, NOWHERE, NOWHERE),
    "restored-for-one": ({"remove_migration_pte"}, NOWHERE, NOWHERE, NOWHERE),
    "range-beyond-vma": (ADJUST, ADJUST, ADJUST, ADJUST),
    "seed-loop": (ADJUST, ADJUST, ADJUST, ADJUST),
    # As hole-zeroed-under-file-lock, these four.
    "entry-after-flush": (NOWHERE, NOWHERE, NOWHERE, NOWHERE),
    "join-without-table-lock": (NOWHERE, NOWHERE, NOWHERE, NOWHERE),
    "sharers-asked-early": (NOWHERE, NOWHERE, NOWHERE, NOWHERE),
    "sharers-flush-nothing": (NOWHERE, NOWHERE, NOWHERE, NOWHERE),
    "sharers-not-flushed": ({"hugetlb_sharers_flush"}, NOWHERE, NOWHERE, NOWHERE),
    "sharers-not-told": ({"hugetlb_sharers_notify"}, NOWHERE, NOWHERE, NOWHERE),
    "start-without-end": (NOWHERE, UNMAP, MIGRATE, MIGRATE),
    "start-cannot-sleep": (UNMAP, UNMAP, MIGRATE, MIGRATE),
    "table-ref-dropped-twice": (UNSHARE, NOTE, NOTE, NOTE),
    "table-ref-not-dropped": (UNSHARE, NOTE, NOTE, NOTE),
    "unshared-range-not-flushed": (NOWHERE, ALL_PMDS, ALL_PMDS, ALL_PMDS),
    "uses-changed-address": (NOWHERE, NOWHERE, NOWHERE, NOWHERE),
    "walk-stops-after-unshare": (NOWHERE, UNMAP, BOTH, BOTH),
    "widens-private-vma": (ADJUST, ADJUST, ADJUST, ADJUST),
    "zap-flushes-own-range": (ZAP, ZAP, ZAP, ZAP),
}
# What others have: older trees as 4.18, and 7.3 as 6.12, but that what try_to_unmap_one() did for
# hugetlb pages is a function of its own, and another one has a new name.
LIKE = {"4.14": "4.18", "4.9": "4.18", "4.4": "4.18", "7.3": "6.12"}
NEWEST = {"try_to_unmap_one": "try_to_unmap_poisoned_hugetlb_one",
          "unmap_and_move_huge_page": "unmap_and_move_hugetlb_folio"}
# Huge pages are migrated whole since 4.14.
MISSING = {"4.9": HUGE, "4.4": HUGE}

needs_spatch = pytest.mark.skipif(not shutil.which("spatch"),
                                  reason="no spatch: apt install coccinelle")


# ---- the rules -----------------------------------------------------------------------------


def cut_down(base: str, folder: Path, form: str = "series") -> Source:
    """The files of `base` that the rules and its queue are about."""
    tree = folder / "work" / "tree"
    patched = {name for patch in variant.series(base, form)
               for name in re.findall(r"(?m)^--- a/(.+)$", patch.read_text(encoding="utf-8"))}
    whole = debian_files(base) if load_base(base).package else released_tree(base)
    some(whole, tree, {*FILES, *patched})
    return taken(Source(load_base(base), f"{base}.1", {}, "k", tree))


def fixed_of(source: Source) -> variant.Variant:
    return variant.plan(source, DEFECT)[1]


def text_of(tree: Path, files: tuple[str, ...]) -> list[str]:
    return [line for name in files for line in (tree / name).read_text().split("\n")]


def functions_of(made: variant.Variant | None) -> set[str]:
    return {place.split()[1] for place in made.places} if made else set()


def test_every_mutant_is_expected_somewhere() -> None:
    assert set(THERE) == set(mutant.names())
    for one in ALL:
        missing = any(not there for there in THERE[one.name])
        assert bool(one.absent) or not missing, one.name


@needs_spatch
@pytest.mark.parametrize("base", [pytest.param("6.12", marks=pytest.mark.skipif(
    not FULL, reason="as 7.3: with FULL=1")), "7.3"])
def test_a_rule_for_another_form(base: str, tmp_path: Path) -> None:
    source = cut_down(base, tmp_path, "series.flush")
    one = mutant.load("hole-zeroed-under-file-lock")
    assert mutants.make(source, fixed_of(source), one) is None
    flushing = variant.plan(source, DEFECT, "flush")[1]
    made = mutants.make(source, flushing, one)
    assert functions_of(made) == {"hugetlbfs_punch_hole"}
    for name, function, call in (
            ("truncation-does-not-wait", "hugetlb_vmtruncate", "hugetlb_wait_for_faults("),
            ("size-not-looked-at", "hugetlb_fault", "hugetlb_past_end("),
            ("uffd-size-not-looked-at", "hugetlb_mfill_atomic_pte", "hugetlb_past_end(")):
        other = mutant.load(name)
        broken = mutants.make(source, flushing, other)
        assert functions_of(broken) == {function}
        counts = []
        for which in (flushing, broken):
            assert which
            put(source, which)
            counts.append((source.tree / other.files[0]).read_text().count(call))
        assert counts[0] == counts[1] + 1
    put(source, made)
    text = (source.tree / one.files[0]).read_text().partition("static long hugetlbfs_punch_hole")[2]
    assert text.index("i_mmap_lock_write(mapping)") < text.index("hugetlbfs_zero_partial_page(h")
    assert text.partition("static long hugetlbfs_fallocate")[0].count("i_mmap_lock_write(") == 1


# Of the walk that leaves tables shared: what each rule must change, and what is in the text of
# these functions before it and not after it, or the other way round.
FLUSH, TELL = {"hugetlb_sharers_flush"}, {"hugetlb_sharers_notify"}
SHARERS = {
    "sharers-flush-nothing": ({"rmap_walk_sharers"}, "hugetlb_sharers_flush(folio)", ""),
    "sharers-not-flushed": (FLUSH, "cond_resched()", "break;"),
    "sharers-not-told": (TELL, "cond_resched()", "break;"),
    "sharers-asked-early": (FLUSH | TELL, "", "hugetlb_pmd_shared("),
    "entry-after-flush": (FLUSH | MIGRATE, "cond_resched()", "hugetlb_sharers_flush(folio)"),
    "join-without-table-lock": ({"huge_pmd_share"}, "huge_pte_lockptr(", ""),
}


@needs_spatch
@pytest.mark.parametrize("base", [pytest.param("6.12", marks=pytest.mark.skipif(
    not FULL, reason="as 7.3: with FULL=1")), "7.3"])
def test_rules_for_a_walk_that_leaves_tables_shared(base: str, tmp_path: Path) -> None:
    source = cut_down(base, tmp_path, "series.flush")
    flushing = variant.plan(source, DEFECT, "flush")[1]

    def bodies(which: variant.Variant, files: tuple[str, ...], names: set[str]) -> str:
        put(source, which)
        text = "\n".join((source.tree / name).read_text() for name in files)
        # A stub of kernels without sharing may come after it.
        return "".join(re.findall(rf"(?ms)^[a-z][^\n;]*\b(?:{'|'.join(sorted(names))})\("
                                  r"[^;{]*\)\n\{\n.*?^\}\n", text))

    for name, (functions, had, has) in SHARERS.items():
        one = mutant.load(name)
        made = mutants.make(source, flushing, one)
        assert made and functions_of(made) == functions, name
        before, after = bodies(flushing, one.files, functions), bodies(made, one.files, functions)
        assert before.count("(") > 5
        if had:
            assert after.count(had) < before.count(had), name
        if has:
            assert after.count(has) > before.count(has), name
    # Before any notifier is called.
    early = mutants.make(source, flushing, mutant.load("sharers-asked-early"))
    assert early
    text = bodies(early, ("mm/hugetlb.c",), TELL)
    assert text.index("hugetlb_pmd_shared(") < text.index("mmu_notifier_invalidate_range_start(")
    # With the entry empty, and the lock of its table held.
    late = mutants.make(source, flushing, mutant.load("entry-after-flush"))
    assert late
    text = bodies(late, ("mm/rmap.c",), MIGRATE)
    order = [text.index(call) for call in ("huge_ptep_get_and_clear(", "hugetlb_sharers_flush(",
                                           "make_writable_migration_entry(", "folio_put(")]
    assert order == sorted(order)
    # A kernel that unshares has nothing of that.
    for name in ("sharers-flush-nothing", "entry-after-flush", "sharers-asked-early"):
        assert mutants.make(source, fixed_of(source), mutant.load(name)) is None


# Each rule is run by itself, 30 of them a base, which takes a minute on a slow machine.
OFTEN = ("6.12", "7.3")


@needs_spatch
@pytest.mark.parametrize("base", [
    pytest.param(base, marks=[] if FULL or base in OFTEN else pytest.mark.skip(
        reason="all rules on an older kernel: with FULL=1")) for base in (*BASES, *LIKE)])
def test_rules_break_what_they_say(base: str, tmp_path: Path) -> None:
    source = cut_down(base, tmp_path)
    fixed = fixed_of(source)
    before = {path: path.read_bytes() for path in source.tree.rglob("*") if path.is_file()}
    # spatch has one thread.
    with ThreadPoolExecutor(max_workers=2) as pool:
        broken_ones = list(pool.map(lambda one: mutants.make(source, fixed, one), ALL))
    for one, made in zip(ALL, broken_ones):
        want = THERE[one.name][BASES.index(LIKE.get(base, base))] - MISSING.get(base, NOWHERE)
        if base == "7.3":
            want = {NEWEST.get(name, name) for name in want}
        assert functions_of(made) == want, one.name
        if made is None:
            continue
        # On top of what is fixed, and no more than some lines.
        put(source, fixed)
        held = text_of(source.tree, one.files)
        put(source, made)
        broken = text_of(source.tree, one.files)
        assert 0 < sum(line[:1] in "+-" for line in difflib.unified_diff(held, broken, n=0)) < 50
    put(source, AS_IT_IS)
    assert before == {path: path.read_bytes() for path in before}


TREE = """\
static bool try_to_unmap_one(struct page *page, struct vm_area_struct *vma)
{
	flush_cache_range(vma, 1, 2);
	if (huge_pmd_unshare(mm, &addr, pte)) {
		flush_tlb_range(vma, 1, 2);
		return true;
	}
	return true;
}

static void another(void)
{
	flush_cache_range(vma, 1, 2);
}
"""


def small(folder: Path, text: str = TREE) -> Source:
    tree = folder / "work" / "tree"
    (tree / "mm").mkdir(parents=True)
    (tree / "mm/rmap.c").write_text(text)
    return taken(Source(load_base("6.12"), "6.12.1", {}, "k", tree))


def rule(folder: Path, body: str, **changes: object) -> mutant.Mutant:
    path = folder / "mine.cocci"
    path.write_text(body)
    one = dataclasses.replace(mutant.load("no-cache-flush"), name="mine", rule=path)
    return dataclasses.replace(one, **changes)                      # type: ignore[arg-type]


AS_IT_IS = variant.make("fixed", "as it is", "")


@needs_spatch
@pytest.mark.parametrize(("body", "places", "says"), [
    # Also in a function that the mutant does not name.
    ("@@\n@@\n- flush_cache_range(...);\n", ("try_to_unmap_one",),
     r"mutants/mine changes another, try_to_unmap_one of 6.12.1 instead of try_to_unmap_one:"),
    # Not in one that it does.
    ("@@\n@@\nanother(...) {\n- flush_cache_range(...);\n}\n", ("try_to_unmap_one", "another"),
     "changes another of 6.12.1 instead of another, try_to_unmap_one:"),
])
def test_another_place_stops_the_run(tmp_path: Path, body: str, places: tuple[str, ...],
                                     says: str) -> None:
    with pytest.raises(LabError, match=says):
        mutants.make(small(tmp_path), AS_IT_IS, rule(tmp_path, body, places=places))


@needs_spatch
def test_a_rule_that_finds_nothing_must_say_why_that_may_be(tmp_path: Path) -> None:
    source = small(tmp_path)
    one = rule(tmp_path, "@@\n@@\n- no_such_function(...);\n", absent="it came later")
    assert mutants.make(source, AS_IT_IS, one) is None
    with pytest.raises(LabError, match="finds nothing in 6.12.1, and does not say why"):
        mutants.make(source, AS_IT_IS, dataclasses.replace(one, absent=""))


@needs_spatch
def test_a_mutant_is_made_of_the_fixed_tree_and_has_its_files(tmp_path: Path) -> None:
    source = small(tmp_path)
    (source.tree / "lib").mkdir()
    (source.tree / "lib/Makefile").write_text("obj-y += a.o\n")
    source = taken(source)
    wanted_files = dataclasses.replace(DEFECT, kernel=defect.load("thp-numa-notifier").kernel,
                                       revert=None, upstream=())
    patch = tmp_path / "0001-x.patch"
    patch.write_text("--- a/mm/rmap.c\n+++ b/mm/rmap.c\n@@ -1,1 +1,2 @@\n+/* fixed */\n"
                     f" {TREE.splitlines()[0]}\n")
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(variant, "series", lambda _base, _form="series": [patch])
        _vulnerable, fixed = variant.plan(source, wanted_files)
    made = mutants.make(source, fixed, rule(
        tmp_path, "@@\n@@\ntry_to_unmap_one(...) {\n<...\n- flush_cache_range(...);\n...>\n}\n"))
    assert made is not None and made.places == ("mm/rmap.c:4 try_to_unmap_one",)
    assert (made.name, made.how) == ("mine", "queue/6.12 (1 patch), and mutants/mine")
    for one, left in ((fixed, 2), (made, 1)):
        put(source, one)
        text = (source.tree / "mm/rmap.c").read_text()
        assert text.startswith("/* fixed */") and text.count("flush_cache_range") == left
        for name in wanted_files.kernel.add:
            assert (source.tree / name).read_bytes() == (REPO / name).read_bytes()
        assert "obj-y += test_mmu_notifier.o\n" in (source.tree / "lib/Makefile").read_text()


# ---- their files ---------------------------------------------------------------------------


def test_their_files_name_what_there_is() -> None:
    for one in ALL:
        assert set(one.tests) <= set(selftest.names()), one.name
        assert not one.breaks.endswith("."), one.name
        for why in (*(unseen.why for unseen in one.unseen), one.absent, one.survives):
            assert not why.endswith("."), one.name


HEAD = """\
breaks = "something"
files = ["mm/rmap.c"]
places = ["f", "g|h"]
tests = ["hugetlb_pmd_migrate"]

[[unseen]]
where = ["before 4.20"]
why = "it was otherwise then"

[[unseen]]
where = ["tcg"]
why = "no"

[[unseen]]
where = ["without DEBUG=1"]
why = "nobody looks"

[[unseen]]
where = ["kvm", "before 6.6"]
why = "both"
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(mutant, "MUTANTS", tmp_path)
    made = tmp_path / "mine"
    made.mkdir()
    (made / "rule.cocci").write_text("")
    return made


def test_its_file_is_read(folder: Path) -> None:
    (folder / "mutant.toml").write_text(HEAD)
    one = mutant.load("mine")
    assert (one.breaks, one.places, one.absent) == ("something", ("f", "g|h"), "")
    assert one.rule == folder / "rule.cocci" and one.options == ()
    assert one.unseen == (
        mutant.Unseen("it was otherwise then", ("before 4.20",)), mutant.Unseen("no", ("tcg",)),
        mutant.Unseen("nobody looks", ("without DEBUG=1",)),
        mutant.Unseen("both", ("kvm", "before 6.6")))


def test_what_its_tests_need_is_read(folder: Path) -> None:
    (folder / "mutant.toml").write_text(HEAD)
    (folder / "config").write_text("# For a test.\nCONFIG_A=y\n")
    assert mutant.load("mine").options == ("CONFIG_A=y",)
    (folder / "config").write_text("# For no test.\n")
    with pytest.raises(LabError, match="config has no option in it"):
        mutant.load("mine")


def test_a_guest_of_its_own_is_read(folder: Path) -> None:
    mine = 'arguments = ["-t", "x"]\nsince = "6.9.2"\nabsent = "no"\n[guest]\nslow = true\n\n[['
    (folder / "mutant.toml").write_text(HEAD.replace("[[", mine, 1))
    one = mutant.load("mine")
    assert one.guest == defect.Machine(slow=True) and one.arguments == ("-t", "x")
    x86, other = arch.load("x86_64"), arch.load("arm64")
    assert [one.lacks(version, x86) for version in ("6.9.2", "6.10", "7.0.1")] == [""] * 3
    assert [one.lacks(version, x86) for version in ("6.9.1", "5.10.3")] == ["no"] * 2
    assert one.lacks("6.10", other) == "no machine of arm64 says that memory is slower"
    (folder / "mutant.toml").write_text(HEAD + "[guest]\nvirtual = true\n")
    one = mutant.load("mine")
    assert one.lacks("6.10", x86) == "" and \
        one.lacks("6.10", other) == "no guest on arm64 runs virtual machines here"
    (folder / "mutant.toml").write_text(HEAD)
    plain = mutant.load("mine")
    assert plain.guest is None and plain.lacks("4.4", other) == ""


def test_the_rule_of_another_is_taken(folder: Path) -> None:
    (folder / "mutant.toml").write_text('rule_of = "no-unshare"\n' + HEAD)
    (folder / "rule.cocci").unlink()
    (folder.parent / "no-unshare").mkdir()
    for file in ("mutant.toml", "rule.cocci"):
        (folder.parent / "no-unshare" / file).write_text(HEAD)
    assert mutant.load("mine").rule == folder.parent / "no-unshare" / "rule.cocci"
    (folder.parent / "no-unshare" / "rule.cocci").unlink()
    with pytest.raises(LabError, match="there is no rule.cocci of no-unshare"):
        mutant.load("mine")


@pytest.mark.parametrize(("old", "new", "says"), [
    ("breaks =", 'since = "6.9"\nbreaks =', "since is there and no absent"),
    ('migrate"]\n', 'migrate"]\n[guest]\nslower = true\n', r"\[guest\] slower: there is no such key"),
    ('tests = ["hugetlb_pmd_migrate"]\n', "", "tests is missing"),
    ("breaks =", 'rule_of = "nosuch"\nbreaks =', "rule_of: there is no mutant nosuch"),
    ("breaks =", 'brakes = "x"\nbreaks =', "brakes: there is no such key, only breaks, "),
    ("breaks =", 'breaks = "x"\nbreaks =', "cannot be read"),
    ('["tcg"]', '["here"]', "here: where is that"),
    ('["tcg"]', '["tcg", "here"]', "here: where is that"),
    ('["tcg"]', '"tcg"', r"\[unseen\] where must be a list"),
    ('why = "no"\n', "", r"\[unseen\] why is missing"),
])
def test_a_wrong_file_is_named(folder: Path, old: str, new: str, says: str) -> None:
    (folder / "mutant.toml").write_text(HEAD.replace(old, new))
    with pytest.raises(LabError, match=says) as caught:
        mutant.load("mine")
    assert str(folder / "mutant.toml") in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_mutant_has_a_rule(folder: Path) -> None:
    (folder / "rule.cocci").unlink()
    (folder / "mutant.toml").write_text(HEAD)
    with pytest.raises(LabError, match="no rule.cocci beside it"):
        mutant.load("mine")


def test_an_unknown_mutant_lists_the_known_ones() -> None:
    with pytest.raises(LabError, match="no mutant nosuch: there are batch-not-flushed, "):
        mutant.load("nosuch")


@pytest.mark.parametrize(("version", "accel", "debug", "why"), [
    ("4.18.0", "kvm", True, "it was otherwise then"),
    ("4.4.155", "kvm", True, "it was otherwise then"),
    ("4.20.1", "tcg", True, "no"),
    ("6.12.117", "kvm", False, "nobody looks"),
    ("6.5.1", "kvm", True, "both"),
    ("6.12.117", "kvm", True, ""),
])
def test_where_it_cannot_be_seen(folder: Path, version: str, accel: str, debug: bool,
                                 why: str) -> None:
    (folder / "mutant.toml").write_text(HEAD)
    assert mutant.unseen(mutant.load("mine"), version, "x86_64", accel, debug) == why


def test_no_cache_flush_cannot_be_seen_on_x86() -> None:
    one = mutant.load("no-cache-flush")
    for version in ("4.18.0", "5.10.262", "6.12.117"):
        for accel in qemu.ACCELS:
            assert mutant.unseen(one, version, "x86_64", accel, True)
    assert not mutant.unseen(one, "6.12.117", "aarch64", "kvm", True)


# ---- what boots say ------------------------------------------------------------------------

PASS = "lab: start p\n1..2\nok 1 p.a\nok 2 p.b\nlab: exit p 0\nlab: done\n"
FAIL = "lab: start p\n1..2\nnot ok 1 p.a\nok 2 p.b\nlab: exit p 1\nlab: done\n"
BOTH_FAIL = "lab: start p\n1..2\nnot ok 1 p.a\nnot ok 2 p.b\nlab: exit p 1\nlab: done\n"
DIED = "lab: start p\n1..2\n#  RUN           p.a ...\nlab: exit p 135\nlab: done\n"
STUCK = "lab: start p\n1..2\n#  RUN           p.a ...\n"
UNDECIDED = ("lab: start p\n1..2\nok 1 p.a # SKIP inconclusive: too few\nok 2 p.b\n"
             "lab: exit p 0\nlab: done\n")
BUG = "kernel BUG at mm/hugetlb.c:1213!\n"
BAD = "BUG: Bad page state in process a  pfn:1\n"


def booted(said: str, log: str = "", number: int = 1, name: str = "mine") -> Boot:
    late = not ktap.read(said).done and not klog.read(log)
    return runs.boot(name, number, said, log, late, None if late else 0,
                     folder=f"out/{name}/boot-{number:02}", seconds=9.0)


def judged(*boots: Boot, here: str = "", survives: str = "") -> tuple[str, str]:
    one = dataclasses.replace(mutant.load("no-unshare"), survives=survives)
    return mutants.judge(mutants.Row(one, booted=Booted(boots=list(boots))), here)


@pytest.mark.parametrize(("boot", "killed"), [
    (booted(PASS), False),
    (booted(FAIL), True),
    (booted(DIED), True),
    (booted(PASS, BAD), True),
    (booted(STUCK, BUG), True),
    # A guest that was slow is no guest that failed.
    (booted(STUCK), False),
    (booted(""), False),
    (booted(UNDECIDED), False),
])
def test_what_kills(boot: Boot, killed: bool) -> None:
    assert mutants.kills(boot) is killed


def test_one_boot_is_enough_and_is_counted() -> None:
    assert judged(booted(PASS), booted(FAIL), booted(PASS)) == ("killed", "")
    assert mutants.witnesses([booted(PASS), booted(FAIL)]) == ["p.a"]
    assert mutants.witnesses([booted(FAIL), booted(BOTH_FAIL), booted(STUCK, BUG + BAD)]) == \
        ["p (2 tests)", "the kernel (BUG)"]


def test_a_survivor_says_why() -> None:
    assert judged(booted(PASS)) == ("survived", "")
    assert judged(booted(PASS), survives="no ears") == ("survived", "no ears")
    assert judged(booted(PASS), booted(STUCK), booted(UNDECIDED), survives="no ears") == \
        ("survived", "no ears; 1 of 3 boots gave no result; 1 of its tests were inconclusive")


def test_silence_is_no_result() -> None:
    assert judged(booted(STUCK), booted("")) == ("no result", "all boots ended as TIMEOUT")


def test_what_cannot_be_seen_and_is() -> None:
    assert judged(booted(PASS), here="no caches") == ("not observable", "no caches")
    assert judged(booted(FAIL), here="no caches") == ("killed", "although no caches")


@pytest.mark.parametrize(("boot", "says"), [
    (booted(PASS), ""),
    (booted(FAIL), "p.a failed"),
    (booted(PASS, BAD), "bad page: BUG: Bad page"),
    (booted(STUCK), "TIMEOUT: p: "),
    (booted("lab: start p\n1..0 # SKIP no root\nlab: exit p 4\nlab: done\n"),
     "no test of p passed: no root"),
])
def test_the_kernel_as_it_is_must_pass(boot: Boot, says: str) -> None:
    why = mutants.trouble(boot, ("p",))
    assert why.startswith(says) and bool(why) == bool(says)


# ---- a boot that is ended ----

WARNS = "------------[ cut here ]------------\nWARNING: CPU: 0 PID: 1 at mm/rmap.c:1 x+0x1/0x2\n"
NOISE = "------------[ cut here ]------------\n" \
        "WARNING: CPU: 0 PID: 1 at mm/page_alloc.c:7 has_unmovable_pages+0x1/0x2\n"
TODO = "lab: start p\n1..2\nnot ok 1 p.a # TODO one day\n"
REST = "ok 2 p.b\nlab: exit p 0\nlab: done\n"


def boot_of(folder: Path, body: str, base: str = "6.12", enough: Enough | None = mutants.seen
            ) -> Boot:
    """A real boot, with a shell script for QEMU."""
    script = folder / "qemu"
    script.write_text(f"#!/bin/sh\n{body}\n")
    script.chmod(0o755)
    return runs.trial(folder, "mine", base, str(script), timeout=20).boot(
        folder / "mine", 1, Progress(open("/dev/null", "w")), enough)


def says(ktap_line: str = "", log: str = "") -> str:
    return f"printf '%b' {ktap_line!r} >> ktap.log; printf '%b' {log!r} >> console.log"


@pytest.fixture
def short_grace(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(qemu, "GRACE", 0.5)


@pytest.mark.usefixtures("short_grace")
@pytest.mark.parametrize(("body", "state", "by"), [
    (says(FAIL.split("ok 2")[0]), "ENDED", "p.a; ended there"),
    (says(STUCK, WARNS), "ENDED", "the kernel (WARNING); ended there"),
    # The kernel of it would not end either.
    (says(STUCK, BUG), "CRASHED", "the kernel (BUG); ended there"),
])
@pytest.mark.slow
@pytest.mark.alone
def test_a_guest_that_showed_the_mutant_is_ended(tmp_path: Path, body: str, state: str, by: str
                                                 ) -> None:
    one = boot_of(tmp_path, f"{body}; exec sleep 1000")
    assert (one.state, one.ended_early, one.timed_out) == (state, True, False)
    assert mutants.kills(one) and one.seconds < 15
    assert mutants._came_of(one) == by
    assert judged(one, booted(PASS)) == ("killed", "")


@pytest.mark.usefixtures("short_grace")
@pytest.mark.parametrize(("first", "then", "base"), [
    # No failure, whatever it begins with.
    (says(TODO), says(REST), "6.12"),
    (says(TODO.replace("TODO", "SKIP").replace("not ok", "ok")), says(REST), "6.12"),
    # Of no meaning on this base; what is not whole yet is not judged.
    (says(TODO, NOISE), says(REST), "4.18"),
    (says(TODO, "WARNING: polling"), says(REST, " idle and HT enabled\n"), "6.12"),
    (says(TODO + "not o"), says("k 2 p.b # TODO\nlab: exit p 0\nlab: done\n"), "6.12"),
])
@pytest.mark.slow
@pytest.mark.alone
def test_a_guest_that_showed_nothing_boots_whole(tmp_path: Path, first: str, then: str, base: str
                                                 ) -> None:
    one = boot_of(tmp_path, f"{first}; sleep 1.2; {then}", base)
    assert (one.state, one.ended_early, mutants.kills(one)) == ("DONE", False, False)
    assert mutants._came_of(one) == "survived"


@pytest.mark.usefixtures("short_grace")
@pytest.mark.slow
@pytest.mark.alone
def test_other_boots_are_not_ended(tmp_path: Path) -> None:
    first, rest = FAIL.split("ok 2")
    one = boot_of(tmp_path, f"{says(first, WARNS)}; sleep 1.2; {says('ok 2' + rest)}", enough=None)
    assert (one.state, one.ended_early) == ("DONE", False)


# ---- a run ---------------------------------------------------------------------------------

Said = dict[str, tuple[str, str]]       # by kernel: KTAP and log
EVERY_ONE = {one.name: (FAIL, "") for one in ALL}


def status_of(run: mutants.Run) -> dict[str, str]:
    return {row.mutant.name: row.status for row in run.rows}


class Machine:
    """All that builds and boots, but for the compiler and QEMU; and all that the identity of a boot
    is made of."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder, self.out = folder, folder / "out"
        self.said: Said = dict(EVERY_ONE)
        self.absent = {"uses-changed-address"}
        self.asked: list[str] = []              # "build x", "boot x", in order
        self.told: dict[str, str] = {}          # the command line of each boot's kernel
        self.slow: set[str] = set()             # kernels that were booted with slow memory
        self.rows: list[int] = []               # of mutants.json, at each boot: those not run yet
        self.stops_at = self.hours = 0
        self.identity = {"compiler": "gcc 12", "image_sha256": "1"}
        self.source = Source(load_base("6.12"), "6.12.117",
                             {"version": "6.12.117", "sha256": "0" * 64}, "k", folder)
        for name in ("image", "config", "initrd"):
            (folder / name).write_text(name)
        real_boot = Trial.boot

        def boot(one: Trial, home: Path, number: int, progress: Progress, enough: Enough | None
                 ) -> Boot:
            assert (enough is None) == (one.name == "fixed") and one.defect.show.symptoms == ()
            return real_boot(one, home, number, progress, enough)

        programs = selftest.Built({name: folder for name in selftest.names()}, "6.12.1", folder)
        for place, name, stand_in in (
                (trial, "find_source", lambda *_: self.source), (Trial, "boot", boot),
                (variant, "plan", lambda *_, **_how: (AS_IT_IS, AS_IT_IS)), (mutants, "make", self.make),
                (build, "kernel", self.kernel), (qemu, "boot", self.boot),
                (qemu, "choose_accel", lambda *_: "tcg"), (qemu, "version", lambda _: "QEMU 7.2"),
                (selftest, "build", lambda *_, **_more: programs),
                (initramfs, "initramfs", lambda *_given: folder / "initrd"),
                (mutants, "datetime", self)):
            monkeypatch.setattr(place, name, stand_in)

    @property
    def booted(self) -> list[str]:
        """Kernels, in order."""
        return [word.removeprefix("boot ") for word in self.asked if word.startswith("boot ")]

    def now(self, zone: timezone) -> datetime:
        """Each run begins an hour after the last."""
        self.hours += 1
        return datetime(2026, 1, 2, tzinfo=zone) + timedelta(hours=self.hours)

    def make(self, _source: Source, _fixed: variant.Variant, one: mutant.Mutant
             ) -> variant.Variant | None:
        if one.name in self.absent:
            return None
        return variant.make(one.name, f"mutants/{one.name}", one.name,
                            (f"{one.files[-1]}:7 {one.places[0]}",))

    def kernel(self, _source: Source, one: variant.Variant, *_more: object) -> build.Kernel:
        self.asked.append(f"build {one.name}")
        return build.Kernel(self.folder / "image", self.folder / "config",
                            {**self.identity, "diff": one.key}, False, 1.0)

    def boot(self, what: qemu.Guest, folder: Path, _limit: float,
             watch: Callable[[str, str], bool], _grace: float) -> qemu.Outcome:
        name = folder.parent.name
        self.asked.append(f"boot {name}")
        assert (folder / what.image).read_text() == "image"
        self.told[f"{name}/{folder.name}"] = what.append
        if what.machine.slow:
            self.slow.add(name)
        self.rows.append(sum(row["status"] == "not run" for row in self.report()["mutants"])
                         if (self.out / "mutants.json").exists() else -1)
        if len(self.booted) == self.stops_at:
            raise KeyboardInterrupt
        tests = re.search(r"lab\.run=(\S+)", what.append)
        assert tests
        every = "".join(PASS.removesuffix("lab: done\n").replace("p", test)
                        for test in tests[1].split(",")) + "lab: done\n"
        text, log = self.said.get(name, (every, ""))
        (folder / "ktap.log").write_text(text)
        (folder / "console.log").write_text(log)
        ended = watch(log, text) and "lab: done" not in text
        return qemu.Outcome(None if ended or text == STUCK else 0, text == STUCK, 9.04, ended)

    def run(self, only: str = "", resume: bool = False, told: TextIO | None = None,
            **changes: object) -> mutants.Run:
        self.asked.clear()
        asked = wanted(self.out, **({"boots": 2, "command": "make mutants KERNEL=/home/me/linux"}
                                    | changes))
        return mutants.run(asked, only, arch.load(), Progress(told or io.StringIO()), resume)

    def report(self) -> Any:
        return json.loads((self.out / "mutants.json").read_text())

    def recorded(self) -> dict[str, Any]:
        return record.read(record.write_mutants(self.out, self.folder / "docs"))

    def interrupted(self, boots: int) -> Any:
        """A run that is interrupted in that boot; what it leaves behind."""
        self.stops_at = boots
        with pytest.raises(KeyboardInterrupt):
            self.run()
        self.stops_at = 0
        return self.report()


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    return Machine(tmp_path, monkeypatch)


def test_a_run_whose_mutants_are_all_killed_passes(machine: Machine) -> None:
    run = machine.run()
    assert run.passed() and run.whole
    assert status_of(run)["no-cache-flush"] == "not observable"
    assert status_of(run)["uses-changed-address"] == "not there"
    assert machine.asked[:3] == ["build fixed", "boot fixed", "boot fixed"]
    # What cannot be seen is neither built nor booted; what changes the same file is in a row.
    assert "build no-cache-flush" not in machine.asked
    order = [mutant.load(name.split()[1]).files[-1] for name in machine.asked[3:]
             if name.startswith("build")]
    assert order == sorted(order)
    assert machine.booted.count("no-unshare") == 2


def test_a_test_of_a_mutant_that_is_not_there_is_not_run(machine: Machine) -> None:
    """It may be one of newer kernels, and the fixed kernel would be no measure."""
    machine.run()
    # It has a guest of its own, and so has its measure.
    measure = "fixed-for-no-unshare-to-migrate/boot-0"
    assert all("hugetlb_pmd_contig" in machine.told[f"{measure}{number}"] for number in (1, 2))
    machine.told.clear()
    machine.absent |= {"no-unshare-to-migrate"}
    machine.run()
    assert not any("hugetlb_pmd_contig" in told for told in machine.told.values())


def test_one_survivor_is_enough_to_fail(machine: Machine) -> None:
    del machine.said["seed-loop"]
    run = machine.run()
    assert not run.passed()
    assert [name for name, status in status_of(run).items() if status == "survived"] == \
        ["seed-loop"]
    told = mutants.summary(run, machine.out)
    assert re.search(r"(?m)^survived +seed-loop$", told)
    assert re.search(r"(?m)^killed +no-unshare +2 of 2\n +by p\.a$", told)
    dead = sum(status == "killed" for status in status_of(run).values())
    assert f"{dead} of the {dead + 1} that could be seen here were killed" in told


def test_a_named_mutant_is_booted_whatever_its_file_says(machine: Machine) -> None:
    machine.said.clear()
    run = machine.run("no-cache-flush")
    assert machine.booted.count("no-cache-flush") == 2
    assert status_of(run) == {"no-cache-flush": "not observable"}
    assert run.passed() and not run.whole


def test_nothing_is_said_of_mutants_of_a_kernel_that_fails(machine: Machine) -> None:
    machine.said["fixed"] = (PASS, BAD)
    with pytest.raises(LabError, match="fixed kernel itself does not pass.*bad page"):
        machine.run()
    assert machine.asked == ["build fixed", "boot fixed"]
    assert not (machine.out / "mutants.json").exists()


def with_tests(patched: pytest.MonkeyPatch, tests: tuple[str, ...]) -> None:
    """A mutant has other selftests."""
    load = mutant.load
    patched.setattr(mutants, "load", lambda name: dataclasses.replace(load(name), tests=tests)
                    if name == "seed-loop" else load(name))


@pytest.mark.parametrize("only", ["", "no-unshare"])
def test_all_kernels_have_what_some_selftest_needs(
        machine: Machine, monkeypatch: pytest.MonkeyPatch, only: str) -> None:
    """Also where another mutant is asked for, or each would have a build folder of its own."""
    needs = defect.load("thp-numa-notifier")
    assert needs.kernel.add and needs.kernel.options
    with_tests(monkeypatch, needs.show.selftests)
    kernel, plan = build.kernel, variant.plan
    options, added = [], []

    def built(*request: object) -> build.Kernel:
        options.append(tuple(map(str, request[-1])))            # type: ignore[call-overload]
        return kernel(*request)                                     # type: ignore[arg-type]

    def planned(source: Source, shown: defect.Defect, form: str, whole: bool) -> object:
        added.append(shown.kernel.add)
        # What one defect needs of the queue is not all that mutants break.
        assert whole
        return plan(source, shown, form, whole)

    monkeypatch.setattr(build, "kernel", built)
    monkeypatch.setattr(variant, "plan", planned)
    machine.run(only)
    assert len(options) == sum(word.startswith("build ") for word in machine.asked) > 1
    # Beside what that one needs, there is what others' tests do.
    assert len(set(options)) == 1 and set(needs.kernel.options) < set(options[0])
    own = {option for one in ALL for option in one.options}
    assert own and own <= set(options[0])
    assert added == [needs.kernel.add]


@pytest.mark.parametrize("witness", [True, False])
def test_the_kernels_own_check_is_in_all_that_are_booted(
        machine: Machine, monkeypatch: pytest.MonkeyPatch, witness: bool) -> None:
    kernel, options = build.kernel, []

    def built(*request: object) -> build.Kernel:
        options.append(set(map(str, request[-1])))                  # type: ignore[call-overload]
        return kernel(*request)                                     # type: ignore[arg-type]

    monkeypatch.setattr(build, "kernel", built)
    monkeypatch.setattr(unmapped, "added", lambda _source, one: variant.make(
        one.name, f"{one.how}, and the check", "+"))
    run = machine.run("flush-leaves-cpus-out", witness=witness)
    assert run.fixed.how.endswith("and the check") is witness
    assert len(options) == 2
    assert all(set(unmapped.OPTIONS) <= some for some in options) is witness
    assert len(machine.told) == 4
    assert all(("debug_vm_unmapped" in told) is witness and ("hugetlb_pmd_unmapped" in told)
               is witness for told in machine.told.values())


def test_selftests_that_need_another_guest_are_named(
        machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    with_tests(monkeypatch, ("thp_cow_isolation",))
    with pytest.raises(LabError, match=r"thp_cow_isolation cannot run in the same guest as the "
                       r"other selftests: .* differ in \[guest\]"):
        machine.run()
    assert not machine.asked


def test_a_person_sees_how_far_it_is(machine: Machine) -> None:
    said = io.StringIO()
    run = machine.run(told=said)
    numbers = re.findall(r"mutant (\d+) of (\d+), (\S+): about (\d+) min to go", said.getvalue())
    booted = [name for name, status in status_of(run).items() if status == "killed"]
    assert [int(number) for number, *_more in numbers] == list(range(1, len(booted) + 1))
    assert {total for _number, total, *_more in numbers} == {str(len(booted))}
    assert sorted(name for _number, _total, name, _left in numbers) == booted
    # Two boots of 9 s each, as the fixed kernel's; then as long as these stand-ins take.
    assert abs(int(numbers[0][3]) - 18 * len(booted) / 60) < 1 and numbers[-1][3] == "0"


def test_what_qemu_is_asked_for(machine: Machine) -> None:
    """Each mutant's own tests, and a folder for each boot."""
    machine.said.clear()
    run = machine.run("zap-flushes-own-range")
    assert status_of(run) == {"zap-flushes-own-range": "survived"}
    assert sorted(machine.told) == [
        "fixed/boot-01", "fixed/boot-02", "zap-flushes-own-range/boot-01",
        "zap-flushes-own-range/boot-02"]
    assert "lab.run=hugetlb_pmd_flush,hugetlb_pmd_unshare " in machine.told["zap-flushes-own-range/boot-01"]
    folder = Path(machine.report()["mutants"][0]["folder"])
    assert (folder / "variant.diff").read_text() == "zap-flushes-own-range"
    assert (folder.parent / "mutants.json").exists()


DEMOTED = "demoted-not-flushed"
FOR_IT = f"fixed-for-{DEMOTED}"


def test_a_guest_of_its_own_has_a_measure_of_its_own(machine: Machine) -> None:
    machine.run()
    assert machine.slow == {DEMOTED, FOR_IT}
    assert machine.booted.count(FOR_IT) == 2 and machine.booted[:2] == ["fixed"] * 2
    assert machine.booted.index(FOR_IT) < machine.booted.index(DEMOTED)
    for name, told in machine.told.items():
        own = name.startswith((DEMOTED, FOR_IT))
        assert ("lab.run=migrate_lost_write " in told and "lab.args=-t,demotion" in told) == own
    row = next(row for row in machine.report()["mutants"] if row["name"] == DEMOTED)
    assert row["measure"]["name"] == FOR_IT and len(row["measure"]["runs"]) == 2
    # And alone: no other guest is booted.
    machine.told.clear()
    machine.run(DEMOTED)
    assert {name.split("/")[0] for name in machine.told} == {FOR_IT, DEMOTED}


def test_a_measure_of_its_own_must_pass(machine: Machine) -> None:
    idle = "lab: start migrate_lost_write\n1..1\nok 1 a # SKIP no tier\n" \
           "lab: exit migrate_lost_write 4\nlab: done\n"
    machine.said[FOR_IT] = (idle, "")
    with pytest.raises(LabError, match="no test of migrate_lost_write passed: no tier"):
        machine.run(DEMOTED)
    assert DEMOTED not in machine.booted


def test_kernels_have_no_options_of_mutants_that_they_cannot_have(
        machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    kernel, options = build.kernel, []

    def built(*request: object) -> build.Kernel:
        options.append(set(map(str, request[-1])))              # type: ignore[call-overload]
        return kernel(*request)                                     # type: ignore[arg-type]

    monkeypatch.setattr(build, "kernel", built)
    machine.source = dataclasses.replace(machine.source, version="6.1.192")
    assert status_of(machine.run())[DEMOTED] == "not there"
    assert options and "CONFIG_ACPI_HMAT=y" not in set().union(*options)


# ---- a run that goes on where another ended ----


def test_an_interrupted_run_leaves_what_it_has(machine: Machine) -> None:
    # The fixed kernel, three mutants, and one that is half done.
    report = machine.interrupted(10)
    assert (report["whole"], report["passed"]) == (False, False)
    rows = {row["name"]: row["status"] for row in report["mutants"]}
    done = list(dict.fromkeys(machine.booted))[1:4]
    assert [name for name, status in rows.items() if status == "killed"] == sorted(done)
    assert rows["no-cache-flush"] == "not observable"
    left = sum(status == "not run" for status in rows.values())
    assert left == machine.rows[-1] > 3
    # Nothing before the fixed kernel has passed; then it is written anew after each mutant.
    assert machine.rows == [-1, -1, *(left + n for n in (3, 3, 2, 2, 1, 1, 0, 0))]
    with pytest.raises(LabError, match="did not come to its end: make mutants RESUME=1 goes on"):
        machine.recorded()


def test_a_run_goes_on_with_what_is_left(machine: Machine) -> None:
    machine.said["walk-stops-after-unshare"] = ("lab: start p\n1..2\nnot ok 1 p.a\n", WARNS)
    machine.interrupted(10)
    began = list(dict.fromkeys(machine.booted))
    run = machine.run(resume=True)
    assert run.whole and run.passed()
    # What was booted to its end is not booted again; what was not, is, and whole.
    assert not set(began[:4]) & set(machine.booted)
    assert machine.booted[:2] == [began[4]] * 2
    report = machine.report()
    old, new = "2026-01-02T01:00:00+00:00", "2026-01-02T02:00:00+00:00"
    assert report["started"] == new and report["measure"]["ran"] == old
    rows = {row["name"]: row for row in report["mutants"] if row["boots"]}
    assert {name for name, row in rows.items() if row["ran"] == old} == set(began[1:4])
    for row in rows.values():
        assert (row["status"], row["killed"], len(row["runs"])) == ("killed", 2, 2)
        assert Path(row["folder"]).is_dir() and ("20260102-01" in row["folder"]) == \
            (row["ran"] == old)
    told = mutants.summary(run, machine.out)
    assert told.count(f"booted in the run of {old}") == 3
    text = rst.mutants(machine.recorded())
    # The fixed kernel is booted once more for each that has a guest of its own.
    own = sum(mutant.load(name).guest is not None for name in rows)
    kernels = len(rows) + 1 + own
    assert own and f":Taken over: 4 of {kernels} kernels were booted in an earlier run, on " \
                   "2026-01-02\n" in text
    # And again: all of it, from whichever run it is.
    machine.run(resume=True)
    assert not machine.booted
    again = machine.report()
    kept = ("status", "by", "ran", "folder", "runs", "identity")
    assert [[row[key] for key in kept] for row in again["mutants"]] == \
        [[row[key] for key in kept] for row in report["mutants"]]
    # Not unless asked to.
    machine.run()
    assert len(machine.booted) == kernels * 2


@pytest.mark.parametrize(("place", "name", "other"), [
    (qemu, "version", lambda _arch: "QEMU 7.3"), (qemu, "CPUS", 8),
    (qemu, "choose_accel", lambda *_: "kvm"), (None, "boots", 3), (None, "timeout", 7),
    (None, "image_sha256", "2"), (None, "initrd", "another init"), (None, "ktap.log", None)],
    ids=lambda value: value if isinstance(value, str) else "")
def test_nothing_is_taken_over_that_differs(machine: Machine, monkeypatch: pytest.MonkeyPatch,
                                            place: object, name: str, other: Any) -> None:
    machine.run()
    whole = machine.booted
    changes = {name: other} if name in ("boots", "timeout") else {}
    if place:
        monkeypatch.setattr(place, name, other)
    elif name in machine.identity:
        machine.identity[name] = other
    elif name == "initrd":
        (machine.folder / name).write_text(other)
    elif not changes:
        for log in machine.out.glob(f"*/*/boot-02/{name}"):
            log.unlink()
    machine.run(resume=True, **changes)
    assert set(machine.booted) >= set(whole)
    assert len(machine.booted) >= len(whole)


def test_one_kernel_that_differs_is_booted_alone(machine: Machine,
                                                 monkeypatch: pytest.MonkeyPatch) -> None:
    machine.run()
    make = mutants.make

    def another(source: Source, fixed: variant.Variant, one: mutant.Mutant
                ) -> variant.Variant | None:
        made = make(source, fixed, one)
        return variant.make(one.name, "", "other") if made and one.name == "no-unshare" else made

    monkeypatch.setattr(mutants, "make", another)
    machine.run(resume=True)
    assert machine.booted == ["no-unshare"] * 2


def test_what_gave_no_result_is_booted_again(machine: Machine) -> None:
    machine.said["seed-loop"] = (STUCK, "")
    assert status_of(machine.run())["seed-loop"] == "no result"
    machine.said["seed-loop"] = EVERY_ONE["seed-loop"]
    assert status_of(machine.run(resume=True))["seed-loop"] == "killed"
    assert machine.booted == ["seed-loop"] * 2


def test_the_logs_are_believed_and_not_the_report(machine: Machine) -> None:
    del machine.said["seed-loop"]
    machine.run()
    for path in machine.out.rglob("mutants.json"):
        path.write_text(path.read_text().replace('"survived"', '"killed"'))
    run = machine.run(resume=True)
    assert status_of(run)["seed-loop"] == "survived" and not machine.booted


def test_a_report_that_cannot_be_read_is_no_obstacle(machine: Machine) -> None:
    machine.run()
    whole = machine.booted
    for path in machine.out.glob("*/mutants.json"):
        path.write_text("{")
    machine.run(resume=True)
    assert machine.booted == whole


def test_the_report_and_the_record(machine: Machine) -> None:
    machine.said["no-tlb-flush"] = (STUCK, BUG)
    del machine.said["seed-loop"]
    machine.run()
    report = machine.report()
    assert (report["boots"], report["whole"], report["passed"]) == (2, True, False)
    rows = {row["name"]: row for row in report["mutants"]}
    assert list(rows) == mutant.names()
    assert rows["no-tlb-flush"]["by"] == ["the kernel (BUG)"]
    assert rows["no-tlb-flush"]["complaint"] == BUG.strip()
    assert (rows["no-unshare"]["killed"], rows["no-unshare"]["boots"]) == (2, 2)
    assert rows["no-unshare"]["runs"][0]["failed_tests"] == {"p": ["p.a"]}
    assert rows["seed-loop"]["killed"] == 0

    path = record.write_mutants(machine.out, machine.folder / "docs")
    told = record.read(path)
    assert (path.parent.name, path.name) == ("mutants", "6.12.117.json")
    assert not {"runs", "identity", "folder"} & set(told["mutants"][0]) and "measure" not in told
    assert told["provenance"]["series"] == [] and told["provenance"]["queue"]
    assert record.stale_mutants(told) == ""
    text = rst.mutants(told)
    assert "``make mutants KERNEL=/path/to/6.12.117``" in text and "/home/" not in text
    assert re.search(r"(?m)^no-unshare +killed +2 of 2 p\.a +- +LOST_WRITE$", text)
    assert re.search(r"(?m)^no-tlb-flush +killed +\d of 2 - +BUG +\w+$", text)
    assert re.search(r"(?m)^seed-loop +survived +0 of 2 - +- +-$", text)
    assert re.search(r"(?m)^no-cache-flush +not observable +- +- +- +-$", text)
    assert "``kernel BUG at mm/hugetlb.c:1213!``" in " ".join(text.split())
    for one in ALL:
        assert f"\n{one.name}\n    {one.breaks[:1].upper()}{one.breaks[1:9]}" in text
    for line in text.split("What they break")[1].splitlines():
        assert len(line) <= 80


def test_a_report_of_before_boots_could_be_taken_over_is_recorded(machine: Machine) -> None:
    machine.run()
    report = machine.report()
    for key in ("measure", "taken_over", "provenance"):
        del report[key]
    for row in report["mutants"]:
        del row["ran"], row["identity"]
    text = rst.mutants(machine.recorded())
    (machine.out / "mutants.json").write_text(json.dumps(report))
    old = rst.mutants(machine.recorded())
    assert "Taken over" not in old and "**Stale**" in old and "**Stale**" not in text
    assert old.split("=====\n")[-1] == text.split("=====\n")[-1]


def test_a_record_of_other_mutants_is_stale(
        machine: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    machine.run()
    told = machine.recorded()
    shutil.copytree(mutant.MUTANTS, tmp_path / "lab" / "mutants")
    monkeypatch.setattr(record, "HOME", tmp_path / "lab")
    assert record.stale_mutants(told) == ""
    (tmp_path / "lab" / "mutants" / "new.cocci").write_text("@@\n")
    assert record.stale_mutants(told) == "the patches or rules have changed since"


def test_mutants_of_another_form_are_a_record_of_their_own(machine: Machine) -> None:
    machine.run()
    usual = machine.recorded()
    report = machine.report() | {"command": "make mutants BASE=6.12 FORM=flush"}
    (machine.out / "mutants.json").write_text(json.dumps(report))
    path = record.write_mutants(machine.out, machine.folder / "docs")
    assert path.name == "6.12.117-flush.json"
    assert "\nmutants: 6.12.117, FORM=flush\n" in rst.mutants(record.read(path))
    assert record.read(path.with_name("6.12.117.json")) == usual


def test_a_single_mutant_is_not_recorded(machine: Machine) -> None:
    machine.run("no-unshare")
    with pytest.raises(LabError, match="of one mutant only"):
        machine.recorded()


@pytest.mark.parametrize(("words", "says"), [
    (("MUTANT=nonesuch",), "no mutant nonesuch: there are"),
    (("DEFECT=pmd-share-flush",), "DEFECT= means nothing to mutants: each names its own"),
    (("TESTS=-l",), "TESTS= means nothing to mutants: each names its own"),
    (("BOOTS=0",), "BOOTS=0: a whole number"),
    (("RESUME=yes",), "RESUME=yes: 0 or 1"),
    (("BASE=3.0",), "no base 3.0"),
])
def test_bad_input_is_one_line(tmp_path: Path, words: tuple[str, ...], says: str) -> None:
    assert says in refused("mutants", f"OUT={tmp_path}/out", *words,
                           LAB_CACHE=str(tmp_path / "cache"))
