// SPDX-License-Identifier: GPL-2.0

@@
@@
try_to_migrate_one(...)
{
<...
(
- mmu_notifier_invalidate_range_start(...);
|
- mmu_notifier_invalidate_range_end(...);
)
...>
}
