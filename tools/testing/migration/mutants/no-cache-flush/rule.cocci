// SPDX-License-Identifier: GPL-2.0

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
