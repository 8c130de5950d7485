// SPDX-License-Identifier: GPL-2.0

@direct@
identifier vma;
expression from, to;
symbol unshared;
@@
__unmap_hugepage_range(...)
{
<...
 if (
- unshared
+ 0 && unshared
 )
	flush_tlb_range(vma, from, to);
...>
}

@noted@
identifier tlb, vma;
@@
__unmap_hugepage_range(struct mmu_gather *tlb, struct vm_area_struct *vma, ...)
{
<...
 huge_pmd_unshare(
- tlb
+ &(struct mmu_gather){ .mm = vma->vm_mm }
 , vma, ...)
...>
}
