// SPDX-License-Identifier: GPL-2.0
// breaks: the walk of a migration unshares the table, and flushes no cache for it
// files: mm/rmap.c
// places: try_to_unmap_one|try_to_unmap_poisoned_hugetlb_one try_to_migrate_one
// tests: hugetlb_pmd_migrate hugetlb_pmd_poison
// absent: the queues of 4.4 to 4.18 have all who share a table flushed, and unshare nothing in a walk
// unseen x86_64: caches go by physical addresses there, and flush_cache_range() does nothing

// Other pages than those of hugetlb are unmapped elsewhere since 7.x, and their caches flushed.
@hugetlb exists@
identifier fn = {try_to_unmap_one, try_to_migrate_one, try_to_unmap_poisoned_hugetlb_one};
@@
fn(...)
{
<+...
huge_pmd_unshare(...)
...+>
}

@@
identifier hugetlb.fn;
@@
fn(...)
{
<...
- flush_cache_range(...);
...>
}
