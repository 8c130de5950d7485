# SPDX-License-Identifier: GPL-2.0
"""Who holds which lock, as the kernel's page says, in Debian's kernels: see locks.py."""

import re
import shutil
from pathlib import Path

import locks
import pytest
from conftest import FULL, debian_files
from locks import CLAIMS
from test_docs import DEFINITION, PAGE
from test_queue import released_tree

from lab.base import load
from lab.kernel import spatch

HEAD = "Where the code is"
KERNELS = ("5.15", "6.1", "6.6", "6.12", "6.18", "7.3")
# Those of them that are looked at without FULL=1.
USUAL = ("6.12", "7.3")
TAKES = {
    locks.READ: r"\b(?:hugetlb_vma_lock_read|vma_pgtable_walk_begin)\(",
    locks.WRITE: r"\bhugetlb_vma_lock_write\(",
    locks.TRIED: r"\bhugetlb_vma_trylock_write\(",
}
# They have the lock for others, or hand it to the function that unshares.
HELPERS = {
    # The last two give it up for a moment, and take it again.
    locks.READ: {"vma_pgtable_walk_begin", "hugetlb_wp", "hmm_vma_walk_hugetlb_entry"},
    # Takes both locks for __unmap_hugepage_range().
    locks.WRITE: {"__hugetlb_zap_begin"},
    # It unmaps one folio at a time, with the lock that it got or waited for.
    locks.TRIED: {"hugetlb_unmap_file_folio"},
}


def number(version: str) -> tuple[int, ...]:
    return tuple(map(int, version.split(".")))


def table(page: str) -> list[tuple[str, str, str, str]]:
    """The rows of the table at the end: group, claim, functions, since."""
    text = page.partition(f"\n{HEAD}\n")[2]
    rules = re.search(r"(?m)^(=+) (=+) (=+)$", text)
    assert rules
    ends = [len(rules[1]), len(rules[1]) + 1 + len(rules[2])]
    rows: list[tuple[str, str, str, str]] = []
    group = ""
    for line in text.split(rules[0])[2].strip("\n").splitlines():
        claim, function, since = (line[:ends[0]].strip(), line[ends[0]:ends[1]].strip(),
                                  line[ends[1]:].strip())
        if claim.startswith("**"):
            group = claim.strip("*")
        elif claim:
            rows.append((group, claim, function, since))
        else:
            last = rows.pop()
            rows.append((*last[:2], f"{last[2]} {function}", last[3]))
    return rows


ROWS = table(PAGE.read_text(encoding="utf-8"))


def since(claim: locks.Claim) -> str:
    """From which kernel on the page says that a claim is true."""
    if claim.first:
        return claim.first
    starts = {locks.ENTRY: "page table lock", locks.PUD: "PUD entry", locks.OFF: "interrupts"}
    group = "Bugs" if claim.bug else "Other locks" if claim.lock in starts else claim.lock
    calls = [f"{one.call}()" for one in CLAIMS if one.function == claim.function]
    rows = [row for row in ROWS if row[0] == group and f"{claim.row or claim.function}()" in row[2]
            and row[1].startswith(starts.get(claim.lock, ""))]
    # A row that names the call is about that one alone.
    rows = [row for row in rows if claim.row or f"{claim.call}()" in row[2]] or \
        [row for row in rows if not any(call in row[2] for call in calls)]
    assert len(rows) == 1, (claim.name(), rows)
    return rows[0][3]


def true_of(claim: locks.Claim, version: str) -> bool:
    """Whether the page says that it is true of that kernel."""
    return number(since(claim)) <= number(version) and \
        (not claim.last or number(version) <= number(claim.last))


def test_a_claim_goes_on_where_another_ends() -> None:
    """The row of the two says from when on the first is true."""
    first = {claim.row: claim for claim in CLAIMS if claim.last}
    assert first
    for claim in CLAIMS:
        if claim.first:
            before = first.pop(claim.function)
            assert number(before.last) < number(claim.first) and before.lock == claim.lock
            assert KERNELS.index(claim.first) == KERNELS.index(before.last) + 1
    assert not first


