// SPDX-License-Identifier: GPL-2.0

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
