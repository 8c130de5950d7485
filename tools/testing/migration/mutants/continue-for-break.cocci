// SPDX-License-Identifier: GPL-2.0
// breaks: after an unshare the walk of a VMA is ended and goes on: continue in place of break
// files: mm/rmap.c
// places: try_to_unmap_one|try_to_migrate_one
// tests: hugetlb_pmd_migrate
// absent: the walk of a VMA is no loop up to 4.10

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
