// SPDX-License-Identifier: GPL-2.0
// breaks: the walk of a migration unshares the table, and no TLB is flushed for it
// files: mm/rmap.c
// places: try_to_unmap_one|try_to_unmap_poisoned_hugetlb_one try_to_migrate_one
// tests: hugetlb_pmd_migrate hugetlb_pmd_poison
// absent: the queues of 4.4 to 4.18 have all who share a table flushed, and unshare nothing in a walk
//
// Where the flush is noted in an mmu_gather, it does not do to take the call of
// huge_pmd_unshare_flush() away: tlb_finish_mmu() would flush as well.  So it is noted in one that
// nobody flushes.

@direct@
identifier fn = {try_to_unmap_one, try_to_migrate_one, try_to_unmap_poisoned_hugetlb_one};
@@
fn(...)
{
<...
 if (huge_pmd_unshare(...)) {
 ...
- flush_tlb_range(...);
 ...
 }
...>
}

@noted@
identifier fn = {try_to_unmap_one, try_to_migrate_one, try_to_unmap_poisoned_hugetlb_one};
identifier tlb, vma;
@@
fn(...)
{
<...
 huge_pmd_unshare(
- &tlb
+ &(struct mmu_gather){ .mm = vma->vm_mm }
 , vma, ...)
...>
}
