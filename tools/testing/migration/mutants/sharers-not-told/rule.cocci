// SPDX-License-Identifier: GPL-2.0

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

// Of series.flush, which goes through all of them once.
@@
identifier folio, start;
@@
hugetlb_sharers_notify(struct folio *folio, bool start)
{
<...
- cond_resched();
+ break;
...>
}
