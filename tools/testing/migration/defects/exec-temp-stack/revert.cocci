// SPDX-License-Identifier: GPL-2.0
// Takes the protection of exec-temp-stack out: the walk of a migration no longer passes over the
// stack that exec is still building.

@@
@@
invalid_migration_vma(...)
{
<...
- vma_is_temporary_stack(...)
+ false
...>
}
