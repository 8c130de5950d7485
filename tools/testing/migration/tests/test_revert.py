# SPDX-License-Identifier: GPL-2.0
"""revert.cocci, first of all pmd-share-migrate's: on shapes of the code, and on Debian's trees."""

import dataclasses
import re
import shutil
from pathlib import Path

import pytest
from conftest import debian_files, put, taken

from lab import defect
from lab.base import Base
from lab.errors import LabError
from lab.kernel import spatch, variant
from lab.kernel.source import Source

pytestmark = pytest.mark.skipif(not shutil.which("spatch"),
                                reason="no spatch: apt install coccinelle")

DEFECT = defect.load("pmd-share-migrate")

# Not the kernel's text: as much of its shape as the rule looks at.
CALLER = """\
static int somebody_else(struct vm_area_struct *vma)
{
	if (huge_pmd_unshare(mm, vma, &address, ptep)) {
		return 1;
	}
	return 0;
}
"""
NEW = """\
static bool %(name)s(struct folio *folio, struct vm_area_struct *vma,
		     unsigned long address, void *arg)
{
	bool ret = true;

	while (page_vma_mapped_walk(&pvmw)) {
		if (folio_test_hugetlb(folio)) {
			flush_cache_range(vma, range.start, range.end);
			if (!anon) {
				struct mmu_gather tlb;

				if (!hugetlb_vma_trylock_write(vma))
					goto walk_abort;
				tlb_gather_mmu_vma(&tlb, vma);
				if (huge_pmd_unshare(&tlb, vma, address, pvmw.pte)) {
					hugetlb_vma_unlock_write(vma);
					tlb_finish_mmu(&tlb);
					/* gone */
					goto walk_done;
				}
				hugetlb_vma_unlock_write(vma);
				tlb_finish_mmu(&tlb);
			}
		}
		%(also)s
		continue;
walk_abort:
		ret = false;
walk_done:
		page_vma_mapped_walk_done(&pvmw);
		break;
	}
	return ret;
}
"""
V5_10 = """\
static bool try_to_unmap_one(struct page *page, struct vm_area_struct *vma,
			     unsigned long address, void *arg)
{
	while (page_vma_mapped_walk(&pvmw)) {
		if (PageHuge(page) && !PageAnon(page)) {
			VM_BUG_ON(!(flags & TTU_RMAP_LOCKED));
			if (huge_pmd_unshare(mm, vma, &address, pvmw.pte)) {
				flush_tlb_range(vma, range.start, range.end);
				page_vma_mapped_walk_done(&pvmw);
				break;
			}
		}
		pteval = ptep_clear_flush(vma, address, pvmw.pte);
	}
	return ret;
}
"""
V4_4 = """\
static int try_to_unmap_one(struct page *page, struct vm_area_struct *vma,
		     unsigned long address, void *arg)
{
	if (PageHuge(page)) {
		if (huge_pmd_unshare(mm, &address, pte)) {
			flush_tlb_range(vma, start, end);
			goto out_unmap;
		}
	}
	if (!pte)
		goto out_unmap;
	set_pte_at(mm, address, pte, swp_pte);
out_unmap:
	pte_unmap_unlock(pte, ptl);
	return ret;
}
"""
# The last release of 4.9 has it in one condition.
V4_9 = V4_4.replace("""\
	if (PageHuge(page)) {
		if (huge_pmd_unshare(mm, &address, pte)) {
			flush_tlb_range(vma, start, end);
			goto out_unmap;
		}
	}
""", """\
	if (PageHuge(page) && huge_pmd_unshare(mm, &address, pte)) {
		flush_tlb_range(vma, start, end);
		goto out_unmap;
	}
""")


