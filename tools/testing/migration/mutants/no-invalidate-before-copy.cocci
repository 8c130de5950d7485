// SPDX-License-Identifier: GPL-2.0
// breaks: secondary TLBs are not invalidated before the page is copied
// files: mm/rmap.c
// places: try_to_unmap_one try_to_migrate_one
// tests: hugetlb_pmd_notifier
// absent: mmu_notifier_invalidate_range() is gone since 6.6, where what flushes the TLB does it
// unseen before 4.17: mmu_notifier_invalidate_range_end() invalidates them as well, and before the
//     copy, and there may be no end of a walk that does not
//
// Not to invalidate them where the table is unshared is not enough, for the reason above.

@told@
identifier fn = {try_to_unmap_one, try_to_migrate_one};
@@
fn(...)
{
<+...
 if (huge_pmd_unshare(...)) {
 ...
- mmu_notifier_invalidate_range(...);
 ...
 }
...+>
}

// Not before 4.17.
@other_end@
@@
arch_unmap_one(...)

@depends on told && other_end@
identifier fn = {try_to_unmap_one, try_to_migrate_one};
@@
fn(...)
{
<...
- mmu_notifier_invalidate_range_end
+ mmu_notifier_invalidate_range_only_end
  (...)
...>
}
