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