EXEC = """\
static int %(name)s(struct vm_area_struct *vma, unsigned long shift)
{
	if (vma_adjust(vma, new_start, old_end, vma->vm_pgoff, NULL))
		return -ENOMEM;
	lru_add_drain();
	if (length != move_page_tables(vma, old_start,
				       vma, new_start, length, false))
		return -ENOMEM;
	return 0;
}
"""
SETUP = """
int setup_arg_pages(struct linux_binprm *bprm, unsigned long stack_top)
{
#ifdef CONFIG_STACK_GROWSUP
	stack_base = rlimit_max(RLIMIT_STACK);
#else
	stack_top = arch_align_stack(stack_top);
#endif
	if (%(lock)s)
		return -EINTR;
	return shift_arg_pages(vma, stack_shift);
}
"""
LOCKED = SETUP % {"lock": "mmap_write_lock_killable(mm)"}
NAP, LONG_NAP = (f"schedule_timeout_uninterruptible({ticks});" for ticks in ("1", "HZ / 20"))


def source_with(tmp_path: Path, text: str) -> Source:
    tree = tmp_path / "work" / "tree"
    (tree / "mm").mkdir(parents=True)
    (tree / "mm/rmap.c").write_text(text)
    base = Base(name="0.1", package=None, suites=(), drop=(), add=(), cflags="", cmdline="")
    return taken(Source(base=base, version="0.1.2", identity={}, key="k", tree=tree))


def vulnerable_text(source: Source) -> tuple[variant.Variant, str]:
    vulnerable, fixed = variant.plan(source, DEFECT)
    assert (fixed.name, fixed.how, fixed.diff) == ("fixed", "as it is", "")
    put(source, vulnerable)
    return vulnerable, (source.tree / "mm/rmap.c").read_text()


def without_branch(text: str) -> str:
    """The text less each `if` statement with huge_pmd_unshare() in a try_to_ function."""
    lines, out, depth, inside = text.split("\n"), [], None, False
    for line in lines:
        if re.match(r"\w.*\(", line) and not line.startswith("\t"):
            inside = "try_to_" in line
        if inside and depth is None and "huge_pmd_unshare(" in line:
            depth = len(line) - len(line.lstrip("\t"))
            continue
        if depth is not None:
            if line == "\t" * depth + "}":
                depth = None
            continue
        out.append(line)
    return "\n".join(out)


def test_new_shape_loses_both_branches_and_the_label_without_a_user(tmp_path: Path) -> None:
    text = "\n".join([CALLER, NEW % {"name": "try_to_unmap_one", "also": "x();"},
                      NEW % {"name": "try_to_migrate_one", "also": "if (x) goto walk_done;"}])
    made, result = vulnerable_text(source_with(tmp_path, text))
    lines = text.split("\n")
    unmap, migrate = (number for number, line in enumerate(lines, 1)
                      if "huge_pmd_unshare(&tlb" in line)
    label = lines.index("walk_done:") + 1
    assert made.how == "revert.cocci (2 places)"
    assert made.places == (
        f"mm/rmap.c:{unmap} try_to_unmap_one (and its label walk_done: in line {label})",
        f"mm/rmap.c:{migrate} try_to_migrate_one")
    assert result == without_branch(text).replace("walk_done:\n", "", 1)


@pytest.mark.parametrize("text", [V5_10, V4_9, V4_4])
def test_old_shapes_with_one_function_lose_that_branch_alone(tmp_path: Path, text: str) -> None:
    text = text + "\n" + CALLER
    made, result = vulnerable_text(source_with(tmp_path, text))
    line = 1 + next(number for number, line in enumerate(text.split("\n")) if "unshare" in line)
    assert made.places == (f"mm/rmap.c:{line} try_to_unmap_one",)
    assert made.how == "revert.cocci (1 place)"
    assert result == without_branch(text)


def test_a_rule_that_matches_nothing_stops_the_run(tmp_path: Path) -> None:
    source = source_with(tmp_path, without_branch(V5_10) + "\n" + CALLER)
    with pytest.raises(LabError, match="revert.cocci finds no protection in mm/rmap.c"):
        variant.plan(source, DEFECT)