def test_each_claim_is_in_the_page() -> None:
    for claim in CLAIMS:
        assert since(claim) in ("4.4", "4.9", "5.10", "6.1", "6.6", "6.12"), claim


def test_each_row_about_a_lock_has_a_claim() -> None:
    """But for what the kernel itself checks."""
    have = {claim.function for claim in CLAIMS}
    checked = {"hugetlb_walk", "huge_pmd_unshare", "hugetlb_split", "__split_vma"}
    rows = [row for row in ROWS if "lock" in row[0] or "rwsem" in row[0]]
    assert len(rows) > 20
    for row in rows:
        assert {name for name in re.findall(r"(\w+)\(\)", row[2])} & (have | checked), row


def test_each_section_of_the_page_has_rows() -> None:
    page = PAGE.read_text(encoding="utf-8")
    assert {"What is shared", "Counts", "What callers must do", "How to see it", "Bugs"} <= \
        {row[0] for row in ROWS}
    # The functions of the bugs are told where the bugs are.
    bugs = page.partition("\nBugs\n====\n")[2].partition("\nWhat went wrong\n")[0]
    told = {row[2].split("()")[0] for row in ROWS if row[0] == "Bugs"}
    assert told - {"hugetlb_folio_mapping_lock_write", "uffd_disable_huge_pmd_share"} <= \
        set(re.findall(r"(\w+)\(\)", bugs))


@pytest.mark.slow
@pytest.mark.parametrize("version", [
    pytest.param(one, marks=pytest.mark.skipif(one not in USUAL and not FULL,
                                               reason="a third kernel: with FULL=1"))
    for one in KERNELS])
def test_the_locks_are_held(version: str, tmp_path: Path) -> None:
    tree = debian_files(version) if load(version).package else released_tree(version)
    wrong = locks.broken(tree, CLAIMS, tmp_path)
    for claim in CLAIMS:
        assert (claim.name() in wrong) != true_of(claim, version), \
            (claim.name(), wrong.get(claim.name()))


@pytest.mark.slow
@pytest.mark.parametrize("version", ["6.12", "7.3"])
def test_the_order_is_kept_and_the_flush_made(version: str, tmp_path: Path) -> None:
    assert locks.out_of_order(debian_files(version), tmp_path) == []


@pytest.mark.slow
@pytest.mark.parametrize("version", ["6.12", "7.3"])
@pytest.mark.parametrize("lock", TAKES)
def test_there_is_nobody_else(version: str, lock: str) -> None:
    """All who take the VMA lock are in a claim, by the name of today or an older one."""
    tree, found = debian_files(version), set()
    for path in [*(tree / "mm").rglob("*.c"), *(tree / "fs").rglob("*.c")]:
        function = ""
        for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
            if defined := DEFINITION.match(line):
                function = defined[1]
            elif re.search(TAKES[lock], line) and not re.match(r"\s*(/?\*|//)", line):
                found.add(function)
    claimed = {name for claim in CLAIMS if claim.lock == lock
               and not claim.last for name in (claim.function, claim.older) if name}
    assert found <= claimed | HELPERS[lock]
    assert {claim.function for claim in CLAIMS
            if claim.lock == lock and not claim.older and not claim.last} <= found


