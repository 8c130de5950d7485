// SPDX-License-Identifier: GPL-2.0
// EXISTS  protection of huge pages can be changed, they can be migrated, and x86 leaves flushes out
// NEEDS   the function that changes it
// HAS     it says that a flush is pending before it looks at entries: itself, or by an mmu_gather, if
//         that says so; or who calls it was given one

@initialize:python@
@@
CHANGES = "hugetlb_change_protection"
GATHERS = ("tlb_gather_mmu", "__tlb_gather_mmu", "arch_tlb_gather_mmu")
LOOKS = ("huge_pte_offset", "hugetlb_walk")
EXISTS = (CHANGES, "unmap_and_move_huge_page", "unmap_and_move_hugetlb_folio", "pte_accessible")
looks, says, gathers, told = [], [], [], []

@there@
identifier fn = {hugetlb_change_protection, unmap_and_move_huge_page, unmap_and_move_hugetlb_folio,
                 pte_accessible, change_protection, tlb_gather_mmu, __tlb_gather_mmu};
position p;
@@
fn@p(...) { ... }

@script:python@
p << there.p;
fn << there.fn;
@@
name = str(fn)
kinds = ("EXISTS",) if name in EXISTS else ("SEEN",)
for kind in ("EXISTS", "SEEN", "NEEDS") if name == CHANGES else kinds:
    print("%s %s %s:%s" % (kind, name, p[0].file, p[0].line))

@calls@
identifier fn = {inc_tlb_flush_pending, tlb_gather_mmu, tlb_gather_mmu_vma, huge_pte_offset,
                 hugetlb_walk};
position p;
@@
fn@p(...)

@script:python@
p << calls.p;
fn << calls.fn;
@@
name, fn = str(p[0].current_element), str(fn)
where = (int(p[0].line), "%s:%s" % (p[0].file, p[0].line))
if name in GATHERS and fn == "inc_tlb_flush_pending":
    told.append(where)
elif name == CHANGES:
    (looks if fn in LOOKS else says if fn == "inc_tlb_flush_pending" else gathers).append(where)

@handed@
identifier tlb;
position p;
@@
change_protection@p(struct mmu_gather *tlb, ...) { ... }

@script:python@
p << handed.p;
@@
# Before any line.
gathers.append((0, "%s:%s" % (p[0].file, p[0].line)))

@finalize:python@
@@
for line, where in says + (gathers if told else []):
    if looks and line < min(looks)[0]:
        print("HAS %s %s" % (CHANGES, where))
