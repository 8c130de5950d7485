// SPDX-License-Identifier: GPL-2.0

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
