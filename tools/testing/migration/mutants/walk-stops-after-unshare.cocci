// SPDX-License-Identifier: GPL-2.0
// breaks: the walk of a migration stops with the first process that it unshared the table of
// files: mm/rmap.c
// places: try_to_unmap_one|try_to_unmap_poisoned_hugetlb_one try_to_migrate_one
// tests: hugetlb_pmd_poison
// absent: the queues of 4.4 to 4.18 have all who share a table flushed, and unshare nothing in a walk
//
// No write is lost by that, since the page stays mapped and is not moved.  Of a poisoned page the
// others are not told.

// Up to 4.11 a walk returns a word for what to do next.
@answers@
identifier fn = {try_to_unmap_one};
symbol ret;
@@
fn(...)
{
<+...
ret = SWAP_FAIL;
...+>
}

@@
identifier answers.fn;
@@
fn(...)
{
<...
 if (huge_pmd_unshare(...)) {
+ ret = SWAP_FAIL;
 ...
 }
...>
}

@depends on !answers@
identifier fn = {try_to_unmap_one, try_to_migrate_one, try_to_unmap_poisoned_hugetlb_one};
@@
fn(...)
{
<...
 if (huge_pmd_unshare(...)) {
+ ret = false;
 ...
 }
...>
}
