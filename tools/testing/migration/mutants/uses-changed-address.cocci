// SPDX-License-Identifier: GPL-2.0
// breaks: what is flushed is the table of the address that huge_pmd_unshare() has changed
// files: mm/rmap.c
// places: try_to_unmap_one
// tests: hugetlb_pmd_notifier
// absent: huge_pmd_unshare() leaves the address in its table or is given the address itself, and
//     what to flush is noted before
//
// For the first page of a table that is the table before it.

@@
identifier fn = {try_to_unmap_one};
identifier addr, vma, start, end;
expression mm;
@@
fn(...)
{
<...
 if (huge_pmd_unshare(mm, &addr, ...)) {
 ...
 flush_tlb_range(vma,
- start, end
+ addr & PUD_MASK, (addr & PUD_MASK) + PUD_SIZE
 );
 mmu_notifier_invalidate_range(mm,
- start, end
+ addr & PUD_MASK, (addr & PUD_MASK) + PUD_SIZE
 );
 ...
 }
...>
}
