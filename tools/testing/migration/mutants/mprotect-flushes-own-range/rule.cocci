// SPDX-License-Identifier: GPL-2.0

@direct@
identifier flush = {flush_tlb_range, flush_hugetlb_tlb_range};
identifier vma, start, end;
expression from, to;
symbol unshared;
@@
hugetlb_change_protection(struct vm_area_struct *vma, ...)
{
<...
 if (unshared) {
 	flush(vma,
- from, to
+ start, end
 	);
 ...
 } else {
 	flush(vma, start, end);
 	...
 }
...>
}

@noted@
identifier tlb, vma;
@@
hugetlb_change_protection(struct vm_area_struct *vma, ...)
{
<...
 huge_pmd_unshare(
- &tlb
+ &(struct mmu_gather){ .mm = vma->vm_mm }
 , vma, ...)
...>
}

@depends on noted@
identifier noted.tlb, noted.vma, address, end;
symbol start;
@@
hugetlb_change_protection(struct vm_area_struct *vma, unsigned long address, unsigned long end, ...)
{
<...
 tlb_flush_mmu_tlbonly(&tlb);
+ flush_tlb_range(vma, start, end);
...>
}
