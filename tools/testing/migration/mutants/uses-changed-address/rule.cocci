// SPDX-License-Identifier: GPL-2.0

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
