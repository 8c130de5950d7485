// SPDX-License-Identifier: GPL-2.0
// breaks: of all who share a table, only the notifiers of one process are told of the walk
// files: mm/hugetlb.c
// places: hugetlb_sharers_notify
// tests: hugetlb_pmd_notifier
// absent: a walk that unshares the table tells the notifiers of each process as it comes to it

@@
expression list args;
@@
hugetlb_sharers_notify(...)
{
<...
(
- hugetlb_next_sharer(args)
+ (struct vm_area_struct *)NULL
|
- sharer_address(args)
+ 0UL
)
...>
}
