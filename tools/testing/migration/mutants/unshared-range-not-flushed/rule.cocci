// SPDX-License-Identifier: GPL-2.0

@@
identifier tlb, vma;
@@
hugetlb_unshare_pmds(...)
{
<...
(
 huge_pmd_unshare(
- &tlb
+ &(struct mmu_gather){ .mm = vma->vm_mm }
 , vma, ...)
|
 __huge_pmd_unshare(
- &tlb
+ &(struct mmu_gather){ .mm = vma->vm_mm }
 , vma, ...)
)
...>
}
