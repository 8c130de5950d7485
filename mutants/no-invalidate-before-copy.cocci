// SPDX-License-Identifier: GPL-2.0
// breaks: secondary TLBs are not invalidated before the page is copied
// files: mm/rmap.c
// places: try_to_unmap_one try_to_migrate_one
// tests: hugetlb_pmd_notifier
// absent: mmu_notifier_invalidate_range() is gone since 6.6, where what flushes the TLB does it

@@
identifier fn = {try_to_unmap_one, try_to_migrate_one};
@@
fn(...)
{
<...
 if (huge_pmd_unshare(...)) {
 ...
- mmu_notifier_invalidate_range(...);
 ...
 }
...>
}