# What is changed in 7.3, and what has to be seen of it.
CHANGES = (
    ("mm/hugetlb.c", "\thugetlb_vma_lock_read(vma);\n\tvmf.pte = huge_pte_alloc(",
     "\tvmf.pte = huge_pte_alloc(", "hugetlb_fault() calls huge_pte_alloc()"),
    ("mm/hugetlb.c", "\t\thugetlb_vma_lock_read(src_vma);\n", "",
     "copy_hugetlb_page_range() calls hugetlb_walk()"),
    ("mm/hugetlb.c", "out:\n\tpte = (pte_t *)pmd_alloc(mm, pud, addr);\n"
     "\ti_mmap_unlock_read(mapping);\n", "out:\n\ti_mmap_unlock_read(mapping);\n"
     "\tpte = (pte_t *)pmd_alloc(mm, pud, addr);\n", "huge_pmd_share() calls pmd_alloc()"),
    ("mm/hugetlb.c", "\tspin_lock(&mm->page_table_lock);\n\tif (pud_none(*pud)) {\n",
     "\tif (pud_none(*pud)) {\n", "huge_pmd_share() calls pud_populate()"),
    ("mm/hugetlb.c", "\thugetlb_vma_lock_write(vma);\n\ti_mmap_lock_write(mapping);\n",
     "\ti_mmap_lock_write(mapping);\n\thugetlb_vma_lock_write(vma);\n",
     "order move_hugetlb_page_tables"),
    ("mm/hugetlb.c", "\tmmu_notifier_invalidate_range_start(&range);\n"
     "\thugetlb_vma_lock_write(vma);\n\ti_mmap_lock_write(vma->vm_file->f_mapping);\n",
     "\tmmu_notifier_invalidate_range_start(&range);\n"
     "\ti_mmap_lock_write(vma->vm_file->f_mapping);\n",
     "hugetlb_change_protection() calls huge_pmd_unshare() with: VMA lock"),
    ("mm/hugetlb.c", "\ttlb_end_vma(tlb, vma);\n\n\thuge_pmd_unshare_flush(tlb, vma);\n",
     "\ttlb_end_vma(tlb, vma);\n", "unflushed __unmap_hugepage_range"),
    ("mm/hugetlb.c", "\ttlb_flush_mmu_tlbonly(&tlb);\n\thuge_pmd_unshare_flush(&tlb, vma);\n"
     "\t/*\n", "\ttlb_flush_mmu_tlbonly(&tlb);\n\t/*\n", "late hugetlb_change_protection"),
    ("mm/hugetlb.c", "\tif (zap_flags & ZAP_FLAG_UNMAP) {\t/* final unmap */\n",
     "\tif (zap_flags & ZAP_FLAG_UNMAP) {\n\t\ti_mmap_unlock_write(vma->vm_file->f_mapping);\n",
     "__hugetlb_zap_end() calls __hugetlb_vma_unlock_write_free()"),
    ("mm/vma.c", "\tinit_vma_prep(&vp, vma);\n\tvp.insert = new;\n",
     "\thugetlb_split(vma, addr);\n\tinit_vma_prep(&vp, vma);\n\tvp.insert = new;\n",
     "__split_vma() calls hugetlb_split() with: i_mmap_rwsem"),
    ("mm/vma.c", "\tvma_start_write(vma);\n\tvma_start_write(new);\n", "\tvma_start_write(new);\n",
     "__split_vma() calls hugetlb_split() with: per-VMA lock"),
    ("mm/hugetlb.c", "\tvma_assert_write_locked(vma);\n"
     "\ti_mmap_assert_write_locked(vma->vm_file->f_mapping);\n",
     "\ti_mmap_assert_write_locked(vma->vm_file->f_mapping);\n",
     "hugetlb_split() calls hugetlb_unshare_pmds()"),
    ("mm/rmap.c", "\t\t\t\t\thugetlb_vma_unlock_write(vma);\n"
     "\t\t\t\t\thuge_pmd_unshare_flush(&tlb, vma);\n", "\t\t\t\t\thugetlb_vma_unlock_write(vma);\n",
     "unflushed try_to_migrate_one"),
    ("mm/rmap.c", "\t\tif (!hugetlb_vma_trylock_write(vma)) {\n\t\t\tret = false;\n"
     "\t\t\tgoto walk_done;\n\t\t}\n", "",
     "try_to_unmap_poisoned_hugetlb_one() calls huge_pmd_unshare()"),
    ("mm/userfaultfd.c", "\t\thugetlb_vma_lock_read(vma);\n", "",
     "handle_userfault() calls userfaultfd_huge_must_wait()"),
    ("mm/userfaultfd.c", "\t\terr = hugetlb_mfill_atomic_pte(",
     "\t\thugetlb_vma_unlock_read(dst_vma);\n\t\terr = hugetlb_mfill_atomic_pte(",
     "mfill_atomic_hugetlb() calls hugetlb_mfill_atomic_pte()"),
    ("mm/pagewalk.c", "\thugetlb_vma_lock_read(vma);\n", "",
     "walk_hugetlb_range() calls hugetlb_walk()"),
    ("mm/migrate.c", "\t\t\tmapping = hugetlb_folio_mapping_lock_write(src);\n",
     "\t\t\ti_mmap_lock_read(src->mapping);\n",
     "unmap_and_move_hugetlb_folio() calls try_to_migrate()"),
    # The same: it waits for the file's lock with the folio locked.
    ("mm/migrate.c", "\t\t\ti_mmap_lock_read(src->mapping);\n",
     "\t\t\ti_mmap_lock_read(src->mapping);\n", "above unmap_and_move_hugetlb_folio"),
    ("mm/hugetlb.c", "\ti_mmap_lock_write(mapping);\n\tmapping_rmap_tree_foreach(iter_vma, mapping, "
     "pgoff, pgoff) {\n", "\ti_mmap_lock_write(mapping);\n\tfolio_lock(folio);\n"
     "\tmapping_rmap_tree_foreach(iter_vma, mapping, pgoff, pgoff) {\n", "folio unmap_ref_private"),
    ("mm/userfaultfd.c", "\t\tmutex_lock(&hugetlb_fault_mutex_table[hash]);\n"
     "\t\thugetlb_vma_lock_read(dst_vma);\n", "\t\thugetlb_vma_lock_read(dst_vma);\n"
     "\t\tmutex_lock(&hugetlb_fault_mutex_table[hash]);\n", "fault mfill_atomic_hugetlb"),
    ("fs/hugetlbfs/inode.c", "\t\tdown_write(&vma_lock->rw_sema);\n",
     "\t\tfolio_unlock(folio);\n\t\tdown_write(&vma_lock->rw_sema);\n",
     "hugetlb_unmap_file_folio() calls down_write()"),
    ("mm/hugetlb.c", "\t\t\tmutex_lock(&hugetlb_fault_mutex_table[hash]);\n"
     "\t\t\thugetlb_vma_lock_read(vma);\n\t\t\tspin_lock(vmf->ptl);\n",
     "\t\t\tmutex_lock(&hugetlb_fault_mutex_table[hash]);\n\t\t\tfolio_unlock(old_folio);\n"
     "\t\t\thugetlb_vma_lock_read(vma);\n\t\t\tspin_lock(vmf->ptl);\n",
     "hugetlb_wp() calls hugetlb_vma_lock_read()"),
    ("fs/hugetlbfs/inode.c", "\t\tif (!hugetlb_vma_trylock_write(vma))\n\t\t\tcontinue;\n", "",
     "hugetlb_vmdelete_list() calls unmap_hugepage_range()"),
    ("mm/gup.c", "\tlocal_irq_save(flags);\n\tgup_fast_pgd_range(", "\tgup_fast_pgd_range(",
     "gup_fast() calls gup_fast_pgd_range()"),
    # The folio lock: not taken, or released too early.
    ("fs/hugetlbfs/inode.c", "\tfolio_lock(folio);\n\tif (unlikely(folio_mapped(folio)))\n",
     "\tif (unlikely(folio_mapped(folio)))\n",
     "remove_inode_single_folio() calls hugetlb_unmap_file_folio()"),
    ("fs/hugetlbfs/inode.c", "\ti_mmap_lock_write(mapping);\nretry:\n",
     "\tfolio_unlock(folio);\n\ti_mmap_lock_write(mapping);\nretry:\n",
     "hugetlb_unmap_file_folio() calls i_mmap_lock_write()"),
    ("mm/hugetlb.c", "if (folio_test_anon(folio) && !folio_trylock(folio)) {",
     "if (folio_test_anon(folio) && folio_test_locked(folio)) {",
     "hugetlb_fault() calls hugetlb_wp() with: folio lock"),
    ("mm/hugetlb.c", "\t\t\tunmap_ref_private(mm, vma, old_folio, vmf->address);\n",
     "\t\t\tfolio_unlock(old_folio);\n"
     "\t\t\tunmap_ref_private(mm, vma, old_folio, vmf->address);\n",
     "hugetlb_wp() calls unmap_ref_private()"),
    ("mm/hugetlb.c", "\tfolio = filemap_lock_hugetlb_folio(h, mapping, vmf->pgoff);\n",
     "\tfolio = filemap_get_folio(mapping, vmf->pgoff);\n",
     "hugetlb_no_page() calls huge_pte_lock()"),
    ("mm/memory-failure.c", "\tfolio_lock(folio);\n\n\tif (hwpoison_filter(p)) {\n"
     "\t\tfolio_clear_hugetlb_hwpoison(folio);\n",
     "\tif (hwpoison_filter(p)) {\n\t\tfolio_clear_hugetlb_hwpoison(folio);\n",
     "try_memory_failure_hugetlb() calls hwpoison_user_mappings()"),
    ("mm/memory-failure.c", "\tcollect_procs(folio, p, &tokill, flags & MF_ACTION_REQUIRED);\n\n",
     "\tfolio_unlock(folio);\n\tcollect_procs(folio, p, &tokill, flags);\n\n",
     "hwpoison_user_mappings() calls collect_procs()"),
    ("mm/memory-failure.c", "\t\treturn;\n\tif (unlikely(folio_test_ksm(folio)))\n",
     "\t\treturn;\n\tfolio_unlock(folio);\n\tif (unlikely(folio_test_ksm(folio)))\n",
     "collect_procs() calls collect_procs_file()"),
    ("mm/memory-failure.c", "\ti_mmap_lock_read(mapping);\n\trcu_read_lock();\n\tpgoff = ",
     "\tfolio_unlock(folio);\n\ti_mmap_lock_read(mapping);\n\trcu_read_lock();\n\tpgoff = ",
     "collect_procs_file() calls i_mmap_lock_read()"),
    # What is wrong today, and mended.
    ("fs/hugetlbfs/inode.c", "\ti_mmap_lock_write(mapping);\n\n\t/* If range starts before first",
     "\t/* If range starts before first",
     "hugetlbfs_punch_hole() calls hugetlbfs_zero_partial_page()"),
    ("fs/hugetlbfs/inode.c", "\tfolio = filemap_lock_hugetlb_folio(h, mapping, idx);\n",
     "\ti_mmap_unlock_write(mapping);\n"
     "\tfolio = filemap_lock_hugetlb_folio(h, mapping, idx);\n",
     "hugetlbfs_zero_partial_page() calls filemap_lock_hugetlb_folio()"),
    ("mm/hugetlb.c", "\t\t\tptep = huge_pte_alloc(mm, vma, address, psize);\n",
     "\t\t\ti_mmap_unlock_write(vma->vm_file->f_mapping);\n"
     "\t\t\tptep = huge_pte_alloc(mm, vma, address, psize);\n",
     "hugetlb_change_protection() calls huge_pte_alloc()"),
)


