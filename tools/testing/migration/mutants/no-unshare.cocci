// SPDX-License-Identifier: GPL-2.0
// breaks: the walk of a migration does not unshare the table
// files: mm/rmap.c
// places: try_to_unmap_one|try_to_unmap_poisoned_hugetlb_one try_to_migrate_one
// tests: hugetlb_pmd_migrate hugetlb_pmd_poison
// absent: the queues of 4.4 to 4.18 have all who share a table flushed, and unshare nothing in a walk
//
// The defect itself: the first process is flushed, the others write on.

@@
identifier fn = {try_to_unmap_one, try_to_migrate_one, try_to_unmap_poisoned_hugetlb_one};
expression list args;
@@
fn(...)
{
<...
- huge_pmd_unshare(args)
+ 0 && huge_pmd_unshare(args)
...>
}
