// SPDX-License-Identifier: GPL-2.0
// breaks: of all who share a table, only the process that the walk came to is flushed
// files: mm/hugetlb.c
// places: hugetlb_sharers_flush
// tests: hugetlb_pmd_migrate hugetlb_pmd_churn
// absent: a walk that unshares the table flushes each process as it comes to it
//
// The defect itself, in the form of the fix that leaves the table shared.

@@
expression list args;
@@
hugetlb_sharers_flush(...)
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
