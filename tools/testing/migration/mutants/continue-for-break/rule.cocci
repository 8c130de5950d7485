// SPDX-License-Identifier: GPL-2.0

@migrate@
@@
try_to_migrate_one(...) { ... }

@new@
@@
try_to_migrate_one(...)
{
<...
 if (huge_pmd_unshare(...)) {
 ...
 page_vma_mapped_walk_done(...);
- break;
+ continue;
 }
...>
}

@old depends on !migrate@
@@
try_to_unmap_one(...)
{
<...
 if (huge_pmd_unshare(...)) {
 ...
 page_vma_mapped_walk_done(...);
- break;
+ continue;
 }
...>
}
