// SPDX-License-Identifier: GPL-2.0

@@
identifier tlb, vma;
@@
move_hugetlb_page_tables(struct vm_area_struct *vma, ...)
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
