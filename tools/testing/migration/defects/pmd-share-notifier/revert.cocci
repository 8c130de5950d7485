// SPDX-License-Identifier: GPL-2.0
// The walk tells the notifiers of the page that it was asked for, whatever goes with it.

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
