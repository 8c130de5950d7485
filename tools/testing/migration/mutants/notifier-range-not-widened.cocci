// SPDX-License-Identifier: GPL-2.0
// breaks: the walk of a migration tells the notifiers of one page, not of the whole table
// files: mm/rmap.c
// places: try_to_unmap_one|try_to_unmap_poisoned_hugetlb_one try_to_migrate_one
// tests: hugetlb_pmd_notifier
// absent: the queues of 4.4 to 4.18 have all who share a table flushed, and unshare nothing in a walk
//
// In 4.x the range is also that of the TLB flush: see flush-one-page for why x86 does not mind.

@alone@
identifier fn = {try_to_unmap_one, try_to_migrate_one, try_to_unmap_poisoned_hugetlb_one};
expression E;
@@
fn(...)
{
<...
- if (E)
- 	adjust_range_if_pmd_sharing_possible(...);
...>
}

@with_others@
identifier fn = {try_to_unmap_one, try_to_migrate_one, try_to_unmap_poisoned_hugetlb_one};
@@
fn(...)
{
<...
- adjust_range_if_pmd_sharing_possible(...);
...>
}