def test_a_comment_is_no_call(tmp_path: Path) -> None:
    """Kernels from 4.19 to 5.15 have it within the branch that goes."""
    begin = "pvmw.pte)) {\n"
    assert V5_10.count(begin) == 1
    made, _text = vulnerable_text(source_with(tmp_path, V5_10.replace(
        begin, f"{begin}\t\t\t\t/* huge_pmd_unshare unmapped an entire PMD */\n")))
    assert [place.split()[1] for place in made.places] == ["try_to_unmap_one"]


@pytest.mark.parametrize(("text", "says"), [
    # One function of two is protected.
    (V5_10 + "\n" + without_branch(NEW % {"name": "try_to_migrate_one", "also": ""}),
     "try_to_migrate_one: 0 instead of 1"),
    # Twice in one function.
    (V5_10.replace("		pteval = ", "		if (huge_pmd_unshare(a)) {\n			b();\n		}\n"
                   "		pteval = "),
     "try_to_unmap_one: 2 instead of 1"),
])
def test_another_number_of_places_stops_the_run(tmp_path: Path, text: str, says: str) -> None:
    with pytest.raises(LabError, match=says):
        variant.plan(source_with(tmp_path, text), DEFECT)


def test_a_rule_that_changes_more_than_it_should_stops_the_run(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def greedy(rule: Path, folder: Path, files: tuple[str, ...]) -> None:
        path = folder / files[0]
        path.write_text(without_branch(path.read_text()).replace("\treturn 1;\n", ""))

    monkeypatch.setattr(spatch, "patch", greedy)
    with pytest.raises(LabError, match=r"\(somebody_else\).*no huge_pmd_unshare"):
        variant.plan(source_with(tmp_path, V5_10 + "\n" + CALLER), DEFECT)


def test_a_tree_without_the_file_is_no_kernel_tree(tmp_path: Path) -> None:
    source = source_with(tmp_path, V5_10)
    (source.tree / "mm/rmap.c").unlink()
    source = taken(source)
    with pytest.raises(LabError, match="has no mm/rmap.c"):
        variant.plan(source, DEFECT)


def test_a_broken_rule_is_an_error_and_no_mismatch(tmp_path: Path) -> None:
    rule = tmp_path / "revert.cocci"
    rule.write_text("@@ this is no rule\n")
    (tmp_path / "a.c").write_text("int x;\n")
    with pytest.raises(LabError, match=r"coccinelle failed: .*, with .*revert.cocci on a.c"):
        spatch.patch(rule, tmp_path, ("a.c",))


# Up to 6.6, and since.
QUEUES = {"queue_pages_hugetlb": """\
	if (flags & (MPOL_MF_MOVE_ALL) ||
	    (flags & MPOL_MF_MOVE && page_mapcount(page) == 1 &&
	     !hugetlb_pmd_shared(pte))) {
		isolate_hugetlb(page, qp->pagelist);
	}
""", "queue_folios_hugetlb": """\
	if ((flags & MPOL_MF_MOVE_ALL) ||
	    (!folio_maybe_mapped_shared(folio) && !hugetlb_pmd_shared(pte)))
		folio_isolate_hugetlb(folio, qp->pagelist);
"""}


@pytest.mark.parametrize("name", QUEUES)
def test_whether_a_page_may_be_moved_is_told_by_the_map_count(tmp_path: Path, name: str) -> None:
    other = "static int smaps(pte_t *pte)\n{\n\treturn x == 1 && !hugetlb_pmd_shared(pte);\n}\n"
    source = source_with(tmp_path, "")
    text = f"static int {name}(pte_t *pte)\n{{\n{QUEUES[name]}\treturn 0;\n}}\n"
    (source.tree / "mm/mempolicy.c").write_text(text + other)
    source = taken(source)
    vulnerable, fixed = variant.plan(source, defect.load("pmd-share-move-all"))
    assert [place.split()[1] for place in vulnerable.places] == [name]
    assert fixed.diff == ""
    put(source, vulnerable)
    made = (source.tree / "mm/mempolicy.c").read_text()
    assert made.endswith(other) and made.count("hugetlb_pmd_shared") == 1
    assert re.search(r"map(count|ped_shared)\((page|folio)\)", made)


MOVES = """\
int move_hugetlb_page_tables(struct vm_area_struct *vma, unsigned long old_addr,
			     unsigned long new_addr)
{
	for (; old_addr < old_end; old_addr += sz, new_addr += sz) {
		const unsigned long offset_to_last_entry =
			(old_addr | last_addr_mask) - old_addr;

		if (!src_pte) {
			old_addr += offset_to_last_entry;
			new_addr += offset_to_last_entry;
			continue;
		}
		if (huge_pmd_unshare(&tlb, vma, old_addr, src_pte)) {
			old_addr += offset_to_last_entry;
			new_addr += offset_to_last_entry;
			continue;
		}
	}
	return 0;
}
"""


def test_a_variable_may_go_more_than_once_a_place(tmp_path: Path) -> None:
    source, astray = source_with(tmp_path, ""), defect.load("hugetlb-mremap-astray")
    path = source.tree / "mm/hugetlb.c"
    path.write_text(MOVES)
    vulnerable, _fixed = variant.plan(taken(source), astray)
    assert [place.split()[1] for place in vulnerable.places] == ["move_hugetlb_page_tables"] * 2
    assert len(re.findall(r"(?m)^\+\s+new_addr \|= last_addr_mask;$", vulnerable.diff)) == 2
    # One of the two goes elsewhere.
    path.write_text(MOVES.replace("new_addr += offset", "new_addr += other_offset", 1))
    with pytest.raises(LabError, match="move_hugetlb_page_tables: 1 instead of 2"):
        variant.plan(taken(source), astray)


# do_huge_pmd_numa_page() from 4.20 to 5.12, and since.
FAULT = """\
vm_fault_t do_huge_pmd_numa_page(struct vm_fault *vmf, pmd_t pmd)
{
	if (mm_tlb_flush_pending(vma->vm_mm)) {
		flush_tlb_range(vma, haddr, haddr + HPAGE_PMD_SIZE);
		/* Devices, too. */
		mmu_notifier_invalidate_range(vma->vm_mm, haddr,
					      haddr + HPAGE_PMD_SIZE);
	}
	spin_unlock(vmf->ptl);
	migrate_misplaced_transhuge_page(vma->vm_mm, vma, vmf->pmd, pmd);
	return 0;
}
"""
NEW_FAULT = """\
vm_fault_t do_huge_pmd_numa_page(struct vm_fault *vmf)
{
	spin_unlock(vmf->ptl);
	if (migrate_misplaced_page(page, vma, target_nid))
		return 1;
	return 0;
}
"""
UNMAP = """\
static void somebody_else(struct vm_area_struct *vma)
{
	mmu_notifier_invalidate_range(vma->vm_mm, start, end);
}
"""


def with_fault(tmp_path: Path, text: str) -> Source:
    source = source_with(tmp_path, "")
    (source.tree / "mm/huge_memory.c").write_text(UNMAP + "\n" + text)
    return taken(source)


def test_a_fault_that_migrates_a_thp_no_longer_tells_devices(tmp_path: Path) -> None:
    notifier = dataclasses.replace(defect.load("thp-numa-notifier"), kernel=defect.Kernel())
    source = with_fault(tmp_path, FAULT)
    vulnerable, fixed = variant.plan(source, notifier)
    assert [place.split()[1] for place in vulnerable.places] == ["do_huge_pmd_numa_page"]
    assert fixed.diff == ""
    put(source, vulnerable)
    made = (source.tree / "mm/huge_memory.c").read_text()
    assert made.count("mmu_notifier_invalidate_range(") == 1 and UNMAP in made
    assert "flush_tlb_range(vma, haddr, haddr + HPAGE_PMD_SIZE);" in made


def test_where_all_pages_go_one_way_there_is_nothing_to_take_out(tmp_path: Path) -> None:
    with pytest.raises(LabError, match="revert.cocci finds no protection in mm/huge_memory.c"):
        variant.plan(with_fault(tmp_path, NEW_FAULT), defect.load("thp-numa-notifier"))


@pytest.mark.parametrize("lock", ["mmap_write_lock_killable(mm)",
                                  "down_write_killable(&mm->mmap_sem)"])
def test_an_amplifier_is_in_both_kernels_and_is_named(tmp_path: Path, lock: str) -> None:
    source = source_with(tmp_path, V5_10.replace("try_to_unmap_one", "somebody_else") + """\
static bool invalid_migration_vma(struct vm_area_struct *vma, void *arg)
{
	return vma_is_temporary_stack(vma);
}
""")
    (source.tree / "fs").mkdir()
    (source.tree / "fs/exec.c").write_text(EXEC % {"name": "shift_arg_pages"}
                                           + SETUP % {"lock": lock})
    source = taken(source)
    both = variant.plan(source, defect.load("exec-temp-stack"))
    for one in both:
        assert "amplifier.cocci: exec sleeps for 50 ms" in one.how
        assert one.places[-2:] == ("fs/exec.c:6 shift_arg_pages (amplifier.cocci)",
                                   "fs/exec.c:19 setup_arg_pages (amplifier.cocci)")
        put(source, one)
        text = (source.tree / "fs/exec.c").read_text()
        assert re.search(rf"lru_add_drain.*\n\t{re.escape(NAP)}\n\tif \(length", text)
        assert f"#endif\n\t{LONG_NAP}\n\tif ({lock})\n" in text
        assert text.count(NAP) == 1 and text.count(LONG_NAP) == 1
    assert len(both[0].places) == 3 and len(both[1].places) == 2
    assert "mm/rmap.c" in both[0].diff and "mm/rmap.c" not in both[1].diff


@pytest.mark.parametrize("text", [
    "", EXEC % {"name": "shift_arg_pages"} + EXEC % {"name": "relocate_vma_down"} + LOCKED,
    (EXEC % {"name": "shift_arg_pages"}).replace("move_", "shift_") + LOCKED,
    EXEC % {"name": "shift_arg_pages"} + SETUP % {"lock": "mmap_write_trylock(mm)"}])
def test_an_amplifier_that_finds_another_place_stops_the_run(tmp_path: Path, text: str) -> None:
    source = source_with(tmp_path, """\
static bool invalid_migration_vma(struct vm_area_struct *vma, void *arg)
{
	return vma_is_temporary_stack(vma);
}
""")
    (source.tree / "fs").mkdir()
    (source.tree / "fs/exec.c").write_text(text)
    source = taken(source)
    with pytest.raises(LabError, match="exec-temp-stack/amplifier.cocci changes .* needs a look"):
        variant.plan(source, defect.load("exec-temp-stack"))


@pytest.mark.parametrize(("version", "functions"), [
    ("6.12", ["try_to_unmap_one", "try_to_migrate_one"]),
    ("6.1", ["try_to_unmap_one", "try_to_migrate_one"]),
])
def test_debians_trees(tmp_path: Path, version: str, functions: list[str]) -> None:
    text = (debian_files(version) / "mm/rmap.c").read_text()
    made, result = vulnerable_text(source_with(tmp_path, text))
    assert [place.split()[1] for place in made.places] == functions
    for place in made.places:
        line = int(re.match(r"mm/rmap.c:(\d+) ", place)[1])     # type: ignore[index]
        assert "if (huge_pmd_unshare(" in text.split("\n")[line - 1]
    # Nothing but the branches went, and labels that would be unused without them.
    assert re.sub(r"(?m)^walk_done:\n", "", result) == \
        re.sub(r"(?m)^walk_done:\n", "", without_branch(text))
    for kept in ("hugetlb_vma_trylock_write", "flush_cache_range",
                 "adjust_range_if_pmd_sharing_possible", "tlb_gather_mmu_vma"):
        assert result.count(kept) == text.count(kept) > 0
    for name, first, last in variant.functions(result):
        body = "\n".join(result.split("\n")[first - 1:last])
        for label in re.findall(r"(?m)^(\w+):$", body):
            assert f"goto {label}" in body, f"{name} has the label {label} without a user"