@pytest.mark.slow
def test_what_is_changed_is_seen(tmp_path: Path) -> None:
    """All at once, each is another function's or another claim's."""
    whole, tree = debian_files("7.3"), tmp_path / "7.3"
    for name in sorted({claim.file for claim in CLAIMS} | {"mm/memory.c"}):
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(whole / name, tree / name)
    for name, old, new, _seen in CHANGES:
        text = (tree / name).read_text(encoding="utf-8")
        assert text.count(old) == 1, (name, old)
        (tree / name).write_text(text.replace(old, new), encoding="utf-8")
    said = [*locks.broken(tree, CLAIMS, tmp_path), *locks.out_of_order(tree, tmp_path)]
    for _name, _old, _new, seen in CHANGES:
        assert [line for line in said if line.startswith(seen)], seen
    # And nothing of those that were left alone.
    for claim in CLAIMS:
        if claim.function in ("hugetlb_unshare_pmds", "folio_walk_start"):
            assert claim.name() not in said


@pytest.mark.slow
def test_a_function_without_the_call_is_no_proof(tmp_path: Path) -> None:
    (tmp_path / "mm").mkdir()
    (tmp_path / "mm/gup.c").write_text("static int gup_fast(void)\n{\n\treturn 0;\n}\n")
    [claim] = [one for one in CLAIMS if one.function == "gup_fast"]
    assert locks.broken(tmp_path, [claim], tmp_path) == {
        claim.name(): ["mm/gup.c has no such call"]}
    assert spatch.find(tmp_path / "locks0.cocci", tmp_path, ["mm/gup.c"]) == []
