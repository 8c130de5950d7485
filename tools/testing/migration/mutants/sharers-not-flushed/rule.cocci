// SPDX-License-Identifier: GPL-2.0

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

// Of series.flush, which goes through all of them once.
@@
identifier folio;
@@
hugetlb_sharers_flush(struct folio *folio)
{
<...
- cond_resched();
+ break;
...>
}
