# SPDX-License-Identifier: GPL-2.0
"""make audit: right on every base before and after its queue, and on the vulnerable variants.

Trees are cut down to the files that the audit reads.
"""

import dataclasses
import functools
import json
import re
import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from conftest import FULL, debian_files, make, refused, taken
from test_queue import released_tree
from trees import apply, fill, some

from lab import arch, defect, readings
from lab.base import for_version, load, names
from lab.errors import LabError
from lab.kernel import kconfig, variant
from lab.kernel.source import Source
from lab.paths import REPO
from lab.verbs import audit

ALL = [defect.load(name) for name in defect.names()]
FILES = sorted({name for one in ALL for part in (one.audit, one.revert) if part
                for name in part.files}
               | {"Makefile", *kconfig.KCONFIGS})
DEBIAN = [name for name in names() if load(name).package]
RELEASED = [name for name in names() if not load(name).package]


def cut_down(tree: Path, dest: Path, more: set[str]) -> Path:
    """The files of `tree` that matter."""
    return some(tree, dest, [name for name in {*FILES, *more} if (tree / name).exists()])


@pytest.fixture(scope="module")
def debians(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Of Debian's source of a base, as it is packed, the same; not to be changed."""
    @functools.cache
    def unpacked(base: str) -> Path:
        return cut_down(debian_files(base), tmp_path_factory.mktemp("debian"),
                        patched_files(base))

    return unpacked


def status(tree: Path) -> dict[str, str]:
    return {one.defect: one.status for one in audit.audit(tree)[1]}


def patched_files(base: str) -> set[str]:
    return {name for patch in variant.series(base)
            for name in re.findall(r"(?m)^--- a/(.+)$", patch.read_text(encoding="utf-8"))}


def changed(tree: Path, copy: Path, diff: str) -> Path:
    """A copy of the cut down `tree` with a diff applied."""
    shutil.copytree(tree, copy)
    if diff:
        apply(copy, "-", diff=diff)
    return copy


def check_variants(source: Source, folder: Path, at_least: int,
                   known: dict[str, dict[str, str]]) -> None:
    """The rules tell apart the two variants of all defects that the lab can make them for.

    What they say of some of these trees, by their diffs, is known.
    """
    def made(one: defect.Defect) -> bool:
        try:
            plan = variant.plan(source, one)
        except LabError:
            return False
        for state in plan:
            if state.diff in known:
                said = known[state.diff][one.name]
            else:
                copy = changed(source.tree, folder / f"{one.name}-{state.name}", state.diff)
                said = audit.look(copy, source.version, one).status
            # A fix may be of a form that leaves nothing to be protected.
            want = {audit.VULNERABLE} if state.name == "vulnerable" else \
                {audit.PROTECTED, audit.NOT_AFFECTED} if one.queue.form or "/series." in state.how \
                else {audit.PROTECTED}
            assert said in want, f"{one.name}, the {state.name} variant of {source.base.name}"
        return True

    # spatch has one thread.
    with ThreadPoolExecutor(max_workers=2) as pool:
        assert sum(pool.map(made, ALL)) >= at_least


# What the code says, as read by hand.
READ = readings.load()
LETTER = {audit.VULNERABLE: readings.VULNERABLE, audit.PROTECTED: readings.PROTECTED,
          audit.NOT_AFFECTED: readings.NOT_AFFECTED, audit.UNKNOWN: "?"}


def test_a_queue_leaves_nothing_open_but_what_is_only_slow() -> None:
    """What is left in 2.6.34 is not to be mended there."""
    for name, row in READ.items():
        if not name.startswith("2.6."):
            assert not [column for column, letter in row.queue.items()
                        if letter == readings.VULNERABLE and not defect.load(column).only_slow], name


def check_read(tree: Path, base: str, folder: Path, at_least: int, fixed: str = "") -> None:
    """The rules say of a tree, before and after its queue, what reading it says; and of the
    variants of `at_least` defects, if any, which of the two each is.  A tree that has the fix of
    the defect `fixed` already does not get it from its queue."""
    def letters(said: dict[str, str]) -> dict[str, str]:
        return {name: LETTER[status] for name, status in said.items()}

    known = {"": status(tree)}
    protected = {fixed: readings.PROTECTED} if fixed else {}
    assert letters(known[""]) == READ[base].released | protected
    source = taken(Source(load(base), "1.2.3", {}, "k", tree), folder / "work")
    if queue := variant.series(base):
        if fixed:
            theirs = variant.mending(queue, defect.load(fixed))
            queue = [patch for patch in queue if patch not in theirs]
        diff = variant.queue_diff(source, queue)
        known[diff] = status(changed(tree, folder / "queue", diff))
        assert letters(known[diff]) == READ[base].queue
    if at_least:
        check_variants(source, folder, at_least, known)


@pytest.mark.parametrize("base", DEBIAN)
def test_debians(base: str, debians: Callable[[str], Path], tmp_path: Path) -> None:
    """The variants of 6.1 with FULL=1: of a newer and of an older kernel they are made each time,
    by the same rules."""
    # What thp-numa-notifier is about is gone from 5.13, and the protection of pmd-share-split is whole
    # from 6.4.
    known = len([one for one in ALL if one.revert]) - (base != "5.10") - (base in ("5.10", "6.1"))
    check_read(debians(base), base, tmp_path, known if base != "6.1" or FULL else 0)


@pytest.mark.parametrize("base", RELEASED)
def test_released(base: str, tmp_path: Path) -> None:
    tree = cut_down(released_tree(base), tmp_path / "linux", patched_files(base))
    check_read(tree, base, tmp_path, 1 if base == "2.6.34" else 3)


# Releases for which nothing but the queue of their branch is needed, though it was made for another:
# with a defect that they have fixed, and that it fixes too.
@pytest.mark.parametrize("release, base, fixed", [("5.4.301", "5.4", "hugetlb-punch-migrate")])
def test_another_release(release: str, base: str, fixed: str, tmp_path: Path) -> None:
    assert for_version(release).name == base
    tree = cut_down(released_tree(release), tmp_path / "linux", patched_files(base))
    check_read(tree, base, tmp_path, 0, fixed)


MMAP, VMA, HUGETLB, RMAP = "mm/mmap.c", "mm/vma.c", "mm/hugetlb.c", "mm/rmap.c"
MREMAP = "mm/mremap.c"
TLB, HEADER, POLICY = "include/asm-generic/tlb.h", "include/linux/hugetlb.h", "mm/mempolicy.c"
MIGRATE, INODE, GATHER = "mm/migrate.c", "fs/hugetlbfs/inode.c", "mm/mmu_gather.c"
ARM64 = "arch/arm64/include/asm/tlb.h"
PENDING = "atomic_inc(&mm->tlb_flush_pending);\n\t/*"
HEARS = "\t\t\t\tstruct folio *folio)\n{\n\treturn 0;\n}"
GATHERS = "tlb_gather_mmu_vma(&tlb, vma%s);\n\n\tmmu_notifier_invalidate_range_start(&range);\n\t%s"
GATHERS_5_10 = GATHERS % (", range.start, range.end",
                          "i_mmap_lock_write(vma->vm_file->f_mapping);\n\tfor (; address")
GATHERS_6_12 = GATHERS % ("", "hugetlb_vma_lock_write(vma);\n\ti_mmap_lock_write(vma->vm_file->"
                          "f_mapping);\n\tlast_addr_mask")
LOOK = "vmf.pte = huge_pte_alloc("
FAULT = f"hugetlb_vma_lock_read(vma);\n\t{LOOK}"
NOTES = "tlb_unshare_pmd_ptdesc(tlb, virt_to_ptdesc(ptep), addr);"
SYNC = "tlb_remove_table_sync_one();"
EITHER = "(tlb->freed_tables || tlb->unshared_tables)"
LAST = f"bool last_level = !{EITHER};"
MPROTECT, FAILURE = "mm/mprotect.c", "mm/memory-failure.c"
IN_HUGETLB = "hugetlb_change_protection(vma, start, end, &newflags,"
LOCKED = "i_mmap_lock_write(vma->vm_file->f_mapping);\n"
UNLOCKED = LOCKED.replace("_lock_", "_unlock_")
TAKES = "clear_vma_resv_huge_pages(vma);\n"
ALLOC = "GFP_KERNEL | __GFP_NOFAIL);\n\tkref_init(&vma_lock->refs);"
TRY_LOCK = ("\nstruct address_space *hugetlb_folio_mapping_lock_write(struct folio *folio)\n{\n"
            "\treturn NULL;\n}\n\n")
MOVE_HUGE = ("static int unmap_and_move_huge_page(new_folio_t get_new_folio,\n"
             "\t\tfree_folio_t put_new_folio, unsigned long private,\n"
             "\t\tstruct folio *src, int force, enum migrate_mode mode,\n"
             "\t\tint reason, struct list_head *ret)\n{\n")
UNMAP_BAD = ("int unmap_poisoned_folio(struct folio *folio, unsigned long pfn, bool must_kill)\n"
             "{\n")
BEGINS = "\t/* If range starts before first full page, zero partial page. */\n"
ENDS = "\t/* If range extends beyond last full page, zero partial page. */\n"
ASKS, ASKS_5_10 = "if (unlikely(folio_mapped(folio)))", "if (unlikely(page_mapped(page))) {"
SKIPS = "if (%s) {\n\t\t\told_addr %s;\n\t\t\tnew_addr %s;"
STEPS, MASKS = ["+= offset_to_last_entry"] * 2, ["|= last_addr_mask"] * 2
MOVES = "%s move_hugetlb_page_tables("
UNLOCK_HEAD = "\tunlock_page(head);\n"
LOCK_FILE = "\tif (inode)\n\t\ti_mmap_lock_write(mapping);\n"
JOINED = "huge_pmd_unshare(&tlb, vma, old_addr, src_pte)"
TOLD = "\thugetlb_sharers_notify(folio, true);\n"
WALKED, FLUSHED = "\trmap_walk_locked(folio, rwc);\n", "\thugetlb_sharers_flush(folio);\n"
# The defect, Debian's tree that is protected, a file of it, and what is changed there.  Where no
# release is protected, the tree has a series of its queue applied.
TAKEN_OUT = [
    ("hugetlb-truncate-fault", "7.3 and series", INODE,
     "\thugetlb_wait_for_faults(mapping, offset >> huge_page_shift(h),\n"
     "\t\t\t\tround_up(size, huge_page_size(h)) >>\n"
     "\t\t\t\thuge_page_shift(h));\n", ""),
    ("hugetlb-truncate-fault", "6.12 and series", HUGETLB,
     "if (hugetlb_past_end(h, mapping, vmf.pgoff))", "if (!mapping)"),
    ("hugetlb-truncate-fault", "7.3 and series", HUGETLB,
     "if (hugetlb_past_end(h, mapping, idx))", "if (!mapping)"),
    *(("hugetlb-fork-shared", base, HUGETLB, old, "dst_pte == src_pte") for base, old in (
        ("7.3", "ptdesc_pmd_is_shared(virt_to_ptdesc(dst_pte))"),
        ("5.10", "atomic_read(&virt_to_page(dst_pte)->pt_share_count)"))),
    ("hugetlb-fork-sizes", "7.3 and series", HUGETLB, "if (sz == PMD_SIZE &&\n\t\t    ptdesc", "if (ptdesc"),
    ("hugetlb-punch-poison", "7.3 and series", INODE, BEGINS, f"\ti_mmap_lock_write(mapping);\n{BEGINS}"),
    ("hugetlb-punch-poison", "6.1 and series", INODE, ENDS, f"\ti_mmap_lock_write(mapping);\n{ENDS}"),
    *(("hugetlb-punch-migrate", base, INODE, f"folio_lock(folio);\n\t{ASKS}", ASKS)
      for base in ("7.3", "6.12", "6.1")),
    ("hugetlb-punch-migrate", "5.10", INODE, f"lock_page(page);\n\t\t\t{ASKS_5_10}", ASKS_5_10),
    # The lock is taken by nobody, or with the page locked.
    *(("hugetlb-fault-poison", "5.10 and series", FAILURE, f"{UNLOCK_HEAD}{LOCK_FILE}",
       instead) for instead in (UNLOCK_HEAD, LOCK_FILE)),
    ("hugetlb-fault-poison", "5.10 and series", FAILURE,
     "\tif (!PageHuge(page))\n\t\ti_mmap_lock_read(mapping);", "\ti_mmap_lock_read(mapping);"),
    ("hugetlb-truncate-fault", "6.12 and series", INODE,
     "if (!locked && (end || (vma->vm_flags & VM_MAYSHARE)))", "if (!locked)"),
    ("pmd-share-uffd-poison", "7.3 and series", HUGETLB,
     "if (spte && has_poison_marker(svma, saddr, spte))", "if (spte && !svma)"),
    *(("pmd-share-uffd-poison", f"{base} and series", HUGETLB,
       "dst_pte = hugetlb_own_pte(dst_vma, dst_addr);", "hugetlb_vma_assert_locked(dst_vma);")
      for base in ("6.12", "7.3")),
    ("hugetlb-mremap-astray", "7.3", HUGETLB, SKIPS % ("!src_pte", *STEPS),
     SKIPS % ("!src_pte", *MASKS)),
    ("hugetlb-mremap-astray", "6.1", HUGETLB, SKIPS % (JOINED, *STEPS), SKIPS % (JOINED, *MASKS)),
    # One of the two goes too far.
    ("hugetlb-mremap-astray", "6.12", HUGETLB, SKIPS % (JOINED, *STEPS),
     SKIPS % (JOINED, STEPS[0], "+= last_addr_mask")),
    *(("hugetlb-mremap-large", f"{base} and series", HUGETLB, MOVES % "unsigned long", MOVES % kind)
      for base, kind in (("7.3", "int"), ("6.12", "unsigned int"), ("6.1", "int"))),
    ("hugetlb-mremap-private", "7.3", HUGETLB, f"{LOCKED}\t{TAKES}", TAKES),
    # It is released too early, and not held for writing.
    ("hugetlb-mremap-private", "7.3", HUGETLB, f"\t{TAKES}\t{UNLOCKED}", f"\t{UNLOCKED}\t{TAKES}"),
    ("hugetlb-mremap-private", "6.12 and series", MREMAP, f"{LOCKED}\t\t{TAKES}",
     f"{LOCKED.replace('write', 'read')}\t\t{TAKES}"),
    ("hugetlb-mremap-private", "6.1 and series", MREMAP, f"{LOCKED}\t\t{TAKES}", TAKES),
    *(("pmd-share-gather-range", f"{base} and series", TLB, "unsigned long range_size)",
       f"{kind} range_size)") for base, kind in
      (("7.3", "unsigned int"), ("6.12", "int"), ("5.10", "u32"))),
    ("pmd-share-split", "7.3", VMA, "hugetlb_split(vma, addr);", "vma_assert_write_locked(vma);"),
    ("pmd-share-split", "6.12", VMA, "\tvma_prepare(&vp);\n\n\t/*\n\t * Get rid",
     "\thugetlb_split(vma, addr);\n\tvma_prepare(&vp);\n\n\t/*\n\t * Get rid"),
    ("pmd-share-split", "6.12", HUGETLB, "hugetlb_unshare_pmds(vma, floor, ceil, /* take_locks = "
     "*/ false);", "floor = ceil;"),
    ("pmd-share-range", "6.12", HUGETLB, "*end = ALIGN(*end, PUD_SIZE);", "*end = v_end - 1;"),
    ("pmd-share-range", "5.10", HUGETLB, "*start = ALIGN_DOWN(*start, PUD_SIZE);", "return;"),
    ("pmd-share-move-all", "7.3", POLICY, " && !hugetlb_pmd_shared(pte)", ""),
    ("pmd-share-move-all", "5.10", POLICY, " &&\n\t     !hugetlb_pmd_shared(pte)", ""),
    ("pmd-share-move-all", "6.12", HEADER, "return ptdesc_pmd_is_shared(virt_to_ptdesc(pte));",
     "return page_count(virt_to_page(pte)) > 1;"),
    ("pmd-share-fault", "7.3", HUGETLB, FAULT, LOOK),
    ("pmd-share-fault", "6.12", RMAP, "if (!hugetlb_vma_trylock_write(vma)) {", "if (!vma) {"),
    ("pmd-share-fault", "5.10", HUGETLB, "i_mmap_lock_read(mapping);\n\tptep = huge_pte_alloc(mm, "
     "haddr", "ptep = huge_pte_alloc(mm, haddr"),
    ("pmd-share-fault", "5.10", "mm/migrate.c", "hugetlb_page_mapping_lock_write(hpage)",
     "page_mapping(hpage)"),
    ("pmd-share-count", "6.12", HUGETLB, "ptdesc_pmd_pts_inc(virt_to_ptdesc(spte));",
     "get_page(virt_to_page(spte));"),
    ("pmd-share-gup", "7.3", TLB, SYNC + "\n\t\ttlb->", "tlb->"),
    ("pmd-share-gup", "6.12", HUGETLB, "\ttlb_flush_unshared_tables(tlb);\n", ""),
    ("pmd-share-gup", "6.12", HUGETLB, NOTES, "ptdesc_pmd_pts_dec(virt_to_ptdesc(ptep));"),
    ("pmd-share-gup", "6.1", HUGETLB, "tlb_end_vma(tlb, vma);\n\n\thuge_pmd_unshare_flush("
     "tlb, vma);", "tlb_end_vma(tlb, vma);"),
    ("pmd-share-gup", "7.3", RMAP, "hugetlb_vma_unlock_write(vma);\n\t\t\thuge_pmd_unshare_flush("
     "&tlb, vma);", "hugetlb_vma_unlock_write(vma);"),
    ("hugetlb-subpool", "7.3", INODE, "hugetlb_set_folio_subpool(dst,\n\t\t\t\t\t"
     "hugetlb_folio_subpool(src));", "hugetlb_set_folio_subpool(dst, NULL);"),
    ("hugetlb-subpool", "6.1", MIGRATE, "if (hugetlb_page_subpool(hpage) && !folio_mapping(src)) {",
     "if (!folio_ref_count(src)) {"),
    ("hugetlb-poison-read", "6.12", INODE, HEARS, HEARS.replace("return", "filemap_remove_folio("
     "folio);\n\treturn")),
    ("hugetlb-poison-read", "6.1", INODE, "if (PageHWPoison(page)) {", "if (!page) {"),
    ("thp-numa-pending", "5.10", "include/linux/mm_types.h", PENDING,
     "atomic_set(&mm->tlb_flush_pending, 1);\n\t/*"),
    ("thp-numa-pending", "6.12", "include/linux/mm_inline.h", PENDING,
     "WRITE_ONCE(mm->tlb_flush_pending, true);\n\t/*"),
    ("hugetlb-mprotect-pending", "7.3", GATHER, "inc_tlb_flush_pending(tlb->mm);", "tlb->end = 0;"),
    ("hugetlb-mprotect-pending", "5.10", HUGETLB, GATHERS_5_10, GATHERS_5_10.split(";", 1)[1]),
    ("pmd-share-arm64-flush", "7.3", ARM64, EITHER, "tlb->freed_tables"),
    ("pmd-share-arm64-flush", "6.12", ARM64, LAST, "bool last_level = !tlb->freed_tables;"),
    # That is not where it matters.
    ("pmd-share-arm64-flush", "5.10", ARM64, LAST, "bool last_level = !tlb->freed_tables;\n\n"
     "\tif (tlb->fullmm) {\n\t\tlast_level = !tlb->unshared_tables;\n\t}"),
    ("pmd-share-protect", "6.12 and series", HUGETLB, f"{LOCKED}\tif (newflags) {{",
     "if (newflags) {"),
    # After that is too late.
    ("pmd-share-protect", "7.3 and series", HUGETLB, f"{LOCKED}\tif (newflags) {{",
     f"vm_flags_reset(vma, 0);\n\t{LOCKED}\tif (newflags) {{"),
    ("pmd-share-protect", "6.12 and series", MPROTECT, IN_HUGETLB,
     "change_protection(vma, start, end, &newflags,"),
    ("pmd-share-protect", "5.10 and series", MPROTECT, f"{LOCKED}\t}}\n\tvma->vm_flags = newflags;",
     f"vma->vm_flags = newflags;\n\t\t{LOCKED}\t}}"),
    ("pmd-share-no-lock", "6.1 and series", HUGETLB, ALLOC, ALLOC.replace(" | __GFP_NOFAIL", "")),
    ("pmd-share-no-lock", "7.3 and series", HUGETLB, f", {ALLOC}", ALLOC[ALLOC.index(")"):]),
    ("pmd-share-busy", "6.12 and series.flush", MIGRATE, MOVE_HUGE, f"{TRY_LOCK}{MOVE_HUGE}"
     "\tstruct address_space *mapping = hugetlb_folio_mapping_lock_write(src);\n"),
    ("pmd-share-busy", "7.3 and series.flush", FAILURE, UNMAP_BAD, f"{TRY_LOCK}{UNMAP_BAD}"
     "\tstruct address_space *mapping = hugetlb_folio_mapping_lock_write(folio);\n"),
    ("pmd-share-migrate", "6.12 and series.flush", RMAP, WALKED + FLUSHED, WALKED),
    ("pmd-share-migrate", "7.3 and series.flush", RMAP, WALKED + FLUSHED, FLUSHED + WALKED),
    ("pmd-share-notifier", "6.12 and series.flush", RMAP, TOLD + WALKED, WALKED + TOLD),
    ("pmd-share-notifier", "7.3 and series.flush", RMAP, TOLD + WALKED, WALKED),
]
# Other ways to protect.
PUT_IN = [
    ("hugetlb-punch-poison", "6.12", INODE, f"\ti_mmap_lock_write(mapping);\n\n{BEGINS}", BEGINS),
    # As it was, and the new address is made of the old one.
    ("hugetlb-mremap-astray", "6.12", HUGETLB, SKIPS % ("!src_pte", *STEPS),
     SKIPS % ("!src_pte", MASKS[0], "= old_addr + delta")),
    ("hugetlb-mremap-large", "7.3", HUGETLB, MOVES % "\nint", MOVES % "\nlong"),
    ("hugetlb-mremap-private", "6.12", MREMAP, f"{{\n\t\t{TAKES}",
     f"{{\n\t\t{LOCKED}\t\t{TAKES}\t\t{UNLOCKED}"),
    # With the look at the VMA within the lock.
    ("hugetlb-mremap-private", "6.1", MREMAP, f"if (is_vm_hugetlb_page(vma)) {{\n\t\t{TAKES}\t}}\n",
     f"{LOCKED}\tif (is_vm_hugetlb_page(vma))\n\t\t{TAKES}\t{UNLOCKED}"),
    ("hugetlb-mremap-large", "6.1", HUGETLB, MOVES % "\nint", MOVES % "\nsize_t"),
    ("pmd-share-move-pages", "6.12", MIGRATE, "if (folio_likely_mapped_shared(folio) &&",
     "if ((folio_likely_mapped_shared(folio) || hugetlb_pmd_shared(ptep)) &&"),
    ("pmd-share-move-pages", "7.3", MIGRATE, "if (folio_maybe_mapped_shared(folio) &&",
     "if ((folio_maybe_mapped_shared(folio) || walk_pmd_shared(fw)) &&"),
    ("pmd-share-move-pages", "5.10", MIGRATE, "if (page_mapcount(page) > 1 && !migrate_all)",
     "if (page_mapcount(page) + page_count(virt_to_page(ptep)) > 2 && !migrate_all)"),
    ("pmd-share-range", "6.12", HUGETLB, "*end = ALIGN(*end, PUD_SIZE);",
     "*end = round_up(*end, PUD_SIZE);"),
    # As it was before there was a lock of the VMA: a migration has that of the mapping for writing.
    ("pmd-share-fault", "6.12", HUGETLB, FAULT, f"i_mmap_lock_read(mapping);\n\t{LOOK}"),
    # As 6.16 had it.
    ("pmd-share-gup", "6.12", HUGETLB, NOTES,
     f"{SYNC}\n\tptdesc_pmd_pts_dec(virt_to_ptdesc(ptep));"),
    ("hugetlb-mprotect-pending", "5.10", HUGETLB, GATHERS_5_10,
     "inc_tlb_flush_pending(mm);" + GATHERS_5_10.split(";", 1)[1]),
    # Who calls it gathers.
    ("hugetlb-mprotect-pending", "6.12", HUGETLB, GATHERS_6_12, GATHERS_6_12.split(";", 1)[1]),
    # The split is refused.
    ("pmd-share-no-lock", "7.3", VMA, "new->vm_ops->open(new);\n\n\tvma_start_write(vma);",
     "new->vm_ops->open(new);\n\tif (!__vma_shareable_lock(new))\n\t\treturn err;\n"),
    ("hugetlb-poison-read", "6.12", INODE, "if (!folio_test_hwpoison(folio))",
     "if (!folio_contain_hwpoisoned_page(folio))"),
    ("pmd-share-arm64-flush", "6.1", ARM64, LAST,
     "bool last_level = !tlb->freed_tables;\n\n\tif (tlb->unshared_tables)\n\t\tlast_level = false;"),
    ("pmd-share-arm64-flush", "6.12", ARM64, LAST, "bool last_level = false;"),
]


def edited(tree: Path, folder: Path, file: str, old: str, new: str) -> Path:
    """A copy of the cut down `tree` with a text in one file replaced."""
    shutil.copytree(tree, folder)
    text = (tree / file).read_text(encoding="utf-8")
    assert text.count(old) == 1, f"{text.count(old)} times in {file}: {old}"
    (folder / file).write_text(text.replace(old, new), encoding="utf-8")
    return folder


def look(tree: Path, name: str) -> audit.Finding:
    return audit.look(tree, "1.2.3", defect.load(name))


class Protected:
    """The trees that rows of TAKEN_OUT begin with, not to be changed, and what is said of them."""

    def __init__(self, debians: Callable[[str], Path], folder: Path) -> None:
        self._debians, self._folder = debians, folder

    @functools.cache
    def tree(self, state: str) -> Path:
        base, _, form = state.partition(" and ")
        tree = self._debians(base)
        if not form:
            return tree
        folder = self._folder / state.replace(" ", "-")
        source = taken(Source(load(base), "1.2.3", {}, "k", tree), folder / "work", ("*",))
        return changed(tree, folder / "linux",
                       variant.queue_diff(source, variant.series(base, form)))

    @functools.cache
    def status(self, state: str, name: str) -> str:
        return look(self.tree(state), name).status


@pytest.fixture(scope="module")
def protected(debians: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory
              ) -> Protected:
    return Protected(debians, tmp_path_factory.mktemp("protected"))


Row = tuple[str, str, str, str, str]


def ids(edits: list[Row]) -> list[str]:
    return [" ".join(one[:3]) for one in edits]


@pytest.mark.parametrize("name, base, file, old, new", TAKEN_OUT, ids=ids(TAKEN_OUT))
def test_protection_that_is_taken_out_is_missed(
        name: str, base: str, file: str, old: str, new: str, protected: Protected, tmp_path: Path
        ) -> None:
    assert protected.status(base, name) in (audit.PROTECTED, audit.NOT_AFFECTED)
    found = look(edited(protected.tree(base), tmp_path / "linux", file, old, new), name)
    assert found.status == audit.VULNERABLE, found
    assert found.places


@pytest.mark.parametrize("name, base, file, old, new", PUT_IN, ids=ids(PUT_IN))
def test_other_protection_is_seen(
        name: str, base: str, file: str, old: str, new: str, debians: Callable[[str], Path],
        tmp_path: Path) -> None:
    tree = edited(debians(base), tmp_path / "linux", file, old, new)
    assert look(tree, name).status == audit.PROTECTED


def test_what_another_architecture_has_to_protect_does_not_count(
        debians: Callable[[str], Path], tmp_path: Path) -> None:
    """And only that: what is there on one of them may be a macro on the other."""
    name, tree = "pmd-share-arm64-flush", debians("7.3")
    old = edited(tree, tmp_path / "linux", ARM64, EITHER, "tlb->freed_tables")

    def status(tree: Path, name: str, row: str) -> str:
        return audit.look(tree, "1.2.3", defect.load(name), arch.load(row)).status

    assert [status(one, name, "arm64") for one in (tree, old)] == [
        audit.PROTECTED, audit.VULNERABLE]
    assert [status(one, name, "x86_64") for one in (tree, old)] == [audit.NOT_AFFECTED] * 2
    # Its pte_accessible() is that of x86 for the rules, and arm64 has one, too.
    pending = "hugetlb-mprotect-pending"
    assert {status(tree, pending, row) for row in arch.names()} == {look(tree, pending).status}


MESS = "if (vma) {{{ ) (;\n\t"


def often(edits: list[Row]) -> list[object]:
    """One of each defect; the others with FULL=1."""
    one_of = {row[0]: row for row in edits}
    return [row if row is one_of[row[0]] else pytest.param(*row, marks=pytest.mark.skipif(
        not FULL, reason="another place or kernel of the same defect: with FULL=1"))
            for row in edits]


@pytest.mark.parametrize("name, base, file, old, new", often(TAKEN_OUT), ids=ids(TAKEN_OUT))
def test_a_mess_is_unknown(name: str, base: str, file: str, old: str, new: str,
                           protected: Protected, tmp_path: Path) -> None:
    whole = protected.tree(base)
    for state, text in (("protected", old), ("taken out", new)):
        tree = edited(whole, tmp_path / state, file, old, text if old.endswith("(") else MESS + text)
        if old.endswith("("):
            # The head of a function: before it the mess would be no part of it.
            path = tree / file
            before, head, rest = path.read_text(encoding="utf-8").partition(text)
            path.write_text(before + head + rest.replace("{\n", "{\n" + MESS, 1), encoding="utf-8")
        found = look(tree, name)
        if protected.status(base, name) == audit.NOT_AFFECTED:
            # It has to do without a function, and a mess hides no function's name.
            assert found.status == (audit.NOT_AFFECTED if text == old else audit.VULNERABLE)
            continue
        assert found.status == audit.UNKNOWN, found
        assert "cannot parse" in found.why


@pytest.mark.parametrize("base", ["5.10", "6.1"])
def test_who_splits_a_vma_unshares_with_the_lock(base: str, debians: Callable[[str], Path],
                                                 tmp_path: Path) -> None:
    lock = "i_mmap_lock_write(mapping);\n\t\tif (insert"
    both = "\t\thugetlb_split(orig_vma, start);\n\t\thugetlb_split(orig_vma, end);\n"
    tree = edited(debians(base), tmp_path / "early", MMAP, lock, lock.replace("\n", "\n" + both))
    assert look(tree, "pmd-share-split").status == audit.VULNERABLE
    # The first of the two.
    text = (tree / MMAP).read_text(encoding="utf-8").replace(both, "\t\t;\n", 1)
    (tree / MMAP).write_text(text, encoding="utf-8")
    assert look(tree, "pmd-share-split").status == audit.PROTECTED


def test_each_function_that_takes_a_map_has_the_lock(debians: Callable[[str], Path],
                                                     tmp_path: Path) -> None:
    one = f"\t{TAKES}\t{UNLOCKED}}}\n"
    other = f"\nvoid another(struct vm_area_struct *vma)\n{{\n\t{TAKES}}}\n"
    tree = edited(debians("7.3"), tmp_path / "linux", HUGETLB, one, one + other)
    assert look(tree, "hugetlb-mremap-private").status == audit.VULNERABLE


def test_a_walk_from_where_the_range_starts_is_no_protection(tmp_path: Path) -> None:
    walk = ("void adjust_range_if_pmd_sharing_possible(struct vm_area_struct *vma,\n"
            "\t\tunsigned long *start, unsigned long *end)\n{\n"
            "\tunsigned long at;\n\n\tif (!(vma->vm_flags & VM_MAYSHARE))\n\t\treturn;\n"
            "\tfor (at = %s; at < *end; at += PUD_SIZE)\n"
            "\t\twiden(vma, start, end, at & PUD_MASK);\n}\n")
    tree = small_tree(tmp_path, {"mm/hugetlb.c": walk % "*start"})
    one = defect.load("pmd-share-range")
    # The queue's patch, for kernels without the function, mends none that has it.
    found = audit.look(tree, "4.14.113", one)
    assert (found.status, found.apply) == (audit.VULNERABLE, one.upstream)
    (tree / "mm/hugetlb.c").write_text(walk % "*start & PUD_MASK")
    assert look(tree, one.name).status == audit.PROTECTED


def small_tree(folder: Path, files: dict[str, str]) -> Path:
    fill(folder, files)
    (folder / "mm").mkdir(exist_ok=True)
    (folder / "Makefile").write_text("VERSION = 4\nPATCHLEVEL = 14\nSUBLEVEL = 113\n")
    return folder


SHARE = "static pte_t *huge_pmd_share(struct mm_struct *mm)\n{\n\treturn 0;\n}\n"
MOVE = "static int unmap_and_move_huge_page(struct page *page)\n{\n\treturn 0;\n}\n"
WALK = ("static bool try_to_unmap_one(struct page *page, struct vm_area_struct *vma)\n{\n"
        "\thuge_ptep_clear_flush(vma);\n%s\treturn true;\n}\n")


TAKE = "bool isolate_huge_page(struct page *page, struct list_head *list)\n{\n\treturn 1;\n}\n"
HELPER = "bool hugetlb_addr_shared(struct vm_area_struct *vma)\n{\n\treturn %s;\n}\n"
MOVE_ONE = ("static int add_page_for_migration(struct page *page, bool migrate_all)\n{\n"
            "\tif (page_mapcount(page) > 1 && !migrate_all)\n\t\treturn -EACCES;\n"
            "\tif (!migrate_all && %s)\n\t\treturn -EACCES;\n"
            "\tisolate_huge_page(page, pagelist);\n\treturn 0;\n}\n")


@pytest.mark.parametrize("asks, helper, take, want", [
    ("page", "hugetlb_pmd_shared(pte)", TAKE, audit.VULNERABLE),
    ("hugetlb_pmd_shared(pte)", "pte", TAKE, audit.PROTECTED),
    ("walk_pmd_shared(fw)", "pte", TAKE, audit.PROTECTED),
    ("page_count(virt_to_page(pte)) > 1", "pte", TAKE, audit.PROTECTED),
    ("page_count(page) > 1", "pte", TAKE, audit.VULNERABLE),
    ("hugetlb_addr_shared(vma)", "hugetlb_pmd_shared(pte)", TAKE, audit.PROTECTED),
    ("hugetlb_addr_shared(vma)", "page_count(virt_to_page(pte)) > 1", TAKE, audit.PROTECTED),
    ("hugetlb_addr_shared(vma)", "page_mapcount(page) > 1", TAKE, audit.VULNERABLE),
    # Before 3.12.
    ("page", "pte", "", audit.NOT_AFFECTED),
    ("page) {{{ ) (", "pte", TAKE, audit.UNKNOWN),
])
def test_move_pages_must_ask_for_the_table(asks: str, helper: str, take: str, want: str,
                                           tmp_path: Path) -> None:
    """Itself, by a name that says so, or by a function that does."""
    tree = small_tree(tmp_path, {"mm/hugetlb.c": SHARE + take + HELPER % helper,
                                 "mm/migrate.c": MOVE_ONE % asks})
    found = look(tree, "pmd-share-move-pages")
    assert found.status == want, found
    if want == audit.VULNERABLE:
        assert found.places == ("mm/migrate.c:7 add_page_for_migration",)
        assert found.apply == ()
        assert "nothing here mends it" in audit.summary("4.14.113", [found])


PUTS_BACK = ("static bool remove_migration_pte(struct page *page, struct vm_area_struct *vma)\n{\n"
             "\t%s\n\tset_huge_pte_at(vma, pte);\n\treturn true;\n}\n")


@pytest.mark.parametrize("walk, asks, want", [
    ("hugetlb_sharers_flush(vma, address, pte);",
     "if (hugetlb_drop_shared_entry(vma, address, pte, prot, true))\n\t\treturn true;",
     audit.PROTECTED),
    ("hugetlb_sharers_flush(vma, address, pte);", "", audit.VULNERABLE),
    # Nobody shares the entry that is put back.
    ("huge_pmd_unshare(mm, &address, pte);", "", audit.VULNERABLE),
    ("", "", audit.NOT_AFFECTED),
])
def test_what_is_put_back_suits_all_who_share_it(walk: str, asks: str, want: str, tmp_path: Path
                                                 ) -> None:
    tree = small_tree(tmp_path, {"mm/hugetlb.c": SHARE, "mm/migrate.c": MOVE + PUTS_BACK % asks,
                                 "mm/rmap.c": WALK % f"\t{walk}\n"})
    found = look(tree, "pmd-share-walkers")
    assert found.status == want, found
    if want == audit.VULNERABLE:
        puts_back = "sharers" in walk
        assert [place.split()[-1] for place in found.places] == [
            "remove_migration_pte" if puts_back else "try_to_unmap_one"]


TOGETHER = ("long hugetlb_change_protection(struct vm_area_struct *vma, unsigned long *flags)\n{\n"
            "\t%s\n\treturn 0;\n}\n")
SET, LOCK = "vm_flags_reset(vma, *flags);", "i_mmap_lock_write(mapping);"
FIXUP = "int mprotect_fixup(struct vm_area_struct *vma)\n{\n\t%s\n\treturn 0;\n}\n"


@pytest.mark.parametrize("changes, fixup, want", [
    (f"{LOCK}\n\t{SET}", "hugetlb_change_protection(vma, &flags);", audit.PROTECTED),
    # The flags change before.
    (LOCK, "vm_flags_reset(vma, flags);\n\thugetlb_change_protection(vma, &flags);",
     audit.VULNERABLE),
    (f"{SET}\n\t{LOCK}", "hugetlb_change_protection(vma, &flags);", audit.VULNERABLE),
    (f"{LOCK}\n\t{SET}", "change_protection(vma);", audit.VULNERABLE),
])
@pytest.mark.parametrize("start", (True, False))
def test_what_suits_one_who_shares_a_table_suits_all(start: bool, changes: str, fixup: str, want: str,
                                                     tmp_path: Path) -> None:
    """A walk leaves tables shared, or who starts it flushes for it."""
    flush = "hugetlb_sharers_flush(folio);"
    walk = WALK % (f"\t{flush}\n" if not start else "")
    if start:
        walk += "void rmap_walk_sharers(struct folio *folio)\n{\n\t%s\n}\n" % flush
    tree = small_tree(tmp_path, {"mm/hugetlb.c": SHARE + TOGETHER % changes, "mm/rmap.c": walk,
                                 "mm/migrate.c": MOVE + PUTS_BACK % "", "mm/mprotect.c": FIXUP % fixup})
    found = look(tree, "pmd-share-walkers")
    assert found.status == want, found


@pytest.mark.parametrize("version, base", [("6.12.117", "6.12"), ("7.3.0", "7.3"),
                                           ("7.4.1", "7.3")])
def test_what_to_apply_is_in_the_nearest_queue(version: str, base: str, tmp_path: Path) -> None:
    """Where upstream has no fix.  For what upstream has fixed it is upstream's: a queue for one
    defect says nothing of others."""
    tree = small_tree(tmp_path, {"mm/hugetlb.c": SHARE + TAKE, "mm/migrate.c":
                                 MOVE_ONE % "page" + MOVE, "mm/rmap.c": WALK % ""})
    found = audit.look(tree, version, defect.load("pmd-share-move-pages"))
    patch = variant.series(base)[0]
    assert (found.status, found.apply) == (audit.VULNERABLE, (str(patch.relative_to(REPO)),))
    assert f"{'':14}to apply: 0001 of queue/{base}\n" in audit.summary(version, [found]) + "\n"
    assert (found.note, patch.name[:4]) == ("", "0001")
    other = defect.load("pmd-share-migrate")
    found = audit.look(tree, version, other)
    assert (found.status, found.apply) == (audit.VULNERABLE, other.upstream)


def test_what_has_tables_shared_again_is_applied_with_all_after_it(tmp_path: Path) -> None:
    """Alone it brings what the patches after it mend."""
    queue = variant.series("6.6")
    tree = small_tree(tmp_path, {"mm/hugetlb.c": COPY % ("find_lock_page", GIVE_UP, LOOK_UP)})
    found = audit.look(tree, "6.6.150", defect.load("hugetlb-cow-fault"))
    assert found.apply == tuple(str(patch.relative_to(REPO)) for patch in queue)
    assert found.note.startswith("queue/6.6/0002 lets hugetlb mappings share PMD tables again. ")
    assert "to apply: 0001 to 0019 of queue/6.6, all or none\n" in audit.summary("6.6", [found])
    # What comes before it does without.
    one = defect.load("hugetlb-punch-private")
    first = audit.mendable(dataclasses.replace(found, apply=()), "6.6.150", one)
    assert (first.apply, first.note) == ((str(queue[0].relative_to(REPO)),), "")


def test_only_one_queue_has_tables_shared_again() -> None:
    assert [f"{base}/{patch.name[:4]}" for base in names() for patch in variant.series(base)
            if kconfig.lets_share(patch)] == ["6.6/0002"]


@pytest.mark.parametrize("version, base", [("6.12.117", "6.12"), ("7.3.4", "7.3"), ("6.1.192", "")])
def test_what_only_another_form_of_a_queue_mends(version: str, base: str) -> None:
    one = defect.load("pmd-share-busy")
    found = audit.mendable(audit.Finding(one.name, audit.VULNERABLE, "", (), (), only_slow=True),
                           version, one)
    said = " ".join(audit.summary(version, [found]).split())
    assert found.apply == ()
    assert said.endswith("what mends it is for review, and not to be used yet: make series "
                         f"BASE={base} FORM=flush O=/tmp/series" if base
                         else "nothing here mends it")


@pytest.mark.parametrize("name", [one.name for one in ALL])
def test_what_is_no_function_is_not_told_as_one(name: str) -> None:
    """Who looks for it in a source finds it in none.  A rule has a function by its name, in a list
    or a call, and not only in what it prints."""
    rules = defect.load(name).audit
    assert rules
    text = re.sub(r'"(?:EXISTS|SEEN|NEEDS|HAS) [^"]*"', "", "\n".join(
        line for line in rules.rule.read_text(encoding="utf-8").splitlines()
        if not line.startswith("//")))
    for function in {one for names in rules.exist for one in names.split("|")}:
        said = rules.lacks(function)
        named = re.search(rf"(?<!->)\b{function}\b", text)
        assert bool(named) == (said == f"there is no {function}()"), function


GIVE_UP, LOCK_MAPPING = "mutex_unlock(&table[hash]);", "i_mmap_lock_write(mapping);"
LOCK_PAGE, UNLOCK_PAGE = "lock_page(page);", "unlock_page(page);"
PUNCH = ("static void remove_inode_hugepages(struct inode *inode)\n{\n"
         "\tmutex_lock(&table[hash]);\n\t%s\n\thugetlb_vmdelete_list(mapping);\n"
         "\ti_mmap_unlock_write(mapping);\n\tremove_huge_page(page);\n"
         "\tunlock_page(page);\n\tmutex_unlock(&table[hash]);\n}\n")


@pytest.mark.parametrize("steps, want", [
    ((LOCK_PAGE, GIVE_UP, LOCK_MAPPING), audit.VULNERABLE),
    ((LOCK_PAGE, UNLOCK_PAGE, GIVE_UP, LOCK_MAPPING, LOCK_PAGE), audit.PROTECTED),
    ((GIVE_UP, LOCK_MAPPING, LOCK_PAGE), audit.NOT_AFFECTED),
    # Up to 5.6 a page fault takes them like this.
    ((LOCK_PAGE, LOCK_MAPPING), audit.NOT_AFFECTED),
])
def test_who_punches_a_hole_gives_up_all_or_nothing(steps: tuple[str, ...], want: str,
                                                    tmp_path: Path) -> None:
    tree = small_tree(tmp_path, {"mm/hugetlb.c": SHARE, INODE: PUNCH % "\n\t".join(steps)})
    found = look(tree, "hugetlb-punch-fault")
    assert found.status == want, found


ASK = "if (unlikely(page_mapped(page)))\n\t\ti_mmap_lock_write(mapping);"


@pytest.mark.parametrize("steps, want", [
    ((ASK, LOCK_PAGE), audit.VULNERABLE),
    ((LOCK_PAGE, ASK), audit.PROTECTED),
    ((LOCK_PAGE, ASK.replace("if", "while"), LOCK_PAGE), audit.PROTECTED),
    # 4.4 leaves it where it is.
    ((LOCK_PAGE, "if (!page_mapped(page))"), audit.PROTECTED),
    ((ASK,), audit.VULNERABLE),
])
def test_who_punches_a_hole_locks_a_page_first(steps: tuple[str, ...], want: str,
                                               tmp_path: Path) -> None:
    tree = small_tree(tmp_path, {"mm/hugetlb.c": SHARE, INODE: PUNCH % "\n\t".join(steps)})
    found = look(tree, "hugetlb-punch-migrate")
    assert found.status == want, found


FORKS = ("int copy_hugetlb_page_range(struct mm_struct *dst, struct mm_struct *src)\n{\n"
         "\tdst_pte = huge_pte_alloc(dst, addr, sz);\n\t%s\n\tif (dst_pte == src_pte%s)\n\t\treturn 0;\n"
         "\tentry = huge_ptep_get(src_pte);\n\tif (huge_pte_none(entry)%s)\n\t\treturn 0;\n"
         "\tset_huge_pte_at(dst, addr, dst_pte, entry);\n\treturn 0;\n}\n")
DST = "dst_entry = huge_ptep_get(dst_pte);"


@pytest.mark.parametrize("before, first, later, want", [
    ("", "", "", audit.VULNERABLE),
    # As upstream, and as the queues.
    (DST, " || !huge_pte_none(dst_entry)", " || !huge_pte_none(dst_entry)", audit.PROTECTED),
    ("", " || page_count(virt_to_page(dst_pte)) > 1", "", audit.PROTECTED),
    ("", " || hugetlb_pmd_shared(dst_pte)", "", audit.PROTECTED),
    ("", "", " || !huge_pte_none(huge_ptep_get(dst_pte))", audit.PROTECTED),
    # Of the parent's.
    ("", " || hugetlb_pmd_shared(src_pte)", "", audit.VULNERABLE),
    (DST.replace("dst_pte", "src_pte"), " || !huge_pte_none(dst_entry)", "", audit.VULNERABLE),
    (DST, "", "", audit.VULNERABLE),
])
def test_fork_looks_at_the_table_of_the_child(before: str, first: str, later: str, want: str,
                                              tmp_path: Path) -> None:
    tree = small_tree(tmp_path, {"mm/hugetlb.c": SHARE + FORKS % (before, first, later)})
    found = look(tree, "hugetlb-fork-shared")
    assert found.status == want, found


LOOK_UP = "page = hugetlbfs_pagecache_page(h, vma, address);"
COPY = ("static struct page *hugetlbfs_pagecache_page(struct hstate *h)\n{\n"
        "\treturn %s(mapping, idx);\n}\n\n"
        "static vm_fault_t hugetlb_wp(struct vm_fault *vmf)\n{\n"
        "\t%s\n\tunmap_ref_private(vmf);\n\tmutex_lock(&table[hash]);\n\treturn 0;\n}\n\n"
        # That is another page's lock, and no mutex is given up with it held.
        "static vm_fault_t hugetlb_no_page(struct vm_fault *vmf)\n{\n"
        "\tfolio = filemap_lock_hugetlb_folio(h, mapping, idx);\n\treturn 0;\n}\n\n"
        "vm_fault_t hugetlb_fault(struct vm_fault *vmf)\n{\n\tmutex_lock(&table[hash]);\n"
        "\t%s\n\tret = hugetlb_wp(vmf);\n\tmutex_unlock(&table[hash]);\n\treturn ret;\n}\n")


@pytest.mark.parametrize("lookup, copies, faults, want", [
    ("find_lock_page", GIVE_UP, LOOK_UP, audit.VULNERABLE),
    ("find_get_page", GIVE_UP, LOOK_UP, audit.PROTECTED),
    ("find_get_page", GIVE_UP, "page = find_lock_page(mapping, idx);", audit.VULNERABLE),
    ("find_get_page", GIVE_UP, "folio = filemap_lock_folio(mapping, idx);", audit.VULNERABLE),
    ("find_get_page", GIVE_UP, "", audit.PROTECTED),
    # Up to 5.6 the mutex is kept.
    ("find_lock_page", "", LOOK_UP, audit.NOT_AFFECTED),
])
def test_the_page_of_the_file_is_not_locked_for_a_copy(lookup: str, copies: str, faults: str,
                                                       want: str, tmp_path: Path) -> None:
    tree = small_tree(tmp_path, {"mm/hugetlb.c": COPY % (lookup, copies, faults)})
    found = look(tree, "hugetlb-cow-fault")
    assert found.status == want, found


def test_who_calls_the_one_that_takes_a_page_may_ask(tmp_path: Path) -> None:
    takes = (MOVE_ONE % "page").replace("add_page", "__add_folio")
    caller = ("static int add_folio_for_migration(struct page *page)\n{\n"
              "\tif (hugetlb_pmd_shared(pte))\n\t\treturn -EACCES;\n"
              "\treturn __add_folio_for_migration(page, true);\n}\n")
    tree = small_tree(tmp_path, {"mm/hugetlb.c": SHARE + TAKE, "mm/migrate.c": takes + caller})
    assert look(tree, "pmd-share-move-pages").status == audit.PROTECTED
    (tree / "mm/migrate.c").write_text(takes + caller.replace("add_folio", "count_folio"))
    assert look(tree, "pmd-share-move-pages").status == audit.VULNERABLE


CHANGE = ("unsigned long hugetlb_change_protection(struct vm_area_struct *vma)\n{\n%s"
          "\tfor (; addr < end; addr += size) {\n\t\tptep = huge_pte_offset(mm, addr, size);\n"
          "\t\tset_huge_pte_at(mm, addr, ptep, pte);\n\t}\n%s\treturn 0;\n}\n")
SAYS = "\tinc_tlb_flush_pending(mm);\n"
ACCESSIBLE = ("static inline bool pte_accessible(struct mm_struct *mm, pte_t a)\n{\n"
              "\treturn pte_present(a);\n}\n")


@pytest.mark.parametrize("before, after, gather, want", [
    ("", "", "", audit.VULNERABLE),
    (SAYS, "", "", audit.PROTECTED),
    ("", SAYS, "", audit.VULNERABLE),
    ("\ttlb_gather_mmu(&tlb, mm);\n", "", SAYS, audit.PROTECTED),
    ("\ttlb_gather_mmu(&tlb, mm);\n", "", "\ttlb->mm = mm;\n", audit.VULNERABLE),
])
def test_that_a_flush_is_pending_is_said_before_entries_change(
        before: str, after: str, gather: str, want: str, tmp_path: Path) -> None:
    gathers = f"void tlb_gather_mmu(struct mmu_gather *tlb, struct mm_struct *mm)\n{{\n{gather}}}\n"
    tree = small_tree(tmp_path, {
        "mm/hugetlb.c": CHANGE % (before, after), "mm/migrate.c": MOVE, "mm/memory.c": gathers,
        "arch/x86/include/asm/pgtable.h": ACCESSIBLE})
    found = look(tree, "hugetlb-mprotect-pending")
    assert found.status == want, found
    # Before 3.8 nothing but what x86 never maps was left out.
    (tree / "arch/x86/include/asm/pgtable.h").write_text("")
    assert look(tree, "hugetlb-mprotect-pending").status == audit.NOT_AFFECTED


@pytest.mark.parametrize("takes, sets, refuses, hands, want", [
    ("take(old)", "", "", "", audit.VULNERABLE),
    # All pages, as the queues do it.
    ("take(old)", "set_page_private(new, spool);", "", "", audit.PROTECTED),
    ("take(old)", "set_page_private(new, 0);", "", "", audit.VULNERABLE),
    ("take(old)", "set_page_private(old, spool);", "", "", audit.VULNERABLE),
    # Pages of files, and no others, as upstream does it.
    ("take(old)", "", "page_private(old) && !page_mapping(old)",
     "set_page_private(newpage, page_private(page));", audit.PROTECTED),
    ("take(old)", "", "", "set_page_private(newpage, page_private(page));", audit.VULNERABLE),
    ("take(old)", "", "page_private(old) && !page_mapping(old)",
     "set_page_private(page, page_private(newpage));", audit.VULNERABLE),
    ("take(old) {{{ ) (", "", "", "", audit.UNKNOWN),
])
def test_each_page_must_keep_its_subpool(takes: str, sets: str, refuses: str, hands: str, want: str,
                                         tmp_path: Path) -> None:
    tree = small_tree(tmp_path, {
        "mm/migrate.c": "static int unmap_and_move_huge_page(struct page *old)\n{\n"
                        f"\tnew = {takes};\n\tif ({refuses or 'old'})\n\t\tgoto out;\n"
                        f"\tif (!rc) {{\n\t\t{sets}\n\t}}\nout:\n\treturn rc;\n}}\n",
        "fs/hugetlbfs/inode.c": "static int hugetlbfs_migrate_page(struct address_space *mapping,\n"
                                "\t\tstruct page *newpage, struct page *page)\n{\n"
                                f"\t{hands}\n\treturn 0;\n}}\n"})
    found = look(tree, "hugetlb-subpool")
    assert found.status == want, found


def migrate(tree: Path) -> audit.Finding:
    return next(one for one in audit.audit(tree)[1] if one.defect == "pmd-share-migrate")


@pytest.mark.slow
def test_what_cannot_be_parsed_is_unknown(tmp_path: Path) -> None:
    broken = WALK % "\tif (page) {{{ ) huge_pmd_unshare(mm, &address, pte);\n"
    tree = small_tree(tmp_path, {"mm/rmap.c": broken, "mm/hugetlb.c": SHARE, "mm/migrate.c": MOVE})
    found = migrate(tree)
    assert found.status == audit.UNKNOWN
    assert "cannot parse try_to_unmap_one()" in found.why
    (tree / "mm/rmap.c").write_text(WALK % "")
    assert migrate(tree).status == audit.VULNERABLE
    (tree / "mm/rmap.c").write_text(WALK % "\thuge_pmd_unshare(mm, &address, pte);\n")
    assert migrate(tree).status == audit.PROTECTED
    (tree / "mm/migrate.c").write_text("static int unmap_and_move_huge_page(int a\n{ {{\n}\n")
    assert migrate(tree).status == audit.UNKNOWN
    (tree / "mm/migrate.c").write_text("static int\nunmap_and_move_huge_page(int a\n{ {{\n}\n")
    assert migrate(tree).status == audit.UNKNOWN
    (tree / "mm/migrate.c").write_text("int f(void)\n{\n\treturn 0;\n}\n")
    assert migrate(tree).status == audit.NOT_AFFECTED


def test_a_tree_without_the_files_is_unknown(tmp_path: Path) -> None:
    found = migrate(small_tree(tmp_path, {}))
    assert (found.status, found.places) == (audit.UNKNOWN, ())


def test_a_call_elsewhere_is_no_protection(tmp_path: Path) -> None:
    other = "\nstatic int f(void)\n{\n\treturn huge_pmd_unshare(mm, &address, pte);\n}\n"
    tree = small_tree(tmp_path, {"mm/rmap.c": WALK % "" + other, "mm/hugetlb.c": SHARE,
                                 "mm/migrate.c": MOVE})
    found = migrate(tree)
    assert found.status == audit.VULNERABLE
    assert found.places == ("mm/rmap.c:1 try_to_unmap_one",)
    # What comes before a patch in its series is needed by it.
    assert [path.split("/")[-1][:4] for path in found.apply] == [
        f"{number:04}" for number in range(1, len(found.apply) + 1)]
    assert any("flush-all-who-share-a-PMD" in path for path in found.apply)


@pytest.mark.parametrize("where, want", [
    ("before", audit.PROTECTED), ("after", audit.VULNERABLE), ("nowhere", audit.VULNERABLE),
    ("in the fault", audit.PROTECTED), ("never", audit.NOT_AFFECTED)])
@pytest.mark.slow
def test_a_device_must_be_told_before_the_copy(where: str, want: str, tmp_path: Path) -> None:
    call = "\tmmu_notifier_invalidate_range(mm, start, end);\n"
    header = ("static inline void mmu_notifier_invalidate_range(struct mm_struct *mm)\n{\n}\n")
    migration = ("int migrate_misplaced_transhuge_page(struct mm_struct *mm)\n{\n"
                 f"{call if where == 'before' else ''}\tmigrate_page_copy(new_page, page);\n"
                 f"\tif (page_count(page) != 2) {{\n{call if where == 'after' else ''}"
                 "\t\tgoto fail_putback;\n\t}\nfail_putback:\n\treturn 0;\n}\n")
    fault = ("int do_huge_pmd_numa_page(struct vm_fault *vmf)\n{\n"
             "\tif (mm_tlb_flush_pending(mm)) {\n\t\tflush_tlb_range(vma, start, end);\n"
             f"{call if where == 'in the fault' else ''}\t}}\n"
             "\tmigrated = migrate_misplaced_transhuge_page(mm);\n\treturn 0;\n}\n")
    tree = small_tree(tmp_path, {
        "mm/migrate.c": migration, "mm/huge_memory.c": fault,
        # Before 3.19, devices had no such call.
        "include/linux/mmu_notifier.h": "" if where == "never" else header})
    found = {one.defect: one for one in audit.audit(tree)[1]}["thp-numa-notifier"]
    assert found.status == want
    if want == audit.VULNERABLE:
        assert "fix-mmu_notifier-in-migrate_misplaced" in found.apply[-1]


@pytest.mark.slow
def test_the_front_door(tmp_path: Path) -> None:
    tree = small_tree(tmp_path, {"mm/rmap.c": WALK % "", "mm/hugetlb.c": SHARE,
                                 "mm/migrate.c": MOVE})
    done = make("audit", f"KERNEL={tree}")
    assert done.returncode != 0
    assert done.stdout.startswith("Linux 4.14.113: 3 VULNERABLE, ")
    assert done.stdout.endswith(
        f"\n\nTo mend it: make series KERNEL={tree} SERIES=fixes O=/tmp/series\n"
        "To live with it until then: Documentation/hosts.rst\n")
    # The worst first.
    assert done.stdout.splitlines()[2].startswith("VULNERABLE ")
    assert re.search(r"(?m)^VULNERABLE +pmd-share-migrate\n(?: +\w.*\n)+ +mm/rmap\.c:1 try_to_unmap_one$",
                     done.stdout)
    told = json.loads(make("audit", f"KERNEL={tree}", "AUDIT=json").stdout)
    assert told["version"] == "4.14.113"
    assert {one["defect"] for one in told["defects"]} == {one.name for one in ALL}
    assert told["mend"] == f"make series KERNEL={tree} SERIES=fixes O=/tmp/series"
    alone = make("audit", f"KERNEL={tree}", "DEFECT=pmd-share-migrate").stdout
    assert alone.startswith("Linux 4.14.113: 1 VULNERABLE\n")


@pytest.mark.parametrize("words, reason", [
    (["SYMBOLS=/boot/System.map", f"KERNEL={REPO}"], "SYMBOLS= is of an image"),
    (["IMAGE=/nonexistent"], "there is no /nonexistent"),
    (["IMAGE=/etc/passwd"], "/etc/passwd is no kernel image"),
    (["KERNEL=/nonexistent"], "no such folder: /nonexistent"),
    (["KERNEL=/usr"], "/usr is not a kernel tree"),
    (["KERNEL=/usr", "AUDIT=xml"], "AUDIT=xml: one of text, json, nrpe, prometheus is wanted"),
])
def test_errors_are_one_line(words: list[str], reason: str) -> None:
    assert reason in refused("audit", *words)


def test_no_kernel_says_which_question_is_answered_for_whom() -> None:
    done = make("audit")
    assert done.returncode != 0 and done.stdout == ""
    head, *lines = [line for line in done.stderr.splitlines() if not line.startswith("make:")]
    assert head == "error: name a kernel:" and len(lines) == 3
    assert all("make audit " in line and "who" in line for line in lines)
