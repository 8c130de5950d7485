// SPDX-License-Identifier: GPL-2.0
// breaks: what is flushed for an unshared table is one page of it
// files: mm/rmap.c include/asm-generic/tlb.h
// places: try_to_unmap_one|tlb_unshare_pmd_ptdesc
// tests: hugetlb_pmd_migrate hugetlb_pmd_flush hugetlb_pmd_notifier
// absent: the queues of 4.4 to 4.18 have all who share a table flushed, and unshare nothing in a walk
// unseen before 4.20: x86 empties the TLB for any part of a hugetlb mapping, since it flushed pages
//     of 4 KiB only
// unseen tcg, before 6.6: QEMU's TCG has no huge pages in its TLB, and empties it for one address of
//     one; later what flushes the TLB also tells the notifiers
//
// In 4.x the walk says what to flush, later that is done at one place for all who unshare: then a
// hole that is punched into the file shows it.

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
