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
