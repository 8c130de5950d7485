// SPDX-License-Identifier: GPL-2.0

@direct@
identifier fn = {try_to_unmap_one};
identifier vma, address, start, end;
@@
fn(..., struct vm_area_struct *vma, unsigned long address, ...)
{
<...
 if (huge_pmd_unshare(...)) {
 ...
 flush_tlb_range(vma,
- start, end
+ address, address + huge_page_size(hstate_vma(vma))
 );
 ...
 }
...>
}

@noted@
identifier fn = {tlb_unshare_pmd_ptdesc};
expression tlb, addr;
@@
fn(...)
{
<...
 tlb_flush_pmd_range(tlb,
- addr & PUD_MASK, PUD_SIZE
+ addr & PMD_MASK, PMD_SIZE
 );
...>
}
