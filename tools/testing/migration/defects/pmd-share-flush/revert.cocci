// SPDX-License-Identifier: GPL-2.0
// Takes the protection of pmd-share-flush out: what goes with a shared table is noted in an
// mmu_gather that nobody flushes, instead of the caller's.  To take the call of
// huge_pmd_unshare_flush() out would not do, since the caller's tlb_finish_mmu() would still flush.
//
// Only the stable trees of 2026 and their like hand over the mmu_gather.

@@
identifier tlb, vma;
@@
__unmap_hugepage_range(struct mmu_gather *tlb, struct vm_area_struct *vma, ...)
{
<...
 huge_pmd_unshare(
- tlb
+ &(struct mmu_gather){ .mm = vma->vm_mm }
 , ...)
...>
}
