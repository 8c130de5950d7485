// SPDX-License-Identifier: GPL-2.0
// breaks: after an unshare the walk of a migration returns without telling the notifiers of the end
// files: mm/rmap.c
// places: try_to_unmap_one|try_to_migrate_one
// tests: hugetlb_pmd_notifier
// absent: the queues of 4.4 to 4.18 have all who share a table flushed, and unshare nothing in a walk
//
// One way out of several, and one walk: that of a migration, which was once that of an unmap.

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
+ return ret;
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
+ return ret;
 }
...>
}

// Up to 4.10 there is one entry to a page, and no loop.
@oldest depends on !migrate@
symbol pte, ptl;
identifier out_unmap;
@@
try_to_unmap_one(...)
{
<...
 if (huge_pmd_unshare(..., pte)) {
 ...
- goto out_unmap;
+ pte_unmap_unlock(pte, ptl);
+ return ret;
 }
...>
}
