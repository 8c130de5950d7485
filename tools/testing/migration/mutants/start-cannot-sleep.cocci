// SPDX-License-Identifier: GPL-2.0
// breaks: the notifiers are told of the start of a migration's walk where they cannot sleep
// files: mm/rmap.c
// places: try_to_unmap_one|try_to_migrate_one
// tests: hugetlb_pmd_notifier

@migrate@
@@
try_to_migrate_one(...) { ... }

@new@
@@
try_to_migrate_one(...)
{
<...
+preempt_disable();
 mmu_notifier_invalidate_range_start(...);
+preempt_enable();
...>
}

@old depends on !migrate@
@@
try_to_unmap_one(...)
{
<...
+preempt_disable();
 mmu_notifier_invalidate_range_start(...);
+preempt_enable();
...>
}
