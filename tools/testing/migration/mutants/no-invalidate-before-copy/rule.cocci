// SPDX-License-Identifier: GPL-2.0

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
